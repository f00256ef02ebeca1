"""Watching the links file for fresh links while a run waits (`--refresh-wait`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from sa1b_tfds.download.links import Link, read_links

_LOOK_EVERY_S = 1.0


class FreshLinks:
    """Watches the links file for links that replace expired ones."""

    def __init__(self, source: Path | None, links: Mapping[str, Link]):
        self._source = source
        self._links = dict(links)
        self._waiting: set[str] = set()
        self._seen: tuple[int, int, int] | None = None  # so that the first look reads it
        self._next_look = 0.0

    def wait_for(self, name: str) -> None:
        self._waiting.add(name)

    def give_up(self) -> list[str]:
        names, self._waiting = sorted(self._waiting), set()
        return names

    def look(self) -> list[Link]:
        """Fresh links of files that wait, if the file changed since the last look.

        Raises:
          LinksError, OSError: the changed file cannot be read (yet).
        """
        if not self._waiting or time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + _LOOK_EVERY_S
        stamp = self._stamp()
        if self._source is None or stamp in (None, self._seen):
            return []
        self._seen = stamp
        links = read_links(self._source)
        now = {**links.tars, **links.others}
        renewed = [
            now[name]
            for name in sorted(self._waiting)
            if name in now and now[name].url != self._links[name].url
        ]
        self._waiting.difference_update(link.name for link in renewed)
        self._links.update((link.name, link) for link in renewed)
        return renewed

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._source.stat() if self._source else None
        except OSError:
            return None
        return (stat.st_ino, stat.st_size, stat.st_mtime_ns) if stat else None
