"""Which tars a config is built of: found in manual_dir, downloaded, or finished and deleted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import tensorflow_datasets.public_api as tfds
from absl import logging
from etils import epath

from sa1b_tfds.building.staging import Staging
from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.download.links import read_links
from sa1b_tfds.segment_anything.configs import SegmentAnythingConfig
from sa1b_tfds.segment_anything.ensure import ensure_tars, find_links_file
from sa1b_tfds.tars.archive import Archive, TarArchive, find_archives, number_of, sorted_by_name
from sa1b_tfds.tars.names import tar_name, tar_number


@dataclasses.dataclass(frozen=True)
class ConfigTars:
    """The tars of `config`. Those that an earlier build finished are in `staging`."""

    config: SegmentAnythingConfig
    staging: Staging

    def of(self, dl_manager: tfds.download.DownloadManager) -> list[Archive]:
        """Finds the tars in manual_dir. A links file there has missing ones downloaded."""
        try:
            folder = dl_manager.manual_dir
        except AssertionError:  # it is empty or not there
            if self._is_all_finished():
                return []
            raise
        return self.found_in(folder)

    def found_in(self, folder: epath.Path) -> list[Archive]:
        """As `of`, in any folder. A tar that is finished and was deleted is not missing.

        Raises:
          MissingTarsError: which tars are missing and cannot be downloaded, and what to do.
        """
        found = find_archives(folder)
        finished = map(TarArchive, self.staging.archives())
        missing = self._missing(folder, {number_of(a) for a in [*found, *finished]})
        if missing and (
            find_links_file(folder) or not (self._chosen(found) or self._is_all_finished())
        ):
            ensure_tars(None, folder, missing)
            found = find_archives(folder)
        elif missing:
            logging.warning(
                "Built without %d of the %s of %r, missing in %s: %s",
                len(missing),
                counted(len(self.config.tars or ()), "tar"),
                self.config.name,
                folder,
                first_few(missing),
            )
        elif not (found or self._is_all_finished()):
            ensure_tars(None, folder, [])  # raises an error that says what to do
        return self._chosen(found)

    def including_staged(self, archives: Sequence[Archive]) -> list[Archive]:
        """Adds tars that are staged and were deleted since; their shards are used."""
        by_name = {archive.name: archive for archive in archives}
        for name in self.staging.archives():
            gone = TarArchive(self.staging.folder / name, name)
            if name not in by_name and self._chosen([gone]):
                logging.warning("%s is not there any more; its finished shards are used.", name)
                by_name[name] = gone
        return sorted_by_name(by_name.values())

    def _is_all_finished(self) -> bool:
        """Whether an earlier build finished all its tars, which may be deleted since."""
        return self.staging.unfinished() == []

    def _missing(self, folder: epath.Path, there: set[int | None]) -> list[str]:
        """Names of the config's tars that are not there; of the links file's if it takes all."""
        tars = self.config.tars
        if tars is None:
            links = find_links_file(folder)
            names = list(read_links(links).tars) if links else []
        else:
            names = [tar_name(number) for number in tars]
        return sorted(name for name in names if tar_number(name) not in there)

    def _chosen(self, found: Iterable[Archive]) -> list[Archive]:
        return [a for a in found if self.config.has_tar(number_of(a))]
