"""The `segment_anything` dataset builder: SA-1B's tars -> prepared TFDS records."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets.public_api as tfds
from absl import logging

from sa1b_tfds import features
from sa1b_tfds.building import prepared, shards
from sa1b_tfds.building.conversion import Conversion, Engine
from sa1b_tfds.building.report import REPORT, report_of
from sa1b_tfds.building.settled import release_after
from sa1b_tfds.building.sources import Sources, is_in_flight
from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.core.problems import BadInput, OnError, Problems, check_on_error
from sa1b_tfds.core.processes import worker_count
from sa1b_tfds.core.running.pool import ProcessPool
from sa1b_tfds.core.running.progress import reporter_for_people
from sa1b_tfds.core.running.workers import Fetched
from sa1b_tfds.download.checksums import read_md5_table
from sa1b_tfds.download.links import LINKS_PAGE
from sa1b_tfds.examples.image_ids import ImageIds
from sa1b_tfds.segment_anything import configs, reading
from sa1b_tfds.segment_anything.config_tars import ConfigTars
from sa1b_tfds.segment_anything.mocked import is_mocked
from sa1b_tfds.tars import archive
from sa1b_tfds.tars.scratch import readable_in_any_order

HOMEPAGE = "https://ai.meta.com/datasets/segment-anything/"
_HOW_TO_SKIP = (
    "To leave out what cannot be read, counted and listed: `sa1b build --on-error skip`,"
    " builder_kwargs={'on_error': 'skip'} or 'segment_anything/<config>/on_error=skip'"
)


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
        **kwargs: Any,
    ):
        """Constructs the builder.

        Args:
          on_error: 'raise' stops at the first image that cannot become an example, with an error
            that names its tar, member and reason; 'skip' leaves such images out, counts them, and
            lists each in build_report.json beside the data.
          num_workers: processes that convert tars; default: one a core.
          md5: take the MD5 of every tar that no download of ours has checked, compare it with the
            community's table where that has the name, and list it in build_report.json. It costs
            1.4 seconds of a core for each GB.
          **kwargs: data_dir, config, version and file_format, as in TFDS.
        """
        self._num_workers = worker_count(num_workers, "num_workers")
        config, names = kwargs.get("config"), [own.name for own in self.BUILDER_CONFIGS]
        if isinstance(config, str) and config.partition(":")[0] not in names:
            raise ValueError(f"There is no config {config!r}: choose one of {', '.join(names)}.")
        super().__init__(**kwargs)
        # Survives pickling.
        self._original_state.update(on_error=on_error, num_workers=num_workers, md5=md5)
        self._on_error = check_on_error(on_error)
        self._md5 = md5
        self._folder = prepared.Folder(self.data_path)
        self._tars = ConfigTars(self.builder_config, self._folder.staging)
        self._sources: Sources | None = None
        self._extend = False
        self._damaged: Container[str] = ()
        self._kept: frozenset[str] = frozenset()

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
                for example in shards.unique_examples(
                    reader,
                    shards.shuffled(found),
                    long_side=self.builder_config.long_side,
                    ids=ids,
                    problems=problems,
                ):
                    yield example.image_id, example.as_dict()

    def _build_single_dataset(
        self, split: Any, *, decoders: Any, read_config: Any, **kwargs: Any
    ) -> Any:
        """As in TFDS, which `as_dataset` calls for each split; see `reading` for what differs."""
        read_config = reading.bounded(read_config, self.info.features, decoders)
        return super()._build_single_dataset(
            split, decoders=decoders, read_config=read_config, **kwargs
        )

    def download_and_prepare(
        self,
        *,
        download_config: tfds.download.DownloadConfig | None = None,
        file_format: Any = None,
        **kwargs: Any,
    ) -> None:
        """As in TFDS; and goes on where an earlier call ended, whatever ended it.

        Tars that are finished wait beside the data folder until all are, so that a call after an
        error, Ctrl-C, kill or power cut converts the others only.

        Args:
          download_config: as in TFDS. max_examples_per_split, num_shards (at least one a tar),
            max_shard_size, beam_runner and beam_options apply; what cannot apply is an error.
          file_format: 'tfrecord' or 'array_record'.
          **kwargs: download_dir and permissions.

        Raises:
          BadInput: what is wrong in a tar, with on_error='raise'.
          FolderInUse: if another process prepares the same data.
        """
        if is_mocked():
            super().download_and_prepare(
                download_config=download_config, file_format=file_format, **kwargs
            )
            return
        was_there = self.data_path.exists()
        self._folder.clean_if_free()
        if self.data_path.exists() and not was_there:  # it had been set aside
            self.info.read_from_directory(self.data_path)
        if self.data_path.exists() and not (self._extend or _overwrites(download_config)):
            super().download_and_prepare(
                download_config=download_config, file_format=file_format, **kwargs
            )
            return
        _refuse_what_cannot_apply(download_config or tfds.download.DownloadConfig())
        with self._folder.locked():
            self._folder.clean()
            try:
                with self._folder.full_disk_named(), self._room_for_data(download_config):
                    super().download_and_prepare(
                        download_config=download_config, file_format=file_format, **kwargs
                    )
            except BadInput as e:
                if self._on_error == "skip":
                    raise
                raise type(e)(e.archive, e.member, f"{e.reason}. {_HOW_TO_SKIP}") from e
            self._folder.settle()

    def prepare_from(
        self, sources: Sources, extend: bool = False, damaged: Container[str] = ()
    ) -> None:
        """Prepares from sources that were found already, as `sa1b build` does.

        Args:
          sources: the archives, and what to do before and after each.
          extend: if there is data, convert only what is not in it and exchange it. What is staged
            is read first, to convert again what is damaged.
          damaged: the names of the data's tars whose shards are damaged.
        """
        self._sources, self._extend, self._damaged = sources, extend, damaged
        config = tfds.download.DownloadConfig()
        if extend and self.data_path.exists():
            there = self._folder.tars()
            # What is there is kept as it is, and what comes is cut alike.
            config.max_shard_size = there[-1].settings["max_shard_size"]
            self._kept = frozenset(tar.archive for tar in there)
        try:
            self.download_and_prepare(download_config=config)
        finally:
            self._sources, self._extend, self._kept = None, False, frozenset()
            self._damaged = ()

    @contextlib.contextmanager
    def _room_for_data(self, config: tfds.download.DownloadConfig | None) -> Iterator[None]:
        """TFDS writes only where no data is: to extend some, all of it is staged first."""
        if self._extend:
            self._folder.staging.set_damaged_aside()
        if not (self._sources and config and self._extend and self._folder.path.exists()):
            yield
            return
        archives = self._sources.archives
        available = {a.name for a in archives if is_in_flight(a) or a.identity() is not None}
        self._folder.restage(self.info.splits["train"].filepaths, available, self._damaged)
        conversion = self._conversion(archives, config)
        conversion.run(self._engine(config, conversion))
        # With those deleted meanwhile, so that they are not told of once more.
        self._sources = dataclasses.replace(self._sources, archives=conversion.archives)
        splits = self.info.splits
        with self._folder.exchanged():
            self.info.set_splits(tfds.core.SplitDict([]))  # TFDS asks for as much room as they have
            try:
                yield
            except BaseException:
                self.info.set_splits(splits)
                raise

    def _generate_splits(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> list[tfds.core.SplitInfo]:
        """Has every tar converted to its shards, and makes these the split train."""
        sources = self._sources
        archives = sources.archives if sources else self._tars.of(dl_manager)
        conversion = self._conversion(archives, download_config)
        tars = conversion.run(self._engine(download_config, conversion))
        lengths = [shard.examples for tar in tars for shard in tar.shards]
        if not lengths:
            raise _nothing_left(tars)
        if conversion.num_shards not in (None, len(lengths)):
            limit = conversion.max_examples
            which = "the tars" if limit is None else f"the tars with the first {limit} images"
            raise ValueError(
                f"num_shards={conversion.num_shards} cannot apply: divided among"
                f" {len(conversion.archives)} tars, {which} have images for {len(lengths)} shards."
            )
        template = self._get_filename_template("train")
        paths = template.sharded_filepaths(len(lengths))
        self._folder.assemble(tars, self.data_path, paths)
        self._write_report(tars, conversion)
        return [
            tfds.core.SplitInfo(
                name="train",
                shard_lengths=lengths,
                num_bytes=sum(tar.size for tar in tars),
                filename_template=template,
            )
        ]

    def _conversion(
        self, archives: Sequence[archive.Archive], download_config: tfds.download.DownloadConfig
    ) -> Conversion:
        return Conversion(
            archives=self._tars.with_those_deleted(archives),
            staging=self._folder.staging,
            settings=shards.Settings(
                file_format=self.info.file_format.value,
                long_side=self.builder_config.long_side,
                max_shard_size=download_config.max_shard_size,
            ),
            on_error=self._on_error,
            num_shards=download_config.num_shards,
            max_examples=download_config.max_examples_per_split,
            md5=self._md5,
            known_md5=read_md5_table() if self._md5 else {},
            kept=self._kept,
        )

    def _engine(
        self, download_config: tfds.download.DownloadConfig, conversion: Conversion
    ) -> Engine:
        if download_config.beam_runner or download_config.beam_options:
            from sa1b_tfds.building.beam_engine import BeamEngine

            return BeamEngine(
                runner=download_config.beam_runner, options=download_config.beam_options
            )
        hooks = self._sources or Sources(archives=[])
        release = release_after(hooks, conversion.staging, conversion.fits)
        return ProcessPool(
            num_workers=self._num_workers,
            reporter=reporter_for_people(),
            fetch=_fetch_for(hooks),
            release=release,
            makes_room=release is not None,
        )

    def _write_report(self, tars: Sequence[FinishedTar], conversion: Conversion) -> None:
        options = {
            "config": self.builder_config.name,
            "version": str(self.version),
            "on_error": self._on_error,
            **dataclasses.asdict(conversion.settings),
            "num_shards": conversion.num_shards,
            "max_examples": conversion.max_examples,
        }
        (self.data_path / REPORT).write_bytes(report_of(tars, options))
        images = sum(tar.images for tar in tars)
        skipped = sum(len(tar.problems) for tar in tars)
        logging.log(
            logging.WARNING if skipped else logging.INFO,
            "Images: %d, archives: %d, skipped: %d; see %s",
            images,
            len(tars),
            skipped,
            self._folder.path / REPORT,
        )


def _nothing_left(tars: Sequence[FinishedTar]) -> ValueError:
    problems = [problem for tar in tars for problem in tar.problems]
    if not problems:
        return ValueError(f"There is no image in {', '.join(tar.archive for tar in tars):.200}.")
    first, n = problems[0], len(problems)
    reason = f"{first.reason}. With this, {n} problem(s) in all, no image is left"
    return BadInput(first.archive, first.member, reason)


def _overwrites(config: tfds.download.DownloadConfig | None) -> bool:
    return config is not None and config.download_mode.overwrite_dataset


def _refuse_what_cannot_apply(config: tfds.download.DownloadConfig) -> None:
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


def _fetch_for(sources: Sources) -> Callable[[shards.Task, Fetched], None] | None:
    fetch = sources.fetch
    return None if fetch is None else lambda task, on_fetched: fetch(task.archive, on_fetched)
