"""The TFDS features of an example; among them RleMasks, which stores RLE and gives pixels.

The path of that class, `sa1b_tfds.features.RleMasks`, stands in the features.json of every prepared
dataset: it must not move. TensorFlow is imported only where a tensor is decoded, so that
`as_data_source` works without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sa1b_tfds.examples.example import COLUMNS
from sa1b_tfds.masks import forms, overlay, rle
from sa1b_tfds.masks.runs import are_large, check_size

_REPR_SIDE = 256  # pixels of the longer side of the picture in `as_dataframe`


class RleMasks(tfds.features.FeatureConnector):
    """The masks of one image: stored as COCO RLE, decoded when read.

    Input, one of (always checked, always stored as compressed RLE):

      * a list of COCO segmentations of one size, as `sa1b_tfds.masks.rle.to_rle` takes them;
      * columns {'size': (H, W), 'counts': N compressed strings};
      * a dense array [N, H, W], bool or numbers, what is not zero is inside;

    A list without a mask has no size: use one of the others.

    Stored is {'size': int32 [2] (H, W), 'counts': bytes [N]}, which is what
    `tfds.decode.SkipDecoding()` gives.

    Output is uint8 [N, H, W] of 0 and 1. `decode_masks_to(size=...)` decodes straight to a size.

    Examples:
      >>> features = tfds.features.FeaturesDict({'masks': RleMasks()})
      >>> encoded = features.encode_example({'masks': np.ones((2, 4, 6), bool)})
      >>> encoded['masks']['counts']
      [b'0h0', b'0h0']
    """

    def get_tensor_info(self) -> tfds.features.TensorInfo:
        return tfds.features.TensorInfo(shape=(None, None, None), dtype=np.uint8)

    def get_serialized_info(self) -> dict[str, tfds.features.TensorInfo]:
        return {
            "size": tfds.features.TensorInfo(shape=(2,), dtype=np.int32),
            "counts": tfds.features.TensorInfo(shape=(None,), dtype=np.object_),
        }

    def encode_example(self, masks: Any) -> dict[str, Any]:
        """See the class for what it takes; raises a ValueError if that is malformed."""
        checked = forms.to_checked(masks)
        return {"size": np.array(checked.size, np.int32), "counts": checked.counts}

    def decode_example(self, stored: Mapping[str, Any]) -> Any:
        """-> uint8 tf.Tensor [N, H, W]."""
        from sa1b_tfds.masks import tf_decode

        return tf_decode.decode_masks(stored["counts"], stored["size"])

    def decode_example_np(self, stored: Mapping[str, Any]) -> np.ndarray:
        """-> uint8 [N, H, W], without TensorFlow."""
        return rle.decode_rles(list(stored["counts"]), stored["size"])

    def repr_html(self, masks: np.ndarray) -> str:
        """A picture of the masks, for `tfds.as_dataframe`."""
        step = max(1, -(-max(masks.shape[1:]) // _REPR_SIDE))
        picture = overlay.paint_masks(masks[:, ::step, ::step])
        return tfds.features.Image().repr_html(picture)

    def __getitem__(self, name: str) -> tfds.features.Tensor:
        """A stored column, which `tfds.as_dataframe` asks for after SkipDecoding."""
        info = self.get_serialized_info()[name]
        return tfds.features.Tensor(shape=info.shape, dtype=info.np_dtype)

    @classmethod
    def from_json_content(cls, value: Mapping[str, Any]) -> RleMasks:
        del value  # it has no parameters
        return cls()

    def to_json_content(self) -> dict[str, Any]:
        return {}


class _DecodeMasksTo(tfds.decode.Decoder):
    def __init__(self, size: tuple[int, int] | None, max_masks: int | None):
        super().__init__()
        self._size = size
        self._max_masks = max_masks

    @property
    def is_large(self) -> bool:
        return are_large(self._size, self._max_masks)

    def decode_example(self, stored: Mapping[str, Any]) -> Any:
        from sa1b_tfds.masks import tf_decode

        return tf_decode.decode_masks(
            stored["counts"][: self._max_masks], stored["size"], self._size
        )

    def decode_example_np(self, stored: Mapping[str, Any]) -> np.ndarray:
        return rle.decode_rles(
            list(stored["counts"][: self._max_masks]), stored["size"], self._size
        )


def decode_masks_to(
    size: Sequence[int] | None = None, max_masks: int | None = None
) -> tfds.decode.Decoder:
    """Decodes masks straight to a size, for `decoders=` of `tfds.load` and `as_data_source`.

    Only what is asked for is decoded: neither the full-size masks nor those past `max_masks` are
    ever built. Row i is still mask i, so that the annotations' first rows belong to the masks.

        tfds.load('segment_anything', decoders={'masks': decode_masks_to(size=(256, 256))})

    Args:
      size: (h, w) of the masks, sampled nearest at pixel centres; default: their own.
      max_masks: take the first ones up to this number; default: all.

    Returns:
      A decoder that gives uint8 [min(N, max_masks), h, w].

    Raises:
      ValueError: if the size or the number is not positive.
    """
    if max_masks is not None and max_masks < 1:
        raise ValueError(f"max_masks must be positive, got {max_masks}.")
    return _DecodeMasksTo(None if size is None else check_size(size), max_masks)


def gives_large_masks(decoder: Any) -> bool:
    """Whether the masks of an image take over 64 MB after this decoder, None being RleMasks' own.

    Of another's decoder nothing is known: it counts as one that leaves masks at full size.
    """
    return decoder.is_large if isinstance(decoder, _DecodeMasksTo) else True


def features_dict() -> tfds.features.FeaturesDict:
    """The features of an example: `image`, `masks`, `image_id`, `file_name`, `annotations`."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                encoding_format="jpeg", doc="The photograph, RGB, 0 to 255."
            ),
            "masks": RleMasks(doc="Which pixels belong to mask i: 0 or 1."),
            "image_id": tfds.features.Scalar(np.int64, doc="Unique in the dataset."),
            "file_name": tfds.features.Text(doc="The image's name, as its JSON has it."),
            "annotations": tfds.features.FeaturesDict(
                {
                    column.name: tfds.features.Tensor(
                        shape=(None, *column.shape), dtype=column.dtype, doc=column.doc
                    )
                    for column in COLUMNS
                }
            ),
        }
    )
