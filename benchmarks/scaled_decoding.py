"""How close scaled decoding comes to an exact resize, and in what time, by the images' shape.

    python benchmarks/scaled_decoding.py [--like TAR] [--size 1024]

For each shape it tries every ratio that libjpeg can scale by, whichever the training path takes,
and says which one that is. The images are those of a tar, or synthetic; only photographs tell how
close. The ratio is the time of the way taken, of the time of decoding in full.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import statistics
import time

import numpy as np
import synthetic
import tensorflow as tf

from sa1b_tfds.examples import jpeg
from sa1b_tfds.training import images

_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--like", type=pathlib.Path, metavar="TAR", help="take its images")
    parser.add_argument("--size", type=int, default=1024, help="long side (%(default)s)")
    options = parser.parse_args()
    found: dict[int, dict[int, list[tuple[float, float]]]] = {}
    for data, _ in synthetic.templates(options.like):
        size = jpeg.image_size(data)
        group = round(max(size) / options.size / 0.1) * 10  # tenths of the target's long side
        ways = found.setdefault(group, collections.defaultdict(list))
        for ratio, result in _tried(data, size, options.size).items():
            ways[ratio].append(result)
    shares = []
    for group, ways in sorted(found.items()):
        taken = max(r for r in images._RATIOS if group / 100 * images._ENLARGED >= r)
        for ratio, results in sorted(ways.items()):
            closeness, seconds = zip(*results, strict=True)
            print(
                f"long side {group / 100:.1f} x {options.size}, decoded at 1/{ratio}:"
                f" {statistics.median(closeness):.1f} dB, worst {min(closeness):.1f},"
                f" {1e3 * statistics.median(seconds):.1f} ms, {len(results)} images"
                f"{', taken' if ratio == taken else ''}"
            )
        full, way = (statistics.median(s for _, s in ways[r]) for r in (1, taken))
        shares.append(way / full)
    print(f"ratio: {statistics.mean(shares):.2f}")


def _tried(data: bytes, size: tuple[int, int], side: int) -> dict[int, tuple[float, float]]:
    """ratio -> (PSNR beside an antialiased resize of the exactly decoded image, seconds)."""
    target = jpeg.fit(size, (side, side))
    exact = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")
    exact = tf.image.resize(exact, target, antialias=True).numpy()
    results = {}
    for ratio in images._RATIOS:
        if ratio > 1 and max(size) / ratio < side / 1.3:
            continue  # nobody would enlarge so much
        seconds = []
        for _ in range(_ROUNDS):
            began = time.process_time()
            pixels = tf.cast(tf.io.decode_jpeg(data, 3, ratio), tf.float32)[None]
            way = tf.raw_ops.ResizeBilinear(images=pixels, size=target, half_pixel_centers=True)
            seconds.append(time.process_time() - began)
        error = np.mean((np.round(way[0].numpy()) - np.round(exact)) ** 2)
        closeness = 10 * np.log10(255**2 / max(error, 1e-9))
        results[ratio] = (float(closeness), min(seconds))
    return results


if __name__ == "__main__":
    main()
