"""Pictures of masks: right masks, on right images, in the colours of their ids."""

import base64
import dataclasses
import importlib
import io
import json
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
from sa1b_tfds.stats.statistics import statistics_of_example
from tests import building, strategies

matplotlib.use("Agg")
import matplotlib.pyplot as plt

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


def _painted(masks: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What lies on top at each pixel, pixel by pixel: the smallest mask. -> (RGB, covered)."""
    colours, areas = overlay.colours(ids), masks.sum(axis=(1, 2))
    rgb = np.zeros((*masks.shape[1:], 3), np.uint8)
    for y, x in np.argwhere(masks.any(axis=0)):
        here = np.flatnonzero(masks[:, y, x])
        smallest = here[areas[here] == areas[here].min()][-1]
        rgb[y, x] = colours[smallest]
    return rgb, masks.any(axis=0)


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
        ids = examples[0].annotations["id"]
        rgb, covered = _painted(masks, ids)
        assert show.show_masks_on_image(image, list(masks.astype(bool)), ax, ids) is ax
        shown = ax.get_images()[-1].get_array()
        np.testing.assert_array_equal(shown[~covered], image[~covered])
        np.testing.assert_array_equal(shown[covered], (100 + rgb[covered].astype(int)) // 2)
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
            (lambda ax: show.show_points([[1, 2]], [1, 0], ax), "1 points but 2 labels"),
            (lambda ax: show.contact_sheet([]), "no image to draw"),
            (
                lambda ax: show.make_page([], statistics={"images": 3}),
                r"no statistics of `sa1b stats --json`: KeyError\('distributions'\)",
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
        rgb, covered = _painted(expected, example.annotations["id"])
        np.testing.assert_array_equal(picture.layer()[..., 3], 255 * covered)
        np.testing.assert_array_equal(picture.layer()[..., :3], rgb)


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
            rgb, covered = _painted(_dense(example), example.annotations["id"])
            np.testing.assert_array_equal(layer[..., 3], 255 * covered)
            np.testing.assert_array_equal(layer[..., :3], rgb)
            assert example.file_name in text
            columns = example.annotations
            rows = re.findall(r"#(\w{6})\"></i>(\d+)</td><td>([\d,]+)</td><td>([\d.]+)<", text)
            assert [row[0] for row in rows] == [
                bytes(c).hex() for c in overlay.colours(columns["id"])
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
        assert "All 6 images of 2 parts" in page
        assert f"{masks} masks" in page
        ious = np.concatenate([e.annotations["predicted_iou"] for e in examples])
        row = re.search(r"<td>predicted IoU</td>(.*)</tr>", page)[1]
        found = [float(cell) for cell in re.findall(r"<td>([^<]*)</td>", row)]
        quantiles = np.quantile(ious, [0, 0.05, 0.5, 0.95, 1])
        np.testing.assert_allclose(found, [*quantiles, ious.mean()], atol=0.01)
        charts = re.findall(r'<figure class="chart">.*?</figure>', page)
        counted = [sum(map(int, re.findall(r": (\d+)</title>", chart))) for chart in charts]
        assert counted == [6, masks, masks, masks, 6, 6]
        tallest = [max(map(float, re.findall(r'height="([\d.]+)"', chart))) for chart in charts]
        assert set(tallest) == {90.0}
        assert "No duplicates, no anomalies" in page

    def test_what_is_wrong_is_counted(self, examples):
        box = examples[0].annotations | {"area": examples[0].annotations["area"] + 1}
        wrong = statistics_of_example("part", dataclasses.replace(examples[0], annotations=box))
        page = show.make_page([], statistics=wrong.as_dict())
        what = "&#x27;area&#x27; is not the number of pixels in the mask"
        assert f"<li>{len(box['area'])}: {what}</li>" in page

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

            plain = [screenshot(number) for number in range(len(boxes))]
            ActionChains(browser).move_to_element(boxes[1]).perform()
            _assert_shows(screenshot(1), plain[1], examples[1])
            np.testing.assert_array_equal(screenshot(2), plain[2])  # only where it points
            toggle = browser.find_element(By.ID, "all")
            toggle.click()
            for number, example in enumerate(examples):
                _assert_shows(screenshot(number), plain[number], example)
            toggle.click()
            np.testing.assert_array_equal(screenshot(3), plain[3])
            assert browser.get_log("browser") == []


def _figures(page: str) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """(image [h, w, 3] int, layer [h, w, 4], the figure's HTML) of each figure on a page."""
    found = []
    for figure in re.findall(r'<figure class="image">.*?</figure>', page, re.DOTALL):
        image, layer = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            for data in re.findall(r"base64,([\w+/=]+)", figure)
        )
        found.append((image.astype(int), layer, figure))
    return found


def _assert_shows(shot: np.ndarray, plain: np.ndarray, example: dict) -> None:
    """Where the masks are, their colours are mixed in; elsewhere nothing changed."""
    rgb, covered = _painted(_dense(example), example.annotations["id"])
    # Away from borders, where scaling to the screen and back mixes pixels.
    flat = np.ones_like(covered)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        flat &= (np.roll(rgb, step, axis) == rgb).all(axis=2)
    expected = 0.45 * plain + 0.55 * rgb
    assert (flat & covered).sum() > 200
    np.testing.assert_allclose(shot[flat & covered], expected[flat & covered], atol=6)
    np.testing.assert_allclose(shot[flat & ~covered], plain[flat & ~covered], atol=6)


class TestCommand:
    @pytest.mark.parametrize("arguments", [(), ("--n", "4")])
    def test_page(self, tars, tmp_path, capsys, arguments):
        out = tmp_path / "new" / "page.html"
        assert main(["show", str(tars), "--out", str(out), *arguments]) == 0
        n = 4 if arguments else 6
        assert capsys.readouterr().out == f"{n} images in {out}\n"
        assert len(_figures(out.read_text())) == n
        assert "All 6 images of 2 parts" in out.read_text()
        assert [path.name for path in out.parent.iterdir()] == ["page.html"]

    def test_statistics_that_were_made_before(self, tars, tmp_path, capsys):
        before, out = tmp_path / "stats.json", tmp_path / "page.html"
        one = str(tars / "sa_000000.tar")
        assert main(["stats", one, "--json", str(before)]) == 0
        command = ["show", str(tars), "--out", str(out), "--stats", str(before)]
        assert main(command) == 0
        assert "All 3 images of 1 parts" in out.read_text()
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
        assert "Left out" in out.read_text()
        assert len(_figures(out.read_text())) == 3

    def test_an_image_that_breaks_late_is_left_out(self, tmp_path, capsys):
        """Reading it checks its first rows only."""
        data, content = building.make.draw(1, 500, 700, 60)
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
        ],
    )
    def test_options_that_make_no_sense(self, tmp_path, capsys, arguments, message):
        with pytest.raises(SystemExit, match="2"):
            main(["show", str(tmp_path), *arguments])
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def builder(tars, tmp_path_factory):
    builder = tfds.builder(
        "segment_anything", data_dir=tmp_path_factory.mktemp("data"), num_workers=1
    )
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tars))
    return builder


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
            dense, ids = _dense(by_id[image_id]), by_id[image_id].annotations["id"]
            if masks == "small":
                dense = strategies.sample(strategies.sample(dense[:2], (30, 45)), (60, 90))
            ids = np.arange(len(dense)) if supervised else ids[: len(dense)]
            image = np.asarray(Image.open(io.BytesIO(by_id[image_id].image))).astype(int)
            rgb, covered = _painted(dense, ids)
            expected = np.where(covered[..., None], (image + rgb) / 2, image)
            assert np.abs(picture - expected).mean() < 4  # another JPEG decoder
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
                rgb, covered = _painted(_dense(example), example.annotations["id"])
                np.testing.assert_array_equal(layer[..., 3], 255 * covered)
                np.testing.assert_array_equal(layer[..., :3], rgb)

    def test_as_dataframe_shows_the_masks(self, builder):
        frame = tfds.as_dataframe(builder.as_dataset(split="train[:2]"), builder.info)
        for data, masks in zip(
            re.findall(r"base64,([\w+/=]+)", frame._repr_html_())[1::2], frame["masks"], strict=True
        ):
            picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
            np.testing.assert_array_equal(picture.any(axis=2), masks.any(axis=0))
