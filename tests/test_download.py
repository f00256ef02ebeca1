"""Downloading through every fault: byte-identical files, or an error that says what is wrong."""

import contextlib
import email.utils
import errno
import fcntl
import hashlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.core.lock import FolderInUse
from sa1b_tfds.core.text import format_bytes
from sa1b_tfds.download.download import download, plan_download
from sa1b_tfds.download.links import Link, SignedUrl, parse_links, read_links, select
from sa1b_tfds.download.md5_table import read_md5_table
from sa1b_tfds.download.transfer import fetch
from sa1b_tfds.download.transfer.answers import (
    TransferError,
    TryAgain,
    _retry_after,
    content_length,
    total_of_416,
    total_of_range,
)
from sa1b_tfds.download.transfer.attempts import Attempts
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.plan import SelectionTooLarge
from sa1b_tfds.download.transfer.settings import RateLimit, TransferConfig
from sa1b_tfds.download.transfer.transport import Transport
from sa1b_tfds.segment_anything.ensure import MissingTarsError, ensure_tars
from tests import forked
from tests.downloading import (
    HALF,
    NAME,
    PLAIN,
    TAR,
    Notes,
    as_if_alone,
    beside,
    check_nothing_twice,
    fetch_all,
    in_an_interpreter,
    sa1b,
    wait_for,
    wait_for_or_end,
    write_inputs,
)
from tests.fault_server import DAMAGED, EXPIRED_BODY, SIGNATURE, Fault, FaultServer, make_tar
from tests.page import blocks_of

OTHER_TAR = make_tar(1)


@pytest.fixture
def server():
    with FaultServer({NAME: TAR}) as running:
        yield running


def exchange(server, name=NAME, data=OTHER_TAR):
    return lambda: server.files.update({name: data})


def patience(faults):
    """Seconds without a byte that end a connection: few only where a fault waits for that, since
    a machine that tests in many processes may itself hold a byte back."""
    return 0.5 if any(fault.stall for fault in faults) else 10.0


# The plain tar is longer by headers and padding: a byte in the middle of one is in the other's.
assert len(TAR) < len(PLAIN) < len(TAR) + 20_000

FAULTS_OVERCOME = {
    "none": [],
    "drop": [Fault(send=HALF)],
    "drop at once": [Fault(send=0)],
    "drops at random bytes": [Fault(send=random.Random(7).randrange(9_000)) for _ in range(3)],
    "drop of the last byte": [Fault(send=-1)],
    "stall before the first byte": [Fault(send=0, stall=30)],
    "stall on the way": [Fault(send=HALF, stall=30)],
    "500": [Fault(status=500, body=b"oops"), Fault(status=502)],
    "408": [Fault(status=408)],
    "429 without a time": [Fault(status=429)],
    "503 on the way": [Fault(send=HALF), Fault(status=503)],
    "no Range": [Fault(send=HALF), Fault(ignore_range=True)],
    "no Range, drop again": [Fault(send=HALF), Fault(ignore_range=True, send=100), Fault()],
    "a range nobody asked for": [
        Fault(send=HALF),
        Fault(add={"Content-Range": f"bytes 0-{HALF}/{HALF + 1}"}),
    ],
    "206 without Content-Range": [Fault(send=HALF), Fault(add={"Content-Range": None})],
    "another ETag": [Fault(send=HALF), Fault(add={"ETag": '"another"'})],
    "another size": [Fault(send=HALF), Fault(add={"Content-Range": f"bytes {HALF}-{HALF}/999999"})],
    "ETag gone": [Fault(send=HALF), Fault(add={"ETag": None})],
    "416 and another size": [
        Fault(send=HALF),
        Fault(status=416, headers={"Content-Range": "bytes */77"}),
    ],
    "416 without a size": [Fault(send=HALF), Fault(status=416)],
    "chunked": [Fault(chunked=True)],
    "chunked, drop": [Fault(chunked=True, send=HALF)],
    "truncated, with a Content-Length that says so": [Fault(truncate_to=HALF)],
    "wrong bytes": [Fault(corrupt=True)],
    "wrong bytes, then a drop": [Fault(corrupt=True, send=HALF)],
}


@pytest.mark.parametrize("faults", FAULTS_OVERCOME.values(), ids=FAULTS_OVERCOME.keys())
@pytest.mark.parametrize(
    ("tar", "settings", "checked_by"),
    [
        (TAR, {}, "md5"),
        (TAR, {"md5": {}}, "size"),
        (PLAIN, {}, "md5"),
        (PLAIN, {"md5": {}}, "size"),
    ],
    ids=["gzip", "gzip, no MD5 known", "plain", "plain, no MD5 known"],
)
def test_a_fault_that_passes_leaves_the_file_byte_identical(
    server, tmp_path, tar, settings, checked_by, faults
):
    server.files[NAME] = tar
    server.faults[NAME] = list(faults)

    (result,) = fetch_all(server, tmp_path, timeout=patience(faults), retries=10, **settings)

    assert (result.status, result.checked_by) == ("done", checked_by), result.reason
    assert (tmp_path / NAME).read_bytes() == tar
    assert beside(tmp_path) == set()
    assert server.faults[NAME] == []


def always(**fault):
    return [Fault(**fault) for _ in range(20)]


FAULTS_REPORTED = {
    "expired": (
        always(status=403, body=EXPIRED_BODY),
        "expired",
        r"HTTP 403 \(URL signature expired\)",
    ),
    "401": (
        always(status=401, body=b"Invalid token"),
        "failed",
        r"HTTP 401 \(Invalid token\): the server refuses access. .*--header",
    ),
    "401 of an old token": (always(status=401, body=b"Token expired"), "failed", r"refuses access"),
    "403": (always(status=403), "failed", r"HTTP 403 \(Forbidden\): .* save a fresh links file"),
    "403 of another store": (
        always(status=403, body=b"<Message>Request has expired</Message>"),
        "expired",
        r"HTTP 403 \(Request has expired\)",
    ),
    "410": (always(status=410), "expired", r"HTTP 410"),
    "404": (always(status=404, body=b"no such file"), "failed", r"HTTP 404 \(no such file\)"),
    "a page of 404": (
        always(status=404, body=b"<html><style>p {}</style>\n<h1 id='x'>no such\n file</h1><p"),
        "failed",
        r"HTTP 404 \(no such file\)",
    ),
    "a long page": (
        always(status=404, body=b"not found " * 20),
        "failed",
        r"^HTTP 404 \((not found ){5}not found\)",
    ),
    "always 500": (
        always(status=500, body=b"oops"),
        "failed",
        r"HTTP 500 \(oops\); gave up after 3 retries without progress; 0 bytes kept",
    ),
    "429 for a week": (
        always(status=429, headers={"Retry-After": "604800"}),
        "failed",
        r"HTTP 429 .*the server asks to wait 604800 s; come back then",
    ),
    "always stalled": (
        [Fault(send=HALF, stall=30), *always(send=0, stall=30)],
        "failed",
        rf"no byte for 0.5 s; gave up after 3 retries without progress; {HALF:,} bytes kept",
    ),
    "always truncated": (
        always(truncate_to=HALF),
        "failed",
        r"the MD5 is [0-9a-f]{32}, the table says [0-9a-f]{32}, fetched from the start and "
        r"checked again. The file is kept as sa_000000.tar.part: .*--verify size",
    ),
    "always wrong": (always(corrupt=True), "failed", r"the MD5 is .*, the table says "),
    "always another range": (
        [Fault(send=HALF), *always(add={"Content-Range": "bytes 5-9/10"})],
        "failed",
        r"another range than asked for; gave up",
    ),
    "a login page": (
        always(add={"Content-Type": "text/html; charset=utf-8"}),
        "failed",
        r"the server sent a web page instead of the file",
    ),
    "compressed": (always(add={"Content-Encoding": "gzip"}), "failed", r"compressed the file"),
    "416 of the whole file": (
        always(status=416),
        "failed",
        r"^HTTP 416 to a request for the whole file$",
    ),
    "redirect to nowhere": (
        always(status=302, headers={"Location": "ftp://host.example/a?sig=" + SIGNATURE}),
        "failed",
        r"127.0.0.1 redirects to something that is not an http or https link",
    ),
    "redirects in a circle": (
        always(status=302, headers={"Location": "/secret-path/" + NAME}),
        "failed",
        r"more than 5 redirects",
    ),
}


@pytest.mark.parametrize(
    ("faults", "status", "message"), FAULTS_REPORTED.values(), ids=FAULTS_REPORTED.keys()
)
def test_a_fault_that_stays_is_reported(server, tmp_path, faults, status, message):
    server.faults[NAME] = list(faults)
    notes = Notes()

    (result,) = fetch_all(server, tmp_path, timeout=patience(faults), reporter=notes)

    assert result.status == status
    assert re.search(message, result.reason), result.reason
    assert not (tmp_path / NAME).exists()
    assert no_secret_in(result.reason, *notes.texts)


def no_secret_in(*texts):
    return not any(word in text for text in texts for word in (SIGNATURE, "secret-path"))


def test_a_table_that_is_wrong_does_not_cost_the_download(server, tmp_path):
    (wrong,) = fetch_all(server, tmp_path, md5={NAME: "0" * 32})
    assert wrong.status == "failed"
    asked_before = len(server.requests)

    (result,) = fetch_all(server, tmp_path, verify="size")

    assert (result.status, result.checked_by, result.fetched) == ("done", "size", 0)
    assert (tmp_path / NAME).read_bytes() == TAR
    assert len(server.requests) == asked_before


@pytest.mark.parametrize("header", ["1", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(server, tmp_path, status, header):
    # A date has whole seconds, so two ahead are more than one.
    began = time.monotonic()
    value = header if header == "1" else email.utils.formatdate(time.time() + 2, usegmt=True)
    server.faults[NAME] = [Fault(status=status, headers={"Retry-After": value})]

    (result,) = fetch_all(server, tmp_path)

    assert result.status == "done"
    assert time.monotonic() - began > 0.9


def test_retries_are_counted_only_while_nothing_comes(tmp_path):
    big = make_tar(2, pairs=8, image_bytes=1_000_000)
    with FaultServer({NAME: big}) as server:
        server.faults[NAME] = [Fault(send=1_100_000) for _ in range(6)]
        (result,) = fetch_all(server, tmp_path, retries=1)

    assert result.status == "done"
    assert (tmp_path / NAME).read_bytes() == big
    assert sum(request.sent for request in server.of(NAME)) < len(big) + 6 * 500_000


def test_the_file_changes_on_the_server_between_two_runs(server, tmp_path):
    server.faults[NAME] = [Fault(send=HALF)]
    fetch_all(server, tmp_path, retries=0)
    exchange(server)()

    (result,) = fetch_all(server, tmp_path)

    assert result.status == "done"
    assert (tmp_path / NAME).read_bytes() == OTHER_TAR


SAME_SIZE = make_tar(1, form="plain")
assert len(SAME_SIZE) == len(PLAIN)
UNCHANGED = {"Last-Modified": "Mon, 01 May 2023 10:00:00 GMT"}
WEAK = {
    "no validator": {"ETag": None},
    "a weak ETag": {"ETag": 'W/"1"'},
    "only a time": {"ETag": None, **UNCHANGED},
    "a weak ETag and a time": {"ETag": 'W/"1"', **UNCHANGED},
    "an ETag of another form": {"ETag": "1"},
    "an empty ETag": {"ETag": '""'},
}


@pytest.mark.parametrize("headers", WEAK.values(), ids=WEAK.keys())
@pytest.mark.parametrize("runs", [1, 2])
def test_parts_of_two_files_are_never_joined(server, tmp_path, headers, runs):
    server.files[NAME] = PLAIN
    change = exchange(server, data=SAME_SIZE)
    server.faults[NAME] = [Fault(send=HALF, add=headers), Fault(add=headers, before=change)]
    for run in range(runs):
        retries = 3 if run else 2 - runs
        (result,) = fetch_all(server, tmp_path, verify="size", retries=retries)

    assert (result.status, result.checked_by) == ("done", "size"), result.reason
    assert (tmp_path / NAME).read_bytes() == SAME_SIZE


@pytest.mark.parametrize("headers", WEAK.values(), ids=WEAK.keys())
def test_a_known_md5_lets_a_partial_go_on(server, tmp_path, headers):
    server.faults[NAME] = [Fault(send=HALF, add=headers), Fault(add=headers)]
    (result,) = fetch_all(server, tmp_path)
    assert (result.checked_by, result.fetched) == ("md5", len(TAR))
    assert [request.start for request in server.of(NAME)] == [0, HALF]

    (tmp_path / NAME).unlink()
    server.files[NAME] = PLAIN
    change = exchange(server, data=SAME_SIZE)
    server.faults[NAME] = [Fault(send=HALF, add=headers), Fault(add=headers, before=change)]
    md5 = {NAME: hashlib.md5(SAME_SIZE).hexdigest()}
    (result,) = fetch_all(server, tmp_path, md5=md5)
    assert (result.checked_by, (tmp_path / NAME).read_bytes()) == ("md5", SAME_SIZE)


def test_an_etag_of_one_host_says_nothing_of_another(server, tmp_path):
    etag = {"ETag": '"1"'}
    server.files[NAME] = PLAIN
    server.faults[NAME] = [Fault(send=HALF, add=etag)]
    fetch_all(server, tmp_path, verify="size", retries=0)
    server.files[NAME] = SAME_SIZE
    server.faults[NAME] = [Fault(add=etag)] * 2
    links = parse_links(f"{NAME} {server.url(NAME, host='localhost')}")

    (result,) = download(select(links), tmp_path, verify="size", backoff=0.01)

    assert result.status == "done"
    assert (tmp_path / NAME).read_bytes() == SAME_SIZE


def test_a_partial_as_long_as_another_file_is_not_that_file(server, tmp_path):
    weak = {"ETag": None}
    server.files[NAME] = PLAIN
    server.faults[NAME] = [Fault(send=len(TAR), chunked=True, add=weak)]
    fetch_all(server, tmp_path, verify="none", retries=0)
    server.files[NAME] = TAR

    (result,) = fetch_all(server, tmp_path, verify="none")

    assert (result.status, (tmp_path / NAME).read_bytes()) == ("done", TAR)


def test_a_break_at_the_same_byte_is_not_retried_for_ever(tmp_path):
    big = make_tar(2, pairs=8, image_bytes=1_000_000)
    with FaultServer({NAME: big}) as server:
        server.faults[NAME] = always(ignore_range=True, send=2_500_000)
        (result,) = fetch_all(server, tmp_path)

    assert result.status == "failed"
    assert "gave up after 3 retries without progress; 2,500,000 bytes kept" in result.reason
    assert len(server.of(NAME)) == 4


@pytest.mark.parametrize(
    ("sizes", "status"),
    [([5_000] * 30, "done"), ([500] * 30, "done"), ([100] * 30, "failed")],
    ids=["5 kB", "0.5 kB", "drops"],
)
def test_what_is_kept_is_progress_unless_it_is_a_drip(server, tmp_path, sizes, status):
    server.faults[NAME] = [Fault(send=size) for size in sizes]

    (result,) = fetch_all(server, tmp_path, retries=3)

    assert result.status == status
    assert (status == "done") == ((tmp_path / NAME).exists())


def test_a_connection_that_is_too_slow_counts_as_lost(tmp_path):
    big = make_tar(2, image_bytes=500_000)
    with FaultServer({NAME: big}, bytes_per_second=20_000) as server:
        slow = {"speed_limit": 100_000, "speed_time": 0.5, "retries": 1}
        (result,) = fetch_all(server, tmp_path, **slow)
        assert "less than 100.0 kB/s for 0.5 s; gave up after 1 retry" in result.reason
        assert len(server.of(NAME)) == 2
        server.bytes_per_second = None
        (result,) = fetch_all(server, tmp_path, speed_limit=0)
    assert (result.status, (tmp_path / NAME).read_bytes()) == ("done", big)


def test_progress_is_the_same_for_files_and_streams():
    attempts = Attempts(0, slow_bytes=60_000)
    ends = [(2000, False), (2000, False), (2500, False), (3000, False)]
    assert [attempts.failed_at(*end) for end in ends] == [1, 2, 3, 1]
    ends = [(40_000, True), (80_000, True), (10**9, True), (10**9 + 999, False), (5, False)]
    assert [attempts.failed_at(*end) for end in ends] == [2, 3, 1, 2, 3]


def test_a_limited_rate_is_not_a_slow_connection(server, tmp_path):
    slow = {"speed_limit": 1_000_000, "speed_time": 0.2}
    (result,) = fetch_all(server, tmp_path, max_rate=200_000, retries=0, **slow)
    assert result.status == "done", result.reason


def test_a_body_without_an_end_is_not_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr("sa1b_tfds.download.transfer.fetch.MOST_BYTES", HALF)
    server.faults[NAME] = always(chunked=True)

    (result,) = fetch_all(server, tmp_path, verify="size")

    assert re.search(r"does not say its size, and more than 9.* kB came", result.reason)
    assert beside(tmp_path) == set()


def test_a_partial_longer_than_the_file_that_is_there_now(server, tmp_path):
    """The server says 416 to each Range beyond its end, until the partial is given up."""
    short = make_tar(2, image_bytes=100)
    assert len(short) < HALF
    server.faults[NAME] = [Fault(send=HALF), Fault(before=exchange(server, data=short))]
    notes = Notes()

    (result,) = fetch_all(
        server, tmp_path, md5={NAME: hashlib.md5(short).hexdigest()}, reporter=notes
    )

    assert (result.status, result.checked_by) == ("done", "md5")
    assert (tmp_path / NAME).read_bytes() == short
    assert [request.start for request in server.of(NAME)] == [0, HALF, 0]
    assert any("has another size on the server; starting over; retry" in t for t in notes.texts)
    assert any("in 0.0 s, from byte 0" in text for text in notes.texts)


def test_a_file_that_has_changed_is_fetched_anew_at_once(server, tmp_path):
    server.faults[NAME] = [Fault(send=HALF), Fault(add={"ETag": '"another"'})]
    notes = Notes()
    (result,) = fetch_all(server, tmp_path, reporter=notes, md5={})
    assert result.status == "done"
    said = "may have changed on the server; starting over; retry 2 of 3 in 0.0 s, from byte 0"
    assert any(said in text for text in notes.texts)


def test_a_part_that_nobody_asked_for_is_not_taken_for_the_file(server, tmp_path):
    server.faults[NAME] = [
        Fault(status=206, body=b"x" * 9, headers={"Content-Range": "bytes 0-8/9"})
    ]
    notes = Notes()
    (result,) = fetch_all(server, tmp_path, reporter=notes)
    assert (result.status, result.fetched) == ("done", len(TAR))
    (note,) = (text for text in notes.texts if "retry" in text)
    assert "the server answered with another range than asked for; retry 1 of 3" in note


def a_fetch(server, folder, **settings):
    """One file's Fetch, whose progress can be looked at."""
    config = TransferConfig(**{"retries": 1, "timeout": 10.0, "backoff": 0.0, **settings})
    return fetch.Fetch(
        Link(name=NAME, url=SignedUrl(server.url(NAME))),
        folder,
        transport=Transport(connections=1, timeout=config.timeout),
        config=config,
        limit=RateLimit(None),
        expected_md5=hashlib.md5(TAR).hexdigest(),
        checked=CheckedFiles(folder),
        stop=threading.Event(),
        note=lambda text: None,
    )


def test_progress_is_at_0_again_when_nothing_is_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MOST_BYTES", HALF)
    server.faults[NAME] = always(chunked=True)
    one = a_fetch(server, tmp_path)
    with pytest.raises(fetch.Refused, match="What came was removed"):
        one.run()
    assert 0 < one.progress.fetched <= HALF
    assert one.progress.position == 0


def test_progress_says_what_is_done_with_the_file(server, tmp_path, monkeypatch):
    server.faults[NAME] = [Fault(send=HALF)]
    with pytest.raises(fetch.Refused):
        a_fetch(server, tmp_path, retries=0).run()
    one = a_fetch(server, tmp_path)
    assert (one.progress.position, one.progress.size) == (HALF, len(TAR))
    phases = []
    for name in ("hash_file", "check_file"):
        function = getattr(fetch, name)

        def noting(*args, name=name, function=function, **kwargs):
            phases.append((name, one.progress.phase, one.progress.position))
            return function(*args, **kwargs)

        monkeypatch.setattr(fetch, name, noting)
    assert one.run() == "md5"
    assert phases == [("hash_file", "checking", HALF), ("check_file", "checking", len(TAR))]
    assert (one.progress.phase, one.progress.fetched) == ("fetching", len(TAR) - HALF)


LONG = "9" * 5000
ENDLESS_NUMBERS = {
    "Content-Length": always(add={"Content-Length": LONG}),
    "Content-Length of fewer": always(add={"Content-Length": "9" * 20}),
    "total of a range": [
        Fault(send=HALF),
        *always(add={"Content-Range": f"bytes {HALF}-9/{LONG}"}),
    ],
    "start of a range": [Fault(send=HALF), *always(add={"Content-Range": f"bytes {LONG}-9/9"})],
    "range of a 416": [
        Fault(send=HALF),
        *always(status=416, headers={"Content-Range": f"bytes */{LONG}"}),
    ],
    "Retry-After": always(status=503, headers={"Retry-After": LONG}),
    "a date": always(status=503, headers={"Retry-After": "Mon, 1 Jan 0001 00:00:00 +2300"}),
}


@pytest.mark.parametrize("faults", ENDLESS_NUMBERS.values(), ids=ENDLESS_NUMBERS.keys())
def test_a_number_of_5000_digits_costs_one_file(tmp_path, faults):
    other = "sa_000001.tar"
    with FaultServer({NAME: TAR, other: OTHER_TAR}) as server:
        server.faults[NAME] = list(faults)
        results = fetch_all(server, tmp_path)

    assert results[0].is_whole or re.search("gave up after|HTTP 416", results[0].reason)
    assert (tmp_path / other).read_bytes() == OTHER_TAR


@given(st.text("0123456789-+*/ ,.bytesMonJan:GMT\u00b2", max_size=60) | st.text("9", min_size=4300))
def test_any_number_in_an_answer_is_read_or_refused(text):
    headers = dict.fromkeys(("Content-Length", "Content-Range", "Retry-After"), text)
    headers["Content-Range"] = f"bytes 0-{text}/{text}"
    answer = types.SimpleNamespace(headers=headers)
    for read in (content_length, lambda answer: total_of_range(answer, 0), total_of_416):
        with contextlib.suppress(TryAgain):
            assert read(answer) is None or 0 <= read(answer) < 10**13
    assert (_retry_after(answer) or 0) >= 0


def test_a_fresh_links_file_continues_the_same_partial(server, tmp_path):
    server.faults[NAME] = [Fault(send=HALF)]
    (first,) = fetch_all(server, tmp_path, retries=0)
    server.expired_keys.add("1")
    (second,) = fetch_all(server, tmp_path)
    assert (first.status, second.status) == ("failed", "expired")
    assert (tmp_path / f"{NAME}.part").stat().st_size == HALF

    (third,) = fetch_all(server, tmp_path, key="2")

    assert (third.status, third.fetched) == ("done", len(TAR) - HALF)
    assert (tmp_path / NAME).read_bytes() == TAR
    assert [request.start for request in server.of(NAME)] == [0, HALF, HALF]


@pytest.mark.parametrize("form", ["gzip", "plain"])
def test_servers_that_drop_expire_and_die_cost_no_byte_twice(tmp_path, form):
    files = {f"sa_{n:06d}.tar": make_tar(n, form=form) for n in range(3)}
    first, second, third = files
    with FaultServer(files) as server:
        server.faults[first] = [Fault(send=HALF), Fault(status=500), Fault(send=5000)]
        server.faults[second] = [Fault(send=HALF), Fault(status=403, body=EXPIRED_BODY)]
        server.faults[third] = [Fault(send=HALF, stall=60), *always(send=0)]
        results = []
        run = threading.Thread(
            target=lambda: results.extend(fetch_all(server, tmp_path, timeout=30))
        )
        run.start()
        part = tmp_path / f"{third}.part"
        wait_for(lambda: part.exists() and part.stat().st_size == HALF)
        wait_for(lambda: (tmp_path / first).exists())
    run.join(30)  # the server is gone
    assert [result.status for result in results] == ["done", "expired", "failed"]
    assert re.search(rf"gave up after 3 retries .*{HALF:,} bytes kept", results[2].reason)

    with FaultServer(files) as server:
        results = fetch_all(server, tmp_path)
        sent = {request.name: (request.start, request.sent) for request in server.requests}
    assert [result.checked_by for result in results] == ["md5"] * 3
    assert sent == {name: (HALF, len(files[name]) - HALF) for name in (second, third)}
    assert {path.name: path.read_bytes() for path in tmp_path.glob("sa_*")} == files


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda part, side: side.unlink(), id="no state file"),
        pytest.param(lambda part, side: side.write_text("{"), id="half a state file"),
        pytest.param(lambda part, side: side.write_text('["size"]'), id="a list"),
        pytest.param(lambda part, side: side.write_text('{"size": -1}'), id="other fields"),
        pytest.param(
            lambda part, side: side.write_text(side.read_text().replace("000000", "000001")),
            id="another name's",
        ),
        pytest.param(lambda part, side: part.write_bytes(bytes(len(TAR) + 1)), id="too long"),
    ],
)
def test_a_partial_that_cannot_be_trusted_is_fetched_from_the_start(server, tmp_path, damage):
    server.faults[NAME] = [Fault(send=HALF)]
    fetch_all(server, tmp_path, retries=0)
    damage(tmp_path / f"{NAME}.part", tmp_path / f"{NAME}.part.json")
    notes = Notes()

    (result,) = fetch_all(server, tmp_path, reporter=notes)

    assert result.status == "done"
    assert (tmp_path / NAME).read_bytes() == TAR
    assert any("has no state file that fits it; starting over" in text for text in notes.texts)


def test_bytes_that_rotted_in_a_partial_are_found(server, tmp_path):
    server.faults[NAME] = [Fault(send=HALF)]
    fetch_all(server, tmp_path, retries=0)
    with open(tmp_path / f"{NAME}.part", "r+b") as part:
        part.write(b"rotten")

    (result,) = fetch_all(server, tmp_path)

    assert result.status == "done"
    assert (tmp_path / NAME).read_bytes() == TAR


def test_a_partial_of_unknown_size_that_was_complete(server, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(TAR)
    source = {"name": NAME, "size": None, "etag": server.etag(NAME), "last_modified": None}
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps(source))

    (result,) = fetch_all(server, tmp_path)

    assert (result.status, result.fetched) == ("done", 0)
    assert (tmp_path / NAME).read_bytes() == TAR


def test_a_file_is_not_taken_as_finished_because_it_is_there(server, tmp_path):
    (tmp_path / NAME).write_bytes(TAR[:HALF])
    (result,) = fetch_all(server, tmp_path)
    assert result.status == "failed"
    assert "was there before this download and is wrong: the MD5 is" in result.reason
    assert "Move" in result.reason
    assert (tmp_path / NAME).read_bytes() == TAR[:HALF]

    (tmp_path / NAME).write_bytes(TAR)
    (result,) = fetch_all(server, tmp_path)
    assert (result.status, result.checked_by) == ("present", "md5")
    assert server.requests == []


def test_a_checked_file_is_not_read_again(server, tmp_path, monkeypatch):
    fetch_all(server, tmp_path)
    monkeypatch.setattr("sa1b_tfds.download.transfer.jobs.hash_file", pytest.fail)

    (result,) = fetch_all(server, tmp_path)

    assert (result.status, result.fetched) == ("present", 0)


@pytest.mark.parametrize(
    ("data", "verify", "message"),
    [
        (b"<html>an error page as it comes, with 200</html>" * 50, "size", "it is no tar: it"),
        (b"<html>an error page as it comes, with 200</html>" * 50, "none", None),
        (make_tar(3, pairs=0, form="plain"), "size", "a tar without a pair of .jpg and .json"),
        (make_tar(3, pairs=0), "size", "a tar without a pair of .jpg and .json"),
        (PLAIN[: HALF // 512 * 512], "size", "the tar is torn here .* download it again"),
        (TAR[:HALF], "none", None),
        *((data, "size", message) for data, message in DAMAGED.values()),
    ],
    ids=[
        *("no tar", "no tar, not verified", "no pairs", "no pairs, packed", "torn"),
        *("cut, not verified", *DAMAGED),
    ],
)
def test_without_an_md5_it_must_still_be_a_tar_with_pairs(tmp_path, data, verify, message):
    with FaultServer({NAME: data}) as server:
        (result,) = fetch_all(server, tmp_path, verify=verify, md5={})

    if message is None:
        assert (result.status, result.checked_by) == ("done", "none")
    else:
        assert result.status == "failed"
        assert re.search(message, result.reason), result.reason
        assert "--verify size" not in result.reason  # which would not take it either
        assert not (tmp_path / NAME).exists()


def test_one_tar_that_fails_leaves_the_others_alone(tmp_path):
    files = {f"sa_{n:06d}.tar": make_tar(n) for n in range(4)}
    with FaultServer(files) as server:
        server.faults["sa_000001.tar"] = always(status=404)
        server.faults["sa_000002.tar"] = always(status=403, body=EXPIRED_BODY)
        selection = select(parse_links(server.links_text()), end=5)
        results = download(selection, tmp_path, backoff=0.01, md5={})

    assert [result.status for result in results] == ["done", "failed", "expired", "done", "failed"]
    assert results[4].reason == "not in the links file"
    for name in ("sa_000000.tar", "sa_000003.tar"):
        assert (tmp_path / name).read_bytes() == files[name]


@pytest.mark.parametrize("target", ["another host", "another port", "the same host"])
def test_headers_of_the_user_stay_with_the_links_own_host(server, tmp_path, target):
    with FaultServer({NAME: TAR}) as elsewhere:
        url = {
            "another host": server.url(NAME, host="localhost"),
            "another port": elsewhere.url(NAME),
            "the same host": server.url(NAME),
        }[target]
        server.faults[NAME] = [Fault(status=302, headers={"Location": url})]
        (result,) = fetch_all(server, tmp_path, headers={"Authorization": "Bearer fake"})
        requests = [*server.requests, *elsewhere.requests]

    assert result.status == "done"
    assert (tmp_path / NAME).read_bytes() == TAR
    first, last = server.of(NAME)[0], [r for r in requests if not r.probe][-1]
    assert first.headers["Authorization"] == "Bearer fake"
    assert last.headers.get("Authorization") == (
        "Bearer fake" if target == "the same host" else None
    )


def test_a_proxy_is_used_and_its_password_is_not_shown(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    links = f"{NAME}\thttp://cdn.example/secret-path/{NAME}?key=1&sig={SIGNATURE}"

    (result,) = download(
        select(parse_links(links)),
        tmp_path,
        proxy=f"http://user:password@127.0.0.1:{server.port}",
        md5={},
    )

    assert result.status == "done", result.reason
    (request,) = server.of(NAME)
    assert request.url.startswith("http://cdn.example/")
    assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNzd29yZA=="
    assert no_secret_in(caplog.text)
    assert "password" not in caplog.text


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1:1", "Connection refused"), ("host.invalid", "[^;]+")]
)
def test_a_host_that_cannot_be_reached(tmp_path, host, why):
    links = f"{NAME}\thttp://{host}/secret-path/{NAME}?sig={SIGNATURE}"

    (result,) = download(select(parse_links(links)), tmp_path, retries=1, backoff=0.01)

    assert re.search(f"no connection: ({why}); gave up after 1 retry without", result.reason)
    assert "did not answer" not in result.reason
    assert no_secret_in(result.reason)


def test_the_ids_and_tars_under_other_names(tmp_path):
    files = {"sa_images_ids.txt": b"1\n2\n", "sa_000003.tar.gz": OTHER_TAR, NAME: TAR}
    with FaultServer(files) as server:
        selection = select(parse_links(server.links_text()), with_ids=True)
        results = download(selection, tmp_path, md5={})

    assert [result.status for result in results] == ["done"] * 3
    assert {p.name: p.read_bytes() for p in tmp_path.glob("sa_*")} == files


def test_another_dataset_is_fetched_by_its_name_only(tmp_path):
    gold = "sa_co_gold.tar"
    with FaultServer({NAME: TAR, gold: b"holds no pairs"}) as server:
        links = parse_links(server.links_text())
        results = download(select(links), tmp_path, md5={})
        assert [result.name for result in results] == [NAME]
        (result,) = download(select(links, names=[gold]), tmp_path, md5={})

    assert (result.status, result.checked_by) == ("done", "size"), result.reason
    assert (tmp_path / gold).read_bytes() == server.files[gold]


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--json"], ["--dry-run", "--json"]])
def test_the_command_notes_another_dataset_once(server, tmp_path, options):
    server.files["sa_co_gold.tar"] = b"holds no pairs"
    out, err = sa1b(*write_inputs(server, tmp_path), *options).communicate(timeout=120)

    note = "lists more than SA-1B's tars: sa_co_gold.tar (another dataset). Such a file is fetched"
    assert (out if "--json" in options else err).count(note) == 1
    assert "sa_co_gold.tar" not in {request.name for request in server.requests}


def test_a_mirror_gets_the_token_and_its_damaged_copy_is_found(tmp_path):
    files = {f"sa_{n:06d}.tar": make_tar(n) for n in range(3)}
    damaged = "sa_000001.tar"
    page = (Path(__file__).parents[1] / "docs" / "download.md").read_text()
    snippet = next(b.code for b in blocks_of(page) if "/resolve/main/" in b.code)
    subprocess.run(["bash", "-c", snippet], cwd=tmp_path, check=True)
    text = (tmp_path / "mirror_links.txt").read_text()
    assert len(read_links(tmp_path / "mirror_links.txt").tars) == 1000
    with FaultServer(files) as storage, FaultServer({}) as mirror:
        mirror.redirects_to = storage
        command = write_inputs(storage, tmp_path)
        whole = files[damaged]
        storage.files[damaged] = whole[:HALF] + bytes(5000) + whole[HALF + 5000 :]
        text = text.replace("https://huggingface.co/", f"http://127.0.0.1:{mirror.port}/")
        (tmp_path / "links.txt").write_text(text)
        token = ("--header", "Authorization: Bearer fake-token")
        out, err = sa1b(*command, "--end", "3", *token).communicate(timeout=120)

    assert f"{damaged} failed: the MD5 is " in out
    assert "2 of 3 files whole (2 downloaded, 0 already there), 1 failed" in out
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").glob("sa_*.tar")} == {
        name: data for name, data in files.items() if name != damaged
    }
    assert {request.url for request in mirror.requests} == {
        f"/datasets/OWNER/NAME/resolve/main/{name}" for name in files
    }
    assert {r.headers.get("Authorization") for r in mirror.requests} == {"Bearer fake-token"}
    assert {r.headers.get("Authorization") for r in storage.requests} == {None}
    assert "fake-token" not in out + err


def test_no_redirect_from_https_to_http():
    from sa1b_tfds.download.transfer.transport import _redirected

    with pytest.raises(TransferError, match="from https to unencrypted http") as error:
        _redirected(SignedUrl("https://cdn.example/a"), "http://cdn.example/b?sig=" + SIGNATURE)
    assert_clean(error.value)


def assert_clean(error):
    """No secret in an exception, in what it came from, or in its traceback."""
    assert error.__cause__ is None
    assert error.__context__ is None
    assert no_secret_in("".join(traceback.format_exception(error)), repr(error))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=403, body=b"expired: http://h.example/secret-path?sig=" + SIGNATURE.encode()),
        Fault(status=500),
        Fault(status=302, headers={"Location": "gopher://secret-path/?sig=" + SIGNATURE}),
        Fault(send=0),
        Fault(send=0, stall=5),
        Fault(status=200, headers={"Transfer-Encoding": "chunked"}, body=b"zz\r\n"),
        None,
    ],
    ids=["403", "500", "redirect", "drop", "stall", "broken chunks", "no server"],
)
def test_no_error_or_log_holds_a_signed_link(server, fault, caplog):
    caplog.set_level(logging.DEBUG)
    url = SignedUrl(server.url(NAME))
    if fault is None:
        server.__exit__()
    else:
        server.faults[NAME] = [fault]
    transport = Transport(connections=1, timeout=0.3)

    def read_all():
        with transport.get(url, {}) as response:
            while transport.read(response):
                pass
        raise TransferError("the body ended")

    with pytest.raises(TransferError) as error:
        read_all()

    assert_clean(error.value)
    assert no_secret_in(caplog.text)
    assert fault is None or "urllib3" in caplog.text


@pytest.mark.parametrize(("seconds", "status"), [(-60, "expired"), (3600, "failed")])
def test_a_refused_link_that_is_too_old_by_its_time_has_expired(server, tmp_path, seconds, status):
    server.faults[NAME] = always(status=403)
    links = f"{NAME}\t{server.url(NAME)}&oe={int(time.time()) + seconds:X}"
    (result,) = download(select(parse_links(links)), tmp_path, md5={})
    assert result.status == status


def test_a_wrong_token_is_not_reported_as_an_expired_link(server, tmp_path):
    server.faults[NAME] = always(status=401)
    token = ("--header", "Authorization: Bearer wrong-token")
    out, err = sa1b(*write_inputs(server, tmp_path), *token).communicate(timeout=120)
    assert "HTTP 401 (Unauthorized): the server refuses access" in out
    assert "links expired" not in out
    assert "wrong-token" not in out + err


def test_a_selection_of_nothing_is_an_error(server, tmp_path):
    command = write_inputs(server, tmp_path)
    for options in (["--start", "7"], ["--start", "7", "--dry-run"]):
        process = sa1b(*command, *options)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert f"has no tar of SA-1B in that range: it lists 1 tar ({NAME})" in err
    (tmp_path / "links.txt").write_text(f"sa_co_gold.tar {server.url(NAME)}")
    process = sa1b(*command, "--json")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "it lists 0 tars (none) and other files (sa_co_gold.tar). --names fetches those." in err


def test_an_expired_link_burns_no_retries(server, tmp_path):
    server.expired_keys.add("1")

    (result,) = fetch_all(server, tmp_path, retries=10, backoff=60)

    assert result.status == "expired"
    assert len(server.requests) == 1


def test_refresh_wait_goes_on_when_the_links_file_changes(server, tmp_path):
    links_file = tmp_path / "links.txt"
    links_file.write_text(server.links_text(key="1"))
    server.faults[NAME] = [Fault(send=HALF, before=lambda: server.expired_keys.add("1"))]

    class Refresh(Notes):
        def note(self, text, name=None):
            super().note(text, name)
            if "waiting for a fresh" in text:
                links_file.write_text("half a li")
            elif "Waiting for it to change" in text:
                links_file.write_text(server.links_text(key="2"))

    notes = Refresh()
    (result,) = download(
        select(read_links(links_file)),
        tmp_path / "out",
        backoff=0.01,
        md5={},
        refresh_wait=True,
        reporter=notes,
    )

    assert (result.status, result.fetched) == ("done", len(TAR))
    assert (tmp_path / "out" / NAME).read_bytes() == TAR
    assert [request.start for request in server.of(NAME)] == [0, HALF, HALF]
    assert no_secret_in(*notes.texts)


def test_a_selection_that_cannot_fit_is_refused(tmp_path, monkeypatch):
    files = {f"sa_{n:06d}.tar": make_tar(n) for n in range(4)}
    sizes = [len(tar) for tar in files.values()]
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: sum(sizes[:2]) + 100)
    with FaultServer(files) as server:
        selection = select(parse_links(server.links_text()))
        with pytest.raises(
            SelectionTooLarge,
            match=r"needs \d+.\d kB more and .* has \d+.\d kB free; nothing was wri",
        ) as error:
            download(selection, tmp_path, md5={})

    assert "What fits is the first 2 of 4 files: --start 0 --end 2" in str(error.value)
    assert error.value.plan.needed == error.value.plan.to_fetch == sum(sizes)
    assert beside(tmp_path) == set()


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 512 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_fills_up_stops_the_run_with_all_bytes_kept(small_disk, monkeypatch):
    files = {f"sa_{n:06d}.tar": make_tar(n) for n in range(6)}
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: 10**9)
    with FaultServer(files) as server:
        first = fetch_all(server, small_disk, workers=3)
        reasons = {r.reason for r in first if not r.is_whole}
        assert any(os.strerror(errno.ENOSPC) in reason for reason in reasons)
        assert all("its bytes so far are kept" in reason for reason in reasons)
        kept = {p.name: p.stat().st_size for p in small_disk.glob("*.part")}
        assert kept

        subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
        requests_before = len(server.requests)
        second = fetch_all(server, small_disk, workers=3)
        again = {r.name: r.start for r in server.requests[requests_before:] if not r.probe}

    assert all(result.is_whole for result in second)
    for name, data in files.items():
        assert (small_disk / name).read_bytes() == data
    for part, size in kept.items():
        assert again.get(part.removesuffix(".part"), size) == size


def test_one_run_at_a_time(server, tmp_path):
    with open(tmp_path / ".sa1b.lock", "a+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        message = r"Another process works in .* \(it does not say which\)\. Wait for it"
        with pytest.raises(FolderInUse, match=message):
            fetch_all(server, tmp_path)
    # The file is still there, as after a crash, and the lock is not.
    assert fetch_all(server, tmp_path)[0].status == "done"


def test_the_rate_limit_is_one_for_all_threads():
    limit, stop = RateLimit(1_000_000), threading.Event()
    began = time.monotonic()
    threads = [
        threading.Thread(target=lambda: [limit.pay(25_000, stop) for _ in range(4)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert time.monotonic() - began > 0.39


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"workers": 0}, "workers=0: must be between 1 and 64"),
        ({"retries": -1}, "retries=-1: must not be negative"),
        ({"timeout": 0}, "timeout=0: must be more than 0 seconds"),
        ({"timeout": float("nan")}, "timeout=nan: must be"),
        ({"backoff": -1}, "backoff=-1: must be 0 seconds"),
        ({"max_rate": 0}, "max_rate=0: must be at least 1 byte"),
        ({"verify": "sha"}, "verify='sha': must be"),
        ({"proxy": "socks5://u:password@h.example"}, "proxy: must be a URL such as"),
        ({"headers": {"Range": "bytes=0-"}}, "headers: Range is set by the download itself"),
        ({"headers": {"A b": "c"}}, "headers: 'A b' is not a header's name"),
        ({"headers": {"A": "password\r\nB: c"}}, "headers: the value of A holds a control char"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_opened(setting, message):
    with pytest.raises(ValueError, match=message) as error:
        TransferConfig(**setting)
    assert "password" not in str(error.value)


def test_settings_do_not_show_secrets():
    shown = repr(TransferConfig(proxy="http://u:password@h.example", headers={"A": "password"}))
    assert "password" not in shown


def test_a_plan_writes_nothing(server, tmp_path):
    plan = plan_download(select(parse_links(server.links_text()), end=2), tmp_path / "new", md5={})

    assert [(f.name, f.action, f.size) for f in plan.files] == [
        (NAME, "fetch", len(TAR)),
        ("sa_000001.tar", "missing", None),
    ]
    assert not (tmp_path / "new").exists()


def test_the_table_of_md5s_is_there_and_says_where_it_is_from():
    table = read_md5_table()
    assert len(table) == 1000
    assert table["sa_000999.tar"] == "20a5cabb6bb63bcd1cb343e0e2c8ff05"


def test_a_table_that_cannot_be_read(tmp_path):
    (tmp_path / "md5").write_text("# fine\n\nnot an md5  sa_000000.tar\n")
    with pytest.raises(ValueError, match="line 3: expected an MD5, two spaces and a file name"):
        read_md5_table(tmp_path / "md5")


# In the builder.


def test_ensure_tars_downloads_only_what_is_lacking(server, tmp_path):
    server.files["sa_000001.tar"] = OTHER_TAR
    (tmp_path / NAME).write_bytes(b"as it is")
    (tmp_path / "segment_anything_links.txt").write_text(server.links_text())

    names = [NAME, "sa_000001.tar"]
    ensure_tars(None, tmp_path, names, md5={})

    assert [(tmp_path / name).read_bytes() for name in names] == [b"as it is", OTHER_TAR]
    assert {request.name for request in server.requests} == {"sa_000001.tar"}
    server.requests.clear()
    ensure_tars(None, tmp_path, names)
    assert server.requests == []


def test_ensure_tars_names_all_that_is_missing_in_one_error(server, tmp_path):
    with pytest.raises(MissingTarsError, match=f"{NAME}: not in .*, and no links file there") as e:
        ensure_tars(None, tmp_path, [NAME])
    assert "Save the links file from https" in str(e.value)
    assert f"sa1b download --links-file {tmp_path}/segment_anything_links.txt" in e.value.command

    (tmp_path / "sa1b_links.txt").write_text(server.links_text())
    assert server.requests == []

    server.expired_keys.add("1")
    with pytest.raises(MissingTarsError) as e:
        ensure_tars(None, tmp_path, [NAME, "sa_000001.tar"])
    assert e.value.reasons == {
        NAME: "HTTP 403 (URL signature expired)",
        "sa_000001.tar": "not in the links file",
    }
    assert e.value.command.endswith(f"--output-dir {tmp_path} --start 0 --end 2")
    assert no_secret_in(str(e.value))


# As a user: the command itself, in a process of its own.


def test_the_command_as_a_user_sees_it(server, tmp_path):
    command = write_inputs(server, tmp_path)
    process = sa1b(*command, command=in_an_interpreter)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.startswith(
        f"1 of 1 file whole (1 downloaded, 0 already there); {format_bytes(len(TAR))} "
    )
    assert (tmp_path / "out" / NAME).read_bytes() == TAR

    process = sa1b(*command, "--json", "--end", "2")
    out, err = process.communicate(timeout=120)
    events = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 1
    assert [event["event"] for event in events[:2]] == ["note", "plan"]
    assert events[-1]["event"] == "summary"
    assert events[-1]["present"] == 1
    assert events[-1]["failed"] == {"sa_000001.tar": "not in the links file"}


def test_expired_links_the_command_to_go_on_and_the_exit_code(server, tmp_path):
    server.expired_keys.add("1")
    secret = ("--header", "Authorization: Bearer fake-token", "--proxy", "http://u:pw@127.0.0.1:1")
    process = sa1b(*write_inputs(server, tmp_path), *secret[:2])
    out, err = process.communicate(timeout=120)

    assert process.returncode == 1
    assert f"1 of the links expired: {NAME}" in out
    assert f"as {tmp_path}/links.txt and run (finished and partial files are kept):" in out
    assert f"sa1b download --links-file {tmp_path}/links.txt --output-dir" in out
    assert "'Authorization: ...'" in out
    assert out.splitlines()[-1].startswith(
        "0 of 1 file whole (0 downloaded, 0 already there), 1 expi"
    )
    assert no_secret_in(out, err)
    assert "fake-token" not in out + err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--start", "3", "--end", "3"], 2, "The range start=3, end=3 holds no tar"),
        (["--workers", "65"], 2, "workers=65: must be between"),
        (["--max-rate", "fast"], 2, "'fast' is no number of bytes such as 200M"),
        (["--header", "secret"], 2, "expected 'Name: value'"),
        (["--links-file", "none.txt"], 1, "No links file at none.txt. Request one at"),
        (["--dry-run", "--end", "2"], 1, ""),
        (["--dry-run"], 0, ""),
    ],
)
def test_exit_codes(server, tmp_path, arguments, code, message):
    process = sa1b(*write_inputs(server, tmp_path), *arguments)
    _, err = process.communicate(timeout=120)

    assert process.returncode == code
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("sent", [HALF, 0, None], ids=["half", "headers only", "no answer"])
def test_ctrl_c_stops_within_two_seconds_and_loses_nothing(server, tmp_path, sent):
    if sent is None:
        fault = Fault(before=lambda: server.stopping.wait(60))
    else:
        fault = Fault(send=sent, stall=60)
    server.faults[NAME] = [fault]
    process = sa1b(*write_inputs(server, tmp_path), command=in_an_interpreter)
    part = tmp_path / "out" / f"{NAME}.part"
    wait_for(lambda: server.of(NAME))
    wait_for(lambda: not sent or (part.exists() and part.stat().st_size == sent))

    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)

    assert time.monotonic() - began < as_if_alone(2.0)
    assert process.returncode == 130
    assert out.startswith("0 of 1 file whole (0 downloaded, 0 already there), 1 not finished")
    assert "Interrupted. Run the same command again; it continues." in err
    assert "Traceback" not in err
    if sent:
        assert part.read_bytes() == TAR[:HALF]


def test_kill_9_at_twenty_moments_loses_nothing_and_fetches_nothing_twice(tmp_path):
    files = {f"sa_{n:06d}.tar": make_tar(n, image_bytes=2_000_000) for n in range(4)}
    moments = random.Random(20)
    out = tmp_path / "out"
    with FaultServer(files, bytes_per_second=1_000_000) as server:
        command = (*write_inputs(server, tmp_path), "--workers", "3")
        for kill in range(20):
            kept = {p.name.removesuffix(".part"): p.stat().st_size for p in out.glob("*.part")}
            whole = {p.name for p in out.glob("*.tar")}
            seen = len(server.requests)
            process = sa1b(*command)
            # From the first byte of this run on; some kills before it.
            if kill % 5:
                wait_for_or_end(lambda: server.requests[seen:], process)  # noqa: B023
            time.sleep(moments.uniform(0.0, 0.4))
            process.kill()
            process.communicate()  # until its pipes end, and so the program
            check_nothing_twice(server.requests[seen:], kept, whole)
        kept = {p.name.removesuffix(".part"): p.stat().st_size for p in out.glob("*.part")}
        whole = {p.name for p in out.glob("*.tar")}
        assert kept, "the kills came too late to mean anything"
        seen = len(server.requests)
        server.bytes_per_second = None
        process = sa1b(*command)
        _, err = process.communicate(timeout=120)
        check_nothing_twice(server.requests[seen:], kept, whole)

    assert process.returncode == 0, err
    assert {p.name: p.read_bytes() for p in out.glob("sa_*")} == files


@pytest.mark.parametrize(
    ("function", "call", "when"),
    [
        pytest.param("replace", 1, "before", id="before the state file has its name"),
        pytest.param("replace", 1, "after", id="after that, before the first byte"),
        pytest.param("replace", 2, "before", id="whole and checked, not renamed"),
        pytest.param("replace", 2, "after", id="renamed, the state file still there"),
        pytest.param("replace", 3, "before", id="before the record is written"),
        pytest.param("fsync", 3, "before", id="not synced"),
    ],
)
def test_kill_9_at_every_step_that_matters(server, tmp_path, function, call, when):
    code = f"""
import os, signal, sys
from sa1b_tfds.cli.main import main
real, calls = os.{function}, []
def die_at(*args):
    calls.append(args)
    if len(calls) == {call} and {when!r} == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
os.{function} = die_at
sys.exit(main(sys.argv[1:]))
"""
    command = forked.command("-c", code, *write_inputs(server, tmp_path))
    killed = subprocess.run(command, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    out = tmp_path / "out"
    kept = sum(p.stat().st_size for p in out.glob("sa_*") if p.suffix in (".part", ".tar"))
    asked_before = len(server.of(NAME))

    (result,) = fetch_all(server, out)

    assert result.is_whole
    assert (out / NAME).read_bytes() == TAR
    assert beside(out) - {".sa1b.json.tmp"} == set()
    assert sum(request.sent for request in server.of(NAME)[asked_before:]) == len(TAR) - kept


def test_downloading_loads_no_tensorflow(server, tmp_path):
    code = (
        "import sys; from sa1b_tfds.cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit('TensorFlow was loaded' if 'tensorflow' in sys.modules else code)"
    )
    command = [str(word) for word in write_inputs(server, tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
