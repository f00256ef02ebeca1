"""Runs all benchmarks one by one; writes results.json beside them and the page docs/performance.md.

    python benchmarks/run_all.py [SCRIPT ...]      # or: make bench

Each is a process with three minutes and prints its ratio last. One that fails or takes longer is
named at the end, its earlier result stays, the others go on, and the exit code is 1. With names of
scripts, only those run again.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import html
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

FOLDER = pathlib.Path(__file__).parent
RESULTS = FOLDER / "results.json"
PAGE = FOLDER.parent / "docs" / "performance.md"
SECONDS = 180
BY_HAND = ("cardinality.py",)  # it takes longer, and writes a table of its own
_PACKAGES = (
    "sa1b_tfds",
    "tensorflow",
    "tensorflow-datasets",
    "keras",
    "torch",
    "numpy",
    "pycocotools",
    "pillow",
    "webdataset",
)
# What it prints is Markdown: a table, and sentences about it.
_ALTERNATIVES = "alternatives.py"
_ABOUT_ALTERNATIVES = """\
## Beside other loaders

All make the same batches: images in SA-1B's mix of shapes, letterboxed to 1024 and normalised, 32
random masks of each at 256 x 256, a point and a box for each mask, 4 images a batch. All have two
workers, and their data in the page cache. `benchmarks/loaders/` has each loader as its own
documentation writes it. The other loaders decode only the chosen masks, and those with Pillow let
the JPEG decoder reduce the image where it can. Erow's form does neither.

Processor time and memory are of the whole process tree. Memory is what no file backs. The first
batch is counted from the start of Python. Preparation begins with the tars as Meta serves them and
uses two processes. Disk is what has to stay while you train.

LitData and MosaicML Streaming run in an environment of their own. MosaicML Streaming 0.13 forbids
transformers 5, which the extra `huggingface` needs. Both install torchvision. If that is built for
CUDA and torch for the CPU, transformers no longer imports.
"""
README = FOLDER.parent / "README.md"
_BEGIN, _END = "<!-- results: written by benchmarks/run_all.py -->\n", "<!-- end of results -->\n"
_FIGURES = "<!-- figures: written by benchmarks/run_all.py -->\n", "<!-- end of figures -->\n"
_NUMBER = r"([\d.,]+)"


class Comparison(NamedTuple):
    """A row of the table that the page begins with; the last match in what a script printed counts.

    ours, theirs: patterns of the two figures in it. less: whether less is better.
    """

    what: str
    script: str
    ours: str
    theirs: str
    unit: str
    beside: str
    less: bool = False
    in_readme: bool = False


COMPARISONS = (
    Comparison(
        "build shards from gzip tars",
        "build.py",
        rf"ours, 2 workers +{_NUMBER}",
        rf"official +{_NUMBER}",
        "images/s",
        "TFDS's own builder",
        in_readme=True,
    ),
    Comparison(
        "memory for that",
        "build.py",
        rf"ours, 2 workers +\S+ +\S+ +{_NUMBER}",
        rf"official +\S+ +\S+ +{_NUMBER}",
        "MB",
        "TFDS's own builder",
        less=True,
    ),
    Comparison(
        "decode 100 masks to 256 x 256",
        "masks.py",
        rf"256x256: .*decode_masks {_NUMBER} ms",
        rf"256x256: pycocotools {_NUMBER} ms",
        "ms",
        "pycocotools",
        less=True,
        in_readme=True,
    ),
    Comparison(
        "training batches from prepared data",
        "input_pipeline.py",
        rf"\(b\) .*? {_NUMBER} images/s",
        rf"\(d\) .*? {_NUMBER} images/s",
        "images/s",
        "TFDS's own data, masks decoded in a Python function",
    ),
    Comparison(
        "training batches, 32 masks an image, two workers",
        _ALTERNATIVES,
        rf"- `training_dataset` of `original`: {_NUMBER} images/s",
        rf"- The fastest alternative, .*?: {_NUMBER} images/s",
        "images/s",
        "the fastest of eight other loaders",
        in_readme=True,
    ),
    Comparison(
        "CPU time for an image of these batches",
        _ALTERNATIVES,
        rf"- `training_dataset` of `original`: .*? {_NUMBER} ms",
        rf"- The fastest alternative, .*? {_NUMBER} ms",
        "ms",
        "the same loader",
        less=True,
        in_readme=True,
    ),
    Comparison(
        "memory of all their processes",
        _ALTERNATIVES,
        rf"- `training_dataset` of `original`: .*? {_NUMBER} MB",
        rf"- The fastest alternative, .*? {_NUMBER} MB",
        "MB",
        "the same loader",
        less=True,
        in_readme=True,
    ),
    Comparison(
        "a PyTorch DataLoader, from tars",
        "torch_loader.py",
        rf"ours: {_NUMBER}",
        rf"peer: {_NUMBER}",
        "images/s",
        "a script in use for SA-1B",
    ),
)


def scripts() -> list[str]:
    """The names of the benchmarks: what prints a ratio last, and is not to be run by hand."""
    others = {pathlib.Path(__file__).name, *BY_HAND}
    found = (path for path in FOLDER.glob("*.py") if path.name not in others)
    return sorted(path.name for path in found if '"ratio: ' in path.read_text())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="such as masks.py")
    asked_for = parser.parse_args(argv).scripts or scripts()
    if unknown := set(asked_for) - set(scripts()):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    failed = {}
    for name in asked_for:
        print(f"{name} ...", flush=True)
        try:
            result = run(FOLDER / name)
        except RuntimeError as e:
            failed[name] = str(e)
            continue
        print(f"  ratio {result['ratio']} in {result['seconds']:.0f} s", flush=True)
        results[name] = result
        RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
    PAGE.write_text(with_results(PAGE.read_text(), results))
    README.write_text(with_figures(README.read_text(), results))
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


def run(script: pathlib.Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Runs one script, as it is.

    Returns:
      What goes into the JSON: its ratio, what it printed, and on what it ran.

    Raises:
      RuntimeError: if it fails, prints no ratio last, or is not done in time.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        process.communicate()
        raise RuntimeError(f"not done after {seconds:.0f} s") from None
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}\n{errors[-2000:]}")
    found = re.fullmatch(r"ratio: ([\d.]+)", out.rstrip().rpartition("\n")[2])
    if not found:
        raise RuntimeError(f"its last line is no ratio:\n{out[-500:]}")
    return {
        "what": (ast.get_docstring(ast.parse(script.read_text())) or "").partition("\n")[0],
        "command": f"python benchmarks/{script.name}",
        "ratio": float(found[1]),
        "printed": out.rstrip().splitlines()[:-1],
        "seconds": round(time.monotonic() - began, 1),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> str:
    """Processor, cores and memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        model = found[1]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()}"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def with_results(page: str, results: dict[str, Any]) -> str:
    """The page with these results in place of those that it had."""
    return replaced(page, (_BEGIN, _END), as_markdown(results))


def with_figures(readme: str, results: dict[str, Any]) -> str:
    """The README with the figures of these results in place of those that it had."""
    return replaced(readme, _FIGURES, "\n".join(["", *comparisons(results, short=True), "", ""]))


def replaced(page: str, marks: tuple[str, str], text: str) -> str:
    """The page with `text` between the marks, in place of what was there."""
    before, _, rest = page.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return before + marks[0] + text + marks[1] + after


def comparisons(results: dict[str, Any], *, short: bool) -> list[str]:
    """The lines of a table that compares with what people use; `short` is the README's."""
    lines = ["| | sa1b_tfds | what people use | factor |", "|---|---|---|---|"]
    for row in COMPARISONS:
        if row.script not in results or (short and not row.in_readme):
            continue
        printed = "\n".join(results[row.script]["printed"])
        ours, theirs = (re.findall(pattern, printed) for pattern in (row.ours, row.theirs))
        if not ours or not theirs:
            continue  # a run that left the other side out
        one, other = (float(found[-1].replace(",", "")) for found in (ours, theirs))
        factor = other / one if row.less else one / other
        lines.append(
            f"| {row.what} | **{one:,.4g} {row.unit}** | {other:,.4g} {row.unit}, {row.beside}"
            f" | **{factor:.3g}** |"
        )
    return lines


def misses(results: dict[str, Any]) -> list[str]:
    """A line for each bar that a script did not reach, as it printed that."""
    return [
        f"- `{name}`: {line}."
        for name, result in sorted(results.items())
        for line in result["printed"]
        if "does not reach the bar" in line or "is over the bar" in line
    ]


def as_markdown(results: dict[str, Any]) -> str:
    rows = [
        f"| {result['what']} | **{result['ratio']:g}** | `{result['command']}` | {result['date']} |"
        for _, result in sorted(results.items())
    ]
    lines = ["", *comparisons(results, short=False), ""]
    if _ALTERNATIVES in results:
        lines += [_ABOUT_ALTERNATIVES, *results[_ALTERNATIVES]["printed"], ""]
    if missed := misses(results):
        lines += ["## Bars that are missed", "", *missed, ""]
    lines += ["## All scripts", ""]
    lines += ["| what | ratio | command | on |", "|---|---|---|---|", *rows, ""]
    for kind in sorted({_where(result) for result in results.values()}):
        lines += [f"Measured on {kind}.", ""]
    for name, result in sorted(results.items()):
        if name == _ALTERNATIVES:
            continue
        printed = "\n".join(map(html.escape, result["printed"]))
        lines += [f"<details><summary>{name}</summary><pre>{printed}", "</pre></details>", ""]
    return "\n".join(lines)


def _where(result: dict[str, Any]) -> str:
    versions = ", ".join(
        f"{name} {version}" for name, version in sorted(result["versions"].items())
    )
    return f"{result['machine']}, with {versions}"


if __name__ == "__main__":
    sys.exit(main())
