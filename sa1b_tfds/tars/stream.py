"""A tar that is read forward only -> pairs, in one pass and without storing it.

The two files of an image lie anywhere in a tar of SA-1B. The first to come waits for the other: up
to half of all images wait in the middle of a tar, which is a quarter of its bytes. They wait in
memory up to `_IN_MEMORY`, then in a temporary file.
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
    """Yields the pairs of a tar as they become whole: what `TarArchive` reads, in the same order.

    Args:
      archive: the tar's name, for what is reported.
      file: a plain tar, at its start.
      length: in bytes, None if unknown.
      problems: takes what is no pair, torn or unsafe.
      in_memory: bytes that wait in memory; more wait in a temporary file.
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
