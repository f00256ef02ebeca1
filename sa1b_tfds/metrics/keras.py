"""IoU as a Keras metric, for `model.compile(weighted_metrics=[MaskIoU()])`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("sa1b_tfds")
class MaskIoU(keras.metrics.Metric):
    """The mean IoU of predicted masks, over all valid masks.

    Input of `update_state`:
      y_true: [..., H, W], 0 or 1.
      y_pred: [..., H, W], logits.
      sample_weight: [...] or its leading axes, such as a batch's validity [B, N]; 0 leaves a mask
        out. Keras passes it to `weighted_metrics`, but not to `metrics`.

    Output: a float; 0 before the first mask. Two empty masks have an IoU of 0.

    Args:
      threshold: pixels with a logit above it are in the mask; pass 0.5 for probabilities. Defaults
        to 0.
      name: the metric's name in the logs. Defaults to 'mask_iou'.
      **kwargs: see `keras.metrics.Metric`.
    """

    def __init__(self, threshold: float = 0.0, name: str = "mask_iou", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.threshold = threshold
        self._total = self.add_weight(shape=(), initializer="zeros", name="total")
        self._count = self.add_weight(shape=(), initializer="zeros", name="count")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true = ops.cast(ops.convert_to_tensor(y_true) > 0, self.dtype)
        predicted = ops.cast(ops.convert_to_tensor(y_pred) > self.threshold, self.dtype)
        intersection = ops.sum(true * predicted, axis=(-2, -1))
        union = ops.sum(ops.maximum(true, predicted), axis=(-2, -1))
        iou = intersection / ops.maximum(union, 1.0)
        weight = ops.ones_like(iou)
        if sample_weight is not None:
            own = ops.cast(ops.convert_to_tensor(sample_weight), self.dtype)
            while len(own.shape) < len(iou.shape):
                own = ops.expand_dims(own, -1)
            weight *= own
        self._total.assign_add(ops.sum(iou * weight))
        self._count.assign_add(ops.sum(weight))

    def result(self) -> Any:
        return ops.divide_no_nan(self._total, self._count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}
