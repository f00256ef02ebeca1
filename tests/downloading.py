"""What the tests of downloading share: a run in this process, and the command in one of its own."""

import hashlib
import os
import subprocess
import sys
import time

from sa1b_tfds.core.processes import available_cores
from sa1b_tfds.core.progress import Reporter
from sa1b_tfds.download.download import download
from sa1b_tfds.download.links import parse_links, select
from sa1b_tfds.tars.names import tar_number
from tests import forked
from tests.fault_server import form_of_slow, make_tar, slow_tar

NAME = "sa_000000.tar"
NAMES = [f"sa_{number:06d}.tar" for number in range(3)]
PLAIN = make_tar(0, form="plain")
TAR = make_tar(0)
HALF = len(TAR) // 2


class Notes(Reporter):
    """Keeps the notes, and calls a function with each."""

    def __init__(self, on_note=lambda text: None):
        self.texts = []
        self._on_note = on_note

    def note(self, text, name=None):
        self.texts.append(f"{name}: {text}" if name else text)
        self._on_note(text)


def md5_of(data):
    return hashlib.md5(data).hexdigest()


def beside(folder):
    """What is in a folder beside the first tar, the lock and the record."""
    return {path.name for path in folder.iterdir()} - {NAME, ".sa1b.lock", ".sa1b.json"}


def slow_files(number=3):
    """Tars that take a while to unpack."""
    return {f"sa_{n:06d}.tar": slow_tar(n) for n in range(number)}


def write_slow(folder, number=3):
    folder.mkdir(exist_ok=True)
    for name, data in slow_files(number).items():
        (folder / name).write_bytes(data)
    return folder


def forms_of_slow(folder):
    """'g' or 'p' for each of the slow tars, each of which must be whole."""
    paths = sorted(folder.glob("sa_*.tar"))
    return "".join(form_of_slow(tar_number(path.name), path) for path in paths)


def fetch_all(server, folder, *, key="1", **settings):
    settings = {"retries": 3, "timeout": 5.0, "backoff": 0.01, **settings}
    settings.setdefault("md5", {n: md5_of(d) for n, d in server.files.items()})
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
        "".join(f"{md5_of(data)}  {n}\n" for n, data in server.files.items())
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
