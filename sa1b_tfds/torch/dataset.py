"""SA1BDataset: any image of SA-1B as tensors, from tars, extracted files or prepared data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from etils import epath

from sa1b_tfds.building.part_ids import chosen_parts
from sa1b_tfds.core.problems import OnError, Problems, check_on_error
from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.example import Example, in_pixels
from sa1b_tfds.examples.id_set import as_id_set
from sa1b_tfds.examples.image_choice import HoldoutPart, ImageChoice
from sa1b_tfds.examples.indexed_images import IndexedImages
from sa1b_tfds.examples.parts import IndexedPart, find_parts, index_parts
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.runs import check_size

if TYPE_CHECKING:
    from sa1b_tfds.sidecars.reading import OpenSidecar, Sidecars

MaskChoice = Literal["first", "random", "largest", "score"]
Item = tuple[torch.Tensor, torch.Tensor, dict[str, Any]]
Transform = Callable[[torch.Tensor, torch.Tensor, dict[str, Any]], Any]


class SA1BDataset(torch.utils.data.Dataset):
    """SA-1B from tars, extracted files or prepared data: `image, masks, metadata = dataset[0]`.

    Masks are decoded straight to `mask_size`: full-size masks take H * W bytes each, 340 MB for 100
    masks of 2250x1500. Opening reads the tars' headers once and keeps them (`tars.index`). A JSON
    is parsed when its image is read. The dataset can be pickled, and it may be read before workers
    are forked, spawned or served. It does not load TensorFlow.

    An item:
      image: uint8 [3, H, W], RGB, 0 to 255; a view of [H, W, 3], as torchvision's `pil_to_tensor`
        gives it.
      masks: bool [N, H, W], or [N, h, w] for `mask_size`, sampled nearest at pixel centres.
      metadata: a dict. image_id: int; file_name: str; height, width: int, of the image. And columns
        whose row i belongs to mask i: id, area: int64 [N] (area in pixels of the original mask);
        predicted_iou, stability_score: float32 [N]; bbox, crop_box: float32 [N, 4], XYWH in pixels
        of the image, as in SA-1B's JSON (w = x_max - x_min), exact to 1/100 pixel; point_coords:
        float32 [N, 2], (x, y) in pixels of the image.

    `transform(image, masks, metadata)` receives all three, so that a crop or flip moves pixels,
    masks, boxes and points together. The dataset returns what the transform returns.
    `examples/augment_torch.py` has one with albumentations. For torchvision v2, wrap image and
    masks first, or it leaves the masks unchanged: `lambda image, masks, metadata:
    (*v2_transform(tv_tensors.Image(image), tv_tensors.Mask(masks)), metadata)`.
    """

    def __init__(
        self,
        root_dir: epath.PathLike,
        transform: Transform | None = None,
        mask_size: int | Sequence[int] | None = None,
        max_masks: int | None = None,
        min_predicted_iou: float | None = None,
        *,
        max_area_fraction: float | None = None,
        mask_choice: MaskChoice = "first",
        keep_aspect: bool = False,
        masks: bool = True,
        ids: Any = None,
        missing_ids: OnError = "raise",
        holdout: float = 0.0,
        holdout_part: HoldoutPart = "train",
        config: str | None = None,
        on_error: OnError = "raise",
        sidecars: Sidecars | None = None,
    ):
        """Finds the images.

        Args:
          root_dir: a tar; a folder of tars or of extracted files; the folder of a prepared version
            (with dataset_info.json); or, with `config`, TFDS's data_dir.
          transform: see the class. It must be picklable if workers are spawned. Defaults to none.
          mask_size: (h, w) of the masks, or one number for a square. Defaults to the masks' own
            size.
          max_masks: the most masks per image. Defaults to all.
          min_predicted_iou: take only masks with at least this predicted IoU. Defaults to all.
          max_area_fraction: take only masks of at most this share of the image; SAM's recipe has
            0.9. Defaults to all.
          mask_choice: which masks to take of more than `max_masks`: the 'first' in the file;
            'random' ones, different at each reading, by torch's generator, as in SAM's recipe; the
            'largest'; or those with the best predicted IoU ('score'). They keep their order.
            Defaults to 'first'.
          keep_aspect: whether to fit the masks into `mask_size` with the image's proportions, as
            SAM's preprocessing does: 256 gives [N, 171, 256] for 2250x1500. Defaults to False.
          masks: False gives images alone, for captions or distillation: `masks` and the columns of
            the metadata have 0 rows. The JSON is not parsed if the image's name has its id, as in
            SA-1B, and the image's bytes come as they are. Defaults to True.
          ids: the images to take: a file of ids, or ids, each a number, a name such as 'sa_1.jpg'
            or a path (docs/subsets.md). Their order does not matter. Defaults to None: all images.
          missing_ids: 'raise' or 'skip', for ids that root_dir does not have. Defaults to 'raise'.
          holdout: the share of the images to hold out for validation. A hash of the image's id
            decides, as in `TrainingConfig`. Defaults to 0: none.
          holdout_part: 'train' takes the others, 'val' those that are held out. Defaults to
            'train'.
          config: the config of prepared data in a data_dir, such as 'original'. Defaults to None.
          on_error: for torn tars and files without their other half: 'raise', or 'skip' and list
            them in `problems.found`. Reading a malformed image always raises. Defaults to 'raise'.
          sidecars: more columns of the images, by the names that the metadata gives them:
            `{"teacher": path}`, or a `sidecar.Sidecar` in place of a path. They are tensors, or
            text; a column with a row for each mask has those of the item's masks. Defaults to none.

        Raises:
          ValueError: if an argument is invalid.
          FileNotFoundError: if root_dir holds neither tars, nor extracted files, nor prepared data.
          MissingIds: if an id is not there and missing_ids is 'raise'. It is a ValueError.
          MissingRows: if images have no row in a sidecar. The error names them. It is a ValueError.
          BadInput: if a tar is torn, or half of a pair is missing, and on_error is 'raise'.
        """
        if isinstance(mask_size, int):
            mask_size = (mask_size, mask_size)
        self._mask_size = None if mask_size is None else check_size(mask_size, "mask_size")
        if max_masks is not None and max_masks < 1:
            raise ValueError(f"max_masks must be positive, got {max_masks}.")
        if max_area_fraction is not None and not 0 < max_area_fraction <= 1:
            raise ValueError(f"max_area_fraction must be above 0 to 1, got {max_area_fraction}.")
        if mask_choice not in get_args(MaskChoice):
            raise ValueError(f"mask_choice must be one of {get_args(MaskChoice)}: {mask_choice!r}.")
        if keep_aspect and mask_size is None:
            raise ValueError("keep_aspect needs mask_size, the size to fit the masks into.")
        self.transform = transform
        self._max_masks = max_masks
        self._min_predicted_iou = min_predicted_iou
        self._max_area_fraction = max_area_fraction
        self._mask_choice = mask_choice
        self._keep_aspect = keep_aspect
        self._sidecars = _open(sidecars)
        self._with_masks = masks
        choice = ImageChoice(
            ids=None if ids is None else as_id_set(ids), holdout=holdout, holdout_part=holdout_part
        )
        check_on_error(missing_ids, "missing_ids")
        self.problems = Problems(on_error)
        parts = index_parts(find_parts(root_dir, config), self.problems)
        # With a value for images without a row, no sidecar has to be asked, so no ids are needed.
        checks = [sidecar.check for sidecar in self._sidecars if sidecar.missing != "default"]
        self._set_parts(chosen_parts(parts, choice, missing_ids, str(root_dir), checks))

    def _set_parts(self, parts: Sequence[IndexedPart]) -> None:
        self._images = IndexedImages(parts)

    @property
    def source_names(self) -> list[str]:
        """The names of the tars, folders or shards, in order."""
        return self._images.names

    @property
    def source_counts(self) -> list[int]:
        """The number of images of each tar, folder or shard, in order."""
        return self._images.counts

    def only(self, source_names: Sequence[str]) -> SA1BDataset:
        """Makes a dataset of some of the tars, folders or shards, to split by tar.

        Args:
          source_names: names from `source_names`.

        Returns:
          A dataset with the same options.

        Raises:
          ValueError: if there is no such name.
        """
        wanted = set(source_names)
        if unknown := wanted - set(self.source_names):
            raise ValueError(f"No such tar, folder or shard: {', '.join(sorted(unknown))}.")
        some = object.__new__(type(self))
        some.__dict__.update(self.__dict__)
        some._set_parts([part for part in self._images.parts if part.name in wanted])
        return some

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        """Says what it holds: 'SA1BDataset(11,186 images of 1 part: sa_000000.tar)'."""
        held = f"{counted(len(self), 'image')} of {counted(len(self.source_names), 'part')}"
        return f"{type(self).__name__}({held}: {first_few(self.source_names)})"

    def __getitem__(self, i: int) -> Any:
        """Reads image i; raises a BadInput that names tar and member if it is malformed."""
        return self.item(self.example(i))

    def item(self, example: Example) -> Any:
        """Makes the item of an example; `sidecar.map(prepare=dataset.item)` uses it.

        Args:
          example: as it is stored.

        Returns:
          The image, the masks and the metadata; or what the transform makes of them.
        """
        item = self._tensors(example)
        return item if self.transform is None else self.transform(*item)

    def example(self, i: int) -> Example:
        """Reads image i as it is stored.

        Args:
          i: from -len(dataset) to len(dataset) - 1.

        Returns:
          JPEG bytes, RLE and columns, see `annotations.to_example`.

        Raises:
          IndexError: if there is no such image.
          BadInput: if the image is malformed.
        """
        return self._images.example(i, self._with_masks)

    def _tensors(self, example: Example) -> Item:
        pixels = jpeg.decode(example.image)
        chosen = self._choose(example)
        size = example.masks.size
        counts = [example.masks.counts[i] for i in chosen]
        masks = rle.decode_rles(counts, size, self._output_size(size))
        height, width, _ = pixels.shape
        metadata = _metadata(example, chosen, (height, width))
        for sidecar in self._sidecars:
            mask_count = len(example.masks.counts) if self._with_masks else None
            values = sidecar.values(example.image_id, mask_count) or {}
            metadata |= _columns(sidecar, values, chosen)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        return image, torch.from_numpy(masks).view(torch.bool), metadata

    def _choose(self, example: Example) -> np.ndarray:
        """int64, the indices of the masks to take, ascending."""
        columns = example.annotations
        good = np.ones(len(columns["id"]), bool)
        if self._min_predicted_iou is not None:
            good &= columns["predicted_iou"] >= self._min_predicted_iou
        if self._max_area_fraction is not None:
            height, width = example.masks.size
            good &= columns["area"] <= self._max_area_fraction * height * width
        chosen = np.flatnonzero(good)
        if self._max_masks is None or len(chosen) <= self._max_masks:
            return chosen
        if self._mask_choice == "random":
            chosen = chosen[torch.randperm(len(chosen)).numpy()]
        elif self._mask_choice != "first":
            rank = columns["area" if self._mask_choice == "largest" else "predicted_iou"][chosen]
            chosen = chosen[np.argsort(-rank, kind="stable")]
        return np.sort(chosen[: self._max_masks])

    def _output_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        if self._mask_size is None or not self._keep_aspect:
            return self._mask_size
        return jpeg.fit(size, self._mask_size)


def _open(sidecars: Sidecars | None) -> list[OpenSidecar]:
    if not sidecars:
        return []
    from sa1b_tfds.sidecars.reading import open_sidecars  # it loads TFDS, without TensorFlow

    return open_sidecars(sidecars)


def _columns(sidecar: OpenSidecar, values: dict[str, Any], chosen: np.ndarray) -> dict[str, Any]:
    """What a sidecar has of an image, and of its chosen masks."""
    of_masks = {sidecar.key(name) for name in sidecar.padding}
    return {key: _tensor(v[chosen] if key in of_masks else v) for key, v in values.items()}


def _tensor(value: Any) -> Any:
    """A tensor of an array; text of bytes; a number as it is."""
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == object:
        return [text.decode() for text in value]
    if value.dtype.name == "bfloat16":
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(value.copy())  # what a record has cannot be written to


def _metadata(example: Example, chosen: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Makes the metadata of an item from stored boxes (fractions) and points (pixels of masks)."""
    height, width = size
    rows = {name: column[chosen] for name, column in example.annotations.items()}
    columns = in_pixels(rows, size)
    mask_height, mask_width = example.masks.size
    scale = np.array([width / mask_width, height / mask_height], np.float32)
    columns["point_coords"] = columns["point_coords"] * scale
    return {
        "image_id": example.image_id,
        "file_name": example.file_name,
        "height": height,
        "width": width,
        **{name: torch.from_numpy(column) for name, column in columns.items()},
    }
