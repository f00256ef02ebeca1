"""Many files: from a selection of links to checked tars in a folder. No terminal, no TensorFlow.

One thread, the caller's, decides and reports. `workers` threads do the rest (`transfer/jobs.py`).
"""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from sa1b_tfds.core import files
from sa1b_tfds.core.lock import lock_folder
from sa1b_tfds.core.text import counted
from sa1b_tfds.download.links import Link, LinksError, Selection
from sa1b_tfds.download.transfer.crew import Crew
from sa1b_tfds.download.transfer.expiry import ExpiryNotes
from sa1b_tfds.download.transfer.folder import remove_drafts, remove_strays
from sa1b_tfds.download.transfer.fresh_links import FreshLinks
from sa1b_tfds.download.transfer.jobs import FileJobs, Note
from sa1b_tfds.download.transfer.plan import DownloadPlan, PlannedFile, SelectionTooLarge
from sa1b_tfds.download.transfer.report import DownloadReporter, FileResult
from sa1b_tfds.download.transfer.settings import TransferConfig, Verify

_TICK_S = 0.2
# How long a Ctrl-C waits for threads that no signal reaches, such as one whose host does not
# answer. They are daemons, and look at the stop flag before they touch a file.
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
    reporter: DownloadReporter | None = None,
) -> list[FileResult]:
    """Downloads what was selected. Run again, it continues where it was.

    A file appears under its name only when it is whole, checked and synced. A file that fails does
    not stop the others; only a full disk ends the run, and then all bytes are kept.

    Args:
      links: from `links.select`, or the links themselves.
      output_dir: where the files go. Made if it is missing.
      workers, max_rate, retries, timeout, speed_limit, speed_time, proxy, headers, verify, unpack,
        backoff: see `TransferConfig`.
      md5: MD5 by file name, of tars in either form. Defaults to the community's table that comes
        with the package, of the compressed tars that Meta serves.
      refresh_wait: when links have expired, wait until the links file changes and go on.
      reporter: receives progress. Without one nothing is printed.

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
    reporter = reporter or DownloadReporter()
    with contextlib.closing(reporter), lock_folder(folder, "sa1b download"):
        return _Run(selection, folder, config, md5, refresh_wait, reporter).to_the_end()


def plan_download(
    selection: Selection,
    output_dir: str | Path,
    *,
    config: TransferConfig | None = None,
    md5: Mapping[str, str] | None = None,
) -> DownloadPlan:
    """What `download` would do, with sizes asked of the server. Writes nothing, takes no lock."""
    run = _Run(
        selection, Path(output_dir), config or TransferConfig(), md5, False, DownloadReporter()
    )
    with run.crew_at_work():
        return run.plan()


class _Run:
    """One call of `download`: what its caller's thread does."""

    def __init__(
        self,
        selection: Selection,
        folder: Path,
        config: TransferConfig,
        md5: Mapping[str, str] | None,
        refresh_wait: bool,
        reporter: DownloadReporter,
    ):
        self._selection = selection
        self._links = {link.name: link for link in selection.links}
        self._folder = folder
        self._config = config
        self._refresh_wait = refresh_wait
        self._reporter = reporter
        self._jobs = FileJobs(self._links, folder, config, md5, lambda note: self._crew.say(note))
        self._fetched: collections.Counter[str] = collections.Counter()
        self._results: dict[str, FileResult] = {}

    @contextlib.contextmanager
    def crew_at_work(self) -> Iterator[None]:
        self._crew = Crew(self._config.workers)
        try:
            yield
        finally:
            # Also after a Ctrl-C: what can be interrupted is, and nobody writes from here on.
            self._jobs.stop()
            self._crew.leave(_PATIENCE_S)
            self._jobs.close()

    def to_the_end(self) -> list[FileResult]:
        remove_drafts(self._folder)
        with self.crew_at_work():
            self._reporter.note(f"asking for the sizes of {counted(len(self._links), 'file')}")
            plan = self.plan()
            if plan.needed > plan.free:
                raise SelectionTooLarge(plan, self._folder)
            self._reporter.planned(plan)
            self._work_off(plan)
        return [self._results[name] for name in self._selection.names]

    def plan(self) -> DownloadPlan:
        for link in self._links.values():
            self._crew.submit(functools.partial(self._jobs.plan, link))
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
        return DownloadPlan(
            files=tuple(planned[name] for name in self._selection.names),
            free=files.free_bytes(self._folder) or 0,  # a local folder: never None
            workers=self._config.workers,
        )

    def _work_off(self, plan: DownloadPlan) -> None:
        expiry = ExpiryNotes(plan, self._config.max_rate)
        for note in expiry.at_start():
            self._reporter.note(note)
        ended = []
        for file in plan.files:
            if file.action in ("fetch", "continue"):
                self._crew.submit(functools.partial(self._jobs.fetch, self._links[file.name]))
            elif file.action == "check":
                self._crew.submit(functools.partial(self._jobs.check, file.name))
            elif file.action == "unpack":
                self._crew.submit(functools.partial(self._jobs.unpack, file.name))
            elif file.action == "present":
                checked_by = self._jobs.checked.checked_by(file.name) or "none"
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
            elif isinstance(news, Note):
                self._reporter.note(news.text, news.name)
            if fresh_links is not None:
                self._go_on_with(fresh_links)
            running = list(self._jobs.running.values())
            self._reporter.running(running)
            for note in expiry.at_real_speed(running, self._results):
                self._reporter.note(note)

    def _end(self, result: FileResult, fresh_links: FreshLinks | None) -> None:
        self._fetched[result.name] += result.fetched
        if result.status == "expired" and fresh_links is not None and not self._jobs.is_stopped:
            fresh_links.wait_for(result.name)
            self._reporter.note(
                f"{result.reason}; waiting for a fresh {self._selection.source}", result.name
            )
            return
        result = replace(result, fetched=self._fetched[result.name])
        if result.is_whole:
            remove_strays(self._folder, result.name)
            self._jobs.remember(result)
        self._results[result.name] = result
        self._reporter.ended(result)

    def _go_on_with(self, fresh_links: FreshLinks) -> None:
        if self._jobs.is_stopped:
            for name in fresh_links.give_up():
                self._end(self._jobs.not_finished(name), None)
            return
        try:
            renewed = fresh_links.look()
        except (OSError, LinksError) as error:
            self._reporter.note(f"{error} Waiting for it to change.")
            return
        for link in renewed:
            self._reporter.note("has a fresh link", link.name)
            self._crew.submit(functools.partial(self._jobs.fetch, link))
