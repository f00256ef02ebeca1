"""The process of one contestant: prepares its data, or makes batches when it is asked.

    python -m loaders.process prepare DATA TARS FOLDER
    python -m loaders.process read NAME FOLDER

It answers in lines of JSON on standard output; what libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from loaders import BATCH, IMAGE, LOADERS, MASK, MASKS, PREPARATIONS

_SHAPES = {"masks": (MASK, MASK), "points": (1, 2), "boxes": (4,)}  # of each mask
_READY = 0.005  # seconds: a batch that comes within them was made before it was asked for


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers)

    action, name, *folders = sys.argv[1:]
    if action == "prepare":
        prepare = _found(PREPARATIONS[name])
        began = time.perf_counter()
        prepare(*map(pathlib.Path, folders))
        answer(seconds=time.perf_counter() - began)
        return
    loader = LOADERS[name]
    stream = _found(loader.batches)(pathlib.Path(folders[0]))
    _check(next(stream))
    answer(version=importlib.metadata.version(loader.package))
    for line in sys.stdin:
        answer(**_turn(stream, float(line), loader.slow))
    if hasattr(stream, "close"):  # ends the workers
        stream.close()


def _found(name: str) -> Callable:
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"loaders.{module}"), function)


def _turn(stream: Iterator[dict[str, Any]], seconds: float, slow: bool) -> dict[str, float]:
    """Images, seconds and CPU seconds of a turn; an even number of batches, as of two workers."""
    _drain(stream, 1 if slow else 3)
    count, began, cpu = 0, time.perf_counter(), _cpu()
    while count % 2 or time.perf_counter() - began < seconds:
        next(stream)
        count += 1
    return {
        "images": count * BATCH,
        "seconds": time.perf_counter() - began,
        "cpu": _cpu() - cpu,
    }


def _drain(stream: Iterator[dict[str, Any]], batches: int) -> None:
    """Takes what was made ahead between turns, and so many batches that had to be waited for."""
    while batches:
        began = time.perf_counter()
        next(stream)
        batches -= time.perf_counter() - began > _READY


def _cpu() -> float:
    """Seconds that this process and all below it took so far."""
    this = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (this, *this.children(recursive=True)))


def _check(batch: dict[str, Any]) -> None:
    """Raises an AssertionError if a loader does less than the work that is measured."""
    shapes = {name: tuple(values.shape) for name, values in batch.items()}
    pixels = batch["image"]
    if shapes["image"] not in {(BATCH, IMAGE, IMAGE, 3), (BATCH, 3, IMAGE, IMAGE)}:
        raise AssertionError(f"image is {shapes['image']}")
    if "float32" not in str(pixels.dtype):
        raise AssertionError(f"image is {pixels.dtype}")
    for name, shape in _SHAPES.items():
        if shapes[name] != (BATCH, MASKS, *shape):
            raise AssertionError(f"{name} is {shapes[name]}")


if __name__ == "__main__":
    main()
