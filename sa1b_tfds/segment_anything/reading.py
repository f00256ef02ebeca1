"""Bounds what TFDS and tf.data hold of decoded examples, whatever the dataset and the machine.

Their defaults suit small features. An example with full-size masks takes 350 MB, and with those
defaults 48 images take 15 GB (`benchmarks/load_memory.py` measures ours), for three reasons:

  * TFDS caches a dataset that is under 250 MB on disk, decoded;
  * it decodes on all cores, and each holds what it decodes two or three times;
  * it prefetches, and tf.data adds prefetching and parallel calls of its own to what follows.

And of 16 shards, which it reads in parallel, it holds up to 0.9 GB of stored examples.

So decoded examples are never cached. Where masks are large, one example is decoded ahead of the one
that the user holds, nothing is prefetched, and shards are read in the same order one by one.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from sa1b_tfds.features import RleMasks, gives_large_masks


def bounded(read_config: tfds.ReadConfig, features: Any, decoders: Any) -> tfds.ReadConfig:
    """Changes the defaults of a ReadConfig where decoded examples are large.

    What the user has set stays: num_parallel_calls_for_decode and _interleave_files, and what
    `options` say.

    Args:
      read_config: the argument of `as_dataset`.
      features: of the dataset; without `RleMasks` as `masks` nothing changes.
      decoders: the argument of `as_dataset`.

    Returns:
      A ReadConfig; the one given is not changed.
    """
    import tensorflow as tf

    if not _has_rle_masks(features):
        return read_config
    if not (_is_decoded("image", features, decoders) or _is_decoded("masks", features, decoders)):
        return read_config  # TFDS then caches what is stored, which is under 250 MB
    read_config = read_config.replace(try_autocache=False)
    if decodes_large_masks(features, decoders):
        if read_config.num_parallel_calls_for_decode == tf.data.AUTOTUNE:  # TFDS's default
            read_config.num_parallel_calls_for_decode = 1
        if read_config.num_parallel_calls_for_interleave_files == tf.data.AUTOTUNE:
            read_config.num_parallel_calls_for_interleave_files = None  # even 1 reads ahead
        read_config.skip_prefetch = True
        read_config.options = one_at_a_time(read_config.options)
    return read_config


@contextlib.contextmanager
def without_false_warning() -> Iterator[None]:
    """Mutes tf.data's warning that `deterministic` has no effect where files are read one by one.

    TFDS passes it in any case, and the order is deterministic then.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `deterministic` argument has no effect")
        yield


def decodes_large_masks(features: Any, decoders: Any) -> bool:
    """Whether `decoders`, as `tfds.load` takes them, leave masks of which few fit into memory."""
    decoded = _is_decoded("masks", features, decoders)
    return decoded and gives_large_masks(_decoder("masks", decoders))


def one_at_a_time(options: Any = None) -> Any:
    """tf.data.Options by which tf.data adds no prefetching and no parallel calls by itself.

    Args:
      options: their settings stay. Defaults to none.
    """
    import tensorflow as tf

    options = tf.data.Options() if options is None else copy.deepcopy(options)
    for name in ("inject_prefetch", "map_parallelization"):
        if getattr(options.experimental_optimization, name) is None:
            setattr(options.experimental_optimization, name, False)
    return options


def _has_rle_masks(features: Any) -> bool:
    if not isinstance(features, tfds.features.FeaturesDict) or "masks" not in features:
        return False
    return isinstance(features["masks"], RleMasks)


def _is_decoded(name: str, features: Any, decoders: Any) -> bool:
    if isinstance(decoders, tfds.decode.PartialDecoding):
        features = decoders.extract_features(features)
    skipped = isinstance(_decoder(name, decoders), tfds.decode.SkipDecoding)
    return name in features and not skipped


def _decoder(name: str, decoders: Any) -> Any:
    if isinstance(decoders, tfds.decode.PartialDecoding):
        decoders = decoders.decoders
    return (decoders or {}).get(name)
