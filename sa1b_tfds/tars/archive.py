"""Where SA-1B lies on disk: tars or extracted folders -> pairs of (jpeg, json) bytes.

Nothing is ever extracted: a tar's headers are read into an index, and then each pair is read by its
offsets, whatever the order of its files; a compressed tar is read forward instead, or by its seek
points. No path from a tar chooses where anything is written, and no size is believed before it was
compared with a limit and with the file.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Protocol

from absl import logging
from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.problems import Problems, TornArchive
from sa1b_tfds.tars.forms import is_packed, opened_forward
from sa1b_tfds.tars.members import (
    MAX_BYTES,
    ForwardFile,
    Member,
    members,
    report_damage,
    report_torn,
    suffix_of,
    too_large,
)
from sa1b_tfds.tars.names import STATE_FILES, is_other_dataset, is_tar_name, tar_number
from sa1b_tfds.tars.pairs import Entry, Pair, pair_up
from sa1b_tfds.tars.seek import opened_anywhere
from sa1b_tfds.tars.stream import stream_pairs

_MAX_DEPTH = 4  # of folders below the one that is searched
_LAYOUT_FOLDERS = ("images", "annotations")
# What reading one extracted file can fail of, while the others are there.
_OF_ONE_FILE = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ELOOP,
    errno.EIO,
    errno.ENXIO,
)


class PairReader(Protocol):
    """What pairs are read from, once it is known where they are."""

    name: str

    def read(self, entries: Iterable[Entry], problems: Problems) -> Iterator[Pair]:
        """Yields the pairs of these entries, in their order.

        A pair of extracted files of which one cannot be read any more is left out and reported. A
        tar that cannot be read is an OSError.
        """


class Archive(PairReader, Protocol):
    """A tar, or an extracted folder."""

    def is_packed(self) -> bool:
        """Whether it is compressed, so that its pairs are read forward; or not there yet."""

    def identity(self) -> dict[str, int] | None:
        """What changes when the archive does, without reading it; None if it is not there."""

    def index(self, problems: Problems) -> list[Entry]:
        """Finds every pair; reports what is no pair, torn or unsafe.

        They are in the order in which `pairs` yields them.
        """

    def reader(self) -> Archive:
        """What `read` needs of it and no more, to be sent to other processes with entries."""

    def pairs(self, problems: Problems) -> Iterator[Pair]:
        """Yields every pair, in the order in which they become whole; reports as `index` does."""


def find_archives(root: epath.PathLike) -> list[Archive]:
    """Finds `sa_*.tar` (or .tar.gz, .tgz) in a folder and its subfolders, else extracted files.

    Extracted files are grouped by their folder; `images/` and `annotations/` beside each other
    count as one. Where there are tars, files that lie about loose are left alone.

    Returns:
      The archives, ordered by name; empty if there is nothing of either kind.
    """
    root = epath.Path(root)
    tars: list[Archive] = []
    folders: dict[str, list[str]] = {}
    for path in _files(root, _MAX_DEPTH):
        relative = path.relative_to(root)
        if is_tar_name(path.name):
            tars.append(TarArchive(path, str(relative)))
        elif path.suffix in MAX_BYTES:
            parts = [part for part in relative.parent.parts if part not in _LAYOUT_FOLDERS]
            folders.setdefault("/".join(parts) or ".", []).append(os.fspath(path))
    if tars and folders:
        logging.warning("Reading the tars in %s; the loose files there are left out.", root)
    found = tars or [FolderArchive(name, files) for name, files in folders.items()]
    return sorted_by_name(found)


def sorted_by_name(archives: Iterable[Archive]) -> list[Archive]:
    """By file name, and then by folder: the order in which a dataset has its archives."""
    return sorted(archives, key=lambda archive: archive.name.rpartition("/")[::-1])


def archives_at(path: epath.PathLike) -> list[Archive]:
    """The tar at `path`, or what `find_archives` finds in a folder there; empty if nothing is."""
    path = epath.Path(path)
    if path.is_dir():
        return find_archives(path)
    return [TarArchive(path)] if path.exists() else []


def number_of(archive: Archive) -> int | None:
    """The number in a tar's name: 20 for sa_000020.tar, and for its extracted folder."""
    base = archive.name.rpartition("/")[2]
    return tar_number(base if is_tar_name(base) else f"{base}.tar")


def identity_of(path: epath.Path) -> dict[str, int] | None:
    """What changes when a file does, without reading it; None if it is not there."""
    if not path.exists():
        return None
    stat = files.stat_of(path)
    return {"bytes": stat.bytes, "modified": stat.modified}


class TarArchive:
    """A tar with `sa_<id>.jpg` and `sa_<id>.json` in any order, plain or compressed."""

    def __init__(self, path: epath.PathLike, name: str | None = None):
        self._path = epath.Path(path)
        self.name = _text(name or self._path.name)

    @property
    def path(self) -> epath.Path:
        return self._path

    def is_packed(self) -> bool:
        """Whether it is compressed: `index` inflates all of it, and `read` needs seek points.

        A tar that is not there is one to download, and comes compressed.
        """
        try:
            return is_packed(self._path)
        except FileNotFoundError:
            return True

    def identity(self) -> dict[str, int] | None:
        return identity_of(self._path)

    def is_unfinished(self, problems: Problems) -> bool:
        """Whether a download of another program has not ended; then that is reported."""
        for suffix, program in STATE_FILES.items():
            state = f"{os.fspath(self._path)}{suffix}"
            if files.is_local(self._path) and os.path.exists(state):
                reason = (
                    f"{program} has not finished downloading it, because {os.path.basename(state)}"
                    f" is beside it: let {program} finish it. If the tar is complete, delete that"
                    " file"
                )
                problems.report(self.name, "", reason, TornArchive)
                return True
        return False

    def index(
        self, problems: Problems, on_inflated: Callable[[int], None] = lambda size: None
    ) -> list[Entry]:
        if self.is_unfinished(problems):
            return []
        with opened_forward(self._path, on_inflated) as (file, length):
            return index_of(self.name, file, length, problems)

    def read(self, entries: Iterable[Entry], problems: Problems) -> Iterator[Pair]:
        rest = iter(entries)
        if (first := next(rest, None)) is None:  # a tar without pairs has no seek points
            return
        with opened_anywhere(self._path) as file:
            yield from read_pairs(file, itertools.chain([first], rest))

    def reader(self) -> TarArchive:
        return self

    def pairs(
        self, problems: Problems, on_inflated: Callable[[int], None] = lambda size: None
    ) -> Iterator[Pair]:
        if not self.is_packed():
            yield from self.read(self.index(problems), problems)
            return
        if self.is_unfinished(problems):
            return
        with opened_forward(self._path, on_inflated) as (file, length):
            yield from stream_pairs(self.name, file, length, problems)


class FolderArchive:
    """Extracted files: all in one folder, or apart in images/ and annotations/."""

    def __init__(self, name: str, files: Iterable[epath.PathLike]):
        self.name = _text(name)
        # Strings take a third of the memory of path objects, and there may be millions.
        self._files = sorted(map(os.fspath, files))

    def is_packed(self) -> bool:
        return False

    def identity(self) -> dict[str, int] | None:
        number = size = modified = 0
        for path in self._files:
            with contextlib.suppress(OSError):  # `index` reports it
                stat = files.stat_of(path)
                number += 1
                size += stat.bytes
                modified = max(modified, stat.modified)
        return {"files": number, "bytes": size, "modified": modified} if number else None

    def index(self, problems: Problems) -> list[Entry]:
        return pair_up(self.name, self._members(problems), problems)

    def read(self, entries: Iterable[Entry], problems: Problems) -> Iterator[Pair]:
        for jpeg, json in entries:
            image, annotations = (self._content(m.name, problems) for m in (jpeg, json))
            if image is not None and annotations is not None:
                yield Pair(image, annotations, jpeg.name, json.name)

    def reader(self) -> FolderArchive:
        return FolderArchive(self.name, ())  # the entries have the paths

    def pairs(self, problems: Problems) -> Iterator[Pair]:
        return self.read(self.index(problems), problems)

    def _content(self, path: str, problems: Problems) -> bytes | None:
        try:
            return epath.Path(path).read_bytes()
        except OSError as e:
            if e.errno not in _OF_ONE_FILE:
                raise
            problems.report(self.name, path, f"it cannot be read: {e.strerror}")
            return None

    def _members(self, problems: Problems) -> Iterator[Member]:
        for path in self._files:
            try:
                stat = files.stat_of(path)
            except OSError as e:
                problems.report(self.name, path, f"it cannot be read: {e.strerror or e}")
                continue
            if not stat.is_file:  # to open a pipe would wait for ever
                problems.report(self.name, path, "it is not a regular file")
            elif stat.bytes > (limit := MAX_BYTES[suffix_of(path)]):
                problems.report(self.name, path, too_large(stat.bytes, limit))
            elif files.is_local(path) and not os.access(path, os.R_OK):
                why = os.strerror(errno.EACCES)
                problems.report(self.name, path, f"it cannot be read: {why}")
            else:
                yield Member(path, stat.bytes)


def index_of(
    archive: str, file: ForwardFile, length: int | None, problems: Problems
) -> list[Entry]:
    """Finds every pair of an open tar, in the order in which they become whole.

    Args:
      archive: the tar's name, for what is reported.
      file: a plain tar.
      length: in bytes, None if unknown; then each member is gone through.
      problems: takes what is no pair, torn or unsafe.
    """
    found = members(archive, file, length, problems)
    if length is None:
        found = _whole(archive, file, found, problems)
    return pair_up(archive, found, problems)


def _whole(
    archive: str, file: ForwardFile, found: Iterable[Member], problems: Problems
) -> Iterator[Member]:
    """Those of which the last byte is there; the first that is not ends it, and is reported."""
    for member in found:
        end = member.offset + member.size
        try:
            there = file.seek(end)
        except tarfile.TarError as e:
            report_damage(archive, member.name, e, problems)
            return
        if there < end:
            why = f"it claims {member.size} bytes, {there - member.offset} are there"
            report_torn(archive, member.name, why, problems)
            return
        yield member


def read_pairs(file: BinaryIO, entries: Iterable[Entry]) -> Iterator[Pair]:
    """Yields the pairs of an open tar that is read in any order."""
    for jpeg, json in entries:
        yield Pair(_read(file, jpeg), _read(file, json), jpeg.name, json.name)


def _read(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) != member.size:
        raise OSError(f"{member.name} became shorter while the tar was read")
    return data


def _text(name: str) -> str:
    """A file name as it can be printed and stored; its bytes need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _files(folder: epath.Path, depth: int) -> Iterator[epath.Path]:
    try:
        paths = sorted(folder.iterdir())
    except PermissionError as e:
        if depth == _MAX_DEPTH:
            raise
        logging.warning("%s is left out: %s.", folder, e.strerror)
        return
    for path in paths:
        if path.suffix in MAX_BYTES:
            if path.name.startswith("sa_"):
                yield path
        elif is_tar_name(path.name) and path.is_file():
            yield path
        elif is_tar_name(path.name) and os.path.islink(path) and not path.exists():
            logging.warning("%s is left out: it links to what is not there.", path)
        elif is_other_dataset(path.name) and path.is_file():
            logging.warning("%s is left out: it is another dataset and not SA-1B.", path)
        elif depth and not path.name.startswith(".") and path.is_dir():
            yield from _files(path, depth - 1)
