import os
import pickle
import threading
import zlib

import numpy as np
import pytest
from etils import epath

from dummy_data import make
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.tars import archive, kept, seek
from sa1b_tfds.tars import index as tar_index
from sa1b_tfds.tars.members import Member
from tests import building

FILES = {
    name.replace("./", "./folder/"): data
    for image_id in (7, 11, 12345)
    for name, data in make.files_of(image_id).items()
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache") / "not there yet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sa1b_tfds"


@pytest.fixture(params=["plain", "gzip"])
def form(request):
    """What makes a tar of either form of the bytes of a plain one."""
    return building.pack if request.param == "gzip" else bytes


@pytest.fixture
def tar(tmp_path, form):
    path = tmp_path / "sa_000000.tar"
    write(path, form, FILES)
    return path


def write(path, form, files, seed=0):
    make.write_tar(path, files, seed)
    path.write_bytes(form(path.read_bytes()))


@pytest.fixture
def headers_read(monkeypatch):
    """The names of the tars whose headers are read, one a time."""
    names = []
    original = tar_index.index_of

    def index(name, *arguments):
        names.append(name)
        return original(name, *arguments)

    monkeypatch.setattr(tar_index, "index_of", index)
    return names


def kept_of(tar):
    return tar.parent / ".sa_000000.tar.index"


def index_of(tar, problems=None):
    [found] = archive.archives_at(tar)
    return tar_index.index_archive(found, problems)


def is_right(found):
    expected = list(found.archive.pairs(Problems()))
    return len(found) == 3 and [found.read(i) for i in range(3)] == expected


def test_a_tar_is_indexed_once_and_read_in_any_order(tar, headers_read):
    assert is_right(index_of(tar))
    assert kept_of(tar).exists()
    del headers_read[:]
    found = index_of(tar)
    assert headers_read == []
    assert is_right(found)
    expected = archive.TarArchive(tar).index(Problems())
    assert list(found.index) == expected
    for i in (-1, 3):
        with pytest.raises(IndexError, match=f"pair {i} of 3"):
            found.read(i)


def test_an_index_takes_under_50_bytes_an_image():
    entries = [
        archive.Entry(
            Member(f"./sa_{i}.jpg", 700_000, i * 10**6),
            Member(f"./sa_{i}.json", 50_000, i * 10**6 + 800_000),
        )
        for i in range(11_000_000, 11_011_185)
    ]
    index = tar_index.PairIndex.of(entries)
    assert len(pickle.dumps(index)) < 50 * len(entries)
    assert index[11_184] == entries[11_184]


def test_extracted_folders(tmp_path):
    for name, data in FILES.items():
        folder = tmp_path / ("images" if name.endswith(".jpg") else "annotations")
        folder.mkdir(exist_ok=True)
        (folder / name.rpartition("/")[2]).write_bytes(data)
    found = index_of(tmp_path)
    [listed] = archive.find_archives(tmp_path)
    assert [found.read(i) for i in range(3)] == list(listed.pairs(Problems()))
    assert len(pickle.dumps(found)) < 2000
    (tmp_path / "images" / "sa_7.jpg").unlink()
    with pytest.raises(BadInput, match=r"sa_7\.jpg: it cannot be read: No such file"):
        [found.read(i) for i in range(3)]


def test_it_pickles_and_serves_threads(tar):
    found = pickle.loads(pickle.dumps(index_of(tar)))
    expected = [found.read(i) for i in range(3)]
    wrong = []

    def read():
        for i in range(150):
            if found.read(i % 3) != expected[i % 3]:
                wrong.append(i)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def with_checksum(content):
    return content + zlib.crc32(content).to_bytes(4, "little")


def forged(content, column, value):
    """The kept index with another value in the row of its second pair, and a right checksum."""
    at = (
        len(content) - 4 - sum(len(f"sa_{i}") for i in (7, 11, 12345)) - 2 * tar_index._ROW.itemsize
    )
    row = np.frombuffer(content, tar_index._ROW, 1, at).copy()
    row[column] = value
    return with_checksum(content[:at] + row.tobytes() + content[at + row.nbytes : -4])


@pytest.mark.parametrize(
    "change",
    [
        lambda kept: b"",
        lambda kept: kept[:-1],
        lambda kept: kept[: len(kept) // 2],
        lambda kept: kept[:60] + b"\xff" + kept[61:],
        lambda kept: kept[:-5] + b"3" + kept[-4:],  # another name, which only the checksum tells
        lambda kept: with_checksum(kept[:-4].replace(b"index 2", b"index 1")),
        lambda kept: with_checksum(kept[:-4].replace(b'"pairs":3', b'"pairs":9')),
        lambda kept: with_checksum(kept[:-4].replace(b'"pairs":3', b'"pairs":-3')),
        lambda kept: with_checksum(kept[:-4].replace(b'"pairs":3', b'"pairs":{}')),
        lambda kept: with_checksum(kept[:-4].replace(b'"stamp"', b'"stumm"')),
        lambda kept: with_checksum(kept[:-4].replace(b'"problems":[]', b'"problems":[3]')),
        lambda kept: forged(kept, "jpeg_offset", 2**64 - 600),
        lambda kept: forged(kept, "json_offset", 10**9),
        lambda kept: forged(kept, "jpeg_size", 257 * 2**20),
        lambda kept: forged(kept, "json_size", 2**32 - 1),
        lambda kept: forged(kept, "jpeg_folder", 1),
        lambda kept: forged(kept, "stem_end", 1000),
        lambda kept: forged(kept, "stem_end", 0),
    ],
)
def test_a_broken_index_is_made_again_and_never_believed(tar, headers_read, change):
    index_of(tar)
    good = kept_of(tar).read_bytes()
    assert forged(good, "jpeg_folder", 0) == good  # or the rows above would break something else
    broken = change(good)
    assert broken != good
    kept_of(tar).write_bytes(broken)
    del headers_read[:]
    assert is_right(index_of(tar))
    assert headers_read[0] == "sa_000000.tar"
    assert kept_of(tar).read_bytes() == good


@pytest.mark.parametrize(("column", "value"), [("json_offset", 10**6), ("jpeg_size", 10**6)])
def test_an_index_that_points_out_of_a_plain_tar_is_made_again(
    tmp_path, headers_read, column, value
):
    write(tar := tmp_path / "sa_000000.tar", bytes, FILES)
    index_of(tar)
    kept_of(tar).write_bytes(forged(kept_of(tar).read_bytes(), column, value))
    assert is_right(index_of(tar))
    assert len(headers_read) == 2


def test_another_tar_under_the_same_name(tar, form):
    index_of(tar)
    stat = os.stat(tar)
    write(tar, form, FILES, seed=1)
    with tar.open("ab") as file:
        file.write(bytes(max(0, stat.st_size - os.stat(tar).st_size)))
    os.utime(tar, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert form is building.pack or os.stat(tar).st_size == stat.st_size
    assert is_right(index_of(tar))


def test_a_tar_that_grows_while_it_is_indexed_is_not_kept(tar, monkeypatch):
    original = tar_index.index_of

    def index(*arguments):
        entries = original(*arguments)
        os.utime(tar, ns=(0, 0))
        return entries

    monkeypatch.setattr(tar_index, "index_of", index)
    assert len(index_of(tar)) == 3
    assert not kept_of(tar).exists()


def test_a_kept_index_reports_its_problems_again(tar, form, headers_read):
    make.write_tar(tar, FILES | {"./sa_9.jpg": b"x"})
    tar.write_bytes(form(tar.read_bytes().rstrip(b"\0")))
    for _ in range(2):
        problems = Problems("skip")
        # What a damaged compressed tar holds cannot be read by number: none of it is in the index.
        found = index_of(tar, problems)
        assert len(found) >= 2 if form is bytes else len(found) == 0
        if form is not bytes:
            assert problems.found.pop().reason == tar_index._NOT_ONE
        kinds = {(type(p), p.archive) for p in problems.found}
        assert kinds == {(BadInput, "sa_000000.tar"), (TornArchive, "sa_000000.tar")}
        with pytest.raises(TornArchive, match=r"^sa_000000.tar: .*the tar is torn here"):
            index_of(tar)
    assert len(headers_read) == 1


def test_a_tar_has_its_own_place_in_the_cache_however_it_is_named(tmp_path, monkeypatch):
    def in_cache(name):
        return kept._paths(epath.Path(name), kept.INDEX)[1]

    places = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        assert in_cache("sa_0.tar") == in_cache(tmp_path / folder / "sa_0.tar")
        places.add(in_cache("sa_0.tar"))
    assert len(places) == 2


def test_all_that_is_kept_of_a_tar_goes_with_it(tar, cache):
    """From beside the tar, and from the cache."""
    epath_tar = epath.Path(tar)
    for kind in (kept.INDEX, kept.SEEK):
        beside, in_cache = kept._paths(epath_tar, kind)
        assert in_cache.parent == epath.Path(cache)
        assert kept.keep(epath_tar, kind, b"something")
        assert kept.load(epath_tar, kind, lambda path: path.read_bytes()) == b"something"
        assert (beside.exists(), in_cache.exists()) == (True, False)
        in_cache.parent.mkdir(parents=True, exist_ok=True)
        in_cache.write_bytes(b"something")
    kept.forget_all(epath_tar)
    assert os.listdir(tar.parent) == [tar.name]
    assert os.listdir(cache) == []
    assert kept.load(epath_tar, kept.INDEX, lambda path: path.read_bytes()) is None


def test_index_of_a_read_only_folder_is_in_the_cache(tar, form, headers_read, monkeypatch, cache):
    write_whole = kept.files.write_whole

    def refuse(path, content):  # a folder without the right to write, which root does not know
        if path.parent == epath.Path(tar.parent):
            raise PermissionError(13, "Permission denied")
        write_whole(path, content)

    monkeypatch.setattr(kept.files, "write_whole", refuse)
    for _ in range(2):
        assert len(index_of(tar)) == 3
    assert headers_read == ["sa_000000.tar"]
    kinds = {".index", ".seek"} if form is building.pack else {".index"}
    assert {path.suffix for path in cache.iterdir()} == kinds
    assert os.listdir(tar.parent) == ["sa_000000.tar"]

    monkeypatch.setattr(kept, "_paths", lambda path, kind: [epath.Path("/proc/no/place")])
    if form is bytes:  # nowhere to keep an index is no error
        assert is_right(index_of(tar))
    else:
        with pytest.raises(seek.NoSeekPoints, match="its seek points cannot be written anywhere"):
            index_of(tar)
