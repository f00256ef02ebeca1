"""The record of the files in a folder that passed their check, and what they were unpacked from."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from sa1b_tfds.core import files
from sa1b_tfds.download.transfer.folder import draft_of, write_json

RECORD_NAME = ".sa1b.json"


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
                self._entries = {k: v for k, v in entries.items() if _is_sound(v)}

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
        # On a full disk nothing is recorded: the file is whole, and is read once more later.
        with self._lock, suppress(files.DiskFull):
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
        files.give_name(draft, final)

    def _is(self, name: str, stamp: Any) -> bool:
        """Whether the file there has the size and time of change that stand in `stamp`."""
        if not isinstance(stamp, dict) or not (self._folder / name).exists():
            return False
        now = _stamp(self._folder / name)
        return now == {key: stamp.get(key) for key in now}

    def _write(self) -> None:
        write_json(self._folder / RECORD_NAME, self._entries)


def _is_sound(entry: Any) -> bool:
    """Whether it has the form of an entry. A file with a damaged one is checked anew."""
    return isinstance(entry, dict) and all(
        isinstance(entry.get(key), int) for key in ("size", "mtime_ns")
    )


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
