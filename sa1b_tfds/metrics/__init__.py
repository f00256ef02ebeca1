"""How good predicted masks are, and how fast: IoU, boundary IoU, matching, SAM's protocol, AP/AR.

Masks are given densely, as an array [N, H, W] or a list of arrays [H, W] of bool or 0 and 1; or as
COCO RLEs, a list of them or columns {'size', 'counts'} (`masks.forms`). docs/metrics.md has the
definitions. What needs SciPy says so: `pip install 'sa1b_tfds[metrics]'`.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from sa1b_tfds.metrics.bootstrap import mean_interval
    from sa1b_tfds.metrics.boundary import compute_boundary_iou, mask_boundary
    from sa1b_tfds.metrics.coco_eval import CocoEvaluation
    from sa1b_tfds.metrics.evaluation import evaluate_predictions
    from sa1b_tfds.metrics.iou import compute_iou, iou_matrix
    from sa1b_tfds.metrics.keras import MaskIoU
    from sa1b_tfds.metrics.matching import match_best, match_one_to_one
    from sa1b_tfds.metrics.protocol import (
        center_point,
        evaluate_single_point,
        single_point_iou,
    )
    from sa1b_tfds.metrics.speed import benchmark_inference
    from sa1b_tfds.metrics.summary import evaluate_masks

__all__ = [
    "CocoEvaluation",
    "MaskIoU",
    "benchmark_inference",
    "center_point",
    "compute_boundary_iou",
    "compute_iou",
    "evaluate_masks",
    "evaluate_predictions",
    "evaluate_single_point",
    "iou_matrix",
    "mask_boundary",
    "match_best",
    "match_one_to_one",
    "mean_interval",
    "single_point_iou",
]
