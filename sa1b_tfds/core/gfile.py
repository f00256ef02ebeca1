"""TensorFlow's files of an object store (gs://), with the methods that Python's files have.

epath gives them as context managers without `close`, whose `seek` does not return where it is.
TensorFlow fetches 64 MiB a request, and sends a file when it is closed.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.positioned import Positioned

_BUFFER = 2**20  # a read of TensorFlow's takes longer than one of Python's buffer


def opened(path: epath.PathLike, buffer: int = _BUFFER) -> BinaryIO:
    """Opens a file of TensorFlow's to read.

    buffer: the bytes that are taken from TensorFlow at least. 0 takes what is read.
    """
    # Both have all methods of a BinaryIO that are used.
    return io.BufferedReader(_Reading(path), buffer) if buffer else _Reading(path)  # type: ignore[return-value]


def opened_to_write(path: epath.PathLike) -> Any:
    """Opens a new file to write, in any storage."""
    return _gfile(path, "wb") if files.is_of_tensorflow(path) else epath.Path(path).open("wb")


def _gfile(path: epath.PathLike, mode: str) -> Any:
    import tensorflow as tf

    return tf.io.gfile.GFile(os.fspath(path), mode)


class _Reading(Positioned):
    def __init__(self, path: epath.PathLike):
        super().__init__(files.stat_of(path).bytes)
        self._file = _gfile(path, "rb")
        self._files_position = 0

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._size:
            return 0
        if self._position != self._files_position:
            self._file.seek(self._position)
        data = self._file.read(min(len(buffer), self._size - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        self._files_position = self._position
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
