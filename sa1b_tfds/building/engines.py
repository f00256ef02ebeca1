"""Which engine runs the conversion tasks of a build: processes on this machine, Dask, or Beam."""

from __future__ import annotations

from typing import Any

from sa1b_tfds.building.conversion import Conversion, Engine
from sa1b_tfds.building.tar_deletion import TarDeletion, delete_after_each_task
from sa1b_tfds.building.tar_supply import TarSupply
from sa1b_tfds.core.progress import reporter_for_people
from sa1b_tfds.core.running.pool import ProcessPool


def choose_engine(
    conversion: Conversion,
    *,
    beam_runner: Any = None,
    beam_options: Any = None,
    num_workers: int,
    supply: TarSupply | None = None,
    deletion: TarDeletion | None = None,
) -> Engine:
    """Returns Dask or Beam if Beam's runner or options are given, else processes on this machine.

    Args:
      conversion: the build whose tasks are to run.
      beam_runner, beam_options: as TFDS's DownloadConfig has them.
      num_workers: processes, each with one tar at a time. Beam and Dask have their own workers.
      supply: downloads tars that are missing. None downloads nothing.
      deletion: deletes finished tars. None deletes nothing.
    """
    if beam_runner or beam_options:
        from sa1b_tfds.building.dask_engine import DaskEngine, asks_for_dask

        if asks_for_dask(beam_runner, beam_options):
            return DaskEngine.of(beam_options, reporter_for_people())
        from sa1b_tfds.building.beam_engine import BeamEngine

        return BeamEngine(runner=beam_runner, options=beam_options)
    fetch = supply.fetch if supply else None
    delete = None
    if supply and deletion:
        delete = delete_after_each_task(deletion, conversion, supply.archives)
    return ProcessPool(
        num_workers=num_workers,
        reporter=reporter_for_people(),
        fetch=fetch and (lambda task, on_fetched: fetch(task.archive, on_fetched)),
        release=delete,
        makes_room=delete is not None,
    )
