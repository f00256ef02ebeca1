"""The code of docs/models.md and docs/scale-out.md runs, where they do not say that it was not."""

import pathlib
import re

import pytest

from tests import sam

DOCS = pathlib.Path(__file__).parents[1] / "docs"


def blocks(name):
    """Python blocks that no comment says were not run."""
    text = (DOCS / name).read_text()
    found = re.findall(r"(<!--[^>]*-->\n)?```python\n(.*?)```", text, re.DOTALL)
    return [code for comment, code in found if "not run" not in comment]


def run(name, prepared, monkeypatch):
    monkeypatch.chdir(prepared.parent)
    (code,) = blocks(name)
    scope = {}
    exec(code.replace('"data"', repr(str(prepared))), scope)
    return scope


def test_models(prepared, monkeypatch):
    keras_hub = pytest.importorskip("keras_hub", reason="needs the extra 'keras'")
    monkeypatch.setattr(
        keras_hub.models.SAMImageSegmenter, "from_preset", lambda preset: sam.keras_sam()
    )
    scope = run("models.md", prepared, monkeypatch)
    assert scope["model"].history.history["loss"][0] > 0


def test_scale_out(prepared, monkeypatch, capsys):
    run("scale-out.md", prepared, monkeypatch)
    assert capsys.readouterr().out.count("(2, 256, 256, 3)") == 8
