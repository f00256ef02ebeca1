"""Which library makes the images of the `resized_1024` configs: speed and closeness, side by side.

python benchmarks/resize.py [TARS] [--images 8]

Every candidate decodes a JPEG, resizes it to a long side of 1024 and encodes it at the quality in
use, in turns; what counts are the seconds of one core. Its error is that of the resized pixels
against what SAM's preprocessing does with all pixels (full decode, bilinear with antialiasing), as
PSNR. With DCT scaling a decoder gives half the size and never sees all pixels. OpenCV, simplejpeg
and TensorFlow take part where they are installed; TensorFlow's price in a worker, beside the speed,
is 500 MB. Without TARS it takes synthetic images. The ratio is what is in use to Pillow with a full
decode.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
import synthetic
from PIL import Image

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples import jpeg
from sa1b_tfds.tars import archive

_LONG_SIDE = 1024
_FULL, _IN_USE = "Pillow, full decode", "Pillow, DCT scaling with margin"
Candidate = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tars", nargs="?")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    images, masks = zip(*read_pairs(options.tars, options.images), strict=True)
    jpegs, jsons = sum(map(len, images)), sum(map(len, masks))
    exact = [np.asarray(full_decode(data), np.float64) for data in images]

    candidates = dict(_candidates())
    seconds = dict.fromkeys(candidates, float("inf"))
    for _ in range(options.rounds):
        for name, (shrink, encode) in candidates.items():
            began = time.process_time()
            for data in images:
                encode(shrink(data))
            seconds[name] = min(seconds[name], time.process_time() - began)
    print(f"{'':34} {'images/s':>8} {'PSNR dB':>8} {'worst':>6} {'kB':>5}")
    for name, (shrink, encode) in candidates.items():
        small = [shrink(data) for data in images]
        errors = [np.mean((np.asarray(a) - b) ** 2) for a, b in zip(small, exact, strict=True)]
        size = sum(len(encode(image)) for image in small)
        print(
            f"{name:34} {len(images) / seconds[name]:8.1f} {_psnr(np.mean(errors)):8.1f}"
            f" {_psnr(max(errors)):6.1f} {size / len(images) / 1000:5.0f}"
        )
    kept = sum(len(encode_pillow(in_use(data))) for data in images) / (jpegs + jsons)
    print(f"In use: images are {kept:.2f} of the tars' bytes, JSON {jsons / (jpegs + jsons):.2f}")
    print(f"ratio: {seconds[_FULL] / seconds[_IN_USE]:.2f}")


def read_pairs(tars: str | None, images: int) -> list[tuple[bytes, bytes]]:
    """(JPEG, JSON) of the first images of a folder of tars; without one, synthetic ones."""
    if tars is None:
        drawn = synthetic.templates()
        pairs = [(jpeg, json.dumps(content).encode()) for jpeg, content in drawn]
        return [pairs[i % len(pairs)] for i in range(images)]
    found = itertools.chain.from_iterable(
        tar.pairs(Problems()) for tar in archive.find_archives(tars)
    )
    return [(pair.jpeg, pair.json) for pair in itertools.islice(found, images)]


def _candidates() -> list[tuple[str, Candidate]]:
    found: list[tuple[str, Candidate]] = [
        (_FULL, (full_decode, encode_pillow)),
        (_IN_USE, (in_use, encode_pillow)),
        ("Pillow, DCT scaling always", (_pillow_scaled, encode_pillow)),
    ]
    try:
        import cv2

        cv2.setNumThreads(1)

        def decode(flag: int) -> Callable[[bytes], np.ndarray]:
            def run(data: bytes) -> np.ndarray:
                full = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
                size = _size(*jpeg.image_size(data)[::-1])
                return cv2.resize(full, size, interpolation=cv2.INTER_AREA)[..., ::-1]

            return run

        def encode(image: np.ndarray) -> bytes:
            bgr = np.ascontiguousarray(image[..., ::-1])
            return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, jpeg.QUALITY])[1].tobytes()

        found.append(("OpenCV, area", (decode(cv2.IMREAD_COLOR), encode)))
        found.append(("OpenCV, DCT scaling + area", (decode(cv2.IMREAD_REDUCED_COLOR_2), encode)))
    except ImportError:
        print("OpenCV is not installed")
    try:
        import simplejpeg

        def scaled(data: bytes) -> np.ndarray:
            height, width = jpeg.image_size(data)
            size = _size(width, height)
            half = simplejpeg.decode_jpeg(
                data, min_height=size[1], min_width=size[0], fastdct=False, fastupsample=False
            )
            return np.asarray(Image.fromarray(half).resize(size, Image.Resampling.BILINEAR))

        def encode_simple(image: np.ndarray) -> bytes:
            return simplejpeg.encode_jpeg(image, jpeg.QUALITY, colorsubsampling="420")

        found.append(("simplejpeg, DCT scaling + Pillow", (scaled, encode_simple)))
    except ImportError:
        print("simplejpeg is not installed")
    try:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)

        def with_tensorflow(data: bytes) -> np.ndarray:
            full = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE")
            size = _size(full.shape[1], full.shape[0])
            small = tf.image.resize(full, size[::-1], antialias=True)
            return tf.cast(tf.clip_by_value(small + 0.5, 0, 255), tf.uint8).numpy()

        def encode_tensorflow(image: np.ndarray) -> bytes:
            return tf.io.encode_jpeg(image, quality=jpeg.QUALITY).numpy()

        found.append(("TensorFlow", (with_tensorflow, encode_tensorflow)))
    except ImportError:
        print("TensorFlow is not installed")
    return found


def in_use(data: bytes) -> Image.Image:
    return jpeg.resize(Image.open(io.BytesIO(data)), _LONG_SIDE)


def full_decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return image.resize(_size(*image.size), Image.Resampling.BILINEAR)


def _pillow_scaled(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    size = _size(*image.size)
    image.draft("RGB", size)
    return image.convert("RGB").resize(size, Image.Resampling.BILINEAR)


def encode_pillow(image: Image.Image) -> bytes:
    return jpeg.encode(image, jpeg.QUALITY)


def _size(width: int, height: int) -> tuple[int, int]:
    scale = _LONG_SIDE / max(width, height)
    return int(width * scale + 0.5), int(height * scale + 0.5)


def _psnr(squared_error: float) -> float:
    return 10 * np.log10(255**2 / squared_error) if squared_error else float("inf")


if __name__ == "__main__":
    main()
