"""One piece of an export: some images of one part -> their files, all of them or none.

The files depend only on the source and on the format's settings, not on workers or on earlier runs
that were interrupted. A finished piece is a folder with `piece.json` in it. Until then the folder
is `<label>.part`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from sa1b_tfds.core import files, own_json
from sa1b_tfds.core.problems import BadInput, OnError, Problems
from sa1b_tfds.core.running.workers import OnProgress
from sa1b_tfds.examples import image_ids
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.image_ids import Excluded, ImageIds
from sa1b_tfds.examples.parts import ArchivePart, Part, example_of
from sa1b_tfds.export.format import PIECES, Finished, Format, Item, Span, entries_by_name

# Increase it when the same settings give other bytes: pieces of an older version are written again.
_LAYOUT = 2
_PIECE = "piece.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A task for a worker.

    root: the folder of the export, with all its pieces.
    label: the piece's name.
    part, span: which images it has.
    format: how they are written.
    on_error: 'raise' or 'skip', for images that cannot be read.
    excluded: (image id, piece) of each image that an earlier piece has already.
    choice: which images of the span to take.
    """

    root: Path
    label: str
    part: Part
    span: Span
    format: Format
    on_error: OnError = "raise"
    excluded: Excluded = ()
    choice: ImageChoice = dataclasses.field(default_factory=ImageChoice)

    @property
    def name(self) -> str:
        return self.label

    @property
    def folder(self) -> epath.Path:
        return epath.Path(self.root)

    def source_bytes(self) -> int:
        return self.span.bytes

    def expected_bytes(self) -> int:
        return self.source_bytes()

    def written(self, read: int) -> int:
        return self.format.written(read)

    def scratch_bytes(self) -> int:
        return 0

    def job(self) -> dict[str, Any]:
        """Describes the piece's source and settings."""
        return {
            "part": self.part.name,
            "source": self.part.identity(),
            "span": list(self.span[:2]),
            "layout": _LAYOUT,
            **self.choice.settings(),
            **self.format.settings(),
        }

    def fingerprint(self) -> dict[str, Any]:
        """Describes all that its files depend on; `piece.json` holds it."""
        return {**self.job(), "excluded": image_ids.fingerprint(self.excluded)}

    def finished(self) -> Finished | None:
        """Returns what an earlier run wrote; None if this would write something else.

        Excluded images are not compared: the ids of an outdated piece are still right.
        """
        try:
            finished = own_json.loads((self._done / _PIECE).read_bytes(), self._of_fields)
        except (OSError, own_json.DamagedJson):
            return None
        is_same = {**finished.fingerprint, "excluded": None} == {**self.job(), "excluded": None}
        return finished if is_same and (self.on_error == "skip" or not finished.problems) else None

    def _of_fields(self, fields: dict[str, Any]) -> Finished:
        return Finished(
            label=self.label,
            fingerprint=dict(fields["fingerprint"]),
            image_ids=list(map(int, fields["image_ids"])),
            counts=dict(fields["counts"]),
            problems=[BadInput(**problem) for problem in fields["problems"]],
        )

    def run(self, on_progress: OnProgress) -> None:
        """Writes the piece.

        Raises:
          BadInput: if an image cannot be read and on_error is 'raise'.
          OSError: if the source cannot be read or the piece cannot be written.
        """
        with files.full_disk_named(f"in {self.root}, while writing {self.label}"):
            self._write(on_progress)

    def _write(self, on_progress: OnProgress) -> None:
        fingerprint = self.fingerprint()
        problems = Problems(self.on_error)
        draft = self._done.with_name(f"{self.label}.part")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            draft.mkdir(parents=True)
            images = _Items(self, problems, on_progress)
            counts = self.format.write(iter(images), draft, self.label)
            if self.fingerprint() != fingerprint:
                raise OSError(
                    f"{self.part.name} changed while it was read: run the same command again."
                )
            content = {
                "fingerprint": fingerprint,
                "image_ids": [*images.ids, *(image_id for image_id, _ in self.excluded)],
                "counts": {"images": len(images.ids), "masks": images.masks, **counts},
                "problems": [problem.as_dict() for problem in problems.found],
            }
            (draft / _PIECE).write_bytes(own_json.dumps(content))
            _sync_all(draft)  # before the rename, so that a crash leaves no empty files behind it
            shutil.rmtree(self._done, ignore_errors=True)
            files.give_name(draft, self._done)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @property
    def _done(self) -> Path:
        return self.root / PIECES / self.label


class _Items:
    """Reads a piece's images, by name or as they are prepared, and skips excluded ones."""

    def __init__(self, piece: Piece, problems: Problems, on_progress: OnProgress):
        self.ids: list[int] = []
        self.masks = 0
        self._piece = piece
        self._problems = problems
        self._on_progress = on_progress
        self._read = 0
        self._seen = ImageIds(piece.excluded)

    def __iter__(self) -> Iterator[Item]:
        piece = self._piece
        for where, item in self._items():
            image_id = item.example.image_id
            if not piece.choice.takes(image_id):
                continue
            if earlier := self._seen.add(image_id, piece.label):
                reason = f"image id {image_id} was in {earlier} before"
                self._problems.report(piece.part.name, where, reason)
                continue
            yield item
            self.ids.append(image_id)
            self.masks += len(item.example.masks.counts)
            self._on_progress(len(self.ids), min(self._read, piece.span.bytes))

    def _items(self) -> Iterator[tuple[str, Item]]:
        part, (start, stop, _) = self._piece.part, self._piece.span
        if not isinstance(part, ArchivePart):
            for example in itertools.islice(part.examples(self._problems), start, stop):
                self._read += len(example.image) + sum(map(len, example.masks.counts))
                yield example.file_name, Item(example, None)
            return
        # Problems of the archive as a whole are reported once, by its first piece.
        problems = self._problems if start == 0 else Problems("skip")
        entries = entries_by_name(part, self._piece.choice, problems)[start:stop]
        for pair in part.archive.read(entries, self._problems):
            self._read += len(pair.jpeg) + len(pair.json)
            if (found := example_of(part.name, pair, self._problems)) is not None:
                yield pair.json_name, Item(found, pair)


def _sync_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                files.sync(path)
        files.sync(parent)
