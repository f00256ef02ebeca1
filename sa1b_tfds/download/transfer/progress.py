"""Telling people and scripts how a download goes: bars on a terminal, plain lines, JSON lines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from tqdm import tqdm

from sa1b_tfds.core import bars
from sa1b_tfds.core.bars import LINE_EVERY_S, log_line
from sa1b_tfds.core.text import format_bytes
from sa1b_tfds.core.throttle import Throttle
from sa1b_tfds.download.transfer.plan import DownloadPlan
from sa1b_tfds.download.transfer.report import FileProgress, FileResult, Reporter


class Tally(Reporter):
    """Counts what is heard, for the bars' totals and for the summary at the end. Silent."""

    def __init__(self) -> None:
        self.results: dict[str, FileResult] = {}
        self.asked = 0
        self._sizes: dict[str, int | None] = {}
        self._at: dict[str, int] = {}
        self._fetched: dict[str, int] = {}
        self._began = time.monotonic()
        self._began_at = 0

    @property
    def position(self) -> int:
        """Bytes of the selection that are on disk."""
        return sum(self._at.values())

    @property
    def total(self) -> int:
        """Bytes of the selection, as far as sizes are known."""
        return sum(size or 0 for size in self._sizes.values())

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
        self._sizes = {file.name: file.size for file in plan.files}
        self._at = {file.name: file.on_disk for file in plan.files}
        self._began, self._began_at = time.monotonic(), self.position

    def running(self, files: list[FileProgress]) -> None:
        for file in files:
            self._at[file.name] = file.position
            self._fetched[file.name] = file.fetched
            if file.size is not None:
                self._sizes[file.name] = file.size

    def finished(self, result: FileResult) -> None:
        self.results[result.name] = result
        self._fetched[result.name] = result.fetched
        if result.is_whole:
            size = self._sizes.get(result.name) or self._at.get(result.name, 0)
            self._at[result.name] = self._sizes[result.name] = size

    def rate(self) -> float:
        """Bytes a second since the start."""
        return max(0, self.position - self._began_at) / max(self.seconds, 1e-9)

    def summary(self) -> str:
        """One line, true whatever happened: what of all that was asked for is whole."""
        done, present = self.count("done"), self.count("present")
        parts = [f"{done + present} of {self.asked} whole"]
        parts[0] += f" ({done} downloaded, {present} already there)"
        parts += [f"{self.count(s)} {s}" for s in ("expired", "failed") if self.count(s)]
        not_finished = self.asked - len(self.results)
        if not_finished:
            parts.append(f"{not_finished} not finished")
        return f"{', '.join(parts)}; {format_bytes(self.fetched)} fetched in {self.seconds:.0f} s"


class OfOneFile(Reporter):
    """Tells a function how many bytes of the one file are there, of how many. Silent."""

    def __init__(self, tell: Callable[[int, int | None], None]):
        self._tell = tell

    def running(self, files: list[FileProgress]) -> None:
        for file in files:
            self._tell(file.position, file.size)


def _outcome(result: FileResult) -> str:
    if result.status == "done":
        return f"done, checked by {result.checked_by}"
    if result.status == "present":
        return "already there"
    return f"{result.status}: {result.reason}"


class Lines(Tally):
    """Plain log lines: every event, and where all is every half minute."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._stream = stream
        self._line = Throttle(LINE_EVERY_S)

    def planned(self, plan: DownloadPlan) -> None:
        super().planned(plan)
        self._line = Throttle(LINE_EVERY_S, first=LINE_EVERY_S)
        self._write(f"{self.asked} files, {format_bytes(plan.to_fetch)} to fetch")

    def note(self, text: str, name: str | None = None) -> None:
        self._write(f"{name}: {text}" if name else text)

    def running(self, files: list[FileProgress]) -> None:
        super().running(files)
        if not self._line.is_due():
            return
        rate = self.rate()
        left = tqdm.format_interval((self.total - self.position) / rate) if rate else "?"
        self._write(
            f"{format_bytes(self.position)} of {format_bytes(self.total)}, {format_bytes(rate)}/s, "
            f"{left} left, {len(files)} running, {len(self.results)} of {self.asked} ended"
        )

    def finished(self, result: FileResult) -> None:
        super().finished(result)
        if result.status != "present":
            self._write(f"{result.name}: {_outcome(result)}")

    def _write(self, text: str) -> None:
        log_line(text, self._stream)


class Bars(Tally):
    """A terminal: one bar for all, with rate and time left, and one a running file."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._bars = bars.Bars(stream)

    def planned(self, plan: DownloadPlan) -> None:
        super().planned(plan)
        self._bars.begin(f"{self.asked} files", self.total, self.position)

    def note(self, text: str, name: str | None = None) -> None:
        self._bars.write(f"{name}: {text}" if name else text)

    def running(self, files: list[FileProgress]) -> None:
        super().running(files)
        for name in self._bars.names - {file.name for file in files}:
            self._bars.end(name)
        for file in files:
            note = "" if file.phase == "fetching" else f"{file.phase} "
            if note and file.inflated and file.size:
                note += f"{file.inflated / file.size:.0%}"
            self._bars.move(file.name, file.position, file.size, note)
        ended = f"{len(self.results)} of {self.asked} ended"
        self._bars.move_all(self.position, self.total, ended)

    def finished(self, result: FileResult) -> None:
        super().finished(result)
        if result.status != "present":
            self.note(_outcome(result), result.name)

    def close(self) -> None:
        self._bars.close()


class JsonLines(Tally):
    """One JSON object a line, each with its `event`: plan, note, progress, file."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._stream = stream
        self._line = Throttle(1.0)

    def planned(self, plan: DownloadPlan) -> None:
        super().planned(plan)
        self.emit("plan", **plan_as_json(plan))

    def note(self, text: str, name: str | None = None) -> None:
        self.emit("note", name=name, text=text)

    def running(self, files: list[FileProgress]) -> None:
        super().running(files)
        if not self._line.is_due():
            return
        self.emit(
            "progress",
            position=self.position,
            total=self.total,
            bytes_per_second=round(self.rate()),
            running=[asdict(file) for file in files],
        )

    def finished(self, result: FileResult) -> None:
        super().finished(result)
        self.emit("file", **asdict(result))

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


def reporter_for_people(stream: TextIO | None = None) -> Tally:
    """Bars where `stream` (standard error by default) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return Bars(stream) if stream.isatty() else Lines(stream)
