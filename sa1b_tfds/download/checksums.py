"""MD5 sums of the tars: the table of known ones, and hashing a file. No network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from etils import epath

_LINE = re.compile(r"([0-9a-fA-F]{32}) [ *](\S+)")
_BLOCK = 1 << 20


def read_md5_table(path: str | Path | None = None) -> dict[str, str]:
    """MD5 by file name, from an md5sum-format file, or from the table that comes with the package.

    The package's table was published by one community repository. Meta publishes no checksums.

    Raises:
      ValueError: a line is not in md5sum's format; the message has its number.
    """
    source = resources.files("sa1b_tfds.download") / "sa1b_md5.txt" if path is None else Path(path)
    text = source.read_bytes().decode("utf-8-sig", "replace")  # what is none fits no line below
    table = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.rstrip())
        if not found:
            raise ValueError(
                f"{source}, line {number}: expected an MD5, two spaces and a file name, as md5sum "
                "writes them."
            )
        table[Path(found[2]).name] = found[1].lower()
    return table


def new_md5() -> Any:
    """An MD5 that also starts on machines in FIPS mode: it guards against damage, not attack."""
    return hashlib.md5(usedforsecurity=False)


def hash_file(
    path: epath.PathLike,
    *,
    check: Callable[[], None] = lambda: None,
    on_hashed: Callable[[int], None] = lambda size: None,
) -> Any:
    """The running MD5 of a file's bytes, ready to go on with.

    After every MiB `check` is called, and `on_hashed` with the bytes so far; what they raise ends
    the hashing.
    """
    digest = new_md5()
    hashed = 0
    with epath.Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            hashed += len(block)
            check()
            on_hashed(hashed)
    return digest
