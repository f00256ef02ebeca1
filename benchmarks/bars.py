"""What a script has to reach, and how it says whether it did."""

from __future__ import annotations


def report(name: str, value: float, *, at_least: float = 0.0, at_most: float | None = None) -> None:
    """Prints a sentence about a figure and its bar."""
    if at_most is not None:
        verdict = "is within" if value <= at_most else "is over"
        print(f"{name}: {value:.2f} {verdict} the bar of at most {at_most:g}")
    else:
        verdict = "reaches" if value >= at_least else "does not reach"
        print(f"{name}: {value:.2f} {verdict} the bar of {at_least:g}")
