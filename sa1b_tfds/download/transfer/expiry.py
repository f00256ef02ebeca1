"""Which links expire too soon for a download, by the time in them and this computer's clock.

These are notes for people and change nothing: each link is tried, because the server decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from sa1b_tfds.core.text import first_few, format_bytes, format_duration
from sa1b_tfds.download.transfer.plan import DownloadPlan
from sa1b_tfds.download.transfer.report import FileProgress, FileResult

_ASSUMED_RATE = 100e6  # bytes a second, where nothing is known of the network
_REAL_RATE_AFTER_S = 60.0


class ExpiryNotes:
    """The notes of one run: some at its start, and one when its real speed is known.

    Of no link is the same said twice.

    Args:
      plan: what the run does, from now on.
      max_rate: bytes a second that the run is limited to, None without a limit.
    """

    def __init__(self, plan: DownloadPlan, max_rate: float | None):
        self._to_fetch = plan.to_fetch
        self._max_rate = max_rate
        self._files = {file.name: file for file in plan.files if file.needs_its_link}
        self._said: set[str] = set()
        self._began = time.monotonic()
        self._is_rate_known = False

    def at_start(self) -> list[str]:
        """Names the links that have expired, and those that will before the estimated end."""
        now = datetime.now(timezone.utc)
        expired = {n: t for n, t in self._expiry_of(self._files).items() if t <= now}
        notes = []
        if expired:
            notes.append(
                f"Links that have expired, by the time in them: {_listed(expired)}. They are tried "
                "all the same: the server decides."
            )
        if self._max_rate is None:
            speed = f"an assumed {format_bytes(_ASSUMED_RATE)}/s"
        else:
            speed = f"the {format_bytes(self._max_rate)}/s of the rate limit"
        seconds = self._to_fetch / (self._max_rate or _ASSUMED_RATE)
        return notes + self._note_on_those_within(seconds, self._files, speed)

    def at_real_speed(
        self, running: Iterable[FileProgress], results: Mapping[str, FileResult]
    ) -> list[str]:
        """Names further links that will expire before the end; once, after a minute of the run.

        Args:
          running: where the running files are.
          results: those of the files that have ended.
        """
        elapsed = time.monotonic() - self._began
        if self._is_rate_known or elapsed < _REAL_RATE_AFTER_S:
            return []
        progress = {file.name: file for file in running}
        fetched = sum(result.fetched for result in results.values())
        fetched += sum(file.fetched for file in progress.values())
        if not fetched:
            return []
        self._is_rate_known = True
        names = [name for name in self._files if name not in results]
        left = sum(self._left_of(name, progress.get(name)) for name in names)
        rate = fetched / elapsed
        return self._note_on_those_within(left / rate, names, f"the present {format_bytes(rate)}/s")

    def _left_of(self, name: str, file: FileProgress | None) -> int:
        """Bytes still to fetch of a file, which may be running."""
        if file is None or file.size is None:
            return self._files[name].to_fetch
        return file.size - file.position

    def _note_on_those_within(self, seconds: float, names: Iterable[str], speed: str) -> list[str]:
        now = datetime.now(timezone.utc)
        soon = {
            name: expires
            for name, expires in self._expiry_of(names).items()
            if name not in self._said and 0 < (expires - now).total_seconds() < seconds
        }
        self._said.update(soon)
        if not soon:
            return []
        return [
            "Links that will expire before the download ends, in about"
            f" {format_duration(seconds)} at {speed}: {_listed(soon)}."
        ]

    def _expiry_of(self, names: Iterable[str]) -> dict[str, datetime]:
        times = {name: self._files[name].expires for name in names}
        return {name: expires for name, expires in times.items() if expires is not None}


def _listed(expiry: Mapping[str, datetime]) -> str:
    """The first few to expire, each with its time."""
    first = sorted(expiry, key=lambda name: (expiry[name], name))
    return first_few([f"{name} at {expiry[name]:%Y-%m-%d %H:%M UTC}" for name in first])
