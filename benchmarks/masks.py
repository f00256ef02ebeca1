"""Decoding 100 masks of 2250 x 1500 on one core: `sa1b_tfds.decode_masks` beside pycocotools.

    python benchmarks/masks.py

At 256 x 256 and 512 x 512 the peer is pycocotools' decode and a nearest resize, mask by mask, as
data loaders do it; at full size it is one call of pycocotools for 16 masks. The floor is a plain
fill of the output. Both sides take turns in one process, and the figures are medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

import sa1b_tfds

HEIGHT, WIDTH = 1500, 2250


def segments(n: int, seed: int = 0) -> list[dict]:
    """n blobs with rough outlines, from a few to several hundred pixels across, as in SA-1B."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    rles = []
    for radius in np.exp(rng.uniform(np.log(15), np.log(600), n)):
        wobble = sum(
            rng.normal(0, 0.25 / k) * np.cos(k * angles + rng.uniform(0, 6)) for k in range(1, 40)
        )
        reach = radius * np.clip(1 + wobble, 0.2, 3)
        center = rng.uniform((0, 0), (WIDTH, HEIGHT))
        outline = center + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        image = Image.new("1", (WIDTH, HEIGHT))
        ImageDraw.Draw(image).polygon([tuple(point) for point in outline], fill=1)
        rles.append(sa1b_tfds.encode_mask(np.array(image)))
    return rles


def one_by_one(rles: list[dict], side: int) -> np.ndarray:
    """pycocotools and nearest sampling at pixel centres, mask by mask."""
    rows = (2 * np.arange(side) + 1) * HEIGHT // (2 * side)
    columns = (2 * np.arange(side) + 1) * WIDTH // (2 * side)
    grid = np.ix_(rows, columns)
    return np.stack([coco_mask.decode(rle)[grid] for rle in rles])


def one_call(rles: list[dict]) -> np.ndarray:
    return coco_mask.decode(rles).transpose(2, 0, 1)


def medians(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Seconds a call; the functions take turns."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def compare(rles: list[dict], output: tuple[int, int], rounds: int) -> float:
    """Prints one line; returns how many times faster than pycocotools we are."""
    counts = tf.constant([rle["counts"] for rle in rles])
    size, shape = tf.constant(output), tf.constant([len(rles), *output])
    decode = tf.function(lambda counts, size: sa1b_tfds.decode_masks(counts, (HEIGHT, WIDTH), size))
    fill = tf.function(lambda value, shape: tf.fill(shape, value))
    one = tf.constant(1, tf.uint8)

    def theirs() -> np.ndarray:
        return one_call(rles) if output == (HEIGHT, WIDTH) else one_by_one(rles, output[0])

    np.testing.assert_array_equal(decode(counts, size), theirs())
    peer, ours, floor = medians(
        [theirs, lambda: decode(counts, size), lambda: fill(one, shape)], rounds
    )
    print(
        f"{len(rles)} masks to {output[0]}x{output[1]}: pycocotools {1e3 * peer:.1f} ms,"
        f" decode_masks {1e3 * ours:.1f} ms, {peer / ours:.1f} times as fast;"
        f" {len(rles) / ours:,.0f} masks/s beside {len(rles) / floor:,.0f} of a plain fill"
    )
    return peer / ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    rles = segments(100)
    kilobytes = sum(len(rle["counts"]) for rle in rles) / 1000
    print(f"100 masks of {HEIGHT}x{WIDTH}, {kilobytes:.0f} kB of RLE, one core")
    ratio = compare(rles, (256, 256), rounds)
    compare(rles, (512, 512), rounds)
    compare(rles[:16], (HEIGHT, WIDTH), rounds)
    print(f"ratio: {ratio:.1f}")


if __name__ == "__main__":
    main()
