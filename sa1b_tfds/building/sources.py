"""Where a build's tars come from, and what becomes of them when they are finished.

Tars that a build downloads for itself lie in `.in_flight` in the folder of tars, one folder each,
where `find_archives` does not look. That is how they are known from those that the user brought.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeGuard

from absl import logging
from etils import epath

from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.core.running.workers import OnFetched
from sa1b_tfds.download.links import Link
from sa1b_tfds.tars.archive import Archive, TarArchive, archives_at, sorted_by_name
from sa1b_tfds.tars.kept import forget_all
from sa1b_tfds.tars.names import tar_stem

IN_FLIGHT = ".in_flight"
DeleteTars = Literal["never", "downloaded", "all"]
IsIntact = Callable[[FinishedTar], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """The archives of a build in their order, and how each is brought and, finished, released.

    release: deletes a finished tar, if it is one to delete. Its third argument reads the shards of
      the finished tar and says whether they are intact: without that nothing is deleted.
    """

    archives: Sequence[Archive]
    fetch: Callable[[Archive, OnFetched], None] | None = None
    release: Callable[[Archive, FinishedTar, IsIntact], None] | None = None


def is_in_flight(archive: Archive) -> TypeGuard[TarArchive]:
    """Whether it is a tar that a build downloaded, to be deleted once it is finished."""
    return isinstance(archive, TarArchive) and archive.path.parent.parent.name == IN_FLIGHT


def find_sources(
    folder: epath.PathLike, links: Mapping[str, Link], delete_tars: DeleteTars
) -> Sources:
    """The archives in a folder, and tars with a link that are downloaded when their turn comes.

    The folder may be one tar. With delete_tars='all', a tar of the user's own stays if not all of
    it is in the data: it may be torn, and is the only one. One that was downloaded was checked
    then, and its link is there.
    """
    root = epath.Path(folder)
    archives = {archive.name: archive for archive in archives_at(root)}
    stems = {
        tar_stem(name.rpartition("/")[2])
        for name, archive in archives.items()
        if isinstance(archive, TarArchive)
    }
    in_flight = root / IN_FLIGHT
    kept: set[str] = set()
    for name in links:
        if tar_stem(name) not in stems:  # a tar may be there as .tar, .tar.gz or .tgz
            archives[name] = TarArchive(in_flight / name / name, name)

    def fetch(archive: Archive, on_fetched: OnFetched) -> None:
        name = archive.name
        if archive.identity() is None and name in links:
            from sa1b_tfds.download.download import download  # who has the tars needs no HTTP
            from sa1b_tfds.download.transfer.progress import OneFileReporter

            reporter = OneFileReporter(on_fetched)
            [result] = download([links[name]], in_flight / name, workers=1, reporter=reporter)
            if not result.is_whole:
                raise RuntimeError(f"{name} was not downloaded: {result.reason or result.status}")

    def release(archive: Archive, finished: FinishedTar, is_intact: IsIntact) -> None:
        in_flight = is_in_flight(archive)
        if not isinstance(archive, TarArchive) or archive.name in kept:
            return
        if not in_flight and delete_tars != "all":
            return
        if not in_flight and not finished.is_whole:
            kept.add(archive.name)
            logging.warning("%s is not deleted: not all of it is in the data.", archive.name)
        elif not is_intact(finished):
            kept.add(archive.name)
            logging.error(
                "%s is not deleted: its shards are damaged. Build with --add, to have it converted"
                " again.",
                archive.name,
            )
        elif in_flight:
            forget_all(archive.path)
            archive.path.parent.rmtree()
        else:
            try:
                archive.path.unlink()
            except OSError as e:
                kept.add(archive.name)
                logging.warning("%s cannot be deleted and stays: %s", archive.path, e.strerror)
            else:
                forget_all(archive.path)
                logging.warning("%s is deleted: all of it is in the data.", archive.name)

    return Sources(
        archives=sorted_by_name(archives.values()),
        fetch=fetch if links else None,
        release=release if delete_tars != "never" else None,
    )
