"""`sa1b verify` and `sa1b build` from and to s3://, on moto's server on loopback."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests import building
from tests.s3_server import BUCKET, Server, serving

TARS, DATA = f"s3://{BUCKET}/tars", f"s3://{BUCKET}/data"

# Commands one after the other in one process, whose workers are threads: a start takes seconds.
_COMMANDS = """
import json, sys
from sa1b_tfds.cli.main import main
from tests.threads import Thread, workers_are
with workers_are(Thread):
    for command in json.loads(sys.argv[1]):
        try:
            print(main(command), flush=True)
        except SystemExit as e:
            print(e.code, flush=True)
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


def _start(server: Server, *commands: list[str]) -> subprocess.Popen:
    import json

    environment = {**server.environment, "EPATH_USE_TF": "false"}
    return subprocess.Popen(
        [sys.executable, "-c", _COMMANDS, json.dumps(commands)],
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
    commands = [
        ["verify", TARS],
        ["verify", f"{TARS}/sa_000001.tar", "--deep"],
        _build(DATA, "--plan"),
        _build(DATA),
        _build(DATA, "--plan"),
        _build(DATA),
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
        "2\n1\n",
        ran[0],
    )
