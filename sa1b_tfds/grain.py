"""SA-1B for JAX and PyTorch by Grain: the batches of `training_dataset`, without TensorFlow.

Grain (the extra [grain]) reads any image at once, in threads and processes, and its state is one
number. So a training resumes in the middle of an epoch, on any number of processes.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from etils import epath

from sa1b_tfds.building.part_ids import chosen_parts
from sa1b_tfds.core import extras
from sa1b_tfds.core.problems import OnError, check_on_error
from sa1b_tfds.core.processes import available_cores
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.id_set import as_id_set
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.indexed_images import IndexedImages
from sa1b_tfds.examples.parts import find_parts, index_parts
from sa1b_tfds.training.block_order import BlockOrder
from sa1b_tfds.training.config import TrainingConfig
from sa1b_tfds.training.np_example import make_example

if TYPE_CHECKING:
    import grain
    from grain import experimental, sharding
else:
    grain = extras.load("grain", "grain")
    experimental = extras.load("grain.experimental", "grain")
    sharding = extras.load("grain.sharding", "grain")

Batch = dict[str, np.ndarray]

_AHEAD = 2  # batches, about 13 MB for each image of 1024 x 1024
# Fields that only tf.data has, and the value that means: not asked for.
_ONLY_TF = {
    "scale_range": None,
    "colour_jitter": 0,
    "augment": None,
    "masks_as": "pixels",
    "layout": "raw",
    "split": "train",
    "drop_remainder": True,
}


def dataset(
    source: epath.PathLike,
    config: TrainingConfig | None = None,
    *,
    data_dir: epath.PathLike | None = None,
    shard: sharding.ShardOptions | None = None,
    num_workers: int = 0,
    ids: Any = None,
    missing_ids: OnError = "raise",
) -> grain.IterDataset:
    """Makes batches of images, prompts and masks with static shapes, for JAX or PyTorch.

    The batches are those of `training_dataset` in its 'raw' layout: the same keys, shapes, dtypes
    and meaning, as NumPy arrays. What is random about an image depends only on the seed, the epoch
    and the image's id, so a batch is the same on any number of processes. An image without a mask
    that passes the filters stays, with no valid mask: all processes have the same number of steps.

    `iterator.get_state()` is the same in all processes. `iterator.set_state(state)` goes on from it
    on any number of processes, also with another batch size: no image is lost or comes twice.

    Args:
      source: a tar; a folder of tars or of extracted files; a dataset's name
        ('segment_anything/original') or the folder of a prepared version, of array_record or
        TFRecord.
      config: what batches hold. Here `shuffle` is the number of consecutive images that are
        shuffled among themselves, after the tars were; `prefetch` the batches made in advance, 2 by
        default; `parallelism` the threads of each process. `scale_range`, `colour_jitter`,
        `augment`, `masks_as`, `layout`, `split` and `drop_remainder` must have their defaults.
        Defaults to TrainingConfig().
      data_dir: where TFDS keeps prepared data, for a source given by name. Defaults to TFDS's own
        folder.
      shard: which part of each batch this process makes, such as
        `grain.sharding.ShardByJaxProcess()`, or `grain.sharding.ShardOptions(shard_index=rank,
        shard_count=world_size)`. Their number must divide batch_size. Defaults to all of it.
      num_workers: processes that make batches for this one. 0 makes them in threads. Defaults to 0.
      ids, missing_ids: see `training_dataset`.

    Returns:
      A dataset to iterate over. With repeat=False, an iteration is an epoch of images // batch_size
      batches, and the next one is the next epoch. With repeat=True it is endless, and a batch may
      have images of two epochs, so that each image comes in each epoch.

    Raises:
      FileNotFoundError: if the source is not prepared or not there.
      MissingIds: if an id is not in the source and missing_ids is 'raise'. It is a ValueError.
      ValueError: if the config asks for what only `training_dataset` has, if the source has fewer
        images than a batch, or if `shard` does not divide batch_size.
      BadInput: if a tar is torn. A malformed image raises it when it is read.
    """
    config = config or TrainingConfig()
    shard = shard or sharding.NoSharding()
    _check(config, shard)
    check_on_error(missing_ids, "missing_ids")
    choice = ImageChoice(
        ids=None if ids is None else as_id_set(ids),
        holdout=config.holdout,
        holdout_part=config.holdout_part,
    )
    parts = index_parts(find_parts(_folder(source, data_dir)))
    images = IndexedImages(chosen_parts(parts, choice, missing_ids, os.fspath(source)))
    if len(images) < config.batch_size:
        raise ValueError(
            f"batch_size={config.batch_size} is more than the source has,"
            f" {counted(len(images), 'image')}: there is no batch."
        )
    return _Batches(images, config, shard, num_workers)


def _folder(source: epath.PathLike, data_dir: epath.PathLike | None) -> epath.PathLike:
    if data_dir is None and epath.Path(source).exists():
        return source
    import tensorflow_datasets as tfds

    name = os.fspath(source)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise FileNotFoundError(
            f"{name!r} is neither there nor a dataset's name, such as 'segment_anything/original'."
        ) from None
    if not builder.info.splits:
        raise FileNotFoundError(
            f"{builder.info.full_name} is not prepared in {builder.data_path}: run `sa1b build`, or"
            " name another data_dir."
        )
    return builder.data_path


def _check(config: TrainingConfig, shard: sharding.ShardOptions) -> None:
    for name, value in _ONLY_TF.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"{name} must be {value!r} with sa1b_tfds.grain, got"
                f" {getattr(config, name)!r}: only training_dataset has it."
            )
    if config.batch_size % shard.shard_count:
        raise ValueError(
            f"batch_size={config.batch_size} must be a multiple of the"
            f" {shard.shard_count} processes, which share each batch."
        )


@dataclasses.dataclass(frozen=True)
class _Make:
    """The number of an image in an endless sequence of epochs -> the image, as batches hold it."""

    images: IndexedImages
    order: BlockOrder
    config: TrainingConfig
    first_epoch: int

    def __call__(self, index: int) -> Batch:
        epoch, place = divmod(int(index), len(self.order))
        epoch += self.first_epoch
        number = self.order.image(epoch, place)
        example = self.images.example(number, self.config.masks_per_image > 0)
        rng = np.random.default_rng([self.config.seed, epoch, example.image_id % 2**64])
        return make_example(example, self.config, rng)


class _Batches(grain.IterDataset):
    def __init__(
        self,
        images: IndexedImages,
        config: TrainingConfig,
        shard: sharding.ShardOptions,
        num_workers: int,
    ):
        super().__init__()
        self._images = images
        self._config = config
        self._shard = shard
        self._num_workers = num_workers
        self.order = BlockOrder(images.names, images.counts, config.shuffle, config.seed)
        self.next_epoch = 0

    def __iter__(self) -> grain.DatasetIterator:
        return _Iterator(self)

    def elastic(self, epoch: int) -> grain.DatasetIterator:
        """Grain's own iterator from an epoch on; only through that epoch without repeat."""
        config = self._config
        if config.repeat:
            length = sys.maxsize
        else:
            length = len(self.order) // config.batch_size * config.batch_size
        make = _Make(self._images, self.order, config, epoch)
        ahead = _AHEAD if config.prefetch is None else max(config.prefetch, 1)
        threads = config.parallelism or (1 if self._num_workers else available_cores())
        workers = None
        if self._num_workers:
            _parse_flags()
            workers = grain.multiprocessing.MultiprocessingOptions(
                num_workers=self._num_workers, per_worker_buffer_size=ahead
            )
        return iter(
            experimental.ElasticIterator(
                grain.MapDataset.range(length).map(make),
                config.batch_size,
                self._shard,
                read_options=grain.ReadOptions(
                    num_threads=threads, prefetch_buffer_size=max(ahead, threads)
                ),
                multiprocessing_options=workers,
            )
        )


class _Iterator(grain.DatasetIterator):
    """Grain's elastic iterator, with a state that says of which epoch, data and order it is."""

    def __init__(self, batches: _Batches):
        super().__init__()
        self._batches = batches
        self._begin(batches.next_epoch)

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._elastic = self._batches.elastic(epoch)
        self._batches.next_epoch = epoch + 1

    def __next__(self) -> Batch:
        return next(self._elastic)

    def get_state(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "elastic": self._elastic.get_state(),
            **self._batches.order.fingerprint(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._batches.order.check(state)
        self.close()
        self._begin(state["epoch"])
        self._elastic.set_state(state["elastic"])

    def close(self) -> None:
        self._elastic.close()


def _parse_flags() -> None:
    """Grain's processes read absl's flags, which only an absl program has parsed."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS([sys.argv[0]])
