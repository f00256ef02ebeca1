"""The scripts in examples/ run on the dummy data.

Those that train are run by test_keras.py and test_huggingface.py.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from tests import forked

ROOT = pathlib.Path(__file__).parents[1]
# What a script prints, by its name and arguments.
SCRIPTS = {
    "augment_torch.py": "See augmented.png",
    "data_source_torch.py": "8 images; TensorFlow loaded: False",
    "demo.py": "a training batch: ",
    "distill_image_encoder.py": "trained on embeddings (4, 4, 16) of keras",
    "distill_image_encoder.py --teacher transformers --epochs 1": (
        "trained on embeddings (4, 4, 16) of transformers"
    ),
}
_NEEDS = {
    "augment_torch.py": ("torch", "albumentations"),
    "data_source_torch.py": ("torch",),
    "distill_image_encoder.py": ("keras_hub", "torch", "transformers"),
}
_LOAD_TENSORFLOW = {"demo.py", "distill_image_encoder.py"}
_ELSEWHERE = {"finetune_hf_sam.py": "test_huggingface.py", "finetune_keras_sam.py": "test_keras.py"}


def test_no_script_is_forgotten():
    names = {command.split()[0] for command in SCRIPTS}
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*names, *_ELSEWHERE}
    for script, test in _ELSEWHERE.items():
        assert script.removesuffix(".py") in (ROOT / "tests" / test).read_text()


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_script_runs(command, tmp_path):
    name, *arguments = command.split()
    for module in _NEEDS.get(name, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    script = [ROOT / "examples" / name, *arguments]
    run = subprocess.run(
        forked.command(*script) if name in _LOAD_TENSORFLOW else [sys.executable, *script],
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
    assert SCRIPTS[command] in run.stdout
