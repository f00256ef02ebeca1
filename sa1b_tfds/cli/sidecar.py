"""`sa1b sidecar import` and `sa1b sidecar join`: columns beside the data."""

from __future__ import annotations

import argparse
import re
from typing import Any

from sa1b_tfds.cli.options import (
    Commands,
    Group,
    add_command,
    add_config,
    add_on_error,
    refused,
)

_TYPE = re.compile(r"([a-z][a-z0-9_]*)(?::([a-z0-9]+)(?:\[(\d+(?:,\d+)*)\])?)?\Z")


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "sidecar",
        lambda options: options.run_action(options),
        "Add columns, such as captions, labels or embeddings, to images and masks. They are stored"
        " beside the data, which stays as it is.",
        examples=(
            "import clip.parquet tars --key mask_id --columns clip:float16[512] --out clip",
            "join tars --out teacher",
        ),
        docs="more_columns.md",
    )
    actions = command.add_subparsers(
        title="actions",
        dest="action",
        required=True,
        metavar="ACTION",
        help="`sa1b sidecar ACTION --help` describes the options",
    )
    _add_import(actions)
    _add_join(actions)


def _add_import(actions: Any) -> None:
    text = (
        "Make a sidecar of a file's rows. The rows may have any order, and any number of them fits"
        " into memory. Interrupted? Run the same command again; it continues."
    )
    action = actions.add_parser("import", help="a file's rows", description=text)
    action.set_defaults(run_action=_import, parser=action)
    group = action.add_argument_group("input and output")
    group.add_argument(
        "file",
        metavar="FILE",
        help=".csv, .jsonl or .parquet, or a folder with a .npy file for each key",
    )
    _add_source(group)
    add = action.add_argument_group("rows").add_argument
    add(
        "--key",
        choices=("image_id", "file_name", "mask_id"),
        default="image_id",
        help="what the keys are: the image's id or file name, or the id of an annotation (default:"
        " %(default)s)",
    )
    add("--key-column", metavar="NAME", help="the column with the key (default: that of --key)")
    add(
        "--columns",
        nargs="+",
        metavar="NAME[:TYPE]",
        help="columns to take; TYPE is text or a NumPy type with a shape, such as float16[512]"
        " (default: all, as the first row has them)",
    )
    add(
        "--fill",
        action="store_true",
        help="give images and masks without a row an empty text or 0 (default: that is an error)",
    )
    add_on_error(action)


def _add_join(actions: Any) -> None:
    text = (
        "Join what several processes have written with sidecar.map(shard=(i, n)). It is an error"
        " if a tar is missing, or an image comes twice."
    )
    action = actions.add_parser("join", help="pieces of sidecar.map", description=text)
    action.set_defaults(run_action=_join, parser=action)
    _add_source(action.add_argument_group("input and output"))


def _add_source(group: Group) -> None:
    group.add_argument(
        "source",
        metavar="SOURCE",
        help="a tar, a folder of tars or of extracted files, or prepared data",
    )
    group.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="folder of the sidecar; its name is the dataset's",
    )
    add_config(group)


def _import(options: argparse.Namespace) -> int:
    from sa1b_tfds import sidecar
    from sa1b_tfds.core.problems import summed_up
    from sa1b_tfds.core.text import counted

    with refused(options):
        features = _features(options.columns)
    imported = sidecar.import_file(
        options.file,
        options.source,
        options.out,
        key=options.key,
        key_column=options.key_column,
        features=features,
        fill=options.fill,
        on_error=options.on_error,
        config=options.config,
    )
    for line in summed_up(imported.problems):
        print(line)
    for ones, many, keys in (
        ("comes more than once", "come more than once", imported.repeated),
        ("belongs to nothing here", "belong to nothing here", imported.unknown),
    ):
        if keys and keys[0]:
            what = ones if keys[0] == 1 else many
            print(f"{counted(keys[0], 'key')} {what}: {', '.join(map(str, keys[1]))}")
    print(f"{counted(imported.images, 'image')} in {options.out}; {len(imported.problems)} skipped")
    return 0


def _join(options: argparse.Namespace) -> int:
    from sa1b_tfds import sidecar
    from sa1b_tfds.core.text import counted

    images = sidecar.join(options.source, options.out, config=options.config)
    print(f"{counted(images, 'image')} in {options.out}")
    return 0


def _features(columns: list[str] | None) -> dict[str, Any] | None:
    """The features that `--columns` names; None if there is no such option."""
    if columns is None:
        return None
    import numpy as np
    import tensorflow_datasets.public_api as tfds

    features: dict[str, Any] = {}
    for column in columns:
        if (found := _TYPE.match(column)) is None:
            raise ValueError(f"--columns {column!r} is not NAME or NAME:TYPE, as clip:float16[512]")
        name, kind, shape = found.groups()
        if kind in (None, "text"):
            features[name] = tfds.features.Text()
            continue
        try:
            dtype = tfds.features.Tensor(shape=(), dtype=np.dtype(kind)).np_dtype
        except TypeError:
            raise ValueError(f"--columns {column!r}: {kind!r} is no type of NumPy") from None
        features[name] = tfds.features.Tensor(
            shape=tuple(map(int, shape.split(","))) if shape else (), dtype=dtype
        )
    return features
