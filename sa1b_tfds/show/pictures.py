"""An example, small enough to look at: its image, and its masks at the same size."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.parts import Part
from sa1b_tfds.masks import overlay, rle


class Picture(NamedTuple):
    """image: uint8 [h, w, 3]. masks: uint8 [N, h, w]. ids: int64 [N], the masks' ids."""

    image: np.ndarray
    masks: np.ndarray
    ids: np.ndarray

    def painted(self) -> np.ndarray:
        """uint8 [h, w, 3]: the masks half transparent over the image."""
        return overlay.paint_masks(self.masks, self.image, self.ids)

    def layer(self) -> np.ndarray:
        """uint8 [h, w, 4]: the masks alone, opaque, and transparent where there is none."""
        covered = 255 * (self.masks != 0).any(axis=0)
        colours = overlay.paint_masks(self.masks, ids=self.ids)
        return np.dstack([colours, covered.astype(np.uint8)])


def picture_of(example: Example, long_side: int) -> Picture:
    """Makes a picture whose longer side is at most `long_side` pixels.

    Raises:
      ValueError: if the JPEG does not decode.
    """
    image = jpeg.thumbnail(example.image, long_side)
    counts, size = example.masks
    masks = rle.decode_rles(counts, size, image.shape[:2])
    return Picture(image, masks, example.annotations["id"])


def take(parts: Sequence[Part], n: int, problems: Problems) -> list[Example]:
    """Takes n examples whose images decode, from all parts in turns: one of each, another, ..."""
    return list(itertools.islice(_in_turns(parts, problems), n))


def _in_turns(parts: Sequence[Part], problems: Problems) -> Iterator[Example]:
    waiting = [_decodable(part, problems) for part in parts]
    while waiting:
        left = []
        for examples in waiting:
            for example in itertools.islice(examples, 1):
                yield example
                left.append(examples)
        waiting = left


def _decodable(part: Part, problems: Problems) -> Iterator[Example]:
    for example in part.examples(problems):
        try:
            jpeg.thumbnail(example.image, 1)
        except ValueError as e:
            problems.report(part.name, example.file_name, str(e))
            continue
        yield example


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3 or 4] -> the bytes of a PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
