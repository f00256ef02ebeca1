"""How much memory a process and its children take."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import psutil


def resident(tree: Sequence[psutil.Process]) -> int:
    """Bytes of the resident sizes; pages that processes share count more than once."""
    total = 0
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total
