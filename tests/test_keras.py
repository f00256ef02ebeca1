"""Losses, trainer and the example, on tiny random models."""

import functools
import importlib
import importlib.util
import itertools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sa1b_tfds.masks import rle, tf_rasterize
from tests import forked, sam

if importlib.util.find_spec("keras_hub") is None:
    pytest.skip("needs the extra 'keras'", allow_module_level=True)

BATCH, MASKS, SIDE, GRID = 2, 3, sam.SIDE, sam.SIDE // 4


@pytest.fixture(scope="module", autouse=True)
def imported():
    """When these tests run: each process collects them, and to import it takes seconds."""
    global keras, sam_keras
    import keras

    from sa1b_tfds import keras as sam_keras


@pytest.fixture(scope="module")
def trainer():
    model = sam_keras.SAMTrainer(sam.keras_sam())
    model.compile(optimizer="adam")
    return model


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return {
        "images": tf.constant(rng.random((BATCH, SIDE, SIDE, 3)), tf.float32),
        "points": tf.constant(rng.random((BATCH, MASKS, 2, 2)) * SIDE, tf.float32),
        "labels": tf.constant(rng.integers(-1, 2, (BATCH, MASKS, 2)), tf.float32),
        "boxes": tf.constant(rng.random((BATCH, MASKS, 1, 2, 2)) * SIDE, tf.float32),
        "masks": tf.zeros([BATCH, MASKS, 0, GRID, GRID, 1]),
    }


def test_losses_are_those_of_the_papers():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (3, 5, 6)).astype(np.uint8)
    logits = rng.normal(0, 3, (3, 5, 6))
    p = 1 / (1 + np.exp(-logits))
    p_true, alpha = np.where(masks, p, 1 - p), np.where(masks, 0.3, 0.7)
    focal = (-alpha * (1 - p_true) ** 1.5 * np.log(p_true)).mean((1, 2))
    dice = 1 - (2 * (p * masks).sum((1, 2)) + 1) / (p.sum((1, 2)) + masks.sum((1, 2)) + 1)
    inside = logits > 0
    iou = (inside & (masks > 0)).sum((1, 2)) / (inside | (masks > 0)).sum((1, 2))
    np.testing.assert_allclose(sam_keras.focal_loss(masks, logits, 0.3, 1.5), focal, rtol=1e-5)
    np.testing.assert_allclose(sam_keras.dice_loss(masks, logits), dice, rtol=1e-5)
    np.testing.assert_allclose(sam_keras.iou(masks, logits), iou, rtol=1e-6)
    assert sam_keras.iou(masks * 0, -np.abs(logits)).numpy().tolist() == [0, 0, 0]
    large = sam_keras.focal_loss(masks, 1e4 * (0.5 - masks))
    assert np.isfinite(large).all()  # far off, and still a number


def test_many_prompts_are_those_of_the_segmenter_one_by_one(trainer, inputs):
    outputs = trainer(inputs)
    assert outputs["masks"].shape == [BATCH, MASKS, 3, GRID, GRID]
    for image, mask in itertools.product(range(BATCH), range(MASKS)):
        # Of one image at a time: with more, TensorFlow's product of the boxes corrupts memory.
        one = {k: v[image] if k == "images" else v[image, mask] for k, v in inputs.items()}
        one = {name: value[None] for name, value in one.items()}
        expected = trainer.sam(one)
        for name in ("masks", "iou_pred"):
            np.testing.assert_allclose(
                outputs[name][image, mask], expected[name][0, 1:], rtol=1e-4, atol=1e-5
            )
        alone = trainer(one)
        np.testing.assert_allclose(alone["masks"][0, 0], outputs["masks"][image, mask], atol=1e-5)


def test_no_product_of_which_tensorflow_corrupts_memory(trainer, inputs):
    """Of [N, 1, x, y] and [y, z], tensorflow/tensorflow#117700: on some CPUs, and some times."""
    graph = tf.function(trainer.call).get_concrete_function(inputs).graph
    products = [op for op in graph.get_operations() if op.type.startswith("BatchMatMul")]
    shapes = [tuple(tuple(factor.shape) for factor in op.inputs) for op in products]
    assert ((1, BATCH * MASKS, 2, 2), (2, 8)) in shapes
    assert [s for s in shapes if len(s[0]) == 4 and s[0][0] > 1 == s[0][1] and len(s[1]) == 2] == []


def test_the_best_output_of_each_valid_mask_counts(trainer):
    """The second output is right in the first image; what is not valid or empty has no say."""
    masks = np.zeros((BATCH, MASKS, GRID, GRID), np.uint8)
    masks[:, :2, 3:9, 4:7] = 1
    logits = np.full((BATCH, MASKS, 3, GRID, GRID), 50.0, np.float32)
    logits[0, :, 1] = 100 * masks[0] - 50.0
    iou_pred = np.full((BATCH, MASKS, 3), 0.25, np.float32)
    valid = np.array([[True, True, True], [False, False, False]])  # the third is empty
    trainer.reset_metrics()
    loss = trainer.compute_loss(
        y={"masks": tf.constant(masks), "mask_valid": tf.constant(valid)},
        y_pred={"masks": tf.constant(logits), "iou_pred": tf.constant(iou_pred)},
    )
    results = {m.name: float(m.result()) for m in trainer.metrics if m.name != "loss"}
    assert results["iou"] == 1
    assert results["focal"] < 1e-6
    assert results["dice"] < 1e-6
    assert results["iou_error"] == pytest.approx(0.75**2)
    assert float(loss) == pytest.approx(0.75**2, abs=1e-5)


def test_runs_are_drawn_on_the_device(trainer, inputs):
    rng = np.random.default_rng(0)
    masks = (rng.random((BATCH, MASKS, GRID, GRID)) < 0.5).astype(np.uint8)
    runs = tf.stack(
        [
            tf_rasterize.pack_runs(
                [rle.encode_mask(mask)["counts"] for mask in image], (GRID, GRID), (GRID, GRID), 999
            ).toggles
            for image in masks
        ]
    )
    layer = sam_keras.DrawMasks(MASKS, (GRID, GRID))
    np.testing.assert_array_equal(layer(runs), masks)
    assert layer.compute_output_shape(runs.shape) == masks.shape
    again = sam_keras.DrawMasks.from_config(layer.get_config())
    np.testing.assert_array_equal(again(runs), masks)

    outputs, valid = trainer(inputs), tf.ones([BATCH, MASKS], tf.bool)
    from_pixels, from_runs = (
        trainer.compute_loss(y={**targets, "mask_valid": valid}, y_pred=outputs)
        for targets in ({"masks": tf.constant(masks)}, {"runs": runs})
    )
    assert float(from_runs) == float(from_pixels) > 0


def test_a_saved_model_that_draws_masks_loads_in_a_fresh_process(tmp_path):
    runs = keras.Input((20,), dtype="int32")
    keras.Model(runs, sam_keras.DrawMasks(2, (4, 5))(runs)).save(tmp_path / "model.keras")
    code = """
import sys
import sa1b_tfds.keras, keras
layer = keras.saving.load_model(sys.argv[1]).layers[-1]
assert (layer.num_masks, layer.size) == (2, (4, 5))
print(type(layer).__module__, type(layer).__name__)
"""
    command = forked.command("-c", code, tmp_path / "model.keras")
    loaded = subprocess.run(command, check=True, capture_output=True, text=True)
    assert loaded.stdout == "sa1b_tfds.keras DrawMasks\n"


def test_masks_of_another_size(trainer, inputs):
    targets = {"masks": tf.zeros([BATCH, MASKS, 8, 8]), "mask_valid": tf.ones([BATCH, MASKS])}
    with pytest.raises(ValueError, match="set the config's mask_size to 16"):
        trainer.compute_loss(y=targets, y_pred=trainer(inputs))


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    monkeypatch.delitem(sys.modules, "sa1b_tfds.keras")
    with pytest.raises(ImportError, match=r"pip install 'sa1b_tfds\[keras\]'"):
        importlib.import_module("sa1b_tfds.keras")


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.delitem(sys.modules, "sa1b_tfds.keras")
    with pytest.raises(ImportError, match="KERAS_BACKEND=tensorflow"):
        importlib.import_module("sa1b_tfds.keras")


def load_example():
    path = pathlib.Path(__file__).parents[1] / "examples" / "finetune_keras_sam.py"
    spec = importlib.util.spec_from_file_location("finetune_keras_sam", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example_learns(capsys, monkeypatch):
    """Several steps an execution, and their number known in advance."""

    class Prebuilt(sam_keras.SAMTrainer):
        """Keras traces a step twice that makes the optimizer's variables."""

        def fit(self, *args, **kwargs):
            self.optimizer.build(self.trainable_variables)
            return super().fit(*args, **kwargs)

    example = load_example()
    monkeypatch.setattr(example, "SAMTrainer", Prebuilt)
    monkeypatch.setattr(example, "tiny_sam", functools.partial(example.tiny_sam, 64))
    # One mask an image is soon learnt by heart.
    arguments = ["--steps", "60", "--steps-per-execution", "2"]
    arguments += ["--masks-per-image", "1", "--learning-rate", "3e-3"]
    history = example.main(arguments).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["iou"][-1] > history["iou"][0] + 0.1
    assert "6/6" in capsys.readouterr().out


def test_example_takes_a_preset(tmp_path, prepared):
    """A folder stands for the real preset, which is not fetched in a test."""
    sam.keras_sam().save_to_preset(str(tmp_path))
    arguments = ["--preset", str(tmp_path), "--data-dir", str(prepared), "--steps", "1"]
    with sam.eager_steps():
        history = load_example().main([*arguments, "--batch-size", "16"]).history
    assert np.isfinite(history["loss"]).all()
