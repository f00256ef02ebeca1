"""COCO's average precision and recall (AP, AR@k), class-agnostic, by pycocotools' COCOeval.

Images are given one after the other, so that only their matches are kept and no annotation is:
COCOeval computes each image, and accumulates all of them at the end.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from sa1b_tfds.masks.forms import to_rles
from sa1b_tfds.metrics.iou import iou_matrix

MAX_DETS = (1, 10, 100, 1000)
_IMAGE = _CATEGORY = 1  # COCOeval sees one image at a time, and all masks as one category
_AREAS = ("all", "small", "medium", "large")

Image = list[dict[str, Any] | None]  # by area


class CocoEvaluation:
    """Takes images one by one and gives AP and AR of all.

    max_dets: the k of AR@k, rising; AP takes the best-scored predictions up to the last of them.
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
          scores: float [N], by which they are ordered.
          masks: M masks of the ground truth; its areas are counted.
        """
        predictions, masks = to_rles(predictions), to_rles(masks)
        iou = iou_matrix(predictions, masks)
        self.append(self.evaluate_rles(predictions, scores, masks, iou))

    def append(self, image: Image) -> None:
        """Adds an image that was evaluated elsewhere, with the same max_dets."""
        self._images.append(image)

    def evaluate_rles(
        self,
        predictions: Sequence[dict[str, Any]],
        scores: Any,
        masks: Sequence[dict[str, Any]],
        iou: np.ndarray,
    ) -> Image:
        """What accumulate() needs of an image; takes what `add` takes, in checked RLEs."""
        scores = np.asarray(scores, np.float64)
        if scores.shape != (len(predictions),):
            raise ValueError(f"{len(predictions)} predictions need as many scores, got {scores}.")
        params, key = self._eval.params, (_IMAGE, _CATEGORY)
        # As COCOeval has it: the best first, and no more than it looks at.
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
        """AP (mean over IoU 0.5 to 0.95), AP50, AP75, AP_small and so on, AR@k, AR@k_small, ...

        None where there is no mask of that kind. Sizes are COCO's, by area.
        """
        params = self._eval.params
        params.imgIds = list(range(1, len(self._images) + 1))
        self._eval._paramsEval = params
        self._eval.evalImgs = [image[a] for a in range(len(_AREAS)) for image in self._images]
        with contextlib.redirect_stdout(io.StringIO()):
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
    # COCOeval takes the id 0 for no match.
    return {"id": number + 1, "area": int(coco_mask.area(mask)), **fields}


def _compact(image: dict[str, Any] | None) -> dict[str, Any] | None:
    """What accumulate() reads of an image."""
    if image is None:
        return None
    return {
        "dtMatches": image["dtMatches"] > 0,
        "dtIgnore": image["dtIgnore"],
        "dtScores": np.asarray(image["dtScores"], np.float64),
        "gtIgnore": np.asarray(image["gtIgnore"], np.uint8),
    }


def _mean(values: np.ndarray) -> float | None:
    """COCOeval writes -1 where there is nothing."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
