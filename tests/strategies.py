"""What the property tests draw from, and the slow reference that they compare with."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

ALPHABET = "".join(map(chr, range(48, 112)))
sides = st.one_of(st.integers(1, 4), st.integers(5, 70))


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """bool [N, H, W]: N = 0 to 4, noise, blocks, empty, full, one pixel; H or W may be 1."""
    n, height, width = draw(st.integers(0, 4)), draw(sides), draw(sides)
    result = np.zeros((n, height, width), bool)
    for mask in result:
        kind = draw(st.sampled_from(["noise", "block", "empty", "full", "pixel"]))
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        if kind == "noise":
            mask[:] = draw(hnp.arrays(bool, (height, width)))
        elif kind == "block":
            mask[y : draw(st.integers(y, height)), x : draw(st.integers(x, width))] = True
        elif kind == "full":
            mask[:] = True
        elif kind == "pixel":
            mask[y, x] = True
    return result


def sample(
    full: np.ndarray,
    output_size: tuple[int, int] | None = None,
    window: tuple[int, int, int, int] | None = None,
    flip: bool = False,
) -> np.ndarray:
    """Crop (zeros outside), nearest sampling at pixel centres and mirroring of masks [N, H, W]."""
    y, x, height, width = window or (0, 0, *full.shape[1:])
    crop = np.zeros((len(full), height, width), np.uint8)
    for row in range(max(0, -y), min(height, full.shape[1] - y)):
        for column in range(max(0, -x), min(width, full.shape[2] - x)):
            crop[:, row, column] = full[:, y + row, x + column]
    h, w = output_size or (height, width)
    rows = np.floor((np.arange(h) + 0.5) * height / h).astype(int)
    columns = np.floor((np.arange(w) + 0.5) * width / w).astype(int)
    result = crop[:, rows][:, :, columns]
    return result[:, :, ::-1] if flip else result
