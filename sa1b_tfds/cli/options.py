"""What all commands share: how a command and its options are added, checked and refused."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etils import epath

_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_WIDTH = 79

Commands = Any  # what argparse's add_subparsers returns; its type is private
Group = Any  # a parser, or a group of its options; the latter's type is private


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    *,
    examples: Iterable[str],
    docs: str,
) -> argparse.ArgumentParser:
    """Adds a command.

    Args:
      commands: to which it is added.
      name: its name.
      run: executes it and returns the exit code.
      help: what it does.
      examples: command lines, without `sa1b` and its name.
      docs: the page in docs/ that describes it.
    """
    lines = "".join(f"  sa1b {name} {example}\n" for example in examples)
    command = commands.add_parser(
        name,
        help=help.partition(". ")[0].rstrip("."),
        description=textwrap.fill(help, _WIDTH),
        epilog=f"examples:\n{lines}\nmore: docs/{docs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # it keeps the lines of the epilog
        allow_abbrev=False,
    )
    command.set_defaults(run=run, parser=command)
    return command


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to end a message with, or nothing if no known word is close to this one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f". Did you mean {close[0]}?" if close else ""


@contextlib.contextmanager
def refused(options: argparse.Namespace) -> Iterator[None]:
    """Turns a ValueError of options that make no sense into the command's usage and exit code 2."""
    try:
        yield
    except ValueError as e:
        options.parser.error(str(e))


def add_config(group: Group) -> None:
    """Adds the option for a SOURCE that is TFDS's data_dir."""
    group.add_argument(
        "--config",
        metavar="NAME",
        help="config to read if SOURCE is TFDS's data_dir, such as original (default: the only one"
        " there)",
    )


def add_on_error(group: Group) -> None:
    """Adds the option that chooses what happens to images that cannot be read."""
    group.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="stop at an image that cannot be read, or leave such images out and list them"
        " (default: %(default)s)",
    )


def add_ids(group: Group, note: str = "") -> None:
    """Adds the options for a list of image ids."""
    group.add_argument(
        "--ids",
        metavar="FILE",
        help="take only these images: ids, names or paths, one a line, or a JSON list"
        + (f"; {note}" if note else "")
        + " (default: all)",
    )
    add_missing_ids(group, "go on without them and list them")


def add_missing_ids(group: Group, skip: str) -> None:
    """Adds the option that chooses what happens to ids that no tar has."""
    group.add_argument(
        "--missing-ids",
        choices=("raise", "skip"),
        default="raise",
        help=f"end with an error if no tar has an id, or {skip} (default: %(default)s)",
    )


def add_workers(group: Group, what: str = "number of processes") -> None:
    """Adds the option for the number of workers."""
    group.add_argument(
        "--workers", type=positive, metavar="N", help=f"{what} (default: one per core)"
    )


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def number_of_bytes(text: str) -> int:
    """The number of bytes in a text such as 200M."""
    found = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)([KMG]?)B?", text.strip(), flags=re.I)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes such as 200M")
    return int(float(found[1]) * _SIZES[found[2].upper()])


def output_file(text: str) -> epath.Path:
    """The path of a file to write. Makes its folder now: an error at the end would cost hours."""
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
    """Writes indented JSON; the file appears whole or not at all."""
    import orjson

    from sa1b_tfds.core import files

    text = orjson.dumps(content, option=orjson.OPT_INDENT_2)
    files.write_whole(path, text + b"\n")
