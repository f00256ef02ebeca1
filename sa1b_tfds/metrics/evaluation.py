"""A file of predictions against a dataset: every figure of `sa1b eval`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from sa1b_tfds import rle
from sa1b_tfds.annotations import Example
from sa1b_tfds.examples import read_examples
from sa1b_tfds.metrics.coco_eval import CocoEvaluation
from sa1b_tfds.metrics.iou import as_rles, iou_of_rles
from sa1b_tfds.metrics.matching import match_best, match_one_to_one
from sa1b_tfds.metrics.predictions import Prediction, read_predictions
from sa1b_tfds.metrics.summary import boundary_ious, summarise
from sa1b_tfds.problems import Problems


def evaluate_predictions(
    predictions: epath.PathLike,
    data: epath.PathLike,
    config: str | None = None,
    *,
    predicted_only: bool = False,
    problems: Problems | None = None,
    on_image: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Compares predictions in COCO's results format with the masks of a dataset.

    Memory: the predictions' RLEs and scores, one image of the dataset, and a few numbers a mask.

    Args:
      predictions: a JSON file, see `predictions.read_predictions`. Categories are not looked at.
      data, config: see `examples.find_parts`.
      predicted_only: leave out images without a prediction; else their masks count as missed.
      problems: takes what of the dataset is no example, and then also unknown ids; default: raise.
      on_image: called after each image.

    Returns:
      images, images_without_predictions, predictions, masks: how many.
      best: what `summary.summarise` returns, each mask with the prediction that fits it best;
        intervals draw images.
      mean_iou_one_to_one: each prediction given to one mask at most.
      coco: what `CocoEvaluation.figures` returns.

    Raises:
      OSError, ValueError: if the file cannot be read, or an entry is malformed, has another size
        than its image, or an id that the dataset lacks; the message names the entry.
      ValueError: if there is no mask to compare with.
      ImportError: without SciPy, naming the extra.
    """
    problems = problems or Problems()
    waiting = read_predictions(predictions)
    number = sum(map(len, waiting.values()))
    seen: set[int] = set()
    tally = _Tally()
    for example in read_examples(data, config, problems):
        image_id = example["image_id"]
        if image_id in seen:
            again = f"the image_id {image_id} was there before: it is evaluated once"
            problems.report(str(data), example["file_name"], again)
            continue
        seen.add(image_id)
        own = waiting.pop(image_id, [])
        if own or not predicted_only:
            try:
                tally.add(example, own)
            except ValueError as e:
                raise ValueError(f"{predictions}: {e} (image {image_id})") from e
        on_image()
    if waiting:
        reason = f"{_unknown(waiting)} {data}."
        if not problems.found:
            raise ValueError(f"{predictions}: {reason}")
        problems.report(str(predictions), "", reason)  # they may be those of a bad image
    return {**tally.figures(), "predictions": number}


def _unknown(waiting: Mapping[int, list[Prediction]]) -> str:
    first = min((own[0].entry, image_id) for image_id, own in waiting.items())
    entries = sum(map(len, waiting.values()))
    return (
        f"entry {first[0]} has the image_id {first[1]}, which is not in the dataset; {entries}"
        f" entries with {len(waiting)} such ids in all. Looked in"
    )


class _Tally:
    """What is kept of each image."""

    def __init__(self) -> None:
        self._coco = CocoEvaluation()
        self._without_predictions = 0
        self._image_of: list[int] = []  # of each mask
        self._columns: dict[str, list[np.ndarray]] = {
            "iou": [],
            "boundary_iou": [],
            "area": [],
            "one_to_one": [],
        }
        self._images = 0

    def add(self, example: Example, predictions: list[Prediction]) -> None:
        counts, size = example["masks"]
        truths = as_rles(example["masks"])
        predicted = [prediction.rle(size) for prediction in predictions]
        iou = iou_of_rles(predicted, truths)
        best = match_best(iou)
        self._coco.add(predicted, [p.score for p in predictions], truths, iou)
        self._columns["iou"].append(best.iou)
        self._columns["boundary_iou"].append(boundary_ious(predicted, truths, best))
        self._columns["area"].append(rle.areas(rle.run_lengths(counts, size)))
        self._columns["one_to_one"].append(match_one_to_one(iou).iou)
        self._image_of += [self._images] * len(truths)
        self._images += 1
        self._without_predictions += not predictions

    def figures(self) -> dict[str, Any]:
        if not self._image_of:
            raise ValueError("There is no mask to compare with.")
        column = {name: np.concatenate(values) for name, values in self._columns.items()}
        groups = np.array(self._image_of)
        return {
            "images": self._images,
            "images_without_predictions": self._without_predictions,
            "masks": len(groups),
            "best": summarise(column["iou"], column["boundary_iou"], column["area"], groups),
            "mean_iou_one_to_one": float(column["one_to_one"].mean()),
            "coco": self._coco.figures(),
        }
