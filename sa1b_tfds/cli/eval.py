"""`sa1b eval`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sa1b_tfds.cli.options import (
    Commands,
    add_command,
    add_config,
    add_workers,
    output_file,
    write_json,
)


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "eval",
        _eval,
        "Compare predicted masks, from a file in COCO's results format, with those of a dataset.",
        examples=(
            "--predictions predictions.json --data tars",
            "--predictions predictions.json --data data --config original --out figures.json",
        ),
        docs="metrics.md",
    )
    group = command.add_argument_group("input")
    add = group.add_argument
    add(
        "--predictions",
        required=True,
        metavar="FILE",
        help="JSON list of image_id, segmentation (RLE) and score; categories are ignored",
    )
    add(
        "--data",
        required=True,
        metavar="SOURCE",
        help="a tar, a folder of tars or files, or prepared data",
    )
    add_config(group)
    add(
        "--predicted-only",
        action="store_true",
        help="leave out images without predictions (default: their masks count as missed)",
    )
    group = command.add_argument_group("run")
    add_workers(group)
    group.add_argument(
        "--out",
        type=output_file,
        metavar="FILE",
        help="write all figures to this file as JSON (default: only print)",
    )


def _eval(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.problems import Problems, summed_up
    from sa1b_tfds.core.progress import image_bar
    from sa1b_tfds.metrics import evaluate_predictions

    problems = Problems("skip")
    with image_bar() as bar:
        figures = evaluate_predictions(
            options.predictions,
            options.data,
            options.config,
            predicted_only=options.predicted_only,
            workers=options.workers,
            problems=problems,
            on_image=bar.update,
        )
    _print(figures)
    for line in summed_up(problems.found):
        print(f"left out: {line}", file=sys.stderr)
    if options.out:
        figures["problems"] = [problem.as_dict() for problem in problems.found]
        write_json(options.out, figures)
    return 1 if problems.found else 0


def _print(figures: dict[str, Any]) -> None:
    from sa1b_tfds.cli.table import number, print_table
    from sa1b_tfds.core.text import counted

    print(
        f"{counted(figures['predictions'], 'prediction')}, {counted(figures['masks'], 'mask')} of"
        f" {counted(figures['images'], 'image')};"
        f" {counted(figures['images_without_predictions'], 'image')} without predictions"
    )
    best = figures["best"]
    rows = [["best prediction of each mask", "masks", "mean", "95 % interval", "median"]]
    sizes = [("", best), *((f", {size}", best["by_size"][size]) for size in best["by_size"])]
    for name, title in (("iou", "IoU"), ("boundary_iou", "boundary IoU")):
        for suffix, part in sizes:
            interval = part.get(f"mean_{name}_interval")
            rows.append(
                [
                    title + suffix,
                    f"{part['count']:,}",
                    number(part[f"mean_{name}"]),
                    " to ".join(map(number, interval)) if interval else "",
                    number(part[f"median_{name}"]),
                ]
            )
    rows.append(["IoU, one to one", f"{best['count']:,}", number(figures["mean_iou_one_to_one"])])
    rows[-1] += ["", ""]
    print()
    print_table(rows)
    print()
    print_table([[name, number(value)] for name, value in figures["coco"].items()])
