"""What is known of a tar's file: its MD5, and which compressed tar it was unpacked from.

`sa1b download` and `sa1b unpack` record both beside the tar
(`download/transfer/checked_files.py`). The record is valid as long as the tar's size and
modification time stay the same.

The MD5 may also be taken while the tar is converted. That reads the tar once more, in a thread. The
converting thread goes on meanwhile, but the MD5 takes 1.4 seconds of a core for each GB.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sa1b_tfds.core import files
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.download.check import hash_file, md5_problem
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.tars.archive import Archive, TarArchive


def recorded_md5(archive: Archive) -> str | None:
    """The recorded MD5 of this file, or of the compressed tar that it was unpacked from."""
    path = _local_tar(archive)
    return CheckedFiles(path.parent).md5(path.name) if path else None


def is_from(archive: Archive, source: Mapping[str, int]) -> bool:
    """Whether an archive has the identity `source`, or was unpacked from a tar that had it."""
    if archive.identity() == source:
        return True
    path = _local_tar(archive)
    if path is None or not path.exists():
        return False
    return CheckedFiles(path.parent).unpacked_from(path.name) == dict(source)


def _local_tar(archive: Archive) -> Path | None:
    if isinstance(archive, TarArchive) and files.is_local(archive.path):
        return Path(archive.path)
    return None


@contextlib.contextmanager
def md5_taken(archive: TarArchive) -> Iterator[Callable[[], Any]]:
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
