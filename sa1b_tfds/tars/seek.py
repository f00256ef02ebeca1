"""A compressed tar, read in any order: by seek points, some 4 MB apart, from which it can inflate.

A seek point is a place between two deflate blocks, and the 32 KiB before it, to which what follows
refers. They are found once (rapidgzip) and kept beside the tar, in 0.8 % of its size. A read goes
on from the last point before it: see benchmarks/torch_loader.py.

Deflate blocks begin at any bit, and an inflater at a byte. So it is given a few empty blocks first,
of as many bits as bring it to the bit at which the block begins.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.tars import kept
from sa1b_tfds.tars.forms import ForwardBlocks, is_packed
from sa1b_tfds.tars.inflate import Damaged, Inflated, new_inflater

_KIND = kept.SEEK
_MAGIC = b"sa1b_tfds seek points 1\n"
_WINDOW = 32 * 2**10
_POINT = np.dtype([("position", "<u8"), ("bit", "<u8"), ("window", "<u4"), ("crc", "<u4")])


class NoSeekPoints(OSError):
    """A compressed tar cannot be read in any order."""


@contextlib.contextmanager
def opened_anywhere(tar: epath.Path) -> Iterator[BinaryIO]:
    """Opens a tar in either form: gives the plain tar, as a file to seek and read in.

    Raises:
      NoSeekPoints: if it is compressed, and `make_seek_points` was not called.
    """
    if not is_packed(tar):
        with tar.open("rb") as file:
            yield file
        return
    points = _kept(tar, kept.stamp_of(tar))
    if points is None:
        raise refusal(tar, "its seek points are not there")
    with tar.open("rb") as packed, open(points.path, "rb") as windows:
        yield _Anywhere(packed, windows, points)  # type: ignore[misc]  # it has what is needed


def has_seek_points(tar: epath.Path) -> bool:
    """Whether the seek points of a compressed tar are there."""
    return _kept(tar, kept.stamp_of(tar)) is not None


def make_seek_points(tar: epath.Path, end: int, length: int, threads: int = 1) -> None:
    """Finds the seek points of a compressed tar and keeps them, if they are not there yet.

    Args:
      tar: a whole one.
      end: where its compressed data ends; what follows is padding.
      length: bytes that are read of the plain tar, at least.
      threads: that find them.

    Raises:
      NoSeekPoints: if they cannot be found, or kept.
    """
    stamp = kept.stamp_of(tar)
    if _kept(tar, stamp) is not None:
        return
    if not files.is_local(tar):
        raise refusal(tar, "it is not on a local disk")
    try:
        import rapidgzip
    except ImportError:
        raise refusal(tar, "rapidgzip is not installed, which finds its seek points") from None
    exported = io.BytesIO()
    try:
        with (
            open(tar, "rb") as file,
            rapidgzip.RapidgzipFile(_Beginning(file, end), parallelization=threads) as reader,
        ):
            reader.seek(0, os.SEEK_END)
            reader.export_index(exported)
        content = _to_bytes(exported.getbuffer(), stamp, length)
    except (ValueError, RuntimeError, struct.error) as e:  # of the library's C++, or of its index
        raise refusal(tar, f"its seek points were not found ({e})") from None
    if kept.stamp_of(tar) != stamp:
        raise refusal(tar, "it changed while its seek points were looked for")
    if not kept.keep(tar, _KIND, content):
        raise refusal(tar, "there is no place to keep its seek points")


def refusal(tar: epath.PathLike, why: str) -> NoSeekPoints:
    """What to raise, for a reason."""
    return NoSeekPoints(
        f"{os.fspath(tar)} is compressed with gzip and cannot be read in any order: {why}. Make a"
        f" plain tar of it: sa1b unpack {os.fspath(tar)}. What reads forward takes it as it is:"
        " builds, read_tars, huggingface.streaming."
    )


def forget_seek_points(tar: epath.Path) -> None:
    """Removes those of a tar that is compressed no more."""
    kept.forget(tar, _KIND)


class _Points(NamedTuple):
    """path: of the kept file. points: [P] of dtype _POINT. windows: where each lies in the file."""

    path: str
    points: np.ndarray
    windows: np.ndarray


class _Anywhere:
    """The plain tar inside of a compressed one, as a file to seek and read in."""

    def __init__(self, packed: BinaryIO, windows: BinaryIO, points: _Points):
        self._packed = packed
        self._windows = windows
        self._points = points
        self._position = 0

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, count: int) -> bytes:
        positions = self._points.points["position"]
        number = int(np.searchsorted(positions, self._position, "right")) - 1
        forward = self._from(number)
        try:
            forward.seek(self._position - int(positions[number]))
            data = forward.read(count)
        except Damaged as e:
            raise OSError(f"{self._packed.name}: {e}") from e
        self._position += len(data)
        return data

    def _from(self, number: int) -> ForwardBlocks:
        point = self._points.points[number]
        self._windows.seek(int(self._points.windows[number]))
        window = self._windows.read(int(point["window"]))
        if zlib.crc32(window) != point["crc"]:
            raise OSError(f"{self._points.path} is damaged: delete it, and it is made again.")
        byte, bit = divmod(int(point["bit"]), 8)
        self._packed.seek(byte)
        ahead = _primed(bit, self._packed.read(1)[0]) if bit else b""
        inflated = Inflated(self._packed, None, ahead, new_inflater(window))
        inflated.consumed = self._packed.tell() - len(ahead)  # for what is said of damage
        return ForwardBlocks(inflated.blocks())


class _Beginning(io.RawIOBase):
    """A file that ends at `end`."""

    def __init__(self, file: BinaryIO, end: int):
        self._file = file
        self._end = end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        return self._file.seek(start + offset)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._end - self._file.tell()))
        data = self._file.read(count)
        buffer[: len(data)] = data
        return len(data)


def _to_bytes(exported: memoryview, stamp: tuple[int, int], length: int) -> bytes:
    """What is kept: magic, a line of JSON, the points, the CRC-32 of that, and the windows.

    Args:
      exported: an index in the format of indexed_gzip, which rapidgzip writes: "GZIDX", version,
        flags, two sizes, spacing, window size, number of points; of each point its byte, its
        position in the plain file, how many bits of the byte before belong to it, and whether it
        has a window; then the windows.
    """
    head = struct.Struct("<5sBBQQIII")
    magic, version, _, _, size, _, window_size, number = head.unpack_from(exported)
    if (magic, version) != (b"GZIDX", 1) or size < length or window_size > _WINDOW:
        raise ValueError(f"an index of another format, or another file: {exported[:35].hex()}")
    row = np.dtype([("byte", "<u8"), ("position", "<u8"), ("bits", "u1"), ("has_window", "u1")])
    found = np.frombuffer(exported, row, number, head.size)
    rest = exported[head.size + found.nbytes :]
    points = np.zeros(number, _POINT)
    points["position"] = found["position"]
    points["bit"] = 8 * found["byte"] - found["bits"]
    points["window"] = np.where(found["has_window"], window_size, 0)
    stops = np.cumsum(points["window"], dtype=np.int64)
    points["crc"] = [
        zlib.crc32(rest[stop - size : stop])
        for stop, size in zip(stops.tolist(), points["window"].tolist(), strict=True)
    ]
    line = orjson.dumps({"stamp": stamp, "points": number}) + b"\n"
    table = _MAGIC + line + points.tobytes()
    return b"".join([table, zlib.crc32(table).to_bytes(4, "little"), rest[: stops[-1]]])


def _kept(tar: epath.Path, stamp: tuple[int, int]) -> _Points | None:
    return kept.load(tar, _KIND, functools.partial(_load, stamp=stamp))


def _load(path: epath.Path, stamp: tuple[int, int]) -> _Points:
    if not files.is_local(path):
        raise ValueError("it is not on a local disk")
    return _parse(os.fspath(path), os.stat(path).st_mtime_ns, stamp)


@functools.lru_cache(maxsize=4096)
def _parse(path: str, changed: int, stamp: tuple[int, int]) -> _Points:
    """Reads the table of a kept file; `changed` is when that changed, to read it but once."""
    with open(path, "rb") as file:
        magic, line = file.readline(), file.readline()
        head = orjson.loads(line)
        if magic != _MAGIC or tuple(head["stamp"]) != stamp:
            raise ValueError("another format, or another tar")
        table = file.read(head["points"] * _POINT.itemsize)
        checksum = zlib.crc32(magic + line + table).to_bytes(4, "little")
        if file.read(4) != checksum:
            raise ValueError("a wrong checksum")
        points = np.frombuffer(table, _POINT)
        windows = file.tell() + np.cumsum(points["window"], dtype=np.int64) - points["window"]
        if file.seek(0, os.SEEK_END) != int(windows[-1]) + int(points["window"][-1]):
            raise ValueError("another length")
    return _Points(path, points, windows)


def _primed(bit: int, byte: int) -> bytes:
    """Empty deflate blocks, and then `byte` from its bit on: what an inflater is to begin with."""
    bits, count = _empty_blocks(bit)
    return (bits | byte >> bit << count).to_bytes((count + 8 - bit) // 8, "little")


@functools.cache
def _empty_blocks(bit: int) -> tuple[int, int]:
    """Deflate blocks without content (RFC 1951), of 8 n + `bit` bits: (the bits, their number).

    One with fixed codes takes 10 bits. That is always an even number, so an odd one begins with a
    block of 95 bits, whose codes are its own.
    """
    blocks = _Bits()
    if bit % 2:
        blocks.number(0b100, 3)  # not the last block; dynamic codes
        blocks.number(0, 5 + 5)  # 257 literals and lengths, 1 distance
        blocks.number(18 - 4, 4)
        # The code of code lengths: 0 -> "0", 1 -> "10", 18 -> "11".
        bits_of = {0: 1, 1: 2, 18: 2}
        for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1):
            blocks.number(bits_of.get(symbol, 0), 3)
        # Literal 0 and the end of the block (256) have one bit each: "0", "1".
        blocks.code("10")
        for zeros in (138, 117):
            blocks.code("11")
            blocks.number(zeros - 11, 7)
        blocks.code("10")
        blocks.code("0")
        blocks.code("1")  # the end of the block
    while blocks.count % 8 != bit:
        blocks.number(0b010, 3)  # not the last block; fixed codes
        blocks.code("0000000")  # the end of the block
    return blocks.bits, blocks.count


class _Bits:
    """Bits as deflate packs them, the first one lowest."""

    def __init__(self) -> None:
        self.bits = self.count = 0

    def number(self, value: int, count: int) -> None:
        """The lowest bit first."""
        self.bits |= value << self.count
        self.count += count

    def code(self, bits: str) -> None:
        """A Huffman code, in the order in which it is written."""
        self.number(int(bits[::-1], 2), len(bits))
