"""Many images in one picture: a contact sheet of examples, and the grid that it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from sa1b_tfds.core.text import counted
from sa1b_tfds.examples.example import Example
from sa1b_tfds.show import pictures

_GAP, _CAPTION = 8, 16


def contact_sheet(examples: Iterable[Example], columns: int = 4, side: int = 320) -> np.ndarray:
    """Draws examples side by side, each with its masks over it and its name below.

    Args:
      examples: as `sa1b_tfds.examples.read_examples` gives them.
      columns: images in a row.
      side: the longer side of each, in pixels; smaller images are not enlarged.

    Returns:
      uint8 [H, W, 3].

    Raises:
      ValueError: if there is no example, or one does not decode.
    """
    return np.asarray(grid([_cell(example, side) for example in examples], columns))


def grid(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    """Puts pictures of one size side by side, `columns` in a row, on white.

    Raises:
      ValueError: if there is no picture.
    """
    if not cells:
        raise ValueError("There is no image to draw.")
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    width, height = cells[0].width + _GAP, cells[0].height + _GAP
    sheet = Image.new("RGB", (_GAP + columns * width, _GAP + rows * height), "white")
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        sheet.paste(cell, (_GAP + column * width, _GAP + row * height))
    return sheet


def _cell(example: Example, side: int) -> Image.Image:
    picture = pictures.picture_of(example, side)
    height, width = picture.image.shape[:2]
    cell = Image.new("RGB", (side, side + _CAPTION), "white")
    cell.paste(Image.fromarray(picture.painted()), ((side - width) // 2, (side - height) // 2))
    name = example.file_name.encode("ascii", "replace").decode()  # every font has ASCII
    caption = f"{name:.40}, {counted(len(picture.masks), 'mask')}".replace("\n", " ")
    ImageDraw.Draw(cell).text((0, side + 2), caption, fill="black")
    return cell
