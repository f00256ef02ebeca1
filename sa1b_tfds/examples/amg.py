"""What segment-anything's `scripts/amg.py` writes for an image -> records for `write_tars`."""

from __future__ import annotations

import csv
import os
from typing import Any

import numpy as np
import orjson
from etils import epath
from PIL import Image

_TABLE = "metadata.csv"
_COLUMNS = {
    "predicted_iou": ("predicted_iou",),
    "stability_score": ("stability_score",),
    "point_coords": ("point_input_x", "point_input_y"),
    "crop_box": ("crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h"),
}


def read_amg_output(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the masks that `scripts/amg.py` of segment-anything found in one image.

    Args:
      path: the folder with metadata.csv and 0.png, 1.png, ...; or, with its `--convert-to-rle`, the
        .json.

    Returns:
      Records as `SamAutomaticMaskGenerator.generate` returns them, for `write_tars`.

    Raises:
      FileNotFoundError: if the folder lacks metadata.csv or a mask.
      ValueError: if the table or the JSON is not what amg.py writes.
    """
    folder = epath.Path(path)
    if not folder.is_dir():
        try:
            records = orjson.loads(folder.read_bytes())
        except orjson.JSONDecodeError as e:
            raise ValueError(f"{path} is not JSON: {e}") from e
        if not isinstance(records, list):
            raise ValueError(f"{path} holds no list of records, as amg.py --convert-to-rle writes.")
        return records
    try:
        with (folder / _TABLE).open("r") as file:
            return [_record(folder, row) for row in csv.DictReader(file)]
    except (csv.Error, KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{folder / _TABLE} is no table of amg.py: {e!r}") from e


def _record(folder: epath.Path, row: dict[str, str]) -> dict[str, Any]:
    numbers = {name: [float(row[key]) for key in keys] for name, keys in _COLUMNS.items()}
    with (
        (folder / f"{int(row['id'])}.png").open("rb") as file,
        Image.open(file, formats=("PNG",)) as picture,
    ):
        mask = np.asarray(picture.convert("L")) != 0
    return {
        "segmentation": mask,
        "predicted_iou": numbers["predicted_iou"][0],
        "stability_score": numbers["stability_score"][0],
        "point_coords": [numbers["point_coords"]],
        "crop_box": numbers["crop_box"],
    }
