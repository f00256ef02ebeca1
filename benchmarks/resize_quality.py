"""What the `resized_1024` configs lose and take at each JPEG quality, on a folder of SA-1B tars.

    python benchmarks/resize_quality.py [TARS] [--images 16]

For each quality: bytes an image, and the PSNR of the stored image against the resized one before it
was encoded, and against one that was decoded in full and not encoded at all. Without TARS it takes
synthetic images. The last line is the bytes at the quality in use over those of the original.
"""

from __future__ import annotations

import argparse
import io

import numpy as np
from PIL import Image
from resize import full_decode, in_use, read_pairs

from sa1b_tfds.examples import jpeg

QUALITIES = (80, 85, 90, 95, 98)


def psnr(a: Image.Image, b: Image.Image) -> float:
    error = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return 10 * np.log10(255**2 / np.mean(error**2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tars", nargs="?")
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    images = [image for image, _ in read_pairs(options.tars, options.images)]
    original = np.mean([len(image) for image in images])
    print(f"{len(images)} images, {original / 1e3:.0f} kB each as they are")
    resized = [in_use(image) for image in images]
    exact = [full_decode(image) for image in images]
    for quality in QUALITIES:
        stored = [jpeg.encode(image, quality) for image in resized]
        size = np.mean([len(data) for data in stored])
        losses = []
        for original_pixels in (resized, exact):
            pairs = zip(original_pixels, stored, strict=True)
            losses.append(np.mean([psnr(a, Image.open(io.BytesIO(b))) for a, b in pairs]))
        print(
            f"quality {quality}: {size / 1e3:.0f} kB, {losses[0]:.1f} dB, in all {losses[1]:.1f} dB"
        )
        if quality == jpeg.QUALITY:
            ratio = size / original
    print(f"ratio: {ratio:.2f}")


if __name__ == "__main__":
    main()
