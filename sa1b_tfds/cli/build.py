"""`sa1b build`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sa1b_tfds.cli.options import Commands, add_command, add_on_error

if TYPE_CHECKING:
    from sa1b_tfds.segment_anything.build import BuildPlan


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "build",
        _build,
        "Convert tars, compressed as Meta serves them or plain, to a prepared TFDS dataset. The"
        " same command run again continues.",
    )
    add = command.add_argument
    add("tars", metavar="DIR", help="folder of the tars, or one tar; downloaded ones come here")
    add("--config", default="original", metavar="NAME", help="of the dataset (%(default)s)")
    add("--data-dir", metavar="DIR", help="of TFDS (~/tensorflow_datasets)")
    add("--links-file", metavar="FILE", help="download what the config wants and DIR lacks")
    add("--workers", type=int, metavar="N", help="tars at a time (one a core)")
    add(
        "--delete-tars",
        nargs="?",
        const="downloaded",
        default="never",
        choices=("downloaded", "all"),
        help="download, convert and delete tar by tar; 'all' deletes your own tars as well",
    )
    add(
        "--add",
        action="store_true",
        help="extend prepared data with new and changed tars; reads the rest to find damage",
    )
    add(
        "--file-format",
        choices=("tfrecord", "array_record"),
        help="(that of prepared data, else tfrecord)",
    )
    add_on_error(command)
    add(
        "--md5",
        action="store_true",
        help="take the MD5 of your own tars as well, compare it with the community's table and put"
        " it into the report; 1.4 seconds of a core for each GB",
    )
    add("--plan", action="store_true", help="print tars, disk and expected time, do nothing")


def _build(options: argparse.Namespace) -> int:
    from pathlib import Path

    from sa1b_tfds.building.report import print_summary
    from sa1b_tfds.segment_anything.build import BuildConfig, build, plan

    config = BuildConfig(
        tars=Path(options.tars),
        config=options.config,
        data_dir=Path(options.data_dir) if options.data_dir else None,
        links_file=Path(options.links_file) if options.links_file else None,
        workers=options.workers,
        file_format=options.file_format,
        on_error=options.on_error,
        delete_tars=options.delete_tars,
        md5=options.md5,
        add=options.add,
    )
    if options.plan:
        return 0 if _print_build_plan(plan(config)) else 1
    try:
        report = build(config)
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on with the tars that are left.", file=sys.stderr)
        raise
    print_summary(report)
    return 0


def _print_build_plan(plan: BuildPlan) -> bool:
    """Prints a plan; returns whether it fits on the disk."""
    from sa1b_tfds.core.text import format_bytes, format_duration

    for tar in plan.tars:
        print(f"{tar.name}: {tar.state}, {format_bytes(tar.bytes)}")
    to_do = sum(tar.state != "finished" for tar in plan.tars)
    needed = plan.prepared + plan.in_flight + plan.scratch
    free = "unknown" if plan.free is None else format_bytes(plan.free)
    how_long, shards = format_duration(plan.seconds), f"{format_bytes(plan.prepared)} of shards"
    if plan.in_flight:
        how_long += " without downloads"
        shards += f", {format_bytes(plan.in_flight)} of downloaded tars"
    if plan.scratch:
        shards += f", and for a while {format_bytes(plan.scratch)} of unpacked tars"
    print(
        f"{to_do} of {len(plan.tars)} tars to convert, about {how_long}; up to {shards},"
        f" {free} free"
    )
    if plan.free is None or needed <= plan.free:
        return True
    print(
        f"sa1b build: this does not fit, as up to {format_bytes(needed)} are needed and {free} are"
        " free. Make room, name another --data-dir, or take fewer tars.",
        file=sys.stderr,
    )
    return False
