"""COCO instances: one JSON, written as a stream, with the masks as compressed RLE.

SA-1B's boxes are XYWH over inclusive pixels (see `masks/rle.py`). COCO's are one larger in width
and height, as `pycocotools.mask.toBbox` has them: they are taken anew from the masks. All else is
SA-1B's own: ids, areas, and, as further keys, scores, points and crops.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import orjson
from pycocotools import mask as coco_mask

from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import COLUMNS, Example, in_pixels
from sa1b_tfds.export.format import PIECES, Finished, Item, append, move
from sa1b_tfds.export.images import IMAGES, ImageFiles
from sa1b_tfds.export.mask_labels import mask_labels_in

ANNOTATIONS = "annotations.json"
_IMAGES = "images.json.part"  # of a piece: its objects, each with a comma and a line end before it
_OBJECTS = "annotations.json.part"
_IDS = "ids"
_HOME = "https://ai.meta.com/datasets/segment-anything/"
_HEAD = {
    "info": {"description": "SA-1B (Segment Anything), written by sa1b_tfds", "url": _HOME},
    "licenses": [{"id": 1, "name": "SA-1B Dataset Research License", "url": _HOME}],
}
_FURTHER = [column for column in COLUMNS if column.name not in ("id", "area", "bbox")]  # than COCO
_SEPARATOR = b",\n"
_ROW = 2 * 8  # bytes of a pair of ids
_JSON_SHARE = 0.2  # of a tar's bytes; 0.14 of those of two tars with 32 photographs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coco(ImageFiles):
    """Writes `annotations.json` and `images/`.

    Args:
      images: 'copy' writes the JPEG bytes, 'link' gives extracted files a second name, 'none'
        writes no images. Defaults to 'copy'.
      labels: the folder of a sidecar with a `ClassLabel` for each mask, whose names become the
        categories. A mask with the label -1 is an 'object', the last category. Defaults to None:
        all masks are objects.

    Raises:
      ValueError: if the sidecar has no such column, or several.
    """

    name: ClassVar[str] = "coco"
    labels: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            mask_labels_in(self.labels)  # raises what is wrong before anything is written

    def settings(self) -> dict[str, Any]:
        """Lists what the files depend on besides the source.

        Returns:
          See `Format.settings`; and what changes when the sidecar does.
        """
        settings = super().settings()
        if settings.pop("labels") is None:
            return settings  # as they were before there were labels
        return {**settings, "labels": mask_labels_in(str(self.labels)).identity}

    def written(self, read: int) -> int:
        # The JSON is there twice for a while: in pieces and joined.
        return int(read * (2 * _JSON_SHARE + (self.images == "copy")))

    def write(self, items: Iterator[Item], folder: Path, label: str) -> dict[str, int]:
        with (
            (folder / _IMAGES).open("wb") as images,
            (folder / _OBJECTS).open("wb") as objects,
            (folder / _IDS).open("wb") as ids,
        ):
            seen = _Ids(ids)
            labels = None if self.labels is None else mask_labels_in(self.labels)
            for item in items:
                example = item.example
                if item.pair is None:
                    _check_size(example)
                image = _image_of(example, self.save(item, folder, label))
                images.write(_SEPARATOR + _dump(image))
                categories = None if labels is None else labels.categories_of(example)
                for annotation in annotations_of(example, categories):
                    objects.write(_SEPARATOR + _dump(annotation))
                seen.add(example.annotations["id"], example.image_id)
            seen.flush()
        return {}

    def _categories(self) -> list[dict[str, Any]]:
        names = [] if self.labels is None else mask_labels_in(self.labels).names
        return [
            {"id": number, "name": name, "supercategory": "object"}
            for number, name in enumerate([*names, "object"], start=1)
        ]

    def join(self, root: Path, pieces: Sequence[Finished]) -> None:
        folders = [root / PIECES / piece.label for piece in pieces]
        _refuse_repeated([folder / _IDS for folder in folders])
        with (root / ANNOTATIONS).open("wb") as file:
            file.write(_dump({**_HEAD, "categories": self._categories()})[:-1])
            for name, fragment in ((IMAGES, _IMAGES), ("annotations", _OBJECTS)):
                file.write(f',\n"{name}": ['.encode())
                _append_all([folder / fragment for folder in folders], file)
                file.write(b"]")
            file.write(b"}\n")
        for piece in pieces:
            move(root, piece.label, f"{IMAGES}/{piece.label}", f"{IMAGES}/{piece.label}")


def annotations_of(
    example: Example, categories: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the annotations of an example as COCO has them.

    Args:
      example: with N masks.
      categories: of each mask. None makes all of them objects.
    """
    size, n = example.masks.size, len(example.masks.counts)
    columns = in_pixels(example.annotations, size)
    further = {c.name: columns[c.name].reshape(n, *c.json_shape) for c in _FURTHER}
    rles = [{"size": list(size), "counts": c.decode()} for c in example.masks.counts]
    boxes = coco_mask.toBbox(rles) if rles else []
    for i, segmentation in enumerate(rles):
        yield {
            "id": columns["id"][i],
            "image_id": example.image_id,
            "category_id": 1 if categories is None else categories[i],
            "segmentation": segmentation,
            "area": columns["area"][i],
            "bbox": boxes[i],
            "iscrowd": 0,
            **{name: column[i] for name, column in further.items()},
        }


def _image_of(example: Example, file_name: str) -> dict[str, Any]:
    height, width = example.masks.size
    return {
        "id": example.image_id,
        "file_name": file_name,
        "height": height,
        "width": width,
        "license": 1,
    }


def _check_size(example: Example) -> None:
    if jpeg.image_size(example.image) != example.masks.size:
        raise ValueError(
            f"{example.file_name} was prepared smaller than its masks, and COCO knows one size"
            " an image: export the tars or the config 'original'."
        )


class _Ids:
    """Writes (annotation id, image id) pairs as sorted runs of a bounded length."""

    RUN = 65536

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._pairs = np.empty((0, 2), np.int64)

    def add(self, ids: np.ndarray, image_id: int) -> None:
        pairs = np.stack([ids, np.full(len(ids), image_id, np.int64)], axis=1)
        self._pairs = np.concatenate([self._pairs, pairs])
        while len(self._pairs) >= self.RUN:
            self._write(self._pairs[: self.RUN])
            self._pairs = self._pairs[self.RUN :]

    def flush(self) -> None:
        self._write(self._pairs)

    def _write(self, pairs: np.ndarray) -> None:
        self._file.write(pairs[np.argsort(pairs[:, 0], kind="stable")].tobytes())


def _refuse_repeated(paths: Sequence[Path]) -> None:
    """Raises a ValueError if an annotation id comes twice, whatever number of them there is."""
    runs = [
        (path, start, min(start + _Ids.RUN, rows))
        for path in paths
        for rows in (path.stat().st_size // _ROW,)
        for start in range(0, rows, _Ids.RUN)
    ]
    step = max(1, _Ids.RUN // max(1, len(runs)))  # in all, no more than one run is in memory
    pairs = heapq.merge(*(_read_run(*run, step) for run in runs))
    for (before, first), (after, second) in itertools.pairwise(pairs):
        if before == after:
            raise ValueError(
                f"Annotation id {after} is in image {first} and in image {second}. COCO's ids have"
                " to be unique: export the tars of those images apart from each other."
            )


def _read_run(path: Path, start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    for row in range(start, stop, step):
        count = 2 * min(step, stop - row)
        flat = np.fromfile(path, np.int64, count, offset=row * _ROW).tolist()
        yield from zip(flat[::2], flat[1::2], strict=True)


def _append_all(paths: Sequence[Path], file: IO[bytes]) -> None:
    start = file.tell()
    for path in paths:
        append(path, file)
    if file.tell() > start:  # the first object has no separator before it
        end = file.tell()
        file.seek(start)
        file.write(b" " * len(_SEPARATOR))
        file.seek(end)


def _dump(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
