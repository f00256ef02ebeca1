"""Numbers and names as people read them."""

import pytest

from sa1b_tfds.cli import table
from sa1b_tfds.core import text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (59.0, "59 s"),
        (90, "1.5 min"),
        (3600, "1.0 h"),
        (360_000, "100.0 h"),
    ],
)
def test_a_duration(seconds, said):
    assert text.format_duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (11.3e9, "11.3 GB"),
        (1e13, "10.0 TB"),
    ],
)
def test_bytes(count, said):
    assert text.format_bytes(count) == said


@pytest.mark.parametrize(
    ("texts", "said"),
    [("", ""), ("a", "a"), ("abc", "a, b, c"), ("abcde", "a, b, c and 2 more")],
)
def test_the_first_few(texts, said):
    assert text.first_few(list(texts)) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 tars"), (1, "1 tar"), (2, "2 tars"), (1000, "1,000 tars")]
)
def test_a_number_of_things(number, said):
    assert text.counted(number, "tar") == said


def test_a_plural_of_its_own():
    assert text.counted(1, "retry", "retries") == "1 retry"
    assert text.counted(2, "retry", "retries") == "2 retries"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "-"),
        (0, "0"),
        (3.7621e-05, "0.00003762"),
        (0.98765, "0.9877"),
        (9999.9, "10000"),
        (12345.6, "12,346"),
    ],
)
def test_a_number_of_a_table(value, said):
    assert table.number(value) == said


def test_a_name_is_not_said_twice():
    assert text.with_name("a.tar", "broken") == "a.tar: broken"
    assert text.with_name("a.tar", "a.tar: broken") == "a.tar: broken"
