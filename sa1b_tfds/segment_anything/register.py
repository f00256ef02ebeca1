"""Puts our builder in front of the official one of the same name, and adds to what TFDS has.

A registered subclass would raise "already registered", whichever of the two is imported first; a
provider at the front of TFDS's list wins in both orders.
"""

import importlib
from typing import Any

import tensorflow_datasets as tfds

from sa1b_tfds.segment_anything import visualizer

NAME = "segment_anything"


class _Provider:
    def has_dataset(self, name: str) -> bool:
        return name == NAME

    def get_builder_cls(self, name: str) -> type[tfds.core.DatasetBuilder]:
        del name
        from sa1b_tfds.segment_anything import segment_anything_dataset_builder

        return segment_anything_dataset_builder.Builder


def register() -> None:
    tfds.core.add_dataset_builder_provider(_Provider(), index=0)
    visualizer.register()
    _bound_read_only_builder()


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
        return read(self, split, decoders=decoders, read_config=read_config, **kwargs)

    cls._build_single_dataset = _build_single_dataset
