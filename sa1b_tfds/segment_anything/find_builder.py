"""A TFDS builder by what users write: a dataset's name, a folder, or the builder itself."""

from __future__ import annotations

import os
from typing import Any

import tensorflow_datasets.public_api as tfds
from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.examples.parts import builder_at


def find_builder(source: Any, data_dir: Any = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a dataset.

    Args:
      source: a dataset's name, such as 'segment_anything/original'; a TFDS builder, which is
        returned; or the folder of a prepared version.
      data_dir: of TFDS, for a name.

    Raises:
      ValueError: if it is nothing of that kind.
    """
    if isinstance(source, tfds.core.DatasetBuilder):
        return source
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            "source must be a dataset's name, a builder, a folder or a tf.data.Dataset, got"
            f" {source!r}."
        )
    for path in filter(None, (source, data_dir)):
        files.refuse_s3_of_tensorflow(path)
    if (epath.Path(source) / "dataset_info.json").exists():
        return builder_at(source)
    try:
        return tfds.builder(os.fspath(source), data_dir=data_dir)
    except ValueError as e:
        if not (isinstance(e, tfds.core.DatasetNotFoundError) or epath.Path(source).exists()):
            raise
        raise ValueError(  # TFDS lists all datasets that it has
            f"{os.fspath(source)!r} is no dataset's name, such as 'segment_anything/original', nor"
            " a folder with dataset_info.json. Tars are read with"
            f" read_tars({os.fspath(source)!r}, decoders={{'image': SkipDecoding(), 'masks':"
            " SkipDecoding()}), which is a source as well."
        ) from None
