"""What a run prints while it works: bars on a terminal, lines of a log elsewhere.

A run calls a `Reporter`: `planned` with its items, `running` with the states of those that it
works on now, `ended` with the outcome of one, and `note` with text. An item has a name and a size,
whatever it is. A run may pass subtypes with more in them to reporters of its own.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, TextIO, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from sa1b_tfds.core.bars import Bars
from sa1b_tfds.core.text import format_bytes
from sa1b_tfds.core.throttle import Throttle

_LINE_EVERY_S = 30.0  # of lines that only say how far a run is


class PlannedItem(Protocol):
    """Something to work on. size: in bytes, None if unknown. on_disk: bytes done before."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def on_disk(self) -> int: ...


class Plan(Protocol):
    """All that a run works on. title: how many of what, such as '3 tars'."""

    @property
    def title(self) -> str: ...
    @property
    def items(self) -> Sequence[PlannedItem]: ...


class State(Protocol):
    """Where an item is.

    position, size: of its bar, in bytes.
    is_counted: whether the position counts for the whole run. That of a download does not, if the
      run is about what comes after it.
    images: done so far, where images are counted.
    activity: what is done with it, if that is not what the run is about.
    """

    @property
    def name(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def size(self) -> int | None: ...
    @property
    def is_counted(self) -> bool: ...
    @property
    def images(self) -> int: ...
    @property
    def activity(self) -> str: ...


class Outcome(Protocol):
    """What became of an item.

    is_whole: whether all of it is done.
    text: for people; None if there is nothing to say.
    """

    @property
    def name(self) -> str: ...
    @property
    def is_whole(self) -> bool: ...
    @property
    def text(self) -> str | None: ...


PlanT = TypeVar("PlanT", bound=Plan, contravariant=True)
StateT = TypeVar("StateT", bound=State, contravariant=True)
OutcomeT = TypeVar("OutcomeT", bound=Outcome, contravariant=True)


class Reporter(Generic[PlanT, StateT, OutcomeT]):
    """Receives how a run goes, in the thread that runs it. This one prints nothing."""

    def planned(self, plan: PlanT) -> None:
        """Work on these items begins; a run may have several rounds."""

    def note(self, text: str, name: str | None = None) -> None:
        """Something that a person would want to know, about the run or the item `name`."""

    def running(self, states: Sequence[StateT]) -> None:
        """Where all items are that are worked on now; several times a second."""

    def ended(self, outcome: OutcomeT) -> None:
        """An item is done or has failed."""

    def close(self) -> None:
        """Nothing more comes."""


class Totals:
    """How far a run is, from what a reporter receives. A failed item counts as far as it came."""

    def __init__(self) -> None:
        self.title = ""
        self.done = 0
        self.failed = 0
        self._sizes: dict[str, int | None] = {}
        self._positions: dict[str, int] = {}
        self._images: dict[str, int] = {}
        self._began = time.monotonic()
        self._began_at = 0

    def plan(self, plan: Plan) -> None:
        self.title = plan.title
        self.done = self.failed = 0
        self._sizes = {item.name: item.size for item in plan.items}
        self._positions = {item.name: item.on_disk for item in plan.items}
        self._images = {}
        self._began, self._began_at = time.monotonic(), self.position

    def move(self, states: Sequence[State]) -> None:
        for state in states:
            if state.is_counted:
                self._positions[state.name] = state.position
                self._images[state.name] = state.images
                self._sizes[state.name] = state.size or self._sizes.get(state.name)

    def end(self, outcome: Outcome) -> None:
        name = outcome.name
        if outcome.is_whole:
            size = self._sizes.get(name) or self._positions.get(name, 0)
            self._positions[name] = self._sizes[name] = size
        self.done += outcome.is_whole
        self.failed += not outcome.is_whole

    @property
    def position(self) -> int:
        """Bytes that are done."""
        return sum(self._positions.values())

    @property
    def total(self) -> int:
        """Bytes of all items, as far as their sizes are known."""
        return sum(size or 0 for size in self._sizes.values())

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-9)

    @property
    def bytes_per_second(self) -> float:
        """Since the start."""
        return max(0, self.position - self._began_at) / self.seconds

    def described(self) -> str:
        """'30 images/s, 2 of 3 tars done, 1 failed'."""
        images = sum(self._images.values())
        parts = [f"{images / self.seconds:.0f} images/s"] if images else []
        parts.append(f"{self.done} of {self.title} done")
        parts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(parts)


class LineReporter(Reporter[Plan, State, Outcome]):
    """Lines of a log: all notes and outcomes, and how far the run is every half minute."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._totals = Totals()
        self._throttle = Throttle(_LINE_EVERY_S)

    def planned(self, plan: Plan) -> None:
        self._totals.plan(plan)
        self._throttle = Throttle(_LINE_EVERY_S, first=_LINE_EVERY_S)
        to_do = format_bytes(self._totals.total - self._totals.position)
        self.note(f"{plan.title}, {to_do} to do")

    def note(self, text: str, name: str | None = None) -> None:
        line = f"{name}: {text}" if name else text
        print(f"{time.strftime('%H:%M:%S')} {line}", file=self._stream, flush=True)

    def running(self, states: Sequence[State]) -> None:
        totals = self._totals
        totals.move(states)
        if not self._throttle.is_due():
            return
        position, total, speed = totals.position, totals.total, totals.bytes_per_second
        left = tqdm.format_interval((total - position) / speed) if speed else "?"
        self.note(
            f"{totals.described()}, {format_bytes(position)} of {format_bytes(total)},"
            f" {format_bytes(speed)}/s, {left} left, {len(states)} running"
        )

    def ended(self, outcome: Outcome) -> None:
        self._totals.end(outcome)
        if outcome.text is not None:
            self.note(outcome.text, outcome.name)


class BarReporter(Reporter[Plan, State, Outcome]):
    """Bars on a terminal: one for the run and one for each item that is worked on now.

    Notes, outcomes and what is logged meanwhile are lines above them. is_kept: whether the bar of
    the run stays when the run has ended.
    """

    def __init__(self, stream: TextIO, is_kept: bool = True):
        self._totals = Totals()
        self._bars = Bars(stream, is_kept=is_kept)
        self._logging = contextlib.ExitStack()

    def planned(self, plan: Plan) -> None:
        self.close()
        self._totals.plan(plan)
        self._logging.enter_context(logging_redirect_tqdm())
        self._bars.begin(plan.title, self._totals.total, self._totals.position)

    def note(self, text: str, name: str | None = None) -> None:
        self._bars.write(f"{name}: {text}" if name else text)

    def running(self, states: Sequence[State]) -> None:
        self._totals.move(states)
        for name in self._bars.names - {state.name for state in states}:
            self._bars.end(name)
        for state in states:
            self._bars.move(state.name, state.position, state.size, state.activity)
        self._move_all()

    def ended(self, outcome: Outcome) -> None:
        self._totals.end(outcome)
        self._bars.end(outcome.name)
        if outcome.text is not None:
            self.note(outcome.text, outcome.name)
        self._move_all()

    def close(self) -> None:
        self._move_all()
        self._bars.close()
        self._logging.close()

    def _move_all(self) -> None:
        totals = self._totals
        self._bars.move_all(totals.position, totals.total, totals.described())


AnyReporter = Reporter[Plan, State, Outcome]


def reporter_for_people(stream: TextIO | None = None) -> AnyReporter:
    """Bars where `stream` (standard error by default) is a terminal, else lines."""
    stream = stream or sys.stderr
    return BarReporter(stream) if stream.isatty() else LineReporter(stream)


def bars_for_people() -> AnyReporter:
    """Bars that go when the run ends where standard error is a terminal, else nothing."""
    return BarReporter(sys.stderr, is_kept=False) if sys.stderr.isatty() else Reporter()


def print_beside_bars(text: str) -> None:
    """Prints a line to standard output, which may be the terminal that has the bars."""
    tqdm.write(text, file=sys.stdout)


@contextlib.contextmanager
def image_bar() -> Iterator[Any]:
    """A bar of images, of tqdm, where standard error is a terminal; else one that is not shown."""
    with tqdm(unit="image", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        yield bar
