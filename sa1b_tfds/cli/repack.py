"""`sa1b repack`: tars to tars."""

from __future__ import annotations

import argparse

from sa1b_tfds.cli.export_options import add_selection, run_export
from sa1b_tfds.cli.options import Commands, add_command, number_of_bytes


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "repack",
        _repack,
        "Write the same pairs into other tars: for WebDataset, or fewer of them as SA-1B has them."
        " The same command run again continues.",
    )
    add = command.add_argument
    add("source", metavar="SOURCE", help="a tar, a folder of tars or of extracted files")
    add("output", metavar="OUT", help="a folder that is not there yet")
    add(
        "--form",
        choices=("webdataset", "sa1b"),
        default="webdataset",
        help="webdataset: shards with pairs side by side; sa1b: one tar a tar (%(default)s)",
    )
    add("--shard-size", type=number_of_bytes, metavar="SIZE", help="of a webdataset shard (1G)")
    add("--shard-images", type=int, metavar="N", help="at most so many images a webdataset shard")
    add_selection(command)


def _repack(options: argparse.Namespace) -> int:
    from sa1b_tfds.export import SA1BTars, WebDataset

    cuts = {"shard_size": options.shard_size, "shard_images": options.shard_images}
    given = {name: value for name, value in cuts.items() if value is not None}
    if options.form == "webdataset":
        return run_export(options, WebDataset(**given))
    if given:
        raise ValueError("--shard-size and --shard-images are for --form webdataset.")
    return run_export(options, SA1BTars())
