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
import tensorflow as tf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask

import sa1b_tfds
from dummy_data import make
from sa1b_tfds.core import files
from sa1b_tfds.examples import own_pairs
from sa1b_tfds.examples import parts as examples
from sa1b_tfds.examples import write_tars as tar_writer
from sa1b_tfds.examples.records import serialise

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
    expected = sa1b_tfds.masks.forms.to_checked(masks)
    assert list(example.masks.counts) == expected.counts
    decoded = np.asarray(Image.open(io.BytesIO(example.image)))
    assert np.abs(decoded.astype(int) - PIXELS).max() < 8


STACKS = {
    "bool": list(MASKS),
    "uint8": list(MASKS.astype(np.uint8) * 255),
    "float32": list(MASKS.astype(np.float32)),
    "tuple": tuple(MASKS),
    "iterator of lists": MASKS.tolist(),
    "nested 0 and 1": MASKS.astype(int).tolist(),
    "nested 0.0 and 1.0": MASKS.astype(float).tolist(),
    "nested 0 and 255": (MASKS * 255).tolist(),
    "rows": [list(mask) for mask in MASKS],
    "PIL": [Image.fromarray(mask) for mask in MASKS],
    "torch": list(torch.from_numpy(MASKS)),
    "torch float": list(torch.from_numpy(MASKS).float()),
    "torch array": torch.from_numpy(MASKS),
    "TensorFlow": list(tf.constant(MASKS)),
    "mixed": [MASKS[0], RLES[1]],
}


@pytest.mark.parametrize("masks", STACKS.values(), ids=STACKS)
def test_lists_of_masks_are_stacks(tmp_path, masks):
    [tar] = sa1b_tfds.write_tars([{"image": PIXELS, "masks": masks}], tmp_path)
    [example] = examples.read_examples(tar)
    assert example.masks.counts == COUNTS
    assert example.annotations["area"].tolist() == [9 * 15, 1]
    assert sa1b_tfds.relevance_map(masks).sum() == 9 * 15 + 1
    assert sa1b_tfds.RleMasks().encode_example(masks)["counts"] == COUNTS


sides = st.integers(1, 14)


@given(hnp.arrays(bool, st.tuples(sides, sides)), st.sampled_from([bool, int, float]))
def test_nested_lists_are_the_mask_that_they_show(mask, kind):
    encoded = sa1b_tfds.masks.rle.to_rle(mask.astype(kind).tolist(), mask.shape)
    np.testing.assert_array_equal(sa1b_tfds.decode_rle(encoded), mask)


def polygons(coordinates, corners=(3, 7)):
    polygon = st.lists(coordinates, min_size=2 * corners[0], max_size=2 * corners[1])
    return st.lists(polygon.map(lambda p: p[: len(p) // 2 * 2]), min_size=1, max_size=9)


@given(polygons(st.integers(0, 12).map(float)))
def test_polygons_are_read_as_pycocotools_does(corners):
    expected = coco_mask.merge(coco_mask.frPyObjects(corners, 40, 50))
    values = {value for polygon in corners for value in polygon}
    if len(values) <= 2 and max(map(len, corners)) > 10 and len(corners) > 1:
        return  # so few values in so many places: that may be a mask of another size
    assert sa1b_tfds.masks.rle.to_rle(corners, (40, 50))["counts"] == expected["counts"]


@pytest.mark.parametrize(
    ("lists", "size"),
    [
        ([[0, 0, 5, 0, 5, 1]], (1, 6)),
        ([[0, 0, 5, 0, 5, 3, 0, 3]] * 3, (3, 8)),
        (np.arange(24 * 32).reshape(24, 32).tolist(), (24, 32)),
        (np.random.default_rng(0).random((24, 32)).tolist(), (24, 32)),
    ],
)
def test_what_may_be_a_mask_and_polygons_is_refused(lists, size):
    with pytest.raises(ValueError, match="mask of the image's size or polygons: pass a mask as an"):
        sa1b_tfds.masks.rle.to_rle(lists, size)


RECORDS = [
    {
        "segmentation": mask,
        "area": int(mask.sum()),
        "bbox": [0, 0, 1, 1],
        "predicted_iou": 0.9 + i / 100,
        "point_coords": [[6.5 + i, 4.25]],
        "stability_score": 0.95 + i / 100,
        "crop_box": [i, 0, 31, 24],
    }
    for i, mask in enumerate(MASKS)
]


def uncompressed(mask):
    runs = sa1b_tfds.masks.rle.run_lengths([sa1b_tfds.encode_mask(mask)["counts"]], mask.shape)
    return {"size": list(mask.shape), "counts": runs.lengths.tolist()}


@pytest.mark.parametrize("key", ["masks", "annotations"])
@pytest.mark.parametrize(
    "form", [lambda mask: mask, sa1b_tfds.encode_mask, uncompressed, torch.from_numpy]
)
def test_records_of_the_mask_generator_are_taken_as_they_are(tmp_path, key, form):
    records = [record | {"segmentation": form(record["segmentation"])} for record in RECORDS]
    [tar] = sa1b_tfds.write_tars([{"image": PIXELS, key: records}], tmp_path)
    [content] = jsons(extracted(tar, tmp_path / "out")).values()
    for record, found, counts in zip(RECORDS, content["annotations"], COUNTS, strict=True):
        assert found["segmentation"] == {"size": [24, 32], "counts": counts.decode()}
        assert found["bbox"] == sa1b_tfds.masks.rle.bbox(found["segmentation"])
        names = ("area", "predicted_iou", "stability_score", "point_coords", "crop_box")
        assert {name: found[name] for name in names} == {name: record[name] for name in names}


def test_an_image_for_which_the_generator_found_nothing(tmp_path):
    [tar] = sa1b_tfds.write_tars([{"image": PIXELS, "annotations": []}], tmp_path)
    [example] = examples.read_examples(tar)
    assert example.masks == ([], (24, 32))


def test_the_content_of_a_json_is_written_again(tmp_path):
    source = {"image": JPEG, "image_id": 7, "annotations": CONTENT["annotations"]}
    [tar] = sa1b_tfds.write_tars([source], tmp_path)
    assert jsons(extracted(tar, tmp_path / "out"))["sa_7.json"] == CONTENT


def test_rows_of_a_stream_are_written_again(tmp_path):
    from sa1b_tfds import huggingface

    [tar] = sa1b_tfds.write_tars(huggingface.streaming("dummy_data"), tmp_path)
    before, after = (
        {e.image_id: e for e in examples.read_examples(p)} for p in ("dummy_data", tar)
    )
    assert before.keys() == after.keys()
    for image_id, example in before.items():
        assert after[image_id].masks == example.masks
        for name, column in example.annotations.items():
            np.testing.assert_allclose(after[image_id].annotations[name], column, atol=1e-4)


@pytest.mark.parametrize("points", [[[3, 4], [5, 6]], [[[3, 4]], [[5, 6]]]])
@pytest.mark.parametrize(
    "crops", [[[0, 0, 0.5, 1]] * 2, [[0, 0, 32, 12]] * 2, np.float32([[0, 0, 32, 12]] * 2)]
)
def test_points_and_crops_come_in_the_forms_of_all_readers(tmp_path, points, crops):
    columns = {"point_coords": np.array(points), "crop_box": crops}
    [tar] = sa1b_tfds.write_tars([EXAMPLE | {"annotations": columns}], tmp_path)
    [content] = jsons(extracted(tar, tmp_path / "out")).values()
    assert [a["point_coords"] for a in content["annotations"]] == [[[3.0, 4.0]], [[5.0, 6.0]]]
    assert [a["crop_box"] for a in content["annotations"]] == [[0.0, 0.0, 32.0, 12.0]] * 2


def write_amg(folder, as_json):
    """As scripts/amg.py of segment-anything at 00920ce does."""
    if as_json:
        path = folder / "dog.json"
        rles = [r | {"segmentation": make_rle(r["segmentation"])} for r in RECORDS]
        path.write_text(json.dumps(rles))
        return path
    path = folder / "dog"
    path.mkdir()
    lines = [
        "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,predicted_iou,"
        "stability_score,crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
    ]
    for i, r in enumerate(RECORDS):
        Image.fromarray(np.uint8(r["segmentation"]) * 255).save(path / f"{i}.png")
        scores = [r["predicted_iou"], r["stability_score"]]
        values = [i, r["area"], *r["bbox"], *r["point_coords"][0], *scores, *r["crop_box"]]
        lines.append(",".join(map(str, values)))
    (path / "metadata.csv").write_text("\n".join(lines))
    return path


def make_rle(mask):
    encoded = sa1b_tfds.encode_mask(mask)
    return encoded | {"counts": encoded["counts"].decode()}


@pytest.mark.parametrize("as_json", [False, True])
def test_output_of_amg_is_written(tmp_path, as_json):
    records = sa1b_tfds.read_amg_output(write_amg(tmp_path, as_json))
    for key, source in (("a", records), ("b", RECORDS)):
        sa1b_tfds.write_tars([{"image": PIXELS, "annotations": source}], tmp_path / key)
    read, right = ((tmp_path / key / "sa_000000.tar").read_bytes() for key in "ab")
    assert read == right


def test_what_amg_did_not_write_is_refused(tmp_path):
    folder = write_amg(tmp_path, as_json=False)
    (folder / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png"):
        sa1b_tfds.read_amg_output(folder)
    for table, reason in (
        ("id\n0", "KeyError"),
        ("id,predicted_iou\n../x,1", "metadata.csv is no"),
    ):
        (folder / "metadata.csv").write_text(table)
        with pytest.raises(ValueError, match=reason):
            sa1b_tfds.read_amg_output(folder)
    for text, reason in (("{}", "no list of records"), ("[", "is not JSON")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=reason):
            sa1b_tfds.read_amg_output(tmp_path / "x.json")


def test_polygons_and_jpeg_bytes(tmp_path):
    polygon = [[2.0, 3.0, 20.0, 3.0, 20.0, 15.0, 2.0, 15.0]]
    [tar] = sa1b_tfds.write_tars([{"image": JPEG, "masks": [polygon]}], tmp_path)
    [example] = examples.read_examples(tar)
    assert example.image == JPEG
    [rle] = coco_mask.frPyObjects(polygon, 24, 32)
    assert example.annotations["area"] == [coco_mask.area(rle)]


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
    x, y = own_pairs._interior_point(segmentation, sa1b_tfds.masks.rle.bbox(segmentation))
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
        return [[e.image_id for e in examples.read_examples(path)] for path in paths]

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
        ({"predicted_iou": [1, 1]}, "unknown key 'predicted_iou'. Columns go into 'annotations'"),
        ({"mask": MASKS, "ids": 3}, r"it has the unknown key 'ids', 'mask'\.$"),
        ({"file_name": "dog.jpg"}, "file_name is 'dog.jpg', but must be 'sa_2.jpg' here"),
        ({"height": 25}, "height is 25, but must be 24 here"),
        ({"image": PICTURE.convert("I")}, "8 bits a channel, got a PIL image of mode I"),
        ({"masks": [MASKS[0] * 0.5]}, "mask 0: A mask of floats must hold only 0 and 1"),
        ({"masks": [MASKS[0, :9]]}, r"mask 0: A mask as an array must have the image's size"),
        ({"masks": [MASKS[0, :9].tolist()]}, "mask 0: 9 lists of 32 numbers are neither a mask"),
        ({"masks": [MASKS[:1]]}, r"mask 0: A mask must have the shape \[H, W\]"),
        ({"masks": [np.full((24, 32), "a")]}, "mask 0: A mask must hold numbers, got <U1"),
        ({"annotations": [3, 4]}, "annotations must be columns or a list of dicts, 0 is int"),
        ({"annotations": [{"id": 1}, {"area": 2}]}, "annotation 1 has other keys than annotation"),
        ({"annotations": [{"category_id": 1}]}, "annotations has no column category_id"),
        ({"annotations": [{"segmentation": RLES[0]}]}, "its masks come twice"),
        ({"masks": [{"segmentation": RLES[0]}], "annotations": {}}, "masks are records"),
        ({"masks": [{"segmentation": RLES[0]}, RLES[1]]}, "annotations has no column counts"),
        ({"annotations": {"crop_box": [[0, 0, 33.5, 24]] * 2}}, "crop_box must be fractions"),
        (
            {"annotations": {"crop_box": [[0, 0, 32, 24], [0, 0, 1, 1]]}},
            "crop_box must be fraction",
        ),
        (
            {"annotations": {"point_coords": np.zeros((2, 2, 2))}},
            "point_coords must have the shape",
        ),
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
from sa1b_tfds.examples import write_tars as tar_writer
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
