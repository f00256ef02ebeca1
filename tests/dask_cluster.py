"""A Dask cluster on loopback: a scheduler and workers, each started as a user starts them."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import psutil

from tests.downloading import wait_for


class Cluster:
    """One scheduler and `workers` worker processes, each with a nanny that starts it again.

    Attributes:
      address: of the scheduler.
      folders: in which the workers were started.
    """

    def __init__(self, folder: pathlib.Path, workers: int, tries: int = 4):
        self._folder = folder
        # Of a task whose workers die.
        self._environment = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(tries - 1)}
        found = folder / "scheduler.json"
        words = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(found)]
        self.scheduler = self._start("scheduler", *words, "--no-dashboard")
        wait_for(lambda: found.exists() and found.read_text().endswith("}"))
        self.address = json.loads(found.read_text())["address"]
        self.folders = [folder / f"worker{number}" for number in range(workers)]
        self._nannies = [self._worker(place) for place in self.folders]

    def workers(self) -> list[psutil.Process]:
        """The processes that run tasks now."""
        found = []
        for nanny in self._nannies:
            with contextlib.suppress(psutil.NoSuchProcess):
                found += [
                    child
                    for child in psutil.Process(nanny.pid).children()
                    if "resource_tracker" not in " ".join(child.cmdline())
                ]
        return found

    def worker_that_reads(self, path: pathlib.Path) -> psutil.Process:
        """Waits for the worker that has a file open."""
        found: list[psutil.Process] = []

        def is_read() -> bool:
            for worker in self.workers():
                with contextlib.suppress(psutil.Error):
                    if any(file.path == str(path) for file in worker.open_files()):
                        found.append(worker)
            return bool(found)

        wait_for(is_read)
        return found[0]

    def close(self) -> None:
        """Ends all processes, the nannies before the workers that they would start again."""
        workers = self.workers()
        for process in [*self._nannies, self.scheduler, *workers]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for process in [*self._nannies, self.scheduler]:
            process.wait()

    def _worker(self, place: pathlib.Path) -> subprocess.Popen:
        place.mkdir()
        words = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(place)]
        return self._start("worker", self.address, *words, cwd=place)

    def _start(self, *words: str, cwd: pathlib.Path | None = None) -> subprocess.Popen:
        root = str(pathlib.Path(__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            cwd=cwd or self._folder,
            env={**os.environ, **self._environment, "PYTHONPATH": root},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "log").open("ab"),
        )
