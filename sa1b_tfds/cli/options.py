"""What all commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etils import epath

_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}

Commands = Any  # what argparse's add_subparsers returns; its type is private


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    """Adds a command that `run` executes; it returns the exit code."""
    command = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def add_config(command: argparse.ArgumentParser) -> None:
    """Adds the option for a SOURCE that is TFDS's data_dir."""
    command.add_argument(
        "--config", metavar="NAME", help="SOURCE is TFDS's data_dir; read this config in it"
    )


def add_on_error(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip leaves out and lists images that cannot be read (%(default)s)",
    )


def number_of_bytes(text: str) -> int:
    """The bytes that a word such as 200M stands for."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)([KMG]?)B?", text.strip(), flags=re.I)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes such as 200M")
    return int(float(found[1]) * _SIZES[found[2].upper()])


def output_file(text: str) -> epath.Path:
    """The path of a file to write. Its folder is made now: an error at the end costs hours."""
    from etils import epath

    path = epath.Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise argparse.ArgumentTypeError(f"{path.parent} cannot be made: {e.strerror}") from e
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a folder")
    return path


def write_json(path: epath.Path, content: Any) -> None:
    """Writes indented JSON; the file is there whole or not at all."""
    import orjson

    from sa1b_tfds.core import files

    text = orjson.dumps(content, option=orjson.OPT_INDENT_2)
    files.write_whole(path, text + b"\n")
