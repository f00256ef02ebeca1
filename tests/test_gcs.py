"""gs:// by TensorFlow's own file system, on an emulator of Cloud Storage on loopback."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath

import sa1b_tfds
from sa1b_tfds.cli.main import main
from tests import building
from tests.gs_server import BUCKET, serving
from tests.threads import Thread, workers_are

TARS, DATA = f"gs://{BUCKET}/tars", f"gs://{BUCKET}/data"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Local tars and data, and the server, which has the same tars."""
    folder = tmp_path_factory.mktemp("store")
    tars = building.packed(building.write_tars(folder / "plain", tars=2), ("gzip", "plain"))
    building.prepare(tars, folder / "data")
    with (
        serving(tmp_path_factory.mktemp("server")) as server,
        mock.patch.dict(os.environ, server.environment),
        workers_are(Thread),
    ):
        for path in tars.iterdir():
            epath.Path(path).copy(f"{TARS}/{path.name}")
        yield folder, server


def test_x(store, capsys):
    assert main(["verify", TARS]) == 0
    assert main(["build", TARS, "--data-dir", DATA]) == 0
    print(capsys.readouterr().out)
    print(store[1].names())
    print(store[1].http.requests)
    assert 0
