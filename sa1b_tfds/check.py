"""Whether a file is the whole, right tar: its form, its MD5, its pairs. Reads local files only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sa1b_tfds.problems import Problems, TornArchive
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.tars.names import is_tar_name


def md5_problem(digest: Any, expected_md5: str) -> str | None:
    """What is wrong with a file that has this MD5, or None."""
    if digest.hexdigest() == expected_md5:
        return None
    return f"the MD5 is {digest.hexdigest()}, the table says {expected_md5}"


def check_file(path: Path, name: str, digest: Any | None, expected_md5: str | None) -> str | None:
    """What is wrong with a file whose bytes are all there, or None.

    An image without annotations or the like is no fault of the transfer, and not looked at here.

    Args:
      path: of the file, which may still have another name.
      name: its own name, which tells whether it has to be a tar with pairs in it.
      digest: the MD5 object of its bytes; None leaves the MD5 out.
      expected_md5: what that has to be.
    """
    if digest is not None and expected_md5 is not None:
        problem = md5_problem(digest, expected_md5)
        if problem is not None:
            return problem
    if not is_tar_name(name):
        return None
    problems = Problems(on_error="skip")
    pairs = TarArchive(path, name).index(problems)
    torn = next((found for found in problems.found if isinstance(found, TornArchive)), None)
    if torn is not None:
        return ": ".join(part for part in (torn.member, torn.reason) if part)
    return None if pairs else "it is a tar without a pair of .jpg and .json in it"
