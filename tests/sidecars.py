"""What the tests of sidecars share: a function that makes columns, and what it makes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import tensorflow_datasets as tfds

LABELS = ["cat", "dog", "tree"]
FEATURES = {
    "embedding": tfds.features.Tensor(shape=(4, 4, 8), dtype=np.float16),
    "vector": tfds.features.Tensor(shape=(3,), dtype=ml_dtypes.bfloat16),
    "caption": tfds.features.Text(),
    "label": tfds.features.Sequence(tfds.features.ClassLabel(names=LABELS)),
    "clip": tfds.features.Tensor(shape=(None, 5), dtype=np.float32),
}


def expected(image_id: int, mask_count: int) -> dict:
    """The columns of an image, different for each image and mask."""
    rng = np.random.default_rng(image_id)
    return {
        "embedding": rng.random((4, 4, 8)).astype(np.float16),
        "vector": rng.random(3).astype(ml_dtypes.bfloat16),
        "caption": f"Größe {image_id} {'x' * (image_id % 5)}",
        "label": (image_id + np.arange(mask_count)) % len(LABELS),
        "clip": rng.random((mask_count, 5)).astype(np.float32),
    }


def make(batch: list[dict]) -> dict:
    """What `sidecar.map` calls."""
    rows = [expected(each["image_id"], len(each["masks"].counts)) for each in batch]
    columns = {name: [row[name] for row in rows] for name in FEATURES}
    return columns | {"embedding": np.stack(columns["embedding"])}
