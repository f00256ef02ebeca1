"""The folders of one prepared dataset version, and what may lie beside it between two builds.

    original/2.0.0/                     the data, as TFDS reads it, with tars.jsonl and the report
    original/staged.2.0.0/              finished tars of a build that has not ended (`staging.py`)
    original/incomplete.XXXXXX_2.0.0/   TFDS's own, while it writes; left behind by a kill
    original/replaced.2.0.0/            the data before `sa1b build --add`, while it is exchanged

The data's shards are links to the staged ones, so that nothing is lost when the last step fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
from collections.abc import Container, Iterator, Sequence

from absl import logging
from etils import epath

from sa1b_tfds.building.shard_files import ShardFile, which_are_intact
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.core import files
from sa1b_tfds.core.own_json import Damaged
from sa1b_tfds.core.text import first_few

TARS = "tars.jsonl"
_SHARD = re.compile(r"segment_anything-train\.[a-z_]+-([0-9]{5,9})-of-([0-9]{5,9})\Z")
_STAGED, _REPLACED, _INCOMPLETE = "staged.", "replaced.", "incomplete."


@dataclasses.dataclass(frozen=True)
class Folder:
    """A dataset version at `path`, which need not exist yet."""

    path: epath.Path

    @property
    def staging(self) -> Staging:
        return Staging(self.path.parent / f"{_STAGED}{self.path.name}")

    @property
    def _replaced(self) -> epath.Path:
        return self.path.parent / f"{_REPLACED}{self.path.name}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other builds of this config away."""
        with files.locked(self.path.parent):
            yield

    @contextlib.contextmanager
    def full_disk_named(self) -> Iterator[None]:
        """Says where the disk is full, of an error that says no more than that it is."""
        try:
            yield
        except OSError as e:
            if e.errno in files.DISK_FULL and str(e) == f"[Errno {e.errno}] {os.strerror(e.errno)}":
                text = f"{e.strerror} in {self.path.parent}: make room there and build again;"
                raise OSError(e.errno, f"{text} finished tars are kept.") from e
            raise

    def clean(self) -> None:
        """Removes what a build that was killed left behind and no other one can use."""
        if self._replaced.exists() and not self.path.exists():
            self._replaced.rename(self.path)
        for path in self.path.parent.iterdir():
            incomplete = path.name.startswith(_INCOMPLETE)
            ours = incomplete and path.name.endswith(f"_{self.path.name}")
            other_version = path.name.startswith(_STAGED) and path != self.staging.folder
            if other_version and (tars := _only_staged(path)):
                logging.warning(
                    "%s has what another version made of %d tars (%s), and stays: it may be all"
                    " that is left of them. Remove it if you have them.",
                    path,
                    len(tars),
                    first_few(tars),
                )
            elif ours or other_version or path == self._replaced:
                logging.warning("Removing %s, which an earlier build left behind.", path)
                path.rmtree()
        if self.is_settled():
            self.staging.remove()

    def clean_if_free(self) -> None:
        """Cleans where a build ended between its last steps, unless another one is at work.

        Who may only read the data leaves it as it is.
        """
        if self.staging.folder.exists():
            with contextlib.suppress(files.FolderInUse, OSError, Damaged), self.locked():
                self.clean()

    def is_settled(self) -> bool:
        """Whether there is data, and no staged tar that is not in it, undamaged."""
        try:
            staged = self.staging.archives()
            there = {tar.archive: (tar.source, tar.settings) for tar in self.tars()}
        except (FileNotFoundError, Damaged):  # no data, or nobody knows what is in it
            return False
        if not there.keys() - self.damaged() >= set(staged):
            return False
        finished = filter(None, map(self.staging.finished, staged))
        return all(there[tar.archive] == (tar.source, tar.settings) for tar in finished)

    def settle(self) -> None:
        """Removes the staged tars, once the data that links to them is on the disk.

        They stay while one of them is not in it: it may be the only copy, and `--add` takes it.
        """
        for path in self.path.iterdir():
            files.sync(path)
        files.sync(self.path)
        files.sync(self.path.parent)
        if self._replaced.exists():
            self._replaced.rmtree()
        if self.is_settled():
            self.staging.remove()  # while it is there, `clean_if_free` goes on with this

    def assemble(
        self, tars: Sequence[FinishedTar], target: epath.Path, shards: Sequence[epath.Path]
    ) -> None:
        """Puts the staged shards of `tars`, one after the other, where `shards` says."""
        names = iter(shards)
        for tar in tars:
            for number in range(len(tar.shards)):
                files.link_or_copy(self.staging.shard(tar.archive, number), next(names))
        (target / TARS).write_bytes(b"".join(tar.to_json() + b"\n" for tar in tars))

    def tars(self) -> list[FinishedTar]:
        """The tars of the data, in the order of their shards.

        Raises:
          FileNotFoundError: if there is no data, or it was not built by this package.
          Damaged: if the list of them is damaged.
        """
        path = self.path / TARS
        tars = []
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                tars.append(FinishedTar.from_json(line))
            except Damaged as e:
                raise _damaged_list(path, f"line {number}: {e}") from e
        there, listed = self._shard_paths()[1], sum(len(tar.shards) for tar in tars)
        if there not in (None, listed):
            raise _damaged_list(path, f"it lists {listed} of {there} shards")
        return tars

    def damaged(self, read: Container[str] = ()) -> set[str]:
        """The names of the data's tars whose shards are not there, or of another size.

        Of the tars in `read` the shards are also read, and their checksums compared.
        """
        found = set()
        unread = []
        for name, shards in self.shard_files().items():
            if not all(file.has_its_size() for file in shards):
                found.add(name)
            elif name in read:
                unread += [(name, file) for file in shards]
        intact = which_are_intact([file for _, file in unread], with_bar=True)
        return found | {name for (name, _), right in zip(unread, intact, strict=True) if not right}

    def shard_files(self) -> dict[str, list[ShardFile]]:
        """Where the shards of each of the data's tars are."""
        paths = self._shard_paths()[0]
        numbers = itertools.count()
        return {
            tar.archive: tar.shard_files([paths.get(next(numbers)) for _ in tar.shards])
            for tar in self.tars()
        }

    def _shard_paths(self) -> tuple[dict[int, epath.Path], int | None]:
        """The data's shards by number; and how many there should be, None if none is there."""
        paths = {}
        of = None
        for path in self.path.glob("*-train.*"):
            if found := _SHARD.match(path.name):
                paths[int(found[1])] = path
                of = int(found[2])
        return paths, of

    def restage(
        self, shards: Sequence[epath.Path], available: Container[str], damaged: Container[str]
    ) -> None:
        """Stages the data's own tars, as if a build had not ended yet; copies no bytes.

        Those whose shards are `damaged` are left out, to be converted again: they must be
        available.
        """
        there = [tar.archive for tar in self.tars() if tar.archive in damaged]
        damaged = [name for name in there if not self.staging.finished(name)]
        if lost := [name for name in damaged if name not in available]:
            raise FileNotFoundError(
                f"Shards of {first_few(lost)} are damaged or gone in {self.path}, and the tars are"
                " not there: put these back, to have them converted again, or the shards."
            )
        names = iter(shards)
        self.staging.folder.mkdir(parents=True, exist_ok=True)
        for tar in self.tars():
            sources = [next(names) for _ in tar.shards]
            if tar.archive in damaged or self.staging.finished(tar.archive) is not None:
                continue
            drafts = [self.staging.draft(tar.archive, i) for i in range(len(sources))]
            for source, draft in zip(sources, drafts, strict=True):
                files.link_or_copy(source, draft)
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


def _damaged_list(path: epath.Path, why: str) -> Damaged:
    return Damaged(
        f"{path} is damaged ({why}): the data can be read as it is, but not extended. To extend it,"
        " build all of it again in another data_dir."
    )


def _only_staged(staged: epath.Path) -> list[str]:
    """The finished tars in a version's staging folder; none if all are in that version's data."""
    folder = Folder(staged.parent / staged.name.removeprefix(_STAGED))
    return [] if folder.is_settled() else folder.staging.archives()
