"""The folder in which finished tars wait for the last one: their shards, and a receipt each.

It lies beside the data folder, on the same file system, and survives whatever ends a build. A tar
is finished when its receipt is there, which is written last and after all else is on the disk.

In an object store a shard appears when it is whole, so it has no draft.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from absl import logging
from etils import epath

from sa1b_tfds.building.shard_files import Shard, ShardFile, which_are_intact
from sa1b_tfds.core import files, own_json
from sa1b_tfds.core.problems import BadInput

_DRAFT = ".part"
_DAMAGED = ".damaged"
_PREFIX = "tar-"
_MAX_NAME = 230  # file systems take 255 bytes, with the prefix and what comes after it
_CUT = "+"  # which `quote` never leaves in a name


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedTar:
    """What a receipt says about a tar and its shards.

    archive: the tar's name.
    settings: what its shards depend on, besides the tar.
    source: the tar's `identity` when it was read.
    pairs: how many the tar holds.
    image_ids: int64, of the images and of those left out because an earlier tar has them.
    problems: why pairs did not become examples.
    shards: in their order.
    seconds: how long it took.
    md5: of the tar; None if it was not taken.
    """

    archive: str
    settings: Mapping[str, Any]
    source: Mapping[str, int]
    pairs: int
    image_ids: np.ndarray
    problems: list[BadInput]
    shards: list[Shard]
    seconds: float
    md5: str | None = None

    @property
    def images(self) -> int:
        return sum(shard.examples for shard in self.shards)

    @property
    def is_whole(self) -> bool:
        """Whether the tar has images, all of them are in the shards, and nothing was skipped."""
        return not self.problems and self.images == self.pairs > 0

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def shard_files(self, paths: Iterable[epath.Path | None]) -> list[ShardFile]:
        """The shards at these paths."""
        file_format = self.settings["file_format"]
        pairs = zip(paths, self.shards, strict=True)
        return [ShardFile(path, shard, file_format) for path, shard in pairs]

    def to_json(self) -> bytes:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["shards"] = [dataclasses.asdict(shard) for shard in self.shards]
        fields["problems"] = [p.as_dict() for p in self.problems]
        return own_json.dumps(fields)

    @classmethod
    def from_json(cls, data: bytes) -> FinishedTar:
        """Raises `own_json.DamagedJson` if it is not what `to_json` gives."""
        return own_json.loads(data, cls._of_fields)

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> FinishedTar:
        return cls(
            **fields
            | {
                "settings": dict(fields["settings"]),
                "source": dict(fields["source"]),
                "image_ids": np.array(fields["image_ids"], np.int64),
                "shards": [Shard(**shard) for shard in fields["shards"]],
                "problems": [BadInput(**problem) for problem in fields["problems"]],
            }
        )


@dataclasses.dataclass(frozen=True)
class Staging:
    """The staged tars of one dataset version in `folder`."""

    folder: epath.Path

    def receipt(self, archive: str) -> epath.Path:
        return self.folder / f"{_file_name(archive)}.json"

    def shard(self, archive: str, number: int) -> epath.Path:
        return self.folder / f"{_file_name(archive)}.{number:05d}"

    def failure(self, archive: str) -> epath.Path:
        """The file in which a Beam worker says what is wrong in a tar."""
        return self.folder / f"{_file_name(archive)}.failure"

    def lock(self, archive: str) -> epath.Path:
        """The folder that is held while a tar is written, where several processes may do it."""
        return self.folder / f"{_file_name(archive)}.lock"

    def draft(self, archive: str, number: int) -> epath.Path:
        """A path for a shard that is being written, new at each call.

        In an object store it is the path of the shard: another name would cost a copy.
        """
        if not files.is_local(self.folder):
            return self.shard(archive, number)
        unique = uuid.uuid4().hex[:8]
        return self.folder / f"{_file_name(archive)}.{number:05d}.{unique}{_DRAFT}"

    def begin(self, archive: str) -> None:
        """Makes ready for the shards of a tar, which may be finished in another form."""
        if not files.is_local(self.folder):  # its shards are about to be replaced
            self.receipt(archive).unlink(missing_ok=True)

    def finished(self, archive: str) -> FinishedTar | None:
        """What the receipt says; None if it or one of its shards is missing or damaged."""
        try:
            tar = FinishedTar.from_json(self.receipt(archive).read_bytes())
        except (OSError, own_json.DamagedJson):
            return None
        return tar if all(file.has_its_size() for file in self._files(tar)) else None

    def _files(self, tar: FinishedTar) -> list[ShardFile]:
        return tar.shard_files([self.shard(tar.archive, i) for i in range(len(tar.shards))])

    def is_intact(self, tar: FinishedTar) -> bool:
        """Whether the shards of a finished tar are what was written; reads them."""
        return all(which_are_intact(self._files(tar)))

    def set_damaged_aside(self) -> None:
        """Reads all staged shards and renames damaged ones, whose tars are then not finished.

        They are not deleted: if the tar is gone, they have the only images that are left.
        """
        tars = [tar for tar in map(self.finished, self.archives()) if tar is not None]
        shards = [file for tar in tars for file in self._files(tar)]
        for file, intact in zip(shards, which_are_intact(shards, with_bar=True), strict=True):
            if not intact and file.path is not None:
                logging.error("%s is damaged: its tar is converted again.", file.path)
                file.path.replace(f"{file.path}{_DAMAGED}")

    def archives(self) -> list[str]:
        """The names of the tars that have a receipt.

        Raises:
          DamagedJson: if a name stands only in a receipt, and that is damaged.
        """
        paths = self.folder.glob("*.json") if self.folder.exists() else []
        return sorted(map(_archive_of, paths))

    @property
    def wanted(self) -> epath.Path:
        """The list of the tars that the last build was to finish."""
        return self.folder / "wanted"

    def want(self, archives: Iterable[str]) -> None:
        files.write_whole(self.wanted, own_json.dumps({"archives": list(archives)}))

    def unfinished(self) -> list[str] | None:
        """The wanted tars that are not finished; None if there is no list of wanted tars.

        Raises:
          DamagedJson: if the list of them is damaged.
        """
        if not self.wanted.exists():
            return None
        advice = "remove it, to build without the tars that are neither finished nor there"
        names = own_json.read(self.wanted, _wanted_names, advice)
        return [name for name in names if not self.finished(name)]

    def finish(self, tar: FinishedTar, drafts: Iterable[epath.Path]) -> None:
        """Gives written and synced drafts their names, and then the tar its receipt."""
        self.receipt(tar.archive).unlink(missing_ok=True)
        for number, draft in enumerate(drafts):
            if draft != (shard := self.shard(tar.archive, number)):
                draft.replace(shard)
        files.sync(self.folder)
        files.write_whole(self.receipt(tar.archive), tar.to_json())

    def make_ready(self) -> None:
        """Makes the folder, and removes the drafts that a killed build left."""
        if files.is_local(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.remove_drafts()

    def remove_drafts(self, archive: str | None = None) -> None:
        """Removes the drafts of one tar, or of all."""
        prefix = "" if archive is None else glob.escape(f"{_file_name(archive)}.")
        for path in self.folder.glob(f"{prefix}*{_DRAFT}"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        if self.folder.exists():
            self.folder.rmtree()


def _file_name(archive: str) -> str:
    """A tar's name, which may hold folders, as one file name that is never hidden nor too long."""
    name = quote(archive, safe="")
    if len(name) > _MAX_NAME:
        rest = _CUT + hashlib.sha256(name.encode()).hexdigest()[:32]
        name = name[: _MAX_NAME - len(rest)] + rest
    return _PREFIX + name


def _wanted_names(content: Any) -> list[str]:
    names = content["archives"] if isinstance(content, dict) else content  # before: the list alone
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("it is no list of names")
    return names


def _archive_of(receipt: epath.Path) -> str:
    if _CUT in receipt.name:
        advice = "remove it and build again, which converts its tar again"
        return own_json.read(receipt, FinishedTar._of_fields, advice).archive
    return unquote(receipt.name)[len(_PREFIX) : -len(".json")]
