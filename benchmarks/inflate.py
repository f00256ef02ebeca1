"""MB/s of plain tar that libraries inflate from a gzip tar, and that `tars/inflate.py` does.

    python benchmarks/inflate.py [--images 240] [--like sa_000000.tar]

One core each, in turns, from the page cache. Those that are not installed are left out. The ratio
is of what the package uses to Python's own gzip.
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import synthetic

from sa1b_tfds.tars.inflate import Inflated

_BLOCK = 2**18


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--like", type=pathlib.Path, help="take the images of this tar, repeated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sa1b_inflate") as name:
        folder = pathlib.Path(name)
        templates = synthetic.templates(options.like)
        plain = synthetic.write_tars(folder / "plain", templates, 1, options.images)
        tar = synthetic.packed(plain, folder / "packed") / "sa_000000.tar"
        size = (plain / tar.name).stat().st_size
        print(f"{size / 1e6:.0f} MB, {tar.stat().st_size / size:.3f} of it compressed")
        speeds: dict[str, list[float]] = {name: [] for name, _ in _contestants()}
        for turn in range(options.rounds + 1):
            for name, inflate in _contestants():
                began = time.perf_counter()
                if inflate(tar) != size:
                    raise AssertionError(f"{name} gives another length")
                if turn:  # the first one is for warming up
                    speeds[name].append(size / (time.perf_counter() - began) / 1e6)
    for name, measured in speeds.items():
        print(f"{name:24} {statistics.median(measured):6.0f} MB/s")
    pairs = zip(speeds["sa1b_tfds"], speeds["gzip"], strict=True)
    print(f"ratio: {statistics.median(ours / theirs for ours, theirs in pairs):.2f}")


def _contestants() -> Iterator[tuple[str, Callable[[pathlib.Path], int]]]:
    for module, name, options in (
        ("gzip", "gzip", {}),
        ("zlib_ng.gzip_ng", "zlib-ng", {}),
        ("isal.igzip", "isal", {}),
        ("indexed_gzip", "indexed_gzip", {}),
        ("rapidgzip", "rapidgzip, 1 thread", {"parallelization": 1}),
    ):
        try:
            library: Any = importlib.import_module(module)
        except ImportError:
            continue
        opener = getattr(library, "IndexedGzipFile", None) or library.open
        yield name, lambda tar, opener=opener, o=options: _length_of(opener(str(tar), **o))  # type: ignore[misc]
    yield "sa1b_tfds", _ours


def _length_of(file: Any) -> int:
    length = 0
    with file:
        while block := file.read(_BLOCK):
            length += len(block)
    return length


def _ours(tar: pathlib.Path) -> int:
    with tar.open("rb") as file:
        return sum(map(len, Inflated(file).blocks()))


if __name__ == "__main__":
    main()
