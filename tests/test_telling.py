"""What is said to people in one form everywhere."""

import pytest

from sa1b_tfds.core import telling


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (59.0, "59 s"),
        (90, "1.5 min"),
        (3600, "1.0 h"),
        (360_000, "100.0 h"),
    ],
)
def test_a_duration(seconds, text):
    assert telling.duration(seconds) == text
