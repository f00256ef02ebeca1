"""The command line as a Unix tool; what each command does is tested beside its function."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from sa1b_tfds.cli.main import main
from tests import building

DUMMY = pathlib.Path(__file__).parents[1] / "dummy_data"


def test_a_reader_that_leaves_ends_it_without_a_word():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sa1b_tfds", "verify", str(DUMMY)]
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (run.returncode, run.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_keep_no_build_from_its_end(tmp_path, closed):
    build = f"{sys.executable} -m sa1b_tfds build {DUMMY} --data-dir {tmp_path} --workers 1"
    run = subprocess.run(f"{build} {closed}", shell=True, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / building.FINAL / "build_report.json").exists()
    assert ("images of" in run.stdout) == (closed == "2>&-")


@pytest.mark.parametrize(
    "command",
    [
        ["stats", str(DUMMY), "--json"],
        ["show", str(DUMMY), "--out"],
        ["eval", "--predictions", "p.json", "--data", str(DUMMY), "--out"],
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_work(tmp_path, capsys, command):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main([*command, str(tmp_path / "file" / "out.html")])
    assert f"{tmp_path}/file cannot be made: " in capsys.readouterr().err
