"""What `sa1b export` and `sa1b repack` share: the choice of images, the run, and its summary."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from sa1b_tfds.cli.options import add_ids, add_on_error, add_workers, positive, refused
from sa1b_tfds.core.text import counted

if TYPE_CHECKING:
    from sa1b_tfds.export.format import Format


def add_selection(command: argparse.ArgumentParser) -> None:
    """Adds the options that choose images, and those of the run."""
    group = command.add_argument_group("images")
    add = group.add_argument
    add(
        "--tars",
        type=_numbers,
        metavar="N,...",
        help="numbers of the tars to take, such as 0:10,20; 0:10 is 0 to 9 (default: all)",
    )
    add(
        "--max-images",
        type=positive,
        metavar="N",
        help="number of images to take, the first ones (default: all)",
    )
    add_ids(group)
    add(
        "--holdout",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the images to hold out for validation, such as 0.01; a hash of each image's"
        " id decides, as in training (default: none)",
    )
    add(
        "--holdout-part",
        choices=("train", "val"),
        default="train",
        help="write the images that are not held out, or those that are (default: %(default)s)",
    )
    add_on_error(group)
    add_workers(command.add_argument_group("run"))


def run_export(options: argparse.Namespace, format: Format, config: str | None = None) -> int:
    """Exports by the options and prints a summary; returns the exit code."""
    from sa1b_tfds.core.problems import summed_up
    from sa1b_tfds.export import ExportConfig, export
    from sa1b_tfds.export.run import REPORT

    with refused(options):
        asked = ExportConfig(
            source=options.source,
            output=options.output,
            format=format,
            config=config,
            tars=options.tars,
            max_images=options.max_images,
            workers=options.workers,
            on_error=options.on_error,
            ids=options.ids,
            missing_ids=options.missing_ids,
            holdout=options.holdout,
            holdout_part=options.holdout_part,
        )
    try:
        exported = export(asked)
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again; it continues.", file=sys.stderr)
        raise
    skipped = exported.skipped
    lines = summed_up(skipped)
    for line in lines:
        print(f"skipped {line}")
    if lines != [str(problem) for problem in skipped]:
        print(f"all of them are in {REPORT} in {options.output}")
    counts = ", ".join(_counted(number, what) for what, number in exported.counts.items())
    if missing := len(exported.missing_ids):
        print(f"{counted(missing, 'image id')} not in {options.source}; all are in {REPORT}")
    already = " already" if exported.was_there else ""
    print(f"{counts} are{already} in {exported.output}; {len(skipped)} skipped")
    return 0


def _counted(number: int, what: str) -> str:
    """'1 mask without a pixel' for 1 of 'masks without a pixel'."""
    name, space, more = what.partition(" ")
    return f"{counted(number, name.removesuffix('s'))}{space}{more}"


def _numbers(text: str) -> set[int]:
    numbers: set[int] = set()
    for word in text.split(","):
        found = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", word.strip())
        if not found:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0:10,20")
        start = int(found[1])
        some = range(start, int(found[2]) if found[2] else start + 1)
        if not some:
            raise argparse.ArgumentTypeError(f"{word} holds no number: its end is exclusive")
        numbers.update(some)
    return numbers
