"""Masks -> one polygon per mask, for YOLO's label files.

A polygon cannot show everything that a mask does. Holes are filled, as ultralytics' own converter
does. If a mask has several parts, one line joins them: it goes to the next part and back at the
nearest corners. When drawn, that bridge is one pixel wide.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from sa1b_tfds.core import extras
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.runs import run_lengths

# A corner is left out if it is within this share of the mask's width (the root of its area), and
# within a pixel, of a straight line.
_TOLERANCE = 1 / 150
_MAX_CORNERS = 500  # corners of a part that are compared to find the nearest pair


def polygons_of(masks: rle.Checked) -> Iterator[np.ndarray | None]:
    """Yields the outline of each mask.

    Yields:
      float64 [M, 2], M >= 3: corners (x, y) in pixels, at pixel centres, of which the first is
      (0.5, 0.5). None for an empty mask.
    """
    height = masks.size[0]
    runs = run_lengths(*masks)
    for start, stop in itertools.pairwise(runs.splits):
        lengths = runs.lengths[start:stop]
        area = lengths[1::2].sum()
        if not area:
            yield None
            continue
        # Only the columns with pixels of the mask are drawn.
        ends = np.cumsum(lengths)
        inside = np.flatnonzero(lengths[1::2]) * 2 + 1
        left, right = ends[inside[0] - 1] // height, (ends[inside[-1]] - 1) // height + 1
        ends = np.clip(ends - left * height, 0, (right - left) * height)
        pixels = np.repeat(np.arange(len(ends), dtype=np.uint8) & 1, np.diff(ends, prepend=0))
        columns = pixels.reshape(right - left, height)
        yield _polygon_of(columns, min(1.0, _TOLERANCE * area**0.5)) + np.array([left + 0.5, 0.5])


def _polygon_of(columns: np.ndarray, tolerance: float) -> np.ndarray:
    """uint8 [W, H] of 0 and 1 -> int [M, 2], the corners (x, y) of all parts in one line."""
    # OpenCV takes [W, H] for a picture [H, W], so it returns (y, x), which ::-1 swaps.
    cv2 = extras.load("cv2", "export")
    parts, _ = cv2.findContours(columns, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = [cv2.approxPolyDP(part, tolerance, True)[:, 0, ::-1] for part in parts]
    corners.sort(key=len, reverse=True)
    polygon = corners[0]
    for part in corners[1:]:
        polygon = _joined(polygon, part)
    missing = max(0, 3 - len(polygon))
    return np.concatenate([polygon, np.repeat(polygon[-1:], missing, axis=0)])


def _joined(polygon: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Inserts `part` into `polygon` where they are nearest, with a way there and back."""
    # Comparing every corner with every other would take too much memory for frayed masks.
    steps = [-(-len(corners) // _MAX_CORNERS) for corners in (polygon, part)]
    between = polygon[:: steps[0], None].astype(np.int64) - part[None, :: steps[1]]
    distances = (between**2).sum(axis=-1)
    i, j = np.unravel_index(distances.argmin(), distances.shape) * np.array(steps)
    around = np.concatenate([part[j:], part[: j + 1]])
    return np.concatenate([polygon[: i + 1], around, polygon[i:]])
