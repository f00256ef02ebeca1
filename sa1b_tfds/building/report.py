"""build_report.json: the tars and options that a dataset was built with, and what was skipped."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from absl import logging
from etils import epath

from sa1b_tfds.building.staging import FinishedTar
from sa1b_tfds.core.text import counted, format_bytes

REPORT = "build_report.json"
_NONE = np.empty(0, np.int64)
_PACKAGES = ("sa1b_tfds", "tensorflow-datasets", "numpy", "pycocotools", "protobuf", "pillow")


def write_report(
    folder: epath.Path,
    tars: Sequence[FinishedTar],
    options: Mapping[str, Any],
    shown_as: epath.Path,
    missing_ids: np.ndarray = _NONE,
) -> None:
    """Writes the report, and logs its totals.

    Args:
      folder: the draft of the data.
      tars: what is in the data.
      options: what it was built with.
      shown_as: the folder of the data once it is whole, for the log.
      missing_ids: int64, ids of images that were asked for and are in no tar.
    """
    (folder / REPORT).write_bytes(_report_of(tars, options, missing_ids))
    images = sum(tar.images for tar in tars)
    skipped = sum(len(tar.problems) for tar in tars)
    logging.log(
        logging.WARNING if skipped else logging.INFO,
        "%s of %s; %d skipped, see %s",
        counted(images, "image"),
        counted(len(tars), "tar"),
        skipped,
        shown_as / REPORT,
    )


def _report_of(
    tars: Sequence[FinishedTar], options: Mapping[str, Any], missing_ids: np.ndarray
) -> bytes:
    """The report as JSON, for people and for programs."""
    content = {
        "options": options,
        "images": {tar.archive: tar.images for tar in tars},
        "skipped": [problem.as_dict() for tar in tars for problem in tar.problems],
        "totals": {
            "tars": len(tars),
            "images": sum(tar.images for tar in tars),
            "skipped": sum(len(tar.problems) for tar in tars),
            "shards": sum(len(tar.shards) for tar in tars),
            "bytes": sum(tar.size for tar in tars),
        },
        "missing_ids": missing_ids.tolist(),
        "reasons": Counter(problem.reason for tar in tars for problem in tar.problems),
        "tars": [
            {
                "name": tar.archive,
                "source": tar.source,
                "md5": tar.md5,
                "shards": len(tar.shards),
                "bytes": tar.size,
                "seconds": tar.seconds,
            }
            for tar in tars
        ],
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n"


def checked(report: Any) -> Mapping[str, Any]:
    """Returns a report if `print_summary` can print it; raises an error if not."""
    for name in ("images", "tars", "shards", "bytes", "skipped"):
        int(report["totals"][name])
    dict(report["reasons"])
    return report


def print_summary(report: Mapping[str, Any]) -> None:
    """Prints what is in the data, in a few lines."""
    totals = report["totals"]
    for reason, number in sorted(report["reasons"].items(), key=lambda item: -item[1])[:10]:
        print(f"skipped {number}: {reason}")
    print(
        f"{counted(totals['images'], 'image')} of {counted(totals['tars'], 'tar')} in"
        f" {counted(totals['shards'], 'shard')}, {format_bytes(totals['bytes'])};"
        f" {totals['skipped']} skipped"
    )
    if missing := len(report.get("missing_ids", ())):
        print(f"{counted(missing, 'image id')} in no tar; all of them are in {REPORT}")
