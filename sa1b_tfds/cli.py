"""The command line `sa1b`: options, exit codes and a last line; the work is in functions.

Exit codes: 0 all that was asked for is there; 1 something is not, and it was said what; 2 the
options make no sense; 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sa1b_tfds.build import BuildPlan
    from sa1b_tfds.links import Selection
    from sa1b_tfds.transfer.plan import Plan
    from sa1b_tfds.transfer.progress import Tally

_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. Loads only what that command needs."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    options.argv = arguments
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        from sa1b_tfds.links import redact

        print(f"sa1b {options.command}: {redact(str(error))}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sa1b", description="SA-1B, from links to training batches.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_download(commands)
    _add_verify(commands)
    _add_build(commands)
    return parser


def _add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


def _add_download(commands: Any) -> None:
    command = _add_command(
        commands,
        "download",
        _download,
        "Download tars. The same command run again continues, also with a fresh links file.",
    )
    add = command.add_argument
    add("--links-file", required=True, metavar="FILE", help="as saved from Meta's page")
    add("--output-dir", required=True, metavar="DIR", help="where the tars come to")
    add("--start", type=int, metavar="N", help="first tar, by the number in its name")
    add("--end", type=int, metavar="N", help="the number after the last tar")
    add("--names", nargs="+", metavar="NAME", help="these files instead of a range")
    add("--with-ids", action="store_true", help="sa_images_ids.txt as well")
    add("--workers", type=int, default=4, metavar="N", help="files at a time (%(default)s)")
    add("--max-rate", type=_rate, metavar="RATE", help="bytes a second in all, such as 200M")
    add(
        "--retries",
        type=int,
        default=10,
        metavar="N",
        help="retries in a row that may bring nothing (%(default)s)",
    )
    add(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds without a byte that end a connection (%(default)g)",
    )
    add("--proxy", metavar="URL", help="else the usual environment variables decide")
    add(
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="sent to the links' own host only; may be given again",
    )
    add(
        "--verify",
        choices=("md5", "size", "none"),
        default="md5",
        help="what a file must pass: md5 = size, form and the MD5 where known (%(default)s)",
    )
    add("--md5-file", metavar="FILE", help="in md5sum's format, instead of the community's table")
    add(
        "--refresh-wait",
        action="store_true",
        help="when links expire, wait for the links file to change and go on",
    )
    add("--dry-run", action="store_true", help="say what would be done, write nothing")
    add("--json", action="store_true", help="one JSON object a line on standard output")


def _download(options: argparse.Namespace) -> int:
    from sa1b_tfds.checksums import read_md5_table
    from sa1b_tfds.download import download, plan_download
    from sa1b_tfds.links import read_links, select
    from sa1b_tfds.transfer.progress import JsonLines, reporter_for_people
    from sa1b_tfds.transfer.settings import TransferConfig

    links = read_links(options.links_file)
    selection = select(
        links,
        start=options.start,
        end=options.end,
        names=options.names,
        with_ids=options.with_ids,
    )
    settings: dict[str, Any] = {
        "workers": options.workers,
        "max_rate": options.max_rate,
        "retries": options.retries,
        "timeout": options.timeout,
        "proxy": options.proxy,
        "headers": dict(options.header),
        "verify": options.verify,
    }
    md5 = read_md5_table(options.md5_file)
    if options.dry_run:
        plan = plan_download(
            selection, options.output_dir, config=TransferConfig(**settings), md5=md5
        )
        return _print_plan(plan, as_json=options.json)

    reporter: Tally = JsonLines(sys.stdout) if options.json else reporter_for_people()
    for note in links.notes:
        reporter.note(note)
    try:
        download(
            selection,
            options.output_dir,
            md5=md5,
            refresh_wait=options.refresh_wait,
            reporter=reporter,
            **settings,
        )
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        raise
    finally:
        if reporter.asked:
            _print_summary(reporter, selection, options)
    return 0 if all(result.is_whole for result in reporter.results.values()) else 1


def _print_plan(plan: Plan, *, as_json: bool) -> int:
    from sa1b_tfds.transfer.plan import gigabytes
    from sa1b_tfds.transfer.progress import JsonLines, plan_as_json

    possible = plan.needed <= plan.free and not any(
        file.action in ("expired", "missing") for file in plan.files
    )
    if as_json:
        JsonLines(sys.stdout).emit("plan", **plan_as_json(plan))
        return 0 if possible else 1
    for file in plan.files:
        size = "size unknown" if file.size is None else gigabytes(file.size)
        rest = f", {gigabytes(file.to_fetch)} to fetch" if file.action == "continue" else ""
        print(f"{file.name}: {file.action}, {file.reason or size + rest}")
    print(
        f"{len(plan.files)} files, {gigabytes(plan.needed)} to fetch, {gigabytes(plan.free)} free"
        + ("" if plan.needed <= plan.free else f"; the first {len(plan.fits)} files fit")
    )
    return 0 if possible else 1


def _print_summary(tally: Tally, selection: Selection, options: argparse.Namespace) -> None:
    from sa1b_tfds.links import LINKS_PAGE
    from sa1b_tfds.transfer.progress import JsonLines

    failed = {r.name: r.reason for r in tally.results.values() if r.status == "failed"}
    expired = sorted(r.name for r in tally.results.values() if r.status == "expired")
    command = _again(options.argv)
    if isinstance(tally, JsonLines):
        tally.emit(
            "summary",
            asked=tally.asked,
            done=tally.count("done"),
            present=tally.count("present"),
            expired=expired,
            failed=failed,
            not_finished=sorted(set(selection.names) - tally.results.keys()),
            fetched=tally.fetched,
            seconds=round(tally.seconds, 1),
            command=command,
        )
        return
    for name, reason in sorted(failed.items()):
        print(f"{name} failed: {reason}")
    if expired:
        print(
            f"{len(expired)} of the links expired: {' '.join(expired)}\n"
            f"Save a fresh links file from {LINKS_PAGE}\n"
            f"as {options.links_file} and run (finished and partial files are kept):\n"
            f"  {command}"
        )
    print(tally.summary(), flush=True)


def _again(argv: Sequence[str]) -> str:
    """The command as it was given, its secrets masked, to be given again."""
    masked, before = [], ""
    for word in argv:
        if before == "--header" or word.startswith("--header="):
            word = re.sub(r":.*", ": ...", word, flags=re.S)
        elif before == "--proxy" or word.startswith("--proxy="):
            word = re.sub(r"//[^/@]*@", "//...@", word)
        masked.append(word)
        before = word
    return shlex.join(["sa1b", *masked])


def _rate(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip(), flags=re.I)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate such as 200M (bytes a second)")
    return float(found[1]) * _SIZES[found[2].upper()]


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        # The text itself may be a secret.
        raise argparse.ArgumentTypeError("expected 'Name: value'")
    return name.strip(), value.strip()


def _add_verify(commands: Any) -> None:
    command = _add_command(
        commands, "verify", _verify, "Say which tars of a folder are whole, torn, wrong or missing."
    )
    add = command.add_argument
    add("folder", metavar="DIR")
    add("--start", type=int, metavar="N", help="first tar that must be there, by its number")
    add("--end", type=int, metavar="N", help="the number after the last one that must be there")
    add("--md5", action="store_true", help="compare with the MD5 table (reads every byte)")
    add("--md5-file", metavar="FILE", help="in md5sum's format, instead of the community's table")
    add("--deep", action="store_true", help="read every pair: JSON, masks, JPEG header")
    add("--workers", type=int, metavar="N", help="tars at a time (one a core)")
    add("--json", action="store_true", help="one JSON object a line on standard output")


def _verify(options: argparse.Namespace) -> int:
    import json
    from collections import Counter
    from dataclasses import asdict

    from tqdm import tqdm

    from sa1b_tfds.checksums import read_md5_table
    from sa1b_tfds.verify import verify_folder

    reports = verify_folder(
        options.folder,
        start=options.start,
        end=options.end,
        md5=read_md5_table(options.md5_file) if options.md5 or options.md5_file else None,
        deep=options.deep,
        workers=options.workers,
    )
    counts: Counter[str] = Counter()
    without_md5 = 0
    for report in tqdm(reports, unit="tar", file=sys.stderr, disable=not sys.stderr.isatty()):
        counts[report.status] += 1
        without_md5 += not report.md5
        if options.json:
            print(json.dumps({"event": "tar", **asdict(report)}), flush=True)
            continue
        detail = f"{report.pairs} pairs" if report.status == "whole" else report.reasons[0]
        tqdm.write(f"{report.name}: {report.status}, {detail}", file=sys.stdout)
        for reason in report.reasons[1:]:
            tqdm.write(f"  {reason}", file=sys.stdout)
    is_whole = counts.total() > 0 and counts["whole"] == counts.total()
    if options.json:
        print(json.dumps({"event": "summary", "ok": is_whole, **counts}))
    else:
        others = [f"{counts[status]} {status}" for status in counts if status != "whole"]
        print(", ".join([f"{counts['whole']} of {counts.total()} tars whole", *sorted(others)]))
    return 0 if is_whole else 1


def _add_build(commands: Any) -> None:
    command = _add_command(
        commands,
        "build",
        _build,
        "Convert tars to a prepared TFDS dataset. The same command run again continues.",
    )
    add = command.add_argument
    add("tars", metavar="DIR", help="folder of the tars; downloaded ones come here")
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
    add("--add", action="store_true", help="extend prepared data with the tars it lacks")
    add("--file-format", choices=("tfrecord", "array_record"), default="tfrecord")
    add(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="skip leaves out and lists images that cannot be read (%(default)s)",
    )
    add("--plan", action="store_true", help="print tars, disk and expected time, do nothing")


def _build(options: argparse.Namespace) -> int:
    from pathlib import Path

    from sa1b_tfds.build import BuildConfig, build, plan
    from sa1b_tfds.build_report import print_summary

    config = BuildConfig(
        tars=Path(options.tars),
        config=options.config,
        data_dir=Path(options.data_dir) if options.data_dir else None,
        links_file=Path(options.links_file) if options.links_file else None,
        workers=options.workers,
        file_format=options.file_format,
        on_error=options.on_error,
        delete_tars=options.delete_tars,
        add=options.add,
    )
    if options.plan:
        return 0 if _print_build_plan(plan(config)) else 1
    print_summary(build(config))
    return 0


def _print_build_plan(plan: BuildPlan) -> bool:
    """Prints a plan; returns whether it fits on the disk."""
    from tqdm import tqdm

    from sa1b_tfds.size import gigabytes

    for tar in plan.tars:
        print(f"{tar.name}: {tar.state}, {gigabytes(tar.bytes)}")
    to_do = sum(tar.state != "finished" for tar in plan.tars)
    needed = plan.prepared + plan.in_flight
    free = "unknown" if plan.free is None else gigabytes(plan.free)
    print(
        f"{to_do} of {len(plan.tars)} tars to convert, about {tqdm.format_interval(plan.seconds)}"
        f" without downloads; up to {gigabytes(plan.prepared)} of shards and"
        f" {gigabytes(plan.in_flight)} of downloaded tars, {free} free"
    )
    return plan.free is None or needed <= plan.free


if __name__ == "__main__":
    sys.exit(main())
