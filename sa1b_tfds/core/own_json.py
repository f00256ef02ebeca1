"""JSON that this package reads back: with a checksum in it, and one named error when it is damaged.

The checksum is the first field, and is taken of all that follows it. JSON without a checksum is
read as it is: an earlier version wrote it, or it is a report for people.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson
from etils import epath

_SEAL = re.compile(rb'\{"checksum":([0-9]{1,10}),')

_Content = TypeVar("_Content")


class DamagedJson(ValueError):
    """A file, or some JSON, is not what this package writes."""


def dumps(content: dict[str, Any]) -> bytes:
    """An object as JSON, with a checksum. It must have a field."""
    rest = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)[1:]
    return b'{"checksum":%d,' % zlib.crc32(rest) + rest


def loads(data: bytes, make: Callable[[Any], _Content]) -> _Content:
    """What `make` makes of JSON.

    Raises:
      DamagedJson: if it is no JSON, its checksum is wrong, or `make` finds it of another form.
    """
    try:
        if (seal := _SEAL.match(data)) is None:
            return make(orjson.loads(data))
        rest = data[seal.end() :]
        if zlib.crc32(rest) != int(seal[1]):
            raise ValueError("its checksum is wrong")
        return make(orjson.loads(b"{" + rest))
    except orjson.JSONDecodeError as e:
        raise DamagedJson(f"it is not JSON: {e}") from e
    except KeyError as e:
        raise DamagedJson(f"it lacks the field {e}") from e
    except ValueError as e:
        raise DamagedJson(str(e)) from e
    except (TypeError, AttributeError, IndexError, OverflowError) as e:
        raise DamagedJson(f"it is of another form: {e}") from e


def read(path: epath.Path | Path, make: Callable[[Any], _Content], advice: str) -> _Content:
    """What `make` makes of a file of JSON.

    Raises:
      DamagedJson: naming the file, what is wrong with it, and the advice.
      OSError: if it cannot be read.
    """
    try:
        return loads(path.read_bytes(), make)
    except DamagedJson as e:
        raise DamagedJson(f"{path} is damaged ({e}): {advice}.") from e
