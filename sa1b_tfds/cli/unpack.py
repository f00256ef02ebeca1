"""`sa1b unpack`."""

from __future__ import annotations

import argparse
import sys

from sa1b_tfds.cli.options import Commands, add_command, add_workers


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "unpack",
        _unpack,
        "Make plain tars of the compressed ones that Meta serves, to read any image at once. Plain"
        " tars are a twentieth larger. Builds do not need them. A tar of 11.3 GB takes a core half"
        " a minute to a minute. Interrupted? Run the same command again; it continues.",
        examples=("tars", "tars/sa_000000.tar --out plain"),
        docs="tars.md",
    )
    add = command.add_argument_group("tars").add_argument
    add("tars", nargs="+", metavar="TARS", help="tars, and folders of tars")
    add(
        "--out",
        metavar="DIR",
        help="folder of the plain tars (default: they replace the compressed ones)",
    )
    add_workers(command.add_argument_group("run"), "tars to unpack at a time")


def _unpack(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.text import counted, format_bytes
    from sa1b_tfds.download.unpack import unpack

    try:
        results = unpack(options.tars, options.out, workers=options.workers)
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again; it continues.", file=sys.stderr)
        raise
    for result in results:
        if result.reason:
            print(f"{result.name}: {result.status}, {result.reason}")
    sizes = [result.bytes for result in results if result.status == "unpacked"]
    parts = [f"{len(sizes)} of {counted(len(results), 'tar')} unpacked, {format_bytes(sum(sizes))}"]
    for status, what in (("plain", "plain before"), ("failed", "failed")):
        if number := sum(result.status == status for result in results):
            parts.append(f"{number} {what}")
    print("; ".join(parts))
    return 1 if any(result.status == "failed" for result in results) else 0
