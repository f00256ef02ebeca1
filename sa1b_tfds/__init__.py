"""SA-1B (Segment Anything) for TensorFlow Datasets.

The data flows like this, and each step can be used alone:

    links -> tars -> (jpeg, json) pairs -> examples -> shards -> batches

Where to begin:

  * `sa1b download` fetches tars by Meta's links, and `sa1b build` converts them to shards.
  * `tfds.load('segment_anything')` reads the shards as TFDS's builders do.
  * `training_dataset` makes batches for training from shards; `read_tars` reads tars without a
    build; `sa1b_tfds.torch` has a dataset for PyTorch; `sa1b_tfds.grain` makes the same batches
    for JAX and PyTorch.
  * `write_tars` writes your own images and masks in the same form.

Importing this package makes `tfds.load('segment_anything')` and `tfds build` use its builder. It
loads no TensorFlow; each public name is imported when it is first used.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    # Modules that are imported as such. They are not in __all__, because some need an extra.
    from sa1b_tfds import export as export
    from sa1b_tfds import grain as grain
    from sa1b_tfds import huggingface as huggingface
    from sa1b_tfds import keras as keras
    from sa1b_tfds import metrics as metrics
    from sa1b_tfds import show as show
    from sa1b_tfds import sidecar as sidecar
    from sa1b_tfds import torch as torch
    from sa1b_tfds.core.problems import BadInput
    from sa1b_tfds.examples.amg import read_amg_output
    from sa1b_tfds.examples.write_tars import write_tars
    from sa1b_tfds.features import RleMasks, decode_masks_to
    from sa1b_tfds.masks.relevance import relevance_map
    from sa1b_tfds.masks.rle import decode_rle, encode_mask
    from sa1b_tfds.masks.tf_decode import decode_masks
    from sa1b_tfds.masks.tf_rasterize import pack_runs, rasterize_runs
    from sa1b_tfds.masks.tf_relevance import decode_relevance
    from sa1b_tfds.segment_anything.configs import SegmentAnythingConfig
    from sa1b_tfds.training.config import TrainingConfig
    from sa1b_tfds.training.pipeline import training_dataset
    from sa1b_tfds.training.read_tars import read_tars

from sa1b_tfds.segment_anything import register

register.register()

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "RleMasks",
    "SegmentAnythingConfig",
    "TrainingConfig",
    "decode_masks",
    "decode_masks_to",
    "decode_relevance",
    "decode_rle",
    "encode_mask",
    "pack_runs",
    "rasterize_runs",
    "read_amg_output",
    "read_tars",
    "relevance_map",
    "training_dataset",
    "write_tars",
]
