"""The block of docs/models.md that fetches a model runs with a tiny one."""

import pathlib

import pytest

from tests import sam
from tests.page import blocks_of

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "models.md"


def test_keras_hub(prepared, monkeypatch):
    keras_hub = pytest.importorskip("keras_hub", reason="needs the extra 'keras'")
    monkeypatch.setattr(
        keras_hub.models.SAMImageSegmenter, "from_preset", lambda preset: sam.keras_sam()
    )
    (code,) = [b.code for b in blocks_of(PAGE.read_text()) if "tiny" in (b.not_run or "")]
    code = code.replace("TrainingConfig(", "TrainingConfig(split='train[:4]', ")
    scope = {}
    with sam.eager_steps():
        exec(code.replace(", config)", f", config, data_dir={str(prepared)!r})"), scope)
    assert scope["model"].history.history["loss"][0] > 0
