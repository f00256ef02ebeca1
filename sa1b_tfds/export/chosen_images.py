"""What an export does with a choice of images before it writes pieces, and after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sa1b_tfds.building.prepared_ids import ids_of_shards
from sa1b_tfds.core.problems import OnError
from sa1b_tfds.examples.id_set import check_missing, id_of_name
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.parts import Part, ShardPart
from sa1b_tfds.export.format import Finished


def with_chosen(parts: Sequence[Part], choice: ImageChoice) -> list[Part]:
    """Leaves out shards of prepared data that have no chosen image, as all of them would be read.

    Tars stay: their index says at once which of their images to read.
    """
    if choice.takes_all:
        return list(parts)
    known: dict[str, np.ndarray] = {}
    for folder in {part.path.parent for part in parts if isinstance(part, ShardPart)}:
        known |= ids_of_shards(folder) or {}
    return [p for p in parts if p.name not in known or choice.has(known[p.name]).any()]


def check_chosen(
    finished: Sequence[Finished], choice: ImageChoice, source: str, missing_ids: OnError
) -> np.ndarray:
    """Finds the ids that no piece has. An image that could not be read is not missing.

    Args:
      finished: all pieces.
      choice: the images that were asked for.
      source: its name, for the error.
      missing_ids: 'raise' or 'skip'.

    Returns:
      int64, the missing ids.

    Raises:
      MissingIds: if there are some and missing_ids is 'raise'.
      ValueError: if no image was chosen.
    """
    missing = np.empty(0, np.int64)
    if choice.ids is not None:
        wanted = choice.ids.ids
        wanted = wanted[choice.has(wanted)]  # not the other part of a hold-out
        named = [id_of_name(problem.member) for piece in finished for problem in piece.problems]
        found = [image_id for image_id in named if image_id is not None]
        found += [image_id for piece in finished for image_id in piece.image_ids]
        missing = np.setdiff1d(wanted, np.array(found, np.int64))
        how = "`--missing-ids skip`, or missing_ids='skip',"
        check_missing(missing, len(wanted), source, missing_ids, how)
    if not choice.takes_all and not any(piece.counts["images"] for piece in finished):
        raise ValueError(f"{source} has none of the chosen images: see ids, holdout, holdout_part.")
    return missing
