"""`sa1b show`."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from sa1b_tfds.cli.options import Commands, add_command, add_config, output_file

if TYPE_CHECKING:
    from etils import epath


def add(commands: Commands) -> None:
    command = add_command(
        commands, "show", _show, "Draw images with their masks: a page of HTML or a contact sheet."
    )
    add = command.add_argument
    add("source", metavar="SOURCE", help="a tar, a folder of tars or files, or prepared data")
    add("--out", required=True, type=_out, metavar="FILE", help="page.html or sheet.png")
    add("--n", type=_positive, default=16, metavar="N", help="images, from all tars (%(default)s)")
    add_config(command)
    add(
        "--stats",
        type=pathlib.Path,
        metavar="FILE",
        help="what `sa1b stats --json FILE` wrote, instead of reading all of SOURCE for the page",
    )


def _show(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.files import write_whole
    from sa1b_tfds.core.problems import Problems, summed_up
    from sa1b_tfds.core.text import counted
    from sa1b_tfds.examples.parts import find_parts
    from sa1b_tfds.show import contact_sheet, make_page
    from sa1b_tfds.show.pictures import encode_png, take

    problems = Problems("skip")
    parts = find_parts(options.source, options.config)
    examples = take(parts, options.n, problems)
    for line in summed_up(problems.found):
        print(f"left out: {line}", file=sys.stderr)
    if not examples:
        raise ValueError(f"{options.source} holds no image that can be shown.")
    if options.out.suffix == ".png":
        content = encode_png(contact_sheet(examples))
    else:
        content = make_page(
            examples,
            title=options.source,
            statistics=_statistics(options),
            problems=problems.found,
        ).encode()
    write_whole(options.out, content)
    print(f"{counted(len(examples), 'image')} in {options.out}")
    return 0


def _statistics(options: argparse.Namespace) -> dict[str, Any]:
    """Of the whole source."""
    from sa1b_tfds.cli.stats import read_statistics
    from sa1b_tfds.core import own_json
    from sa1b_tfds.show.numbers import statistics_as_html

    if options.stats is None:
        return read_statistics(options.source, options.config).as_dict()

    def checked(statistics: Any) -> dict[str, Any]:
        statistics_as_html(statistics)
        return statistics

    return own_json.read(options.stats, checked, "make it again with `sa1b stats --json`")


def _out(text: str) -> epath.Path:
    if pathlib.Path(text).suffix not in (".html", ".png"):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .html nor in .png")
    return output_file(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
