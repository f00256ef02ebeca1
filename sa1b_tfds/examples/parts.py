"""Where examples come from, whatever they lie in: a tar, extracted files, or prepared shards.

This is the NumPy way in, for what looks at examples one by one (show, stats, eval, export, torch).
No TensorFlow here; training reads through tf.data instead.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.files import os_errors_named
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.core.text import counted
from sa1b_tfds.examples import array_records, record_ends, record_files, records
from sa1b_tfds.examples.annotations import member_of, read_image, read_pair
from sa1b_tfds.examples.example import Example
from sa1b_tfds.tars.archive import Archive, PairReader, archives_at, identity_of, refuse_unfinished
from sa1b_tfds.tars.index import IndexedArchive, count_pairs, index_all, index_archive
from sa1b_tfds.tars.pairs import Entry, Pair

_INFO = "dataset_info.json"
_DATASET = "segment_anything"


class Part(Protocol):
    """A tar, an extracted folder or a prepared shard: what one process reads by itself."""

    @property
    def name(self) -> str: ...

    def identity(self) -> dict[str, int] | None:
        """What changes when it does, its bytes among it; None if it is not there."""

    def count(self) -> int:
        """The number of its images, without reading them."""

    def examples(self, problems: Problems) -> Iterator[Example]:
        """Yields its examples, images as JPEG bytes, in its own order; reports what is none."""


class IndexedPart(Protocol):
    """A part of which any image is read at once, by its number.

    It holds where its images are and no open file, so that it is pickled, forked and shared by
    threads as it is. Memory: tars and folders under 50 bytes an image (`tars.index`), array_record
    none; a TFRecord's offsets, 8 bytes an image, are found when the shard is first read.
    """

    @property
    def name(self) -> str: ...

    def count(self) -> int: ...

    def example(self, i: int, with_masks: bool = True) -> Example:
        """Example i, 0 <= i < count(); without masks, what is only of them is not parsed.

        Raises:
          BadInput: if it is none, naming part, member and reason.
        """


@dataclasses.dataclass(frozen=True)
class ArchivePart:
    """A tar or an extracted folder."""

    archive: Archive

    @property
    def name(self) -> str:
        return self.archive.name

    def identity(self) -> dict[str, int] | None:
        return self.archive.identity()

    def count(self) -> int:
        return count_pairs(self.archive)

    def indexed(self, problems: Problems) -> IndexedArchive:
        """What reads its pairs by their numbers; reports what is no pair, torn or unsafe."""
        with os_errors_named(self.name):
            return index_archive(self.archive, problems)

    def examples(self, problems: Problems) -> Iterator[Example]:
        with os_errors_named(self.name):
            for pair in self.archive.pairs(problems):
                if (example := example_of(self.name, pair, problems)) is not None:
                    yield example


@dataclasses.dataclass(frozen=True)
class IndexedArchivePart:
    """A tar or an extracted folder of which the index is in memory."""

    archive: IndexedArchive

    @property
    def name(self) -> str:
        return self.archive.name

    def count(self) -> int:
        return len(self.archive)

    def example(self, i: int, with_masks: bool = True) -> Example:
        with os_errors_named(self.name):
            pair = self.archive.read(i)
        try:
            return read_pair(pair) if with_masks else read_image(pair)
        except ValueError as e:
            raise BadInput(self.name, member_of(pair, e), str(e)) from e


@dataclasses.dataclass(frozen=True)
class ShardPart:
    """A shard of prepared data, TFRecord or array_record: a part, and an indexed one as well.

    numbers: those of its records among the records of all shards.
    """

    path: epath.Path
    file_format: str
    numbers: range

    @property
    def name(self) -> str:
        return self.path.name

    def identity(self) -> dict[str, int] | None:
        return identity_of(self.path)

    def count(self) -> int:
        return len(self.numbers)

    def examples(self, problems: Problems) -> Iterator[Example]:
        number = 0
        for record in record_files.read(self.path, self.file_format):
            try:
                example = records.deserialise(record)
            except ValueError as e:
                problems.report(self.name, f"record {number}", str(e))
            else:
                yield example
            number += 1
        if number != self.count():
            listed = counted(self.count(), "record")
            problems.report(self.name, "", f"it has {number} of its {listed}")

    def example(self, i: int, with_masks: bool = True) -> Example:
        try:
            if self.file_format == "array_record":
                record = array_records.read(os.fspath(self.path), i)
            else:
                record = record_ends.read_record(self.path, self.numbers, i)
            example = records.deserialise(record)
        except (ValueError, IndexError) as e:
            raise BadInput(self.name, f"record {i}", str(e)) from e
        return example if with_masks else example.without_masks()


def examples_of(
    archive: PairReader, entries: Iterable[Entry], problems: Problems, long_side: int | None = None
) -> Iterator[tuple[str, Example]]:
    """Yields (name of its JSON, example) of each entry; reports those that are none."""
    for pair in archive.read(entries, problems):
        example = example_of(archive.name, pair, problems, long_side)
        if example is not None:
            yield pair.json_name, example


def example_of(
    archive: str, pair: Pair, problems: Problems, long_side: int | None = None
) -> Example | None:
    """The example of a pair from the archive of that name; None and reported if it is none."""
    try:
        return read_pair(pair, long_side)
    except ValueError as e:
        problems.report(archive, member_of(pair, e), str(e))
        return None


def find_parts(source: epath.PathLike, config: str | None = None) -> list[Part]:
    """Finds what holds examples.

    Args:
      source: a tar; a folder of tars or of extracted files; the folder of a prepared dataset
        version (with dataset_info.json); or TFDS's data_dir.
      config: the config to read in a data_dir, such as 'original'. Defaults to the only one there.

    Returns:
      The tars, extracted folders or prepared shards, in order.

    Raises:
      FileNotFoundError: if there is nothing of that kind, saying what was looked for; or if there
        are several configs and none is named.
    """
    found = find_data(source, config)
    if isinstance(found, epath.Path):
        return _shards(found)
    return [ArchivePart(archive) for archive in found]


def find_data(source: epath.PathLike, config: str | None = None) -> Sequence[Archive] | epath.Path:
    """Finds archives, or the folder of a prepared version; see `find_parts`."""
    files.refuse_s3_of_tensorflow(source)
    path = epath.Path(source)
    if config is not None:
        return _newest_version(path, config)
    if (path / _INFO).exists():
        return path
    archives = archives_at(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there.")
    if archives:
        return archives
    configs = _prepared_configs(path)
    if not configs:
        refuse_unfinished(path)
        raise FileNotFoundError(
            f"{path} holds neither sa_*.tar, nor extracted sa_*.jpg and .json, nor prepared data"
            f" ({_INFO})."
        )
    if len(configs) > 1:
        raise FileNotFoundError(f"{path} has several configs, name one: {', '.join(configs)}.")
    return _newest_version(path, configs[0])


def index_parts(parts: Sequence[Part], problems: Problems | None = None) -> list[IndexedPart]:
    """The same parts, of which any image can be read: archives first, then shards.

    Args:
      parts: from `find_parts`.
      problems: takes what is no pair, torn or unsafe in an archive; default: raise it.
    """
    archives = [part.archive for part in parts if isinstance(part, ArchivePart)]
    found: list[IndexedPart] = []
    found += map(IndexedArchivePart, index_all(archives, problems))
    found += [part for part in parts if isinstance(part, ShardPart)]
    return found


def read_examples(
    source: epath.PathLike, config: str | None = None, problems: Problems | None = None
) -> Iterator[Example]:
    """Yields the examples of all parts that `find_parts` finds, one part after the other.

    Args:
      source, config: see `find_parts`.
      problems: receives what is not an example. Defaults to raising the first.

    Yields:
      The examples, in the order of the parts.
    """
    for part in find_parts(source, config):
        yield from part.examples(problems or Problems())


def _prepared_configs(data_dir: epath.Path) -> list[str]:
    """The configs that have prepared data in TFDS's data_dir."""
    folder = data_dir / _DATASET
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if any(path.glob(f"*/{_INFO}")))


def _newest_version(data_dir: epath.Path, config: str) -> epath.Path:
    import tensorflow_datasets as tfds  # workers import this module, and need no TFDS

    folder = data_dir / _DATASET / config
    versions = tfds.core.utils.version.list_all_versions(folder)
    if not versions:
        others = ", ".join(_prepared_configs(data_dir))
        there = f" There is: {others}." if others else ""
        raise FileNotFoundError(f"{folder} holds no prepared data.{there}")
    return folder / str(versions[-1])


def builder_at(path: epath.PathLike) -> Any:
    """TFDS's builder of the prepared version in a folder.

    Raises:
      ValueError: if one of the two files that describe it is damaged. TFDS itself has an error of
        another kind for each damage, and names no file.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(path)
    except (ImportError, OSError):
        raise
    except Exception as e:
        raise ValueError(
            f"{os.fspath(path)} cannot be read: its {_INFO} or features.json is damaged ({e})."
        ) from e


def _shards(path: epath.Path) -> list[Part]:
    builder = builder_at(path)
    split = builder.info.splits["train"]
    file_format = builder.info.file_format.value
    if file_format == "array_record":
        record_files.refuse_array_record_on_s3(path)
    ends = itertools.accumulate(split.shard_lengths)
    return [
        ShardPart(epath.Path(shard), file_format, range(end - length, end))
        for shard, length, end in zip(split.filepaths, split.shard_lengths, ends, strict=True)
    ]
