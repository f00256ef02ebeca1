"""The code of docs/training.md runs, and its tables are true. Fields: `test_training_config.py`."""

import pathlib
import re

import tensorflow_datasets as tfds

import sa1b_tfds

ROOT = pathlib.Path(__file__).parents[1]
DOCS = (ROOT / "docs" / "training.md").read_text()


def test_the_example_runs_and_the_table_of_batches_is_true(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    builder = tfds.builder("segment_anything", data_dir="data", num_workers=1)
    config = tfds.download.DownloadConfig(manual_dir=str(ROOT / "dummy_data"))
    builder.download_and_prepare(download_config=config)
    capsys.readouterr()
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    scope: dict = {}
    exec(code, scope)
    assert capsys.readouterr().out.count("'masks': TensorShape([2, 8, 64, 64])") == 4
    table = re.findall(r"^\| `(\w+)` \| (\w+) \| \[B(?:, ([^\]]+))?\] \|", DOCS, re.MULTILINE)
    sizes = {"S": 256, "K": 8, "M": 64, "P": 1}
    documented = {
        name: (dtype, [2] + [sizes.get(n, n) for n in shape.split(", ") if n])
        for name, dtype, shape in table
    }
    spec = scope["dataset"].element_spec
    assert documented.keys() == spec.keys()
    for name, (dtype, shape) in documented.items():
        assert spec[name].dtype.name == dtype
        assert spec[name].shape.as_list() == [int(n) for n in shape]
    assert isinstance(scope["config"], sa1b_tfds.TrainingConfig)
