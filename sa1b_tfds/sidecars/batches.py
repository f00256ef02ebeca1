"""A user's function over batches of images -> the rows of a sidecar. No TensorFlow here."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sa1b_tfds.core.ahead import in_order, in_thread
from sa1b_tfds.core.processes import available_cores
from sa1b_tfds.examples import jpeg, records
from sa1b_tfds.examples.example import Example
from sa1b_tfds.sidecars.columns import Columns, as_array
from sa1b_tfds.sidecars.source import SourceTar
from sa1b_tfds.sidecars.writing import ImageRow, MakeRows

# A batch -> its values: by column, or those of the only column.
RowFunction = Callable[[Any], Any]


def decoded(example: Example) -> dict[str, Any]:
    """An example as a dict with its pixels: `image` is uint8 [H, W, 3]."""
    return {**example.as_dict(), "image": jpeg.decode(example.image)}


def rows_of_items(
    fn: RowFunction, prepare: Callable[[Example], Any], columns: Columns, batch_size: int
) -> MakeRows:
    """Makes rows with `fn` from lists of what `prepare` makes of each image, in threads."""

    def prepared(examples: Iterator[Example]) -> Iterator[tuple[Example, Any]]:
        with ThreadPoolExecutor(available_cores()) as pool:
            futures = (pool.submit(_with, prepare, example) for example in examples)
            yield from in_order(futures, batch_size)

    def make_rows(tar: SourceTar, examples: Iterator[Example]) -> Iterator[ImageRow]:
        del tar
        items = in_thread(lambda: prepared(examples), batch_size)
        while batch := list(itertools.islice(items, batch_size)):
            counts = [(example.image_id, len(example.masks.counts)) for example, _ in batch]
            yield from rows_of(counts, fn([item for _, item in batch]), columns)

    return make_rows


def rows_of_batches(
    fn: RowFunction,
    batches: Callable[[Callable[[], Iterator[bytes]]], Iterable[Any]],
    columns: Columns,
    batch_size: int,
) -> MakeRows:
    """Makes rows with `fn` from batches of records.

    Args:
      fn: receives a batch.
      batches: makes batches of all records, in their order.
      columns: of the sidecar.
      batch_size: of all batches but the last.
    """

    def make_rows(tar: SourceTar, examples: Iterator[Example]) -> Iterator[ImageRow]:
        del tar
        counts: list[tuple[int, int]] = []  # of the images that are not in a batch yet

        def serialised() -> Iterator[bytes]:
            for example in examples:
                counts.append((example.image_id, len(example.masks.counts)))
                yield records.serialise(example)

        for batch in batches(serialised):
            own = counts[:batch_size]
            del counts[:batch_size]
            yield from rows_of(own, fn(batch), columns)

    return make_rows


def _with(prepare: Callable[[Example], Any], example: Example) -> tuple[Example, Any]:
    return example, prepare(example)


def rows_of(images: Sequence[tuple[int, int]], result: Any, columns: Columns) -> Iterator[ImageRow]:
    """Divides what a function returned for a batch into rows.

    Args:
      images: (image id, number of masks) of each.
      result: the values by column, or those of the only column: an array with a row for each image,
        or a list with a value for each image. None in a list is an image without a row.
      columns: of the sidecar.

    Raises:
      ValueError: if it has other columns, or another number of images.
    """
    if not isinstance(result, Mapping):
        if len(columns.names) != 1:
            raise ValueError(
                f"The function must return a dict with the columns {columns.names}, it returned"
                f" {type(result).__name__}."
            )
        result = {columns.names[0]: result}
    if result.keys() != set(columns.names):
        raise ValueError(
            f"The function must return the columns {columns.names}, it returned {sorted(result)}."
        )
    values = {n: v if isinstance(v, list | tuple) else as_array(v) for n, v in result.items()}
    for name, of_images in values.items():
        if len(of_images) != len(images):
            raise ValueError(
                f"The function must return one value for each of {len(images)} images, for column"
                f" {name!r} it returned {len(of_images)}."
            )
    for i, (image_id, mask_count) in enumerate(images):
        row = {name: of_images[i] for name, of_images in values.items()}
        lacks = any(value is None for value in row.values())
        yield ImageRow(image_id, mask_count, None if lacks else row)
