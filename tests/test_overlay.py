import numpy as np
import pytest

from sa1b_tfds.masks import overlay


def test_smaller_masks_lie_on_top_in_colours_of_their_own():
    masks = np.zeros((3, 6, 8), np.uint8)
    masks[0, 2:4, 2:4] = 1  # inside of 1
    masks[1, 1:5, 1:6] = 1
    masks[2, 5, 7] = 1
    picture = overlay.paint_masks(masks)
    assert picture.dtype == np.uint8
    colours = [tuple(picture[2, 2]), tuple(picture[1, 1]), tuple(picture[5, 7])]
    assert len({*colours, (0, 0, 0)}) == 4
    for i, colour in enumerate(colours):
        inside = (masks[i] != 0) & ~((masks[0] != 0) & (i == 1))
        np.testing.assert_array_equal((picture == colour).all(axis=2), inside)


def test_masks_are_blended_once_and_have_outlines():
    image = np.full((8, 8, 3), 100, np.uint8)
    masks = np.zeros((3, 8, 8), bool)
    masks[0, :7, :7] = masks[1, :6, :6] = masks[2, :3, :3] = True  # each lies in the one before
    picture = overlay.paint_masks(masks, image)
    np.testing.assert_array_equal(picture[7], image[7])
    np.testing.assert_array_equal(image, 100)
    colours = overlay.colours(range(3)).astype(float)
    # However many lie over each other, 60 % of the image is left; outlines stand out.
    for (y, x), mask, opacity in (
        ((0, 0), 2, 0.4),
        ((2, 2), 2, 0.9),
        ((4, 4), 1, 0.4),
        ((3, 0), 1, 0.9),
        ((5, 5), 1, 0.9),
        ((6, 6), 0, 0.9),
    ):
        expected = 100 * (1 - opacity) + opacity * colours[mask]
        np.testing.assert_allclose(picture[y, x], expected, atol=1)


@pytest.mark.parametrize(("side", "width"), [(300, 1), (1200, 2), (2250, 4)])
def test_outlines_are_wider_on_larger_images(side, width):
    masks = np.zeros((1, 40, side), bool)
    masks[0, :, 20:-20] = True
    opacity = overlay.layer(masks)[20, :, 3]
    assert opacity.tolist() == [
        *[0] * 20,
        *[230] * width,
        *[102] * (side - 40 - 2 * width),
        *[230] * width,
        *[0] * 20,
    ]


def test_colours_are_chosen_by_numbers():
    masks = np.eye(5, dtype=bool)[:, None]
    some = overlay.paint_masks(masks[[3, 1]], numbers=[3, 1])
    every = overlay.paint_masks(masks)
    np.testing.assert_array_equal(some[0, [3, 1]], every[0, [3, 1]])


def test_no_masks_leave_the_image():
    image = np.random.default_rng(0).integers(0, 256, (15, 21, 3), np.uint8)
    assert overlay.paint_masks(np.zeros((0, 15, 21), bool), image).tolist() == image.tolist()
    assert overlay.paint_masks(np.zeros((4, 15, 21), bool), image).tolist() == image.tolist()
