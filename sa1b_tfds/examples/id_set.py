"""A set of image ids that a user chose, and the files and values that it is made of."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from absl import logging
from etils import epath

from sa1b_tfds.core.problems import OnError, check_on_error
from sa1b_tfds.core.text import counted, first_few, printable

# A number; or a name or path that ends in one, such as ./sa_1.jpg. Not the name of a tar.
_ID = re.compile(r"(?:.*[/\\])?(?:sa_)?([0-9]{1,19})(?:\.(?!tar\Z|tgz\Z)[A-Za-z][A-Za-z0-9]*)?")
_LINES = 2**20  # that are read at a time, 60 MB
_EXPECTED = "a number such as 1, a name such as sa_1.jpg, or a path"


class MissingIds(ValueError):
    """Image ids that were asked for are not there.

    Args:
      message: what the error says.
      ids: int64 [N], all of them.
    """

    def __init__(self, message: str, ids: np.ndarray):
        super().__init__(message)
        self.ids = ids


@dataclasses.dataclass(frozen=True, eq=False)
class IdSet:
    """Image ids.

    ids: int64 [N], N > 0, ascending, each once.
    """

    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        """'IdSet(2 ids, 1 to 9)': TFDS logs the config that holds it."""
        return f"IdSet({counted(len(self), 'id')}, {self.ids[0]} to {self.ids[-1]})"

    @functools.cached_property
    def fingerprint(self) -> str:
        """What tells this set from others."""
        return hashlib.blake2b(self.to_bytes(), digest_size=16).hexdigest()

    def __contains__(self, image_id: int) -> bool:
        return bool(self.has(np.array([image_id]))[0])

    def has(self, image_ids: np.ndarray) -> np.ndarray:
        """bool [M]: which of int64 [M] are in the set."""
        place = np.minimum(np.searchsorted(self.ids, image_ids), len(self.ids) - 1)
        return self.ids[place] == image_ids

    def not_in(self, image_ids: np.ndarray) -> np.ndarray:
        """int64: the ids of the set that are not among these."""
        there = image_ids[self.has(image_ids)]
        missing = np.ones(len(self.ids), bool)
        missing[np.searchsorted(self.ids, there)] = False
        return self.ids[missing]

    def to_bytes(self) -> bytes:
        return self.ids.astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> IdSet:
        """The opposite of `to_bytes`."""
        return cls(np.frombuffer(data, "<i8").astype(np.int64))


def as_id_set(ids: Any) -> IdSet:
    """Makes a set of what a user gives.

    Args:
      ids: an `IdSet`; the path of a file, see `read_ids`; or ids as integers, as names such as
        'sa_1.jpg', or as paths.

    Raises:
      ValueError: if there is no id, or something is not an id.
      FileNotFoundError: if the file is not there.
    """
    if isinstance(ids, IdSet):
        return ids
    if isinstance(ids, str | os.PathLike):
        return read_ids(ids)
    if not isinstance(ids, np.ndarray):
        ids = list(ids)
    return _set_of([_of_values(ids, "id")], "The list of image ids")


def read_ids(path: epath.PathLike) -> IdSet:
    """Reads a file of ids: numbers, names or paths, one a line; or a JSON list of them.

    Raises:
      ValueError: naming the file and the line, if there is no id or a line is not an id.
      FileNotFoundError: if the file is not there.
    """
    path = epath.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: name a file with image ids, one a line.")
    try:
        with path.open("rb") as file:
            start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            file.seek(0)
            if start.startswith(b"["):
                return _set_of([_of_values(_json_list(file.read()), "item")], "it")
            found: list[np.ndarray] = []
            for number in itertools.count(1, _LINES):
                if not (lines := list(itertools.islice(file, _LINES))):
                    return _set_of(found, "it")
                found.append(_of_lines(lines, number))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    raise AssertionError("the loop ends at the end of the file")


def check_missing(
    missing: np.ndarray, asked: int, where: str, missing_ids: OnError, how_to_skip: str
) -> None:
    """Raises an error that counts and names the ids that are missing, or logs that.

    Args:
      missing: int64, the ids that were asked for and are not there.
      asked: how many ids were asked for.
      where: what was looked through.
      missing_ids: 'raise' or 'skip'.
      how_to_skip: the option that leaves them out.

    Raises:
      MissingIds: if there are some and missing_ids is 'raise'.
    """
    check_on_error(missing_ids, "missing_ids")
    if not len(missing):
        return
    names = first_few(list(map(str, missing.tolist())))
    message = f"Image ids that are not in {where}: {len(missing):,} of {asked:,} ({names})."
    if missing_ids == "raise":
        message += f" `sa1b locate` finds their tars; {how_to_skip} goes on without them."
        raise MissingIds(message, missing)
    logging.warning("%s They are left out.", message)


def id_of_name(name: str) -> int | None:
    """The id in a file's name, 1 for 'sa_1.jpg' and for paths of it; None if there is none."""
    found = _ID.fullmatch(name)
    return int(found[1]) if found and int(found[1]) < 2**63 else None


def _set_of(found: Sequence[np.ndarray], what: str) -> IdSet:
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
    if not len(ids):
        raise ValueError(f"{what} holds no image id: one is {_EXPECTED}.")
    return IdSet(ids)


def _json_list(data: bytes) -> list[Any]:
    try:
        return orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as e:
        raise ValueError(f"it begins as a JSON list, but is not JSON: {e}") from e


def _of_lines(lines: list[bytes], first: int) -> np.ndarray:
    with contextlib.suppress(ValueError, OverflowError):
        found = np.fromiter(map(int, lines), np.int64, len(lines))  # mostly they are numbers
        if found.min() >= 0:
            return found
    texts = [line.decode("utf-8", "replace").removeprefix("\ufeff").strip() for line in lines]
    numbered = [(i, text) for i, text in enumerate(texts, start=first) if text]
    return np.array([_checked(text, f"line {i}") for i, text in numbered], np.int64)


def _of_values(values: Any, what: str) -> np.ndarray:
    if isinstance(values, np.ndarray) and values.dtype.kind == "i" and (values >= 0).all():
        return values.ravel().astype(np.int64)
    return np.array([_checked(value, f"{what} {i}") for i, value in enumerate(values)], np.int64)


def _checked(value: Any, where: str) -> int:
    image_id = None
    if isinstance(value, str | os.PathLike):
        image_id = id_of_name(os.fspath(value))
    elif isinstance(value, int | np.integer) and not isinstance(value, bool):
        image_id = int(value) if 0 <= value < 2**63 else None
    if image_id is None:
        shown = printable(str(value))[:60]
        raise ValueError(f"{where}: '{shown}' is not an image id, which is {_EXPECTED}.")
    return image_id
