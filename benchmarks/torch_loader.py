"""Images/s of SA1BDataset beside loading as scripts on SA-1B do it; masks of 256 x 256, one worker.

    python benchmarks/torch_loader.py [--images 96] [--like sa_000000.tar]

The peer opens the JPEG with Pillow and the JSON with json, decodes every mask to full size with
pycocotools, stacks them, and resizes them to 256 x 256 with torch's nearest interpolation. Both are
Datasets in a DataLoader with one worker of one thread, both give the full-size image and the same
number of masks, and take turns. `bare` only decodes the JPEGs, as ours does: no loader that gives
the whole image can be faster. `pillow` does so with Pillow. `compressed` is ours on the same tar as
Meta serves it, read in any order by seek points.
"""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import synthetic
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples import jpeg
from sa1b_tfds.tars import archive
from sa1b_tfds.torch import SA1BDataset

SIDE = 256
_IN_TAR = 64  # images, so that the compressed tar has some seek points


class Peer(Dataset):
    """Full-size masks by pycocotools, then resized."""

    def __init__(self, tar: pathlib.Path):
        self._archive = archive.TarArchive(tar)
        self._entries = self._archive.index(Problems())

    def __len__(self) -> int:
        return len(self._entries)

    def pair(self, i: int) -> Any:
        [pair] = self._archive.read([self._entries[i]], Problems())
        return pair

    def __getitem__(self, i: int) -> Any:
        pair = self.pair(i)
        pixels = with_pillow(pair.jpeg)
        annotations = json.loads(pair.json)["annotations"]
        full = np.stack([coco_mask.decode(a["segmentation"]) for a in annotations])
        masks = torch.nn.functional.interpolate(
            torch.from_numpy(full)[None], (SIDE, SIDE), mode="nearest-exact"
        )
        return pixels, masks[0].bool()


class Bare(Peer):
    """The JPEG and nothing else."""

    def __init__(self, tar: pathlib.Path, decode: Callable[[bytes], torch.Tensor]):
        super().__init__(tar)
        self._decode = decode

    def __getitem__(self, i: int) -> Any:
        return self._decode(self.pair(i).jpeg)


def with_pillow(data: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(2, 0, 1)


def as_ours(data: bytes) -> torch.Tensor:
    return torch.from_numpy(jpeg.decode(data)).permute(2, 0, 1)


def listed(batch: Sequence[Any]) -> Sequence[Any]:
    return batch


def seconds(dataset: Dataset, images: int) -> float:
    """Seconds an image in a worker; its start is left out."""
    loader = DataLoader(
        dataset,
        batch_size=1,
        num_workers=1,
        collate_fn=listed,
        sampler=[i % len(dataset) for i in range(images + 2)],  # type: ignore[arg-type]
        multiprocessing_context="fork",
    )
    batches = iter(loader)
    next(batches)
    next(batches)
    start = time.perf_counter()
    taken = sum(len(batch) for batch in batches)
    return (time.perf_counter() - start) / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=48, help="of ours a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="sa1b_torch") as folder:
        templates = synthetic.templates(options.like)
        tars = synthetic.write_tars(pathlib.Path(folder) / "tars", templates, 1, _IN_TAR)
        packed = synthetic.packed(tars, pathlib.Path(folder) / "packed")
        tar, compressed = (path / "sa_000000.tar" for path in (tars, packed))
        compare(tar, compressed, options.images, options.rounds)


def compare(tar: pathlib.Path, compressed: pathlib.Path, images: int, rounds: int) -> None:
    peer, ours = Peer(tar), SA1BDataset(tar, mask_size=SIDE)
    began = time.monotonic()
    by_seek_points = SA1BDataset(compressed, mask_size=SIDE)
    took, size = time.monotonic() - began, compressed.stat().st_size
    kept = compressed.with_name(f".{compressed.name}.seek").stat().st_size
    print(f"opened compressed: {size / took / 1e6:.0f} MB/s once, keeps {kept / size:.2%} of it")
    for i in range(4):
        if not torch.equal(by_seek_points[i][0], ours[i][0]):
            raise AssertionError(f"image {i} differs")
    for i in range(4):
        for theirs, mine in zip(peer[i], ours[i][:2], strict=True):
            if not torch.equal(theirs, mine):
                raise AssertionError(f"image {i} differs")
    contestants: dict[str, Callable[[], float]] = {
        "bare": lambda: seconds(Bare(tar, as_ours), images),
        "pillow": lambda: seconds(Bare(tar, with_pillow), images),
        "peer": lambda: seconds(peer, max(4, images // 8)),
        "ours": lambda: seconds(ours, images),
        "compressed": lambda: seconds(by_seek_points, images),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(run())
    for name, taken in times.items():
        print(f"{name}: {1 / statistics.median(taken):.1f} images/s")
    ratios = [p / o for p, o in zip(times["peer"], times["ours"], strict=True)]
    bare = [b / o for b, o in zip(times["bare"], times["ours"], strict=True)]
    packed = [o / c for o, c in zip(times["ours"], times["compressed"], strict=True)]
    print(f"compressed, of plain: {statistics.median(packed):.2f}")
    print(f"of bare JPEG decoding: {statistics.median(bare):.2f}")
    print(f"ratio: {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
