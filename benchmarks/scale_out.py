"""What all 1,000 tars take on some machines, from what the benchmarks measured: docs/scale-out.md.

    python benchmarks/scale_out.py      # reads results.json, writes the table into the page

A core is one of the machine on which they ran, which a cloud sells as a vCPU. Prices are list
prices of Google Cloud in us-central1, without discounts. How fast the disks are is an assumption.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import run_all

PAGE = run_all.FOLDER.parent / "docs" / "scale-out.md"
_MARKS = "<!-- plan: written by benchmarks/scale_out.py -->\n", "<!-- end of plan -->\n"
TARS, IMAGES, TAR_BYTES = 1_000, 11_185_362, 11.3e9

PRICES_OF = "2026-11-29"
# US dollars. N2 machines: a core and a GiB of memory for an hour; Dataflow's batch workers: the
# same, and a GB of their disks; Cloud Storage, standard, in one region: a GiB for a month.
N2_CORE, N2_MEMORY = 0.031611, 0.004237
DATAFLOW_CORE, DATAFLOW_MEMORY, DATAFLOW_DISK = 0.056, 0.003557, 0.000054
STORED = 0.020
DISKS = 1e9  # bytes a second that the disks of all machines read and write together


class Machines(NamedTuple):
    """cores: of all. hourly: their price."""

    what: str
    cores: int
    hourly: float


MACHINES = (
    Machines("one machine: n2-standard-32", 32, 32 * N2_CORE + 128 * N2_MEMORY),
    Machines("20 Dask workers, on 10 of n2-standard-2", 20, 20 * N2_CORE + 80 * N2_MEMORY),
    Machines(
        "Dataflow: 20 workers of a core, 3.75 GB and a disk of 30 GB",
        20,
        20 * (DATAFLOW_CORE + 3.75 * DATAFLOW_MEMORY + 30 * DATAFLOW_DISK),
    ),
)


class Work(NamedTuple):
    """The work for one config: what it takes of the cores, and what goes through disks.

    core_hours: of inflating, converting and resizing.
    moved: bytes of tars read, inflated tars written and read, and shards written.
    shards: bytes of them.
    """

    core_hours: float
    moved: float
    shards: float


def figures(results: Mapping[str, Any]) -> dict[str, float]:
    """What the benchmarks measured, in bytes and images a second of one core, and in shares."""

    def of(script: str, pattern: str) -> float:
        printed = "\n".join(results[script]["printed"])
        return float(re.findall(pattern, printed)[-1].replace(",", ""))

    image, json_ = (
        of("resize.py", pattern) for pattern in (r"images are ([\d.]+) of", r"JSON ([\d.]+)")
    )
    plain_size = of("build.py", r"([\d,]+) unpacked")
    return {
        "inflate": 1e6 * of("inflate.py", r"sa1b_tfds +([\d,]+) MB/s"),
        "convert": 1e6
        * of("build.py", r"ours, of plain tars +\S+ +([\d,]+)")
        / 2,  # of two workers
        "build": 1e6 * of("build.py", r"ours, 2 workers +\S+ +([\d,]+)") / 2,
        "resize": of("resize.py", r"Pillow, DCT scaling with margin +([\d.]+)"),
        "packed": of("inflate.py", r"([\d.]+) of it compressed"),
        "shards": of("build.py", r"ours, of plain tars +\S+ +\S+ +\S+ +([\d,]+)") / plain_size,
        "resized_shards": image + json_,
    }


def work(measured: Mapping[str, float]) -> dict[str, Work]:
    """The work for all tars, compressed as Meta serves them, by config."""
    packed = TARS * TAR_BYTES
    plain = packed / measured["packed"]
    build = plain / measured["build"] / 3600
    resize = IMAGES / measured["resize"] / 3600
    kept, resized = plain * measured["shards"], plain * measured["resized_shards"]
    read = packed + 2 * plain
    return {
        "original": Work(build, read + kept, kept),
        "resized_1024": Work(build + resize, read + resized, resized),
    }


def as_markdown(results: Mapping[str, Any]) -> str:
    measured = figures(results)
    plain = TARS * TAR_BYTES / measured["packed"]
    steps = (
        ("inflate", plain, "inflate.py", "sa1b_tfds", "MB/s"),
        ("convert plain tars", plain, "build.py", "of plain tars", "MB/s"),
        ("both, as a build does", plain, "build.py", "2 workers", "MB/s"),
        ("resize to 1024", IMAGES, "resize.py", "Pillow with margin", "images/s"),
    )
    keys = ("inflate", "convert", "build", "resize")
    lines = ["", "| step | of one core | by | core-hours |", "|---|---|---|---|"]
    for (step, amount, script, line, unit), key in zip(steps, keys, strict=True):
        speed = measured[key]
        shown = speed / 1e6 if unit == "MB/s" else speed
        where = f"`{script}`, {line}, {results[script]['date']}"
        lines.append(f"| {step} | {shown:.3g} {unit} | {where} | {amount / speed / 3600:.1f} |")
    configs = work(measured)
    lines += ["", "| | `" + "` | `".join(configs) + "` |", "|---" * (1 + len(configs)) + "|"]

    def row(what: str, cells: list[str]) -> None:
        lines.append(f"| {what} | " + " | ".join(cells) + " |")

    row("core-hours", [f"{one.core_hours:.0f}" for one in configs.values()])
    row("through disks", [f"{one.moved / 1e12:.0f} TB" for one in configs.values()])
    row("shards", [f"{one.shards / 1e12:.1f} TB" for one in configs.values()])
    row("hours of disks", [f"{one.moved / DISKS / 3600:.1f}" for one in configs.values()])
    for machines in MACHINES:
        cells = []
        for one in configs.values():
            cores = one.core_hours / machines.cores
            longer = max(cores, one.moved / DISKS / 3600)
            price = longer * machines.hourly
            cells.append(f"{cores:.1f} h of cores; {longer:.1f} h in all, {price:.0f} USD")
        row(machines.what, cells)
    stored = TARS * TAR_BYTES / 2**30 * STORED
    row(
        "the tars and the shards in Cloud Storage, a month",
        [f"{stored:.0f} + {one.shards / 2**30 * STORED:.0f} USD" for one in configs.values()],
    )
    lines += ["", f"Disks of {DISKS / 1e9:g} GB/s in all; prices of {PRICES_OF}.", ""]
    return "\n".join(lines)


def with_plan(page: str, results: Mapping[str, Any]) -> str:
    """The page with the plan of these results in place of the one that it had."""
    return run_all.replaced(page, _MARKS, as_markdown(results))


def main() -> None:
    results = json.loads(run_all.RESULTS.read_text())
    PAGE.write_text(with_plan(PAGE.read_text(), results))


if __name__ == "__main__":
    main()
