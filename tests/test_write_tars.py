import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

import sa1b_tfds
from dummy_data import make
from sa1b_tfds import examples, files, tar_writer
from sa1b_tfds.records import serialise

MASKS = np.zeros((2, 24, 32), bool)
MASKS[0, 3:12, 5:20] = True
MASKS[1, 23, 31] = True
PIXELS = np.uint8(np.linspace(0, 200, 24 * 32 * 3).reshape(24, 32, 3))
COUNTS = [sa1b_tfds.encode_mask(mask)["counts"] for mask in MASKS]
RLES = [{"size": [24, 32], "counts": counts} for counts in COUNTS]
PICTURE = Image.fromarray(PIXELS)
EXAMPLE = {"image": PIXELS, "masks": MASKS}
JPEG, CONTENT = make.draw(7, 24, 32, 3)


def extracted(tar, folder):
    with tarfile.open(tar) as file:
        file.extractall(folder, filter="data")
    return folder


def jsons(folder):
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def test_sa1b_comes_out_as_it_went_in(tmp_path):
    before = list(examples.read_examples("dummy_data"))
    [tar] = sa1b_tfds.write_tars(before, tmp_path)
    after = list(examples.read_examples(tar))
    assert len(before) == 8
    assert [serialise(e) for e in after] == [serialise(e) for e in before]
    assert os.listdir(tmp_path) == ["sa_000000.tar"]


def test_what_is_left_out_is_filled_in(tmp_path):
    [tar] = sa1b_tfds.write_tars([EXAMPLE, EXAMPLE | {"image_id": 50}], tmp_path)
    found = jsons(extracted(tar, tmp_path / "out"))
    assert list(found) == ["sa_1.json", "sa_50.json"]
    assert found["sa_1.json"]["image"] == {
        "image_id": 1,
        "file_name": "sa_1.jpg",
        "width": 32,
        "height": 24,
    }
    first, second = found["sa_1.json"]["annotations"]
    assert first == {
        "id": 1,
        "area": 9 * 15,
        "bbox": [5.0, 3.0, 14.0, 8.0],
        "segmentation": {
            "size": [24, 32],
            "counts": COUNTS[0].decode(),
        },
        "predicted_iou": 1.0,
        "stability_score": 1.0,
        "point_coords": [[12.5, 7.5]],
        "crop_box": [0.0, 0.0, 32.0, 24.0],
    }
    assert second["bbox"] == [31.0, 23.0, 0.0, 0.0]
    assert second["point_coords"] == [[31.5, 23.5]]
    assert [a["id"] for a in found["sa_50.json"]["annotations"]] == [3, 4]


@pytest.mark.parametrize("image", [PIXELS, PICTURE, PICTURE.convert("RGBA")])
@pytest.mark.parametrize(
    "masks",
    [
        MASKS,
        MASKS.astype(np.float32),
        RLES,
        {"size": (24, 32), "counts": COUNTS},
        [coco_mask.frPyObjects({"size": [24, 32], "counts": [0, 768]}, 24, 32), RLES[1]],
    ],
)
def test_every_form_of_images_and_masks(tmp_path, image, masks):
    [tar] = sa1b_tfds.write_tars([{"image": image, "masks": masks}], tmp_path)
    [example] = examples.read_examples(tar)
    expected = sa1b_tfds.rle.to_checked(masks)
    assert list(example["masks"].counts) == expected.counts
    decoded = np.asarray(Image.open(io.BytesIO(example["image"])))
    assert np.abs(decoded.astype(int) - PIXELS).max() < 8


def test_polygons_and_jpeg_bytes(tmp_path):
    polygon = [[2.0, 3.0, 20.0, 3.0, 20.0, 15.0, 2.0, 15.0]]
    [tar] = sa1b_tfds.write_tars([{"image": JPEG, "masks": [polygon]}], tmp_path)
    [example] = examples.read_examples(tar)
    assert example["image"] == JPEG
    [rle] = coco_mask.frPyObjects(polygon, 24, 32)
    assert example["annotations"]["area"] == [coco_mask.area(rle)]


def test_sam2s_trainer_reads_it(tmp_path):
    """As facebookresearch/sam2, training/dataset: SA1BRawDataset and SA1BSegmentLoader do."""
    source = [EXAMPLE | {"image_id": i} for i in (3, 1234567890123)]
    [tar] = sa1b_tfds.write_tars(source, tmp_path)
    folder = extracted(tar, tmp_path / "out")
    names = [path.name.split(".")[0] for path in folder.iterdir() if path.name.endswith(".jpg")]
    assert sorted(int(name.split("_")[-1]) for name in names) == [3, 1234567890123]
    for name in names:
        width, height = Image.open(folder / f"{name}.jpg").size
        annotations = json.loads((folder / f"{name}.json").read_text())["annotations"]
        kept = [a["segmentation"] for a in annotations if 0 < a["area"] / (width * height) < 0.9]
        masks = [coco_mask.decode([segmentation])[:, :, 0] for segmentation in kept]
        np.testing.assert_array_equal(masks, MASKS)


def blobs(seed):
    return np.random.default_rng(seed).random((19, 23)) < 0.8


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.integers(0, 10**6).map(blobs),
        st.tuples(st.integers(0, 18), st.integers(0, 22)).map(
            lambda at: np.arange(19 * 23).reshape(19, 23) == at[0] * 23 + at[1]
        ),
        st.just(np.ones((19, 23), bool)),
        st.just(np.eye(19, 23, dtype=bool)),
    )
)
def test_the_point_is_in_the_largest_square(mask):
    segmentation = sa1b_tfds.encode_mask(mask)
    x, y = tar_writer._interior_point(segmentation, sa1b_tfds.rle.bbox(segmentation))
    column, row = int(x), int(y)
    assert (x - column, y - row) == (0.5, 0.5)
    assert mask[row, column]

    def radius(row, column):
        best = -1
        for r in range(12):
            top, left, bottom, right = row - r, column - r, row + r + 1, column + r + 1
            if (
                min(top, left) < 0
                or bottom > 19
                or right > 23
                or not mask[top:bottom, left:right].all()
            ):
                break
            best = r
        return best

    assert radius(row, column) == max(radius(r, c) for r in range(19) for c in range(23))


def test_tars_by_number_and_by_size(tmp_path):
    def images_of(paths):
        return [[e["image_id"] for e in examples.read_examples(path)] for path in paths]

    source = [EXAMPLE] * 7
    paths = sa1b_tfds.write_tars(source, tmp_path / "a", images_per_tar=3)
    assert [path.name for path in paths] == ["sa_000000.tar", "sa_000001.tar", "sa_000002.tar"]
    assert images_of(paths) == [[1, 2, 3], [4, 5, 6], [7]]
    paths = sa1b_tfds.write_tars(source, tmp_path / "b", max_tar_size=20480, first_tar=20)
    assert paths[0].name == "sa_000020.tar"
    assert [i for ids in images_of(paths) for i in ids] == [1, 2, 3, 4, 5, 6, 7]
    assert all(path.stat().length == 20480 for path in paths[:-1])
    paths = sa1b_tfds.write_tars(source[:2], tmp_path / "c", max_tar_size=1)
    assert images_of(paths) == [[1], [2]]
    more = sa1b_tfds.write_tars([EXAMPLE], tmp_path / "c", first_tar=2)
    assert [path.name for path in more] == ["sa_000002.tar"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": PIXELS.astype(np.float32)}, r"image must be uint8 \[H, W, 3\].* float32"),
        ({"image": PIXELS[:, :, 0]}, r"got uint8 \[24, 32\]"),
        ({"image": JPEG[:-100]}, "the JPEG is cut off"),
        ({"image": b"GIF89a"}, "it is not a JPEG"),
        ({"image": None}, "image must be uint8"),
        ({"masks": MASKS[:, :-1]}, "disagrees with the image's"),
        ({"masks": MASKS[0]}, r"shape \[N, H, W\]"),
        ({"masks": [RLES[0], {"size": [24, 32], "counts": b"0"}]}, "malformed"),
        ({"masks": MASKS * [[[1]], [[0]]]}, "mask 1 is empty"),
        ({"masks": 3}, "int"),
        ({"image_id": -1}, "image_id must be an integer from 0 on"),
        ({"image_id": "4"}, "image_id must be an integer"),
        ({"image_id": 1}, "image_id 1 was there before"),
        ({"annotations": {"predicted_iou": [1.0]}}, r"predicted_iou must have the shape \[2\]"),
        ({"annotations": {"predicted_iou": [1.0, np.nan]}}, "predicted_iou"),
        ({"annotations": {"point_coords": [[1, 2]]}}, r"point_coords must have the shape \[2, 2\]"),
        ({"annotations": {"id": [0.5, 1]}}, "'id' must be an integer"),
        ({"annotations": {"score": [1, 1]}}, "no column score"),
    ],
)
def test_a_bad_example_is_named_and_leaves_nothing(tmp_path, change, reason):
    with pytest.raises(ValueError, match=f"^Example 1: .*{reason}"):
        sa1b_tfds.write_tars([EXAMPLE, EXAMPLE | change], tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_lacks_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^Example 0: it lacks image and masks"):
        sa1b_tfds.write_tars([{}], tmp_path)
    with pytest.raises(ValueError, match=r"^Example 0: it must be a dict, got tuple"):
        sa1b_tfds.write_tars([(PIXELS, MASKS)], tmp_path)
    with pytest.raises(ValueError, match="no example to write"):
        sa1b_tfds.write_tars([], tmp_path)
    for options in ({"images_per_tar": 0}, {"max_tar_size": 0}, {"first_tar": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            sa1b_tfds.write_tars([EXAMPLE], tmp_path, **options)


@pytest.mark.parametrize("there", ["sa_000000.tar", "sa_000005.tar"])
def test_nothing_is_overwritten(tmp_path, there):
    (tmp_path / there).write_bytes(b"mine")

    def never():
        yield pytest.fail("an example was asked for")

    with pytest.raises(FileExistsError, match=f"{there} is there already"):
        sa1b_tfds.write_tars(never(), tmp_path)
    assert (tmp_path / there).read_bytes() == b"mine"
    with files.locked(tmp_path / "held"), pytest.raises(files.FolderInUse, match="Another process"):
        sa1b_tfds.write_tars(never(), tmp_path / "held")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tar_writer.files, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        sa1b_tfds.write_tars([EXAMPLE], tmp_path)
    assert os.listdir(tmp_path) == []


_WRITE = """
import sys
import numpy as np
from sa1b_tfds import tar_writer
example = {"image": np.zeros((300, 400, 3), np.uint8), "masks": np.ones((1, 300, 400), bool)}
tar_writer.write_tars((example for _ in range(100000)), sys.argv[1], images_per_tar=40)
"""


def test_kill_9_at_any_moment_leaves_whole_tars_only(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", _WRITE, str(tmp_path)])
    drafts = tmp_path.glob
    deadline = time.monotonic() + 60
    while not ((tmp_path / "sa_000002.tar").exists() and any(drafts(".*"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    tars = sorted(tmp_path.glob("sa_*.tar"))
    counts = [sum(1 for _ in examples.read_examples(tar)) for tar in tars]
    assert len(tars) >= 3
    assert set(counts) == {40}
    sa1b_tfds.write_tars([EXAMPLE], tmp_path, first_tar=len(tars))
    assert list(tmp_path.glob(".*")) == []
