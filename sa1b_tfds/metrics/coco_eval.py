"""COCO's average precision and recall (AP, AR@k), class-agnostic, by pycocotools' COCOeval.

Images are added one by one, so that only their matches are kept, and no annotations. COCOeval
matches each image as it is added, and accumulates all images at the end.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from sa1b_tfds.core.text import counted
from sa1b_tfds.masks.forms import to_rles
from sa1b_tfds.metrics.iou import iou_matrix

MAX_DETS = (1, 10, 100, 1000)
_IMAGE = _CATEGORY = 1  # COCOeval sees one image at a time, and all masks as one category
_AREAS = ("all", "small", "medium", "large")

Image = list[dict[str, Any] | None]  # by area


class CocoEvaluation:
    """Takes images one by one and computes AP and AR of all of them.

    Args:
      max_dets: the values of k for AR@k. AP uses the best-scored predictions of each image up to
        the largest. Defaults to (1, 10, 100, 1000).

    Raises:
      ValueError: if max_dets is empty or not positive.
    """

    def __init__(self, max_dets: Sequence[int] = MAX_DETS):
        self._eval = COCOeval(iouType="segm")
        self._eval.params.catIds = [_CATEGORY]
        self._eval.params.maxDets = sorted(max_dets)
        if not max_dets or min(max_dets) < 1:
            raise ValueError(f"max_dets must be positive integers, got {max_dets!r}.")
        self._images: list[Image] = []

    def add(self, predictions: Any, scores: Any, masks: Any) -> None:
        """Adds an image.

        Args:
          predictions: N masks, as `iou_matrix` takes them.
          scores: float [N], the predictions' scores.
          masks: M masks of the ground truth. Their areas are counted from their pixels.
        """
        predictions, masks = to_rles(predictions), to_rles(masks)
        iou = iou_matrix(predictions, masks)
        self.append(self.evaluate_rles(predictions, scores, masks, iou))

    def append(self, image: Image) -> None:
        """Adds an image that another `CocoEvaluation` with the same max_dets evaluated.

        Args:
          image: what its `evaluate_rles` returned.
        """
        self._images.append(image)

    def evaluate_rles(
        self,
        predictions: Sequence[dict[str, Any]],
        scores: Any,
        masks: Sequence[dict[str, Any]],
        iou: np.ndarray,
    ) -> Image:
        """Matches the predictions of an image, without adding it.

        Args:
          predictions: N checked RLEs.
          scores: float [N], the predictions' scores.
          masks: M checked RLEs of the ground truth.
          iou: float64 [N, M], their IoUs.

        Returns:
          What `append` takes: the matches, by area.

        Raises:
          ValueError: if there are not as many scores as predictions.
        """
        scores = np.asarray(scores, np.float64)
        if scores.shape != (len(predictions),):
            raise ValueError(
                f"Each prediction needs a score: got {counted(len(predictions), 'prediction')} and"
                f" the scores {scores}."
            )
        params, key = self._eval.params, (_IMAGE, _CATEGORY)
        # COCOeval wants its predictions as its own prepare() orders them: the best first, as many
        # as it uses. They and the IoUs go into its private fields, because prepare() needs a whole
        # dataset and would compute the IoUs again.
        best = np.argsort(-scores, kind="mergesort")[: params.maxDets[-1]]
        dets = [_annotation(n, predictions[i], score=scores[i]) for n, i in enumerate(best)]
        self._eval._dts[key] = dets
        self._eval._gts[key] = [
            _annotation(n, mask, ignore=0, iscrowd=0) for n, mask in enumerate(masks)
        ]
        self._eval.ious[key] = iou[best]
        return [
            _compact(self._eval.evaluateImg(*key, area, params.maxDets[-1]))
            for area in params.areaRng
        ]

    def figures(self) -> dict[str, float | None]:
        """Computes AP and AR of all images so far.

        Returns:
          AP (the mean over IoU 0.5 to 0.95), AP50, AP75, AP_small, AP_medium, AP_large; AR@k for
          each k; and AR@k_small, AR@k_medium, AR@k_large for the largest k. Sizes are COCO's, by
          area. A figure is None if there is no mask of its kind.
        """
        params = self._eval.params
        # accumulate() wants evalImgs ordered by area and then by image, and as many image ids.
        params.imgIds = list(range(1, len(self._images) + 1))
        self._eval._paramsEval = params
        self._eval.evalImgs = [image[a] for a in range(len(_AREAS)) for image in self._images]
        with contextlib.redirect_stdout(io.StringIO()):  # accumulate() prints its progress
            self._eval.accumulate()
        precision = self._eval.eval["precision"][:, :, 0, :, -1]  # [IoU, recall, area]
        recall = self._eval.eval["recall"][:, 0]  # [IoU, area, max_dets]
        figures = {"AP": _mean(precision[:, :, 0])}
        for threshold in (0.5, 0.75):
            place = int(np.flatnonzero(np.isclose(params.iouThrs, threshold))[0])
            figures[f"AP{threshold * 100:.0f}"] = _mean(precision[place, :, 0])
        for a, area in enumerate(_AREAS[1:], 1):
            figures[f"AP_{area}"] = _mean(precision[:, :, a])
        for k, max_dets in enumerate(params.maxDets):
            figures[f"AR@{max_dets}"] = _mean(recall[:, 0, k])
        for a, area in enumerate(_AREAS[1:], 1):
            figures[f"AR@{params.maxDets[-1]}_{area}"] = _mean(recall[:, a, -1])
        return figures


def _annotation(number: int, mask: dict[str, Any], **fields: Any) -> dict[str, Any]:
    # COCOeval reads an id of 0 as no match, so ids start at 1.
    return {"id": number + 1, "area": int(coco_mask.area(mask)), **fields}


def _compact(image: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields of a matched image that accumulate() reads, in small dtypes."""
    if image is None:
        return None
    return {
        "dtMatches": image["dtMatches"] > 0,
        "dtIgnore": image["dtIgnore"],
        "dtScores": np.asarray(image["dtScores"], np.float64),
        "gtIgnore": np.asarray(image["gtIgnore"], np.uint8),
    }


def _mean(values: np.ndarray) -> float | None:
    """The mean of values that are there: COCOeval writes -1 where there is nothing."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
