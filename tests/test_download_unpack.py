"""`download --unpack`: plain tars of what is served, whole or not at all."""

import contextlib
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from sa1b_tfds.cli.main import main
from sa1b_tfds.core.text import format_bytes
from sa1b_tfds.download.download import download, plan_download
from sa1b_tfds.download.links import parse_links, select
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.plan import DownloadPlan, PlannedFile, SelectionTooLarge
from sa1b_tfds.download.transfer.settings import TransferConfig
from tests import forked
from tests.downloading import (
    HALF,
    NAME,
    PLAIN,
    TAR,
    as_if_alone,
    beside,
    check_nothing_twice,
    fetch_all,
    forms_of_slow,
    in_an_interpreter,
    md5_of,
    sa1b,
    slow_files,
    wait_for,
    wait_for_or_end,
    write_inputs,
)
from tests.fault_server import (
    DAMAGED,
    EXPIRED_BODY,
    Fault,
    FaultServer,
    form_of_slow,
    make_tar,
    slow_tar,
)

WRONG = {NAME: "0" * 32}


@pytest.fixture
def server():
    with FaultServer({NAME: TAR}) as running:
        yield running


@pytest.mark.parametrize(
    ("served", "settings", "checked_by", "md5"),
    [
        pytest.param(TAR, {}, "md5", md5_of(TAR), id="the MD5 is right"),
        pytest.param(TAR, {"md5": {}}, "size", None, id="no MD5 is known"),
        pytest.param(TAR, {"md5": WRONG, "verify": "size"}, "size", None, id="size"),
        pytest.param(TAR, {"md5": WRONG, "verify": "none"}, "size", None, id="none"),
        pytest.param(PLAIN, {}, "md5", md5_of(PLAIN), id="plain, the MD5 is right"),
        pytest.param(PLAIN, {"md5": {}}, "size", None, id="plain, no MD5 is known"),
        pytest.param(PLAIN, {"md5": WRONG, "verify": "none"}, "none", None, id="plain, none"),
    ],
)
def test_a_plain_tar_comes_of_what_is_served(
    server, tmp_path, monkeypatch, served, settings, checked_by, md5
):
    server.files[NAME] = served
    (result,) = fetch_all(server, tmp_path, unpack=True, **settings)
    assert (result.status, result.checked_by, result.fetched) == ("done", checked_by, len(served))
    assert (tmp_path / NAME).read_bytes() == PLAIN
    assert beside(tmp_path) == set()
    assert CheckedFiles(tmp_path).md5(NAME) == md5

    asked = len(server.requests)
    for name in ("hash_file", "check_file", "unpack_file"):
        monkeypatch.setattr(f"sa1b_tfds.download.transfer.jobs.{name}", pytest.fail)
    (result,) = fetch_all(server, tmp_path, unpack=True, **settings)
    assert (result.status, result.checked_by) == ("present", checked_by)
    assert len(server.requests) == asked


@pytest.mark.parametrize("served", [TAR, PLAIN], ids=["gzip", "plain"])
def test_with_a_wrong_md5_nothing_is_unpacked(server, tmp_path, served):
    server.files[NAME] = served
    (result,) = fetch_all(server, tmp_path, unpack=True, md5=WRONG)
    assert result.status == "failed"
    assert f"the MD5 is {md5_of(served)}, the table says 0000" in result.reason
    assert beside(tmp_path) == {f"{NAME}.part", f"{NAME}.part.json"}
    assert not (tmp_path / NAME).exists()
    assert (tmp_path / f"{NAME}.part").read_bytes() == served

    (result,) = fetch_all(server, tmp_path, unpack=True, verify="size")
    assert (result.status, result.fetched) == ("done", 0)
    assert (tmp_path / NAME).read_bytes() == PLAIN
    assert beside(tmp_path) == set()


@pytest.mark.parametrize("is_md5_known", [False, True])
def test_what_is_served_damaged_is_named_and_not_unpacked(tmp_path, is_md5_known):
    """Also if its MD5 is right: then it was damaged before."""
    names = {what: f"sa_{number:06d}.tar" for number, what in enumerate(DAMAGED)}
    with FaultServer({name: DAMAGED[what][0] for what, name in names.items()}) as server:
        settings = {} if is_md5_known else {"md5": {}}
        results = fetch_all(server, tmp_path, unpack=True, retries=1, **settings)
    for (data, message), result in zip(DAMAGED.values(), results, strict=True):
        assert result.status == "failed"
        assert re.search(message, result.reason), result.reason
        assert (tmp_path / f"{result.name}.part").read_bytes() == data
    assert not list(tmp_path.glob("*.tar"))
    assert not list(tmp_path.glob("*.unpacked*"))


def test_only_tars_of_sa1b_are_unpacked(server, tmp_path):
    server.files.update({"sa_images_ids.txt": gzip.compress(b"1\n"), "sa_co_gold.tar": TAR})
    links = parse_links(server.links_text())
    names = ["sa_images_ids.txt", "sa_co_gold.tar", NAME]
    results = download(select(links, names=names), tmp_path, md5={}, unpack=True)
    assert {result.status for result in results} == {"done"}
    found = {name: (tmp_path / name).read_bytes() for name in names}
    assert found == {**server.files, NAME: PLAIN}


FAULTS = {
    "drop": [Fault(send=HALF)],
    "drops": [Fault(send=1000), Fault(status=503), Fault(send=-1)],
    "no Range": [Fault(send=HALF), Fault(ignore_range=True)],
    "chunked, drop": [Fault(chunked=True, send=HALF)],
    "another ETag": [Fault(send=HALF), Fault(add={"ETag": '"another"'})],
    "truncated, with a Content-Length that says so": [Fault(truncate_to=HALF)],
    "wrong bytes": [Fault(corrupt=True)],
}


@pytest.mark.parametrize("settings", [{}, {"md5": {}}], ids=["md5", "no MD5 known"])
@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_that_passes_leaves_the_right_plain_tar(server, tmp_path, faults, settings):
    server.faults[NAME] = list(faults)
    (result,) = fetch_all(server, tmp_path, unpack=True, **settings)
    assert result.status == "done", result.reason
    assert (tmp_path / NAME).read_bytes() == PLAIN
    assert beside(tmp_path) == set()


@pytest.mark.parametrize(
    ("there", "settings", "status", "checked_by", "message"),
    [
        pytest.param(TAR, {}, "present", "md5", None, id="gzip, the MD5 is right"),
        pytest.param(TAR, {"md5": {}}, "present", "size", None, id="gzip, no MD5 known"),
        pytest.param(TAR, {"md5": WRONG}, "failed", None, "the MD5 is", id="gzip, a wrong MD5"),
        pytest.param(TAR[:HALF], {"md5": {}}, "failed", None, "it ends at byte", id="gzip, cut"),
        pytest.param(TAR[:HALF], {}, "failed", None, "the MD5 is", id="gzip, cut, MD5 known"),
        pytest.param(
            PLAIN, {"md5": {NAME: md5_of(PLAIN)}}, "present", "md5", None, id="plain, MD5 right"
        ),
        pytest.param(PLAIN, {"md5": {}}, "present", "size", None, id="plain, no MD5 known"),
        pytest.param(PLAIN, {"md5": None}, "present", "size", None, id="plain, the package's MD5s"),
        pytest.param(PLAIN[:1024], {"md5": {}}, "failed", None, "torn", id="plain, cut"),
    ],
)
def test_a_tar_that_was_there_before(
    server, tmp_path, there, settings, status, checked_by, message
):
    (tmp_path / NAME).write_bytes(there)
    (result,) = fetch_all(server, tmp_path, unpack=True, **settings)
    assert (result.status, result.checked_by) == (status, checked_by), result.reason
    if message:
        assert "was there before this download and is wrong: " in result.reason
        assert message in result.reason
    assert (tmp_path / NAME).read_bytes() == (there if message else PLAIN)
    assert beside(tmp_path) == set()
    assert server.requests == []


def test_a_tar_that_we_downloaded_before_is_not_hashed_again(server, tmp_path, monkeypatch):
    fetch_all(server, tmp_path)
    monkeypatch.setattr("sa1b_tfds.download.transfer.jobs.hash_file", pytest.fail)
    (result,) = fetch_all(server, tmp_path, unpack=True)
    assert (result.status, result.checked_by, result.fetched) == ("present", "md5", 0)
    assert (tmp_path / NAME).read_bytes() == PLAIN
    assert CheckedFiles(tmp_path).md5(NAME) == md5_of(TAR)


def test_without_unpack_a_plain_tar_of_ours_stays(server, tmp_path):
    fetch_all(server, tmp_path, unpack=True)
    asked = len(server.requests)
    (result,) = fetch_all(server, tmp_path)
    assert (result.status, result.checked_by) == ("present", "md5")
    assert (tmp_path / NAME).read_bytes() == PLAIN
    assert len(server.requests) == asked


def check_slow(folder, number=3):
    """All are there and plain, and nothing else is."""
    assert forms_of_slow(folder) == "p" * number
    assert beside(folder) == slow_files(number).keys() - {NAME}


@pytest.mark.parametrize("md5", ["known", "unknown"])
def test_kill_9_at_random_moments_loses_nothing(tmp_path, md5):
    out, moments, met = tmp_path / "out", random.Random(len(md5)), set()
    files = slow_files()
    size = len(files[NAME])

    def asked():
        return server.requests[seen:]

    def fetching():
        with contextlib.suppress(FileNotFoundError):  # that is another name now
            return any(0 < path.stat().st_size < size for path in out.glob("*.tar.part"))

    def unpacking():
        return list(out.glob("*.unpacked.part"))

    with FaultServer(files, bytes_per_second=4 * size) as server:
        command = [*write_inputs(server, tmp_path), "--unpack", "--workers", "2"]
        if md5 == "unknown":
            (tmp_path / "md5.txt").write_text("")
        for kill in range(20):
            if kill >= 4 and met == {"fetching", "unpacking"}:
                break
            kept = {p.name.removesuffix(".part"): p.stat().st_size for p in out.glob("*.tar.part")}
            whole = {path.name for path in out.glob("*.tar")}
            seen = len(server.requests)
            process = sa1b(*command, command=in_an_interpreter)
            if kill < 8:
                wait_for_or_end(unpacking if kill % 2 else asked, process)
                time.sleep(moments.uniform(0, 0.1))
            else:  # on a machine that is busy, those met nothing: now at sight
                wait_for_or_end(unpacking if kill % 2 else fetching, process)
            process.kill()
            process.communicate()
            parts = {path.name: path.stat().st_size for path in out.glob("*.tar.part")}
            met |= {"fetching" for length in parts.values() if 0 < length < size}
            met |= {"unpacking" for _ in out.glob("*.unpacked.part")}
            check_nothing_twice(server.requests[seen:], kept, whole)
            if len(list(out.glob("*.tar"))) == len(files):
                shutil.rmtree(out)
        server.bytes_per_second = None
        process = sa1b(*command, command=in_an_interpreter)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    check_slow(out)
    assert met == {"fetching", "unpacking"}


@pytest.mark.parametrize(
    ("function", "call", "when"),
    [
        pytest.param("replace", 2, "before", id="unpacked, not recorded"),
        pytest.param("replace", 2, "after", id="recorded, not renamed"),
        pytest.param("replace", 3, "before", id="just before it is renamed"),
        pytest.param("replace", 3, "after", id="renamed, the compressed one still there"),
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
    command = forked.command("-c", code, *write_inputs(server, tmp_path), "--unpack")
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    out = tmp_path / "out"
    assert not (out / NAME).exists() or (out / NAME).read_bytes() == PLAIN
    assert (out / NAME).exists() == (when == "after" and call == 3)
    assert (out / f"{NAME}.part").read_bytes() == TAR

    (result,) = fetch_all(server, out, unpack=True)

    assert (result.is_whole, result.fetched, result.checked_by) == (True, 0, "md5")
    assert (out / NAME).read_bytes() == PLAIN
    assert beside(out) - {".sa1b.json.tmp"} == set()
    assert CheckedFiles(out).md5(NAME) == md5_of(TAR)


def test_ctrl_c_while_a_tar_is_unpacked(tmp_path):
    out = tmp_path / "out"
    with FaultServer(slow_files(1)) as server:
        command = [*write_inputs(server, tmp_path), "--unpack"]
        process = sa1b(*command, command=in_an_interpreter)
        wait_for(lambda: list(out.glob("*.unpacked.part")))
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        printed, err = process.communicate(timeout=120)
        assert time.monotonic() - began < as_if_alone(2)
        assert process.returncode == 130
        assert "Interrupted. Run the same command again; it continues." in err
        assert "0 of 1 file whole" in printed
        assert beside(out) == {f"{NAME}.part", f"{NAME}.part.json"}

        (result,) = fetch_all(server, out, unpack=True)
    assert (result.status, result.fetched) == ("done", 0)
    check_slow(out, 1)


def test_a_full_disk_keeps_the_compressed_tar(small_disk):
    disk = small_disk(2**23)
    with FaultServer(slow_files(2)) as server:
        first = fetch_all(server, disk, unpack=True, workers=1)
        assert {result.status for result in first} == {"failed"}
        assert re.search(
            rf"No space left on device while writing {disk}/{NAME}.unpacked.part; its bytes so",
            first[0].reason,
        )
        assert not list(disk.glob("*.unpacked.part"))
        assert (disk / f"{NAME}.part").read_bytes() == slow_tar(0)

        subprocess.run(["mount", "-o", "remount,size=128m", str(disk)], check=True)
        second = fetch_all(server, disk, unpack=True, workers=1)
    assert [result.status for result in second] == ["done", "done"]
    assert second[0].fetched == 0
    check_slow(disk, 2)


def test_a_full_disk_keeps_the_tar_that_was_there(small_disk):
    disk = small_disk(2**23)
    (disk / NAME).write_bytes(slow_tar(0))
    with FaultServer(slow_files(1)) as server:
        (result,) = fetch_all(server, disk, unpack=True)
    assert result.status == "failed"
    assert f"No space left on device while writing {disk}/{NAME}.unpacked.part" in result.reason
    assert form_of_slow(0, disk / NAME) == "g"
    assert beside(disk) == set()


# How much disk it takes.


@pytest.mark.parametrize(
    ("files", "workers", "to_fetch", "needed"),
    [
        ([{"unpacked": 0}] * 3, 2, 300, 300),
        ([{}], 2, 100, 206),
        ([{}] * 3, 1, 300, 300 + 18 + 100),
        ([{}] * 3, 2, 300, 300 + 18 + 200),
        ([{}] * 3, 9, 300, 300 + 18 + 300),
        ([{}, {"size": 500}, {"unpacked": 0, "size": 900}], 1, 1500, 1500 + 12 + 500),
        ([{"action": "continue", "on_disk": 40}], 1, 60, 60 + 6 + 100),
        ([{"action": "unpack", "on_disk": 100}] * 2, 1, 0, 12 + 100),
        ([{"action": "present", "on_disk": 100, "unpacked": 0}], 1, 0, 0),
        ([{"size": None, "unpacked": 0}], 1, 0, 0),
    ],
)
def test_a_plan_counts_a_tar_twice_for_each_worker(files, workers, to_fetch, needed):
    usual = {"action": "fetch", "size": 100, "unpacked": 6}
    planned = [PlannedFile(name=f"sa_{n}.tar", **{**usual, **f}) for n, f in enumerate(files)]
    plan = DownloadPlan(files=tuple(planned), free=needed, workers=workers)
    assert (plan.to_fetch, plan.needed) == (to_fetch, needed)
    assert len(plan.fits) == len(files)
    short = DownloadPlan(files=plan.files, free=needed - 1, workers=workers)
    assert len(short.fits) < len(files) or not needed


def test_what_does_not_fit_unpacked_is_refused(tmp_path, monkeypatch):
    tars = {f"sa_{n:06d}.tar": make_tar(n) for n in range(4)}
    sizes = [len(tar) for tar in tars.values()]
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: int(sum(sizes) * 1.1))
    with FaultServer(tars) as server:
        with pytest.raises(SelectionTooLarge, match="is the first 3 of 4 files: --start 0 --end"):
            fetch_all(server, tmp_path, unpack=True, workers=1)
        assert {path.name for path in tmp_path.iterdir()} == {".sa1b.lock"}
        assert all(result.is_whole for result in fetch_all(server, tmp_path, workers=1))


def test_the_plan_says_what_unpacking_takes(server, tmp_path, monkeypatch):
    selection = select(parse_links(server.links_text()))
    config = TransferConfig(unpack=True)
    more = int(len(TAR) * 1.06) - len(TAR)
    (file,) = plan_download(selection, tmp_path, config=config, md5={}).files
    assert (file.action, file.size, file.unpacked) == ("fetch", len(TAR), more)
    (tmp_path / NAME).write_bytes(TAR)
    (file,) = plan_download(selection, tmp_path, config=config, md5={}).files
    assert (file.action, file.to_fetch, file.unpacked) == ("unpack", 0, more)
    (tmp_path / NAME).write_bytes(PLAIN)
    (file,) = plan_download(selection, tmp_path, config=config, md5={}).files
    assert (file.action, file.to_fetch, file.unpacked) == ("check", 0, 0)


@pytest.mark.parametrize("free", [10**9, 300_000])
def test_dry_run_says_it_and_writes_nothing(server, tmp_path, capsys, monkeypatch, free):
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: free)
    command = [*map(str, write_inputs(server, tmp_path)), "--unpack", "--dry-run"]
    assert main(command) == (0 if free == 10**9 else 1)
    needed = int(len(TAR) * 1.06) + len(TAR)
    assert capsys.readouterr().out.splitlines() == [
        f"{NAME}: fetch, {format_bytes(len(TAR))}",
        f"1 file, {format_bytes(len(TAR))} to fetch, {format_bytes(needed)} needed to unpack them,"
        f" {format_bytes(free)} free" + ("" if free == 10**9 else "; only the first 0 of them fit"),
    ]
    main([*command, "--json"])
    plan = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (plan["needed"], plan["to_fetch"], plan["free"]) == (needed, len(TAR), free)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_than_a_tar_a_worker_is_there_twice(tmp_path, workers):
    number = 4
    most, twice, ended = 0, 0, threading.Event()

    def watch():
        nonlocal most, twice
        while not ended.is_set():
            sizes = {}
            for path in list(os.scandir(tmp_path)):
                with contextlib.suppress(FileNotFoundError):
                    sizes[path.name] = path.stat().st_size
            most = max(most, sum(sizes.values()))
            drafts = [name for name in sizes if name.endswith(".unpacked.part")]
            twice = max(twice, len(drafts))
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with FaultServer(slow_files(number)) as server:
        fetch_all(server, tmp_path, unpack=True, workers=workers)
    ended.set()
    watcher.join()
    check_slow(tmp_path, number)
    final = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 1 <= twice <= workers
    assert most <= final + workers * len(slow_tar(0)) + 10_000  # the record and the state files


def test_a_disk_as_large_as_the_plan_says_is_enough(small_disk):
    files = {f"sa_{n:06d}.tar": make_tar(n, image_bytes=300_000) for n in range(4)}
    with FaultServer(files) as server:
        selection = select(parse_links(server.links_text()))
        config = TransferConfig(unpack=True, workers=2)
        plan = plan_download(selection, small_disk(2**25), config=config, md5={})
        disk = small_disk(plan.needed + 8 * 4096)
        results = fetch_all(server, disk, unpack=True, workers=2)
    assert {result.status for result in results} == {"done"}, results
    for name, data in files.items():
        assert (disk / name).read_bytes() == gzip.decompress(data)


# The command.


def test_the_command_goes_on_with_unpack(server, tmp_path):
    server.faults[NAME] = [Fault(send=HALF), Fault(status=403, body=EXPIRED_BODY)]
    command = (*write_inputs(server, tmp_path), "--unpack")
    out, _ = sa1b(*command).communicate(timeout=120)
    again = next(line for line in out.splitlines() if line.startswith("  sa1b download "))
    assert again.endswith(" --unpack")

    process = sa1b(*again.split()[1:])
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"{NAME}: done, checked by md5" in err
    assert out.startswith("1 of 1 file whole (1 downloaded, 0 already there); ")
    assert (tmp_path / "out" / NAME).read_bytes() == PLAIN
    assert sum(request.sent for request in server.of(NAME)) == len(TAR)


def test_the_summary_knows_a_tar_that_was_there(server, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).write_bytes(TAR)
    out, err = sa1b(*write_inputs(server, tmp_path), "--unpack").communicate(timeout=120)
    assert out.startswith("1 of 1 file whole (0 downloaded, 1 already there); 0 bytes fetched in ")
    assert f"{NAME}: was already there, and is unpacked now" in err


def test_json_lines_have_the_phase(tmp_path):
    with FaultServer(slow_files(1)) as server:
        command = (*write_inputs(server, tmp_path), "--unpack", "--json")
        out, err = sa1b(*command).communicate(timeout=120)
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["done"] == 1, err
    running = [file for e in events if e["event"] == "progress" for file in e["running"]]
    assert {file["phase"] for file in running} <= {"fetching", "checking", "unpacking"}
    assert all(file["inflated"] <= len(slow_tar(0)) for file in running)
