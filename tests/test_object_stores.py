"""Tars and prepared data on s3://, on moto's server on loopback."""

from __future__ import annotations

import collections
import json
import logging
import os
import pathlib
import re
import subprocess
import sys

import pytest

from sa1b_tfds.cli.main import main
from tests import building

moto_server = pytest.importorskip("moto.server", reason="moto is not installed")
boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'sa1b_tfds[s3]'")

KEY, SECRET = "a-key-of-the-test", "a-secret-of-the-test"
BUCKET = "sa1b-bucket"

# What works, in one process without TensorFlow's file systems.
_WORKS = f"""
import json, sys
import sa1b_tfds, tensorflow_datasets as tfds
from sa1b_tfds.cli.main import main
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from sa1b_tfds.torch import SA1BDataset

skip = tfds.decode.SkipDecoding()
elements = sa1b_tfds.read_tars("s3://{BUCKET}/tars", decoders={{"image": skip, "masks": skip}})
ids = sorted(int(element["image_id"]) for element in elements)
builder = Builder(data_dir=sys.argv[1], num_workers=1)
manual = tfds.download.DownloadConfig(manual_dir="s3://{BUCKET}/tars")
builder.download_and_prepare(download_config=manual)
data = "s3://{BUCKET}/data/original"
dataset = SA1BDataset(data, mask_size=16)
config = sa1b_tfds.TrainingConfig(batch_size=4, image_size=32, mask_size=16, shuffle=0)
batch = next(iter(sa1b_tfds.grain.dataset(data, config)))
print(json.dumps({{
    "tars": ids,
    "torch": [metadata["image_id"] for _, _, metadata in dataset],
    "grain": batch["image_id"].tolist(),
}}))
sys.exit(main(["stats", "s3://{BUCKET}/tars"]))
"""
_FAILS = f"""
import sa1b_tfds
config = sa1b_tfds.TrainingConfig(batch_size=1)
next(iter(sa1b_tfds.training_dataset("s3://{BUCKET}/data/original", config)))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Local tars and data, the same on the server, the environment to reach it, and requests."""
    folder = tmp_path_factory.mktemp("store")
    tars = building.packed(building.write_tars(folder / "plain", tars=2))
    building.prepare(tars, folder / "data")
    requests: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: requests.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("werkzeug")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address,
        "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
    }
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    client.create_bucket(Bucket=BUCKET)
    for path in tars.iterdir():
        client.upload_file(str(path), BUCKET, f"tars/{path.name}")
    for path in (folder / "data" / building.FINAL).iterdir():
        client.upload_file(str(path), BUCKET, f"data/original/{path.name}")
    yield folder, environment, requests, client
    server.stop()
    logger.removeHandler(handler)


def _run(store, code, *arguments, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env={**store[1], **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def worked(store, tmp_path_factory):
    """The output of everything that works, where it has built, and how often each key was read."""
    built = tmp_path_factory.mktemp("built")
    store[2].clear()
    done = _run(store, _WORKS, built, EPATH_USE_TF="false")
    assert done.returncode == 0, done.stderr
    reads = re.findall(rf"GET /{BUCKET}/([^? ]+) ", "\n".join(store[2]))
    return done, built, collections.Counter(reads)


def test_readers_give_what_is_in_the_store(worked):
    found = json.loads(worked[0].stdout.splitlines()[0])
    assert found["tars"] == sorted(found["torch"]) == list(range(8))
    assert found["grain"] == found["torch"][:4]
    assert "8 images, " in worked[0].stdout


def test_a_build_from_the_store_is_that_of_local_tars(store, worked):
    local = building.shards_of(store[0] / "data" / building.FINAL)
    assert building.shards_of(worked[1] / building.FINAL) == local


def test_shards_are_read_in_few_requests(worked):
    shards = {key: number for key, number in worked[2].items() if ".tfrecord" in key}
    assert len(shards) == 2
    # Two readers, of which each looks at the places of the records and then reads the file.
    assert max(shards.values()) <= 12, shards


@pytest.mark.parametrize("use_tf", ["false", "true"])
def test_what_tensorflow_reads_itself_names_the_ways_that_work(store, use_tf):
    done = _run(store, _FAILS, EPATH_USE_TF=use_tf)
    assert done.returncode == 1
    assert "TensorFlow has no file system for s3://" in done.stderr.splitlines()[-1]
    assert "sa1b_tfds.grain" in done.stderr.splitlines()[-1]


def test_commands_name_the_way_that_works(monkeypatch, capsys):
    monkeypatch.delenv("EPATH_USE_TF", raising=False)
    for command in ("stats", "show"):
        assert main([command, f"s3://{BUCKET}/tars"]) == 1
        assert "set EPATH_USE_TF=false before Python starts" in capsys.readouterr().err


def test_a_copy_without_its_last_file_is_no_data(store):
    code = f"""
from sa1b_tfds.torch import SA1BDataset
SA1BDataset("s3://{BUCKET}/cut")
"""
    folder = store[0] / "data" / building.FINAL
    for path in folder.iterdir():
        if path.name != "dataset_info.json":
            store[3].upload_file(str(path), BUCKET, f"cut/{path.name}")
    done = _run(store, code, EPATH_USE_TF="false")
    assert "nor prepared data (dataset_info.json)" in done.stderr.splitlines()[-1]


def test_credentials_are_in_no_output(store, worked):
    failed = _run(store, _FAILS)
    for text in (worked[0].stdout, worked[0].stderr, failed.stdout, failed.stderr):
        assert KEY not in text
        assert SECRET not in text
