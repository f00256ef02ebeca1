"""Whether `tfds.testing.mock_data` is active: then TFDS makes examples up, from no data."""

from __future__ import annotations

import tensorflow_datasets.public_api as tfds


def is_mocked() -> bool:
    """Whether TFDS's function that prepares data was replaced, as `mock_data` does."""
    builder = tfds.core.DatasetBuilder
    return builder.download_and_prepare.__module__ != builder.__module__
