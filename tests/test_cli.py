"""The command line as a Unix tool; what each command does is tested beside its function."""

import os
import pathlib
import signal
import subprocess
import sys

DUMMY = pathlib.Path(__file__).parents[1] / "dummy_data"


def test_a_reader_that_leaves_ends_it_without_a_word():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "sa1b_tfds.cli", "verify", str(DUMMY)]
    run = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (run.returncode, run.stderr) == (128 + signal.SIGPIPE, "")
