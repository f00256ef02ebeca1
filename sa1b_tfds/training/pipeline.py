"""`training_dataset`: a source and a config -> batches, with tf.data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from sa1b_tfds.core.problems import OnError, check_on_error
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.id_set import as_id_set
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.sidecars.reading import OpenSidecar, Sidecars, open_sidecars
from sa1b_tfds.training import images
from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.example import TrainingExample, make_example
from sa1b_tfds.training.layouts import to_layout
from sa1b_tfds.training.record import parse_record
from sa1b_tfds.training.sources import ImageStream, find_stream

# AutoGraph would take seconds to find that there is no Python control flow on tensors here.
_plain = tf.autograph.experimental.do_not_convert
_NO_MASK = "has a mask that passes the filters of TrainingConfig"
_TOLD = [10**power for power in range(12)]  # counts of left out images that are reported


def training_dataset(
    source: Any,
    config: TrainingConfig | None = None,
    *,
    data_dir: Any = None,
    sidecars: Sidecars | None = None,
    input_context: tf.distribute.InputContext | None = None,
    service: str | None = None,
    to_device: bool = False,
    ids: Any = None,
    missing_ids: OnError = "raise",
) -> tf.data.Dataset:
    """Makes batches of images, prompts and masks with static shapes, for `model.fit`.

    An iteration is an epoch, unless the config has repeat=True. Images without a mask that passes
    the filters are left out; a line on stderr reports 1, 10, 100, ... of them. With
    drop_remainder=True an epoch has images // batch_size steps, which Keras shows, and images of
    the next epoch take the places of those left out. With drop_remainder=False each image with a
    mask comes exactly once, and the number of steps is known only at the end.

    Args:
      source: a dataset's name ('segment_anything/original'), a TFDS builder, or the folder of a
        prepared version; also data that the official builder prepared ('segment_anything:1.0.0');
        or a tf.data.Dataset as `read_tars` returns it.
      config: what batches hold. Defaults to TrainingConfig().
      data_dir: where TFDS keeps prepared data, for a source given by name. Defaults to TFDS's own
        folder.
      sidecars: more columns of the images, by the names that batches give them: `{"teacher":
        path}`, or a `sidecar.Sidecar` in place of a path. Defaults to none.
      input_context: from `tf.distribute.Strategy.distribute_datasets_from_function`. This pipeline
        then reads only its shard, and makes batches for one replica. Defaults to None: all data.
      service: 'grpc://HOST:PORT' of a tf.data service's dispatcher, whose workers then prepare the
        images. They must reach the files. Each image comes once per epoch, in no fixed order: seed
        and deterministic have no effect. Defaults to None: this process prepares them.
      to_device: whether to prefetch into the memory of the first GPU, if there is one. Defaults to
        False.
      ids: the images to take: a file of ids, or ids, each a number, a name such as 'sa_1.jpg' or a
        path (docs/subsets.md). Their order does not matter. Defaults to None: all images.
      missing_ids: 'raise' or 'skip', for ids that the source does not have. It must be 'skip' if
        its ids are not known before it is read: for a tf.data.Dataset, and for data that the
        official builder prepared. Defaults to 'raise'.

    Returns:
      A dataset of dicts; in 'raw' layout, for B images of S x S, K masks of M x M, P points:
        image: float32, bfloat16 or uint8 [B, S, S, 3].
        masks: uint8 [B, K, M, M] of 0 and 1.
        mask_valid: bool [B, K], False for padding, and for a mask that the crop does not show. The
          other values of such a mask are 0, and its labels and mask_index are -1.
        mask_index: int32 [B, K], the place of a mask's annotation in the image's JSON, which is its
          place in the prepared data as well.
        boxes: float32 [B, K, 4], (x0, y0, x1, y1) in pixels of the model image.
        points: float32 [B, K, P, 2], (x, y) in pixels of the model image.
        labels: int32 [B, K, P], 1 for a point in the mask, -1 for padding.
        image_id: int64 [B].
        original_size: int32 [B, 2], (height, width) of the photograph.
        resized_size: int32 [B, 2], (height, width) of the model image without its padding.
        relevance: float32 [B, M, M], if the config has relevance=True: at each pixel, the sum of
          the predicted IoUs of the masks that cover it.
        teacher: [B, ...], the column of the sidecar of that name; or [B, K, ...], if it has a row
          for each mask, with padding where mask_valid is False. If a sidecar has several columns,
          teacher/<column> is one of them. In the layouts for models they are in the targets.
      With masks_per_image=0: image, image_id, original_size and resized_size only, and columns of
      sidecars that have one value for each image.

    Raises:
      FileNotFoundError: if the source or a sidecar is not prepared or not there.
      MissingIds: if an id is not in the source and missing_ids is 'raise'. It is a ValueError.
      MissingRows: if images have no row in a sidecar. The error names them. It is a ValueError.
      TypeError: if the source is none of these kinds.
      ValueError: if the source is not data of SA-1B, or has fewer images than a batch.
    """
    config = config or TrainingConfig()
    shard, batch_size = (0, 1), config.batch_size
    if input_context is not None:
        shard = (input_context.input_pipeline_id, input_context.num_input_pipelines)
        batch_size = input_context.get_per_replica_batch_size(config.batch_size)
    opened = open_sidecars(sidecars)
    _check_sidecars(opened, config)
    choice = ImageChoice(
        ids=None if ids is None else as_id_set(ids),
        holdout=config.holdout,
        holdout_part=config.holdout_part,
    )
    check_on_error(missing_ids, "missing_ids")
    found = find_stream(source, config, data_dir, shard, choice, missing_ids, opened)
    # Keras needs the number of steps. It is known before any image is left out, so the stream runs
    # on into the next epoch to fill the places of those.
    steps = None
    if found.num_images is not None and config.drop_remainder and not service:
        steps = found.num_images // batch_size
        if not steps:
            raise ValueError(
                f"batch_size={batch_size} is more than the source has,"
                f" {counted(found.num_images, 'image')}: with drop_remainder=True there is no"
                " batch."
            )

    if service:
        stream = _for_service(found, config)
    else:
        stream = _epochs(found, config, endless=config.repeat or steps is not None)
    dataset = stream.map(
        _plain(lambda element, epoch: make_example(found.parse(element), config, epoch)),
        num_parallel_calls=config.parallelism or tf.data.AUTOTUNE,
        deterministic=config.deterministic,
    )
    if config.masks_per_image:
        dataset = _without_empty(dataset, found.num_images)
    if service:
        # Workers send single images and batches are made here: each worker's last batch would be
        # incomplete.
        dataset = dataset.apply(
            tf.data.experimental.service.distribute(
                tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                service,
                job_name=f"sa1b_tfds of {shard[1]} pipelines" if shard[1] > 1 else None,
            )
        )
    columns = [sidecar.key(name) for sidecar in opened for name in sidecar.columns.names]
    dataset = dataset.batch(batch_size, drop_remainder=config.drop_remainder)
    dataset = dataset.map(
        _plain(lambda batch: _finish(batch, config, columns)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=config.deterministic,
    )
    if steps is not None and not config.repeat:
        dataset = dataset.take(steps).apply(tf.data.experimental.assert_cardinality(steps))
    dataset = dataset.prefetch(tf.data.AUTOTUNE if config.prefetch is None else config.prefetch)
    options = tf.data.Options()
    options.deterministic = config.deterministic and not service
    # Without this, iterators could not be saved. The state outside them that TensorFlow sees is the
    # line on stderr, and generators of seeds from which nothing is drawn (each shuffle has a seed).
    options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    dataset = dataset.with_options(options)
    if to_device and (devices := tf.config.list_logical_devices("GPU")):
        dataset = dataset.apply(tf.data.experimental.prefetch_to_device(devices[0].name))
    return dataset


def batches_of_records(
    records: Callable[[], Iterator[bytes]], config: TrainingConfig
) -> tf.data.Dataset:
    """Makes batches of all images in their order, also of those without a mask.

    Args:
      records: of prepared data.
      config: what batches hold. Its stream options do not apply.
    """
    dataset = tf.data.Dataset.from_generator(records, output_signature=tf.TensorSpec((), tf.string))
    seed = tf.constant(config.seed, tf.int64)
    dataset = dataset.map(
        _plain(
            lambda record: make_example(
                parse_record(record, config.masks_per_image > 0), config, seed
            )
        ),
        num_parallel_calls=config.parallelism or tf.data.AUTOTUNE,
    )
    dataset = dataset.batch(config.batch_size)
    return dataset.map(_plain(lambda batch: _finish(batch, config, ()))).prefetch(1)


def _epochs(found: ImageStream, config: TrainingConfig, endless: bool) -> tf.data.Dataset:
    """Yields (element, int64 [] seed of its epoch) of one epoch, or of endless ones.

    The config's seed decides all of them. Each new iterator begins one epoch after the start of the
    one before.
    """
    seeds = tf.data.Dataset.random(seed=config.seed, rerandomize_each_iteration=True)
    if not endless:
        seeds = seeds.take(1)

    def epoch(seed: tf.Tensor) -> tf.data.Dataset:
        # With a global seed of 0 (keras.utils.set_random_seed(0)), `shuffle` would compare its own
        # seed, a tensor, in Python. This is called in a graph, so it sets only the graph's seed.
        tf.compat.v1.set_random_seed(None)
        return found.epoch(seed).map(_plain(lambda element: (element, seed)))

    return seeds.flat_map(_plain(epoch))


def _for_service(found: ImageStream, config: TrainingConfig) -> tf.data.Dataset:
    """Yields (element, seed) from the files, which the service shares out among its workers."""
    stream = found.epoch(None)
    if config.repeat:
        stream = stream.repeat()
    # Each worker begins again in each epoch, so a fixed seed would repeat its crops and prompts.
    return stream.map(
        _plain(
            lambda element: (element, tf.random.uniform([], maxval=tf.int64.max, dtype=tf.int64))
        )
    )


def _without_empty(dataset: tf.data.Dataset, num_images: int | None) -> tf.data.Dataset:
    """Leaves out images without a valid mask and reports how many; fails if there are no others."""

    def count(state: tf.Tensor, example: TrainingExample) -> tuple[tf.Tensor, TrainingExample]:
        seen, dropped = tf.unstack(state)
        kept = tf.reduce_any(example["mask_valid"])
        seen += 1
        dropped += tf.cast(~kept, tf.int64)
        told = tf.cond(
            ~kept & tf.reduce_any(dropped == _TOLD),
            lambda: _tell(seen, dropped, example["image_id"]),
            lambda: tf.constant(True),
        )
        nothing = (dropped == seen) & (seen == (num_images or -1))
        nobody = f"No image is left of {counted(num_images or 0, 'image')}: none {_NO_MASK}."
        some = tf.debugging.Assert(~nothing, [nobody])
        with tf.control_dependencies([told, *([] if some is None else [some])]):
            return tf.stack([seen, dropped]), example

    dataset = dataset.scan(tf.zeros([2], tf.int64), _plain(count))
    return dataset.filter(_plain(lambda example: tf.reduce_any(example["mask_valid"])))


def _tell(seen: tf.Tensor, dropped: tf.Tensor, image_id: tf.Tensor) -> tf.Tensor:
    template = (
        f"sa1b_tfds: images left out so far: {{}} of {{}}, the last is {{}}: none {_NO_MASK}."
    )
    text = tf.strings.format(template, (dropped, seen, image_id))
    with tf.control_dependencies([tf.print(text, output_stream=sys.stderr)]):
        return tf.constant(True)


def _check_sidecars(sidecars: Sequence[OpenSidecar], config: TrainingConfig) -> None:
    for sidecar in sidecars:
        if config.layout == "sam2":
            raise ValueError(
                "sidecars must be None with layout='sam2', which has no field for them."
            )
        spatial = [name for name in sidecar.columns.names if sidecar.columns.is_spatial(name)]
        if spatial and config.moves_pixels and config.augment is None:
            raise ValueError(
                f"flip and scale_range move the pixels of images, but not {spatial[0]!r} of the"
                f" sidecar {sidecar.name!r}, which is a map of the image: turn them off, or move it"
                " in your own `augment`, which receives `window` and `mirrored` as well."
            )


def _finish(batch: TrainingExample, config: TrainingConfig, columns: Sequence[str]) -> Any:
    """A batch of examples -> a batch in the config's layout, with columns of sidecars."""
    image = images.normalise(batch["image"], batch["resized_size"], config)
    laid_out = to_layout({**batch, "image": image}, config)
    if config.layout == "raw" or not columns:
        return laid_out
    inputs, targets = laid_out if config.masks_per_image else (laid_out, {})
    return inputs, {**targets, **{key: batch[key] for key in columns if key in batch}}
