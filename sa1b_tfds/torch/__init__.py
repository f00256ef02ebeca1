"""SA-1B for PyTorch and Lightning, without TensorFlow: dataset, sampler, collate, data module.

Each name is imported when it is first used. Only `SA1BDataModule` needs Lightning.
"""

from etils import epy as _epy

from sa1b_tfds.core import extras as _extras

_extras.load("torch", "torch")

with _epy.lazy_api_imports(globals()):
    from sa1b_tfds.torch.batches import TransformersCollate, collate
    from sa1b_tfds.torch.datamodule import SA1BDataModule
    from sa1b_tfds.torch.dataset import SA1BDataset
    from sa1b_tfds.torch.sampler import BlockShuffleSampler

__all__ = ["BlockShuffleSampler", "SA1BDataModule", "SA1BDataset", "TransformersCollate", "collate"]
