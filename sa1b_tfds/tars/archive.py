"""Where SA-1B lies on disk: tars or extracted folders -> pairs of (jpeg, json) bytes.

Nothing is ever extracted: a tar's headers are read into an index, and then each pair is read by its
offsets, whatever the order of its files. No path from a tar chooses where anything is written, and
no size is believed before it was compared with a limit and with the file.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, Protocol

from absl import logging
from etils import epath

from sa1b_tfds.problems import Problems
from sa1b_tfds.tars.members import MAX_BYTES, Member, members, suffix_of, too_large
from sa1b_tfds.tars.names import is_other_dataset, is_tar_name, tar_number

TAR_BYTES = 10_500_000_000  # of one of SA-1B's

_HEADER = tarfile.BLOCKSIZE
_MAX_DEPTH = 4  # of folders below the one that is searched
_LAYOUT_FOLDERS = ("images", "annotations")
SEEN_BEFORE = "a file of that name was there before"


class Pair(NamedTuple):
    """An image's two files, as they are in the archive, and their names in it."""

    jpeg: bytes
    json: bytes
    jpeg_name: str
    json_name: str


class Entry(NamedTuple):
    """Where an image's two files are; `Archive.read` reads them."""

    jpeg: Member
    json: Member

    @property
    def size(self) -> int:
        """Bytes that both take in a tar, headers included."""
        return sum(_HEADER + -(-m.size // _HEADER) * _HEADER for m in self)


class Archive(Protocol):
    """A tar, or an extracted folder."""

    name: str

    def identity(self) -> dict[str, int] | None:
        """What changes when the archive does, without reading it; None if it is not there."""

    def index(self, problems: Problems) -> list[Entry]:
        """Finds every pair; reports what is no pair, torn or unsafe."""

    def read(self, entries: Iterable[Entry]) -> Iterator[Pair]:
        """Yields the pairs of these entries, in their order."""

    def reader(self) -> Archive:
        """What `read` needs of it and no more, to be sent to other processes with entries."""

    def pairs(self, problems: Problems) -> Iterator[Pair]:
        """Yields every pair as it lies there; reports what is no pair, torn or unsafe."""


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


def count_pairs(archive: Archive) -> int:
    """The number of pairs, whatever else is in the archive; reads none."""
    return len(archive.index(Problems("skip")))


def identity_of(path: epath.Path) -> dict[str, int] | None:
    """What changes when a file does, without reading it; None if it is not there."""
    if not path.exists():
        return None
    stat = path.stat()
    return {"bytes": stat.length, "modified": stat.mtime}


class TarArchive:
    """A tar with `sa_<id>.jpg` and `sa_<id>.json` in any order."""

    def __init__(self, path: epath.PathLike, name: str | None = None):
        self._path = epath.Path(path)
        self.name = _text(name or self._path.name)

    @property
    def path(self) -> epath.Path:
        return self._path

    def identity(self) -> dict[str, int] | None:
        return identity_of(self._path)

    def index(self, problems: Problems) -> list[Entry]:
        with self._path.open("rb") as file:
            length = file.seek(0, 2)
            return _pair_up(self.name, members(self.name, file, length, problems), problems)

    def read(self, entries: Iterable[Entry]) -> Iterator[Pair]:
        with self._path.open("rb") as file:
            for jpeg, json in entries:
                yield Pair(_read(file, jpeg), _read(file, json), jpeg.name, json.name)

    def reader(self) -> TarArchive:
        return self

    def pairs(self, problems: Problems) -> Iterator[Pair]:
        return self.read(self.index(problems))


class FolderArchive:
    """Extracted files: all in one folder, or apart in images/ and annotations/."""

    def __init__(self, name: str, files: Iterable[epath.PathLike]):
        self.name = _text(name)
        # Strings take a third of the memory of path objects, and there may be millions.
        self._files = sorted(map(os.fspath, files))

    def identity(self) -> dict[str, int] | None:
        size = modified = 0
        for path in self._files:
            try:
                stat = epath.Path(path).stat()
            except FileNotFoundError:
                return None
            size += stat.length
            modified = max(modified, stat.mtime)
        return {"files": len(self._files), "bytes": size, "modified": modified}

    def index(self, problems: Problems) -> list[Entry]:
        members = (Member(path, epath.Path(path).stat().length) for path in self._files)
        return _pair_up(self.name, self._of_bounded_size(members, problems), problems)

    def read(self, entries: Iterable[Entry]) -> Iterator[Pair]:
        for jpeg, json in entries:
            image, annotations = (epath.Path(m.name).read_bytes() for m in (jpeg, json))
            yield Pair(image, annotations, jpeg.name, json.name)

    def reader(self) -> FolderArchive:
        return FolderArchive(self.name, ())  # the entries have the paths

    def pairs(self, problems: Problems) -> Iterator[Pair]:
        return self.read(self.index(problems))

    def _of_bounded_size(self, members: Iterator[Member], problems: Problems) -> Iterator[Member]:
        for member in members:
            if member.size > (limit := MAX_BYTES[suffix_of(member.name)]):
                problems.report(self.name, member.name, too_large(member.size, limit))
            else:
                yield member


def _pair_up(archive: str, members: Iterable[Member], problems: Problems) -> list[Entry]:
    """Brings the (jpeg, json) of each image together, in the order in which the JPEGs lie."""
    images: dict[str, dict[str, Member]] = {}
    others = []
    for member in members:
        stem, suffix = stem_and_suffix(member.name)
        if not suffix:
            others.append(member.name)
            continue
        files = images.setdefault(stem, {})
        if suffix in files:
            problems.report(archive, member.name, SEEN_BEFORE)
        else:
            files[suffix] = member
    warn_of_others(archive, others)
    pairs = []
    for files in images.values():
        for suffix, other in ((".jpg", ".json"), (".json", ".jpg")):
            if other not in files:
                report_missing(archive, files[suffix].name, other, problems)
        if len(files) == 2:
            pairs.append(Entry(files[".jpg"], files[".json"]))
    return sorted(pairs, key=lambda pair: pair.jpeg.offset)


def stem_and_suffix(name: str) -> tuple[str, str]:
    """('sa_1', '.jpg') for './sa_1.jpg'; the suffix is empty if that is no file of SA-1B."""
    base, suffix = name.rpartition("/")[2], suffix_of(name)
    if suffix not in MAX_BYTES or not base.startswith("sa_"):
        return base, ""
    return base.removesuffix(suffix), suffix


def warn_of_others(archive: str, names: list[str]) -> None:
    if names:
        logging.warning("%s: %d files are not of SA-1B: %.200s", archive, len(names), names)


def report_missing(archive: str, member: str, other: str, problems: Problems) -> None:
    problems.report(archive, member, f"its {other} is missing")


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
    for path in sorted(folder.iterdir()):
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
