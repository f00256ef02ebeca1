"""`sa1b verify` and `sa1b build` from and to s3://, on moto's server on loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading

import pytest
from etils import epath

from sa1b_tfds.building.published import copy_shards
from sa1b_tfds.core.lock import FolderInUse
from tests import building
from tests.s3_server import BUCKET, KEY, SECRET, Server, serving

TARS, DATA = f"s3://{BUCKET}/tars", f"s3://{BUCKET}/data"

# Commands one after the other in one process. Its workers are processes, or threads of its own to
# save their start.
_COMMANDS = """
import json, sys
from sa1b_tfds.cli.main import main
from tests.threads import PROCESS, Thread, workers_are
with workers_are(PROCESS if sys.argv[2] == "processes" else Thread):
    for command in json.loads(sys.argv[1]):
        try:
            print(main(command), flush=True)
        except SystemExit as e:
            print(e.code, flush=True)
"""

# What another process writes after a folder was listed, as the workers of a build do.
_LOOKS = f"""
import boto3
from etils import epath
from sa1b_tfds.core import stores

folder = epath.Path("s3://{BUCKET}/looked-at")
stores.look_anew(folder)
for number in range(2):
    boto3.client("s3").put_object(Bucket="{BUCKET}", Key=f"looked-at/{{number}}", Body=b"")
    print([path.name for path in folder.iterdir()])
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Local tars and data, and the server, which has the same tars."""
    folder = tmp_path_factory.mktemp("store")
    tars = building.packed(building.write_tars(folder / "plain", tars=2), ("gzip", "plain"))
    building.prepare(tars, folder / "data")
    with serving() as server:
        for path in tars.iterdir():
            server.upload(path, f"tars/{path.name}")
        yield folder, server


def _start(server: Server, *commands: list[str], workers: str = "threads") -> subprocess.Popen:
    # One try, and those of s3fs, so that a server that is gone is known after seconds.
    environment = {**server.environment, "EPATH_USE_TF": "false", "AWS_MAX_ATTEMPTS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", _COMMANDS, json.dumps(commands), workers],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _build(data: str, *options: str) -> list[str]:
    return ["build", TARS, "--data-dir", data, *options]


def _requests(server: Server, method: str, key: str) -> int:
    return sum(f"{method} /{BUCKET}/{key} " in line for line in server.requests)


def _objects(server: Server, prefix: str) -> dict[str, bytes]:
    found = server.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    get = server.client.get_object
    return {
        each["Key"].removeprefix(prefix): get(Bucket=BUCKET, Key=each["Key"])["Body"].read()
        for each in found
    }


def _shards_of(server: Server, data: str) -> dict[str, bytes]:
    found = _objects(server, f"{data}/{building.FINAL}/")
    return {name: content for name, content in found.items() if "-train." in name}


def _local_shards(store) -> dict[str, bytes]:
    folder = store[0] / "data" / building.FINAL
    return {path.name: path.read_bytes() for path in folder.glob("*-train.*")}


@pytest.fixture(scope="module")
def ran(store):
    """The output of commands that work, and the requests of all."""
    server = store[1]
    server.requests.clear()
    local = store[0] / "plain-gzip-plain"
    commands = [
        ["verify", TARS],
        ["verify", f"{TARS}/sa_000001.tar", "--deep"],
        _build(DATA, "--plan"),
        _build(DATA),
        _build(DATA, "--plan"),
        _build(DATA),
        ["build", str(local), "--data-dir", f"s3://{BUCKET}/from-disk"],
        ["build", str(local / "sa_000000.tar"), "--data-dir", f"s3://{BUCKET}/one"],
        _build(f"s3://{BUCKET}/one"),
        _build(str(store[0] / "to-disk")),
        _build(DATA, "--add"),
        _build(f"s3://{BUCKET}/other", "--file-format", "array_record"),
    ]
    with _start(server, *commands) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err, list(server.requests)


def test_tars_are_verified_planned_and_built(ran):
    assert re.fullmatch(
        "sa_000000.tar: whole, 4 pairs\nsa_000001.tar: whole, 4 pairs\n2 of 2 tars whole\n0\n"
        "sa_000001.tar: whole, 4 pairs\n1 of 1 tar whole\n0\n"
        "sa_000000.tar: there, .*\nsa_000001.tar: there, .*\n2 of 2 tars to convert, .*\n0\n"
        "8 images of 2 tars in 2 shards, .*; 0 skipped\n0\n"
        ".*\n.*\nNothing to convert: 2 tars, all finished\n0\n"
        "8 images of 2 tars in 2 shards, .*; 0 skipped\n0\n"
        "8 images of 2 tars in 2 shards, .*; 0 skipped\n0\n"
        "4 images of 1 tar in 1 shard, .*; 0 skipped\n0\n1\n"
        "8 images of 2 tars in 2 shards, .*; 0 skipped\n0\n"
        "2\n1\n",
        ran[0],
    )


def test_build_from_s3_to_s3_is_that_of_local_tars(store, ran):
    assert _shards_of(store[1], "data") == _local_shards(store)
    assert not [name for name in _objects(store[1], "data/") if "staged." in name]


def test_what_cannot_be_in_a_store_is_refused(ran):
    extended, array_record = ran[1].splitlines()[-2:]
    assert "without 1 of the tars (sa_000001.tar). In an object store it cannot be" in ran[1]
    assert f"{DATA} is in an object store, where data cannot be extended" in extended
    assert "array_record is written by a library that knows local files only" in array_record


def test_requests_are_few_and_the_store_copies_by_itself(ran):
    commands, tars = 12, 2
    of_a_tar = [line for line in ran[2] if f"GET /{BUCKET}/tars/" in line]
    assert len(of_a_tar) <= 3 * commands * tars
    assert len(ran[2]) <= 50 * commands
    shards = [line for line in ran[2] if re.search(r"/data/.*(tar\.\d{5}|-of-\d{5}) ", line)]
    assert len([line for line in shards if "PUT" in line]) == 2 * tars  # staged, and copied
    assert not [line for line in shards if "GET" in line]


def test_a_second_build_leaves_the_data_of_the_first(tmp_path):
    folder, staged = epath.Path(tmp_path), epath.Path(tmp_path) / "staged"
    staged.write_text("new")
    old = folder / "x-train.tfrecord-00000-of-00002"
    old.write_text("old")
    copy_shards([staged], [folder / "x-train.tfrecord-00000-of-00001"])
    names = ["staged", "x-train.tfrecord-00000-of-00001"]
    assert sorted(path.name for path in folder.iterdir()) == names
    (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(FolderInUse, match="Another build has finished"):
        copy_shards([staged], [folder / "x-train.tfrecord-00000-of-00003"])
    assert sorted(path.name for path in folder.iterdir()) == ["dataset_info.json", *names]


def test_what_others_write_is_seen(store):
    done = store[1].run(_LOOKS, EPATH_USE_TF="false")
    assert done.stdout == "['0']\n['0', '1']\n", done.stderr


@pytest.fixture(scope="module")
def interrupted(store, ran):
    """The output of a build whose server stops, and the requests of what finishes all builds.

    Another build was killed. Both had finished the first tar, and its receipt was written last.
    """
    server = store[1]
    first_receipt = "staged.2.0.0/tar-sa_000000.tar.json"

    def on_receipt(data: str, do) -> None:
        def on_request(line: str) -> None:
            if f"PUT /{BUCKET}/{data}/" in line and first_receipt in line:
                do()

        server.on_request = on_request

    with _start(server, _build(f"s3://{BUCKET}/killed", "--workers", "1")) as process:
        on_receipt("killed", process.kill)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    on_receipt("stopped", threading.Thread(target=server.pause).start)
    build = _build(f"s3://{BUCKET}/stopped", "--workers", "1")
    commands = [build, build, ["verify", TARS]]
    with _start(server, *commands) as process:
        out, err = process.communicate()
    server.on_request = lambda line: None
    server.go_on()
    assert not _shards_of(server, "killed") | _shards_of(server, "stopped")
    server.requests.clear()
    builds = [_build(f"s3://{BUCKET}/{data}") for data in ("killed", "stopped")]
    with _start(server, *builds, workers="processes") as process:
        said = process.communicate()
    assert process.returncode == 0, said
    return out, err, list(server.requests)


def test_a_server_that_stops_is_named_with_the_tar(interrupted):
    out, err, _ = interrupted
    assert out == "1\n1\n1\n"
    assert "sa_000001.tar: failed: " in err
    first, second, verify = err.splitlines()[-3:]
    assert first == "sa1b build: 1 of 2 failed: sa_000001.tar"
    assert second.startswith(f"sa1b build: s3://{BUCKET}/stopped: Could not connect to the")
    assert verify.startswith(f"sa1b verify: {TARS}: Could not connect to the endpoint")


def test_interrupted_builds_are_finished_without_the_finished_tar(store, interrupted):
    reads = [line for line in interrupted[2] if f"GET /{BUCKET}/tars/sa_" in line]
    assert not [line for line in reads if "sa_000000.tar" in line]
    assert reads
    for data in ("killed", "stopped"):
        assert _shards_of(store[1], data) == _local_shards(store)


def test_builds_from_and_to_a_disk_are_the_same(store, ran):
    local = building.shards_of(store[0] / "data" / building.FINAL)
    assert building.shards_of(store[0] / "to-disk" / building.FINAL) == local
    assert _shards_of(store[1], "from-disk") == _local_shards(store)


def test_credentials_are_in_no_output(ran, interrupted):
    for text in (*ran[:2], *interrupted[:2]):
        assert KEY not in text
        assert SECRET not in text
