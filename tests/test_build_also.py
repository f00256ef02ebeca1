"""`sa1b build --also`: the shards of two configs, in one pass over the tars."""

import io
import json
import os

import pytest
from etils import epath
from PIL import Image

from sa1b_tfds.building.conversion_task import convert
from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.cli.main import main
from sa1b_tfds.segment_anything.build_config import BuildConfig
from sa1b_tfds.segment_anything.plan import plan
from tests import building

CONFIGS = ("original", "resized_1024")
# Larger than 1024, so that the two configs differ.
LARGE = {"height": 40, "width": 1100}


@pytest.fixture(scope="module", params=["plain", "gzip"])
def tars(request, tmp_path_factory):
    """Images 0 to 5 in three tars."""
    plain = building.write_tars(tmp_path_factory.mktemp("also") / "plain", 3, 2, **LARGE)
    return building.FORMS[request.param](plain)


@pytest.fixture(scope="module")
def apart(tars, tmp_path_factory):
    """What two builds make."""
    data = tmp_path_factory.mktemp("apart")
    for config in CONFIGS:
        assert _sa1b(tars, data, config) == 0
    return _shards(data)


def _sa1b(tars, data, config, *arguments) -> int:
    arguments = (tars, "--data-dir", data, "--config", config, *arguments)
    return main(["build", "--workers", "1", *map(str, arguments)])


def _both(tars, data, *arguments) -> int:
    return _sa1b(tars, data, "original", "--also", "resized_1024", *arguments)


def _folder(data, config):
    return data / "segment_anything" / config / "2.0.0"


def _shards(data):
    return {config: building.shards_of(_folder(data, config)) for config in CONFIGS}


def _report(data, config):
    return json.loads((_folder(data, config) / "build_report.json").read_text())


def _no_task_twice(monkeypatch):
    """Counts the passes over each tar."""
    passes = []
    monkeypatch.setattr(
        "sa1b_tfds.core.running.pool.ProcessPool.__call__",
        lambda pool, tasks: [(passes.append(task.name), convert(task)) for task in tasks] and {},
    )
    return passes


def test_both_are_what_two_builds_make_in_one_pass(tars, apart, tmp_path, monkeypatch, capsys):
    passes = _no_task_twice(monkeypatch)
    assert _both(tars, tmp_path) == 0
    assert sorted(passes) == [f"sa_00000{i}.tar" for i in range(3)]
    assert _shards(tmp_path) == apart
    assert apart["original"] != apart["resized_1024"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "original:"
    assert lines[1].startswith("6 images of 3 tars in 3 shards")
    assert lines[2] == "resized_1024:"
    assert lines[3].startswith("6 images of 3 tars in 3 shards")
    assert not building.leftovers(tmp_path)


def test_what_one_of_them_has_is_not_made_again(tars, apart, tmp_path, monkeypatch):
    assert _sa1b(tars, tmp_path, "resized_1024") == 0
    before = {path: path.stat().st_mtime_ns for path in _folder(tmp_path, "resized_1024").iterdir()}
    passes = _no_task_twice(monkeypatch)
    assert _both(tars, tmp_path) == 0
    assert len(passes) == 3
    assert _shards(tmp_path) == apart
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert _both(tars, tmp_path) == 0
    assert len(passes) == 3


@pytest.mark.parametrize("finished", range(6))
def test_interrupted_anywhere_and_run_again(tars, apart, tmp_path, monkeypatch, finished):
    """A kill leaves what is there when a tar's last file gets its name, or before it does."""
    finish, done = Staging.finish, []

    def interrupted(staging, tar, drafts):
        if len(done) == finished:
            raise KeyboardInterrupt
        finish(staging, tar, drafts)
        done.append(os.path.basename(os.path.dirname(staging.folder)))

    with monkeypatch.context() as patch:
        _no_task_twice(patch)
        patch.setattr(Staging, "finish", interrupted)
        assert _both(tars, tmp_path) == 130
    # The other config comes first: a tar that is finished in this one is finished in both.
    assert done == (["resized_1024", "original"] * 3)[:finished]
    passes = _no_task_twice(monkeypatch)
    assert _both(tars, tmp_path) == 0
    assert len(passes) == 3 - finished // 2
    assert _shards(tmp_path) == apart
    assert not building.leftovers(tmp_path)


def test_a_skipped_image_is_in_both_reports(tmp_path):
    tars, data = building.write_tars(tmp_path / "tars", 1, 2, **LARGE), tmp_path / "data"
    files = building.make.files_of(7, **LARGE)
    # The table of a last scan is wrong: only a build that makes the image smaller notices.
    out = io.BytesIO()
    Image.open(io.BytesIO(files["./sa_7.jpg"])).save(out, "JPEG", progressive=True)
    broken = bytearray(out.getvalue())
    broken[broken.rindex(b"\xff\xc4") + 5] = 255
    files["./sa_7.jpg"] = bytes(broken)
    files["./sa_9.json"] = b"{}"
    building.make.write_tar(tars / "sa_000001.tar", files)
    assert _both(tars, data) == 1
    assert _both(tars, data, "--on-error", "skip") == 0
    skipped = {
        config: sorted(problem["member"] for problem in _report(data, config)["skipped"])
        for config in CONFIGS
    }
    assert skipped["original"] == ["./sa_9.json"]
    assert skipped["resized_1024"] == ["./sa_7.jpg", "./sa_9.json"]


def test_both_are_extended(tars, apart, tmp_path):
    folder, data = tmp_path / "tars", tmp_path / "data"
    folder.mkdir()
    for tar in sorted(tars.iterdir())[:2]:
        os.link(tar, folder / tar.name)
    assert _both(folder, data) == 0
    os.link(tars / "sa_000002.tar", folder / "sa_000002.tar")
    assert _both(folder, data) == 1
    assert _both(folder, data, "--add") == 0
    assert _shards(data) == apart


def test_the_plan_is_of_both(tars, tmp_path):
    own, other, both = (
        plan(BuildConfig(tars=tars, data_dir=tmp_path, config=config, also=also))
        for config, also in ((*CONFIGS[:1], None), (*CONFIGS[1:], None), CONFIGS)
    )
    assert both.tars == own.tars == other.tars
    assert both.prepared == own.prepared + other.prepared
    assert both.scratch == own.scratch
    _sa1b(tars, tmp_path, "original")
    left = plan(BuildConfig(tars=tars, data_dir=tmp_path, config="original", also="resized_1024"))
    assert left.prepared == other.prepared
    assert [tar.state for tar in left.tars] == ["there"] * 3


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--also", "original"], "also must be another config than 'original'"),
        (["--also", "resized_1024", "--delete-tars", "all"], "Delete them after the build"),
        (["--also", "resized"], "no such config: resized. Did you mean resized_1024"),
    ],
)
def test_what_makes_no_sense_is_refused(tars, tmp_path, arguments, error, capsys):
    with pytest.raises(SystemExit) as end:
        _sa1b(tars, tmp_path, "original", *arguments)
    assert end.value.code == 2
    assert error in capsys.readouterr().err


def test_the_folder_of_the_other_config_is_locked(tars, tmp_path, capsys):
    with Folder(epath.Path(_folder(tmp_path, "resized_1024"))).locked():
        assert _both(tars, tmp_path) == 1
    assert "resized_1024" in capsys.readouterr().err
