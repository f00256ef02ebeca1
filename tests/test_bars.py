"""What a run prints: bars on a terminal, and lines elsewhere, of downloads and of tasks."""

import io
import logging
import re
import time
from types import SimpleNamespace

import pytest

from sa1b_tfds.core import bars, progress
from sa1b_tfds.core.running.progress import TaskProgress
from sa1b_tfds.core.running.workers import Ended, Fetching, Running
from sa1b_tfds.download.transfer.plan import DownloadPlan, PlannedFile
from sa1b_tfds.download.transfer.progress import DownloadTally, OneFileReporter
from sa1b_tfds.download.transfer.report import FileProgress, FileResult


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[io.StringIO, Terminal])
def stream(request):
    return request.param()


def task(name, size=10**6):
    return SimpleNamespace(name=name, expected_bytes=lambda: size)


def last_drawn(stream):
    """What the last bar for all shows."""
    return re.split(r"[\r\n]", stream.getvalue().rstrip())[-1]


def test_bars_take_free_rows_and_end():
    shown = bars.Bars(io.StringIO())
    shown.move_all(1, 2, "too early, and no error")
    shown.begin("all", 100)
    for name in "abc":
        shown.move(name, 0, 10)
    shown.end("b")
    shown.end("b")
    shown.move("d", 5, None, "checking")
    assert {name: -bar.pos for name, bar in shown._bars.items()} == {"a": 1, "c": 3, "d": 2}
    assert (shown._bars["d"].desc, shown._bars["d"].n) == ("d checking", 5)
    shown.begin("again", 50)
    assert shown.names == set()
    shown.close()


@pytest.mark.parametrize("before", ["", "b.tar: ", "in/b.tar: ", "b: "])
def test_a_run_of_tasks(stream, before):
    reporter = progress.reporter_for_people(stream)
    assert isinstance(reporter, progress.BarReporter) == stream.isatty()
    tasks = [task("a.tar"), task("b.tar")]
    for _ in range(2):  # a conversion may have several rounds
        run = TaskProgress(reporter, tasks)
        run.handle(Fetching(tasks[0], 200_000, 800_000))
        run.handle(Running(tasks[0], 3, 500_000))
        run.handle(Ended(tasks[0], None))
        run.handle(Ended(tasks[1], ValueError(f"{before}broken")))
    reporter.close()
    told = stream.getvalue()
    assert told.count("a.tar: done") == 2
    assert told.count("b.tar: failed: broken") == 2
    assert told.count("broken") == 2
    assert ("2 tars, 2.0 MB to do" in told) != stream.isatty()
    assert ("a.tar download:  25%" in told) == stream.isatty()
    assert ("images/s, 1 of 2 tars done, 1 failed" in told) == stream.isatty()
    assert "left" not in told  # the line that says how far it is has its time


def test_what_failed_leaves_the_bar_where_it_was():
    stream = Terminal()
    reporter = progress.reporter_for_people(stream)
    tasks = [task("a.tar"), task("b.tar")]
    run = TaskProgress(reporter, tasks)
    run.handle(Ended(tasks[0], None))
    run.handle(Running(tasks[1], 0, 500_000))
    run.handle(Ended(tasks[1], ValueError("broken")))
    reporter.close()
    assert "2 tars:  75%" in last_drawn(stream)
    assert "1 of 2 tars done, 1 failed" in last_drawn(stream)
    assert "100%" not in stream.getvalue()


@pytest.mark.parametrize("pause", [0.05, 0.3])
def test_the_last_rate_is_that_of_the_whole_run(monkeypatch, pause):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = Terminal()
    reporter = progress.reporter_for_people(stream)
    run = TaskProgress(reporter, [task("a.tar")])
    for images in (3, 32):
        now[0] += 0.5
        time.sleep(pause)  # a bar is drawn ten times a second at most
        run.handle(Running(task("a.tar"), images, images * 10_000))
    run.handle(Ended(task("a.tar"), None))
    reporter.close()
    assert "32 images/s, 1 of 1 tar done" in last_drawn(stream)


def test_lines_say_how_far_a_run_is(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 0.0)
    stream = io.StringIO()
    run = TaskProgress(progress.reporter_for_people(stream), [task("a.tar"), task("b.tar")])
    now[0] += 10
    run.handle(Running(task("a.tar"), 50, 500_000))
    assert (
        stream.getvalue()
        .splitlines()[-1]
        .endswith(
            " 5 images/s, 0 of 2 tars done, 500.0 kB of 2.0 MB, 50.0 kB/s, 00:30 left, 1 running"
        )
    )


def test_where_one_file_is():
    told = []
    reporter = OneFileReporter(lambda *where: told.append(where))
    reporter.running([FileProgress(name="a.tar", position=3, size=10)])
    assert told == [(3, 10)]


def test_what_is_logged_meanwhile_is_a_line_above_the_bars(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    before = [*logging.root.handlers, logging.StreamHandler(stream)]
    monkeypatch.setattr(logging.root, "handlers", before)
    reporter = progress.reporter_for_people()
    run = TaskProgress(reporter, [task("a.tar")])
    run.handle(Running(task("a.tar"), 3, 500_000))
    logging.warning("a.tar is deleted")
    reporter.close()
    drawn_again = stream.getvalue().partition("a.tar is deleted\n")[2]
    assert drawn_again.count("a.tar:  50%") == 1
    assert logging.root.handlers == before


def test_a_download(stream):
    reporter = progress.reporter_for_people(stream)
    tally = DownloadTally(reporter)
    tally.note("asking")
    file = PlannedFile(name="a.tar", action="fetch", size=10**6)
    tally.planned(DownloadPlan(files=(file,), free=10**9))
    going = FileProgress(name="a.tar", position=400_000, fetched=400_000, size=10**6)
    tally.running([going])
    going.phase = "checking"
    tally.running([going])
    going.phase, going.inflated = "unpacking", 370_000
    tally.running([going])
    if stream.isatty():
        assert reporter._bars._bars["a.tar"].desc == "a.tar unpacking 37%"
    tally.ended(FileResult(name="a.tar", status="done", fetched=10**6, checked_by="md5"))
    tally.running([])
    tally.close()
    told = stream.getvalue()
    assert "asking" in told
    assert "a.tar: done, checked by md5" in told
    assert ("1 file: 100%" in told) == stream.isatty()
    assert ("1 file, 1.0 MB to do" in told) != stream.isatty()
    assert tally.summary().startswith("1 of 1 file whole (1 downloaded, 0 already there); 1.0 MB")


def test_the_size_of_a_file_may_be_known_late():
    totals = progress.Totals()
    file = PlannedFile(name="a.tar", action="fetch")
    totals.plan(DownloadPlan(files=(file,), free=10**9))
    assert totals.total == 0
    totals.move([FileProgress(name="a.tar", position=5, size=10)])
    assert (totals.position, totals.total) == (5, 10)
    totals.end(FileResult(name="a.tar", status="failed", reason="gone"))
    assert (totals.position, totals.total) == (5, 10)
