"""What the tests of downloading share: a run in this process, and the command in one of its own."""

import hashlib
import os
import subprocess
import sys
import time

from sa1b_tfds.core.processes import available_cores
from sa1b_tfds.download.download import download
from sa1b_tfds.download.links import parse_links, select
from sa1b_tfds.download.transfer.report import Reporter
from tests import forked


class Notes(Reporter):
    def __init__(self):
        self.texts = []

    def note(self, text, name=None):
        self.texts.append(f"{name}: {text}")


def fetch_all(server, folder, *, key="1", **settings):
    settings = {"retries": 3, "timeout": 5.0, "backoff": 0.01, **settings}
    settings.setdefault("md5", {n: hashlib.md5(d).hexdigest() for n, d in server.files.items()})
    return download(select(parse_links(server.links_text(key=key))), folder, **settings)


def in_an_interpreter(*arguments):
    return [sys.executable, *map(str, arguments)]


def sa1b(*arguments, command=forked.command, **kwargs):
    return subprocess.Popen(
        command("-m", "sa1b_tfds", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def write_inputs(server, folder, key="1"):
    (folder / "links.txt").write_text(server.links_text(key=key))
    (folder / "md5.txt").write_text(
        "".join(f"{hashlib.md5(data).hexdigest()}  {n}\n" for n, data in server.files.items())
    )
    return (
        *("download", "--links-file", folder / "links.txt", "--output-dir", folder / "out"),
        *("--md5-file", folder / "md5.txt"),
    )


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def as_if_alone(seconds):
    """A limit of so many seconds on an idle machine, for this one: others may have its cores."""
    return seconds * (1 + os.getloadavg()[0] / available_cores())


def wait_for_or_end(condition, process):
    wait_for(lambda: condition() or process.poll() is not None)


def check_nothing_twice(requests, kept, whole):
    for request in requests:
        assert request.name not in whole
        assert request.start >= kept.get(request.name, 0) or request.sent == 0, request
