import inspect
import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, sys
import tensorflow_datasets
before = set(sys.modules)
import sa1b_tfds
ours = sorted(name for name in set(sys.modules) - before if not name.startswith("sa1b_tfds"))
sa1b_tfds.decode_rle({"size": [1, 2], "counts": [1, 1]})
tensorflow_datasets.builder_cls("segment_anything")
sa1b_tfds.decode_masks_to(size=(8, 8))
print(json.dumps([ours, sorted({"tensorflow", "urllib3"} & set(sys.modules))]))
"""


def test_import_loads_no_tensorflow_and_no_http():
    run = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    others, heavy = json.loads(run.stdout)
    assert others == []
    assert heavy == []  # nor after what needs none was used


@pytest.mark.parametrize(("before", "after"), [(None, "true"), ("false", "false")])
def test_the_allocator_of_tensorflow_is_set_unless_the_user_has(before, after):
    name = "TF_CPU_ALLOCATOR_USE_BFC"
    others = {key: value for key, value in os.environ.items() if key != name}
    code = f"import os, sa1b_tfds; print(os.environ[{name!r}])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=others if before is None else {**others, name: before},
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == after


def test_every_public_name_is_there():
    import sa1b_tfds

    for name in sa1b_tfds.__all__:
        public = getattr(sa1b_tfds, name)
        module = public.__name__ if inspect.ismodule(public) else public.__module__
        assert module.startswith("sa1b_tfds.")
