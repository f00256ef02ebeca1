"""How many decoded examples TFDS holds: one ahead where masks are large, and none in a cache."""

import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds.features import features_dict
from sa1b_tfds.segment_anything import reading
from tests.building import write_tars
from tests.downloading import wait_for

pytestmark = pytest.mark.usefixtures("threads")

SMALL = {"masks": sa1b_tfds.decode_masks_to((16, 16))}
SKIP = tfds.decode.SkipDecoding()
STORED = {"image": SKIP, "masks": SKIP}


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """Ours; 12 images in two shards."""
    folder = tmp_path_factory.mktemp("reading")
    tars = write_tars(folder / "tars", images=6, height=30, width=40, shapes=3)
    builder = tfds.builder("segment_anything", data_dir=folder / "data")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tars))
    return builder


@pytest.fixture(params=["ours", "version", "directory"])
def any_builder(request, builder):
    """Ours, and the two ways to a ReadOnlyBuilder."""
    if request.param == "ours":
        return builder
    if request.param == "directory":
        return tfds.builder_from_directory(builder.data_path)
    return tfds.builder("segment_anything:2.0.0", data_dir=builder.data_dir_root)


def ops_of(dataset):
    """What a dataset is made of: {'ParallelMap': num_parallel_calls, 'Prefetch': None, ...}."""
    ops = {}
    while dataset is not None:
        name = type(dataset).__name__.strip("_").removesuffix("Dataset")
        calls = getattr(dataset, "_num_parallel_calls", None)
        ops.setdefault(name, None if calls is None else int(calls))  # the last op of that name
        dataset = getattr(dataset, "_input_dataset", None)
    return ops


def decoded_ahead(dataset, count):
    """How many examples are decoded beyond the first, while the user holds that."""
    iterator = iter(dataset)
    next(iterator)
    wait_for(lambda: count() > 1)
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 0.3:
        if count() != last:
            last, since = count(), time.monotonic()
        time.sleep(0.01)
    return last - 1


@pytest.fixture
def count(monkeypatch):
    """Counts the masks that were decoded by RleMasks, as TensorFlow runs it."""
    seen = []
    decode = sa1b_tfds.RleMasks.decode_example

    def counted(self, stored):
        masks = decode(self, stored)
        shape = masks.shape
        masks = tf.numpy_function(lambda m: seen.append(1) or m, [masks], tf.uint8, stateful=False)
        masks.set_shape(shape)
        return masks

    monkeypatch.setattr(sa1b_tfds.RleMasks, "decode_example", counted)
    return lambda: len(seen)


@pytest.mark.parametrize("read_config", [None, tfds.ReadConfig(shuffle_seed=1)])
def test_decoded_masks_are_not_cached(any_builder, read_config):
    ops = ops_of(any_builder.as_dataset(split="train", read_config=read_config))
    assert not {"Cache", "Prefetch"} & ops.keys()
    assert ops["ParallelMap"] == 1
    assert "ParallelInterleave" not in ops
    small = any_builder.as_dataset(split="train", decoders=SMALL, read_config=read_config)
    assert "Cache" not in ops_of(small)


@pytest.mark.parametrize("as_supervised", [False, True])
def test_one_example_is_decoded_ahead(any_builder, count, as_supervised):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 64  # as on a machine of 64 cores
    dataset = any_builder.as_dataset(
        split="train",
        as_supervised=as_supervised,
        read_config=tfds.ReadConfig(options=options),
    )
    assert decoded_ahead(dataset, count) == 1
    assert decoded_ahead(dataset.map(lambda *example: example), lambda: count() - 2) == 1


def test_small_masks_are_decoded_in_parallel(any_builder):
    ops = ops_of(any_builder.as_dataset(split="train", decoders=SMALL))
    assert ops["ParallelMap"] == ops["ParallelInterleave"] == tf.data.AUTOTUNE
    assert "Prefetch" in ops


def test_what_is_stored_may_be_cached(any_builder):
    assert "Cache" in ops_of(any_builder.as_dataset(split="train", decoders=STORED))
    image_only = {"masks": SKIP}
    assert "Cache" not in ops_of(any_builder.as_dataset(split="train", decoders=image_only))
    columns = tfds.decode.PartialDecoding({"image_id": True, "annotations": True})
    assert "Cache" in ops_of(any_builder.as_dataset(split="train", decoders=columns))


def test_explicit_choices_win(any_builder):
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = True
    given = tfds.ReadConfig(
        num_parallel_calls_for_decode=5, num_parallel_calls_for_interleave_files=3, options=options
    )
    dataset = any_builder.as_dataset(split="train", read_config=given)
    ops = ops_of(dataset)
    assert (ops["ParallelMap"], ops["ParallelInterleave"]) == (5, 3)
    assert dataset.options().experimental_optimization.inject_prefetch
    assert not dataset.options().experimental_optimization.map_parallelization
    assert (given.try_autocache, given.skip_prefetch) == (True, False)  # as it was given
    assert options.experimental_optimization.map_parallelization is None


def test_splits_batches_and_values_are_as_before(any_builder):
    read = tfds.as_numpy(any_builder.as_dataset(split=["train[:50%]", "train[50%:]"]))
    examples = [example for part in read for example in part]
    stored = any_builder.as_dataset(split="train", decoders={"masks": SKIP})
    by_id = {example["image_id"]: example for example in tfds.as_numpy(stored)}
    assert sorted(example["image_id"] for example in examples) == sorted(by_id)
    for example in examples:
        masks = by_id[example["image_id"]]["masks"]
        expected = [
            sa1b_tfds.decode_rle({"size": masks["size"], "counts": counts})
            for counts in masks["counts"]
        ]
        np.testing.assert_array_equal(example["masks"], expected)
    batches = list(any_builder.as_dataset(split="train", batch_size=5))
    assert [len(batch["masks"]) for batch in batches] == [5, 5, 2]
    assert any_builder.as_dataset(split="train", batch_size=-1)["masks"].shape[0] == 12


def test_other_datasets_of_tfds_are_read_as_before(tmp_path):
    class Other(tfds.testing.DummyDataset):
        pass

    builder = Other(data_dir=tmp_path)
    builder.download_and_prepare()
    ops = ops_of(tfds.builder_from_directory(builder.data_path).as_dataset(split="train"))
    assert "Cache" in ops
    assert "Prefetch" in ops


@pytest.mark.parametrize(
    ("decoders", "large"),
    [
        (None, True),
        ({"image": SKIP}, True),
        ({"masks": SKIP}, False),
        ({"masks": sa1b_tfds.decode_masks_to((256, 256))}, False),
        ({"masks": sa1b_tfds.decode_masks_to((1024, 1024))}, True),
        ({"masks": sa1b_tfds.decode_masks_to((1024, 1024), 32)}, False),
        ({"masks": sa1b_tfds.decode_masks_to(max_masks=50)}, True),
        ({"masks": sa1b_tfds.decode_masks_to(max_masks=4)}, False),
        (tfds.decode.PartialDecoding({"image": True}), False),
        (tfds.decode.PartialDecoding({"masks": True}), True),
        (tfds.decode.PartialDecoding({"masks": True}, decoders={"masks": SKIP}), False),
    ],
)
def test_masks_over_64_mb_an_image_count_as_large(decoders, large):
    assert reading.decodes_large_masks(features_dict(), decoders) == large


def test_read_tars_decodes_one_image_ahead(tmp_path, count):
    tars = write_tars(tmp_path, tars=1, images=6, height=30, width=40, shapes=3)
    assert decoded_ahead(sa1b_tfds.read_tars(tars), count) == 1
