"""SA1BDataset, its collate functions, its workers and the Lightning module."""

import json
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import sa1b_tfds
from dummy_data import make
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.examples import annotations, array_records, jpeg
from sa1b_tfds.examples.example import COLUMNS, Example
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.masks import rle
from tests import building, strategies

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")

from sa1b_tfds.torch import SA1BDataset, TransformersCollate, collate  # noqa: E402

SHAPES = {"height": 60, "width": 90, "shapes": 9}
TARS = ["tars", "compressed tars", "tars of both forms"]
PLACES = [*TARS, "one tar", "files", "tfrecord", "array_record"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """By name: what SA1BDataset takes for two tars, extracted, and prepared in both formats."""
    root = tmp_path_factory.mktemp("torch")
    tars = building.write_tars(root / "tars", **SHAPES)
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(root / "files", filter="data")
    places = {
        "tars": {"root_dir": tars},
        "one tar": {"root_dir": tars / "sa_000001.tar"},
        "compressed tars": {"root_dir": building.packed(tars)},
        "tars of both forms": {"root_dir": building.packed(tars, ("plain", "gzip"))},
        "files": {"root_dir": root / "files"},
    }
    for file_format in ("tfrecord", "array_record"):
        building.prepare(tars, root / file_format, file_format=file_format)
        places[file_format] = {"root_dir": root / file_format, "config": "original"}
    return places


@pytest.fixture(scope="module")
def truth(places):
    return {e.image_id: e for e in read_examples(places["tars"]["root_dir"])}


@pytest.mark.parametrize("place", PLACES)
def test_an_item_is_what_the_files_say(places, truth, place):
    dataset = SA1BDataset(**places[place])
    items = {item[2]["image_id"]: item for item in dataset}
    assert len(items) == len(dataset) == (4 if place == "one tar" else 8)
    for image_id, (image, masks, metadata) in items.items():
        example = truth[image_id]
        n = len(example.masks.counts)
        assert (image.dtype, image.shape) == (torch.uint8, (3, 60, 90))
        assert (masks.dtype, masks.shape) == (torch.bool, (n, 60, 90))
        for mask, counts in zip(masks, example.masks.counts, strict=True):
            expected = rle.decode_rle({"size": (60, 90), "counts": counts})
            np.testing.assert_array_equal(mask.numpy(), expected)
        pixels = tf.io.decode_jpeg(example.image, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(image.permute(1, 2, 0), pixels)
        assert {name: metadata[name] for name in ("file_name", "height", "width")} == {
            "file_name": f"sa_{image_id}.jpg",
            "height": 60,
            "width": 90,
        }
        for name in ("id", "area", "predicted_iou", "stability_score", "point_coords"):
            column = example.annotations[name]
            assert metadata[name].numpy().dtype == column.dtype
            np.testing.assert_array_equal(metadata[name].numpy(), column)
        _, content = make.draw(image_id, **SHAPES)
        for name in ("bbox", "crop_box"):  # pixels, XYWH: exactly as in the JSON
            assert metadata[name].dtype == torch.float32
            assert metadata[name].tolist() == [a[name] for a in content["annotations"]]


@pytest.mark.parametrize("place", TARS)
def test_indices(places, place):
    dataset = SA1BDataset(**places[place])
    ids = [dataset[i][2]["image_id"] for i in range(8)]
    assert sorted(ids) == list(range(8))
    assert ids == [item[2]["image_id"] for item in SA1BDataset(**places["tars"])]
    assert dataset[-8][2]["image_id"] == ids[0]
    for i in (8, -9):
        with pytest.raises(IndexError, match=f"Image {i} of 8"):
            dataset[i]


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"mask_size": 16}, (16, 16)),
        ({"mask_size": (20, 30)}, (20, 30)),
        ({"mask_size": 16, "keep_aspect": True}, (11, 16)),
        ({"mask_size": (200, 120), "keep_aspect": True}, (80, 120)),
    ],
)
def test_mask_size(places, options, size):
    full = SA1BDataset(**places["tars"])[3][1].numpy()
    masks = SA1BDataset(**places["tars"], **options)[3][1]
    assert masks.dtype == torch.bool
    np.testing.assert_array_equal(masks.numpy(), strategies.sample(full, size))


def test_mask_filters_and_choice(places):
    def ids(**options):
        metadata = SA1BDataset(**places["tars"], **options)[1][2]
        columns = zip(metadata["area"], metadata["predicted_iou"], strict=True)
        return dict(zip(metadata["id"].tolist(), columns, strict=True))

    every = ids()
    n = len(every)
    assert n >= 6
    assert list(ids(max_masks=3)) == list(every)[:3]
    assert list(ids(max_masks=n)) == list(ids(max_masks=99, mask_choice="largest")) == list(every)
    for choice, column in (("largest", 0), ("score", 1)):
        best = sorted(every, key=lambda i: -every[i][column])[:3]
        assert set(ids(max_masks=3, mask_choice=choice)) == set(best)
    median = sorted(iou for _, iou in every.values())[n // 2].item()
    assert set(ids(min_predicted_iou=median)) == {i for i, (_, v) in every.items() if v >= median}
    assert 0 < len(ids(min_predicted_iou=median)) < n
    small = ids(max_area_fraction=0.02)
    assert set(small) == {i for i, (area, _) in every.items() if area <= 0.02 * 60 * 90}
    assert 0 < len(small) < n
    drawn = [tuple(ids(max_masks=3, mask_choice="random")) for _ in range(20)]
    assert len(set(drawn)) > 1
    assert all(list(d) == [i for i in every if i in d] and len(d) == 3 for d in drawn)


@pytest.mark.parametrize("choice", ["first", "largest", "score"])
def test_of_equal_masks_the_first_are_taken(places, choice):
    """300 masks of three kinds: more than any sort keeps in their order by chance."""
    kind = np.random.default_rng(0).integers(0, 3, 300)
    columns = {
        "id": np.arange(300),
        "area": 100 + kind,
        "predicted_iou": np.float32([0.875, 0.9375, 1.0])[kind],
    }
    example = Example(b"", 1, "", rle.Checked([b""] * 300, (60, 90)), columns)
    best = sorted(range(300), key=lambda i: -kind[i])  # Python's sort is stable
    for most in (7, 70, 170):
        dataset = SA1BDataset(**places["tars"], max_masks=most, mask_choice=choice)
        expected = range(most) if choice == "first" else sorted(best[:most])
        assert dataset._choose(example).tolist() == list(expected)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({"max_area_fraction": 0.25}, [0, 1]),
        ({"max_area_fraction": 1.0}, [0, 1, 2, 3]),
        ({"min_predicted_iou": 0.75}, [1, 2, 3]),
        ({"min_predicted_iou": 0.75, "max_area_fraction": 0.25}, [1]),
        ({"min_predicted_iou": 0.75, "max_masks": 1}, [1]),
        ({"min_predicted_iou": 0.75, "max_masks": 2, "mask_choice": "largest"}, [2, 3]),
        ({"max_masks": 2, "mask_choice": "score"}, [2, 3]),
    ],
)
def test_masks_at_a_limit_are_taken(places, options, chosen):
    columns = {
        "id": np.arange(4),
        "area": np.array([1349, 1350, 1351, 5400]),  # of 60 x 90 = 5400
        "predicted_iou": np.array([0.5, 0.75, 0.875, 1.0], np.float32),
    }
    example = Example(b"", 1, "", rle.Checked([b""] * 4, (60, 90)), columns)
    assert SA1BDataset(**places["tars"], **options)._choose(example).tolist() == chosen


def test_its_repr_says_what_it_holds(places):
    held = "8 images of 2 parts: sa_000000.tar, sa_000001.tar"
    assert repr(SA1BDataset(**places["tars"])) == f"SA1BDataset({held})"


def test_an_image_without_masks(tmp_path):
    dataset = SA1BDataset(building.write_tars(tmp_path, tars=1, images=1, shapes=0), mask_size=16)
    _, masks, metadata = dataset[0]
    assert masks.shape == (0, 16, 16)
    assert metadata["bbox"].shape == (0, 4)
    batch = TransformersCollate(image_size=64, mask_size=16)([dataset[0]])
    assert not batch["mask_valid"].any()


@pytest.mark.parametrize("place", PLACES)
def test_images_alone(places, truth, place, monkeypatch):
    whole = SA1BDataset(**places[place])
    dataset = SA1BDataset(**places[place], masks=False)
    if place in ("one tar", "files"):
        monkeypatch.setattr(annotations, "parse", None)  # no JSON is read
    assert len(dataset) == len(whole)
    for i in range(len(dataset)):
        image, masks, metadata = dataset[i]
        expected = truth[metadata["image_id"]]
        assert metadata["file_name"] == expected.file_name
        assert masks.shape == (0, 60, 90)
        assert masks.dtype == torch.bool
        np.testing.assert_array_equal(image.permute(1, 2, 0), jpeg.decode(expected.image))
        assert {len(metadata[c.name]) for c in COLUMNS} == {0}


def test_images_alone_under_names_without_an_id(tmp_path):
    files = dict(make.files_of(7, **SHAPES))
    renamed = {
        name.replace("sa_7", "sa_photo"): data.replace(b"sa_7.jpg", b"sa_photo.jpg")
        for name, data in files.items()
    }
    make.write_tar(tmp_path / "sa_000000.tar", renamed)
    (item,) = SA1BDataset(tmp_path, masks=False)
    assert item[2]["image_id"] == 7
    assert len(item[1]) == 0


def test_resized_data_gives_boxes_and_points_of_its_images(places, tmp_path):
    big = building.write_tars(tmp_path / "big", tars=1, images=1, height=600, width=1800, shapes=2)
    building.prepare(big, tmp_path, "segment_anything/resized_1024")
    image, masks, small = SA1BDataset(tmp_path, config="resized_1024")[0]
    large = SA1BDataset(big)[0][2]
    assert image.shape == (3, 341, 1024)
    assert masks.shape[1:] == (600, 1800)
    scale = torch.tensor([1024 / 1800, 341 / 600])
    torch.testing.assert_close(small["point_coords"], large["point_coords"] * scale)
    torch.testing.assert_close(small["bbox"], large["bbox"] * scale.repeat(2), atol=0.006, rtol=0)


def test_transform_sees_all_three(places):
    def transform(image, masks, metadata):
        return image.flip(-1), masks.flip(-1), metadata["image_id"]

    plain, flipped = (SA1BDataset(**places["tars"], transform=t)[2] for t in (None, transform))
    assert torch.equal(flipped[0], plain[0].flip(-1))
    assert torch.equal(flipped[1], plain[1].flip(-1))
    assert flipped[2] == plain[2]["image_id"]


def test_the_index_takes_under_100_bytes_an_image(tmp_path):
    one = make.files_of(0)
    sizes = []
    for images in (100, 1100):
        files = {
            name.replace("0", f"{i:08}"): data for i in range(images) for name, data in one.items()
        }
        make.write_tar(tmp_path / "sa_000000.tar", files)
        sizes.append(len(pickle.dumps(SA1BDataset(tmp_path))))
    assert (sizes[1] - sizes[0]) / 1000 < 100


def test_prepared_data_needs_no_index(places):
    assert len(pickle.dumps(SA1BDataset(**places["array_record"]))) < 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_size": 0}, "mask_size must be two positive integers"),
        ({"max_masks": 0}, "max_masks must be positive"),
        ({"max_area_fraction": 0}, "max_area_fraction must be above 0 to 1"),
        ({"mask_choice": "best"}, "mask_choice must be one of .*'random'.*: 'best'"),
        ({"keep_aspect": True}, "keep_aspect needs mask_size"),
        ({"on_error": "ignore"}, "on_error must be"),
    ],
)
def test_nonsense_is_refused_before_files_are_looked_for(options, message):
    with pytest.raises(ValueError, match=message):
        SA1BDataset("/absent", **options)


def test_no_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither"):
        SA1BDataset(tmp_path)


def test_what_is_wrong_names_tar_and_member(tmp_path):
    files = make.files_of(1) | make.files_of(2) | make.files_of(3)
    files["./sa_1.json"] = files["./sa_1.json"].replace(b'"area"', b'"aera"')
    files["./sa_2.jpg"] = files["./sa_2.jpg"][:-300]
    del files["./sa_3.json"]
    make.write_tar(tmp_path / "sa_000000.tar", files)
    with pytest.raises(BadInput, match=r"sa_000000.tar: ./sa_3.jpg: its .json is missing"):
        SA1BDataset(tmp_path)
    dataset = SA1BDataset(tmp_path, on_error="skip")
    assert [problem.member for problem in dataset.problems.found] == ["./sa_3.jpg"]
    assert len(dataset) == 2
    messages = []
    for i in range(2):
        with pytest.raises(BadInput) as error:
            dataset[i]
        messages.append(str(error.value))
    assert sorted(m.partition(" lacks")[0].partition(" or broken")[0] for m in messages) == [
        "sa_000000.tar: ./sa_1.json: annotation 0",
        "sa_000000.tar: ./sa_2.jpg: the JPEG is cut off",
    ]


def test_a_broken_record_names_its_shard(places, tmp_path):
    source = next((places["tfrecord"]["root_dir"]).rglob("dataset_info.json")).parent
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    [shard, *_] = sorted(tmp_path.glob("*tfrecord-00000*"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    dataset = SA1BDataset(tmp_path)
    with pytest.raises(BadInput, match=r"tfrecord-00000.*: record 0: .* is broken"):
        dataset[0]


WORKERS = """
import json, sys
import sa1b_tfds
from torch.utils.data import DataLoader

def read(root, config, method, workers):
    dataset = sa1b_tfds.torch.SA1BDataset(root, mask_size=8, config=config)
    before = dataset[0][2]["image_id"]  # the parent reads before it forks
    loader = DataLoader(dataset, batch_size=3, num_workers=workers, multiprocessing_context=method,
                        collate_fn=sa1b_tfds.torch.collate, persistent_workers=True, timeout=60)
    epochs = [[m["image_id"] for _, _, metadata in loader for m in metadata] for _ in range(2)]
    return [before, epochs, dataset[0][2]["image_id"]]

if __name__ == "__main__":
    results = [read(*arguments) for arguments in json.loads(sys.argv[1])]
    print(json.dumps([results, "tensorflow" in sys.modules]))
"""


def test_workers_read_what_the_parent_read_before(places, tmp_path):
    """Forked, spawned and served; one process, as each start of one takes seconds."""
    packed = str(places["compressed tars"]["root_dir"])
    script = tmp_path / "loader.py"
    script.write_text(WORKERS)
    tars, prepared = str(places["tars"]["root_dir"]), str(places["array_record"]["root_dir"])
    runs = [
        (tars, None, "fork", 2),
        (prepared, "original", "fork", 2),
        (prepared, "original", "spawn", 1),
        (tars, None, "forkserver", 1),
        (packed, None, "fork", 2),
    ]
    run = subprocess.run(
        [sys.executable, script, json.dumps(runs)], capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    results, tensorflow = json.loads(run.stdout)
    assert len(results) == len(runs)
    for before, epochs, after in results:
        assert before == after
        assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 2
    assert not tensorflow


def test_collate_gives_lists(places):
    dataset = SA1BDataset(**places["tars"])
    images, masks, metadata = collate([dataset[0], dataset[1]])
    assert [len(m) for m in masks] == [len(m["id"]) for m in metadata]
    assert torch.equal(images[1], dataset[1][0])


def test_transformers_collate(places):
    dataset = SA1BDataset(**places["tars"])
    items = [dataset[0], dataset[1]]
    n = len(items[0][1]) + 2
    batch = TransformersCollate(masks_per_image=n, points_per_mask=3, image_size=64, mask_size=16)(
        items
    )
    assert {name: (tuple(t.shape), t.dtype) for name, t in batch.items()} == {
        "pixel_values": ((2, 3, 64, 64), torch.float32),
        "input_points": ((2, n, 3, 2), torch.float32),
        "input_labels": ((2, n, 3), torch.int64),
        "input_boxes": ((2, n, 4), torch.float32),
        "original_sizes": ((2, 2), torch.int64),
        "reshaped_input_sizes": ((2, 2), torch.int64),
        "masks": ((2, n, 16, 16), torch.bool),
        "mask_valid": ((2, n), torch.bool),
    }
    assert batch["original_sizes"].tolist() == [[60, 90]] * 2
    assert batch["reshaped_input_sizes"].tolist() == [[43, 64]] * 2
    assert batch["pixel_values"][:, :, 43:].eq(0).all()
    scale = np.array([64 / 90, 43 / 60])
    for row, (_, masks, metadata) in enumerate(items):
        k = len(masks)
        assert batch["mask_valid"][row].tolist() == batch["masks"][row].numpy().any((1, 2)).tolist()
        np.testing.assert_array_equal(
            batch["masks"][row, :k, :11].numpy(), strategies.sample(masks.numpy(), (11, 16))
        )
        assert not batch["masks"][row, :, 11:].any()
        assert not batch["masks"][row, k:].any()
        for i, mask in enumerate(masks.numpy()):
            for x, y in batch["input_points"][row, i].numpy() / scale:
                assert mask[round(y), round(x)]
            y, x = np.nonzero(mask)
            box = np.array([x.min(), y.min(), x.max(), y.max()]) * np.tile(scale, 2)
            np.testing.assert_allclose(batch["input_boxes"][row, i].numpy(), box, atol=1e-3)
            assert metadata["area"][i] == mask.sum()
        assert batch["input_labels"][row].eq(1).all(dim=1).tolist() == [i < k for i in range(n)]
        assert batch["input_labels"][row, k:].eq(-10).all()


def test_points_of_small_masks(places):
    """Points lie in the low-resolution mask's pixels; a mask that has none gives SA-1B's point."""
    image, masks, metadata = SA1BDataset(**places["tars"], mask_size=12, keep_aspect=True)[0]
    masks = masks.clone()
    masks[0] = False
    batch = TransformersCollate(masks_per_image=len(masks), points_per_mask=5, image_size=90)(
        [(image, masks, metadata)]
    )
    np.testing.assert_allclose(
        batch["input_points"][0, 0], metadata["point_coords"][0].expand(5, 2), rtol=1e-6
    )
    points = batch["input_points"][0, 1:].numpy()
    for mask, of_mask in zip(masks[1:].numpy(), points, strict=True):
        for x, y in of_mask:
            if mask.any():
                assert mask[int((y + 0.5) / 60 * 8), int((x + 0.5) / 90 * 12)]
    assert masks[1:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks_per_image": 0}, "masks_per_image must be positive"),
        ({"points_per_mask": -1}, "must not be negative"),
        ({"points_per_mask": 0, "boxes": False}, "needs a prompt"),
    ],
)
def test_transformers_collate_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        TransformersCollate(**options)


def test_transformers_collate_normalises_by_itself(places):
    image, masks, metadata = SA1BDataset(**places["tars"])[0]
    with pytest.raises(ValueError, match=r"must be uint8 \[3, H, W\], got torch.float32 .*leave"):
        TransformersCollate()([(image / 255, masks, metadata)])


def test_data_source_in_a_data_loader(places):
    """TFDS's own way to array_record, which the example and the docs show."""
    source = tfds.data_source(
        "segment_anything",
        split="train",
        data_dir=places["array_record"]["root_dir"],
        decoders={"masks": sa1b_tfds.decode_masks_to(size=(16, 16))},
    )
    dataset = SA1BDataset(**places["array_record"], mask_size=16)
    loader = torch.utils.data.DataLoader(source, collate_fn=lambda batch: batch, batch_size=4)
    examples = [example for batch in loader for example in batch]
    assert len(examples) == 8
    for example, (image, masks, metadata) in zip(examples, dataset, strict=True):
        assert example["image_id"] == metadata["image_id"]
        np.testing.assert_array_equal(example["masks"], masks)
        np.testing.assert_array_equal(example["image"], image.permute(1, 2, 0))


def test_a_reader_that_is_gone_is_an_error(places):
    dataset = SA1BDataset(**places["array_record"])
    image_id = dataset[0][2]["image_id"]
    [process] = array_records._reading_process(os.getpid())._processes
    process._process.kill()
    with pytest.raises(BadInput, match=r"array_record-0.*: record 0: .* was ended by SIGKILL"):
        dataset[0]
    assert dataset[0][2]["image_id"] == image_id  # another one was started


def test_a_file_that_is_no_array_record_is_an_error(tmp_path):
    (tmp_path / "shard").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="it cannot be read: "):
        array_records.read(str(tmp_path / "shard"), 0)
