"""Measures how long a model takes for a batch, on any device."""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sa1b_tfds.core.text import counted


def benchmark_inference(
    model: Callable[[Any], Any], images: Any, batch_size: int = 1, *, warm_up: int = 2
) -> dict[str, float]:
    """Times a model on batches of images.

    The clock stops when the device is done (CUDA, MPS, TensorFlow's and JAX's devices). Before it
    starts, `warm_up` batches of each size are computed, to compile and to fill caches.

    Args:
      model: a function of a batch. A Keras model is called by `predict_on_batch`. A PyTorch module
        is called in evaluation mode and without gradients, on the device of its parameters; moving
        a batch there counts.
      images: [N, ...], an array or tensor, or anything with a length that slices to a batch. The
        last batch may be smaller.
      batch_size: images per batch. Defaults to 1.
      warm_up: batches of each size that are not timed. Defaults to 2.

    Returns:
      mean_time, median_time: seconds per batch.
      throughput: images per second.
      batches: the number of batches.

    Raises:
      ValueError: if there is no image, batch_size is below 1, or warm_up is below 0.
    """
    if not len(images) or batch_size < 1 or warm_up < 0:
        raise ValueError(
            "There must be images, batch_size >= 1 and warm_up >= 0; got"
            f" {counted(len(images), 'image')}, batch_size={batch_size}, warm_up={warm_up}."
        )
    starts = range(0, len(images), batch_size)
    last = starts[-1]
    with _as_function(model) as run:
        for _ in range(warm_up):
            for start in sorted({0, last}):
                _wait_for(run(images[start : start + batch_size]))
        times = []
        for start in starts:
            began = time.perf_counter()
            _wait_for(run(images[start : start + batch_size]))
            times.append(time.perf_counter() - began)
    return {
        "mean_time": statistics.fmean(times),
        "median_time": statistics.median(times),
        "throughput": len(images) / sum(times),
        "batches": len(times),
    }


@contextlib.contextmanager
def _as_function(model: Any) -> Iterator[Callable[[Any], Any]]:
    """A model -> a function of a batch."""
    # A library that is not imported cannot have made the model, so none is imported here.
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if torch is not None and isinstance(model, torch.nn.Module):
        was_training = model.training
        first = next(model.parameters(), None)
        device = first.device if first is not None else torch.device("cpu")
        model.eval()
        try:
            with torch.inference_mode():
                yield lambda batch: model(torch.as_tensor(batch).to(device))
        finally:
            model.train(was_training)
    elif keras is not None and isinstance(model, keras.Model):
        yield model.predict_on_batch
    else:
        yield model


def _wait_for(output: Any) -> None:
    """Waits until the device has computed all tensors of an output of lists, tuples and dicts."""
    torch, tf = sys.modules.get("torch"), sys.modules.get("tensorflow")
    for leaf in _leaves(output):
        if torch is not None and isinstance(leaf, torch.Tensor):
            if leaf.device.type in ("cuda", "mps", "xpu"):
                getattr(torch, leaf.device.type).synchronize()
        elif tf is not None and tf.is_tensor(leaf):
            tf.test.experimental.sync_devices()
        elif hasattr(leaf, "block_until_ready"):
            leaf.block_until_ready()


def _leaves(output: Any) -> Iterator[Any]:
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        for part in output:
            yield from _leaves(part)
    else:
        yield output
