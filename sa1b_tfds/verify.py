"""A folder of tars: which are whole, torn, wrong, missing or not finished. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sa1b_tfds.annotations import to_example
from sa1b_tfds.check import md5_problem
from sa1b_tfds.checksums import hash_file
from sa1b_tfds.links import first_of_range, missing_of_range
from sa1b_tfds.problems import Problems, TornArchive
from sa1b_tfds.processes import ProcessDied, Processes, worker_count
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.tars.names import is_tar_name, tar_number
from sa1b_tfds.tars.pairs import Entry

_MAX_REASONS = 20


@dataclass(frozen=True, kw_only=True)
class TarReport:
    """What one tar is.

    Attributes:
      name: of the tar.
      status: 'whole'; 'torn' (it ends too early, or is no tar); 'wrong' (another MD5, no pairs,
        something in it that is not as it should be, or it cannot be read); 'unfinished' (a partial
        download); 'missing'.
      pairs: of an image and its annotations.
      md5: whether its MD5 was compared with a known one.
      reasons: why it is not whole, the first few.
    """

    name: str
    status: Literal["whole", "torn", "wrong", "unfinished", "missing"]
    pairs: int = 0
    md5: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Task:
    path: Path
    expected_md5: str | None
    deep: bool


def verify_folder(
    folder: str | Path,
    *,
    start: int | None = None,
    end: int | None = None,
    md5: Mapping[str, str] | None = None,
    deep: bool = False,
    workers: int | None = None,
) -> Iterator[TarReport]:
    """Looks at every tar in a folder, or at those of a range; yields reports as they are ready.

    Args:
      folder: where the tars are.
      start: first number of a range, 0 where only `end` is given.
      end: the number after the last one; with it, every number of the range has to be there.
      md5: MD5 by name, to compare with. None compares nothing, and reads headers only.
      deep: read every pair: JSON, masks, and the JPEG up to its end.
      workers: processes, by default one a core.

    Raises:
      NotADirectoryError: there is no such folder.
      ValueError: a range that holds nothing, or workers below 1.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: verify takes the folder of the tars.")
    first = first_of_range(start, end)
    workers = worker_count(workers)

    def asked_for(name: str) -> bool:
        number = tar_number(name)
        if start is None and end is None:
            return is_tar_name(name)
        return number is not None and first <= number and (end is None or number < end)

    names = sorted(path.name for path in folder.iterdir() if asked_for(path.name))
    partial = {path.name.removesuffix(".part") for path in folder.glob("*.part")}
    unfinished = sorted(name for name in partial - set(names) if asked_for(name))
    tasks = [_Task(folder / name, (md5 or {}).get(name), deep) for name in names]
    missing = missing_of_range(first, end, [*names, *unfinished])
    return _reports(tasks, unfinished, missing, workers)


def _reports(
    tasks: list[_Task], unfinished: list[str], missing: list[str], workers: int
) -> Iterator[TarReport]:
    for name in unfinished:
        reason = "a download that was not finished: run it again"
        yield TarReport(name=name, status="unfinished", reasons=(reason,))
    for name in missing:
        yield TarReport(name=name, status="missing", reasons=("not in the folder",))
    size = min(workers, len(tasks))
    if size <= 1:
        yield from map(verify_tar, tasks)
        return
    with Processes(size) as processes:
        name_of = {processes.submit(verify_tar, task): task.path.name for task in tasks}
        for future in as_completed(name_of):
            try:
                yield future.result()
            except ProcessDied as error:
                reason = f"it was not looked at to its end: {error}"
                yield TarReport(name=name_of[future], status="wrong", reasons=(reason,))


def verify_tar(task: _Task) -> TarReport:
    """Looks at one tar; what is wrong with it, its file system included, is in the report."""
    name = task.path.name
    problems = Problems(on_error="skip")
    reasons = []
    pairs = 0
    try:
        if task.expected_md5 is not None:
            reasons += [md5_problem(hash_file(task.path), task.expected_md5)]
        archive = TarArchive(task.path)
        entries = archive.index(problems)
        pairs = len(entries)
        if task.deep:
            _read_all(archive, entries, problems)
        if not pairs:
            reasons.append("it holds no pair of .jpg and .json")
    except OSError as error:
        reasons.append(str(error))
    torn = any(isinstance(found, TornArchive) for found in problems.found)
    reasons += [": ".join(part for part in (p.member, p.reason) if part) for p in problems.found]
    said = tuple(reason for reason in reasons if reason is not None)
    if len(said) > _MAX_REASONS:
        said = (*said[:_MAX_REASONS], f"and {len(said) - _MAX_REASONS} more")
    return TarReport(
        name=name,
        status="torn" if torn else "wrong" if said else "whole",
        pairs=pairs,
        md5=task.expected_md5 is not None,
        reasons=said,
    )


def _read_all(archive: TarArchive, entries: list[Entry], problems: Problems) -> None:
    for pair in archive.read(entries):
        try:
            to_example(pair.jpeg, pair.json)
        except ValueError as error:
            problems.report(archive.name, pair.json_name, str(error))
