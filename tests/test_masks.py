import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.masks import rle, tf_decode
from sa1b_tfds.masks.runs import (
    NEGATIVE_RUN,
    OUTSIDE_ALPHABET,
    TOO_LONG,
    TRUNCATED,
    WRONG_SUM,
    MalformedRLE,
)
from tests import strategies
from tests.test_rle import encode

_INT32 = tf.TensorSpec(None, tf.int32)


@tf.function(input_signature=[tf.TensorSpec(None, tf.string), _INT32])
def decode_full(counts, size):
    return tf_decode.decode_masks(counts, size)


@tf.function(
    input_signature=[
        tf.TensorSpec(None, tf.string),
        _INT32,
        _INT32,
        _INT32,
        tf.TensorSpec(None, tf.bool),
    ]
)
def decode_all(counts, size, output_size, window, flip):
    """Every argument a tensor of unknown shape."""
    return tf_decode.decode_masks(counts, size, output_size, window, flip)


@tf.function(input_signature=[tf.TensorSpec(None, tf.string), *[tf.TensorSpec(None, tf.int64)] * 3])
def decode_sizes(counts, size=(2, 3), output_size=(2, 3), window=(0, 0, 2, 3)):
    return tf_decode.decode_masks(counts, size, output_size, window)


@given(strategies.masks())
def test_full_size(masks):
    decoded = decode_full(encode(masks), masks.shape[1:])
    assert decoded.dtype == tf.uint8
    np.testing.assert_array_equal(decoded, masks)


offsets = st.integers(-80, 80)


@given(
    strategies.masks(),
    st.tuples(strategies.sides, strategies.sides),
    st.tuples(offsets, offsets, strategies.sides, strategies.sides),
    st.booleans(),
)
def test_window_size_and_flip_compose(masks, output_size, window, flip):
    decoded = decode_all(encode(masks), masks.shape[1:], output_size, window, flip)
    expected = strategies.sample(masks, output_size, window, flip)
    np.testing.assert_array_equal(decoded, expected)


@given(
    st.lists(st.text(strategies.ALPHABET, max_size=9), max_size=3),
    st.tuples(*[strategies.sides] * 2),
)
def test_any_strings_give_what_numpy_gives(counts, size):
    strings = tf.constant(counts, tf.string)
    try:
        expected = rle.decode_rles(counts, size)
    except MalformedRLE as e:
        malformed = e
    else:
        np.testing.assert_array_equal(decode_full(strings, size), expected)
        return
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"RLE of mask \d is malformed"
    ) as error:
        decode_full(strings, size)
    if len(counts) == 1:  # of several wrong masks the two may name different ones
        # So may they where one run is negative and another one too long: both reasons are true.
        of_runs = (NEGATIVE_RUN, WRONG_SUM)
        reasons = of_runs if malformed.reason in of_runs else (malformed.reason,)
        assert any(reason in error.value.message.replace("\\'", "'") for reason in reasons)


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [
        (OUTSIDE_ALPHABET, "2/"),
        (OUTSIDE_ALPHABET, "2\x7f"),
        (TRUNCATED, ""),
        (TRUNCATED, "2P"),
        (TOO_LONG, "PPPPPP0"),
        (NEGATIVE_RUN, "21N"),
        (WRONG_SUM, "211"),
        (WRONG_SUM, "ooooo?" * 9),
    ],
)
@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize(
    "decode",
    [
        tf_decode.decode_masks,
        decode_full,
        lambda c, s: next(iter(tf.data.Dataset.from_tensors((c, s)).map(decode_full))),
    ],
    ids=["eager", "function", "tf.data"],
)
def test_malformed_names_the_first_wrong_mask(decode, index, reason, wrong):
    counts = ["6", "6", "6", "5"]
    counts[index] = wrong
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode(tf.constant(counts), tf.constant([2, 3]))
    message = error.value.message.replace("\\'", "'")
    assert f"The RLE of mask {index} is malformed: {reason}" in message


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (0, 3)},
        {"size": (2, -3)},
        {"size": (16385, 16385)},
        {"output_size": (0, 1)},
        {"window": (0, 0, 2, 0)},
        {"output_size": (-3, 4)},
        {"output_size": (2**18, 2**18)},
        {"output_size": (2**23, 2**14)},
        {"output_size": (1, 2**24)},
        {"window": (2**24, 0, 2, 3)},
        {"size": np.array([2**32 + 2, 3])},
        {"output_size": np.array([2**32 + 2, 3])},
        {"window": np.array([2**32, 0, 2, 3])},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "decode", [tf_decode.decode_masks, decode_sizes], ids=["eager", "function"]
)
def test_sizes_must_be_positive_and_bounded(decode, arguments):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not positive, or too large"):
        decode(tf.constant(["6"]), **{"size": (2, 3), **arguments})


@pytest.mark.parametrize(
    "arguments",
    [
        {"counts": "6"},
        {"size": (2, 3, 1)},
        {"window": (0, 0)},
        {"output_size": 4},
        {"size": (2.5, 3.0)},
    ],
    ids=str,
)
def test_wrong_shapes(arguments):
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="shape"):
        tf_decode.decode_masks(**{"counts": ["6"], "size": (2, 3), **arguments})


def test_largest_image():
    """16384 x 16384 with a cross in it, of which only a part and a small picture are drawn."""
    side = 16384
    column = side * (side // 2)
    runs = [column, side, column - side]
    cross = {"size": [side, side], "counts": runs}
    counts = [rle.to_rle(cross)["counts"], rle.to_rle({**cross, "counts": [0, side**2]})["counts"]]
    small = tf_decode.decode_masks(counts, (side, side), (8, 8)).numpy()
    assert not small[0].any()  # no sampled column is the middle one
    assert small[1].all()
    middle = tf_decode.decode_masks(counts, (side, side), None, (side - 2, side // 2 - 1, 4, 3))
    np.testing.assert_array_equal(middle[0], [[0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])


def test_static_shapes_are_known():
    decode = tf.function(lambda c: tf_decode.decode_masks(c, (20, 30), (5, 6)))
    spec = tf.TensorSpec([3], tf.string)
    assert decode.get_concrete_function(spec).output_shapes.as_list() == [3, 5, 6]
    decode = tf.function(lambda c: tf_decode.decode_masks(c, (20, 30), window=(0, 0, 8, 9)))
    assert decode.get_concrete_function(spec).output_shapes[0] == 3


def test_parallel_map_keeps_order():
    images = [np.eye(5, 7, k, dtype=bool)[None].repeat(k, 0) for k in range(20)]
    encoded = tf.ragged.constant([encode(m) for m in images], tf.string, ragged_rank=1)
    dataset = tf.data.Dataset.from_tensor_slices(encoded)
    dataset = dataset.map(
        lambda counts: tf_decode.decode_masks(counts, (5, 7)), num_parallel_calls=tf.data.AUTOTUNE
    )
    for decoded, expected in zip(dataset, images, strict=True):
        np.testing.assert_array_equal(decoded, expected)
