"""Metadata that only some readers of a JPEG honour: pixels stay under their masks everywhere."""

import contextlib
import io
import json
import struct
import tarfile

import cv2
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

import sa1b_tfds
from dummy_data import make
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.annotations import to_example
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.export import Coco, ExportConfig, SA1BTars, WebDataset, Yolo, export
from sa1b_tfds.show.pictures import picture_of
from sa1b_tfds.torch import SA1BDataset

pytestmark = pytest.mark.usefixtures("threads")

MASK = np.zeros((40, 64), bool)
MASK[4:12, 6:30] = True
PIXELS = np.uint8(MASK[:, :, None] * [255, 255, 255])  # what is white is in the mask
CONTENT = make.describe(7, 40, 64, [MASK])
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description %s/></x:xmpmeta>"


def encoded(exif=None, mode="RGB", **options) -> bytes:
    out = io.BytesIO()
    if exif is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = exif
    Image.fromarray(PIXELS).convert(mode).save(out, "JPEG", quality=95, **options)
    return out.getvalue()


def with_segment(marker: int, body: bytes, data: bytes) -> bytes:
    return data[:2] + bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


TAGGED = {
    "EXIF 6": encoded(6),
    "EXIF 3": encoded(3),
    "XMP attribute": with_segment(0xE1, XMP % b'tiff:Orientation="6"', encoded()),
    "XMP element": with_segment(
        0xE1, XMP % b"><tiff:Orientation>8</tiff:Orientation><a", encoded(1)
    ),
    "second EXIF": with_segment(0xE1, encoded(1)[24:].partition(b"\xff")[0], encoded(6)),
    "EXIF that cannot be read": with_segment(0xE1, b"Exif\0\0II*\0\x12\x01", encoded()),
}
UNTAGGED = {
    "none": encoded(),
    "EXIF 1": encoded(1),
    "EXIF 0": encoded(0),
    "EXIF without a TIFF": with_segment(0xE1, b"Exif\0\0no TIFF", encoded()),
    "comment like EXIF": encoded(exif=None, comment=b"Exif\0\0", dpi=(72, 144)),
    "XMP 1": with_segment(0xE1, XMP % b'tiff:Orientation="1"', encoded()),
    "ICC": encoded(icc_profile=b"profile" * 99),
}


def assert_lies_under(mask, pixels):
    assert pixels.shape[:2] == mask.shape
    np.testing.assert_array_equal(np.asarray(pixels)[..., 0] > 127, np.asarray(mask) == 1)


@pytest.mark.parametrize("data", TAGGED.values(), ids=TAGGED)
def test_what_would_turn_the_image_goes_and_pixels_stay(data):
    neutral = jpeg.unturned(data)
    assert jpeg.image_size(neutral) == (40, 64)
    picture = Image.open(io.BytesIO(neutral))
    assert picture.getexif().get(0x0112) is None
    np.testing.assert_array_equal(ImageOps.exif_transpose(picture), jpeg.decode(data))
    in_opencv = cv2.imdecode(np.frombuffer(neutral, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(in_opencv[:, :, ::-1], jpeg.decode(data))


@pytest.mark.parametrize("data", UNTAGGED.values(), ids=UNTAGGED)
def test_other_bytes_stay_as_they_are(data):
    assert jpeg.unturned(data) == data
    assert to_example(data, json.dumps(CONTENT).encode()).image == data


def exif_segment(order, tags, offset, cut) -> bytes:
    """EXIF with one directory of (tag, type, count, value), which may be none."""
    entries = b"".join(struct.pack(order + "HHIHH", *tag, 0) for tag in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", offset)
    return b"Exif\0\0" + (head + struct.pack(order + "H", len(tags)) + entries)[:cut]


@settings(max_examples=200)
@given(
    st.builds(
        exif_segment,
        st.sampled_from("<>"),
        st.lists(
            st.tuples(
                st.sampled_from([0x0112, 0x0112, 0x0100]),
                st.sampled_from([3, 3, 3, 1, 2, 4, 9]),
                st.sampled_from([1, 1, 1, 0, 2]),
                st.integers(0, 9),
            ),
            max_size=3,
        ),
        st.sampled_from([8, 8, 8, 9, 0, 10**9]),
        st.sampled_from([99, 99, 21, 14]),
    )
    | st.binary(max_size=40).map(b"Exif\0\0".__add__)
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_exif_leaves_an_image_that_no_reader_turns(exif):
    neutral = jpeg.unturned(with_segment(0xE1, exif, encoded()))
    expected = jpeg.decode(neutral)
    turned = expected
    with contextlib.suppress(Exception):  # what exif_transpose cannot read it does not turn
        turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(neutral))))
    np.testing.assert_array_equal(turned, expected)
    in_opencv = cv2.imdecode(np.frombuffer(neutral, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(in_opencv[:, :, ::-1], expected)


@pytest.fixture(scope="module", params=["EXIF 6", "EXIF 3", "XMP attribute"])
def source(tmp_path_factory, request):
    """A folder with a tar, and one with extracted files, of a tagged image."""
    root = tmp_path_factory.mktemp("tagged")
    files = {"sa_7.jpg": TAGGED[request.param], "sa_7.json": json.dumps(CONTENT).encode()}
    for name in ("tars", "files"):
        (root / name).mkdir()
    make.write_tar(root / "tars" / "sa_000000.tar", files)
    for name, data in files.items():
        (root / "files" / name).write_bytes(data)
    return root


def as_datasets_opens(data) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("images", ["copy", "link"])
@pytest.mark.parametrize("form", [Coco, Yolo])
def test_exports_are_neutral(source, tmp_path, form, images):
    export(
        ExportConfig(
            source=source / ("files" if images == "link" else "tars"),
            output=tmp_path / "out",
            format=form(images=images),
            workers=1,
        )
    )
    [path] = (tmp_path / "out").rglob("*.jpg")
    assert_lies_under(MASK, as_datasets_opens(path.read_bytes()))
    assert_lies_under(MASK, cv2.imread(str(path)))
    tagged = (source / "files" / "sa_7.jpg").read_bytes()
    assert jpeg.unturned(tagged) != tagged  # the source is left alone


@pytest.mark.parametrize("form", [WebDataset, SA1BTars])
def test_repacked_tars_are_neutral(source, tmp_path, form):
    export(ExportConfig(source=source / "tars", output=tmp_path / "out", format=form(), workers=1))
    [path] = (tmp_path / "out").glob("*.tar")
    with tarfile.open(path) as tar:
        [data] = [tar.extractfile(m).read() for m in tar if m.name.endswith("jpg")]
    assert_lies_under(MASK, as_datasets_opens(data))


def test_streams_tensors_and_pictures_are_neutral(source):
    [row] = sa1b_tfds.huggingface.streaming(source / "tars")
    assert_lies_under(MASK, np.asarray(row["image"]))
    image, masks, _ = SA1BDataset(source / "tars")[0]
    assert_lies_under(masks[0].numpy(), image.permute(1, 2, 0).numpy())
    [element] = tfds.as_numpy(sa1b_tfds.read_tars(source / "tars"))
    assert_lies_under(element["masks"][0], element["image"])
    skip = {"image": tfds.decode.SkipDecoding()}
    [element] = tfds.as_numpy(sa1b_tfds.read_tars(source / "tars", decoders=skip))
    assert_lies_under(element["masks"][0], as_datasets_opens(element["image"]))
    [example] = read_examples(source / "tars")
    picture = picture_of(example, 64)
    assert_lies_under(picture.masks[0], picture.image)


@pytest.mark.parametrize("config", ["original", "resized_1024"])
def test_prepared_data_is_neutral(source, tmp_path, config):
    builder = tfds.builder(f"segment_anything/{config}", data_dir=tmp_path, num_workers=1)
    options = tfds.download.DownloadConfig(manual_dir=source / "tars")
    builder.download_and_prepare(download_config=options, file_format="array_record")
    [example] = builder.as_data_source(split="train")
    assert_lies_under(example["masks"][0], example["image"])
    [row] = sa1b_tfds.huggingface.streaming(tmp_path, config)
    assert_lies_under(MASK, np.asarray(row["image"]))


@pytest.mark.parametrize("image", [*TAGGED.values(), Image.open(io.BytesIO(TAGGED["EXIF 3"]))])
def test_written_tars_are_neutral(tmp_path, image):
    sa1b_tfds.write_tars([{"image": image, "masks": [MASK]}], tmp_path)
    [row] = sa1b_tfds.huggingface.streaming(tmp_path)
    assert_lies_under(MASK, np.asarray(row["image"]))


def adobe(transform: int, data: bytes) -> bytes:
    return with_segment(0xEE, b"Adobe\0d\0\0\0\0" + bytes([transform]), data)


def without_app0(data: bytes) -> bytes:
    return data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]


CMYK = encoded(mode="CMYK")
UNMARKED = CMYK.replace(b"Adobe", b"other", 1)


@pytest.mark.parametrize(
    "data",
    [
        encoded(mode="L"),
        encoded(keep_rgb=True),
        encoded(icc_profile=b"profile" * 99),
        encoded(dpi=(72, 300)),
        CMYK,
        adobe(2, UNMARKED),  # YCCK
        *(adobe(transform, encoded()) for transform in (0, 1)),
        *(adobe(transform, without_app0(encoded())) for transform in (0, 1)),
    ],
    ids=range(10),
)
def test_what_is_accepted_is_one_picture_everywhere(data):
    assert jpeg.image_size(data) == (40, 64)
    pixels = jpeg.decode(data).astype(int)
    in_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(in_opencv[:, :, ::-1] - pixels).max() <= 1
    in_tensorflow = tf.io.decode_jpeg(data, 3, dct_method="INTEGER_ACCURATE").numpy()
    assert np.abs(in_tensorflow - pixels).max() <= 1


def test_cmyk_without_an_adobe_marker_is_refused(tmp_path):
    for data in (UNMARKED, with_segment(0xEE, b"Ducky", UNMARKED)):
        with pytest.raises(ValueError, match="the JPEG is CMYK without an Adobe marker"):
            to_example(data, json.dumps(CONTENT).encode())
        with pytest.raises(ValueError, match="Example 0: the JPEG is CMYK without"):
            sa1b_tfds.write_tars([{"image": data, "masks": [MASK]}], tmp_path)
