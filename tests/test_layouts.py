"""Every layout is what its model takes: tiny random models run on it."""

import dataclasses
import warnings

import numpy as np
import pytest
import tensorflow as tf

import sa1b_tfds
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.masks import rle
from sa1b_tfds.training import layouts
from tests import sam

SIDE, BATCH, MASKS, POINTS = sam.SIDE, 4, 8, 2
CONFIG = sa1b_tfds.TrainingConfig(
    image_size=SIDE,
    mask_size=SIDE,
    masks_per_image=MASKS,  # more than the images have
    points_per_mask=POINTS,
    batch_size=BATCH,
)
PROMPTS = ("points", "boxes", "both")


@pytest.fixture(scope="module")
def raw(prepared):
    """Two raw batches, as a dataset; of the first mask of each image the grid shows no pixel."""
    dataset = sa1b_tfds.training_dataset("segment_anything", CONFIG, data_dir=prepared)
    batches = next(iter(dataset.batch(2)))
    masks = batches["masks"].numpy()
    masks[:, :, 0] = 0
    return tf.data.Dataset.from_tensor_slices({**batches, "masks": masks})


def convert(raw, **changes):
    """-> (raw batches, the batches in a layout, its config), made in tf.data."""
    config = dataclasses.replace(CONFIG, **changes)
    number = config.masks_per_image
    names = ("masks", "mask_valid", "boxes", "points", "labels")
    raw = raw.map(lambda batch: batch | {name: batch[name][:, :number] for name in names})
    converted = raw.map(lambda batch: layouts.to_layout(batch, config))
    return list(raw), list(converted), config


def as_torch(batch):
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    return tf.nest.map_structure(lambda x: torch.from_numpy(x.numpy()), batch)


def shown(batch):
    """Valid masks may show no pixel: the images' side is 90, that of their masks 64."""
    return batch["mask_valid"].numpy() & batch["masks"].numpy().any(axis=(2, 3))


def test_raw_stays(raw):
    before, after, _ = convert(raw)
    tf.nest.map_structure(np.testing.assert_array_equal, before, after)
    # What the tests below need to see.
    assert not all(batch["mask_valid"].numpy().all() for batch in after)
    assert not all((batch["mask_valid"] == shown(batch)).numpy().all() for batch in after)


@pytest.mark.parametrize("prompts", PROMPTS)
def test_keras_hub(raw, prompts):
    pytest.importorskip("keras_hub", reason="needs the extra 'keras'")
    before, after, _ = convert(raw, layout="keras_hub", masks_per_image=1, prompts=prompts)
    model = sam.keras_sam()
    for batch, (inputs, targets) in zip(before, after, strict=True):
        assert {x.dtype for x in inputs.values()} == {tf.float32}
        assert inputs.keys() == model.input.keys()
        for name, expected in model.input.items():
            assert inputs[name].shape.is_compatible_with(expected.shape), name
        for image in range(BATCH):  # boxes of several at once are tensorflow/tensorflow#117700
            outputs = model({name: value[image, None] for name, value in inputs.items()})
            assert outputs["masks"].shape == [1, 4, SIDE // 4, SIDE // 4]
            assert np.isfinite(outputs["masks"]).all()

        for name, expected in targets.items():
            np.testing.assert_array_equal(expected, batch[name])
        assert set(targets) == {"masks", "mask_valid"}


def test_keras_hub_normalises_by_itself(raw):
    """What its image encoder does first gives SAM's normalised image, zeros where it is padded."""
    before, after, _ = convert(raw, layout="keras_hub")
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    for batch, (inputs, _) in zip(before, after, strict=True):
        images = inputs["images"].numpy()
        assert 0 <= images.min() < images.max() <= 1
        np.testing.assert_allclose((images - mean) / std, batch["image"], atol=1e-5)


def test_keras_hub_prompts(raw):
    """K prompts an image; without boxes a point (0, 0) that is none, as SAM was trained."""
    before, of_both, _ = convert(raw, layout="keras_hub")
    of_points, of_boxes = (
        convert(raw, layout="keras_hub", prompts=prompts)[1] for prompts in ("points", "boxes")
    )
    batches = zip(before, of_both, of_points, of_boxes, strict=True)
    for batch, (both, _), (points, _), (boxes, _) in batches:
        np.testing.assert_array_equal(both["points"], batch["points"])
        np.testing.assert_array_equal(both["labels"], batch["labels"])
        assert both["boxes"].shape == [BATCH, MASKS, 1, 2, 2]
        np.testing.assert_array_equal(both["boxes"][:, :, 0, 0], batch["boxes"][..., :2])
        np.testing.assert_array_equal(both["boxes"][:, :, 0, 1], batch["boxes"][..., 2:])
        assert both["masks"].shape == [BATCH, MASKS, 0, SIDE // 4, SIDE // 4, 1]

        np.testing.assert_array_equal(points["points"][:, :, :POINTS], batch["points"])
        np.testing.assert_array_equal(points["labels"][:, :, :POINTS], batch["labels"])
        assert not points["points"][:, :, POINTS:].numpy().any()
        assert (points["labels"][:, :, POINTS:].numpy() == -1).all()
        assert points["labels"].shape == [BATCH, MASKS, POINTS + 1]
        assert points["boxes"].shape == [BATCH, MASKS, 0, 2, 2]

        np.testing.assert_array_equal(boxes["boxes"], both["boxes"])
        assert boxes["points"].shape == [BATCH, MASKS, 0, 2]
        assert boxes["labels"].shape == [BATCH, MASKS, 0]


@pytest.mark.parametrize("prompts", PROMPTS)
def test_transformers(raw, prompts):
    pytest.importorskip("transformers", reason="needs the extra 'huggingface'")
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    before, after, _ = convert(raw, layout="transformers", prompts=prompts)
    model = sam.transformers_sam()
    for batch, (inputs, targets) in zip(before, after, strict=True):
        with torch.no_grad():
            outputs = model(**as_torch(inputs))
        assert outputs.pred_masks.shape == (BATCH, MASKS, 3, SIDE // 4, SIDE // 4)
        assert torch.isfinite(outputs.pred_masks).all()

        images = np.moveaxis(batch["image"].numpy(), 3, 1)
        np.testing.assert_array_equal(inputs["pixel_values"], images)
        for name, of in (
            ("original_sizes", "original_size"),
            ("reshaped_input_sizes", "resized_size"),
        ):
            assert inputs[name].dtype == tf.int64
            np.testing.assert_array_equal(inputs[name], batch[of])
        assert ("input_boxes" in inputs) == (prompts != "points")
        assert ("input_points" in inputs) == (prompts != "boxes")
        if prompts == "both":
            np.testing.assert_array_equal(inputs["input_boxes"], batch["boxes"])
            np.testing.assert_array_equal(inputs["input_points"], batch["points"])
            expected = np.where(batch["mask_valid"], 1, -10)[..., None].repeat(POINTS, -1)
            np.testing.assert_array_equal(inputs["input_labels"], expected)
            assert inputs["input_labels"].dtype == tf.int64
        np.testing.assert_array_equal(targets["masks"], batch["masks"])
        np.testing.assert_array_equal(targets["mask_valid"], shown(batch))


def test_sam2(raw):
    """As SAM 2's trainer goes through a batch: images of objects, prompts from their masks."""
    pytest.importorskip("transformers", reason="needs the extra 'huggingface'")
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    before, after, _ = convert(raw, layout="sam2")
    model = sam.transformers_sam2()
    for batch, converted in zip(before, after, strict=True):
        valid = shown(batch)
        objects = as_torch(converted)
        assert objects["img_batch"].shape == (1, BATCH, 3, SIDE, SIDE)
        assert objects["img_batch"].dtype == torch.float32
        assert objects["masks"].shape == (1, valid.sum(), SIDE, SIDE)
        assert objects["masks"].dtype == torch.bool
        assert objects["obj_to_frame_idx"].dtype == torch.int32

        frame, image = objects["obj_to_frame_idx"].unbind(dim=-1)
        assert not frame.any()
        ids, _, of_frame = objects["metadata"]["unique_objects_identifier"][0].unbind(dim=-1)
        assert not of_frame.any()
        np.testing.assert_array_equal(ids, batch["image_id"].numpy()[image[0]])
        sizes = objects["metadata"]["frame_orig_size"][0]
        np.testing.assert_array_equal(sizes, batch["original_size"].numpy()[image[0]])
        np.testing.assert_array_equal(objects["masks"][0], batch["masks"].numpy()[valid])

        points = torch.stack([mask.nonzero()[0].flip(0) for mask in objects["masks"][0]])
        flat_images = objects["img_batch"].transpose(0, 1).flatten(0, 1)
        with torch.no_grad():
            outputs = model(
                pixel_values=flat_images[image[0].long()],
                input_points=points[:, None, None].float(),
                input_labels=torch.ones(len(points), 1, 1, dtype=torch.int64),
            )
        assert outputs.pred_masks.shape == (valid.sum(), 1, 3, SIDE // 4, SIDE // 4)
        assert torch.isfinite(outputs.pred_masks).all()


@pytest.mark.parametrize("choice", ["random", "largest", "score"])
@pytest.mark.parametrize("number", [2, 40])
def test_sam2_identifiers_lead_back_to_the_source(prepared_dummy, choice, number):
    """Each mask is that of the annotation that its identifier names, in the tar's JSON."""
    config = dataclasses.replace(
        CONFIG,
        layout="sam2",
        resize="square",
        masks_per_image=number,
        mask_choice=choice,
        min_predicted_iou=0.9,
    )
    source = {example.image_id: example for example in read_examples("dummy_data")}
    seen = set()
    batches = sa1b_tfds.training_dataset("segment_anything", config, data_dir=prepared_dummy)
    for batch in batches.as_numpy_iterator():
        ids = batch["metadata"]["unique_objects_identifier"][0]
        for (image_id, index, frame), mask in zip(ids, batch["masks"][0], strict=True):
            counts, size = source[image_id].masks
            np.testing.assert_array_equal(
                mask, rle.decode_rles([counts[index]], size, (SIDE, SIDE))[0]
            )
            assert source[image_id].annotations["predicted_iou"][index] >= 0.9
            assert frame == 0
            seen.add((image_id, index))
    assert len(seen) > 8
    assert max(index for _, index in seen) >= 8


@pytest.mark.parametrize("scale_range", [None, (0.5, 2.0)])
def test_raw_batches_say_which_masks_they_have(prepared, scale_range):
    config = dataclasses.replace(CONFIG, scale_range=scale_range)
    batches = sa1b_tfds.training_dataset("segment_anything", config, data_dir=prepared)
    for batch in batches.as_numpy_iterator():
        assert batch["mask_index"].dtype == np.int32
        for index, valid in zip(batch["mask_index"], batch["mask_valid"], strict=True):
            assert (index[~valid] == -1).all()
            assert (index[valid] >= 0).all()
            assert len(set(index[valid])) == valid.sum()


def test_batches_become_tensors_without_a_warning(prepared):
    """By the line that docs/models.md has."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    config = dataclasses.replace(CONFIG, layout="sam2")
    dataset = sa1b_tfds.training_dataset("segment_anything", config, data_dir=prepared)
    batch = next(dataset.as_numpy_iterator())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("img_batch", "obj_to_frame_idx", "masks"):
            torch.tensor(batch[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "sam3"}, "layout must be one of"),
        ({"layout": "keras_hub", "normalise": None}, "normalise must be 'imagenet' with layout='k"),
        ({"layout": "sam2", "mask_size": 16}, "mask_size must be image_size with layout='sam2'"),
        ({"masks_as": "rle"}, "masks_as must be one of"),
        ({"masks_as": "runs", "layout": "transformers"}, "masks_as must be 'pixels' with layout="),
        ({"masks_as": "runs", "mask_size": 16384}, "masks_as must be 'pixels' if masks_per_image"),
        ({"runs_per_mask": 0}, "runs_per_mask must be 1 to 65536, got 0"),
    ],
)
def test_configs_that_no_model_takes(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
