"""Relevance maps, from RLEs and from masks, on NumPy and in TensorFlow, against dense sums."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sa1b_tfds
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.masks import rle, tf_relevance
from sa1b_tfds.training.layouts import to_layout
from tests.strategies import masks as drawn_masks
from tests.strategies import sample, sides
from tests.test_stats import DUMMY

# Of these a float32 holds any sum of four exactly, so that there is one right answer.
weights_of_four = hnp.arrays(
    np.float32, 4, elements=st.integers(-(2**20), 2**20).map(lambda v: v / 2**20)
)


def dense(masks, weights):
    """The slow sum, mask by mask."""
    total = np.zeros(masks.shape[1:], np.float64)
    for mask, weight in zip(masks, weights, strict=True):
        total += np.float64(weight) * mask
    return total.astype(np.float32)


def encode(masks):
    return [rle.encode_mask(mask)["counts"] for mask in masks]


@given(drawn_masks(), weights_of_four, st.none() | st.tuples(sides, sides))
def test_numpy_is_the_dense_sum(masks, weights, output_size):
    weights = weights[: len(masks)]
    shown = sample(masks.astype(np.uint8), output_size)
    checked = rle.Checked(encode(masks), masks.shape[1:])
    for form in (masks, checked):
        result = sa1b_tfds.relevance_map(form, weights, output_size)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, dense(shown, weights))
        np.testing.assert_array_equal(
            sa1b_tfds.relevance_map(form, output_size=output_size), shown.sum(axis=0)
        )


windows = st.tuples(
    st.integers(-9, 40), st.integers(-9, 40), st.integers(1, 60), st.integers(1, 60)
)


@settings(max_examples=25)
@given(
    drawn_masks(),
    weights_of_four,
    st.none() | st.tuples(sides, sides),
    st.none() | windows,
    st.booleans(),
)
def test_tensorflow_is_the_dense_sum(masks, weights, output_size, window, flip):
    weights = weights[: len(masks)]
    shown = sample(masks.astype(np.uint8), output_size, window, flip)
    result = sa1b_tfds.decode_relevance(
        tf.constant(encode(masks), tf.string), masks.shape[1:], weights, output_size, window, flip
    )
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, dense(shown, weights))
    np.testing.assert_array_equal(
        tf_relevance.relevance_of_masks(shown, weights), dense(shown, weights)
    )


@settings(max_examples=20)
@given(drawn_masks(), st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4))
def test_any_weights_are_summed_to_a_rounding(masks, weights):
    weights = np.array(weights[: len(masks)], np.float32)
    expected = dense(masks, weights)
    far = np.abs(weights).sum() * 2**-50
    by_numpy = sa1b_tfds.relevance_map(masks, weights)
    np.testing.assert_allclose(by_numpy, expected, rtol=2**-23, atol=far)
    by_tensorflow = sa1b_tfds.decode_relevance(
        tf.constant(encode(masks), tf.string), masks.shape[1:], weights
    )
    np.testing.assert_array_equal(by_tensorflow, by_numpy)
    assert not by_numpy[~masks.any(axis=0)].any()


def test_in_a_graph_with_static_shapes():
    spec = [tf.TensorSpec([None], kind) for kind in (tf.string, tf.int32, tf.float32)]
    decode = tf.function(lambda *args: sa1b_tfds.decode_relevance(*args, (64, 64)), spec)
    graph = decode.get_concrete_function()
    assert graph.output_shapes == [64, 64]
    assert not [op.type for op in graph.graph.get_operations() if "PyFunc" in op.type]
    for example in read_examples(DUMMY):
        counts, size = example.masks
        weights = example.annotations["predicted_iou"]
        result = decode(tf.constant(counts, tf.string), tf.constant(size), weights)
        expected = sa1b_tfds.relevance_map(example.masks, weights, (64, 64))
        np.testing.assert_array_equal(result, expected)
        masks = rle.decode_rles(counts, size, (64, 64))
        summed = tf_relevance.relevance_of_masks(masks, weights)
        np.testing.assert_allclose(result, summed, rtol=1e-6)


def test_batches_of_masks():
    masks = np.random.default_rng(0).random((2, 5, 7, 8)) < 0.5
    weights = np.arange(10, dtype=np.float32).reshape(2, 5)
    result = tf_relevance.relevance_of_masks(masks, weights)
    np.testing.assert_array_equal(
        result, [dense(*pair) for pair in zip(masks, weights, strict=True)]
    )
    np.testing.assert_array_equal(tf_relevance.relevance_of_masks(masks), masks.sum(axis=1))


@pytest.mark.parametrize(
    ("masks", "weights", "message"),
    [
        (np.ones((2, 3, 4)), [1], "weights must be 2 finite numbers, one a mask"),
        (np.ones((1, 3, 4)), [np.nan], "weights must be 1 finite numbers, one a mask"),
        ([], [], "An empty list of masks has no size"),
        ([np.ones((2, 2)), np.ones((2, 3))], None, r"mask 1: its size \[2, 3\] disagrees"),
        ([{"size": [2, 2], "counts": "3"}], None, "mask 0: .* do not sum to height"),
    ],
)
def test_numpy_says_what_is_wrong(masks, weights, message):
    with pytest.raises(ValueError, match=message):
        sa1b_tfds.relevance_map(masks, weights)


def test_tensorflow_says_what_is_wrong():
    with pytest.raises(tf.errors.InvalidArgumentError, match="relevance: weights"):
        sa1b_tfds.decode_relevance(tf.constant(["4"]), tf.constant([2, 2]), tf.constant([np.inf]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="The RLE of mask 0 is malformed"):
        sa1b_tfds.decode_relevance(tf.constant(["3"]), tf.constant([2, 2]), tf.constant([1.0]))


def first_batch(prepared, **options):
    """All images, in the order of their ids."""
    config = sa1b_tfds.TrainingConfig(
        relevance=True, image_size=128, mask_size=64, batch_size=16, flip=0.5, shuffle=0, **options
    )
    dataset = sa1b_tfds.training_dataset("segment_anything", config, data_dir=prepared)
    batch = next(iter(dataset))
    order = np.argsort(batch["image_id"])
    return config, {name: tf.gather(column, order) for name, column in batch.items()}


def test_training_batches_hold_the_sum_of_their_masks(prepared):
    # All masks are in the batch, the best first.
    config, batch = first_batch(prepared, mask_choice="score", max_area_fraction=1.0)
    # One mask is, and the others count if they are good enough.
    few = first_batch(prepared, masks_per_image=1, min_predicted_iou=0.92, max_area_fraction=1.0)[1]
    assert batch["relevance"].shape == [16, 64, 64]
    for example in read_examples(prepared / "tars"):
        image_id = example.image_id
        scores = np.sort(example.annotations["predicted_iou"])[::-1]
        masks = batch["masks"][image_id].numpy()[: len(scores)]
        assert len(scores) < config.masks_per_image
        np.testing.assert_allclose(batch["relevance"][image_id], dense(masks, scores), rtol=1e-6)
        good = np.where(scores >= 0.92, scores, 0)
        np.testing.assert_allclose(few["relevance"][image_id], dense(masks, good), rtol=1e-6)
    for layout in ("keras_hub", "transformers"):
        _, targets = to_layout(batch, dataclasses.replace(config, layout=layout))
        assert targets["relevance"] is batch["relevance"]


def test_sam2_has_no_place_for_it():
    with pytest.raises(ValueError, match="relevance must be False with layout='sam2'"):
        sa1b_tfds.TrainingConfig(relevance=True, layout="sam2")
