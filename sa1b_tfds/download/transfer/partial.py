"""A file on its way into a folder: the bytes so far, and what they are a part of. No network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from sa1b_tfds.core import files
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.folder import draft_of, write_json
from sa1b_tfds.tars.names import PART, PART_STATE

# Synced while it comes, for two reasons: a power cut costs no more than this a file, and the last
# fsync is short, which no signal can interrupt.
_SYNC_BYTES = 1 << 24

_sync_data = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, kw_only=True)
class ServedFile:
    """What a partial file is a part of: enough to know the same file behind another link.

    problem: what is wrong with the partial, whose bytes are all there; None if it was not checked.
    """

    name: str
    size: int | None
    etag: str | None
    last_modified: str | None
    host: str | None = None
    problem: str | None = None

    @classmethod
    def of(
        cls, name: str, host: str, header: Callable[[str], str | None], size: int | None
    ) -> ServedFile:
        """What an answer's headers say of the whole file, whose size they say elsewhere.

        host: of the link. An ETag says nothing of what another host has.
        """
        etag, modified = header("ETag"), header("Last-Modified")
        return cls(name=name, size=size, etag=etag, last_modified=modified, host=host)

    @property
    def is_strong(self) -> bool:
        """Whether its ETag changes with any byte. No ETag, a weak one or a time do not."""
        return self.etag is not None and re.fullmatch(r'"[^"]+"', self.etag) is not None

    def has_other_size(self, other: ServedFile) -> bool:
        return None not in (self.size, other.size) and self.size != other.size

    def is_surely(self, other: ServedFile) -> bool:
        """Whether it is the same file, so that bytes of both may be joined."""
        same = self.is_strong and (self.host, self.etag) == (other.host, other.etag)
        return same and not self.has_other_size(other)

    def may_be(self, other: ServedFile) -> bool:
        """Whether nothing says that it is another file; what is joined then needs a check."""
        if self.has_other_size(other):
            return False
        if self.host != other.host or self.is_surely(other):
            return True
        return (self.etag, self.last_modified) == (other.etag, other.last_modified)

    def can_be_part(self, length: int) -> bool:
        """Whether a partial of `length` bytes may be one of this file."""
        return self.size is None or length <= self.size


class Partial:
    """A file on its way: `NAME.part`, and `NAME.part.json` that says what it is a part of.

    The state file is on disk before the first byte. So a partial with a state file can be trusted
    whenever the process died, and its length is what was written.
    """

    def __init__(self, folder: Path, name: str):
        self.final = folder / name
        self.draft = draft_of(self.final)
        self.path = folder / f"{name}{PART}"
        self._state_file = folder / f"{name}{PART_STATE}"
        self.source = self._read_state()
        self.offset = self.path.stat().st_size if self.path.exists() else 0
        self.distrusted = 0
        self._unsynced = 0
        if self.offset and not (self.source and self.source.can_be_part(self.offset)):
            # Not removed yet: nothing on disk changes before the server's first answer.
            self.distrusted, self.offset, self.source = self.offset, 0, None

    @property
    def size(self) -> int | None:
        return self.source.size if self.source else None

    @property
    def is_complete(self) -> bool:
        return self.offset == self.size and (self.offset > 0 or self.path.exists())

    def begin(self, source: ServedFile) -> None:
        """Starts from zero; bytes of another file, if any, are given up."""
        self.discard()
        write_json(self._state_file, asdict(source))
        self.source = source

    def learn_size(self, size: int) -> None:
        if self.source is not None:
            self.source = replace(self.source, size=size)
            write_json(self._state_file, asdict(self.source))

    def learn_problem(self, problem: str) -> None:
        """Keeps what is wrong with it, for `verify`."""
        if self.source is not None:
            self.source = replace(self.source, problem=problem)
            with suppress(files.DiskFull):  # the problem is reported, which matters more
                write_json(self._state_file, asdict(self.source))

    def open(self) -> int:
        """A descriptor to `append` to, without a buffer of ours: what was read is on disk."""
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, handle: int, chunk: bytes) -> None:
        with files.full_disk_named(f"while writing {self.path}"):
            view = memoryview(chunk)
            while view:
                written = os.write(handle, view)
                self.offset += written
                view = view[written:]
            self._unsynced += len(chunk)
            if self._unsynced >= _SYNC_BYTES:
                _sync_data(handle)
                self._unsynced = 0

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._state_file.unlink(missing_ok=True)
        self.offset, self.source, self.distrusted = 0, None, 0

    def sync(self) -> None:
        with files.full_disk_named(f"while writing {self.path}"):
            files.sync(self.path)

    def finish(self) -> None:
        """Gives the synced and checked file its name."""
        files.give_name(self.path, self.final)
        self._state_file.unlink(missing_ok=True)

    def finish_unpacked(self, checked: CheckedFiles, checked_by: str, md5: str | None) -> None:
        """Gives the plain tar, which is in `draft`, the name, and removes the compressed one."""
        checked.put_unpacked(self.final, self.path, checked_by, md5)
        self.discard()

    def _read_state(self) -> ServedFile | None:
        try:
            source = ServedFile(**orjson.loads(self._state_file.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        texts = (source.etag, source.last_modified, source.host, source.problem)
        sound = (
            self.final.name == source.name
            and (source.size is None or (isinstance(source.size, int) and source.size >= 0))
            and all(text is None or isinstance(text, str) for text in texts)
        )
        return source if sound else None
