"""The members of an archive -> (jpeg, json) pairs, wherever the two files of an image are."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import NamedTuple

from absl import logging

from sa1b_tfds.core.problems import Problems
from sa1b_tfds.core.text import counted
from sa1b_tfds.tars.members import MAX_BYTES, Member, suffix_of

_SEEN_BEFORE = "a file of that name was there before"
_OTHER = {".jpg": ".json", ".json": ".jpg"}


class Pair(NamedTuple):
    """The bytes of an image's two files, and their names in the archive."""

    jpeg: bytes
    json: bytes
    jpeg_name: str
    json_name: str


class Entry(NamedTuple):
    """The places of an image's two files."""

    jpeg: Member
    json: Member

    @property
    def size(self) -> int:
        """The bytes of both files in a tar, with headers and padding."""
        return sum(
            tarfile.BLOCKSIZE + -(-m.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for m in self
        )


class Pairing:
    """Finds the pairs among the files of an archive, which are added in their order.

    Reports repeated files, and at the end the files whose other half is missing.
    """

    def __init__(self, archive: str, problems: Problems):
        self._archive = archive
        self._problems = problems
        self._waiting: dict[str, Member] = {}
        self._seen: set[tuple[str, str]] = set()
        self._others: list[str] = []

    def accepts(self, member: Member) -> bool:
        """Whether this is a file of SA-1B and the first of its name; reports a repeated one."""
        stem, suffix = _stem_and_suffix(member.name)
        if not suffix:
            self._others.append(member.name)
        elif (stem, suffix) in self._seen:
            self._problems.report(self._archive, member.name, _SEEN_BEFORE)
        else:
            self._seen.add((stem, suffix))
            return True
        return False

    def add(self, member: Member) -> Entry | None:
        """Adds an accepted member; returns the pair that it completes, or None."""
        stem, suffix = _stem_and_suffix(member.name)
        if (first := self._waiting.pop(stem, None)) is None:
            self._waiting[stem] = member
            return None
        return Entry(member, first) if suffix == ".jpg" else Entry(first, member)

    def end(self) -> None:
        """Reports the files without their other half. Call it after the last file."""
        if self._others:
            logging.warning(
                "%s: %s not of SA-1B: %.200s",
                self._archive,
                counted(len(self._others), "file"),
                self._others,
            )
        kinds = {suffix for _, suffix in self._seen}
        # A tar without any JSON is one report, not eleven thousand.
        if len(kinds) == 1 and len(self._seen) > 1:
            kind = kinds.pop()
            self._problems.report(
                self._archive,
                "",
                f"it holds {len(self._seen)} {kind} and not one {_OTHER[kind]}, so it is not"
                " SA-1B's: other datasets use the same file names",
            )
            return
        for member in self._waiting.values():
            other = _OTHER[suffix_of(member.name)]
            self._problems.report(self._archive, member.name, f"its {other} is missing")


def pair_up(archive: str, members: Iterable[Member], problems: Problems) -> list[Entry]:
    """Returns the pairs of an archive, ordered by where each pair's second file is."""
    pairing = Pairing(archive, problems)
    pairs = [pairing.add(member) for member in members if pairing.accepts(member)]
    pairing.end()
    return [pair for pair in pairs if pair is not None]


def _stem_and_suffix(name: str) -> tuple[str, str]:
    """('sa_1', '.jpg') for './sa_1.jpg'; the suffix is empty for a file that is not SA-1B's."""
    base, suffix = name.rpartition("/")[2], suffix_of(name)
    if suffix not in MAX_BYTES or not base.startswith("sa_"):
        return base, ""
    return base.removesuffix(suffix), suffix
