"""What a download keeps in its folder: a lock, partial files with their sidecars, and the record
of files that passed their check. Every small file here is replaced atomically; nothing but the
name chosen by us is ever a path. No network.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from sa1b_tfds.core import files
from sa1b_tfds.core.text import printable

LOCK_NAME = ".sa1b.lock"
_UNPACKED = ".unpacked.part"
RECORD_NAME = ".sa1b.json"
# Synced while it comes, for two reasons: a power cut costs no more than this a file, and the last
# fsync is short, which no signal can interrupt.
_SYNC_BYTES = 1 << 24

_sync_data = getattr(os, "fdatasync", os.fsync)


class DiskFull(OSError):
    """The disk or the quota is used up. All bytes so far are kept."""


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turns ENOSPC and EDQUOT into `DiskFull`, which ends the whole run and not one file."""
    try:
        yield
    except OSError as error:
        if error.errno not in files.DISK_FULL:
            raise
        raise DiskFull(error.errno, f"{os.strerror(error.errno)} while writing {path}") from None


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Replaces `path` by `content` as JSON: a reader finds the old file or the new, never half."""
    draft = path.with_name(path.name + ".tmp")  # one name: a kill leaves one behind, not many
    try:
        with full_disk_named(path):
            with open(draft, "wb") as file:
                file.write(json.dumps(content, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
            files.sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def lock_folder(folder: Path, what: str = "a download") -> Iterator[None]:
    """Holds the folder for this process. The kernel lets go of it however the process ends.

    what: who holds it, for those who find it held.

    Raises:
      FolderInUse: another process holds it.
    """
    handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = printable(os.pread(handle, 200, 0).decode("utf-8", "replace"))
            raise files.FolderInUse(
                f"{folder} is in use by another download or unpack ({holder or 'holder unknown'}). "
                "Wait for it or stop it, then run the same command again."
            ) from None
        except OSError as error:
            raise OSError(
                error.errno,
                f"{folder} is on a file system without file locks ({error.strerror}), so two "
                "downloads could not be kept apart. Mount it with them (Lustre: -o flock) or "
                "download to another one",
            ) from None
        # The lock file stays: removing it would let two processes lock two files of one name.
        with suppress(OSError):  # who holds it is a courtesy that a full disk may refuse
            os.ftruncate(handle, 0)
            holder = f"{what}, process {os.getpid()} on {socket.gethostname()}\n"
            os.pwrite(handle, holder.encode(), 0)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a partial file is a part of: enough to know the same file behind another link."""

    name: str
    size: int | None
    etag: str | None
    last_modified: str | None
    host: str | None = None

    @classmethod
    def of(
        cls, name: str, host: str, header: Callable[[str], str | None], size: int | None
    ) -> Source:
        """What an answer's headers say of the whole file, whose size they say elsewhere.

        host: of the link. An ETag says nothing of what another host has.
        """
        etag, modified = header("ETag"), header("Last-Modified")
        return cls(name=name, size=size, etag=etag, last_modified=modified, host=host)

    @property
    def is_strong(self) -> bool:
        """Whether its ETag changes with any byte. No ETag, a weak one or a time do not."""
        return self.etag is not None and re.fullmatch(r'"[^"]+"', self.etag) is not None

    def has_other_size(self, other: Source) -> bool:
        return None not in (self.size, other.size) and self.size != other.size

    def is_surely(self, other: Source) -> bool:
        """Whether it is the same file, so that bytes of both may be joined."""
        same = self.is_strong and (self.host, self.etag) == (other.host, other.etag)
        return same and not self.has_other_size(other)

    def may_be(self, other: Source) -> bool:
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

    The sidecar is on disk before the first byte, so a partial with a sidecar can be trusted
    whenever the process died, and its length is what has been written.
    """

    def __init__(self, folder: Path, name: str):
        self.final = folder / name
        self.draft = draft_of(self.final)
        self.path = folder / f"{name}.part"
        self._sidecar = folder / f"{name}.part.json"
        self.source = self._read_sidecar()
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

    def begin(self, source: Source) -> None:
        """Starts from zero; bytes of another file, if any, are given up."""
        self.discard()
        write_atomically(self._sidecar, asdict(source))
        self.source = source

    def learn_size(self, size: int) -> None:
        if self.source is not None:
            self.source = replace(self.source, size=size)
            write_atomically(self._sidecar, asdict(self.source))

    def open(self) -> int:
        """A descriptor to `append` to, without a buffer of ours: what was read is on disk."""
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def append(self, handle: int, chunk: bytes) -> None:
        with full_disk_named(self.path):
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
        self._sidecar.unlink(missing_ok=True)
        self.offset, self.source, self.distrusted = 0, None, 0

    def sync(self) -> None:
        with full_disk_named(self.path):
            files.sync(self.path)

    def finish(self) -> None:
        """Gives the synced and checked file its name."""
        os.replace(self.path, self.final)
        files.sync(self.final.parent)
        self._sidecar.unlink(missing_ok=True)

    def finish_unpacked(self, checked: CheckedFiles, checked_by: str, md5: str | None) -> None:
        """Gives the plain tar, which is in `draft`, the name, and removes the compressed one."""
        checked.put_unpacked(self.final, self.path, checked_by, md5)
        self.discard()

    def _read_sidecar(self) -> Source | None:
        try:
            source = Source(**orjson.loads(self._sidecar.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        texts = (source.etag, source.last_modified, source.host)
        sound = (
            self.final.name == source.name
            and (source.size is None or (isinstance(source.size, int) and source.size >= 0))
            and all(text is None or isinstance(text, str) for text in texts)
        )
        return source if sound else None


def remove_strays(folder: Path, name: str) -> None:
    """Clears what a process leaves that dies between giving a file its name and tidying up."""
    for suffix in (_UNPACKED, ".part", ".part.json"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def draft_of(plain: Path) -> Path:
    """Where a plain tar is written before it gets its name."""
    return plain.with_name(plain.name + _UNPACKED)


def remove_drafts(folder: Path) -> None:
    """Removes those that a process left behind which was killed; hold the folder's lock."""
    for draft in folder.glob(f"*{_UNPACKED}"):
        draft.unlink()


class CheckedFiles:
    """The record of files that passed a check here, so that a rerun does not read 10 TB again.

    A file counts as the one that was checked while its size and modification time are the same. A
    plain tar that was unpacked from it counts as well: it is recorded before it takes its place, so
    that the record is right whenever a process dies. Several threads may use it.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lock = threading.Lock()
        self._entries: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError):
            entries = orjson.loads((folder / RECORD_NAME).read_bytes())
            if isinstance(entries, dict):
                self._entries = {k: v for k, v in entries.items() if isinstance(v, dict)}

    def checked_by(self, name: str) -> str | None:
        """'md5' or 'size' if what is now there under `name` passed that check, else None."""
        entry = self._entries.get(name, {})
        is_it = self._is(name, entry) or self._is(name, entry.get("unpacked"))
        return entry.get("checked_by") if is_it else None

    def md5(self, name: str) -> str | None:
        """The MD5 of the file now there under `name`, or of the one that it was unpacked from."""
        md5 = self._entries.get(name, {}).get("md5")
        known = isinstance(md5, str) and self.checked_by(name) == "md5"
        return md5 if known else None

    def remember(self, name: str, checked_by: str, md5: str | None = None) -> None:
        """Keeps what a file passed; `md5` is what it was found to have, if that was looked at."""
        if self.checked_by(name) == checked_by or self.unpacked_from(name):
            return  # what is known of the packed file stays
        with self._lock, suppress(DiskFull):  # the file is whole: at worst it is read once more
            self._entries[name] = {
                **_stamp(self._folder / name),
                "checked_by": checked_by,
                "md5": md5,
            }
            self._write()

    def unpacked_from(self, name: str) -> dict[str, int] | None:
        """The identity of the packed file from which the one under `name` was unpacked, if so."""
        entry = self._entries.get(name, {})
        if not self._is(name, entry.get("unpacked")):
            return None
        return {"bytes": entry["size"], "modified": entry["mtime_ns"] // 10**9}

    def put_unpacked(self, final: Path, packed: Path, checked_by: str, md5: str | None) -> None:
        """Records that the draft of `final` was unpacked from `packed`, and gives it its name.

        checked_by, md5: what the packed file has passed, see `remember`.
        """
        draft = draft_of(final)
        with self._lock:
            self._entries[final.name] = {
                **_stamp(packed),
                "checked_by": checked_by,
                "md5": md5,
                "unpacked": _stamp(draft),
            }
            self._write()
        os.replace(draft, final)
        files.sync(final.parent)

    def _is(self, name: str, stamp: Any) -> bool:
        """Whether the file there has the size and time of change that stand in `stamp`."""
        if not isinstance(stamp, dict) or not (self._folder / name).exists():
            return False
        now = _stamp(self._folder / name)
        return now == {key: stamp.get(key) for key in now}

    def _write(self) -> None:
        write_atomically(self._folder / RECORD_NAME, self._entries)


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
