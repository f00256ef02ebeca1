"""What `sa1b build` orders the builder to prepare, and how that travels through TFDS."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping

import tensorflow_datasets.public_api as tfds

from sa1b_tfds.building.conversion_task import ConversionTask
from sa1b_tfds.building.tar_deletion import TarDeletion
from sa1b_tfds.building.tar_supply import TarSupply


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOrder:
    """What `sa1b build` has found out and decided, before the builder prepares.

    supply: the archives. None looks for them in manual_dir.
    deletion: deletes finished tars. None deletes nothing.
    extend: if there is data, exchange it for data with the archives that are not in it as well.
      Staged shards are read first, and tars whose shards are damaged are converted again.
    damaged: names of the data's tars whose shards are damaged.
    also: tasks of another config, by the names of their tars, that are done in the same pass.
    """

    supply: TarSupply | None = None
    deletion: TarDeletion | None = None
    extend: bool = False
    damaged: Container[str] = ()
    also: Mapping[str, ConversionTask] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class OrderedConfig(tfds.download.DownloadConfig):
    """TFDS's config with the order in it, as TFDS hands its config on to `_generate_splits`.

    kept: names of the tars in data that is extended, whose shards stay.
    """

    order: BuildOrder = dataclasses.field(default_factory=BuildOrder)
    kept: Container[str] = ()

    @classmethod
    def of(
        cls, config: tfds.download.DownloadConfig | None, order: BuildOrder | None
    ) -> OrderedConfig:
        config = config or tfds.download.DownloadConfig()
        fields = dataclasses.fields(tfds.download.DownloadConfig)
        own = {field.name: getattr(config, field.name) for field in fields}
        return cls(**own, order=order or BuildOrder())


def refuse_what_cannot_apply(config: tfds.download.DownloadConfig) -> None:
    """Raises a ValueError for a setting that would have no effect."""
    limit = config.max_examples_per_split
    if limit is not None and limit < 1:
        raise ValueError(f"max_examples_per_split must be positive, got {limit}.")
    if config.min_shard_size != tfds.download.DownloadConfig().min_shard_size:
        raise ValueError(
            "min_shard_size cannot apply: each tar has shards of its own, however small. Set"
            " max_shard_size or num_shards instead."
        )
    if config.ignore_duplicates:
        raise ValueError(
            "ignore_duplicates cannot apply: images that come twice are skipped, and listed, with"
            " on_error='skip'."
        )
