"""Where the pairs of an archive are, in under 50 bytes per image, so that any pair is read at once.

A tar has no table of contents. Its headers stand between its files: each costs a read, and in a
compressed tar all data must be inflated to find them. So they are read once and kept as `.index`
(`kept.py`). The index is made again if the tar's size or time of change differs, if the index's
checksum or format is wrong, or if it points outside the tar. Extracted folders are listed each
time.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from absl import logging
from tqdm import tqdm

from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.core.processes import ProcessDied, Processes, available_cores
from sa1b_tfds.core.text import counted
from sa1b_tfds.tars import kept
from sa1b_tfds.tars.archive import Archive, PairReader, TarArchive, index_of
from sa1b_tfds.tars.forms import Inflating, opened_forward
from sa1b_tfds.tars.inflate import MAX_INFLATED
from sa1b_tfds.tars.members import MAX_BYTES, Member
from sa1b_tfds.tars.pairs import Entry, Pair
from sa1b_tfds.tars.seek import (
    NoSeekPoints,
    has_seek_points,
    make_seek_points,
    refusal,
)

_KIND = kept.INDEX
_MAGIC = b"sa1b_tfds index 2\n"
_NOT_ONE = (
    "it is compressed and damaged, so no image of it can be read by its number: a build, read_tars"
    " and huggingface.streaming keep those before the damage"
)
_WORTH_PROCESSES = 4  # so many plain tars take as long as the processes take to start
_ROW = np.dtype(
    [
        ("jpeg_offset", "<u8"),
        ("json_offset", "<u8"),
        ("jpeg_size", "<u4"),
        ("json_size", "<u4"),
        ("jpeg_folder", "<u4"),
        ("json_folder", "<u4"),
        ("stem_end", "<u4"),
    ]
)


@dataclasses.dataclass(frozen=True, eq=False)
class PairIndex:
    """Where N pairs of one archive are, ordered by where each pair's second file is.

    Attributes:
      rows: _ROW [N]: offsets and sizes in bytes; the index in `folders` of each file's folder; and
        where the pair's name without suffix ends in `stems`.
      stems: the names without suffix, joined.
      folders: folder names, each with its last slash.
    """

    rows: np.ndarray
    stems: bytes
    folders: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Entry:
        """Returns pair i, 0 <= i < N."""
        if not 0 <= i < len(self):
            raise IndexError(f"pair {i} of {len(self)}")
        row = self.rows[i]
        # A name begins where the one before it ends, so that a row needs only one number for it.
        start = self.rows[i - 1]["stem_end"] if i else 0
        stem = self.stems[start : row["stem_end"]].decode("utf-8", "surrogateescape")
        return Entry(*(self._member(row, kind, stem) for kind in ("jpeg", "json")))

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> PairIndex:
        folders: dict[str, int] = {}
        rows: list[tuple[int, ...]] = []
        stems = bytearray()
        for jpeg, json in entries:
            split = [member.name.rpartition("/") for member in (jpeg, json)]
            numbers = (folders.setdefault(s[0] + s[1], len(folders)) for s in split)
            stems += split[0][2].removesuffix(".jpg").encode("utf-8", "surrogateescape")
            place = (jpeg.offset, json.offset, jpeg.size, json.size)
            rows.append((*place, *numbers, len(stems)))
        return cls(np.array(rows, _ROW), bytes(stems), tuple(folders))

    @property
    def end(self) -> int:
        """Where the last file ends in the plain tar, in bytes."""
        ends = [self.rows[f"{k}_offset"] + self.rows[f"{k}_size"] for k in ("jpeg", "json")]
        return int(np.max(ends, initial=0))

    def _member(self, row: np.void, kind: str, stem: str) -> Member:
        suffix = ".jpg" if kind == "jpeg" else ".json"
        name = self.folders[row[f"{kind}_folder"]] + stem + suffix
        return Member(name, int(row[f"{kind}_size"]), int(row[f"{kind}_offset"]))


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedArchive:
    """A tar or an extracted folder whose pairs are read in any order.

    It holds no open file, so it can be pickled, forked and shared by threads.
    """

    archive: PairReader
    index: PairIndex

    @property
    def name(self) -> str:
        return self.archive.name

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int) -> Pair:
        """Reads pair i, 0 <= i < len(self).

        Raises:
          IndexError: if there is no such pair.
          BadInput: if an extracted file can no longer be read.
          OSError: if the tar has changed since it was indexed.
        """
        [pair] = self.archive.read([self.index[i]], Problems())
        return pair


def index_archive(
    archive: Archive, problems: Problems | None = None, threads: int = 1
) -> IndexedArchive:
    """Indexes one archive, or loads its kept index if the archive has not changed.

    Args:
      archive: a tar or an extracted folder.
      problems: receives single files, torn tars and unsafe members, also from a kept index.
        Defaults to raising the first.
      threads: the number of threads that find the seek points of a compressed tar.

    Raises:
      NoSeekPoints: if a compressed tar cannot be read in any order.
    """
    return _indexed(archive, problems or Problems(), threads=threads)


def _indexed(
    archive: Archive, problems: Problems, found: _Found | None = None, threads: int = 1
) -> IndexedArchive:
    """As `index_archive`; `found` is the tar's kept index if it was loaded before."""
    if not isinstance(archive, TarArchive):
        # The index holds the paths of all files in a tenth of the memory, so the reader needs none.
        return IndexedArchive(archive.reader(), PairIndex.of(archive.index(problems)))
    found = _reported(archive, problems, found)
    if found.packed_end is not None and len(found.index):
        make_seek_points(archive.path, found.packed_end, found.index.end, threads)
    return IndexedArchive(archive, found.index)


def find_pairs(archive: Archive, problems: Problems) -> PairIndex:
    """As `index_archive`, but makes no seek points, so that the pairs may not be readable."""
    if not isinstance(archive, TarArchive):
        return PairIndex.of(archive.index(problems))
    return _reported(archive, problems).index


def index_all(
    archives: Sequence[Archive], problems: Problems | None = None
) -> list[IndexedArchive]:
    """Indexes archives as `index_archive` does; uses processes for tars that must be read for it.

    Once, a compressed tar of 11.3 GB takes one core a minute, and the headers of a plain one a
    second.
    """
    kept_indexes = [_kept(a) if isinstance(a, TarArchive) else None for a in archives]
    slow: list[TarArchive] = []
    plain: list[TarArchive] = []
    for archive, found in zip(archives, kept_indexes, strict=True):
        if isinstance(archive, TarArchive) and _is_slow(archive, found):
            (slow if archive.is_packed() else plain).append(archive)
    slow += plain if len(plain) >= _WORTH_PROCESSES else []
    cores = available_cores()
    with Processes(cores) as processes:
        threads = max(1, cores // max(1, len(slow)))
        made = {processes.submit(_make_all, archive, threads): archive for archive in slow}
        if made:
            logging.info("Looking for the images in %s, once.", counted(len(made), "tar"))
        bar = tqdm(
            concurrent.futures.as_completed(made),
            "indexing tars",
            len(made),
            unit="tar",
            file=sys.stderr,
            disable=not (made and sys.stderr.isatty()),
        )
        for future in bar:
            try:
                future.result()
            except ProcessDied as e:  # a crash in rapidgzip's C++, or no memory left
                if made[future] not in plain:  # those are read again below
                    raise refusal(made[future].path, str(e)) from e
    return [
        _indexed(archive, problems or Problems(), found)
        for archive, found in zip(archives, kept_indexes, strict=True)
    ]


def _is_slow(archive: TarArchive, found: _Found | None) -> bool:
    """Whether all of a tar must be read: its index, or a compressed one's seek points, is missing.

    found: its kept index.
    """
    if found is None:
        return True
    needs_points = found.packed_end is not None and len(found.index) > 0
    return needs_points and not has_seek_points(archive.path)


def _make_all(archive: TarArchive, threads: int) -> None:
    """Runs in a process: makes and keeps what `index_archive` then loads."""
    try:
        index_archive(archive, Problems("skip"), threads)
    except (NoSeekPoints, OSError):  # the parent's own attempt raises it again
        return


def count_pairs(archive: Archive) -> int:
    """Counts the pairs; other members do not matter."""
    if isinstance(archive, TarArchive) and archive.is_packed():
        return len((_kept(archive) or _made(archive)).index)
    return len(archive.index(Problems("skip")))


def kept_count(archive: Archive) -> int | None:
    """Returns the number of pairs in a tar's kept index; None if none is kept."""
    found = _kept(archive) if isinstance(archive, TarArchive) else None
    return None if found is None else len(found.index)


@dataclasses.dataclass(frozen=True)
class _Found:
    """The kept index of a tar; packed_end is where compressed data ends, None for a plain tar."""

    index: PairIndex
    problems: list[BadInput]
    packed_end: int | None


def _reported(archive: TarArchive, problems: Problems, found: _Found | None = None) -> _Found:
    found = found or _kept(archive) or _made(archive)
    for problem in found.problems:
        problems.report(archive.name, problem.member, problem.reason, type(problem))
    return found


def _kept(archive: TarArchive) -> _Found | None:
    if archive.is_unfinished(Problems("skip")):  # any kept index belongs to an earlier file
        return None
    stamp = kept.stamp_of(archive.path)
    return kept.load(archive.path, _KIND, lambda path: _parse(path.read_bytes(), stamp))


def _made(archive: TarArchive) -> _Found:
    stamp = kept.stamp_of(archive.path)
    met = Problems("skip")
    if archive.is_unfinished(met):
        return _Found(PairIndex.of([]), met.found, None)
    with opened_forward(archive.path) as (file, length):
        index = PairIndex.of(index_of(archive.name, file, length, met))
        packed_end = file.packed_end if isinstance(file, Inflating) else None
    torn = any(isinstance(problem, TornArchive) for problem in met.found)
    # Seek points are made for whole tars only, so no pair could be read by this index.
    if packed_end is not None and torn and len(index):
        met.report(archive.name, "", _NOT_ONE)
        index = PairIndex.of([])
    found = _Found(index, met.found, packed_end)
    if kept.stamp_of(archive.path) == stamp:
        kept.keep(archive.path, _KIND, _to_bytes(found, stamp))
    return found


def _to_bytes(found: _Found, stamp: tuple[int, int]) -> bytes:
    """-> the kept file: magic, a line of JSON, the rows, the names, the CRC-32 of all these."""
    index = found.index
    head = {
        "stamp": stamp,
        "packed_end": found.packed_end,
        "pairs": len(index),
        "folders": index.folders,
        "problems": [(p.member, p.reason, isinstance(p, TornArchive)) for p in found.problems],
    }
    content = b"".join(
        [_MAGIC, orjson.dumps(head), b"\n", np.ascontiguousarray(index.rows).tobytes(), index.stems]
    )
    return content + zlib.crc32(content).to_bytes(4, "little")


def _parse(content: bytes, stamp: tuple[int, int]) -> _Found:
    content, checksum = content[:-4], content[-4:]
    if not content.startswith(_MAGIC):
        raise ValueError("another format")
    if zlib.crc32(content).to_bytes(4, "little") != checksum:
        raise ValueError("a wrong checksum")
    line, _, body = content[len(_MAGIC) :].partition(b"\n")
    head: dict[str, Any] = orjson.loads(line)
    if tuple(head["stamp"]) != stamp:
        raise ValueError("the tar has changed")
    split = head["pairs"] * _ROW.itemsize
    rows = np.frombuffer(body[:split], _ROW)
    index = PairIndex(rows, body[split:], tuple(head["folders"]))
    packed_end = head["packed_end"]
    # Anyone can compute the checksum of a forged index, so its numbers are checked as well.
    length = stamp[0] if packed_end is None else MAX_INFLATED * stamp[0]
    if len(rows) != head["pairs"] or not _in_bounds(index, length):
        raise ValueError("it points out of the tar")
    found: list[BadInput] = []
    for member, reason, torn in head["problems"]:
        found.append((TornArchive if torn else BadInput)("", str(member), str(reason)))
    return _Found(index, found, packed_end)


def _in_bounds(index: PairIndex, length: int) -> bool:
    rows = index.rows
    for kind, limit in (("jpeg", MAX_BYTES[".jpg"]), ("json", MAX_BYTES[".json"])):
        offset, size = rows[f"{kind}_offset"], rows[f"{kind}_size"].astype(np.uint64)
        if (offset > length).any() or (size > limit).any() or (offset + size > length).any():
            return False
        if (rows[f"{kind}_folder"] >= len(index.folders)).any():
            return False
    ends = rows["stem_end"].astype(np.int64)
    if (np.diff(ends, prepend=0) < 0).any():
        return False
    return int(ends[-1] if len(ends) else 0) == len(index.stems)
