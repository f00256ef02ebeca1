"""What a thread of a download does with one file: look at it, fetch it, check it or unpack it.

None of it raises but `plan`, whose errors are returned: whoever waits for a result gets one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sa1b_tfds.core import files
from sa1b_tfds.download.check import check_file, hash_file, md5_problem, unpack_file
from sa1b_tfds.download.links import Link
from sa1b_tfds.download.md5_table import read_md5_table
from sa1b_tfds.download.transfer.answers import LinkExpired, Stopped, TransferError
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.download.transfer.fetch import Fetch
from sa1b_tfds.download.transfer.folder import draft_of
from sa1b_tfds.download.transfer.plan import PlannedFile, plan_file
from sa1b_tfds.download.transfer.report import FileProgress, FileResult
from sa1b_tfds.download.transfer.settings import RateLimit, TransferConfig
from sa1b_tfds.download.transfer.transport import Transport
from sa1b_tfds.tars.forms import is_packed
from sa1b_tfds.tars.names import is_tar_name


@dataclass(frozen=True)
class Note:
    """Something that a person would want to know about a file."""

    name: str
    text: str


class FileJobs:
    """The jobs of one run. Several threads may call them, each for another file.

    Args:
      links: of the files, by name.
      folder: where the files are.
      config: see `TransferConfig`.
      md5: see `download`.
      say: called with a `Note` while a job runs.

    Attributes:
      checked: the folder's record of checked files.
      running: where the files are that a job is at work on, by name.
    """

    def __init__(
        self,
        links: Mapping[str, Link],
        folder: Path,
        config: TransferConfig,
        md5: Mapping[str, str] | None,
        say: Callable[[Note], None],
    ):
        self._links = links
        self._folder = folder
        self._config = config
        self._md5 = read_md5_table() if md5 is None else md5
        self._md5_of_any_form = md5 is not None
        self._say = say
        self.checked = CheckedFiles(folder)
        self.running: dict[str, FileProgress] = {}
        self._limit = RateLimit(config.max_rate)
        self._transport = Transport(
            connections=config.workers,
            timeout=config.timeout,
            speed_limit=config.speed_limit,
            speed_time=config.speed_time,
            proxy=config.proxy,
            headers=config.headers,
        )
        self._stopped = threading.Event()
        self._is_disk_full = False

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ends what can be ended of all jobs, now and from now on."""
        self._stopped.set()
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    def plan(self, link: Link) -> PlannedFile | Exception:
        accept = {
            "md5": ("md5",) if link.name in self._md5 else ("md5", "size"),
            "size": ("md5", "size"),
            "none": (),
        }[self._config.verify]
        try:
            return plan_file(
                link,
                self._folder,
                transport=self._transport,
                checked=self.checked,
                accept=accept,
                unpack=self._config.unpack,
            )
        except Exception as error:
            return error

    def check(self, name: str) -> FileResult:
        """A file that was there under its final name, and that no run of ours has checked."""
        path = self._folder / name
        expected = self._expected_md5_of(path)
        try:
            digest = hash_file(path, check=self._stop_if_told) if expected else None
            problem = check_file(path, name, digest, expected, lambda _: self._stop_if_told())
        except Stopped:
            return self.not_finished(name)
        except Exception as error:
            problem = str(error)
        if problem is None:
            return FileResult(name=name, status="present", checked_by="md5" if expected else "size")
        return self._was_wrong(name, problem)

    def unpack(self, name: str) -> FileResult:
        """A compressed tar that was there under its final name."""
        path = self._folder / name
        expected = self._expected_md5_of(path)
        progress = FileProgress(name=name, size=path.stat().st_size, phase="unpacking")
        progress.position = path.stat().st_size
        self.running[name] = progress

        def on_inflated(size: int) -> None:
            progress.inflated = size
            self._stop_if_told()

        try:
            problem = None
            if expected and self.checked.md5(name) != expected:
                problem = md5_problem(hash_file(path, check=self._stop_if_told), expected)
            with files.full_disk_named(f"while writing {draft_of(path)}"):
                problem = problem or unpack_file(path, name, draft_of(path), on_inflated)
            if problem is None:
                checked_by = "md5" if expected else "size"
                self.checked.put_unpacked(path, path, checked_by, expected)
                self._say(Note(name, "was already there, and is unpacked now"))
                return FileResult(name=name, status="present", checked_by=checked_by)
        except Stopped:
            return self.not_finished(name)
        except files.DiskFull as error:
            return self._full(name, error)
        except Exception as error:
            problem = str(error)
        finally:
            self.running.pop(name, None)
        return self._was_wrong(name, problem)

    def _expected_md5_of(self, path: Path) -> str | None:
        """The MD5 that a file under its final name has to have; None if that is not known."""
        is_known = self._config.verify == "md5" and (
            self._md5_of_any_form or not is_tar_name(path.name) or is_packed(path)
        )
        return self._md5.get(path.name) if is_known else None

    def _was_wrong(self, name: str, problem: str) -> FileResult:
        path = self._folder / name
        problem = self._transport.secrets_of(self._links[name].url).clean(problem)
        return FileResult(
            name=name,
            status="failed",
            reason=f"was there before this download and is wrong: {problem}. Move {path} away and "
            "run the same command again",
        )

    def fetch(self, link: Link) -> FileResult:
        name = link.name
        if self._stopped.is_set():
            return self.not_finished(name)
        fetch = None
        status: Literal["expired", "failed"] = "failed"
        try:
            fetch = Fetch(
                link,
                self._folder,
                transport=self._transport,
                config=self._config,
                limit=self._limit,
                expected_md5=self._md5.get(name),
                checked=self.checked,
                stop=self._stopped,
                note=lambda text: self._say(Note(name, text)),
            )
            self.running[name] = fetch.progress
            checked_by = fetch.run()
            return FileResult(
                name=name, status="done", fetched=fetch.progress.fetched, checked_by=checked_by
            )
        except Stopped:
            return replace(self.not_finished(name), fetched=fetch.progress.fetched if fetch else 0)
        except files.DiskFull as error:
            return replace(self._full(name, error), fetched=fetch.progress.fetched if fetch else 0)
        except LinkExpired as error:
            status, reason = "expired", str(error)
        except (TransferError, OSError) as error:
            reason = str(error)
        except Exception as error:
            said = self._transport.secrets_of(link.url).clean(str(error))
            reason = f"unexpected {type(error).__name__}: {said}"
        finally:
            self.running.pop(name, None)
        return FileResult(
            name=name, status=status, fetched=fetch.progress.fetched if fetch else 0, reason=reason
        )

    def remember(self, result: FileResult) -> None:
        """Records what a whole file has passed."""
        if result.checked_by in ("md5", "size"):
            md5 = self._md5[result.name] if result.checked_by == "md5" else None
            self.checked.remember(result.name, result.checked_by, md5)

    def not_finished(self, name: str) -> FileResult:
        why = "not finished because the disk is full" if self._is_disk_full else "not finished"
        return FileResult(name=name, status="failed", reason=f"{why}; its bytes so far are kept")

    def _full(self, name: str, error: files.DiskFull) -> FileResult:
        """Ends the run."""
        self._is_disk_full = True
        self.stop()
        reason = f"{error.strerror}; its bytes so far are kept"
        return FileResult(name=name, status="failed", reason=reason)

    def _stop_if_told(self) -> None:
        if self._stopped.is_set():
            raise Stopped("stopped")
