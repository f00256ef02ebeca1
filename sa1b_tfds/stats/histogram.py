"""Counts in fixed bins: the memory of a distribution does not grow with its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

_UNIT = 2**32  # sums are integers in units of 1 / _UNIT, so they do not depend on the order
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of values in bins [edges[i], edges[i + 1]); the last bin includes its right edge.

    `a + b` is the histogram of the values of both, if their edges are the same.

    Attributes:
      edges: float64 [B + 1], ascending.
      counts: int64 [B].
      below, above: the numbers of values outside the edges.
      total: the sum of the values inside the edges, in units of 2 ** -32.
      minimum, maximum: the extremes of all values; infinite if there is none.
    """

    edges: np.ndarray
    counts: np.ndarray
    below: int = 0
    above: int = 0
    total: int = 0
    minimum: float = float("inf")
    maximum: float = float("-inf")

    @classmethod
    def empty(cls, edges: Sequence[float] | np.ndarray) -> Histogram:
        """Makes a histogram without values."""
        return cls(edges=np.asarray(edges, np.float64), counts=np.zeros(len(edges) - 1, np.int64))

    def with_values(self, values: Any) -> Histogram:
        """Returns a histogram with K more values; values that are not finite are left out."""
        values = np.asarray(values, np.float64)
        values = values[np.isfinite(values)]
        if not len(values):
            return self
        # searchsorted puts the right edge beyond the last bin; np.minimum puts it into that bin.
        inside = values[(values >= self.edges[0]) & (values <= self.edges[-1])]
        bins = np.minimum(np.searchsorted(self.edges, inside, "right"), len(self.counts)) - 1
        return self + Histogram(
            edges=self.edges,
            counts=np.bincount(bins, minlength=len(self.counts)),
            below=int((values < self.edges[0]).sum()),
            above=int((values > self.edges[-1]).sum()),
            total=sum(np.rint(inside * _UNIT).astype(np.int64).tolist()),
            minimum=float(values.min()),
            maximum=float(values.max()),
        )

    def __add__(self, other: Histogram) -> Histogram:
        if not np.array_equal(self.edges, other.edges):
            raise ValueError("Histograms with different edges cannot be added.")
        return Histogram(
            edges=self.edges,
            counts=self.counts + other.counts,
            below=self.below + other.below,
            above=self.above + other.above,
            total=self.total + other.total,
            minimum=min(self.minimum, other.minimum),
            maximum=max(self.maximum, other.maximum),
        )

    @property
    def count(self) -> int:
        """The number of all values."""
        return self.below + self.above + int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """The mean of the values inside the edges; None if there is none."""
        inside = int(self.counts.sum())
        return self.total / (inside * _UNIT) if inside else None

    def quantile(self, q: float) -> float | None:
        """Returns the value that a share q of all values does not exceed, by interpolation."""
        if not self.count:
            return None
        # Values outside the edges are two more bins, which reach to the minimum and the maximum.
        heights = np.array([self.below, *self.counts, self.above])
        edges = np.array([min(self.minimum, self.edges[0]), *self.edges, self.maximum])
        reached = np.append(0, np.cumsum(heights))
        place = q * reached[-1]
        bin_ = int(np.searchsorted(reached[1:], place))
        share = (place - reached[bin_]) / heights[bin_] if heights[bin_] else 0.0
        value = edges[bin_] + share * (edges[bin_ + 1] - edges[bin_])
        return float(min(max(value, self.minimum), self.maximum))

    def as_dict(self) -> dict[str, Any]:
        """Returns all figures for JSON, and the bins from the first to the last with a value."""
        held = np.flatnonzero(self.counts)
        first, stop = (held[0], held[-1] + 1) if len(held) else (0, 0)
        return {
            "count": self.count,
            "mean": self.mean,
            "min": self.minimum if self.count else None,
            "max": self.maximum if self.count else None,
            "quantiles": {str(q): self.quantile(q) for q in QUANTILES},
            "below": self.below,
            "above": self.above,
            "edges": self.edges[first : stop + 1].tolist(),
            "counts": self.counts[first:stop].tolist(),
        }
