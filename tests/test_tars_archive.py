import bz2
import errno
import io
import lzma
import os
import re
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from etils import epath

from dummy_data import make
from sa1b_tfds.core import ranges
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.tars import archive, forms, stream
from sa1b_tfds.tars.index import index_archive
from tests import building

FILES = make.files_of(1) | make.files_of(2) | make.files_of(3)


def read(root, problems=None):
    """{jpeg name: (jpeg, json)} of all archives in a folder."""
    pairs = [
        pair
        for source in archive.find_archives(root)
        for pair in source.pairs(problems or Problems())
    ]
    return {pair.jpeg_name.rpartition("/")[2]: (pair.jpeg, pair.json) for pair in pairs}


EXPECTED = {f"sa_{i}.jpg": (FILES[f"./sa_{i}.jpg"], FILES[f"./sa_{i}.json"]) for i in (1, 2, 3)}


@pytest.fixture(params=["plain", "gzip"])
def form(request):
    """What makes a tar of either form of the bytes of a plain one."""
    return building.pack if request.param == "gzip" else bytes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prefix", ["./", "", "sa_000000/", "./deep/er/"])
@pytest.mark.parametrize(
    "name", ["sa_000000.tar", "sa_000000.tar.gz", "sa_000000.tgz", "a/b/sa_000000.tar"]
)
def test_tars(tmp_path, form, name, prefix, seed):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    make.write_tar(path, {k.replace("./", prefix): v for k, v in FILES.items()}, seed)
    path.write_bytes(form(path.read_bytes()))
    (found,) = archive.find_archives(tmp_path)
    assert (found.name, archive.number_of(found)) == (name, 0)
    assert read(tmp_path) == EXPECTED


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_tars_with_long_names_and_directories(tmp_path, format_):
    folder = tmp_path / "source"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    with tarfile.open(tmp_path / "sa_000007.tar", "w", format=format_) as tar:
        tar.add(folder, arcname="long/" * 40)
    for path in folder.iterdir():
        path.unlink()
    assert read(tmp_path) == EXPECTED


@pytest.mark.parametrize(
    "layout",
    [
        {".jpg": "", ".json": ""},
        {".jpg": "images/", ".json": "annotations/"},
        {".jpg": "sa_000000/images/", ".json": "sa_000000/annotations/"},
        {".jpg": "images/sa_000000/", ".json": "annotations/sa_000000/"},
    ],
)
def test_extracted_folders(tmp_path, layout):
    for name, data in FILES.items():
        path = tmp_path / layout[name[name.rfind(".") :]] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (found,) = archive.find_archives(tmp_path)
    assert archive.number_of(found) == (0 if "sa_000000" in layout[".jpg"] else None)
    assert read(tmp_path) == EXPECTED


def test_tars_come_before_loose_files_and_in_the_order_of_their_names(tmp_path, caplog):
    for name in ("b/sa_000001.tar", "a/sa_000020.tar", "sa_000003.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make.write_tar(tmp_path / name, FILES)
    (tmp_path / "sa_9.jpg").write_bytes(b"")
    (tmp_path / "sa_000004.tar.part").write_bytes(b"")
    said = f"Reading the tars in {tmp_path}; the extracted files there are left out."
    names = [found.name for found in archive.find_archives(tmp_path)]
    assert names == ["b/sa_000001.tar", "sa_000003.tar", "a/sa_000020.tar"]
    assert caplog.messages == [said]
    (tmp_path / "sa_9.jpg").unlink()
    assert len(archive.find_archives(tmp_path)) == 3
    assert caplog.messages == [said]  # not of tars alone, nor of files alone
    (tmp_path / "a" / "sa_000020.tar").unlink()
    (tmp_path / "a" / "sa_9.json").write_bytes(b"{}")
    assert [found.name for found in archive.find_archives(tmp_path / "a")] == ["."]
    assert caplog.messages == [said]


def test_unfinished_downloads_are_left_out_and_named(tmp_path, caplog):
    for name in ("sa_000000.tar.part", "sa_000001.tar.part.json", "sa_images_ids.txt.part.json"):
        (tmp_path / name).write_text("{}")
    assert archive.find_archives(tmp_path) == []
    reason = f"{tmp_path} holds no whole tar: 1 download is unfinished (sa_000001.tar). Run `sa1b"
    with pytest.raises(FileNotFoundError, match=re.escape(reason)):
        archive.refuse_unfinished(tmp_path)
    assert caplog.messages == []
    make.write_tar(tmp_path / "sa_000000.tar", FILES)
    (tmp_path / "sa_000000.tar.part.json").write_text("{}")  # of a process that died at the end
    assert [found.name for found in archive.find_archives(tmp_path)] == ["sa_000000.tar"]
    said = f"Reading {tmp_path} without 1 unfinished download (sa_000001.tar)."
    assert caplog.messages == [said]
    (tmp_path / "sa_000000.tar").rename(tmp_path / "sa_9.jpg")
    assert [found.name for found in archive.find_archives(tmp_path)] == ["."]
    assert caplog.messages[1] == (
        f"Reading {tmp_path} without 2 unfinished downloads (sa_000000.tar, sa_000001.tar)."
    )


def test_own_tars_are_read_and_another_dataset_is_left_out(tmp_path, caplog):
    for name in ("sa_own.tar", "sa_co_gold.tar"):
        make.write_tar(tmp_path / name, FILES)
    assert [a.name for a in archive.find_archives(tmp_path)] == ["sa_own.tar"]
    assert caplog.messages == [
        f"{tmp_path}/sa_co_gold.tar is left out: it is another dataset and not SA-1B."
    ]


def test_a_link_to_a_tar_that_is_not_there_is_said(tmp_path, caplog):
    make.write_tar(tmp_path / "sa_000000.tar", make.files_of(0))
    (tmp_path / "sa_000001.tar").symlink_to("sa_000000.tar")
    (tmp_path / "sa_000009.tar").symlink_to(tmp_path / "unmounted" / "sa_000009.tar")
    assert [a.name for a in archive.find_archives(tmp_path)] == ["sa_000000.tar", "sa_000001.tar"]
    assert caplog.messages == [
        f"{tmp_path}/sa_000009.tar is left out: it links to what is not there."
    ]


def test_nothing_in_a_folder_or_a_tar(tmp_path):
    assert archive.find_archives(tmp_path) == []
    (tmp_path / "sa_000000.tar").write_bytes(bytes(10240))
    assert read(tmp_path) == {}


def test_files_that_are_not_of_sa1b_are_left_out(tmp_path, caplog):
    extra = {"./LICENSE": b"x", "./._sa_1.jpg": b"x", "./sa_1.png": b"x", "./cat.jpg": b"x"}
    make.write_tar(tmp_path / "sa_000000.tar", FILES)
    assert read(tmp_path) == EXPECTED
    assert caplog.messages == []
    make.write_tar(tmp_path / "sa_000000.tar", FILES | extra)
    assert read(tmp_path) == EXPECTED
    (said,) = caplog.messages
    assert said.startswith("sa_000000.tar: 4 files not of SA-1B: [")
    assert all(name in said for name in extra)
    (tmp_path / "sa_000000.tar").unlink()
    (tmp_path / "sa_000000.tar").mkdir()
    for name, data in (FILES | extra | {"build_report.json": b"{}"}).items():
        (tmp_path / "sa_000000.tar" / name).write_bytes(data)
    assert read(tmp_path) == EXPECTED


def special(name, type_, size=0, linkname=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = type_, size, linkname
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(record, wrong_by=0):
    """A pax header with one record, whose length may be wrong."""
    rest = len(record) + 2
    length = rest + len(str(rest + len(str(rest)))) + wrong_by
    body = f"{length} ".encode() + record + b"\n"
    return special("pax", tarfile.XHDTYPE, len(body)) + body + bytes(-len(body) % 512)


def tar_of(*headers):
    """FILES, the last headers as they are, and the end marker."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        end = tar.offset
    return out.getvalue()[:end] + b"".join(headers) + bytes(1024)


WHOLE = tar_of()
LAST = "./sa_3.json"
HUGE = 100 * 2**30
# Where the length is not known, there is the limit of an image.
OF_HUGE = "claims 107374182400|107374182400 bytes are over the limit"

END = len(WHOLE) - 1024  # where the zeros begin
HALF = WHOLE.index(b"./sa_2.jpg")
TAIL = tarfile.BLOCKSIZE + tarfile.RECORDSIZE  # zeros that may follow the first block of them
# Tars that end where they should not, and what is said of each.
ENDS = {
    "zeros over a header": WHOLE[:HALF] + bytes(512) + WHOLE[HALF + 512 :],
    "zeros over the end of a tar": WHOLE[:HALF] + bytes(len(WHOLE) - HALF + 20_000),
    "two tars joined": WHOLE + WHOLE,
    "two tars joined by many zeros": WHOLE + bytes(5000) + WHOLE,
    "something after the end": WHOLE + b"x",
    "a tail too long by a byte": WHOLE[:END] + bytes(512 + TAIL + 1),
    "a tail of a megabyte": WHOLE + bytes(2**20),
}
MORE = f"zeros from byte {END} to"
OF_ENDS = {
    "zeros over a header": f"zeros from byte {HALF} to {HALF + 512}, but more follows them",
    "zeros over the end of a tar": f"zeros from byte {HALF} on, more than end a tar",
    "two tars joined": f"{MORE} {len(WHOLE)}, but more follows them",
    "two tars joined by many zeros": f"{MORE} {len(WHOLE) + 5000}, but more follows them",
    "something after the end": f"{MORE} {len(WHOLE)}, but more follows them",
    "a tail too long by a byte": f"zeros from byte {END} on, more than end a tar",
    "a tail of a megabyte": f"zeros from byte {END} on, more than end a tar",
}


@pytest.mark.parametrize(
    ("data", "member", "reason"),
    [
        (WHOLE[:-1024], LAST, "torn here .*no header and no end marker"),
        (WHOLE[: -1024 - 512], LAST, "torn here .*it claims"),
        (WHOLE[:1000], "./sa_1.jpg", "torn here .*it claims"),
        (WHOLE[:100], "", "torn here"),
        (b"", "", "torn here .*no header"),
        (b"<html>not found</html>" * 99, "", "it is no tar: it begins with b'<html>not found<'"),
        (WHOLE[:-1024] + bytes(100) + b"x" * 412 + WHOLE, LAST, "torn here"),
        (tar_of(special("/etc/sa_4.jpg", tarfile.REGTYPE)), "/etc/sa_4.jpg", "leads out"),
        (tar_of(special("a/../../sa_4.jpg", tarfile.REGTYPE)), "a/../../sa_4.jpg", "leads out"),
        (tar_of(special("sa_4.jpg", tarfile.SYMTYPE, 0, "/etc/passwd")), "sa_4.jpg", "a link"),
        (tar_of(special("sa_4.jpg", tarfile.LNKTYPE, 0, "sa_3.jpg")), "sa_4.jpg", "a link"),
        (tar_of(special("sa_4.jpg", tarfile.CHRTYPE)), "sa_4.jpg", "not a regular"),
        (tar_of(special("sa_4.jpg", tarfile.FIFOTYPE)), "sa_4.jpg", "not a regular"),
        (tar_of(special("sa_4.jpg", tarfile.REGTYPE, HUGE)), "sa_4.jpg", OF_HUGE),
        (tar_of(special("x", tarfile.GNUTYPE_LONGNAME, HUGE)), LAST, "a header of 107374182400"),
        (tar_of(special("x", tarfile.XHDTYPE, HUGE)), LAST, "a header of 107374182400"),
        (tar_of(special("sa_4.jpg", tarfile.GNUTYPE_SPARSE, 10)), "sa_4.jpg", "a sparse f"),
        (tar_of(pax(b"GNU.sparse.major=1"), special("sa_4.jpg", b"0")), "sa_4.jpg", "a sparse f"),
        (tar_of(special("sa_4.jpg", tarfile.REGTYPE, -1)), LAST, "a size of -1"),
        (tar_of(special("sa_4.txt", tarfile.REGTYPE, -512)), LAST, "a size of -512"),
        (tar_of(special("x", tarfile.GNUTYPE_LONGNAME, -512)), LAST, "a size of -512"),
        (tar_of(special("x", tarfile.XHDTYPE, -1024)), LAST, "a size of -1024"),
        (tar_of(special("x", tarfile.XGLTYPE, -512)), LAST, "a size of -512"),
        (tar_of(pax(b"size=-1536"), special("sa_4.jpg", b"0")), LAST, "a size of -1536"),
        (tar_of(pax(b"size=x"), special("sa_4.jpg", b"0")), LAST, "a size of x"),
        (tar_of(pax(b"path=/sa_4.jpg"), special("sa_4.jpg", b"0")), "/sa_4.jpg", "leads out"),
        (tar_of(pax(b"path=/sa_4.jpg", 7), special("sa_4.jpg", b"0")), LAST, "broken pax"),
        (tar_of(pax(b"path=/sa_4.jpg", -7), special("sa_4.jpg", b"0")), LAST, "broken pax"),
        (tar_of(*[pax(b"a=b")] * 3000, special("sa_4.fifo", b"6")), "sa_4.fifo", "not a regular"),
        (tar_of(special("./sa_4.jpg", tarfile.REGTYPE)), "./sa_4.jpg", r"its \.json is missing"),
        (tar_of(special("./sa_4.json", tarfile.REGTYPE)), "./sa_4.json", r"its \.jpg is missing"),
        (tar_of(special("./sa_3.jpg", tarfile.REGTYPE)), "./sa_3.jpg", "was there before"),
        (tar_of(special("a/sa_3.json", tarfile.REGTYPE)), "a/sa_3.json", "was there before"),
    ],
    ids=lambda value: "tar" if isinstance(value, bytes) else None,
)
def test_bad_tars(tmp_path, form, data, member, reason):
    (tmp_path / "sa_000000.tar").write_bytes(form(data))
    with pytest.raises(BadInput, match=reason) as error:
        read(tmp_path)
    assert (error.value.archive, error.value.member) == ("sa_000000.tar", member)
    assert str(error.value).startswith("sa_000000.tar: ")

    skipping = Problems("skip")
    pairs = read(tmp_path, skipping)
    assert pairs.items() <= EXPECTED.items()
    assert (member, True) in [(p.member, p.reason == error.value.reason) for p in skipping.found]
    if len(data) > len(WHOLE) - 1025:
        assert pairs == EXPECTED  # what is whole is read, whatever stands beside it
    lost = {p.member for p in skipping.found}
    for name in EXPECTED.keys() - pairs.keys():
        stem = name.removesuffix(".jpg")
        torn = any(isinstance(p, TornArchive) for p in skipping.found)
        assert torn or lost & {f"./{stem}.jpg", f"./{stem}.json"}


def read_each_way(path):
    """(pairs or entries, problems) of a tar as each of its readers finds them."""
    tar = archive.TarArchive(path)
    for read_one in (tar.index, tar.pairs, lambda problems: streamed(path, problems)):
        problems = Problems("skip")
        yield list(read_one(problems)), problems.found


def streamed(path, problems):
    """As of a link: forward only, the length told by the server or not."""
    with path.open("rb") as file:
        plain, length = forms.forward(file, path.stat().st_size)
        yield from stream.stream_pairs(path.name, plain, length, problems)


@pytest.mark.parametrize("end", OF_ENDS)
def test_more_after_the_first_zeros_is_a_torn_tar(tmp_path, form, end):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(form(ENDS[end]))
    before = 1 if "over" in end else 3
    for found, [problem] in read_each_way(path):
        assert len(found) == before
        assert isinstance(problem, TornArchive)
        assert OF_ENDS[end] in str(problem)


@pytest.mark.parametrize("zeros", [512, 1024, 10_240, 512 + TAIL])
def test_as_many_zeros_as_end_a_tar_are_its_end(tmp_path, form, zeros):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(form(WHOLE[:END] + bytes(zeros)))
    assert [(len(found), problems) for found, problems in read_each_way(path)] == [(3, [])] * 3


def zipped(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("sa_000000.tar", data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (building.pack(building.pack(WHOLE)), "compressed with gzip twice"),
        (building.pack(bz2.compress(WHOLE)), "compressed with bzip2"),
        (bz2.compress(WHOLE), "compressed with bzip2"),
        (lzma.compress(WHOLE), "compressed with xz"),
        (lzma.compress(WHOLE, lzma.FORMAT_ALONE), "compressed with lzma"),
        (b"\x28\xb5\x2f\xfd" + WHOLE, "compressed with zstd"),
        (b"\x04\x22\x4d\x18" + WHOLE, "compressed with lz4"),
        (b"\x1f\x9d" + WHOLE, "compressed with compress"),
        (b"LZIP" + WHOLE, "compressed with lzip"),
        (zipped(WHOLE), "a zip file"),
        (b"7z\xbc\xaf\x27\x1c" + WHOLE, "a 7z file"),
        (b"Rar!\x1a\x07" + WHOLE, "a RAR file"),
        (bz2.compress(b"short"), "compressed with bzip2"),  # less than a header
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tar_packed_otherwise_is_named_once_by_each_reader(tmp_path, data, name):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(data)
    said = (
        f"sa_000000.tar: it is no tar: it is {name}. Unpack it: a tar is read plain, or compressed"
        " with gzip"
    )
    for found, problems in read_each_way(path):
        assert found == []
        assert list(map(str, problems)) == [said]
    with pytest.raises(TornArchive, match=f"^{re.escape(said)}$"):
        index_archive(archive.TarArchive(path))


@pytest.mark.parametrize(("suffix", "other"), [(".jpg", ".json"), (".json", ".jpg")])
def test_another_dataset_is_one_problem(tmp_path, form, suffix, other):
    path = tmp_path / "sa_000000.tar"
    make.write_tar(path, {name: data for name, data in FILES.items() if name.endswith(suffix)})
    path.write_bytes(form(path.read_bytes()))
    for found, problems in read_each_way(path):
        assert found == []
        assert list(map(str, problems)) == [
            f"sa_000000.tar: it holds 3 {suffix} and not one {other}, so it is not SA-1B's: other"
            " datasets use the same file names"
        ]


def test_a_real_but_enormous_member_is_not_read(tmp_path):
    """A sparse file on disk, so that the tar really is as large as it claims."""
    path = tmp_path / "sa_000000.tar"
    with path.open("wb") as file:
        file.write(special("./sa_1.json", tarfile.REGTYPE, 2**32))
        file.seek(2**32, 1)
        file.write(bytes(1024))
    with pytest.raises(BadInput, match="4294967296 bytes are over the limit of 16777216"):
        read(tmp_path)


def spoil_link(path):
    path.unlink()
    path.symlink_to("nowhere.jpg")


def spoil_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def spoil_folder(path):
    path.unlink()
    path.mkdir()


def spoil_pipe(path):
    path.unlink()
    os.mkfifo(path)


SPOILS = {
    "link": (spoil_link, "it cannot be read: No such file or directory"),
    "loop": (spoil_loop, "it cannot be read: Too many levels of symbolic links"),
    "folder": (spoil_folder, "it is not a regular file"),
    "pipe": (spoil_pipe, "it is not a regular file"),
}


@pytest.fixture
def extracted(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("suffix", [".jpg", ".json"])
@pytest.mark.parametrize("spoil", SPOILS)
def test_a_bad_extracted_file_costs_its_own_image_only(extracted, spoil, suffix):
    make_bad, reason = SPOILS[spoil]
    make_bad(extracted / f"sa_2{suffix}")
    [found] = archive.find_archives(extracted)
    assert found.identity()["files"] in (5, 6)
    problems = Problems("skip")
    assert read(extracted, problems).keys() == {"sa_1.jpg", "sa_3.jpg"}
    assert str(problems.found[0]) == f".: {extracted}/sa_2{suffix}: {reason}"
    with pytest.raises(BadInput, match=rf"sa_2{suffix}: {reason}"):
        read(extracted)


def test_an_extracted_file_that_may_not_be_read_is_named(extracted, monkeypatch):
    access = os.access  # root may read all
    monkeypatch.setattr(os, "access", lambda path, mode: "sa_2.jpg" not in path and access(path, 4))
    problems = Problems("skip")
    assert read(extracted, problems).keys() == {"sa_1.jpg", "sa_3.jpg"}
    assert str(problems.found[0]).endswith("/sa_2.jpg: it cannot be read: Permission denied")


def test_a_file_that_vanishes_costs_its_own_image_only(extracted):
    [found] = archive.find_archives(extracted)
    problems = Problems("skip")
    entries = found.index(problems)
    (extracted / "sa_2.json").unlink()
    assert len(list(found.read(entries, problems))) == 2
    assert str(problems.found[0]).endswith(
        "/sa_2.json: it cannot be read: No such file or directory"
    )
    with pytest.raises(BadInput, match=r"sa_2\.json: it cannot be read"):
        list(found.read(entries, Problems()))


def test_the_identity_of_extracted_files_has_all_of_them(extracted):
    (found,) = archive.find_archives(extracted)
    paths = sorted(extracted.iterdir())
    for time, path in enumerate(paths, start=1_600_000_000):
        os.utime(path, (time, time))
    size = sum(path.stat().st_size for path in paths)
    expected = {"files": 6, "bytes": size, "modified": 1_600_000_005}
    assert found.identity() == expected
    os.utime(paths[0], (1_700_000_000, 1_700_000_000))
    assert found.identity() == {**expected, "modified": 1_700_000_000}


def test_a_full_table_of_open_files_is_no_fault_of_an_image(extracted, monkeypatch):
    [found] = archive.find_archives(extracted)
    entries = found.index(Problems())

    def fail(path):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ranges, "read", fail)
    with pytest.raises(OSError, match="Too many open files"):
        list(found.read(entries, Problems("skip")))


def test_a_subfolder_that_may_not_be_read_is_left_out(extracted, monkeypatch, caplog):
    (extracted / "lost+found").mkdir()
    path_type = type(epath.Path("x"))
    iterdir = path_type.iterdir

    def refuse(path):
        if path.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(path_type, "iterdir", refuse)
    assert read(extracted) == EXPECTED
    assert caplog.messages == [f"{extracted}/lost+found is left out: Permission denied."]


@pytest.mark.parametrize("kind", ["tar", "files"])
def test_an_owner_without_a_name_is_no_obstacle(extracted, monkeypatch, kind):
    if kind == "tar":
        make.write_tar(extracted / "sa_000000.tar", FILES)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as in a container, or on a shared disk
    [found] = archive.find_archives(extracted)
    assert found.identity() is not None
    assert read(extracted) == EXPECTED


def test_an_enormous_extracted_file_is_not_read(tmp_path):
    (tmp_path / "sa_1.jpg").write_bytes(b"")
    with (tmp_path / "sa_1.json").open("wb") as file:
        file.truncate(2**32)
    with pytest.raises(BadInput, match="4294967296 bytes are over the limit"):
        read(tmp_path)


def test_memory_is_that_of_a_pair_whatever_the_size_of_the_tar(tmp_path):
    files = {f"./sa_{i}.{kind}": bytes(2**20) for i in range(20) for kind in ("jpg", "json")}
    files |= {f"./sa_{i}.{kind}": b"" for i in range(20, 1000) for kind in ("jpg", "json")}
    make.write_tar(tmp_path / "sa_000000.tar", files)
    (found,) = archive.find_archives(tmp_path)
    tracemalloc.start()
    assert sum(1 for _ in found.pairs(Problems())) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20  # two pairs of 2 MiB, and an index of 1000 images


def test_pairs_come_in_the_order_in_which_they_become_whole(tmp_path, form):
    make.write_tar(tmp_path / "sa_000000.tar", FILES, seed=5)
    with tarfile.open(tmp_path / "sa_000000.tar") as tar:
        stems = [name.rpartition(".")[0] for name in tar.getnames()]
    expected = [stem for i, stem in enumerate(stems) if stem in stems[:i]]
    (tmp_path / "sa_000000.tar").write_bytes(form((tmp_path / "sa_000000.tar").read_bytes()))
    (found,) = archive.find_archives(tmp_path)
    assert [pair.jpeg_name for pair in found.pairs(Problems())] == [f"{s}.jpg" for s in expected]
    assert [entry.jpeg.name for entry in found.index(Problems())] == [f"{s}.jpg" for s in expected]


def test_on_error_is_checked():
    with pytest.raises(ValueError, match="must be 'raise' or 'skip', got 'ignore'"):
        Problems("ignore")


@pytest.mark.parametrize("cut", np.linspace(1, len(WHOLE) - 1025, 40, dtype=int))
def test_a_tar_torn_anywhere_is_never_taken_for_whole(tmp_path, form, cut):
    (tmp_path / "sa_000000.tar").write_bytes(form(WHOLE[:cut]))
    with pytest.raises(BadInput, match=r"sa_000000\.tar: .*torn"):
        read(tmp_path)


def test_a_tar_that_goes_while_it_is_looked_at_is_not_there(tmp_path, monkeypatch):
    """A build deletes a finished tar while its reporter asks how large that is."""
    tar = building.write_tars(tmp_path, tars=1) / "sa_000000.tar"
    exists = type(epath.Path(tar)).exists

    def deleted_after(path):
        found = exists(path)
        tar.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(type(epath.Path(tar)), "exists", deleted_after)
    assert archive.identity_of(epath.Path(tar)) == {
        "bytes": tar.stat().st_size,
        "modified": int(tar.stat().st_mtime),
    }
    tar.unlink()
    assert archive.identity_of(epath.Path(tar)) is None
    assert archive.identity_of(epath.Path(tar / "below")) is None
