"""One image, every way in: the same pixels and the same masks, all compared with the tar's JSON."""

import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import sa1b_tfds
from sa1b_tfds.export import Coco, ExportConfig, SA1BTars, export
from sa1b_tfds.torch import SA1BDataset
from tests import building

pytestmark = pytest.mark.usefixtures("threads")

Images = dict[int, tuple[np.ndarray, np.ndarray]]  # id -> uint8 [H, W, 3], bool [N, H, W]


@pytest.fixture(scope="module", params=building.FORMS)
def places(tmp_path_factory, request) -> dict[str, pathlib.Path]:
    """The same images as tars, as files, prepared in both formats, and exported."""
    root = tmp_path_factory.mktemp("paths")
    plain = building.write_tars(root / "plain", images=3, height=70, width=101, shapes=9)
    for path in plain.iterdir():
        with tarfile.open(path) as tar:
            tar.extractall(root / "files", filter="data")
    tars = building.FORMS[request.param](plain).rename(root / "tars")
    for file_format in ("tfrecord", "array_record"):
        building.prepare(tars, root / file_format, file_format=file_format)
    prepared = root / "tfrecord" / "segment_anything" / "original" / "2.0.0"
    for name, source, format in (
        ("coco", tars, Coco()),
        ("coco of prepared", prepared, Coco()),
        ("sa1b", tars, SA1BTars()),
    ):
        export(ExportConfig(source=source, output=root / name, format=format, workers=1))
    names = ("tars", "files", "tfrecord", "array_record", "coco", "coco of prepared", "sa1b")
    return {name: root / name for name in names}


@pytest.fixture(scope="module")
def expected(places) -> Images:
    """By pycocotools and Pillow alone."""
    images = {}
    for path in places["files"].glob("*.json"):
        content = json.loads(path.read_text())
        rles = [annotation["segmentation"] for annotation in content["annotations"]]
        masks = np.moveaxis(coco_mask.decode(rles), 2, 0) == 1
        images[content["image"]["image_id"]] = _pixels(path.with_suffix(".jpg").read_bytes()), masks
    assert len(images) == 6
    return images


def _pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def _of_elements(elements) -> Images:
    return {int(e["image_id"]): (e["image"], e["masks"]) for e in elements}


def _load(places) -> Images:
    data_dir = places["tfrecord"]
    dataset = tfds.load("segment_anything", split="train", data_dir=data_dir, download=False)
    return _of_elements(tfds.as_numpy(dataset))


def _data_source(places) -> Images:
    data_dir = places["array_record"]
    return _of_elements(tfds.data_source("segment_anything", split="train", data_dir=data_dir))


def _read_tars(source: str):
    return lambda places: _of_elements(tfds.as_numpy(sa1b_tfds.read_tars(places[source])))


def _torch(source: str, config: str | None = None):
    def read(places) -> Images:
        dataset = SA1BDataset(places[source], config=config)
        return {
            metadata["image_id"]: (np.moveaxis(image.numpy(), 0, 2), masks.numpy())
            for image, masks, metadata in (dataset[i] for i in range(len(dataset)))
        }

    return read


def _coco(source: str):
    def read(places) -> Images:
        dataset = COCO(places[source] / "annotations.json")
        images = {}
        for image_id, image in dataset.imgs.items():
            masks = [dataset.annToMask(a) for a in dataset.imgToAnns[image_id]]
            jpeg = (places[source] / "images" / image["file_name"]).read_bytes()
            images[image_id] = _pixels(jpeg), np.stack(masks)
        return images

    return read


@pytest.mark.parametrize(
    ("read", "levels"),
    [
        # TensorFlow's default decoder of JPEG is up to 7 grey levels away from Pillow's.
        pytest.param(_load, 7, id="tfds.load"),
        pytest.param(_read_tars("tars"), 7, id="read_tars of tars"),
        pytest.param(_read_tars("files"), 7, id="read_tars of files"),
        pytest.param(_read_tars("sa1b"), 7, id="read_tars of repacked tars"),
        pytest.param(_data_source, 0, id="data_source"),
        pytest.param(_torch("tars"), 0, id="SA1BDataset of tars"),
        pytest.param(_torch("files"), 0, id="SA1BDataset of files"),
        pytest.param(_torch("array_record", "original"), 0, id="SA1BDataset of prepared data"),
        pytest.param(_coco("coco"), 0, id="COCO of tars"),
        pytest.param(_coco("coco of prepared"), 0, id="COCO of prepared data"),
    ],
)
def test_every_way_in_gives_the_same(places, expected, read, levels):
    images = read(places)
    assert images.keys() == expected.keys()
    for image_id, (pixels, masks) in images.items():
        expected_pixels, expected_masks = expected[image_id]
        np.testing.assert_array_equal(np.asarray(masks) == 1, expected_masks)
        assert pixels.shape == expected_pixels.shape
        assert np.abs(pixels.astype(int) - expected_pixels).max() <= levels
