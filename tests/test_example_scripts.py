"""The scripts in examples/ run on the dummy data."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Options that make a script small, what it prints then, and what it needs that is no dependency.
SCRIPTS = {
    "augment_torch.py": ([], "See augmented.png", "albumentations"),
    "data_source_torch.py": ([], "8 images; TensorFlow loaded: False", None),
    "demo.py": ([], "masks over sa_", None),
    "finetune_hf_sam.py": (["--steps", "2"], "loss: ", None),
    "finetune_keras_sam.py": (["--steps", "2"], "loss", None),
}


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_a_script_runs(name, tmp_path):
    options, printed, needs = SCRIPTS[name]
    if needs and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    run = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert printed in run.stdout
