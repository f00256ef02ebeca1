"""`sa1b verify`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sa1b_tfds.cli.options import Commands, add_command, add_workers, refused

if TYPE_CHECKING:
    from sa1b_tfds.download.verify import TarReport


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "verify",
        _verify,
        "Report which tars of a folder are whole, torn, wrong or missing. Compressed tars are"
        " inflated, unless a download has checked them.",
        examples=("tars --start 0 --end 10", "tars --deep --json"),
        docs="download.md",
    )
    add = command.add_argument_group("tars").add_argument
    add("folder", metavar="DIR", help="folder of the tars, or one tar")
    add(
        "--start",
        type=int,
        metavar="N",
        help="number of the first tar that must be there (default: 0 if --end is given)",
    )
    add(
        "--end",
        type=int,
        metavar="N",
        help="number after the last tar that must be there (default: check those that are there)",
    )
    add = command.add_argument_group("checks").add_argument
    add(
        "--md5",
        action="store_true",
        help="compare with the community's table of MD5s of compressed tars (default: do not)",
    )
    add(
        "--md5-file",
        metavar="FILE",
        help="compare with this table in md5sum's format (default: the community's, with --md5)",
    )
    add(
        "--deep",
        action="store_true",
        help="read every pair: JSON, masks, areas, boxes and JPEG (default: only the tar's form)",
    )
    group = command.add_argument_group("run")
    add_workers(group, "tars to read at a time")
    group.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per line (default: lines for people)",
    )


def _verify(options: argparse.Namespace) -> int:
    import contextlib
    import json
    from collections import Counter
    from dataclasses import asdict

    from sa1b_tfds.core.progress import bars_for_people, print_beside_bars
    from sa1b_tfds.core.text import counted
    from sa1b_tfds.download.links import first_of_range
    from sa1b_tfds.download.md5_table import read_md5_table
    from sa1b_tfds.download.verify import verify_folder

    with refused(options):
        first_of_range(options.start, options.end)
    with_md5 = bool(options.md5 or options.md5_file)
    reporter = bars_for_people()
    reports = verify_folder(
        options.folder,
        start=options.start,
        end=options.end,
        md5=read_md5_table(options.md5_file) if with_md5 else None,
        md5_of_any_form=options.md5_file is not None,
        deep=options.deep,
        workers=options.workers,
        reporter=reporter,
    )
    counts: Counter[str] = Counter()
    without_md5: Counter[str | None] = Counter()
    any_noted = False
    with contextlib.closing(reporter):
        for report in reports:
            counts[report.status] += 1
            if with_md5 and report.status == "whole" and not report.md5:
                without_md5[report.form] += 1
                any_noted |= report.note is not None
            if options.json:
                print(json.dumps({"event": "tar", **asdict(report)}), flush=True)
                continue
            print_beside_bars(f"{report.name}: {report.status}{_detail(report)}")
            for reason in report.reasons[1:]:
                print_beside_bars(f"  {reason}")
    is_whole = counts.total() > 0 and counts["whole"] == counts.total()
    if options.json:
        unknown = {"without_md5": without_md5.total()} if with_md5 else {}
        print(json.dumps({"event": "summary", "ok": is_whole, **counts, **unknown}))
        return 0 if is_whole else 1
    others = [f"{counts[status]} {status}" for status in counts if status != "whole"]
    whole = f"{counts['whole']} of {counted(counts.total(), 'tar')} whole"
    print(", ".join([whole, *sorted(others)]))
    if number := without_md5["gzip"]:
        when = ", now or when they were downloaded" if any_noted else ""
        print(
            f"The MD5 of {number} of them is not known: they were read up to their checksum{when}."
        )
    if number := without_md5["plain"]:
        read = "they were read whole"
        if not options.deep:
            read = "only their headers were read. --deep reads them whole"
        print(f"No MD5 is known for {number} of them in the plain form: {read}.")
    return 0 if is_whole else 1


def _detail(report: TarReport) -> str:
    from sa1b_tfds.core.text import counted

    if report.reasons:
        return f", {report.reasons[0]}"
    pairs = "" if report.pairs is None else f", {counted(report.pairs, 'pair')}"
    return pairs + (f"; {report.note}" if report.note else "")
