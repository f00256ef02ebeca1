"""SA-1B as a stream for Hugging Face's `datasets`: from tars, extracted files or prepared data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import logging
from etils import epath

from sa1b_tfds.core import extras
from sa1b_tfds.core.problems import OnError, Problems, check_on_error
from sa1b_tfds.examples.example import COLUMNS, Column, Example, in_pixels
from sa1b_tfds.examples.parts import Part, find_parts

if TYPE_CHECKING:
    import datasets
else:
    datasets = extras.load("datasets", "huggingface")


def streaming(
    paths: epath.PathLike | Sequence[epath.PathLike],
    config: str | None = None,
    on_error: OnError = "raise",
) -> datasets.IterableDataset:
    """An IterableDataset, as `load_dataset(..., streaming=True)` gives: nothing is prepared first.

    Each tar, extracted folder or prepared shard is one of its shards (`num_shards`), so that
    DataLoader workers and `datasets.distributed.split_dataset_by_node` share them out, and
    `shuffle(seed, buffer_size)` shuffles them and then images within its buffer.

    A row:
      image: a PIL image, decoded when it is looked at; `cast_column('image',
        datasets.Image(decode=False))` gives the JPEG's bytes.
      image_id, height, width (of the masks): int; file_name: str.
      masks: {'size': [H, W], 'counts': N compressed COCO RLEs}, as
        `sa1b_tfds.masks.rle.decode_rles` takes them.
      annotations: lists, item i for mask i: id, area, predicted_iou, stability_score; bbox,
        crop_box, [x, y, width, height] in pixels of the masks, as in SA-1B's JSON; point_coords,
        [x, y] in pixels of the masks.

    Args:
      paths: one or several of what `sa1b_tfds.examples.parts.find_parts` takes: tars, folders of
        tars or of extracted files, folders of prepared versions; or, with `config`, TFDS's
        data_dir.
      config: of prepared data in a data_dir, such as 'original'.
      on_error: 'raise' what is no example, or 'skip' it and name it in the log.

    Raises:
      FileNotFoundError: if there is nothing of that kind.
    """
    check_on_error(on_error)  # now, and not in a worker
    sources = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    parts = [part for source in sources for part in find_parts(source, config)]
    return datasets.IterableDataset.from_generator(
        _rows, features=_features(), gen_kwargs={"parts": parts, "on_error": on_error}
    )


def _rows(parts: list[Part], on_error: OnError) -> Iterator[dict[str, Any]]:
    for part in parts:
        problems = Problems(on_error)
        for example in part.examples(problems):
            yield _row(example)
        for problem in problems.found:
            logging.warning("Skipped: %s", problem)


def _row(example: Example) -> dict[str, Any]:
    counts, size = example.masks
    columns = in_pixels(example.annotations, size)
    return {
        "image": {"bytes": example.image, "path": example.file_name},
        "image_id": example.image_id,
        "file_name": example.file_name,
        "height": size[0],
        "width": size[1],
        "masks": {
            "size": list(size),
            "counts": [c.decode() for c in counts],
        },
        "annotations": {name: column.tolist() for name, column in columns.items()},
    }


def _features() -> datasets.Features:
    integer = datasets.Value("int64")
    return datasets.Features(
        {
            "image": datasets.Image(),
            "image_id": integer,
            "file_name": datasets.Value("string"),
            "height": integer,
            "width": integer,
            "masks": {
                "size": datasets.List(datasets.Value("int32"), length=2),
                "counts": datasets.List(datasets.Value("string")),
            },
            "annotations": {column.name: datasets.List(_of_mask(column)) for column in COLUMNS},
        }
    )


def _of_mask(column: Column) -> Any:
    """The feature of one mask's value."""
    value = datasets.Value(np.dtype(column.dtype).name)
    for length in reversed(column.shape):
        value = datasets.List(value, length=length)
    return value
