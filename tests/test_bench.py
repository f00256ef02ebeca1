"""`make bench`: every benchmark is run, one that fails is named, and the page is what they gave."""

import json
import pathlib
import re

import pytest

from benchmarks import run_all

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
    helpers = {"bars.py", "loaders.py", "run_all.py", "synthetic.py"}
    names = {path.name for path in (ROOT / "benchmarks").glob("*.py")} - helpers
    assert set(run_all.scripts()) == names
    results = json.loads(run_all.RESULTS.read_text())
    assert results.keys() <= names


def test_other_loaders_are_a_table_that_says_where_they_are_better():
    printed = [
        f"{'':34}{'images/s':>11}{'CPU ms':>11}",
        f"  {'theirs':32}{'10.0':>11}{'1,000.0':>11}",
        f"* {'ours':32}{'20.0':>11}{'2,000.0':>11}",
        "Other: not measured, no other",
    ]
    assert run_all.loaders(printed) == [
        "| | images/s | CPU ms |",
        "|---|---|---|",
        "| theirs | 10.0 | 1,000.0 |",
        "| **ours** | 20.0 | 2,000.0 |",
        "",
        "Other: not measured, no other",
        "Best in CPU ms is theirs.",
    ]


def test_the_page_is_what_the_results_give():
    page = run_all.PAGE.read_text()
    assert page == run_all.with_results(page, json.loads(run_all.RESULTS.read_text()))


def test_the_readme_is_what_the_results_give():
    readme = run_all.README.read_text()
    assert readme == run_all.with_figures(readme, json.loads(run_all.RESULTS.read_text()))
