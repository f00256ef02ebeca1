"""Pictures of masks: right masks, on right images, in the colours of their ids."""

import base64
import dataclasses
import functools
import importlib
import io
import json
import pathlib
import re
import shutil
import sys
import tarfile

import matplotlib
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from pycocotools import mask as coco_mask

import sa1b_tfds
from sa1b_tfds import show
from sa1b_tfds.cli.main import main
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples.parts import find_parts, read_examples
from sa1b_tfds.masks import overlay
from sa1b_tfds.show.charts import histogram
from sa1b_tfds.show.pictures import picture_of, take
from sa1b_tfds.stats import statistics_of
from sa1b_tfds.stats.collect import statistics_of_examples
from sa1b_tfds.torch import SA1BDataset, collate
from tests import building, strategies

matplotlib.use("Agg")
import matplotlib.pyplot as plt

pytestmark = pytest.mark.usefixtures("threads")

DUMMY = pathlib.Path(__file__).parents[1] / "dummy_data"
_CHROMIUM, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = [
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "window-size=1300,1000",
]
_EVIL = '"><script>document.title = "run"</script><img src=https://example.org/x.png>'


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    return building.write_tars(
        tmp_path_factory.mktemp("show"), images=3, height=60, width=90, shapes=12
    )


@pytest.fixture(scope="module")
def examples(tars):
    return list(read_examples(tars))


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def _dense(example) -> np.ndarray:
    """The masks, by pycocotools."""
    counts, size = example.masks
    return np.stack([coco_mask.decode({"size": size, "counts": c}) for c in counts])


def _painted(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one sees, pixel by pixel: the smallest mask there. -> (RGB, opacity of 0 to 1)."""
    colours, areas = overlay.colours(range(len(masks))), masks.sum(axis=(1, 2), dtype=int)
    top = np.full(masks.shape[1:], -1)
    for y, x in np.argwhere(masks.any(axis=0)):
        here = np.flatnonzero(masks[:, y, x])
        top[y, x] = here[areas[here] == areas[here].min()][-1]
    rgb = np.where(top[..., None] >= 0, colours[top], 0).astype(np.uint8)
    opacity = np.where(top >= 0, 0.4, 0.0)
    padded = np.pad(top, 1, mode="edge")
    for y, x in np.argwhere(top >= 0):
        beside = padded[[y, y + 2, y + 1, y + 1], [x + 1, x + 1, x, x + 2]]
        if (beside != top[y, x]).any():
            opacity[y, x] = 0.9  # an outline
    return rgb, opacity


def _over(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    rgb, opacity = _painted(masks)
    return image * (1 - opacity[..., None]) + rgb * opacity[..., None]


@pytest.mark.parametrize("first", [0, 1, 333_101_000, 2**62, -7])
def test_colours_belong_to_ids_and_differ(first):
    ids = first + np.arange(500)
    colours = overlay.colours(ids)
    assert len(np.unique(colours, axis=0)) == 500
    assert colours.max(axis=1).min() >= 100  # none is black
    np.testing.assert_array_equal(overlay.colours(ids[::-7]), colours[::-7])
    # Neighbours, such as the masks of one image have them, are far apart.
    apart = np.abs(np.diff(colours.astype(int), axis=0)).sum(axis=1)
    assert apart.min() > 100


class TestAxes:
    def test_a_mask_is_laid_over(self, ax):
        mask = np.eye(4, 6, dtype=bool)
        for given in (mask, mask[None].astype(np.float32), mask.astype(np.uint8)):
            show.show_mask(given, ax)
            layer = ax.get_images()[-1].get_array()
            np.testing.assert_array_equal(layer[..., 3] != 0, mask)
            assert {tuple(pixel) for pixel in layer[mask]} == {(30, 144, 255, 153)}
        show.show_mask(mask, ax, random_color=True)
        layer = ax.get_images()[-1].get_array()
        np.testing.assert_array_equal(layer[..., 3] != 0, mask)
        assert len({tuple(pixel) for pixel in layer[mask]}) == 1

    def test_all_masks_of_an_image(self, ax, examples):
        image, masks = np.full((60, 90, 3), 100, np.uint8), _dense(examples[0])
        assert show.show_masks_on_image(image, list(masks.astype(bool)), ax) is ax
        shown = ax.get_images()[-1].get_array()
        np.testing.assert_allclose(shown, _over(image, masks), atol=1)
        np.testing.assert_array_equal(shown[~masks.any(axis=0)], 100)
        show.show_masks_on_image(image, masks[2:], ax, numbers=range(2, len(masks)))
        shown = ax.get_images()[-1].get_array()
        only = masks[2].astype(bool) & (masks[:2].sum(axis=0) + masks[3:].sum(axis=0) == 0)
        np.testing.assert_allclose(shown[only], _over(image, masks)[only], atol=1)
        assert show.show_masks_on_image(image, []) is plt.gca()
        np.testing.assert_array_equal(plt.gca().get_images()[-1].get_array(), image)

    def test_a_box_and_points(self, ax):
        show.show_box([10, 20, 40, 60], ax)
        assert ax.patches[0].get_bbox().extents.tolist() == [10, 20, 40, 60]
        show.show_points([[1, 2], [3, 4], [5, 6], [0, 0]], [1, 0, 1, -1], ax)
        inside, outside = (stars.get_offsets().tolist() for stars in ax.collections)
        assert (inside, outside) == ([[1, 2], [5, 6]], [[3, 4]])

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda ax: show.show_mask(np.ones((2, 3, 4)), ax), r"one mask \[H, W\].*\[2, 3, 4\]"),
            (
                lambda ax: show.show_masks_on_image(np.ones((3, 4, 3)), np.ones((2, 4, 3)), ax),
                r"of the image's size, got \[2, 4, 3\] for an image of the shape \[3, 4, 3\]",
            ),
            (lambda ax: show.show_points([[1, 2]], [1, 0], ax), "got 1 point and 2 labels"),
            (lambda ax: show.contact_sheet([]), "no image to draw"),
            (
                lambda ax: show.make_page([], statistics={"images": 3}),
                r"not statistics of `sa1b stats --json`: KeyError\('masks'\)",
            ),
            (lambda ax: histogram("areas", [1, 2], [0, 1]), "2 counts need one edge more"),
        ],
    )
    def test_refused(self, ax, call, message):
        with pytest.raises(ValueError, match=message):
            call(ax)

    def test_without_matplotlib_the_extra_is_named(self, ax, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.patches", None)
        with pytest.raises(ImportError, match=r"pip install 'sa1b_tfds\[show\]'"):
            show.show_box([0, 0, 1, 1], ax)


@pytest.mark.parametrize("long_side", [480, 45, 7])
def test_a_picture_is_small_and_its_masks_are_pycocotools(examples, long_side):
    for example in examples:
        picture = picture_of(example, long_side)
        assert max(picture.image.shape) == min(long_side, 90)
        expected = strategies.sample(_dense(example), picture.image.shape[:2])
        np.testing.assert_array_equal(picture.masks, expected)
        if long_side == 480:
            np.testing.assert_allclose(picture.painted(), _over(picture.image, expected), atol=1)


@pytest.mark.parametrize("form", building.FORMS)
def test_examples_are_taken_from_all_tars_in_turns(tars, examples, form):
    parts = find_parts(building.FORMS[form](tars))
    by_part = [[e.image_id for e in examples[:3]], [e.image_id for e in examples[3:]]]
    in_turns = [image_id for pair in zip(*by_part, strict=True) for image_id in pair]
    for n in (1, 2, 5, 6, 99):
        taken = [example.image_id for example in take(parts, n, Problems())]
        assert taken == in_turns[:n]


def test_contact_sheet(examples):
    sheet = show.contact_sheet(examples[:5], columns=3, side=90)
    assert sheet.shape == (8 + 2 * (90 + 16 + 8), 8 + 3 * (90 + 8), 3)
    for number, example in enumerate(examples[:5]):
        y, x = 8 + number // 3 * 114 + 15, 8 + number % 3 * 98
        np.testing.assert_array_equal(
            sheet[y : y + 60, x : x + 90], picture_of(example, 90).painted()
        )
        caption = sheet[y + 77 : y + 90, x : x + 90]
        assert caption.min() < 100 < caption.max()


class TestPage:
    def test_right_masks_on_right_images(self, examples):
        figures = _figures(show.make_page(examples))
        assert len(figures) == len(examples)
        originals = np.stack([Image.open(io.BytesIO(e.image)) for e in examples]).astype(int)
        for number, (image, layer, text) in enumerate(figures):
            example = examples[number]
            errors = np.abs(originals - image).mean(axis=(1, 2, 3))
            assert errors.argmin() == number
            assert errors[number] < 8  # JPEG twice
            _assert_is_layer(layer, example)
            assert example.file_name in text
            columns = example.annotations
            rows = re.findall(r"#(\w{6})\"></i>(\d+)</td><td>([\d,]+)</td><td>([\d.]+)<", text)
            assert [row[0] for row in rows] == [
                bytes(c).hex() for c in overlay.colours(range(len(columns["id"])))
            ]
            assert [int(row[1]) for row in rows] == columns["id"].tolist()
            assert [int(row[2].replace(",", "")) for row in rows] == columns["area"].tolist()
            ious = [float(row[3]) for row in rows]
            np.testing.assert_allclose(ious, columns["predicted_iou"], atol=5e-4)

    def test_text_from_the_source_is_escaped_and_nothing_is_loaded(self, examples):
        page = show.make_page([dataclasses.replace(examples[0], file_name=_EVIL)], title=_EVIL)
        assert "<script" not in page
        assert page.count("&lt;script&gt;") == 4
        assert "default-src 'none'" in page
        assert not re.findall(r"<(?:link|iframe|object|script)|src=\"(?!data:image/)|url\(", page)

    def test_the_statistics(self, tars, examples):
        statistics = statistics_of(tars, workers=1).as_dict()
        page = show.make_page([], statistics=statistics)
        masks = sum(len(_dense(example)) for example in examples)
        kilobytes = sum(len(example.image) for example in examples) / 1000
        assert f"of 6 images: {masks} masks,\n{kilobytes:.1f} kB of JPEG, in 2 parts" in page
        ious = np.concatenate([e.annotations["predicted_iou"] for e in examples])
        (chart,) = re.findall(r'<figure class="chart"><figcaption>predicted IoU.*?</figure>', page)
        caption = re.search(r"<small>(.*)</small>", chart)[1]
        found = [float(number) for number in re.findall(r"\d\.\d+|\d", caption)]
        np.testing.assert_allclose(found, np.quantile(ious, [0.5, 0.05, 0.95, 0, 1]), atol=0.01)
        charts = re.findall(r'<figure class="chart">.*?</figure>', page)
        counted = [sum(map(int, re.findall(r": (\d+)</title>", chart))) for chart in charts]
        assert counted[-3:] == [masks] * 3
        tallest = [max(map(float, re.findall(r'height="([\d.]+)"', chart))) for chart in charts]
        assert set(tallest) == {90.0}
        # All images have one size: a number, and no chart of one bar.
        assert '<p class="chart">short side in pixels: <b>60</b>, all of them</p>' in page
        assert '<p class="chart">long side in pixels: <b>90</b>, all of them</p>' in page
        assert "no duplicates, no anomalies" in page

    def test_what_is_wrong_is_counted(self, examples):
        box = examples[0].annotations | {"area": examples[0].annotations["area"] + 1}
        wrong = statistics_of_examples("part", [dataclasses.replace(examples[0], annotations=box)])
        page = show.make_page([], statistics=wrong.as_dict())
        what = "&#x27;area&#x27; is not the number of pixels in the mask"
        n, first = len(box["area"]), int(np.argmin(box["id"]))
        case = f"area {box['area'][first]}, mask {box['area'][first] - 1}"
        where = f"the first is in image {examples[0].image_id}, {case}"
        assert f"<li>{n} of {n} masks (100 %): {what}; {where}</li>" in page

    @pytest.mark.skipif(not (_CHROMIUM and _DRIVER), reason="no chromium with chromedriver here")
    def test_in_a_browser(self, examples, tmp_path):
        from selenium import webdriver
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By

        evil = [dataclasses.replace(examples[0], file_name=_EVIL), *examples[1:]]
        path = tmp_path / "page.html"
        path.write_text(show.make_page(evil, title="mine"))
        options = webdriver.ChromeOptions()
        options.binary_location = _CHROMIUM
        for flag in _FLAGS:
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
        with webdriver.Chrome(options=options, service=webdriver.ChromeService(_DRIVER)) as browser:
            browser.get(path.as_uri())
            assert browser.title == "mine"
            assert not browser.find_elements(By.TAG_NAME, "script")
            boxes = browser.find_elements(By.CLASS_NAME, "picture")
            assert len(boxes) == len(examples)

            def screenshot(number: int) -> np.ndarray:
                shot = Image.open(io.BytesIO(boxes[number].screenshot_as_png)).convert("RGB")
                return np.asarray(shot.resize((90, 60), Image.Resampling.BOX)).astype(int)

            masked = [screenshot(number) for number in range(len(boxes))]
            toggle = browser.find_element(By.ID, "masks")
            toggle.click()
            plain = [screenshot(number) for number in range(len(boxes))]
            for number, example in enumerate(examples):
                _assert_shows(masked[number], plain[number], example)
            ActionChains(browser).move_to_element(boxes[1]).perform()
            np.testing.assert_array_equal(screenshot(1), masked[1])  # the other way round
            np.testing.assert_array_equal(screenshot(2), plain[2])  # only where it points
            toggle.click()
            np.testing.assert_array_equal(screenshot(3), masked[3])
            for width in (420, 1300):
                browser.set_window_size(width, 1000)
                page = browser.find_element(By.TAG_NAME, "html")
                assert page.get_property("scrollWidth") <= page.get_property("clientWidth")
            tall = building.write_tars(tmp_path / "tall", tars=1, images=1, height=90, width=60)
            path.write_text(show.make_page([*read_examples(tall), *examples]))
            browser.get(path.as_uri())
            first, second, third, *_ = browser.find_elements(By.CLASS_NAME, "picture")
            # Images of several shapes in a row are equally high: no gap below any.
            assert first.rect["y"] == second.rect["y"] == third.rect["y"]
            assert first.rect["height"] == pytest.approx(second.rect["height"], abs=1)
            assert browser.get_log("browser") == []


def _figures(page: str) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """(image [h, w, 3] int, layer [h, w, 4], the figure's HTML) of each figure on a page."""
    found = []
    for figure in re.findall(r'<figure class="image".*?</figure>', page, re.DOTALL):
        image, layer = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            for data in re.findall(r"base64,([\w+/=]+)", figure)
        )
        found.append((image.astype(int), layer, figure))
    return found


def _assert_shows(shot: np.ndarray, plain: np.ndarray, example: dict) -> None:
    """Where the masks are, their colours are mixed in; elsewhere nothing changed."""
    rgb, opacity = _painted(_dense(example))
    # Away from borders and edges, where scaling to the screen and back mixes pixels.
    flat = np.pad(np.ones(np.subtract(opacity.shape, 2), bool), 1)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        flat &= np.roll(opacity, step, axis) == opacity
        flat &= (np.roll(rgb, step, axis) == rgb).all(axis=2)
    covered = opacity > 0
    expected = _over(plain, _dense(example))
    assert (flat & covered).sum() > 100
    np.testing.assert_allclose(shot[flat & covered], expected[flat & covered], atol=15)
    np.testing.assert_allclose(shot[flat & ~covered], plain[flat & ~covered], atol=15)


def _assert_is_layer(layer: np.ndarray, example: dict) -> None:
    rgb, opacity = _painted(_dense(example))
    np.testing.assert_array_equal(layer[..., 3], np.round(255 * opacity))
    np.testing.assert_array_equal(layer[..., :3], rgb)


@pytest.fixture(scope="module")
def batch_of(tars):
    """(options of TrainingConfig) -> the first batch of the tars, made once."""
    skip = tfds.decode.SkipDecoding()
    source = sa1b_tfds.read_tars(tars, decoders={"image": skip, "masks": skip}, num_workers=1)

    @functools.cache
    def batch_of(**options):
        sizes = {"batch_size": 3, "image_size": 64, "mask_size": 64, "masks_per_image": 5}
        # Of smaller masks the grid may show no pixel; some layouts leave those out.
        options = {**sizes, "shuffle": 0, "box_noise": 0.0, "min_area": 40, **options}
        return next(iter(sa1b_tfds.training_dataset(source, sa1b_tfds.TrainingConfig(**options))))

    return batch_of


class TestBatch:
    def _cells(self, picture) -> np.ndarray:
        """[B, 64, 64, 3] of a picture with one row."""
        sheet = np.asarray(picture)
        return np.stack([sheet[8:72, 8 + 72 * i : 72 + 72 * i] for i in range(3)]).astype(int)

    def test_images_masks_boxes_and_points(self, batch_of):
        batch = tfds.as_numpy(batch_of(normalise=None, image_dtype="uint8"))
        picture = show.show_batch(batch, columns=3, side=64)
        assert picture.size == (8 + 3 * 72, 80)
        colours = overlay.colours(range(5)).astype(int)
        for i, cell in enumerate(self._cells(picture)):
            masks = batch["masks"][i][batch["mask_valid"][i]]
            plain = _over(batch["image"][i], masks)
            drawn = np.abs(cell - plain).max(axis=2) > 1
            prompts = np.zeros((64, 64), bool)
            for k, (x0, y0, x1, y1) in enumerate(batch["boxes"][i][: len(masks)]):
                if min(y1 - y0, x1 - x0) > 10:  # the box's own colour is seen on one of its sides
                    left, right = (cell[int(y0) : int(y1), round(x)] for x in (x0, min(x1, 63)))
                    sides = np.concatenate([left, right])
                    assert (np.abs(sides - colours[k]).max(axis=1) < 2).any()
                y0, x0 = int(y0) - 2, int(x0) - 2
                y1, x1 = int(y1) + 3, int(x1) + 3
                frame = np.zeros_like(prompts)
                frame[max(y0, 0) : y1, max(x0, 0) : x1] = True
                frame[max(y0 + 4, 0) : y1 - 4, max(x0 + 4, 0) : x1 - 4] = False
                prompts |= frame
            for x, y in batch["points"][i][: len(masks)].reshape(-1, 2):
                x, y = int(x), int(y)
                prompts[max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6] = True
            assert drawn.any()
            assert not (drawn & ~prompts).any()  # nothing but boxes and points is added

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"image_dtype": "bfloat16"},
            {"normalise": None},
            {"layout": "keras_hub"},
            {"layout": "transformers"},
            {"masks_as": "runs"},
            {"masks_as": "runs", "layout": "keras_hub"},
        ],
        ids=str,
    )
    def test_layouts_give_the_same_picture(self, batch_of, options):
        expected = batch_of(normalise=None, image_dtype="uint8")
        resized = expected["resized_size"].numpy()
        expected = self._cells(show.show_batch(expected, columns=3, side=64))
        size = 64 if "masks_as" in options else None
        picture = show.show_batch(batch_of(**options), columns=3, side=64, mask_size=size)
        atol = 3 if "image_dtype" in options else 1
        for cell, other, (height, width) in zip(
            self._cells(picture), expected, resized, strict=True
        ):
            # The padding is black or of ImageNet's mean.
            np.testing.assert_allclose(cell[:height, :width], other[:height, :width], atol=atol)

    @pytest.mark.parametrize("prompts", ["points", "boxes"])
    def test_one_mask_an_image_and_one_kind_of_prompt(self, batch_of, prompts):
        options = {"layout": "keras_hub", "masks_per_image": 1, "prompts": prompts}
        both = batch_of(**{**options, "prompts": "both"})
        one, two = (
            self._cells(show.show_batch(batch, columns=3, side=64))
            for batch in (batch_of(**options), both)
        )
        assert (one != two).any()
        bare = show.show_batch(batch_of(layout="sam2", masks_per_image=1), 3, 64)
        assert (self._cells(bare) != one).any()

    def test_sam2_shows_each_mask_on_its_image(self, batch_of):
        batch = tfds.as_numpy(batch_of(layout="sam2"))
        cells = self._cells(show.show_batch(batch, columns=3, side=64))
        raw = tfds.as_numpy(batch_of(normalise=None, image_dtype="uint8"))
        for i, cell in enumerate(cells):
            masks = raw["masks"][i][raw["mask_valid"][i] & (raw["masks"][i].max(axis=(1, 2)) > 0)]
            height, width = raw["resized_size"][i]
            expected = _over(raw["image"][i], masks)[:height, :width]
            np.testing.assert_allclose(cell[:height, :width], expected, atol=2)

    def test_images_as_they_are_stored(self, tars):
        item = SA1BDataset(tars)[0]
        pixels, masks = item[0].numpy().transpose(1, 2, 0), item[1].numpy()
        height, width = pixels.shape[:2]
        assert height < width
        cell = np.asarray(show.show_batch(item, side=width))[8:, 8:]
        outside = {"bbox": np.asarray(item[2]["bbox"]) * 0 - np.float32([99, 99, 0, 0])}
        outside["point_coords"] = item[2]["point_coords"] * 0 - 99
        bare = np.asarray(show.show_batch((*item[:2], outside), side=width))[8:, 8:]
        np.testing.assert_allclose(bare[:height, :width], _over(pixels, masks), atol=1)
        assert (bare[height:-8, :width] == 255).all()
        assert (bare != cell).any()

        element = next(iter(sa1b_tfds.read_tars(tars)))
        drawn = np.asarray(show.show_batch(element, side=width))[8:, 8:]
        # TensorFlow decodes a little differently, and a box's side may fall on the next pixel.
        assert (np.abs(drawn.astype(int) - cell) > 8).mean() < 0.1

    @pytest.mark.parametrize("masks", [None, sa1b_tfds.decode_masks_to(size=(64, 64))])
    def test_the_padding_of_a_batch_is_not_drawn(self, masks):
        """Images of seven sizes, with 0 to 60 masks."""
        elements = sa1b_tfds.read_tars(DUMMY, decoders=masks and {"masks": masks})
        assert len({tuple(element["image"].shape) for element in elements}) == 7
        alone = [np.asarray(show.show_batch(element, side=160)) for element in elements]
        (batch,) = elements.padded_batch(8)
        grid = np.asarray(show.show_batch(batch, columns=1, side=160))
        np.testing.assert_array_equal(grid[8:], np.concatenate([one[8:] for one in alone]))
        (first,) = elements.take(1).batch(1)
        np.testing.assert_array_equal(np.asarray(show.show_batch(first, side=160)), alone[0])

    def test_a_black_image_of_a_batch_stays_whole(self):
        two = {
            "image": np.zeros((2, 4, 6, 3), np.uint8),
            "masks": np.zeros((2, 0, 4, 6), np.uint8),
            "annotations": {"bbox": np.zeros((2, 0, 4)), "point_coords": np.zeros((2, 0, 2))},
        }
        assert not np.asarray(show.show_batch(two, side=60))[8:48, 8:68].any()

    def test_a_batch_of_a_data_loader(self, tars):
        dataset = SA1BDataset(tars)
        two = np.asarray(show.show_batch(collate([dataset[0], dataset[1]])))
        first = np.asarray(show.show_batch(dataset[0]))
        np.testing.assert_array_equal(two[: first.shape[0], : first.shape[1]], first)

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            ({"annotations": {}, "masks": {"counts": 1}, "image": np.zeros(3)}, "not decoded"),
            ([1, 2, 3], "must be a dict or a pair of dicts"),
            ({"x": np.zeros(3)}, r"not a training batch: its keys are \['x'\]"),
            (
                {
                    "image": np.zeros((1, 8, 8, 3)),
                    "mask_valid": np.ones((1, 1)),
                    "runs": np.zeros((1, 2)),
                },
                "pass the config's mask_size",
            ),
        ],
    )
    def test_another_batch_is_refused(self, batch, message):
        with pytest.raises(ValueError, match=message):
            show.show_batch(batch)


class TestCommand:
    def test_what_no_batch_can_be_made_of_is_one_line(self, tmp_path, capsys):
        tars, data = tmp_path / "tars", tmp_path / "data"
        building.write_tars(tars, tars=1)
        assert main(["build", str(tars), "--data-dir", str(data), "--workers", "1"]) == 0
        (shard,) = data.glob("*/*/*/*-train.tfrecord-*")
        shard.write_bytes(shard.read_bytes()[:-1])
        path = tars / "sa_000000.tar"
        path.write_bytes(path.read_bytes().replace(b'"area"', b'"aera"', 1))
        capsys.readouterr()
        for source, reason in (
            (tars, r"sa_000000\.tar: \S+\.json: annotation 0 lacks the field 'area'"),
            (data, r"(truncated|corrupted) record at .*"),
        ):
            assert main(["show", str(source), "--batch", "--out", str(tmp_path / "b.png")]) == 1
            assert re.fullmatch(f"sa1b show: {reason}\n", capsys.readouterr().err)

    def test_a_training_batch(self, tars, builder, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["show", str(tars), "--batch", "--n", "2"]) == 0
        assert main(["show", str(builder.data_path), "--batch", "--out", "b.png"]) == 0
        assert capsys.readouterr().out == "2 images in batch.png\n4 images in b.png\n"
        assert Image.open("batch.png").size == (8 + 2 * 648, 8 + 648)
        assert Image.open("b.png").size == (8 + 2 * 648, 8 + 2 * 648)
        with pytest.raises(SystemExit, match="2"):
            main(["show", str(tars), "--batch", "--out", "b.html"])
        assert "--out must end in .png" in capsys.readouterr().err

    def test_the_page_has_a_name_by_itself_and_is_opened(self, tars, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        opened = []
        monkeypatch.setattr("webbrowser.open", opened.append)
        assert main(["show", str(tars), "--open"]) == 0
        assert opened == [(tmp_path / "sa1b.html").as_uri()]
        assert capsys.readouterr().out == "6 images in sa1b.html\n"
        assert "<h1>SA-1B sample: 6 images, " in (tmp_path / "sa1b.html").read_text()

    @pytest.mark.parametrize("arguments", [(), ("--n", "4")])
    def test_page(self, tars, tmp_path, capsys, arguments):
        out = tmp_path / "new" / "page.html"
        assert main(["show", str(tars), "--out", str(out), *arguments]) == 0
        n = 4 if arguments else 6
        assert capsys.readouterr().out == f"{n} images in {out}; --open opens it in the browser\n"
        assert len(_figures(out.read_text())) == n
        assert "Statistics of 6 images" in out.read_text()
        assert [path.name for path in out.parent.iterdir()] == ["page.html"]

    def test_statistics_that_were_made_before(self, tars, tmp_path, capsys):
        before, out = tmp_path / "stats.json", tmp_path / "page.html"
        one = str(tars / "sa_000000.tar")
        assert main(["stats", one, "--json", str(before)]) == 0
        command = ["show", str(tars), "--out", str(out), "--stats", str(before)]
        assert main(command) == 0
        assert "Statistics of 3 images" in out.read_text()
        before.write_text("{")
        assert main(command) == 1
        assert "stats.json is damaged (it is not JSON" in capsys.readouterr().err

    @pytest.mark.parametrize("form", ["plain", "gzip"])
    def test_sheet(self, tars, examples, tmp_path, form):
        tar = building.FORMS[form](tars) / "sa_000001.tar"
        out = tmp_path / "sheet.png"
        assert main(["show", str(tar), "--out", str(out)]) == 0
        np.testing.assert_array_equal(np.asarray(Image.open(out)), show.contact_sheet(examples[3:]))

    def test_what_is_left_out_is_named(self, tmp_path, capsys):
        tars = building.write_tars(tmp_path / "tars", tars=1)
        path = tars / "sa_000000.tar"
        path.write_bytes(path.read_bytes().replace(b'"area"', b'"aera"', 1))
        out = tmp_path / "page.html"
        assert main(["show", str(tars), "--out", str(out)]) == 0
        reason = r"left out: sa_000000.tar: .*json: annotation 0 lacks the field 'area'"
        assert re.match(reason, capsys.readouterr().err)
        assert '<a class="problems" href="#left-out">' in (page := out.read_text())
        assert '<h2 id="left-out">Left out</h2>' in page
        assert len(_figures(page)) == 3

    def test_an_image_that_breaks_late_is_left_out(self, tmp_path, capsys):
        """Reading it checks its first rows only."""
        data, content = building.make.draw(1, 500, 700, 3)
        out = io.BytesIO()
        Image.open(io.BytesIO(data)).save(out, "JPEG", progressive=True)
        broken = bytearray(out.getvalue())
        table = broken.rindex(b"\xff\xc4")  # of the last scan
        broken[table + 5 : table + 10] = b"\xff" * 5
        files = {"sa_1.jpg": bytes(broken), "sa_1.json": json.dumps(content).encode()}
        building.make.write_tar(tmp_path / "sa_000000.tar", files | building.make.files_of(2))
        out = tmp_path / "page.html"
        assert main(["show", str(tmp_path), "--out", str(out)]) == 0
        assert capsys.readouterr().err.startswith("left out: sa_000000.tar: sa_1.jpg: the JPEG")
        assert len(_figures(out.read_text())) == 1

    def test_nothing_to_show(self, tmp_path, capsys):
        with tarfile.open(tmp_path / "sa_000000.tar", "w"):
            pass
        out = tmp_path / "page.html"
        assert main(["show", str(tmp_path / "sa_000000.tar"), "--out", str(out)]) == 1
        assert "holds no image that can be shown" in capsys.readouterr().err
        assert not out.exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--out", "page.txt"], "'page.txt' ends neither in .html nor in .png"),
            (["--out", "page.html", "--n", "0"], "'0' is not a positive number"),
            (["--out", "a.png", "--stats", "s.json"], "--stats is for a page, and a.png is a pict"),
            (["--batch", "--stats", "s.json"], "--stats is for a page, and batch.png is a picture"),
        ],
    )
    def test_options_that_make_no_sense(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit, match="2"):
            main(["show", str(tmp_path), *arguments])
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def builder(tars, tmp_path_factory):
    return building.prepare(tars, tmp_path_factory.mktemp("data"))


class TestTfds:
    @pytest.mark.parametrize("masks", ["full", "small", "rle", "supervised"])
    def test_show_examples_draws_the_masks(self, builder, examples, masks):
        decoder = {
            "small": {"masks": sa1b_tfds.decode_masks_to(size=(30, 45), max_masks=2)},
            "rle": {"masks": tfds.decode.SkipDecoding()},
        }.get(masks)
        supervised = masks == "supervised"
        dataset = builder.as_dataset(split="train", decoders=decoder, as_supervised=supervised)
        figure = tfds.show_examples(dataset, builder.info, rows=2, cols=4)
        shown = [ax.get_images()[0].get_array() for ax in figure.axes[:6]]
        assert not any(ax.get_images() for ax in figure.axes[6:])
        by_id = {example.image_id: example for example in examples}
        order = [int(e["image_id"]) for e in tfds.as_numpy(builder.as_dataset(split="train"))]
        for picture, image_id in zip(shown, order, strict=True):
            dense = _dense(by_id[image_id])
            if masks == "small":
                dense = strategies.sample(strategies.sample(dense[:2], (30, 45)), (60, 90))
            image = np.asarray(Image.open(io.BytesIO(by_id[image_id].image))).astype(int)
            assert np.abs(picture - _over(image, dense)).mean() < 4  # another JPEG decoder
        plt.close(figure)

    def test_show_examples_draws_no_more_pixels_than_it_shows(self, builder):
        dataset = builder.as_dataset(split="train")
        figure = tfds.show_examples(dataset, builder.info, rows=1, cols=2, plot_scale=0.2)
        shapes = [ax.get_images()[0].get_array().shape for ax in figure.axes]
        assert shapes == [(27, 40, 3)] * 2  # 0.2 inches, of images of 60 x 90
        plt.close(figure)

    def test_show_examples_holds_no_example_but_the_one_it_draws(self, builder):
        tfds_show = importlib.import_module("tensorflow_datasets.core.visualization.show_examples")
        dataset = builder.as_dataset(split="train")
        assert tfds_show._to_tf_dataset(dataset, 9) is dataset
        batches = dataset.batch(1)
        singles = tfds_show._to_tf_dataset(batches, 2, is_batched=True)
        assert len(list(singles)) == 2

    def test_prepared_data_is_a_source(self, builder, examples, tmp_path):
        data_dir = builder.data_path.parents[2]
        pages = []
        for number, source in enumerate(
            ([str(data_dir), "--config", "original"], [str(builder.data_path)])
        ):
            out = tmp_path / f"{number}.html"
            assert main(["show", *source, "--out", str(out)]) == 0
            pages.append(_figures(out.read_text()))
        by_name = {example.file_name: example for example in examples}
        for figures in pages:
            assert len(figures) == len(examples)
            for _, layer, text in figures:
                example = by_name[re.search(r"<b>(.*?)</b>", text)[1]]
                _assert_is_layer(layer, example)

    def test_as_dataframe_shows_the_masks(self, builder):
        frame = tfds.as_dataframe(builder.as_dataset(split="train[:2]"), builder.info)
        for data, masks in zip(
            re.findall(r"base64,([\w+/=]+)", frame._repr_html_())[1::2], frame["masks"], strict=True
        ):
            picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            np.testing.assert_array_equal(picture.any(axis=2), masks.any(axis=0))
