"""What SA-1B's tars are called: `sa_000020.tar`, on some mirrors `sa_000020.tar.gz` or `.tgz`."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"\.(?:tar|tar\.gz|tgz)\Z")
_NUMBERED = re.compile(r"sa_([0-9]{1,18})")
_SA1B = re.compile(r"sa_[0-9]{6}")
# Meta's links file lists it beside SA-1B's tars: SA-Co Gold, the benchmark of SAM 3.
_OTHER_DATASETS = frozenset(("sa_co_gold",))
# These programs write a file under its own name, often at its full size from the start, and keep
# their state beside it until it is complete. Browsers and most others use another name meanwhile.
STATE_FILES = {".aria2": "aria2", ".st": "axel", ".lftp-pget-status": "lftp"}


def tar_name(number: int) -> str:
    """Meta's name of tar `number`: `sa_000020.tar` for 20."""
    return f"sa_{number:06d}.tar"


def tar_stem(name: str) -> str:
    """The name without `.tar`, `.tar.gz` or `.tgz`, or the name itself if it has none of them."""
    return _SUFFIX.sub("", name)


def is_tar_name(name: str) -> bool:
    """Whether a file of this name is read as a tar in SA-1B's form, with a number or without."""
    stem = tar_stem(name)
    return stem != name and stem.startswith("sa_") and not is_other_dataset(name)


def is_other_dataset(name: str) -> bool:
    """Whether a file of this name is known to be another dataset, which has no pairs to read."""
    return tar_stem(name) in _OTHER_DATASETS


def is_sa1b_name(name: str) -> bool:
    """Whether a file of this name is one of SA-1B's own tars: `sa_` and six digits."""
    return is_tar_name(name) and _SA1B.fullmatch(tar_stem(name)) is not None


def tar_number(name: str) -> int | None:
    """The number in a tar's name: 20 for `sa_000020.tar`. None if there is none."""
    stem = tar_stem(name)
    found = _NUMBERED.fullmatch(stem)
    return int(found[1]) if found and stem != name else None
