"""The `segment_anything` dataset builder: SA-1B's tars -> prepared TFDS records."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets.public_api as tfds

from sa1b_tfds import features
from sa1b_tfds.building import prepared
from sa1b_tfds.building.conversion import Conversion, Engine
from sa1b_tfds.building.conversion_task import (
    ConversionTask,
    ShardSettings,
    unique_examples,
)
from sa1b_tfds.building.engines import choose_engine
from sa1b_tfds.building.published import refuse_in_store, written_on_disk
from sa1b_tfds.building.report import write_report
from sa1b_tfds.building.shard_order import shuffled
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.building.tar_supply import is_in_flight
from sa1b_tfds.building.wanted_ids import missing_ids_of, refuse_other_ids
from sa1b_tfds.core import files, stores
from sa1b_tfds.core.problems import BadInput, OnError, Problems, check_on_error
from sa1b_tfds.core.processes import worker_count
from sa1b_tfds.core.text import counted
from sa1b_tfds.download.links import LINKS_PAGE
from sa1b_tfds.download.md5_table import read_md5_table
from sa1b_tfds.examples.id_set import check_missing
from sa1b_tfds.examples.image_ids import ImageIds
from sa1b_tfds.segment_anything import configs, reading
from sa1b_tfds.segment_anything.build_order import (
    BuildOrder,
    OrderedConfig,
    refuse_what_cannot_apply,
)
from sa1b_tfds.segment_anything.config_tars import ConfigTars
from sa1b_tfds.segment_anything.mocked import is_mocked
from sa1b_tfds.tars import archive
from sa1b_tfds.tars.scratch import readable_in_any_order

HOMEPAGE = "https://ai.meta.com/datasets/segment-anything/"
_HOW_TO_SKIP = (
    "To leave out what cannot be read, counted and listed: `sa1b build --on-error skip`,"
    " builder_kwargs={'on_error': 'skip'} or 'segment_anything/<config>/on_error=skip'"
)

_HOW_TO_GO_ON = "`--missing-ids skip`, or builder_kwargs={'missing_ids': 'skip'},"


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """DatasetBuilder for SA-1B; `sa1b_tfds` registers it under the official name."""

    name = "segment_anything"
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {
        "2.0.0": "Read from tars without extraction; masks as RLE that decode when read; columns.",
    }
    BUILDER_CONFIGS: ClassVar = configs.ALL
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    SA-1B is for those who accepted its license:
    1. Open {LINKS_PAGE}, accept the license,
       and save the list of links that you get.
    2. Download some or all of its tars (sa_000000.tar to sa_000999.tar, about 11.3 GB each):
         sa1b download --links-file segment_anything_links.txt --output-dir DIR --start 0 --end 1
    3. Pass the folder as manual_dir:
         tfds build segment_anything/original --imports sa1b_tfds --manual_dir DIR
       If it holds the links file as well, named segment_anything_links.txt, this downloads what
       the config lacks.
       One tar is enough to begin with. Folders of extracted files do as well.
    """

    def __init__(
        self,
        *,
        on_error: OnError = "raise",
        num_workers: int | None = None,
        md5: bool = False,
        missing_ids: OnError = "raise",
        **kwargs: Any,
    ):
        """Constructs the builder.

        Args:
          on_error: 'raise' stops at the first image that cannot become an example, with an error
            that names its tar, member and reason; 'skip' leaves such images out, counts them, and
            lists each in build_report.json beside the data.
          num_workers: processes that convert tars. Defaults to one for each core.
          md5: take the MD5 of every tar that no download of ours has checked, compare it with the
            community's table where that has the name, and list it in build_report.json. It costs
            1.4 seconds of a core for each GB.
          missing_ids: 'raise' or 'skip', for ids of the config's image_ids that no tar has. 'skip'
            lists them in build_report.json.
          **kwargs: data_dir, config, version and file_format, as in TFDS.
        """
        self._num_workers = worker_count(num_workers, "num_workers")
        config, names = kwargs.get("config"), [own.name for own in self.BUILDER_CONFIGS]
        if isinstance(config, str) and config.partition(":")[0] not in names:
            raise ValueError(f"There is no config {config!r}: choose one of {', '.join(names)}.")
        super().__init__(**kwargs)
        # Survives pickling.
        self._original_state.update(on_error=on_error, num_workers=num_workers, md5=md5)
        self._original_state.update(missing_ids=missing_ids)
        self._on_error = check_on_error(on_error)
        self._missing_ids = check_on_error(missing_ids, "missing_ids")
        self._md5 = md5
        self._folder = prepared.Folder(self.data_path)
        self._tars = ConfigTars(self.builder_config, self._folder.staging)

    def _info(self) -> tfds.core.DatasetInfo:
        """Returns the dataset's features and metadata."""
        return self.dataset_info_from_configs(
            features=features.features_dict(),
            supervised_keys=("image", "masks"),
            homepage=HOMEPAGE,
            license=f"SA-1B Dataset Research License, see {HOMEPAGE}",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        """Finds the config's tars in manual_dir; everything is in the split train."""
        return {"train": self._generate_examples(self._tars.of(dl_manager))}

    def _generate_examples(
        self, archives: Sequence[archive.Archive]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields (image id, example) of every image, in the order of the prepared data.

        `_generate_splits` does not call it: it has the tars converted in parallel. Compressed tars
        are unpacked into a temporary file (`TMPDIR`), one at a time.
        """
        ids = ImageIds()
        problems = Problems(self._on_error)
        for source in archives:
            with readable_in_any_order(source, tempfile.gettempdir(), problems) as (reader, found):
                for example in unique_examples(
                    reader,
                    shuffled(found),
                    long_side=self.builder_config.long_side,
                    ids=ids,
                    problems=problems,
                    wanted=self.builder_config.image_ids,
                ):
                    yield example.image_id, example.as_dict()

    def _build_single_dataset(
        self, split: Any, *, decoders: Any, read_config: Any, **kwargs: Any
    ) -> Any:
        """As in TFDS, which `as_dataset` calls for each split; see `reading` for what differs."""
        read_config = reading.bounded(read_config, self.info.features, decoders)
        with reading.without_false_warning():
            return super()._build_single_dataset(
                split, decoders=decoders, read_config=read_config, **kwargs
            )

    def _log_download_bytes(self) -> None:
        """TFDS would print that sizes are unknown. The pool's reporter says what is being done."""

    def _log_download_done(self) -> None:
        """TFDS would print a line of its own beside ours."""

    def download_and_prepare(
        self,
        *,
        download_config: tfds.download.DownloadConfig | None = None,
        file_format: Any = None,
        order: BuildOrder | None = None,
        **kwargs: Any,
    ) -> None:
        """As in TFDS; and continues where an earlier call ended, whatever ended it.

        Finished tars wait beside the data folder until all are finished. So a call after an error,
        Ctrl-C, kill or power cut converts only the others.

        Args:
          download_config: as in TFDS. max_examples_per_split, num_shards (at least one a tar),
            max_shard_size, beam_runner and beam_options apply; what cannot apply is an error.
          file_format: 'tfrecord' or 'array_record'.
          order: what `sa1b build` decided. By default all tars of the config are prepared that are
            in manual_dir, unless there is data.
          **kwargs: download_dir and permissions.

        Raises:
          BadInput: what is wrong in a tar, with on_error='raise'.
          FolderInUse: if another process prepares the same data.
        """
        config = OrderedConfig.of(download_config, order)
        kwargs["file_format"] = file_format
        if is_mocked():
            super().download_and_prepare(download_config=download_config, **kwargs)
            return
        with stores.errors_named(str(self.data_path)):
            self._prepare(download_config, config, kwargs)

    def _prepare(
        self,
        download_config: tfds.download.DownloadConfig | None,
        config: OrderedConfig,
        kwargs: dict[str, Any],
    ) -> None:
        self.clean_up()
        overwrites = config.download_mode.overwrite_dataset
        if self._folder.exists() and not (config.order.extend or overwrites):
            if (ids := self.builder_config.image_ids) is not None:
                refuse_other_ids(self.data_path, self._folder.prepared().tars, ids)
            super().download_and_prepare(download_config=download_config, **kwargs)
            return
        refuse_what_cannot_apply(config)
        if not self._folder.is_local:
            refuse_in_store(self.data_path, kwargs["file_format"] or self.info.file_format)
        in_folder = f"in {self._folder.path.parent}: make room there and build again; finished tars"
        with self._folder.locked(), files.full_disk_named(f"{in_folder} are kept."):
            self._folder.clean()
            try:
                with self._room_for_data(config) as config, self._published(kwargs):
                    super().download_and_prepare(download_config=config, **kwargs)
            except BadInput as e:
                if self._on_error == "skip":
                    raise
                error = type(e)(e.archive, e.member, f"{e.reason}. {_HOW_TO_SKIP}")
                error.closing = f"{e.closing}. {_HOW_TO_SKIP}" if e.closing else None
                raise error from e
            self._folder.finish()

    def clean_up(self) -> None:
        """Removes what a killed build left, unless another build is at work.

        Data that the killed build had set aside is put back, and the builder reads its metadata.
        """
        stores.look_anew(self.data_path)
        was_there = self._folder.exists()
        self._folder.clean_if_free()
        if self._folder.exists() and not was_there:
            # As TFDS does at construction. Unless it is cleared, the format stays that of new data.
            self.info.as_proto.ClearField("file_format")
            self.info.read_from_directory(self.data_path)
            self.info.set_file_format(self._original_state.get("file_format"))

    @contextlib.contextmanager
    def _published(self, kwargs: dict[str, Any]) -> Iterator[None]:
        """Has TFDS write the metadata of data in an object store to a local folder, then moves it.

        TFDS would write all to a folder that it renames, which a store does file by file.
        """
        if self._folder.is_local:
            yield
            return
        version = self.data_path
        with written_on_disk(version) as (folder, downloads):
            kwargs.setdefault("download_dir", downloads)
            self._data_dir = os.fspath(folder)
            try:
                yield
            finally:
                self._data_dir = os.fspath(version)
        self.info.read_from_directory(version)

    @contextlib.contextmanager
    def _room_for_data(self, config: OrderedConfig) -> Iterator[OrderedConfig]:
        """Sets data aside that is to be extended, as TFDS writes only where no data is.

        Before that, all of the new data is staged: the body only has to assemble it. If the body
        fails, the old data is put back.

        Yields:
          The config for TFDS.
        """
        order, supply = config.order, config.order.supply
        if order.extend:
            self._folder.staging.set_damaged_aside()
        if not (supply and order.extend and self._folder.exists()):
            yield config
            return
        # Read again now that the folder is locked: another build may have extended the data.
        there = self._folder.prepared()
        config = dataclasses.replace(config, kept=there.names)
        config.max_shard_size = there.tars[-1].settings["max_shard_size"]  # all are cut alike
        archives = supply.archives
        available = {a.name for a in archives if is_in_flight(a) or a.identity() is not None}
        self._folder.restage(there, available, order.damaged)
        conversion = self._conversion(archives, config)
        conversion.run(self._engine(conversion, config))
        # These include tars that are staged and gone, so that they are reported only once.
        supply = dataclasses.replace(supply, archives=conversion.archives)
        splits = self.info.splits
        with self._folder.exchanged():
            self.info.set_splits(tfds.core.SplitDict([]))  # TFDS asks for as much room as they have
            try:
                yield dataclasses.replace(config, order=dataclasses.replace(order, supply=supply))
            except BaseException:
                self.info.set_splits(splits)
                raise

    def _generate_splits(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: OrderedConfig,
    ) -> list[tfds.core.SplitInfo]:
        """Has every tar converted to its shards, and makes these the split train."""
        supply = download_config.order.supply
        archives = supply.archives if supply else self._tars.of(dl_manager)
        conversion = self._conversion(archives, download_config)
        tars = conversion.run(self._engine(conversion, download_config))
        missing = self._check_ids(tars)
        lengths = [shard.examples for tar in tars for shard in tar.shards]
        if not lengths:
            raise _nothing_left(tars)
        if conversion.num_shards not in (None, len(lengths)):
            limit = conversion.max_examples
            which = "they" if limit is None else f"the first {counted(limit, 'image')} of them"
            raise ValueError(
                f"num_shards={conversion.num_shards} cannot apply: divided among"
                f" {counted(len(conversion.archives), 'tar')}, {which} make"
                f" {counted(len(lengths), 'shard')}."
            )
        template = self._get_filename_template("train")
        paths = template.sharded_filepaths(len(lengths))
        self._folder.assemble(tars, self.data_path, paths)
        options = {
            "config": self.builder_config.name,
            "version": str(self.version),
            "on_error": self._on_error,
            **dataclasses.asdict(conversion.settings),
            "image_ids": conversion.image_ids and conversion.image_ids.fingerprint,
            "num_shards": conversion.num_shards,
            "max_examples": conversion.max_examples,
        }
        write_report(self.data_path, tars, options, self._folder.path, missing)
        return [
            tfds.core.SplitInfo(
                name="train",
                shard_lengths=lengths,
                num_bytes=sum(tar.size for tar in tars),
                filename_template=template,
            )
        ]

    def _check_ids(self, tars: Sequence[FinishedTar]) -> np.ndarray:
        """The ids of the config that no tar has, int64; raises a MissingIds if that is an error."""
        wanted = self.builder_config.image_ids
        missing = missing_ids_of(tars, wanted)
        if wanted is not None:
            where = f"the {counted(len(tars), 'tar')} of {self._folder.path}"
            check_missing(missing, len(wanted), where, self._missing_ids, _HOW_TO_GO_ON)
        return missing

    def _conversion(self, archives: Sequence[archive.Archive], config: OrderedConfig) -> Conversion:
        return Conversion(
            archives=self._tars.including_staged(archives),
            staging=self._folder.staging,
            settings=ShardSettings(
                file_format=self.info.file_format.value,
                long_side=self.builder_config.long_side,
                max_shard_size=config.max_shard_size,
            ),
            on_error=self._on_error,
            num_shards=config.num_shards,
            max_examples=config.max_examples_per_split,
            md5=self._md5,
            known_md5=read_md5_table() if self._md5 else {},
            kept=config.kept,
            image_ids=self.builder_config.image_ids,
            also=config.order.also,
        )

    def tasks_to_do(self, archives: Sequence[archive.Archive]) -> dict[str, ConversionTask]:
        """What the build of another config can do in its pass over these archives.

        What it stages, `download_and_prepare` takes.
        """
        return self._conversion(archives, OrderedConfig.of(None, None)).tasks_to_do()

    def _engine(self, conversion: Conversion, config: OrderedConfig) -> Engine:
        return choose_engine(
            conversion,
            beam_runner=config.beam_runner,
            beam_options=config.beam_options,
            num_workers=self._num_workers,
            supply=config.order.supply,
            deletion=config.order.deletion,
        )


def _nothing_left(tars: Sequence[FinishedTar]) -> ValueError:
    problems = [problem for tar in tars for problem in tar.problems]
    if not problems:
        return ValueError(f"There is no image in {', '.join(tar.archive for tar in tars):.200}.")
    first, n = problems[0], len(problems)
    reason = f"{first.reason}. With this, {counted(n, 'problem')} in all, no image is left"
    return BadInput(first.archive, first.member, reason)
