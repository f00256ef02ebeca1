"""`sa1b locate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sa1b_tfds.cli.options import Commands, add_command, add_missing_ids
from sa1b_tfds.core.text import counted, first_few

if TYPE_CHECKING:
    import numpy as np

    from sa1b_tfds.download.locate import Located


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "locate",
        _locate,
        "Print the names of the tars that hold the images of a list. Tars that are there say it"
        " exactly, by their indexes. For other tars it is an estimate, which includes the"
        " neighbours of each tar. stderr says what is exact.",
        examples=(
            "ids.txt --links-file links.txt",
            "ids.txt --tars tars --known known.csv",
        ),
        docs="subsets.md",
    )
    group = command.add_argument_group("images")
    add = group.add_argument
    add("ids", metavar="FILE", help="ids, names or paths, one a line, or a JSON list")
    add_missing_ids(group, "end with 0")
    add = command.add_argument_group("tars").add_argument
    add("--tars", metavar="DIR", help="folder of tars that are there (default: none are)")
    add(
        "--links-file",
        metavar="FILE",
        help="leave out tars that are neither in DIR nor in this links file (default: there may be"
        " all tars of SA-1B)",
    )
    add(
        "--known",
        metavar="FILE",
        help="images of which you know the tar: on each line an id and a tar (default: none)",
    )


def _locate(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.problems import summed_up
    from sa1b_tfds.download.links import read_links
    from sa1b_tfds.download.locate import locate
    from sa1b_tfds.download.tars_of_ids import joined, read_known
    from sa1b_tfds.examples.id_set import read_ids
    from sa1b_tfds.tars.archive import archives_at, refuse_unfinished

    ids = read_ids(options.ids)
    archives = archives_at(options.tars) if options.tars else []
    if options.tars and not archives:
        refuse_unfinished(options.tars)
        raise FileNotFoundError(f"{options.tars} holds neither tars nor extracted files.")
    known = read_known(options.known) if options.known else joined([])
    linked = read_links(options.links_file).tars if options.links_file else None
    found = locate(ids, archives, known, linked)
    for line in summed_up(found.problems):
        print(f"sa1b locate: {line}", file=sys.stderr)
    for line in _lines(found, len(ids), options):
        print(line, file=sys.stderr)
    for name in found.names:
        print(name)
    lost = len(found.missing) + len(found.without_link)
    return 0 if not lost or (options.missing_ids == "skip" and found.names) else 1


def _lines(found: Located, asked: int, options: argparse.Namespace) -> list[str]:
    """What is exact, what is an estimate, and what is in no tar."""
    lines = []
    for tars, how in ((found.indexed, "their indexes"), (found.listed, options.known)):
        if tars:
            lines.append(
                f"exact: {_images(sum(tars.values()), asked)} in {_tars(list(tars))}, by {how}"
            )
    if found.estimated:
        lines.append(
            f"estimate: {_images(found.estimated, asked)} may be in {_tars(found.may_hold)}, by"
            " the order of ids, neighbours included"
        )
    if len(found.missing):
        lines.append(f"in no tar: {_images(len(found.missing), asked)}: {_few(found.missing)}")
    if len(found.without_link):
        lines.append(
            f"without a link: the tars of {_images(len(found.without_link), asked)}:"
            f" {_few(found.without_link)}; they are not in {options.links_file}"
        )
    if found.unnamed:
        lines.append(
            f"not looked at: {counted(found.unnamed, 'image')} in {options.tars} without an id in"
            " the name"
        )
    return lines


def _images(number: int, asked: int) -> str:
    return f"{number:,} of {counted(asked, 'image')}"


def _tars(names: Sequence[str]) -> str:
    return f"{counted(len(names), 'tar')} ({first_few(sorted(names))})"


def _few(ids: np.ndarray) -> str:
    return first_few(list(map(str, ids.tolist())))
