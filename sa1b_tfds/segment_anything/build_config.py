"""What `sa1b build` and its plan are asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from etils import epath

from sa1b_tfds.building.tar_deletion import DeleteTars, TarDeletion
from sa1b_tfds.core import files, stores
from sa1b_tfds.core.problems import OnError
from sa1b_tfds.core.processes import worker_count
from sa1b_tfds.segment_anything import configs
from sa1b_tfds.segment_anything.configs import SegmentAnythingConfig
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What to build, and of which tars.

    tars: the folder of the tars, which downloaded ones come to as well; or one tar, without a
      links_file. Both may be in an object store, as epath.Path.
    config: the name of the dataset's config.
    also: the name of another config, whose shards are written in the same pass over the tars. Build
      it after this one: it takes them. Defaults to none.
    data_dir: where TFDS keeps prepared data; a folder in an object store as epath.Path. Defaults to
      TFDS's own folder.
    links_file: download the config's tars that are missing in the folder. Defaults to no downloads.
    workers: how many tars are converted at a time. Defaults to one for each core.
    file_format: 'tfrecord' or 'array_record'. Defaults to that of data that is there, else
      tfrecord.
    on_error: 'raise' stops at an image that cannot become an example; 'skip' leaves it out.
    delete_tars: 'downloaded' downloads and deletes tar by tar. 'all' also deletes the user's own
      tars, each once it is finished and all of it is in the data.
    md5: take the MD5 of every tar that no download of ours has checked, and compare it.
    image_ids: take only these images, as `SegmentAnythingConfig` has it; the data is that of the
      config `<config>_ids`. Defaults to all.
    missing_ids: 'raise' or 'skip', for ids that no tar has.
    add: extend prepared data with tars that are new or have changed since. The shards that stay are
      read, and tars whose shards are damaged are converted again.
    """

    tars: Path | epath.Path
    config: str = "original"
    also: str | None = None
    data_dir: Path | epath.Path | None = None
    links_file: Path | None = None
    workers: int | None = None
    file_format: str | None = None
    on_error: OnError = "raise"
    delete_tars: DeleteTars = "never"
    md5: bool = False
    add: bool = False
    image_ids: Any = None
    missing_ids: OnError = "raise"

    def __post_init__(self) -> None:
        worker_count(self.workers)  # raises an error if it is not a number of workers
        if self.delete_tars not in get_args(DeleteTars):
            raise ValueError(
                f"delete_tars must be one of {get_args(DeleteTars)}, got {self.delete_tars!r}."
            )
        for path in filter(None, (self.tars, self.data_dir)):
            if files.is_local(path) and str(path).startswith(("gs:/", "s3:/")):
                raise ValueError(f"'{path}' has lost a slash: pass an etils.epath.Path.")
            files.refuse_s3_of_tensorflow(path)
        if not files.is_local(self.tars) and (self.links_file or self.delete_tars != "never"):
            raise ValueError(
                f"{self.tars} is in an object store, where no tar is downloaded to or deleted: name"
                " a folder on a disk for links_file and delete_tars."
            )
        if self.data_dir and not files.is_local(self.data_dir) and self.add:
            raise ValueError(
                f"{self.data_dir} is in an object store, where data cannot be extended: build all"
                " tars into another data_dir, or extend a copy on a disk."
            )
        if self.links_file is not None and os.path.isfile(self.tars):
            raise ValueError(f"links_file needs a folder for its tars, and {self.tars} is a file.")
        if self.also == self.config:
            raise ValueError(f"also must be another config than {self.config!r}.")
        if self.also and self.delete_tars == "all":
            raise ValueError(
                "also cannot apply with delete_tars='all': your own tars would be deleted before"
                " both configs have all of them. Delete them after the build."
            )
        if self.delete_tars == "downloaded" and self.links_file is None:
            raise ValueError(
                "delete_tars='downloaded' needs a links_file: it deletes what the build downloads,"
                " and that is nothing. 'all' deletes your own tars."
            )

    def builder(self) -> Builder:
        """Makes the builder; raises a ValueError if TFDS cannot read what is prepared."""
        config: str | SegmentAnythingConfig = self.config
        if self.image_ids is not None:
            own = {own.name: own for own in configs.ALL}
            config = own[self.config].only(self.image_ids)
        try:
            with _without_line_of_tfds(), stores.errors_named(str(self.data_dir)):
                return Builder(
                    config=config,
                    data_dir=self.data_dir,
                    file_format=self.file_format,
                    on_error=self.on_error,
                    num_workers=self.workers,
                    md5=self.md5,
                    missing_ids=self.missing_ids,
                )
        except (ImportError, OSError, ValueError):
            raise
        except Exception as e:  # TFDS has an error of another kind for each damage
            raise ValueError(
                f"The prepared data of {self.config!r} cannot be read: its dataset_info.json or"
                f" features.json is damaged ({e}). Move that folder away and build again."
            ) from e

    def of_also(self) -> BuildConfig | None:
        """The same of the config `also`; None if there is none."""
        return dataclasses.replace(self, config=self.also, also=None) if self.also else None

    def deletion(self) -> TarDeletion | None:
        """What deletes finished tars; None if none is to be deleted."""
        if self.delete_tars == "never":
            return None
        return TarDeletion(own_tars=self.delete_tars == "all")


@contextlib.contextmanager
def _without_line_of_tfds() -> Iterator[None]:
    """Mutes TFDS's line on a config that the builder's class does not list: `only` makes one."""

    def is_ours(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Using custom data configuration")

    logger = logging.getLogger("absl")
    logger.addFilter(is_ours)
    try:
        yield
    finally:
        logger.removeFilter(is_ours)
