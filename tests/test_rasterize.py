"""Masks that are drawn on the device equal those that are decoded on the host."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from sa1b_tfds.masks import tf_rasterize
from tests import strategies
from tests.test_masks import decode_all
from tests.test_rle import encode

SIZE = (24, 40)
RUNS = 300
offsets = st.integers(-80, 80)
windows = st.none() | st.tuples(offsets, offsets, strategies.sides, strategies.sides)


@given(strategies.masks(), st.tuples(strategies.sides, strategies.sides), windows, st.booleans())
@settings(max_examples=40)
def test_equals_decode_masks(masks, output_size, window, flip):
    arguments = {
        "size": masks.shape[1:],
        "output_size": output_size,
        "window": window,
        "flip": flip,
    }
    runs = tf_rasterize.pack_runs(encode(masks), max_runs=5 * 70 * 70, **arguments)
    assert runs.whole.numpy().all()
    if len(masks) == 0:
        return
    drawn = tf_rasterize.rasterize_runs(runs.toggles, len(masks), output_size)
    assert drawn.dtype == tf.uint8
    window = window or (0, 0, *masks.shape[1:])
    expected = decode_all(encode(masks), masks.shape[1:], output_size, window, flip)
    np.testing.assert_array_equal(drawn, expected)


@tf.function(jit_compile=True, input_signature=[tf.TensorSpec([2, 2, RUNS], tf.int32)])
def draw_compiled(toggles):
    drawn = tf_rasterize.rasterize_runs(toggles, 4, SIZE, tf.float32)
    assert drawn.shape == [2, 2, 4, *SIZE]
    return drawn


@tf.function(
    input_signature=[
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([2], tf.int32),
        tf.TensorSpec([4], tf.int32),
        tf.TensorSpec([], tf.bool),
    ]
)
def pack(counts, size, window, flip):
    runs = tf_rasterize.pack_runs(counts, size, SIZE, RUNS, window, flip)
    assert runs.toggles.shape == [RUNS]
    return runs


@given(
    st.lists(
        st.tuples(
            strategies.masks().filter(len),
            st.tuples(offsets, offsets, strategies.sides, strategies.sides),
            st.booleans(),
        ),
        min_size=4,
        max_size=4,
    )
)
@settings(max_examples=20)
def test_compiled_by_xla_from_tf_data(images):
    """Up to four masks an image; those that find no room are left out, and it is said."""
    toggles, expected = [], np.zeros((4, 4, *SIZE), np.float32)
    for number, (masks, window, flip) in enumerate(images):
        counts = (encode(masks) + encode(np.zeros_like(masks[:1])) * 4)[:4]
        runs = pack(counts, masks.shape[1:], window, flip)
        decoded = decode_all(counts, masks.shape[1:], SIZE, window, flip).numpy()
        whole = runs.whole.numpy()
        expected[number, whole] = decoded[whole]
        toggles.append(runs.toggles)
    drawn = draw_compiled(tf.reshape(tf.stack(toggles), [2, 2, RUNS]))
    np.testing.assert_array_equal(tf.reshape(drawn, expected.shape), expected)


def test_masks_find_room_in_their_order():
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 2:4, 2:4] = True  # two columns: 4 toggles
    masks[1, ::2, ::2] = True  # 16 pixels alone: 32 toggles
    masks[2, 5, 5] = True
    needed = []
    for room in (5, 6, 36, 38):
        runs = tf_rasterize.pack_runs(encode(masks), (8, 8), (8, 8), room)
        whole = runs.whole.numpy()
        drawn = tf_rasterize.rasterize_runs(runs.toggles, 3, (8, 8)).numpy()
        np.testing.assert_array_equal(drawn, masks * whole[:, None, None])
        needed.append(whole.tolist())
    assert needed == [[True, False, False]] * 2 + [[True, True, False], [True, True, True]]


def test_a_mask_that_covers_all_needs_one_toggle():
    full = np.ones((1, 5, 7), bool)
    runs = tf_rasterize.pack_runs(encode(full), (5, 7), (5, 7), 1)
    assert runs.toggles.numpy().tolist() == [0]
    assert runs.whole.numpy().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tf_rasterize.pack_runs(["6"], (2, 3), (2, 3), 0),
            "max_runs must be positive, got 0",
        ),
        (
            lambda: tf_rasterize.pack_runs(["6"], (2, 3), (0, 3), 9),
            "output_size must be two positive",
        ),
        (lambda: tf_rasterize.rasterize_runs([0], 0, (2, 3)), "num_masks must be from 1 to"),
        (lambda: tf_rasterize.rasterize_runs([0], 2**29, (2, 3)), "num_masks must be from 1 to"),
        (lambda: tf_rasterize.rasterize_runs([0], 1, (2, 0)), "size must be two positive"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
