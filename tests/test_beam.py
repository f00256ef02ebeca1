"""The same tasks under Apache Beam."""

import dataclasses
import functools
import pathlib

import pytest
import tensorflow_datasets as tfds

from sa1b_tfds.core import own_json
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from tests import building

pipeline_options = pytest.importorskip("apache_beam.options.pipeline_options")


def _build(manual_dir, data_dir, flags=None, **options) -> Builder:
    builder = Builder(data_dir=data_dir, num_workers=2, **options)
    beam_options = None if flags is None else pipeline_options.PipelineOptions(flags)
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=manual_dir, beam_options=beam_options
        )
    )
    return builder


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> pathlib.Path:
    return building.write_tars(tmp_path_factory.mktemp("tars"), tars=3, images=4)


@pytest.fixture(scope="module")
def of_processes(tars, tmp_path_factory) -> dict[str, str]:
    """The shards that worker processes write."""
    folder = tmp_path_factory.mktemp("pool")
    _build(tars, folder)
    return building.shards_of(folder / building.FINAL)


@pytest.mark.parametrize(
    "flags",
    [
        ["--runner=BundleBasedDirectRunner"],
        [
            "--runner=DirectRunner",
            "--direct_running_mode=multi_processing",
            "--direct_num_workers=2",
        ],
        # The way in which a Flink or Spark cluster is given its jobs.
        ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"],
    ],
    ids=["direct", "multi_processing", "portable"],
)
def test_beam_and_processes_write_the_same_bytes(tars, of_processes, tmp_path, flags):
    """Of tars in either form: those under Beam are compressed, but one."""
    _build(building.packed(tars, ("gzip", "plain", "gzip")), tmp_path / "beam", flags)
    assert building.shards_of(tmp_path / "beam" / building.FINAL) == of_processes
    assert len(of_processes) == 3
    assert building.leftovers(tmp_path / "beam") == []


def test_a_damaged_word_of_a_worker_is_named(tmp_path, monkeypatch):
    torn = building.write_tars(tmp_path / "torn", tars=1, images=4)
    (torn / "sa_000000.tar").write_bytes(b"x" * 999)
    dumps = own_json.dumps
    monkeypatch.setattr(own_json, "dumps", lambda c: b"{" if "reason" in c else dumps(c))
    said = r"sa_000000.tar was not converted by the Beam pipeline: .*\.failure is damaged"
    with pytest.raises(RuntimeError, match=said):
        _build(torn, tmp_path, ["--runner=BundleBasedDirectRunner"])


@pytest.mark.parametrize(
    ("form", "reason"),
    [("plain", "the tar is torn here"), ("gzip", "it is damaged: it ends at byte")],
)
def test_one_engine_goes_on_where_the_other_ended(of_processes, tmp_path, form, reason):
    torn = building.FORMS[form](building.write_tars(tmp_path / "torn", tars=3, images=4))
    whole = (torn / "sa_000001.tar").read_bytes()
    (torn / "sa_000001.tar").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(BadInput, match=rf"sa_000001.tar: .*{reason}"):
        _build(torn, tmp_path, ["--runner=BundleBasedDirectRunner"])
    staged = sorted((tmp_path / building.STAGED).glob("*.json"))
    assert [path.name for path in staged] == ["tar-sa_000000.tar.json", "tar-sa_000002.tar.json"]
    times = [path.stat().st_mtime_ns for path in staged]
    with pytest.raises(BadInput, match=reason):
        _build(torn, tmp_path)
    assert [path.stat().st_mtime_ns for path in staged] == times
    (torn / "sa_000001.tar").write_bytes(whole)
    _build(torn, tmp_path)
    assert building.shards_of(tmp_path / building.FINAL) == of_processes


def test_a_worker_that_writes_otherwise_is_said(tars, tmp_path, monkeypatch):
    """As one with another version of Pillow would."""
    beam_engine = pytest.importorskip("sa1b_tfds.building.beam_engine")
    otherwise = functools.partial(_converted, beam_engine.convert)
    monkeypatch.setattr(beam_engine, "convert", otherwise)
    with pytest.raises(RuntimeError, match="pipeline: its num_shards was 2, now it is None"):
        _build(tars, tmp_path, ["--runner=BundleBasedDirectRunner"])


def _converted(convert, task):
    return convert(dataclasses.replace(task, num_shards=2))
