"""gs:// by TensorFlow's own file system, on an emulator of Cloud Storage on loopback."""

from __future__ import annotations

import collections
import os
import pathlib
import re
import signal
import subprocess
import sys
from unittest import mock

import pytest
import tensorflow_datasets as tfds
from etils import epath

import sa1b_tfds
from sa1b_tfds.cli.main import main
from tests import building
from tests.gs_server import BUCKET, TOKEN, serving
from tests.threads import Thread, workers_are

TARS = f"gs://{BUCKET}/tars"

# `sa1b build` twice, in a process of its own, for what fails: TensorFlow sends a file again when it
# is freed, and lets no thread of Python run meanwhile, such as the server. Its workers are threads,
# so that nothing is left of it when it is killed.
_BUILD_TWICE = """
import sys
from sa1b_tfds.cli.main import main
from tests.threads import Thread, workers_are
with workers_are(Thread):
    print(main(sys.argv[1:]), flush=True)
    main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Local tars and data, and the server, which has the same tars."""
    folder = tmp_path_factory.mktemp("store")
    tars = building.packed(building.write_tars(folder / "plain", tars=2), ("gzip", "plain"))
    building.prepare(tars, folder / "data")
    with (
        serving(tmp_path_factory.mktemp("server")) as server,
        mock.patch.dict(os.environ, server.environment),
        workers_are(Thread),
    ):
        for path in tars.iterdir():
            epath.Path(path).copy(f"{TARS}/{path.name}")
        yield folder, server


def _build(data: str) -> int:
    return main(["build", TARS, "--data-dir", f"gs://{BUCKET}/{data}", "--workers", "2"])


def _is_put_of(handler, name: str) -> bool:
    return handler.command == "PUT" and name.replace("/", "%2F") in handler.path


def _reads(server) -> collections.Counter:
    """How often each object's bytes were asked for."""
    paths = [path for _, path, _ in server.http.requests if path.startswith(f"/{BUCKET}/")]
    return collections.Counter(path.removeprefix(f"/{BUCKET}/") for path in paths)


def _shards_of(server, data: str) -> dict[str, bytes]:
    names = [name for name in server.names() if name.startswith(f"{data}/{building.FINAL}/")]
    return {pathlib.Path(name).name: server.read(name) for name in names if "-train." in name}


def _local_shards(store) -> dict[str, bytes]:
    folder = store[0] / "data" / building.FINAL
    return {path.name: path.read_bytes() for path in folder.glob("*-train.*")}


@pytest.fixture(scope="module")
def built(store):
    """Data on the server, and how often each object was read to make it."""
    store[1].http.requests.clear()
    assert _build("data") == 0
    return f"gs://{BUCKET}/data", _reads(store[1])


def test_build_from_gs_to_gs_is_that_of_local_tars(store, built):
    assert _shards_of(store[1], "data") == _local_shards(store)
    assert not [name for name in store[1].names() if "staged." in name]


def test_what_is_built_is_read_by_tensorflow(store, built):
    config = sa1b_tfds.TrainingConfig(batch_size=4, image_size=32, mask_size=16, shuffle=0)
    skip = tfds.decode.SkipDecoding()
    elements = {
        "load": tfds.load("segment_anything", data_dir=built[0], split="train"),
        "training": sa1b_tfds.training_dataset(f"{built[0]}/{building.FINAL}", config).unbatch(),
        "tars": sa1b_tfds.read_tars(TARS, decoders={"image": skip, "masks": skip}),
    }
    store[1].http.requests.clear()
    for name, dataset in elements.items():
        assert sorted(int(each["image_id"]) for each in dataset) == list(range(8)), name
    shards = {name: number for name, number in _reads(store[1]).items() if "-train." in name}
    assert len(shards) == 2
    assert max(shards.values()) <= 4, shards  # two readers, and each finds the end of the file


def test_tars_on_gs_are_verified_and_planned(store, built, capsys):
    for option in ("--workers=1", "--deep"):
        assert main(["verify", TARS, option]) == 0
        assert "2 of 2 tars whole" in capsys.readouterr().out
    assert main(["build", TARS, "--plan", "--data-dir", built[0]]) == 0
    assert "Nothing to convert: 2 tars, all finished" in capsys.readouterr().out
    assert main(["build", TARS, "--plan", "--data-dir", f"gs://{BUCKET}/new"]) == 0
    assert "2 of 2 tars to convert" in capsys.readouterr().out


@pytest.fixture(scope="module")
def killed(store):
    """The output of a build that is refused to write a shard, and of one that is then killed."""
    server = store[1]
    command = [sys.executable, "-c", _BUILD_TWICE, "build", TARS, "--data-dir"]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    refused = []

    def refuses(handler) -> bool:
        if _is_put_of(handler, "tar-sa_000001.tar.00000") and not refused:
            refused.append(handler.path)
            return True
        if is_last_but_one := _is_put_of(handler, f"killed/{building.FINAL}/features.json"):
            process.kill()
        return is_last_but_one

    server.http.refuses = refuses
    with subprocess.Popen(
        [*command, f"gs://{BUCKET}/killed"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        out, err = process.communicate()
    server.http.refuses = lambda handler: False
    assert process.returncode == -signal.SIGKILL
    return out, err


def test_a_tar_whose_shard_cannot_be_written_is_named(killed):
    out, err = killed
    assert out == "1\n"
    assert re.search("sa_000001.tar: failed: .*HTTP response code 403", err), err
    assert "sa1b build: 1 of 2 failed: sa_000001.tar" in err.splitlines()


def test_build_that_is_killed_while_it_publishes_is_resumed(store, killed):
    server = store[1]
    assert _shards_of(server, "killed") == _local_shards(store)  # and yet it is no data
    assert not tfds.builder("segment_anything", data_dir=f"gs://{BUCKET}/killed").info.splits
    server.http.requests.clear()
    assert _build("killed") == 0
    assert not [name for name in _reads(server) if name.startswith("tars/")]
    assert _shards_of(server, "killed") == _local_shards(store)


def test_credentials_are_sent_and_in_no_output(store, built, killed):
    assert store[1].http.tokens == {f"Bearer {TOKEN}"}
    for secret in (TOKEN, "PRIVATE KEY"):
        assert secret not in "".join(killed)
