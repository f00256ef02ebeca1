import numpy as np

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


def test_paints_half_transparent_over_an_image():
    image = np.full((4, 4, 3), 100, np.uint8)
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :2] = True
    picture = overlay.paint_masks(masks, image)
    np.testing.assert_array_equal(picture[2:], image[2:])
    colour = overlay.paint_masks(masks)[0, 0].astype(int)
    np.testing.assert_array_equal(picture[0, 0], (100 + colour) // 2)
    np.testing.assert_array_equal(image, 100)


def test_only_the_pixels_of_masks_are_painted():
    rng = np.random.default_rng(0)
    masks = (rng.random((20, 15, 21)) < rng.random((20, 15, 1)) ** 4).astype(np.uint8)
    masks[3] = 0
    image = rng.integers(0, 256, (15, 21, 3), np.uint8)
    expected = image.astype(np.float32)
    for i in sorted(range(20), key=lambda i: -masks[i].sum()):
        inside = masks[i] != 0
        expected[inside] = 0.5 * expected[inside] + 0.5 * overlay.colours(range(20))[i]
    np.testing.assert_array_equal(overlay.paint_masks(masks, image), expected.astype(np.uint8))
    assert overlay.paint_masks(masks[:0], image).tolist() == image.tolist()
