"""Where the pairs of an archive are, in under 50 bytes an image, so that any one is read at once.

A tar has no table of contents: its headers lie between its files, and finding them takes a read
each. They are read once and kept in `.<name>.index` beside the tar, or, where that folder cannot be
written, in `$XDG_CACHE_HOME/sa1b_tfds` (default `~/.cache/sa1b_tfds`). A kept index is a shortcut
and nothing to rely on: it is made again when the tar's size or time of change is another one, when
its checksum or format is wrong, or when it points out of the tar. Extracted folders are listed
anew each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson
from absl import logging
from etils import epath

from sa1b_tfds import files
from sa1b_tfds.problems import BadInput, Problems, TornArchive
from sa1b_tfds.tars.archive import Archive, Entry, Pair, TarArchive
from sa1b_tfds.tars.members import MAX_BYTES, Member

_MAGIC = b"sa1b_tfds index 1\n"
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
    """Where N pairs of one archive are, in the order in which their JPEGs lie.

    rows: [N], offsets and sizes in bytes; which of `folders` each file is in; and where its name
      without suffix ends in `stems`.
    stems: those names, one after the other.
    folders: with their last slash.
    """

    rows: np.ndarray
    stems: bytes
    folders: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Entry:
        """Pair i, 0 <= i < N."""
        if not 0 <= i < len(self):
            raise IndexError(f"pair {i} of {len(self)}")
        row = self.rows[i]
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

    def _member(self, row: np.void, kind: str, stem: str) -> Member:
        suffix = ".jpg" if kind == "jpeg" else ".json"
        name = self.folders[row[f"{kind}_folder"]] + stem + suffix
        return Member(name, int(row[f"{kind}_size"]), int(row[f"{kind}_offset"]))


@dataclasses.dataclass(frozen=True, eq=False)
class IndexedArchive:
    """A tar or an extracted folder whose pairs are read in any order.

    It holds no open file: it can be pickled, forked and used by several threads.
    """

    archive: Archive
    index: PairIndex

    @property
    def name(self) -> str:
        return self.archive.name

    def __len__(self) -> int:
        return len(self.index)

    def read(self, i: int) -> Pair:
        """Pair i, 0 <= i < len(self).

        Raises:
          IndexError: if there is no such pair.
          OSError: if the archive is not what it was when it was indexed.
        """
        [pair] = self.archive.read([self.index[i]])
        return pair


def index_archive(archive: Archive, problems: Problems | None = None) -> IndexedArchive:
    """Indexes one archive, by what was kept of it if that is still true.

    Args:
      archive: a tar or an extracted folder.
      problems: takes what is no pair, torn or unsafe, also when the index was kept; default: raise.
    """
    problems = problems or Problems()
    if not isinstance(archive, TarArchive):
        # The index has the paths of all files, in a tenth of the memory.
        return IndexedArchive(archive.reader(), PairIndex.of(archive.index(problems)))
    stamp = _stamp(archive)
    kept = next(filter(None, (_load(p, stamp) for p in _cache_paths(archive.path))), None)
    if kept is None:
        met = Problems("skip")
        kept = PairIndex.of(archive.index(met)), met.found
        if _stamp(archive) == stamp:
            _keep(archive, _to_bytes(*kept, stamp))
    index, found = kept
    for problem in found:
        problems.report(archive.name, problem.member, problem.reason, type(problem))
    return IndexedArchive(archive, index)


def _stamp(archive: TarArchive) -> list[int]:
    """Size and time of change, as finely as the file system tells it."""
    if files.is_local(archive.path):
        stat = os.stat(archive.path)
        return [stat.st_size, stat.st_mtime_ns]
    identity = archive.identity()
    if identity is None:
        raise FileNotFoundError(f"{archive.path} is not there.")
    return [identity["bytes"], identity["modified"] * 10**9]


def _cache_paths(tar: epath.Path) -> list[epath.Path]:
    """Where an index may lie, the best place first."""
    beside = tar.parent / f".{tar.name}.index"
    where = os.path.abspath(tar) if files.is_local(tar) else os.fspath(tar)
    digest = hashlib.sha256(where.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return [beside, epath.Path(cache).expanduser() / "sa1b_tfds" / f"{digest}.index"]


def _keep(archive: TarArchive, content: bytes) -> None:
    for path in _cache_paths(archive.path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_whole(path, content)
        except Exception as e:  # each kind of storage has its own; an index may go unkept
            logging.info("The index of %s cannot be kept in %s: %s", archive.name, path, e)
        else:
            return


def _to_bytes(index: PairIndex, found: list[BadInput], stamp: list[int]) -> bytes:
    """Magic, a line of JSON, the rows, the names, and the CRC-32 of all that."""
    head = {
        "stamp": stamp,
        "pairs": len(index),
        "folders": index.folders,
        "problems": [(p.member, p.reason, isinstance(p, TornArchive)) for p in found],
    }
    content = b"".join(
        [_MAGIC, orjson.dumps(head), b"\n", np.ascontiguousarray(index.rows).tobytes(), index.stems]
    )
    return content + zlib.crc32(content).to_bytes(4, "little")


def _load(path: epath.Path, stamp: list[int]) -> tuple[PairIndex, list[BadInput]] | None:
    """What was kept of a tar with this stamp; None if there is nothing that can be believed."""
    try:
        content = path.read_bytes()
    except Exception:  # not there, no right to read it, or no such storage
        return None
    try:
        return _parse(content, stamp)
    except (ValueError, TypeError, KeyError) as e:
        logging.info("%s is of no use and made again: %s", path, e)
        return None


def _parse(content: bytes, stamp: list[int]) -> tuple[PairIndex, list[BadInput]]:
    content, checksum = content[:-4], content[-4:]
    if not content.startswith(_MAGIC):
        raise ValueError("another format")
    if zlib.crc32(content).to_bytes(4, "little") != checksum:
        raise ValueError("a wrong checksum")
    line, _, body = content[len(_MAGIC) :].partition(b"\n")
    head: dict[str, Any] = orjson.loads(line)
    if head["stamp"] != stamp:
        raise ValueError("the tar has changed")
    split = head["pairs"] * _ROW.itemsize
    rows = np.frombuffer(body[:split], _ROW)
    index = PairIndex(rows, body[split:], tuple(head["folders"]))
    if len(rows) != head["pairs"] or not _in_bounds(index, stamp[0]):
        raise ValueError("it points out of the tar")
    found: list[BadInput] = []
    for member, reason, torn in head["problems"]:
        found.append((TornArchive if torn else BadInput)("", str(member), str(reason)))
    return index, found


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
