"""A tar that can only be read forward -> pairs, in one pass and without storing it.

The two files of an image lie anywhere in a tar of SA-1B. The first to come waits for the other: up
to half of all images wait in the middle of a tar, which is a quarter of its bytes. They wait in
memory up to `IN_MEMORY`, then in a temporary file.
"""

from __future__ import annotations

from collections.abc import Iterator

from sa1b_tfds.problems import Problems
from sa1b_tfds.tars.archive import (
    SEEN_BEFORE,
    Pair,
    report_missing,
    stem_and_suffix,
    warn_of_others,
)
from sa1b_tfds.tars.members import ForwardFile, members, report_torn
from sa1b_tfds.tars.spill import Spill, Stored

IN_MEMORY = 64 * 2**20
_OTHER = {".jpg": ".json", ".json": ".jpg"}


def stream_pairs(
    archive: str, file: ForwardFile, length: int | None, problems: Problems, spill: Spill
) -> Iterator[Pair]:
    """Yields the pairs of a tar as they become whole, and reports what `TarArchive.pairs` reports.

    Args:
      archive: the tar's name, for what is reported.
      file: at its start.
      length: in bytes, None if unknown.
      problems: takes what is no pair, torn or unsafe.
      spill: keeps what came first of each pair.
    """
    waiting: dict[str, tuple[str, str, Stored]] = {}
    seen: set[tuple[str, str]] = set()
    others = []
    for member in members(archive, file, length, problems):
        stem, suffix = stem_and_suffix(member.name)
        if not suffix:
            others.append(member.name)
            continue
        if (stem, suffix) in seen:
            problems.report(archive, member.name, SEEN_BEFORE)
            continue
        seen.add((stem, suffix))
        file.seek(member.offset)
        data = file.read(member.size)
        if len(data) < member.size:
            why = f"it claims {member.size} bytes, {len(data)} are there"
            report_torn(archive, member.name, why, problems)
            break
        if stem not in waiting:
            waiting[stem] = member.name, suffix, spill.put(data)
            continue
        name, _, stored = waiting.pop(stem)
        first = spill.take(stored)
        if suffix == ".jpg":
            yield Pair(data, first, member.name, name)
        else:
            yield Pair(first, data, name, member.name)
    warn_of_others(archive, others)
    for name, suffix, _ in waiting.values():
        report_missing(archive, name, _OTHER[suffix], problems)
