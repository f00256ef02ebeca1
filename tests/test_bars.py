"""Bars on a terminal, and plain lines elsewhere, of downloads and of tasks in processes."""

import io
import logging
from types import SimpleNamespace

import pytest

from sa1b_tfds.core import bars
from sa1b_tfds.core.running import progress as running
from sa1b_tfds.core.running.workers import Ended, Fetching, Running
from sa1b_tfds.download.transfer import progress as transfer
from sa1b_tfds.download.transfer.plan import DownloadPlan, PlannedFile
from sa1b_tfds.download.transfer.report import FileProgress, FileResult


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[io.StringIO, Terminal])
def stream(request):
    return request.param()


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


@pytest.mark.parametrize("error", ["", "b.tar: "])
def test_a_run_of_tasks(stream, error):
    reporter = running.reporter_for_people("tars", stream)
    assert isinstance(reporter, running.Bars) == stream.isatty()
    tasks = [
        SimpleNamespace(name=name, expected_bytes=lambda: 10**6) for name in ("a.tar", "b.tar")
    ]
    for _ in range(2):  # a conversion may have several rounds
        reporter.planned(tasks)
        reporter.hear(Fetching(tasks[0], 200_000, 800_000))
        reporter.hear(Running(tasks[0], 3, 500_000))
        reporter.hear(Ended(tasks[0], None))
        reporter.hear(Ended(tasks[1], ValueError(f"{error}broken")))
    reporter.close()
    told = stream.getvalue()
    assert told.count("a.tar: done") == 2
    assert told.count("b.tar: broken") == 2
    assert "b.tar: b.tar" not in told
    assert told.count("2 of 2 tars") == 0  # the line that says how far it is has its time
    assert ("2 tars: 100%" in told) == stream.isatty()
    assert ("a.tar:  25%" in told) == stream.isatty()
    assert ("images/s, 2 done" in told) == stream.isatty()
    assert "left" not in told  # the bar itself has the time that is left


def test_where_one_file_is():
    told = []
    reporter = transfer.OfOneFile(lambda *where: told.append(where))
    reporter.running([FileProgress(name="a.tar", position=3, size=10)])
    assert told == [(3, 10)]


def test_what_is_logged_meanwhile_is_a_line_above_the_bars(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    before = [*logging.root.handlers, logging.StreamHandler(stream)]
    monkeypatch.setattr(logging.root, "handlers", before)
    reporter = running.reporter_for_people()
    task = SimpleNamespace(name="a.tar", expected_bytes=lambda: 10**6)
    reporter.planned([task])
    reporter.hear(Running(task, 3, 500_000))
    logging.warning("a.tar is deleted")
    reporter.close()
    drawn_again = stream.getvalue().partition("a.tar is deleted\n")[2]
    assert drawn_again.count("a.tar:  50%") == 1
    assert logging.root.handlers == before


def test_a_download(stream):
    reporter = transfer.reporter_for_people(stream)
    assert isinstance(reporter, transfer.Bars) == stream.isatty()
    reporter.note("asking")
    file = PlannedFile(name="a.tar", action="fetch", size=10**6)
    reporter.planned(DownloadPlan(files=(file,), free=10**9))
    going = FileProgress(name="a.tar", position=400_000, fetched=400_000, size=10**6)
    reporter.running([going])
    going.phase = "checking"
    reporter.running([going])
    going.phase, going.inflated = "unpacking", 370_000
    reporter.running([going])
    if stream.isatty():
        assert reporter._bars._bars["a.tar"].desc == "a.tar unpacking 37%"
    reporter.finished(FileResult(name="a.tar", status="done", fetched=10**6, checked_by="md5"))
    reporter.running([])
    reporter.close()
    told = stream.getvalue()
    assert "asking" in told
    assert "a.tar: done, checked by md5" in told
    assert ("1 files: 100%" in told) == stream.isatty()
    assert reporter.summary().startswith("1 of 1 whole (1 downloaded, 0 already there); 1.0 MB")
