"""Raw batches -> the form that a model takes: its keys, shapes, dtypes, ranges and padding labels.

A batch has B images of S x S, K masks of M x M per image, and P points per mask. It has only the
prompts that the config asks for. Invalid masks have prompts that the model ignores, and the targets
mark them.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.images import MEAN, STD

Batch = dict[str, tf.Tensor]

_IGNORED_BY_TRANSFORMERS = -10  # the label with which its processor pads points


def to_layout(batch: Batch, config: TrainingConfig) -> Any:
    """Converts a 'raw' batch to `config.layout`, in TensorFlow ops; see the functions below.

    With masks_per_image=0 there are inputs only: a dict of what these say of images.
    """
    return {
        "raw": lambda batch, config: batch,
        "keras_hub": to_keras_hub,
        "transformers": to_transformers,
        "sam2": to_sam2,
    }[config.layout](batch, config)


def to_keras_hub(batch: Batch, config: TrainingConfig) -> tuple[Batch, Batch] | Batch:
    """Makes (inputs, targets) for keras-hub's SAM and `model.fit`.

    With masks_per_image=1, the inputs are those of `keras_hub.models.SAMImageSegmenter`, which
    takes one prompt per image. Otherwise the prompts have an axis K after B, and
    `sa1b_tfds.keras.SAMTrainer` runs the image encoder once and the mask decoder K times.

    Returns:
      inputs:
        images: [B, S, S, 3], 0 to 1, because the backbone normalises. Padding is ImageNet's mean,
          so that it is 0 after normalisation, as in SAM.
        points: float32 [B, (K,) P, 2]; without boxes, one more point (0, 0) for each mask.
        labels: float32 [B, (K,) P], 1 for a point in the mask, -1 for padding.
        boxes: float32 [B, (K,) 1, 2, 2], the corners (x0, y0), (x1, y1); or [B, (K,) 0, 2, 2].
        masks: float32 [B, (K,) 0, S/4, S/4, 1], empty, as no mask is a prompt.
      targets:
        masks: uint8 [B, K, M, M]; or runs: int32 [B, R], if the config has masks_as='runs'.
        mask_valid: bool [B, K]. A valid mask that is smaller than a pixel of M x M may be empty.
        relevance: float32 [B, M, M], if the config has it.
    """
    image = batch["image"]
    scale, mean = (tf.constant(x, image.dtype) / 255 for x in (STD, MEAN))
    images = {"images": image * scale + mean}
    if not config.masks_per_image:
        return images
    valid = batch["mask_valid"]
    size, number = tf.shape(valid)[0], config.masks_per_image
    points, labels = batch["points"], tf.cast(batch["labels"], tf.float32)
    boxes = tf.reshape(batch["boxes"], [size, number, 1, 2, 2])
    if config.prompts == "points":
        points = tf.pad(points, [[0, 0], [0, 0], [0, 1], [0, 0]])
        labels = tf.pad(labels, [[0, 0], [0, 0], [0, 1]], constant_values=-1)
        boxes = boxes[:, :, :0]
    elif config.prompts == "boxes":
        points, labels = points[:, :, :0], labels[:, :, :0]
    side = config.image_size // 4
    prompts = {
        "points": points,
        "labels": labels,
        "boxes": boxes,
        "masks": tf.zeros([size, number, 0, side, side, 1]),
    }
    if number == 1:
        prompts = {name: prompt[:, 0] for name, prompt in prompts.items()}
    names = ("masks", "runs", "mask_valid", "relevance")
    targets: Batch = {name: x for name, x in batch.items() if name in names}
    return {**images, **prompts}, targets


def to_transformers(batch: Batch, config: TrainingConfig) -> tuple[Batch, Batch] | Batch:
    """Makes (inputs, targets) for `transformers.SamModel`; its processor makes the same inputs.

    Returns:
      inputs:
        pixel_values: [B, 3, S, S], normalised.
        input_points: float32 [B, K, P, 2], (x, y).
        input_labels: int64 [B, K, P], 1 for a point in the mask, -10 for padding.
        input_boxes: float32 [B, K, 4], (x0, y0, x1, y1).
        original_sizes, reshaped_input_sizes: int64 [B, 2], (height, width).
      targets:
        masks: uint8 [B, K, M, M].
        mask_valid: bool [B, K], False also for a mask without a pixel at M x M.
        relevance: float32 [B, M, M], if the config has it.
    """
    images = {
        "pixel_values": tf.transpose(batch["image"], [0, 3, 1, 2]),
        "original_sizes": tf.cast(batch["original_size"], tf.int64),
        "reshaped_input_sizes": tf.cast(batch["resized_size"], tf.int64),
    }
    if not config.masks_per_image:
        return images
    labels = tf.cast(batch["labels"], tf.int64)
    points = {
        "input_points": batch["points"],
        "input_labels": tf.where(labels < 0, tf.cast(_IGNORED_BY_TRANSFORMERS, tf.int64), labels),
    }
    inputs = {
        **images,
        **(points if config.prompts != "boxes" else {}),
        **({"input_boxes": batch["boxes"]} if config.prompts != "points" else {}),
    }
    relevance = {"relevance": batch["relevance"]} if config.relevance else {}
    return inputs, {"masks": batch["masks"], "mask_valid": _shown(batch), **relevance}


def to_sam2(batch: Batch, config: TrainingConfig) -> dict[str, Any]:
    """Makes the fields of `BatchedVideoDatapoint` of SAM 2's trainer: videos of one frame (T = 1).

    That trainer draws its own prompts from the masks. It cannot mark a mask as invalid, so a batch
    has only its O valid masks with a pixel. This is the only layout whose shapes vary.

    Returns:
      img_batch: [1, B, 3, S, S], normalised.
      obj_to_frame_idx: int32 [1, O, 2], (frame 0, image in the batch) of each mask.
      masks: bool [1, O, S, S].
      metadata:
        unique_objects_identifier: int64 [1, O, 3], (image_id, mask_index, frame 0). mask_index is
          the place of the annotation in the image's JSON. Meta's loader counts only annotations
          that pass its filters.
        frame_orig_size: int64 [1, O, 2], (height, width) of the photograph.
    """
    del config
    places = tf.where(_shown(batch))  # int64 [O, 2], (image in the batch, place among its K masks)
    image, frame = places[:, 0], tf.zeros_like(places[:, 0])
    index = tf.cast(tf.gather_nd(batch["mask_index"], places), tf.int64)
    ids = tf.stack([tf.gather(batch["image_id"], image), index, frame], axis=1)
    sizes = tf.cast(tf.gather(batch["original_size"], image), tf.int64)
    return {
        "img_batch": tf.transpose(batch["image"], [0, 3, 1, 2])[None],
        "obj_to_frame_idx": tf.cast(tf.stack([frame, image], axis=1), tf.int32)[None],
        "masks": tf.cast(tf.gather_nd(batch["masks"], places), tf.bool)[None],
        "metadata": {"unique_objects_identifier": ids[None], "frame_orig_size": sizes[None]},
    }


def _shown(batch: Batch) -> tf.Tensor:
    """bool [B, K], the valid masks with at least one pixel."""
    return batch["mask_valid"] & (tf.reduce_max(batch["masks"], axis=[2, 3]) > 0)
