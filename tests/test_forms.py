"""One stack of masks in every form that callers have, and everything that takes a stack."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds import features, metrics, show
from sa1b_tfds.masks import forms, rle

MASKS = np.random.default_rng(0).random((3, 12, 16)) < 0.3
COUNTS = [rle.encode_mask(mask)["counts"] for mask in MASKS]
SIZE = (12, 16)
COLUMNS = {
    "columns": {"size": SIZE, "counts": COUNTS},
    "columns of strings": {"size": list(SIZE), "counts": [c.decode() for c in COUNTS]},
    "columns of NumPy": {"size": np.array(SIZE, np.int32), "counts": np.array(COUNTS, object)},
    "columns of tensors": {"size": tf.constant(SIZE, tf.int32), "counts": tf.constant(COUNTS)},
    "checked": rle.Checked(COUNTS, SIZE),
}
STACKS = {
    "array": MASKS,
    "tensor": tf.constant(MASKS),
    "arrays": list(MASKS),
    "rles": [{"size": SIZE, "counts": counts} for counts in COUNTS],
    **COLUMNS,
}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_every_form_gives_the_same_rles(stack):
    assert forms.to_checked(stack) == rle.Checked(COUNTS, SIZE)
    assert forms.to_checked(stack, SIZE) == rle.Checked(COUNTS, SIZE)
    assert forms.to_rles(stack) == [{"size": [12, 16], "counts": counts} for counts in COUNTS]
    with pytest.raises(ValueError, match=r"disagrees with the image's|have the image's size"):
        forms.to_checked(stack, (16, 12))


def coco_figures(masks):
    evaluation = metrics.CocoEvaluation()
    evaluation.add(masks, [0.9, 0.8, 0.7], masks)
    return evaluation.figures()


def drawn(masks):
    from matplotlib import pyplot as plt

    axes = show.show_masks_on_image(np.zeros((*SIZE, 3), np.uint8), masks, plt.figure().gca())
    return axes.images[0].get_array()


def written(masks, tmp_path):
    example = {"image": np.zeros((*SIZE, 3), np.uint8), "masks": masks}
    return sa1b_tfds.write_tars([example], tmp_path)[0].read_bytes()


TAKERS = {
    "relevance_map": lambda masks, _: sa1b_tfds.relevance_map(masks),
    "iou_matrix": lambda masks, _: metrics.iou_matrix(masks, masks),
    "evaluate_masks": lambda masks, _: metrics.evaluate_masks(masks, masks),
    "CocoEvaluation": lambda masks, _: coco_figures(masks),
    "single_point_iou": lambda masks, _: metrics.single_point_iou(
        [masks] * 3, MASKS[:, 0, :3], masks
    ),
    "show_masks_on_image": lambda masks, _: drawn(masks),
    "RleMasks": lambda masks, _: features.RleMasks().encode_example(masks),
    "write_tars": written,
}


@pytest.mark.parametrize("stack", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_columns_are_taken_as_the_array_is(take, stack, tmp_path):
    np.testing.assert_equal(take(stack, tmp_path / "columns"), take(MASKS, tmp_path / "array"))


@pytest.mark.parametrize("as_numpy", [False, True])
def test_what_skip_decoding_gives_is_taken(prepared, as_numpy):
    decoders = {"masks": tfds.decode.SkipDecoding()}
    stored = tfds.load("segment_anything", data_dir=prepared, split="train", decoders=decoders)
    decoded = tfds.load("segment_anything", data_dir=prepared, split="train")
    stored = tfds.as_numpy(stored) if as_numpy else stored
    for one, full in zip(stored, tfds.as_numpy(decoded), strict=True):
        masks = full["masks"]
        np.testing.assert_array_equal(sa1b_tfds.relevance_map(one["masks"]), masks.sum(axis=0))
        ious = metrics.iou_matrix(one["masks"], masks)
        assert np.diag(ious).tolist() == [1] * len(masks)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"counts": []}, "Columns of masks are 'size' and 'counts'"),
        ({"size": SIZE, "counts": COUNTS[0]}, "one RLE goes into a list"),
        ({"size": SIZE, "counts": tf.constant(COUNTS[0])}, "one RLE goes into a list"),
        ({"size": (16, 13), "counts": COUNTS}, "The RLE of mask 0 is malformed"),
        ({"size": tf.constant([12]), "counts": COUNTS}, "two positive integers"),
        (MASKS[0], r"must have the shape \[N, H, W\]"),
        (MASKS * 0.5, "mask 0: A mask of floats must hold only 0 and 1"),
        ([MASKS[0], {"size": SIZE, "counts": "6"}], "mask 1: the RLE is malformed"),
    ],
)
def test_what_is_no_stack_is_an_error(masks, message):
    for normalise in (forms.to_checked, forms.to_rles):
        with pytest.raises(ValueError, match=message):
            normalise(masks)


def test_only_one_of_both_wants_one_size():
    masks = [MASKS[0], MASKS[1].T]
    assert [mask["size"] for mask in forms.to_rles(masks)] == [[12, 16], [16, 12]]
    with pytest.raises(ValueError, match=r"mask 1: its size \[16, 12\] disagrees with mask 0's"):
        forms.to_checked(masks)
    assert forms.to_rles([]) == []
    with pytest.raises(ValueError, match="An empty list of masks has no size"):
        forms.to_checked([])
