"""Tars and prepared data on s3://, on moto's server on loopback."""

from __future__ import annotations

import json

import pytest

import sa1b_tfds
from sa1b_tfds.cli.main import main
from tests import building
from tests.s3_server import BUCKET, KEY, SECRET, serving

# What works, in one process without TensorFlow's file systems.
_WORKS = f"""
import json, sys
import sa1b_tfds, tensorflow_datasets as tfds
from torch.utils.data import DataLoader
from sa1b_tfds.cli.main import main
from sa1b_tfds.core.processes import Processes
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from sa1b_tfds.torch import SA1BDataset

data = "s3://{BUCKET}/data/original"
try:
    SA1BDataset("s3://{BUCKET}/cut")
except FileNotFoundError as error:
    refused = str(error)
dataset = SA1BDataset(data, mask_size=16)

def ids_of(items):
    return [metadata["image_id"] for _, _, metadata in items]

found = {{"torch": ids_of(dataset)}}
# Workers that are forked of a process which has read, and one that gets the dataset pickled.
loader = DataLoader(dataset, 1, num_workers=2, collate_fn=ids_of, multiprocessing_context="fork")
found["forked"] = [image_id for batch in loader for image_id in batch]
with Processes(1) as processes:
    found["spawned"] = [processes.submit(dataset.example, i).result().image_id for i in range(8)]
config = sa1b_tfds.TrainingConfig(batch_size=4, image_size=32, mask_size=16, shuffle=0)
for workers in (0, 1):
    batches = sa1b_tfds.grain.dataset(data, config, num_workers=workers)
    found[f"grain {{workers}}"] = [i for batch in batches for i in batch["image_id"].tolist()]

skip = tfds.decode.SkipDecoding()
elements = sa1b_tfds.read_tars("s3://{BUCKET}/tars", decoders={{"image": skip, "masks": skip}})
found["tars"] = sorted(int(element["image_id"]) for element in elements)
builder = Builder(data_dir=sys.argv[1], num_workers=1)
manual = tfds.download.DownloadConfig(manual_dir="s3://{BUCKET}/tars")
builder.download_and_prepare(download_config=manual)
print(json.dumps([found, refused]))
sys.exit(main(["stats", "s3://{BUCKET}/tars"]))
"""
_FAILS = f"""
import sa1b_tfds
config = sa1b_tfds.TrainingConfig(batch_size=1)
next(iter(sa1b_tfds.training_dataset("s3://{BUCKET}/data/original", config)))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Local tars and data, and the server, which has the same, and a copy that was cut off."""
    folder = tmp_path_factory.mktemp("store")
    tars = building.packed(building.write_tars(folder / "plain", tars=2))
    building.prepare(tars, folder / "data")
    with serving() as server:
        for path in tars.iterdir():
            server.upload(path, f"tars/{path.name}")
        for path in (folder / "data" / building.FINAL).iterdir():
            server.upload(path, f"data/original/{path.name}")
            if path.name != "dataset_info.json":
                server.upload(path, f"cut/{path.name}")
        yield folder, server


@pytest.fixture(scope="module")
def worked(store, tmp_path_factory):
    """The output of everything that works, and where it has built."""
    built = tmp_path_factory.mktemp("built")
    done = store[1].run(_WORKS, built, EPATH_USE_TF="false")
    assert done.returncode == 0, done.stderr
    return done, built


@pytest.fixture(scope="module")
def failed(store):
    return store[1].run(_FAILS, EPATH_USE_TF="false")


def test_readers_give_what_is_in_the_store(worked):
    found, _ = json.loads(worked[0].stdout.splitlines()[0])
    assert sorted(found["torch"]) == found.pop("tars") == list(range(8))
    for how, ids in found.items():
        assert ids == found["torch"], how
    assert "8 images, " in worked[0].stdout


def test_a_build_from_the_store_is_that_of_local_tars(store, worked):
    local = building.shards_of(store[0] / "data" / building.FINAL)
    assert building.shards_of(worked[1] / building.FINAL) == local


def test_what_tensorflow_reads_itself_names_the_ways_that_work(failed, monkeypatch):
    assert failed.returncode == 1
    monkeypatch.delenv("EPATH_USE_TF", raising=False)
    with pytest.raises(ValueError, match="TensorFlow has no file system for s3://") as error:
        sa1b_tfds.training_dataset(f"s3://{BUCKET}/data/original", sa1b_tfds.TrainingConfig())
    for message in (failed.stderr.splitlines()[-1], str(error.value)):
        assert "TensorFlow has no file system for s3://" in message
        assert "sa1b_tfds.grain" in message


def test_commands_name_the_way_that_works(monkeypatch, capsys):
    monkeypatch.delenv("EPATH_USE_TF", raising=False)
    for command in ("stats", "show"):
        assert main([command, f"s3://{BUCKET}/tars"]) == 1
        assert "set EPATH_USE_TF=false before Python starts" in capsys.readouterr().err


def test_a_copy_without_its_last_file_is_no_data(worked):
    _, refused = json.loads(worked[0].stdout.splitlines()[0])
    assert "nor prepared data (dataset_info.json)" in refused


def test_credentials_are_in_no_output(worked, failed):
    for text in (worked[0].stdout, worked[0].stderr, failed.stdout, failed.stderr):
        assert KEY not in text
        assert SECRET not in text
