import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFile

from dummy_data import make
from sa1b_tfds import jpeg

DATA, _ = make.draw(1, height=60, width=90, shapes=5)


def encoded(**options):
    out = io.BytesIO()
    Image.open(io.BytesIO(DATA)).convert(options.pop("mode", "RGB")).save(out, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        DATA + b"trailing",
        encoded(format="JPEG", progressive=True),
        encoded(format="JPEG", mode="L"),
        encoded(format="JPEG", restart_marker_blocks=2),
        encoded(format="JPEG", comment=b"\xff\xd9" * 9),
    ],
)
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
        (DATA.replace(b"\xff\xc0", b"\xff\xc9"), "arithmetic"),
        (DATA.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"), "8 bits"),
        (DATA.replace(b"\x08\x00\x3c", b"\x08\x00\x00"), "height and width of 0"),
    ],
)
def test_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        jpeg.image_size(data)


@pytest.mark.parametrize("long_side", [64, 45, 1])
def test_shrink(long_side):
    small = Image.open(io.BytesIO(jpeg.shrink(DATA, long_side)))
    scale = long_side / 90
    assert small.size == (long_side, max(1, int(60 * scale + 0.5)))
    full = Image.open(io.BytesIO(DATA))
    expected = tf.image.resize(np.array(full), small.size[::-1], antialias=True)
    assert np.abs(np.array(small) - expected.numpy()).mean() < 6  # what JPEG at 95 costs


def test_shrink_never_enlarges():
    assert jpeg.shrink(DATA, 90) == DATA
    assert jpeg.shrink(DATA, 1024) == DATA


@pytest.mark.parametrize("tolerant", [False, True])
def test_shrink_says_what_does_not_decode(monkeypatch, tolerant):
    """Also after TFDS told Pillow to accept broken images."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    tables = DATA.index(b"\xff\xc4")
    for broken in (DATA[: len(DATA) // 2], DATA[: tables + 5] + b"\xff" * 9 + DATA[tables + 14 :]):
        with pytest.raises(ValueError, match="does not decode"):
            jpeg.shrink(broken, 20)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant
