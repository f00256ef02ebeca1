"""TrainingConfig: what training batches hold, and how they are made. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

from sa1b_tfds.examples.image_choice import HoldoutPart, check_holdout

Resize = Literal["letterbox", "square"]
Normalise = Literal["imagenet"]
ImageDtype = Literal["float32", "bfloat16", "uint8"]
MaskChoice = Literal["random", "largest", "score"]
Prompts = Literal["points", "boxes", "both"]
PointSource = Literal["mask", "dataset"]
MasksAs = Literal["pixels", "runs"]
Layout = Literal["raw", "keras_hub", "transformers", "sam2"]
# (one example, a seed) -> the example
Augment = Callable[[dict[str, Any], Any], dict[str, Any]]

# For pixels from 0 to 1, as SAM and its descendants use them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_CHOICES: dict[str, tuple[Any, ...]] = {
    "resize": get_args(Resize),
    "normalise": (*get_args(Normalise), None),
    "image_dtype": get_args(ImageDtype),
    "mask_choice": get_args(MaskChoice),
    "prompts": get_args(Prompts),
    "point_source": get_args(PointSource),
    "masks_as": get_args(MasksAs),
    "layout": get_args(Layout),
}
# field -> (type, smallest, largest)
_RANGES: dict[str, tuple[type, float, float]] = {
    "batch_size": (int, 1, math.inf),
    "image_size": (int, 16, 16384),
    "mask_size": (int, 1, 16384),
    "masks_per_image": (int, 0, 4096),
    "min_predicted_iou": (float, 0, math.inf),
    "min_stability_score": (float, 0, 1),
    "min_area": (int, 0, math.inf),
    "max_area_fraction": (float, 0, 1),
    "runs_per_mask": (int, 1, 2**16),
    "points_per_mask": (int, 1, 4096),
    "box_noise": (float, 0, 0.5),  # more could turn a box inside out
    "max_box_noise": (float, 0, math.inf),
    "flip": (float, 0, 1),
    "colour_jitter": (float, 0, 1),
    "shuffle": (int, 0, math.inf),
    "seed": (int, 0, 2**63 - 1),
    "prefetch": (int, 0, math.inf),
    "parallelism": (int, 1, math.inf),
}
_MAY_BE_NONE = ("prefetch", "parallelism")
_FLAGS = ("exact", "relevance", "deterministic", "repeat", "drop_remainder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What training batches hold, and how they are made.

    Sizes:
      batch_size: images per batch, over all replicas. Defaults to 4, which fits beside SAM ViT-B at
        1024 on a 16 GB accelerator; SAM's recipe has 256.
      image_size: S, the side of the square image. Defaults to 1024, on which SAM was trained.
      mask_size: M, the side of the square masks. Defaults to 256, at which SAM is supervised.
      masks_per_image: K, the masks per image. Defaults to 32, half of the 64 masks per GPU that
        SAM's recipe takes at most. 0 gives images alone: batches have no masks and no prompts, no
        annotation is parsed, and no image is left out.
      resize: 'letterbox' scales the long side to S by SAM's rule, and pads at the bottom and at the
        right. 'square' stretches to S x S, as SAM 2 does. Defaults to 'letterbox'.
      normalise: 'imagenet' uses ImageNet's mean and standard deviation, and then pads with zeros,
        as SAM does. None leaves pixels from 0 to 255. Defaults to 'imagenet'.
      image_dtype: 'float32', which every model takes; 'bfloat16', half the bytes; or 'uint8', a
        quarter, which leaves normalisation to the device (`normalise` must be None). Defaults to
        'float32'.
      exact: whether to decode with INTEGER_ACCURATE and resize with antialiasing, within 0.02 of
        Hugging Face's processor. Defaults to False: scaled decoding, which is several times faster.

    Which masks:
      min_predicted_iou, min_stability_score: the least scores of a mask. Both default to 0, as
        SA-1B was already filtered at 0.88 and 0.95.
      min_area: the least area, in pixels of the original. Defaults to 0, as SA-1B has no mask below
        100 or so.
      max_area_fraction: the largest area, as a share of the image. Defaults to 0.9: SAM's recipe
        drops larger masks.
      mask_choice: which K masks to take of those that pass: 'random' ones, the 'largest', or those
        with the best predicted IoU ('score'). Defaults to 'random'.
      masks_as: 'pixels' gives masks. 'runs' gives toggles, a hundredth of the bytes, from which
        `sa1b_tfds.rasterize_runs` draws the masks on the device; for layouts 'raw' and 'keras_hub'.
        Defaults to 'pixels'.
      runs_per_mask: the toggles per mask for 'runs'. The masks of an image share K times as many. A
        mask that gets no room is not valid, and an image with only such masks is left out. Defaults
        to 256: at 256 x 256, half of SA-1B's masks need 34 toggles, and one in a hundred needs 900.
      relevance: whether to add the relevance map: how many masks cover each pixel and how good they
        are, over all masks that pass the filters. Defaults to False, as it also parses the masks
        that were not chosen.

    Prompts:
      prompts: 'points', 'boxes' or 'both' for each mask. Defaults to 'both'.
      points_per_mask: P, the points per mask. Defaults to 1, SAM's first prompt.
      point_source: 'mask' draws points uniformly from the mask's pixels. 'dataset' takes the point
        that prompted the mask in SA-1B (P must be 1), and draws one if a crop left it out. Defaults
        to 'mask'.
      box_noise, max_box_noise: how far each side of a box may move, as a share of the box and in
        pixels of the resized image. The smaller limit counts. Default to SAM's 0.1 and 20.

    Augmentation (off by default, as SAM's recipe has none for SA-1B):
      flip: the probability that an image is mirrored. Defaults to 0.
      scale_range: the range of large-scale jitter, such as (0.1, 2.0): the image is scaled by a
        random factor, then cropped to S x S at a random place, or padded. Defaults to None: off.
      colour_jitter: the largest change of brightness, contrast and saturation, as a fraction.
        Defaults to 0.
      augment: your own function `augment(example, seed) -> example`, of TensorFlow ops only. It
        receives one image and everything that belongs to it, as in 'raw' batches but without the
        batch dimension, and with the image as uint8 before normalisation; and a seed, int64 [2],
        for tf.random.stateless_*. It must keep keys, shapes and dtypes. Defaults to None.

    Stream:
      split: a split of TFDS, such as 'train[:99%]' to hold out the rest. A tf.data.Dataset needs
        'train'. Defaults to 'train'.
      holdout, holdout_part: the share of the images to hold out for validation, and the part to
        take: 'train' without them, or 'val', only them. A hash of the image's id decides, so that
        images stay in their part when tars are added, and `SA1BDataset` and exports have the same
        parts. Default to 0.0 and 'train': all images.
      shuffle: the images in the shuffle buffer, about 1 MB each; files are shuffled as well. 0
        keeps the order of the files. Defaults to 256, as prepared data already has the images of
        each tar in a random order.
      seed: the seed of everything random, together with the epoch and the image's id; and with
        TensorFlow's global seed, if one is set. Defaults to 0.
      deterministic: whether every run has the same batches. False takes what is ready first, which
        helps if files are read at uneven speeds. Defaults to True.
      repeat: whether the dataset is endless, one epoch after another. False makes an iteration one
        epoch; the next iteration has another order and other crops. Defaults to False.
      drop_remainder: whether to return only full batches, so that shapes are static. Defaults to
        True.
      prefetch: the batches made in advance. Defaults to None: tf.data decides.
      parallelism: the images prepared at the same time. Defaults to None: tf.data decides.
      layout: 'raw', or the form that a model takes: 'keras_hub', 'transformers' or 'sam2', see
        `sa1b_tfds.training.layouts`. The latter three need normalise='imagenet', and 'sam2' also
        masks of the image's size. Defaults to 'raw'.

    Raises:
      ValueError, TypeError: if a field is invalid; the message names it.
    """

    batch_size: int = 4
    image_size: int = 1024
    mask_size: int = 256
    masks_per_image: int = 32
    resize: Resize = "letterbox"
    normalise: Normalise | None = "imagenet"
    image_dtype: ImageDtype = "float32"
    exact: bool = False

    min_predicted_iou: float = 0.0
    min_stability_score: float = 0.0
    min_area: int = 0
    max_area_fraction: float = 0.9
    mask_choice: MaskChoice = "random"
    relevance: bool = False
    masks_as: MasksAs = "pixels"
    runs_per_mask: int = 256

    prompts: Prompts = "both"
    points_per_mask: int = 1
    point_source: PointSource = "mask"
    box_noise: float = 0.1
    max_box_noise: float = 20.0

    flip: float = 0.0
    scale_range: tuple[float, float] | None = None
    colour_jitter: float = 0.0
    augment: Augment | None = None

    split: str = "train"
    holdout: float = 0.0
    holdout_part: HoldoutPart = "train"
    shuffle: int = 256
    seed: int = 0
    deterministic: bool = True
    repeat: bool = False
    drop_remainder: bool = True
    prefetch: int | None = None
    parallelism: int | None = None
    layout: Layout = "raw"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {value!r}.")
        for name, limits in _RANGES.items():
            if getattr(self, name) is not None or name not in _MAY_BE_NONE:
                _check_number(name, getattr(self, name), *limits)
        for name in _FLAGS:
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {value!r}.")
        if self.augment is not None and not callable(self.augment):
            raise TypeError(f"augment must be a function or None, got {self.augment!r}.")
        if not isinstance(self.split, str) or not self.split:
            raise TypeError(f"split must be a split's name such as 'train', got {self.split!r}.")
        check_holdout(self.holdout, self.holdout_part)
        self._check_scale_range()
        if self.relevance and self.layout == "sam2":
            raise ValueError(
                "relevance must be False with layout='sam2', which has no field for it."
            )
        if self.image_dtype == "uint8" and self.normalise is not None:
            raise ValueError(
                "normalise must be None with image_dtype='uint8': normalised pixels are not bytes."
            )
        if self.point_source == "dataset" and self.points_per_mask != 1:
            raise ValueError(
                "points_per_mask must be 1 with point_source='dataset': SA-1B has one per mask, got"
                f" {self.points_per_mask}."
            )

        if not self.masks_per_image and (self.relevance or self.layout == "sam2"):
            what = "relevance=True" if self.relevance else "layout='sam2'"
            raise ValueError(f"masks_per_image must be at least 1 with {what}.")
        self._check_layout()

    @property
    def moves_pixels(self) -> bool:
        """Whether images are cropped or mirrored."""
        return self.flip > 0 or self.scale_range is not None

    def _check_layout(self) -> None:
        if self.layout != "raw" and self.normalise != "imagenet":
            raise ValueError(f"normalise must be 'imagenet' with layout={self.layout!r}.")
        if self.layout == "sam2" and self.mask_size != self.image_size:
            raise ValueError(
                "mask_size must be image_size with layout='sam2': SAM 2 is supervised at"
                f" {self.image_size}, got {self.mask_size}."
            )
        if self.masks_as == "runs":
            if self.layout not in ("raw", "keras_hub"):
                raise ValueError(f"masks_as must be 'pixels' with layout={self.layout!r}.")
            if self.masks_per_image * self.mask_size**2 >= 2**31:
                raise ValueError(
                    "masks_as must be 'pixels' if masks_per_image * mask_size ** 2 is 2 ** 31 or"
                    " more."
                )

    def _check_scale_range(self) -> None:
        if self.scale_range is None:
            return
        try:
            low, high = self.scale_range
        except (TypeError, ValueError):
            raise TypeError(
                f"scale_range must be None or (low, high), got {self.scale_range!r}."
            ) from None
        for value in (low, high):
            _check_number("scale_range", value, float, 0.01, 100)
        if low > high:
            raise ValueError(f"scale_range must go from low to high, got {self.scale_range!r}.")


def _check_number(name: str, value: Any, kind: type, smallest: float, largest: float) -> None:
    kinds = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        what = "an integer" if kind is int else "a number"
        raise TypeError(f"{name} must be {what}, got {value!r}.")
    if not smallest <= value <= largest:
        limits = f"at least {smallest}" if largest == math.inf else f"{smallest} to {largest}"
        raise ValueError(f"{name} must be {limits}, got {value!r}.")
