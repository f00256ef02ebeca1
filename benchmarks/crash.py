"""Kills builds (-9, the whole tree) at random moments until they got through, and compares.

python benchmarks/crash.py [--kills 20] [--seed 0]

Every finished tar must outlive each kill untouched, and the shards in the end must have the bytes
of a build that was left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import random
import shutil
import sys
import tempfile
import time

import psutil

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from tests import building


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        tars = building.write_large_tars(root, tars=8, images=150)
        began = time.monotonic()
        _finish(tars, root / "calm")
        took = time.monotonic() - began
        expected = building.shards_of(root / "calm" / building.FINAL)
        data, kills, outlived, builds = root / "data", 0, 0, 1
        while kills < options.kills:
            before = _finished(data)
            build = building.start(tars, data, num_workers=rng.randint(1, 3))
            time.sleep(rng.uniform(0, took))
            kills += _kill(build)
            if (data / building.FINAL).exists():
                # What was killed in its last moments must be whole too.
                _require(building.shards_of(data / building.FINAL) == expected, "other bytes")
                shutil.rmtree(data)
                builds += 1
                continue
            kept = before.items() <= _finished(data).items()
            _require(kept, "a finished tar was lost or redone")
            outlived += len(before)
        done = len(_finished(data))
        redone = _finish(tars, data).count(": done") - (len(expected) - done)
        _require(redone == 0, f"{redone} finished tars were redone")
        _require(building.shards_of(data / building.FINAL) == expected, "other bytes")
        _require(building.leftovers(data) == [], "something is left over")
        print(
            f"{kills} kills in {builds} builds of {len(expected)} tars: bytes as undisturbed;"
            f" finished tars outlived a kill {outlived} times, none was redone"
        )
        print(f"ratio: {outlived / kills:.2f}")  # finished tars that a kill met


def _finished(data: pathlib.Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (data / building.STAGED).glob("*.json")}


def _finish(tars: pathlib.Path, data: pathlib.Path) -> str:
    build = building.start(tars, data, num_workers=2)
    log = build.communicate()[1]
    _require(build.returncode == 0, log)
    return log


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(otherwise)


def _kill(build: building.subprocess.Popen) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [psutil.Process(build.pid)]
        tree += tree[0].children(recursive=True)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    build.communicate()
    return build.returncode == -9


if __name__ == "__main__":
    main()
