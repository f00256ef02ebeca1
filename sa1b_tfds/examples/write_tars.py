"""`write_tars`: images and masks of one's own -> tars in SA-1B's form.

What they hold is described in `segment_anything/README.md`. This package reads them, and so does
SAM2's trainer once they are extracted (`SA1BRawDataset` with both folders the same).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.examples.example import Example
from sa1b_tfds.examples.own_pairs import Files, own_pairs
from sa1b_tfds.tars.names import tar_name, tar_number

IMAGES_PER_TAR = 11_185  # what most of SA-1B's own have
_DRAFT = ".draft"
_USTAR = tarfile.USTAR_FORMAT


def write_tars(
    examples: Iterable[Mapping[str, Any] | Example],
    output_dir: str | os.PathLike[str],
    *,
    images_per_tar: int = IMAGES_PER_TAR,
    max_tar_size: int | None = None,
    first_tar: int = 0,
) -> list[epath.Path]:
    """Writes images and masks as sa_000000.tar, sa_000001.tar, ...

    An example is an `Example`, as `read_examples` gives it, or a dict with `image`, `masks` and any
    of the other keys here. A key that is not here is an error.
      * image: uint8 [H, W, 3], RGB; a PIL image; or JPEG bytes, which stay as they are but for a
        tag that would have some programs turn the image: that is removed, and the pixels stay.
        Pixels are written as JPEG with quality 95.
      * masks: none empty, on the image's pixels as they are stored: a dense array [N, H, W], what
        is not zero is inside; a list whose items are masks [H, W], RLEs or lists of polygons
        (`rle.to_rle`); or columns {'size': (H, W), 'counts': N compressed RLEs}.
      * image_id: int, unique, not negative; names the files sa_<id>.jpg and .json; default: 1 for
        the first example, 2, ...
      * annotations: columns as `tfds.load` gives them, any of: id int [N] (default: 1 for the first
        mask of all, 2, ...); predicted_iou, stability_score [N] (default: 1.0); point_coords [N, 2]
        or [N, 1, 2], (x, y) in pixels (default: the centre of the largest square that fits in the
        mask); crop_box [N, 4], fractions (ymin, xmin, ymax, xmax), or, where a number is above 2,
        [x, y, width, height] in pixels (default: the image); area and bbox, which are not looked at
        as they always come from the masks. Or a list of N records, see below.
      * file_name, height, width: what the readers of this package give with an image. They must be
        sa_<id>.jpg and the image's size.

    Instead of `masks` or of `annotations` there may be a list of N records, as
    `SamAutomaticMaskGenerator.generate` returns them, `read_amg_output` reads them and SA-1B's JSON
    has them: dicts with 'segmentation' (a mask or an RLE) and any of the columns above,
    point_coords as [[x, y]] and crop_box as [x, y, width, height] in pixels. All have the same
    keys.

    A tar appears under its name when it is whole and synced. Where an example is bad, the tars
    before its own are kept.

    Args:
      examples: read once, one at a time.
      output_dir: made if it is not there.
      images_per_tar: at most so many images a tar.
      max_tar_size: bytes that no tar exceeds, unless one image does; default: no limit.
      first_tar: the first tar's number; to add to a folder, more than its last one.

    Returns:
      The tars' paths.

    Raises:
      ValueError: if an example is bad, naming its index and the reason, or there is none.
      FileExistsError: if the folder holds a tar of that number or a later one.
      FolderInUse: if another process writes into the folder.
    """
    for name, value in (("images_per_tar", images_per_tar), ("max_tar_size", max_tar_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be positive, got {value}.")
    if first_tar < 0:
        raise ValueError(f"first_tar must not be negative, got {first_tar}.")
    folder = epath.Path(output_dir)
    with _held(folder):
        _refuse_to_overwrite(folder, first_tar)
        pairs = own_pairs(examples)
        written: list[epath.Path] = []
        pair = next(pairs, None)
        while pair is not None:
            path = folder / tar_name(first_tar + len(written))
            with _draft(path) as file, tarfile.open(fileobj=file, mode="w:", format=_USTAR) as tar:
                for _ in range(images_per_tar):
                    for name, data in pair:
                        add_file(tar, f"./{name}", data)
                    pair = next(pairs, None)
                    if pair is None or _is_full(tar, pair, max_tar_size):
                        break
            written.append(path)
    if not written:
        raise ValueError("There is no example to write.")
    return written


@contextmanager
def _held(folder: epath.Path) -> Iterator[None]:
    """Holds the folder, and removes what a killed process left in it."""
    try:
        with files.locked(folder):
            for path in folder.glob(f".sa_*.tar{_DRAFT}"):
                path.unlink(missing_ok=True)
            yield
    except files.FolderInUse:
        raise files.FolderInUse(
            f"Another process writes into {folder}. Wait for it, or take another folder."
        ) from None


def _refuse_to_overwrite(folder: epath.Path, first_tar: int) -> None:
    for path in folder.glob("sa_*.tar"):
        if (tar_number(path.name) or 0) >= first_tar:
            raise FileExistsError(
                f"{path} is there already, and is not overwritten. Take another folder, or add to"
                " this one with first_tar."
            )


@contextmanager
def _draft(path: epath.Path) -> Iterator[Any]:
    """A file to write that gets its name in the end, or is removed."""
    draft = path.parent / f".{path.name}{_DRAFT}"
    try:
        with draft.open("wb") as file:
            yield file
        files.sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    files.sync(path.parent)


def add_file(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Adds a file of the same header bytes every time: no date, owner or rights of this machine."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, BytesIO(data))


def _is_full(tar: tarfile.TarFile, pair: Files, max_tar_size: int | None) -> bool:
    if max_tar_size is None:
        return False
    blocks = sum(1 + -(-len(data) // tarfile.BLOCKSIZE) for _, data in pair)
    # tarfile fills the end up to whole records.
    end = tar.offset + (blocks + 2) * tarfile.BLOCKSIZE
    return -(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE > max_tar_size
