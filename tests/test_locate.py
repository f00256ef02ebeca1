"""`sa1b locate`: the tars of a list of images, and `sa1b download` of just these."""

import functools
import http.server
import io
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.cli.main import main
from sa1b_tfds.download.locate import locate
from sa1b_tfds.download.tar_list import read_tar_list
from sa1b_tfds.download.tars_of_ids import (
    FIRST_IDS,
    IDS_PER_TAR,
    NUM_TARS,
    KnownTars,
    estimate,
    joined,
    read_known,
)
from sa1b_tfds.examples.id_set import as_id_set
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.tars import index
from sa1b_tfds.tars.archive import find_archives
from sa1b_tfds.tars.members import Member
from sa1b_tfds.tars.name_ids import ids_of_entries
from sa1b_tfds.tars.names import tar_name
from sa1b_tfds.tars.pairs import Entry
from tests import building

pytestmark = pytest.mark.usefixtures("threads")

NOTHING = joined([])


def known_tars(pairs):
    ids, tars = zip(*pairs, strict=True)
    return KnownTars.of(np.array(ids), np.array(tars))


def ranges(*ids, known=NOTHING):
    first, last = estimate(np.array(ids), known)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def test_the_known_first_ids_are_at_most_15_below_the_line():
    below = [1 + number * IDS_PER_TAR - first for number, first in FIRST_IDS.items()]
    assert min(below) >= 0
    assert round(max(below), 6) <= 15
    assert NUM_TARS * IDS_PER_TAR > 11_185_362  # the images of SA-1B


@pytest.mark.parametrize(
    ("image_id", "tars"),
    [
        (1, (0, 0)),
        (11_000, (0, 1)),
        (20_000, (0, 2)),
        (156_624, (13, 13)),  # the last before tar 14
        (156_625, (14, 14)),  # tar 15 begins later
        (223_749, (19, 19)),
        (223_750, (20, 20)),
        (400_000, (34, 36)),
        (1_543_967, (136, 138)),  # about where tar 138 begins
        (11_188_000, (998, 999)),
        (11_300_000, None),
        (2**62, None),
    ],
)
def test_an_estimate_includes_the_neighbours(image_id, tars):
    [(first, last)] = ranges(image_id)
    assert ((first, last) if first <= last else None) == tars


def test_what_is_known_limits_the_estimate():
    known = known_tars([(399_000, 35), (401_000, 36), (500_000, 44), (600_000, 52)])
    assert ranges(400_000, 398_000, 399_000, known=known) == [(35, 36), (34, 35), (35, 35)]
    # Both neighbours are in one tar.
    assert ranges(700_000, known=known_tars([(699_999, 62), (700_001, 62)])) == [(62, 62)]
    # It is right where it contradicts the line, and useless where it contradicts the order.
    assert ranges(700_000, known=known_tars([(690_000, 70), (710_000, 71)])) == [(70, 71)]
    assert ranges(700_000, known=known_tars([(690_000, 70), (710_000, 60)])) == ranges(700_000)


@given(
    st.integers(0, 2**32),
    st.lists(st.integers(1, 11_180_000), min_size=1, max_size=30),
    st.data(),
)
def test_an_estimate_holds_the_tar_wherever_the_tars_begin(seed, ids, data):
    """If they begin up to 400 ids from the line, but those of the table where it says."""
    shifts = np.random.default_rng(seed).uniform(-400, 400, NUM_TARS)
    begins = 1 + np.arange(NUM_TARS) * IDS_PER_TAR + shifts
    for number, first in FIRST_IDS.items():
        begins[number] = first
    true = np.searchsorted(begins, ids, "right") - 1
    some = data.draw(st.sets(st.sampled_from(range(len(ids)))))
    known = joined([known_tars([(ids[i], true[i]) for i in some])] if some else [])
    narrow, wide = ranges(*ids, known=known), ranges(*ids)
    for i, number in enumerate(true):
        assert narrow[i][0] <= number <= narrow[i][1]
        assert wide[i][0] <= narrow[i][0]
        assert narrow[i][1] <= wide[i][1]
        if i in some:
            assert known.tar_of(np.array([ids[i]])).tolist() == [number]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("1 0\n223750,20\n", [(1, 0), (223750, 20)]),
        ("image,tar\nsa_9.jpg\tsa_000003.tar\n", [(9, 3)]),
        ("\ufeff7; sa_000001\n\n./a/sa_8.jpg , tars/sa_000002.tar.gz,\n", [(7, 1), (8, 2)]),
    ],
)
def test_a_list_of_images_and_tars(tmp_path, content, expected):
    path = tmp_path / "known.csv"
    path.write_text(content)
    known = read_known(path)
    assert list(zip(known.ids.tolist(), known.tars.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 0\n2\n", "line 2: '2' is not an image id and a tar, such as '223750 sa_000020.tar'"),
        ("1\n", "line 1: '1' is not an image id and a tar"),
        ("image tar\n1 x\n", "line 2: '1 x' is not"),
        ("a b\nc d\n", "line 2: 'c d' is not"),
        ("1 0 0\n", "line 1: '1 0 0' is not"),
        ("1 1234567\n", "line 1"),
        ("image tar\n", "known.csv holds no image id and its tar"),
    ],
)
def test_what_is_no_image_and_tar_is_named(tmp_path, content, message):
    path = tmp_path / "known.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_known(path)


@given(
    st.lists(
        st.one_of(
            st.integers(0, 10**18 - 1).map(lambda n: (f"sa_{n}", n)),
            st.integers(0, 10**9).map(lambda n: (f"sa_00{n}", n)),
            st.sampled_from(
                ["sa_", "sa_x1", "sa_1x", "sa_-1", "sa_1 ", "sa_é", "sa_" + "1" * 19]
            ).map(lambda name: (name, -1)),
        ),
        max_size=20,
    )
)
def test_the_ids_in_names(named):
    entries = [
        Entry(Member(f"./{name}.jpg", 1, 0), Member(f"./{name}.json", 1, 0)) for name, _ in named
    ]
    assert ids_of_entries(entries).tolist() == [image_id for _, image_id in named]


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Images 0 to 7 in the tars 0 and 1; and 223,760 to 223,763 in the tar 20."""
    folder = building.write_tars(tmp_path_factory.mktemp("tars"), tars=2)
    files = {}
    for image_id in range(223_760, 223_764):
        files |= building.make.files_of(image_id)
    building.make.write_tar(folder / "sa_000020.tar", files)
    return folder


@pytest.mark.parametrize("form", building.FORMS)
def test_tars_that_are_there_say_it_exactly(tars, form):
    archives = find_archives(building.FORMS[form](tars))
    found = locate(as_id_set([1, 2, 7, 223_760]), archives)
    assert found.indexed == {"sa_000000.tar": 2, "sa_000001.tar": 1, "sa_000020.tar": 1}
    assert (found.estimated, list(found.missing), found.names) == (0, [], sorted(found.indexed))
    # Between images of a tar that is there, and not in it: in no tar. Else it is in another one.
    found = locate(as_id_set([223_770, 400_000, 223_750]), archives)
    assert (found.indexed, found.estimated) == ({}, 2)
    assert found.may_hold == ["sa_000021.tar", "sa_000034.tar", "sa_000035.tar", "sa_000036.tar"]
    assert found.missing.tolist() == [223_750]
    inside = locate(as_id_set([223_761]), find_archives(tars))
    assert inside.indexed == {"sa_000020.tar": 1}


def test_a_tar_that_the_estimate_does_not_name_is_indexed_only_if_it_is_needed(
    tmp_path, monkeypatch
):
    tars = building.write_tars(tmp_path / "tars", tars=1)
    (tars / "sa_000000.tar").rename(tars / "sa_000500.tar")
    building.write_tars(tars, tars=2)
    beside = tars / ".sa_000500.tar.index"
    locate(as_id_set([1, 5]), find_archives(tars))
    assert not beside.exists()
    (tars / "sa_000000.tar").unlink()
    (tars / "sa_000001.tar").unlink()
    # The estimate is wrong about tars that somebody has made himself.
    building.make.write_tar(tars / "sa_000001.tar", building.make.files_of(3))
    building.make.write_tar(tars / "sa_000000.tar", building.make.files_of(2))
    found = locate(as_id_set([1, 2, 3]), find_archives(tars))
    assert found.indexed == {"sa_000000.tar": 1, "sa_000001.tar": 1, "sa_000500.tar": 1}
    assert beside.exists()
    assert index.kept_count(find_archives(tars)[2]) == 4


def test_a_list_of_the_user_is_exact_unless_an_index_knows_better(tars):
    known = known_tars([(1, 0), (400_000, 36), (5, 20)])
    found = locate(as_id_set([1, 400_000, 5]), (), known)
    assert found.listed == {"sa_000000.tar": 1, "sa_000020.tar": 1, "sa_000036.tar": 1}
    found = locate(as_id_set([1, 400_000, 5]), find_archives(tars), known)
    assert found.indexed == {"sa_000000.tar": 1, "sa_000001.tar": 1}
    assert found.listed == {"sa_000036.tar": 1}


def test_tars_without_a_link_are_left_out(tars):
    links = ["sa_000034.tar", "sa_000014.tar"]
    found = locate(as_id_set([1, 160_000, 400_000, 700_000]), find_archives(tars), linked=links)
    assert found.names == ["sa_000000.tar", "sa_000014.tar", "sa_000034.tar"]
    assert found.without_link.tolist() == [700_000]
    known = known_tars([(160_000, 14), (700_000, 62)])
    found = locate(as_id_set([160_000, 700_000]), (), known, links)
    assert (found.listed, found.without_link.tolist()) == ({"sa_000014.tar": 1}, [700_000])


def test_millions_of_ids():
    ids = np.arange(1, 11_188_200, 11)
    found = locate(as_id_set(ids))
    assert found.names == [tar_name(number) for number in range(NUM_TARS)]
    assert found.estimated == len(ids)
    assert not len(found.missing)


def _locate(capsys, *arguments):
    code = main(["locate", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out.split(), printed.err


def test_the_command_says_what_is_exact_and_what_is_not(tars, tmp_path, capsys):
    ids, known, links = (tmp_path / name for name in ("ids.txt", "known.csv", "links.txt"))
    ids.write_text("1\nsa_5.jpg\n160000\n400000\n700000\n")
    known.write_text("400000 sa_000036.tar\n")
    code, out, err = _locate(capsys, ids, "--tars", tars, "--known", known)
    assert code == 0
    assert out == ["sa_000000.tar", "sa_000001.tar", "sa_000014.tar", "sa_000036.tar"] + [
        f"sa_0000{number}.tar" for number in (61, 62, 63)
    ]
    assert "exact: 2 of 5 images in 2 tars (sa_000000.tar, sa_000001.tar), by their indexes" in err
    assert f"exact: 1 of 5 images in 1 tar (sa_000036.tar), by {known}" in err
    assert "estimate: 2 of 5 images may be in 4 tars (sa_000014.tar, sa_000061.tar, sa" in err
    assert "by the order of ids, neighbours included" in err
    links.write_text("file_name\tcdn_link\nsa_000014.tar\thttps://x.y/z\n")
    code, out, err = _locate(capsys, ids, "--links-file", links)
    assert (code, out) == (1, ["sa_000014.tar"])
    assert "without a link: the tars of 4 of 5 images: 1, 5, 400000 and 1 more" in err
    ids.write_text("1\n99999999\n")
    code, out, err = _locate(capsys, ids)
    assert (code, out) == (1, ["sa_000000.tar"])
    assert "in no tar: 1 of 2 images: 99999999" in err
    assert _locate(capsys, ids, "--missing-ids", "skip")[:2] == (0, out)
    ids.write_text("99999999\n")
    assert _locate(capsys, ids, "--missing-ids", "skip")[:2] == (1, [])


def test_what_is_wrong_in_the_tars_is_said(tmp_path, capsys):
    folder, ids = tmp_path / "tars", tmp_path / "ids.txt"
    building.write_tars(folder, tars=1)
    (folder / "sa_000001.tar").write_bytes(b"x" * 999)
    jpeg, _ = building.make.draw(0, 24, 32, 1)
    building.make.write_tar(folder / "sa_own.tar", {"./sa_a.jpg": jpeg, "./sa_a.json": b"{}"})
    ids.write_text("1\n100\n")
    code, out, err = _locate(capsys, ids, "--tars", folder)
    # What is in the other part of a torn tar is not known.
    assert (code, out) == (0, ["sa_000000.tar", "sa_000001.tar"])
    assert "sa1b locate: sa_000001.tar: " in err
    assert f"not looked at: 1 image in {folder} without an id in the name" in err
    (tmp_path / "empty").mkdir()
    for folder, reason in (("empty", "holds neither tars nor extracted files"), ("no", "neither")):
        code, _, err = _locate(capsys, ids, "--tars", tmp_path / folder)
        assert code == 1
        assert reason in err


@pytest.fixture
def links(tars, tmp_path, monkeypatch):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tars))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "links.txt"
    path.write_text(
        "".join(
            f"{tar.name}\thttp://127.0.0.1:{server.server_port}/{tar.name}\n"
            for tar in sorted(tars.glob("*.tar"))
        )
    )
    # The community's table knows the real tars of these names.
    monkeypatch.setattr("sa1b_tfds.download.transfer.jobs.read_md5_table", dict)
    yield path
    server.shutdown()
    server.server_close()


def test_locate_then_download_then_build(tars, links, tmp_path, capsys, monkeypatch):
    ids, listed, some = (tmp_path / name for name in ("ids.txt", "tars.txt", "some"))
    ids.write_text("223760\n223762\n")
    code, out, _ = _locate(capsys, ids, "--links-file", links)
    assert (code, out) == (0, ["sa_000020.tar"])
    listed.write_text("\n".join(out) + "\n")
    download = ["download", "--links-file", str(links), "--output-dir", str(some), "--tars-from"]
    assert main([*download, str(listed)]) == 0
    assert [path.name for path in some.glob("*.tar")] == ["sa_000020.tar"]
    data = tmp_path / "data"
    assert main(["build", str(some), "--data-dir", str(data), "--ids", str(ids)]) == 0
    images = [
        example.image_id for example in read_examples(data / "segment_anything/original_ids/2.0.0")
    ]
    assert sorted(images) == [223_760, 223_762]
    monkeypatch.setattr("sys.stdin", io.StringIO("sa_000000.tar\n\nsa_000020.tar\n"))
    assert main([*download, "-"]) == 0
    assert sorted(path.name for path in some.glob("*.tar")) == ["sa_000000.tar", "sa_000020.tar"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "tars.txt holds no name of a tar, such as sa_000020.tar"),
        ("sa_000001.tar\n12\n", "tars.txt: line 2: '12' is not the name of a tar"),
        ("a/sa_000001.tar\n", "line 1: 'a/sa_000001.tar' is not the name of a tar"),
    ],
)
def test_a_list_of_tars_that_is_none_is_refused(tmp_path, links, content, message, capsys):
    path = tmp_path / "tars.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_tar_list(str(path))
    download = ["download", "--links-file", str(links), "--output-dir", str(tmp_path)]
    for options in (["--tars-from", str(path)], ["--tars-from", "x", "--names", "y"]):
        with pytest.raises(SystemExit, match="2"):
            main([*download, *options])
    assert "Choose tars by --names or by --tars-from, not by both" in capsys.readouterr().err
