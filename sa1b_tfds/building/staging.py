"""The folder in which finished tars wait for the last one: their shards, and a sidecar each.

It lies beside the data folder, on the same file system, and survives whatever ends a build. A tar
is finished when its sidecar is there, which is written last and after all else is on the disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import orjson
from etils import epath

from sa1b_tfds import files
from sa1b_tfds.problems import BadInput

_DRAFT = ".part"
_PREFIX = "tar-"
_MAX_NAME = 230  # file systems take 255 bytes, with the prefix and what comes after it
_CUT = "+"  # which `quote` never leaves in a name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """examples: records in the file. bytes: its size."""

    examples: int
    bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedTar:
    """What a sidecar says about a tar and its shards.

    archive: the tar's name.
    settings: what its shards depend on, besides the tar.
    source: the tar's `identity` when it was read.
    pairs: that the tar holds; images: that became examples; problems: the others.
    image_ids: int64, of the images and of those left out because an earlier tar has them.
    shards: in their order.
    seconds: that it took.
    md5: of the tar; None if nobody took it.
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
        """Whether all of the tar's images are in the shards, some, and nothing was skipped."""
        return not self.problems and self.images == self.pairs > 0

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def to_json(self) -> bytes:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["shards"] = [dataclasses.asdict(shard) for shard in self.shards]
        fields["problems"] = [p.as_dict() for p in self.problems]
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def from_json(cls, data: bytes) -> FinishedTar:
        fields = orjson.loads(data)
        fields["image_ids"] = np.array(fields["image_ids"], np.int64)
        fields["shards"] = [Shard(**shard) for shard in fields["shards"]]
        fields["problems"] = [BadInput(**problem) for problem in fields["problems"]]
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class Staging:
    """The staged tars of one dataset version in `folder`."""

    folder: epath.Path

    def sidecar(self, archive: str) -> epath.Path:
        return self.folder / f"{_file_name(archive)}.json"

    def shard(self, archive: str, number: int) -> epath.Path:
        return self.folder / f"{_file_name(archive)}.{number:05d}"

    def failure(self, archive: str) -> epath.Path:
        """Where a worker elsewhere says what is wrong in a tar."""
        return self.folder / f"{_file_name(archive)}.failure"

    def draft(self, archive: str, number: int) -> epath.Path:
        """A new name at each call, for a shard that is being written."""
        unique = uuid.uuid4().hex[:8]
        return self.folder / f"{_file_name(archive)}.{number:05d}.{unique}{_DRAFT}"

    def finished(self, archive: str) -> FinishedTar | None:
        """What the sidecar says; None if there is none or its shards are not all there."""
        try:
            tar = FinishedTar.from_json(self.sidecar(archive).read_bytes())
            sizes = [files.stat_of(self.shard(archive, i)).bytes for i in range(len(tar.shards))]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return tar if sizes == [shard.bytes for shard in tar.shards] else None

    def archives(self) -> list[str]:
        """The names of the tars that have a sidecar."""
        paths = self.folder.glob("*.json") if self.folder.exists() else []
        return sorted(map(_archive_of, paths))

    @property
    def wanted(self) -> epath.Path:
        """Where the tars are listed that the last build was to finish."""
        return self.folder / "wanted"

    def want(self, archives: Iterable[str]) -> None:
        files.write_whole(self.wanted, orjson.dumps(list(archives)))

    def lacking(self) -> list[str] | None:
        """The wanted tars that are not finished; None if nobody said which are wanted."""
        if not self.wanted.exists():
            return None
        return [name for name in orjson.loads(self.wanted.read_bytes()) if not self.finished(name)]

    def finish(self, tar: FinishedTar, drafts: Iterable[epath.Path]) -> None:
        """Gives written and synced drafts their names, and then the tar its sidecar."""
        self.sidecar(tar.archive).unlink(missing_ok=True)
        for number, draft in enumerate(drafts):
            draft.replace(self.shard(tar.archive, number))
        files.sync(self.folder)
        files.write_whole(self.sidecar(tar.archive), tar.to_json())

    def remove_drafts(self) -> None:
        for path in self.folder.glob(f"*{_DRAFT}"):
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


def _archive_of(sidecar: epath.Path) -> str:
    if _CUT in sidecar.name:
        archive: str = orjson.loads(sidecar.read_bytes())["archive"]
        return archive
    return unquote(sidecar.name)[len(_PREFIX) : -len(".json")]
