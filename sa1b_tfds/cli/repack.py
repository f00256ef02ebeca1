"""`sa1b repack`: writes the pairs of tars to other tars."""

from __future__ import annotations

import argparse

from sa1b_tfds.cli.export_options import add_selection, run_export
from sa1b_tfds.cli.options import Commands, add_command, number_of_bytes, positive, refused


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "repack",
        _repack,
        "Write the same pairs to other tars: shards for WebDataset, or a subset in SA-1B's own"
        " form. Interrupted? Run the same command again; it continues.",
        examples=("tars shards --shard-size 500M", "tars subset --form sa1b --tars 0:10"),
        docs="export.md",
    )
    add = command.add_argument_group("input and output").add_argument
    add("source", metavar="SOURCE", help="a tar, a folder of tars or of extracted files")
    add("output", metavar="OUT", help="folder to write: a new one, or one that this command began")
    add(
        "--form",
        choices=("webdataset", "sa1b"),
        default="webdataset",
        help="webdataset: shards with pairs side by side; sa1b: one tar for each tar (default:"
        " %(default)s)",
    )
    add(
        "--shard-size",
        type=number_of_bytes,
        metavar="SIZE",
        help="largest size of a webdataset shard, such as 500M (default: 1G)",
    )
    add(
        "--shard-images",
        type=positive,
        metavar="N",
        help="most images per webdataset shard (default: no limit)",
    )
    add_selection(command)


def _repack(options: argparse.Namespace) -> int:
    from sa1b_tfds.export import SA1BTars, WebDataset

    cuts = {"shard_size": options.shard_size, "shard_images": options.shard_images}
    given = {name: value for name, value in cuts.items() if value is not None}
    if options.form == "webdataset":
        with refused(options):
            shards = WebDataset(**given)
        return run_export(options, shards)
    if given:
        options.parser.error("--shard-size and --shard-images are for --form webdataset")
    return run_export(options, SA1BTars())
