"""Many files: from a selection of links to checked tars in a folder. No terminal, no TensorFlow.

One thread, the caller's, decides and reports; `workers` threads fetch (`transfer/fetch.py`).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sa1b_tfds.core import files
from sa1b_tfds.core.lock import lock_folder
from sa1b_tfds.download.check import check_file, md5_problem, unpack_file
from sa1b_tfds.download.checksums import hash_file, read_md5_table
from sa1b_tfds.download.links import Link, LinksError, Selection
from sa1b_tfds.download.transfer.crew import Crew
from sa1b_tfds.download.transfer.expiry import ExpiryNotes
from sa1b_tfds.download.transfer.fetch import Fetch, Progress
from sa1b_tfds.download.transfer.folder import (
    CheckedFiles,
    draft_of,
    remove_drafts,
    remove_strays,
)
from sa1b_tfds.download.transfer.fresh_links import FreshLinks
from sa1b_tfds.download.transfer.plan import Plan, PlannedFile, SelectionTooLarge, plan_file
from sa1b_tfds.download.transfer.report import FileResult, Reporter
from sa1b_tfds.download.transfer.settings import RateLimit, TransferConfig, Verify
from sa1b_tfds.download.transfer.transport import LinkExpired, Stopped, TransferError, Transport
from sa1b_tfds.tars.forms import is_packed
from sa1b_tfds.tars.names import is_tar_name

_TICK_S = 0.2
# What a Ctrl-C waits for threads that no signal reaches (a host that does not answer). They are
# daemons, and look at the stop flag before they touch a file.
_PATIENCE_S = 1.0


def download(
    links: Selection | Iterable[Link],
    output_dir: str | Path,
    *,
    workers: int = 4,
    max_rate: float | None = None,
    retries: int = 10,
    timeout: float = 60.0,
    speed_limit: float = 1000.0,
    speed_time: float = 60.0,
    proxy: str | None = None,
    headers: Mapping[str, str] | None = None,
    verify: Verify = "md5",
    unpack: bool = False,
    backoff: float = 1.0,
    md5: Mapping[str, str] | None = None,
    refresh_wait: bool = False,
    reporter: Reporter | None = None,
) -> list[FileResult]:
    """Downloads what was selected; run again, it continues where it was.

    A file appears under its name only when whole, checked and synced. What happens to one file
    leaves the others alone, except a full disk, which ends the run with everything kept.

    Args:
      links: from `links.select`, or the links themselves.
      output_dir: made if it is not there.
      workers, max_rate, retries, timeout, speed_limit, speed_time, proxy, headers, verify, unpack,
        backoff: see `TransferConfig`.
      md5: MD5 by file name, in whatever form; by default the community's table that comes with the
        package, of the compressed tars that Meta serves.
      refresh_wait: with expired links, wait for the links file to change and go on with it.
      reporter: hears of progress; nothing is printed without one.

    Returns:
      One result a file, in the order of their names, those without a link included.

    Raises:
      SelectionTooLarge: the selection does not fit; nothing was written.
      FolderInUse: another run has the folder.
      ValueError: an argument is not possible.
    """
    config = TransferConfig(
        workers=workers,
        max_rate=max_rate,
        retries=retries,
        timeout=timeout,
        speed_limit=speed_limit,
        speed_time=speed_time,
        proxy=proxy,
        headers=headers or {},
        verify=verify,
        unpack=unpack,
        backoff=backoff,
    )
    selection = links if isinstance(links, Selection) else Selection(links=tuple(links))
    if refresh_wait and selection.source is None:
        raise ValueError("refresh_wait needs links that were read from a file.")
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    reporter = reporter or Reporter()
    with contextlib.closing(reporter), lock_folder(folder, "sa1b download"):
        return _Run(selection, folder, config, md5, refresh_wait, reporter).to_the_end()


def plan_download(
    selection: Selection,
    output_dir: str | Path,
    *,
    config: TransferConfig | None = None,
    md5: Mapping[str, str] | None = None,
) -> Plan:
    """What `download` would do, with sizes asked of the server. Writes nothing, takes no lock."""
    run = _Run(selection, Path(output_dir), config or TransferConfig(), md5, False, Reporter())
    with run.crew_at_work():
        return run.plan()


class _Run:
    """One call of `download`. Tasks for the crew are the methods that end in `_task`."""

    def __init__(
        self,
        selection: Selection,
        folder: Path,
        config: TransferConfig,
        md5: Mapping[str, str] | None,
        refresh_wait: bool,
        reporter: Reporter,
    ):
        self._selection = selection
        self._links = {link.name: link for link in selection.links}
        self._folder = folder
        self._config = config
        self._md5 = read_md5_table() if md5 is None else md5
        self._md5_of_any_form = md5 is not None
        self._refresh_wait = refresh_wait
        self._reporter = reporter
        self._checked = CheckedFiles(folder)
        self._limit = RateLimit(config.max_rate)
        self._transport = Transport(
            connections=config.workers,
            timeout=config.timeout,
            speed_limit=config.speed_limit,
            speed_time=config.speed_time,
            proxy=config.proxy,
            headers=config.headers,
        )
        self._stop = threading.Event()
        self._disk_full = False
        self._running: dict[str, Progress] = {}
        self._fetched: collections.Counter[str] = collections.Counter()
        self._results: dict[str, FileResult] = {}

    @contextlib.contextmanager
    def crew_at_work(self) -> Iterator[None]:
        self._crew = Crew(self._config.workers)
        try:
            yield
        finally:
            # Also after a Ctrl-C: what can be interrupted is, and nobody writes from here on.
            self._stop.set()
            self._transport.abort()
            self._crew.leave(_PATIENCE_S)
            self._transport.close()

    def to_the_end(self) -> list[FileResult]:
        remove_drafts(self._folder)
        with self.crew_at_work():
            self._reporter.note(f"asking for the sizes of {len(self._links)} files")
            plan = self.plan()
            if plan.needed > plan.free:
                raise SelectionTooLarge(plan, self._folder)
            self._reporter.planned(plan)
            self._work_off(plan)
        return [self._results[name] for name in self._selection.names]

    def plan(self) -> Plan:
        for link in self._links.values():
            self._crew.submit(functools.partial(self._plan_task, link))
        planned: dict[str, PlannedFile] = {
            name: PlannedFile(name=name, action="missing", reason="not in the links file")
            for name in self._selection.missing
        }
        while len(planned) < len(self._selection.names):
            news = self._crew.next(_TICK_S)
            if isinstance(news, Exception):
                raise news
            if isinstance(news, PlannedFile):
                planned[news.name] = news
        return Plan(
            files=tuple(planned[name] for name in self._selection.names),
            free=files.free_bytes(self._folder) or 0,  # a local folder: never None
            workers=self._config.workers,
        )

    def _work_off(self, plan: Plan) -> None:
        expiry = ExpiryNotes(plan, self._config.max_rate)
        for note in expiry.at_start():
            self._reporter.note(note)
        ended = []
        for file in plan.files:
            if file.action in ("fetch", "continue"):
                self._crew.submit(functools.partial(self._fetch_task, self._links[file.name]))
            elif file.action == "check":
                self._crew.submit(functools.partial(self._check_task, file.name))
            elif file.action == "unpack":
                self._crew.submit(functools.partial(self._unpack_task, file.name))
            elif file.action == "present":
                checked_by = self._checked.checked_by(file.name) or "none"
                ended.append(FileResult(name=file.name, status="present", checked_by=checked_by))
            elif file.action == "expired":
                ended.append(FileResult(name=file.name, status="expired", reason=file.reason))
            else:
                ended.append(FileResult(name=file.name, status="failed", reason=file.reason))
        fresh_links = (
            FreshLinks(self._selection.source, self._links) if self._refresh_wait else None
        )
        for result in ended:
            self._end(result, fresh_links)
        while len(self._results) < len(plan.files):
            news = self._crew.next(_TICK_S)
            if isinstance(news, FileResult):
                self._end(news, fresh_links)
            elif isinstance(news, _Note):
                self._reporter.note(news.text, news.name)
            if fresh_links is not None:
                self._go_on_with(fresh_links)
            running = list(self._running.values())
            self._reporter.running(running)
            for note in expiry.at_real_speed(running, self._results):
                self._reporter.note(note)

    def _end(self, result: FileResult, fresh_links: FreshLinks | None) -> None:
        self._fetched[result.name] += result.fetched
        if result.status == "expired" and fresh_links is not None and not self._stop.is_set():
            fresh_links.wait_for(result.name)
            self._reporter.note(
                f"{result.reason}; waiting for a fresh {self._selection.source}", result.name
            )
            return
        result = replace(result, fetched=self._fetched[result.name])
        if result.is_whole:
            remove_strays(self._folder, result.name)
            if result.checked_by in ("md5", "size"):
                md5 = self._md5[result.name] if result.checked_by == "md5" else None
                self._checked.remember(result.name, result.checked_by, md5)
        self._results[result.name] = result
        self._reporter.finished(result)

    def _go_on_with(self, fresh_links: FreshLinks) -> None:
        if self._stop.is_set():
            for name in fresh_links.give_up():
                self._end(self._stopped(name), None)
            return
        try:
            renewed = fresh_links.look()
        except (OSError, LinksError) as error:
            self._reporter.note(f"{error} Waiting for it to change.")
            return
        for link in renewed:
            self._reporter.note("has a fresh link", link.name)
            self._crew.submit(functools.partial(self._fetch_task, link))

    def _plan_task(self, link: Link) -> PlannedFile | Exception:
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
                checked=self._checked,
                accept=accept,
                unpack=self._config.unpack,
            )
        except Exception as error:
            return error

    def _check_task(self, name: str) -> FileResult:
        """A file that was there under its final name, and that no run of ours has checked."""
        path = self._folder / name
        expected = self._expected_md5_of(path)
        try:
            digest = hash_file(path, check=self._stop_if_told) if expected else None
            problem = check_file(path, name, digest, expected, lambda _: self._stop_if_told())
        except Stopped:
            return self._stopped(name)
        except Exception as error:
            problem = str(error)
        if problem is None:
            return FileResult(name=name, status="present", checked_by="md5" if expected else "size")
        return self._was_wrong(name, problem)

    def _unpack_task(self, name: str) -> FileResult:
        """A compressed tar that was there under its final name."""
        path = self._folder / name
        expected = self._expected_md5_of(path)
        progress = Progress(name=name, size=path.stat().st_size, phase="unpacking")
        progress.position = path.stat().st_size
        self._running[name] = progress

        def on_inflated(size: int) -> None:
            progress.inflated = size
            self._stop_if_told()

        try:
            problem = None
            if expected and self._checked.md5(name) != expected:
                problem = md5_problem(hash_file(path, check=self._stop_if_told), expected)
            with files.full_disk_named(f"while writing {draft_of(path)}"):
                problem = problem or unpack_file(path, name, draft_of(path), on_inflated)
            if problem is None:
                checked_by = "md5" if expected else "size"
                self._checked.put_unpacked(path, path, checked_by, expected)
                self._crew.say(_Note(name, "was already there, and is unpacked now"))
                return FileResult(name=name, status="present", checked_by=checked_by)
        except Stopped:
            return self._stopped(name)
        except files.DiskFull as error:
            return self._full(name, error)
        except Exception as error:
            problem = str(error)
        finally:
            self._running.pop(name, None)
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

    def _fetch_task(self, link: Link) -> FileResult:
        name = link.name
        if self._stop.is_set():
            return self._stopped(name)
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
                checked=self._checked,
                stop=self._stop,
                note=lambda text: self._crew.say(_Note(name, text)),
            )
            self._running[name] = fetch.progress
            checked_by = fetch.run()
            return FileResult(
                name=name, status="done", fetched=fetch.progress.fetched, checked_by=checked_by
            )
        except Stopped:
            return replace(self._stopped(name), fetched=fetch.progress.fetched if fetch else 0)
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
            self._running.pop(name, None)
        return FileResult(
            name=name, status=status, fetched=fetch.progress.fetched if fetch else 0, reason=reason
        )

    def _stopped(self, name: str) -> FileResult:
        why = "not finished because the disk is full" if self._disk_full else "not finished"
        return FileResult(name=name, status="failed", reason=f"{why}; its bytes so far are kept")

    def _full(self, name: str, error: files.DiskFull) -> FileResult:
        """Ends the run."""
        self._disk_full = True
        self._stop.set()
        self._transport.abort()
        reason = f"{error.strerror}; its bytes so far are kept"
        return FileResult(name=name, status="failed", reason=reason)

    def _stop_if_told(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped")


@dataclass(frozen=True)
class _Note:
    name: str
    text: str
