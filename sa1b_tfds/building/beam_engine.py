"""Runs the tasks of a build on Apache Beam, for where one machine is not enough.

Only tasks and names travel through Beam: each worker reads its tars and writes its shards by
itself, so tars and data must lie where every worker reaches them (gs://, s3://, a shared disk).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from absl import logging

from sa1b_tfds.building.conversion_task import ConversionTask, convert
from sa1b_tfds.core import files, own_json
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.core.text import with_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamEngine:
    """Converts tars in one Beam pipeline.

    runner: as `beam.Pipeline` takes it; None is Beam's own default, on this machine.
    options: apache_beam.options.pipeline_options.PipelineOptions, or None.
    """

    runner: Any = None
    options: Any = None

    def __call__(self, tasks: Sequence[ConversionTask]) -> Mapping[str, Exception]:
        staging = tasks[0].staging
        for task in tasks:
            staging.failure(task.archive.name).unlink(missing_ok=True)
        error: Exception | None = None
        try:
            with beam.Pipeline(runner=self.runner, options=self.options) as pipeline:
                (
                    pipeline
                    | "Tars" >> beam.Create(tasks)
                    | "Spread" >> beam.Reshuffle()
                    | "Convert" >> beam.ParDo(ConvertTar())
                )
        except Exception as e:  # of whatever kind the runner's are
            error = e
            logging.error("The Beam pipeline ended with %s", e)
        failures: dict[str, Exception] = {}
        for task in tasks:
            name = task.archive.name
            reason: str | None = "it does not say why"
            if (finished := staging.finished(name)) is not None:
                # A worker with another version of Pillow has written other shards.
                reason = task.reason_to_redo(finished)
            if reason is None:
                continue
            why: Any = error or reason
            if (failure := staging.failure(name)).exists():
                try:
                    said = own_json.read(failure, lambda fields: BadInput(**fields), "build again")
                    failures[name] = said
                    continue
                except own_json.DamagedJson as e:
                    why = e
                finally:
                    failure.unlink()
            failures[name] = RuntimeError(
                f"{name} was not converted by the Beam pipeline: {why}."
                " The tars that were finished are kept; build again to go on."
            )
        for name, failure_of_tar in failures.items():
            logging.error("Failed: %s", with_name(name, str(failure_of_tar)))
        return failures


class ConvertTar(beam.DoFn):
    """ConversionTask -> the name of the finished tar."""

    def __init__(self) -> None:
        super().__init__()
        self._images = beam.metrics.Metrics.counter("sa1b_tfds", "images")
        self._skipped = beam.metrics.Metrics.counter("sa1b_tfds", "skipped")

    def process(self, task: ConversionTask) -> Iterator[str]:
        try:
            finished = convert(task)
        except BadInput as e:  # the same at every try; the runner may try again after other errors
            failure = task.staging.failure(task.archive.name)
            files.write_whole(failure, own_json.dumps(e.as_dict()))
            return
        self._images.inc(finished.images)
        self._skipped.inc(len(finished.problems))
        yield finished.archive
