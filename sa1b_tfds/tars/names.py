"""The names of SA-1B's tars: `sa_000020.tar`, on some mirrors `sa_000020.tar.gz` or `.tgz`."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"\.(?:tar|tar\.gz|tgz)\Z")
_NUMBERED = re.compile(r"sa_([0-9]{1,18})")
_SA1B = re.compile(r"sa_[0-9]{6}")
# SA-Co Gold, the benchmark of SAM 3: Meta's links file lists it beside SA-1B's tars.
_OTHER_DATASETS = frozenset(("sa_co_gold",))
# `sa1b download` writes NAME.part, and NAME.part.json, which says what that is a part of.
PART = ".part"
PART_STATE = ".part.json"
# These programs download under the final name, often at full size from the start, and keep a state
# file beside it until the download ends. Browsers and most others use another name until then.
STATE_FILES = {".aria2": "aria2", ".st": "axel", ".lftp-pget-status": "lftp"}


def tar_name(number: int) -> str:
    """Returns Meta's name of a tar: `sa_000020.tar` for 20."""
    return f"sa_{number:06d}.tar"


def tar_stem(name: str) -> str:
    """Returns the name without `.tar`, `.tar.gz` or `.tgz`; unchanged if it has none of them."""
    return _SUFFIX.sub("", name)


def is_tar_name(name: str) -> bool:
    """Whether a file of this name is read as a tar of SA-1B's form; its number may be missing."""
    stem = tar_stem(name)
    return stem != name and stem.startswith("sa_") and not is_other_dataset(name)


def is_other_dataset(name: str) -> bool:
    """Whether this is the name of another dataset, which has no pairs."""
    return tar_stem(name) in _OTHER_DATASETS


def is_sa1b_name(name: str) -> bool:
    """Whether this is the name of one of SA-1B's own tars: `sa_` and six digits."""
    return is_tar_name(name) and _SA1B.fullmatch(tar_stem(name)) is not None


def unfinished_tar(name: str) -> str | None:
    """Returns `sa_000020.tar` for `sa_000020.tar.part.json`; None if it is no such state file."""
    tar = name.removesuffix(PART_STATE)
    return tar if tar != name and is_tar_name(tar) else None


def tar_number(name: str) -> int | None:
    """Returns the number in a tar's name: 20 for `sa_000020.tar`; None if there is none."""
    stem = tar_stem(name)
    found = _NUMBERED.fullmatch(stem)
    return int(found[1]) if found and stem != name else None
