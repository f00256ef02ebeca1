"""One process at a time in a folder. The kernel lets go of it however the process ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.text import printable

LOCK_NAME = ".sa1b.lock"


class FolderInUse(RuntimeError):
    """Another process works in the folder."""


@contextmanager
def lock_folder(
    folder: epath.PathLike, holder: str | None = None, *, shared: bool = False
) -> Iterator[None]:
    """Holds a folder for this process, and makes it if it is missing.

    Nothing is held in an object store, which has no locks, and nothing is made.

    Args:
      folder: where only one process may work.
      holder: what this process does, such as "sa1b unpack", for those who find the folder held. It
        is written to a lock file, which stays in the folder. By default the folder itself is
        locked, and nothing stays. All who lock the same folder have to do it in the same way.
      shared: whether other processes may hold the folder too, if they also share it.

    Raises:
      FolderInUse: if another process holds it.
      OSError: if the file system has no locks.
    """
    folder = epath.Path(folder)
    if not files.is_local(folder):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    if holder is None:
        handle = os.open(folder, os.O_RDONLY)
    else:
        # The file is never removed: otherwise two processes could lock two files of that name.
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            other = "" if holder is None else f" ({_holder(handle)})"
            raise FolderInUse(
                f"Another process works in {folder}{other}. Wait for it or stop it, then run the"
                " same again: it goes on where the other ended."
            ) from None
        except OSError as e:
            raise OSError(
                e.errno,
                f"{folder} is on a file system without file locks ({e.strerror}), so two processes"
                " could not be kept apart. Mount it with them (Lustre: -o flock) or use another"
                " one",
            ) from None
        if holder is not None:
            with suppress(OSError):  # a full disk may refuse it, and the lock holds without it
                os.ftruncate(handle, 0)
                text = f"{holder}, process {os.getpid()} on {socket.gethostname()}\n"
                os.pwrite(handle, text.encode(), 0)
        yield
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    said = os.pread(handle, 200, 0).decode("utf-8", "replace")
    return printable(said).strip() or "it does not say which"
