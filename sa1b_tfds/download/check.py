"""Whether a local file is the whole, right tar: by its MD5, or else by its form to the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.problems import Problems, TornArchive
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.tars.names import is_tar_name
from sa1b_tfds.tars.scratch import unpack_into

_BLOCK = 1 << 20


def new_md5() -> Any:
    """An MD5 that also starts on machines in FIPS mode: it guards against damage, not attack."""
    return hashlib.md5(usedforsecurity=False)


def hash_file(
    path: epath.PathLike,
    *,
    check: Callable[[], None] = lambda: None,
    on_hashed: Callable[[int], None] = lambda size: None,
) -> Any:
    """The MD5 of a file's bytes so far, to which more may be added.

    After every MiB `check` is called, and `on_hashed` with the bytes so far. What they raise ends
    the hashing.
    """
    digest = new_md5()
    hashed = 0
    with epath.Path(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            hashed += len(block)
            check()
            on_hashed(hashed)
    return digest


def md5_problem(digest: Any, expected_md5: str) -> str | None:
    """What is wrong with a file that has this MD5, or None."""
    if digest.hexdigest() == expected_md5:
        return None
    return f"the MD5 is {digest.hexdigest()}, the table says {expected_md5}"


def check_file(
    path: Path,
    name: str,
    digest: Any | None,
    expected_md5: str | None,
    on_inflated: Callable[[int], None] = lambda size: None,
) -> str | None:
    """What is wrong with a file whose bytes are all there, or None.

    The right MD5 proves that it is whole. Without one, the headers of a plain tar are read, and a
    compressed tar is inflated up to its checksum. What is in the tar is not looked at: an image
    without annotations is no fault of the transfer.

    Args:
      path: of the file, which may still have another name.
      name: its own name. It says whether the file has to be a tar with pairs in it.
      digest: the MD5 object of its bytes; None leaves the MD5 out.
      expected_md5: what that has to be.
      on_inflated: called now and then with the bytes of a compressed tar that are inflated; what it
        raises ends the check.
    """
    if digest is not None and expected_md5 is not None:
        return md5_problem(digest, expected_md5)
    if not is_tar_name(name):
        return None
    problems = Problems(on_error="skip")
    pairs = TarArchive(path, name).index(problems, on_inflated)
    return _problem_with(problems, len(pairs))


def unpack_file(
    path: Path, name: str, target: Path, on_inflated: Callable[[int], None]
) -> str | None:
    """Writes the plain tar that is in a compressed one, and checks all of it meanwhile.

    Args:
      path, name, on_inflated: see `check_file`.
      target: is replaced; it is whole, and on the disk, if nothing is wrong, else it is not there.

    Returns:
      What is wrong with the compressed one, or None.
    """
    problem: str | None = "it was not unpacked to its end"
    try:
        with open(target, "w+b", buffering=0) as file:
            os.fchmod(file.fileno(), path.stat().st_mode & 0o777)
            problems = Problems(on_error="skip")
            synced = files.BackgroundSync(target)
            before = 0

            def on_more(size: int) -> None:
                nonlocal before
                synced.written(size - before)
                before = size
                on_inflated(size)

            pairs = unpack_into(file, TarArchive(path, name), problems, on_more)
            synced.finish()
        problem = _problem_with(problems, len(pairs))
    finally:
        if problem:
            target.unlink(missing_ok=True)
    return problem


def _problem_with(problems: Problems, pairs: int) -> str | None:
    torn = next((found for found in problems.found if isinstance(found, TornArchive)), None)
    if torn is not None:
        return ": ".join(part for part in (torn.member, torn.reason) if part)
    return None if pairs else "it is a tar without a pair of .jpg and .json in it"
