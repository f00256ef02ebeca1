"""Draws histograms as inline SVG, which needs no script and no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

_WIDTH, _HEIGHT, _BASE = 260, 110, 90  # the labels are below the base
_MAX_BARS = 50


def number(value: float) -> str:
    """A number as people read it: 1,234 or 0.987."""
    if abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def histogram(
    title: str,
    counts: Sequence[int],
    edges: Sequence[float],
    caption: str = "",
    write: Callable[[float], str] = number,
) -> str:
    """Draws a bar for each count, neighbours joined where they are many; its tooltip says both.

    Args:
      title: what was counted.
      counts: B numbers, not negative; B may be 0.
      edges: B + 1 numbers, the ranges' borders.
      caption: a sentence below the bars.
      write: makes a text of an edge.

    Returns:
      A `<figure>` with an `<svg>`.

    Raises:
      ValueError: if there is not one edge more than counts.
    """
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(counts)} counts need one edge more, got {len(edges)} edges.")
    joined = -(-len(counts) // _MAX_BARS)
    counts = [sum(counts[i : i + joined]) for i in range(0, len(counts), joined or 1)]
    edges = [*edges[: -1 : joined or 1], edges[-1]]
    tallest = max([*counts, 1])
    step = _WIDTH / max(len(counts), 1)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{_BASE - _BASE * count / tallest:.1f}"'
        f' width="{max(step - 1, 0.5):.1f}" height="{_BASE * count / tallest:.1f}">'
        f"<title>{write(edges[i])} to {write(edges[i + 1])}: {count:,}</title></rect>"
        for i, count in enumerate(counts)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{bars}'
        f'<line x1="0" y1="{_BASE}" x2="{_WIDTH}" y2="{_BASE}"/>'
        f'<text x="0" y="{_HEIGHT - 5}">{write(edges[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 5}" text-anchor="end">{write(edges[-1])}</text>'
        f"</svg><small>{escape(caption)}</small></figure>"
    )
