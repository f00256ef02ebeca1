import inspect
import json
import subprocess
import sys

CODE = """
import json, sys
import tensorflow_datasets
before = set(sys.modules)
import sa1b_tfds
ours = sorted(name for name in set(sys.modules) - before if not name.startswith("sa1b_tfds"))
sa1b_tfds.decode_rle({"size": [1, 2], "counts": [1, 1]})
tensorflow_datasets.builder_cls("segment_anything")
sa1b_tfds.decode_masks_to(size=(8, 8))
print(json.dumps([ours, "tensorflow" in sys.modules]))
"""


def test_import_loads_no_tensorflow():
    run = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    others, tensorflow = json.loads(run.stdout)
    assert others == []
    assert not tensorflow  # nor after what needs none was used


def test_every_public_name_is_there():
    import sa1b_tfds

    for name in sa1b_tfds.__all__:
        public = getattr(sa1b_tfds, name)
        module = public.__name__ if inspect.ismodule(public) else public.__module__
        assert module.startswith("sa1b_tfds.")
