import gzip
import io
import os
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dummy_data import make
from sa1b_tfds.core.problems import Problems, TornArchive
from sa1b_tfds.tars import archive, forms, inflate, spill, stream
from tests import building
from tests.test_tars_archive import ENDS, FILES, HUGE, WHOLE, pax, special, tar_of


class Forward:
    """A file that counts on never being asked to go back."""

    def __init__(self, data):
        self._file = io.BytesIO(data)

    def read(self, count):
        return self._file.read(count)

    def seek(self, position):
        assert position >= self._file.tell()
        return self._file.seek(position)


def streamed(data, problems=None, in_memory=0, length=-1):
    length = len(data) if length == -1 else length
    problems = problems or Problems()
    return list(stream.stream_pairs("t.tar", Forward(data), length, problems, in_memory))


@pytest.mark.parametrize("in_memory", [0, 1000, 2**30])
@pytest.mark.parametrize("length", [-1, None])
def test_any_order_gives_the_pairs(tmp_path, in_memory, length):
    for seed in range(5):
        make.write_tar(tmp_path / "t.tar", FILES, seed)
        expected = list(archive.TarArchive(tmp_path / "t.tar").pairs(Problems()))
        found = streamed((tmp_path / "t.tar").read_bytes(), None, in_memory, length)
        assert found == expected


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-1024],
        WHOLE[: -1024 - 512],
        WHOLE[:1000],
        WHOLE[:100],
        b"",
        b"<html>not found</html>" * 99,
        b"\x1f\x8b" + bytes(1000),
        gzip.compress(WHOLE),
        *ENDS.values(),
        tar_of(special("/etc/sa_4.jpg", b"0")),
        tar_of(special("a/../../sa_4.jpg", b"0")),
        tar_of(special("sa_4.jpg", b"2", 0, "/etc/passwd")),
        tar_of(special("sa_4.jpg", b"3")),
        tar_of(special("sa_4.jpg", b"0", HUGE)),
        tar_of(special("x", b"L", HUGE)),
        tar_of(special("x", b"x", HUGE)),
        tar_of(special("sa_4.jpg", b"S", 10)),
        tar_of(pax(b"size=9"), special("sa_4.jpg", b"0", 9) + bytes(512)),
        tar_of(pax(b"size=-9"), special("sa_4.jpg", b"0", 9) + bytes(512)),
        tar_of(pax(b"path=x", wrong_by=3), special("sa_4.jpg", b"0")),
        tar_of(special("sa_1.jpg", b"0")),
        tar_of(special("sa_4.jpg", b"0"), special("LICENSE", b"0")),
    ],
)
def test_bad_tars_are_told_as_when_they_lie_on_a_disk(tmp_path, data):
    (tmp_path / "t.tar").write_bytes(data)
    on_disk, forward = Problems("skip"), Problems("skip")
    if not data.startswith(inflate.MAGIC):
        expected = list(archive.TarArchive(tmp_path / "t.tar").pairs(on_disk))
        assert streamed(data, forward) == expected
        assert told(forward) == told(on_disk) != []

    # Compressed, it is read forward in each of three ways, and told the same.
    packed = building.pack(data)
    (tmp_path / "t.tar").write_bytes(packed)
    tar = archive.TarArchive(tmp_path / "t.tar")
    index, pairs, link = Problems("skip"), Problems("skip"), Problems("skip")
    entries = tar.index(index)
    found = list(tar.pairs(pairs))
    file, length = forms.forward(Forward(packed), len(packed))
    assert list(stream.stream_pairs("t.tar", file, length, link)) == found
    assert [(e.jpeg.name, e.json.name) for e in entries] == [p[2:] for p in found]
    assert told(index) == told(pairs) == told(link) != []
    if not data.startswith(inflate.MAGIC):
        assert found == expected


def told(problems):
    return sorted((type(p).__name__, str(p)) for p in problems.found)


def test_a_size_that_is_a_lie_takes_no_memory():
    """Where the length is unknown, the limits on files and headers hold alone."""
    for data in (
        tar_of(special("sa_4.jpg", b"0", HUGE)),
        tar_of(special("sa_4.jpg", b"0", 200 * 2**20)),
        tar_of(special("other", b"0", HUGE)),
        tar_of(special("x", b"L", HUGE)),
    ):
        problems = Problems("skip")
        tracemalloc.start()
        streamed(data, problems, length=None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20
        assert problems.found[-1].archive == "t.tar"
        assert any(isinstance(p, TornArchive) for p in problems.found)


def big_tar(images):
    """All JPEGs, then all JSONs: the worst order there is."""
    payload = os.urandom(20_000)
    files = {f"./sa_{i}.{kind}": payload for kind in ("jpg", "json") for i in range(images)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_memory_grows_by_under_1_kb_an_image_of_40_kb():
    def peak(images):
        data = Forward(big_tar(images))
        tracemalloc.start()
        pairs = sum(1 for _ in stream.stream_pairs("t.tar", data, None, Problems(), 200_000))
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pairs == images
        return memory

    # What is known of each image stays: a name and where its first file waits.
    assert (peak(400) - peak(100)) / 300 < 1000


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 200_000)), max_size=40),
    st.integers(0, 300_000),
)
def test_a_spill_gives_back_what_it_took(moves, limit):
    kept = []
    with spill.Spill(limit) as store:
        for number, (take, size) in enumerate(moves):
            if take and kept:
                data, stored = kept.pop(size % len(kept))
                assert store.take(stored) == data
            else:
                data = bytes([number + 1]) * size
                kept.append((data, store.put(data)))
        for data, stored in kept:
            assert store.take(stored) == data


def test_a_spill_never_grows_over_what_is_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(spill.tempfile, "tempdir", str(tmp_path))
    with spill.Spill(0) as store:
        for _ in range(50):
            waiting = [store.put(os.urandom(size)) for size in (10, 70_000, 200_000)]
            for stored in waiting:
                store.take(stored)
        assert os.fstat(store._file.fileno()).st_size <= 7 * 2**16
        assert os.listdir(tmp_path) == []  # it has no name: nothing is left however it ends


def test_a_full_disk_is_named(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spill.os, "pwrite", full)
    with (
        spill.Spill(0) as store,
        pytest.raises(OSError, match=r"No space left on device in .*: set TMPDIR"),
    ):
        store.put(b"x")
