"""Rows by key, on the disk: memory does not grow with their number.

SQLite appends them to a file and then sorts their keys, by merging runs that it has sorted in
memory (`CREATE INDEX`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

Key = int | str
_CACHE_KB = 32_768
_NAMED = 5
_AT_ONCE = 500  # keys in one query; SQLite allows 999


class SortedRows:
    """Rows of a file that were sorted by their keys; it remembers which keys were asked for."""

    def __init__(self, path: str):
        self._rows = _connect(path)

    @classmethod
    def make(cls, path: str, rows: Iterable[tuple[Key, Sequence[Any]]]) -> SortedRows:
        """Sorts rows into a new file, which appears when it is whole.

        Args:
          path: of the file; if it is there, it is taken as it is.
          rows: keys, and values that JSON has.
        """
        if not os.path.exists(path):
            draft = f"{path}.part"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
            with contextlib.closing(_connect(draft)) as database:
                database.execute("CREATE TABLE rows (key, stored BLOB)")
                database.execute("CREATE TABLE asked (key PRIMARY KEY) WITHOUT ROWID")
                stored = ((key, orjson.dumps(values)) for key, values in rows)
                database.executemany("INSERT INTO rows VALUES (?, ?)", stored)
                database.execute("CREATE INDEX by_key ON rows (key)")
                database.commit()
            os.replace(draft, path)
        return cls(path)

    def close(self) -> None:
        self._rows.close()

    def ask(self, keys: Sequence[Key]) -> dict[Key, list[Any]]:
        """The values of these keys, as far as there are any; of a repeated key, those of the first.

        The keys count as known from now on.
        """
        found: dict[Key, list[Any]] = {}
        for begin in range(0, len(keys), _AT_ONCE):
            some = keys[begin : begin + _AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, stored FROM rows WHERE key IN ({marks}) ORDER BY rowid DESC"
            found |= {key: orjson.loads(stored) for key, stored in self._rows.execute(query, some)}
        asked = ((key,) for key in keys)
        self._rows.executemany("INSERT OR IGNORE INTO asked VALUES (?)", asked)
        return found

    def keep(self) -> None:
        """Makes the file remember which keys were asked for."""
        self._rows.commit()

    def repeated(self) -> tuple[int, list[Key]]:
        """How many keys come more than once, and the first few."""
        return self._some("SELECT key FROM rows GROUP BY key HAVING count(*) > 1")

    def unknown(self) -> tuple[int, list[Key]]:
        """How many keys nobody has asked for, and the first few."""
        return self._some("SELECT DISTINCT key FROM rows WHERE key NOT IN (SELECT key FROM asked)")

    def _some(self, query: str) -> tuple[int, list[Key]]:
        [(number,)] = self._rows.execute(f"SELECT count(*) FROM ({query})")
        return number, [
            key for (key,) in self._rows.execute(f"{query} ORDER BY key LIMIT {_NAMED}")
        ]


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    # What is lost with a power cut is made again: the sorted rows are only a means.
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    return database
