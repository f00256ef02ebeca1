"""Files with values by key, row by row: CSV, JSON lines, Parquet, or a folder of NumPy arrays."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from etils import epath

from sa1b_tfds.core import extras

FILE_NAME, ARRAY = "file_name", "array"  # the columns of a folder of arrays
_BATCH = 1024  # rows of Parquet at a time


def rows_in(path: epath.Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file, one after the other.

    A folder of arrays has the rows `file_name`, of the array, and `array`, its path.

    Raises:
      FileNotFoundError: if there is nothing.
      ImportError: if Parquet cannot be read here.
      ValueError: if the file is of another kind, or a line is damaged.
    """
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there.")
    if path.suffix not in _KINDS:
        raise ValueError(
            f"{path} is none of the files that can be read: {', '.join(_KINDS)}, or a folder with"
            " a .npy file for each key."
        )
    return _KINDS[path.suffix](path)


def _of_csv(path: epath.Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.DictReader(text, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError("it has another number of fields than the first line")
                yield row
        except (csv.Error, UnicodeDecodeError, ValueError) as e:
            raise ValueError(f"{path}, line {reader.line_num}: {e}") from e


def _of_jsonl(path: epath.Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as e:
                raise ValueError(f"{path}, line {number}: it is not JSON: {e}") from e
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: it is not a JSON object")
            yield row


def _of_parquet(path: epath.Path) -> Iterator[dict[str, Any]]:
    parquet = extras.load("pyarrow.parquet", "parquet")
    with path.open("rb") as file:
        for batch in parquet.ParquetFile(file).iter_batches(_BATCH):
            yield from batch.to_pylist()


def _of_folder(path: epath.Path) -> Iterator[dict[str, Any]]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _of_folder(epath.Path(entry.path))
            elif entry.name.endswith(".npy"):
                yield {FILE_NAME: entry.name, ARRAY: entry.path}


_KINDS: Mapping[str, Callable[[epath.Path], Iterator[dict[str, Any]]]] = {
    ".csv": _of_csv,
    ".jsonl": _of_jsonl,
    ".ndjson": _of_jsonl,
    ".parquet": _of_parquet,
}


def value_in(path: epath.Path, stored: Any) -> Any:
    """A value of a row: an array is read from its file."""
    if not path.is_dir():
        return stored
    try:
        return np.load(stored, allow_pickle=False)
    except ValueError as e:
        raise ValueError(f"{stored}: {e}") from e


def first_row(path: epath.Path) -> dict[str, Any]:
    """Raises a ValueError if the file has no row."""
    rows = list(itertools.islice(rows_in(path), 1))
    if not rows:
        raise ValueError(f"{path} has no row.")
    return rows[0]
