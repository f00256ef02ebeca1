"""Reporters of downloads only: counts for the summary, and JSON lines for scripts.

`core/progress.py` has those for people.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from sa1b_tfds.core.progress import Totals
from sa1b_tfds.core.text import counted, format_bytes
from sa1b_tfds.core.throttle import Throttle
from sa1b_tfds.download.transfer.plan import DownloadPlan
from sa1b_tfds.download.transfer.report import DownloadReporter, FileProgress, FileResult


class DownloadTally(DownloadReporter):
    """Counts for the summary at the end, and passes on what it receives.

    Attributes:
      asked: number of files.
      results: of the files that have ended, by name.
    """

    def __init__(self, reporter: DownloadReporter):
        self.asked = 0
        self.results: dict[str, FileResult] = {}
        self._reporter = reporter
        self._fetched: dict[str, int] = {}
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def fetched(self) -> int:
        """Bytes that came over the network."""
        return sum(self._fetched.values())

    def count(self, status: str) -> int:
        return sum(result.status == status for result in self.results.values())

    def planned(self, plan: DownloadPlan) -> None:
        self.asked = len(plan.files)
        self._began = time.monotonic()
        self._reporter.planned(plan)

    def note(self, text: str, name: str | None = None) -> None:
        self._reporter.note(text, name)

    def running(self, states: Sequence[FileProgress]) -> None:
        self._fetched |= {file.name: file.fetched for file in states}
        self._reporter.running(states)

    def ended(self, outcome: FileResult) -> None:
        self.results[outcome.name] = outcome
        self._fetched[outcome.name] = outcome.fetched
        self._reporter.ended(outcome)

    def close(self) -> None:
        self._reporter.close()

    def summary(self) -> str:
        """One line, true whatever happened: what of all that was asked for is whole."""
        done, present = self.count("done"), self.count("present")
        parts = [f"{done + present} of {counted(self.asked, 'file')} whole"]
        parts[0] += f" ({done} downloaded, {present} already there)"
        parts += [f"{self.count(s)} {s}" for s in ("expired", "failed") if self.count(s)]
        not_finished = self.asked - len(self.results)
        if not_finished:
            parts.append(f"{not_finished} not finished")
        return f"{', '.join(parts)}; {format_bytes(self.fetched)} fetched in {self.seconds:.0f} s"


class OneFileReporter(DownloadReporter):
    """Calls a function with the bytes of the one file that are there, and its size."""

    def __init__(self, on_progress: Callable[[int, int | None], None]):
        self._on_progress = on_progress

    def running(self, states: Sequence[FileProgress]) -> None:
        for file in states:
            self._on_progress(file.position, file.size)


class JsonReporter(DownloadReporter):
    """One JSON object a line, each with its `event`: plan, note, progress, file."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._totals = Totals()
        self._throttle = Throttle(1.0)

    def planned(self, plan: DownloadPlan) -> None:
        self._totals.plan(plan)
        self.emit("plan", **plan_as_json(plan))

    def note(self, text: str, name: str | None = None) -> None:
        self.emit("note", name=name, text=text)

    def running(self, states: Sequence[FileProgress]) -> None:
        self._totals.move(states)
        if not self._throttle.is_due():
            return
        self.emit(
            "progress",
            position=self._totals.position,
            total=self._totals.total,
            bytes_per_second=round(self._totals.bytes_per_second),
            running=[asdict(file) for file in states],
        )

    def ended(self, outcome: FileResult) -> None:
        self._totals.end(outcome)
        self.emit("file", **asdict(outcome))

    def emit(self, event: str, **fields: Any) -> None:
        print(json.dumps({"event": event, **fields}), file=self._stream, flush=True)


def plan_as_json(plan: DownloadPlan) -> dict[str, Any]:
    return {
        "needed": plan.needed,
        "to_fetch": plan.to_fetch,
        "free": plan.free,
        "files": [
            {**asdict(file), "expires": file.expires and file.expires.isoformat()}
            for file in plan.files
        ],
    }
