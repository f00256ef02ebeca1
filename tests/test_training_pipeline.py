"""training_dataset from end to end: sources, epochs, determinism, what is left out."""

import functools
import hashlib
import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image, ImageDraw
from tensorflow_datasets.datasets.segment_anything import (
    segment_anything_dataset_builder as official,
)

import sa1b_tfds
from sa1b_tfds import TrainingConfig, encode_mask, training_dataset
from sa1b_tfds.training import example
from sa1b_tfds.training.example import make_example
from sa1b_tfds.training.sources import Record, find_stream
from tests import building, forked

pytestmark = pytest.mark.usefixtures("threads")

SMALL = {"image_size": 64, "mask_size": 16, "masks_per_image": 3, "batch_size": 2, "shuffle": 4}
UNDECODED = {"image": tfds.decode.SkipDecoding(), "masks": tfds.decode.SkipDecoding()}


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Images 0 to 11 in three tars; 4 has no mask."""
    folder = building.write_tars(tmp_path_factory.mktemp("tars"), tars=3)
    files = {}
    for image_id in range(4, 8):
        files |= building.make.files_of(image_id, shapes=0 if image_id == 4 else 3)
    building.make.write_tar(folder / "sa_000001.tar", files)
    return folder


@pytest.fixture(scope="module")
def data_dir(tars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    building.prepare(tars, folder)
    return folder


@pytest.fixture
def of(data_dir):
    def dataset(source="segment_anything/original", arguments=None, **fields):
        config = TrainingConfig(**{**SMALL, **fields})
        return training_dataset(source, config, data_dir=data_dir, **(arguments or {}))

    return dataset


def ids(batches):
    return [int(i) for batch in batches for i in batch["image_id"]]


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_the_raw_batch(of):
    dataset = of(points_per_mask=2)
    batch = next(iter(dataset))
    spec = {name: (x.dtype.name, x.shape.as_list()) for name, x in batch.items()}
    assert spec == {
        "image": ("float32", [2, 64, 64, 3]),
        "masks": ("uint8", [2, 3, 16, 16]),
        "mask_valid": ("bool", [2, 3]),
        "mask_index": ("int32", [2, 3]),
        "boxes": ("float32", [2, 3, 4]),
        "points": ("float32", [2, 3, 2, 2]),
        "labels": ("int32", [2, 3, 2]),
        "image_id": ("int64", [2]),
        "original_size": ("int32", [2, 2]),
        "resized_size": ("int32", [2, 2]),
    }
    assert {name: s.shape.as_list() for name, s in dataset.element_spec.items()} == {
        name: shape for name, (_, shape) in spec.items()
    }


_CROPS = {"flip": 0.5, "scale_range": (0.5, 2.0)}


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("segment_anything/original", {}),
        ("segment_anything/original", {**_CROPS, "colour_jitter": 0.5}),
        ("tars", _CROPS),
        ("official", _CROPS),
    ],
    ids=["whole", "crops and colours", "tars", "official"],
)
def test_images_alone(of, tars, official_data, monkeypatch, source, fields):
    sources = {"tars": lambda: _of_tars(tars), "official": lambda: official_data}
    found = sources.get(source, lambda: source)()
    options = {"shuffle": 0, "batch_size": 1, "drop_remainder": False, **fields}
    with_masks = {int(b["image_id"][0]): b for b in of(found, **options)}
    monkeypatch.setattr(example, "run_ends", None)  # no mask is parsed
    alone = {int(b["image_id"][0]): b for b in of(found, masks_per_image=0, **options)}
    assert sorted(alone) == list(range(12))  # 4 has no mask
    assert 4 not in with_masks
    same = 0
    for image_id, batch in with_masks.items():
        keys = {"image", "image_id", "original_size", "resized_size"}
        assert alone[image_id].keys() == keys
        same += all(np.array_equal(alone[image_id][key], batch[key]) for key in keys)
    # Only to show masks, an image is taken whole where its crop shows none.
    assert same == 11 if "scale_range" not in fields else same >= 8


def _of_tars(tars):
    skip = tfds.decode.SkipDecoding()
    return sa1b_tfds.read_tars(tars, decoders={"image": skip, "masks": skip})


@pytest.mark.parametrize(
    ("layout", "keys"),
    [
        ("keras_hub", {"images"}),
        ("transformers", {"pixel_values", "original_sizes", "reshaped_input_sizes"}),
    ],
)
def test_images_alone_in_a_models_layout(of, layout, keys):
    alone = next(iter(of(masks_per_image=0, layout=layout, shuffle=0, batch_size=4)))
    assert alone.keys() == keys
    inputs, _ = next(iter(of(layout=layout, shuffle=0, batch_size=4)))
    for key in keys:
        np.testing.assert_array_equal(alone[key], inputs[key])


def test_augment_of_images_alone(of):
    def black(example, seed):
        return {**example, "image": example["image"] * 0}

    batch = next(iter(of(masks_per_image=0, augment=black, normalise=None)))
    assert not batch["image"].numpy().any()


@pytest.mark.parametrize(
    ("source", "layout"),
    [("name", "raw"), ("builder", "raw"), ("dataset", "raw"), ("dataset", "keras_hub")],
)
def test_mock_data_gives_batches(tmp_path, source, layout):
    with tfds.testing.mock_data(num_examples=5):
        of = {
            "name": lambda: "segment_anything/original",
            "builder": lambda: tfds.builder("segment_anything/original", data_dir=tmp_path),
            "dataset": lambda: tfds.load("segment_anything", split="train", decoders=UNDECODED),
        }
        config = TrainingConfig(**SMALL, layout=layout)
        batches = list(training_dataset(of[source](), config, data_dir=tmp_path))
    assert len(batches) == 2
    if layout == "raw":
        assert batches[0]["image"].shape == (2, 64, 64, 3)
        assert batches[0]["masks"].shape == (2, 3, 16, 16)


def test_an_epoch_of_full_batches_has_known_steps(of, capfd):
    """11 of 12 images have masks: the last step takes one of the next epoch."""
    dataset = of(batch_size=4)
    assert dataset.cardinality() == 3
    epochs = [ids(dataset), ids(dataset)]
    assert [len(epoch) for epoch in epochs] == [12, 12]
    assert [len(set(epoch)) for epoch in epochs] == [11, 11]
    assert epochs[0] != epochs[1]
    assert "left out so far: 1 of " in capfd.readouterr().err


@pytest.mark.parametrize(
    "fields",
    # At this scale many crops show no mask.
    [{"scale_range": (4.0, 4.0)}, {"deterministic": False, "shuffle": 32}],
    ids=str,
)
def test_an_epoch_has_each_image_with_masks_once(of, fields):
    dataset = of(drop_remainder=False, **fields)
    for _ in range(3):
        assert sorted(ids(dataset)) == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]


def test_without_shuffling_the_order_is_that_of_the_files(of, data_dir):
    stored = tfds.load("segment_anything", split="train", data_dir=data_dir, decoders=UNDECODED)
    order = [int(e["image_id"]) for e in stored if len(e["masks"]["counts"])]
    assert ids(of(shuffle=0, drop_remainder=False)) == order


def test_splits_are_those_of_tfds(of):
    first, second = (
        set(ids(of(split=s, drop_remainder=False, masks_per_image=0)))
        for s in ("train[:5]", "train[5:]")
    )
    assert not first & second
    assert (len(first), len(second)) == (5, 7)


def test_repeating_goes_on(of):
    """Over the ends of epochs, each of which has all 11 images that have masks."""
    found = ids(of(repeat=True).take(22))
    epochs = [found[i : i + 11] for i in range(0, 44, 11)]
    assert all(sorted(epoch) == [0, 1, 2, 3, *range(5, 12)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


_DIGEST = """
import hashlib, json, sys
import numpy as np, sa1b_tfds, tensorflow as tf
tf.random.set_seed(7)
config = sa1b_tfds.TrainingConfig(**json.loads(sys.argv[2]))
dataset = sa1b_tfds.training_dataset('segment_anything/original', config, data_dir=sys.argv[1])
digest = hashlib.md5()
for _ in range(2):
    for batch in dataset:
        for name in sorted(batch):
            digest.update(np.ascontiguousarray(batch[name]).tobytes())
print(digest.hexdigest())
"""


def test_the_same_seed_gives_the_same_batches_in_two_processes(data_dir):
    fields = {**SMALL, "scale_range": (0.5, 2.0), "flip": 0.5, "colour_jitter": 0.2}
    command = forked.command("-c", _DIGEST, data_dir, json.dumps(fields))
    there = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    digests = []
    tf.random.set_seed(7)  # TensorFlow's own counts as well, and another test may have set it
    for seed in (0, 1):
        config = TrainingConfig(**fields, seed=seed)
        dataset = training_dataset("segment_anything/original", config, data_dir=data_dir)
        digest = hashlib.md5()
        for _ in range(2):
            for batch in dataset:
                for name in sorted(batch):
                    digest.update(np.ascontiguousarray(batch[name]).tobytes())
        digests.append(digest.hexdigest())
    assert digests[0] == there
    assert digests[1] != there


def test_a_restored_iterator_gives_the_very_next_batch(of, tmp_path):
    fields = {"repeat": True, "scale_range": (0.5, 2.0)}
    iterator = iter(of(**fields))
    for _ in range(8):  # into the second epoch
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
    expected = [next(iterator) for _ in range(3)]
    restored = iter(of(**fields))
    tf.train.Checkpoint(iterator=restored).read(path).assert_consumed()
    assert all(equal(next(restored), batch) for batch in expected)


def test_a_checkpoint_holds_the_images_of_the_shuffle_buffer(data_dir, tmp_path):
    stored = tfds.load("segment_anything", split="train", data_dir=data_dir, decoders=UNDECODED)
    noise = np.random.default_rng(0).bytes(100_000)  # TensorFlow compresses; decoders ignore it
    large = stored.map(lambda e: {**e, "image": e["image"] + noise})
    sizes = {}
    for shuffle in (1, 12):
        config = TrainingConfig(
            batch_size=1, image_size=16, mask_size=8, repeat=True, shuffle=shuffle, prefetch=1
        )
        iterator = iter(training_dataset(large, config))
        next(iterator)
        folder = tmp_path / str(shuffle)
        tf.train.Checkpoint(iterator=iterator).write(str(folder / "iterator"))
        sizes[shuffle] = sum(path.stat().st_size for path in folder.iterdir())
    assert sizes[12] - sizes[1] > 4 * 100_000  # some are on their way into a batch


def test_no_mask_left_anywhere_is_an_error(of):
    for fields in ({}, {"drop_remainder": False}, {"repeat": True}):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match="No image is left of 12 images: none has a mask"
        ):
            list(of(min_predicted_iou=9.0, **fields).take(1))


def test_filters_and_choices(of, data_dir):
    stored = tfds.load("segment_anything", split="train", data_dir=data_dir, decoders=UNDECODED)
    stored = {int(e["image_id"]): e["annotations"] for e in stored}
    fields = {"batch_size": 1, "drop_remainder": False, "mask_size": 32, "image_size": 32}
    for batch in of(**fields, masks_per_image=1, mask_choice="largest", max_area_fraction=0.1):
        areas = stored[int(batch["image_id"][0])]["area"].numpy()
        size = np.prod(batch["original_size"][0])
        # At 32 x 32 the square shows the image of 24 x 32 pixel by pixel.
        assert batch["masks"].numpy().sum() == max(a for a in areas if a <= 0.1 * size)
    for batch in of(**fields, mask_choice="score", min_stability_score=0.97, min_area=20):
        columns = {k: v.numpy() for k, v in stored[int(batch["image_id"][0])].items()}
        passed = (columns["stability_score"] >= 0.97) & (columns["area"] >= 20)
        passed &= columns["area"] <= 0.9 * 24 * 32
        best = np.argsort(-np.where(passed, columns["predicted_iou"], -1))[: passed.sum()]
        valid = batch["mask_valid"][0].numpy()
        assert batch["masks"][0].numpy()[valid].sum(axis=(1, 2)).tolist() == [
            columns["area"][i] for i in best[:3]
        ]


def test_what_each_prompt_field_gives(of):
    fields = {"batch_size": 1, "shuffle": 0, "drop_remainder": False}
    only_points = next(iter(of(**fields, prompts="points")))
    only_boxes = next(iter(of(**fields, prompts="boxes")))
    both = next(iter(of(**fields)))
    valid = both["mask_valid"].numpy()
    assert (only_boxes["labels"].numpy() == -1).all()
    assert not only_boxes["points"].numpy().any()
    assert ((both["labels"][..., 0].numpy() == 1) == valid).all()
    assert np.array_equal(both["points"], only_points["points"])
    assert np.array_equal(both["boxes"], only_boxes["boxes"])
    assert not np.array_equal(both["boxes"], only_points["boxes"])  # these have no noise
    exact = next(iter(of(**fields, box_noise=0.0)))
    assert np.array_equal(exact["boxes"], only_points["boxes"])


def test_the_datasets_own_points(of, data_dir):
    stored = tfds.load("segment_anything", split="train", data_dir=data_dir, decoders=UNDECODED)
    stored = {int(e["image_id"]): e["annotations"]["point_coords"].numpy() for e in stored}
    for batch in of(point_source="dataset", batch_size=1, drop_remainder=False):
        scale = batch["resized_size"][0].numpy()[::-1] / batch["original_size"][0].numpy()[::-1]
        own = stored[int(batch["image_id"][0])] * scale
        for point in batch["points"][0, :, 0].numpy()[batch["mask_valid"][0].numpy()]:
            assert np.abs(own - point).max(axis=1).min() < 1e-3


def test_a_crop_that_shows_no_mask_gives_way_to_the_whole_image():
    """Here a mask of two corners, whose box meets every crop."""
    height, width = 400, 600
    mask = np.zeros((height, width), bool)
    mask[:9, :9] = mask[-9:, -9:] = True
    jpeg, _ = building.make.draw(0, height, width, 3)
    record = Record(
        image=tf.constant(jpeg),
        image_id=tf.constant(5, tf.int64),
        size=tf.constant([height, width]),
        counts=tf.constant([encode_mask(mask)["counts"]]),
        area=tf.constant([162], tf.int64),
        bbox=tf.constant([[0, 0, (height - 1) / height, (width - 1) / width]]),
        predicted_iou=tf.ones([1]),
        stability_score=tf.ones([1]),
        point_coords=tf.constant([[4.0, 4.0]]),
    )
    plain, cropping = (
        tf.function(
            functools.partial(make_example, config=TrainingConfig(**fields, flip=0.5)),
            autograph=False,  # as in the pipeline
        )
        for fields in (SMALL, {**SMALL, "scale_range": (4.0, 4.0)})
    )
    whole = 0
    for epoch in tf.range(12, dtype=tf.int64):
        crop, all_of_it = cropping(record, epoch=epoch), plain(record, epoch=epoch)
        assert crop["mask_valid"].numpy().tolist() == [True, False, False]
        # A crop is square, and so fills the model image.
        if crop["resized_size"].numpy().tolist() == [43, 64]:
            whole += 1
            for name in crop:
                np.testing.assert_allclose(crop[name], all_of_it[name], atol=1e-4, err_msg=name)
        else:
            assert crop["masks"][0].numpy().any()
    assert whole >= 8


def test_augment_gets_one_example_and_must_keep_its_shapes(of):
    seen = []

    def invert(example, seed):
        seen.append(
            (example["image"].dtype, example["masks"].shape.as_list(), seed.shape.as_list())
        )
        return {**example, "image": 255 - example["image"]}

    fields = {"normalise": None, "shuffle": 0, "batch_size": 1}
    plain, inverted = (next(iter(of(**fields, augment=a)))["image"] for a in (None, invert))
    np.testing.assert_array_equal(255 - plain, inverted)
    assert seen[0] == (tf.uint8, [3, 16, 16], [2])
    with pytest.raises(ValueError, match=r"augment must leave 'image' uint8 .*it made float32"):
        of(augment=lambda e, seed: {**e, "image": tf.cast(e["image"], tf.float32)})
    with pytest.raises(ValueError, match="augment must return a dict with the keys"):
        of(augment=lambda e, seed: {"image": e["image"]})


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory):
    """Photographs of a white rectangle on black, which is their only mask."""
    folder = tmp_path_factory.mktemp("rectangles")
    files, rng = {}, np.random.default_rng(0)
    for image_id in range(12):
        height, width = rng.integers(250, 500, 2)
        y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
        stop = [int(rng.integers(y + 60, height)), int(rng.integers(x + 60, width))]
        mask = np.zeros((height, width), bool)
        mask[y : stop[0], x : stop[1]] = True
        out = io.BytesIO()
        image = Image.new("RGB", (int(width), int(height)))
        ImageDraw.Draw(image).rectangle([int(x), int(y), stop[1] - 1, stop[0] - 1], fill="white")
        image.save(out, "JPEG", quality=95)
        content = building.make.describe(image_id, int(height), int(width), [mask])
        files[f"./sa_{image_id}.jpg"] = out.getvalue()
        files[f"./sa_{image_id}.json"] = json.dumps(content).encode()
    building.make.write_tar(folder / "sa_000000.tar", files)
    return building.prepare(folder, folder / "data")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"resize": "square"},
        {"exact": True, "flip": 1.0},
        {"scale_range": (0.3, 3.0), "flip": 0.5},
        {"scale_range": (0.3, 3.0), "flip": 0.5, "resize": "square"},
    ],
    ids=str,
)
def test_pixels_masks_boxes_and_points_move_together(rectangles, fields):
    fields = {**fields, "image_size": 128, "mask_size": 128, "masks_per_image": 1}
    config = TrainingConfig(
        **fields, normalise=None, image_dtype="uint8", box_noise=0.0, batch_size=1,
        points_per_mask=9, drop_remainder=False,
    )  # fmt: skip
    for _, batch in zip(range(24), training_dataset(rectangles, config).repeat(2), strict=False):
        white = batch["image"][0, ..., 0].numpy() > 127
        mask = batch["masks"][0, 0].numpy() > 0
        # At most the outermost pixels may differ.
        assert (white != mask).sum() <= 1.2 * (white.any(0).sum() + white.any(1).sum()) * 2
        rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
        if not len(rows):
            continue
        x0, y0, x1, y1 = batch["boxes"][0, 0].numpy()
        edges = columns[0], rows[0], columns[-1], rows[-1]
        scale = 128 / 250 * 3  # the most that a pixel of the photograph becomes
        np.testing.assert_allclose([x0, y0, x1, y1], edges, atol=1.5 + scale)
        near = np.pad(white, 3)
        for x, y in batch["points"][0, 0].numpy():
            assert near[int(y) + 1 : int(y) + 6, int(x) + 1 : int(x) + 6].any()


@pytest.fixture(scope="module")
def official_data(tars, tmp_path_factory):
    """What the official builder makes of the tars: its features and its parsing, without Beam."""
    folder = tmp_path_factory.mktemp("official")
    builder = official.Builder(data_dir=folder)
    builder.data_path.mkdir(parents=True)
    examples = []
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        for name in sorted(n for n in files if n.endswith(".json")):
            content = json.loads(files[name])
            image = content["image"]
            image["content"] = io.BytesIO(files[name.replace(".json", ".jpg")])
            annotations = official._parse_annotations(
                content["annotations"], image["height"], image["width"]
            )
            examples.append({"image": image, "annotations": annotations})
    writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=5)
    writer.initialize_splits(["train"])
    writer.add_examples({"train": examples})
    writer.close_all()
    return builder.data_path


def test_other_sources_give_the_same_batches(of, data_dir, official_data):
    """What the official builder prepared, and a dataset of undecoded elements."""
    stored = tfds.load("segment_anything", split="train", data_dir=data_dir, decoders=UNDECODED)
    fields = {"drop_remainder": False, "batch_size": 1, "scale_range": (0.7, 2.0)}
    ours, *others = (
        {int(batch["image_id"][0]): batch for batch in dataset}
        for dataset in (of(**fields), of(official_data, **fields), of(stored, **fields))
    )
    assert len(ours) == 11
    for theirs in others:
        assert ours.keys() == theirs.keys()
        assert all(equal(batch, theirs[image_id]) for image_id, batch in ours.items())


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_are_disjoint_and_complete(data_dir, count):
    config = TrainingConfig(**SMALL)
    found = []
    for index in range(count):
        source = find_stream("segment_anything/original", config, data_dir, (index, count))
        records = source.epoch(tf.constant(3, tf.int64))
        found.append([int(source.parse(record).image_id) for record in records])
    assert sorted(i for part in found for i in part) == list(range(12))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, TypeError, "source must be a dataset's name, a builder, a folder or a tf.data.Dataset"),
        ("segment_anything/resized_1024", FileNotFoundError, "is not prepared in .*sa1b build"),
        ("tars", ValueError, r"^'tars' is no dataset's name.* read with read_tars\('tars', "),
        ("./tests", ValueError, r"is no dataset's name.* read with read_tars\('\./tests', "),
        (tf.data.Dataset.range(3), ValueError, "must hold what tfds.load gives with decoders="),
    ],
    ids=["number", "unprepared", "unknown", "folder", "numbers"],
)
def test_bad_sources(of, source, error, message):
    with pytest.raises(error, match=message):
        of(source)


def test_a_dataset_has_no_splits(of):
    with pytest.raises(ValueError, match=r"split must be 'train' with a tf.data.Dataset, got 'tr"):
        of(tf.data.Dataset.range(3), split="train[:50%]")


def test_a_batch_larger_than_the_data_is_an_error(of):
    with pytest.raises(ValueError, match="batch_size=13 is more than the source has, 12 images"):
        of(batch_size=13)


def test_array_record_cannot_be_read_by_tf_data(tars, tmp_path):
    builder = building.prepare(tars, tmp_path, file_format="array_record")
    with pytest.raises(ValueError, match=r"with sa1b_tfds\.grain\.dataset, which makes the same"):
        training_dataset(builder)


def test_resized_images_are_smaller_than_their_masks(rectangles):
    """As in resized_1024: the masks keep the size of the photograph."""
    config = TrainingConfig(
        image_size=64, mask_size=64, masks_per_image=1, batch_size=1, normalise=None,
        image_dtype="uint8", shuffle=0, scale_range=(1.5, 1.5),
    )  # fmt: skip
    stored = rectangles.as_dataset(split="train", decoders=UNDECODED)

    def shrink(element):
        image = tf.io.decode_jpeg(element["image"])
        half = tf.image.resize(image, tf.shape(image)[:2] // 2, antialias=True)
        return {**element, "image": tf.io.encode_jpeg(tf.cast(half + 0.5, tf.uint8), quality=95)}

    for small, large in zip(
        training_dataset(stored.map(shrink), config), training_dataset(stored, config), strict=True
    ):
        for name in set(small) - {"image"}:
            np.testing.assert_array_equal(small[name], large[name])
        error = np.abs(np.float32(small["image"]) - np.float32(large["image"]))
        assert error.mean() < 6  # edges, up to a pixel
