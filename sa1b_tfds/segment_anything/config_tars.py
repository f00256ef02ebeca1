"""Which tars a config is built of: found in manual_dir, downloaded, or finished and deleted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import tensorflow_datasets.public_api as tfds
from absl import logging
from etils import epath

from sa1b_tfds.building.staging import Staging
from sa1b_tfds.core.text import first_few
from sa1b_tfds.download.links import read_links
from sa1b_tfds.segment_anything.configs import SegmentAnythingConfig
from sa1b_tfds.segment_anything.ensure import ensure_tars, find_links_file
from sa1b_tfds.tars.archive import Archive, TarArchive, find_archives, number_of, sorted_by_name
from sa1b_tfds.tars.names import tar_name, tar_number


@dataclasses.dataclass(frozen=True)
class ConfigTars:
    """The tars of `config`, of which `staging` has those that an earlier build finished."""

    config: SegmentAnythingConfig
    staging: Staging

    def of(self, dl_manager: tfds.download.DownloadManager) -> list[Archive]:
        """Those in manual_dir, and with a links file there also those that lack."""
        try:
            folder = dl_manager.manual_dir
        except AssertionError:  # it is empty or not there
            if self._is_all_finished():
                return []
            raise
        return self.found_in(folder)

    def found_in(self, folder: epath.Path) -> list[Archive]:
        """As `of`; those that are finished and were deleted do not lack.

        Raises:
          MissingTarsError: which are lacking and cannot be downloaded, and what to put where.
        """
        found = find_archives(folder)
        finished = map(TarArchive, self.staging.archives())
        lacking = self._lacking(folder, {number_of(a) for a in [*found, *finished]})
        if lacking and (
            find_links_file(folder) or not (self._chosen(found) or self._is_all_finished())
        ):
            ensure_tars(None, folder, lacking)
            found = find_archives(folder)
        elif lacking:
            logging.warning(
                "%d of the %d tars of %r are not in %s and left out: %s",
                len(lacking),
                len(self.config.tars or ()),
                self.config.name,
                folder,
                first_few(lacking),
            )
        elif not (found or self._is_all_finished()):
            ensure_tars(None, folder, [])  # says what to put where
        return self._chosen(found)

    def with_those_deleted(self, archives: Sequence[Archive]) -> list[Archive]:
        """Adds the tars that are finished and were deleted since."""
        by_name = {source.name: source for source in archives}
        for name in self.staging.archives():
            gone = TarArchive(self.staging.folder / name, name)
            if name not in by_name and self._chosen([gone]):
                logging.warning("%s is not there any more; its finished shards are used.", name)
                by_name[name] = gone
        return sorted_by_name(by_name.values())

    def _is_all_finished(self) -> bool:
        """Whether an earlier build had only the last step before it; its tars may be deleted."""
        return self.staging.lacking() == []

    def _lacking(self, folder: epath.Path, there: set[int | None]) -> list[str]:
        """Names of the config's tars that are not there; of all listed if it asks for all."""
        tars = self.config.tars
        if tars is None:
            links = find_links_file(folder)
            names = list(read_links(links).tars) if links else []
        else:
            names = [tar_name(number) for number in tars]
        return sorted(name for name in names if tar_number(name) not in there)

    def _chosen(self, found: Iterable[Archive]) -> list[Archive]:
        return [a for a in found if self.config.has_tar(number_of(a))]
