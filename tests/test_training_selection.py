"""Which masks pass the filters and may be seen in a window, at the very limits."""

import numpy as np
import pytest
import tensorflow as tf

from sa1b_tfds import TrainingConfig
from sa1b_tfds.training import selection
from sa1b_tfds.training.sources import Record
from sa1b_tfds.training.views import View

HEIGHT, WIDTH = 40, 50


def record(**columns):
    """An image of 40x50 = 2000 pixels; what is not given of its masks passes all filters."""
    number = len(next(iter(columns.values())))
    return Record(
        image=tf.constant(b""),
        image_id=tf.constant(1, tf.int64),
        size=tf.constant([HEIGHT, WIDTH]),
        counts=tf.fill([number], b""),
        area=tf.constant(columns.get("area", [500] * number), tf.int64),
        bbox=tf.constant(columns.get("bbox", [[0.0, 0.0, 1.0, 1.0]] * number), tf.float32),
        predicted_iou=tf.constant(columns.get("predicted_iou", [0.5] * number), tf.float32),
        stability_score=tf.constant(columns.get("stability_score", [0.5] * number), tf.float32),
        point_coords=tf.zeros([number, 2]),
    )


@pytest.mark.parametrize(
    ("fields", "columns", "expected"),
    [
        ({"min_predicted_iou": 0.75}, {"predicted_iou": [0.74, 0.75, 0.76]}, [False, True, True]),
        ({"min_stability_score": 0.75}, {"stability_score": [0.74, 0.75, 0.76]}, [0, 1, 1]),
        ({"min_area": 20}, {"area": [19, 20, 21]}, [False, True, True]),
        ({"max_area_fraction": 0.5}, {"area": [3, 999, 1000, 1001]}, [True, True, True, False]),
        ({"max_area_fraction": 0.00025}, {"area": [0, 1]}, [True, False]),  # half a pixel
        ({"max_area_fraction": 1.0}, {"area": [1999, 2000]}, [True, True]),
        (
            {"min_predicted_iou": 0.5, "min_stability_score": 0.5, "min_area": 20},
            {
                "predicted_iou": [0.4, 0.5, 0.5, 0.5],
                "stability_score": [0.5, 0.4, 0.5, 0.5],
                "area": [20, 20, 19, 20],
            },
            [False, False, False, True],
        ),
    ],
)
def test_a_mask_at_a_limit_passes(fields, columns, expected):
    passes = selection.eligible(record(**columns), TrainingConfig(**fields))
    assert passes.numpy().tolist() == [bool(x) for x in expected]


@pytest.mark.parametrize(
    ("box", "seen"),
    [
        # (y0, x0, y1, x1) in pixels; the window is [10, 30) x [5, 21), with a pixel of room.
        ((12, 7, 20, 20), True),
        ((0, 0, 39, 49), True),
        ((0, 7, 9.5, 20), True),
        ((0, 7, 8.5, 20), False),
        ((30.5, 7, 39, 20), True),
        ((31.5, 7, 39, 20), False),
        ((12, 0, 20, 4.5), True),
        ((12, 0, 20, 3.5), False),
        ((12, 21.5, 20, 49), True),
        ((12, 22.5, 20, 49), False),
        ((0, 0, 5, 49), False),  # its columns meet, its rows do not
        ((0, 30, 39, 49), False),
    ],
)
def test_a_box_that_meets_the_window_may_be_seen(box, seen):
    view = View(tf.constant([10, 5, 20, 16]), tf.constant([64, 64]), tf.constant(False))
    fractions = np.array(box) / [HEIGHT, WIDTH, HEIGHT, WIDTH]
    assert selection.may_be_seen(record(bbox=[fractions]), view).numpy().tolist() == [seen]


@pytest.mark.parametrize(
    ("choice", "expected"), [("largest", [2, 0, 4]), ("score", [4, 2, 0]), ("random", None)]
)
def test_the_best_of_the_candidates_are_chosen(choice, expected):
    masks = record(area=[30, 99, 40, 98, 20], predicted_iou=[0.3, 1.0, 0.4, 0.9, 0.5])
    candidates = tf.constant([True, False, True, False, True])
    for most in (2, 3, 9):
        config = TrainingConfig(mask_choice=choice, masks_per_image=most)
        chosen = selection.choose(masks, candidates, config, tf.constant([1, most], tf.int64))
        if expected is None:
            assert len(set(chosen.numpy()) & {0, 2, 4}) == len(chosen) == min(most, 3)
        else:
            assert chosen.numpy().tolist() == expected[:most]


def test_a_box_is_in_pixels_x_first_and_rows_are_filled_up_with_zeros():
    box = selection.boxes(record(bbox=[[0.1, 0.2, 0.5, 0.6], [0.0, 0.5, 1.0, 1.0]]))
    np.testing.assert_allclose(box, [[10, 4, 30, 20], [25, 0, 50, 40]], rtol=1e-6)
    rows = selection.padded(box, tf.constant([1]), 3)
    np.testing.assert_allclose(rows, [[25, 0, 50, 40], [0, 0, 0, 0], [0, 0, 0, 0]])
