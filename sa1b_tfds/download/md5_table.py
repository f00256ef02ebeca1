"""The table of known MD5 sums, by file name. `check.py` compares a file with it."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

_LINE = re.compile(r"([0-9a-fA-F]{32}) [ *](\S+)")


def read_md5_table(path: str | Path | None = None) -> dict[str, str]:
    """MD5 by file name, from an md5sum-format file, or from the table that comes with the package.

    The package's table was published by one community repository. Meta publishes no checksums.

    Raises:
      ValueError: a line is not in md5sum's format; the message has its number.
    """
    source = resources.files("sa1b_tfds.download") / "sa1b_md5.txt" if path is None else Path(path)
    text = source.read_bytes().decode("utf-8-sig", "replace")  # what is no UTF-8 fits no line below
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
