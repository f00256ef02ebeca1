"""The staged tars of a sidecar -> a TFDS dataset, whole or not at all."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence

import tensorflow_datasets.public_api as tfds
from etils import epath

from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.core import files
from sa1b_tfds.core.text import first_few
from sa1b_tfds.examples.image_ids import repeated
from sa1b_tfds.sidecars.source import SourceTar, sidecar_folder
from sa1b_tfds.sidecars.writing import FILE_FORMAT, VERSION, saved_columns, written_tars


def join(out: epath.Path, tars: Sequence[SourceTar]) -> list[FinishedTar]:
    """Makes one dataset of all tars that were written.

    Tars that are in the sidecar already stay in it. A kill at any moment leaves the sidecar as it
    was, or whole: the next call continues.

    Args:
      out: the sidecar's folder.
      tars: those that must be there.

    Returns:
      All tars of the sidecar, in the order of their shards.

    Raises:
      ValueError: if a tar is not written, an image is in two tars, or nothing has a row.
      FolderInUse: if another process writes or joins this sidecar.
    """
    folder = sidecar_folder(out / VERSION)
    with folder.locked(), files.full_disk_named(f"in {out}: make room there and join again."):
        folder.clean()
        joined = _all_tars(folder, tars)
        prepared = folder.prepared()
        if folder.path.exists() and not folder.staging.folder.exists():
            return list(prepared.tars)  # nothing was written since
        folder.restage(prepared, available=(), damaged=())
        draft = folder.path.parent / f"incomplete.{uuid.uuid4().hex[:6]}_{VERSION}"
        draft.mkdir()
        _write(folder, joined, draft, out.name)
        with folder.exchanged() if folder.path.exists() else contextlib.nullcontext():
            files.give_name(draft, folder.path)
        folder.finish()
    return joined


def _all_tars(folder: Folder, tars: Sequence[SourceTar]) -> list[FinishedTar]:
    """The tars of the sidecar: others that it has, and then those that must be there."""
    there = written_tars(folder, tars)
    if missing := [tar.name for tar in tars if tar.name not in there]:
        raise ValueError(
            f"{len(missing)} of {len(tars)} tars have no rows in {folder.path.parent}:"
            f" {first_few(missing)}. Write these first: each of the processes that write i of n"
            " parts has to run to its end."
        )
    others = {tar.archive: tar for tar in folder.prepared().tars}
    if folder.staging.folder.exists():
        staged = filter(None, map(folder.staging.finished, folder.staging.archives()))
        others |= {tar.archive: tar for tar in staged}
    joined = [tar for name, tar in others.items() if name not in there] + list(there.values())
    for tar in joined:
        if tar.settings["columns"] != joined[0].settings["columns"]:
            raise ValueError(
                f"{tar.archive} and {joined[0].archive} have different columns in"
                f" {folder.path.parent}: {tar.settings['columns']} and"
                f" {joined[0].settings['columns']}. Remove one of them, and write it again."
            )
    if twice := repeated({tar.archive: tar.image_ids for tar in joined}):
        name, [(image_id, other), *_] = next(iter(twice.items()))
        raise ValueError(
            f"Images are in two tars, as image {image_id} in {other} and {name}: a sidecar has one"
            f" row for each. Remove {folder.staging.receipt(name)} and the tar from the source, or"
            " make the sidecar of prepared data, which has each image once."
        )
    if not any(tar.images for tar in joined):
        raise ValueError(f"No image has a row in {folder.path.parent}.")
    return joined


def _write(folder: Folder, tars: Sequence[FinishedTar], draft: epath.Path, name: str) -> None:
    """Writes the dataset into an empty folder."""
    lengths = [shard.examples for tar in tars for shard in tar.shards]
    template = tfds.core.ShardedFileTemplate(
        data_dir=draft, dataset_name=name, split="train", filetype_suffix=FILE_FORMAT
    )
    folder.assemble(tars, draft, template.sharded_filepaths(len(lengths)))
    split = tfds.core.SplitInfo(
        name="train",
        shard_lengths=lengths,
        num_bytes=sum(tar.size for tar in tars),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=draft,
        features=saved_columns(folder).features,
        split_infos=[split],
        version=VERSION,
        filename_template=template,
        check_data=False,
    )
    for path in draft.iterdir():
        files.sync(path)
