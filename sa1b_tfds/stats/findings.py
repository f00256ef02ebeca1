"""What was found: how many of a kind, and the first few, whatever the order of adding."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

LIMIT = 20


class Anomaly(NamedTuple):
    """An annotation that contradicts itself or its image."""

    part: str
    image_id: int
    annotation_id: int
    detail: str


class Duplicate(NamedTuple):
    """An image that was there before, and where."""

    part: str
    image_id: int
    first_part: str
    first_image_id: int


class Problem(NamedTuple):
    """What could not be read."""

    part: str
    member: str
    reason: str


Finding = TypeVar("Finding", bound=Anomaly | Duplicate | Problem)


@dataclasses.dataclass(frozen=True)
class Findings(Generic[Finding]):
    """count: of all; first: the first `LIMIT` of them, in their order."""

    count: int = 0
    first: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Finding], count: int | None = None) -> Findings[Finding]:
        """Takes all that was found; with `count`, it may be only the first `LIMIT` of so many."""
        if count is None:
            found = list(found)
            count = len(found)
        return cls(count, tuple(heapq.nsmallest(LIMIT, found)))

    def __add__(self, other: Findings[Finding]) -> Findings[Finding]:
        return Findings.of((*self.first, *other.first), self.count + other.count)

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "first": [found._asdict() for found in self.first]}
