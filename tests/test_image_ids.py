import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.examples.image_ids import ImageIds, fingerprint

ids = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9)


@given(st.lists(st.lists(ids, max_size=8), max_size=5))
def test_finds_the_archive_of_every_id_that_was_before(archives):
    seen, expected = ImageIds(), {}
    for number, image_ids in enumerate(archives):
        for image_id in image_ids:
            assert seen.add(image_id, f"tar {number}") == expected.get(image_id)
            expected.setdefault(image_id, f"tar {number}")


def test_what_is_excluded_was_before():
    seen = ImageIds(((3, "b"), (1, "a"), (2, "b")))
    assert [seen.add(image_id, "c") for image_id in range(4)] == [None, "a", "b", "b"]


def test_a_fingerprint_is_taken_where_fips_mode_forbids_md5(monkeypatch):
    md5 = hashlib.md5

    def of_fips_mode(data=b"", *, usedforsecurity=True):
        if usedforsecurity:
            raise ValueError("disabled for FIPS")
        return md5(data)

    monkeypatch.setattr(hashlib, "md5", of_fips_mode)
    with pytest.raises(ValueError, match="FIPS"):
        hashlib.md5(b"")
    prints = {fingerprint(excluded) for excluded in (((1, "a"),), ((1, "b"),), ((2, "a"),))}
    assert len(prints) == 3
    assert fingerprint(()) is None
