"""A tar that is read forward only -> pairs, in one pass and without storing the tar.

The two files of an image may be anywhere in a tar of SA-1B, so the first one waits for the other.
In the middle of a tar half of all images wait, which is a quarter of its bytes. They wait in memory
up to `_IN_MEMORY` bytes, and beyond that in a temporary file.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.tars.members import ForwardFile, Member, members, report_damage, report_torn
from sa1b_tfds.tars.pairs import Pair, Pairing
from sa1b_tfds.tars.spill import Spill, Stored

_IN_MEMORY = 64 * 2**20


def stream_pairs(
    archive: str,
    file: ForwardFile,
    length: int | None,
    problems: Problems,
    in_memory: int = _IN_MEMORY,
) -> Iterator[Pair]:
    """Yields each pair of a tar when its second file is met, in the same order as `TarArchive`.

    Args:
      archive: the tar's name, for reports.
      file: a plain tar, at its start.
      length: its length in bytes; None if unknown.
      problems: receives single files, torn tars and unsafe members.
      in_memory: the bytes that may wait in memory. Defaults to 64 MiB.
    """
    pairing = Pairing(archive, problems)
    waiting: dict[Member, Stored] = {}
    with Spill(in_memory) as spill:
        for member in members(archive, file, length, problems):
            if not pairing.accepts(member):
                continue
            try:
                file.seek(member.offset)
                data = file.read(member.size)
            except tarfile.TarError as e:
                report_damage(archive, member.name, e, problems)
                break
            if len(data) < member.size:
                why = f"it claims {member.size} bytes, {len(data)} are there"
                report_torn(archive, member.name, why, problems)
                break
            if (pair := pairing.add(member)) is None:
                waiting[member] = spill.put(data)
                continue
            of = {member: data}
            of |= {m: spill.take(waiting.pop(m)) for m in pair if m != member}
            yield Pair(of[pair.jpeg], of[pair.json], pair.jpeg.name, pair.json.name)
        pairing.end()
