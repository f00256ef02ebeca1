"""Where a build's tars are, and how those that are missing are downloaded when their turn comes.

Tars that a build downloads for itself lie in `.in_flight` in the folder of tars, one folder each,
where `find_archives` does not look. That tells them from the tars that the user brought.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeGuard

from etils import epath

from sa1b_tfds.core.running.workers import OnFetched
from sa1b_tfds.download.links import Link
from sa1b_tfds.tars.archive import Archive, TarArchive, archives_at, sorted_by_name
from sa1b_tfds.tars.names import tar_stem

IN_FLIGHT = ".in_flight"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TarSupply:
    """The archives of a build, in their order.

    fetch: downloads an archive that is not there; None where nothing is downloaded.
    """

    archives: Sequence[Archive]
    fetch: Callable[[Archive, OnFetched], None] | None = None

    def missing(self) -> list[str]:
        """The names of archives that are not there yet."""
        return [archive.name for archive in self.archives if archive.identity() is None]

    def with_tars_in(self, folder: epath.PathLike, names: Collection[str]) -> TarSupply:
        """The same archives, of which those of these names are now in `folder`."""
        archives = [
            TarArchive(epath.Path(folder) / archive.name, archive.name)
            if archive.name in names
            else archive
            for archive in self.archives
        ]
        return dataclasses.replace(self, archives=archives)


def is_in_flight(archive: Archive) -> TypeGuard[TarArchive]:
    """Whether it is a tar that a build downloaded, to be deleted once it is finished."""
    return isinstance(archive, TarArchive) and archive.path.parent.parent.name == IN_FLIGHT


def find_supply(folder: epath.PathLike, links: Mapping[str, Link]) -> TarSupply:
    """Finds the archives in a folder, which may be one tar, and adds the tars that have a link."""
    root = epath.Path(folder)
    archives = {archive.name: archive for archive in archives_at(root)}
    stems = {
        tar_stem(name.rpartition("/")[2])
        for name, archive in archives.items()
        if isinstance(archive, TarArchive)
    }
    in_flight = root / IN_FLIGHT
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

    return TarSupply(
        archives=sorted_by_name(archives.values()),
        fetch=fetch if links else None,
    )
