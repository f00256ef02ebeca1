"""What a pair's JSON says of its image is compared with the names and with the masks."""

import contextlib
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_tfds
from sa1b_tfds.cli.main import main
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.download.verify import verify_folder
from sa1b_tfds.examples import annotations, consistency
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.export import Coco, ExportConfig, SA1BTars, export
from sa1b_tfds.masks.runs import areas, bboxes, run_lengths
from sa1b_tfds.tars.pairs import Pair
from sa1b_tfds.torch import SA1BDataset
from tests import building
from tests.building import make

pytestmark = pytest.mark.usefixtures("threads")

JPEG, CONTENT = make.draw(12, 24, 32, 4)
SAID = "sa_1.json: it says image_id 2, file_name sa_2.jpg: it belongs to another image"


def pair(name="./sa_12", annotations=(), **image) -> Pair:
    """Of image 12 under a name, with changes to `image` and to the first annotation."""
    first, *rest = CONTENT["annotations"]
    content = {
        "image": CONTENT["image"] | image,
        "annotations": [first | dict(annotations), *rest],
    }
    return Pair(JPEG, json.dumps(content).encode(), f"{name}.jpg", f"{name}.json")


@pytest.fixture(scope="module", params=building.FORMS)
def tars(tmp_path_factory, request):
    """A tar in which image 1 has the JSON of image 2."""
    folder = tmp_path_factory.mktemp("identity") / "tars"
    folder.mkdir()
    files = make.files_of(1) | make.files_of(2) | make.files_of(3)
    files["./sa_1.json"] = files["./sa_2.json"]
    make.write_tar(folder / "sa_000000.tar", files)
    return building.FORMS[request.param](folder)


def _build(tars, out, on_error):
    builder = building.prepare(tars, out, on_error=on_error)
    return [int(e["image_id"]) for e in tfds.as_numpy(builder.as_dataset(split="train"))]


def _read_tars(tars, out, on_error):
    dataset = sa1b_tfds.read_tars(tars, on_error=on_error)
    return [int(example["image_id"]) for example in tfds.as_numpy(dataset)]


def _streaming(tars, out, on_error):
    from sa1b_tfds import huggingface

    return [row["image_id"] for row in huggingface.streaming(tars, on_error=on_error)]


def _examples(tars, out, on_error):
    return [example.image_id for example in read_examples(tars, problems=Problems(on_error))]


def _export(format):
    def run(tars, out, on_error):
        config = ExportConfig(
            source=tars, output=out / "out", format=format, on_error=on_error, workers=1
        )
        return [2, 3] if export(config).counts["images"] == 2 else []

    return run


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(_build, id="build"),
        pytest.param(_read_tars, id="read_tars"),
        pytest.param(_streaming, id="streaming"),
        pytest.param(_examples, id="read_examples"),
        pytest.param(_export(Coco()), id="export"),
        pytest.param(_export(SA1BTars()), id="repack"),
    ],
)
def test_every_reader_refuses_annotations_of_another_image(tars, tmp_path, read):
    with pytest.raises(Exception, match=SAID):
        read(tars, tmp_path / "raise", "raise")
    assert sorted(read(tars, tmp_path / "skip", "skip")) == [2, 3]


def test_torch_stats_and_verify_refuse_them_as_well(tars, capsys):
    dataset = SA1BDataset(tars)
    refused = 0
    for i in range(len(dataset)):
        with contextlib.suppress(BadInput):
            dataset[i]
            continue
        refused += 1
    assert (len(dataset), refused) == (3, 1)
    assert main(["stats", str(tars)]) == 1
    assert SAID in capsys.readouterr().out
    (report,) = verify_folder(tars, deep=True)
    assert report.status == "wrong"
    assert report.reasons == (f"./{SAID}",)


@pytest.mark.parametrize(
    "accepted",
    [
        pair(),
        pair("sa_12"),
        pair("images/sa_12"),
        pair("/home/me/sa_000003/sa_12"),
        pair("./sa_00012"),
        pair(file_name="sa_12"),
        pair(file_name="images/sa_12.jpg"),
        pair(file_name="images\\sa_12.JPG"),
        pair(file_name="sa_000012.png"),
        pair(file_name="holiday.jpg"),
        pair("sa_dog", file_name="sa_dog.jpg"),
        pair("sa_dog", file_name="dog.v2.jpg"),
        pair("sa_dog.v2", file_name="sa_dog.v2.jpg"),
        pair("sa_dog.v2", file_name="sa_dog.v2"),
        pair("sa_0", image_id=0, file_name="sa_0.jpg"),
    ],
    ids=lambda each: each.json_name,
)
def test_names_that_agree_pass(accepted):
    assert annotations.read_pair(accepted).image == JPEG


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (pair("./sa_1"), "it says image_id 12, file_name sa_12.jpg"),
        (pair(image_id=2), "it says image_id 2, file_name sa_12.jpg"),
        (pair(file_name="sa_2.jpg"), "it says image_id 12, file_name sa_2.jpg"),
        (pair(image_id=-12), "it says image_id -12"),
        (pair("sa_" + "9" * 5000), "it says image_id 12"),
        (pair("sa_dog", file_name="sa_12.jpg"), "file_name sa_12.jpg"),
        (pair("sa_dog", file_name="sa_cat.jpg"), "file_name sa_cat.jpg"),
        (pair(image_id=2, file_name="\x1b[2J" + "x" * 999), r"file_name \\x1b\[2Jx{71}"),
    ],
    ids=range(8),
)
def test_names_that_disagree_are_refused(refused, message):
    with pytest.raises(ValueError, match=message):
        annotations.read_pair(refused)


@given(*[st.integers(0, 30)] * 3, st.integers(0, 9))
def test_numbers_pass_only_if_all_three_are_the_same(member, image_id, file_name, zeros):
    named = pair(f"./sa_{member:0{zeros}}", image_id=image_id, file_name=f"sa_{file_name}.jpg")
    same = member == image_id == file_name
    with contextlib.nullcontext() if same else pytest.raises(ValueError, match="another image"):
        annotations.read_pair(named)


AREA, BOX = CONTENT["annotations"][0]["area"], CONTENT["annotations"][0]["bbox"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"bbox": [BOX[0], BOX[1], BOX[2] + 1, BOX[3] + 1]}, None),  # as pycocotools' toBbox
        ({"area": AREA + 1}, f"'area' than .* annotation 0 says {AREA + 1}, its mask has {AREA}"),
        ({"bbox": [BOX[0], BOX[1], BOX[2] + 1, BOX[3]]}, "1 of 4 annotations have another 'bbox'"),
        ({"bbox": [0, 0, 0, 0]}, r"annotation 0 says \[0.0, 0.0, 0.0, 0.0\], its mask has \["),
    ],
)
def test_deep_verification_compares_area_and_bbox(tmp_path, change, message):
    changed = pair(annotations=change)
    files = {changed.jpeg_name: changed.jpeg, changed.json_name: changed.json}
    make.write_tar(tmp_path / "sa_000000.tar", files)
    (report,) = verify_folder(tmp_path, deep=True)
    assert report.status == ("wrong" if message else "whole")
    if message:
        with pytest.raises(ValueError, match=message):
            consistency.check_pair(changed)
    assert annotations.read_pair(changed).annotations["area"][0] == change.get("area", AREA)


@given(st.integers(0, 2**32), st.integers(-2, 2), st.integers(-2, 2), st.integers(-2, 2))
def test_boxes_of_both_conventions_pass_and_no_others(seed, area, width, height):
    mask = np.random.default_rng(seed).random((24, 32)) < 0.02
    mask[12, 15] = True
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    x, y, w, h = coco_mask.toBbox(encoded).tolist()
    changed = pair(
        annotations={
            "segmentation": {"size": [24, 32], "counts": encoded["counts"].decode()},
            "area": max(0, int(mask.sum()) + area),
            "bbox": [x, y, w + width, h + height],
        }
    )
    right = max(0, int(mask.sum()) + area) == mask.sum() and width == height and width in (0, -1)
    with contextlib.nullcontext() if right else pytest.raises(ValueError, match="another"):
        consistency.check_pair(changed)


def test_a_real_annotation_agrees_with_its_mask():
    """One of image 226381, by its numbers."""
    size = [1500, 2000]
    counts = "T`eT29a^14L3N2M2O1N3L3E<N10000010O100O2O0O0001O00000001O001N1K8XOcgae0"
    real = {
        "bbox": [1500.0, 219.0, 28.0, 43.0],
        "area": 914,
        "segmentation": {"size": size, "counts": counts},
        "predicted_iou": 0.8991881608963013,
        "point_coords": [[1520.75, 248.0625]],
        "crop_box": [872.0, 0.0, 692.0, 567.0],
        "id": 333521564,
        "stability_score": 0.9751351475715637,
    }
    image = {"image_id": 226381, "width": 2000, "height": 1500, "file_name": "sa_226381.jpg"}
    example = annotations.parse(json.dumps({"image": image, "annotations": [real]}).encode(), JPEG)
    measured = run_lengths([counts], size)
    wrong = consistency.contradictions(example, areas(measured), bboxes(measured, size))
    assert not any(flags.any() for flags in wrong.values())
    assert coco_mask.toBbox(real["segmentation"]).tolist() == [1500, 219, 29, 44]


def test_own_tars_pass_deep_verification(tmp_path):
    masks = np.zeros((1, 24, 32), bool)
    masks[0, 3:9, 4:5] = True
    image = np.zeros((24, 32, 3), np.uint8)
    sa1b_tfds.write_tars([{"image": image, "masks": masks, "image_id": 9}], tmp_path)
    (report,) = verify_folder(tmp_path, deep=True)
    assert report.status == "whole"
