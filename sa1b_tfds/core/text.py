"""Numbers, names and text from outside, written for people."""

from __future__ import annotations

import math
from collections.abc import Sequence


def format_bytes(count: float) -> str:
    """'1.5 GB', in powers of 1000 as disks and networks are sold."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return counted(round(count), "byte")


def format_duration(seconds: float) -> str:
    """'5 s', rounded up to whole seconds; '1.5 min' or '1.5 h' if it is longer."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{math.ceil(seconds)} s"


def counted(number: int, name: str, names: str | None = None) -> str:
    """'1 tar', '1,000 tars'; `names` is the plural of a name that takes more than an s."""
    return f"{number:,} {name if number == 1 else names or f'{name}s'}"


def first_few(texts: Sequence[str]) -> str:
    """The first three, and how many others there are: 'a, b, c and 2 more'."""
    more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return ", ".join(texts[:3]) + more


def with_name(name: str, text: str) -> str:
    """'name: text'; just `text` if it begins with the name already."""
    return text if text.startswith(f"{name}: ") else f"{name}: {text}"


def printable(text: str) -> str:
    """`text` from outside in one line, without the characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
