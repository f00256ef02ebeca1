"""`sa1b build` as a function: from a folder of tars, or a links file, to a prepared dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from absl import logging

from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.building.report import REPORT, checked
from sa1b_tfds.building.shard_files import which_are_intact
from sa1b_tfds.building.size import expected_bytes, scratch_bytes
from sa1b_tfds.building.source_record import is_from
from sa1b_tfds.building.sources import IN_FLIGHT, DeleteTars, Sources, find_sources, is_in_flight
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.core import files, own_json
from sa1b_tfds.core.problems import OnError
from sa1b_tfds.core.processes import check_workers, worker_count
from sa1b_tfds.core.telling import counted, some_of
from sa1b_tfds.download.links import Link, read_links
from sa1b_tfds.download.transfer.folder import lock_folder
from sa1b_tfds.segment_anything.ensure import ensure_tars
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from sa1b_tfds.tars.archive import TarArchive, number_of
from sa1b_tfds.tars.forms import TAR_BYTES
from sa1b_tfds.tars.names import tar_number

# Of a tar, by one worker: benchmarks/build.py on 2 cores of a cloud machine. Where images are made
# smaller, benchmarks/resize.py: 26 a second of 772 kB.
_BYTES_PER_SECOND = 200e6
_RESIZED_BYTES_PER_SECOND = 20e6
_INFLATED_PER_SECOND = 250e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build of what.

    tars: folder of the tars, and where downloaded ones come to; or one tar, without links_file.
    config: of the dataset, by name.
    data_dir: of TFDS; None is its default.
    links_file: download what the config wants and the folder lacks.
    workers: tars at a time; None is one a core.
    file_format: 'tfrecord' or 'array_record'; None is that of data that is there, else tfrecord.
    on_error: 'raise' stops at an image that cannot become an example; 'skip' leaves it out.
    delete_tars: 'downloaded' downloads and deletes tar by tar; 'all' also deletes the user's own,
      each once it is finished and all of it is in the data.
    md5: take the MD5 of every tar that no download of ours has checked, and compare it.
    add: extend prepared data with the tars that are not in it yet or have changed since; and read
      the shards that stay, to convert those again that are damaged.
    """

    tars: Path
    config: str = "original"
    data_dir: Path | None = None
    links_file: Path | None = None
    workers: int | None = None
    file_format: str | None = None
    on_error: OnError = "raise"
    delete_tars: DeleteTars = "never"
    md5: bool = False
    add: bool = False

    def __post_init__(self) -> None:
        check_workers(self.workers)
        if self.delete_tars not in get_args(DeleteTars):
            raise ValueError(
                f"delete_tars must be one of {get_args(DeleteTars)}, got {self.delete_tars!r}."
            )
        for path in filter(None, (self.tars, self.data_dir)):
            if str(path).startswith(("gs:/", "s3:/")):
                raise ValueError(f"'{path}' is no local path: for gs:// and s3:// use tfds build.")
        if self.links_file is not None and os.path.isfile(self.tars):
            raise ValueError(f"links_file needs a folder for its tars, and {self.tars} is a file.")
        if self.delete_tars == "downloaded" and self.links_file is None:
            raise ValueError(
                "delete_tars='downloaded' needs a links_file: it deletes what the build downloads,"
                " and that is nothing. 'all' deletes your own tars."
            )

    def builder(self) -> Builder:
        return Builder(
            config=self.config,
            data_dir=self.data_dir,
            file_format=self.file_format,
            on_error=self.on_error,
            num_workers=self.workers,
            md5=self.md5,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedTar:
    """state: 'finished', 'there' or 'to download'. bytes: of the tar; an estimate if not there."""

    name: str
    state: str
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build would do.

    prepared: about so many bytes of shards are still to be written, rather less.
    in_flight: bytes of downloaded tars that are on the disk at the same time, at most.
    scratch: bytes that unpacked tars take while they are converted, at most.
    free: bytes in data_dir; None if unknown.
    seconds: of converting, without downloads; an estimate.
    """

    tars: tuple[PlannedTar, ...]
    prepared: int
    in_flight: int
    scratch: int
    free: int | None
    seconds: float


def plan(config: BuildConfig) -> BuildPlan:
    """What `build` would do. Writes nothing and reads no tar."""
    builder = config.builder()
    folder = Folder(builder.data_path)
    staged = _staged(folder, builder)
    prepared = _built(folder)
    built = {tar.archive for tar in prepared}
    sources = _sources(config, builder)
    archives = {archive.name: archive for archive in sources.archives}
    done = set(built)
    if config.add:
        done -= {*_changed(sources, prepared), *_damaged(folder)}
    finished_tars = list(filter(None, map(folder.staging.finished, staged)))
    done |= {tar.archive for tar in finished_tars} - set(_changed(sources, finished_tars))
    tars = []
    for name in sorted(staged - built - archives.keys()):
        if finished := folder.staging.finished(name):
            size = finished.source["bytes"]
            tars.append(PlannedTar(name=name, state="finished", bytes=size))
    for archive in archives.values():
        identity = archive.identity()
        state = "there" if identity else "to download"
        size = identity["bytes"] if identity else TAR_BYTES
        tars.append(
            PlannedTar(
                name=archive.name, state="finished" if archive.name in done else state, bytes=size
            )
        )
    to_do = [tar for tar in tars if tar.state != "finished"]
    downloads = sum(tar.state == "to download" for tar in to_do)
    num_workers = worker_count(config.workers)
    at_once = downloads if config.delete_tars == "never" else min(downloads, num_workers)
    long_side = builder.builder_config.long_side
    speed = _BYTES_PER_SECOND if long_side is None else _RESIZED_BYTES_PER_SECOND
    prepared_bytes, scratch, seconds = 0, [], 0.0
    for tar in to_do:
        archive = archives[tar.name]
        prepared_bytes += expected_bytes(archive, tar.bytes, long_side)
        scratch.append(scratch_bytes(archive, tar.bytes))
        seconds += tar.bytes / speed + scratch[-1] / _INFLATED_PER_SECOND
    return BuildPlan(
        tars=tuple(tars),
        prepared=prepared_bytes,
        in_flight=at_once * TAR_BYTES,
        scratch=sum(sorted(scratch)[-num_workers:]),
        free=files.free_bytes(builder.data_path),
        seconds=seconds / num_workers,
    )


def build(config: BuildConfig) -> Mapping[str, Any]:
    """Builds, or goes on where an earlier build ended.

    Returns:
      The content of build_report.json.

    Raises:
      ValueError: if the data is there already and there are tars that are not in it.
      Exception: as `Builder.download_and_prepare`, and as `download` where links are used.
    """
    Folder(config.builder().data_path).clean_if_free()  # it may be that there is data afterwards
    builder = config.builder()
    folder = Folder(builder.data_path)
    sources = _sources(config, builder)
    staged = _staged(folder, builder)
    there = folder.path.exists()
    prepared = _built(folder)
    built = {tar.archive for tar in prepared}
    # Also tars that were converted, and perhaps deleted, before a kill or an error came.
    new = ({archive.name for archive in sources.archives} | staged) - built
    if there and new and not config.add:
        raise ValueError(
            f"{folder.path} is prepared already, without {len(new)} of the tars"
            f" ({some_of(sorted(new))}). Extend it with --add."
        )
    changed = _changed(sources, prepared)
    if changed and not config.add:
        logging.warning(
            "%s changed since the data was made (%s), or only the first images are in it."
            " --add converts again.",
            counted(len(changed), "tar"),
            some_of(changed),
        )
    damaged = _damaged(folder, read=built if config.add else ())
    if new or not there or (config.add and (changed or damaged)):
        if config.links_file is not None and config.delete_tars == "never":
            gone = [a.name for a in sources.archives if a.identity() is None]
            finished = {name for name in staged if folder.staging.finished(name)}
            if lacking := [name for name in gone if name not in finished | (built - damaged)]:
                ensure_tars(config.links_file, config.tars, lacking)
                sources = _sources(config, builder)
        builder.prepare_from(sources, extend=config.add, damaged=damaged)
    if config.md5 and (unknown := [t.archive for t in _built(folder) if t.md5 is None]):
        logging.warning(
            "No MD5 was taken of %s: that is done while a tar is converted, and these were before.",
            some_of(unknown),
        )
    if damaged := _damaged(folder):
        logging.error(
            "Shards of %s are damaged or gone in %s: keep these tars; --add converts them again.",
            some_of(sorted(damaged)),
            folder.path,
        )
    _release(sources, folder)
    if sources.release is not None:
        for archive in filter(is_in_flight, sources.archives):
            _remove_partial(archive)
    with contextlib.suppress(OSError):  # it is not empty, or never was there
        os.rmdir(config.tars / IN_FLIGHT)
    return own_json.read(folder.path / REPORT, checked, "the prepared data is not affected")


def _sources(config: BuildConfig, builder: Builder) -> Sources:
    chosen_by = builder.builder_config
    wanted = chosen_by.tars or ()
    links: dict[str, Link] = {}
    if config.links_file is not None:
        listed = read_links(config.links_file).tars
        links = {n: link for n, link in listed.items() if chosen_by.has_tar(tar_number(n))}
    sources = find_sources(config.tars, links, config.delete_tars)
    chosen = [a for a in sources.archives if chosen_by.has_tar(number_of(a))]
    folder = Folder(builder.data_path)
    there = {tar.archive for tar in _built(folder)} | _staged(folder, builder)
    if not (config.links_file or config.tars.exists() or config.tars.name in there):
        raise FileNotFoundError(f"{config.tars} is not there: name the folder of the tars.")
    if not (chosen or folder.path.exists() or folder.staging.archives()):
        raise FileNotFoundError(
            f"{config.tars} holds no tar of {config.config!r} (sa_000000.tar and so on), nor"
            " extracted files. Put some there, or name a links file with --links-file."
        )
    if not (chosen or folder.path.exists()) and (unfinished := folder.staging.lacking()):
        raise FileNotFoundError(
            f"{config.tars} holds no tar, and {len(unfinished)} of those to build are not finished"
            f" ({some_of(unfinished)}). Put them back, name a links file with --links-file, or"
            f" remove {folder.staging.wanted} to go without them."
        )
    known = {number_of(TarArchive(folder.path / name, name)) for name in there}
    if lacking := set(wanted) - known - {number_of(archive) for archive in chosen}:
        logging.warning(
            "%d of the %d tars of %r are neither in %s nor to be downloaded, and left out.",
            len(lacking),
            len(wanted),
            config.config,
            config.tars,
        )
    return dataclasses.replace(sources, archives=chosen)


def _release(sources: Sources, folder: Folder) -> None:
    """Deletes finished tars for which a kill left no time; not what has taken their place since."""
    if sources.release is None:
        return
    archives = {archive.name: archive for archive in sources.archives}
    shards = folder.shard_files()
    for tar in folder.tars():
        archive = archives.get(tar.archive)
        if archive is not None and archive.identity() and is_from(archive, tar.source):
            sources.release(archive, tar, lambda tar: all(which_are_intact(shards[tar.archive])))


def _remove_partial(archive: TarArchive) -> None:
    """Removes what a kill left of a download; not what another build downloads or converts now."""
    folder = Path(archive.path.parent)
    if archive.identity() is None:
        with contextlib.suppress(files.FolderInUse, OSError), lock_folder(folder):
            shutil.rmtree(folder)


def _changed(sources: Sources, prepared: Iterable[FinishedTar]) -> list[str]:
    """The names of tars that are there, and others than those in the data, or not all in it."""
    there = {archive.name: archive for archive in sources.archives}
    return [
        tar.archive
        for tar in prepared
        if (archive := there.get(tar.archive)) is not None
        and archive.identity() is not None
        and (not is_from(archive, tar.source) or tar.settings["limit"] is not None)
    ]


def _staged(folder: Folder, builder: Builder) -> set[str]:
    """The names of the config's tars that are finished and staged."""
    archives = (TarArchive(folder.path / name, name) for name in folder.staging.archives())
    return {a.name for a in archives if builder.builder_config.has_tar(number_of(a))}


def _damaged(folder: Folder, read: Collection[str] = ()) -> set[str]:
    return folder.damaged(read) if folder.path.exists() else set()


def _built(folder: Folder) -> list[FinishedTar]:
    return folder.tars() if folder.path.exists() else []
