"""`sa1b build` as a function: from a folder of tars, or a links file, to a prepared dataset.

What is there is read once (`build_state.py`), and decides what the builder is ordered to prepare.
How the tars are converted stands in `building/`. After that the data is read again, once: it says
which tars may be deleted now.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging
from etils import epath

from sa1b_tfds.building.conversion_task import ConversionTask
from sa1b_tfds.building.prepared import Folder, PreparedTars
from sa1b_tfds.building.report import REPORT, checked
from sa1b_tfds.building.source_record import is_from
from sa1b_tfds.building.tar_deletion import TarDeletion
from sa1b_tfds.building.tar_supply import IN_FLIGHT, TarSupply, is_in_flight
from sa1b_tfds.building.wanted_ids import refuse_other_ids
from sa1b_tfds.core import files, own_json
from sa1b_tfds.core.lock import FolderInUse, lock_folder
from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.segment_anything.build_config import BuildConfig
from sa1b_tfds.segment_anything.build_order import BuildOrder
from sa1b_tfds.segment_anything.build_state import BuildState, read_state
from sa1b_tfds.segment_anything.ensure import ensure_tars
from sa1b_tfds.tars.archive import TarArchive

_NOT_EXTENDED = "In an object store it cannot be extended: build all tars in another data_dir."


def build(config: BuildConfig) -> Mapping[str, Any]:
    """Builds, or goes on where an earlier build ended.

    Returns:
      The content of build_report.json.

    Raises:
      ValueError: if the data is there already and there are tars that are not in it.
      Exception: as `Builder.download_and_prepare`, and as `download` where links are used.
    """
    builder = config.builder()
    builder.clean_up()  # it may put data back
    state = read_state(config, builder)
    if (ids := builder.builder_config.image_ids) is not None:
        refuse_other_ids(state.folder.path, state.prepared.tars, ids)
    _refuse_new(state, config)
    changed = state.changed(state.prepared.tars)
    if changed and not config.add:
        logging.warning(
            "%s changed since the data was made (%s), or only the first images are in it."
            " --add converts again.",
            counted(len(changed), "tar"),
            first_few(changed),
        )
    damaged = state.prepared.damaged(read=state.prepared.names if config.add else ())
    supply, prepared, deletion = state.supply, state.prepared, config.deletion()
    if state.new() or not state.is_prepared or (config.add and (changed or damaged)):
        if config.links_file is not None and config.delete_tars == "never":
            supply = _with_downloads(state, damaged, config.links_file, config.tars)
        with _tasks_of(config.of_also(), supply) as also:
            order = BuildOrder(
                supply=supply, deletion=deletion, extend=config.add, damaged=damaged, also=also
            )
            builder.download_and_prepare(order=order)
        prepared = state.folder.prepared()
    _say_what_is_wrong(prepared, state.folder, config.md5)
    if deletion is not None:
        _delete_rest(deletion, supply, prepared)
    if files.is_local(config.tars):
        with contextlib.suppress(OSError):  # it is not empty, or never was there
            os.rmdir(config.tars / IN_FLIGHT)
    return own_json.read(state.folder.path / REPORT, checked, "the prepared data is not affected")


@contextlib.contextmanager
def _tasks_of(
    config: BuildConfig | None, supply: TarSupply
) -> Iterator[Mapping[str, ConversionTask]]:
    """Gives the body what is to be staged of another config, whose folder it locks.

    config: of the other config. None gives nothing.
    supply: the archives of this build.
    """
    if config is None:
        yield {}
        return
    builder = config.builder()
    builder.clean_up()
    state = read_state(config, builder)
    _refuse_new(state, config)
    new = state.new()
    with state.folder.locked():
        yield builder.tasks_to_do([a for a in supply.archives if a.name in new])


def _refuse_new(state: BuildState, config: BuildConfig) -> None:
    new = state.new()
    if state.is_prepared and new and not config.add:
        how = "Extend it with --add." if state.folder.is_local else _NOT_EXTENDED
        raise ValueError(
            f"{state.folder.path} is prepared already, without {len(new)} of the tars"
            f" ({first_few(sorted(new))}). {how}"
        )


def _with_downloads(
    state: BuildState, damaged: set[str], links_file: Path, folder: epath.PathLike
) -> TarSupply:
    """Downloads the tars that have to be converted and are missing."""
    finished = state.finished.keys() | (state.prepared.names - damaged)
    missing = [name for name in state.supply.missing() if name not in finished]
    if missing:
        ensure_tars(links_file, folder, missing)
    return state.supply.with_tars_in(folder, missing)


def _say_what_is_wrong(prepared: PreparedTars, folder: Folder, md5: bool) -> None:
    if md5 and (unknown := [tar.archive for tar in prepared.tars if tar.md5 is None]):
        logging.warning(
            "No MD5 was taken of %s: that is done while a tar is converted, and these were before.",
            first_few(unknown),
        )
    if damaged := prepared.damaged():
        logging.error(
            "Shards of %s are damaged or gone in %s: keep these tars; --add converts them again.",
            first_few(sorted(damaged)),
            folder.path,
        )


def _delete_rest(deletion: TarDeletion, supply: TarSupply, prepared: PreparedTars) -> None:
    """Deletes finished tars that a kill left, but no other tar that has come in their place."""
    archives = {archive.name: archive for archive in supply.archives}
    for tar in prepared.tars:
        archive = archives.get(tar.archive)
        if archive is not None and archive.identity() and is_from(archive, tar.source):
            deletion.delete(archive, tar, prepared.is_intact)
    for archive in filter(is_in_flight, supply.archives):
        _remove_partial(archive)


def _remove_partial(archive: TarArchive) -> None:
    """Removes what a kill left of a download; not what another build downloads or converts now."""
    folder = Path(archive.path.parent)
    if archive.identity() is None and folder.exists():
        with contextlib.suppress(FolderInUse, OSError), lock_folder(folder, "sa1b build"):
            shutil.rmtree(folder)
