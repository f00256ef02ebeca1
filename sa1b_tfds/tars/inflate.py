"""gzip -> its content, read forward and checked to the end. Nothing here knows of tars.

The format is RFC 1952: one or several members, each with a header, deflated data (RFC 1951), a
CRC-32 and a length. isal inflates twice as fast as Python's zlib (benchmarks/inflate.py), which is
used where isal is not installed.
"""

from __future__ import annotations

import contextlib
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

_zlib: Any = zlib
with contextlib.suppress(ImportError):  # some machines have no wheel of isal
    from isal import isal_zlib as _zlib

MAGIC = b"\x1f\x8b"
# Compressed bytes per call of the inflater. If the data is broken, the output of one call is lost;
# 64 KiB is less than an image.
_READ = 64 * 2**10
# Inflated bytes per call. A zip bomb turns each byte into a thousand, which would fill the memory.
_MOST_AT_ONCE = 4 * 2**20
MAX_INFLATED = 1032  # the largest factor by which deflate can shrink anything
# Refuse bombs: tars of JPEGs and JSON inflate to 1.1 times their size. Tars of under 1 GiB are not
# held to it, because small ones of almost nothing inflate to far more.
_MAX_RATIO, _MAX_RATIO_FROM = 20, 2**30
_CHECKED_HEADER, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16  # flags in a member's header


def new_inflater(window: bytes = b"") -> Any:
    """Returns an object that inflates raw deflate data, with the interface of `zlib.decompressobj`.

    window: up to 32 KiB of inflated data before the start, to which the data may refer back.
    """
    # -15: raw deflate with the full window; `Inflated` reads the headers and checksums of gzip.
    return _zlib.decompressobj(-15, window) if window else _zlib.decompressobj(-15)


class Damaged(tarfile.ReadError):
    """A compressed file is cut off, or its checksum is wrong."""


class Readable(Protocol):
    """A binary file or a stream."""

    def read(self, count: int, /) -> bytes: ...


class Inflated:
    """The content of a gzip file, block by block.

    Args:
      file: the gzip file.
      size: the file's size in bytes, for messages. Defaults to unknown.
      ahead: bytes that were already read from the file.
      inflater: an inflater for a start in the middle of a member. That member's checksum is not
        checked. Defaults to a start at a header.

    Attributes:
      consumed: the compressed bytes inflated so far.
      end: where the last inflated member ended, in compressed bytes.
    """

    def __init__(
        self, file: Readable, size: int | None = None, ahead: bytes = b"", inflater: Any = None
    ):
        self.consumed = self.end = 0
        self._file = file
        self._size = size
        self._inflater = inflater
        self._ahead = ahead

    def blocks(self) -> Iterator[bytes]:
        """Yields all bytes, in order.

        Raises:
          Damaged: if it cannot continue, naming the byte in the compressed file. The blocks before
            are right, unless the message says that the checksum is wrong.
        """
        total = 0
        while True:
            # An inflater that was passed in starts inside the first member: there is no header,
            # and the checksum is of data that was not seen. Later members are whole.
            is_whole = self._inflater is None
            if is_whole:
                self._skip_header()
            inflater, self._inflater = self._inflater or new_inflater(), None
            start = self.consumed
            checksum = length = 0
            for block in self._blocks_of_member(inflater):
                checksum = _zlib.crc32(block, checksum)
                length += len(block)
                total += len(block)
                if total > max(_MAX_RATIO_FROM, _MAX_RATIO * self.consumed):
                    raise Damaged(
                        f"it inflates to over {_MAX_RATIO} times its size, as no tar of images does"
                    )
                yield block
            footer = self._take(8, "the checksum")
            self.end = self.consumed
            if is_whole:
                self._compare(footer, checksum, length, start)
            if not self._begins_another():
                return

    def _blocks_of_member(self, inflater: Any) -> Iterator[bytes]:
        while not inflater.eof:
            # The inflater stops at _MOST_AT_ONCE and keeps the input that it has not used yet.
            given = inflater.unconsumed_tail or self._next()
            if not given:
                raise Damaged(f"it ends at byte {self.consumed:,}, before its compressed data does")
            try:
                block = inflater.decompress(given, _MOST_AT_ONCE)
            except (zlib.error, _zlib.error) as e:
                of = "" if self._size is None else f" of {self._size:,}"
                raise Damaged(
                    f"it cannot be inflated beyond byte {self.consumed:,}{of} ({e})"
                ) from None
            if block:
                yield block
        self._give_back(inflater.unused_data)  # it stands after the member: checksum and length

    def _skip_header(self) -> None:
        at = self.consumed
        header = self._take(10, "a header")
        if header[:3] != MAGIC + b"\x08" or header[3] & 0xE0:
            raise Damaged(f"there is no gzip header at byte {at:,}")
        flags = header[3]
        if flags & _EXTRA:
            self._take(int.from_bytes(self._take(2, "a header"), "little"), "a header")
        for flag in (_NAME, _COMMENT):
            if flags & flag:
                self._skip_text("a header")
        if flags & _CHECKED_HEADER:
            self._take(2, "a header")

    def _compare(self, footer: bytes, checksum: int, length: int, start: int) -> None:
        where = f"what was compressed from byte {start:,} to {self.consumed:,}"
        if int.from_bytes(footer[:4], "little") != checksum:
            raise Damaged(f"the checksum of {where} is wrong: a byte in it has changed")
        if int.from_bytes(footer[4:], "little") != length % 2**32:
            raise Damaged(f"the length of {where} is wrong")

    def _begins_another(self) -> bool:
        """Whether another member follows; skips zeros, which some devices add."""
        at = self.consumed
        while following := self._next():
            rest = following.lstrip(b"\0")
            if 0 < len(rest) < len(MAGIC):  # the magic number is cut by the end of this read
                rest += self._next()
            self._give_back(rest)
            if rest.startswith(MAGIC):
                return True
            if rest:
                raise Damaged(f"the compressed data ends at byte {at:,}, but more follows it")
        return False

    def _next(self) -> bytes:
        given, self._ahead = self._ahead or self._file.read(_READ), b""
        self.consumed += len(given)
        return given

    def _give_back(self, rest: bytes) -> None:
        self._ahead = rest
        self.consumed -= len(rest)

    def _take(self, count: int, what: str) -> bytes:
        taken = b""
        while len(taken) < count:
            taken += self._some(what)
        if rest := taken[count:]:
            self._give_back(rest)
        return taken[:count]

    def _skip_text(self, what: str) -> None:
        """Skips a text and the zero that ends it."""
        while True:
            _, zero, rest = self._some(what).partition(b"\0")
            if zero:
                self._give_back(rest)
                return

    def _some(self, what: str) -> bytes:
        if not (given := self._next()):
            raise Damaged(f"it ends at byte {self.consumed:,}, in the middle of {what}")
        return given
