"""Reads a compressed tar in any order, by seek points about 4 MB apart.

A seek point is a place between two deflate blocks. It comes with the window, the 32 KiB of data
before it, because the blocks after it refer back into that. rapidgzip finds the points once; they
are kept beside the tar, in 0.8 % of its size. A read inflates from the last point before its place:
see benchmarks/torch_loader.py.

A deflate block may begin at any bit, but an inflater begins at a byte. So the inflater first gets a
few empty blocks that we make, with as many bits as lead it to the bit at which the block begins.
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

from sa1b_tfds.core import files, ranges
from sa1b_tfds.tars import kept
from sa1b_tfds.tars.forms import ForwardBlocks, is_packed
from sa1b_tfds.tars.inflate import Damaged, Inflated, new_inflater

_KIND = kept.SEEK
_MAGIC = b"sa1b_tfds seek points 1\n"
_WINDOW = 32 * 2**10  # the farthest that deflate refers back
# position: in the plain tar, in bytes; bit: in the compressed one, in bits; window: its length;
# crc: the window's CRC-32.
_POINT = np.dtype([("position", "<u8"), ("bit", "<u8"), ("window", "<u4"), ("crc", "<u4")])


class NoSeekPoints(OSError):
    """A compressed tar cannot be read in any order."""


@contextlib.contextmanager
def opened_anywhere(tar: epath.Path) -> Iterator[BinaryIO]:
    """Opens a tar in either form, for a `with` block.

    Yields:
      The plain tar, as a file with `seek` and `read`.

    Raises:
      NoSeekPoints: if it is compressed and its seek points are not kept.
    """
    if not is_packed(tar):
        with ranges.opened(tar, ahead=0) as file:
            yield file
        return
    points = _kept(tar, kept.stamp_of(tar))
    if points is None:
        raise refusal(tar, "its seek points are not there")
    with ranges.opened(tar) as packed, open(points.path, "rb") as windows:
        # It has `seek` and `read`, the only methods of a BinaryIO that are used.
        yield _Anywhere(packed, windows, points)  # type: ignore[misc]


def has_seek_points(tar: epath.Path) -> bool:
    """Whether the seek points of a compressed tar are kept."""
    return _kept(tar, kept.stamp_of(tar)) is not None


def make_seek_points(tar: epath.Path, end: int, length: int, threads: int = 1) -> None:
    """Finds and keeps the seek points of a compressed tar, unless they are kept already.

    Args:
      tar: a whole compressed tar.
      end: where its compressed data ends, in bytes. Padding may follow.
      length: the bytes of the plain tar up to the end of the last pair.
      threads: the number of threads that search.

    Raises:
      NoSeekPoints: if they cannot be found or kept.
    """
    stamp = kept.stamp_of(tar)
    if _kept(tar, stamp) is not None:
        return
    if not files.is_local(tar):
        raise refusal(tar, "it is not on a local disk")
    try:
        import rapidgzip
    except ImportError:
        why = "rapidgzip, which finds its seek points, is not installed"
        raise refusal(tar, why) from None
    exported = io.BytesIO()
    try:
        with (
            open(tar, "rb") as file,
            rapidgzip.RapidgzipFile(_Beginning(file, end), parallelization=threads) as reader,
        ):
            reader.seek(0, os.SEEK_END)
            reader.export_index(exported)
        content = _to_bytes(exported.getbuffer(), stamp, length)
    except (ValueError, RuntimeError, struct.error) as e:  # rapidgzip's C++, or an unknown index
        raise refusal(tar, f"its seek points were not found ({e})") from None
    if kept.stamp_of(tar) != stamp:
        raise refusal(tar, "it changed while its seek points were searched")
    if not kept.keep(tar, _KIND, content):
        raise refusal(tar, "its seek points cannot be written anywhere")


def refusal(tar: epath.PathLike, why: str) -> NoSeekPoints:
    """Returns the error for a tar that cannot be read in any order, and why."""
    return NoSeekPoints(
        f"{os.fspath(tar)} is compressed with gzip and cannot be read in any order: {why}. Make a"
        f" plain tar of it: sa1b unpack {os.fspath(tar)}. Builds, read_tars and"
        " huggingface.streaming read it as it is."
    )


def forget_seek_points(tar: epath.Path) -> None:
    """Removes the kept seek points of a tar that is now plain."""
    kept.forget(tar, _KIND)


class _Points(NamedTuple):
    """The seek points of a tar, without their windows.

    path: the kept file.
    points: _POINT [P].
    windows: int64 [P], where each point's window begins in the kept file.
    """

    path: str
    points: np.ndarray
    windows: np.ndarray


class _Anywhere:
    """The plain tar in a compressed one, as a file with `seek` and `read`."""

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
            raise OSError(f"{self._points.path} is damaged. Delete it; it will be made again.")
        byte, bit = divmod(int(point["bit"]), 8)
        self._packed.seek(byte)
        # The block begins inside this byte: the inflater gets empty blocks and the byte's rest.
        ahead = _primed(bit, self._packed.read(1)[0]) if bit else b""
        inflated = Inflated(self._packed, None, ahead, new_inflater(window))
        # Messages about damage count from the start of the tar, and without the empty blocks.
        inflated.consumed = self._packed.tell() - len(ahead)
        return ForwardBlocks(inflated.blocks())


class _Beginning(io.RawIOBase):
    """A file without what stands after `end`: the padding after the compressed data."""

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
    """-> the kept file: magic, a line of JSON, the points, the CRC-32 of these, and the windows.

    Args:
      exported: rapidgzip's index, in the format of indexed_gzip: "GZIDX", version, flags, two
        sizes, spacing, window size, number of points; for each point its byte, its position in the
        plain file, how many bits of the byte before belong to it, and whether it has a window; then
        the windows.
      stamp: the tar's size and time of change.
      length: the least size of the plain file.
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
    points["bit"] = 8 * found["byte"] - found["bits"]  # the bits are the last of the byte before
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
    """Reads the table of a kept file. `changed`, its time of change, is only a key of the cache."""
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
    """Returns empty deflate blocks and then the bits of `byte` from `bit` on, in whole bytes."""
    bits, count = _empty_blocks(bit)
    # count is 8 n + bit, so the 8 - bit bits that are left of the byte end at a byte again.
    return (bits | byte >> bit << count).to_bytes((count + 8 - bit) // 8, "little")


@functools.cache
def _empty_blocks(bit: int) -> tuple[int, int]:
    """Deflate blocks without content (RFC 1951), 8 n + `bit` bits long: (the bits, their number).

    An empty block with fixed codes has 10 bits, so any number of them is even. For an odd `bit`, a
    block of 95 bits with codes of its own stands before them.
    """
    blocks = _Bits()
    if bit % 2:
        blocks.number(0b100, 3)  # not the last block; dynamic codes
        blocks.number(0, 5 + 5)  # 257 literals and lengths, 1 distance
        blocks.number(18 - 4, 4)  # 18 code lengths follow, in the order that the RFC sets
        # The code of code lengths: 0 -> "0", 1 -> "10", 18 -> "11".
        bits_of = {0: 1, 1: 2, 18: 2}
        for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1):
            blocks.number(bits_of.get(symbol, 0), 3)
        # Literal 0 and the end of the block (256) have one bit each: "0", "1". Between them are 255
        # symbols without a code, written as two runs of zeros.
        blocks.code("10")  # literal 0
        for zeros in (138, 117):
            blocks.code("11")
            blocks.number(zeros - 11, 7)
        blocks.code("10")  # the end of the block, 256
        blocks.code("0")  # the one distance: no code
        # That was the head; the block's content is only its end.
        blocks.code("1")
    while blocks.count % 8 != bit:
        blocks.number(0b010, 3)  # not the last block; fixed codes (written lowest bit first)
        blocks.code("0000000")  # the end of the block
    return blocks.bits, blocks.count


class _Bits:
    """A string of bits, packed as deflate packs them: the first one is the lowest."""

    def __init__(self) -> None:
        self.bits = self.count = 0

    def number(self, value: int, count: int) -> None:
        """Adds a number of `count` bits, its lowest bit first."""
        self.bits |= value << self.count
        self.count += count

    def code(self, bits: str) -> None:
        """Adds a Huffman code, its first character first."""
        self.number(int(bits[::-1], 2), len(bits))
