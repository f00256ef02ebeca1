"""Runs the tasks of a build on a Dask cluster, where Beam's options ask for the DaskRunner.

It takes the options of Beam's DaskRunner, and gives the tasks to Dask itself. Beam's runner would
give up to 128 tars to one worker, and one tar that fails would stop all others.

Only tasks travel through Dask: each worker reads its tars and writes its shards by itself.
"""

from __future__ import annotations

import dataclasses
import logging as python_logging
import queue
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from absl import logging

from sa1b_tfds.building.conversion_task import ConversionTask, convert
from sa1b_tfds.core import extras
from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.processes import ProcessDied, portable
from sa1b_tfds.core.progress import AnyReporter
from sa1b_tfds.core.running.progress import TaskProgress
from sa1b_tfds.core.running.workers import Ended, Running
from sa1b_tfds.core.throttle import Throttle

_PROGRESS_EVERY_S = 1.0
_REACH = "All workers and this machine must reach tars and data under the same paths."
_GO_ON = "What was finished is kept; run the same again to go on."


def asks_for_dask(runner: Any, options: Any) -> bool:
    """Whether Beam's runner and options name the DaskRunner, as a class or in any spelling of Beam.

    Args:
      runner: a name, a class, a runner or None.
      options: apache_beam.options.pipeline_options.PipelineOptions, or None.
    """
    from apache_beam.options.pipeline_options import StandardOptions

    if runner is None and options is not None:
        runner = options.view_as(StandardOptions).runner
    name = runner if isinstance(runner, str) else getattr(runner, "__name__", type(runner).__name__)
    return name.rpartition(".")[2].lower() in ("dask", "daskrunner")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DaskEngine:
    """Converts tars on a Dask cluster. Each tar is one task of Dask.

    cluster: keyword arguments of dask.distributed.Client, its address among them. Without one, Dask
      starts a cluster on this machine.
    reporter: receives how it goes.
    """

    cluster: Mapping[str, Any]
    reporter: AnyReporter

    @classmethod
    def of(cls, options: Any, reporter: AnyReporter) -> DaskEngine:
        """Reads the options of Beam's DaskRunner (--dask_client_address and so on).

        Raises:
          ImportError: naming the extra, if Dask is not installed.
          ValueError: for an option that cannot apply.
        """
        extras.load("distributed", "dask")
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.dask.dask_runner import DaskOptions

        options = (options or PipelineOptions([])).view_as(DaskOptions)
        cluster = options.get_all_options(drop_default=True, current_only=True)
        for name in ("npartitions", "partition_size"):
            if name in cluster:
                raise ValueError(f"dask_{name} cannot apply: each tar is one task of Dask.")
        return cls(cluster=cluster, reporter=reporter)

    def __call__(self, tasks: Sequence[ConversionTask]) -> Mapping[str, Exception]:
        failures: dict[str, Exception] = {}
        progress = TaskProgress(self.reporter, tasks)
        try:
            with self._client() as client:
                while tasks:
                    tasks = _run(client, tasks, progress, failures)
        finally:
            self.reporter.close()
        return failures

    @contextmanager
    def _client(self) -> Iterator[Any]:
        import distributed

        with _without_traces():
            try:
                client = distributed.Client(**self.cluster)
            except OSError as e:
                raise ConnectionError(
                    f"No Dask scheduler answers ({e}). Start one with `dask scheduler`, and name"
                    " its address as dask_client_address."
                ) from e
            with client:
                if not client.scheduler_info()["workers"]:
                    logging.warning(
                        "The Dask scheduler has no workers yet, and the build waits for them: run"
                        " `dask worker %s` on each machine.",
                        client.scheduler.address,
                    )
                yield client


@contextmanager
def _without_traces() -> Iterator[None]:
    """Mutes what Dask logs of a scheduler that is gone: traces, while each tar has an error."""
    loggers = [python_logging.getLogger(f"distributed.{name}") for name in ("batched", "client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(python_logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run(
    client: Any,
    tasks: Sequence[ConversionTask],
    progress: TaskProgress,
    failures: dict[str, Exception],
) -> list[ConversionTask]:
    """Runs tasks, and adds to `failures`; returns the tasks to run again.

    Dask also gives up a task that only waited for a worker that died too often. That is no fault of
    its tar, so it is run again, if it is known which tar the worker was at.
    """
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    topic = f"sa1b_tfds-{uuid.uuid4().hex}"
    client.subscribe_topic(topic, lambda event: said.put(event[1]))
    futures = client.map(convert_tar, tasks, topic=topic, pure=False)
    task_of = dict(zip(futures, tasks, strict=True))
    by_name = {task.name: task for task in tasks}
    for future in futures:
        future.add_done_callback(said.put)
    begun: set[str] = set()
    died: dict[str, Exception] = {}
    while task_of:
        if (what := said.get()) not in task_of:
            name, images, size = what
            begun.add(name)
            progress.handle(Running(by_name[name], images, size))
            continue
        task = task_of.pop(what)
        error = _error_of(what, task)
        if isinstance(error, ProcessDied):
            died[task.name] = error
            continue
        if error is not None:
            failures[task.name] = error
        progress.handle(Ended(task, error))
    culprits = begun & died.keys() or died.keys()
    for name in culprits:
        failures[name] = died[name]
        progress.handle(Ended(by_name[name], died[name]))
    return [by_name[name] for name in died if name not in culprits]


def convert_tar(task: ConversionTask, topic: str) -> None:
    """The worker's side: converts a tar, unless that was done by a worker that then died.

    Args:
      task: of the tar.
      topic: of Dask, for the events that say how far it is: (name, images, bytes of the tar).
    """
    import distributed

    finished = task.staging.finished(task.name)
    if finished is not None and task.reason_to_redo(finished) is None:
        return
    worker = distributed.get_worker()
    throttle = Throttle(_PROGRESS_EVERY_S)

    def say(images: int, size: int) -> None:
        if throttle.is_due():
            worker.log_event(topic, (task.name, images, size))

    say(0, 0)
    try:
        with os_errors_named(task.name):
            convert(task, say)
    except Exception as e:
        raise portable(e, task.name) from None


def _error_of(future: Any, task: ConversionTask) -> Exception | None:
    """Why a tar is not finished, from a future that has ended; None if it is."""
    import distributed

    name = task.name
    if future.status == "cancelled":
        return ConnectionError(
            f"The connection to the Dask scheduler was lost before {name} was finished. {_GO_ON}"
        )
    error = future.exception() if future.status == "error" else None
    if isinstance(error, distributed.scheduler.KilledWorker):
        return ProcessDied(
            f"{error.allowed_failures + 1} Dask workers that had {name} died, one after the other,"
            f" at last {error.last_worker.address}. Their logs say why: often memory ran out."
            f" {_GO_ON}"
        )
    if isinstance(error, FileNotFoundError) and task.archive.identity() is not None:
        return FileNotFoundError(f"A Dask worker did not find a file of {name}: {error}. {_REACH}")
    if error is not None:
        return error
    if (written := task.staging.finished(name)) is None:
        return FileNotFoundError(
            f"A Dask worker converted {name}, but its shards are not in {task.folder}. {_REACH}"
        )
    # A worker with another version of Pillow has written other shards.
    if (reason := task.reason_to_redo(written)) is not None:
        return RuntimeError(f"A Dask worker wrote other shards of {name}: {reason}.")
    return None
