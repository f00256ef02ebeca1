"""A list of tars, a name on each line, which `sa1b locate` prints and `sa1b download` reads."""

from __future__ import annotations

import sys
from pathlib import Path

from sa1b_tfds.core.text import printable
from sa1b_tfds.tars.names import is_tar_name


def read_tar_list(path: str) -> list[str]:
    """Reads a list of names of tars.

    Args:
      path: the file; '-' is the standard input.

    Raises:
      ValueError: naming the file and the line, if there is no name or a line is not the name of a
        tar.
      FileNotFoundError: if the file is not there.
    """
    where = "the standard input" if path == "-" else path
    text = sys.stdin.read() if path == "-" else Path(path).read_text(errors="replace")
    names = []
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.strip()
        if name and ("/" in name or not is_tar_name(name)):
            raise ValueError(
                f"{where}: line {number}: '{printable(name)[:60]}' is not the name of a tar, such"
                " as sa_000020.tar."
            )
        names += [name] if name else []
    if not names:
        raise ValueError(f"{where} holds no name of a tar, such as sa_000020.tar.")
    return names
