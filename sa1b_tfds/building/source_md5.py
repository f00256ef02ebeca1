"""The MD5 of a tar that is converted: known from its download, or taken while it is converted.

A download records what it checked beside the tar (`transfer/folder.py`); the record counts while
the tar's size and modification time are the same. Taking an MD5 is one more read of the tar, in a
thread: hashlib leaves the other thread running, but it is 1.4 seconds of a core for each GB.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sa1b_tfds import files
from sa1b_tfds.check import md5_problem
from sa1b_tfds.checksums import hash_file
from sa1b_tfds.problems import Problems
from sa1b_tfds.tars.archive import Archive, TarArchive
from sa1b_tfds.transfer.folder import CheckedFiles


def recorded(archive: Archive) -> str | None:
    """The MD5 that a download took of this very file, if there is a record of it."""
    if not isinstance(archive, TarArchive) or not files.is_local(archive.path):
        return None
    return CheckedFiles(Path(archive.path.parent)).md5(archive.path.name)


@contextlib.contextmanager
def taken(archive: TarArchive) -> Iterator[Callable[[], Any]]:
    """Takes a tar's MD5 while the body runs.

    The body is given a function that waits for the MD5 object and returns it.
    """
    stopped = threading.Event()
    results: list[Any] = []

    def stop_if_told() -> None:
        if stopped.is_set():
            raise InterruptedError("nobody waits for the MD5 any more")

    def take() -> None:
        try:
            results.append(hash_file(archive.path, check=stop_if_told))
        except Exception as e:
            results.append(e)

    def result() -> Any:
        thread.join()
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0]

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield result
    finally:
        stopped.set()
        thread.join()


def report_mismatch(archive: Archive, digest: Any, expected: str, problems: Problems) -> None:
    """Reports a tar whose MD5 is not the known one."""
    if problem := md5_problem(digest, expected):
        problems.report(archive.name, "", f"{problem}: download it again")
