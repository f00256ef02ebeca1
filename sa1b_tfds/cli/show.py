"""`sa1b show`."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from sa1b_tfds.cli.options import Commands, add_command, add_config, output_file, positive

if TYPE_CHECKING:
    from etils import epath


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "show",
        _show,
        "Draw images with their masks, as an HTML page or a contact sheet.",
        examples=("tars --out page.html", "data --config original --out sheet.png --n 4"),
        docs="show.md",
    )
    group = command.add_argument_group("source")
    add = group.add_argument
    add("source", metavar="SOURCE", help="a tar, a folder of tars or files, or prepared data")
    add_config(group)
    add(
        "--n",
        type=positive,
        default=16,
        metavar="N",
        help="number of images, from all tars in turns (default: %(default)s)",
    )
    add = command.add_argument_group("output").add_argument
    add(
        "--out",
        required=True,
        type=_out,
        metavar="FILE",
        help="file to write: .html for a page, .png for a contact sheet",
    )
    add(
        "--stats",
        type=pathlib.Path,
        metavar="FILE",
        help="statistics for the page, from `sa1b stats --json FILE` (default: read all of SOURCE)",
    )


def _show(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.files import write_whole
    from sa1b_tfds.core.problems import Problems, summed_up
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
    print(f"{len(examples)} images in {options.out}")
    return 0


def _statistics(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the statistics of the whole source."""
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
