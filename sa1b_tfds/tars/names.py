"""What SA-1B's tars are called: `sa_000020.tar`, on some mirrors `sa_000020.tar.gz`."""

from __future__ import annotations

import re

_TAR_NAME = re.compile(r"sa_(?:(\d+)|.*)\.tar(?:\.gz)?")


def tar_name(number: int) -> str:
    """Meta's name of tar `number`: `sa_000020.tar` for 20."""
    return f"sa_{number:06d}.tar"


def is_tar_name(name: str) -> bool:
    """Whether a file of this name is taken for one of SA-1B's tars, with a number or without."""
    return _TAR_NAME.fullmatch(name) is not None


def tar_number(name: str) -> int | None:
    """20 for `sa_000020.tar`; None where there is none."""
    found = _TAR_NAME.fullmatch(name)
    return int(found[1]) if found and found[1] else None
