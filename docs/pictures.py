"""Draws the pictures of these pages from the synthetic tars: `python docs/pictures.py [FOLDER]`."""

from __future__ import annotations

import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
TARS = ROOT / "dummy_data"
QUALITY = 82


def main(folder: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    import sa1b_tfds
    from sa1b_tfds import show

    skip = tfds.decode.SkipDecoding()
    source = sa1b_tfds.read_tars(TARS, decoders={"image": skip, "masks": skip})

    def batch(**options: object) -> Image.Image:
        sizes = {"image_size": 512, "masks_per_image": 16, "min_area": 100, "normalise": None}
        config = sa1b_tfds.TrainingConfig(
            **{"batch_size": 2, "shuffle": 0, "seed": 3, **sizes, **options}
        )
        return show.show_batch(next(iter(sa1b_tfds.training_dataset(source, config))), 4, 512)

    # As the README's lines draw it: enlarged so far that no part of the square is padding.
    config = sa1b_tfds.TrainingConfig(
        batch_size=2,
        image_size=512,
        mask_size=512,
        masks_per_image=16,
        scale_range=(1.6, 1.8),
        seed=7,
    )
    first = next(iter(sa1b_tfds.training_dataset(source, config)))
    save(show.show_batch(first), folder / "batch.jpg", 1060)
    save(
        batch(batch_size=4, scale_range=(0.6, 2.0), flip=0.5, colour_jitter=0.3),
        folder / "training.jpg",
        1000,
    )
    some = tfds.as_numpy(next(iter(sa1b_tfds.read_tars(TARS))))
    outside = np.full_like(some["annotations"]["bbox"], -1)
    annotations = {**some["annotations"], "bbox": outside}
    save(show.show_batch({**some, "annotations": annotations}, side=600), folder / "features.jpg")
    save(contact_sheet(), folder / "show.jpg", 1000)
    save(from_coco(), folder / "export.jpg", 600)


def contact_sheet() -> Image.Image:
    """What `sa1b show dummy_data --out sheet.png --n 3` writes."""
    from sa1b_tfds.cli.main import main as sa1b

    with tempfile.TemporaryDirectory() as name:
        sa1b(["show", str(TARS), "--out", f"{name}/sheet.png", "--n", "3"])
        return Image.open(f"{name}/sheet.png").convert("RGB")


def from_coco() -> Image.Image:
    """An image of the COCO export, as supervision draws it."""
    import supervision

    from sa1b_tfds.cli.main import main as sa1b

    with tempfile.TemporaryDirectory() as name:
        sa1b(["export", str(TARS), f"{name}/coco", "--format", "coco", "--max-images", "1"])
        dataset = supervision.DetectionDataset.from_coco(
            f"{name}/coco/images", f"{name}/coco/annotations.json"
        )
        _, image, detections = dataset[0]
        annotate = supervision.MaskAnnotator(color_lookup=supervision.ColorLookup.INDEX).annotate
        return Image.fromarray(annotate(image, detections)[:, :, ::-1])


def save(picture: Image.Image, path: pathlib.Path, width: int | None = None) -> None:
    """Writes a JPEG of at most `width` pixels, without its white border."""
    picture = picture.crop(Image.eval(picture.convert("L"), lambda x: 255 - x).getbbox())
    if width is not None and picture.width > width:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture.save(path, quality=QUALITY)
    print(path)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
