"""Which image each record of prepared data is, from the list of its tars: no record is read."""

from __future__ import annotations

import numpy as np
from etils import epath

from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.core.own_json import DamagedJson


def ids_of_shards(folder: epath.Path) -> dict[str, np.ndarray] | None:
    """The image ids in each shard of prepared data.

    Args:
      folder: of the dataset version.

    Returns:
      int64 [N], in the order of the records, by the shard's file name. None if the data has no list
      of its tars, or a damaged one: the official builder writes none.
    """
    try:
        prepared = Folder(folder).prepared()
    except (FileNotFoundError, DamagedJson):
        return None
    found: dict[str, np.ndarray] = {}
    for tar in prepared.tars:
        # The ids of the images come first, in their order, and then those left to other tars.
        ends = np.cumsum([shard.examples for shard in tar.shards])
        parts = np.split(tar.image_ids[: tar.images], ends[:-1])
        files = prepared.shard_files[tar.archive]
        # A tar without a shard has one part, which is empty.
        of_file = zip(files, parts, strict=False)
        found |= {file.path.name: ids for file, ids in of_file if file.path is not None}
    return found
