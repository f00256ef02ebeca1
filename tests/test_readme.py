"""What the tables of the README and docs/features.md say is so; test_docs.py runs the code."""

import ast
import pathlib
import re

import tensorflow_datasets as tfds

import sa1b_tfds  # noqa: F401  registers the builder
from sa1b_tfds.segment_anything import segment_anything_dataset_builder

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FEATURES = (ROOT / "docs" / "features.md").read_text()


def test_the_feature_table_is_the_feature_spec():
    table = dict(re.findall(r"^\| `([\w/]+)` \| (\w+) \| \[", FEATURES, re.MULTILINE))
    features = tfds.builder("segment_anything").info.features
    documented = {f.name: f.tensor_info for f in features.catalog_documentation() if f.tensor_info}
    assert table == {name: info.tf_dtype.name for name, info in documented.items()}


def test_the_configs_and_files_are_all_named():
    for config in segment_anything_dataset_builder.Builder.BUILDER_CONFIGS:
        assert f"`{config.name}`" in FEATURES
    for path in (ROOT / "sa1b_tfds").glob("*.py"):
        assert path.name.startswith("_") or path.name in README


def test_imports_go_the_way_that_the_architecture_table_says():
    table = README[README.index("## Architecture") :]
    rows = [
        re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    ]
    line_of = {
        name.removeprefix("sa1b_tfds/").removesuffix(".py").rstrip("/"): number
        for number, names in enumerate(rows)
        for name in names
    }
    for path in (ROOT / "sa1b_tfds").rglob("*.py"):
        module = path.relative_to(ROOT / "sa1b_tfds").parts[0].removesuffix(".py")
        if module.startswith("_"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("sa1b_"):
                continue
            package = node.module.split(".")[1:]
            for imported in package[:1] or [alias.name for alias in node.names]:
                assert line_of[imported] <= line_of[module], f"{path.name} imports {imported}"
