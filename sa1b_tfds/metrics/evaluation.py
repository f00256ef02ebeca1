"""Compares a file of predictions with a dataset: all figures of `sa1b eval`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from sa1b_tfds.core.ahead import in_order
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.core.processes import Processes, worker_count
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.forms import to_rles
from sa1b_tfds.masks.runs import areas, run_lengths
from sa1b_tfds.metrics import coco_eval
from sa1b_tfds.metrics.iou import iou_of_rles
from sa1b_tfds.metrics.matching import match_best, match_one_to_one
from sa1b_tfds.metrics.predictions import Prediction, checked_rles, read_predictions
from sa1b_tfds.metrics.summary import matched_boundary_ious, summarise


def evaluate_predictions(
    predictions: epath.PathLike,
    data: epath.PathLike,
    config: str | None = None,
    *,
    predicted_only: bool = False,
    workers: int | None = None,
    problems: Problems | None = None,
    on_image: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Compares predictions in COCO's results format with the masks of a dataset.

    Memory holds the RLEs and scores of all predictions, the masks of a few images per worker, and
    some numbers per mask.

    Args:
      predictions: a JSON file, see `predictions.read_predictions`. Categories are ignored.
      data, config: see `examples.find_parts`.
      predicted_only: leave out images without a prediction. By default their masks count as missed.
      workers: the number of processes. Defaults to one per core.
      problems: receives what in the dataset cannot be read, and after that also ids of predictions
        that are not in the dataset. Defaults to raising the first.
      on_image: called after each image.

    Returns:
      images, images_without_predictions, predictions, masks: counts.
      best: what `summary.summarise` returns, where each mask has the prediction that fits it best.
        Its intervals draw images.
      mean_iou_one_to_one: the mean IoU if each prediction belongs to at most one mask.
      coco: what `CocoEvaluation.figures` returns.

    Raises:
      OSError: if a file cannot be read.
      ValueError: if an entry of the file is malformed, differs in size from its image, or has an id
        that is not in the dataset (the message names the entry); or if there is no mask to compare.
      ImportError: if SciPy is missing; names the extra.
    """
    workers = worker_count(workers)
    problems = problems or Problems()
    waiting = read_predictions(predictions)
    number = sum(map(len, waiting.values()))

    def jobs() -> Iterator[tuple[rle.Checked, list[Prediction], str]]:
        seen: set[int] = set()
        for example in read_examples(data, config, problems):
            image_id = example.image_id
            if image_id in seen:
                again = f"the image_id {image_id} was there before: only the first one is evaluated"
                problems.report(str(data), example.file_name, again)
                continue
            seen.add(image_id)
            own = waiting.pop(image_id, [])
            if own or not predicted_only:
                yield example.masks, own, f"{predictions}, image {image_id}"

    tally = _Tally()
    images: Iterator[_Image]
    with contextlib.ExitStack() as stack:
        if workers == 1:
            images = itertools.starmap(_evaluate, jobs())
        else:
            submit = stack.enter_context(Processes(workers)).submit
            # A few images per worker wait, so that no worker does, and memory stays small.
            images = in_order((submit(_evaluate, *job) for job in jobs()), 4 * workers)
        for image in images:
            tally.add(image)
            on_image()
    if waiting:
        reason = f"{_unknown(waiting)} {data}."
        if not problems.found:
            raise ValueError(f"{predictions}: {reason}")
        # They may belong to an image that could not be read, so this is no error of the file.
        problems.report(str(predictions), "", reason)
    return {**tally.figures(), "predictions": number}


def _unknown(waiting: Mapping[int, list[Prediction]]) -> str:
    first = min((own[0].entry, image_id) for image_id, own in waiting.items())
    entries = sum(map(len, waiting.values()))
    return (
        f"entry {first[0]} has the image_id {first[1]}, which is not in the dataset; in all,"
        f" {counted(entries, 'entry', 'entries')} with {counted(len(waiting), 'such id')}."
        " Looked in"
    )


class _Image(NamedTuple):
    """The figures of an image with M masks: columns of M values, and COCOeval's matches."""

    columns: dict[str, np.ndarray]
    coco: coco_eval.Image
    predictions: int


def _evaluate(masks: rle.Checked, predictions: list[Prediction], where: str) -> _Image:
    truths = to_rles(masks)
    try:
        predicted = checked_rles(predictions, masks.size)
    except ValueError as e:
        raise ValueError(f"{where}: {e}") from e
    iou = iou_of_rles(predicted, truths)
    best = match_best(iou)
    columns = {
        "iou": best.iou,
        "boundary_iou": matched_boundary_ious(predicted, truths, best),
        "area": areas(run_lengths(masks.counts, masks.size)),
        "one_to_one": match_one_to_one(iou).iou,
    }
    scores = [prediction.score for prediction in predictions]
    coco = coco_eval.CocoEvaluation().evaluate_rles(predicted, scores, truths, iou)
    return _Image(columns, coco, len(predictions))


class _Tally:
    """Collects the figures of all images."""

    def __init__(self) -> None:
        self._coco = coco_eval.CocoEvaluation()
        self._columns: list[dict[str, np.ndarray]] = []
        self._without_predictions = 0

    def add(self, image: _Image) -> None:
        self._coco.append(image.coco)
        self._columns.append(image.columns)
        self._without_predictions += not image.predictions

    def figures(self) -> dict[str, Any]:
        masks = [len(columns["iou"]) for columns in self._columns]
        if not sum(masks):
            raise ValueError("There is no mask to compare with.")
        column = {
            name: np.concatenate([columns[name] for columns in self._columns])
            for name in self._columns[0]
        }
        groups = np.repeat(np.arange(len(masks)), masks)
        return {
            "images": len(masks),
            "images_without_predictions": self._without_predictions,
            "masks": len(groups),
            "best": summarise(column["iou"], column["boundary_iou"], column["area"], groups),
            "mean_iou_one_to_one": float(column["one_to_one"].mean()),
            "coco": self._coco.figures(),
        }
