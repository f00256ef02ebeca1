"""The wheel and the sdist: what is in them, and that the wheel works outside of the source tree."""

import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

import sa1b_tfds

ROOT = pathlib.Path(__file__).parents[1]

_SMOKE = """
import json, pathlib, sys
import tensorflow_datasets as tfds
import sa1b_tfds
from sa1b_tfds.download.md5_table import read_md5_table

def main():
    builder = tfds.builder('segment_anything', data_dir='data', num_workers=1)
    config = tfds.download.DownloadConfig(manual_dir=sys.argv[1])
    builder.download_and_prepare(file_format='array_record', download_config=config)
    source = builder.as_data_source(split='train')
    print(json.dumps({
        'where': sa1b_tfds.__file__,
        'images': len(source),
        'masks': sum(len(example['masks']) for example in source),
        'description': builder.info.description,
        'citation': builder.info.citation,
        'tags': len(builder.get_metadata().tags),
        'md5': len(read_md5_table()),
        'typed': (pathlib.Path(sa1b_tfds.__file__).parent / 'py.typed').exists(),
    }))

if __name__ == '__main__':
    main()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    """(the wheel, the sdist)"""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def _run(*command: object, **options) -> str:
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_wheel_holds_the_package_only(built):
    names = zipfile.ZipFile(built[0]).namelist()
    info = f"sa1b_tfds-{sa1b_tfds.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"sa1b_tfds", info}
    files = {path for path in (ROOT / "sa1b_tfds").rglob("*") if path.is_file()}
    expected = {str(p.relative_to(ROOT)) for p in files if p.parent.name != "__pycache__"}
    assert {name for name in names if name.startswith("sa1b_tfds/")} == expected


def test_the_sdist_makes_the_same_wheel(built, tmp_path):
    with tarfile.open(built[1]) as tar:
        tar.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert (source / "dummy_data" / "sa_000000.tar").exists()  # the tests can run from it
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    wheels = [zipfile.ZipFile(built[0]), zipfile.ZipFile(next(tmp_path.glob("*.whl")))]
    content, again = ({name: wheel.read(name) for name in wheel.namelist()} for wheel in wheels)
    assert again == content


def test_the_wheel_works_in_a_fresh_environment(built, tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", built[0])
    # Its dependencies are those of this environment, which holds the source tree by a .pth file:
    # in a folder that is only a path, such files do nothing.
    (here,) = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (fresh,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (fresh / "dependencies.pth").write_text(here)
    work = tmp_path / "work"
    work.mkdir()
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    options = {"cwd": work, "env": environment}

    (work / "smoke.py").write_text(_SMOKE)
    found = json.loads(_run(python, "smoke.py", ROOT / "dummy_data", **options).splitlines()[-1])
    assert found.pop("where").startswith(str(fresh))
    assert found.pop("description").startswith("SA-1B is the dataset of Segment Anything")
    assert "title" in found.pop("citation")
    assert found.pop("tags") > 0
    assert found == {"images": 8, "masks": 193, "md5": 1000, "typed": True}

    sa1b = python.with_name("sa1b")
    commands = _run(sa1b, "--help", **options)
    for path in (ROOT / "sa1b_tfds" / "cli").glob("*.py"):
        if "def add(commands: Commands)" in path.read_text():
            assert f"\n    {path.stem} " in commands
    assert "2 of 2 tars whole" in _run(sa1b, "verify", ROOT / "dummy_data", "--deep", **options)
