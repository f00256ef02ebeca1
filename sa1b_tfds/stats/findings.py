"""Findings: how many of a kind there are, and the first few, in whatever order they were added."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

LIMIT = 20


class Anomaly(NamedTuple):
    """An annotation that contradicts its mask or its image."""

    part: str
    image_id: int
    annotation_id: int
    detail: str


class Duplicate(NamedTuple):
    """An image that was there before, and where it was."""

    part: str
    image_id: int
    first_part: str
    first_image_id: int


class Problem(NamedTuple):
    """Something that could not be read, and why."""

    part: str
    member: str
    reason: str


Finding = TypeVar("Finding", bound=Anomaly | Duplicate | Problem)


@dataclasses.dataclass(frozen=True)
class Findings(Generic[Finding]):
    """How many findings there are, and the first `LIMIT` of them by value.

    Attributes:
      count: the number of all findings.
      first: the smallest `LIMIT`, sorted. So sums do not depend on the order of adding.
    """

    count: int = 0
    first: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Finding], count: int | None = None) -> Findings[Finding]:
        """Makes findings of all that was found; or of the first `LIMIT`, and then their `count`."""
        if count is None:
            found = list(found)
            count = len(found)
        return cls(count, tuple(heapq.nsmallest(LIMIT, found)))

    def __add__(self, other: Findings[Finding]) -> Findings[Finding]:
        return Findings.of((*self.first, *other.first), self.count + other.count)

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "first": [found._asdict() for found in self.first]}
