"""`sa1b unpack`."""

from __future__ import annotations

import argparse
import sys

from sa1b_tfds.cli.options import Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "unpack",
        _unpack,
        "Make plain tars of the compressed ones that Meta serves, to read any image at once. They"
        " are a twentieth larger; builds do not need them. One of 11.3 GB takes a core half a"
        " minute to a minute. The same command run again continues.",
    )
    add = command.add_argument
    add("tars", nargs="+", metavar="TARS", help="tars, and folders of tars")
    add("--out", metavar="DIR", help="for the plain tars; default: they replace the others")
    add("--workers", type=int, metavar="N", help="tars at a time (one a core)")


def _unpack(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.text import counted, format_bytes
    from sa1b_tfds.download.unpack import unpack

    try:
        results = unpack(options.tars, options.out, workers=options.workers)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on with the tars that are left.", file=sys.stderr)
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
