"""TrainingConfig refuses what cannot be, and names the field; docs/training.md says what is so."""

import dataclasses
import pathlib
import re

import pytest

from sa1b_tfds import TrainingConfig, training_dataset

DOCS = (pathlib.Path(__file__).parents[1] / "docs" / "training.md").read_text()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size must be an integer, got 2.0"),
        ({"batch_size": True}, TypeError, "batch_size must be an integer, got True"),
        ({"image_size": 8}, ValueError, "image_size must be 16 to 16384, got 8"),
        ({"mask_size": "256"}, TypeError, "mask_size must be an integer, got '256'"),
        ({"masks_per_image": -1}, ValueError, "masks_per_image must be 0 to 4096, got -1"),
        ({"resize": "crop"}, ValueError, "resize must be one of .*'letterbox', 'square'"),
        ({"normalise": "clip"}, ValueError, "normalise must be one of .*'imagenet', None"),
        ({"image_dtype": "float16"}, ValueError, "image_dtype must be one of .*got 'float16'"),
        ({"image_dtype": "uint8"}, ValueError, "normalise must be None with image_dtype='uint8'"),
        ({"min_predicted_iou": None}, TypeError, "min_predicted_iou must be a number, got None"),
        ({"min_stability_score": 1.5}, ValueError, "min_stability_score must be 0 to 1, got 1.5"),
        ({"min_area": -1}, ValueError, "min_area must be at least 0, got -1"),
        ({"max_area_fraction": 90}, ValueError, "max_area_fraction must be 0 to 1, got 90"),
        ({"mask_choice": "first"}, ValueError, "mask_choice must be one of"),
        ({"prompts": "point"}, ValueError, "prompts must be one of .*'points', 'boxes', 'both'"),
        ({"points_per_mask": 0}, ValueError, "points_per_mask must be 1 to 4096, got 0"),
        (
            {"point_source": "dataset", "points_per_mask": 2},
            ValueError,
            "points_per_mask must be 1 with point_source='dataset'",
        ),
        ({"point_source": "json"}, ValueError, "point_source must be one of"),
        ({"box_noise": 0.6}, ValueError, "box_noise must be 0 to 0.5, got 0.6"),
        ({"max_box_noise": -1}, ValueError, "max_box_noise must be at least 0, got -1"),
        ({"flip": True}, TypeError, "flip must be a number, got True"),
        ({"flip": 2}, ValueError, "flip must be 0 to 1, got 2"),
        ({"scale_range": 2}, TypeError, r"scale_range must be None or \(low, high\), got 2"),
        ({"scale_range": (2, 1)}, ValueError, "scale_range must go from low to high"),
        ({"scale_range": (0, 1)}, ValueError, "scale_range must be 0.01 to 100, got 0"),
        ({"scale_range": ("a", 1)}, TypeError, "scale_range must be a number, got 'a'"),
        ({"colour_jitter": 1.1}, ValueError, "colour_jitter must be 0 to 1, got 1.1"),
        ({"augment": 3}, TypeError, "augment must be a function or None, got 3"),
        ({"split": ""}, TypeError, "split must be a split's name such as 'train', got ''"),
        ({"shuffle": True}, TypeError, "shuffle must be an integer, got True"),
        ({"seed": -1}, ValueError, "seed must be 0 to 9223372036854775807, got -1"),
        ({"repeat": 2}, TypeError, "repeat must be True or False, got 2"),
        ({"exact": None}, TypeError, "exact must be True or False, got None"),
        ({"prefetch": -1}, ValueError, "prefetch must be at least 0, got -1"),
        ({"parallelism": 0}, ValueError, "parallelism must be at least 1, got 0"),
        ({"layout": "torch"}, ValueError, "layout must be one of .*'raw', 'keras_hub'"),
    ],
    ids=str,
)
def test_nonsense_is_refused_by_name(fields, error, message):
    with pytest.raises(error, match=message):
        TrainingConfig(**fields)


def test_frozen_and_by_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingConfig().batch_size = 8
    with pytest.raises(TypeError, match="positional"):
        TrainingConfig(8)


def test_the_docstring_and_the_docs_name_every_field():
    for field in dataclasses.fields(TrainingConfig):
        assert field.name in TrainingConfig.__doc__
        assert f"| `{field.name}` | `{field.default!r}` |" in DOCS


def test_the_table_of_batches_is_true(prepared):
    table = re.findall(r"^\| `(\w+)` \| (\w+) \| \[B(?:, ([^\]]+))?\] \|", DOCS, re.MULTILINE)
    config = TrainingConfig(image_size=64, mask_size=16, masks_per_image=8, points_per_mask=5)
    sizes = {"S": 64, "K": 8, "M": 16, "P": 5}
    documented = {
        name: (dtype, [4, *(int(sizes.get(n, n)) for n in shape.split(", ") if n)])
        for name, dtype, shape in table
    }
    spec = training_dataset("segment_anything/original", config, data_dir=prepared).element_spec
    assert documented == {name: (s.dtype.name, s.shape.as_list()) for name, s in spec.items()}
