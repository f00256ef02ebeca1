"""A file of predictions in COCO's results format: a JSON list of {image_id, segmentation, score}.

The file is read entry by entry, and only scores and RLEs are kept. An RLE is checked when the size
of its image is known, and before pycocotools sees it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TextIO

from etils import epath

from sa1b_tfds.masks import rle
from sa1b_tfds.masks.runs import run_lengths

_CHUNK = 2**20  # characters
# Characters of an entry. SA-1B's longest RLE has some 100,000; uncompressed counts take a few more.
_MAX_ENTRY = 16 * 2**20
_MAX_SCORE = sys.float_info.max


class Prediction(NamedTuple):
    """One prediction of an image.

    entry: its number in the file, from 0.
    score: its score.
    segmentation: the RLE as it is in the file, not checked yet.
    """

    entry: int
    score: float
    segmentation: Any

    def rle(self, size: tuple[int, int]) -> dict[str, Any]:
        """Returns the checked RLE, as pycocotools takes it.

        Raises:
          ValueError: if it is malformed or differs in size from its image; names the entry.
        """
        try:
            return rle.to_rle(self.segmentation, size)
        except ValueError as e:
            raise ValueError(f"entry {self.entry}: segmentation: {e}") from e


def checked_rles(predictions: Sequence[Prediction], size: tuple[int, int]) -> list[dict[str, Any]]:
    """Returns the checked RLE of each prediction; raises what `Prediction.rle` raises."""
    # All are checked in one call if they are compressed, which is much faster. If that fails, they
    # are checked one by one, which also names the entry that is wrong.
    segmentations = [prediction.segmentation for prediction in predictions]
    try:
        counts = [own["counts"] for own in segmentations]
        sizes = [list(own["size"]) for own in segmentations]
        if sizes.count(list(size)) == len(sizes):
            run_lengths(counts, size)
            return [{"size": list(size), "counts": own} for own in counts]
    except (KeyError, TypeError, ValueError):
        pass
    return [prediction.rle(size) for prediction in predictions]


def read_predictions(path: epath.PathLike) -> dict[int, list[Prediction]]:
    """Reads the predictions of each image, by its id.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if the file is not a JSON list, or a field of an entry is missing or invalid; the
        message names the file and the entry, counted from 0.
    """
    found: dict[int, list[Prediction]] = {}
    with epath.Path(path).open("r") as file:
        try:
            for number, entry in enumerate(_entries(file)):
                image_id, prediction = _prediction(number, entry)
                found.setdefault(image_id, []).append(prediction)
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from e
    return found


def _prediction(number: int, entry: Any) -> tuple[int, Prediction]:
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} must be an object, got {entry!r:.60}")
    if missing := [name for name in ("image_id", "segmentation", "score") if name not in entry]:
        raise ValueError(f"entry {number} lacks {', '.join(map(repr, missing))}")
    image_id, score = entry["image_id"], entry["score"]
    if type(image_id) is not int:
        raise ValueError(f"entry {number}: 'image_id' must be an integer, got {image_id!r:.60}")
    if type(score) not in (int, float) or not abs(score) <= _MAX_SCORE:
        raise ValueError(f"entry {number}: 'score' must be a finite number, got {score!r:.60}")
    segmentation = entry["segmentation"]
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), str):
        # Bytes take at most half the memory of a string.
        segmentation = {**segmentation, "counts": segmentation["counts"].encode("utf-8", "replace")}
    return image_id, Prediction(number, float(score), segmentation)


def _entries(file: TextIO) -> Iterator[Any]:
    """Yields the elements of a JSON list. About a chunk of the file is in memory at a time."""
    decoder = json.JSONDecoder()
    number = 0
    text = _more(file, "")
    if not text.startswith("["):
        raise ValueError("it is no JSON list, the form of COCO's results")
    text = text[1:]
    while True:
        text = _more(file, text)
        if text.startswith("]") and number == 0:
            break
        try:
            entry, end = decoder.raw_decode(text)
        except (json.JSONDecodeError, RecursionError) as e:
            # Either the entry is broken, or it goes on after the text so far: read more and see.
            longer = _more(file, text, at_least=len(text) + _CHUNK)
            if len(longer) == len(text) or len(text) > _MAX_ENTRY:
                raise ValueError(f"entry {number} is no JSON, or is cut off: {e}") from e
            text = longer
            continue
        text = _more(file, text[end:])
        if text[:1] not in (",", "]"):
            raise ValueError(f"',' or ']' must follow entry {number}, got {text[:20]!r}")
        yield entry
        number += 1
        if text.startswith("]"):
            break
        text = text[1:]
    if rest := _more(file, text[1:]):
        raise ValueError(f"nothing may follow the list, got {rest[:20]!r}")


def _more(file: TextIO, text: str, at_least: int = 1) -> str:
    """Strips leading spaces and reads until `at_least` characters are there or the file ends."""
    text = text.lstrip()
    while len(text) < at_least and (chunk := file.read(_CHUNK)):
        text = (text + chunk).lstrip()
    return text
