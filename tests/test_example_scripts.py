"""The scripts in examples/ run on the dummy data."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Options that make a script small, and what it prints then.
SCRIPTS = {
    "augment_torch.py": ([], "See augmented.png"),
    "data_source_torch.py": ([], "8 images; TensorFlow loaded: False"),
    "demo.py": ([], "masks over sa_"),
    "finetune_hf_sam.py": (["--steps", "2"], "at last"),
    "finetune_keras_sam.py": (["--steps", "2"], "loss"),
}
_NEEDS = {
    "augment_torch.py": ("torch", "albumentations"),
    "data_source_torch.py": ("torch",),
    "finetune_hf_sam.py": ("torch", "transformers"),
}


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_a_script_runs(name, tmp_path):
    for module in _NEEDS.get(name, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    options, printed = SCRIPTS[name]
    run = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *options],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "MPLBACKEND": "agg",
            "NO_ALBUMENTATIONS_UPDATE": "1",
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert printed in run.stdout
