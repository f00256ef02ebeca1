import copy
import json

import numpy as np
import pytest

from dummy_data import make
from sa1b_tfds.examples import annotations
from sa1b_tfds.masks import rle
from sa1b_tfds.masks.runs import run_lengths

IMAGE, CONTENT = make.draw(7, height=24, width=32, shapes=4)
N = len(CONTENT["annotations"])


def changed(*path_and_value):
    """CONTENT with the value at a path replaced, or removed if it is `...`."""
    *path, name, value = path_and_value
    content = copy.deepcopy(CONTENT)
    target = content
    for key in path:
        target = target[key]
    if value is ...:
        del target[name]
    else:
        target[name] = value
    return content


def test_every_value_survives():
    example = annotations.to_example(IMAGE, json.dumps(CONTENT).encode())
    assert example.image == IMAGE
    assert (example.image_id, example.file_name) == (7, "sa_7.jpg")
    assert example.masks.size == (24, 32)
    columns = example.annotations
    scale = np.array([24, 32, 24, 32])
    for i, source in enumerate(CONTENT["annotations"]):
        assert example.masks.counts[i] == source["segmentation"]["counts"].encode()
        assert columns["id"][i] == source["id"]
        assert columns["area"][i] == source["area"]
        assert columns["predicted_iou"][i] == np.float32(source["predicted_iou"])
        assert columns["stability_score"][i] == np.float32(source["stability_score"])
        assert columns["point_coords"][i].tolist() == source["point_coords"][0]
        for name in ("bbox", "crop_box"):
            y0, x0, y1, x1 = columns[name][i] * scale
            np.testing.assert_allclose([x0, y0, x1 - x0, y1 - y0], source[name], atol=1e-4)
    assert {name: (c.dtype.name, c.shape) for name, c in columns.items()} == {
        "id": ("int64", (N,)),
        "area": ("int64", (N,)),
        "bbox": ("float32", (N, 4)),
        "crop_box": ("float32", (N, 4)),
        "predicted_iou": ("float32", (N,)),
        "stability_score": ("float32", (N,)),
        "point_coords": ("float32", (N, 2)),
    }


def test_an_image_without_masks_has_empty_columns():
    example = annotations.parse(json.dumps(changed("annotations", [])).encode(), IMAGE)
    assert example.masks == rle.Checked([], (24, 32))
    shapes = {name: (c.dtype.name, c.shape) for name, c in example.annotations.items()}
    assert shapes["id"] == ("int64", (0,))
    assert shapes["bbox"] == ("float32", (0, 4))
    assert shapes["point_coords"] == ("float32", (0, 2))


@pytest.mark.parametrize("number", [2**62 + 1, 2**63 - 1, -(2**63)])
def test_large_ids_are_exact(number):
    example = annotations.parse(json.dumps(changed("annotations", 0, "id", number)).encode(), IMAGE)
    assert example.annotations["id"][0] == number


def test_areas_may_be_whole_numbers_as_floats():
    example = annotations.parse(
        json.dumps(changed("annotations", 0, "area", 206.0)).encode(), IMAGE
    )
    assert example.annotations["area"][0] == 206


def test_other_forms_of_masks():
    mask = CONTENT["annotations"][0]["segmentation"]
    lengths = run_lengths([mask["counts"]], mask["size"]).lengths.tolist()
    content = changed("annotations", 0, "segmentation", {"size": [24, 32], "counts": lengths})
    content["annotations"][1]["segmentation"] = [[1, 1, 9, 1, 9, 9]]
    example = annotations.parse(json.dumps(content).encode(), IMAGE)
    masks = rle.decode_rles(*example.masks)
    np.testing.assert_array_equal(masks[0], rle.decode_rle(mask))
    np.testing.assert_array_equal(masks[1], rle.decode_rle([[1, 1, 9, 1, 9, 9]], (24, 32)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"image": NaN}', "not JSON"),
        ([], "the file lacks the field 'image'"),
        (changed("image", ...), "the file lacks the field 'image'"),
        (changed("annotations", ...), "the file lacks the field 'annotations'"),
        (changed("annotations", {}), "the file: 'annotations' must be a list"),
        (changed("image", "width", ...), "image lacks the field 'width'"),
        (changed("image", "width", "32"), "image: 'width' must be an integer, got '32'"),
        (changed("image", "width", 0), "must be two positive integers"),
        (changed("image", "height", 2**24), "over the limit"),
        (changed("image", "image_id", 1.5), "image: 'image_id' must be an integer"),
        (changed("image", "image_id", True), "image: 'image_id' must be an integer"),
        (changed("image", "image_id", 2**63), "at most 64 bits"),
        (changed("image", "file_name", 7), "image: 'file_name' must be a string"),
        (changed("annotations", 2, "id", ...), "annotation 2 lacks the field 'id'"),
        (changed("annotations", 2, "id", 1.5), "annotation 2: 'id' must be an integer, got 1.5"),
        (changed("annotations", 2, "id", [1]), "annotation 2: 'id' must be an integer, got list"),
        (changed("annotations", 2, "id", 2**63), "every 'id' must be an integer of at most 64"),
        (changed("annotations", 2, None), "annotation 2 lacks the field 'id'"),
        (changed("annotations", 2, "area", 1.5), "every 'area' must be an integer"),
        (changed("annotations", 2, "area", 1e300), "every 'area' must be an integer"),
        (changed("annotations", 2, "area", 2**64), "every 'area' must be|must be a number"),
        (changed("annotations", 2, "bbox", [1, 2, 3]), "every 'bbox' must be"),
        (changed("annotations", 2, "bbox", [1, 2, 3, "4"]), "every 'bbox' must be"),
        (changed("annotations", 2, "crop_box", [[1, 2], [3, 4]]), "every 'crop_box' must be"),
        (changed("annotations", 2, "point_coords", [[1, 2], [3, 4]]), "every 'point_coords' must"),
        (changed("annotations", 2, "point_coords", [1, 2]), "every 'point_coords' must be"),
        (changed("annotations", 2, "predicted_iou", None), "annotation 2: 'predicted_iou' must be"),
        (changed("annotations", 2, "segmentation", ...), "annotation 2 lacks the field 'segment"),
        (changed("annotations", 2, "segmentation", None), "annotation 2: segmentation"),
        (changed("annotations", 2, "segmentation", True), "annotation 2: 'segmentation' must be"),
        (changed("annotations", 2, "segmentation", [[0, 0, 1e9, 0, 1e9, 1e9]]), "far out of the"),
        (changed("annotations", 2, "bbox", ["x" * 10**6, 1, 2, 3]), "every 'bbox' must be numbers"),
        (changed("annotations", 2, "bbox", [1e300, 1, 2, 3]), "'bbox' must be finite as float32"),
        (changed("annotations", 2, "predicted_iou", -1e39), "'predicted_iou' must be finite"),
        (changed("annotations", 2, "area", -1), "'area' must be between 0 and height"),
        (changed("annotations", 2, "area", 24 * 32 + 1), "'area' must be between 0 and height"),
        ('{"image":' + "[" * 900 + "]" * 900 + "}", "'image' must be an object, got list"),
        (changed("annotations", 2, "segmentation", "size", [32, 24]), "annotation 2: .*disagrees"),
        (changed("annotations", 2, "segmentation", "size", ...), "annotation 2: .*needs 'size'"),
        (changed("annotations", 2, "segmentation", "counts", "x"), "annotation 2: the RLE is malf"),
        (changed("annotations", 2, "segmentation", "counts", [1]), "annotation 2: .*do not sum"),
    ],
)
def test_refused(content, message):
    data = content if isinstance(content, str) else json.dumps(content)
    with pytest.raises(ValueError, match=message):
        annotations.parse(data.encode(), IMAGE)


def test_the_sizes_of_json_and_jpeg_must_agree():
    other = make.draw(8, height=24, width=33, shapes=1)[0]
    with pytest.raises(ValueError, match=r"size 24x32 .* disagrees with the image's 24x33"):
        annotations.to_example(other, json.dumps(CONTENT).encode())
