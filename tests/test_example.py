"""The type of an example, and its boxes in both conventions."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.examples import records
from sa1b_tfds.examples.annotations import to_example
from sa1b_tfds.examples.example import COLUMNS, fraction_boxes, in_pixels, pixel_boxes
from sa1b_tfds.features import features_dict
from tests.building import make

IMAGE, JSON = make.files_of(7).values()
BOX = st.tuples(*[st.integers(0, 400_000)] * 4)  # hundredths of a pixel


def test_an_example_is_what_it_was_and_stays_so():
    example = to_example(IMAGE, JSON)
    with pytest.raises(dataclasses.FrozenInstanceError):
        example.image_id = 8
    for other in (copy.copy(example), pickle.loads(pickle.dumps(example))):
        assert records.serialise(other) == records.serialise(example)
    assert list(example.as_dict()) == ["image", "image_id", "file_name", "masks", "annotations"]


def test_features_and_examples_have_the_columns():
    columns = to_example(IMAGE, JSON).annotations
    features = features_dict()
    assert list(columns) == list(features["annotations"]) == [column.name for column in COLUMNS]
    assert features.keys() == to_example(IMAGE, JSON).as_dict().keys()
    for column in COLUMNS:
        assert columns[column.name].dtype == column.dtype
        assert columns[column.name].shape[1:] == column.shape


@given(st.lists(BOX, max_size=4), st.integers(1, 5000), st.integers(1, 5000))
def test_one_convention_of_boxes_is_made_of_the_other(boxes, height, width):
    xywh = np.array(boxes, np.float64).reshape(-1, 4) / 100
    fractions = fraction_boxes(xywh, (height, width))
    np.testing.assert_allclose(pixel_boxes(fractions, (height, width)), xywh, atol=0.011)
    columns = {column.name: np.zeros((len(xywh), *column.shape)) for column in COLUMNS}
    found = in_pixels({**columns, "bbox": fractions}, (height, width))
    np.testing.assert_array_equal(found["bbox"], pixel_boxes(fractions, (height, width)))
    assert found.keys() == columns.keys()


def test_a_box_in_both_conventions():
    boxes = np.array([[10.0, 20.0, 30.0, 5.0]])
    assert fraction_boxes(boxes, (50, 100)).tolist() == [[0.4, 0.1, 0.5, 0.4]]
    assert pixel_boxes(np.array([[0.4, 0.1, 0.5, 0.4]]), (50, 100)).tolist() == boxes.tolist()
