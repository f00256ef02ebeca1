import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.runs import run_lengths
from tests import strategies

MASKS = np.random.default_rng(0).random((5, 9, 14)) < 0.4
RLES = [rle.encode_mask(mask) for mask in MASKS]
COUNTS = [encoded["counts"] for encoded in RLES]
FEATURES = tfds.features.FeaturesDict({"masks": sa1b_tfds.RleMasks(), "n": np.int64})


@pytest.mark.parametrize(
    "masks",
    [
        RLES,
        [{**r, "counts": r["counts"].decode()} for r in RLES],
        [{**r, "counts": run_lengths([r["counts"]], r["size"]).lengths} for r in RLES],
        {"size": (9, 14), "counts": COUNTS},
        {"size": np.array([9, 14]), "counts": np.array(COUNTS, object)},
        MASKS,
        MASKS.astype(np.float32) * 7,
        rle.check(COUNTS, (9, 14)),
    ],
)
def test_every_input_is_stored_as_rle_and_decoded(masks):
    stored = FEATURES.encode_example({"masks": masks, "n": 5})["masks"]
    assert stored["counts"] == COUNTS
    assert (stored["size"].dtype, stored["size"].tolist()) == (np.int32, [9, 14])
    serialized = FEATURES.serialize_example({"masks": masks, "n": 5})
    decoded = FEATURES.deserialize_example(serialized)["masks"]
    assert decoded.dtype == tf.uint8
    np.testing.assert_array_equal(decoded, MASKS)
    np.testing.assert_array_equal(FEATURES.deserialize_example_np(serialized)["masks"], MASKS)


def test_no_masks():
    serialized = FEATURES.serialize_example({"masks": {"size": (9, 14), "counts": []}, "n": 0})
    assert FEATURES.deserialize_example(serialized)["masks"].shape == (0, 9, 14)
    assert FEATURES.deserialize_example_np(serialized)["masks"].shape == (0, 9, 14)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"size": (9, 14), "counts": [COUNTS[0], b"2P"]}, "The RLE of mask 1 is malformed"),
        ({"size": (9, 15), "counts": COUNTS}, "The RLE of mask 0 is malformed: its runs"),
        ({"size": (9, 0), "counts": []}, "two positive integers"),
        ({"counts": []}, "'size' and 'counts'"),
        ({"size": (2, 3), "counts": "666"}, "one RLE goes into a list"),
        (rle.Checked([b"2P"], (2, 3)), "The RLE of mask 0 is malformed"),
        ([RLES[0], {**RLES[1], "size": [14, 9]}], "disagrees"),
        ([], "empty list of masks has no size"),
        (MASKS[0], r"shape \[N, H, W\]"),
        (np.zeros((3, 0, 4)), "two positive integers"),
    ],
)
def test_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        FEATURES.encode_example({"masks": masks, "n": 0})


def test_decode_masks_to_is_checked():
    with pytest.raises(ValueError, match="max_masks must be positive"):
        sa1b_tfds.decode_masks_to(max_masks=0)
    with pytest.raises(ValueError, match="size must be two positive integers"):
        sa1b_tfds.decode_masks_to(size=(0, 5))


@pytest.mark.parametrize("size", [None, (4, 5), (20, 30)])
@pytest.mark.parametrize("max_masks", [None, 2, 99])
def test_decode_masks_to(size, max_masks):
    serialized = FEATURES.serialize_example({"masks": MASKS, "n": 5})
    expected = strategies.sample(MASKS[:max_masks], size)
    decoders = {"masks": sa1b_tfds.decode_masks_to(size, max_masks)}
    for deserialize in (FEATURES.deserialize_example, FEATURES.deserialize_example_np):
        decoded = deserialize(serialized, decoders=decoders)
        np.testing.assert_array_equal(decoded["masks"], expected)


def test_features_json_is_read_in_a_fresh_process(tmp_path):
    """features.json names the class by its path: it must load where nothing was imported."""
    FEATURES.save_config(tmp_path)
    (tmp_path / "example").write_bytes(FEATURES.serialize_example({"masks": MASKS, "n": 5}))
    np.save(tmp_path / "masks.npy", MASKS)
    code = f"""
        import pathlib, sys
        import numpy as np
        import tensorflow_datasets as tfds
        folder = pathlib.Path({str(tmp_path)!r})
        features = tfds.features.FeatureConnector.from_config(folder)
        assert type(features["masks"]).__name__ == "RleMasks", features
        example = features.deserialize_example_np((folder / "example").read_bytes())
        np.testing.assert_array_equal(example["masks"], np.load(folder / "masks.npy"))
        assert "tensorflow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


@pytest.mark.parametrize("masks", [MASKS, MASKS[:0], np.ones((3, 700, 20), bool)])
def test_repr_html_is_a_picture(masks):
    html = sa1b_tfds.RleMasks().repr_html(masks.astype(np.uint8))
    assert html.startswith('<img src="data:image/png;base64,')
