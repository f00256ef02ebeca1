"""Whether a file is the whole, right tar. Reads local files only."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from sa1b_tfds.links import is_tar_name


def count_pairs(path: Path) -> int:
    stems: dict[str, set[str]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                stem, _, ext = member.name.rpartition(".")
                stems.setdefault(stem, set()).add(ext)
    except tarfile.TarError as error:
        raise ValueError(f"not a whole tar: {error}") from None
    pairs = sum(found >= {"jpg", "json"} for found in stems.values())
    with open(path, "rb") as file:
        file.seek(-1024, 2)
        if file.read().strip(b"\0"):
            raise ValueError("not a whole tar: no end marker")
    if not pairs:
        raise ValueError("a tar without a pair of .jpg and .json")
    return pairs


def check_file(path: Path, name: str, digest: Any | None, expected_md5: str | None) -> str | None:
    """What is wrong with a file whose bytes are all there, or None.

    `digest` is the MD5 of those bytes where it is already known; None leaves the MD5 out.
    """
    if digest is not None and digest.hexdigest() != expected_md5:
        return f"the MD5 is {digest.hexdigest()}, the table says {expected_md5}"
    if is_tar_name(name):
        try:
            count_pairs(path)
        except ValueError as error:
            return str(error)
    return None
