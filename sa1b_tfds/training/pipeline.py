"""training_dataset: a source and a config -> batches, by tf.data."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from sa1b_tfds import masks
from sa1b_tfds.training import images, prompts, selection, views
from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.layouts import to_layout
from sa1b_tfds.training.sources import Record, find_source

Example = dict[str, tf.Tensor]


def training_dataset(
    source: Any,
    config: TrainingConfig | None = None,
    *,
    data_dir: Any = None,
    input_context: tf.distribute.InputContext | None = None,
    service: str | None = None,
    to_device: bool = False,
) -> tf.data.Dataset:
    """Batches of images, prompts and masks with static shapes, for `model.fit`.

    Args:
      source: a dataset's name ('segment_anything/original'), a TFDS builder, or the folder of a
        prepared version; also data that the official builder prepared ('segment_anything:1.0.0');
        or a tf.data.Dataset as `read_tars` gives it.
      config: what batches hold; default: TrainingConfig().
      data_dir: of TFDS, for a name.
      input_context: from `tf.distribute.Strategy.distribute_datasets_from_function`: this pipeline
        reads its shard only, and makes batches for one replica.
      service: 'grpc://HOST:PORT' of a tf.data service's dispatcher, whose workers then prepare the
        images; they must reach the files.
      to_device: prefetch into the memory of the first GPU; without one it changes nothing.

    Returns:
      A dataset of dicts; in 'raw' layout, for B images of S x S, K masks of M x M, P points:
        image: float32, bfloat16 or uint8 [B, S, S, 3].
        masks: uint8 [B, K, M, M] of 0 and 1.
        mask_valid: bool [B, K]; False where an image has no more masks: then all else of it is 0.
        boxes: float32 [B, K, 4], (x0, y0, x1, y1) in pixels of the model image.
        points: float32 [B, K, P, 2], (x, y) in pixels of the model image.
        labels: int32 [B, K, P], 1 for a point in the mask, -1 for none.
        image_id: int64 [B].
        original_size, resized_size: int32 [B, 2], (height, width) of the photograph, and of what
          of the model image is no padding.
    """
    config = config or TrainingConfig()
    shard, batch_size = (0, 1), config.batch_size
    if input_context is not None:
        shard = (input_context.input_pipeline_id, input_context.num_input_pipelines)
        batch_size = input_context.get_per_replica_batch_size(config.batch_size)
    found = find_source(source, config, data_dir, shard)

    seeds = tf.data.Dataset.random(seed=config.seed, rerandomize_each_iteration=True)
    if not config.repeat:
        seeds = seeds.take(1)
    stream = seeds.flat_map(
        lambda seed: found.epoch(seed).map(lambda element: (element, seed), name="with_seed")
    )
    dataset = stream.map(
        lambda element, seed: make_example(found.parse(element), config, seed),
        num_parallel_calls=config.parallelism or tf.data.AUTOTUNE,
        deterministic=config.deterministic,
    )
    dataset = dataset.filter(lambda example: tf.reduce_any(example["mask_valid"]))
    dataset = dataset.batch(batch_size, drop_remainder=config.drop_remainder)
    dataset = dataset.map(lambda batch: finish(batch, config))
    dataset = dataset.prefetch(tf.data.AUTOTUNE if config.prefetch is None else config.prefetch)
    options = tf.data.Options()
    options.deterministic = config.deterministic
    return dataset.with_options(options)


def finish(batch: Example, config: TrainingConfig) -> Example:
    """A batch of examples -> what the config's layout has."""
    image = images.normalise(batch["image"], batch["resized_size"], config)
    return to_layout({**batch, "image": image}, config.layout)


def make_example(record: Record, config: TrainingConfig, epoch: tf.Tensor) -> Example:
    """One image of the epoch, as a raw batch holds it, but its image uint8 and not normalised.

    If no mask is left, all are invalid.
    """
    seed = tf.stack([epoch, record.image_id])
    view_seed, mask_seed, point_seed, box_seed, colour_seed = tf.unstack(tf.random.split(seed, 5))
    number = config.masks_per_image

    view = views.random(record.size, config, view_seed)
    candidates = selection.eligible(record, config)
    if config.scale_range is not None:
        candidates &= selection.may_be_seen(record, view)
    chosen = selection.choose(record, candidates, config, mask_seed)
    ends = masks.run_ends(tf.gather(record.counts, chosen), record.size)
    if config.scale_range is None:
        runs = prompts.shown(ends, ends.position, record.size[0], number)
        box = selection.boxes(record, chosen, number)
    else:
        rank = prompts.window_rank(ends, record.size, view.window)
        runs = prompts.shown(ends, rank, view.window[2], number)
        box = prompts.boxes(runs)
    valid = runs.pixels > 0

    side = config.mask_size
    drawn = masks.draw(
        ends,
        number,
        record.size,
        tf.constant([side, side]),
        views.mask_window(view, config.image_size),
        view.flip,
    )
    points = views.to_model(prompts.uniform_points(runs, config.points_per_mask, point_seed), view)
    box = prompts.to_model_boxes(box, view)
    box = prompts.noisy(box, view, config, box_seed)
    return {
        "image": images.decode(record.image, record.size, view, config, colour_seed),
        "masks": tf.ensure_shape(drawn, [number, side, side]),
        "mask_valid": valid,
        "boxes": tf.where(valid[:, None], box, 0.0),
        "points": tf.where(valid[:, None, None], points, 0.0),
        "labels": tf.tile(tf.where(valid, 1, -1)[:, None], [1, config.points_per_mask]),
        "image_id": record.image_id,
        "original_size": record.size,
        "resized_size": view.resized,
    }
