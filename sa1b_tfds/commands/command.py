"""What all commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}

Commands = Any  # what argparse's add_subparsers returns; its type is private


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    """Adds a command that `run` executes; it returns the exit code."""
    command = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def number_of_bytes(text: str) -> int:
    """The bytes that a word such as 200M stands for."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip(), flags=re.I)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes such as 200M")
    return int(float(found[1]) * _SIZES[found[2].upper()])
