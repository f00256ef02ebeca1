"""Tars and extracted folders on disk -> pairs of (jpeg, json) bytes.

Nothing is extracted. The headers of a plain tar are read into an index, and each pair is then read
by its offsets, in whatever order the files are. A compressed tar is read forward instead, or by its
seek points. No path in a tar decides where anything is written. Each size is compared with a limit
and with the file before it is used.
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

from sa1b_tfds.core import files, ranges
from sa1b_tfds.core.problems import Problems, TornArchive
from sa1b_tfds.core.text import counted, first_few
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
from sa1b_tfds.tars.names import (
    PART_STATE,
    STATE_FILES,
    is_other_dataset,
    is_tar_name,
    tar_number,
    unfinished_tar,
)
from sa1b_tfds.tars.pairs import Entry, Pair, pair_up
from sa1b_tfds.tars.seek import opened_anywhere
from sa1b_tfds.tars.stream import stream_pairs

_MAX_DEPTH = 4  # of folders below the one that is searched
_LAYOUT_FOLDERS = ("images", "annotations")
# Errors of one extracted file; the other files can still be read.
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
    """Reads pairs whose place is known."""

    name: str

    def read(self, entries: Iterable[Entry], problems: Problems) -> Iterator[Pair]:
        """Yields the pairs of these entries, in their order.

        An extracted pair is left out and reported if one of its files can no longer be read.

        Raises:
          OSError: if a tar cannot be read.
        """


class Archive(PairReader, Protocol):
    """A tar, or an extracted folder."""

    def is_packed(self) -> bool:
        """Whether the pairs are read forward: a compressed tar, or one that is not there yet."""

    def identity(self) -> dict[str, int] | None:
        """Numbers that change when the archive does; None if it is not there. Reads no content."""

    def index(self, problems: Problems) -> list[Entry]:
        """Finds every pair, in the order in which `pairs` yields them.

        Reports single files, torn tars and unsafe members.
        """

    def reader(self) -> Archive:
        """Returns a copy that can only `read`, which is small enough to send to other processes."""

    def pairs(self, problems: Problems) -> Iterator[Pair]:
        """Yields each pair when its second file is met; reports what `index` reports."""


def find_archives(root: epath.PathLike) -> list[Archive]:
    """Finds `sa_*.tar` (or .tar.gz, .tgz) in a folder and its subfolders, else extracted files.

    Extracted files are grouped by folder; `images/` and `annotations/` in one folder are one group.
    If there are tars, extracted files are ignored and a warning is logged. Unfinished downloads are
    never read; a warning names them if there is something else.

    Returns:
      The archives, ordered by name; empty if there are none.
    """
    root = epath.Path(root)
    tars: list[Archive] = []
    folders: dict[str, list[str]] = {}
    unfinished: list[epath.Path] = []
    for path in _files(root, _MAX_DEPTH):
        relative = path.relative_to(root)
        if is_tar_name(path.name):
            tars.append(TarArchive(path, str(relative)))
        elif path.name.endswith(PART_STATE):
            unfinished.append(path)
        elif path.suffix in MAX_BYTES:
            parts = [part for part in relative.parent.parts if part not in _LAYOUT_FOLDERS]
            folders.setdefault("/".join(parts) or ".", []).append(os.fspath(path))
    if tars and folders:
        logging.warning("Reading the tars in %s; the extracted files there are left out.", root)
    if (tars or folders) and (names := _unfinished(unfinished)):
        left_out = f"{counted(len(names), 'unfinished download')} ({first_few(names)})"
        logging.warning("Reading %s without %s.", root, left_out)
    found = tars or [FolderArchive(name, files) for name, files in folders.items()]
    return sorted_by_name(found)


def sorted_by_name(archives: Iterable[Archive]) -> list[Archive]:
    """Sorts archives by file name, then by folder: their order in a dataset."""
    return sorted(archives, key=lambda archive: archive.name.rpartition("/")[::-1])


def archives_at(path: epath.PathLike) -> list[Archive]:
    """Returns the tar at `path`, or the archives in a folder there; empty if there are none."""
    path = epath.Path(path)
    if path.is_dir():
        return find_archives(path)
    return [TarArchive(path)] if path.exists() else []


def refuse_unfinished(path: epath.PathLike) -> None:
    """Raises an error if a folder without a whole tar has unfinished downloads.

    For a caller that has found nothing there.

    Raises:
      FileNotFoundError: how many downloads are unfinished, and what to do.
    """
    path = epath.Path(path)
    if path.is_dir() and (names := _unfinished(path.glob(f"*{PART_STATE}"))):
        are = "download is" if len(names) == 1 else "downloads are"
        raise FileNotFoundError(
            f"{path} holds no whole tar: {len(names):,} {are} unfinished ({first_few(names)})."
            " Run `sa1b download` again."
        )


def _unfinished(state_files: Iterable[epath.Path]) -> list[str]:
    """The names of the tars whose download is not finished, by the state files beside them."""
    tars = ((path, unfinished_tar(path.name)) for path in state_files)
    return sorted(name for path, name in tars if name and not (path.parent / name).exists())


def number_of(archive: Archive) -> int | None:
    """Returns the number in a tar's name: 20 for sa_000020.tar and for its extracted folder."""
    base = archive.name.rpartition("/")[2]
    return tar_number(base if is_tar_name(base) else f"{base}.tar")


def is_read_forward(archive: Archive) -> bool:
    """Whether all of it is read from start to end, and not pair by pair.

    So is a plain tar in an object store too: its pairs would be two requests each.
    """
    is_remote = isinstance(archive, TarArchive) and not files.is_local(archive.path)
    return is_remote or archive.is_packed()


def identity_of(path: epath.Path) -> dict[str, int] | None:
    """Returns numbers that change when a file does; None if it is not there. Reads no content."""
    try:
        stat = files.stat_of(path)
    except (FileNotFoundError, NotADirectoryError):  # perhaps it was deleted a moment ago
        return None
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
        """Whether it is compressed: then `index` inflates all of it, and `read` needs seek points.

        A missing tar counts as compressed: it will be downloaded, and Meta serves it compressed.
        """
        try:
            return is_packed(self._path)
        except FileNotFoundError:
            return True

    def identity(self) -> dict[str, int] | None:
        return identity_of(self._path)

    def is_unfinished(self, problems: Problems) -> bool:
        """Whether another program is still downloading it; reports that if so."""
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
        # A compressed tar without pairs has no seek points, so that opening it would fail.
        if (first := next(rest, None)) is None:
            return
        with opened_anywhere(self._path) as file:
            yield from read_pairs(file, itertools.chain([first], rest))

    def reader(self) -> TarArchive:
        return self

    def pairs(
        self, problems: Problems, on_inflated: Callable[[int], None] = lambda size: None
    ) -> Iterator[Pair]:
        if not is_read_forward(self):
            yield from self.read(self.index(problems), problems)
            return
        if self.is_unfinished(problems):
            return
        with opened_forward(self._path, on_inflated) as (file, length):
            yield from stream_pairs(self.name, file, length, problems)


class FolderArchive:
    """Extracted files: all in one folder, or in its subfolders images/ and annotations/."""

    def __init__(self, name: str, files: Iterable[epath.PathLike]):
        self.name = _text(name)
        # Strings take a third of the memory of path objects, and there may be millions.
        self._files = sorted(map(os.fspath, files))

    def is_packed(self) -> bool:
        return False

    def identity(self) -> dict[str, int] | None:
        number = size = modified = 0
        for path in self._files:
            with contextlib.suppress(OSError):  # `index` reports this file
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
        return FolderArchive(self.name, ())  # `read` takes the paths from the entries

    def pairs(self, problems: Problems) -> Iterator[Pair]:
        return self.read(self.index(problems), problems)

    def _content(self, path: str, problems: Problems) -> bytes | None:
        try:
            return ranges.read(path)
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
            if not stat.is_file:  # opening a pipe would wait for ever
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
    """Finds every pair of an open tar, ordered by where each pair's second file is.

    Args:
      archive: the tar's name, for reports.
      file: a plain tar.
      length: its length in bytes; None if unknown. Then each member is read to its end.
      problems: receives single files, torn tars and unsafe members.
    """
    found = members(archive, file, length, problems)
    if length is None:
        found = _whole(archive, file, found, problems)
    return pair_up(archive, found, problems)


def _whole(
    archive: str, file: ForwardFile, found: Iterable[Member], problems: Problems
) -> Iterator[Member]:
    """Yields members until one is cut off; reports that one."""
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
    """Yields the pairs at these entries of an open tar, which must be seekable."""
    for jpeg, json in entries:
        yield Pair(_read(file, jpeg), _read(file, json), jpeg.name, json.name)


def _read(file: BinaryIO, member: Member) -> bytes:
    file.seek(member.offset)
    data = file.read(member.size)
    if len(data) != member.size:
        raise OSError(f"{member.name} became shorter while the tar was read")
    return data


def _text(name: str) -> str:
    """A file name that can be printed and stored, also where its bytes are not UTF-8."""
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
        if path.name.endswith(PART_STATE):
            if unfinished_tar(path.name):
                yield path
        elif path.suffix in MAX_BYTES:
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
