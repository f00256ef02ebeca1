"""The main job on the synthetic data: tars -> prepared data -> training batches, and pictures.

python examples/demo.py      # or: make demo
"""

import pathlib
import shutil

import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds import show
from sa1b_tfds.cli.main import main as sa1b
from sa1b_tfds.core import quiet

ROOT = pathlib.Path(__file__).parents[1]
TARS = ROOT / "dummy_data"
OUT = ROOT / "build" / "demo"


def main() -> None:
    quiet.import_tensorflow()
    shutil.rmtree(OUT, ignore_errors=True)

    print("\n1. Tars -> prepared data:  sa1b build dummy_data --data-dir build/demo/data")
    sa1b(["build", str(TARS), "--data-dir", str(OUT / "data")])

    print("\n2. Prepared data -> tensors:  tfds.load('segment_anything', split='train')")
    dataset = tfds.load("segment_anything", split="train", data_dir=OUT / "data")
    for example in dataset.take(2):
        print(f"   image {example['image'].shape}, masks {example['masks'].shape}")

    print("\n3. Prepared data -> training batches:  sa1b_tfds.training_dataset(...)")
    config = sa1b_tfds.TrainingConfig(batch_size=2, image_size=512, scale_range=(1.6, 1.8), seed=1)
    batches = sa1b_tfds.training_dataset("segment_anything", config, data_dir=OUT / "data")
    first = next(iter(batches))
    for name in ("image", "masks", "boxes", "points"):
        print(f"   {name:7}{first[name].shape}")

    print("\n4. Pictures")
    show.show_batch(first).save(OUT / "batch.png")
    sa1b(["show", str(OUT / "data"), "--config", "original", "--out", str(OUT / "page.html")])
    print(f"   a training batch: {OUT / 'batch.png'}")
    print(f"   all images:       {OUT / 'page.html'}")


if __name__ == "__main__":
    main()
