"""`export`: a config -> pieces -> processes -> one whole folder.

Everything is written to `<output>.incomplete`, which is renamed to `<output>` when it is complete.
If a run is interrupted, the same run again does only what is missing. The bytes are the same.
"""

from __future__ import annotations

import dataclasses
import functools
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
from sa1b_tfds.core.lock import lock_folder
from sa1b_tfds.core.problems import BadInput, OnError, Problems, check_on_error
from sa1b_tfds.core.processes import check_workers, worker_count
from sa1b_tfds.core.progress import reporter_for_people
from sa1b_tfds.core.running.pool import ProcessPool, first_failure
from sa1b_tfds.examples.id_set import as_id_set
from sa1b_tfds.examples.image_choice import HoldoutPart, ImageChoice
from sa1b_tfds.examples.image_ids import repeated
from sa1b_tfds.examples.parts import ArchivePart, Part, find_parts
from sa1b_tfds.export.chosen_images import check_chosen, with_chosen
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

    Args:
      source: a tar, a folder of tars or of extracted files, or prepared data; see
        `examples.find_parts`.
      output: a folder that does not exist yet.
      format: Coco(), Yolo(), WebDataset() or SA1BTars().
      config: the config of prepared data, if `source` is TFDS's data_dir. Defaults to None.
      tars: the numbers in the names of the tars to export. Defaults to all.
      max_images: export only so many images, the first ones; skipped images count. Defaults to all.
      workers: the number of processes. Defaults to one per core.
      on_error: 'raise' stops at the first image that cannot be read; 'skip' leaves such images out
        and lists them. Defaults to 'raise'.
      ids: the images to export: a file of ids, or ids, each a number, a name such as 'sa_1.jpg' or
        a path (docs/subsets.md). Defaults to None: all images.
      missing_ids: 'raise' or 'skip', for ids that the source does not have. Defaults to 'raise'.
      holdout: the share of the images to hold out for validation. A hash of the image's id decides,
        as in `TrainingConfig`. Defaults to 0: none.
      holdout_part: 'train' exports the others, 'val' those that are held out. Defaults to 'train'.

    Raises:
      ValueError: if a field is invalid.
      FileNotFoundError: if ids is a file that is not there.
    """

    source: epath.PathLike
    output: epath.PathLike
    format: Format
    config: str | None = None
    tars: Collection[int] | None = None
    max_images: int | None = None
    workers: int | None = None
    on_error: OnError = "raise"
    ids: Any = None
    missing_ids: OnError = "raise"
    holdout: float = 0.0
    holdout_part: HoldoutPart = "train"

    def __post_init__(self) -> None:
        if self.max_images is not None and self.max_images < 1:
            raise ValueError(f"max_images must be positive, got {self.max_images}.")
        check_workers(self.workers)
        check_on_error(self.on_error)
        check_on_error(self.missing_ids, "missing_ids")
        if not self.choice.takes_all and self.max_images is not None:
            raise ValueError(
                "max_images cannot apply with ids or holdout: shorten the list of ids instead."
            )
        if not files.is_local(self.output):
            raise ValueError(f"output must be a local folder, got {self.output}.")
        if os.path.ismount(self.output):
            raise ValueError(
                f"{self.output} is a mount point, and no folder can be renamed to one: name a"
                " folder in it."
            )

    @functools.cached_property
    def choice(self) -> ImageChoice:
        """Which images to export."""
        return ImageChoice(
            ids=None if self.ids is None else as_id_set(self.ids),
            holdout=self.holdout,
            holdout_part=self.holdout_part,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A finished export.

    Attributes:
      output: the folder.
      counts: 'images', 'masks' and what else the format counts.
      skipped: what could not be read.
      missing_ids: the ids that were asked for and are not in the source.
      was_there: whether the export was complete before, so that nothing was done.
    """

    output: Path
    counts: Mapping[str, int]
    skipped: Sequence[BadInput]
    missing_ids: Sequence[int] = ()
    was_there: bool = False


def export(config: ExportConfig) -> Exported:
    """Exports images and masks. If an earlier run was interrupted, continues it.

    Args:
      config: what to export, and where.

    Returns:
      What is in the output.

    Raises:
      FileExistsError: if the output folder holds something else.
      BadInput: if an image cannot be read and on_error is 'raise'. Finished pieces are kept.
      MissingIds: if an id is not in the source and missing_ids is 'raise'. Pieces are kept.
      OSError: if the source cannot be read or the output cannot be written.
    """
    output = Path(config.output).absolute()
    root = output.with_name(f"{output.name}.incomplete")
    pieces = _plan(config, root)
    job = [piece.job() for piece in pieces]
    if (done := _exported(output, job, was_there=True)) is not None:
        return done
    with lock_folder(root):
        joined = _job_in(root / REPORT) or _job_in(root / _JOINING)
        # An interrupted join of another job has moved pieces, whose labels may mean others now.
        if joined not in (None, job):
            _start_over(root)
        if _job_in(root / REPORT) != job:
            unit = "part" if all(p.span.start == 0 for p in pieces) else "shard"
            workers = worker_count(config.workers)
            engine = ProcessPool(num_workers=workers, reporter=reporter_for_people(), unit=unit)
            finished = convert(pieces, engine) if pieces else []
            source = os.fspath(config.source)
            missing = check_chosen(finished, config.choice, source, config.missing_ids)
            files.write_whole(epath.Path(root / _JOINING), own_json.dumps({"job": job}))
            config.format.join(root, finished)
            for path in root.iterdir():
                files.sync(path)
            files.write_whole(epath.Path(root / REPORT), _report(job, finished, missing))
        shutil.rmtree(root / PIECES, ignore_errors=True)
        (root / _JOINING).unlink(missing_ok=True)
        files.give_name(root, output)
    exported = _exported(output, job)
    if exported is None:
        raise OSError(f"{output} was changed while it was finished: run the same command again.")
    return exported


def convert(pieces: Sequence[Piece], engine: Engine) -> list[Finished]:
    """Writes all pieces that are not finished, and then those with repeated images again."""
    while True:
        # Which images repeat is known only when their pieces are read: then the later pieces are
        # written again without them, until nothing changes.
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
            raise FileNotFoundError(f"{config.source} holds none of the requested tars.")
    config.format.check(parts)
    parts = with_chosen(parts, config.choice)
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
        spans = config.format.cut(part, limit, config.choice, Problems(config.on_error))
        pieces += [
            Piece(
                root=root,
                label=label if len(spans) == 1 else f"{label}-{number:05d}",
                part=part,
                span=span,
                format=config.format,
                on_error=config.on_error,
                choice=config.choice,
            )
            for number, span in enumerate(spans)
        ]
    return pieces


def _number(part: Part) -> int | None:
    if not isinstance(part, ArchivePart):
        raise ValueError("Prepared data is not in tars: leave out the choice of tars.")
    return number_of(part.archive)


def _labels(parts: Sequence[Part]) -> list[str]:
    """Makes a unique label for each part from its file's name; never a path or a hidden name."""
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
    """Returns the job that a report describes; None if it is not there, False if it is damaged."""
    if not path.exists():
        return None
    try:
        return own_json.loads(path.read_bytes(), lambda content: content["job"])
    except own_json.DamagedJson:
        return False


def _exported(output: Path, job: list[Any], was_there: bool = False) -> Exported | None:
    """Returns the export in `output`; None if the folder is not there or empty."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    if not (output / REPORT).exists():
        raise FileExistsError(f"{output} holds something else: name a folder that does not exist.")
    advice = f"remove {output} and export again, or name another folder"
    made_of, exported = own_json.read(
        output / REPORT,
        lambda report: (
            report["job"],
            Exported(
                output=output,
                counts=dict(report["counts"]),
                skipped=[BadInput(**problem) for problem in report["skipped"]],
                missing_ids=list(map(int, report.get("missing_ids", ()))),
                was_there=was_there,
            ),
        ),
        advice,
    )
    if made_of != job:
        raise FileExistsError(
            f"{output} holds {_difference(made_of, job)}; its {REPORT} lists what it was made of."
            " Name another folder, or remove this one."
        )
    return exported


def _difference(made_of: Any, job: list[Any]) -> str:
    """What an export is, of which the job is not this one."""
    was, now = (
        {str(piece.get("format")) for piece in pieces if isinstance(piece, dict)}
        for pieces in (made_of if isinstance(made_of, list) else [], job)
    )
    if len(was) == len(now) == 1 and was != now:
        return f"an export in the format {was.pop()}, and this command writes {now.pop()}"
    return "an export of another source or with other options"


def _start_over(root: Path) -> None:
    logging.warning("%s has another source or other options: starting again.", root)
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _report(job: list[Any], finished: Sequence[Finished], missing: np.ndarray) -> bytes:
    counts: Counter[str] = Counter()
    for piece in finished:
        counts.update(piece.counts)
    content = {
        "counts": counts,
        "skipped": [problem.as_dict() for piece in finished for problem in piece.problems],
        "missing_ids": missing.tolist(),
        "job": job,
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"
