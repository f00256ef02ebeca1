"""Sets of image ids: what they are made of, and which ids they hold."""

import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.examples.id_set import IdSet, MissingIds, as_id_set, check_missing

IDS = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("3\n1\n2\n", [1, 2, 3]),
        ("7", [7]),
        ("1\r\n\r\n  2  \r\n1\r\n", [1, 2]),
        ("\ufeff5\n6\n", [5, 6]),
        ("sa_1.jpg\nsa_0012.json\n./a b/sa_30.npy\nC:\\x\\sa_4.jpg\nsa_5\n6.jpg\n7\n", None),
        ("9223372036854775807\n0\n", [0, 2**63 - 1]),
        ("[1, 2, 1]", [1, 2]),
        ('\n ["sa_1.jpg", 2, "sa_000000/sa_3.jpg"]', [1, 2, 3]),
    ],
    ids=repr,
)
def test_a_file_of_ids(tmp_path, content, expected):
    path = tmp_path / "ids.txt"
    path.write_bytes(content.encode())
    found = as_id_set(path)
    assert found.ids.tolist() == (expected or [1, 4, 5, 6, 7, 12, 30])
    assert found.ids.dtype == np.int64
    assert as_id_set(str(path)).fingerprint == found.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\nthree\n", "ids.txt: line 3: 'three' is not an image id, which is a number such"),
        ("sa_1.jpg\n\n-4\n", "line 3: '-4' is not an image id"),
        ("-4\n", "line 1: '-4' is not an image id"),
        ("1 2\n", "line 1: '1 2' is not an image id"),
        ("sa_000020.tar\n", "line 1: 'sa_000020.tar' is not an image id"),
        ("sa_000020.tar.gz\n", "'sa_000020.tar.gz' is not an image id"),
        ("9223372036854775808\n", "'9223372036854775808' is not an image id"),
        ("\x1b[2J\n", r"line 1: '\[2J' is not an image id"),
        ("", "ids.txt: it holds no image id"),
        ("\n\n", "it holds no image id"),
        ("[]", "it holds no image id"),
        ("[1, 2", "ids.txt: it begins as a JSON list, but is not JSON"),
        ("[1, 2.5]", "item 1: '2.5' is not an image id"),
        ("[true]", "item 0: 'True' is not an image id"),
        ('[["1"]]', "item 0: .* is not an image id"),
    ],
    ids=repr,
)
def test_what_is_no_id_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "ids.txt"
    path.write_bytes(content.encode())
    with pytest.raises(ValueError, match=message):
        as_id_set(path)


def test_a_line_far_into_a_file_is_named_by_its_number(tmp_path, monkeypatch):
    monkeypatch.setattr("sa1b_tfds.examples.id_set._LINES", 3)
    path = tmp_path / "ids.txt"
    path.write_text("".join(f"{i}\n" for i in range(10)))
    assert as_id_set(path).ids.tolist() == list(range(10))
    path.write_text("0\n1\n2\n3\nfour\n")
    with pytest.raises(ValueError, match=r"line 5: 'four'"):
        as_id_set(path)


def test_ids_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no ids.txt is
    values = [3, "sa_1.jpg", pathlib.Path("a/sa_2.jpg"), np.int64(3)]
    assert as_id_set(values).ids.tolist() == [1, 2, 3]
    assert as_id_set(iter(range(3))).ids.tolist() == [0, 1, 2]
    assert as_id_set(np.array([5, 4], np.int32)).ids.tolist() == [4, 5]
    assert as_id_set(made := as_id_set([1])) is made
    for bad in ([], [-1], [1.0], [True], [None], np.array([1.5]), np.array([-1]), [b"1"]):
        with pytest.raises(ValueError, match=r"is not an image id|holds no image id"):
            as_id_set(bad)
    with pytest.raises(FileNotFoundError, match=r"ids\.txt is not there: name a file with image"):
        as_id_set("ids.txt")


@given(st.sets(IDS, min_size=1), st.sets(IDS, max_size=20), st.data())
def test_a_set_holds_its_ids_and_no_others(ids, others, data):
    found = as_id_set(data.draw(st.permutations(sorted(ids))))
    asked = sorted(others | set(data.draw(st.lists(st.sampled_from(sorted(ids))))))
    array = np.array(asked, np.int64)
    assert found.has(array).tolist() == [image_id in ids for image_id in asked]
    assert found.not_in(array).tolist() == sorted(ids - set(asked))
    again = IdSet.from_bytes(found.to_bytes())
    assert again.ids.tolist() == sorted(ids)
    assert again.fingerprint == found.fingerprint
    assert (as_id_set({*ids, *asked}).fingerprint == found.fingerprint) == (set(asked) <= ids)


def test_missing_ids_are_counted_and_named(caplog):
    missing = np.arange(5)
    with pytest.raises(
        MissingIds, match=r"not in there: 5 of 7 \(0, 1, 2 and 2 more\)\. `sa1b locate`"
    ) as error:
        check_missing(missing, 7, "there", "raise", "--missing-ids skip")
    assert error.value.ids.tolist() == [0, 1, 2, 3, 4]
    check_missing(missing, 7, "there", "skip", "")
    assert "not in there: 5 of 7 (0, 1, 2 and 2 more). They are left out." in caplog.text
    check_missing(missing[:0], 7, "there", "raise", "")
