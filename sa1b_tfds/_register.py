"""Puts our builder in front of the official one of the same name, and our drawing beside TFDS's.

A registered subclass would raise "already registered", whichever of the two is imported first; a
provider at the front of TFDS's list wins in both orders.
"""

import tensorflow_datasets as tfds

from sa1b_tfds.show import visualizer

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
