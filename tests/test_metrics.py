"""Metrics against independent references: pycocotools, SciPy, OpenCV, brute force."""

import dataclasses
import itertools
import json
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sa1b_tfds import metrics
from sa1b_tfds.examples import jpeg
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.masks import rle
from tests.strategies import masks as drawn_masks
from tests.test_stats import DUMMY


def slow_iou(a, b):
    union = np.logical_or(a, b).sum()
    return np.logical_and(a, b).sum() / union if union else 0.0


def rles(masks):
    return [rle.encode_mask(mask) for mask in masks]


def decoded(example):
    size = list(example.masks.size)
    return [coco_mask.decode({"size": size, "counts": c}) for c in example.masks.counts]


@given(drawn_masks(), st.integers(-3, 3))
def test_iou_is_that_of_the_pixels(masks, shift):
    others = np.roll(masks, shift, axis=2)
    expected = np.array([[slow_iou(a, b) for b in others] for a in masks])
    expected = expected.reshape(len(masks), len(masks))
    for form in (lambda m: m, rles, lambda m: list(m.astype(np.float32))):
        np.testing.assert_allclose(metrics.iou_matrix(form(masks), others), expected, atol=1e-15)
    if len(masks):
        for a, b in ((masks[0], others[-1]), (rles(masks)[0], others[-1])):
            assert metrics.compute_iou(a, b) == pytest.approx(expected[0, -1], abs=1e-15)


def test_empty_and_full():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    for a, b, iou in ((empty, empty, 0), (empty, full, 0), (full, full, 1)):
        assert metrics.compute_iou(a, b) == iou
        assert metrics.compute_iou(rle.encode_mask(a), b) == iou
        assert metrics.compute_boundary_iou(a, b) == iou
        assert metrics.iou_matrix([a], [b])[0, 0] == iou


@pytest.mark.parametrize(
    ("mask1", "mask2", "message"),
    [
        (np.zeros((3, 4)), np.zeros((4, 3)), "Masks of .x. and .x. cannot be compared"),
        (
            np.full((3, 4), 0.3),
            np.zeros((3, 4)),
            "compare logits or probabilities",
        ),
        (np.zeros((1, 3, 4)), np.zeros((3, 4)), r"must have the shape \[H, W\]"),
        ({"size": [3, 4], "counts": "9"}, np.zeros((3, 4)), "do not sum to height"),
        ({"size": [3, 4]}, np.zeros((3, 4)), "needs 'size' and 'counts'"),
    ],
)
def test_what_is_no_mask_is_an_error(mask1, mask2, message):
    for function in (
        metrics.compute_iou,
        metrics.compute_boundary_iou,
        lambda a, b: metrics.iou_matrix([b, a], [b]),
        lambda a, b: metrics.evaluate_masks([a], [b]),
    ):
        with pytest.raises(ValueError, match=message):
            function(mask1, mask2)


def reference_boundary(mask, ratio):
    """As the authors' code does it: zeros around, and one erosion by 3x3 a pixel of the width."""
    steps = max(1, round(ratio * np.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2)))
    padded = np.pad(mask.astype(np.uint8), 1)
    return mask & (cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1] == 0)


@given(drawn_masks(), st.sampled_from([0.02, 0.1]), st.integers(0, 3))
def test_boundary_iou_is_the_references(masks, ratio, shift):
    for mask in masks:
        other = np.roll(mask, shift, axis=0)
        outlines = [reference_boundary(m, ratio) for m in (mask, other)]
        np.testing.assert_array_equal(metrics.mask_boundary(mask, ratio), outlines[0])
        by_scipy = mask & ~scipy.ndimage.binary_erosion(
            mask, np.ones((3, 3)), max(1, round(ratio * np.hypot(*mask.shape)))
        )
        np.testing.assert_array_equal(outlines[0], by_scipy)
        expected = slow_iou(*outlines)
        assert metrics.compute_boundary_iou(mask, other, ratio) == pytest.approx(expected)
        assert metrics.compute_boundary_iou(*rles([mask, other]), ratio) == pytest.approx(expected)


def test_boundary_of_a_large_mask_is_thin():
    mask = np.zeros((1500, 2250), bool)
    mask[100:1400, 100:2000] = True
    inner = mask & ~metrics.mask_boundary(mask)
    assert inner.sum() == (1300 - 2 * 54) * (1900 - 2 * 54)  # 0.02 * 2704 = 54


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(0, 5), st.integers(0, 5)),
        elements=st.integers(0, 8).map(lambda v: v / 8),
    )
)
def test_matching_is_the_best_of_all(iou):
    best = metrics.match_best(iou)
    one = metrics.match_one_to_one(iou)
    n, m = iou.shape
    expected = [max([0.0, *iou[:, j]]) for j in range(m)]
    np.testing.assert_array_equal(best.iou, expected)
    # Every way to give the masks different predictions, or none.
    choices = itertools.permutations([*range(n), *[None] * m], m)
    total = max(sum(iou[i, j] for j, i in enumerate(c) if i is not None) for c in set(choices))
    assert one.iou.sum() == pytest.approx(total)
    for matches in (best, one):
        for j, i in enumerate(matches.prediction):
            assert matches.iou[j] == (iou[i, j] if i >= 0 else 0)
    taken = one.prediction[one.prediction >= 0]
    assert len(set(taken)) == len(taken)


def test_evaluate_masks_pairs_sizes_and_intervals():
    rng = np.random.default_rng(0)
    truths = np.zeros((30, 128, 128), bool)
    predictions = np.zeros_like(truths)
    for i, side in enumerate(np.linspace(5, 110, 30).astype(int)):
        y, x = rng.integers(0, 128 - side, 2)
        truths[i, y : y + side, x : x + side] = True
        predictions[i, y : y + side, x + 1 : x + side + 1] = True
    result = metrics.evaluate_masks(predictions, truths)
    ious = [slow_iou(p, t) for p, t in zip(predictions, truths, strict=True)]
    assert result["count"] == 30
    assert result["mean_iou"] == pytest.approx(np.mean(ious))
    assert result["median_iou"] == pytest.approx(np.median(ious))
    outlines = [
        slow_iou(reference_boundary(p, 0.02), reference_boundary(t, 0.02))
        for p, t in zip(predictions, truths, strict=True)
    ]
    assert result["mean_boundary_iou"] == pytest.approx(np.mean(outlines))
    assert result["median_boundary_iou"] == pytest.approx(np.median(outlines))
    areas = truths.sum(axis=(1, 2))
    sizes = {"small": areas < 1024, "large": areas >= 9216}
    sizes["medium"] = ~(sizes["small"] | sizes["large"])
    for name, chosen in sizes.items():
        assert result["by_size"][name]["count"] == chosen.sum() > 0
        assert result["by_size"][name]["mean_iou"] == pytest.approx(np.mean(np.array(ious)[chosen]))
    draws = np.random.default_rng(1).choice(ious, (4000, 30)).mean(axis=1)
    np.testing.assert_allclose(
        result["mean_iou_interval"], np.percentile(draws, [2.5, 97.5]), atol=0.01
    )
    assert metrics.evaluate_masks(rles(predictions), rles(truths)) == result


def test_evaluate_masks_by_matching():
    masks = np.zeros((3, 20, 20), bool)
    masks[0, :10], masks[1, :10, :10], masks[2, 15:] = True, True, True
    same = metrics.evaluate_masks(masks[[2, 0]], masks, matching="one_to_one")
    assert same["mean_iou"] == pytest.approx(2 / 3)
    best = metrics.evaluate_masks(masks[[2, 0]], masks, matching="best")
    assert best["mean_iou"] == pytest.approx(2.5 / 3)
    none = metrics.evaluate_masks([], masks, matching="best")
    assert (none["mean_iou"], none["mean_boundary_iou"]) == (0, 0)
    with pytest.raises(ValueError, match="2 predictions and 3 masks do not make pairs"):
        metrics.evaluate_masks(masks[:2], masks)
    with pytest.raises(ValueError, match="matching must be one of pairs, best, one_to_one"):
        metrics.evaluate_masks(masks, masks, matching="all")
    with pytest.raises(ValueError, match="gt_masks is empty"):
        metrics.evaluate_masks(masks, [])


def test_intervals_draw_groups_together():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    values = rng.normal(size=40)[groups]  # the same in each group: 40 values, and not 1000
    interval = metrics.mean_interval(values, groups)
    sums = np.bincount(groups, values)
    draws = [rng.choice(sums, 40).sum() / 1000 for _ in range(4000)]
    np.testing.assert_allclose(interval, np.percentile(draws, [2.5, 97.5]), atol=0.03)
    assert metrics.mean_interval(values, groups) == interval
    assert metrics.mean_interval(values, groups, seed=1) != interval
    half = metrics.mean_interval(values, groups, level=0.5)
    assert interval[0] < half[0] < half[1] < interval[1]
    narrow = metrics.mean_interval(values)
    assert narrow[1] - narrow[0] < 0.5 * (interval[1] - interval[0])
    assert metrics.mean_interval([0.5]) is None
    assert metrics.mean_interval([0.5, 0.5]) == (0.5, 0.5)


@pytest.fixture(scope="module")
def predicted():
    """[(predictions, scores, truths)] of images: moved masks, some missed, some made up."""
    rng = np.random.default_rng(0)
    images = []
    for example in read_examples(DUMMY):
        truths = decoded(example)
        moved = [np.roll(t, rng.integers(-4, 5, 2), (0, 1)) for t in truths if rng.random() < 0.9]
        moved += [np.zeros(example.masks.size, np.uint8) for _ in range(2)]
        moved[-1][:40, :50] = 1
        images.append((rles(moved), rng.random(len(moved)).round(1), rles(truths)))
    return images


def by_the_book(images, max_dets):
    """COCOeval as its users call it."""
    annotations, results = [], []
    for number, (predictions, scores, truths) in enumerate(images, 1):
        for mask in truths:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "segmentation": mask,
                    "area": rle.area(mask),
                    "bbox": rle.bbox(mask),
                }
            )
        for mask, score in zip(predictions, scores, strict=True):
            results.append(
                {"image_id": number, "category_id": 1, "segmentation": mask, "score": float(score)}
            )
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [
            {"id": n, "height": t[0]["size"][0] if t else 1, "width": t[0]["size"][1] if t else 1}
            for n, (_, _, t) in enumerate(images, 1)
        ],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(results), "segm")
    evaluation.params.maxDets = list(max_dets)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def test_coco_figures_are_cocoevals(predicted, capsys):
    stats = by_the_book(predicted, (1, 10, 100))
    capsys.readouterr()
    evaluation = metrics.CocoEvaluation(max_dets=(1, 10, 100))
    for predictions, scores, truths in predicted:
        evaluation.add(predictions, scores, truths)
    figures = evaluation.figures()
    assert capsys.readouterr().out == ""
    names = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@1", "AR@10", "AR@100"]
    names += [f"AR@100_{size}" for size in ("small", "medium", "large")]
    assert list(figures) == names
    assert 0.05 < figures["AP"] < 0.95
    for name, value in zip(names, stats, strict=True):
        assert figures[name] == (None if value == -1 else pytest.approx(value, abs=1e-12)), name


def test_average_recall_is_that_of_a_greedy_match(predicted):
    evaluation = metrics.CocoEvaluation(max_dets=(5, 1000))
    hits = {5: 0, 1000: 0}
    thresholds = np.linspace(0.5, 0.95, 10)
    for predictions, scores, truths in predicted:
        evaluation.add(predictions, scores, truths)
        order = np.argsort(-scores, kind="stable")
        iou = metrics.iou_matrix(predictions, truths)
        for k, threshold in itertools.product(hits, thresholds):
            free = set(range(len(truths)))
            for i in order[:k]:
                fits = [j for j in free if iou[i, j] >= threshold]
                if fits:
                    free.remove(max(fits, key=lambda j: iou[i, j]))
                    hits[k] += 1
    masks = sum(len(truths) for _, _, truths in predicted)
    for k, hit in hits.items():
        assert evaluation.figures()[f"AR@{k}"] == pytest.approx(hit / masks / 10)


def test_perfect_and_no_predictions():
    truths = rles(np.eye(12, dtype=bool)[:, None].repeat(3, 1))
    perfect, none = metrics.CocoEvaluation(), metrics.CocoEvaluation()
    perfect.add(truths, np.arange(12), truths)
    none.add([], [], truths)
    assert perfect.figures()["AP"] == pytest.approx(1)
    assert perfect.figures()["AR@10"] == pytest.approx(10 / 12)
    assert (none.figures()["AP"], none.figures()["AR@1000"]) == (0, 0)
    assert metrics.CocoEvaluation().figures()["AP"] is None
    with pytest.raises(ValueError, match="got 12 predictions and the scores"):
        perfect.add(truths, [1.0], truths)
    with pytest.raises(ValueError, match="max_dets must be positive"):
        metrics.CocoEvaluation(max_dets=(0,))


@given(drawn_masks())
@settings(max_examples=20)
def test_the_centre_is_the_farthest_from_the_outline(masks):
    for mask in masks:
        if not mask.any():
            with pytest.raises(ValueError, match="An empty mask has no centre"):
                metrics.center_point(mask)
            continue
        x, y = metrics.center_point(mask)
        outside = np.argwhere(~np.pad(mask, 1)) - 1

        def distance(pixel, outside=outside):
            return ((outside - np.array(pixel)) ** 2).sum(axis=1).min()

        inside = np.argwhere(mask)
        assert mask[y, x]
        assert distance((y, x)) == max(map(distance, inside[:: max(1, len(inside) // 300)]))


def test_single_point_protocol():
    examples = list(read_examples(DUMMY))
    full = iter([e for e in examples if e.masks.counts])  # the others are not asked for
    asked = []

    def predict(image, points):
        """Three masks a point; the right one has the second best score."""
        asked.append((image, points))
        masks = decoded(next(full))
        for mask, (x, y) in zip(masks, points.astype(int), strict=True):
            assert mask[y, x]
        outputs = [[np.roll(m, 3, 1), m, np.zeros_like(m)] for m in masks]
        return outputs, np.tile([0.9, 0.5, 0.1], (len(masks), 1))

    result = metrics.evaluate_single_point(predict, examples)
    assert len(asked) == 7
    for image, _ in asked:
        assert image.dtype == np.uint8
        assert image.ndim == 3
    moved = [slow_iou(m, np.roll(m, 3, 1)) for e in examples for m in decoded(e)]
    assert result["count"] == len(moved)
    assert result["oracle_mean_iou"] == 1
    assert result["mean_iou"] == pytest.approx(np.mean(moved))
    low, high = result["mean_iou_interval"]
    assert low < result["mean_iou"] < high
    small = dataclasses.replace(examples[0], image=jpeg.shrink(examples[0].image, 100))
    with pytest.raises(ValueError, match=r"image of .* is not as large as its masks of"):
        metrics.evaluate_single_point(predict, [small])
    with pytest.raises(ValueError, match="no mask to evaluate on"):
        metrics.evaluate_single_point(predict, [])
    with pytest.raises(ValueError, match="got 1 mask, 0 outputs and scores of shape"):
        metrics.single_point_iou([], np.zeros((0, 3)), [np.ones((2, 2))])


@pytest.fixture(scope="module")
def batch():
    """(logits, masks, valid, mean IoU of the valid masks)."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3, 16, 16)).astype(np.float32)
    masks = (rng.random((4, 3, 16, 16)) < 0.4).astype(np.uint8)
    masks[0, 0], logits[0, 0] = 0, -1
    valid = rng.random((4, 3)) < 0.6
    valid[0] = True
    ious = [slow_iou(masks[i] > 0, logits[i] > 0) for i in np.ndindex(4, 3) if valid[i]]
    return logits, masks, valid, np.mean(ious)


class TestKeras:
    def test_is_the_mean_iou_of_valid_masks(self, batch):
        logits, masks, valid, expected = batch
        metric = metrics.MaskIoU()
        assert float(metric.result()) == 0
        for part in (slice(0, 1), slice(1, 4)):
            metric.update_state(masks[part], logits[part], valid[part])
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)
        metric.reset_state()
        metric.update_state(masks, logits, np.ones(4))  # a weight an image
        every = [slow_iou(masks[i] > 0, logits[i] > 0) for i in np.ndindex(4, 3)]
        assert float(metric.result()) == pytest.approx(np.mean(every), abs=1e-6)
        again = metrics.MaskIoU.from_config(metrics.MaskIoU(threshold=0.5).get_config())
        assert again.threshold == 0.5

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_in_fit(self, batch, jit_compile):
        import keras

        logits, masks, valid, expected = batch
        inputs = keras.Input((3, 16, 16))
        model = keras.Model(inputs, keras.layers.EinsumDense("bnhw,wv->bnhv", (3, 16, 16))(inputs))
        model.layers[-1].kernel.assign(np.eye(16))
        model.compile(
            optimizer=keras.optimizers.SGD(0.0),
            loss=lambda true, logit: keras.ops.mean((true - logit) ** 2, axis=(-2, -1)),
            weighted_metrics=[metrics.MaskIoU()],
            jit_compile=jit_compile,
        )
        y, weight = masks.astype(np.float32), valid.astype(np.float32)
        history = model.fit(logits, y, sample_weight=weight, batch_size=2, verbose=0)
        assert history.history["mask_iou"] == [pytest.approx(expected, abs=1e-6)]


class TestBenchmarkInference:
    def test_every_batch_is_timed(self):
        sizes = []

        def model(batch):
            sizes.append(len(batch))
            time.sleep(0.02)
            return {"masks": [batch]}

        result = metrics.benchmark_inference(model, np.zeros((5, 8, 8, 3)), batch_size=2)
        assert sizes == [2, 1, 2, 1, 2, 2, 1]  # two warm-ups of each size, then all
        assert result["batches"] == 3
        assert result["mean_time"] >= 0.02
        assert result["throughput"] == pytest.approx(5 / (3 * result["mean_time"]))

    def test_the_first_call_is_not_timed(self):
        calls = []

        def model(batch):
            time.sleep(0 if calls else 0.3)
            calls.append(1)

        assert metrics.benchmark_inference(model, [1, 2, 3])["mean_time"] < 0.1

    def test_torch(self):
        import torch

        class Model(torch.nn.Linear):
            def forward(self, batch):
                assert not self.training
                assert not torch.is_grad_enabled()
                return super().forward(batch)

        model = Model(3, 2)
        result = metrics.benchmark_inference(model, np.zeros((4, 3), np.float32), 4)
        assert result["batches"] == 1
        assert model.training

    def test_keras(self):
        import keras

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        assert metrics.benchmark_inference(model, np.zeros((4, 3), np.float32), 3)["batches"] == 2

    @pytest.mark.parametrize("options", [{"images": []}, {"batch_size": 0}, {"warm_up": -1}])
    def test_nonsense_is_an_error(self, options):
        with pytest.raises(ValueError, match="There must be images, batch_size >= 1"):
            metrics.benchmark_inference(**{"model": len, "images": [1], **options})


def test_importing_loads_nothing_heavy_and_no_scipy_is_an_error():
    code = """
import sys, json
sys.modules['scipy'] = sys.modules['scipy.ndimage'] = None
from sa1b_tfds import metrics
iou = metrics.compute_iou([[1, 1]], [[1, 0]])
try:
    metrics.compute_boundary_iou([[1, 1]], [[1, 0]])
except ImportError as e:
    message = str(e)
heavy = [m for m in ('tensorflow', 'keras', 'torch') if m in sys.modules]
print(json.dumps([iou, message, heavy]))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    iou, message, heavy = json.loads(run.stdout)
    assert (iou, heavy) == (0.5, [])
    assert "pip install 'sa1b_tfds[metrics]'" in message
