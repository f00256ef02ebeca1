"""What a tar's name says: which tar it is, and whether it is one."""

import pytest

from sa1b_tfds.tars import names


@pytest.mark.parametrize(
    ("name", "stem", "number", "is_tar", "is_sa1b"),
    [
        ("sa_000020.tar", "sa_000020", 20, True, True),
        ("sa_000020.tar.gz", "sa_000020", 20, True, True),
        ("sa_000020.tgz", "sa_000020", 20, True, True),
        ("sa_20.tar", "sa_20", 20, True, False),
        ("sa_1234567.tar", "sa_1234567", 1234567, True, False),
        (f"sa_{'9' * 19}.tar", f"sa_{'9' * 19}", None, True, False),
        (f"sa_{'9' * 5000}.tar", f"sa_{'9' * 5000}", None, True, False),
        ("sa_own.tgz", "sa_own", None, True, False),
        ("sa_000020_a.tar", "sa_000020_a", None, True, False),
        ("sa_co_gold.tar", "sa_co_gold", None, False, False),
        ("sa_co_gold.tar.gz", "sa_co_gold", None, False, False),
        ("sa_images_ids.txt", "sa_images_ids.txt", None, False, False),
        ("sa_000020", "sa_000020", None, False, False),
        ("sa_000020.gz", "sa_000020.gz", None, False, False),
        ("sa_000020.tar.part", "sa_000020.tar.part", None, False, False),
        ("sa_000020.tar\n", "sa_000020.tar\n", None, False, False),
        ("000020.tar", "000020", None, False, False),
    ],
)
def test_a_name_says_which_tar_it_is(name, stem, number, is_tar, is_sa1b):
    assert names.tar_stem(name) == stem
    assert names.tar_number(name) == number
    assert names.is_tar_name(name) == is_tar
    assert names.is_sa1b_name(name) == is_sa1b


def test_the_name_of_a_number_has_that_number():
    assert names.tar_number(names.tar_name(20)) == 20
    assert names.is_sa1b_name(names.tar_name(999))
