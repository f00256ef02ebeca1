"""Training keras-hub's SAM: its losses, a model that `fit` trains, a layer that draws masks.

Needs the extra `keras`. Everything here takes what `training_dataset` gives in the layout
'keras_hub'. TensorFlow is the backend: the masks are drawn in its ops.

The recipe is that of SAM ("Segment Anything", appendix A): 20 * focal + dice for each of the three
multimask outputs, of which only the best one is trained, and for that one's IoU head the squared
error to the IoU that its mask has.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sa1b_tfds.core import extras
from sa1b_tfds.masks.tf_rasterize import rasterize_runs

keras: Any = extras.load("keras", "keras")
keras_hub: Any = extras.load("keras_hub", "keras")

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "sa1b_tfds.keras needs Keras on TensorFlow, its backend here is"
        f" {keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow before Keras is imported."
    )

FOCAL_WEIGHT = 20.0


def focal_loss(masks: Any, logits: Any, alpha: float = 0.25, gamma: float = 2.0) -> tf.Tensor:
    """Focal loss (Lin et al., 2017), the mean over a mask's pixels.

    Args:
      masks: [..., h, w] of 0 and 1.
      logits: [..., h, w], broadcast against masks.
      alpha: the weight of pixels inside of the mask; outside it is 1 - alpha.
      gamma: how much less a pixel counts that is nearly right.

    Returns:
      float32 [...].
    """
    masks, logits = _as_float(masks, logits)
    entropy = tf.nn.softplus(logits) - logits * masks
    probability = tf.sigmoid(logits)
    wrong = probability + masks - 2 * probability * masks
    weight = 1 - alpha + (2 * alpha - 1) * masks
    return tf.reduce_mean(weight * wrong**gamma * entropy, axis=[-2, -1])


def dice_loss(masks: Any, logits: Any) -> tf.Tensor:
    """1 - Dice coefficient of probabilities, with one pixel added so that nothing divides by 0.

    Takes what `focal_loss` takes, and returns float32 [...].
    """
    masks, logits = _as_float(masks, logits)
    probability = tf.sigmoid(logits)
    both = tf.reduce_sum(probability * masks, axis=[-2, -1])
    total = tf.reduce_sum(probability, axis=[-2, -1]) + tf.reduce_sum(masks, axis=[-2, -1])
    return 1 - (2 * both + 1) / (total + 1)


def iou(masks: Any, logits: Any) -> tf.Tensor:
    """The IoU of masks with what logits > 0 predict, 0 if both are empty.

    Takes what `focal_loss` takes, and returns float32 [...].
    """
    masks, logits = _as_float(masks, logits)
    predicted = tf.cast(logits > 0, tf.float32)
    both = tf.reduce_sum(predicted * masks, axis=[-2, -1])
    either = tf.reduce_sum(predicted, axis=[-2, -1]) + tf.reduce_sum(masks, axis=[-2, -1]) - both
    return both / tf.maximum(either, 1.0)


@keras.saving.register_keras_serializable("sa1b_tfds")
class DrawMasks(keras.layers.Layer):
    """Draws masks on the device from the runs that masks_as='runs' hands over.

    Input: int32 [B, R]. Output: float32 (the layer's dtype) [B, num_masks, h, w] of 0 and 1.

    A saved model that has the layer loads once `sa1b_tfds.keras` is imported.

    Args:
      num_masks: masks_per_image of the config.
      size: (h, w), mask_size of the config twice.
    """

    def __init__(self, num_masks: int, size: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.num_masks = num_masks
        self.size = tuple(size)

    def call(self, runs: tf.Tensor) -> tf.Tensor:
        return rasterize_runs(runs, self.num_masks, self.size, self.compute_dtype)

    def compute_output_shape(self, runs_shape: tuple) -> tuple:
        return (*runs_shape[:-1], self.num_masks, *self.size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_masks": self.num_masks, "size": self.size}


class SAMTrainer(keras.Model):
    """Trains a `keras_hub.models.SAMImageSegmenter`, whose own `fit` is not implemented.

        model = SAMTrainer(keras_hub.models.SAMImageSegmenter.from_preset('sam_base_sa1b'))
        model.compile(optimizer=keras.optimizers.AdamW(1e-5))
        model.fit(training_dataset(source, TrainingConfig(layout='keras_hub')))

    The image encoder runs once an image, prompt encoder and mask decoder once a mask. `fit`
    reports loss, focal, dice (of the best output of each mask), iou_error and iou, the IoU of the
    best output. Weights are the segmenter's: save `model.sam`.

    Input: the inputs of layout 'keras_hub'.
    Output: masks [B, K, 3, S/4, S/4], logits of the multimask outputs; iou_pred [B, K, 3].
    """

    def __init__(self, sam: Any, **kwargs: Any):
        # Without autocast a policy of mixed precision does not round coordinates before they are
        # encoded, nor targets.
        super().__init__(autocast=False, **kwargs)
        self.sam = sam
        # It reads masks as prompts, which this recipe has not.
        sam.backbone.prompt_encoder.mask_downscaler.trainable = False
        self._means = {
            name: keras.metrics.Mean(name=name) for name in ("focal", "dice", "iou_error", "iou")
        }

    def call(self, inputs: dict[str, tf.Tensor], training: bool | None = None) -> dict[str, Any]:
        backbone = self.sam.backbone
        embeddings = backbone.image_encoder(inputs["images"], training=training)
        prompts = {name: inputs[name] for name in ("points", "labels", "boxes", "masks")}
        number = 1
        if prompts["points"].shape.rank == 4:  # [B, K, P, 2] -> [B * K, P, 2]
            number = prompts["points"].shape[1]
            all_masks = tf.shape(inputs["images"])[0] * number
            prompts = {
                name: tf.reshape(prompt, [all_masks, *prompt.shape[2:]])
                for name, prompt in prompts.items()
            }
        outputs = backbone.mask_decoder(
            image_embeddings=tf.repeat(embeddings, number, axis=0),
            **_encode(backbone.prompt_encoder, prompts),
        )
        # The first output is for several prompts a mask; the others are for an ambiguous one.
        masks, iou_pred = outputs["masks"][:, 1:], outputs["iou_pred"][:, 1:]
        return {
            "masks": tf.reshape(masks, [-1, number, *masks.shape[1:]]),
            "iou_pred": tf.reshape(iou_pred, [-1, number, *iou_pred.shape[1:]]),
        }

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The mean over valid masks that show a pixel; `y` are targets of layout 'keras_hub'."""
        del x, sample_weight, training
        logits = tf.cast(y_pred["masks"], tf.float32)
        masks = self._masks(y, logits.shape)
        valid = y["mask_valid"] & (tf.reduce_max(masks, axis=[2, 3]) > 0)
        masks = masks[:, :, None]
        focal, dice, overlap = (
            focal_loss(masks, logits),
            dice_loss(masks, logits),
            iou(masks, logits),
        )
        iou_error = (tf.cast(y_pred["iou_pred"], tf.float32) - tf.stop_gradient(overlap)) ** 2

        best = tf.argmin(FOCAL_WEIGHT * focal + dice, axis=-1)[..., None]
        valid = tf.cast(valid, tf.float32)
        number = tf.reduce_sum(valid)
        means = {
            name: tf.math.divide_no_nan(
                tf.reduce_sum(valid * tf.gather(value, best, batch_dims=2)[..., 0]), number
            )
            for name, value in (
                ("focal", focal),
                ("dice", dice),
                ("iou_error", iou_error),
                ("iou", overlap),
            )
        }
        for name, value in means.items():
            self._means[name].update_state(value, sample_weight=number)
        loss = FOCAL_WEIGHT * means["focal"] + means["dice"] + means["iou_error"]
        # As Keras scales its own losses: gradients are summed over the replicas.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def _masks(self, targets: dict[str, tf.Tensor], shape: tf.TensorShape) -> tf.Tensor:
        """-> [B, K, h, w] as the logits' shape [B, K, 3, h, w] has it."""
        number, size = shape[1], tuple(shape[3:])
        if "runs" in targets:
            return rasterize_runs(targets["runs"], number, size, tf.float32)
        masks = targets["masks"]
        if tuple(masks.shape[1:]) != (number, *size):
            raise ValueError(
                f"SAM predicts masks of {size[0]}x{size[1]}, a quarter of its image size, got"
                f" targets of shape {list(masks.shape)}: set the config's mask_size to {size[0]}."
            )
        return masks


def _encode(encoder: Any, prompts: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What keras-hub's prompt encoder gives for the points and boxes of N masks.

    They are encoded as if they were those of one mask. For boxes [N, 1, 2, 2] the encoder asks for
    a product of which TensorFlow 2.20 and 2.21 write beyond its memory, on CPUs with oneDNN:
    github.com/tensorflow/tensorflow/issues/117700.
    """
    points, labels, boxes = prompts["points"], prompts["labels"], prompts["boxes"]
    encoded = encoder(
        points=tf.reshape(points, [1, -1, 2]),
        labels=tf.reshape(labels, [1, -1]),
        boxes=tf.reshape(boxes, [1, -1, 2, 2]),
        masks=prompts["masks"][:1],
    )
    sparse = encoded.pop("prompt_sparse_embeddings")
    number, all_points = tf.shape(points)[0], tf.size(labels)
    of_points = tf.reshape(sparse[:, :all_points], [number, points.shape[1], encoder.hidden_size])
    of_boxes = tf.reshape(sparse[:, all_points:], [number, 2 * boxes.shape[1], encoder.hidden_size])
    return {
        "prompt_sparse_embeddings": tf.concat([of_points, of_boxes], axis=1),
        **{name: tf.repeat(dense, number, axis=0) for name, dense in encoded.items()},
    }


def _as_float(masks: Any, logits: Any) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(masks, tf.float32), tf.cast(logits, tf.float32)
