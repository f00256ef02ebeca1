"""Prints rows of text in columns."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of equal length: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def number(value: float | None) -> str:
    """Formats a number with four figures, never as 3.762e-05; a dash for None."""
    if value is None:
        return "-"
    return f"{Decimal(f'{value:.4g}'):f}" if abs(value) < 1e4 else f"{value:,.0f}"
