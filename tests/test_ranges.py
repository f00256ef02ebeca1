"""What is fetched of an object store: records, shards and tars, on moto's server on loopback."""

from __future__ import annotations

import io
import math

import numpy as np
import PIL.Image
import pytest
from etils import epath
from etils.epath import backend, gpath

from dummy_data import make
from sa1b_tfds.core import files, ranges
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples import record_ends, record_files
from sa1b_tfds.examples.parts import ShardPart
from sa1b_tfds.tars import kept
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.tars.index import index_archive
from tests import building, s3_server
from tests.s3_server import BUCKET

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'sa1b_tfds[s3]'")

IMAGES = 64
SHARD = "segment_anything-train.tfrecord-00000-of-00001"
TAR = epath.Path(f"s3://{BUCKET}/tars/sa_000000.tar")
PACKED = epath.Path(f"s3://{BUCKET}/packed/sa_000000.tar")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a tar of 64 images of 1.1 MB in both forms, and the data that is made of it."""
    folder = tmp_path_factory.mktemp("ranges")
    jpeg = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (900, 1250, 3), np.uint8)
    PIL.Image.fromarray(noise).save(jpeg, "JPEG", quality=92)
    _, content = make.draw(0, 900, 1250, 8)
    (folder / "tars").mkdir()
    tars = building.write_large_tars(folder / "tars", 1, IMAGES, (jpeg.getvalue(), content))
    building.prepare(tars, folder / "built")
    with s3_server.serving() as server:
        for path in (folder / "built" / building.FINAL).iterdir():
            server.upload(path, f"data/{path.name}")
            if path.name != record_ends.NAME:
                server.upload(path, f"earlier/{path.name}")
        server.upload(tars / TAR.name, "tars/sa_000000.tar")
        packed = building.pack((tars / TAR.name).read_bytes(), level=0)
        server.client.put_object(Bucket=BUCKET, Key="packed/sa_000000.tar", Body=packed)
        yield server


@pytest.fixture
def store(server, monkeypatch, tmp_path):
    """The server, as a new process of another machine meets it: nothing is known yet."""
    for name, value in server.environment.items():
        if name.startswith("AWS"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("EPATH_USE_TF", "false")
    # epath asks for the variable only when Python starts.
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    backend.fsspec_backend._get_filesystem.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(record_ends, "_known", {})
    s3fs.S3FileSystem.clear_instance_cache()
    server.gets.clear()
    server.requests.clear()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()


def shard_in(folder: str) -> ShardPart:
    return ShardPart(epath.Path(f"s3://{BUCKET}/{folder}/{SHARD}"), "tfrecord", range(IMAGES))


def in_megabytes(size: int) -> int:
    """The number of requests that read so many bytes forward."""
    return math.ceil(size / ranges._AHEAD)


def read_forward(store, key: str, read) -> None:
    """Runs `read`, and holds that it fetches each byte of an object once, by megabytes."""
    size = store.client.head_object(Bucket=BUCKET, Key=key)["ContentLength"]
    store.requests.clear()
    store.gets.clear()
    read()
    fetched = [get.bytes for get in store.gets if get.key == key]
    assert 0.9 * size < sum(fetched) < 1.01 * size  # headers alone need not the last of it
    assert len(fetched) <= in_megabytes(size) + 2
    assert len(store.requests) <= len(fetched) + 8  # what asks for sizes, and looks for kept files


def test_an_image_is_one_request_of_its_own_bytes(store):
    shard = shard_in("data")
    numbers = (40, 7, 63, 0, 7)
    images = [shard.example(i) for i in numbers]
    assert len({example.image_id for example in images}) == 4
    # What the first image costs besides: where the records of its shard end.
    assert [get.key for get in store.gets] == [f"data/{record_ends.NAME}", *[f"data/{SHARD}"] * 5]
    assert store.gets[0].bytes == 8 * IMAGES
    assert len(store.requests) == 6
    wanted = sum(len(example.image) for example in images)
    assert sum(get.bytes for get in store.gets) < 1.1 * wanted


def test_headers_of_earlier_data_are_read_once_by_a_machine(store, monkeypatch):
    shard = shard_in("earlier")
    read_forward(store, f"earlier/{SHARD}", lambda: record_ends._from_headers(shard.path))
    for begun in range(2):  # as two processes
        monkeypatch.setattr(record_ends, "_known", {})
        store.gets.clear()
        assert shard.example(5 + begun).image_id >= 0
        [get] = store.gets
        assert get.bytes < 1.2e6


def test_a_list_of_another_shard_is_not_believed(store):
    wrong = np.cumsum(np.arange(900_000, 900_000 + IMAGES), dtype="<i8")
    source = {"Bucket": BUCKET, "Key": f"data/{SHARD}"}
    store.client.copy_object(CopySource=source, Bucket=BUCKET, Key=f"listed/{SHARD}")
    store.client.put_object(Bucket=BUCKET, Key=f"listed/{record_ends.NAME}", Body=wrong.tobytes())
    kept_of = shard_in("earlier").path
    kept.keep(kept_of, kept.ENDS, record_ends._to_bytes(wrong, kept.stamp_of(kept_of)))
    for number in (3, IMAGES - 1):
        ids = {shard_in(f).example(number).image_id for f in ("data", "listed", "earlier")}
        assert len(ids) == 1


@pytest.mark.parametrize(
    ("key", "read"),
    [
        (f"data/{SHARD}", lambda: list(shard_in("data").examples(Problems()))),
        (f"data/{SHARD}", lambda: record_files.file_crc32c(shard_in("data").path)),
        ("tars/sa_000000.tar", lambda: list(TarArchive(TAR).pairs(Problems()))),
        ("packed/sa_000000.tar", lambda: list(TarArchive(PACKED).pairs(Problems()))),
        ("tars/sa_000000.tar", lambda: index_archive(TarArchive(TAR))),
    ],
    ids=["shard", "checksum", "tar", "compressed tar", "index of a tar"],
)
def test_reading_forward_fetches_each_byte_once_by_megabytes(store, key, read):
    read_forward(store, key, read)


def test_a_pair_of_a_plain_tar_is_few_requests_of_its_own_bytes(store):
    indexed = index_archive(TarArchive(TAR))
    store.gets.clear()
    store.requests.clear()
    pairs = [indexed.read(i) for i in (50, 3, 17)]
    # Two for its files and two for the tar's size; and once, whether the tar is compressed.
    assert len(store.requests) <= 4 * len(pairs) + 1
    wanted = sum(len(pair.jpeg) + len(pair.json) for pair in pairs)
    assert wanted <= sum(get.bytes for get in store.gets) < wanted + 100


def test_array_record_says_at_once_what_to_do(store, tmp_path):
    with pytest.raises(
        ValueError, match=r"does not open s3://. Copy the folder to a disk, or prep"
    ):
        next(record_files.read(epath.Path(f"s3://{BUCKET}/a.array_record"), "array_record"))


def test_gcsfs_asks_for_the_same_ranges(store, monkeypatch, tmp_path):
    pytest.importorskip("gcsfs", reason="gcsfs is not installed: pip install 'sa1b_tfds[gs]'")
    from tests import gs_server

    key = {"Bucket": BUCKET, "Key": f"data/{SHARD}"}
    shard_bytes = store.client.get_object(**key, Range="bytes=0-3999999")["Body"].read()
    key["Key"] = f"data/{record_ends.NAME}"
    ends = np.frombuffer(store.client.get_object(**key)["Body"].read(), "<i8")[:3]
    with gs_server.serving(tmp_path) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.http.server_port}")
        folder = f"gs://{gs_server.BUCKET}/data"
        system = files.object_store(folder)
        system.pipe_file(f"{folder}/{SHARD}", shard_bytes[: ends[-1]])
        system.pipe_file(f"{folder}/{record_ends.NAME}", ends.tobytes())
        server.http.requests.clear()
        shard = ShardPart(epath.Path(f"{folder}/{SHARD}"), "tfrecord", range(3))
        assert [shard.example(i).image_id for i in (2, 0)] == [
            shard_in("data").example(i).image_id for i in (2, 0)
        ]
        asked = [asked for _, _, asked in server.http.requests]
    first, second, third = (int(end) for end in ends)
    assert asked == ["bytes=0-23", f"bytes={second}-{third - 1}", f"bytes=0-{first - 1}"]


def test_an_answer_that_is_cut_off_is_no_record(store):
    shard = shard_in("data")
    shard.example(0)
    store.most = 500_000
    try:
        for read in (lambda: shard.example(1), lambda: list(shard.examples(Problems()))):
            with pytest.raises(OSError, match=f"{SHARD} became shorter while it was read"):
                read()
    finally:
        store.most = None


def test_a_server_that_dies_is_an_error_that_names_the_shard(store, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    with s3_server.serving() as dying:  # in this process it has the same objects
        monkeypatch.setenv("AWS_ENDPOINT_URL", dying.environment["AWS_ENDPOINT_URL"])
        shard = shard_in("data")
        examples = shard.examples(Problems())
        read = [next(examples)]
        assert shard.example(0).image_id == read[0].image_id
    with pytest.raises(OSError, match=f"data/{SHARD} cannot be read: Could not connect"):
        read += examples
    with pytest.raises(OSError, match=f"data/{SHARD} cannot be read: Could not connect"):
        shard.example(IMAGES - 1)
