"""`sa1b download`."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sa1b_tfds.cli.options import Commands, add_command, number_of_bytes, positive, refused

if TYPE_CHECKING:
    from sa1b_tfds.download.links import Selection
    from sa1b_tfds.download.transfer.plan import DownloadPlan
    from sa1b_tfds.download.transfer.progress import DownloadTally, JsonReporter


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "download",
        _download,
        "Download the tars that a links file lists. Meta serves them compressed with gzip, 11.3 GB"
        " each, under the name .tar; builds read them as they are. Interrupted, or links expired?"
        " Run the same command again; it continues, also with a fresh links file.",
        examples=(
            "--links-file links.txt --output-dir tars --start 0 --end 10",
            "--links-file links.txt --output-dir tars --names sa_000020.tar --dry-run",
        ),
        docs="download.md",
    )
    add = command.add_argument_group("files").add_argument
    add("--links-file", required=True, metavar="FILE", help="links file, as saved from Meta's page")
    add("--output-dir", required=True, metavar="DIR", help="folder of the tars")
    add(
        "--start",
        type=int,
        metavar="N",
        help="number of the first tar, as in its name (default: 0)",
    )
    add("--end", type=int, metavar="N", help="number after the last tar (default: no end)")
    add(
        "--names",
        nargs="+",
        metavar="NAME",
        help="names of the files, instead of a range (default: all tars of the range)",
    )
    add(
        "--tars-from",
        metavar="FILE",
        help="names of the tars, one a line, as `sa1b locate` prints them; - reads them from stdin"
        " (default: all tars of the range)",
    )
    add("--with-ids", action="store_true", help="fetch sa_images_ids.txt as well (default: do not)")
    add = command.add_argument_group("connections").add_argument
    add(
        "--workers",
        type=positive,
        default=4,
        metavar="N",
        help="files to fetch at a time, at most 64 (default: %(default)s)",
    )
    add(
        "--max-rate",
        type=number_of_bytes,
        metavar="RATE",
        help="most bytes per second for all files together, such as 200M (default: no limit)",
    )
    add(
        "--retries",
        type=int,
        default=10,
        metavar="N",
        help="retries of a file in a row without a new byte (default: %(default)s)",
    )
    add(
        "--timeout",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds without a byte after which a connection is closed (default: %(default)g)",
    )
    add(
        "--speed-limit",
        type=number_of_bytes,
        default=1000,
        metavar="RATE",
        help="close a connection that is slower than this for --speed-time, in bytes per second; 0"
        " never does (default: 1K)",
    )
    add(
        "--speed-time",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds that a connection may be slower (default: %(default)g)",
    )
    add(
        "--proxy",
        metavar="URL",
        help="proxy to use (default: that of the environment, such as HTTPS_PROXY)",
    )
    add(
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="header to send, only to the links' own host; may be repeated (default: none)",
    )
    add(
        "--refresh-wait",
        action="store_true",
        help="when links expire, wait until the links file changes, and continue (default: end)",
    )
    add = command.add_argument_group("checks").add_argument
    add(
        "--verify",
        choices=("md5", "size", "none"),
        default="md5",
        help="checks of each file; md5 is size, form and, if known, the MD5 (default: %(default)s)",
    )
    add(
        "--md5-file",
        metavar="FILE",
        help="table of MD5s in md5sum's format (default: the community's table)",
    )
    add = command.add_argument_group("output").add_argument
    add(
        "--unpack",
        action="store_true",
        help="leave plain tars, from which any image is read at once; each takes 5 %% more disk,"
        " and a core half a minute to a minute (default: leave them compressed)",
    )
    add(
        "--dry-run",
        action="store_true",
        help="print what would be done, and write nothing (default: do it)",
    )
    add(
        "--json",
        action="store_true",
        help="print one JSON object per line (default: lines for people)",
    )


def _download(options: argparse.Namespace) -> int:
    from sa1b_tfds.core.progress import reporter_for_people
    from sa1b_tfds.core.text import counted, first_few
    from sa1b_tfds.download.download import download, plan_download
    from sa1b_tfds.download.links import LinksError, read_links, select
    from sa1b_tfds.download.md5_table import read_md5_table
    from sa1b_tfds.download.tar_list import read_tar_list
    from sa1b_tfds.download.transfer.progress import DownloadTally, JsonReporter
    from sa1b_tfds.download.transfer.settings import TransferConfig

    settings: dict[str, Any] = {
        "workers": options.workers,
        "max_rate": options.max_rate,
        "retries": options.retries,
        "timeout": options.timeout,
        "speed_limit": options.speed_limit,
        "speed_time": options.speed_time,
        "proxy": options.proxy,
        "headers": dict(options.header),
        "verify": options.verify,
        "unpack": options.unpack,
    }
    with refused(options):
        config = TransferConfig(**settings)
    links = read_links(options.links_file)
    with refused(options):
        if options.tars_from is not None:
            if options.names is not None:
                raise ValueError("Choose tars by --names or by --tars-from, not by both.")
            options.names = read_tar_list(options.tars_from)
        selection = select(
            links,
            start=options.start,
            end=options.end,
            names=options.names,
            with_ids=options.with_ids,
        )
    if not selection.names:
        raise LinksError(
            f"{options.links_file} has no tar of SA-1B in that range: it lists"
            f" {counted(len(links.tars), 'tar')} ({first_few(sorted(links.tars)) or 'none'}) and"
            f" other files ({first_few(sorted(links.others)) or 'none'}). --names fetches those."
        )
    md5 = read_md5_table(options.md5_file) if options.md5_file else None
    as_json = JsonReporter(sys.stdout) if options.json else None
    reporter = DownloadTally(as_json or reporter_for_people())
    for note in links.notes:
        reporter.note(note)
    if options.dry_run:
        plan = plan_download(selection, options.output_dir, config=config, md5=md5)
        return _print_plan(plan, options.max_rate, as_json)

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
        print("Interrupted. Run the same command again; it continues.", file=sys.stderr)
        raise
    finally:
        if reporter.asked:
            _print_summary(reporter, as_json, selection, options)
    return 0 if all(result.is_whole for result in reporter.results.values()) else 1


def _print_plan(plan: DownloadPlan, max_rate: float | None, as_json: JsonReporter | None) -> int:
    from sa1b_tfds.core.text import format_bytes
    from sa1b_tfds.download.transfer.expiry import ExpiryNotes
    from sa1b_tfds.download.transfer.progress import plan_as_json

    possible = plan.needed <= plan.free and not any(
        file.action in ("expired", "missing") for file in plan.files
    )
    unpacked = any(file.unpacked for file in plan.files)
    notes = ExpiryNotes(plan, max_rate).at_start()
    if as_json:
        as_json.emit("plan", **plan_as_json(plan))
        for note in notes:
            as_json.note(note)
        return 0 if possible else 1
    for file in plan.files:
        size = "size unknown" if file.size is None else format_bytes(file.size)
        rest = f", {format_bytes(file.to_fetch)} to fetch" if file.action == "continue" else ""
        print(f"{file.name}: {file.action}, {file.reason or size + rest}")
    print(
        f"{plan.title}, {format_bytes(plan.to_fetch)} to fetch"
        + (f", {format_bytes(plan.needed)} needed to unpack them" if unpacked else "")
        + f", {format_bytes(plan.free)} free"
        + ("" if plan.needed <= plan.free else f"; only the first {len(plan.fits)} of them fit")
    )
    for note in notes:
        print(note)
    return 0 if possible else 1


def _print_summary(
    tally: DownloadTally,
    as_json: JsonReporter | None,
    selection: Selection,
    options: argparse.Namespace,
) -> None:
    from sa1b_tfds.core.text import counted
    from sa1b_tfds.download.links import LINKS_PAGE

    failed = {r.name: r.reason or "" for r in tally.results.values() if r.status == "failed"}
    expired = sorted(r.name for r in tally.results.values() if r.status == "expired")
    command = _again(options.argv)
    if as_json:
        as_json.emit(
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
    if failed:
        print(f"{counted(len(failed), 'file')} failed, see above: {' '.join(sorted(failed))}")
    if expired:
        print(
            f"{len(expired)} of the links expired: {' '.join(expired)}\n"
            f"Save a fresh links file from {LINKS_PAGE}\n"
            f"as {options.links_file} and run (finished and partial files are kept):\n"
            f"  {command}"
        )
    print(tally.summary(), flush=True)


def _again(argv: Sequence[str]) -> str:
    """Returns the command as it was given, with secrets masked, to be run again."""
    masked, before = [], ""
    for word in argv:
        if before == "--header" or word.startswith("--header="):
            word = re.sub(r":.*", ": ...", word, flags=re.S)
        elif before == "--proxy" or word.startswith("--proxy="):
            word = re.sub(r"//[^/@]*@", "//...@", word)
        masked.append(word)
        before = word
    return shlex.join(["sa1b", *masked])


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        # The text may be a secret, so the message does not repeat it.
        raise argparse.ArgumentTypeError("expected 'Name: value'")
    return name.strip(), value.strip()
