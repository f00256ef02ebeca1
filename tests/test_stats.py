"""`sa1b stats`: figures against NumPy and pycocotools, parts in any order, workers that die."""

import copy
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

import sa1b_tfds  # noqa: F401  registers the builder
from sa1b_tfds.cli.main import main
from sa1b_tfds.core.problems import BadInput, Problems, summed_up
from sa1b_tfds.examples.annotations import to_example
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.stats import Statistics, statistics_of, statistics_of_examples
from sa1b_tfds.stats.anomalies import KINDS
from sa1b_tfds.stats.findings import LIMIT, Anomaly, Duplicate, Findings
from sa1b_tfds.stats.histogram import Histogram
from sa1b_tfds.stats.statistics import EDGES, Keys, Sum
from tests import building
from tests.building import make

pytestmark = pytest.mark.usefixtures("threads")

DUMMY = pathlib.Path(__file__).parents[1] / "dummy_data"


@pytest.fixture(scope="module")
def jpeg_and_json() -> tuple[bytes, dict]:
    return make.draw(7, 40, 60, 5)


@given(st.lists(st.lists(st.floats(-2, 12, width=32), max_size=30), min_size=1, max_size=4))
def test_histograms_are_numpys(chunks):
    edges = np.linspace(0, 10, 41)
    empty = Histogram.empty(edges)
    total = empty
    for chunk in chunks:
        total += empty.with_values(chunk)
    values = np.concatenate([np.asarray(c, np.float64) for c in chunks])
    inside = values[(values >= 0) & (values <= 10)]
    np.testing.assert_array_equal(total.counts, np.histogram(values, edges)[0])
    assert (total.below, total.above) == ((values < 0).sum(), (values > 10).sum())
    assert total.count == len(values)
    assert total.mean == (pytest.approx(inside.mean(), abs=1e-9) if len(inside) else None)
    if len(inside) == len(values) > 0:
        for q in (0.05, 0.5, 0.95):
            exact = [np.quantile(values, q, method=m) for m in ("lower", "higher")]
            assert min(exact) - 0.25 <= total.quantile(q) <= max(exact) + 0.25


def test_histograms_of_nothing_and_of_other_edges():
    empty = Histogram.empty([0, 1])
    assert empty.with_values([np.nan, np.inf]).count == 0
    assert empty.as_dict() == {
        **dict.fromkeys(("mean", "min", "max")),
        **dict.fromkeys(("count", "below", "above"), 0),
        "quantiles": dict.fromkeys(empty.as_dict()["quantiles"]),
        "edges": [0.0],
        "counts": [],
    }
    with pytest.raises(ValueError, match="different edges cannot be added"):
        empty + Histogram.empty([0, 2])


def test_figures_are_those_of_the_images():
    statistics = statistics_of(DUMMY)
    examples = list(read_examples(DUMMY))
    masks = [
        coco_mask.decode({"size": list(e.masks.size), "counts": c})
        for e in examples
        for c in e.masks.counts
    ]
    assert (statistics.images, statistics.masks) == (len(examples), len(masks)) == (8, 193)
    assert statistics.jpeg_bytes == sum(len(e.image) for e in examples)
    values = {
        "masks_per_image": [len(e.masks.counts) for e in examples],
        "area_fraction": [mask.mean() for mask in masks],
        "short_side": [min(e.masks.size) for e in examples],
        "long_side": [max(e.masks.size) for e in examples],
    }
    for name in ("predicted_iou", "stability_score"):
        values[name] = np.concatenate([e.annotations[name] for e in examples])
    for name, histogram in statistics.distributions.items():
        np.testing.assert_array_equal(
            histogram.counts, np.histogram(values[name], histogram.edges)[0]
        )
        assert histogram.mean == pytest.approx(np.mean(values[name]), rel=1e-6)
        assert histogram.minimum == pytest.approx(np.min(values[name]))
        assert histogram.maximum == pytest.approx(np.max(values[name]))
    assert not statistics.anomalies
    assert statistics.problems.count == 0


def _with(index=2, **fields):
    def change(annotations):
        annotations[index].update(fields)

    return change


def _grow(annotations):
    x, y, w, h = annotations[2]["bbox"]
    annotations[2]["bbox"] = [x, y, w + 1, h + 1]


def _move(annotations):
    annotations[2]["bbox"][2] -= 2


def _empty(annotations):
    annotations[2].update(sa1b_rle([40, 60], [2400]), area=0, bbox=[0, 0, 0, 0])


def _off(annotations):
    annotations[2].update(sa1b_rle([40, 60], [0, 1, 2399]), area=1, bbox=[0, 0, 0, 0])


def _same(annotations):
    annotations[3] = {**annotations[2], "id": annotations[3]["id"]}


def _same_id(annotations):
    annotations[2]["id"] = annotations[1]["id"]


def sa1b_rle(size, counts):
    encoded = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
    return {"segmentation": {"size": size, "counts": encoded["counts"].decode()}}


@pytest.mark.parametrize(
    ("change", "kind", "detail"),
    [
        (_with(area=3), "area", "area 3, mask "),
        (_move, "bbox", "bbox ["),
        (_grow, "bbox_one_wider", "bbox ["),
        (_with(bbox=[50.0, 1.0, 11.0, 2.0]), "bbox_outside", "bbox [50, 1, 11, 2], image 60x40"),
        (_with(bbox=[5.0, 9.0, -2.0, 2.0]), "bbox_outside", "bbox [5, 9, -2, 2], image 60x40"),
        (_with(crop_box=[-1, 0, 60, 40]), "crop_box_outside", "crop_box [-1, 0, 60, 40], image"),
        (_with(predicted_iou=1.2), "predicted_iou", "predicted_iou 1.2"),
        (_with(predicted_iou=-0.1), "predicted_iou", "predicted_iou -0.1"),
        (_with(stability_score=1.01), "stability_score", "stability_score 1.01"),
        (_with(point_coords=[[60, 3]]), "point_outside", "point (60, 3), image 60x40"),
        (_off, "point_off_mask", "point ("),
        (_empty, "empty_mask", ""),
        (_same, "same_mask", ""),
        (_same_id, "same_id", ""),
    ],
)
def test_anomalies_are_found(jpeg_and_json, change, kind, detail):
    jpeg, content = jpeg_and_json
    sound = to_example(jpeg, json.dumps(content).encode())
    assert not statistics_of_examples("tar", [sound]).anomalies
    content = copy.deepcopy(content)
    change(content["annotations"])
    example = to_example(jpeg, json.dumps(content).encode())
    found = statistics_of_examples("sa.tar", [example]).anomalies
    place = 3 if kind == "same_mask" else 2
    (anomaly,) = found[kind].first
    assert anomaly[:3] == ("sa.tar", 7, content["annotations"][place]["id"])
    assert anomaly.detail.startswith(detail)
    assert found[kind].count == 1
    others = {"bbox"} if kind == "bbox_outside" else set()
    assert found.keys() == {kind} | others


def anomalies_of(mask, **fields):
    """The kinds of anomalies of one mask [H, W] with changed fields."""
    content = make.describe(7, *mask.shape, [mask])
    content["annotations"][0].update(fields)
    image = make.draw(7, *mask.shape, 1)[0]
    return statistics_of_examples("t", [to_example(image, json.dumps(content).encode())]).anomalies


@pytest.mark.parametrize(
    ("point", "kinds"),
    [
        ([10.75, 5.0], set()),  # as SA-1B has x = 1956.75 for a mask that begins at 1957
        ([12.75, 5.9], set()),  # the other way round
        ([12.0, 8.49], set()),
        ([10.4, 5.0], {"point_off_mask"}),
        ([13.0, 5.0], {"point_off_mask"}),
        ([11.0, 4.4], {"point_off_mask"}),
        ([-0.5, 5.0], {"point_off_mask"}),
        ([-0.6, 5.0], {"point_outside"}),
        ([60.0, 5.0], {"point_outside"}),
        ([11.0, 40.0], {"point_outside"}),
        ([1e30, -1e30], {"point_outside"}),
    ],
)
def test_a_point_is_off_only_if_both_roundings_are(point, kinds):
    mask = np.zeros((40, 60), bool)
    mask[5:9, 11:13] = True
    assert anomalies_of(mask, point_coords=[point]).keys() == kinds


@given(st.floats(-2, 12, width=32), st.floats(-2, 12, width=32), st.integers(0, 2**32))
def test_a_pixel_of_the_mask_that_a_point_rounds_to_is_enough(x, y, seed):
    mask = np.random.default_rng(seed).random((10, 10)) < 0.3
    mask[0, 0] = True
    pixels = [(f(y), g(x)) for f in (np.floor, _half_up) for g in (np.floor, _half_up)]
    inside = [(int(row), int(column)) for row, column in pixels if 0 <= row < 10 > column >= 0]
    expected = not inside, bool(inside) and not any(mask[pixel] for pixel in inside)
    found = anomalies_of(mask, point_coords=[[x, y]])
    assert ("point_outside" in found, "point_off_mask" in found) == expected


def test_a_wrong_box_is_shown_beside_that_of_the_mask():
    """[x, y, w, h] in pixels, as SA-1B has it, to a hundredth."""
    mask = np.zeros((40, 60), bool)
    mask[5:9, 11:13] = True
    found = anomalies_of(mask, bbox=[10.126, 5.0, 5.0, 3.0])
    assert [a.detail for a in found["bbox"].first] == ["bbox [10.13, 5, 5, 3], mask [11, 5, 1, 3]"]
    found = anomalies_of(mask, point_coords=[[30.0, 20.0]])
    assert found["point_off_mask"].first[0].detail == "point (30, 20), mask [11, 5, 1, 3]"


def test_where_the_bins_are():
    assert EDGES["masks_per_image"][[0, 1, -1]].tolist() == [-0.5, 0.5, 1000.5]
    np.testing.assert_allclose(EDGES["area_fraction"][::10], 10.0 ** np.arange(-8, 1))
    for name, last in (("predicted_iou", 1.1), ("stability_score", 1.0)):
        np.testing.assert_allclose(np.diff(EDGES[name]), 0.002)
        assert (EDGES[name][0], EDGES[name][-1]) == (0, last)
    for name in ("short_side", "long_side"):
        assert EDGES[name][[0, 1]].tolist() == [-0.5, 9.5]
        assert EDGES[name][-1] > 16384


def test_sums_of_histograms_are_those_of_their_values():
    one = Histogram.empty([0, 1, 2]).with_values([-5, 0.5, 3])
    two = Histogram.empty([0, 1, 2]).with_values([-7, -6, 1.5, 4, 5])
    both = one + two
    assert (both.below, both.above, both.counts.tolist()) == (3, 3, [1, 1])
    assert (both.minimum, both.maximum, both.mean, both.count) == (-7, 5, 1.0, 8)
    assert both.quantile(0) == -7
    assert both.quantile(0.5) == 1.0
    assert both.quantile(1) == 5
    held = Histogram.empty(np.arange(7)).with_values([1.5, 3.5, 3.6]).as_dict()
    assert (held["edges"], held["counts"]) == ([1, 2, 3, 4], [1, 0, 2])


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"stability_score": 1.0, "predicted_iou": 1.0}, set()),
        ({"stability_score": 0.0, "predicted_iou": 0.0}, set()),
        ({"predicted_iou": 1.1}, set()),
        ({"predicted_iou": 1.101}, {"predicted_iou"}),
        ({"predicted_iou": -0.001}, {"predicted_iou"}),
        ({"stability_score": 1.001}, {"stability_score"}),
        ({"stability_score": -0.001}, {"stability_score"}),
    ],
)
def test_a_score_at_its_limit_is_none(fields, kinds):
    assert anomalies_of(np.ones((40, 60), bool), **fields).keys() == kinds


def test_scores_at_the_ends_of_a_distribution_are_in_it():
    content = make.describe(7, 40, 60, [np.ones((40, 60), bool)] * 2)
    for annotation, score in zip(content["annotations"], (0.0, 1.0), strict=True):
        annotation.update(stability_score=score, predicted_iou=score)
    image = make.draw(7, 40, 60, 1)[0]
    example = to_example(image, json.dumps(content).encode())
    found = statistics_of_examples("t", [example]).distributions
    for name in ("stability_score", "predicted_iou"):
        counts = found[name].counts
        assert (found[name].below, found[name].above, counts.sum()) == (0, 0, 2)
        assert counts[0] == 1
    assert found["stability_score"].counts[-1] == 1
    assert found["area_fraction"].counts[-1] == 2  # masks of the whole image


def _half_up(value):
    return np.floor(value + 0.5)


@pytest.mark.parametrize(
    ("box", "kinds"),
    [
        ([0, 0, 60, 40], set()),
        ([12, 7, 48, 33], set()),
        ([0, 0, 61, 40], {"crop_box_outside"}),
        ([30.5, 0, 30, 40.5], set()),
        ([-1, 0, 60, 40], {"crop_box_outside"}),
        ([30, 0, -2, 40], {"crop_box_outside"}),
    ],
)
def test_crops_may_be_whole_numbers_and_rounded(box, kinds):
    assert anomalies_of(np.ones((40, 60), bool), crop_box=box).keys() == kinds


@pytest.mark.parametrize("command", ["stats", "show"])
def test_thousands_of_one_kind_are_counted(tmp_path, capsys, command):
    jpeg, content = make.draw(1, 40, 60, 3)
    content["annotations"] = content["annotations"][:1] * 5000
    lonely = {f"sa_{i}.jpg": b"" for i in range(10, 3010)}
    files = {"sa_1.jpg": jpeg, "sa_1.json": json.dumps(content).encode(), "sa_2.json": b"{}"}
    make.write_tar(tmp_path / "sa_000000.tar", files | lonely)
    out = tmp_path / ("out.json" if command == "stats" else "out.html")
    option = "--json" if command == "stats" else "--out"
    main([command, str(tmp_path / "sa_000000.tar"), option, str(out)])
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert len(said.splitlines()) < 45
    if command == "stats":
        assert "4,999 same_id: the annotation's id was there before in the image" in said
        assert "3,001 could not be read" in said
        written = json.loads(out.read_text())
        assert written["anomalies"]["same_id"]["count"] == 4999
        assert [len(a["first"]) for a in written["anomalies"].values() if a["count"]] == [20, 20]
    else:
        assert "left out: 2,997 more: its .json is missing" in said
        assert "sa_2.json: its .jpg is missing" in said  # is not lost among the others
        assert out.read_text().count("is missing") < 10


def test_many_reasons_are_summed_up():
    problems = [BadInput("tar", str(i), f"reason {i // 2}") for i in range(100)]
    lines = summed_up(problems)
    assert lines[:3] == ["tar: 0: reason 0", "tar: 1: reason 0", "tar: 2: reason 1"]
    assert (len(lines), lines[-1]) == (19, "82 more, for 41 other reasons")
    assert summed_up(problems[:3]) == [str(problem) for problem in problems[:3]]


def _statistics(number: int) -> Statistics:
    """Of a part with anomalies, a problem, and images that other parts have as well."""
    examples = []
    for image_id in (number % 3, 10 + number):
        jpeg, content = make.draw(image_id, 20, 30, 3)
        for annotation in content["annotations"]:
            annotation["area"] = (annotation["area"] + number) % 600
            annotation["stability_score"] = 1.0 + 0.01 * (number - 1)
        examples.append(to_example(jpeg, json.dumps(content).encode()))

    problems = Problems("skip")
    problems.report(f"sa_{number}", "x.json", f"reason {number}")
    return statistics_of_examples(f"sa_{number}", examples, problems)


PARTS = [_statistics(number) for number in range(6)]
EXPECTED = sum(PARTS, Statistics()).as_dict()


@given(st.permutations(range(6)), st.lists(st.integers(0, 4), min_size=5, max_size=5))
def test_parts_add_up_in_any_order(order, joints):
    """Neighbours of a shuffled row are added until one is left."""
    row = [PARTS[i] for i in order]
    for joint in joints:
        i = joint % (len(row) - 1)
        row[i : i + 2] = [row[i] + row[i + 1]]
    assert row[0].as_dict() == EXPECTED


@given(st.permutations(range(len(PARTS))))
def test_a_sum_of_many_is_what_adding_one_by_one_gives(order):
    total = Sum()
    for number in order:
        total.add(PARTS[number])
    assert total.images == EXPECTED["images"]
    assert total.total().as_dict() == EXPECTED


def test_adding_many_parts_does_not_copy_the_keys_of_all_each_time(monkeypatch):
    copied, add = [], Statistics.__add__

    def counted(a, b):
        copied.append(len(a.keys) + len(b.keys))
        return add(a, b)

    monkeypatch.setattr(Statistics, "__add__", counted)
    total = Sum()
    for number in range(64):
        total.add(Statistics(keys={("t", number): Keys.of([], [])}))
    assert len(total.total().keys) == 64
    assert sum(copied) <= 64 * 8  # one by one it is 64 * 32


@given(st.lists(st.lists(st.integers(0, 12), max_size=40), max_size=5))
def test_the_first_duplicates_are_those_of_a_search_one_by_one(parts):
    keys = {(f"t{4 - i}", 0): Keys.of(ids, ids) for i, ids in enumerate(parts)}
    seen, found = {}, []
    for part, _ in sorted(keys):
        for image_id in keys[part, 0].ids.tolist():
            if image_id in seen:
                found.append(Duplicate(part, image_id, seen[image_id], image_id))
            seen.setdefault(image_id, part)
    duplicates = Statistics(keys=keys).duplicates
    assert duplicates == {"image_id": Findings.of(found), "jpeg": Findings.of(found)}


def test_examples_without_a_start_are_the_first_of_their_part():
    assert list(statistics_of_examples("t", []).keys) == [("t", 0)]


def test_the_expected_statistics_are_not_empty():
    assert EXPECTED["images"] == 12
    assert EXPECTED["problems"]["count"] == 6
    assert EXPECTED["duplicates"]["image_id"]["count"] == 3
    assert EXPECTED["duplicates"]["jpeg"]["first"][0] == {
        "part": "sa_3",
        "image_id": 0,
        "first_part": "sa_0",
        "first_image_id": 0,
    }
    assert EXPECTED["anomalies"]["stability_score"]["count"] > 0
    with pytest.raises(ValueError, match="counted twice: sa_2"):
        PARTS[2] + PARTS[2]


def test_findings_keep_the_first_few():
    found = [Anomaly("tar", i, 0, "") for i in range(3 * LIMIT)]
    chunks = [Findings.of(found[i::7]) for i in range(7)]
    for order in itertools.permutations(chunks, 3):
        rest = [chunk for chunk in chunks if chunk not in order]
        assert sum([*order, *rest], Findings()) == Findings.of(found)
    assert Findings.of(found).first == tuple(found[:LIMIT])


@pytest.fixture(scope="module", params=building.FORMS)
def tars(tmp_path_factory, request):
    """Three tars: one with a duplicate image, one with a broken JSON and a wrong area."""
    folder = tmp_path_factory.mktemp("stats") / "tars"
    building.write_tars(folder, tars=3)
    again = {**make.files_of(0), **make.files_of(20)}
    make.write_tar(folder / "sa_000001.tar", again)
    broken = {**make.files_of(30), **make.files_of(31), **make.files_of(32)}
    broken["./sa_30.json"] = broken["./sa_30.json"].replace(b'"area"', b'"aera"')
    content = json.loads(broken["./sa_31.json"])
    content["annotations"][0]["area"] += 1
    broken["./sa_31.json"] = json.dumps(content).encode()
    make.write_tar(folder / "sa_000002.tar", broken)
    return building.FORMS[request.param](folder)


def test_the_command(tars, tmp_path, capsys):
    out = tmp_path / "new" / "stats.json"
    assert main(["stats", str(tars), "--json", str(out), "--workers", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("8 images, ")
    assert "1 image with an id that was there before" in lines
    assert "  sa_000001.tar: image 0: first in sa_000000.tar: image 0" in lines
    assert any(line.startswith("1 area: 'area' is not the number") for line in lines)
    assert "1 could not be read" in lines
    assert "  sa_000002.tar: ./sa_30.json: annotation 0 lacks the field 'area'" in lines
    written = json.loads(out.read_text())
    assert written == json.loads(json.dumps(statistics_of(tars, workers=1).as_dict()))
    assert written["anomalies"].keys() == KINDS.keys()


def test_a_good_source_is_0_and_a_wrong_one_1(tmp_path, capsys):
    assert main(["stats", str(DUMMY), "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "No anomalies."
    assert main(["stats", str(tmp_path)]) == 1
    assert "holds neither sa_*.tar" in capsys.readouterr().err


def test_where_nothing_can_be_read_only_the_reason_is_said(tmp_path, capsys):
    (tmp_path / "sa_000000.tar").write_bytes(b"x" * 2000)
    assert main(["stats", str(tmp_path), "--workers", "1"]) == 1
    first, empty, number, reason = capsys.readouterr().out.splitlines()
    assert first == "0 images, 0 masks, 0 bytes of JPEG in 1 part"
    assert (empty, number) == ("", "1 could not be read")
    assert reason.startswith("  sa_000000.tar: ")
    assert "it is no tar" in reason


def test_a_torn_tar_is_read_as_far_as_it_goes(tars, tmp_path):
    whole = (tars / "sa_000000.tar").read_bytes()
    is_packed = whole.startswith(b"\x1f\x8b")
    cut = len(whole) * 3 // 4 if is_packed else len(whole) // 2
    (tmp_path / "sa_000000.tar").write_bytes(whole[:cut])
    statistics = statistics_of(tmp_path)
    assert 0 < statistics.images < 4
    said = "it is damaged: it ends at byte" if is_packed else "the tar is torn"
    assert any(said in problem.reason for problem in statistics.problems.first)


def test_prepared_data_have_the_same_statistics(prepared_dummy):
    prepared = statistics_of(prepared_dummy, "original", workers=1).as_dict()
    assert prepared == statistics_of(DUMMY, workers=1).as_dict()


def test_a_broken_shard_is_a_problem(prepared_dummy, tmp_path):
    shutil.copytree(prepared_dummy, tmp_path, dirs_exist_ok=True)
    shard = sorted(tmp_path.rglob("*.tfrecord-*"))[0]
    shard.write_bytes(shard.read_bytes()[:-10])
    statistics = statistics_of(tmp_path, "original", workers=1)
    assert statistics.images == 7
    (problem,) = statistics.problems.first
    assert problem.part == shard.name
    assert "the rest was not read: " in problem.reason


def test_progress_reaches_what_was_read(tars):
    heard = []
    statistics_of(tars, workers=2, on_progress=heard.append)
    assert (heard[-1].parts, heard[-1].parts_done) == (3, 3)
    assert heard[-1].images == 8
    assert all(a.images <= b.images <= b.images_expected for a, b in itertools.pairwise(heard))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return building.write_large_tars(tmp_path_factory.mktemp("large"), tars=2, images=700)


def _run(folder) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """Starts the command and waits for both of its workers to read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sa1b_tfds", "stats", str(folder), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        workers = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if _has_open_tar(child)
        ]
        if len(workers) == 2:
            return process, workers
        time.sleep(0.01)
    process.kill()
    raise TimeoutError("The workers did not begin.")


def _has_open_tar(process: psutil.Process) -> bool:
    try:
        return any(file.path.endswith(".tar") for file in process.open_files())
    except psutil.Error:
        return False


def test_a_killed_worker_loses_its_images_only(large):
    process, workers = _run(large)
    workers[0].kill()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert out.startswith("1,200 images, ")
    assert "up to 200 images were not read: The process that ran _read was ended by SIGKILL" in out


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_worker_outlives_the_command(large, how, code):
    process, workers = _run(large)
    os.kill(process.pid, how)
    assert process.wait(timeout=120) == code
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert (len(gone), alive) == (2, [])
