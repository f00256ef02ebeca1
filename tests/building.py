"""What the tests of building share: tars, a build in a process of its own, and what came out."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from dummy_data import make

FINAL = "segment_anything/original/2.0.0"
STAGED = "segment_anything/original/staged.2.0.0"

_BUILD = """
import json, os, sys
os.write(1, b'%d\\n' % os.getpid())
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
import tensorflow_datasets as tfds, sa1b_tfds
options = json.loads(sys.argv[1])
download = tfds.download.DownloadConfig(
    manual_dir=options.pop('manual_dir'), **options.pop('download', {}))
tfds.builder('segment_anything', **options).download_and_prepare(download_config=download)
"""


def write_large_tars(
    folder: pathlib.Path, tars: int, images: int, image: tuple[bytes, dict] | None = None
) -> pathlib.Path:
    """Writes tars that take a worker long enough to be met at work: one image, many times."""
    jpeg, content = image or make.draw(0, 500, 700, 60)
    for number in range(tars):
        files = {}
        for image_id in range(number * images, (number + 1) * images):
            name = f"sa_{image_id}.jpg"
            content["image"].update(image_id=image_id, file_name=name)
            for i, annotation in enumerate(content["annotations"]):
                annotation["id"] = 1000 * image_id + i
            files[f"./{name}"] = jpeg
            files[f"./sa_{image_id}.json"] = json.dumps(content).encode()
        make.write_tar(folder / f"sa_{number:06d}.tar", files, seed=number)
    return folder


def write_tars(folder: pathlib.Path, tars: int = 2, images: int = 4, **size: int) -> pathlib.Path:
    """Writes sa_000000.tar, ... with images of ids 0, 1, 2, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(tars):
        files: dict[str, bytes] = {}
        for image_id in range(number * images, (number + 1) * images):
            files |= make.files_of(image_id, **size)
        make.write_tar(folder / f"sa_{number:06d}.tar", files, seed=number)
    return folder


def pack(data: bytes, level: int = 6) -> bytes:
    """A tar as Meta serves it."""
    return gzip.compress(data, level, mtime=0)


def unpack(data: bytes) -> bytes:
    """The plain tar, in whatever form a tar is."""
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def packed(folder: pathlib.Path, forms: Sequence[str] = ("gzip",)) -> pathlib.Path:
    """Writes the same tars beside the folder: compressed, or in these forms in turn."""
    target = folder.with_name(f"{folder.name}-{'-'.join(forms)}")
    for number, path in enumerate(sorted(folder.rglob("*.tar"))):
        new = target / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        if forms[number % len(forms)] == "gzip":
            new.write_bytes(pack(path.read_bytes()))
        else:
            shutil.copy(path, new)
    return target


# By the name of a form of tars, what makes them of plain ones.
FORMS: dict[str, Callable[[pathlib.Path], pathlib.Path]] = {
    "plain": lambda folder: folder,
    "gzip": packed,
    "mixed": lambda folder: packed(folder, ("gzip", "plain")),
}


def prepare(
    manual_dir: pathlib.Path, data_dir: pathlib.Path, name: str = "segment_anything", **options: Any
) -> Any:
    """Builds in this process, without workers of its own; returns the builder."""
    import tensorflow_datasets as tfds

    import sa1b_tfds  # noqa: F401
    from tests.threads import Thread, workers_are

    builder = tfds.builder(name, data_dir=data_dir, num_workers=1, **options)
    with workers_are(Thread):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
        )
    return builder


class Build(subprocess.Popen):
    """A build in another process: `program` is that process; this one may only wait for it."""

    program: psutil.Process


def start(
    manual_dir: pathlib.Path,
    data_dir: pathlib.Path,
    python: Callable[..., list[str]] = lambda *arguments: [sys.executable, *arguments],
    **options: Any,
) -> Build:
    """Builds in another process, by a script without a main guard.

    python: makes the command of `python ARGUMENTS`, such as `forked.command`.
    """
    options = {"manual_dir": str(manual_dir), "data_dir": str(data_dir), **options}
    build = Build(
        python("-c", _BUILD, json.dumps(options)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    build.program = psutil.Process(int(build.stdout.readline()))
    return build


def shards_of(folder: pathlib.Path) -> dict[str, str]:
    """MD5 of every shard, by name."""
    return {
        path.name: hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("segment_anything-train.*"))
    }


def report_of(data_dir: pathlib.Path) -> dict[str, Any]:
    return json.loads((data_dir / FINAL / "build_report.json").read_text())


def leftovers(data_dir: pathlib.Path) -> list[str]:
    """What lies beside the prepared data."""
    return sorted(set(os.listdir((data_dir / FINAL).parent)) - {"2.0.0"})
