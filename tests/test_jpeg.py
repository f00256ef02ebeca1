import contextlib
import io
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from dummy_data import make
from sa1b_tfds.examples import jpeg

DATA, _ = make.draw(1, height=60, width=90, shapes=5)
FRAME, TABLES, SCAN = (DATA.index(marker) for marker in (b"\xff\xc0", b"\xff\xc4", b"\xff\xda"))


def encoded(**options):
    out = io.BytesIO()
    Image.open(io.BytesIO(DATA)).convert(options.pop("mode", "RGB")).save(out, **options)
    return out.getvalue()


FORMS = [
    DATA,
    DATA + b"trailing",
    encoded(format="JPEG", progressive=True),
    encoded(format="JPEG", mode="L"),
    encoded(format="JPEG", restart_marker_blocks=2),
    encoded(format="JPEG", comment=b"\xff\xd9" * 9),
    DATA.replace(b"\xff\xda", b"\xff" * 99 + b"\xff\xda"),
    encoded(format="JPEG", mode="CMYK"),
    DATA[:2] + b"\xff\xfe\x00\x02" + DATA[2:],  # a comment of no byte
    DATA.replace(b"\xff\xc0", b"\xff\xc1"),
]


@pytest.mark.parametrize("data", FORMS)
def test_image_size(data):
    assert jpeg.image_size(data) == (60, 90)
    assert tf.io.decode_jpeg(data).shape[:2] == (60, 90)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "start marker is missing"),
        (encoded(format="PNG"), "start marker is missing"),
        (DATA[:-1], "cut off or broken"),
        (DATA[: len(DATA) // 2], "cut off or broken"),
        (DATA[:100], "cut off or broken"),
        (DATA[:2], "cut off or broken"),
        (DATA[:2] + bytes(500) + DATA[-2:], "cut off or broken"),
        (DATA[:-200] + b"\xff\xfe\xff\xff" + DATA[-196:], "cut off or broken"),
        (DATA[:2] + DATA[-2:], "no frame"),
        # To a reader that gives restarts no length, the frame inside is the image's.
        (
            DATA[:2] + b"\xff\xd0" + DATA[FRAME + 2 : SCAN] + DATA[2:],
            "unknown marker 0xD0 at byte 3",
        ),
        (DATA[:FRAME] + b"\xff\x02\x00\x02" + DATA[FRAME:], "unknown marker 0x02"),
        (DATA[:2] + b"\xff\xfe\x00\x01" + DATA[2:], f"broken at byte 4 of {len(DATA) + 4}"),
        (DATA[: SCAN + 13], f"broken at byte {SCAN + 2} of {SCAN + 13}"),  # its last byte lacks
        (DATA.replace(b"\xff\xc0", b"\xff\xc9"), "arithmetic"),
        (DATA[: FRAME + 9] + b"\2" + DATA[FRAME + 10 :], "1, 3 or 4 channels"),
        (DATA[:FRAME] + b"\xff\xc0\0\7" + DATA[FRAME + 4 : FRAME + 9], "does not have one frame"),
        (DATA.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "8 bits"),
        (DATA[:SCAN] + DATA[FRAME:SCAN] + DATA[SCAN:], "one frame"),
        (DATA[:SCAN] + DATA[-2:], "no frame or no scan"),
        (DATA[: TABLES + 5] + b"\xff" * 9 + DATA[TABLES + 14 :], "does not decode"),
        (DATA[: FRAME + 11] + b"\0" + DATA[FRAME + 12 :], "does not decode"),
        (DATA.replace(b"\xff\xdb\x00\x43\x00", b"\xff\xdb\x00\x43\x03"), "does not decode"),
        (DATA[: SCAN + 5] + b"\x09" + DATA[SCAN + 6 :], "does not decode"),
        (DATA.replace(b"\x08\x00\x3c", b"\x08\x00\x00"), "height and width of 0"),
    ],
)
def test_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        jpeg.image_size(data)


def test_pillow_is_given_no_notes_that_pixels_do_not_depend_on():
    """It parses all of EXIF when it opens a file, which took two minutes for 2 MB of segments."""
    exif = b"\xff\xe1\x17\x72" + 1000 * b"Exif\0\0"
    comment = b"\xff\xfe\x00\x03!"
    noted = DATA[:2] + 100 * exif + comment + DATA[2:]
    assert jpeg._plain(noted) == DATA
    assert jpeg.image_size(noted) == (60, 90)
    np.testing.assert_array_equal(jpeg.decode(noted), jpeg.decode(DATA))
    cmyk = encoded(format="JPEG", mode="CMYK")  # its Adobe marker says how to read it
    assert jpeg._plain(cmyk) == cmyk


@pytest.mark.parametrize("marker", [*range(0xC3, 0xC8), *range(0xC9, 0xD0)])
def test_frames_that_tensorflow_does_not_decode_are_refused(marker):
    """All markers of frames but those of baseline, extended and progressive; 0xC4 has tables."""
    data = DATA.replace(b"\xff\xc0", bytes((0xFF, marker)))
    reason = {0xC4: "no frame", 0xCC: "unknown marker"}.get(marker, "lossless or arithmetic-coded")
    with pytest.raises(ValueError, match=reason):
        jpeg.image_size(data)


def test_what_is_accepted_decodes():
    """Bytes of the headers changed at random: TensorFlow decodes what `image_size` lets pass."""
    rng = np.random.default_rng(0)
    accepted = 0
    for _ in range(300):
        changed = bytearray(DATA)
        changed[rng.integers(2, SCAN + 14)] = rng.integers(256)
        try:
            size = jpeg.image_size(bytes(changed))
        except ValueError:
            continue
        assert tf.io.decode_jpeg(bytes(changed), channels=3).shape[:2] == size
        accepted += 1
    assert 100 < accepted < 290


@pytest.mark.parametrize("long_side", [64, 45, 40, 10, 1])
def test_shrink(long_side):
    small = Image.open(io.BytesIO(jpeg.shrink(DATA, long_side)))
    scale = long_side / 90
    assert small.size == (long_side, max(1, int(60 * scale + 0.5)))
    full = Image.open(io.BytesIO(DATA))
    expected = tf.image.resize(np.array(full), small.size[::-1], antialias=True)
    assert (
        np.abs(np.array(small) - expected.numpy()).mean() < 9
    )  # what JPEG at 95 costs, of so few pixels


@pytest.mark.parametrize("data", FORMS)
def test_decode_gives_what_pillow_gives(data, monkeypatch):
    pixels = jpeg.decode(data)
    np.testing.assert_array_equal(pixels, jpeg.decode_with_pillow(data))
    assert pixels.flags.writeable
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # as where there is no wheel
    np.testing.assert_array_equal(jpeg.decode(data), pixels)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_decode_treats_broken_images_as_pillow_does(data):
    broken = bytearray(DATA)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(2, len(DATA) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(broken[: data.draw(st.integers(len(DATA) // 2, len(DATA)))])
    try:
        expected = jpeg.decode_with_pillow(broken)
    except ValueError as e:
        with pytest.raises(jpeg.BadJpeg, match=re.escape(str(e).partition("<")[0])):
            jpeg.decode(broken)
    else:
        np.testing.assert_array_equal(jpeg.decode(broken), expected)


def test_shrink_never_enlarges():
    assert jpeg.shrink(DATA, 90) == DATA
    assert jpeg.shrink(DATA, 1024) == DATA


@pytest.mark.parametrize("tolerant", [False, True])
def test_shrink_says_what_does_not_decode(monkeypatch, tolerant):
    """Also after TFDS told Pillow to accept broken images."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    for broken in (DATA[: len(DATA) // 2], DATA[: TABLES + 5] + b"\xff" * 9 + DATA[TABLES + 14 :]):
        with pytest.raises(ValueError, match="does not decode"):
            jpeg.shrink(broken, 20)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


def test_one_thread_does_not_loosen_another(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    limit = Image.MAX_IMAGE_PIXELS
    with contextlib.ExitStack() as others:
        with jpeg._opened(DATA):
            others.enter_context(jpeg._opened(DATA))  # begins within, ends later
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
        assert Image.MAX_IMAGE_PIXELS is None
    assert (limit, True) == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def test_images_beyond_pillows_own_limit():
    out = io.BytesIO()
    Image.new("L", (13500, 13500)).save(out, "JPEG")
    assert jpeg.image_size(out.getvalue()) == (13500, 13500)
    assert jpeg.image_size(jpeg.shrink(out.getvalue(), 100)) == (100, 100)
