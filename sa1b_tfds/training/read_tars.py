"""`read_tars`: raw tars as a tf.data.Dataset, without preparing data."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf
from absl import logging
from etils import epath

from sa1b_tfds.core import files
from sa1b_tfds.core.problems import BadInput, OnError, Problems, check_on_error
from sa1b_tfds.core.processes import available_cores
from sa1b_tfds.core.text import counted
from sa1b_tfds.download.links import Link, SignedUrl
from sa1b_tfds.features import features_dict
from sa1b_tfds.sidecars import loading
from sa1b_tfds.sidecars.reading import Sidecars, open_sidecars
from sa1b_tfds.tars.archive import Archive, archives_at, refuse_unfinished
from sa1b_tfds.tars.names import tar_number
from sa1b_tfds.training.tar_records import Order, is_stream, read_records

PathOrUrl = str | os.PathLike[str] | Link

_INTERLEAVE_SHUFFLED = 16
# Few, because a tar that is read forward takes a quarter of its size in temporary files, 3 GB.
_INTERLEAVE = 2


def read_tars(
    paths_or_urls: PathOrUrl | Iterable[PathOrUrl],
    *,
    decoders: Any = None,
    shuffle: bool = False,
    seed: int | None = None,
    interleave: int | None = None,
    num_workers: int | None = None,
    on_error: OnError = "raise",
    sidecars: Sidecars | None = None,
) -> tf.data.Dataset:
    """Reads raw tars to the same elements as `tfds.load('segment_anything', split='train')`.

        dataset = sa1b_tfds.read_tars(
            "tars", decoders={"masks": sa1b_tfds.decode_masks_to(size=(256, 256), max_masks=32)})

    Plain tars on a disk are read in any order, by an index of their headers that is kept beside
    each tar or in the cache folder (`sa1b_tfds/tars/kept.py`). Compressed tars, as Meta serves
    them, and links are read in one pass. Files that wait for their other half go to a temporary
    file (`TMPDIR`), up to a quarter of the tar. A broken connection is resumed where it broke.

    Processes make the records, and TensorFlow ops decode them. Python code feeds the dataset, so it
    works on the machine that trains, but not on remote tf.data workers. Repeated images are not
    detected.

    Args:
      paths_or_urls: one or several of: a tar; a folder of tars or of extracted files; an http(s)
        link to a tar; a `links.Link`.
      decoders: the decoders of `tfds.load`. Defaults to decoding everything. Full-size masks take
        340 MB per image, so they are decoded one image ahead and not in parallel.
      shuffle: whether to read the tars, and the images of each, in another order in each pass. The
        images of compressed tars and of links are shuffled in a buffer of 100. Defaults to False.
      seed: a seed that makes the shuffled orders the same in each run. Defaults to a random one.
      interleave: the number of tars to read at a time, a few images of each in turn. Defaults to 2,
        or to 16 if plain tars are shuffled.
      num_workers: the number of processes that make records. Defaults to one for every four cores.
      on_error: 'raise' stops at the first image that cannot be read, with an error that names its
        tar, member and reason. 'skip' logs each of them, and their number at the end of a pass.
        Defaults to 'raise'.
      sidecars: more columns of the images, by the names that elements give them: `{"teacher":
        path}`, or a `sidecar.Sidecar` in place of a path; see `sidecar.load`. Defaults to none.

    Returns:
      A dataset of dicts, see the README. Its length is unknown.

    Raises:
      FileNotFoundError: if a path holds neither tars nor extracted files.
      ValueError: if there is no source, or an option is invalid.
    """
    sources = _find(paths_or_urls)
    if interleave is None:
        in_any_order = shuffle and not any(map(is_stream, sources))
        interleave = _INTERLEAVE_SHUFFLED if in_any_order else _INTERLEAVE
    workers = max(1, available_cores() // 4) if num_workers is None else num_workers
    for name, value in (("interleave", interleave), ("num_workers", workers)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if seed is not None and not shuffle:
        raise ValueError(f"seed={seed} has no effect without shuffle=True.")
    check_on_error(on_error)  # before any file is read
    if seed is None:
        seed = int(np.random.default_rng().integers(2**63))
    passes = itertools.count()

    opened = open_sidecars(sidecars)
    sides = tuple((sidecar.folder, sidecar.missing) for sidecar in opened)

    def records() -> Iterator[Any]:
        order = Order(interleave=interleave, seed=(seed, next(passes)) if shuffle else None)
        problems = _Logged(on_error)
        images = left_out = 0
        for record, rows in read_records(sources, order, workers, problems, sides):
            if rows is None:
                left_out += 1
                continue
            images += 1
            yield {"record": record, "rows": rows} if opened else record
        problems.sum_up(images)
        if left_out:
            logging.warning("%s left out: no row in a sidecar.", counted(left_out, "image"))

    text = tf.TensorSpec((), tf.string)
    signature = {"record": text, "rows": (text,) * len(opened)} if opened else text
    dataset = tf.data.Dataset.from_generator(records, output_signature=signature)
    return loading.decoded(dataset, features_dict(), decoders, opened)


class _Logged(Problems):
    """Logs each problem at once, because a pass over a stream may take days."""

    def report(
        self, archive: str, member: str, reason: str, kind: type[BadInput] = BadInput
    ) -> None:
        super().report(archive, member, reason, kind)
        logging.warning("Skipped: %s", self.found[-1])

    def sum_up(self, images: int) -> None:
        skipped = len(self.found)
        level = logging.WARNING if skipped else logging.INFO
        logging.log(level, "%s; %d skipped", counted(images, "image"), skipped)


def _find(paths_or_urls: PathOrUrl | Iterable[PathOrUrl]) -> list[Archive | Link]:
    single = isinstance(paths_or_urls, str | os.PathLike | Link)
    given: list[Any] = [paths_or_urls] if single else list(paths_or_urls)  # type: ignore[arg-type]
    found = [each for number, source in enumerate(given) for each in _find_one(source, number)]
    if not found:
        raise ValueError("read_tars needs at least one tar, folder or link.")
    return found


def _find_one(source: Any, number: int) -> Sequence[Archive | Link]:
    if isinstance(source, Link):
        return [source]
    if isinstance(source, str) and re.match("https?://", source, re.IGNORECASE):
        url = SignedUrl(source)
        # All of a link but the name of a tar may be secret.
        name = urlsplit(source).path.rpartition("/")[2]
        if tar_number(name) is None:
            name = f"link {number} ({url.host})"
        return [Link(name=name, url=url)]
    files.refuse_s3_of_tensorflow(source)
    if epath.Path(source).suffix in (".txt", ".tsv") and epath.Path(source).is_file():
        raise ValueError(
            f"{source} is not a tar. To read from a links file, pass its links: read_tars(select("
            f"read_links({os.fspath(source)!r}), end=1).links), both from sa1b_tfds.download.links."
        )
    if archives := archives_at(source):
        return archives
    if not epath.Path(source).exists():
        raise FileNotFoundError(f"{source} is not there.")
    refuse_unfinished(source)
    raise FileNotFoundError(f"{source} holds neither sa_*.tar nor extracted sa_*.jpg and .json.")
