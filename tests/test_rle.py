import pickle
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sa1b_tfds.masks import rle
from sa1b_tfds.masks.runs import (
    NEGATIVE_RUN,
    OUTSIDE_ALPHABET,
    TOO_LONG,
    TRUNCATED,
    WRONG_SUM,
    MalformedRLE,
    run_lengths,
)
from tests import strategies


def encode(masks):
    return [coco_mask.encode(np.asfortranarray(m, dtype=np.uint8))["counts"] for m in masks]


@given(strategies.masks())
def test_one_mask_agrees_with_pycocotools(masks):
    for mask, counts in zip(masks, encode(masks), strict=True):
        encoded = rle.encode_mask(mask)
        assert encoded == {"size": list(mask.shape), "counts": counts}
        np.testing.assert_array_equal(rle.decode_rle(encoded), mask)
        assert rle.area(encoded) == coco_mask.area(encoded)
        box = coco_mask.toBbox(encoded)
        box[2:] -= mask.any()  # SA-1B's boxes are over inclusive pixels
        assert rle.bbox(encoded) == box.tolist()


@given(strategies.masks(), strategies.sides, strategies.sides)
def test_decode_rles_samples_the_full_mask(masks, height, width):
    decoded = rle.decode_rles(encode(masks), masks.shape[1:], (height, width))
    np.testing.assert_array_equal(decoded, strategies.sample(masks, (height, width)))
    np.testing.assert_array_equal(rle.decode_rles(encode(masks), masks.shape[1:]), masks)


@given(st.text(strategies.ALPHABET, min_size=1, max_size=12), strategies.sides, strategies.sides)
def test_any_string_gives_the_mask_or_an_error(counts, height, width):
    """What is accepted is what pycocotools decodes; only then may pycocotools see it."""
    try:
        runs = run_lengths([counts], (height, width)).lengths
    except MalformedRLE:
        return
    pixels = np.repeat(np.arange(len(runs)) % 2, runs)
    np.testing.assert_array_equal(
        coco_mask.decode({"size": [height, width], "counts": counts}),
        pixels.reshape(width, height).T,
    )


def test_run_lengths_undoes_the_differences():
    lengths = [3, 2, 500, 7, 40_000, 1, 0, 90_000]
    size = (1, sum(lengths))
    counts = coco_mask.frPyObjects({"size": list(size), "counts": lengths}, *size)["counts"]
    np.testing.assert_array_equal(run_lengths([counts, counts], size).lengths, lengths * 2)


MASK = np.array([[0, 1, 1], [0, 0, 1]], bool)  # column-major runs: 2, 1, 1, 2
COUNTS = encode([MASK])[0]


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [2, 3], "counts": COUNTS},
        {"size": [2, 3], "counts": COUNTS.decode()},
        {"size": (2, 3), "counts": [2, 1, 1, 2]},
        {"size": np.array([2, 3]), "counts": np.array([2, 1, 1, 2])},
        {"size": [2, 3], "counts": [2, 1, 1, 1, 0, 1]},
    ],
)
def test_accepted_forms(segmentation):
    np.testing.assert_array_equal(rle.decode_rle(segmentation, size=(2, 3)), MASK)


def test_polygons():
    square = [1, 1, 4, 1, 4, 3, 1, 3]
    far = [6, 0, 8, 0, 8, 2, 6, 2]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([square, far], 5, 9)))
    assert rle.area([square, far], (5, 9)) == expected.sum()
    assert rle.bbox([square], (5, 9)) == [1, 1, 2, 1]
    np.testing.assert_array_equal(rle.decode_rle([square, far], size=(5, 9)), expected)
    assert expected.any()


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ("", TRUNCATED),
        ("2P", TRUNCATED),
        ("2/", OUTSIDE_ALPHABET),
        ("2p", OUTSIDE_ALPHABET),
        ("2\x00", OUTSIDE_ALPHABET),
        ("2é", OUTSIDE_ALPHABET),
        ("PPPPPP0", TOO_LONG),
        ("N", NEGATIVE_RUN),
        ("2121L", NEGATIVE_RUN),
        ("5", WRONG_SUM),
        ("7", WRONG_SUM),
        ("oooooO", NEGATIVE_RUN),
        ("oooooo", TRUNCATED),
        ("ooooo?", WRONG_SUM),
        ("ooooo?" * 9, WRONG_SUM),
    ],
)
def test_malformed(counts, reason):
    with pytest.raises(MalformedRLE) as error:
        run_lengths([COUNTS, COUNTS.decode(), counts], (2, 3))
    assert (error.value.index, error.value.reason) == (2, reason)
    assert str(error.value) == f"The RLE of mask 2 is malformed: {reason}."
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    for function in (rle.decode_rle, rle.area, rle.bbox):
        with pytest.raises(MalformedRLE):
            function({"size": [2, 3], "counts": counts})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rle.decode_rle({"size": [2, 3]}), "needs 'size' and 'counts'"),
        (lambda: rle.decode_rle({"size": [0, 3], "counts": ""}), "two positive integers"),
        (lambda: rle.decode_rle({"size": [2.5, 3], "counts": ""}), "two positive integers"),
        (lambda: rle.decode_rle({"size": [2], "counts": ""}), "two positive integers"),
        (lambda: rle.decode_rle({"size": [2**20, 2**20], "counts": ""}), "over the limit"),
        (lambda: rle.decode_rle({"size": [2, 3], "counts": COUNTS}, (3, 2)), "disagrees with"),
        (lambda: rle.decode_rle({"size": [2, 3], "counts": [2, -1, 5]}), "negative run"),
        (lambda: rle.decode_rle({"size": [2, 3], "counts": [2, 1]}), "do not sum"),
        (lambda: rle.decode_rle({"size": [2, 3], "counts": [2**63 - 1, 2**63 - 1, 8]}), "not sum"),
        (lambda: rle.decode_rle({"size": [2, 3], "counts": [2.0, 4.0]}), "list of integers"),
        (lambda: rle.decode_rle({"size": [2, 3], "counts": None}), "list of integers"),
        (lambda: rle.decode_rle([[0, 0, 1, 1, 2, 2]]), "no size of its own"),
        (lambda: rle.decode_rle([[0, 0, 1, 1]], (2, 3)), "finite numbers"),
        (lambda: rle.decode_rle([[0, 0, 1, 1, 2, np.nan]], (2, 3)), "finite numbers"),
        (lambda: rle.decode_rle([["a"] * 6], (2, 3)), "list of polygons"),
        (lambda: rle.decode_rle([], (2, 3)), "at least one polygon"),
        (lambda: rle.decode_rle(7, (2, 3)), "list of polygons"),
        (lambda: rle.decode_rle([[0, 0, 1e9, 0, 1e9, 1e9]], (20, 30)), "far out of the image"),
        (lambda: rle.decode_rle([[0, 0, 9, 9, 0, 9] * 300], (20, 30)), "longer than the image"),
        (lambda: rle.decode_rle({"size": [np.inf, 3], "counts": "0"}), "two positive integers"),
        (lambda: run_lengths([7], (2, 3)), "strings or bytes"),
        (lambda: rle.encode_mask(np.zeros((1, 2, 3))), r"shape \[H, W\]"),
        (lambda: rle.encode_mask(np.zeros((0, 3))), "two positive integers"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_encode_mask_takes_any_number(dtype):
    mask = MASK.astype(dtype) * dtype(255)
    assert rle.encode_mask(mask)["counts"] == COUNTS


def _slow_run_lengths(text: str) -> list[int] | None:
    """The format as pycocotools' C code reads it, in Python's integers; None if it is cut off."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if group < 32:
            value -= (group & 16) << (shift - 4)
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return None if shift or not lengths else lengths


@given(
    st.lists(
        st.text("".join(map(chr, range(48, 112))), min_size=1, max_size=14),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([(1, 1), (16384, 16384), (3, 5)]),
)
@example(["?", "05:"], (3, 5))
@example(["PPPPP?" * 20 + "0"], (16384, 16384))  # sums beyond 32 bits
@example(["0ooooo?" + "ooooo?" * 15], (16384, 16384))
def test_any_text_is_read_as_pycocotools_would_or_refused(texts, size):
    read = [_slow_run_lengths(text) for text in texts]
    pixels = size[0] * size[1]
    good = all(
        lengths is not None and min(lengths) >= 0 and sum(lengths) == pixels for lengths in read
    ) and not any(re.search("[P-o]{6}", text) for text in texts)
    if good:
        assert run_lengths(texts, size).lengths.tolist() == [n for one in read for n in one]
    else:
        with pytest.raises(MalformedRLE):
            run_lengths(texts, size)
