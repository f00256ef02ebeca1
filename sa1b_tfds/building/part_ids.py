"""The images of a part that a choice takes, by their numbers in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from sa1b_tfds.building.prepared_ids import ids_of_shards
from sa1b_tfds.core.problems import OnError
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.id_set import check_missing
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.parts import IndexedArchivePart, IndexedPart, ShardPart
from sa1b_tfds.tars.name_ids import ids_in_names


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenPart:
    """Some images of an indexed part: an indexed part as well.

    numbers: int64 [N], which of its images.
    """

    part: IndexedPart
    numbers: np.ndarray

    @property
    def name(self) -> str:
        return self.part.name

    def count(self) -> int:
        return len(self.numbers)

    def example(self, i: int, with_masks: bool = True) -> Example:
        return self.part.example(int(self.numbers[i]), with_masks)


def chosen_parts(
    parts: Sequence[IndexedPart],
    choice: ImageChoice,
    missing_ids: OnError,
    where: str,
    further: Sequence[Callable[[np.ndarray], np.ndarray]] = (),
) -> list[IndexedPart]:
    """The parts with the images that a choice takes, without parts that have none of them.

    Args:
      parts: where to look.
      choice: what to take.
      missing_ids: 'raise' or 'skip', for ids that no part has.
      where: what the parts are, for the error.
      further: int64 [N], the ids of the images that the choice takes -> bool [N], which of them to
        take; any number of these.

    Raises:
      MissingIds: if an id is in none of them and missing_ids is 'raise'.
      BadInput: if an image that has no id in its name is malformed.
    """
    if choice.takes_all and not further:
        return list(parts)
    of_parts = _ids_of(parts)
    ids = np.concatenate([np.empty(0, np.int64), *of_parts])
    if choice.ids is not None:
        missing = choice.ids.not_in(ids)
        check_missing(missing, len(choice.ids), where, missing_ids, "missing_ids='skip'")
    taken = choice.has(ids)
    taken[taken] = np.logical_and.reduce([has(ids[taken]) for has in further], initial=True)
    ends = np.cumsum([len(own) for own in of_parts])
    chosen = [
        ChosenPart(part, np.flatnonzero(taken[end - part.count() : end]))
        for part, end in zip(parts, ends, strict=True)
    ]
    return [part for part in chosen if part.count()]


def _ids_of(parts: Sequence[IndexedPart]) -> list[np.ndarray]:
    """int64 [N] for each part, the ids of its images in their order."""
    folders = {part.path.parent for part in parts if isinstance(part, ShardPart)}
    known: dict[str, np.ndarray] = {}
    for folder in folders:
        known |= ids_of_shards(folder) or {}
    found = []
    for part in parts:
        if isinstance(part, IndexedArchivePart):
            ids = ids_in_names(part.archive.index)
        else:
            ids = known.get(part.name, np.full(part.count(), -1))
        # Where neither a name nor a list has the id, the image itself has it.
        for i in np.flatnonzero(ids < 0):
            ids[i] = part.example(int(i), with_masks=False).image_id
        found.append(ids)
    return found
