"""The folder of a download: its lock, small files that are replaced whole, and what to tidy up.

`partial.py` has the files on their way, `checked_files.py` those that passed their check.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sa1b_tfds.core import files
from sa1b_tfds.core.text import printable

LOCK_NAME = ".sa1b.lock"
_UNPACKED = ".unpacked.part"


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
