"""`sa1b unpack` as a function: compressed tars -> plain tars, in their place or in another folder.

A plain tar appears under its name when it is whole and on the disk. It is recorded first
(`transfer/checked_files.py`), with what is known of the compressed one, so that a build knows it
again.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.lock import lock_folder
from sa1b_tfds.core.problems import BadInput, TornArchive
from sa1b_tfds.core.processes import worker_count
from sa1b_tfds.core.progress import reporter_for_people
from sa1b_tfds.core.running.pool import ProcessPool
from sa1b_tfds.core.running.workers import OnProgress
from sa1b_tfds.core.text import counted, format_bytes
from sa1b_tfds.download.check import unpack_file
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.folder import draft_of, remove_drafts
from sa1b_tfds.tars.archive import TarArchive, archives_at, identity_of, refuse_unfinished
from sa1b_tfds.tars.forms import unpacked_bytes
from sa1b_tfds.tars.seek import forget_seek_points


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What became of one tar.

    Attributes:
      name: of the tar, as it was found.
      status: 'unpacked' (now), 'plain' (it was before, or is in `out` already) or 'failed'.
      bytes: of the plain tar; 0 if there is none.
      reason: why it was not unpacked.
    """

    name: str
    status: Literal["unpacked", "plain", "failed"]
    bytes: int = 0
    reason: str | None = None


def unpack(
    tars: Iterable[str | Path], out: str | Path | None = None, *, workers: int | None = None
) -> list[Unpacked]:
    """Makes plain tars of compressed ones. Run again, it goes on with those that are left.

    Args:
      tars: tars, and folders of tars.
      out: a folder for the plain tars, under the same names; None replaces the compressed ones.
      workers: tars at a time; default: one a core.

    Returns:
      One result a tar, in the order of their names. What fails does not stop the others.

    Raises:
      FileNotFoundError: where there is no tar.
      ValueError: if two tars would have the same name in `out`.
      FolderInUse: if a download or another `unpack` has one of the folders.
      DiskFull: if the disk has no room for them; nothing was written.
    """
    workers = worker_count(workers)
    tasks = [_task_of(tar, None if out is None else Path(out)) for tar in _find(tars)]
    with contextlib.ExitStack() as held:
        _lock_folders(tasks, held)
        results = {task: task.known() for task in tasks}
        left = [task for task, result in results.items() if result is None]
        _check_targets(left)
        failures = _run(left, workers) if left else {}
    for task in left:
        if task.name in failures:
            reason = _reason(failures[task.name])
            results[task] = Unpacked(name=task.tar, status="failed", reason=reason)
        else:
            size = task.target.stat().st_size
            results[task] = Unpacked(name=task.tar, status="unpacked", bytes=size)
    return [result for result in results.values() if result is not None]


def _find(tars: Iterable[str | Path]) -> list[TarArchive]:
    found: dict[str, TarArchive] = {}
    for path in tars:
        own = [archive for archive in archives_at(path) if isinstance(archive, TarArchive)]
        if not own:
            refuse_unfinished(path)
            what = "holds no sa_*.tar" if os.path.exists(path) else "is not there"
            raise FileNotFoundError(f"{path} {what}.")
        # Folders may have several paths, but a tar that is a link is one of its own.
        found |= {os.fspath(_real(Path(archive.path))): archive for archive in own}
    return sorted(found.values(), key=lambda archive: (archive.name, os.fspath(archive.path)))


def _task_of(tar: TarArchive, out: Path | None) -> UnpackTask:
    packed = Path(tar.path)
    target = packed if out is None else out / tar.name
    return UnpackTask(tar.name, packed, packed if _real(target) == _real(packed) else target)


def _real(path: Path) -> Path:
    """The path without links in it; the file itself may be one."""
    return path.parent.resolve() / path.name


def _check_targets(tasks: list[UnpackTask]) -> None:
    places: dict[Path, UnpackTask] = {}
    for task in tasks:
        if (other := places.setdefault(task.target, task)) is not task:
            raise ValueError(
                f"{other.packed} and {task.packed} would both be {task.target}: unpack them to"
                " different folders."
            )


def _lock_folders(tasks: list[UnpackTask], held: contextlib.ExitStack) -> None:
    """Holds the folders until the end of `held`, when no draft is left in them."""
    written = {task.target.parent.resolve() for task in tasks}
    read = {task.packed.parent.resolve() for task in tasks}
    for folder in sorted(written | read):
        if folder not in written:
            with contextlib.suppress(OSError):  # it may be on a disk that cannot be written
                held.enter_context(lock_folder(folder, "sa1b unpack"))
            continue
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(lock_folder(folder, "sa1b unpack"))
        remove_drafts(folder)
        held.callback(remove_drafts, folder)  # of workers that were killed


def _reason(error: Exception) -> str:
    if isinstance(error, BadInput):
        return error.reason
    if isinstance(error, files.DiskFull):
        return f"{error.strerror}"
    return str(error)


def _run(tasks: list[UnpackTask], workers: int) -> Mapping[str, Exception]:
    """Unpacks what is compressed; returns by the task's name why that failed."""
    in_place = tasks[0].target == tasks[0].packed
    if in_place:
        _check_room(tasks)
    pool = ProcessPool(
        num_workers=workers,
        reporter=reporter_for_people(),
        release=_finisher(tasks),
        makes_room=in_place,
    )
    return pool(tasks)


def _check_room(tasks: list[UnpackTask]) -> None:
    """In place, one compressed tar at least is there beside its plain one."""
    sizes = [task.source_bytes() for task in tasks]
    needed = sum(map(unpacked_bytes, sizes)) - sum(sizes) + max(sizes)
    free = files.free_bytes(tasks[0].folder)
    if free is not None and needed > free:
        raise files.DiskFull(
            errno.ENOSPC,
            f"To unpack {counted(len(tasks), 'tar')} needs {format_bytes(needed)} more, and"
            f" {tasks[0].folder} has {format_bytes(free)} free. Nothing was written; make room, or"
            " unpack fewer tars.",
        )


@dataclass(frozen=True)
class UnpackTask:
    """A task for a worker, which writes and checks the draft of the plain tar."""

    tar: str
    packed: Path
    target: Path

    @property
    def name(self) -> str:
        return os.fspath(self.packed)

    @property
    def folder(self) -> epath.Path:
        return epath.Path(self.target.parent)

    def source_bytes(self) -> int:
        return (identity_of(epath.Path(self.packed)) or {"bytes": 0})["bytes"]

    def expected_bytes(self) -> int:
        return self.source_bytes()

    def written(self, read: int) -> int:
        return unpacked_bytes(read)

    def scratch_bytes(self) -> int:
        return 0

    def run(self, on_progress: OnProgress) -> None:
        draft = draft_of(self.target)
        with files.full_disk_named(f"while writing {draft}"):
            problem = unpack_file(
                self.packed, self.tar, draft, on_inflated=lambda size: on_progress(0, size)
            )
        if problem:
            raise TornArchive(self.tar, "", problem)

    def known(self) -> Unpacked | None:
        """The result, if there is nothing to do."""
        archive = TarArchive(self.packed)
        if not archive.is_packed():
            size = self.packed.stat().st_size
            reason = None if self.target == self.packed else "it is plain, and stays where it is"
            return Unpacked(name=self.tar, status="plain", bytes=size, reason=reason)
        if self.target == self.packed or not self.target.exists():
            return None
        source = CheckedFiles(self.target.parent).unpacked_from(self.target.name)
        if source == archive.identity():
            size = self.target.stat().st_size
            return Unpacked(name=self.tar, status="plain", bytes=size)
        reason = f"{self.target} is there already and may be another tar: move it away"
        return Unpacked(name=self.tar, status="failed", reason=reason)


def _finisher(tasks: Iterable[UnpackTask]) -> Callable[[UnpackTask], None]:
    """What gives a task's draft its name; it may be called in several threads."""
    # One a folder, whatever its path: each would write what it had read.
    folders = {path.parent.resolve() for task in tasks for path in (task.packed, task.target)}
    records = {folder: CheckedFiles(folder) for folder in folders}

    def finish(task: UnpackTask) -> None:
        packed = records[task.packed.parent.resolve()]
        name = task.packed.name
        checked_by, md5 = packed.checked_by(name) or "size", packed.md5(name)
        target = records[task.target.parent.resolve()]
        target.put_unpacked(task.target, task.packed, checked_by, md5)
        if task.target == task.packed:
            forget_seek_points(epath.Path(task.target))

    return finish
