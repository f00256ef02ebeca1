"""How files are transferred: the settings, and the rate limit that all files of a run share."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from sa1b_tfds.download.transfer.transport import READ_BYTES

Verify = Literal["md5", "size", "none"]

_LONGEST_S = 86400.0
_LONGEST_BACKOFF_S = 60.0
# Of a file whose size the server does not say. SA-1B's tars have 11.3 GB.
MOST_BYTES = 64 * 10**9
_OWN_HEADERS = frozenset(
    ("range", "if-range", "accept-encoding", "host", "content-length", "transfer-encoding")
)


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """How to transfer, the same for every file.

    Attributes:
      workers: files at a time.
      max_rate: bytes a second over all workers, None for no limit.
      retries: attempts in a row that may bring no progress before a file is given up. Progress is
        1 kB or more beyond the furthest byte that was reached before.
      timeout: seconds without a byte after which a connection counts as lost.
      speed_limit: bytes a second; a connection that is slower for `speed_time` counts as lost as
        well. 0 for no limit.
      speed_time: seconds of waiting for the server.
      proxy: URL of an http(s) proxy.
      headers: sent to the links' own host, and to no other.
      verify: 'md5' checks the size, and the MD5 where it is known, else that a tar is whole by its
        own form, which for a compressed one means to inflate it; 'size' leaves out the MD5; 'none'
        takes what the server sends in full.
      unpack: leave plain tars instead of the compressed ones that are served.
      backoff: seconds before the first retry; each further one waits up to twice as long.
    """

    workers: int = 4
    max_rate: float | None = None
    retries: int = 10
    timeout: float = 60.0
    speed_limit: float = 1000.0
    speed_time: float = 60.0
    proxy: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: Verify = "md5"
    unpack: bool = False
    backoff: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 64:
            raise ValueError(f"workers={self.workers}: must be between 1 and 64.")
        if self.max_rate is not None and self.max_rate < 1:
            raise ValueError(f"max_rate={self.max_rate}: must be at least 1 byte a second.")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}: must not be negative.")
        if not 0 < self.timeout <= _LONGEST_S:
            raise ValueError(f"timeout={self.timeout}: must be more than 0 seconds, at most a day.")
        if not 0 <= self.speed_limit < math.inf:
            raise ValueError(f"speed_limit={self.speed_limit}: must be 0 or more bytes a second.")
        if not 0 < self.speed_time <= _LONGEST_S:
            raise ValueError(
                f"speed_time={self.speed_time}: must be more than 0 seconds, at most a day."
            )
        if not 0 <= self.backoff <= _LONGEST_S:
            raise ValueError(f"backoff={self.backoff}: must be 0 seconds to a day.")
        if self.verify not in ("md5", "size", "none"):
            raise ValueError(f"verify={self.verify!r}: must be 'md5', 'size' or 'none'.")
        if self.proxy is not None:
            _check_proxy(self.proxy)
        for name, value in self.headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"headers: {name!r} is not a header's name.")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"headers: {name} is set by the download itself.")
            if not value.isprintable():
                raise ValueError(f"headers: the value of {name} holds a control character.")

    @property
    def slow_bytes(self) -> float:
        """What comes at the lowest speed, for as long as a connection may be slower."""
        return self.speed_limit * self.speed_time

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        longest = min(_LONGEST_BACKOFF_S, self.backoff * 2 ** min(failures - 1, 16))
        return longest * random.uniform(0.5, 1.0)  # jitter, lest all workers come back at once


def _check_proxy(proxy: str) -> None:
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        # Not shown: it may hold a password.
        raise ValueError("proxy: must be a URL such as http://proxy.example:3128.")


class RateLimit:
    """Bytes a second, shared by threads."""

    def __init__(self, bytes_per_second: float | None):
        self._rate = bytes_per_second
        self._paid_until = 0.0
        self._lock = threading.Lock()

    @property
    def read_bytes(self) -> int:
        """How much to read at once for a smooth flow."""
        return READ_BYTES if self._rate is None else int(min(READ_BYTES, max(1, self._rate / 20)))

    def pay(self, count: int, stop: threading.Event) -> None:
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._paid_until = max(self._paid_until, now) + count / self._rate
            wait = self._paid_until - now
        stop.wait(wait)
