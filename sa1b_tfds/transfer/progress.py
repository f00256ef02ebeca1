"""Telling people and scripts how a download goes: bars on a terminal, plain lines, JSON lines."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any, TextIO

from tqdm import tqdm

from sa1b_tfds.telling import Every, gigabytes
from sa1b_tfds.transfer.fetch import Progress
from sa1b_tfds.transfer.plan import Plan
from sa1b_tfds.transfer.report import FileResult, Reporter

_LINE_EVERY_S = 30.0


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

    def planned(self, plan: Plan) -> None:
        self.asked = len(plan.files)
        self._sizes = {file.name: file.size for file in plan.files}
        self._at = {file.name: file.on_disk for file in plan.files}
        self._began, self._began_at = time.monotonic(), self.position

    def running(self, files: list[Progress]) -> None:
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
        return f"{', '.join(parts)}; {gigabytes(self.fetched)} fetched in {self.seconds:.0f} s"


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
        self._line = Every(_LINE_EVERY_S)

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self._line = Every(_LINE_EVERY_S, first=_LINE_EVERY_S)
        self._write(f"{self.asked} files, {gigabytes(plan.needed)} to fetch")

    def note(self, text: str, name: str | None = None) -> None:
        self._write(f"{name}: {text}" if name else text)

    def running(self, files: list[Progress]) -> None:
        super().running(files)
        if not self._line.is_due():
            return
        rate = self.rate()
        left = tqdm.format_interval((self.total - self.position) / rate) if rate else "?"
        self._write(
            f"{gigabytes(self.position)} of {gigabytes(self.total)}, {gigabytes(rate)}/s, "
            f"{left} left, {len(files)} running, {len(self.results)} of {self.asked} ended"
        )

    def finished(self, result: FileResult) -> None:
        super().finished(result)
        if result.status != "present":
            self._write(f"{result.name}: {_outcome(result)}")

    def _write(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self._stream, flush=True)


class Bars(Tally):
    """A terminal: one bar for all, with rate and time left, and one a running file."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._stream = stream
        self._all: tqdm[Any] | None = None
        self._bars: dict[str, tqdm[Any]] = {}

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self._all = self._bar(f"{self.asked} files", self.total, self.position, 0)

    def note(self, text: str, name: str | None = None) -> None:
        tqdm.write(f"{name}: {text}" if name else text, file=self._stream)

    def running(self, files: list[Progress]) -> None:
        super().running(files)
        if self._all is None:
            return
        for name in self._bars.keys() - {file.name for file in files}:
            self._bars.pop(name).close()
        for file in files:
            if file.name not in self._bars:
                taken = {-bar.pos for bar in self._bars.values()}
                row = next(row for row in range(1, len(taken) + 2) if row not in taken)
                self._bars[file.name] = self._bar(file.name, file.size, file.position, row)
            bar = self._bars[file.name]
            bar.set_description_str(
                f"{file.name} checking" if file.phase == "checking" else file.name, refresh=False
            )
            bar.total = file.size
            self._move(bar, file.position)
        self._all.total = self.total
        self._all.set_postfix_str(f"{len(self.results)} of {self.asked} ended", refresh=False)
        self._move(self._all, self.position)

    def finished(self, result: FileResult) -> None:
        super().finished(result)
        if result.status != "present":
            self.note(_outcome(result), result.name)

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()
        if self._all is not None:
            self._all.close()

    def _bar(self, name: str, total: int | None, position: int, row: int) -> tqdm[Any]:
        return tqdm(
            desc=name,
            total=total,
            initial=position,
            position=row,
            leave=row == 0,
            file=self._stream,
            unit="B",
            unit_scale=True,
            mininterval=0,
            miniters=0,
            smoothing=0.05,
            dynamic_ncols=True,
        )

    @staticmethod
    def _move(bar: tqdm[Any], position: int) -> None:
        bar.update(position - bar.n)


class JsonLines(Tally):
    """One JSON object a line, each with its `event`: plan, note, progress, file."""

    def __init__(self, stream: TextIO):
        super().__init__()
        self._stream = stream
        self._line = Every(1.0)

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self.emit("plan", **plan_as_json(plan))

    def note(self, text: str, name: str | None = None) -> None:
        self.emit("note", name=name, text=text)

    def running(self, files: list[Progress]) -> None:
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


def plan_as_json(plan: Plan) -> dict[str, Any]:
    return {
        "needed": plan.needed,
        "free": plan.free,
        "files": [asdict(file) for file in plan.files],
    }


def reporter_for_people(stream: TextIO | None = None) -> Tally:
    """Bars where `stream` (standard error by default) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return Bars(stream) if stream.isatty() else Lines(stream)
