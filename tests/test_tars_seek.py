"""Seek points: a compressed tar read in any order gives what the plain one gives, or an error."""

import functools
import os
import re
import signal
import subprocess
import sys
import zlib

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from dummy_data import make
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.tars import index, inflate, kept, seek
from sa1b_tfds.tars.archive import TarArchive, find_archives
from tests import building
from tests.test_tars_inflate import INFLATERS, member

rapidgzip = pytest.importorskip("rapidgzip", reason="there is no rapidgzip for this machine")


def mixed(size):
    """Bytes in turns of what deflates well and what does not, as JSONs and JPEGs do."""
    rng = np.random.default_rng(0)
    parts = []
    for number in range(size // 2000 + 1):
        text = b'{"counts": "%d", "size": [%d]}' % (number, number * 7919)
        parts += [text * 40, rng.bytes(1000 + number % 100)]
    return b"".join(parts)[:size]


MIXED = mixed(1_200_000)
NOISE = np.random.default_rng(1).bytes(300_000)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sa1b_tfds"


def deflated(data, level, every):
    """A gzip member of deflate blocks of `every` bytes; none ends at a byte but by chance."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, 31)
    parts = []
    for start in range(0, len(data), every):
        parts.append(compressor.compress(data[start : start + every]))
        parts.append(compressor.flush(zlib.Z_BLOCK))
    return b"".join(parts) + compressor.flush()


def split(data, every):
    return [data[i : i + every] for i in range(0, len(data), every)]


FILES = {  # compressed, plain
    **{f"level {level}": (building.pack(MIXED, level), MIXED) for level in (0, 1, 6, 9)},
    "short blocks": (deflated(MIXED, 6, 7001), MIXED),
    "blocks of fixed codes": (deflated(MIXED[:90_000], 9, 90), MIXED[:90_000]),
    "members": (b"".join(map(building.pack, split(MIXED, 99_991))), MIXED),
    "empty members": (building.pack(b"") + building.pack(MIXED) + building.pack(b""), MIXED),
    "a long header": (member(MIXED, 8, b"n" * 70_000 + b"\0"), MIXED),
    "noise": (building.pack(NOISE), NOISE),
    "zeros": (building.pack(bytes(700_000)), bytes(700_000)),
    "small": (building.pack(b"x" * 700), b"x" * 700),
}


@pytest.fixture(scope="module")
def near():
    """Seek points a hundred times nearer than 4 MB, so that small files have many."""
    with pytest.MonkeyPatch.context() as patch:
        each = functools.partial(rapidgzip.RapidgzipFile, chunk_size=32 * 2**10)
        patch.setattr(rapidgzip, "RapidgzipFile", each)
        yield


@pytest.fixture(scope="module")
def paths(near, tmp_path_factory):
    """The files, with their seek points beside them."""
    folder = tmp_path_factory.mktemp("packed")
    paths = {name: epath.Path(folder / f"sa_{i}.tar") for i, name in enumerate(FILES)}
    for name, path in paths.items():
        packed, plain = FILES[name]
        path.write_bytes(packed)
        seek.make_seek_points(path, len(packed), len(plain))
    return paths


def points_of(path):
    return seek._load(kept._paths(path, "seek")[0], kept.stamp_of(path)).points


def read(path, *places):
    with seek.opened_anywhere(path) as file:
        data = []
        for offset, size in places:
            assert file.seek(offset) == offset
            data.append(file.read(size))
    return data


@pytest.fixture(params=INFLATERS)
def inflater(request, monkeypatch):
    monkeypatch.setattr(inflate, "_zlib", INFLATERS[request.param])


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 200_000)), min_size=1, max_size=4),
    st.sampled_from(sorted(INFLATERS)),
)
def test_each_read_gives_the_bytes_of_the_plain_file(paths, name, where, module):
    plain = FILES[name][1]
    places = [(int(part * len(plain)), size) for part, size in where]
    places = [(offset, min(size, len(plain) - offset)) for offset, size in places]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inflate, "_zlib", INFLATERS[module])
        found = read(paths[name], *places)
    assert found == [plain[offset : offset + size] for offset, size in places]


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize("name", FILES)
def test_reads_that_begin_at_each_point_and_around_it(paths, name):
    plain = FILES[name][1]
    for position in points_of(paths[name])["position"].tolist():
        for offset in range(max(0, position - 1), min(position + 2, len(plain) - 1)):
            assert read(paths[name], (offset, 50)) == [plain[offset : offset + 50]]


def test_the_points_begin_at_every_bit(paths):
    bits = [set((points_of(path)["bit"] % 8).tolist()) for path in paths.values()]
    assert set.union(*bits) == set(range(8))
    assert {len(points_of(paths[name])) > 9 for name in ("level 6", "members", "noise")} == {True}
    windows = {int(window) for path in paths.values() for window in points_of(path)["window"]}
    assert windows == {0, 2**15}  # with what stood before, and without


@pytest.mark.usefixtures("inflater")
@pytest.mark.parametrize("window", [b"", MIXED[:50], MIXED[: 2**15]])
@pytest.mark.parametrize("bit", range(8))
def test_empty_blocks_bring_an_inflater_to_any_bit(bit, window):
    """The stream is moved by so many bits; what comes out is the same, and nothing before it."""
    data = MIXED[:9000]
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=window)
    stream = compressor.compress(data) + compressor.flush()
    junk = 0b10110101 & (1 << bit) - 1  # the end of the block before
    moved = int.from_bytes(stream, "little") << bit | junk
    moved = moved.to_bytes(len(stream) + 1, "little")
    bits, count = seek._empty_blocks(bit)
    assert (count % 8, bits >> count) == (bit, 0)
    given = seek._primed(bit, moved[0]) + moved[1:]
    inflating = inflate.new_inflater(window)
    assert inflating.decompress(given) == data
    assert inflating.eof
    assert len(seek._primed(bit, 0)) <= 16


# Tars, whole and in every shape.

PAIRS = {name: data for i in range(40) for name, data in make.files_of(i, 60, 90, 5).items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "sa_000000.tar"
    make.write_tar(path, PAIRS)
    return path


@pytest.fixture
def tar(plain, tmp_path, near):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(building.pack(plain.read_bytes()))
    return path


def indexed(path, problems=None):
    [found] = find_archives(path.parent)
    return index.index_archive(found, problems)


def is_right(found, plain):
    expected = list(TarArchive(plain).pairs(Problems()))
    return len(found) == len(expected) and [found.read(i) for i in range(len(found))] == expected


def seek_file(path):
    return path.parent / f".{path.name}.seek"


@pytest.mark.parametrize(
    "shape",
    [
        lambda plain: building.pack(plain, 0),
        lambda plain: building.pack(plain) + bytes(99_999),
        lambda plain: b"".join(map(building.pack, split(plain, 1000))),
        lambda plain: member(plain, 8, b"sa_000000.tar\0"),
        lambda plain: deflated(plain, 6, 333),
    ],
    ids=["stored", "padded", "members", "named", "blocks"],
)
def test_pairs_of_a_tar_in_each_shape_of_gzip(tar, plain, shape):
    tar.write_bytes(shape(plain.read_bytes()))
    assert is_right(indexed(tar), plain)
    assert sorted(os.listdir(tar.parent)) == [
        ".sa_000000.tar.index",
        ".sa_000000.tar.seek",
        "sa_000000.tar",
    ]


@pytest.fixture
def searches(monkeypatch):
    """The tars whose seek points are looked for, or whose headers are read."""
    met = []
    to_bytes, index_of = seek._to_bytes, index.index_of
    monkeypatch.setattr(seek, "_to_bytes", lambda *a: met.append("seek") or to_bytes(*a))
    monkeypatch.setattr(index, "index_of", lambda *a: met.append("index") or index_of(*a))
    return met


def flipped(at):
    return lambda kept: kept[:at] + bytes([kept[at] ^ 1]) + kept[at:][1:]


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: None,
        lambda kept: b"",
        lambda kept: kept[:-1],
        lambda kept: kept + b"x",
        lambda kept: kept[:40],
        flipped(3),
        flipped(40),
        flipped(100),
        lambda kept: kept.replace(b'"points":', b'"pints":'),
        lambda kept: kept.replace(b'"stamp":[', b'"stamp":[1'),
    ],
)
def test_seek_points_that_are_gone_or_damaged_are_made_again(tar, plain, searches, change):
    indexed(tar)
    good = seek_file(tar).read_bytes()
    seek_file(tar).unlink()
    if (broken := change(good)) is not None:
        assert broken != good
        seek_file(tar).write_bytes(broken)
    with pytest.raises(seek.NoSeekPoints, match="its seek points are not there"):
        read(epath.Path(tar), (0, 1))
    del searches[:]
    assert is_right(indexed(tar), plain)
    assert searches == ["seek"]  # and the index was kept
    assert seek_file(tar).read_bytes() == good


def test_a_damaged_window_is_an_error_that_says_what_to_do(tar, plain):
    found = indexed(tar)
    content = seek_file(tar).read_bytes()
    seek_file(tar).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    said = rf"{re.escape(str(seek_file(tar)))} is damaged\. Delete it; it will be made again"
    with pytest.raises(OSError, match=said):
        [found.read(i) for i in range(len(found))]
    seek_file(tar).unlink()
    assert is_right(indexed(tar), plain)


def test_a_tar_that_was_replaced_is_never_read_by_the_old_points(tar, plain, tmp_path, searches):
    old = indexed(tar)
    make.write_tar(tar, PAIRS, seed=7)
    make.compress(tar)
    os.utime(tar, ns=(0, 0))
    with pytest.raises(seek.NoSeekPoints, match="its seek points are not there"):
        old.read(0)
    del searches[:]
    assert is_right(indexed(tar), tar)
    assert searches == ["index", "seek"]


def test_damage_that_comes_later_is_an_error_that_names_its_byte(tar, plain):
    tar.write_bytes(building.pack(plain.read_bytes(), 0))
    found = indexed(tar)
    stat = os.stat(tar)
    content = bytearray(tar.read_bytes())
    half = len(content) // 2
    content[half:] = b"\xff" * (len(content) - half)
    tar.write_bytes(content)
    os.utime(tar, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as where the disk forgets
    with pytest.raises(OSError, match=r"sa_000000.tar: it .* byte ([\d,]+)") as error:
        [found.read(i) for i in range(len(found))]
    named = int(re.search(r"byte ([\d,]+)", str(error.value))[1].replace(",", ""))
    assert half <= named <= len(content)


def test_a_folder_that_may_only_be_read(plain, small_disk, cache, near):
    disk = small_disk(2**20)
    (disk / "sa_000000.tar").write_bytes(building.pack(plain.read_bytes()))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for _ in range(2):
        assert is_right(indexed(disk / "sa_000000.tar"), plain)
    assert os.listdir(disk) == ["sa_000000.tar"]
    assert {path.suffix for path in cache.iterdir()} == {".index", ".seek"}


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (lambda m: m.setitem(sys.modules, "rapidgzip", None), "rapidgzip, which finds its seek"),
        (lambda m: m.setattr(seek.files, "is_local", lambda path: False), "it is not on a local"),
        (lambda m: m.setattr(kept, "keep", lambda *a: False), "its seek points cannot be written"),
        (lambda m: m.setattr(seek, "_to_bytes", _fails), r"its seek points were not found \(odd\)"),
    ],
)
def test_where_there_can_be_no_seek_points_unpack_is_named(tar, monkeypatch, patch, why):
    patch(monkeypatch)
    path = re.escape(str(tar))
    said = (
        f"^{path} is compressed with gzip and cannot be read in any order: {why}.*Make a plain tar"
        f" of it: sa1b unpack {path}. Builds, read_tars and"
        " huggingface.streaming read it as it is.$"
    )
    with pytest.raises(seek.NoSeekPoints, match=said):
        indexed(tar)
    assert len(list(TarArchive(tar).pairs(Problems()))) == 40


def _fails(*arguments):
    raise ValueError("odd")


def test_zeros_between_members_are_read_forward_only(tar, plain):
    """As gzip reads them; rapidgzip refuses them."""
    tar.write_bytes(building.pack(plain.read_bytes()) + bytes(7) + building.pack(b""))
    assert len(list(TarArchive(tar).pairs(Problems()))) == 40
    with pytest.raises(seek.NoSeekPoints, match=r"its seek points were not found .*sa1b unpack"):
        indexed(tar)


def wrong_checksum(packed):
    return packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda packed: packed[: len(packed) // 2], "it is damaged: it ends at byte"),
        (wrong_checksum, "it is damaged: the checksum of what was compressed"),
        (lambda packed: packed + b"x", "it is damaged: the compressed data ends at byte"),
    ],
)
def test_a_damaged_tar_has_no_pair_by_number_and_that_is_said(tar, plain, damage, reason):
    tar.write_bytes(damage(tar.read_bytes()))
    for _ in range(2):  # found, and then kept
        with pytest.raises(TornArchive, match=rf"^sa_000000.tar: {reason}.*Download it again"):
            indexed(tar)
        problems = Problems("skip")
        assert len(indexed(tar, problems)) == 0
        assert problems.found[0].reason.startswith(reason)
        assert problems.found[-1].reason.startswith("it is compressed and damaged, so no image of")
    assert index.count_pairs(TarArchive(tar)) == 0
    assert not seek_file(tar).exists()


def test_a_tar_without_pairs_needs_no_seek_points(tar):
    tar.write_bytes(building.pack(bytes(10_240)))
    assert len(indexed(tar)) == 0
    assert not seek_file(tar).exists()


def test_many_tars_are_indexed_at_once(tmp_path, searches):
    tars = building.FORMS["mixed"](building.write_tars(tmp_path / "tars", tars=5, images=3))
    archives = find_archives(tars)
    (tars / "sa_000002.tar").write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(BadInput, match=r"^sa_000002.tar: it is damaged: there is no gzip header"):
        index.index_all(archives)
    problems = Problems("skip")
    found = index.index_all(archives, problems)
    assert [len(one) for one in found] == [3, 3, 0, 3, 3]
    assert {problem.archive for problem in problems.found} == {"sa_000002.tar"}
    for number, one in enumerate(found):
        if number != 2:
            assert is_right(one, tmp_path / "tars" / one.name)
    # The compressed ones in processes of their own, and the plain ones here.
    assert searches == ["index", "index"]
    assert index.kept_count(archives[0]) == 3
    # So are seek points alone, as where the pairs were only counted before.
    for path in (tars / "sa_000000.tar", tars / "sa_000004.tar"):
        seek_file(path).unlink()
    assert [len(one) for one in index.index_all(archives, Problems("skip"))] == [3, 3, 0, 3, 3]
    assert searches == ["index", "index"]
    assert seek_file(tars / "sa_000004.tar").exists()


def test_many_plain_tars_are_indexed_in_processes(tmp_path, searches):
    tars = building.write_tars(tmp_path / "tars", tars=index._WORTH_PROCESSES, images=2)
    archives = find_archives(tars)
    expected = [list(index.index_archive(archive).index) for archive in archives]
    for path in tars.glob(".*.index"):
        path.unlink()
    searches.clear()
    found = index.index_all(archives)
    assert searches == []
    assert [list(one.index) for one in found] == expected
    torn = tars / "sa_000001.tar"
    torn.write_bytes(torn.read_bytes()[:2000])
    with pytest.raises(TornArchive, match=r"^sa_000001.tar"):
        index.index_all(archives)


def test_a_plain_tar_is_read_again_when_its_process_dies(tmp_path, monkeypatch):
    tars = building.write_tars(tmp_path / "tars", tars=1, images=2)
    monkeypatch.setattr(index, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(index, "_make_all", _die)
    assert [len(one) for one in index.index_all(find_archives(tars))] == [2]


def _die(archive, threads):
    os.kill(os.getpid(), signal.SIGKILL)
