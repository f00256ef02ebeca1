"""A file behind a link, read once from its start to its end, without storing it.

A broken connection is taken up again at the byte where it broke. If a strong ETag says that it is
the same file, by Range where the server has that. Else the file is read from its start once more,
and what was handed out before is compared by its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable

from absl import logging

from sa1b_tfds.core.text import counted, format_bytes
from sa1b_tfds.download.links import Link
from sa1b_tfds.download.transfer.answers import (
    OTHER_RANGE,
    Answer,
    Refused,
    TooSlow,
    TryAgain,
    content_length,
    refuse_other_content,
    total_of_range,
)
from sa1b_tfds.download.transfer.attempts import Attempts
from sa1b_tfds.download.transfer.partial import ServedFile
from sa1b_tfds.download.transfer.settings import MOST_BYTES, TransferConfig
from sa1b_tfds.download.transfer.transport import READ_BYTES, Transport
from sa1b_tfds.tars.forms import Forward

_CHANGED = "the file has changed on the server while it was read, or may have"


class RemoteFile(Forward):
    """A forward-only file behind a link. Use it in a `with` block.

    What reads raises LinkExpired or Refused when it is no use to go on.
    """

    def __init__(self, link: Link, config: TransferConfig):
        self._link = link
        self._config = config
        self._transport = Transport(
            connections=1,
            timeout=config.timeout,
            speed_limit=config.speed_limit,
            speed_time=config.speed_time,
            proxy=config.proxy,
            headers=config.headers,
        )
        self._connection = contextlib.ExitStack()
        self._answer: Answer | None = None
        self._secrets = self._transport.secrets_of(link.url)
        self._source: ServedFile | None = None
        self._handed_out = hashlib.sha256()  # of those bytes, where no strong ETag knows them
        self._attempts = Attempts(0, config.slow_bytes)

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()
        self._answer = None  # it would keep the connection open that it came by
        self._transport.close()

    def size(self) -> int | None:
        """Bytes of the file, None if the server does not say."""
        self._persist(lambda answer: b"")
        return self._source.size if self._source else None

    def clean(self, text: str) -> str:
        """Text that quotes what was read, without secrets: it may be a page with the link."""
        return self._secrets.clean(text)

    def _take(self, count: int) -> bytes:
        """What has arrived, at most `count` bytes; b"" at the end of the file."""
        chunk = self._persist(lambda answer: self._receive(answer, count))
        if self._source and not self._source.is_strong:
            self._handed_out.update(chunk)
        return chunk

    def _receive(self, answer: Answer, count: int) -> bytes:
        chunk = self._transport.read(answer, min(count, READ_BYTES))
        size = self._source.size if self._source else None
        if not chunk and size is not None and self._position < size:
            raise TryAgain(f"connection ended at byte {self._position:,} of {size:,}")
        if size is None and self._position > MOST_BYTES:
            raise Refused(f"the server does not say its size, and sent {format_bytes(MOST_BYTES)}")
        return chunk

    def _persist(self, action: Callable[[Answer], bytes]) -> bytes:
        """Does something with an open answer, as often as it is worth it."""
        while True:
            try:
                if self._answer is None:
                    self._answer = self._connect()
                return action(self._answer)
            except TryAgain as error:
                reason, wait, was_slow = str(error), error.wait, isinstance(error, TooSlow)
            self._connection.close()
            self._answer = None
            failures = self._attempts.failed_at(self._position, was_slow)
            if failures > self._config.retries:
                tried = counted(self._config.retries, "retry", "retries")
                raise Refused(f"{reason}; gave up after {tried}")
            wait = self._config.pause(failures) if wait is None else wait
            logging.warning("%s: %s; again in %.1f s", self._link.name, reason, wait)
            time.sleep(wait)

    def _connect(self) -> Answer:
        """An answer whose body goes on at the position."""
        by_range = self._position > 0 and self._source is not None and self._source.is_strong
        extra = {"Range": f"bytes={self._position}-"} if by_range else {}
        answer = self._connection.enter_context(self._transport.get(self._link.url, extra))
        self._secrets = answer.secrets
        if answer.status == 416:
            raise Refused("the file has become shorter on the server while it was read")
        refuse_other_content(answer)
        if answer.status == 206:
            if not by_range:
                raise TryAgain(OTHER_RANGE)
            size = total_of_range(answer, self._position)
        else:
            size = content_length(answer)
        offered = ServedFile.of(self._link.name, self._link.url.host, answer.kept, size)
        if self._source is None:
            self._source = offered
        if self._source.has_other_size(offered):
            raise Refused(_CHANGED)
        if self._source.is_strong and not self._source.is_surely(offered):
            raise Refused(_CHANGED)
        if answer.status != 206:
            self._skip(answer)
        return answer

    def _skip(self, answer: Answer) -> None:
        """Reads what was handed out before, and compares it unless the ETag says that it is it."""
        digest = hashlib.sha256()
        behind = self._position
        is_strong = self._source is not None and self._source.is_strong
        while behind:
            chunk = self._transport.read(answer, min(behind, READ_BYTES))
            if not chunk:
                raise TryAgain(f"connection ended before byte {self._position:,}")
            behind -= len(chunk)
            if not is_strong:
                digest.update(chunk)
        if not is_strong and digest.digest() != self._handed_out.digest():
            raise Refused(_CHANGED)
