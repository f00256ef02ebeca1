"""What is said of links that expire: before a run, at its real speed, and by the command."""

import json
import re
from datetime import datetime, timedelta, timezone

import pytest

from sa1b_tfds.cli.main import main
from sa1b_tfds.download.download import download
from sa1b_tfds.download.links import parse_links, select
from sa1b_tfds.download.transfer.expiry import ExpiryNotes
from sa1b_tfds.download.transfer.plan import DownloadPlan, PlannedFile
from sa1b_tfds.download.transfer.report import FileProgress, FileResult
from tests.downloading import Notes
from tests.fault_server import SIGNATURE, FaultServer, make_tar

NOW = datetime.now(timezone.utc).replace(microsecond=0)
HOUR = 3600
GB = 10**9
EXPIRED = "Links that have expired, by the time in them: "
TRIED = ". They are tried all the same: the server decides."
SOON = "Links that will expire before the download ends, in about "
TAR = make_tar(0)


def after(seconds):
    return NOW + timedelta(seconds=seconds)


def said(*numbers_and_seconds):
    parts = [f"sa_{n:06d}.tar at {after(s):%Y-%m-%d %H:%M} UTC" for n, s in numbers_and_seconds]
    return ", ".join(parts)


def plan_of(*files):
    """(action, gigabytes, seconds until the link expires or None) -> a plan."""
    planned = [
        PlannedFile(
            name=f"sa_{number:06d}.tar",
            action=action,
            size=size * GB,
            expires=None if seconds is None else after(seconds),
        )
        for number, (action, size, seconds) in enumerate(files)
    ]
    return DownloadPlan(files=tuple(planned), free=10**15)


@pytest.mark.parametrize(
    ("files", "max_rate", "notes"),
    [
        pytest.param([("fetch", 100, None)], None, [], id="no link says when"),
        pytest.param([("fetch", 100, HOUR)], None, [], id="all in time"),
        pytest.param(
            [("fetch", 400, HOUR), ("fetch", 400, None), ("fetch", 400, 9 * HOUR)],
            None,
            [f"{SOON}3.3 h at an assumed 100.0 MB/s: {said((0, HOUR))}."],
            id="too slow as assumed",
        ),
        pytest.param(
            [("fetch", 100, 5 * HOUR), ("continue", 100, HOUR)],
            10e6,
            [f"{SOON}5.6 h at the 10.0 MB/s of the rate limit: {said((1, HOUR), (0, 5 * HOUR))}."],
            id="too slow by the limit, the first to expire comes first",
        ),
        pytest.param(
            [("fetch", 1, -HOUR), ("continue", 1, 2 * HOUR), ("expired", 0, -9 * HOUR)],
            None,
            [f"{EXPIRED}{said((2, -9 * HOUR), (0, -HOUR))}{TRIED}"],
            id="expired",
        ),
        pytest.param(
            [("fetch", 1000, -HOUR), ("fetch", 1, HOUR)],
            None,
            [
                f"{EXPIRED}{said((0, -HOUR))}{TRIED}",
                f"{SOON}2.8 h at an assumed 100.0 MB/s: {said((1, HOUR))}.",
            ],
            id="both",
        ),
        pytest.param(
            [("fetch", 1, -HOUR)] * 9,
            None,
            [f"{EXPIRED}{said((0, -HOUR), (1, -HOUR), (2, -HOUR))} and 6 more{TRIED}"],
            id="many",
        ),
        pytest.param(
            [("present", 1, -HOUR), ("check", 1, -HOUR), ("missing", 1, None)],
            None,
            [],
            id="links that are not needed",
        ),
        pytest.param(
            [("fetch", 11_300, 10**9)],
            1000,
            [f"{SOON}3138888.9 h at the 1.0 kB/s of the rate limit: {said((0, 10**9))}."],
            id="for ever",
        ),
    ],
)
def test_links_that_end_too_soon_are_named_at_the_start(files, max_rate, notes):
    assert ExpiryNotes(plan_of(*files), max_rate).at_start() == notes


def test_at_its_real_speed_a_run_says_once_what_is_new(monkeypatch):
    plan = plan_of(
        ("fetch", 400, 9 * HOUR),
        ("continue", 400, HOUR),
        ("fetch", 400, 5 * HOUR),
        ("fetch", 1, None),
    )
    clock = [0.0]
    monkeypatch.setattr("sa1b_tfds.download.transfer.expiry.time.monotonic", lambda: clock[0])
    notes = ExpiryNotes(plan, None)
    assert [note.partition(": ")[2] for note in notes.at_start()] == [f"{said((1, HOUR))}."]
    running = [FileProgress(name="sa_000001.tar", position=200 * GB, size=400 * GB)]
    done = {"sa_000000.tar": FileResult(name="sa_000000.tar", status="done")}

    def said_at(seconds, fetched):
        clock[0] = seconds
        running[0].fetched = fetched
        return notes.at_real_speed(running, done)

    assert said_at(59, 60_000) == []
    assert said_at(61, 0) == []
    assert said_at(100, 10**7) == [
        f"{SOON}1669.4 h at the present 100.0 kB/s: {said((2, 5 * HOUR))}."
    ]
    assert said_at(200, 10**4) == []


def links_text(server, **expires):
    """A links file whose links expire at these times, by their names without `.tar`."""
    lines = []
    for name in server.files:
        time = expires.get(name.removesuffix(".tar"))
        oe = f"&oe={int(time.timestamp()):08X}" if time else ""
        lines.append(f"{name}\t{server.url(name)}{oe}")
    return "\n".join(lines)


def test_a_run_says_it_and_the_server_decides(tmp_path, monkeypatch):
    monkeypatch.setattr("sa1b_tfds.download.transfer.expiry._REAL_RATE_AFTER_S", 0.2)
    files = {"sa_000000.tar": TAR, "sa_000001.tar": make_tar(1, image_bytes=4_000_000)}
    with FaultServer(files, bytes_per_second=20_000) as server:
        soon = datetime.now(timezone.utc) + timedelta(seconds=30)
        links = parse_links(links_text(server, sa_000000=after(-HOUR), sa_000001=soon))

        def serve_the_rest(text):
            if "at the present" in text:
                server.bytes_per_second = None

        notes = Notes(serve_the_rest)
        results = download(select(links), tmp_path, md5={}, reporter=notes)

    assert [result.status for result in results] == ["done", "done"]
    assert notes.texts[1] == f"{EXPIRED}{said((0, -HOUR))}{TRIED}"
    assert re.fullmatch(
        SOON + rf".* at the present .*/s: sa_000001.tar at {soon:%Y-%m-%d %H:%M} UTC\.",
        notes.texts[2],
    )
    assert len(notes.texts) == 3
    assert SIGNATURE not in "".join(notes.texts)


@pytest.mark.parametrize("options", [["--dry-run"], ["--dry-run", "--json"], ["--json"]])
def test_the_command_says_when_links_expire(tmp_path, capsys, options):
    with FaultServer({"sa_000000.tar": TAR, "sa_000001.tar": TAR}) as server:
        (tmp_path / "links.txt").write_text(links_text(server, sa_000000=after(-HOUR)))
        (tmp_path / "md5.txt").write_text("")
        command = ["download", "--links-file", str(tmp_path / "links.txt"), "--md5-file"]
        command += [str(tmp_path / "md5.txt"), "--output-dir", str(tmp_path / "out"), *options]
        assert main(command) == 0

    printed = capsys.readouterr().out
    note = f"{EXPIRED}{said((0, -HOUR))}{TRIED}"
    assert SIGNATURE not in printed
    if "--json" in options:
        events = [json.loads(line) for line in printed.splitlines()]
        (plan,) = [event for event in events if event["event"] == "plan"]
        times = [file["expires"] for file in plan["files"]]
        assert times == [after(-HOUR).isoformat(), None]
        assert {"event": "note", "name": None, "text": note} in events
    else:
        assert printed.splitlines()[-1] == note
