"""`sa1b eval`: its figures, and what it says of files that are not as they should be."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sa1b_tfds import metrics
from sa1b_tfds.cli.main import main
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.masks import rle
from sa1b_tfds.metrics import predictions as predictions_module
from sa1b_tfds.metrics.predictions import read_predictions
from tests import building
from tests.test_metrics import decoded
from tests.test_stats import DUMMY

pytestmark = pytest.mark.usefixtures("threads")

ONE = ("--workers", "1")


@pytest.fixture(scope="module")
def entries():
    """Predictions for the dummy data in COCO's results format: its masks, moved a little."""
    rng = np.random.default_rng(0)
    result = []
    for example in read_examples(DUMMY):
        for mask in decoded(example):
            encoded = rle.encode_mask(np.roll(mask, rng.integers(-4, 5, 2), (0, 1)))
            result.append(
                {
                    "image_id": example.image_id,
                    "category_id": 1,
                    "segmentation": {**encoded, "counts": encoded["counts"].decode()},
                    "score": float(rng.random()),
                }
            )
    rng.shuffle(result)
    return result


@pytest.fixture(scope="module")
def file(entries, tmp_path_factory):
    path = tmp_path_factory.mktemp("eval") / "predictions.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.usefixtures("processes")
def test_the_figures(entries, file, tmp_path, capsys):
    out = tmp_path / "metrics.json"
    arguments = ["eval", "--predictions", str(file), "--data", str(DUMMY), "--out", str(out)]
    arguments += ["--workers", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    figures = json.loads(out.read_text())

    coco = metrics.CocoEvaluation()
    best, one, areas, outlines = [], [], [], []
    for example in read_examples(DUMMY):
        own = [e for e in entries if e["image_id"] == example.image_id]
        masks, truths = [e["segmentation"] for e in own], decoded(example)
        iou = metrics.iou_matrix(masks, truths)
        coco.add(masks, [e["score"] for e in own], truths)
        matches = metrics.match_best(iou)
        best += list(matches.iou)
        one += list(metrics.match_one_to_one(iou).iou)
        areas += [truth.sum() for truth in truths]
        outlines += [
            metrics.compute_boundary_iou(masks[p], truth) if p >= 0 else 0
            for p, truth in zip(matches.prediction, truths, strict=True)
        ]
    assert figures["coco"] == coco.figures()
    assert figures["best"]["mean_iou"] == pytest.approx(np.mean(best))
    assert figures["best"]["median_iou"] == pytest.approx(np.median(best))
    assert figures["best"]["mean_boundary_iou"] == pytest.approx(np.mean(outlines))
    assert figures["mean_iou_one_to_one"] == pytest.approx(np.mean(one))
    small = np.array(areas) < 1024
    assert figures["best"]["by_size"]["small"]["mean_iou"] == pytest.approx(
        np.mean(np.array(best)[small])
    )
    low, high = figures["best"]["mean_iou_interval"]
    assert low < np.mean(best) < high
    counts = ("images", "images_without_predictions", "masks", "predictions")
    assert [figures[name] for name in counts] == [8, 1, 193, 193]
    assert figures["problems"] == []
    assert "193 predictions, 193 masks of 8 images; 1 image without predictions" in printed
    assert re.search(f"^AP50  +{figures['coco']['AP50']:.4g}$", printed, re.MULTILINE)
    assert f"{figures['best']['mean_iou']:.4g}" in printed


def test_missing_predictions_count_unless_they_are_left_out(entries, tmp_path):
    some = tmp_path / "some.json"
    some.write_text(json.dumps([e for e in entries if e["image_id"] < 200]))
    every = metrics.evaluate_predictions(some, DUMMY, workers=1)
    predicted = metrics.evaluate_predictions(some, DUMMY, predicted_only=True, workers=1)
    assert (every["images"], every["images_without_predictions"]) == (8, 4)
    assert (predicted["images"], predicted["images_without_predictions"]) == (4, 0)
    missed = predicted["masks"] / every["masks"]
    assert every["best"]["mean_iou"] == pytest.approx(predicted["best"]["mean_iou"] * missed)
    assert every["coco"]["AR@100"] < predicted["coco"]["AR@100"]


def test_no_predictions_at_all(tmp_path):
    (tmp_path / "none.json").write_text(" [ ] ")
    figures = metrics.evaluate_predictions(tmp_path / "none.json", DUMMY, workers=1)
    assert (figures["best"]["mean_iou"], figures["coco"]["AP"]) == (0, 0)
    with pytest.raises(ValueError, match="There is no mask to compare with"):
        metrics.evaluate_predictions(tmp_path / "none.json", DUMMY, predicted_only=True, workers=1)


def test_a_bad_image_is_named_and_the_rest_goes_on(tmp_path, capsys):
    tars = building.write_tars(tmp_path / "tars", tars=1)
    path = tars / "sa_000000.tar"
    path.write_bytes(path.read_bytes().replace(b'"area"', b'"aera"', 1))
    (tmp_path / "none.json").write_text("[]")
    out = tmp_path / "metrics.json"
    arguments = ["eval", "--predictions", str(tmp_path / "none.json"), "--data", str(tars), *ONE]
    assert main([*arguments, "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert "of 3 images" in captured.out
    assert "left out: sa_000000.tar: ./sa_" in captured.err
    assert "lacks the field 'area'" in json.loads(out.read_text())["problems"][0]["reason"]

    # Predictions for the image that cannot be read are no reason to stop.
    (tmp_path / "all.json").write_text(json.dumps([{**GOOD, "image_id": 9}]))
    arguments[2] = str(tmp_path / "all.json")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "1 prediction, " in captured.out
    assert "entry 0 has the image_id 9, which is not in the dataset" in captured.err


def test_an_image_that_comes_twice_counts_once(tmp_path, capsys):
    tars = building.write_tars(tmp_path / "tars", tars=1)
    (tars / "sa_000001.tar").write_bytes((tars / "sa_000000.tar").read_bytes())
    (tmp_path / "none.json").write_text("[]")
    arguments = ["eval", "--predictions", str(tmp_path / "none.json"), "--data", str(tars), *ONE]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "of 4 images" in captured.out
    assert captured.err.count("was there before: only the first one is evaluated") == 4


GOOD = {"image_id": 101, "segmentation": {"size": [2, 2], "counts": "4"}, "score": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is no JSON list"),
        ('{"image_id": 1}', "it is no JSON list"),
        ("[", "entry 0 is no JSON, or is cut off"),
        ('[{"image_id": 1', "entry 0 is no JSON, or is cut off"),
        (json.dumps([GOOD])[:-1], "',' or ']' must follow entry 0"),
        (json.dumps([GOOD]) + "x", "nothing may follow the list, got 'x'"),
        (json.dumps([GOOD, 3]), "entry 1 must be an object, got 3"),
        (json.dumps([{"image_id": 1}]), "entry 0 lacks 'segmentation', 'score'"),
        (json.dumps([{**GOOD, "image_id": "101"}]), "'image_id' must be an integer, got '101'"),
        (json.dumps([{**GOOD, "score": True}]), "'score' must be a finite number, got True"),
        (json.dumps([{**GOOD, "score": float("nan")}]), "'score' must be a finite number, got nan"),
        ("[" * 100_000, "entry 0 is no JSON, or is cut off"),
    ],
)
def test_what_is_no_list_of_predictions_is_an_error(text, message, tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"entry 1: segmentation: The RLE's size \[2, 2\] disagrees with the image's \[400"),
        ({"segmentation": {"size": [400, 600], "counts": "0"}}, "do not sum to height"),
        ({"segmentation": {"size": [400, 600], "counts": "0\x01"}}, "outside the RLE alphabet"),
        ({"segmentation": {"size": [400, 600]}}, "needs 'size' and 'counts'"),
        ({"segmentation": 7}, "segmentation is an RLE or a list of polygons"),
        (
            {"image_id": 7},
            "entry 1 has the image_id 7, which is not in the dataset; in all, 1 entry with",
        ),
    ],
)
def test_wrong_entries_are_named(entries, change, message, tmp_path, capsys):
    path = tmp_path / "predictions.json"
    first = next(e for e in entries if e["image_id"] == 101)
    path.write_text(json.dumps([first, {**GOOD, **change}]))
    assert main(["eval", "--predictions", str(path), "--data", str(DUMMY), *ONE]) == 1
    error = capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        raise ValueError(error)
    assert error.startswith(f"sa1b eval: {path}")


def test_a_wrong_entry_is_named_by_a_process(entries, tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([GOOD]))
    with pytest.raises(ValueError, match=r"json, image 101: entry 0: segmentation: The RLE's size"):
        metrics.evaluate_predictions(path, DUMMY, workers=2)
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        metrics.evaluate_predictions(path, DUMMY, workers=0)


def test_a_missing_file_is_an_error(tmp_path, capsys):
    arguments = ["eval", "--predictions", str(tmp_path / "no.json"), "--data", str(DUMMY), *ONE]
    assert main(arguments) == 1
    assert capsys.readouterr().err.endswith("no.json: No such file or directory\n")


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(-5, 5), st.floats(0, 1), st.text(max_size=12)), max_size=6),
    st.integers(1, 40),
    st.sampled_from([None, 1, "\t"]),
)
def test_any_chunk_gives_the_same_entries(tmp_path_factory, drawn, chunk, indent):
    entries = [
        {"image_id": i, "score": s, "segmentation": {"size": [1, 1], "counts": c}, "note": [c, {}]}
        for i, s, c in drawn
    ]
    path = tmp_path_factory.getbasetemp() / "chunks.json"
    path.write_text(json.dumps(entries, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions_module, "_CHUNK", chunk)
        found = read_predictions(path)
    back = sorted((p.entry, i, p.score, p.segmentation) for i, own in found.items() for p in own)
    assert [(i, s, seg["counts"].decode()) for _, i, s, seg in back] == drawn


def test_an_entry_too_long_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "predictions.json"
    path.write_text('[{"image_id": "' + "x" * 5000)
    monkeypatch.setattr(predictions_module, "_CHUNK", 100)
    monkeypatch.setattr(predictions_module, "_MAX_ENTRY", 1000)
    with pytest.raises(ValueError, match="entry 0 is no JSON, or is cut off"):
        read_predictions(path)
