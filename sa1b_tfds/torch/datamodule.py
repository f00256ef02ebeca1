"""SA1BDataModule: SA-1B for a Lightning trainer, split into train and val by tar."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from etils import epath
from torch.utils.data import DataLoader

from sa1b_tfds.core import extras
from sa1b_tfds.core.processes import available_cores
from sa1b_tfds.masks.runs import are_large
from sa1b_tfds.torch.batches import collate
from sa1b_tfds.torch.dataset import SA1BDataset
from sa1b_tfds.torch.sampler import BlockShuffleSampler, ResumableLoader

if TYPE_CHECKING:
    import lightning
else:
    lightning = extras.load("lightning", "torch")


class SA1BDataModule(lightning.LightningDataModule):
    """Loads `SA1BDataset` for training and validation, in workers that live as long as the loader.

    The split is by tar (by shard for prepared data, by folder for extracted files). It depends only
    on the names: all processes of a distributed run make the same split, and most of it stays when
    tars are added to the folder.

    The training images come in the order of a `BlockShuffleSampler`. A checkpoint in the middle of
    an epoch has the place in it. `trainer.fit(..., ckpt_path=...)` goes on from there, also with
    another number of processes or another batch size: no image is lost or comes twice.
    """

    def __init__(
        self,
        root_dir: epath.PathLike,
        batch_size: int = 4,
        num_workers: int | None = None,
        val_fraction: float = 0.1,
        *,
        block_size: int = 1024,
        seed: int = 0,
        collate_fn: Callable[[Sequence[Any]], Any] = collate,
        start_method: str | None = None,
        prefetch_factor: int | None = None,
        pin_memory: bool | None = None,
        **dataset_options: Any,
    ):
        """Stores the options. `setup` looks for files.

        Args:
          root_dir: see `SA1BDataset`.
          batch_size: images per batch and process. Defaults to 4.
          num_workers: worker processes per loader; 0 loads in the training process. Defaults to the
            CPUs that this process may use, at most 8; or to 1 if workers return full-size masks,
            because each batch in advance then takes 1.4 GB of shared memory.
          val_fraction: the share of the tars for validation, at least one tar. 0 makes no val
            loader. Defaults to 0.1.
          block_size, seed: of the order of the training images, see `BlockShuffleSampler`. Default
            to 1024 and 0.
          collate_fn: `collate`, which returns lists, or a `TransformersCollate`. Defaults to
            `collate`.
          start_method: 'fork', 'spawn' or 'forkserver'. Defaults to Python's own default.
          prefetch_factor: batches that each worker makes in advance. Defaults to PyTorch's 2, or to
            1 if workers return full-size masks.
          pin_memory: whether to pin batches in memory. Defaults to True if there is an accelerator.
          **dataset_options: options of `SA1BDataset`: transform, mask_size, max_masks, ...

        Raises:
          ValueError: if val_fraction is not at least 0 and below 1.
        """
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be at least 0 and below 1, got {val_fraction}.")
        self._root_dir = root_dir
        self._val_fraction = val_fraction
        self._dataset_options = dataset_options
        self._block_size = block_size
        self._seed = seed
        large = _leave_large_masks(collate_fn, dataset_options)
        workers = (
            (1 if large else min(8, available_cores())) if num_workers is None else num_workers
        )
        if large and prefetch_factor is None and workers:
            prefetch_factor = 1
        self._loader_options = {
            "batch_size": batch_size,
            "num_workers": workers,
            "collate_fn": collate_fn,
            "pin_memory": torch.accelerator.is_available() if pin_memory is None else pin_memory,
            "persistent_workers": workers > 0,
            "prefetch_factor": prefetch_factor,
            "multiprocessing_context": start_method if workers else None,
        }
        self.train_dataset: SA1BDataset | None = None
        self.val_dataset: SA1BDataset | None = None
        self._train_loader: ResumableLoader | None = None
        self._to_load: dict[str, int] | None = None  # a state for the next training loader

    def setup(self, stage: str | None = None) -> None:
        """Finds the images and splits them. The trainer calls it in each process.

        Args:
          stage: ignored; both loaders are made.

        Raises:
          ValueError: if there is only one tar to split.
        """
        del stage
        if self.train_dataset is not None:
            return
        dataset = SA1BDataset(self._root_dir, **self._dataset_options)
        train, val = split(dataset.source_names, self._val_fraction)
        self.train_dataset = dataset.only(train)
        self.val_dataset = dataset.only(val) if val else None

    def train_dataloader(self) -> DataLoader:
        """Makes the loader of the training split, shuffled, for this process."""
        dataset = self._after_setup(self.train_dataset)
        if self.trainer is not None and self.trainer.overfit_batches:
            return DataLoader(dataset, **self._loader_options)  # always the same few batches
        sampler = BlockShuffleSampler(dataset, block_size=self._block_size, seed=self._seed)
        self._train_loader = ResumableLoader(dataset, sampler, **self._loader_options)
        if self._to_load is not None:
            self._train_loader.load_state_dict(self._to_load)
            self._to_load = None
            if self.trainer is not None:
                _count_again(self.trainer, self._train_loader)
        return self._train_loader

    def val_dataloader(self) -> DataLoader | list:
        """Makes the loader of the validation split; an empty list if there is none."""
        self._after_setup(self.train_dataset)
        return (
            [] if self.val_dataset is None else DataLoader(self.val_dataset, **self._loader_options)
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the training images, for a checkpoint; the trainer calls it."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the place of a checkpoint for the next training loader; the trainer calls it.

        Args:
          state_dict: what `state_dict` returned, in any process.
        """
        if self.trainer is None or self.trainer.state.fn == "fit":
            self._to_load = state_dict or None

    def _after_setup(self, dataset: SA1BDataset | None) -> SA1BDataset:
        if dataset is None:
            raise RuntimeError("Call setup() first; a Lightning trainer does.")
        return dataset


def _count_again(trainer: Any, loader: ResumableLoader) -> None:
    """Sets the trainer's count of the batches of this epoch to what the loader has not left.

    The checkpoint has the count of the processes and the batch size that saved it. With others, the
    trainer would end the epoch too early or too late.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress.current
    moved = len(loader) - loader.batches_left() - progress.processed
    for name in ("ready", "started", "processed", "completed"):
        setattr(progress, name, getattr(progress, name) + moved)


def _leave_large_masks(collate_fn: Any, options: Mapping[str, Any]) -> bool:
    """Whether workers return masks of which few fit in memory, with no transform to shrink them."""
    if collate_fn is not collate or options.get("transform") is not None:
        return False
    size = options.get("mask_size")
    return are_large((size, size) if isinstance(size, int) else size, options.get("max_masks"))


def split(names: Sequence[str], val_fraction: float) -> tuple[list[str], list[str]]:
    """-> (train, val), each in the order of `names`; a hash of each name decides."""
    if val_fraction == 0:
        return list(names), []
    if len(names) < 2:
        raise ValueError(
            f"One tar ({', '.join(names)}) cannot be split by tar: add another, or pass"
            " val_fraction=0."
        )
    n = min(len(names) - 1, max(1, round(val_fraction * len(names))))
    val = set(sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))[:n])
    return [name for name in names if name not in val], [name for name in names if name in val]
