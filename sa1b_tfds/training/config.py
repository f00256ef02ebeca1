"""TrainingConfig: what training batches hold, and how they are drawn. No TensorFlow here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

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

# Of pixels from 0 to 1, as SAM and its descendants have them.
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
    "masks_per_image": (int, 1, 4096),
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
    """What training batches hold, and how they are drawn.

    Sizes:
      batch_size: images a batch, over all replicas. 4: what fits beside SAM ViT-B at 1024 on a
        16 GB accelerator; SAM's recipe has 256.
      image_size: S, the side of the square image. 1024: what SAM was trained on.
      mask_size: M, the side of the square masks. 256: where SAM is supervised.
      masks_per_image: K. 32: half of the 64 masks that SAM's recipe takes a GPU at most.
      resize: 'letterbox' scales the long side to S by SAM's rule, and pads at the bottom and at
        the right; 'square' stretches to S x S, as SAM 2 does.
      normalise: 'imagenet' takes ImageNet's mean and standard deviation, before padding with
        zeros, as SAM does; None leaves 0 to 255.
      image_dtype: 'float32', which every model takes; 'bfloat16', half the bytes; 'uint8', a
        quarter, with normalisation left to the device (`normalise` must be None).
      exact: INTEGER_ACCURATE decoding and antialiased resizing, within 0.02 of the processor of
        Hugging Face. False: scaled decoding, which is several times faster.

    Which masks:
      min_predicted_iou, min_stability_score: 0, keep all: SA-1B was filtered at 0.88 and 0.95.
      min_area: in pixels of the original. 0, keep all: SA-1B has none below 100 or so.
      max_area_fraction: of the image. 0.9: SAM's recipe drops larger ones.
      mask_choice: of those that remain, K are taken: at 'random', the 'largest', or those of the
        best predicted IoU ('score').
      masks_as: 'pixels' gives masks; 'runs', a hundredth of the bytes, what
        `sa1b_tfds.rasterize_runs` draws them from on the device. Layouts 'raw' and 'keras_hub'.
      runs_per_mask: the room for 'runs' on average; an image's masks share K times that. One that
        finds none left is not valid, and an image that has only such is left out. 256: of SA-1B at
        256 x 256 half of the masks need 34, and one in a hundred 900.
      relevance: adds the map of how many masks cover each pixel, and how good they are, of all
        masks that pass the filters. Off: it parses the masks that were not chosen as well.

    Prompts:
      prompts: 'points', 'boxes' or 'both' of them for each mask.
      points_per_mask: P. 1: SAM's first prompt.
      point_source: 'mask' draws them uniformly from the mask's pixels; 'dataset' takes the point
        that prompted the mask in SA-1B (P must be 1), and draws one if a crop left it out.
      box_noise, max_box_noise: each side of a box moves by at most this fraction of the box, and
        at most this many pixels of the resized image. 0.1 and 20: SAM's recipe.

    Augmentation (off by default, as SAM's recipe has none for SA-1B):
      flip: the probability of a mirrored image.
      scale_range: large-scale jitter: the image is scaled by a random factor from this range,
        then cropped to S x S at a random place, or padded. (0.1, 2.0) is usual. None: off.
      colour_jitter: brightness, contrast and saturation change by up to this fraction.
      augment: a function of yours, `augment(example, seed) -> example`, TensorFlow ops only. It
        gets one image and all that belongs to it as 'raw' batches hold it, without the batch
        dimension and with the image as uint8 before normalisation, and a seed, int64 [2], for
        tf.random.stateless_*. Keys, shapes and dtypes must stay.

    Stream:
      split: as in TFDS: 'train[:99%]' leaves a hold-out. A tf.data.Dataset is taken whole.
      shuffle: images in the buffer, of about 1 MB each; files are shuffled, too. 0: the order of
        the files. 256: prepared data already lies in a random order within each tar.
      seed: everything random is a function of it, of the epoch and of the image's id; and of
        TensorFlow's global seed, if one is set.
      deterministic: the same batches in every run. False: whatever is ready first, which helps
        where files come at uneven speeds.
      repeat: endless, one epoch after the other. False: an iteration is an epoch; the next
        iteration has another order and other crops.
      drop_remainder: full batches only, so that shapes are static.
      prefetch: batches made in advance; None leaves that to tf.data.
      parallelism: images prepared at the same time; None leaves that to tf.data.
      layout: 'raw', or what a model takes: 'keras_hub', 'transformers' or 'sam2'; see
        `sa1b_tfds.training.layouts`. Those need normalise='imagenet', 'sam2' also masks of the
        image's size.

    Raises:
      ValueError, TypeError: naming the field that cannot be so.
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
        self._check_scale_range()
        if self.relevance and self.layout == "sam2":
            raise ValueError("relevance must be False with layout='sam2': it has no place for it.")
        if self.image_dtype == "uint8" and self.normalise is not None:
            raise ValueError(
                "normalise must be None with image_dtype='uint8': normalised pixels are no bytes."
            )
        if self.point_source == "dataset" and self.points_per_mask != 1:
            raise ValueError(
                "points_per_mask must be 1 with point_source='dataset': SA-1B has one a mask, got"
                f" {self.points_per_mask}."
            )

        self._check_layout()

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
                    "masks_as must be 'pixels' where masks_per_image * mask_size ** 2 is 2 ** 31"
                    " or more."
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
