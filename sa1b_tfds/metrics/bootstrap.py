"""Confidence intervals of means: percentile bootstrap (Efron 1979), by SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from sa1b_tfds.core import extras

RESAMPLES = 1000
_MAX_DRAWN = 2**22  # indices drawn at a time, 32 MB


def mean_interval(
    values: Any, groups: Any = None, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Computes a confidence interval of the mean.

    Args:
      values: float [N].
      groups: [N], the group of each value, such as its image. Groups are drawn as a whole, because
        the masks of one image are not independent. Defaults to a group for each value.
      level: the confidence level. Defaults to 0.95.
      seed: the seed of the draws; the same seed gives the same interval. Defaults to 0.

    Returns:
      (low, high), or None for fewer than two groups, which do not determine an interval.

    Raises:
      ImportError: if SciPy is missing; names the extra.
    """
    values = np.asarray(values, np.float64)
    group = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(group)
    if len(counts) < 2:
        return None
    # The mean of drawn groups needs only each group's sum and count, not its values.
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
