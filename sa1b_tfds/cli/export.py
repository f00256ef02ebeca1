"""`sa1b export`: exports to the formats of other tools."""

from __future__ import annotations

import argparse

from sa1b_tfds.cli.export_options import add_selection, run_export
from sa1b_tfds.cli.options import Commands, add_command, add_config


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "export",
        _export,
        "Write images and masks in COCO's or YOLO's format. Interrupted? Run the same command"
        " again; it continues.",
        examples=("tars coco --format coco", "tars yolo --format yolo --tars 0:10 --workers 4"),
        docs="export.md",
    )
    group = command.add_argument_group("input and output")
    add = group.add_argument
    add("source", metavar="SOURCE", help="a tar, a folder of tars or files, or prepared data")
    add("output", metavar="OUT", help="folder to write, which must not exist yet")
    add_config(group)
    add("--format", choices=("coco", "yolo"), required=True, help="format to write")
    add(
        "--images",
        choices=("copy", "link", "none"),
        default="copy",
        help="copy images, link them (a second name of extracted files), or write none (default:"
        " %(default)s)",
    )
    add(
        "--labels",
        metavar="DIR",
        help="for coco: a sidecar with a label for each mask, whose names become the categories"
        " (default: all masks are objects)",
    )
    add_selection(command)


def _export(options: argparse.Namespace) -> int:
    from sa1b_tfds.export import Coco, Yolo

    if options.format == "coco":
        coco = Coco(images=options.images, labels=options.labels)
        return run_export(options, coco, options.config)
    if options.labels is not None:
        options.parser.error("--labels is for --format coco")
    return run_export(options, Yolo(images=options.images), options.config)
