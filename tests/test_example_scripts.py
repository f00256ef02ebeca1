"""The scripts in examples/ run on the dummy data."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Options that make a script small, and what it prints then.
SCRIPTS = {
    "demo.py": ([], "masks over sa_"),
}


def test_every_script_is_in_the_table():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == SCRIPTS.keys()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name, tmp_path):
    options, printed = SCRIPTS[name]
    run = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert printed in run.stdout
