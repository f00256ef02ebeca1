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

if TYPE_CHECKING:
    import lightning
else:
    lightning = extras.load("lightning", "torch")


class SA1BDataModule(lightning.LightningDataModule):
    """Loaders of `SA1BDataset`, in worker processes that live as long as the loader.

    The split is by tar (by shard for prepared data, by folder for extracted files), in an order
    that depends on the names alone: each process of a distributed run makes the same, and of a
    folder to which tars are added most of the split stays.
    """

    def __init__(
        self,
        root_dir: epath.PathLike,
        batch_size: int = 4,
        num_workers: int | None = None,
        val_fraction: float = 0.1,
        *,
        collate_fn: Callable[[Sequence[Any]], Any] = collate,
        start_method: str | None = None,
        prefetch_factor: int | None = None,
        pin_memory: bool | None = None,
        **dataset_options: Any,
    ):
        """Stores what to do; files are looked for in `setup`.

        Args:
          root_dir: see `SA1BDataset`.
          batch_size: images a batch and process.
          num_workers: worker processes a loader; default: the CPUs that this process may use, at
            most 8, and 1 where masks leave the worker at full size: each batch in advance then
            takes 1.4 GB of shared memory. 0 loads in the training process.
          val_fraction: of the tars, at least one, go to val; 0: no val loader.
          collate_fn: `collate`, which gives lists, or a `TransformersCollate`.
          start_method: 'fork', 'spawn' or 'forkserver'; default: Python's.
          prefetch_factor: batches that each worker makes in advance; default: PyTorch's 2, and 1
            where masks leave the worker at full size.
          pin_memory: default: where there is an accelerator.
          **dataset_options: for `SA1BDataset`: transform, mask_size, max_masks, ...

        Raises:
          ValueError: if an argument makes no sense.
        """
        super().__init__()
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction must be at least 0 and below 1, got {val_fraction}.")
        self._root_dir = root_dir
        self._val_fraction = val_fraction
        self._dataset_options = dataset_options
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

    def setup(self, stage: str | None = None) -> None:
        """Finds the images and splits them; called by the trainer in each process.

        Raises:
          ValueError: if there are too few tars to split.
        """
        del stage
        if self.train_dataset is not None:
            return
        dataset = SA1BDataset(self._root_dir, **self._dataset_options)
        train, val = split(dataset.source_names, self._val_fraction)
        self.train_dataset = dataset.only(train)
        self.val_dataset = dataset.only(val) if val else None

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train_dataset, shuffle=True)

    def val_dataloader(self) -> DataLoader | list:
        if self.val_dataset is None:
            return []
        return self._loader(self.val_dataset, shuffle=False)

    def _loader(self, dataset: SA1BDataset | None, shuffle: bool) -> DataLoader:
        if dataset is None:
            raise RuntimeError("Call setup() first; a Lightning trainer does.")
        return DataLoader(dataset, shuffle=shuffle, **self._loader_options)


def _leave_large_masks(collate_fn: Any, options: Mapping[str, Any]) -> bool:
    """Whether workers pass on masks of which few fit into memory: no transform makes them small."""
    if collate_fn is not collate or options.get("transform") is not None:
        return False
    size = options.get("mask_size")
    return are_large((size, size) if isinstance(size, int) else size, options.get("max_masks"))


def split(names: Sequence[str], val_fraction: float) -> tuple[list[str], list[str]]:
    """-> (train, val), each in the order of `names`; by a hash of each name."""
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
