"""The statistics of some parts of a dataset, which add up to those of all, in any order."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sa1b_tfds.examples.example import Example
from sa1b_tfds.masks.runs import areas, run_lengths
from sa1b_tfds.stats.anomalies import KINDS, anomalies
from sa1b_tfds.stats.findings import LIMIT, Anomaly, Duplicate, Findings, Problem
from sa1b_tfds.stats.histogram import Histogram

_SIDES = np.arange(-0.5, 16390, 10)
EDGES = {
    "masks_per_image": np.arange(-0.5, 1001),
    "area_fraction": np.logspace(-8, 0, 81),  # of the image; ten bins per power of ten
    "predicted_iou": np.linspace(0, 1.1, 551),
    "stability_score": np.linspace(0, 1, 501),
    "short_side": _SIDES,  # of the image, in pixels
    "long_side": _SIDES,
}


@dataclasses.dataclass(frozen=True)
class Keys:
    """What identifies K images, in 16 bytes per image.

    Attributes:
      ids: int64 [K], image ids.
      digests: uint64 [K], BLAKE2b of their JPEG bytes.
    """

    ids: np.ndarray
    digests: np.ndarray

    @classmethod
    def of(cls, ids: Sequence[int], digests: Sequence[int]) -> Keys:
        """Makes keys of plain integers."""
        return cls(np.array(ids, np.int64), np.array(digests, np.uint64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """The statistics of some parts of a dataset. `a + b` are those of the parts of both.

    Attributes:
      images, masks, jpeg_bytes: counts.
      distributions: a `Histogram` for each name in `EDGES`.
      anomalies: the `Findings` of each kind in `KINDS` that occurs.
      problems: what could not be read, which is in no other figure.
      keys: what identifies the images, by the part's name and the number of its images before.
    """

    images: int = 0
    masks: int = 0
    jpeg_bytes: int = 0
    distributions: Mapping[str, Histogram] = dataclasses.field(
        default_factory=lambda: {name: Histogram.empty(edges) for name, edges in EDGES.items()}
    )
    anomalies: Mapping[str, Findings[Anomaly]] = dataclasses.field(default_factory=dict)
    problems: Findings[Problem] = dataclasses.field(default_factory=Findings)
    keys: Mapping[tuple[str, int], Keys] = dataclasses.field(default_factory=dict)

    def __add__(self, other: Statistics) -> Statistics:
        if twice := self.keys.keys() & other.keys.keys():
            names = ", ".join(sorted({part for part, _ in twice}))
            raise ValueError(f"These parts would be counted twice: {names}.")
        return Statistics(
            images=self.images + other.images,
            masks=self.masks + other.masks,
            jpeg_bytes=self.jpeg_bytes + other.jpeg_bytes,
            distributions={
                name: histogram + other.distributions[name]
                for name, histogram in self.distributions.items()
            },
            anomalies=add_findings(self.anomalies, other.anomalies),
            problems=self.problems + other.problems,
            keys={**self.keys, **other.keys},
        )

    @property
    def parts(self) -> int:
        """The number of parts, with empty ones."""
        return len({part for part, _ in self.keys})

    @functools.cached_property
    def duplicates(self) -> dict[str, Findings[Duplicate]]:
        """The images whose id ('image_id') or whose JPEG bytes ('jpeg') were there before.

        Parts are ordered by name, and the images of a part as they are in it.
        """
        return {
            "image_id": self._repeated(lambda keys: keys.ids),
            "jpeg": self._repeated(lambda keys: keys.digests),
        }

    def _repeated(self, key_of: Callable[[Keys], np.ndarray]) -> Findings[Duplicate]:
        pieces = sorted(self.keys)
        if not pieces:
            return Findings()
        key = np.concatenate([key_of(self.keys[piece]) for piece in pieces])
        ordered = np.sort(key)
        if not (ordered[1:] == ordered[:-1]).any():  # as in SA-1B: spares 180 MB for all of it
            return Findings()
        # Sorting brings equal keys together; a stable sort keeps the first image in front. Then
        # `first` spreads the place of each group's first image over the group.
        order = np.argsort(key, kind="stable")
        is_first = np.append(True, key[order[1:]] != key[order[:-1]])[: len(order)]
        first = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
        again = np.flatnonzero(~is_first)
        # The first findings by value: found for all at once, as all of SA-1B may be there twice.
        part_of = {part: number for number, part in enumerate(sorted({part for part, _ in pieces}))}
        lengths = [len(self.keys[piece].ids) for piece in pieces]
        part = np.repeat([part_of[part] for part, _ in pieces], lengths)
        ids = np.concatenate([self.keys[piece].ids for piece in pieces])
        own, others = order[again], first[again]
        least = np.lexsort((ids[others], part[others], ids[own], part[own]))[:LIMIT]
        names = list(part_of)

        def where(place: int) -> tuple[str, int]:
            return names[part[place]], int(ids[place])

        found = [Duplicate(*where(own[i]), *where(others[i])) for i in least]
        return Findings.of(found, len(again))

    def as_dict(self) -> dict[str, Any]:
        """Converts all statistics for JSON.

        Returns:
          A dict that docs/metrics.md describes.
        """
        return {
            "parts": self.parts,
            "images": self.images,
            "masks": self.masks,
            "jpeg_bytes": self.jpeg_bytes,
            "distributions": {name: h.as_dict() for name, h in self.distributions.items()},
            "duplicates": {name: found.as_dict() for name, found in self.duplicates.items()},
            "anomalies": {
                kind: {"what": what, **self.anomalies.get(kind, Findings()).as_dict()}
                for kind, what in KINDS.items()
            },
            "problems": self.problems.as_dict(),
        }


class Sum:
    """Adds up statistics of many parts.

    Each sum is a copy of the keys of all its parts. So a part is not added to the sum of all that
    were before it, but only to a sum of as many parts, as in merge sort.

    images: of all that was added.
    """

    def __init__(self) -> None:
        self.images = 0
        self._sums: list[tuple[int, Statistics]] = []  # how many were added up, and their sum

    def add(self, statistics: Statistics) -> None:
        self.images += statistics.images
        number = 1
        while self._sums and self._sums[-1][0] == number:
            statistics = self._sums.pop()[1] + statistics
            number *= 2
        self._sums.append((number, statistics))

    def total(self) -> Statistics:
        total = Statistics()
        for _, statistics in reversed(self._sums):
            total = statistics + total
        return total


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the statistics say of one example; much smaller than it.

    values: for each name in `EDGES`, its values.
    """

    masks: int
    jpeg_bytes: int
    values: Mapping[str, Any]
    anomalies: Mapping[str, Findings[Anomaly]]


def measure(part: str, example: Example) -> Measured:
    """Measures one example of a part."""
    counts, size = example.masks
    height, width = size
    runs = run_lengths(counts, size)
    columns = example.annotations
    values = {
        "masks_per_image": [len(counts)],
        "area_fraction": areas(runs) / (height * width),
        "predicted_iou": columns["predicted_iou"],
        "stability_score": columns["stability_score"],
        "short_side": [min(size)],
        "long_side": [max(size)],
    }
    found = anomalies(part, example, runs)
    return Measured(len(counts), len(example.image), values, found)


def statistics_of_measured(measured: Sequence[Measured]) -> Statistics:
    """The statistics of some examples, without their keys.

    A histogram of many images takes hardly longer than that of one.
    """
    empty = Statistics()
    if not measured:
        return empty
    found = [one.anomalies for one in measured if one.anomalies]
    return Statistics(
        images=len(measured),
        masks=sum(one.masks for one in measured),
        jpeg_bytes=sum(one.jpeg_bytes for one in measured),
        distributions={
            name: histogram.with_values(np.concatenate([one.values[name] for one in measured]))
            for name, histogram in empty.distributions.items()
        },
        anomalies=functools.reduce(add_findings, found, {}),
    )


def digest(jpeg: bytes) -> int:
    """Returns 64 bits of the BLAKE2b of a JPEG's bytes."""
    return int.from_bytes(hashlib.blake2b(jpeg, digest_size=8).digest(), "big")


def add_findings(
    a: Mapping[str, Findings[Anomaly]], b: Mapping[str, Findings[Anomaly]]
) -> dict[str, Findings[Anomaly]]:
    """Adds findings kind by kind, in the order of `KINDS`."""
    none: Findings[Anomaly] = Findings()
    return {k: a.get(k, none) + b.get(k, none) for k in KINDS if k in a or k in b}
