"""`sa1b build`: plan, build, extend, and tars that are deleted once they are finished."""

import errno
import functools
import hashlib
import http.server
import os
import pathlib
import re
import shutil
import subprocess
import threading

import pytest
import tensorflow_datasets as tfds
from etils import epath

from sa1b_tfds.building import tar_supply
from sa1b_tfds.building.conversion import Conversion
from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.building.tar_supply import IN_FLIGHT
from sa1b_tfds.cli.main import main
from sa1b_tfds.core.lock import lock_folder
from sa1b_tfds.examples import record_files
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.segment_anything import build_state
from sa1b_tfds.segment_anything.build_config import BuildConfig
from sa1b_tfds.segment_anything.plan import plan
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from sa1b_tfds.tars import kept
from sa1b_tfds.tars.archive import TarArchive, find_archives
from sa1b_tfds.tars.index import index_archive
from tests import building

pytestmark = pytest.mark.usefixtures("threads")


@pytest.fixture
def tars(tmp_path, request) -> pathlib.Path:
    plain = building.write_tars(tmp_path / "plain", tars=3, images=4)
    form = getattr(request, "param", "plain")
    return building.FORMS[form](plain).rename(tmp_path / "tars")


either_form = pytest.mark.parametrize("tars", ["plain", "gzip"], indirect=True)
any_form = pytest.mark.parametrize("tars", building.FORMS, indirect=True)


@pytest.fixture
def links(tars, tmp_path, monkeypatch):
    """A links file of the tars, served over loopback; and the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tars))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lines = ["file_name\tcdn_link"]
    for tar in sorted(tars.glob("*.tar")):
        lines.append(f"{tar.name}\thttp://127.0.0.1:{server.server_port}/{tar.name}")
    path = tmp_path / "links.txt"
    path.write_text("\n".join(lines) + "\n")
    # The community's table knows the real tars of these names.
    monkeypatch.setattr("sa1b_tfds.download.transfer.jobs.read_md5_table", dict)
    yield path, asked
    server.shutdown()
    server.server_close()


_tasks = Conversion.tasks


def _sa1b(*arguments) -> int:
    """With one worker, as its start takes most of a build's time; what shares the work says so."""
    return main(["build", "--workers", "1", *map(str, arguments)])


def _ids(data_dir) -> list[int]:
    return sorted(example.image_id for example in read_examples(data_dir / building.FINAL))


@either_form
def test_one_tar(tars, tmp_path):
    assert _sa1b(tars / "sa_000001.tar", "--data-dir", tmp_path / "data") == 0
    assert _ids(tmp_path / "data") == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("写" * 30, "写" * 30),
        ("a" * 150 + "/" + "b" * 150, "a" * 150 + "/" + "b" * 150),
        (os.fsdecode(b"\xff\xfe"), r"\xff\xfe"),
    ],
)
def test_folders_of_any_name(tars, tmp_path, folder, name):
    data, deep = tmp_path / "data", tars / folder
    deep.mkdir(parents=True)
    for number in (1, 2):
        (tars / f"sa_00000{number}.tar").rename(deep / f"sa_00000{number}.tar")
    torn = deep / "sa_000002.tar"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-15000])
    assert _sa1b(tars, "--data-dir", data, "--delete-tars=all") == 1
    torn.write_bytes(whole)
    assert _sa1b(tars, "--data-dir", data, "--delete-tars=all") == 0
    assert _ids(data) == list(range(12))
    assert [tar["name"] for tar in building.report_of(data)["tars"]] == [
        "sa_000000.tar",
        f"{name}/sa_000001.tar",
        f"{name}/sa_000002.tar",
    ]


def test_a_link_to_nowhere_in_a_folder_is_skipped_and_named(tmp_path, capsys):
    folder, data = tmp_path / "files", tmp_path / "data"
    folder.mkdir()
    for name, content in (building.make.files_of(1) | building.make.files_of(2)).items():
        (folder / name).write_bytes(content)
    (folder / "sa_1.jpg").unlink()
    (folder / "sa_1.jpg").symlink_to("nowhere.jpg")
    assert _sa1b(folder, "--data-dir", data) == 1
    assert "sa_1.jpg: it cannot be read: No such file" in capsys.readouterr().err
    assert _sa1b(folder, "--data-dir", data, "--on-error", "skip") == 0
    assert _ids(data) == [2]
    members = [problem["member"] for problem in building.report_of(data)["skipped"]]
    assert members == [f"{folder}/sa_1.jpg", f"{folder}/sa_1.json"]


@either_form
def test_a_tar_that_changed_since_is_said_and_converted_again_by_add(tars, tmp_path, caplog):
    arguments = (tars, "--data-dir", tmp_path / "data")
    assert _sa1b(*arguments) == 0
    building.make.write_tar(tars / "sa_000001.tar", building.make.files_of(100))
    assert _sa1b(*arguments) == 0
    assert "1 tar changed since the data was made (sa_000001.tar)" in caplog.text
    assert _sa1b(*arguments, "--add") == 0
    assert _ids(tmp_path / "data") == [*range(4), *range(8, 12), 100]
    caplog.clear()
    assert _sa1b(*arguments) == 0
    assert "changed" not in caplog.text


@either_form
def test_plan_says_what_would_be_done_and_does_nothing(tars, tmp_path, capsys):
    data = tmp_path / "data"
    assert _sa1b(tars, "--data-dir", data, "--plan") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sa_000000.tar: there, ")
    assert lines[-1].startswith("3 of 3 tars to convert, about 1 s; up to ")
    is_packed = TarArchive(tars / "sa_000000.tar").is_packed()
    assert is_packed == bool(re.search(r", and for a while .* of unpacked tars, ", lines[-1]))
    assert "download" not in lines[-1]
    assert not data.exists()


def test_a_plan_with_links_counts_what_is_downloaded(links, tmp_path, capsys):
    _sa1b(tmp_path / "new", "--data-dir", tmp_path, "--links-file", links[0], "--plan")
    printed = capsys.readouterr().out
    assert re.search(
        r" without downloads; up to .* shards, 33.9 GB of downloaded tars, and for", printed
    )


def test_a_plan_that_does_not_fit_says_so(tars, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda path: 1000)
    assert _sa1b(tars, "--data-dir", tmp_path / "data", "--plan") == 1
    assert re.search(r"does not fit, as up to .* and 1\.0 kB are free", capsys.readouterr().err)


@pytest.mark.parametrize("flags", [[], ["--plan"]])
def test_a_folder_without_tars_is_said(tmp_path, capsys, flags):
    arguments = (tmp_path / "none", "--data-dir", tmp_path / "data", *flags)
    assert _sa1b(*arguments) == 1
    assert "none is not there: name the folder of the tars" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert _sa1b(*arguments) == 1
    assert "none holds no tar of 'original' (sa_000000.tar and so on)" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_plan_without_work_says_so(tars, tmp_path, capsys):
    arguments = (tars, "--data-dir", tmp_path / "data")
    assert _sa1b(*arguments) == 0
    capsys.readouterr()
    assert _sa1b(*arguments, "--plan") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Nothing to convert: 3 tars, all finished"
    assert len(lines) == 4


def test_a_config_in_the_place_of_the_folder_is_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for tars, hint in (("original_1pct", " A config goes after --config."), ("my/tars", "")):
        assert _sa1b(tars, "--data-dir", "data") == 1
        said = f"{tars} is not there: name the folder of the tars.{hint}\n"
        assert capsys.readouterr().err == f"sa1b build: {said}"


def test_a_plan_of_add_has_the_tars_that_changed(tars, tmp_path, capsys):
    arguments = (tars, "--data-dir", tmp_path / "data", "--add")
    assert _sa1b(*arguments) == 0
    building.make.write_tar(tars / "sa_000001.tar", building.make.files_of(100))
    capsys.readouterr()
    assert _sa1b(*arguments, "--plan") == 0
    assert "\n1 of 3 tars to convert" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_said_beside_what_is_staged(tars, tmp_path, capsys):
    (tars / "sa_000002.tar").write_bytes((tars / "sa_000002.tar").read_bytes()[:-15000])
    assert _sa1b(tars, "--data-dir", tmp_path / "data") == 1
    assert _sa1b(tmp_path / "tasr", "--data-dir", tmp_path / "data") == 1
    assert "tasr is not there" in capsys.readouterr().err


def test_tars_that_a_config_lacks_are_said(tars, tmp_path, caplog):
    arguments = (tars, "--data-dir", tmp_path / "data", "--config", "original_1pct", "--plan")
    with caplog.at_level("WARNING", "absl"):
        assert _sa1b(*arguments) == 0
    assert "Built without 7 of the 10 tars of 'original_1pct': neither in" in caplog.text


@pytest.mark.usefixtures("processes")
@any_form
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_build_then_add(tars, tmp_path, capsys, file_format):
    data = tmp_path / "data"
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    two = ("--workers", 2)
    assert _sa1b(tars, "--data-dir", data, "--file-format", file_format, *two) == 0
    summary = capsys.readouterr().out.splitlines()[-1]
    assert summary.startswith("8 images of 2 tars in 2 shards, ")
    before = building.shards_of(data / building.FINAL)

    held_back.rename(tars / "sa_000001.tar")
    assert _sa1b(tars, "--data-dir", data) == 1
    assert "without 1 of the tars (sa_000001.tar). Extend it with --add." in (
        capsys.readouterr().err
    )
    (tars / "sa_000000.tar").unlink()  # finished tars are not needed
    assert _sa1b(tars, "--data-dir", data, "--add", *two) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].startswith("12 images of 3 tars in 3 shards, ")
    assert captured.err.count(": done") == 1
    after = building.shards_of(data / building.FINAL)
    assert list(after.values())[::2] == list(before.values())
    assert building.leftovers(data) == []
    assert _ids(data) == list(range(12))


def test_add_keeps_shards_of_another_size_and_cuts_alike(tars, tmp_path, caplog):
    data = tmp_path / "data"
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    config = tfds.download.DownloadConfig(manual_dir=tars, max_shard_size=9000)  # 3 a tar
    Builder(data_dir=data).download_and_prepare(download_config=config)
    before = building.shards_of(data / building.FINAL)
    for tar in tars.iterdir():
        tar.unlink()  # finished tars are not needed
    held_back.rename(tars / "sa_000001.tar")
    assert _sa1b(tars, "--data-dir", data, "--add") == 0
    after = list(building.shards_of(data / building.FINAL).values())
    assert (len(before), len(after)) == (6, 9)
    assert after[:3] + after[6:] == list(before.values())
    assert "converted again" not in caplog.text


def test_add_keeps_shards_however_they_were_cut_and_coded(tars, tmp_path, caplog):
    data, final = tmp_path / "data", "segment_anything/resized_1024/2.0.0"
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    config = tfds.download.DownloadConfig(manual_dir=tars, num_shards=4)
    Builder(data_dir=data, config="resized_1024").download_and_prepare(download_config=config)
    before = list(building.shards_of(data / final).values())
    receipts = data / final / "tars.jsonl"
    text = re.sub('"checksum":[0-9]+,', "", receipts.read_text())
    receipts.write_text(re.sub('"pillow":"[^"]*"', '"pillow":"1.0"', text))
    held_back.rename(tars / "sa_000001.tar")
    arguments = (tars, "--data-dir", data, "--config", "resized_1024", "--add", "--md5")
    assert _sa1b(*arguments, "--on-error", "skip") == 0
    after = list(building.shards_of(data / final).values())
    assert (after[:2] + after[3:], len(after)) == (before, 5)
    assert "converted again" not in caplog.text
    assert "No MD5 was taken of sa_000000.tar, sa_000002.tar: " in caplog.text


def test_add_keeps_the_shards_of_a_tar_of_which_something_was_skipped(tars, tmp_path):
    data = tmp_path / "data"
    files = building.make.files_of(20) | building.make.files_of(21)
    files["./sa_21.jpg"] = b"no image"
    building.make.write_tar(tars / "sa_000003.tar", files)
    assert _sa1b(tars, "--data-dir", data, "--on-error", "skip") == 0
    (tars / "sa_000003.tar").unlink()
    building.make.write_tar(tars / "sa_000004.tar", building.make.files_of(30))
    assert _sa1b(tars, "--data-dir", data, "--add") == 0
    assert _ids(data) == [*range(12), 20, 30]


@either_form
def test_add_that_fails_leaves_the_data_as_it_was(tars, tmp_path, capsys):
    data = tmp_path / "data"
    assert _sa1b(tars, "--data-dir", data) == 0
    before = building.shards_of(data / building.FINAL)
    (tars / "sa_000009.tar").write_bytes((tars / "sa_000000.tar").read_bytes()[:-15000])
    assert _sa1b(tars, "--data-dir", data, "--add") == 1
    assert "sa_000009.tar" in capsys.readouterr().err
    assert building.shards_of(data / building.FINAL) == before
    assert _ids(data) == list(range(12))


def test_what_an_add_that_failed_had_converted_and_deleted_comes_with_the_next(
    tars, tmp_path, capsys
):
    data = tmp_path / "data"
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    assert _sa1b(tars, "--data-dir", data) == 0
    held_back.rename(tars / "sa_000001.tar")
    torn = tars / "sa_000009.tar"
    torn.write_bytes((tars / "sa_000000.tar").read_bytes()[:-15000])
    add = (tars, "--data-dir", data, "--add", "--delete-tars=all")
    assert _sa1b(*add) == 1
    assert not (tars / "sa_000001.tar").exists()
    torn.unlink()
    capsys.readouterr()
    assert _sa1b(tars, "--data-dir", data) == 1
    assert "without 1 of the tars (sa_000001.tar). Extend it with --add." in (
        capsys.readouterr().err
    )
    assert _sa1b(*add, "--plan") == 0
    assert capsys.readouterr().out.startswith("sa_000001.tar: finished")
    assert _sa1b(*add) == 0
    assert _ids(data) == list(range(12))
    assert building.leftovers(data) == []


def test_what_is_staged_and_deleted_outlives_a_build_of_the_first_images(tars, tmp_path):
    data, torn = tmp_path / "data", tars / "sa_000002.tar"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-15000])
    assert _sa1b(tars, "--data-dir", data, "--delete-tars=all") == 1
    assert [path.name for path in tars.iterdir()] == ["sa_000002.tar"]
    config = tfds.download.DownloadConfig(manual_dir=tars, max_examples_per_split=4)
    Builder(data_dir=data).download_and_prepare(download_config=config)
    assert _ids(data) == list(range(4))
    torn.write_bytes(whole)
    assert _sa1b(tars, "--data-dir", data, "--add") == 0
    assert _ids(data) == list(range(12))
    assert building.leftovers(data) == []


@pytest.mark.parametrize("deleted", [True, False])
def test_what_another_version_staged_stays_unless_its_data_has_it(
    tars, tmp_path, monkeypatch, caplog, deleted
):
    arguments = (tars, "--data-dir", tmp_path / "data")
    staged = tmp_path / "data" / building.STAGED
    if deleted:
        torn = tars / "sa_000002.tar"
        whole = torn.read_bytes()
        torn.write_bytes(whole[:-15000])
        assert _sa1b(*arguments, "--delete-tars=all") == 1
        torn.write_bytes(whole)
    else:
        monkeypatch.setattr(Staging, "remove", lambda staging: None)  # killed before it
        assert _sa1b(*arguments) == 0
    before = sorted(staged.iterdir())
    monkeypatch.setattr(Builder, "VERSION", tfds.core.Version("2.1.0"))
    assert _sa1b(*arguments) == 0
    message = "staged.2.0.0 has what another version made of 2 tars (sa_000000.tar, sa_000001.tar)"
    assert (message in caplog.text) == deleted
    assert (sorted(staged.iterdir()) if staged.exists() else None) == (before if deleted else None)


def test_add_needs_no_room_for_the_data_that_is_there(tars, tmp_path, monkeypatch):
    data, usage = tmp_path / "data", shutil.disk_usage
    assert _sa1b(tars, "--data-dir", data) == 0
    building.make.write_tar(tars / "sa_000003.tar", building.make.files_of(100))
    size = sum(path.stat().st_size for path in (data / building.FINAL).glob("*-train.*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=size))
    assert _sa1b(tars, "--data-dir", data, "--add") == 0
    assert _ids(data) == [*range(12), 100]


def test_tars_in_the_data_are_not_said_to_be_left_out(tars, tmp_path, caplog):
    arguments = (tars, "--data-dir", tmp_path, "--config", "original_1pct", "--delete-tars=all")
    assert _sa1b(*arguments) == 0
    assert "Built without 7 of the 10 tars of 'original_1pct': neither in" in caplog.text
    caplog.clear()
    assert _sa1b(*arguments) == 0
    assert "Built without 7 of the 10 tars of 'original_1pct': neither in" in caplog.text


def test_a_tar_that_vanishes_before_its_turn_is_said(tars, tmp_path, capsys, monkeypatch):
    def tasks(conversion, staged):
        (tars / "sa_000001.tar").unlink(missing_ok=True)
        return _tasks(conversion, staged)

    monkeypatch.setattr(Conversion, "tasks", tasks)
    assert _sa1b(tars, "--data-dir", tmp_path / "data") == 1
    assert "sa_000001.tar is not there any more: put it back, or build again without it." in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("config", ["original", "original_1pct"])
@pytest.mark.parametrize("left", ["nothing", "a file", "no folder"])
def test_tfds_ends_what_was_killed_when_all_tars_were_finished_and_deleted(
    tars, tmp_path, monkeypatch, config, left
):
    data = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "assemble", _killed)
        arguments = (tars, "--data-dir", data, "--config", config, "--delete-tars=all")
        assert _sa1b(*arguments) == 130
    assert list(tars.iterdir()) == []
    if left == "a file":
        (tars / "notes.txt").touch()
    elif left == "no folder":
        tars.rmdir()
    download = tfds.download.DownloadConfig(manual_dir=tars)
    builder = Builder(data_dir=data, config=config)
    builder.download_and_prepare(download_config=download)
    assert builder.info.splits["train"].num_examples == 12


def test_an_empty_folder_ends_no_build_whose_tars_are_not_all_finished(tars, tmp_path, capsys):
    """It may be a disk that is not mounted."""
    arguments = ("--data-dir", tmp_path / "data")
    torn = tars / "sa_000002.tar"
    torn.write_bytes(torn.read_bytes()[:-15000])
    assert _sa1b(tars, *arguments) == 1
    unmounted = tmp_path / "unmounted"
    unmounted.mkdir()
    capsys.readouterr()
    for options in (["--plan"], ["--delete-tars=all"]):
        assert _sa1b(unmounted, *arguments, *options) == 1
        said = capsys.readouterr().err
        assert "unmounted holds no tar, and 1 of those to build are not finished" in said
    builder = Builder(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=unmounted)
    with pytest.raises(AssertionError, match="does not exist or is empty"):
        builder.download_and_prepare(download_config=config)
    pathlib.Path(re.search("or remove (.*) to go without", said)[1]).unlink()
    assert _sa1b(unmounted, *arguments) == 0
    assert _ids(tmp_path / "data") == list(range(8))


def test_tfds_does_not_download_what_is_finished_and_deleted(tars, links, tmp_path, caplog):
    disk, data = tmp_path / "disk", tmp_path / "data"
    shutil.copytree(tars, disk)
    (disk / "sa_000002.tar").write_bytes((tars / "sa_000002.tar").read_bytes()[:-15000])
    assert _sa1b(disk, "--data-dir", data, "--delete-tars=all") == 1
    shutil.copy(tars / "sa_000002.tar", disk)
    shutil.copy(links[0], disk / "segment_anything_links.txt")
    config = tfds.download.DownloadConfig(manual_dir=disk)
    Builder(data_dir=data).download_and_prepare(download_config=config)
    assert links[1] == []
    assert _ids(data) == list(range(12))


def test_add_tells_of_a_deleted_tar_once(tars, tmp_path, caplog):
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    arguments = (tars, "--data-dir", tmp_path / "data")
    assert _sa1b(*arguments) == 0
    held_back.rename(tars / "sa_000001.tar")
    caplog.clear()
    assert _sa1b(*arguments, "--add", "--delete-tars=all") == 0
    messages = sorted(record.getMessage() for record in caplog.records)
    assert messages == [f"sa_00000{i}.tar is deleted: all of it is in the data." for i in range(3)]


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("again", ["sa1b", "tfds"])
def test_killed_while_an_add_exchanges_the_data(tars, tmp_path, monkeypatch, again, file_format):
    data = tmp_path / "data"
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    assert _sa1b(tars, "--data-dir", data, "--file-format", file_format) == 0
    held_back.rename(tars / "sa_000001.tar")
    extend = (tars, "--data-dir", data, "--add", "--delete-tars=all")
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "exchanged", _killed_while_it_exchanges)
        assert _sa1b(*extend) == 130
    assert building.leftovers(data) == ["replaced.2.0.0", "staged.2.0.0"]
    assert list(tars.iterdir()) == []
    if again == "tfds":
        builder = tfds.builder("segment_anything", data_dir=data)
        builder.download_and_prepare()
        assert builder.info.splits["train"].num_examples == 8
        assert builder.info.file_format.value == file_format
        assert building.leftovers(data) == ["staged.2.0.0"]
    assert _sa1b(*extend) == 0
    assert _ids(data) == list(range(12))
    assert building.leftovers(data) == []


@pytest.fixture
def reads(monkeypatch):
    """What a build has read or constructed so far, and when it converted."""
    found = []

    def count(module, name, what):
        function = getattr(module, name)

        def counted(*arguments, **options):
            found.append(what)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(Builder, "__init__", "builder")
    count(tar_supply, "archives_at", "tars")
    count(build_state, "read_links", "links")
    count(Folder, "prepared", "data")
    count(Staging, "archives", "staging")
    count(Conversion, "run", "CONVERTED")
    return found


_ONCE = ["builder", "data", "staging", "tars"]


def test_a_build_reads_what_is_there_once_and_then_converts(tars, links, tmp_path, reads):
    own = tmp_path / "own"  # with one of the tars; the others are downloaded
    own.mkdir()
    shutil.copy2(tars / "sa_000001.tar", own)
    assert _sa1b(own, "--data-dir", tmp_path / "data", "--links-file", links[0]) == 0
    before = reads[: reads.index("CONVERTED")]
    # `including_staged` looks once more in the folder of staged tars, which is locked by then.
    assert sorted(before) == sorted([*_ONCE, "links", "staging"])
    after = reads[reads.index("CONVERTED") + 1 :]
    assert not {"builder", "tars", "links", "CONVERTED"} & set(after)


def test_a_build_with_nothing_to_do_and_a_plan_read_what_is_there_once(tars, tmp_path, reads):
    assert _sa1b(tars, "--data-dir", tmp_path) == 0
    for flags in ([], ["--plan"]):
        reads.clear()
        assert _sa1b(tars, "--data-dir", tmp_path, *flags) == 0
        assert sorted(reads) == _ONCE


def test_an_add_reads_the_data_again_only_where_it_is_locked(tars, tmp_path, reads):
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    assert _sa1b(tars, "--data-dir", tmp_path) == 0
    held_back.rename(tars / "sa_000001.tar")
    reads.clear()
    assert _sa1b(tars, "--data-dir", tmp_path, "--add") == 0
    before = reads[: reads.index("CONVERTED")]
    assert sorted(before) == sorted([*_ONCE, "data", "staging", "staging"])


def test_killed_while_an_add_tidies_up(tars, tmp_path, monkeypatch):
    data = tmp_path / "data"
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    assert _sa1b(tars, "--data-dir", data) == 0
    held_back.rename(tars / "sa_000001.tar")
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "remove", _killed_if_there)
        assert _sa1b(tars, "--data-dir", data, "--add") == 130
    assert building.leftovers(data) == ["staged.2.0.0"]
    assert _sa1b(tars, "--data-dir", data) == 0
    assert building.leftovers(data) == []


def _killed(*arguments):
    raise KeyboardInterrupt


def _killed_if_there(staging):
    if staging.folder.exists():
        raise KeyboardInterrupt


def _killed_while_it_exchanges(folder):
    folder.path.rename(folder._replaced)
    raise KeyboardInterrupt


def test_another_tar_of_a_name_in_the_data_waits_for_an_add_that_failed(tars, tmp_path):
    data = tmp_path / "data"
    torn = (tars / "sa_000002.tar").rename(tmp_path / "sa_000002.tar")
    assert _sa1b(tars, "--data-dir", data) == 0
    building.make.write_tar(tars / "sa_000001.tar", building.make.files_of(100))
    (tars / "sa_000002.tar").write_bytes(torn.read_bytes()[:-15000])
    assert _sa1b(tars, "--data-dir", data, "--add", "--delete-tars=all") == 1
    assert [path.name for path in tars.iterdir()] == ["sa_000002.tar"]
    torn.rename(tars / "sa_000002.tar")
    assert _sa1b(tars, "--data-dir", data, "--add", "--delete-tars=all") == 0
    assert _ids(data) == [*range(4), *range(8, 12), 100]


def test_all_of_a_tar_of_which_the_data_has_a_part_waits_for_an_add_that_failed(tars, tmp_path):
    data = tmp_path / "data"
    torn = (tars / "sa_000002.tar").rename(tmp_path / "sa_000002.tar")
    config = tfds.download.DownloadConfig(manual_dir=tars, max_examples_per_split=6)
    Builder(data_dir=data).download_and_prepare(download_config=config)
    (tars / "sa_000002.tar").write_bytes(torn.read_bytes()[:-15000])
    assert _sa1b(tars, "--data-dir", data, "--add", "--delete-tars=all") == 1
    assert [path.name for path in tars.iterdir()] == ["sa_000002.tar"]
    torn.rename(tars / "sa_000002.tar")
    assert _sa1b(tars, "--data-dir", data, "--add", "--delete-tars=all") == 0
    assert _ids(data) == list(range(12))


def test_an_earlier_tar_with_images_of_one_that_is_gone(tars, tmp_path, capsys):
    data = tmp_path / "data"
    (tars / "sa_000000.tar").unlink()
    assert _sa1b(tars, "--data-dir", data) == 0
    (tars / "sa_000002.tar").rename(tars / "sa_000000.tar")
    assert _sa1b(tars, "--data-dir", data, "--add") == 1
    found = re.search(
        "image id (8|9|10|11) is in sa_000002.tar and in sa_000000.tar, .* put it back, or"
        r" remove sa_000000.tar and (.*)\.$",
        capsys.readouterr().err,
        re.MULTILINE,
    )
    (tars / "sa_000000.tar").unlink()
    pathlib.Path(found[2]).unlink()
    assert _sa1b(tars, "--data-dir", data, "--add") == 0
    assert _ids(data) == list(range(4, 12))


def test_md5_of_what_is_prepared_already_is_not_taken_and_that_is_said(tars, tmp_path, caplog):
    assert _sa1b(tars, "--data-dir", tmp_path / "data") == 0
    assert _sa1b(tars, "--data-dir", tmp_path / "data", "--md5") == 0
    assert "No MD5 was taken of sa_000000.tar, sa_000001.tar, sa_000002.tar: " in caplog.text


@pytest.mark.usefixtures("processes")
@either_form
def test_download_convert_delete(tars, links, tmp_path):
    links_file, asked = links
    data, disk = tmp_path / "data", tmp_path / "disk"
    disk.mkdir()
    own = disk / "sa_000001.tar"
    own.write_bytes((tars / "sa_000001.tar").read_bytes())
    arguments = (disk, "--data-dir", data, "--links-file", links_file, "--workers", 2)
    assert _sa1b(*arguments, "--delete-tars") == 0
    assert _ids(data) == list(range(12))
    assert list(disk.iterdir()) == [own]
    assert not any("sa_000001" in path for path in asked)
    (disk / IN_FLIGHT / "sa_000002.tar").mkdir(parents=True)  # as a kill while it deletes leaves it
    assert _sa1b(*arguments, "--delete-tars") == 0
    assert list(disk.iterdir()) == [own]


def test_two_configs_download_each_tar_once(tars, links, tmp_path):
    links_file, asked = links
    disk, arguments = tmp_path / "disk", ("--links-file", links_file, "--delete-tars")
    disk.mkdir()
    assert _sa1b(disk, "--data-dir", tmp_path / "one", *arguments) == 0
    of_one = sorted(asked)
    asked.clear()
    data = tmp_path / "two"
    assert _sa1b(disk, "--data-dir", data, *arguments, "--also", "resized_1024") == 0
    assert sorted(asked) == of_one
    for config in ("original", "resized_1024"):
        folder = data / "segment_anything" / config / "2.0.0"
        assert sorted(e.image_id for e in read_examples(folder)) == list(range(12))
    assert not list(disk.iterdir())


def test_a_finished_build_removes_nothing_of_another_one_in_flight(tars, links, tmp_path):
    disk = tmp_path / "disk"
    arguments = (disk, "--data-dir", tmp_path / "data", "--links-file", links[0], "--delete-tars")
    assert _sa1b(*arguments) == 0
    running, left, converted = (disk / IN_FLIGHT / f"sa_00000{i}.tar" for i in range(3))
    for folder in (running, left, converted):
        folder.mkdir(parents=True)
        (folder / f"{folder.name}.part").touch()
    shutil.copy(tars / converted.name, converted)
    os.utime(converted / converted.name, (0, 0))  # it came at another time
    with lock_folder(running, "sa1b download"):
        assert _sa1b(*arguments) == 0
    assert [folder.exists() for folder in (running, left, converted)] == [True, False, True]
    assert _sa1b(*arguments) == 0
    assert not running.exists()


@pytest.mark.parametrize("delete", [[], ["--delete-tars"]])
def test_the_report_has_the_md5_that_the_download_checked(
    tars, links, tmp_path, monkeypatch, delete
):
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in tars.iterdir()}
    monkeypatch.setattr("sa1b_tfds.download.transfer.jobs.read_md5_table", lambda: md5)
    data, disk = tmp_path / "data", tmp_path / "disk"
    disk.mkdir()
    (disk / "sa_000001.tar").write_bytes((tars / "sa_000001.tar").read_bytes())
    assert _sa1b(disk, "--data-dir", data, "--links-file", links[0], *delete) == 0
    found = {tar["name"]: tar["md5"] for tar in building.report_of(data)["tars"]}
    assert found == {**md5, "sa_000001.tar": None}  # the user's own, not asked for


@any_form
def test_md5_of_own_tars(tars, tmp_path, monkeypatch, capsys):
    # What is known is of tars as they are served: nothing is known of a plain one.
    packed = [p.name for p in sorted(tars.iterdir()) if TarArchive(p).is_packed()]
    known = dict.fromkeys(("sa_000001.tar", *packed[:1]), "0" * 32)
    builder = "sa1b_tfds.segment_anything.segment_anything_dataset_builder"
    monkeypatch.setattr(f"{builder}.read_md5_table", lambda: known)
    data = tmp_path / "data"
    wrong = len(set(known) & set(packed))
    assert _sa1b(tars, "--data-dir", data, "--md5") == (1 if wrong else 0)
    err = capsys.readouterr().err
    failed = re.findall(r"(\S+): failed: the MD5 is", err)
    assert sorted(failed) == sorted(set(known) & set(packed))
    assert err.count("the MD5 is ") == wrong
    known.clear()
    assert _sa1b(tars, "--data-dir", data, "--md5") == 0
    assert capsys.readouterr().err.count(": done") == wrong  # the others kept theirs
    found = {tar["name"]: tar["md5"] for tar in building.report_of(data)["tars"]}
    assert found == {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in tars.iterdir()}


def test_finished_tars_are_not_downloaded_again(tars, links, tmp_path, capsys):
    whole = (tars / "sa_000001.tar").read_bytes()
    (tars / "sa_000001.tar").unlink()  # the server does not have it yet
    links_file, asked = links
    data, disk = tmp_path / "data", tmp_path / "disk"
    arguments = (
        disk,
        "--data-dir",
        data,
        "--links-file",
        links_file,
        "--delete-tars",
        "--workers",
        2,
    )
    assert _sa1b(*arguments) == 1
    assert "sa_000001.tar was not downloaded: " in capsys.readouterr().err
    assert len(list((data / building.STAGED).glob("*.json"))) == 2
    (tars / "sa_000001.tar").write_bytes(whole)
    asked.clear()
    assert _sa1b(*arguments) == 0
    assert {path for path in asked if "sa_" in path} <= {"/sa_000001.tar"}
    assert _ids(data) == list(range(12))
    assert not (disk / IN_FLIGHT).exists()


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_kill_before_a_download_is_deleted_costs_no_new_one(tars, links, tmp_path, file_format):
    data, disk = tmp_path / "data", tmp_path / "disk"
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    arguments = (disk, "--data-dir", data, "--links-file", links[0], "--delete-tars")
    assert _sa1b(*arguments) == 1
    there = disk / IN_FLIGHT / "sa_000000.tar" / "sa_000000.tar"
    there.parent.mkdir()
    shutil.copy(tars / "sa_000000.tar", there)
    finished = Folder(epath.Path(data / building.FINAL)).staging.finished("sa_000000.tar")
    os.utime(there, (0, finished.source["modified"]))
    held_back.rename(tars / "sa_000001.tar")
    links[1].clear()
    assert _sa1b(*arguments, "--file-format", file_format) == 0
    assert "/sa_000000.tar" not in links[1]
    assert _ids(data) == list(range(12))
    assert not (disk / IN_FLIGHT).exists()


@either_form
def test_all_deletes_own_tars_and_nothing_finished_is_lost(tars, tmp_path, capsys):
    data = tmp_path / "data"
    whole = (tars / "sa_000002.tar").read_bytes()
    (tars / "sa_000002.tar").write_bytes(whole[:-15000])
    assert _sa1b(tars, "--data-dir", data, "--delete-tars=all", "--workers", 2) == 1
    assert [path.name for path in tars.iterdir()] == ["sa_000002.tar"]
    (tars / "sa_000002.tar").write_bytes(whole)
    config = tfds.download.DownloadConfig(manual_dir=tars)
    Builder(data_dir=data).download_and_prepare(download_config=config)
    assert _ids(data) == list(range(12))


def test_all_deletes_no_tar_for_what_was_staged_of_it_otherwise(tars, tmp_path):
    """Of another config or another tar: it is deleted once it is converted anew."""
    data = tmp_path / "data"
    whole = (tars / "sa_000000.tar").read_bytes()
    (tars / "sa_000000.tar").write_bytes(whole[:-15000])
    assert _sa1b(tars, "--data-dir", data) == 1
    (tars / "sa_000000.tar").write_bytes(whole)
    building.make.write_tar(tars / "sa_000002.tar", building.make.files_of(100))
    arguments = (tars, "--data-dir", data, "--delete-tars=all")
    assert _sa1b(*arguments, "--file-format", "array_record") == 0
    assert _ids(data) == [*range(8), 100]
    assert list(tars.iterdir()) == []


def test_all_deletes_no_tar_while_a_deleted_one_is_staged_otherwise(tars, tmp_path, capsys):
    arguments = (tars, "--data-dir", tmp_path / "data", "--delete-tars=all")
    torn = tars / "sa_000002.tar"
    whole = torn.read_bytes()
    torn.write_bytes(whole[:-15000])
    assert _sa1b(*arguments, "--file-format", "array_record") == 1
    torn.write_bytes(whole)
    assert _sa1b(*arguments) == 1  # as tfrecord
    assert "build with the options as they were" in capsys.readouterr().err
    assert _sa1b(*arguments, "--file-format", "array_record") == 0
    assert _ids(tmp_path / "data") == list(range(12))


def test_all_keeps_a_tar_of_which_something_was_skipped(tars, tmp_path, caplog):
    torn = tars / "sa_000002.tar"
    torn.write_bytes(torn.read_bytes()[:-15000])
    arguments = (tars, "--data-dir", tmp_path / "data", "--on-error", "skip")
    with caplog.at_level("WARNING", "absl"):
        assert _sa1b(*arguments, "--delete-tars=all") == 0
    assert list(tars.iterdir()) == [torn]
    assert caplog.text.count("sa_000002.tar is not deleted: not all of it is in the data.") == 1


def test_all_keeps_a_tar_whose_shards_are_damaged_or_gone(tars, tmp_path, caplog):
    data = tmp_path / "data"
    assert _sa1b(tars, "--data-dir", data) == 0
    first, _, last = sorted((data / building.FINAL).glob("*-train.*"))
    first.write_bytes(first.read_bytes()[:-1])
    last.unlink()
    assert _sa1b(tars, "--data-dir", data, "--delete-tars=all") == 0
    assert sorted(path.name for path in tars.iterdir()) == ["sa_000000.tar", "sa_000002.tar"]
    assert "Shards of sa_000000.tar, sa_000002.tar are damaged or gone" in caplog.text


def test_add_converts_a_tar_again_whose_shards_are_damaged_or_gone(tars, links, tmp_path, capsys):
    data = tmp_path / "data"
    add = (tars, "--data-dir", data, "--add")
    assert _sa1b(*add) == 0
    whole = building.shards_of(data / building.FINAL)
    for damage in (lambda shard: shard.unlink(), lambda shard: shard.write_bytes(b"")):
        first, second, _ = sorted((data / building.FINAL).glob("*-train.*"))
        damage(first)
        damage(second)
        held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
        assert _sa1b(*add) == 1
        assert "Shards of sa_000001.tar are damaged or gone in" in capsys.readouterr().err
        held_back.rename(tars / "sa_000001.tar")
        assert _sa1b(*add, "--plan") == 0
        assert "\n2 of 3 tars to convert" in capsys.readouterr().out
        assert _sa1b(*add) == 0
        assert building.shards_of(data / building.FINAL) == whole
    next((data / building.FINAL).glob("*-train.*")).unlink()
    assert _sa1b(tmp_path / "disk", *add[1:], "--links-file", links[0]) == 0
    assert building.shards_of(data / building.FINAL) == whole


def _flip(path: pathlib.Path, position: int = 100) -> None:
    """Changes one byte; the size and the time of change stay."""
    stat = os.stat(path)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def _without_checksums(data: pathlib.Path) -> None:
    """As an earlier version prepared it."""
    path = data / building.FINAL / "tars.jsonl"
    text, number = re.subn(r'"checksum":[0-9]+,|,"crc32c":[0-9]+', "", path.read_text())
    assert number == 6
    path.write_text(text)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
@pytest.mark.parametrize("version", ["this", "earlier"])
def test_add_converts_a_tar_again_whose_shard_has_a_changed_byte(
    tars, tmp_path, capsys, file_format, version
):
    data = tmp_path / "data"
    add = (tars, "--data-dir", data, "--add")
    assert _sa1b(*add[:3], "--file-format", file_format) == 0
    whole = building.shards_of(data / building.FINAL)
    if version == "earlier":
        _without_checksums(data)
    shard = sorted((data / building.FINAL).glob("*-train.*"))[1]
    _flip(shard, len(shard.read_bytes()) // 2)
    assert _sa1b(*add[:3]) == 0  # compares sizes only
    assert building.shards_of(data / building.FINAL) != whole
    held_back = (tars / "sa_000001.tar").rename(tmp_path / "sa_000001.tar")
    assert _sa1b(*add) == 1
    assert "Shards of sa_000001.tar are damaged or gone in" in capsys.readouterr().err
    held_back.rename(tars / "sa_000001.tar")
    assert _sa1b(*add) == 0
    assert building.shards_of(data / building.FINAL) == whole
    capsys.readouterr()
    assert _sa1b(*add) == 0
    assert ": done" not in capsys.readouterr().err


@pytest.mark.parametrize("prepared_before", [False, True])
def test_add_converts_again_what_was_staged_and_has_changed(
    tars, tmp_path, prepared_before, caplog
):
    data = tmp_path / "data"
    whole = (tars / "sa_000002.tar").read_bytes()
    add = (tars, "--data-dir", data, "--add")
    if prepared_before:
        first = shutil.copytree(tars, tmp_path / "first")
        for number in (1, 2):
            (first / f"sa_00000{number}.tar").unlink()
        assert _sa1b(first, *add[1:]) == 0
    (tars / "sa_000002.tar").write_bytes(whole[:-15000])
    assert _sa1b(*add) == 1
    (tars / "sa_000002.tar").write_bytes(whole)
    [staged] = (data / building.STAGED).glob("tar-sa_000001.tar.00000")
    _flip(staged)
    assert _sa1b(*add) == 0
    assert f"{staged} is damaged: its tar is converted again." in caplog.text
    assert _ids(data) == list(range(12))
    assert building.leftovers(data) == []


def test_a_damaged_staged_shard_of_a_deleted_tar_is_kept_and_named(tars, tmp_path, capsys):
    data = tmp_path / "data"
    whole = (tars / "sa_000002.tar").read_bytes()
    first = (tars / "sa_000000.tar").read_bytes()
    (tars / "sa_000002.tar").write_bytes(whole[:-15000])
    assert _sa1b(tars, "--data-dir", data, "--delete-tars=all") == 1
    (tars / "sa_000002.tar").write_bytes(whole)
    staged = data / building.STAGED / "tar-sa_000000.tar.00000"
    _flip(staged)
    damaged = staged.read_bytes()
    for _ in range(2):
        assert _sa1b(tars, "--data-dir", data, "--add") == 1
        said = capsys.readouterr().err
        assert "sa_000000.tar is not there any more, and its finished shards are" in said
        assert staged.with_name(f"{staged.name}.damaged").read_bytes() == damaged
    (tars / "sa_000000.tar").write_bytes(first)
    assert _sa1b(tars, "--data-dir", data, "--add") == 0
    assert _ids(data) == list(range(12))
    assert building.leftovers(data) == []


def test_a_shard_that_cannot_be_read_now_is_not_called_damaged(tars, tmp_path, monkeypatch):
    data = tmp_path / "data"
    add = (tars, "--data-dir", data, "--add")
    assert _sa1b(*add) == 0
    before = building.shards_of(data / building.FINAL)
    for number, code in ((errno.EMFILE, 1), (errno.EIO, 0)):

        def fail(path, number=number):
            raise OSError(number, os.strerror(number), path)

        with monkeypatch.context() as patch:
            patch.setattr(record_files, "file_crc32c", fail)
            assert _sa1b(*add) == code
        assert building.shards_of(data / building.FINAL) == before


def test_all_keeps_a_tar_whose_shard_has_a_changed_byte(tars, tmp_path, caplog):
    data = tmp_path / "data"
    assert _sa1b(tars, "--data-dir", data) == 0
    _flip(sorted((data / building.FINAL).glob("*-train.*"))[1])
    for _ in range(2):
        caplog.clear()
        assert _sa1b(tars, "--data-dir", data, "--delete-tars=all") == 0
        assert [path.name for path in tars.iterdir()] == ["sa_000001.tar"]
        assert "sa_000001.tar is not deleted: its shards are damaged." in caplog.text


@pytest.mark.parametrize("delete", ["downloaded", "all"])
def test_what_was_staged_damaged_deletes_no_tar(tars, links, tmp_path, caplog, delete):
    data, disk = tmp_path / "data", tmp_path / "disk"
    whole = (tars / "sa_000002.tar").read_bytes()
    (tars / "sa_000002.tar").write_bytes(whole[:-15000])
    assert _sa1b(tars, "--data-dir", data) == 1
    (tars / "sa_000002.tar").write_bytes(whole)
    _flip(data / building.STAGED / "tar-sa_000001.tar.00000")
    arguments = [tars, "--data-dir", data, f"--delete-tars={delete}"]
    if delete == "downloaded":  # a kill left no time to delete it
        place = disk / IN_FLIGHT / "sa_000001.tar"
        place.mkdir(parents=True)
        shutil.copy2(tars / "sa_000001.tar", place)
        arguments = [disk, *arguments[1:], "--links-file", links[0]]
    assert _sa1b(*arguments) == 0
    assert "sa_000001.tar is not deleted: its shards are damaged." in caplog.text
    left = [path.name for path in (disk if delete == "downloaded" else tars).rglob("*.tar")]
    assert set(left) == {"sa_000001.tar"}


@pytest.mark.parametrize("beside", [True, False])
def test_what_is_kept_of_a_tar_is_deleted_with_it(tmp_path, monkeypatch, beside):
    plain = building.write_tars(tmp_path / "plain", tars=2, images=4)
    tars = building.packed(plain)
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if not beside:
        cache_of = kept._paths
        monkeypatch.setattr(kept, "_paths", lambda *args: cache_of(*args)[1:])
    for archive in find_archives(tars):
        assert len(index_archive(archive)) == 4
    assert len(list((tars if beside else cache).rglob("*.index"))) == 2
    assert len(list((tars if beside else cache).rglob("*.seek"))) == 2
    assert _sa1b(tars, "--data-dir", tmp_path / "data", "--delete-tars=all") == 0
    assert [path for path in [*tars.rglob("*"), *cache.rglob("*")] if path.is_file()] == []


def test_all_says_which_tars_cannot_be_deleted(tars, small_disk, tmp_path, caplog):
    disk = small_disk(2**20)
    for tar in tars.iterdir():
        shutil.copy(tar, disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    arguments = (disk, "--data-dir", tmp_path / "data", "--delete-tars=all")
    for _ in range(2):
        caplog.clear()
        assert _sa1b(*arguments) == 0
        assert sorted(caplog.messages) == [
            f"{disk}/sa_00000{i}.tar cannot be deleted and stays: Read-only file system"
            for i in range(3)
        ]
    assert _ids(tmp_path / "data") == list(range(12))


def test_killed_before_damaged_shards_are_exchanged(tars, tmp_path, monkeypatch):
    data = tmp_path / "data"
    arguments = (tars, "--data-dir", data, "--delete-tars=all")
    assert _sa1b(*arguments[:3]) == 0
    whole = building.shards_of(data / building.FINAL)
    sorted((data / building.FINAL).glob("*-train.*"))[1].unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "assemble", _killed)
        assert _sa1b(*arguments, "--add") == 130
    assert list(tars.iterdir()) == []
    assert _sa1b(*arguments) == 0  # no more than a look at the data
    assert _sa1b(*arguments, "--add") == 0
    assert building.shards_of(data / building.FINAL) == whole
    assert building.leftovers(data) == []


def test_all_keeps_a_tar_that_has_no_images(tars, tmp_path):
    building.make.write_tar(tars / "sa_notes.tar", {"./thesis.tex": b"the only copy"})
    assert _sa1b(tars, "--data-dir", tmp_path / "data", "--delete-tars=all") == 0
    assert [path.name for path in tars.iterdir()] == ["sa_notes.tar"]


@either_form
def test_all_keeps_a_tar_with_an_image_of_an_earlier_one(tars, tmp_path, capsys):
    again = building.make.files_of(2)  # of sa_000000.tar
    files = {name: data for i in (20, 21) for name, data in building.make.files_of(i).items()}
    building.make.write_tar(tars / "sa_000003.tar", files | again)
    arguments = (tars, "--data-dir", tmp_path / "data", "--delete-tars=all")
    assert _sa1b(*arguments) == 1  # it is converted once more to say so
    assert "image id 2 was in sa_000000.tar before" in capsys.readouterr().err
    assert [path.name for path in tars.iterdir()] == ["sa_000003.tar"]
    assert _sa1b(*arguments, "--on-error", "skip") == 0
    assert [path.name for path in tars.iterdir()] == ["sa_000003.tar"]
    assert _ids(tmp_path / "data") == [*range(12), 20, 21]


def test_all_deletes_what_a_kill_left_and_not_what_came_since(tars, tmp_path):
    arguments = (tars, "--data-dir", tmp_path / "data")
    assert _sa1b(*arguments) == 0
    (tars / "sa_000001.tar").write_bytes(b"another one")
    assert _sa1b(*arguments, "--delete-tars=all") == 0
    assert [path.name for path in tars.iterdir()] == ["sa_000001.tar"]


@either_form
def test_add_takes_the_other_images_of_a_tar_of_which_the_first_were_taken(tars, tmp_path, caplog):
    data = tmp_path / "data"
    config = tfds.download.DownloadConfig(manual_dir=tars, max_examples_per_split=10)
    Builder(data_dir=data).download_and_prepare(download_config=config)
    assert _sa1b(tars, "--data-dir", data) == 0
    assert "sa_000002.tar" in caplog.text
    assert _sa1b(tars, "--data-dir", data, "--add") == 0
    assert _ids(data) == list(range(12))


def test_all_keeps_a_tar_of_which_only_the_first_images_were_taken(tars, tmp_path):
    config = tfds.download.DownloadConfig(manual_dir=tars, max_examples_per_split=6)
    Builder(data_dir=tmp_path / "data").download_and_prepare(download_config=config)
    (tars / "sa_000002.tar").unlink()  # of which none was taken
    assert _sa1b(tars, "--data-dir", tmp_path / "data", "--delete-tars=all") == 0
    assert [path.name for path in tars.iterdir()] == ["sa_000001.tar"]


@pytest.mark.parametrize("name", ["sa_000001.tar.gz", "sa_000001.tgz"])
def test_a_misnamed_tar_is_not_downloaded_again(tars, links, tmp_path, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    shutil.copy(tars / "sa_000001.tar", disk / name)
    arguments = (disk, "--data-dir", tmp_path / "data", "--links-file", links[0])
    assert _sa1b(*arguments, "--delete-tars") == 0
    assert "/sa_000001.tar" not in links[1]
    assert _ids(tmp_path / "data") == list(range(12))


@pytest.mark.parametrize("delete", [[], ["--delete-tars"]])
def test_a_build_leaves_out_another_dataset(links, tmp_path, delete, caplog):
    lines = links[0].read_text()
    gold = lines.splitlines()[1].replace("sa_000000", "sa_co_gold")
    links[0].write_text(f"{lines}{gold}\n")
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "sa_co_gold.tar").write_bytes(b"not read")
    arguments = (disk, "--data-dir", tmp_path / "data", "--links-file", links[0], *delete)
    assert _sa1b(*arguments) == 0
    assert _ids(tmp_path / "data") == list(range(12))
    assert "/sa_co_gold.tar" not in links[1]
    assert "sa_co_gold.tar is left out: it is another dataset and not SA-1B." in caplog.text


@either_form
def test_links_without_deleting_keep_the_tars(tars, links, tmp_path):
    data, disk = tmp_path / "data", tmp_path / "disk"
    disk.mkdir()
    shutil.copy(tars / "sa_000001.tar", disk)
    assert _sa1b(disk, "--data-dir", data) == 0
    (disk / "sa_000001.tar").unlink()
    assert _sa1b(disk, "--data-dir", data, "--links-file", links[0], "--add") == 0
    assert sorted(p.name for p in disk.glob("*.tar")) == ["sa_000000.tar", "sa_000002.tar"]
    assert not (disk / IN_FLIGHT).exists()
    assert _ids(data) == list(range(12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be positive, got 0"),
        ({"delete_tars": "some"}, r"delete_tars must be one of \(.*\), got 'some'"),
        ({"data_dir": pathlib.Path("gs://b/data")}, "'gs:/b/data' has lost a slash: pass an"),
        ({"tars": epath.Path("s3://b/tars")}, "TensorFlow has no file system for s3://"),
        ({"tars": epath.Path("gs://b"), "delete_tars": "all"}, "gs://b is in an object store"),
        ({"data_dir": epath.Path("gs://b"), "add": True}, "where data cannot be extended"),
        ({"delete_tars": "downloaded"}, "delete_tars='downloaded' needs a links_file"),
        ({"tars": __file__, "links_file": "links.txt"}, "links_file needs a folder .* is a file"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        BuildConfig(**{"tars": tmp_path, **options})


def test_a_plan_knows_that_smaller_images_take_longer(tars, tmp_path):
    seconds = [
        plan(BuildConfig(tars=tars, data_dir=tmp_path, config=config)).seconds
        for config in ("original", "resized_1024")
    ]
    assert seconds[1] == pytest.approx(10 * seconds[0])


def test_a_damaged_description_of_the_data_is_named(tars, tmp_path, capsys):
    data = tmp_path / "data"
    assert _sa1b(tars, "--data-dir", data) == 0
    info = data / building.FINAL / "dataset_info.json"
    info.write_text(info.read_text()[:-30])
    assert _sa1b(tars, "--data-dir", data, "--add") == 1
    said = "its dataset_info.json or features.json is damaged (Failed to load JSON"
    assert said in capsys.readouterr().err
