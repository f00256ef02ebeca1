"""What this package offers: training_dataset of prepared data and of tars, SA1BDataset, Grain."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

from loaders import BATCH, IMAGE, MASK, MASKS, SHUFFLE, WORKERS


def original(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    return _batches("segment_anything/original", data_dir=folder)


def resized(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    return _batches("segment_anything/resized_1024", data_dir=folder)


def tars(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    import tensorflow_datasets as tfds

    import sa1b_tfds

    skip = tfds.decode.SkipDecoding()
    return _batches(
        sa1b_tfds.read_tars(folder, decoders={"image": skip, "masks": skip}, shuffle=True)
    )


def grain(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    import sa1b_tfds

    name = "segment_anything/original"
    dataset = sa1b_tfds.grain.dataset(name, _config(), data_dir=folder, num_workers=WORKERS)
    return iter(dataset)


def _batches(source: Any, **options: Any) -> Iterator[dict[str, Any]]:
    import sa1b_tfds

    return iter(sa1b_tfds.training_dataset(source, _config(), **options))


def _config() -> Any:
    import sa1b_tfds

    return sa1b_tfds.TrainingConfig(
        batch_size=BATCH,
        image_size=IMAGE,
        mask_size=MASK,
        masks_per_image=MASKS,
        shuffle=SHUFFLE,
        repeat=True,
    )


def sa1b_dataset(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    from loaders import files
    from sa1b_tfds.torch import SA1BDataset, TransformersCollate

    dataset = SA1BDataset(
        folder, mask_size=MASK, keep_aspect=True, max_masks=MASKS, mask_choice="random"
    )
    for batch in files.drawn(dataset, collate_fn=TransformersCollate(masks_per_image=MASKS)):
        yield {
            "image": batch["pixel_values"],
            "masks": batch["masks"],
            "points": batch["input_points"],
            "boxes": batch["input_boxes"],
        }
