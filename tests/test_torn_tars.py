"""Tars that are not whole, in a folder with one that is: each reader names them and reads on."""

import logging
import re
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sa1b_tfds
from dummy_data import make
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.download.check import check_file
from sa1b_tfds.download.unpack import unpack
from sa1b_tfds.download.verify import verify_folder
from sa1b_tfds.examples.parts import find_parts, index_parts
from sa1b_tfds.export import Coco, ExportConfig, export
from sa1b_tfds.segment_anything.build import build
from sa1b_tfds.segment_anything.build_config import BuildConfig
from sa1b_tfds.stats import statistics_of
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.tars.index import count_pairs, index_archive
from tests import building
from tests.test_tars_archive import (
    ENDS,
    HALF,
    OF_ENDS,
    WHOLE,
    pax,
    read_each_way,
    special,
    streamed,
    tar_of,
)

pytestmark = pytest.mark.usefixtures("threads")

TYPES = {
    "file": tarfile.REGTYPE,
    "link": tarfile.SYMTYPE,
    "unknown": b"Z",
    "long name": tarfile.GNUTYPE_LONGNAME,
    "long link": tarfile.GNUTYPE_LONGLINK,
    "pax": tarfile.XHDTYPE,
    "global pax": tarfile.XGLTYPE,
}

# By name: a plain tar, and what is said of it.
BAD = {name: (ENDS[name], OF_ENDS[name]) for name in ("zeros over a header", "two tars joined")}
BAD["zeros in place of the second half"] = WHOLE[:HALF] + bytes(30_000), "more than end a tar"
BAD["unfinished"] = WHOLE, "aria2 has not finished downloading it"
BAD["long link of 2 ** 63"] = (
    tar_of(special("x", tarfile.GNUTYPE_LONGLINK, 2**63)),
    "the tar is torn here",
)
BAD["size of 5,000 digits"] = (
    tar_of(pax(b"size=" + b"9" * 5000), special("sa_4.jpg", tarfile.REGTYPE)),
    "a size of 99999999999999999999",
)
NAMES = {name: f"sa_{number:06d}.tar" for number, name in enumerate(BAD, start=1)}


@pytest.fixture(params=["plain", "gzip"])
def folder(tmp_path, request):
    """A folder with all of them, and with sa_000000.tar, which is whole."""
    form = building.pack if request.param == "gzip" else bytes
    folder = tmp_path / "tars"
    folder.mkdir()
    make.write_tar(folder / "sa_000000.tar", make.files_of(0))
    for name, (data, _) in BAD.items():
        (folder / NAMES[name]).write_bytes(form(data))
    (folder / f"{NAMES['unfinished']}.aria2").write_bytes(b"\0\1")
    return folder


def of_verify(folder, out):
    return [
        f"{r.name}: {r.status}: {reason}" for r in verify_folder(folder) for reason in r.reasons
    ]


def of_deep_verify(folder, out):
    reports = verify_folder(folder, deep=True, workers=1)
    return [f"{r.name}: {r.status}: {reason}" for r in reports for reason in r.reasons]


def of_a_download(folder, out):
    said = {path.name: check_file(path, path.name, None, None) for path in folder.glob("*.tar")}
    return [f"{name}: {problem}" for name, problem in said.items() if problem]


def of_build(folder, out):
    report = build(BuildConfig(tars=folder, data_dir=out, on_error="skip", workers=1))
    assert report["images"]["sa_000000.tar"] == 1
    return [f"{p['archive']}: {p['member']}: {p['reason']}" for p in report["skipped"]]


def of_stats(folder, out):
    statistics = statistics_of(folder, workers=1)
    assert "sa_000000.tar" in {part for part, _ in statistics.keys}
    return [f"{p.part}: {p.member}: {p.reason}" for p in statistics.problems.first]


def of_export(folder, out):
    config = ExportConfig(
        source=folder, output=out / "coco", format=Coco(), on_error="skip", workers=1
    )
    return list(map(str, export(config).skipped))


def of_torch(folder, out):
    problems = Problems("skip")
    assert index_parts(find_parts(folder), problems)[0].count() == 1
    return list(map(str, problems.found))


@pytest.mark.parametrize(
    "read",
    [of_verify, of_deep_verify, of_a_download, of_build, of_stats, of_export, of_torch],
    ids=lambda read: read.__name__,
)
def test_each_reader_names_what_is_torn_and_goes_on(folder, tmp_path, read):
    said = read(folder, tmp_path / "out")
    for name, (_, reason) in BAD.items():
        assert [text for text in said if NAMES[name] in text and reason in text], (name, said)
    assert not [text for text in said if text.startswith("sa_000000.tar")]


def test_read_tars_names_what_is_torn_and_goes_on(folder, caplog):
    caplog.set_level(logging.WARNING)
    dataset = sa1b_tfds.read_tars(folder, on_error="skip", num_workers=1)
    assert 0 in [int(element["image_id"]) for element in dataset]
    for name, (_, reason) in BAD.items():
        assert [text for text in caplog.messages if NAMES[name] in text and reason in text]


def test_unpack_names_what_is_torn_and_goes_on(folder):
    if not TarArchive(folder / NAMES["unfinished"]).is_packed():
        return  # it makes nothing of them
    said = {result.name: result.reason for result in unpack([folder], workers=1)}
    for name, (_, reason) in BAD.items():
        assert reason in said[NAMES[name]]
    assert (folder / f"{NAMES['unfinished']}.aria2").exists()


@pytest.mark.parametrize(
    ("state", "program"),
    [(".aria2", "aria2"), (".st", "axel"), (".lftp-pget-status", "lftp")],
)
def test_a_tar_with_a_state_file_beside_it_is_unfinished(tmp_path, state, program):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(WHOLE)
    tar = TarArchive(path)
    assert len(index_archive(tar)) == count_pairs(tar) == 3  # and the index is kept
    (tmp_path / f"sa_000000.tar{state}").touch()
    for read in (tar.index, lambda p: list(tar.pairs(p)), lambda p: index_archive(tar, p)):
        with pytest.raises(TornArchive, match=f"^sa_000000.tar: {program} has not finished"):
            read(Problems())
    assert count_pairs(tar) == 0
    (tmp_path / f"sa_000000.tar{state}").unlink()
    assert len(index_archive(tar)) == 3


@pytest.mark.parametrize("size", [2**35, 2**45, 2**62, 2**63, 2**64, 2**87])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("form", [bytes, building.pack])
def test_a_size_is_bounded_before_it_is_used(tmp_path, form, kind, size):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(form(tar_of(special("x.txt", TYPES[kind], size), b"x" * 512)))
    for found, problems in read_each_way(path):
        assert len(found) == 3
        assert isinstance(problems[-1], TornArchive)
        assert problems[-1].archive == "sa_000000.tar"


@pytest.mark.parametrize("digits", [19, 20, 4_299, 4_301, 100_000])
@pytest.mark.parametrize("form", [bytes, building.pack])
def test_a_pax_size_of_many_digits_is_a_torn_tar(tmp_path, form, digits):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(form(tar_of(pax(b"size=" + b"9" * digits), special("sa_4.txt", b"0"))))
    for found, [problem] in read_each_way(path):
        assert len(found) == 3
        assert isinstance(problem, TornArchive)


BLOCKS = [at for at in range(0, len(WHOLE), 512) if WHOLE[at + 257 : at + 262] == b"ustar"]
EXTRA = [b"", pax(b"size=12"), pax(b"path=./sa_4.jpg"), special("x", b"L", 9) + bytes(512)]
NUMBERS = [b"\x80" + (2**k).to_bytes(11, "big") for k in (35, 45, 62, 63, 64, 87)]
NUMBERS += [b"\xff" * 12, b"77777777777\0", b"-1\0", b"99999999999", b"1" * 30, bytes(12)]
FIELDS = [(0, 100), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155), (512, 30)]


@st.composite
def mutated(draw):
    """FILES as a tar with one header changed, perhaps a further one before it."""
    block = draw(st.sampled_from(BLOCKS))
    data = bytearray(WHOLE[:block] + draw(st.sampled_from(EXTRA)) + WHOLE[block:])
    changes = draw(
        st.lists(st.tuples(st.sampled_from(FIELDS), st.binary(max_size=155)), max_size=2)
    )
    changes += [((124, 12), draw(st.sampled_from(NUMBERS)))] * draw(st.integers(0, 1))
    changes += [((156, 1), draw(st.sampled_from([*TYPES.values()])))] * draw(st.integers(0, 1))
    for (start, size), new in changes:
        data[block + start : block + start + len(new[:size])] = new[:size]
    if draw(st.integers(0, 4)):  # else the header is refused by its checksum
        data[block + 148 : block + 156] = b" " * 8
        data[block + 148 : block + 155] = b"%06o\0" % sum(data[block : block + 512])
    return bytes(data)


@settings(max_examples=300)
@given(mutated(), st.sampled_from([bytes, building.pack]))
def test_changed_headers_never_give_another_error(tmp_path_factory, data, form):
    path = tmp_path_factory.mktemp("mutated") / "sa_000000.tar"
    path.write_bytes(form(data))
    tar = TarArchive(path)
    for read in (
        tar.index,
        lambda problems: list(tar.pairs(problems)),
        lambda problems: list(streamed(path, problems)),
        lambda problems: list(map(index_archive(tar, problems).read, range(count_pairs(tar)))),
    ):
        skipping = Problems("skip")
        read(skipping)
        if not skipping.found:
            read(Problems())
            continue
        with pytest.raises(BadInput, match=re.escape(str(skipping.found[0]))) as error:
            read(Problems())
        assert error.value.archive == "sa_000000.tar"
