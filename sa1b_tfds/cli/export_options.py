"""What `sa1b export` and `sa1b repack` share: which images, how, and what is said in the end."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from sa1b_tfds.cli.options import add_on_error

if TYPE_CHECKING:
    from sa1b_tfds.export.format import Format


def add_selection(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--tars",
        type=_numbers,
        metavar="N,...",
        help="only these, by the numbers in their names; 0:10 is 0 to 9",
    )
    add("--max-images", type=int, metavar="N", help="only the first ones")
    add("--workers", type=int, metavar="N", help="processes (one a core)")
    add_on_error(command)


def run_export(options: argparse.Namespace, format: Format, config: str | None = None) -> int:
    """Exports what the options say; returns the exit code."""
    from sa1b_tfds.core.problems import summed_up
    from sa1b_tfds.export import ExportConfig, export
    from sa1b_tfds.export.run import REPORT

    try:
        exported = export(
            ExportConfig(
                source=options.source,
                output=options.output,
                format=format,
                config=config,
                tars=options.tars,
                max_images=options.max_images,
                workers=options.workers,
                on_error=options.on_error,
            )
        )
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        raise
    skipped = exported.skipped
    lines = summed_up(skipped)
    for line in lines:
        print(f"skipped {line}")
    if lines != [str(problem) for problem in skipped]:
        print(f"all of them are in {REPORT} in {options.output}")
    counts = ", ".join(f"{number} {what}" for what, number in exported.counts.items())
    already = " already" if exported.was_there else ""
    print(f"{counts} are{already} in {exported.output}; {len(skipped)} skipped")
    return 0


def _numbers(text: str) -> set[int]:
    numbers: set[int] = set()
    for word in text.split(","):
        found = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", word.strip())
        if not found:
            raise argparse.ArgumentTypeError(f"{text!r} are no numbers or ranges such as 0:10,20")
        start = int(found[1])
        numbers.update(range(start, int(found[2]) if found[2] else start + 1))
    return numbers
