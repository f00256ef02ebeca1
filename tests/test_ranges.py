"""What is fetched of an object store: records, shards and tars, on moto's server on loopback."""

from __future__ import annotations

import io
import json
import math
import pathlib
import re

import numpy as np
import PIL.Image
import pytest
from etils import epath

from dummy_data import make
from sa1b_tfds.core import files, ranges
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.examples import record_ends, record_files
from sa1b_tfds.examples.parts import ShardPart, find_parts
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.tars.index import index_archive
from tests import building, s3_server
from tests.s3_server import BUCKET

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'sa1b_tfds[s3]'")

IMAGES = 64
SHARD = "segment_anything-train.tfrecord-00000-of-00001"
DATA = epath.Path(f"s3://{BUCKET}/data")
TAR = epath.Path(f"s3://{BUCKET}/tars/sa_000000.tar")
PACKED = epath.Path(f"s3://{BUCKET}/packed/sa_000000.tar")

# Each way to read all images in other processes. They print the ids that they have seen.
_WORKERS = f"""
import json, sys
import sa1b_tfds.grain
from sa1b_tfds import TrainingConfig
from sa1b_tfds.torch import SA1BDataset
from torch.utils.data import DataLoader

def id_of(image, masks, metadata):
    return metadata["image_id"]

if __name__ == "__main__":
    how, seen = sys.argv[1], []
    if how == "grain":
        config = TrainingConfig(batch_size=8, image_size=32, mask_size=16, masks_per_image=1)
        batches = sa1b_tfds.grain.dataset("{DATA}", config, num_workers=2)
        seen = [int(i) for batch in batches for i in batch["image_id"]]
    else:
        images = SA1BDataset("{DATA}", id_of, masks=False)
        assert images[3] == images[3]  # before the workers are there
        loader = DataLoader(images, 8, num_workers=2, multiprocessing_context=how)
        seen = [int(i) for batch in loader for i in batch]
    print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a tar of 64 images of 0.7 MB in both forms, and the data that is made of it."""
    folder = tmp_path_factory.mktemp("ranges")
    jpeg = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), np.uint8)
    PIL.Image.fromarray(noise).save(jpeg, "JPEG", quality=92)
    _, content = make.draw(0, 700, 1000, 8)
    (folder / "tars").mkdir()
    tars = building.write_large_tars(folder / "tars", 1, IMAGES, (jpeg.getvalue(), content))
    building.prepare(tars, folder / "built")
    with s3_server.serving() as server:
        for path in (folder / "built" / building.FINAL).iterdir():
            server.upload(path, f"data/{path.name}")
            if path.name != record_ends.NAME:
                server.upload(path, f"earlier/{path.name}")
        server.upload(tars / TAR.name, "tars/sa_000000.tar")
        packed = building.pack((tars / TAR.name).read_bytes(), level=1)
        server.client.put_object(Bucket=BUCKET, Key="packed/sa_000000.tar", Body=packed)
        yield server


@pytest.fixture
def store(server, monkeypatch, tmp_path):
    """The server, as a new process of another machine meets it: nothing is known yet."""
    for name, value in server.environment.items():
        if name.startswith("AWS"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("EPATH_USE_TF", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(record_ends, "_known", {})
    s3fs.S3FileSystem.clear_instance_cache()
    server.gets.clear()
    server.requests.clear()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()


def shard_in(folder: str) -> ShardPart:
    return ShardPart(epath.Path(f"s3://{BUCKET}/{folder}/{SHARD}"), "tfrecord", range(IMAGES))


def size_of(store, key: str) -> int:
    return store.client.head_object(Bucket=BUCKET, Key=key)["ContentLength"]


def test_an_image_is_one_request_of_its_own_bytes(store):
    shard = shard_in("data")
    ids = [shard.example(i).image_id for i in (40, 7, 63, 0, 7)]
    assert len(set(ids)) == 4
    assert [get.key for get in store.gets] == [f"data/{record_ends.NAME}", *[f"data/{SHARD}"] * 5]
    assert len(store.requests) == 6
    images = sum(len(shard.example(i).image) for i in (40, 7, 63, 0, 7))
    assert sum(get.bytes for get in store.gets[:6]) < 1.1 * images
