from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.image_ids import ImageIds

ids = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9)


@given(st.lists(st.lists(ids, max_size=8), max_size=5))
def test_finds_the_archive_of_every_id_that_was_before(archives):
    seen, expected = ImageIds(), {}
    for number, image_ids in enumerate(archives):
        for image_id in image_ids:
            assert seen.add(image_id, f"tar {number}") == expected.get(image_id)
            expected.setdefault(image_id, f"tar {number}")
