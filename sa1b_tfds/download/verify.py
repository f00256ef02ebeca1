"""Says which tars of a folder are whole, torn, wrong, missing or unfinished. Changes nothing."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from etils import epath

from sa1b_tfds.core import files, stores
from sa1b_tfds.core.problems import Problems, TornArchive
from sa1b_tfds.core.processes import worker_count
from sa1b_tfds.core.progress import AnyReporter, Reporter
from sa1b_tfds.core.running.progress import TaskProgress
from sa1b_tfds.core.running.workers import Ended, OnProgress, Running, events
from sa1b_tfds.download.check import hash_file, md5_problem
from sa1b_tfds.download.links import first_of_range, missing_of_range
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.partial import Partial
from sa1b_tfds.examples.annotations import member_of
from sa1b_tfds.examples.consistency import check_pair
from sa1b_tfds.tars.archive import TarArchive, identity_of
from sa1b_tfds.tars.names import PART, is_tar_name, tar_number

_MAX_REASONS = 20
_CHECKED = {
    by: f"its {what} was checked when it was downloaded, and it has not changed since"
    for by, what in {"md5": "MD5", "size": "form, not its MD5,"}.items()
}


@dataclass(frozen=True, kw_only=True)
class TarReport:
    """What one tar is.

    Attributes:
      name: of the tar.
      status: 'whole'; 'torn' (it ends too early, is damaged, or is no tar); 'wrong' (another MD5,
        no pairs, something in it that is not as it should be, or it cannot be read); 'unfinished'
        (a partial download); 'missing'.
      form: 'gzip' or 'plain'; None if that was not seen.
      pairs: of an image and its annotations; None if they were not counted.
      md5: whether its MD5 was compared with a known one.
      note: how it is known to be whole, if not by reading it now.
      reasons: why it is not whole, the first few.
    """

    name: str
    status: Literal["whole", "torn", "wrong", "unfinished", "missing"]
    form: Literal["gzip", "plain"] | None = None
    pairs: int | None = None
    md5: bool = False
    note: str | None = None
    reasons: tuple[str, ...] = ()


def verify_folder(
    folder: epath.PathLike,
    *,
    start: int | None = None,
    end: int | None = None,
    md5: Mapping[str, str] | None = None,
    md5_of_any_form: bool = False,
    deep: bool = False,
    workers: int | None = None,
    reporter: AnyReporter | None = None,
) -> Iterator[TarReport]:
    """Looks at every tar in a folder, or at those of a range; yields reports in the order of names.

    Of a plain tar the headers are read. A compressed one is inflated, up to its checksum, unless a
    download of ours has checked it and it has not changed since.

    Args:
      folder: where the tars are; or one tar, which alone is looked at. Both may be in an object
        store.
      start: first number of a range, 0 where only `end` is given.
      end: the number after the last one; with it, every number of the range has to be there.
      md5: MD5 by name, to compare with; then a compressed tar is not inflated. None compares
        nothing.
      md5_of_any_form: whether `md5` is also of plain tars. Else it is of the compressed tars that
        Meta serves, and a plain tar is compared only if it is known from which file it was
        unpacked.
      deep: read every pair: JSON, masks with their areas and boxes, and the JPEG up to its end.
      workers: processes, by default one a core.
      reporter: receives how far it is. Without one nothing is printed.

    Raises:
      FileNotFoundError: there is no such folder or tar.
      ValueError: a range that holds nothing, a range with one tar, or workers below 1.
    """
    files.refuse_s3_of_tensorflow(folder)
    folder = Path(folder) if files.is_local(folder) else epath.Path(folder)
    with stores.errors_named(str(folder)):
        is_there, is_folder = folder.exists(), folder.is_dir()
    if not is_there:
        raise FileNotFoundError(f"{folder} is not there: name the folder of the tars, or one tar.")
    first = first_of_range(start, end)
    workers = worker_count(workers)
    only = None if is_folder else folder.name
    if only is not None:
        if (start, end) != (None, None):
            raise ValueError(f"A range of numbers is for a folder, and {folder} is one tar.")
        folder = folder.parent

    def asked_for(name: str) -> bool:
        if only is not None:
            return name == only
        number = tar_number(name)
        if start is None and end is None:
            return is_tar_name(name)
        return number is not None and first <= number and (end is None or number < end)

    names = sorted(path.name for path in folder.iterdir() if asked_for(path.name))
    partial = {path.name.removesuffix(PART) for path in folder.glob(f"*{PART}")}
    unfinished = sorted(name for name in partial - set(names) if asked_for(name))
    record = CheckedFiles(folder) if isinstance(folder, Path) else None
    tasks = [
        VerifyTask(
            path=folder / name,
            expected_md5=(md5 or {}).get(name),
            md5_of_any_form=md5_of_any_form,
            deep=deep,
            checked_by=record.checked_by(name) if record else None,
            checked_md5=record.md5(name) if record else None,
        )
        for name in names
    ]
    missing = missing_of_range(first, end, [*names, *unfinished])
    absent = [_report_of_partial(folder, name) for name in unfinished]
    reason = "not in the folder"
    absent += [TarReport(name=n, status="missing", reasons=(reason,)) for n in missing]
    return _in_order(absent, tasks, workers, reporter or Reporter())


def _report_of_partial(folder: Path | epath.Path, name: str) -> TarReport:
    if isinstance(folder, Path):
        partial = Partial(folder, name)
        if partial.is_complete and partial.source and partial.source.problem:
            return TarReport(name=name, status="wrong", reasons=(partial.source.problem,))
    reason = "a download that was not finished: run it again"
    return TarReport(name=name, status="unfinished", reasons=(reason,))


def _in_order(
    absent: list[TarReport], tasks: list[VerifyTask], workers: int, reporter: AnyReporter
) -> Iterator[TarReport]:
    """Yields each report as soon as those of all names before it are there."""
    ready = {report.name: report for report in absent}
    to_come = deque(sorted([*ready, *(task.name for task in tasks)]))
    with contextlib.closing(_as_they_end(tasks, workers, reporter)) as reports:
        while to_come:
            while to_come[0] not in ready:
                report = next(reports)
                ready[report.name] = report
            yield ready.pop(to_come.popleft())


def _as_they_end(
    tasks: list[VerifyTask], workers: int, reporter: AnyReporter
) -> Generator[TarReport, None, None]:
    progress = TaskProgress(reporter, tasks, is_quiet=True)
    if min(workers, len(tasks)) <= 1:
        for task in tasks:
            yield task.run(
                lambda images, size, task=task: progress.handle(Running(task, images, size))  # type: ignore[misc]
            )
            progress.handle(Ended(task, None))
        return
    with contextlib.closing(events(tasks, workers)) as all_events:
        for event in all_events:
            progress.handle(event)
            if isinstance(event, Ended):
                reason = f"it was not looked at to its end: {event.error}"
                yield event.result or TarReport(
                    name=event.task.name, status="wrong", reasons=(reason,)
                )


@dataclass(frozen=True, kw_only=True)
class VerifyTask:
    """A task for a worker: looks at one tar.

    expected_md5: what it has to be; None if that is not known.
    md5_of_any_form: see `verify_folder`.
    deep: read every pair.
    checked_by, checked_md5: what a download has recorded of it, or of what it was unpacked from.
    """

    path: Path | epath.Path
    expected_md5: str | None
    md5_of_any_form: bool
    deep: bool
    checked_by: str | None
    checked_md5: str | None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def folder(self) -> epath.Path:
        return epath.Path(self.path.parent)

    def source_bytes(self) -> int:
        return (identity_of(epath.Path(self.path)) or {"bytes": 0})["bytes"]  # a link to nowhere

    def expected_bytes(self) -> int:
        return self.source_bytes()

    def written(self, read: int) -> int:
        return 0

    def scratch_bytes(self) -> int:
        return 0

    def run(self, on_progress: OnProgress) -> TarReport:
        """Looks at it; what is wrong with it, its file system included, is in the report."""
        problems = Problems(on_error="skip")
        look = _Look()
        try:
            with stores.errors_named(str(self.path)):
                self._look(look, problems, lambda size: on_progress(0, size))
        except OSError as error:
            look.reasons.append(str(error))
        reasons = look.reasons + [
            ": ".join(part for part in (p.member, p.reason) if part) for p in problems.found
        ]
        if len(reasons) > _MAX_REASONS:
            reasons = [*reasons[:_MAX_REASONS], f"and {len(reasons) - _MAX_REASONS} more"]
        return TarReport(
            name=self.name,
            status="torn" if _is_torn(problems) else "wrong" if reasons else "whole",
            form=look.form,
            pairs=look.pairs,
            md5=look.md5,
            note=None if reasons else look.note,
            reasons=tuple(reasons),
        )

    def _look(self, look: _Look, problems: Problems, on_progress: Callable[[int], None]) -> None:
        furthest = 0

        def on_hashed(size: int) -> None:
            on_read(size // 2 if self.deep else size)

        def on_read(size: int) -> None:
            """A tar that is read twice does not go back."""
            nonlocal furthest
            if size > furthest:
                furthest = size
                on_progress(size)

        archive = TarArchive(self.path)
        is_packed = archive.is_packed()
        look.form = "gzip" if is_packed else "plain"
        if self.expected_md5 is not None:
            self._compare_md5(look, self.expected_md5, is_packed, on_hashed)
        if self.deep:
            look.pairs = _read_all(archive, problems, on_read)
        elif is_packed and look.md5 and not look.reasons:
            return
        elif is_packed and not look.md5 and self.checked_by in _CHECKED:
            look.note = _CHECKED[self.checked_by]
            return
        else:
            look.pairs = len(archive.index(problems, on_read))
        if not look.pairs and not _is_torn(problems):
            look.reasons.append("it holds no pair of .jpg and .json")

    def _compare_md5(
        self, look: _Look, expected: str, is_packed: bool, on_hashed: Callable[[int], None]
    ) -> None:
        if is_packed or (self.md5_of_any_form and self.checked_md5 != expected):
            look.md5 = True
            if problem := md5_problem(hash_file(self.path, on_hashed=on_hashed), expected):
                look.reasons.append(problem)
        elif self.checked_md5 == expected:
            look.md5 = True
            look.note = "plain: unpacked from the file with the right MD5"
        elif self.checked_md5 is not None:
            look.md5 = True
            look.reasons.append(
                f"it was unpacked from a file with the MD5 {self.checked_md5}, the table says"
                f" {expected}"
            )


def _is_torn(problems: Problems) -> bool:
    return any(isinstance(found, TornArchive) for found in problems.found)


@dataclass
class _Look:
    """What a look at a tar has shown so far, see `TarReport`."""

    form: Literal["gzip", "plain"] | None = None
    pairs: int | None = None
    md5: bool = False
    note: str | None = None
    reasons: list[str] = field(default_factory=list)


def _read_all(archive: TarArchive, problems: Problems, on_inflated: Callable[[int], None]) -> int:
    """Reads every pair; returns their number."""
    number = 0
    for pair in archive.pairs(problems, on_inflated):
        number += 1
        try:
            check_pair(pair)
        except ValueError as error:
            problems.report(archive.name, member_of(pair, error), str(error))
    return number
