"""What the tables of docs/features.md say is so; test_docs.py runs the code of the docs."""

import pathlib
import re

import tensorflow_datasets as tfds

import sa1b_tfds  # noqa: F401  registers the builder
from sa1b_tfds.segment_anything import segment_anything_dataset_builder

ROOT = pathlib.Path(__file__).parents[1]
FEATURES = (ROOT / "docs" / "features.md").read_text()


def test_the_feature_table_is_the_feature_spec():
    table = dict(re.findall(r"^\| `([\w/]+)` \| (\w+) \| \[", FEATURES, re.MULTILINE))
    features = tfds.builder("segment_anything").info.features
    documented = {f.name: f.tensor_info for f in features.catalog_documentation() if f.tensor_info}
    assert table == {name: info.tf_dtype.name for name, info in documented.items()}


def test_the_configs_are_all_named():
    for config in segment_anything_dataset_builder.Builder.BUILDER_CONFIGS:
        assert f"`{config.name}`" in FEATURES
