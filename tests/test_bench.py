"""`make bench`: every benchmark is run, one that fails is named, and the page is what they gave."""

import importlib
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import run_all
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.download.verify import verify_folder
from sa1b_tfds.masks import rle
from sa1b_tfds.stats import statistics_of
from sa1b_tfds.tars import archive

ROOT = pathlib.Path(__file__).parents[1]
_GOOD = '"""Ours beside theirs."""\nprint("a 1")\nprint("ratio: 2.50")\n'


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A folder of benchmarks of its own, a page and a README."""
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    monkeypatch.setattr(run_all, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(run_all, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(run_all, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("# R\n\n" + "old\n".join(run_all._FIGURES) + "after\n")
    (tmp_path / "performance.md").write_text(f"# P\n\n{run_all._BEGIN}old\n{run_all._END}\nafter\n")
    return tmp_path


def test_a_benchmark_goes_into_the_json_and_the_page(bench):
    (bench / "good.py").write_text(_GOOD)
    assert run_all.main([]) == 0
    (result,) = json.loads((bench / "results.json").read_text()).values()
    assert result["what"] == "Ours beside theirs."
    assert (result["ratio"], result["printed"]) == (2.5, ["a 1"])
    assert result["versions"]["numpy"]
    page = (bench / "performance.md").read_text()
    assert "| Ours beside theirs. | **2.5** | `python benchmarks/good.py` |" in page
    assert page.startswith("# P\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('broken')", r"exit code 1\n.*ValueError: broken"),
        ("print('later')", "its last line is no ratio:\nratio: 1\nlater"),
        ("import time; time.sleep(60)", "not done after 1 s"),
    ],
)
def test_one_that_fails_is_named_and_the_others_go_on(bench, monkeypatch, capsys, code, reason):
    run, earlier = run_all.run, {"bad.py": {"kept": True}}
    limit = {"bad.py": 1} if "sleep" in code else {}
    monkeypatch.setattr(
        run_all, "run", lambda script: run(script, seconds=limit.get(script.name, 60))
    )
    monkeypatch.setattr(run_all, "as_markdown", lambda results: f"{sorted(results)}\n")
    (bench / "results.json").write_text(json.dumps(earlier))
    (bench / "bad.py").write_text(f'print("ratio: 1", flush=True)\n{code}\n')
    (bench / "good.py").write_text(_GOOD)
    assert run_all.main([]) == 1
    assert re.match(f"bad.py failed: {reason}", capsys.readouterr().err, re.DOTALL)
    results = json.loads((bench / "results.json").read_text())
    assert results["bad.py"] == earlier["bad.py"]
    assert results["good.py"]["ratio"] == 2.5
    assert "['bad.py', 'good.py']" in (bench / "performance.md").read_text()


def test_unknown_names_are_refused(bench, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_all.main(["nothing.py"])
    assert "no such benchmark: nothing.py" in capsys.readouterr().err


def test_every_benchmark_prints_a_ratio_and_is_in_the_results():
    helpers = {"bars.py", "memory.py", "run_all.py", "scale_out.py", "served.py", "synthetic.py"}
    helpers |= {"tiny_tars.py"}
    names = {path.name for path in (ROOT / "benchmarks").glob("*.py")} - helpers
    assert set(run_all.scripts()) == names - set(run_all.BY_HAND)
    for name in run_all.BY_HAND:
        assert '"ratio: ' in (ROOT / "benchmarks" / name).read_text()
    results = json.loads(run_all.RESULTS.read_text())
    assert results.keys() <= names


def test_the_page_is_what_the_results_give():
    page = run_all.PAGE.read_text()
    assert page == run_all.with_results(page, json.loads(run_all.RESULTS.read_text()))


def test_the_readme_is_what_the_results_give():
    readme = run_all.README.read_text()
    assert readme == run_all.with_figures(readme, json.loads(run_all.RESULTS.read_text()))


@pytest.fixture
def cardinality(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("cardinality")


def test_tiny_tars_are_whole_and_no_two_images_are_the_same(cardinality, tmp_path):
    for number in range(2):
        path = tmp_path / f"sa_{number:06d}.tar"
        cardinality.tiny_tars.write_tar(path, first_id=9 * number, images=9)
    reports = list(verify_folder(tmp_path, deep=True))
    assert [(report.status, report.pairs) for report in reports] == [("whole", 9)] * 2
    statistics = statistics_of(tmp_path, workers=1)
    assert (statistics.images, statistics.masks, statistics.problems.count) == (18, 36, 0)
    assert not any(found.count for found in statistics.duplicates.values())
    assert {k: found.count for k, found in statistics.anomalies.items()} == {"stability_score": 18}


def test_numbers_of_tars_are_measured_step_by_step(cardinality, capsys, monkeypatch):
    steps = cardinality._steps
    monkeypatch.setattr(
        cardinality,
        "_steps",
        lambda *size: [step for step in steps(*size) if step[0] in ("verify", "plan")],
    )
    costs = dict(cardinality.run(tars=2, images=3))
    assert list(costs) == ["verify", "plan"]
    for cost in costs.values():
        assert cost.seconds > 0
        assert cost.cpu > 0
        assert cost.memory > 10e6  # Python takes so much
        assert cost.metadata == 0
    capsys.readouterr()
    before = {"a": cardinality.Cost(1, 2, 100, 0), "b": cardinality.Cost(1, 1, 100, 10)}
    after = {"a": cardinality.Cost(20, 24, 110, 0), "b": cardinality.Cost(1, 1, 100, 100)}
    assert cardinality._print_growth((1, before), (10, after)) == pytest.approx(1.2)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["a", "20.00", "12.00", "1.10", "-"], ["b", "1.00", "1.00", "1.00", "10.00"]]


def test_written_files_are_counted_but_for_tars_and_shards(cardinality, tmp_path):
    for name in ("a.tar", "segment_anything-train.tfrecord-00000-of-00001", "old.json"):
        (tmp_path / name).write_bytes(b"12345")
    code = "import pathlib; [pathlib.Path(n).write_text('123') for n in ('a.tar', '.a.tar.index')]"
    assert cardinality._watch([sys.executable, "-c", code], tmp_path).metadata == 3
    with pytest.raises(RuntimeError, match=r"failed:\n.*no such step"):
        cardinality._watch([sys.executable, "-c", "raise SystemExit('no such step')"], tmp_path)


def test_the_table_of_numbers_is_what_was_recorded(cardinality):
    page, record = run_all.PAGE.read_text(), json.loads(cardinality.RECORD.read_text())
    assert page == cardinality.with_table(page, record)
    steps = {"a": {"seconds": 1, "cpu": 2, "memory": 3, "metadata": 0}}
    one = {"tars": 1, "images": 5, "date": "d", "machine": "m", "steps": {**steps, "b": steps["a"]}}
    stopped = {**one, "tars": 4, "steps": {"a": {**steps["a"], "cpu": 7}}}
    table = cardinality.with_table(page, [one, stopped])
    assert "| b | 1.0 (2.0) s, 0 MB | not run |" in table
    assert "From 1 to 4 tars of 5 images, 4 times as many, the step" in table
    assert "grew most is a: 3.5 times." in table


def test_the_plan_for_all_tars_is_what_the_results_give(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    scale_out = importlib.import_module("scale_out")
    page, results = scale_out.PAGE.read_text(), json.loads(run_all.RESULTS.read_text())
    assert page == scale_out.with_plan(page, results)
    measured = {"build": 1e8, "resize": 100, "packed": 0.5, "shards": 0.9, "resized_shards": 0.4}
    work = scale_out.work(measured)
    assert work["original"].core_hours == pytest.approx(22.6e12 / 1e8 / 3600)
    assert work["resized_1024"].core_hours == pytest.approx(
        work["original"].core_hours + scale_out.IMAGES / 100 / 3600
    )
    assert work["original"].moved == pytest.approx((11.3 + 2 * 22.6 + 0.9 * 22.6) * 1e12)


def test_other_loaders_make_the_masks_that_ours_make(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    sample = importlib.import_module("loaders.sample")
    monkeypatch.setattr(sample.random, "sample", lambda rows, n: rows[:n])
    tar = ROOT / "dummy_data" / "sa_000000.tar"
    ours = {pair.jpeg: pair.json for pair in archive.TarArchive(tar).pairs(Problems())}
    assert {jpeg: content for _, jpeg, content in sample.pairs(tar)} == ours
    for jpeg, content in ours.items():
        made, parsed = sample.make(jpeg, content), json.loads(content)
        height, width = sample.fitted((parsed["image"]["height"], parsed["image"]["width"]), 256)
        rles = [row["segmentation"] for row in parsed["annotations"][:32]]
        counts = [r["counts"].encode() for r in rles]
        masks = np.zeros((32, 256, 256), np.uint8)
        masks[: len(rles), :height, :width] = rle.decode_rles(
            counts, rles[0]["size"], (height, width)
        )
        np.testing.assert_array_equal(made["masks"], masks)
        for mask, ((x, y),) in zip(masks, made["points"], strict=True):
            assert mask[int(y * 256 / 1024), int(x * 256 / 1024)] or not mask.any()
        assert made["image"].shape == (1024, 1024, 3)
        assert not made["image"][4 * height + 4 :].any()
        assert not made["image"][:, 4 * width + 4 :].any()


@pytest.fixture
def alternatives(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("alternatives")


def test_alternatives_measures_ours_and_another_loader():
    command = [sys.executable, ROOT / "benchmarks" / "alternatives.py", "--images", "2"]
    command += ["--turns", "1", "--seconds", "0.1", "--only", "SA1BDataset", "torch"]
    command += ["--like", ROOT / "dummy_data" / "sa_000000.tar"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    heading, _, *rows = [line for line in printed.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| `SA1BDataset`, plain tars",
        f"| torch `Dataset` of files ({importlib.metadata.version('torch')})",
    ]
    for row in rows:
        figures = [float(value.replace(",", "")) for value in row.strip("| ").split(" | ")[1:]]
        assert len(figures) == heading.count(" | ")
        assert all(figure > 0 for figure in figures), row
    assert re.search(r"\nratio: [\d.]+\n$", printed)


def test_alternatives_says_what_is_missing(alternatives, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    loader = alternatives.LOADERS["torch"]
    assert alternatives._missing(loader) == ""
    assert "[bench]" in alternatives._missing(loader._replace(package="not_a_package"))
    assert "`make bench`" in alternatives._missing(alternatives.LOADERS["litdata"])


def test_alternatives_says_where_another_loader_is_better(alternatives, capsys):
    rows = {
        "original": alternatives.Row(90, 20, 600, 1.171, 5, 10),
        "grain": alternatives.Row(30, 50, 400, 1.169, 3, 12),
        "webdataset": alternatives.Row(20, 60, 700, 1.2, 4, 30),
    }
    alternatives._print(rows, dict.fromkeys(rows, "1.0"), {"litdata": "not installed"})
    assert capsys.readouterr().out.partition("\n\n")[2].splitlines() == [
        "- `training_dataset` of `original`: 90.0 images/s, 20 ms of CPU an image,"
        " 600 MB of memory.",
        "- The fastest alternative, Grain of array_record: 30.0 images/s, 50 ms of CPU an image,"
        " 400 MB of memory.",
        "- An alternative has less memory than `training_dataset` of `original` (600):"
        " Grain of array_record (400).",
        "- An alternative has an earlier first batch than `training_dataset` of `original` (5.0):"
        " Grain of array_record (3.0), webdataset (4.0).",
    ]


def test_the_table_of_other_loaders_is_on_the_page(bench):
    code = '"""Beside."""\nprint("| LitData | 3 |")\nprint("ratio: 2")\n'
    (bench / "alternatives.py").write_text(code)
    assert run_all.main([]) == 0
    page = (bench / "performance.md").read_text()
    assert "## Beside other loaders\n" in page
    assert "\n| LitData | 3 |\n" in page
