"""BlockShuffleSampler: which images each process of a training takes, with a state to resume from.

Also the DataLoader of `SA1BDataModule`, which knows how many batches it has handed out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, DistributedSampler

from sa1b_tfds.training.block_order import BlockOrder

if TYPE_CHECKING:
    from sa1b_tfds.torch.dataset import SA1BDataset

State = dict[str, int]
_EPOCH, _PLACE = "epoch", "place"


class BlockShuffleSampler(DistributedSampler):
    """Shuffles the tars, then the images of each block; shares them out among processes.

    All processes walk through one order, each taking every `num_replicas`-th image. So the state is
    one place in that order. It is the same in all processes, and any number of processes can go on
    from it: no image of the epoch is lost or comes twice. An iteration that ends moves on to the
    next epoch, which has another order. `set_epoch` goes to any epoch.

    The state counts the images that the sampler has given out, and the workers of a DataLoader ask
    for batches in advance. The state of torchdata's `StatefulDataLoader(dataset, sampler=sampler)`
    counts the batches that you have received. So does `SA1BDataModule`.

    Lightning does not replace this sampler, as it is a DistributedSampler.
    """

    def __init__(
        self,
        dataset: SA1BDataset,
        *,
        block_size: int = 1024,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
    ):
        """Sets the order.

        Args:
          dataset: whose images to take.
          block_size: the consecutive images that are shuffled among themselves, about 1 MB each. A
            larger block mixes more images of more tars; a smaller one is kinder to a disk. Defaults
            to 1024.
          seed: of the order. Defaults to 0.
          num_replicas: the number of processes. Defaults to torch.distributed's world size, or to 1
            if it is not initialised.
          rank: of this process. Defaults to torch.distributed's rank, or to 0.
          drop_last: what to do if the images that remain cannot be shared out evenly. False repeats
            up to num_replicas - 1 images from the epoch's beginning, as DistributedSampler does.
            True leaves out up to as many. Defaults to False.

        Raises:
          ValueError: if block_size is not positive, or rank is not below num_replicas.
        """
        if block_size < 1:
            raise ValueError(f"block_size must be positive, got {block_size}.")
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if num_replicas is None:
            num_replicas = torch.distributed.get_world_size() if distributed else 1
        if rank is None:
            rank = torch.distributed.get_rank() if distributed else 0
        super().__init__(dataset, num_replicas, rank, seed=seed, drop_last=drop_last)
        self._order = BlockOrder(dataset.source_names, dataset.source_counts, block_size, seed)
        self._start = 0  # the place at which the next iteration begins
        self._place = 0  # the place up to which all processes have taken images
        self._ended = False  # whether an iteration has ended in this epoch

    def __len__(self) -> int:
        """The images that this process takes in a whole epoch."""
        return self._steps(0)

    def __iter__(self) -> Iterator[int]:
        """Yields the numbers of the images that this process takes in the rest of the epoch."""
        begin = self._next_state()
        epoch, start, n = begin[_EPOCH], begin[_PLACE], len(self._order)
        self.epoch, self._start, self._place, self._ended = epoch, 0, start, False
        for step in range(self._steps(start)):
            place = start + step * self.num_replicas + self.rank
            self._place = min(start + (step + 1) * self.num_replicas, n)
            yield self._order.image(epoch, place % n)
        self._ended = self.epoch == epoch  # `set_epoch` may have been called meanwhile

    def _steps(self, start: int) -> int:
        """The images that each process takes from a place to the end of the epoch."""
        left = len(self._order) - start
        return left // self.num_replicas if self.drop_last else -(-left // self.num_replicas)

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch. In the middle of that epoch, it changes nothing.

        Args:
          epoch: its number, from 0.
        """
        if epoch != self.epoch or self._ended:
            self.epoch, self._start, self._place, self._ended = epoch, 0, 0, False

    def state_dict(self) -> State:
        """Returns the place after the images that all processes were given.

        Returns:
          Six numbers: the epoch, the place in it, and what tells the data and the order from
          others.
        """
        return self._state(self.epoch, self._place)

    def load_state_dict(self, state_dict: State) -> None:
        """Begins the next iteration where a state was saved, by any number of processes.

        Args:
          state_dict: of any of the processes that saved.

        Raises:
          ValueError: if it was saved for other data, or with another seed or block_size.
        """
        self._order.check(state_dict)
        self.epoch = state_dict[_EPOCH]
        self._start = self._place = state_dict[_PLACE]
        self._ended = False

    def _next_state(self) -> State:
        """Returns the state in which the next iteration begins."""
        return (
            self._state(self.epoch + 1, 0) if self._ended else self._state(self.epoch, self._start)
        )

    def _state(self, epoch: int, place: int) -> State:
        return {_EPOCH: epoch, _PLACE: place, **self._order.fingerprint()}

    def _after(self, state: State, images: int) -> State:
        """Returns the state when each process has taken so many images more than at a state."""
        place = min(state[_PLACE] + images * self.num_replicas, len(self._order))
        return {**state, _PLACE: place}

    def _images_left(self, state: State) -> int:
        """Returns the images that each process takes from a state to the end of its epoch."""
        return self._steps(state[_PLACE])


class ResumableLoader(DataLoader):
    """A DataLoader over a BlockShuffleSampler, whose state is that of the batches handed out.

    Lightning saves and loads the state of a loader that has one.
    """

    sampler: BlockShuffleSampler
    batch_size: int

    def __init__(self, dataset: SA1BDataset, sampler: BlockShuffleSampler, **options: Any):
        super().__init__(dataset, sampler=sampler, **options)
        self._state = sampler.state_dict()

    def __iter__(self) -> Iterator[Any]:
        # Lightning iterates before it sets the epoch; a generator begins at the first batch.
        begin = self._state = self.sampler._next_state()
        for number, batch in enumerate(super().__iter__(), 1):
            self._state = self.sampler._after(begin, number * self.batch_size)
            yield batch

    def batches_left(self) -> int:
        """Returns the batches from its state to the end of the epoch."""
        return -(-self.sampler._images_left(self._state) // self.batch_size)

    def state_dict(self) -> State:
        return dict(self._state)

    def load_state_dict(self, state_dict: State) -> None:
        self.sampler.load_state_dict(state_dict)
        self._state = dict(state_dict)
