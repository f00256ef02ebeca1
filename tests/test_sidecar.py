"""Sidecars: what a function makes of the images is what every reader gives, and nothing else."""

import os
import pickle
import shutil
import subprocess

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import torch

import sa1b_tfds
from sa1b_tfds import sidecar
from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.core.lock import FolderInUse, lock_folder
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.torch import SA1BDataset
from tests import building, forked, sidecars
from tests.sidecars import FEATURES, expected

SKIP = tfds.decode.SkipDecoding()
STORED = {"image": SKIP, "masks": SKIP}
ALONE = {"masks_per_image": 0}
SMALL = {"image_size": 32, "mask_size": 16, "masks_per_image": 6, "batch_size": 4}


@pytest.fixture(scope="module")
def tars(prepared):
    return prepared / "tars"


@pytest.fixture(scope="module")
def made(tars, tmp_path_factory):
    """A sidecar of all 16 images."""
    out = tmp_path_factory.mktemp("made") / "teacher"
    assert sidecar.map(tars, sidecars.make, FEATURES, out, batch_size=3) == []
    return out


@pytest.fixture(scope="module")
def of_one_tar(tars, tmp_path_factory):
    """A sidecar of the images 0 to 7."""
    out = tmp_path_factory.mktemp("one") / "teacher"
    sidecar.map(tars / "sa_000000.tar", sidecars.make, FEATURES, out)
    return out


@pytest.fixture(scope="module")
def array_records(tars, tmp_path_factory):
    folder = tmp_path_factory.mktemp("array_records")
    builder = tfds.builder(
        "segment_anything", data_dir=folder, num_workers=1, file_format="array_record"
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tars))
    return folder


@pytest.fixture(scope="module")
def resized(tars, tmp_path_factory):
    """Data of another config, with several shards for each tar."""
    folder = tmp_path_factory.mktemp("resized")
    builder = tfds.builder("segment_anything/resized_1024", data_dir=folder, num_workers=1)
    config = tfds.download.DownloadConfig(manual_dir=tars, num_shards=7)
    builder.download_and_prepare(download_config=config)
    return folder


@pytest.fixture(scope="module")
def service():
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.partition("://")[2]
    workers = [
        tf.data.experimental.service.WorkerServer(
            tf.data.experimental.service.WorkerConfig(dispatcher_address=address)
        )
        for _ in range(2)
    ]
    yield dispatcher.target
    del workers


def plain(value):
    """An array, or text, of what any reader gives."""
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "detach"):
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    value = value if isinstance(value, str) else np.asarray(value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return value.item().decode()
    return value


def check(found, image_id, chosen):
    """Compares columns with those that were written; `chosen` are the masks, None without them."""
    number = 0 if chosen is None or not len(chosen) else int(chosen.max()) + 1
    want = expected(image_id, number)
    assert plain(found["t/caption"]) == want["caption"]
    for name in ("embedding", "vector"):
        np.testing.assert_array_equal(
            plain(found[f"t/{name}"]).astype(np.float32), want[name].astype(np.float32)
        )
    if chosen is None:
        assert not {"t/label", "t/clip"} & found.keys()
        return
    np.testing.assert_array_equal(plain(found["t/label"]), want["label"][chosen])
    np.testing.assert_array_equal(plain(found["t/clip"]), want["clip"][chosen])


def ids_in(elements, masks_of):
    """Checks the elements of a reader and returns their ids; masks_of -> the chosen masks."""
    ids = []
    for element in elements:
        ids.append(int(element["image_id"]))
        check(element, ids[-1], masks_of(element))
    return ids


def all_masks(element):
    return np.arange(len(element["annotations"]["id"]))


def in_batches(dataset):
    """The images of batches, each with only its valid masks."""
    for batch in dataset.as_numpy_iterator():
        for i in range(len(batch["image_id"])):
            if "mask_valid" not in batch:
                yield {key: value[i] for key, value in batch.items()}
                continue
            valid = batch["mask_valid"][i]
            for name in ("t/label", "t/clip"):
                padding = batch[name][i][~valid]
                assert (padding == (-1 if name == "t/label" else 0)).all()
            yield {
                key: value[i][valid] if key in ("t/label", "t/clip", "mask_index") else value[i]
                for key, value in batch.items()
            }


def by_load(prepared, array_records, resized, tars, service, spec):
    dataset = sidecar.load("segment_anything", spec, data_dir=prepared, decoders=STORED)
    return ids_in(dataset, all_masks)


def by_load_of_another_config(prepared, array_records, resized, tars, service, spec):
    dataset = sidecar.load(
        "segment_anything/resized_1024", spec, data_dir=resized, decoders={"masks": SKIP}
    )
    return ids_in(dataset.shuffle(20), all_masks)


def by_data_source(prepared, array_records, resized, tars, service, spec):
    source = sidecar.data_source("segment_anything", spec, data_dir=array_records)
    return ids_in(pickle.loads(pickle.dumps(source)), all_masks)


def by_read_tars(prepared, array_records, resized, tars, service, spec):
    dataset = sa1b_tfds.read_tars(tars, sidecars=spec, decoders=STORED, shuffle=True, seed=1)
    return ids_in(dataset, all_masks)


def by_torch(prepared, array_records, resized, tars, service, spec):
    dataset = pickle.loads(pickle.dumps(SA1BDataset(tars, max_masks=3, sidecars=spec)))
    found = [dataset[i][2] for i in range(len(dataset))]
    return ids_in(found, masks_in_metadata)


def masks_in_batch(image):
    return image.get("mask_index")


def masks_in_metadata(metadata):
    return np.arange(len(metadata["id"]))


def batches(source, spec, **options):
    config = sa1b_tfds.TrainingConfig(**{**SMALL, "drop_remainder": False, **options})
    return lambda **how: sa1b_tfds.training_dataset(source, config, sidecars=spec, **how)


def by_training(prepared, array_records, resized, tars, service, spec):
    dataset = batches("segment_anything", spec, shuffle=9, **ALONE)(data_dir=prepared)
    return ids_in(in_batches(dataset), masks_in_batch)


def by_training_on_another_config(prepared, array_records, resized, tars, service, spec):
    source = resized / "segment_anything" / "resized_1024" / "2.0.0"
    cropped = {"scale_range": (0.5, 2.0), "augment": lambda example, seed: example}
    dataset = batches(source, spec, shuffle=9, **cropped)()
    return ids_in(in_batches(dataset), masks_in_batch)


def by_training_with_a_service(prepared, array_records, resized, tars, service, spec):
    dataset = batches("segment_anything", spec, **ALONE)(data_dir=prepared, service=service)
    return ids_in(in_batches(dataset), masks_in_batch)


READERS = [
    by_load,
    by_load_of_another_config,
    by_data_source,
    by_read_tars,
    by_torch,
    by_training,
    by_training_on_another_config,
    by_training_with_a_service,
]


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_every_reader_gives_what_was_written(
    read, prepared, array_records, resized, tars, service, made
):
    ids = read(prepared, array_records, resized, tars, service, {"t": made})
    assert sorted(ids) == list(range(16))


# One for each way in which rows are found.
FEW_READERS = [by_load, by_data_source, by_read_tars, by_torch, by_training]


@pytest.mark.parametrize("read", FEW_READERS, ids=lambda read: read.__name__)
def test_an_image_without_a_row_is_an_error_that_names_it(
    read, prepared, array_records, resized, tars, service, of_one_tar
):
    with pytest.raises(Exception, match=r"has no row of .*\b(8|9|1[0-5])\b"):
        read(prepared, array_records, resized, tars, service, {"t": of_one_tar})


@pytest.mark.parametrize("read", FEW_READERS, ids=lambda read: read.__name__)
def test_images_without_a_row_are_left_out_when_asked(
    read, prepared, array_records, resized, tars, service, of_one_tar, caplog
):
    spec = {"t": sidecar.Sidecar(path=of_one_tar, missing="skip")}
    assert sorted(read(prepared, array_records, resized, tars, service, spec)) == list(range(8))
    assert "8 images" in caplog.text
    assert "left out" in caplog.text


DEFAULTS = {"embedding": 7, "vector": 1, "caption": "none", "label": 2, "clip": 0.5}


def test_images_without_a_row_get_the_values_that_are_asked_for(prepared, tars, of_one_tar):
    spec = {"t": sidecar.Sidecar(path=of_one_tar, missing=DEFAULTS)}
    loaded = sidecar.load("segment_anything", spec, data_dir=prepared, decoders=STORED)
    streamed = sa1b_tfds.read_tars(tars, sidecars=spec, decoders=STORED)
    torch = SA1BDataset(tars, sidecars=spec)
    elements = [*loaded, *streamed, *(torch[i][2] for i in range(16))]
    without_row = [element for element in elements if int(element["image_id"]) >= 8]
    for element in without_row:
        number = len(element["id"] if "id" in element else element["annotations"]["id"])
        assert plain(element["t/caption"]) == "none"
        assert (plain(element["t/embedding"]) == 7).all()
        assert plain(element["t/label"]).tolist() == [2] * number
        assert (plain(element["t/clip"]) == np.full((number, 5), 0.5)).all()
    assert len(without_row) == 24


def test_a_sidecar_is_a_dataset_of_tfds(made):
    builder = tfds.builder("teacher", data_dir=made.parent)
    assert builder.info.splits["train"].num_examples == 16
    for element in builder.as_dataset(split="train").as_numpy_iterator():
        want = expected(element["image_id"], element["mask_count"])
        assert element["caption"].decode() == want["caption"]
        assert element["vector"].dtype == want["vector"].dtype
        np.testing.assert_array_equal(element["embedding"], want["embedding"])
        np.testing.assert_array_equal(element["label"], want["label"])
    assert builder.info.features["label"].feature.names == sidecars.LABELS


def test_rows_are_in_the_order_of_the_data_whatever_they_are_made_of(
    made, prepared, tars, tmp_path
):
    """One run of records for each shard of the data is what makes reading fast."""
    packed = building.packed(tars).rename(tmp_path / "packed")
    data = prepared / "segment_anything" / "original" / "2.0.0"
    for name, source in {"of_gzip": packed, "of_data": data}.items():
        sidecar.map(source, sidecars.make, FEATURES, tmp_path / name)
    stored = [_stored(folder) for folder in (made, tmp_path / "of_gzip", tmp_path / "of_data")]
    assert stored[0] == stored[1] == stored[2]


def _stored(folder):
    """The bytes of all shards, and what stands about each tar but where it was read from."""
    paths = sorted((folder / "1.0.0").glob("*.tfrecord-*"))
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("masks_per_image", [0, 2])
def test_a_function_of_batches_of_training(tars, tmp_path, masks_per_image):
    """It is given all images, with or without masks, in the order in which they are stored."""
    config = sa1b_tfds.TrainingConfig(**{**SMALL, "masks_per_image": masks_per_image})
    feature = tfds.features.Tensor(shape=(2,), dtype=np.int64)

    def make(batch):
        ids = batch["image_id"]
        return tf.stack([ids, tf.fill([len(ids)], tf.constant(len(ids), tf.int64))], axis=1)

    tar = tars / "sa_000001.tar"
    sidecar.map(tar, make, {"ids": feature}, tmp_path / "t", batch_size=3, prepare=config)
    dataset = SA1BDataset(tar, masks=False, sidecars={"t": tmp_path / "t"})
    found = [dataset[i][2] for i in range(8)]
    assert [m["t"][0].item() for m in found] == [m["image_id"] for m in found]
    assert sorted(m["t"][1].item() for m in found) == [2] * 2 + [3] * 6
    crops = sa1b_tfds.TrainingConfig(flip=0.5)
    with pytest.raises(ValueError, match="prepare must not crop or mirror images"):
        sidecar.map(tars, make, {"ids": feature}, tmp_path / "u", prepare=crops)


def test_a_function_of_items_of_torch(tars, tmp_path):
    dataset = SA1BDataset(tars, mask_size=8)

    def make(items):
        images, masks, _ = zip(*items, strict=True)
        areas = [each.flatten(1).sum(1) for each in masks]
        return {"mean": torch.stack([i.float().mean().bfloat16() for i in images]), "area": areas}

    features = {
        "mean": tfds.features.Scalar(ml_dtypes.bfloat16),
        "area": tfds.features.Sequence(np.int64),
    }
    sidecar.map(tars, make, features, tmp_path / "t", prepare=dataset.item)
    joined = SA1BDataset(tars, mask_size=8, sidecars={"t": tmp_path / "t"})
    for i in range(0, 16, 5):
        image, masks, metadata = joined[i]
        assert metadata["t/mean"] == image.float().mean().bfloat16()
        assert metadata["t/area"].tolist() == masks.flatten(1).sum(1).tolist()


def test_a_split_has_its_own_rows(prepared, made):
    spec = {"t": made}
    for split in ("train[3:9]", "train[50%:]+train[:2]"):
        data = tfds.load("segment_anything", split=split, data_dir=prepared, decoders=STORED)
        ids = [int(element["image_id"]) for element in data]
        dataset = sidecar.load(
            "segment_anything", spec, split=split, data_dir=prepared, decoders=STORED
        )
        assert sorted(ids_in(dataset, all_masks)) == sorted(ids)
        assert len(dataset) == len(ids)
    dataset = batches("segment_anything", spec, split=split, **ALONE)(data_dir=prepared)
    assert sorted(ids_in(in_batches(dataset), masks_in_batch)) == sorted(ids)


def test_chosen_images_have_their_rows(prepared, tars, resized, made):
    """Here the rows of images that are not chosen lie between those that are."""
    spec, ids = {"t": made}, [1, 2, 6, 9, 14]
    several_shards = resized / "segment_anything" / "resized_1024" / "2.0.0"
    stream = sa1b_tfds.read_tars(tars, sidecars=spec, decoders=STORED)
    skipped = {"missing_ids": "skip"}  # a stream does not know its ids
    for source, options, how in (
        ("segment_anything", ALONE, {}),
        (several_shards, {}, {}),
        (stream, {}, skipped),
    ):
        dataset = batches(source, spec, **options)(data_dir=prepared, ids=ids, **how)
        assert sorted(ids_in(in_batches(dataset), masks_in_batch)) == ids
    dataset = SA1BDataset(tars, ids=ids, sidecars=spec)
    assert sorted(ids_in([dataset[i][2] for i in range(5)], masks_in_metadata)) == ids


def test_the_parts_of_a_hold_out_have_their_rows(prepared, tars, made):
    found = []
    for part in ("train", "val"):
        options = {"holdout": 0.4, "holdout_part": part}
        dataset = batches("segment_anything", {"t": made}, **ALONE, **options)(data_dir=prepared)
        ids = sorted(ids_in(in_batches(dataset), masks_in_batch))
        dataset = SA1BDataset(tars, sidecars={"t": made}, **options)
        items = [dataset[i][2] for i in range(len(dataset))]
        assert sorted(ids_in(items, masks_in_metadata)) == ids
        assert 0 < len(ids) < 16
        found += ids
    assert sorted(found) == list(range(16))


def test_images_that_are_not_chosen_need_no_row(prepared, of_one_tar):
    make = batches("segment_anything", {"t": of_one_tar}, shuffle=9, **ALONE)
    dataset = make(data_dir=prepared, ids=[3, 5])
    assert sorted(ids_in(in_batches(dataset), masks_in_batch)) == [3, 5]
    with pytest.raises(sidecar.MissingRows, match=r"has no row of 2 images: (9, 12|12, 9)"):
        make(data_dir=prepared, ids=[3, 9, 12])
    skipping = {"t": sidecar.Sidecar(path=of_one_tar, missing="skip")}
    with pytest.raises(ValueError, match=r"None of the images has a row in .*teacher"):
        batches("segment_anything", skipping)(data_dir=prepared, ids=[9, 12])


def test_more_tars_extend_a_sidecar(tars, tmp_path):
    """What is written is not made again, and a call without anything to do makes nothing."""
    source, out = tmp_path / "tars", tmp_path / "teacher"
    source.mkdir()
    calls = []

    def make(batch):
        calls.extend(each["image_id"] for each in batch)
        return sidecars.make(batch)

    for number, new in enumerate((range(8), range(8, 16), ())):
        if new:
            shutil.copy2(tars / f"sa_00000{number}.tar", source)
        calls.clear()
        sidecar.map(source, make, FEATURES, out)
        assert sorted(calls) == list(new)
    dataset = sa1b_tfds.read_tars(source, sidecars={"t": out}, decoders=STORED)
    assert sorted(ids_in(dataset, all_masks)) == list(range(16))
    assert os.listdir(out) == ["1.0.0"]


def test_pieces_are_joined_when_none_is_missing(tars, made, tmp_path):
    out = tmp_path / "teacher"
    sidecar.map(tars, sidecars.make, FEATURES, out, shard=(1, 2))
    with pytest.raises(ValueError, match=r"1 of 2 tars have no rows in .*teacher: sa_000000.tar"):
        sidecar.join(tars, out)
    with pytest.raises(FileNotFoundError, match=r"holds no sidecar\. If its pieces"):
        sa1b_tfds.read_tars(tars, sidecars={"t": out})
    sidecar.map(tars, sidecars.make, FEATURES, out, shard=(0, 2))
    assert sidecar.join(tars, out) == 16
    assert _stored(out) == _stored(made)


def test_an_image_in_two_tars_is_no_sidecar(tars, tmp_path):
    shutil.copytree(tars, tmp_path / "tars")
    shutil.copy(tars / "sa_000000.tar", tmp_path / "tars" / "sa_000007.tar")
    with pytest.raises(ValueError, match=r"Images are in two tars, as image \d in sa_000000"):
        sidecar.map(tmp_path / "tars", sidecars.make, FEATURES, tmp_path / "teacher")


def test_processes_are_kept_apart(tars, tmp_path):
    out = tmp_path / "teacher"
    with lock_folder(out), pytest.raises(FolderInUse):
        sidecar.map(tars, sidecars.make, FEATURES, out)
    staging = Folder(out / "1.0.0").staging
    with lock_folder(out, shared=True):
        with lock_folder(staging.lock("sa_000000.tar")), pytest.raises(FolderInUse):
            sidecar.map(tars, sidecars.make, FEATURES, out, shard=(0, 2))
        sidecar.map(tars, sidecars.make, FEATURES, out, shard=(0, 2))
        with pytest.raises(FolderInUse):
            sidecar.join(tars, out)


def test_an_image_for_which_there_is_nothing(tars, tmp_path):
    out = tmp_path / "teacher"

    def caption(batch):
        return [None if each["image_id"] in (3, 12) else "a" for each in batch]

    features = {"caption": tfds.features.Text()}
    with pytest.raises(BadInput, match=r"sa_000000\.tar: image 3: it has no row"):
        sidecar.map(tars, caption, features, out)
    problems = sidecar.map(tars, caption, features, out, on_error="skip")
    assert [problem.member for problem in problems] == ["image 3", "image 12"]
    with pytest.raises(sidecar.MissingRows, match="has no row of 2 images: 3, 12"):
        sidecar.load(_data(tars), {"t": out})
    spec = {"t": sidecar.Sidecar(path=out, missing={"caption": "?"})}
    loaded = sidecar.load(_data(tars), spec, decoders=STORED)
    found = {int(element["image_id"]): element["t"].numpy() for element in loaded}
    assert [found[i] for i in (3, 4, 12)] == [b"?", b"a", b"?"]


def _data(tars):
    return tars.parent / "segment_anything" / "original" / "2.0.0"


def test_other_data_with_the_same_ids_is_refused(tars, made, tmp_path):
    """Its images have other masks."""
    other = building.write_tars(tmp_path / "tars", tars=1, images=2, height=40, width=50, shapes=2)
    dataset = sa1b_tfds.read_tars(other, sidecars={"t": made}, decoders=STORED)
    with pytest.raises(tf.errors.InvalidArgumentError, match="was made of other data"):
        list(dataset)
    with pytest.raises(ValueError, match="was made of other data: its row is of image"):
        SA1BDataset(other, sidecars={"t": made})[0]


SPATIAL = {"embedding": FEATURES["embedding"], "vector": FEATURES["vector"]}


def test_crops_do_not_move_a_map_of_the_image(prepared, made):
    for options in ({"flip": 0.5}, {"scale_range": (0.5, 2.0)}):
        with pytest.raises(ValueError, match="flip and scale_range move the pixels of images, but"):
            batches("segment_anything", {"t": made}, **options)(data_dir=prepared)

    def move(example, seed):
        moved = tf.reverse(example["t/embedding"], [1])
        kept = tf.where(example["mirrored"], moved, example["t/embedding"])
        return {**example, "t/embedding": kept}

    dataset = batches("segment_anything", {"t": made}, flip=1.0, augment=move)(data_dir=prepared)
    for batch in dataset:
        assert batch["mirrored"].numpy().all()
        assert batch["window"].shape[1:] == [4]
        for image_id, moved in zip(
            batch["image_id"].numpy(), batch["t/embedding"].numpy(), strict=True
        ):
            want = expected(image_id, 0)["embedding"]
            np.testing.assert_array_equal(moved, want[:, ::-1])


def test_the_layouts_of_models_have_columns_in_the_targets(prepared, made):
    dataset = batches("segment_anything", {"t": made}, layout="transformers")(data_dir=prepared)
    _, targets = next(iter(dataset))
    assert targets["t/embedding"].shape == (4, 4, 4, 8)
    assert targets["t/label"].shape == (4, 6)
    assert targets["t/caption"].dtype == tf.string


def test_images_alone_have_the_columns_of_images(prepared, tars, made):
    spec = {"t": made}
    dataset = batches("segment_anything", spec, **ALONE, layout="keras_hub")(data_dir=prepared)
    for _, targets in dataset.as_numpy_iterator():
        assert not {"t/label", "t/clip"} & targets.keys()
        ids = [int(caption.split()[1]) for caption in targets["t/caption"]]
        want = [expected(image_id, 0)["embedding"] for image_id in ids]
        np.testing.assert_array_equal(targets["t/embedding"], want)
    _, masks, metadata = SA1BDataset(tars, masks=False, sidecars=spec)[3]
    assert len(masks) == 0
    assert metadata["t/caption"] == expected(metadata["image_id"], 0)["caption"]
    assert "t/label" not in metadata


def test_a_layout_without_room_for_columns_is_refused(prepared, made):
    config = sa1b_tfds.TrainingConfig(layout="sam2", image_size=32, mask_size=32)
    with pytest.raises(ValueError, match="sidecars must be None with layout='sam2'"):
        sa1b_tfds.training_dataset(
            "segment_anything", config, data_dir=prepared, sidecars={"t": made}
        )


F = tfds.features


@pytest.mark.parametrize(
    ("features", "text"),
    [
        ({}, "features must have at least one column"),
        ({"image_id": np.int64}, "A column cannot be called 'image_id'"),
        ({"A b": np.int64}, "A column cannot be called 'A b': take lower-case letters"),
        ({"x": F.Image()}, "Column 'x' is a Image: take a Tensor, Scalar, Text or ClassLabel"),
        ({"x": F.Tensor(shape=(2, None), dtype=np.int64)}, r"'x' has the shape \[2, None\]"),
        ({"x": F.Tensor(shape=(2, 2), dtype=np.str_)}, "'x': text has one value for each image"),
        ({"x": F.Tensor(shape=(2,), dtype=np.uint64)}, "'x': uint64 cannot be stored; take int64"),
    ],
)
def test_columns_that_cannot_be_stored(tars, tmp_path, features, text):
    with pytest.raises(ValueError, match=text):
        sidecar.map(tars, sidecars.make, features, tmp_path / "teacher")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("feature", "value", "text"),
    [
        (np.int64, [1.5] * 8, "float64 cannot be stored as int64"),
        (F.Scalar(np.uint8), [300] * 8, "a value is out of the range of uint8"),
        (F.Scalar(np.float16), [1e6] * 8, "a value is out of the range of float16"),
        (F.Text(), [5] * 8, "5 is not text"),
        (F.ClassLabel(names=["a"]), ["b"] * 8, "'b' is none of its labels"),
        (F.Tensor(shape=(2,), dtype=np.float32), np.zeros((8, 3)), r"is \[3\], declared is \[2\]"),
        (F.Sequence(F.Text()), [["a"]] * 8, r"it has 1 values for \d+ masks"),
        (np.int64, [1] * 7, "one value for each of 8 images, for column 'x' it returned 7"),
        (np.int64, {"y": [1] * 8}, r"must return the columns \['x'\], it returned \['y'\]"),
    ],
)
def test_values_that_do_not_fit_their_column(tars, tmp_path, feature, value, text):
    with pytest.raises(ValueError, match=text):
        sidecar.map(tars, lambda batch: value, {"x": feature}, tmp_path / "teacher")


def test_other_columns_or_another_name_are_refused(tars, tmp_path):
    features = {"caption": tfds.features.Text()}
    sidecar.map(tars, lambda batch: ["a"] * len(batch), features, tmp_path / "teacher")
    with pytest.raises(ValueError, match=r"has other columns than these: sa_000000.tar was"):
        sidecar.map(tars, sidecars.make, FEATURES, tmp_path / "teacher")
    with pytest.raises(ValueError, match="cannot be a sidecar's folder: its last part names"):
        sidecar.map(tars, sidecars.make, FEATURES, tmp_path / "My Teacher")
    with pytest.raises(ValueError, match="holds no sidecar: it has"):
        sa1b_tfds.read_tars(tars, sidecars={"t": _data(tars)})
    spec = sidecar.Sidecar(path=tmp_path / "teacher", padding={"label": 0})
    with pytest.raises(ValueError, match=r"has no columns \['label'\]; it has \['caption'\]"):
        sa1b_tfds.read_tars(tars, sidecars={"t": spec})
    with pytest.raises(ValueError, match=r"The tf.data.Dataset has no t: give read_tars the same"):
        batches(sa1b_tfds.read_tars(tars, decoders=STORED), {"t": tmp_path / "teacher"})()


_KILLED = """
import os, pathlib, shutil, sys
import sa1b_tfds.sidecars.joining
from sa1b_tfds import sidecar
from tests import sidecars

tars, folder = map(pathlib.Path, sys.argv[1:])
held_back = folder / "held_back"


def run(kill_at):
    "Adds the second tar in a process of its own, which dies at its k-th rename."
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    names = ("rename", "replace", "link")
    renames = {name: getattr(os, name) for name in names}
    calls = iter(range(1, 1000))

    def dying(name):
        def call(*arguments, **options):
            if next(calls) == kill_at:
                os._exit(9)
            return renames[name](*arguments, **options)

        return call

    for name in names:
        setattr(os, name, dying(name))
    sidecar.map(tars, sidecars.make, sidecars.FEATURES, folder / "teacher")
    os._exit(0)


sidecar.map(tars / "sa_000000.tar", sidecars.make, sidecars.FEATURES, folder / "first")
kills = 0
while True:
    shutil.copytree(folder / "first", folder / "teacher")
    if run(kills + 1) == 0:
        break
    kills += 1
    assert run(0) == 0
    (folder / "teacher").rename(folder / f"after_{kills}")
print(kills)
"""


def test_after_a_kill_at_any_rename_a_sidecar_is_whole(tars, made, tmp_path):
    """A tar is added. The sidecar is what it was, or whole, and the next call makes it whole."""
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    root = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        forked.command(script, tars, tmp_path),
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    assert kills >= 8
    for number in range(1, kills + 1):
        assert _stored(tmp_path / f"after_{number}") == _stored(made)
        assert os.listdir(tmp_path / f"after_{number}") == ["1.0.0"]
