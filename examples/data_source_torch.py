"""`tfds.data_source` in a torch DataLoader: prepared array_record files, without TensorFlow.

    python examples/data_source_torch.py [--start-method spawn]

TFDS's own way; `sa1b_tfds.torch.SA1BDataset` reads the same files, and tars that nothing was
prepared of. Do not fork workers after reading from the data source in the main process: its library
crashes there. 'spawn' and 'forkserver' are safe, and need the guard at the end of this file.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile

import numpy as np
import tensorflow_datasets as tfds
import torch
from torch.utils.data import DataLoader

import sa1b_tfds

ROOT = pathlib.Path(__file__).parents[1]


def collate(examples: list[dict]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """Images and masks differ in size and number from image to image: lists of tensors."""
    return {
        "image": [torch.from_numpy(np.array(e["image"])).permute(2, 0, 1) for e in examples],
        "masks": [torch.from_numpy(np.array(e["masks"])).bool() for e in examples],
        "image_id": torch.tensor([int(e["image_id"]) for e in examples]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--start-method", choices=("spawn", "forkserver"), default="forkserver")
    method = parser.parse_args().start_method
    with tempfile.TemporaryDirectory() as data_dir:
        builder = tfds.builder("segment_anything", data_dir=data_dir, file_format="array_record")
        config = tfds.download.DownloadConfig(manual_dir=ROOT / "dummy_data")
        builder.download_and_prepare(download_config=config)
        source = tfds.data_source(
            "segment_anything",
            split="train",
            data_dir=data_dir,
            decoders={"masks": sa1b_tfds.decode_masks_to(size=(128, 128), max_masks=16)},
        )
        loader = DataLoader(
            source,
            batch_size=4,
            shuffle=True,
            num_workers=1,
            multiprocessing_context=method,
            collate_fn=collate,
        )
        ids = []
        for batch in loader:
            ids += batch["image_id"].tolist()
            print([tuple(masks.shape) for masks in batch["masks"]])
        print(f"{len(ids)} images; TensorFlow loaded: {'tensorflow' in sys.modules}")


if __name__ == "__main__":
    main()
