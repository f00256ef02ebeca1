"""Sidecars: columns that you add to SA-1B's images and masks, such as embeddings and captions.

A sidecar is a TFDS dataset of its own, beside the data. `map` makes it with a function, and `sa1b
sidecar import` of files. Then every reader takes `sidecars={"teacher": "path"}`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from etils import epath

from sa1b_tfds.core.problems import BadInput, OnError, check_on_error
from sa1b_tfds.examples.example import Example
from sa1b_tfds.segment_anything.find_builder import find_builder
from sa1b_tfds.sidecars import joining
from sa1b_tfds.sidecars.batches import decoded, rows_of_batches, rows_of_items
from sa1b_tfds.sidecars.columns import Columns, columns_of
from sa1b_tfds.sidecars.data_source import DataSource
from sa1b_tfds.sidecars.importing import Imported, KeyKind, table_of
from sa1b_tfds.sidecars.reading import Sidecar, Sidecars, open_sidecars
from sa1b_tfds.sidecars.row_index import MissingRows
from sa1b_tfds.sidecars.source import find_tars
from sa1b_tfds.sidecars.writing import MakeRows, SidecarWriter
from sa1b_tfds.training.config import TrainingConfig

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["MissingRows", "Sidecar", "data_source", "import_file", "join", "load", "map"]


def map(
    source: epath.PathLike,
    fn: Callable[[Any], Any],
    features: Mapping[str, Any],
    out: epath.PathLike,
    *,
    batch_size: int = 8,
    prepare: Callable[[Example], Any] | TrainingConfig = decoded,
    shard: tuple[int, int] = (0, 1),
    on_error: OnError = "raise",
    config: str | None = None,
) -> list[BadInput]:
    """Makes a sidecar: calls `fn` with all images, batch by batch, and stores what it returns.

    Each tar is written whole or not at all. Interrupted? Call it again: it continues with the tars
    that are left. More tars later? Call it again: it writes the new ones and adds them.

    Args:
      source: a tar; a folder of tars or of extracted files; the folder of a prepared version; or,
        with `config`, TFDS's data_dir. The sidecar serves all other forms of these images as well.
      fn: receives a batch of up to `batch_size` images, see `prepare`. Returns the values: a dict
        by column, or those of the only column. Each is an array or tensor [B, ...], or a
        list with one value for each image. A column with a row for each mask has values [N, ...].
        None in a list means that the image has no row.
      features: the columns: `tfds.features.Tensor`, `Scalar`, `Text`, `ClassLabel`, or a NumPy
        dtype. A column whose first dimension is None, or a `Sequence` of one of these, has one row
        for each mask.
      out: the folder of the sidecar. Its last part names the dataset.
      batch_size: the most images per call. Defaults to 8. A batch has images of one tar only.
      prepare: what a batch is. A `TrainingConfig`: the batches of `training_dataset`. A function:
        the list of what it makes of each `Example`, in threads; `SA1BDataset.item` makes torch's
        items. Defaults to the examples as dicts, with `image` decoded: uint8 [H, W, 3].
      shard: (i, n): write only the i-th of n parts of the tars. Processes with different i share
        the work. When all have ended, `join` makes one sidecar. Defaults to (0, 1): all tars, and
        the sidecar is joined at once.
      on_error: what happens to an image that cannot be read, has no row, or has values that do not
        fit: 'raise', or 'skip' and list it. Defaults to 'raise'.
      config: the config of prepared data in a data_dir, such as 'original'. Defaults to None.

    Returns:
      The images of this part that have no row, and why.

    Raises:
      BadInput: naming the first image without a row, if on_error is 'raise'.
      FileNotFoundError: if the source holds no images.
      FolderInUse: if another process writes the same tar, or joins the sidecar.
      ValueError: if an argument is invalid, or the sidecar exists with other columns.
    """
    check_on_error(on_error)
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (i, n) with 0 <= i < n, got {shard!r}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}.")
    columns = columns_of(features)
    writer = SidecarWriter(out=epath.Path(out), columns=columns, on_error=on_error)
    tars = find_tars(source, config)
    rows = _make_rows(fn, prepare, columns, batch_size)
    problems = writer.write(tars[index::count], rows)
    if count == 1:
        joining.join(writer.out, tars)
    return problems


def _make_rows(
    fn: Callable[[Any], Any],
    prepare: Callable[[Example], Any] | TrainingConfig,
    columns: Columns,
    batch_size: int,
) -> MakeRows:
    if not isinstance(prepare, TrainingConfig):
        return rows_of_items(fn, prepare, columns, batch_size)
    if prepare.moves_pixels:
        raise ValueError("prepare must not crop or mirror images: turn off flip and scale_range.")
    from sa1b_tfds.training.pipeline import batches_of_records

    config = dataclasses.replace(prepare, batch_size=batch_size)
    return rows_of_batches(fn, lambda make: batches_of_records(make, config), columns, batch_size)


def join(source: epath.PathLike, out: epath.PathLike, *, config: str | None = None) -> int:
    """Joins what `map` has written in several processes to one sidecar.

    Args:
      source, config: as `map` received them.
      out: the folder of the sidecar.

    Returns:
      The number of images with a row.

    Raises:
      ValueError: if a tar of the source is not written, or an image is in two tars.
      FolderInUse: if another process writes or joins this sidecar.
    """
    return sum(tar.images for tar in joining.join(epath.Path(out), find_tars(source, config)))


def import_file(
    file: epath.PathLike,
    source: epath.PathLike,
    out: epath.PathLike,
    *,
    key: KeyKind = "image_id",
    key_column: str | None = None,
    features: Mapping[str, Any] | None = None,
    fill: bool = False,
    on_error: OnError = "raise",
    config: str | None = None,
) -> Imported:
    """Makes a sidecar of a file's rows; `sa1b sidecar import` is this function.

    Memory does not grow with the number of rows: they are sorted on the disk, in `out`.

    Args:
      file: a CSV file; JSON lines (.jsonl); Parquet (.parquet), with the extra `parquet`; or a
        folder of .npy files, one for each key, whose column is `array`.
      source, out, config: see `map`.
      key: what the keys are: the 'image_id', such as 5 or 'sa_5.jpg'; the 'file_name' of the image;
        or the 'mask_id', the id of an annotation. Folders and extensions do not count. Defaults to
        'image_id'.
      key_column: the column with the key. Defaults to the kind of the key.
      features: the columns to take, as `map` has them; for 'mask_id', those of one mask. Defaults
        to all columns, as the first row has them. In CSV they are text then.
      fill: whether images and masks without a row get '', 0, or -1 for a label. Defaults to False:
        an image that lacks a row, or that of a mask, is an error.
      on_error: what happens to an image without a row, and to a repeated key: 'raise', or 'skip':
        leave the image out, and take the first row. Defaults to 'raise'.

    Returns:
      The images without a row, and the repeated and the unknown keys. Unknown keys are no error.

    Raises:
      BadInput: naming the first image without a row, if on_error is 'raise'.
      FileNotFoundError: if the file or the source is not there.
      ImportError: if the file is Parquet and the extra is not installed.
      ValueError: if an argument is invalid, a row is damaged, or a key is repeated.
    """
    table = table_of(epath.Path(file), key, key_column, features, fill)
    writer = SidecarWriter(
        out=epath.Path(out), columns=table.columns, on_error=check_on_error(on_error)
    )
    return table.write(writer, find_tars(source, config))


def load(
    source: Any,
    sidecars: Sidecars,
    *,
    split: str = "train",
    decoders: Any = None,
    data_dir: Any = None,
) -> tf.data.Dataset:
    """Reads prepared data with sidecars: the elements of `tfds.load`, and the columns.

    Images come in the order of the files. Shuffle the dataset after that: an image and its columns
    stay together.

    Args:
      source: a dataset's name ('segment_anything/original'), a TFDS builder, or the folder of a
        prepared version.
      sidecars: by the names that elements give them: `{"teacher": path}`, or a `Sidecar` in place
        of a path. The column of a sidecar has the key `teacher`; of several, each has the key
        `teacher/<column>`.
      split: a split of TFDS, such as 'train[:10%]'. Defaults to 'train'.
      decoders: as `tfds.load` takes them. Defaults to decoding everything.
      data_dir: where TFDS keeps prepared data. Defaults to TFDS's own folder.

    Returns:
      A dataset of dicts.

    Raises:
      FileNotFoundError: if the data or a sidecar is not there.
      MissingRows: if images have no row. The error names them.
      ValueError: if the data does not list its tars.
    """
    from sa1b_tfds.sidecars import loading

    builder = find_builder(source, data_dir)
    return loading.load(builder, open_sidecars(sidecars), split, decoders)


def data_source(
    source: Any,
    sidecars: Sidecars,
    *,
    split: str = "train",
    decoders: Any = None,
    data_dir: Any = None,
) -> DataSource:
    """Reads any element of prepared array_record data with its columns, without TensorFlow.

    Args:
      source, sidecars, split, data_dir: see `load`.
      decoders: as `tfds.data_source` takes them. Defaults to decoding everything.

    Returns:
      A sequence of the dicts of `tfds.data_source`, with NumPy arrays, numbers and bytes.

    Raises:
      FileNotFoundError: if the data or a sidecar is not there.
      MissingRows: if images have no row. The error names them.
      ValueError: if the data does not list its tars.
    """
    return DataSource(find_builder(source, data_dir), open_sidecars(sidecars), split, decoders)
