"""`sa1b build --plan`: what a build would do, and whether it fits on the disk."""

from __future__ import annotations

import dataclasses

from sa1b_tfds.building import estimates
from sa1b_tfds.core import files
from sa1b_tfds.core.processes import worker_count
from sa1b_tfds.segment_anything.build_config import BuildConfig
from sa1b_tfds.segment_anything.build_state import BuildState, read_state
from sa1b_tfds.tars.forms import TAR_BYTES


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedTar:
    """state: 'finished', 'there' or 'to download'. bytes: of the tar; an estimate if not there."""

    name: str
    state: str
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What a build would do.

    prepared: bytes of shards that are still to be written; rather too many.
    in_flight: bytes of downloaded tars that are on the disk at the same time, at most.
    scratch: bytes that unpacked tars take while they are converted, at most.
    free: free bytes in data_dir; None if unknown.
    seconds: an estimate of the time to convert, without downloads.
    """

    tars: tuple[PlannedTar, ...]
    prepared: int
    in_flight: int
    scratch: int
    free: int | None
    seconds: float


def plan(config: BuildConfig) -> BuildPlan:
    """What `build` would do. Writes nothing and reads no tar."""
    own, config_also = _plan(config), config.of_also()
    if config_also is None:
        return own
    also = _plan(config_also)
    states = {tar.name: tar for tar in also.tars}
    states |= {tar.name: tar for tar in own.tars if tar.state != "finished"}
    return dataclasses.replace(
        own,
        tars=tuple(states[name] for name in sorted(states)),
        prepared=own.prepared + also.prepared,
        in_flight=max(own.in_flight, also.in_flight),
        scratch=max(own.scratch, also.scratch),
        seconds=own.seconds + also.seconds,  # rather too many: a tar is inflated once
    )


def _plan(config: BuildConfig) -> BuildPlan:
    builder = config.builder()
    state = read_state(config, builder)
    archives = {archive.name: archive for archive in state.supply.archives}
    tars = _tars(state, _done(state, config.add))
    to_do = [tar for tar in tars if tar.state != "finished"]
    downloads = sum(tar.state == "to download" for tar in to_do)
    workers = worker_count(config.workers)
    at_once = downloads if config.delete_tars == "never" else min(downloads, workers)
    long_side = builder.builder_config.long_side
    sizes = [(archives[tar.name], tar.bytes) for tar in to_do]
    image_ids, share = builder.builder_config.image_ids, 1.0
    if image_ids is not None:
        share = estimates.share_of(len(image_ids), sum(size for _, size in sizes))
    shards = sum(estimates.shard_bytes(archive, size, long_side) for archive, size in sizes)
    scratch = sorted(estimates.scratch_bytes(archive, size) for archive, size in sizes)
    return BuildPlan(
        tars=tuple(tars),
        prepared=int(share * shards),
        in_flight=at_once * TAR_BYTES,
        scratch=sum(scratch[-workers:]),
        free=files.free_bytes(builder.data_path),
        seconds=sum(estimates.seconds(archive, size, long_side) for archive, size in sizes)
        / workers,
    )


def _done(state: BuildState, add: bool) -> set[str]:
    """The names of tars that need not be converted."""
    done = set(state.prepared.names)
    if add:
        done -= {*state.changed(state.prepared.tars), *state.prepared.damaged()}
    return done | (state.finished.keys() - set(state.changed(state.finished.values())))


def _tars(state: BuildState, done: set[str]) -> list[PlannedTar]:
    """The staged tars that are gone, then the archives."""
    names = {archive.name for archive in state.supply.archives}
    tars = [
        PlannedTar(name=name, state="finished", bytes=tar.source["bytes"])
        for name, tar in state.finished.items()
        if name not in state.prepared.names | names
    ]
    for archive in state.supply.archives:
        identity = archive.identity()
        how = "there" if identity else "to download"
        tars.append(
            PlannedTar(
                name=archive.name,
                state="finished" if archive.name in done else how,
                bytes=identity["bytes"] if identity else TAR_BYTES,
            )
        )
    return tars
