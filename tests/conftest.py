"""Settings for all tests."""

import os
import pathlib
import shutil
import subprocess

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
hypothesis.settings.register_profile("sa1b", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("sa1b")


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of the asked for bytes; skips where that is not permitted."""
    mounted = []

    def mount(size: int) -> pathlib.Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
