"""What in the input could not become an example, and what happens then: stop, or skip and list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from sa1b_tfds.core.text import counted, printable

_MAX_LINES = 20
_OF_A_REASON = 3

OnError = Literal["raise", "skip"]


def check_on_error(on_error: OnError, name: str = "on_error") -> OnError:
    """Returns it, or raises a ValueError that names the argument if it is no `OnError`."""
    if on_error not in get_args(OnError):
        raise ValueError(f"{name} must be 'raise' or 'skip', got {on_error!r}.")
    return on_error


class BadInput(ValueError):
    """Something in an archive that cannot become an example.

    archive: the tar or folder, relative to where it was looked for.
    member: the file in it; empty if it is the archive as a whole.
    reason: what is wrong with it.
    closing: what a command says at its end instead, because the rest was reported before.
    """

    closing: str | None = None

    def __init__(self, archive: str, member: str, reason: str):
        # A tar may hold names that steer a terminal.
        member, reason = printable(member), printable(reason)
        super().__init__(": ".join(part for part in (archive, member, reason) if part))
        self.archive = archive
        self.member = member
        self.reason = reason

    def as_dict(self) -> dict[str, str]:
        """Converts it for JSON.

        Returns:
          archive, member and reason.
        """
        return {"archive": self.archive, "member": self.member, "reason": self.reason}

    def __reduce__(self) -> tuple:
        return type(self), (self.archive, self.member, self.reason)


class TornArchive(BadInput):
    """An archive that ends too early or is no tar: what follows in it cannot be read."""


class Problems:
    """Takes every `BadInput` that is met: raises it, or keeps it and lets the rest go on.

    Args:
      on_error: 'raise' or 'skip'. Defaults to 'raise'.

    Raises:
      ValueError: if on_error is something else.

    Attributes:
      found: what was kept, in the order it was met; only with on_error='skip'.
    """

    def __init__(self, on_error: OnError = "raise"):
        self.on_error = check_on_error(on_error)
        self.found: list[BadInput] = []

    def report(
        self, archive: str, member: str, reason: str, kind: type[BadInput] = BadInput
    ) -> None:
        """Raises a problem, or keeps it in `found`.

        Args:
          archive, member, reason: see `BadInput`.
          kind: the class of the error. Defaults to BadInput.
        """
        problem = kind(archive, member, reason)
        if self.on_error == "raise":
            raise problem
        self.found.append(problem)


def summed_up(problems: Iterable[BadInput]) -> list[str]:
    """Lines for people, at most 21: the first few of each reason, and how many more there are."""
    by_reason: dict[str, list[BadInput]] = {}
    for problem in problems:
        by_reason.setdefault(problem.reason, []).append(problem)
    lines: list[str] = []
    for number, (reason, found) in enumerate(by_reason.items()):
        if len(lines) >= _MAX_LINES - _OF_A_REASON:
            rest = sum(map(len, list(by_reason.values())[number:]))
            others = counted(len(by_reason) - number, "other reason")
            return [*lines, f"{rest:,} more, for {others}"]
        lines += map(str, found[:_OF_A_REASON])
        if len(found) > _OF_A_REASON:
            lines.append(f"{len(found) - _OF_A_REASON:,} more: {reason}")
    return lines
