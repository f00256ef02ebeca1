"""One file: from a link to a checked file under its name, with retries.

Keyed by the file's name, never by its URL: another link to the same file continues its partial.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sa1b_tfds.core import files
from sa1b_tfds.core.text import counted, format_bytes
from sa1b_tfds.download.check import check_file, hash_file, new_md5, unpack_file
from sa1b_tfds.download.links import Link
from sa1b_tfds.download.transfer.answers import (
    OTHER_RANGE,
    Answer,
    Refused,
    Stopped,
    TooSlow,
    TryAgain,
    content_length,
    refuse_other_content,
    total_of_416,
    total_of_range,
)
from sa1b_tfds.download.transfer.attempts import Attempts
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.partial import Partial, ServedFile
from sa1b_tfds.download.transfer.report import FileProgress
from sa1b_tfds.download.transfer.settings import MOST_BYTES, RateLimit, TransferConfig
from sa1b_tfds.download.transfer.transport import Transport
from sa1b_tfds.tars.forms import is_packed
from sa1b_tfds.tars.names import is_tar_name


class Fetch:
    """Fetches one file. `run` may be called once; `progress` may be read meanwhile.

    Args:
      link: what to fetch.
      folder: where to; `link.name` appears there when all is done.
      transport: how to.
      config: `workers` is not looked at here.
      limit: shared by all files of a run.
      expected_md5: None where it is not known.
      checked: where an unpacked tar is recorded.
      stop: set from elsewhere to end it.
      note: called with a line about anything that a person would want to know.
    """

    def __init__(
        self,
        link: Link,
        folder: Path,
        *,
        transport: Transport,
        config: TransferConfig,
        limit: RateLimit,
        expected_md5: str | None,
        checked: CheckedFiles,
        stop: threading.Event,
        note: Callable[[str], None],
    ):
        self._link = link
        self._part = Partial(folder, link.name)
        self._transport = transport
        self._config = config
        self._limit = limit
        self._expected_md5 = expected_md5 if config.verify == "md5" else None
        self._digest: Any = None
        self._checked = checked
        self._stop = stop
        self._note = note
        self._is_unpacked = False
        self._has_other_md5 = False
        self._secrets = transport.secrets_of(link.url)
        self.progress = FileProgress(
            name=link.name, position=self._part.offset, size=self._part.size
        )

    def run(self) -> str:
        """Returns by what the file was checked: 'md5', 'size' or 'none'.

        Raises:
          LinkExpired, Refused: no use to go on; the partial is kept.
          DiskFull, Stopped: the same, and for all files.
        """
        attempts = Attempts(self._part.offset, self._config.slow_bytes)
        was_wrong = False
        while True:
            try:
                self._attempt()
                problem = self._problem()
                if problem is None:
                    self._finish()
                    return "md5" if self._expected_md5 else self._checked_without_md5()
                if was_wrong or not self._config.retries:
                    raise Refused(self._wrong_for_good(problem))
                was_wrong = True
                self._note(f"{problem}; fetching it again from the start")
                self._restart()
                attempts = Attempts(0, self._config.slow_bytes)
                continue
            except TryAgain as error:
                reason, wait, was_slow = str(error), error.wait, isinstance(error, TooSlow)
            failures_in_a_row = attempts.failed_at(self._part.offset, was_slow)
            if failures_in_a_row > self._config.retries:
                break
            self._stop_if_told()
            if wait is None:
                wait = self._config.pause(failures_in_a_row)
            self._note(
                f"{reason}; retry {failures_in_a_row} of {self._config.retries} "
                f"in {wait:.1f} s, from byte {self._part.offset:,}"
            )
            self._stop.wait(wait)
            self._stop_if_told()
        raise Refused(
            f"{reason}; gave up after"
            f" {counted(self._config.retries, 'retry', 'retries')} without progress;"
            f" {counted(self._part.offset, 'byte')} kept"
        )

    def _checked_without_md5(self) -> str:
        return "none" if self._config.verify == "none" and not self._is_unpacked else "size"

    def _wrong_for_good(self, problem: str) -> str:
        kept = (
            f"{problem}, fetched from the start and checked again. The file is kept as "
            f"{self._part.path.name}: "
        )
        if not self._has_other_md5:
            return kept + "fetch it from another source, and delete this one"
        return (
            f"{kept}if you trust it, `sa1b download --verify size` checks its form instead of the "
            "MD5; if not, delete it"
        )

    def _attempt(self) -> None:
        """One request at most; returns when all bytes are on disk."""
        self._stop_if_told()
        part = self._part
        if part.distrusted:
            self._note(f"{part.path.name} has no state file that fits it; starting over")
            part.distrusted = 0
        if part.offset and self._expected_md5 and self._digest is None:
            self._digest = self._hash_partial()
        if part.is_complete:
            return
        extra = {"Range": f"bytes={part.offset}-"} if part.offset and self._can_join else {}
        with self._transport.get(self._link.url, extra) as answer:
            self._secrets = answer.secrets
            if answer.status == 416:
                self._settle_416(answer)
            elif answer.status == 206:
                self._accept_206(answer)
                self._write_body(answer)
            else:
                self._accept_200(answer)
                self._write_body(answer)

    @property
    def _can_join(self) -> bool:
        """Whether what the server goes on with can be known to be of the same file."""
        source = self._part.source
        return source is not None and (source.is_strong or self._expected_md5 is not None)

    def _joins(self, offered: ServedFile) -> bool:
        """Whether its bytes may follow those of the partial.

        They may if the ETag proves that it is the same file, or if the MD5 will prove it.
        """
        source = self._part.source
        if source is None or self._expected_md5 is None:
            return source is not None and source.is_surely(offered)
        return source.may_be(offered)

    def _source_of(self, answer: Answer, size: int | None) -> ServedFile:
        return ServedFile.of(self._link.name, self._link.url.host, answer.kept, size)

    def _accept_206(self, answer: Answer) -> None:
        part = self._part
        if part.source is None:
            raise TryAgain(OTHER_RANGE)
        refuse_other_content(answer)
        total = total_of_range(answer, part.offset)
        if not self._joins(self._source_of(answer, total)):
            self._restart()
            raise TryAgain("the file may have changed on the server; starting over", wait=0)
        if part.size is None and total is not None:
            part.learn_size(total)

    def _accept_200(self, answer: Answer) -> None:
        part = self._part
        refuse_other_content(answer)
        offered = self._source_of(answer, content_length(answer))
        if part.offset and part.source is not None:
            why = "cannot continue a file"
            if not part.source.may_be(offered):
                why = "has another file now"
            elif not self._can_join:
                why = "gives no strong ETag and no MD5 is compared, so it may be another file now"
            self._note(f"the server {why}; starting over from byte 0 instead of {part.offset:,}")
        self._restart()
        part.begin(offered)
        self.progress.size = part.size

    def _settle_416(self, answer: Answer) -> None:
        part = self._part
        if not part.offset:
            raise Refused("HTTP 416 to a request for the whole file")
        is_all = part.size is None and total_of_416(answer) == part.offset
        if is_all and self._joins(self._source_of(answer, part.offset)):
            part.learn_size(part.offset)
            return
        self._restart()
        raise TryAgain("the file has another size on the server; starting over", wait=0)

    def _write_body(self, answer: Answer) -> None:
        part, step = self._part, self._limit.read_bytes
        most = part.size
        if most is None:
            most = min(MOST_BYTES, part.offset + (files.free_bytes(part.path.parent) or 0))
        handle = part.open()
        try:
            while chunk := self._transport.read(answer, step):
                self._stop_if_told()
                if part.size is None and part.offset + len(chunk) > most:
                    self._restart()
                    raise Refused(
                        f"the server does not say its size, and more than {format_bytes(most)}"
                        " came: no tar is so large, or the disk is too small. What came was removed"
                    )
                chunk = chunk[: most - part.offset]
                part.append(handle, chunk)
                if self._expected_md5:
                    self._digest.update(chunk)
                self.progress.fetched += len(chunk)
                self.progress.position = part.offset
                self._limit.pay(len(chunk), self._stop)
                if part.is_complete:
                    break
        finally:
            os.close(handle)
        self._stop_if_told()
        if part.size is None:
            part.learn_size(part.offset)
        elif part.offset < part.size:
            raise TryAgain(f"connection ended at byte {part.offset:,} of {part.size:,}")

    def _problem(self) -> str | None:
        part, name, md5 = self._part, self._link.name, self._expected_md5
        unpack = self._config.unpack and is_tar_name(name) and is_packed(part.path)
        problem = None
        # To unpack a tar is to check it; but what has another MD5 need not be unpacked.
        if md5 or (self._config.verify != "none" and not unpack):
            self.progress.phase = "checking"
            problem = check_file(part.path, name, self._digest, md5, self._on_inflated)
        self._has_other_md5 = problem is not None and md5 is not None
        if unpack and problem is None:
            self.progress.phase = "unpacking"
            with files.full_disk_named(f"while writing {part.draft}"):
                problem = unpack_file(part.path, name, part.draft, self._on_inflated)
        self._is_unpacked = unpack
        self.progress.phase = "fetching"
        # It quotes what the server sent, which may be a page with the link in it.
        return None if problem is None else self._secrets.clean(problem)

    def _on_inflated(self, size: int) -> None:
        self.progress.inflated = size
        self._stop_if_told()

    def _finish(self) -> None:
        self._stop_if_told()
        part = self._part
        if self._is_unpacked:
            checked_by = "md5" if self._expected_md5 else "size"
            part.finish_unpacked(self._checked, checked_by, self._expected_md5)
            return
        part.sync()
        self._stop_if_told()
        part.finish()

    def _restart(self) -> None:
        self._part.discard()
        self._digest = new_md5() if self._expected_md5 else None
        self.progress.position = 0

    def _hash_partial(self) -> Any:
        """The MD5 of what an earlier process left: one read of those bytes, none of the others."""
        self.progress.phase = "checking"
        digest = hash_file(self._part.path, check=self._stop_if_told)
        self.progress.phase = "fetching"
        return digest

    def _stop_if_told(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped; its bytes so far are kept")
