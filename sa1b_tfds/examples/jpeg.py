"""JPEG bytes: what can be told without decoding them, decoding with Pillow, making them smaller.

TFDS decodes by `tfds.features.Image`, in TensorFlow, or with Pillow where there is none.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Collection, Iterator
from typing import Literal

import numpy as np
from PIL import Image, ImageFile

# benchmarks/resize_quality.py on photographs: 42 dB, an error of 2 grey levels, in 266 kB an image;
# 90 takes a third less for 2 dB less, 98 half as much again for 2 dB more.
QUALITY = 95

# Decoding at half the size takes a third off the time. On photographs it is at least 42 dB from
# decoding in full (38 dB without this margin), and costs 0.4 dB of the 41.7 that QUALITY leaves:
# benchmarks/resize.py and resize_quality.py.
DCT_MARGIN = 1.05

_START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive Huffman: what TF decodes
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_START_OF_SCAN, _END = 0xDA, 0xD9
_APP1, _APP14 = 0xE1, 0xEE
# Tables, restart interval, application data and comments. Readers differ in what they make of other
# markers, such as restarts where no scan is: they may find another frame, of another size.
_TABLES = (0xC4, 0xDB, 0xDC, 0xDD)
_NOTES = (*range(0xE0, 0xF0), 0xFE)
_KNOWN = {*_START_OF_FRAME, *_OTHER_FRAMES, *_TABLES, *_NOTES, _START_OF_SCAN}
# What decides on the colours is in these two; no other note changes a pixel.
_COLOUR_NOTES = (0xE0, _APP14)
_SAME_IN_ALL = ("YCbCr", "Gray")  # CMYK differs by a grey level between libraries
_EXIF = b"Exif\0"
_ORIENTATION = 0x0112
_FILL = re.compile(rb"\xff+[^\xff]", re.DOTALL)  # a marker may have any number of 0xFF before it
_BEGINNING = 4096  # bytes of the first scan that are decoded,
_ROWS = 16  # for so many rows of pixels
# In a scan 0xFF is followed by 0x00 (a pixel byte), a restart marker or fill; all else ends it.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class BadJpeg(ValueError):
    """The bytes are no JPEG that can be decoded."""


def image_size(data: bytes) -> tuple[int, int]:
    """Walks through a JPEG's segments up to its end, and begins to decode it.

    It finds what is no JPEG, is cut off, has wrong or missing tables, or is coded in a way that
    cannot be decoded. Pixels are not decoded, as that would take most of a build's time: a changed
    one goes unnoticed, and so does a wrong table of a progressive JPEG's later scans.

    Returns:
      (height, width) in pixels.

    Raises:
      ValueError: saying what is wrong.
    """
    if not data.startswith(b"\xff\xd8"):
        raise BadJpeg("it is not a JPEG: the start marker is missing")
    size = None
    is_cmyk = has_adobe = False
    first_scan = height_at = 0
    position = 2
    while True:
        if (marker_bytes := _FILL.match(data, position)) is None:
            raise BadJpeg(f"the JPEG is cut off or broken at byte {position} of {len(data)}")
        position = marker_bytes.end()
        marker = data[position - 1]
        if marker == _END:
            break
        if marker not in _KNOWN:
            raise BadJpeg(f"the JPEG has an unknown marker 0x{marker:02X} at byte {position - 1}")
        length = int.from_bytes(data[position : position + 2], "big")
        body = data[position + 2 : position + length]
        if length < 2 or len(body) < length - 2:
            raise BadJpeg(f"the JPEG is cut off or broken at byte {position} of {len(data)}")
        if marker in _OTHER_FRAMES:
            raise BadJpeg("the JPEG is lossless or arithmetic-coded, which cannot be decoded")
        if marker in _START_OF_FRAME:
            if size is not None or len(body) < 6 or body[0] != 8 or body[5] not in (1, 3, 4):
                raise BadJpeg("the JPEG does not have one frame of 1, 3 or 4 channels of 8 bits")
            size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            height_at = position + 3
            is_cmyk = body[5] == 4
        has_adobe |= marker == _APP14 and body.startswith(b"Adobe")
        position += length
        if marker == _START_OF_SCAN:
            first_scan = first_scan or position
            position = _end_of_scan(data, position)
    if size is None or not first_scan:
        raise BadJpeg("the JPEG has no frame or no scan")
    if is_cmyk and not has_adobe:
        raise BadJpeg(
            "the JPEG is CMYK without an Adobe marker, which programs decode to different colours:"
            " save it as RGB"
        )
    if not all(size):
        raise BadJpeg(f"the JPEG claims a height and width of {size[0]} and {size[1]}")
    rows = min(size[0], _ROWS)
    end = first_scan + _BEGINNING
    beginning = data[:height_at] + rows.to_bytes(2, "big") + data[height_at + 2 : end]
    _decode(_plain(beginning) + bytes((0xFF, _END)), (size[1], rows))
    return size


def unturned(data: bytes) -> bytes:
    """A JPEG without a tag that has some programs turn or mirror it; the pixels stay.

    Masks lie on the pixels as they are stored. TensorFlow shows these, while OpenCV, browsers, and
    Pillow's `exif_transpose`, which `datasets` calls, follow the tag. Where one is found, all EXIF
    and XMP is left out. All else that may be in a JPEG is the same to those who decode it: none of
    them applies colour profiles or pixel densities.

    Args:
      data: what `image_size` lets pass.
    """
    exif, is_turned = [], False
    for marker, _, body in _segments(data):
        if marker == _APP1 and body.startswith(_EXIF):
            exif.append(body)
        elif marker == _APP1:
            xmp = re.search(rb"tiff:Orientation\W{1,20}(\d)", body)
            is_turned |= xmp is not None and xmp[1] not in b"01"
    if not is_turned and not any(map(_is_turned, exif)):
        return data
    return _without(data, {_APP1})


def _segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields (marker, all of its bytes, its content) of each segment before the first scan."""
    position = 2
    while (found := _FILL.match(data, position)) is not None:
        marker, start = data[found.end() - 1], found.end()
        if marker in (_START_OF_SCAN, _END):
            return
        stop = start + int.from_bytes(data[start : start + 2], "big")
        yield marker, data[position:stop], data[start + 2 : stop]
        position = stop


def _without(data: bytes, markers: Collection[int]) -> bytes:
    """A JPEG without its segments of these markers."""
    segments = list(_segments(data))
    rest = 2 + sum(len(segment) for _, segment, _ in segments)
    kept = [segment for marker, segment, _ in segments if marker not in markers]
    return b"".join([data[:2], *kept, data[rest:]])


def _plain(data: bytes) -> bytes:
    """A JPEG without the notes that no pixel depends on.

    Pillow reads them all when it opens a file: 2 MB of EXIF segments took it two minutes
    (CVE-2026-96643).
    """
    return _without(data, set(_NOTES) - set(_COLOUR_NOTES))


def _is_turned(exif: bytes) -> bool:
    """Whether EXIF may have another orientation than 'as stored', for any reader.

    Readers differ in how malformed an entry they take. So its two bytes are looked for, wherever
    they are, and accepted only if there is one such place, which Pillow reads as 'as stored'.
    """
    order: Literal["little", "big"] = "little" if exif[6:8] == b"II" else "big"
    if not (places := exif.count(_ORIENTATION.to_bytes(2, order))):
        return False
    content = Image.Exif()
    try:
        content.load(exif)
        return places > 1 or content.get(_ORIENTATION) not in (0, 1)
    except Exception:  # of any kind, as Pillow parses whatever is there
        return True


def _decode(beginning: bytes, size: tuple[int, int]) -> None:
    """Decodes an image whose height was cut down, of which only missing data may be wrong.

    size: (width, height) that it must have for Pillow as well.
    """
    try:
        with _strict, Image.open(io.BytesIO(beginning), formats=("JPEG",)) as image:
            if image.size != size:
                raise ValueError(f"Pillow finds a size of {image.size}, its frame says {size}")
            image.draft(None, (1, 1))  # an eighth of the size takes half the time
            image.load()
    except (OSError, SyntaxError, ValueError) as e:
        raise BadJpeg(f"the JPEG does not decode: {e}") from e


def _end_of_scan(data: bytes, start: int) -> int:
    scan = np.frombuffer(data, np.uint8)[start:]
    if len(scan) > 1:  # NumPy finds the first one that could be it in a third of the time
        could_be = (scan[:-1] == 0xFF).view(np.uint8)
        np.minimum(could_be, scan[1:], out=could_be)  # 0 where a 0x00 follows
        start += int(could_be.view(bool).argmax())
    end = _END_OF_SCAN.search(data, start)
    return end.start() if end else len(data)


def decode(data: bytes) -> np.ndarray:
    """Decodes an image.

    simplejpeg gives the same pixels as Pillow and writes them where they stay. Pillow copies them
    three times on the way to NumPy, which takes almost as long as decoding.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      ValueError: if it does not decode.
    """
    try:
        import simplejpeg
    except ImportError:  # there is no wheel for this machine
        return decode_with_pillow(data)
    with contextlib.suppress(ValueError):  # broken: Pillow says how
        _, _, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in _SAME_IN_ALL:
            return simplejpeg.decode_jpeg(data, "RGB")
    return decode_with_pillow(data)


def decode_with_pillow(data: bytes) -> np.ndarray:
    """Decodes as `decode` does, with Pillow."""
    with _opened(data) as image:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def shrink(data: bytes, long_side: int) -> bytes:
    """Re-encodes an image so that its longer side is `long_side` pixels; never enlarges one.

    Raises:
      ValueError: if it does not decode.
    """
    with _opened(data) as image:
        if max(image.size) <= long_side:
            return data
        return encode(resize(image, long_side), QUALITY)


def thumbnail(data: bytes, long_side: int) -> np.ndarray:
    """Decodes an image to look at, its longer side `long_side` pixels or fewer.

    Returns:
      uint8 [h, w, 3], RGB. What it says about its orientation is ignored, as masks ignore it.

    Raises:
      ValueError: if it does not decode.
    """
    with _opened(data) as image:
        shrunk = min(long_side, max(image.size))
        image.draft("RGB", (2 * shrunk, 2 * shrunk))  # the decoder leaves out what is not needed
        return np.asarray(resize(image, shrunk))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    try:
        with _strict, Image.open(io.BytesIO(_plain(data)), formats=("JPEG",)) as image:
            yield image
    except (OSError, SyntaxError) as e:
        raise BadJpeg(f"the JPEG does not decode: {e}") from e


class _Pillow:
    """While anybody decodes here, in whatever thread, Pillow is strict and takes any size.

    Both are settings of the whole process. TFDS has Pillow fill up broken images with grey; and
    Pillow's limit of 179 million pixels gives way to `runs.MAX_PIXELS`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: tuple[int | None, bool] = (None, False)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
            self._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_strict = _Pillow()


def resize(image: Image.Image, long_side: int) -> Image.Image:
    """Resizes as SAM's own preprocessing does: bilinear, antialiased, to the size that `fit` gives.

    A JPEG that was opened and not loaded is decoded at a half, a quarter or an eighth of its size
    where that leaves `DCT_MARGIN` for the resizing.
    """
    return _resized(image, fit(image.size, (long_side, long_side)))


def decode_to(data: bytes, size: tuple[int, int], exact: bool = False) -> np.ndarray:
    """Decodes an image to a size, as `resize` does.

    Args:
      data: the JPEG.
      size: (height, width) of the result.
      exact: whether to decode at full size before resizing.

    Returns:
      uint8 [height, width, 3], RGB.

    Raises:
      ValueError: if it does not decode.
    """
    height, width = size
    if exact:
        return np.asarray(_resized(Image.fromarray(decode(data)), (width, height)))
    with _opened(data) as image:
        return np.asarray(_resized(image, (width, height)))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    width, height = size
    image.draft("RGB", (int(width * DCT_MARGIN), int(height * DCT_MARGIN)))
    return image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def fit(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """The largest size of these proportions within limits, rounded by SAM's rule."""
    scale = min(limit / side for limit, side in zip(limits, size, strict=True))
    first, second = (max(1, int(side * scale + 0.5)) for side in size)
    return first, second


def encode(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
