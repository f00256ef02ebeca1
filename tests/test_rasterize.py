"""Masks that are drawn on the device equal those that are decoded on the host."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from sa1b_tfds import masks as masks_lib
from sa1b_tfds import rasterize
from tests import strategies
from tests.test_rle import encode

offsets = st.integers(-80, 80)


@given(
    strategies.masks(),
    st.tuples(strategies.sides, strategies.sides),
    st.none() | st.tuples(offsets, offsets, strategies.sides, strategies.sides),
    st.booleans(),
)
def test_equals_decode_masks(masks, output_size, window, flip):
    arguments = dict(size=masks.shape[1:], output_size=output_size, window=window, flip=flip)
    runs = rasterize.pack_runs(encode(masks), max_runs=2 * 70 * 70, **arguments)
    drawn = rasterize.rasterize_runs(runs.toggles, output_size)
    assert drawn.dtype == tf.uint8
    np.testing.assert_array_equal(drawn, masks_lib.decode_masks(encode(masks), **arguments))
