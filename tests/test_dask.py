"""The same tasks on a Dask cluster: a scheduler and two worker processes."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys
import threading

import psutil
import pytest
import tensorflow_datasets as tfds

from sa1b_tfds.building.dask_engine import asks_for_dask
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.core.processes import ProcessDied
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from tests import building, forked

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'sa1b_tfds[dask]'")

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dask.dask_runner import DaskRunner

from tests.dask_cluster import Cluster
from tests.downloading import wait_for

IMAGES = 120  # of 0.1 MB, in a tar that takes a worker long enough to be killed at work


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with contextlib.closing(Cluster(tmp_path_factory.mktemp("cluster"), 2, tries=2)) as running:
        yield running


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> pathlib.Path:
    return building.write_large_tars(tmp_path_factory.mktemp("tars"), 3, IMAGES)


@pytest.fixture(scope="module")
def of_processes(tars, tmp_path_factory) -> dict[str, str]:
    """The shards that worker processes write."""
    folder = tmp_path_factory.mktemp("pool")
    _build(tars, folder)
    return building.shards_of(folder / building.FINAL)


def _build(manual_dir, data_dir, address=None, runner=None) -> None:
    """On the cluster at an address; in two processes of this machine if there is none."""
    flags = [] if runner else ["--runner=DaskRunner"]
    options = address and PipelineOptions([*flags, *f"--dask_client_address={address}".split()])
    download = tfds.download.DownloadConfig(
        manual_dir=manual_dir, beam_runner=runner, beam_options=options
    )
    Builder(data_dir=data_dir, num_workers=2).download_and_prepare(download_config=download)


def _build_in_thread(*arguments) -> tuple[threading.Thread, list[Exception]]:
    errors: list[Exception] = []

    def build():
        try:
            _build(*arguments)
        except Exception as e:
            errors.append(e)

    thread = threading.Thread(target=build)
    thread.start()
    return thread, errors


def _at_work_on(cluster, tar, data_dir) -> psutil.Process:
    """Waits for the worker that has written something of a tar."""
    worker = cluster.worker_that_reads(tar)
    drafts = f"{building.STAGED}/tar-{tar.name}.00000.*.part"
    wait_for(lambda: any(path.stat().st_size for path in data_dir.glob(drafts)))
    return worker


def _staged(data_dir: pathlib.Path) -> dict[str, int]:
    """When the sidecar of each finished tar was written, by its name."""
    found = sorted((data_dir / building.STAGED).glob("*.json"))
    return {path.name: path.stat().st_mtime_ns for path in found}


class Relay:
    """Passes connections on to a port, and counts their bytes."""

    def __init__(self, port: int):
        self.bytes = 0
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._server.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near = self._server.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._port))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source, target):
        with contextlib.suppress(OSError), target:
            while data := source.recv(2**16):
                self.bytes += len(data)
                target.sendall(data)


def test_dask_and_processes_write_the_same_bytes(cluster, tars, of_processes, tmp_path):
    """Of tars in either form, as `tfds build` is told: only descriptions of them travel."""
    given = building.packed(tars, ("gzip", "plain", "gzip"))
    with contextlib.closing(Relay(int(cluster.address.rpartition(":")[2]))) as relay:
        words = ["segment_anything/original", "--imports", "sa1b_tfds", "--manual_dir", given]
        words += ["--data_dir", tmp_path, "--beam_pipeline_options"]
        words += [f"runner=DaskRunner,dask_client_address={relay.address}"]
        command = forked.command("-m", "tensorflow_datasets.scripts.cli.main", "build", *words)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert 0 < relay.bytes < 200_000
    assert sum(path.stat().st_size for path in tars.iterdir()) > 20_000_000
    assert building.shards_of(tmp_path / building.FINAL) == of_processes
    assert building.leftovers(tmp_path) == []


def test_a_failed_tar_is_named_and_the_others_go_on(cluster, tars, of_processes, tmp_path):
    torn = tmp_path / "torn"
    torn.mkdir()
    for path in tars.iterdir():
        (torn / path.name).symlink_to(path)
    whole = (torn / "sa_000001.tar").read_bytes()
    (torn / "sa_000001.tar").unlink()
    (torn / "sa_000001.tar").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(BadInput, match=r"sa_000001.tar: .*the tar is torn here"):
        _build(torn, tmp_path, cluster.address, DaskRunner())
    staged = _staged(tmp_path)
    assert list(staged) == ["tar-sa_000000.tar.json", "tar-sa_000002.tar.json"]
    with pytest.raises(BadInput, match="the tar is torn here"):
        _build(torn, tmp_path)
    assert _staged(tmp_path) == staged
    (torn / "sa_000001.tar").write_bytes(whole)
    _build(torn, tmp_path, cluster.address)
    assert building.shards_of(tmp_path / building.FINAL) == of_processes


def test_the_tar_of_a_killed_worker_is_built_by_another(cluster, tars, of_processes, tmp_path):
    thread, errors = _build_in_thread(tars, tmp_path, cluster.address)
    _at_work_on(cluster, tars / "sa_000000.tar", tmp_path).kill()
    thread.join()
    assert errors == []
    assert building.shards_of(tmp_path / building.FINAL) == of_processes
    assert building.leftovers(tmp_path) == []


def test_a_tar_that_ends_each_worker_is_named(cluster, tars, of_processes, tmp_path):
    """The others go on, and processes do what is left."""
    thread, errors = _build_in_thread(tars, tmp_path, cluster.address)
    first = _at_work_on(cluster, tars / "sa_000001.tar", tmp_path)
    first.kill()
    first.wait()
    for draft in (tmp_path / building.STAGED).glob("tar-sa_000001.tar.*.part"):
        draft.unlink()
    _at_work_on(cluster, tars / "sa_000001.tar", tmp_path).kill()
    thread.join()
    [error] = errors
    assert isinstance(error, ProcessDied)
    assert "2 Dask workers that had sa_000001.tar died" in str(error)
    assert error.closing == "1 of 3 failed: sa_000001.tar"
    staged = _staged(tmp_path)
    assert list(staged) == ["tar-sa_000000.tar.json", "tar-sa_000002.tar.json"]
    _build(tars, tmp_path)
    assert building.shards_of(tmp_path / building.FINAL) == of_processes
    assert building.leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("tars", "data", "there", "said"),
    [
        (
            "own/tars",
            "data",
            "",
            "find a file of sa_000000.tar: sa_000000.tar is not there any more",
        ),
        ("tars", "own/new", "", "find a file of sa_000000.tar: .* No such file .*/own/new/"),
        ("tars", "own/data", building.STAGED, "but its shards are not in .*/own/data/"),
    ],
)
def test_what_workers_do_not_reach_is_said(cluster, tmp_path, monkeypatch, tars, data, there, said):
    """/proc/self/cwd is another folder in each process, as /data may be on each machine."""
    building.write_tars(tmp_path / "tars", tars=1)
    for folder in cluster.folders:
        if there:
            (folder / "data" / there).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").symlink_to("/proc/self/cwd")
    with pytest.raises(FileNotFoundError, match=said):
        _build(tmp_path / tars, tmp_path / data, cluster.address)


@pytest.mark.parametrize(
    ("runner", "flag", "is_dask"),
    [
        (None, "DaskRunner", True),
        (None, "dask", True),
        (None, "apache_beam.runners.dask.dask_runner.DaskRunner", True),
        ("DaskRunner", None, True),
        (DaskRunner, None, True),
        (DaskRunner(), "DirectRunner", True),
        ("DirectRunner", "DaskRunner", False),
        (None, "DirectRunner", False),
        (None, None, False),
    ],
)
def test_the_runner_is_spelled_as_in_beam(runner, flag, is_dask):
    options = PipelineOptions([f"--runner={flag}"]) if flag else None
    assert asks_for_dask(runner, options) is is_dask


def test_what_cannot_apply_is_an_error(tars, tmp_path):
    with pytest.raises(ValueError, match="dask_npartitions cannot apply: each tar is one task"):
        _build(tars, tmp_path, "tcp://127.0.0.1:1 --dask_npartitions=2")


def test_without_dask_the_extra_is_named(tars, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'sa1b_tfds\[dask\]'"):
        _build(tars, tmp_path, "tcp://127.0.0.1:1")


def test_a_lost_scheduler_is_said(tmp_path, caplog):
    tars = building.write_tars(tmp_path / "tars", tars=1)
    (tmp_path / "cluster").mkdir()
    with contextlib.closing(Cluster(tmp_path / "cluster", 0)) as alone:
        thread, errors = _build_in_thread(tars, tmp_path, alone.address)
        wait_for(lambda: f"run `dask worker {alone.address}` on each machine" in caplog.text)
        alone.scheduler.kill()
        thread.join()
    [error] = errors
    said = "The connection to the Dask scheduler was lost before sa_000000.tar was finished."
    assert said in str(error)
    assert "Traceback" not in caplog.text
    with pytest.raises(ConnectionError, match=r"No Dask scheduler answers .*`dask scheduler`"):
        _build(tars, tmp_path, f"{alone.address} --dask_connection_timeout=1")
