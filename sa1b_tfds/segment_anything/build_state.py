"""What is there before a build: tars, prepared data and staged tars, read once.

`build` and `plan` decide from the same `BuildState`. Nothing here writes.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

from absl import logging

from sa1b_tfds.building.prepared import Folder, PreparedTars
from sa1b_tfds.building.source_record import is_from
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.building.tar_supply import TarSupply, find_supply
from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.download.links import Link, read_links
from sa1b_tfds.segment_anything.build_config import BuildConfig
from sa1b_tfds.segment_anything.configs import SegmentAnythingConfig
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from sa1b_tfds.tars.archive import TarArchive, number_of, refuse_unfinished
from sa1b_tfds.tars.names import tar_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildState:
    """What is there before a build, of one config of the dataset.

    folder: of the prepared data.
    is_prepared: whether there is data.
    supply: the archives.
    prepared: the tars in the data.
    staged: the names of the tars that an earlier build finished, and that wait for others.
    """

    folder: Folder
    is_prepared: bool
    supply: TarSupply
    prepared: PreparedTars
    staged: frozenset[str]

    @functools.cached_property
    def finished(self) -> Mapping[str, FinishedTar]:
        """The staged tars whose shards are all there, by name."""
        tars = map(self.folder.staging.finished, sorted(self.staged))
        return {tar.archive: tar for tar in tars if tar is not None}

    def new(self) -> set[str]:
        """The names of tars that are not in the data yet.

        That includes tars that were converted, and perhaps deleted, before a kill or an error.
        """
        found = {archive.name for archive in self.supply.archives}
        return (found | self.staged) - self.prepared.names

    def changed(self, tars: Iterable[FinishedTar]) -> list[str]:
        """The names of those tars of which another file is there now, or not all images are taken.

        Args:
          tars: in the data or staged.
        """
        there = {archive.name: archive for archive in self.supply.archives}
        return [
            tar.archive
            for tar in tars
            if (archive := there.get(tar.archive)) is not None
            and archive.identity() is not None
            and (not is_from(archive, tar.source) or tar.settings["limit"] is not None)
        ]


def read_state(config: BuildConfig, builder: Builder) -> BuildState:
    """Reads what is there.

    Raises:
      FileNotFoundError: if there is no tar to build from, or not enough of them.
      DamagedJson: if the list of the tars in the data, or a staged tar's name, is damaged.
      LinksError: as `read_links` raises it.
    """
    dataset: SegmentAnythingConfig = builder.builder_config
    folder = Folder(builder.data_path)
    all_staged = folder.staging.archives()
    state = BuildState(
        folder=folder,
        is_prepared=folder.exists(),
        supply=_supply(config, dataset),
        prepared=folder.prepared(),
        staged=frozenset(n for n in all_staged if dataset.has_tar(_number(n))),
    )
    _refuse_without_tars(config, state, is_any_staged=bool(all_staged))
    _warn_of_missing(config, dataset, state)
    return state


def _supply(config: BuildConfig, dataset: SegmentAnythingConfig) -> TarSupply:
    links: dict[str, Link] = {}
    if config.links_file is not None:
        listed = read_links(config.links_file).tars
        links = {n: link for n, link in listed.items() if dataset.has_tar(tar_number(n))}
    supply = find_supply(config.tars, links)
    chosen = [a for a in supply.archives if dataset.has_tar(number_of(a))]
    return dataclasses.replace(supply, archives=chosen)


def _refuse_without_tars(config: BuildConfig, state: BuildState, is_any_staged: bool) -> None:
    there = state.prepared.names | state.staged
    if not (config.links_file or config.tars.exists() or config.tars.name in there):
        is_word = re.fullmatch(r"\w+", str(config.tars)) is not None
        hint = " A config goes after --config." if is_word else ""
        raise FileNotFoundError(f"{config.tars} is not there: name the folder of the tars.{hint}")
    if state.supply.archives or state.is_prepared:
        return
    refuse_unfinished(config.tars)
    if not is_any_staged:
        raise FileNotFoundError(
            f"{config.tars} holds no tar of {config.config!r} (sa_000000.tar and so on), nor"
            " extracted files. Put some there, or name a links file with --links-file."
        )
    staging = state.folder.staging
    if unfinished := staging.unfinished():
        raise FileNotFoundError(
            f"{config.tars} holds no tar, and {len(unfinished)} of those to build are not finished"
            f" ({first_few(unfinished)}). Put them back, name a links file with --links-file, or"
            f" remove {staging.wanted} to go without them."
        )


def _warn_of_missing(
    config: BuildConfig, dataset: SegmentAnythingConfig, state: BuildState
) -> None:
    wanted = dataset.tars or ()
    known = {_number(name) for name in state.prepared.names | state.staged}
    known |= {number_of(archive) for archive in state.supply.archives}
    if missing := set(wanted) - known:
        logging.warning(
            "Built without %d of the %s of %r: neither in %s nor to be downloaded.",
            len(missing),
            counted(len(wanted), "tar"),
            config.config,
            config.tars,
        )


def _number(name: str) -> int | None:
    return number_of(TarArchive(name, name))
