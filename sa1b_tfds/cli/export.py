"""`sa1b export`: to other tools' formats."""

from __future__ import annotations

import argparse

from sa1b_tfds.cli.export_options import add_selection, run_export
from sa1b_tfds.cli.options import Commands, add_command, add_config


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "export",
        _export,
        "Write images and masks as COCO or YOLO read them. The same command run again continues.",
    )
    add = command.add_argument
    add("source", metavar="SOURCE", help="a tar, a folder of tars or files, or prepared data")
    add("output", metavar="OUT", help="a folder that is not there yet")
    add("--format", choices=("coco", "yolo"), required=True)
    add_config(command)
    add(
        "--images",
        choices=("copy", "link", "none"),
        default="copy",
        help="link gives extracted files a second name (%(default)s)",
    )
    add_selection(command)


def _export(options: argparse.Namespace) -> int:
    from sa1b_tfds.export import Coco, Yolo

    formats = {"coco": Coco, "yolo": Yolo}
    return run_export(options, formats[options.format](images=options.images), options.config)
