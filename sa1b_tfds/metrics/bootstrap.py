"""How far a mean might be off: percentile bootstrap intervals (Efron 1979), by SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from sa1b_tfds.core import extras

RESAMPLES = 1000
_MAX_DRAWN = 2**22  # of indices at a time, 32 MB


def mean_interval(
    values: Any, groups: Any = None, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """An interval for the mean.

    Args:
      values: float [N].
      groups: [N], what is drawn together: masks of one image are not independent of each other.
        Default: each value by itself.
      level: of confidence.
      seed: of the draws; the same one gives the same interval.

    Returns:
      (low, high), or None for fewer than two groups, of which nothing can be said.

    Raises:
      ImportError: without SciPy, naming the extra.
    """
    values = np.asarray(values, np.float64)
    group = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(group)
    if len(counts) < 2:
        return None
    sums = np.bincount(group, values)

    def mean(sums: np.ndarray, counts: np.ndarray, axis: int) -> np.ndarray:
        return sums.sum(axis=axis) / counts.sum(axis=axis)

    interval = (
        extras.load("scipy.stats", "metrics")
        .bootstrap(
            (sums, counts),
            mean,
            n_resamples=RESAMPLES,
            batch=max(1, _MAX_DRAWN // len(counts)),
            paired=True,
            vectorized=True,
            confidence_level=level,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        .confidence_interval
    )
    return float(interval.low), float(interval.high)
