"""A record -> one training example: its view, masks, prompts and pixels."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from sa1b_tfds.masks import tf_decode, tf_rasterize, tf_relevance
from sa1b_tfds.masks.tf_run_ends import RunEnds, run_ends
from sa1b_tfds.sidecars.tf_rows import Column
from sa1b_tfds.training import images, prompts, selection, views
from sa1b_tfds.training.config import Augment, TrainingConfig
from sa1b_tfds.training.record import Record

TrainingExample = dict[str, tf.Tensor]


def make_example(record: Record, config: TrainingConfig, epoch: tf.Tensor) -> TrainingExample:
    """One image as a raw batch holds it, but as uint8 and not normalised.

    If no mask is left, all are invalid. With masks_per_image=0 there are neither masks nor prompts.

    Args:
      record: of the image.
      config: what is asked for.
      epoch: int64 [], the seed of the epoch; with the image's id it decides all that is random.
    """
    seed = tf.stack([epoch, record.image_id])
    view_seed, mask_seed, prompt_seed, colour_seed, own_seed = tf.unstack(tf.random.split(seed, 5))
    number = config.masks_per_image

    view = views.random(record.size, config, view_seed)
    if not number:
        example = _image(record, view, config, colour_seed)
        example |= {
            key: column.values for key, column in record.columns.items() if column.padding is None
        }
        return example if config.augment is None else _checked(example, config.augment, own_seed)
    candidates = selection.eligible(record, config)
    if config.scale_range is None:
        _, chosen, ends, runs = _pick(record, view, candidates, config, mask_seed)
        box = selection.padded(selection.boxes(record), chosen, number)
    else:
        met = candidates & selection.may_be_seen(record, view)
        picked = _pick(record, view, met, config, mask_seed)
        whole_image = views.whole(record.size, config)._replace(flip=view.flip)
        # A crop that shows none of them is no use: then the whole image is taken.
        view, chosen, ends, runs = tf.cond(
            tf.reduce_any(picked.runs.pixels > 0),
            lambda: picked,
            lambda: _pick(record, whole_image, candidates, config, mask_seed),
        )
        box = prompts.boxes(runs)
    drawn, whole = _masks(ends, record, view, config)
    valid = whole & (runs.pixels > 0)

    index = tf.pad(chosen, [[0, number - tf.size(chosen)]], constant_values=-1)

    stored = selection.padded(record.point_coords, chosen, number)
    points, labels, box = prompts.make(runs, box, stored, view, config, prompt_seed)
    example = {
        **_image(record, view, config, colour_seed),
        **drawn,
        "mask_valid": valid,
        "mask_index": tf.where(valid, tf.ensure_shape(index, [number]), -1),
        "boxes": tf.where(valid[:, None], box, 0.0),
        "points": tf.where(valid[:, None, None], points, 0.0),
        "labels": tf.where(valid[:, None], labels, -1),
    }
    if config.relevance:
        example["relevance"] = _relevance(record, view, config)
    for key, column in record.columns.items():
        example[key] = _of_chosen(column, chosen, valid, number)
    return example if config.augment is None else _checked(example, config.augment, own_seed)


def _image(
    record: Record, view: views.View, config: TrainingConfig, seed: tf.Tensor
) -> TrainingExample:
    example = {
        "image": images.decode(record.image, record.size, view, config, seed),
        "image_id": record.image_id,
        "original_size": record.size,
        "resized_size": view.resized,
    }
    if config.moves_pixels and any(column.is_spatial for column in record.columns.values()):
        example |= {"window": view.window, "mirrored": view.flip}  # for the user's `augment`
    return example


class _Picked(NamedTuple):
    """A view, the indices of the masks that were chosen for it, their runs, and those it shows."""

    view: views.View
    chosen: tf.Tensor
    ends: RunEnds
    runs: prompts.Shown


def _pick(
    record: Record,
    view: views.View,
    candidates: tf.Tensor,
    config: TrainingConfig,
    seed: tf.Tensor,
) -> _Picked:
    chosen = selection.choose(record, candidates, config, seed)
    ends = run_ends(tf.gather(record.counts, chosen), record.size)
    if config.scale_range is None:
        rank = ends.position
    else:
        rank = prompts.window_rank(ends, record.size, view.window)
    runs = prompts.shown(ends, rank, view.window[2], config.masks_per_image)
    return _Picked(view, chosen, ends, runs)


def _masks(
    ends: RunEnds, record: Record, view: views.View, config: TrainingConfig
) -> tuple[TrainingExample, tf.Tensor]:
    """({'masks'} or {'runs'}, bool [K]: those that are complete)."""
    number, side = config.masks_per_image, config.mask_size
    window = views.mask_window(view, config.image_size)
    if config.masks_as == "runs":
        room = number * config.runs_per_mask
        packed = tf_rasterize.pack(ends, number, record.size, (side, side), window, view.flip, room)
        return {"runs": packed.toggles}, packed.whole
    drawn = tf_decode.draw(ends, number, record.size, tf.constant([side, side]), window, view.flip)
    return {"masks": tf.ensure_shape(drawn, [number, side, side])}, tf.ones([number], tf.bool)


def _relevance(record: Record, view: views.View, config: TrainingConfig) -> tf.Tensor:
    """float32 [M, M]: the sum of the predicted IoUs of the masks that cover each pixel.

    All masks that pass the config's filters count, not only the K that the batch holds.
    """
    return tf_relevance.relevance(
        run_ends(record.counts, record.size),
        tf.size(record.counts),
        record.size,
        tf.where(selection.eligible(record, config), record.predicted_iou, 0.0),
        tf.constant([config.mask_size, config.mask_size]),
        views.mask_window(view, config.image_size),
        view.flip,
    )


def _of_chosen(column: Column, chosen: tf.Tensor, valid: tf.Tensor, number: int) -> tf.Tensor:
    """What a sidecar has of the image; or of its K chosen masks, with padding where none is."""
    if column.padding is None:
        return column.values
    shape = column.values.shape[1:].as_list()
    padding = tf.broadcast_to(column.padding, [number, *shape])
    rows = tf.concat([tf.gather(column.values, chosen), padding], axis=0)[:number]
    return tf.where(tf.reshape(valid, [number] + [1] * len(shape)), rows, padding)


def _checked(example: TrainingExample, augment: Augment, seed: tf.Tensor) -> TrainingExample:
    """Calls the user's function, and holds it to the shapes that batches need."""
    result = tf.function(augment)(dict(example), seed)  # with AutoGraph, as map functions have
    if not isinstance(result, dict) or result.keys() != example.keys():
        raise ValueError(f"augment must return a dict with the keys {sorted(example)}.")
    for name, before in example.items():
        after = result[name] = tf.convert_to_tensor(result[name])
        if after.dtype != before.dtype or not after.shape.is_compatible_with(before.shape):
            raise ValueError(
                f"augment must leave {name!r} {before.dtype.name} {before.shape}, it made"
                f" {after.dtype.name} {after.shape}."
            )
        result[name] = tf.ensure_shape(after, before.shape)
    return result
