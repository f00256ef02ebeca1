"""Everything that `import sa1b_tfds` changes outside of this package, and why. No TensorFlow here.

* TF_CPU_ALLOCATOR_USE_BFC=true in the environment, so that TensorFlow keeps the memory of a batch
  for the next one. "false" in the environment leaves TensorFlow as it is.
* A provider of builders in TFDS, so that our builder comes before the official one of the name.
* A visualizer in TFDS, so that `tfds.show_examples` draws the masks.
* A patch of TFDS's ReadOnlyBuilder, so that it reads large masks in bounded memory.
"""

import importlib
import os
from typing import Any

import tensorflow_datasets as tfds

from sa1b_tfds.segment_anything.visualizer import MasksVisualizer

NAME = "segment_anything"


class _Provider:
    """Gives TFDS our builder. Put first in TFDS's list, it wins whatever is imported first.

    A registered subclass would raise "already registered" beside the official builder.
    """

    def has_dataset(self, name: str) -> bool:
        return name == NAME

    def get_builder_cls(self, name: str) -> type[tfds.core.DatasetBuilder]:
        del name
        from sa1b_tfds.segment_anything import segment_anything_dataset_builder

        return segment_anything_dataset_builder.Builder


def register() -> None:
    _keep_memory_of_batches()
    tfds.core.add_dataset_builder_provider(_Provider(), index=0)
    _add_visualizer()
    _bound_read_only_builder()


def _keep_memory_of_batches() -> None:
    """Sets TensorFlow's CPU allocator, unless the user has; TensorFlow looks before its first op.

    By default each tensor of over 32 MB takes its memory from the kernel anew, page by page.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")


def _add_visualizer() -> None:
    """Puts our visualizer before TFDS's own, and has examples taken one by one.

    TFDS has no way to add one, so it goes into a private list. Without that list images appear as
    TFDS draws them.
    """
    module: Any = importlib.import_module("tensorflow_datasets.core.visualization.show_examples")
    known = getattr(module, "_ALL_VISUALIZERS", None)
    if not isinstance(known, list):
        return
    known.insert(0, MasksVisualizer())
    to_dataset = module._to_tf_dataset

    def _to_tf_dataset(ds: Any, min_length: int, is_batched: bool = False) -> Any:
        """A tf.data.Dataset as it is; TFDS means to, but first reads what it shows into memory."""
        import tensorflow as tf

        if isinstance(ds, tf.data.Dataset) and not is_batched:
            return ds
        return to_dataset(ds, min_length, is_batched=is_batched)

    module._to_tf_dataset = _to_tf_dataset


def _bound_read_only_builder() -> None:
    """Has TFDS's ReadOnlyBuilder read our datasets as our builder does (`reading.bounded`).

    `tfds.load` uses one instead of our builder if the name has a version and the data is prepared
    ('segment_anything:2.0.0'), and `tfds.builder_from_directory` returns one. TFDS has no hook for
    this. Other datasets are read as before.
    """
    module = importlib.import_module("tensorflow_datasets.core.read_only_builder")
    cls = module.ReadOnlyBuilder
    read = cls._build_single_dataset

    def _build_single_dataset(
        self: Any, split: Any, *, decoders: Any, read_config: Any, **kwargs: Any
    ) -> Any:
        from sa1b_tfds.segment_anything import reading

        read_config = reading.bounded(read_config, self.info.features, decoders)
        with reading.without_false_warning():
            return read(self, split, decoders=decoders, read_config=read_config, **kwargs)

    cls._build_single_dataset = _build_single_dataset
