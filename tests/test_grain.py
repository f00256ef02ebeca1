"""sa1b_tfds.grain: the batches of training_dataset, and a state that any number of ranks resume."""

import dataclasses
import importlib.util
import itertools
import json
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import sa1b_tfds
from dummy_data import make
from tests import building

grain = pytest.importorskip("grain", reason="the extra [grain] is not installed")

SMALL = {"batch_size": 4, "image_size": 64, "mask_size": 16, "masks_per_image": 4}
# What makes both sides choose and draw the same.
SAME = {"mask_choice": "largest", "box_noise": 0.0, "point_source": "dataset"}


def config(**options):
    return sa1b_tfds.TrainingConfig(**{**SMALL, **options})


@pytest.fixture(scope="module")
def sources(prepared, tmp_path_factory):
    """By name: the same 16 images, as `dataset` takes them."""
    arrays = tmp_path_factory.mktemp("arrays")
    builder = tfds.builder(
        "segment_anything", data_dir=arrays, file_format="array_record", num_workers=1
    )
    tars = prepared / "tars"
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tars))
    return {
        "tars": {"source": tars},
        "compressed tars": {"source": building.packed(tars)},
        "array_record": {"source": "segment_anything/original", "data_dir": arrays},
        "TFRecord": {"source": prepared / building.FINAL},
    }


def by_id(batches):
    """{image id: its row of each key}"""
    rows = {}
    for batch in batches:
        for i, image_id in enumerate(batch["image_id"]):
            assert int(image_id) not in rows
            rows[int(image_id)] = {key: np.asarray(column[i]) for key, column in batch.items()}
    return rows


def ids(batches):
    return [batch["image_id"].tolist() for batch in batches]


def flat(batches):
    return list(itertools.chain.from_iterable(ids(batches)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip": 1.0, "relevance": True},
        {"resize": "square", "image_size": 40, "mask_size": 25, "prompts": "points"},
        {"flip": 1.0, "image_size": 200, "mask_size": 130, "normalise": None, "prompts": "boxes"},
        {"image_dtype": "uint8", "normalise": None, "masks_per_image": 9},
        {"image_dtype": "bfloat16", "min_predicted_iou": 0.95, "min_area": 40},
        {"mask_choice": "score", "max_area_fraction": 0.05, "min_stability_score": 0.9},
        {"masks_per_image": 0},
        {"holdout": 0.5, "holdout_part": "val", "batch_size": 1},
    ],
    ids=str,
)
def test_batches_are_those_of_training_dataset(sources, prepared, options):
    wanted = config(**{**SAME, "exact": True, **options})
    # Ours keeps images without a mask; without drop_remainder, theirs has nothing in their place.
    once = dataclasses.replace(wanted, drop_remainder=False)
    theirs = sa1b_tfds.training_dataset("segment_anything/original", once, data_dir=prepared)
    theirs = by_id(theirs.as_numpy_iterator())
    ours = by_id(sa1b_tfds.grain.dataset(**sources["tars"], config=wanted))
    assert len(theirs) >= 3
    assert theirs.keys() <= ours.keys()
    for image_id in ours.keys() - theirs.keys():
        assert not ours[image_id]["mask_valid"].any()
        assert set(ours[image_id]["mask_index"]) == {-1}
    for image_id, expected in theirs.items():
        row = ours[image_id]
        assert row.keys() == expected.keys()
        for key, value in expected.items():
            assert (row[key].shape, row[key].dtype) == (value.shape, value.dtype), key
            if key == "image":
                step = 1.01 if wanted.normalise is None else 0.02  # a grey level
                if wanted.image_dtype == "bfloat16":
                    step = 0.04
                difference = np.abs(row[key].astype(np.float32) - value.astype(np.float32))
                assert difference.max() <= step
            elif value.dtype == np.float32:
                np.testing.assert_allclose(row[key], value, rtol=1e-4, atol=1e-3, err_msg=key)
            else:
                np.testing.assert_array_equal(row[key], value, err_msg=key)


@pytest.mark.parametrize("place", ["compressed tars", "array_record", "TFRecord"])
def test_every_source_has_the_same_images(sources, place):
    rows, same = (
        by_id(sa1b_tfds.grain.dataset(**sources[name], config=config(**SAME)))
        for name in (place, "tars")
    )
    assert rows.keys() == same.keys() == set(range(16))
    for image_id, row in rows.items():
        for key, value in row.items():
            np.testing.assert_array_equal(value, same[image_id][key])


def test_scaled_decoding_is_near_exact_decoding(tmp_path):
    building.write_tars(tmp_path, tars=1, images=2, height=400, width=600, shapes=3)
    exact, fast = (
        by_id(
            sa1b_tfds.grain.dataset(
                tmp_path, config(batch_size=2, exact=exact, normalise=None, image_size=128)
            )
        )
        for exact in (True, False)
    )
    for image_id in (0, 1):
        error = np.abs(exact[image_id]["image"] - fast[image_id]["image"])
        assert 0 < error.mean() < 2


def test_points_are_uniform_in_the_mask_and_boxes_move_by_at_most_their_noise(sources):
    options = {"image_size": 90, "mask_size": 90, "masks_per_image": 5, "points_per_mask": 200}
    drawn = by_id(sa1b_tfds.grain.dataset(**sources["tars"], config=config(**options)))
    still = {**options, "box_noise": 0.0, "mask_choice": "largest"}
    boxes = by_id(sa1b_tfds.grain.dataset(**sources["tars"], config=config(**still)))
    places, noise = [], []
    for image_id, row in drawn.items():
        own = dict(zip(boxes[image_id]["mask_index"], boxes[image_id]["boxes"], strict=True))
        for i in np.flatnonzero(row["mask_valid"]):
            x, y = row["points"][i].astype(int).T
            assert row["masks"][i][y, x].all()
            inside = np.argwhere(row["masks"][i])
            spread = inside.std(axis=0) + 1
            places.append((np.stack([y, x], 1).mean(axis=0) - inside.mean(axis=0)) / spread)
            if (box := own.get(row["mask_index"][i])) is not None:
                side = np.tile(box[2:] - box[:2], 2)
                noise.append((row["boxes"][i] - box) / np.maximum(side, 1e-3))
    assert np.abs(np.mean(places, axis=0)).max() < 0.05
    assert np.abs(noise).max() <= 0.1 + 1e-4
    assert np.abs(noise).max() > 0.08


def test_a_batch_is_the_same_on_any_number_of_processes(sources):
    def batches(count):
        shards = [
            sa1b_tfds.grain.dataset(
                **sources["tars"],
                config=config(flip=0.5),
                shard=grain.sharding.ShardOptions(shard_index=i, shard_count=count),
            )
            for i in range(count)
        ]
        for parts in zip(*shards, strict=True):
            rows = list(itertools.chain(*zip(*(by_id([p]).values() for p in parts), strict=True)))
            yield rows

    for others in (batches(2), batches(4)):
        for expected, rows in zip(batches(1), others, strict=True):
            for a, b in zip(expected, rows, strict=True):
                assert a.keys() == b.keys()
                for key in a:
                    np.testing.assert_array_equal(a[key], b[key])


def test_processes_make_the_same_batches_as_threads(sources):
    wanted = config(repeat=True)
    threads = sa1b_tfds.grain.dataset(**sources["array_record"], config=wanted)
    processes = sa1b_tfds.grain.dataset(**sources["array_record"], config=wanted, num_workers=2)
    iterator = iter(processes)
    expected = iter(threads)
    iterator.set_state(expected.get_state())
    for batch, same in itertools.islice(zip(iterator, expected, strict=True), 5):
        for key in batch:
            np.testing.assert_array_equal(np.array(batch[key]), same[key])
    iterator.close()


def test_epochs_differ_and_the_seed_decides(sources):
    def epochs(**options):
        dataset = sa1b_tfds.grain.dataset(**sources["tars"], config=config(**options))
        return [flat(dataset) for _ in range(3)]

    first = epochs()
    assert all(sorted(epoch) == list(range(16)) for epoch in first)
    assert len({tuple(epoch) for epoch in first}) == 3
    assert epochs() == first
    assert epochs(seed=1) != first
    endless = sa1b_tfds.grain.dataset(**sources["tars"], config=config(repeat=True))
    assert flat(itertools.islice(endless, 12)) == list(itertools.chain(*first))
    in_order = epochs(shuffle=0)
    assert in_order[0] == in_order[1]
    assert sorted(in_order[0][:8]) == list(range(8))


def test_an_image_comes_once_per_epoch_if_batches_do_not_divide_it(sources):
    dataset = sa1b_tfds.grain.dataset(**sources["tars"], config=config(batch_size=6, repeat=True))
    seen = flat(itertools.islice(dataset, 8))
    for start in (0, 16, 32):
        assert sorted(seen[start : start + 16]) == list(range(16))
    one = sa1b_tfds.grain.dataset(**sources["tars"], config=config(batch_size=6))
    assert [len(batch) for batch in ids(one)] == [6, 6]


@pytest.mark.parametrize("repeat", [True, False])
def test_the_state_resumes_on_another_number_of_processes(sources, repeat):
    def iterators(count, **options):
        return [
            iter(
                sa1b_tfds.grain.dataset(
                    **sources["tars"],
                    config=config(repeat=repeat, **options),
                    shard=grain.sharding.ShardOptions(shard_index=i, shard_count=count),
                )
            )
            for i in range(count)
        ]

    begun = iterators(2)
    seen = [ids(itertools.islice(iterator, 2)) for iterator in begun]
    states = [iterator.get_state() for iterator in begun]
    assert states[0] == states[1]
    stored = json.dumps(states[0])
    assert len(stored) < 200
    seen = [i for shard in seen for batch in shard for i in batch]
    assert len(seen) == 8
    for iterator in iterators(4, batch_size=8):
        iterator.set_state(json.loads(stored))
        seen += next(iterator)["image_id"].tolist()
    assert sorted(seen) == list(range(16))


def test_the_iteration_after_a_restored_one_is_the_next_epoch(sources):
    whole = sa1b_tfds.grain.dataset(**sources["tars"], config=config())
    epochs = [ids(whole) for _ in range(3)]
    saved = iter(sa1b_tfds.grain.dataset(**sources["tars"], config=config()))
    assert ids(saved) == epochs[0]
    dataset = sa1b_tfds.grain.dataset(**sources["tars"], config=config())
    list(dataset)
    second = iter(dataset)
    next(second)
    other = sa1b_tfds.grain.dataset(**sources["tars"], config=config())
    restored = iter(other)
    restored.set_state(second.get_state())
    assert ids(restored) == epochs[1][1:]
    assert ids(other) == epochs[2]


def test_a_state_of_other_data_is_refused(sources):
    state = iter(sa1b_tfds.grain.dataset(**sources["tars"], config=config())).get_state()
    with pytest.raises(ValueError, match="saved for 16 images, and this loader has 16 images or"):
        iter(sa1b_tfds.grain.dataset(**sources["TFRecord"], config=config())).set_state(state)


@pytest.mark.parametrize(
    ("options", "others", "message"),
    [
        (
            {"scale_range": (0.5, 2.0)},
            {},
            r"scale_range must be None with sa1b_tfds.grain, got \(0",
        ),
        ({"colour_jitter": 0.1}, {}, "colour_jitter must be 0 with sa1b_tfds.grain, got 0.1: only"),
        ({"layout": "transformers"}, {}, "layout must be 'raw' with sa1b_tfds.grain"),
        ({"drop_remainder": False}, {}, "drop_remainder must be True with sa1b_tfds.grain"),
        ({"split": "train[:50%]"}, {}, r"split must be 'train' with sa1b_tfds.grain"),
        ({"batch_size": 17}, {}, "batch_size=17 is more than the source has, 16 images: there is"),
        (
            {},
            {"shard": grain.sharding.ShardOptions(shard_index=0, shard_count=3)},
            "batch_size=4 must be a multiple of the 3 processes, which share each batch",
        ),
        ({}, {"ids": [3, 99]}, "99"),
    ],
)
def test_refused(sources, options, others, message):
    with pytest.raises(ValueError, match=message):
        sa1b_tfds.grain.dataset(**sources["tars"], config=config(**options), **others)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at_all", "'nowhere/at_all' is neither there nor a dataset's name, such as"),
        ("segment_anything/original", "is not prepared in .*: run `sa1b build`, or name another"),
    ],
)
def test_a_source_that_is_not_there(tmp_path, source, message):
    with pytest.raises(FileNotFoundError, match=message):
        sa1b_tfds.grain.dataset(source, data_dir=tmp_path)


def test_some_images(sources):
    batches = sa1b_tfds.grain.dataset(
        **sources["array_record"], config=config(batch_size=2), ids=[3, 5, 99], missing_ids="skip"
    )
    assert [sorted(batch) for batch in ids(batches)] == [[3, 5]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_malformed_image_is_named(tmp_path, num_workers):
    files = make.files_of(7, height=60, width=90, shapes=2)
    files["./sa_7.json"] = files["./sa_7.json"].replace(b'"bbox"', b'"box"')
    make.write_tar(tmp_path / "sa_000000.tar", files, seed=0)
    batches = sa1b_tfds.grain.dataset(tmp_path, config(batch_size=1), num_workers=num_workers)
    with pytest.raises(Exception, match=r"sa_000000\.tar: \./sa_7\.json: .*lacks.*bbox"):
        next(iter(batches))


CODE = """
import sys
import sa1b_tfds
config = sa1b_tfds.TrainingConfig(batch_size=2, image_size=32, mask_size=8, masks_per_image=2)
source, data_dir = sys.argv[1:]
batches = list(sa1b_tfds.grain.dataset(source, config, data_dir=data_dir))
print(len(batches), sorted({"tensorflow", "torch"} & set(sys.modules)))
"""


def test_tensorflow_is_not_loaded(sources):
    run = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, sources["array_record"].values())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "8 []\n"


def test_without_grain_the_extra_is_named():
    code = "import sys; sys.modules['grain'] = None; import sa1b_tfds.grain"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "This needs grain, which is not installed" in run.stderr
    assert "pip install 'sa1b_tfds[grain]'" in run.stderr


_JAX = """
import json, sys
import jax

address, rank, source = sys.argv[1:]
jax.distributed.initialize(address, 2, int(rank))
import grain
import sa1b_tfds

config = sa1b_tfds.TrainingConfig(batch_size=4, image_size=32, mask_size=8, masks_per_image=2)
shard = grain.sharding.ShardByJaxProcess()
mesh = jax.make_mesh((jax.device_count(),), ("data",))
over_devices = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
mean = jax.jit(jax.numpy.mean)
ids, means = [], []
for batch in sa1b_tfds.grain.dataset(source, config, shard=shard):
    ids += batch["image_id"].tolist()
    image = jax.make_array_from_process_local_data(over_devices, batch["image"])
    means.append(float(mean(image)))
print(json.dumps([ids, means, image.shape, "tensorflow" in sys.modules]))
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
def test_two_processes_of_jax_share_each_batch(sources):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    source = str(sources["TFRecord"]["source"])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", _JAX, address, str(rank), source],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    (ids, means, shape, tensorflow), other = [
        json.loads(rank.communicate()[0].splitlines()[-1]) for rank in ranks
    ]
    assert sorted(ids + other[0]) == list(range(16))
    assert len(means) == 4
    assert [means, shape, tensorflow] == other[1:]
    assert shape == [4, 32, 32, 3]
    assert not tensorflow
    small = config(batch_size=4, image_size=32, mask_size=8, masks_per_image=2)
    whole = [batch["image"].mean() for batch in sa1b_tfds.grain.dataset(source, small)]
    np.testing.assert_allclose(means, whole, rtol=1e-5)
