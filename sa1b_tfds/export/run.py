"""An export as a function: what is asked for -> pieces -> processes -> one whole folder.

Everything is written in `<output>.incomplete`, which becomes `<output>` when all of it is there.
Whatever ends a run, the same one again does what is missing, and the bytes are the same.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
from absl import logging
from etils import epath

from sa1b_tfds.core import files, own_json
from sa1b_tfds.core.problems import BadInput, OnError, Problems, check_on_error
from sa1b_tfds.core.processes import check_workers, worker_count
from sa1b_tfds.core.running.pool import ProcessPool, first_failure
from sa1b_tfds.core.running.progress import reporter_for_people
from sa1b_tfds.examples.image_ids import repeated
from sa1b_tfds.examples.parts import ArchivePart, Part, find_parts
from sa1b_tfds.export.format import PIECES, Finished, Format
from sa1b_tfds.export.pieces import Piece
from sa1b_tfds.tars.archive import number_of
from sa1b_tfds.tars.names import tar_stem

REPORT = "export_report.json"
_JOINING = "joining.json"

Engine = Callable[[Sequence[Piece]], Mapping[str, Exception]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, and where.

    source, config: as for `parts.find_parts`: a tar, a folder of tars or of extracted files,
      or prepared data.
    output: a folder that is not there yet.
    format: Coco(), Yolo(), WebDataset() or SA1BTars().
    tars: the numbers in the names of the tars to take; None takes all.
    max_images: take the first ones; those that are skipped are not made up for. None takes all.
    workers: processes; None is one a core.
    on_error: 'raise' stops at what cannot be read; 'skip' leaves it out and lists it.
    """

    source: epath.PathLike
    output: epath.PathLike
    format: Format
    config: str | None = None
    tars: Collection[int] | None = None
    max_images: int | None = None
    workers: int | None = None
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"max_images must be positive, got {self.max_images}.")
        check_workers(self.workers)
        check_on_error(self.on_error)
        if not files.is_local(self.output):
            raise ValueError(f"output must be a local folder, got {self.output}.")
        if os.path.ismount(self.output):
            raise ValueError(
                f"{self.output} is a mount point, which cannot appear at once: name a folder in it."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """What lies in `output`.

    counts: 'images', 'masks' and what the format counts besides.
    skipped: what could not be read.
    was_there: it was whole before, and nothing was done.
    """

    output: Path
    counts: Mapping[str, int]
    skipped: Sequence[BadInput]
    was_there: bool = False


def export(config: ExportConfig) -> Exported:
    """Exports, or goes on where an earlier run ended.

    Raises:
      FileExistsError: if `output` holds something else.
      BadInput: what is wrong in the source, if on_error is 'raise'; the other pieces are kept.
      OSError: if the source cannot be read or the output cannot be written.
    """
    output = Path(config.output).absolute()
    root = output.with_name(f"{output.name}.incomplete")
    pieces = _plan(config, root)
    job = [piece.job() for piece in pieces]
    if (done := _exported(output, job, was_there=True)) is not None:
        return done
    with files.locked(epath.Path(root)):
        joined = _job_in(root / REPORT) or _job_in(root / _JOINING)
        if joined not in (None, job):  # its pieces were moved, and cannot be told apart any more
            _start_over(root)
        if _job_in(root / REPORT) != job:
            unit = "parts" if all(p.span.start == 0 for p in pieces) else "shards"
            workers = worker_count(config.workers)
            engine = ProcessPool(num_workers=workers, reporter=reporter_for_people(unit))
            finished = convert(pieces, engine)
            files.write_whole(epath.Path(root / _JOINING), own_json.dumps({"job": job}))
            config.format.join(root, finished)
            for path in root.iterdir():
                files.sync(path)
            files.write_whole(epath.Path(root / REPORT), _report(job, finished))
        shutil.rmtree(root / PIECES, ignore_errors=True)
        (root / _JOINING).unlink(missing_ok=True)
        root.replace(output)
        files.sync(output.parent)
    exported = _exported(output, job)
    if exported is None:
        raise OSError(f"{output} was changed while it was finished: run the same again.")
    return exported


def convert(pieces: Sequence[Piece], engine: Engine) -> list[Finished]:
    """Has all pieces written that are not finished yet, and again those with repeated images."""
    while True:
        there = {piece.label: piece.finished() for piece in pieces}
        done = {label: finished for label, finished in there.items() if finished is not None}
        again = repeated({label: np.array(f.image_ids, np.int64) for label, f in done.items()})
        pieces = [dataclasses.replace(p, excluded=again.get(p.label, ())) for p in pieces]
        missing = [
            piece
            for piece in pieces
            if piece.label not in done or done[piece.label].fingerprint != piece.fingerprint()
        ]
        if not missing:
            return list(done.values())
        if failures := engine(missing):
            raise first_failure(failures, missing)


def _plan(config: ExportConfig, root: Path) -> list[Piece]:
    parts = find_parts(config.source, config.config)
    if config.tars is not None:
        parts = [part for part in parts if _number(part) in config.tars]
        if not parts:
            raise FileNotFoundError(f"{config.source} holds none of the tars that were asked for.")
    config.format.check(parts)
    labels = _labels(parts)
    pieces: list[Piece] = []
    remaining = config.max_images
    for part, label in zip(parts, labels, strict=True):
        limit = None
        if remaining is not None:
            if remaining == 0:
                break
            limit = min(remaining, part.count())
            remaining -= limit
        spans = config.format.cut(part, limit, Problems(config.on_error))
        pieces += [
            Piece(
                root=root,
                label=label if len(spans) == 1 else f"{label}-{number:05d}",
                part=part,
                span=span,
                format=config.format,
                on_error=config.on_error,
            )
            for number, span in enumerate(spans)
        ]
    return pieces


def _number(part: Part) -> int | None:
    if not isinstance(part, ArchivePart):
        raise ValueError("Prepared data does not lie in tars: leave out the choice of tars.")
    return number_of(part.archive)


def _labels(parts: Sequence[Part]) -> list[str]:
    """A name for each part: its file's, if no other has it; never a path, and never hidden."""
    names = [tar_stem(part.name).strip(".") for part in parts]
    often = Counter(name.rpartition("/")[2] for name in names)
    labels: list[str] = []
    for name in names:
        base = name.rpartition("/")[2]
        label = quote(base if often[base] == 1 else name, safe="") or "files"
        while label in labels:  # loose files beside a folder `files`, or `a` beside `a.`
            label += "_"
        labels.append(label)
    return labels


def _job_in(path: Path) -> Any:
    """What a report says it was made of and how; None if it is not there, False if damaged."""
    if not path.exists():
        return None
    try:
        return own_json.loads(path.read_bytes(), lambda content: content["job"])
    except own_json.Damaged:
        return False


def _exported(output: Path, job: list[Any], was_there: bool = False) -> Exported | None:
    """What lies in `output`; None if it is not there or empty."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / REPORT).exists():
        raise FileExistsError(f"{output} holds something else: name a folder that is not there.")
    advice = f"remove {output} and export again, or name another folder"
    made_of, exported = own_json.read(
        output / REPORT,
        lambda report: (
            report["job"],
            Exported(
                output=output,
                counts=dict(report["counts"]),
                skipped=[BadInput(**problem) for problem in report["skipped"]],
                was_there=was_there,
            ),
        ),
        advice,
    )
    if made_of != job:
        raise FileExistsError(
            f"{output} holds an export of another source or with other options, which {REPORT} in"
            " it names: remove it, or name another folder."
        )
    return exported


def _start_over(root: Path) -> None:
    logging.warning("%s was of another source or other options: it starts anew.", root)
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _report(job: list[Any], finished: Sequence[Finished]) -> bytes:
    counts: Counter[str] = Counter()
    for piece in finished:
        counts.update(piece.counts)
    content = {
        "counts": counts,
        "skipped": [problem.as_dict() for piece in finished for problem in piece.problems],
        "job": job,
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"
