"""Views, pixels and prompts, each beside a slow reference on NumPy, Pillow and pycocotools."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sa1b_tfds import TrainingConfig
from sa1b_tfds.masks.tf_run_ends import run_ends
from sa1b_tfds.training import images, prompts, views
from tests import strategies
from tests.test_rle import encode

sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
seeds = st.integers(0, 2**62)


def config(**fields):
    return TrainingConfig(**{"image_size": 128, "mask_size": 32, "masks_per_image": 4, **fields})


# Views


@given(sizes, st.sampled_from([16, 128, 1024]))
def test_letterbox_is_sams_rule(size, side):
    """Word for word `ResizeLongestSide.get_preprocess_shape`."""
    scale = side * 1.0 / max(size)
    new = [int(s * scale + 0.5) for s in size]
    view = views.whole(tf.constant(size), config(image_size=side))
    assert view.resized.numpy().tolist() == [max(1, s) for s in new]
    assert view.window.numpy().tolist() == [0, 0, *size]


def test_square_stretches():
    view = views.whole(tf.constant([1500, 2250]), config(resize="square"))
    assert view.resized.numpy().tolist() == [128, 128]


@given(sizes, seeds, st.sampled_from([(0.1, 2.0), (1.0, 1.0), (3.0, 3.0)]))
def test_jittered_views_stay_in_the_image_in_proportion(size, seed, scale_range):
    view = views.random(tf.constant(size), config(scale_range=scale_range), tf.constant([seed, 1]))
    y, x, height, width = view.window.numpy()
    assert 0 <= y <= y + height <= size[0]
    assert 0 <= x <= x + width <= size[1]
    assert (view.resized.numpy() >= 1).all()
    assert (view.resized.numpy() <= 128).all()
    # One number of pixels that the square holds explains both sides, by SAM's rounding.
    held = np.arange(8, 8 + 10 * max(size) + 8, 8)
    explained = np.ones(len(held), bool)
    for side, whole, resized in zip((height, width), size, view.resized.numpy(), strict=True):
        rounded = np.clip((side * (128 / held) + 0.5).astype(int), 1, 128)
        explained &= np.where(held < whole, side == held, (side == whole) & (rounded == resized))
        assert side == whole or resized == 128
    assert explained.any()


def test_jitter_reaches_all_of_its_range_and_of_the_image():
    size, fields = tf.constant([1500, 2250]), config(scale_range=(0.5, 2.0), flip=0.5)
    found = [views.random(size, fields, tf.constant([7, i], tf.int64)) for i in range(300)]
    windows = np.array([view.window for view in found])
    factor = 2250 / np.where(windows[:, 3] < 2250, windows[:, 3], np.nan)
    assert 1.0 < np.nanmin(factor) < 1.1
    assert 1.9 < np.nanmax(factor) <= 2.01
    small = np.array([view.resized[1] for view in found]) / 128
    assert 0.5 <= small.min() < 0.55
    right = windows[:, 1] + windows[:, 3]
    assert (right >= 2250 - 8).any()
    assert (windows[:, 1] == 0).any()
    assert 0.4 < np.mean([view.flip for view in found]) < 0.6


# Pixels


def jpeg_of(pixels, quality=95):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def photograph(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (16, 24, 3), np.uint8)
    return jpeg_of(
        np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    )


def pillow(data, fields, box=None):
    """SAM's preprocessing: Pillow's resize, normalise, pad."""
    image = Image.open(io.BytesIO(data)).crop(box)
    scale = fields.image_size / max(image.size)
    size = [int(side * scale + 0.5) for side in image.size]
    pixels = np.array(image.resize(size, Image.Resampling.BILINEAR), np.float32)
    pixels = (pixels - images.MEAN) / images.STD
    padding = [(0, fields.image_size - n) for n in pixels.shape[:2]]
    return np.pad(pixels, [*padding, (0, 0)])


def decoded(data, size, fields, view=None):
    view = view or views.whole(tf.constant(size), fields)
    pixels = images.decode(tf.constant(data), tf.constant(size), view, fields, tf.constant([1, 2]))
    return images.normalise(pixels[None], view.resized[None], fields)[0].numpy()


@pytest.mark.parametrize("size", [(300, 450), (451, 300), (128, 128), (100, 90), (513, 512)])
def test_exact_equals_the_processors_of_sam_and_hugging_face(size):
    data, fields = photograph(*size), config(exact=True)
    np.testing.assert_allclose(decoded(data, size, fields), pillow(data, fields), atol=0.02)


@pytest.mark.parametrize("size", [(300, 450), (451, 300), (1000, 1500), (1100, 600)])
def test_scaled_decoding_is_close_to_exact_decoding(size):
    """Two grey levels on average: libjpeg's own scaling is another low pass than Pillow's."""
    data, fields = photograph(*size), config()
    error = np.abs(decoded(data, size, fields) - pillow(data, fields))
    assert error.mean() < 2 / 57


@pytest.mark.parametrize(
    ("long_side", "ratio"), [(127, 1), (240, 1), (250, 2), (260, 2), (500, 4), (1500, 8)]
)
def test_scaled_decoding_may_leave_an_image_three_percent_too_small(long_side, ratio):
    """So photographs of 2000 x 1500 are decoded at half the size for a model image of 1024."""
    size = (long_side * 3 // 4, long_side)
    data, fields = photograph(*size), config(normalise=None)
    view = views.whole(tf.constant(size), fields)
    scaled = tf.cast(tf.io.decode_jpeg(data, 3, ratio), tf.float32)[None]
    expected = tf.raw_ops.ResizeBilinear(images=scaled, size=view.resized, half_pixel_centers=True)
    height, width = view.resized.numpy()
    shown = decoded(data, size, fields)[:height, :width]
    np.testing.assert_allclose(shown, expected[0].numpy(), atol=0.51)


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_scaled_crops_are_the_crops_of_the_scaled_image(ratio):
    size = (800, 1200)
    data, fields = photograph(*size), config(scale_range=(0.1, 8.0), normalise=None)
    window = np.array([160, 240, 128 * ratio, 128 * ratio]) if ratio < 8 else [0, 0, 800, 1024]
    resized = [128, 128] if ratio < 8 else [100, 128]
    view = views.View(tf.constant(window, tf.int32), tf.constant(resized), tf.constant(False))
    y, x, height, width = np.array(window) // ratio
    full = tf.io.decode_jpeg(data, 3, ratio).numpy()[y : y + height, x : x + width]
    assert full.shape[:2] == tuple(resized)
    shown = decoded(data, size, fields, view)[: resized[0], : resized[1]]
    # libjpeg smooths chroma over the border of a crop another way.
    np.testing.assert_array_equal(shown[2:-2, 2:-2], full[2:-2, 2:-2])


@given(st.integers(1, 16), st.integers(1, 16), st.sampled_from(["float32", "bfloat16"]))
@settings(max_examples=8)
def test_normalising_leaves_padding_zero(height, width, dtype):
    pixels = np.random.default_rng(height).integers(0, 256, (2, 16, 16, 3), np.uint8)
    fields = config(image_size=16, image_dtype=dtype)
    sizes = [[height, width], [width, height]]
    result = images.normalise(tf.constant(pixels), tf.constant(sizes), fields)
    expected = (pixels - images.MEAN) / images.STD
    for image, (h, w) in zip(expected, sizes, strict=True):
        image[h:] = image[:, w:] = 0
    assert result.dtype.name == dtype
    tolerance = 1e-5 if dtype == "float32" else 0.01
    np.testing.assert_allclose(tf.cast(result, tf.float32), expected, atol=tolerance)


def test_without_normalisation_bytes_and_floats_are_the_pixels():
    data = photograph(300, 450)
    as_bytes = decoded(data, (300, 450), config(normalise=None, image_dtype="uint8"))
    as_floats = decoded(data, (300, 450), config(normalise=None))
    assert as_bytes.dtype == np.uint8
    assert as_bytes.max() > 100
    np.testing.assert_array_equal(as_bytes, as_floats)


def test_colour_jitter_is_brightness_contrast_saturation():
    pixels = np.random.default_rng(0).uniform(60, 180, (9, 7, 3)).astype(np.float32)
    seed = tf.constant([3, 4])
    brightness, contrast, saturation = tf.random.stateless_uniform([3], seed, 0.7, 1.3).numpy()

    def blend(image, other, factor):
        return other + factor * (image - other)

    def grey(image):
        return (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]

    expected = pixels * brightness
    expected = blend(expected, grey(expected).mean(), contrast)
    expected = blend(expected, grey(expected), saturation)
    np.testing.assert_allclose(images._jittered(pixels, 0.3, seed), expected, rtol=1e-4)


# Prompts


@st.composite
def windows(draw):
    """(bool [N, H, W], a window inside)."""
    drawn = draw(strategies.masks())
    height, width = drawn.shape[1:]
    y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    shape = draw(st.integers(1, height - y)), draw(st.integers(1, width - x))
    return drawn, (y, x, *shape)


def shown(drawn, window):
    size = tf.constant(drawn.shape[1:])
    ends = run_ends(tf.constant(encode(drawn), tf.string), size)
    rank = prompts.window_rank(ends, size, tf.constant(window))
    return prompts.shown(ends, rank, tf.constant(window[2]), 4), ends, size


@given(windows())
def test_every_pixel_of_the_crop_has_one_number(case):
    """So that a uniform number is a uniform pixel."""
    drawn, window = case
    y, x, height, width = window
    runs, _, _ = shown(drawn, window)
    crops = drawn[:, y : y + height, x : x + width]
    pixels = [np.argwhere(crop.T) for crop in crops] + [np.zeros((0, 2))] * (4 - len(crops))
    assert runs.pixels.numpy().tolist() == [len(p) for p in pixels]
    most = max(map(len, pixels))
    number = np.minimum(np.arange(most), np.maximum(runs.pixels.numpy()[:, None] - 1, 0))
    found = prompts.locate(runs, tf.constant(number, tf.int64)).numpy()
    for of_mask, expected in zip(found, pixels, strict=True):
        np.testing.assert_array_equal(of_mask[: len(expected)], expected)


@given(windows())
def test_boxes_are_those_of_the_crop(case):
    drawn, window = case
    y, x, height, width = window
    expected = np.zeros((4, 4), int)
    for row, mask in zip(expected, drawn, strict=False):
        places = np.argwhere(mask[y : y + height, x : x + width])[:, ::-1]
        if len(places):
            row[:] = [*places.min(axis=0), *places.max(axis=0)]
    np.testing.assert_array_equal(prompts.boxes(shown(drawn, window)[0]), expected)


@given(strategies.masks())
@settings(max_examples=30)
def test_the_whole_image_needs_no_rank(drawn):
    runs, ends, size = shown(drawn, (0, 0, *drawn.shape[1:]))
    for a, b in zip(runs, prompts.shown(ends, ends.position, size[0], 4), strict=True):
        np.testing.assert_array_equal(a, b)


def test_points_are_uniform():
    """Chi-squared over 24 pixels of a mask with a hole, and all lie in it."""
    drawn = np.zeros((1, 7, 9), bool)
    drawn[0, 1:6, 2:7] = True
    drawn[0, 3, 4] = False
    runs, _, _ = shown(drawn, (0, 0, 7, 9))
    points = prompts.uniform_points(runs, 24_000, tf.constant([5, 6]))[0].numpy()
    assert drawn[0, points[:, 1], points[:, 0]].all()
    _, counts = np.unique(points, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # 23 degrees of freedom: p < 0.0001


@given(seeds)
@settings(max_examples=20)
def test_noise_is_at_most_a_tenth_and_twenty_pixels(seed):
    fields = config(image_size=1024)
    view = views.whole(tf.constant([1500, 2250]), fields)
    box = tf.constant([[10.0, 10, 20, 15], [100, 100, 900, 600], [0, 0, 1023, 682], [5, 5, 5, 5]])
    moved = prompts.noisy(box, view, fields, tf.constant([seed, 1])).numpy()
    limit = np.array([[1, 0.5] * 2, [20] * 4, [20] * 4, [0] * 4])
    assert (np.abs(moved - box) <= limit + 1e-3).all()
    assert (moved >= 0).all()
    assert (moved <= [1023, 682, 1023, 682]).all()
    assert (np.abs(moved - box)[1] > 0).all()


def test_to_model_is_sams_apply_coords():
    fields = config(image_size=1024)
    view = views.whole(tf.constant([1500, 2250]), fields)
    moved = prompts.to_model(tf.constant([[100.0, 200.0]]), view).numpy()
    np.testing.assert_allclose(moved, [[100 * (1024 / 2250), 200 * (683 / 1500)]], rtol=1e-6)
    mirrored = prompts.to_model(
        tf.constant([[100.0, 200.0]]), view._replace(flip=tf.constant(True))
    )
    np.testing.assert_allclose(mirrored[0, 0], (2249 - 100) * (1024 / 2250), rtol=1e-6)
