"""`sa1b stats`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sa1b_tfds.cli.options import (
    Commands,
    add_command,
    add_config,
    add_workers,
    output_file,
    write_json,
)

if TYPE_CHECKING:
    from sa1b_tfds.stats import Statistics, StatisticsProgress
    from sa1b_tfds.stats.findings import Findings

_SHOWN = 5  # findings of a kind that are printed; the JSON has more


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "stats",
        _stats,
        "Count images and masks, show distributions, and find duplicates and anomalies.",
        examples=("tars", "data --config original --json stats.json"),
        docs="metrics.md",
    )
    group = command.add_argument_group("source")
    group.add_argument(
        "source", metavar="SOURCE", help="a tar, a folder of tars or files, or prepared data"
    )
    add_config(group)
    group = command.add_argument_group("run")
    add_workers(group)
    group.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write all figures and histograms to this file as JSON (default: only print)",
    )


def read_statistics(source: str, config: str | None, workers: int | None = None) -> Statistics:
    """Runs `statistics_of` with a progress bar."""
    from sa1b_tfds.core.progress import image_bar
    from sa1b_tfds.core.text import counted
    from sa1b_tfds.stats import statistics_of

    with image_bar() as bar:

        def show(progress: StatisticsProgress) -> None:
            bar.total = progress.images_expected
            parts = f"{progress.parts_done} of {counted(progress.parts, 'part')}"
            bar.set_postfix_str(parts, refresh=False)
            bar.update(progress.images - bar.n)

        return statistics_of(source, config, workers=workers, on_progress=show)


def _stats(options: argparse.Namespace) -> int:
    statistics = read_statistics(options.source, options.config, options.workers)
    _print(statistics)
    if options.json:
        write_json(options.json, statistics.as_dict())
    return 1 if statistics.problems.count else 0


def _print(statistics: Statistics) -> None:
    from sa1b_tfds.core.text import counted, format_bytes
    from sa1b_tfds.stats.anomalies import KINDS

    print(
        f"{counted(statistics.images, 'image')}, {counted(statistics.masks, 'mask')},"
        f" {format_bytes(statistics.jpeg_bytes)} of JPEG in {counted(statistics.parts, 'part')}"
    )
    if statistics.images:
        _print_distributions(statistics)
    for name, duplicates in statistics.duplicates.items():
        what = {"image_id": "an id", "jpeg": "a JPEG"}[name]
        images = counted(duplicates.count, "image")
        _print_findings(f"{images} with {what} that was there before", duplicates)
    for kind, anomalies in statistics.anomalies.items():
        _print_findings(f"{anomalies.count:,} {kind}: {KINDS[kind]}", anomalies)
    _print_findings(f"{statistics.problems.count:,} could not be read", statistics.problems)
    if not (statistics.anomalies or statistics.problems.count):
        print("\nNo anomalies.")


def _print_distributions(statistics: Statistics) -> None:
    from sa1b_tfds.cli.table import number, print_table

    print()
    shares = (0.05, 0.5, 0.95)
    rows = [["", "min", *(f"{share:.0%}" for share in shares), "max", "mean"]]
    for name, histogram in statistics.distributions.items():
        values = [histogram.minimum, *map(histogram.quantile, shares), histogram.maximum]
        values = values if histogram.count else [None] * len(values)
        rows.append([name, *map(number, [*values, histogram.mean])])
    print_table(rows)


def _print_findings(what: str, findings: Findings) -> None:
    if not findings.count:
        return
    print(f"\n{what}")
    for found in findings.first[:_SHOWN]:
        print("  " + ": ".join(text for text in _words(found._asdict()) if text))
    if findings.count > _SHOWN:
        print(f"  and {findings.count - _SHOWN:,} more")


def _words(found: dict) -> list[str]:
    names = {"image_id": "image ", "annotation_id": "annotation ", "first_part": "first in "}
    names["first_image_id"] = "image "
    return [f"{names.get(name, '')}{value}" for name, value in found.items()]
