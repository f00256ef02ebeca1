"""`sa1b build`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sa1b_tfds.cli.options import (
    Commands,
    add_command,
    add_ids,
    add_on_error,
    add_workers,
    did_you_mean,
    refused,
)

if TYPE_CHECKING:
    from sa1b_tfds.segment_anything.plan import BuildPlan


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "build",
        _build,
        "Convert tars, compressed as Meta serves them or plain, to a prepared TFDS dataset."
        " Interrupted? Run the same command again; it continues.",
        examples=(
            "tars --data-dir data",
            "tars --config original_1pct --links-file links.txt --delete-tars",
        ),
        docs="build.md",
    )
    add = command.add_argument_group("tars").add_argument
    add("tars", metavar="DIR", help="folder of the tars, or one tar; downloads go there as well")
    add(
        "--links-file",
        metavar="FILE",
        help="download the config's tars that are missing in DIR, by this links file (default:"
        " download nothing)",
    )
    add(
        "--delete-tars",
        nargs="?",
        const="downloaded",
        default="never",
        choices=("downloaded", "all"),
        help="convert tar by tar and delete each one that was downloaded; 'all' deletes your own"
        " tars as well (default: delete nothing)",
    )
    add(
        "--md5",
        action="store_true",
        help="compare the MD5 of your own tars as well with the community's table, and report it;"
        " takes a core 1.4 seconds per GB (default: only that of downloads)",
    )
    group = command.add_argument_group("dataset")
    add = group.add_argument
    add(
        "--config",
        default="original",
        metavar="NAME",
        help="config of the dataset: original, with the images as they are, or resized_1024; with"
        " _10pct or _1pct at its end for the first 100 or 10 tars (default: %(default)s)",
    )
    add(
        "--also",
        metavar="NAME",
        help="another config, written in the same pass over the tars (default: none)",
    )
    add(
        "--data-dir",
        metavar="DIR",
        help="where TFDS keeps prepared data (default: ~/tensorflow_datasets)",
    )
    add_ids(group, "the data is that of the config NAME_ids")
    add(
        "--add",
        action="store_true",
        help="extend prepared data by new and changed tars, and read the rest to find damage"
        " (default: leave prepared data as it is)",
    )
    add(
        "--file-format",
        choices=("tfrecord", "array_record"),
        help="form of the shards (default: that of prepared data, else tfrecord)",
    )
    add_on_error(group)
    group = command.add_argument_group("run")
    add_workers(group, "tars to convert at a time")
    group.add_argument(
        "--plan", action="store_true", help="print tars, disk and expected time, and do nothing"
    )


def _build(options: argparse.Namespace) -> int:
    from pathlib import Path

    from etils import epath

    from sa1b_tfds.building.report import print_summary
    from sa1b_tfds.core import files, stores
    from sa1b_tfds.segment_anything.build import build
    from sa1b_tfds.segment_anything.build_config import BuildConfig
    from sa1b_tfds.segment_anything.configs import ALL
    from sa1b_tfds.segment_anything.plan import plan

    names = [config.name for config in ALL]
    for name in filter(None, (options.config, options.also)):
        if name not in names:
            question = did_you_mean(name, names) or f". Choose from {', '.join(names)}"
            options.parser.error(f"no such config: {name}{question}")

    def path_of(text: str) -> Path | epath.Path:
        return Path(text) if files.is_local(text) else epath.Path(text)

    with refused(options):
        config = BuildConfig(
            tars=path_of(options.tars),
            config=options.config,
            also=options.also,
            data_dir=path_of(options.data_dir) if options.data_dir else None,
            links_file=Path(options.links_file) if options.links_file else None,
            workers=options.workers,
            file_format=options.file_format,
            on_error=options.on_error,
            delete_tars=options.delete_tars,
            md5=options.md5,
            add=options.add,
            image_ids=options.ids,
            missing_ids=options.missing_ids,
        )
    if options.plan:
        with stores.errors_named(options.tars):
            planned = plan(config)
        return 0 if _print_build_plan(planned) else 1
    try:
        configs = list(filter(None, (config, config.of_also())))
        with stores.errors_named(options.tars):
            reports = [build(one) for one in configs]
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again; it continues.", file=sys.stderr)
        raise
    for one, report in zip(configs, reports, strict=True):
        if len(configs) > 1:
            print(f"{one.config}:")
        print_summary(report)
    return 0


def _print_build_plan(plan: BuildPlan) -> bool:
    """Prints a plan; returns whether it fits on the disk."""
    from sa1b_tfds.core.text import counted, format_bytes, format_duration

    for tar in plan.tars:
        print(f"{tar.name}: {tar.state}, {format_bytes(tar.bytes)}")
    to_do = sum(tar.state != "finished" for tar in plan.tars)
    if not to_do:
        print(f"Nothing to convert: {counted(len(plan.tars), 'tar')}, all finished")
        return True
    needed = plan.prepared + plan.in_flight + plan.scratch
    free = "unknown" if plan.free is None else format_bytes(plan.free)
    how_long, shards = format_duration(plan.seconds), f"{format_bytes(plan.prepared)} of shards"
    if plan.in_flight:
        how_long += " without downloads"
        shards += f", {format_bytes(plan.in_flight)} of downloaded tars"
    if plan.scratch:
        shards += f", and for a while {format_bytes(plan.scratch)} of unpacked tars"
    print(
        f"{to_do} of {counted(len(plan.tars), 'tar')} to convert, about {how_long}; up to {shards},"
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
