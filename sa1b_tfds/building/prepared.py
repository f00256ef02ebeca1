"""The folders of one prepared dataset version, and what may lie beside it between two builds.

    original/2.0.0/                     the data, as TFDS reads it, with tars.jsonl, record_ends and
                                        the report
    original/staged.2.0.0/              finished tars of a build that has not ended (`staging.py`)
    original/incomplete.XXXXXX_2.0.0/   TFDS's own, while it writes; left behind by a kill
    original/replaced.2.0.0/            the data before `sa1b build --add`, while it is exchanged

The data's shards are links to the staged ones, so that nothing is lost when the last step fails.
In an object store they are copies, and `published.py` puts them there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Container, Iterator, Mapping, Sequence

from absl import logging
from etils import epath

from sa1b_tfds.building.published import copy_shards, is_published
from sa1b_tfds.building.shard_files import ShardFile, which_are_intact
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.core import files
from sa1b_tfds.core.lock import FolderInUse, lock_folder
from sa1b_tfds.core.own_json import DamagedJson
from sa1b_tfds.core.text import counted, first_few
from sa1b_tfds.examples import record_ends

TARS = "tars.jsonl"
_SHARD = r"-train\.[a-z_]+-([0-9]{5,9})-of-([0-9]{5,9})\Z"
_STAGED, _REPLACED, _INCOMPLETE = "staged.", "replaced.", "incomplete."


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedTars:
    """The tars in a dataset version's data, as they were when it was read.

    tars: in the order of their shards.
    shard_files: where the shards of each tar are, by its name.
    """

    tars: Sequence[FinishedTar] = ()
    shard_files: Mapping[str, Sequence[ShardFile]] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.shard_files)

    def damaged(self, read: Container[str] = ()) -> set[str]:
        """The names of the tars whose shards are missing, or of another size.

        Args:
          read: names of tars whose shards are also read, to compare their checksums.
        """
        found = set()
        unread = []
        for name, shards in self.shard_files.items():
            if not all(file.has_its_size() for file in shards):
                found.add(name)
            elif name in read:
                unread += [(name, file) for file in shards]
        intact = which_are_intact([file for _, file in unread], with_bar=True)
        return found | {name for (name, _), right in zip(unread, intact, strict=True) if not right}

    def is_intact(self, tar: FinishedTar) -> bool:
        """Whether the shards of one of the tars are what was written; reads them."""
        return all(which_are_intact(self.shard_files[tar.archive]))


@dataclasses.dataclass(frozen=True)
class Folder:
    """A dataset version at `path`, which need not exist yet.

    dataset: the pattern of the dataset's name, with which those of its shards begin.
    """

    path: epath.Path
    dataset: str = "segment_anything"

    @property
    def is_local(self) -> bool:
        return files.is_local(self.path)

    def exists(self) -> bool:
        """Whether there is data. What a killed build has copied in an object store is none."""
        return self.path.exists() if self.is_local else is_published(self.path)

    @property
    def staging(self) -> Staging:
        return Staging(self.path.parent / f"{_STAGED}{self.path.name}")

    @property
    def _replaced(self) -> epath.Path:
        return self.path.parent / f"{_REPLACED}{self.path.name}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other builds of this config away."""
        with lock_folder(self.path.parent):
            yield

    def clean(self) -> None:
        """Removes what a killed build left behind and no other build can use."""
        if self.is_local:
            self._clean_beside()
        if self.staging.folder.exists() and self.has_all_staged():
            self.staging.remove()

    def _clean_beside(self) -> None:
        if self._replaced.exists() and not self.path.exists():
            self._replaced.rename(self.path)
        for path in self.path.parent.iterdir():
            incomplete = path.name.startswith(_INCOMPLETE)
            ours = incomplete and path.name.endswith(f"_{self.path.name}")
            other_version = path.name.startswith(_STAGED) and path != self.staging.folder
            if other_version and (tars := _only_staged(path)):
                logging.warning(
                    "%s has what another version made of %s (%s), and stays: there may be no"
                    " other copy. Remove it if you have the source.",
                    path,
                    counted(len(tars), "tar"),
                    first_few(tars),
                )
            elif ours or other_version or path == self._replaced:
                logging.warning("Removing %s, which an earlier build left behind.", path)
                path.rmtree()

    def clean_if_free(self) -> None:
        """Cleans after a build that was killed in its last steps, unless another one is at work.

        A user who may only read the data leaves it as it is.
        """
        if self.staging.folder.exists():
            with contextlib.suppress(FolderInUse, OSError, DamagedJson), self.locked():
                self.clean()

    def put_back_if_free(self) -> None:
        """Puts back data that a killed exchange has set aside, unless another build is at work.

        Only then is the folder locked, so that processes which begin together do not meet there.
        """
        if self.is_local and self._replaced.exists() and not self.path.exists():
            self.clean_if_free()

    def has_all_staged(self) -> bool:
        """Whether there is data and every staged tar is in it, undamaged."""
        try:
            staged = self.staging.archives()
            prepared = self.prepared()
        except (FileNotFoundError, DamagedJson):  # it is not known what is in the data
            return False
        there = {tar.archive: (tar.source, tar.settings) for tar in prepared.tars}
        if not self.exists() or not there.keys() - prepared.damaged() >= set(staged):
            return False
        finished = filter(None, map(self.staging.finished, staged))
        return all(there[tar.archive] == (tar.source, tar.settings) for tar in finished)

    def finish(self) -> None:
        """Syncs the data to the disk, then removes the staged tars that it links to.

        All of them stay if one is not in the data: that may be the only copy, and `--add` takes it.
        """
        if self.is_local:
            for path in self.path.iterdir():
                files.sync(path)
            files.sync(self.path)
            files.sync(self.path.parent)
            if self._replaced.exists():
                self._replaced.rmtree()
        if self.has_all_staged():
            # Last: as long as it is there, `clean_if_free` finishes what a kill has left of this.
            self.staging.remove()

    def assemble(
        self, tars: Sequence[FinishedTar], target: epath.Path, shards: Sequence[epath.Path]
    ) -> None:
        """Links the staged shards of `tars` to the paths in `shards`.

        Lists the tars, and where the records of TFRecord shards end. In an object store the shards
        are copied to those names in the folder of the data, whatever folder the paths are in.
        """
        staged = [
            self.staging.shard(tar.archive, number)
            for tar in tars
            for number in range(len(tar.shards))
        ]
        if self.is_local:
            for shard, path in zip(staged, shards, strict=True):
                files.link_or_copy(shard, path)
        else:
            copy_shards(staged, [self.path / path.name for path in shards])
        with (target / TARS).open("wb") as file:
            for tar in tars:
                file.write(tar.to_json() + b"\n")
        of_tars = [shard for tar in tars for shard in tar.shards]
        if any(shard.lengths is not None for shard in of_tars):
            with (target / record_ends.NAME).open("wb") as file:
                for shard in of_tars:
                    file.write(shard.record_ends().astype(record_ends.DTYPE).tobytes())

    def prepared(self) -> PreparedTars:
        """Reads which tars are in the data and where their shards are; none if there is no data.

        Raises:
          FileNotFoundError: if the data was not built by this package.
          DamagedJson: if the list of the tars is damaged.
        """
        if not self.exists():
            return PreparedTars()
        path = self.path / TARS
        tars = []
        with path.open("rb") as file:  # line by line: of all of SA-1B it has 100 MB
            for number, line in enumerate(file, start=1):
                try:
                    tars.append(FinishedTar.from_json(line.rstrip(b"\n")))
                except DamagedJson as e:
                    raise _damaged_list(path, f"line {number}: {e}") from e
        paths, expected = self._shard_paths()
        listed = sum(len(tar.shards) for tar in tars)
        if expected not in (None, listed):
            raise _damaged_list(path, f"it lists {listed} of {counted(expected, 'shard')}")
        numbers = itertools.count()
        files_of = {
            tar.archive: tar.shard_files([paths.get(next(numbers)) for _ in tar.shards])
            for tar in tars
        }
        return PreparedTars(tars=tars, shard_files=files_of)

    def _shard_paths(self) -> tuple[dict[int, epath.Path], int | None]:
        """The data's shards by number, and how many there should be; None if there is no shard."""
        paths = {}
        of = None
        for path in self.path.glob("*-train.*"):
            if found := re.match(self.dataset + _SHARD, path.name):
                paths[int(found[1])] = path
                of = int(found[2])
        return paths, of

    def restage(
        self, prepared: PreparedTars, available: Container[str], damaged: Container[str]
    ) -> None:
        """Stages the data's own tars, as if the build had not ended yet. Copies no bytes.

        Args:
          prepared: what is in the data.
          available: names of tars that can be converted again.
          damaged: names of tars whose shards are damaged. They are left out, to be converted again,
            unless they are staged already.

        Raises:
          FileNotFoundError: if a damaged tar is not available.
        """
        damaged = {tar.archive for tar in prepared.tars if tar.archive in damaged}
        damaged |= prepared.damaged()
        to_stage = [tar for tar in prepared.tars if not self.staging.finished(tar.archive)]
        lost = [t.archive for t in to_stage if t.archive in damaged and t.archive not in available]
        if lost:
            raise FileNotFoundError(
                f"Shards of {first_few(lost)} are damaged or gone in {self.path}, and the tars are"
                " not there: put these back, to have them converted again, or the shards."
            )
        self.staging.folder.mkdir(parents=True, exist_ok=True)
        for tar in to_stage:
            if tar.archive in damaged:
                continue
            shards = [file.path for file in prepared.shard_files[tar.archive] if file.path]
            drafts = [self.staging.draft(tar.archive, i) for i in range(len(shards))]
            for shard, draft in zip(shards, drafts, strict=True):
                files.link_or_copy(shard, draft)
            self.staging.finish(tar, drafts)

    @contextlib.contextmanager
    def exchanged(self) -> Iterator[None]:
        """Sets the data aside for new data, and puts it back if that fails."""
        self.path.rename(self._replaced)
        try:
            yield
        except BaseException:
            if not self.path.exists():
                self._replaced.rename(self.path)
            raise


def _damaged_list(path: epath.Path, why: str) -> DamagedJson:
    return DamagedJson(
        f"{path} is damaged ({why}): the data can be read as it is, but not extended. To extend it,"
        " build all of it again in another data_dir."
    )


def _only_staged(staged: epath.Path) -> list[str]:
    """The finished tars in a version's staging folder; none if all are in that version's data."""
    folder = Folder(staged.parent / staged.name.removeprefix(_STAGED))
    return [] if folder.has_all_staged() else folder.staging.archives()
