"""The main job on the dummy data: tars -> prepared dataset -> batches, and a picture.

python examples/demo.py      # or: make demo
"""

import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

import sa1b_tfds
from sa1b_tfds.masks import overlay

ROOT = pathlib.Path(__file__).parents[1]
PICTURE = ROOT / "demo.png"
EPOCHS = 20


def show_features(info: tfds.core.DatasetInfo) -> None:
    for feature in info.features.catalog_documentation():
        if feature.tensor_info is not None:
            shape = ", ".join(
                "?" if side is None else str(side) for side in feature.tensor_info.shape
            )
            dtype = feature.tensor_info.tf_dtype.name
            print(f"  {feature.name:28} {dtype:8} [{shape}]".ljust(56), feature.description or "")


def main() -> None:
    with tempfile.TemporaryDirectory() as data_dir:
        config = tfds.download.DownloadConfig(manual_dir=ROOT / "dummy_data")
        dataset, info = tfds.load(
            "segment_anything",
            split="train",
            data_dir=data_dir,
            with_info=True,
            decoders={"masks": sa1b_tfds.decode_masks_to(size=(128, 128), max_masks=16)},
            download_and_prepare_kwargs={"download_config": config},
        )
        print(f"\n{info.full_name}: {info.splits['train'].num_examples} images, whose features are")
        show_features(info)

        batches = dataset.repeat(EPOCHS).padded_batch(4).prefetch(2)
        start, images = time.perf_counter(), 0
        for batch in batches:
            images += len(batch["image"])
        shapes = {key: tuple(batch[key].shape) for key in ("image", "masks")}
        print(f"batches of {shapes}: {images / (time.perf_counter() - start):.0f} images/s")

        full = tfds.load("segment_anything", split="train", data_dir=data_dir)
        example = max(full.as_numpy_iterator(), key=lambda example: len(example["masks"]))
        picture = overlay.paint_masks(example["masks"], example["image"])
        Image.fromarray(np.hstack([example["image"], picture])).save(PICTURE)
        name, n = example["file_name"].decode(), len(example["masks"])
        print(f"{n} masks over {name}: see {PICTURE.name}")


if __name__ == "__main__":
    main()
