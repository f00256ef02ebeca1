"""`sa1b verify`."""

from __future__ import annotations

import argparse
import sys

from sa1b_tfds.commands.command import Commands, add_command


def add(commands: Commands) -> None:
    command = add_command(
        commands, "verify", _verify, "Say which tars of a folder are whole, torn, wrong or missing."
    )
    add = command.add_argument
    add("folder", metavar="DIR")
    add("--start", type=int, metavar="N", help="first tar that must be there, by its number")
    add("--end", type=int, metavar="N", help="the number after the last one that must be there")
    add("--md5", action="store_true", help="compare with the MD5 table (reads every byte)")
    add("--md5-file", metavar="FILE", help="in md5sum's format, instead of the community's table")
    add("--deep", action="store_true", help="read every pair: JSON, masks, JPEG up to its end")
    add("--workers", type=int, metavar="N", help="tars at a time (one a core)")
    add("--json", action="store_true", help="one JSON object a line on standard output")


def _verify(options: argparse.Namespace) -> int:
    import json
    from collections import Counter
    from dataclasses import asdict

    from tqdm import tqdm

    from sa1b_tfds.checksums import read_md5_table
    from sa1b_tfds.verify import verify_folder

    with_md5 = bool(options.md5 or options.md5_file)
    reports = verify_folder(
        options.folder,
        start=options.start,
        end=options.end,
        md5=read_md5_table(options.md5_file) if with_md5 else None,
        deep=options.deep,
        workers=options.workers,
    )
    counts: Counter[str] = Counter()
    without_md5 = 0
    for report in tqdm(reports, unit="tar", file=sys.stderr, disable=not sys.stderr.isatty()):
        counts[report.status] += 1
        without_md5 += with_md5 and report.status == "whole" and not report.md5
        if options.json:
            print(json.dumps({"event": "tar", **asdict(report)}), flush=True)
            continue
        detail = f"{report.pairs} pairs" if report.status == "whole" else report.reasons[0]
        tqdm.write(f"{report.name}: {report.status}, {detail}", file=sys.stdout)
        for reason in report.reasons[1:]:
            tqdm.write(f"  {reason}", file=sys.stdout)
    is_whole = counts.total() > 0 and counts["whole"] == counts.total()
    if options.json:
        unknown = {"without_md5": without_md5} if with_md5 else {}
        print(json.dumps({"event": "summary", "ok": is_whole, **counts, **unknown}))
    else:
        others = [f"{counts[status]} {status}" for status in counts if status != "whole"]
        print(", ".join([f"{counts['whole']} of {counts.total()} tars whole", *sorted(others)]))
        if without_md5:
            print(f"The MD5 of {without_md5} of them is not known: only their headers were read.")
    return 0 if is_whole else 1
