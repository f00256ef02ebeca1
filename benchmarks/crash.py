"""Kills builds, unpack and download --unpack (-9, the whole tree) at random moments, and compares.

python benchmarks/crash.py [--of build build-gzip unpack download] [--kills 20] [--seed 0]

Each is killed so many times, and begun anew whenever it got through. Every finished tar must
outlive each kill untouched, and in the end there must be the bytes of a run that was left alone,
and nothing else. A download runs over loopback, and must not fetch a byte again that it has.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import psutil

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from tests import building
from tests.downloading import check_nothing_twice, write_inputs
from tests.fault_server import FaultServer, packed

TARS = 8


class Build:
    """`finished` are the tars that are staged. They are those of the folder, in whatever form."""

    def __init__(self, root: pathlib.Path, tars: pathlib.Path, workers: tuple[int, int]):
        self._tars = tars
        self._workers = workers
        self._data = root / "data"

    def start(self, rng: random.Random) -> subprocess.Popen[Any]:
        return building.start(self._tars, self._data, num_workers=rng.randint(*self._workers))

    def finished(self) -> dict[str, int]:
        return _times(self._data / building.STAGED, "*.json")

    def bytes_of_all(self) -> Mapping[str, str] | None:
        """MD5s of what came of it, None before it is through."""
        final = self._data / building.FINAL
        return building.shards_of(final) if final.exists() else None

    def leftovers(self) -> list[str]:
        return building.leftovers(self._data)

    def reset(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)

    def close(self) -> None:
        self.reset()


class Unpack:
    """`finished` are the plain tars; each tar is whole at all times, in one of its two forms."""

    def __init__(self, root: pathlib.Path, packed_tars: pathlib.Path):
        self._folder = root / "unpacked"
        self._packed = {path.name: path.read_bytes() for path in packed_tars.iterdir()}
        self._plain = {name: _md5(gzip.decompress(tar)) for name, tar in self._packed.items()}

    def start(self, rng: random.Random) -> subprocess.Popen[Any]:
        if not self._folder.exists():
            self._folder.mkdir()
            for name, tar in self._packed.items():
                (self._folder / name).write_bytes(tar)
        return _sa1b("unpack", self._folder, "--workers", "2")

    def finished(self) -> dict[str, int]:
        times = _times(self._folder, "*.tar")
        for name in list(times):
            data = (self._folder / name).read_bytes()
            if data == self._packed[name]:
                del times[name]
            else:
                _require(_md5(data) == self._plain[name], f"{name} is neither form of it")
        return times

    def bytes_of_all(self) -> Mapping[str, str] | None:
        return self._plain if len(self.finished()) == len(self._plain) else None

    def leftovers(self) -> list[str]:
        return sorted({path.name for path in self._folder.iterdir()} - {*self._plain, *_OWN})

    def reset(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        self.reset()


class Download(Unpack):
    """The same of `download --unpack`, where a tar is there when it is plain."""

    def __init__(self, root: pathlib.Path, packed_tars: pathlib.Path):
        super().__init__(root, packed_tars)
        self._folder = root / "out"
        size = max(map(len, self._packed.values()))
        self._server = FaultServer(self._packed, bytes_per_second=2 * size)
        self._command = (*write_inputs(self._server, root), "--unpack", "--workers", "2")
        self._kept: dict[str, int] = {}

    def start(self, rng: random.Random) -> subprocess.Popen[Any]:
        self._kept = {p.name[:-5]: p.stat().st_size for p in self._folder.glob("*.tar.part")}
        self._seen = len(self._server.requests)
        self._whole = set(_times(self._folder, "*.tar"))
        return _sa1b(*self._command)

    def finished(self) -> dict[str, int]:
        requests = self._server.requests[self._seen :] if self._folder.exists() else []
        check_nothing_twice(requests, self._kept, self._whole if requests else set())
        times = super().finished()
        _require(times.keys() == _times(self._folder, "*.tar").keys(), "a tar is not plain")
        return times

    def close(self) -> None:
        super().close()
        self._server.__exit__()


_OWN = (".sa1b.json", ".sa1b.lock")
_KINDS = {
    "build": lambda root, plain, packed_tars: Build(root, plain, (1, 3)),
    "build-gzip": lambda root, plain, packed_tars: Build(root, packed_tars, (2, 2)),
    "unpack": lambda root, plain, packed_tars: Unpack(root, packed_tars),
    "download": lambda root, plain, packed_tars: Download(root, packed_tars),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--of", nargs="+", choices=_KINDS, default=list(_KINDS), metavar="KIND")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "plain").mkdir()
        (root / "gzip").mkdir()
        plain = building.write_large_tars(root / "plain", tars=TARS, images=150)
        for tar in plain.iterdir():
            (root / "gzip" / tar.name).write_bytes(packed(tar.read_bytes()))
        kills = outlived = 0
        for kind in options.of:
            task = _KINDS[kind](root, plain, root / "gzip")
            outlived += _kill_and_compare(kind, task, options.kills, rng)
            kills += options.kills
            task.close()
        print(f"ratio: {outlived / kills:.2f}")  # finished tars that a kill met


def _kill_and_compare(kind: str, task: Any, kills: int, rng: random.Random) -> int:
    """Returns how often a finished tar outlived a kill."""
    began = time.monotonic()
    _finish(task, rng)
    took = time.monotonic() - began
    expected = task.bytes_of_all()
    task.reset()
    killed, outlived, runs = 0, 0, 1
    while killed < kills:
        before = task.finished()
        process = task.start(rng)
        time.sleep(rng.uniform(0, took))
        killed += _kill(process)
        if (found := task.bytes_of_all()) is not None:
            # What was killed in its last moments must be whole too.
            _require(found == expected, "other bytes")
            task.reset()
            runs += 1
            continue
        kept = before.items() <= task.finished().items()
        _require(kept, "a finished tar was lost or redone")
        outlived += len(before)
    done = len(task.finished())
    redone = _finish(task, rng).count(": done") - (TARS - done)
    _require(redone == 0, f"{redone} finished tars were redone")
    _require(task.bytes_of_all() == expected, "other bytes")
    _require(task.leftovers() == [], f"left over: {task.leftovers()}")
    print(
        f"{kind}: {killed} kills in {runs} runs over {TARS} tars: bytes as undisturbed;"
        f" finished tars outlived a kill {outlived} times, none was redone",
        flush=True,
    )
    return outlived


def _finish(task: Any, rng: random.Random) -> str:
    process = task.start(rng)
    log = process.communicate()[1]
    _require(process.returncode == 0, log)
    return log


def _sa1b(*arguments: object) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        [sys.executable, "-m", "sa1b_tfds", *map(str, arguments)],
        cwd=pathlib.Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _times(folder: pathlib.Path, pattern: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(otherwise)


def _kill(process: subprocess.Popen[Any]) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(process.pid)]
        tree += tree[0].children(recursive=True)
        for part in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                part.kill()
    process.communicate()
    return process.returncode == -9


if __name__ == "__main__":
    main()
