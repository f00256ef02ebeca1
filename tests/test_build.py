"""Whole builds: equal to TFDS's own way, exact options, and what a crash or a full disk costs."""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds
from etils import epath

from sa1b_tfds.building import prepared
from sa1b_tfds.building.conversion import Conversion
from sa1b_tfds.building.conversion_task import ShardSettings, convert
from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.core.running import pool
from sa1b_tfds.core.running.progress import TaskProgress
from sa1b_tfds.examples.image_ids import repeated
from sa1b_tfds.segment_anything import build as sa1b_build
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from sa1b_tfds.tars import archive
from tests import building, forked

pytestmark = pytest.mark.usefixtures("threads")

_AS_STORED = {"image": tfds.decode.SkipDecoding(), "masks": tfds.decode.SkipDecoding()}


def _build(manual_dir, data_dir, file_format=None, download=None, **options) -> Builder:
    builder = Builder(data_dir=data_dir, file_format=file_format, **{"num_workers": 1, **options})
    config = tfds.download.DownloadConfig(manual_dir=manual_dir, **(download or {}))
    builder.download_and_prepare(download_config=config)
    return builder


def _ids(builder: Builder) -> list[int]:
    dataset = builder.as_dataset(split="train", decoders=_AS_STORED)
    return [int(example["image_id"]) for example in dataset]


def _in_this_process(tasks):
    failures = {}
    for task in tasks:
        try:
            convert(task)
        except Exception as e:
            failures[task.archive.name] = e
    return failures


def _conversion(manual_dir, folder, **options) -> Conversion:
    return Conversion(
        archives=archive.find_archives(manual_dir),
        staging=Staging(epath.Path(folder)),
        settings=options.pop("settings", ShardSettings()),
        **options,
    )


@pytest.fixture(scope="module")
def tars(tmp_path_factory, request) -> pathlib.Path:
    plain = building.write_tars(tmp_path_factory.mktemp("tars"), tars=3, images=5)
    return building.FORMS[getattr(request, "param", "plain")](plain)


@pytest.fixture(scope="module")
def slow_tars(tmp_path_factory, request) -> pathlib.Path:
    plain = building.write_large_tars(tmp_path_factory.mktemp("slow"), tars=4, images=100)
    return building.FORMS[getattr(request, "param", "plain")](plain)


any_form = pytest.mark.parametrize("tars", building.FORMS, indirect=True)


@any_form
def test_equal_to_what_tfds_makes_of_generate_examples(tars, tmp_path):
    class OfTfds(Builder, skip_registration=True):
        def _generate_splits(self, dl_manager, download_config):
            return tfds.core.GeneratorBasedBuilder._generate_splits(
                self, dl_manager, download_config
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(self._tars.of(dl_manager))}

    theirs = OfTfds(data_dir=tmp_path / "theirs")
    theirs.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tars))
    ours = _build(tars, tmp_path / "ours")
    assert ours.info.splits["train"].num_examples == 15
    assert ours.info.features.to_json() == theirs.info.features.to_json()
    content = []
    for builder in (ours, theirs):
        examples = builder.as_dataset(split="train", decoders=_AS_STORED).as_numpy_iterator()
        content.append({int(example["image_id"]): example for example in examples})
    assert content[0].keys() == content[1].keys()
    for image_id, example in content[0].items():
        for a, b in zip(_leaves(example), _leaves(content[1][image_id]), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    return [np.asarray(tree)]


@any_form
def test_the_order_is_that_of_generate_examples(tars, tmp_path):
    builder = _build(tars, tmp_path)
    assert _ids(builder) == [
        key for key, _ in builder._generate_examples(builder._tars.found_in(tars))
    ]


def test_array_record_is_read_without_tensorflow(tars, tmp_path):
    builder = _build(tars, tmp_path, file_format="array_record")
    source = builder.as_data_source(split="train")
    assert sorted(example["image_id"] for example in source) == list(range(15))
    assert source[0]["masks"].dtype == np.uint8


@pytest.mark.usefixtures("processes")
def test_the_number_of_workers_and_the_form_change_no_byte(tars, tmp_path):
    for workers in (1, 3):
        _build(tars, tmp_path / str(workers), num_workers=workers)
    for form in ("gzip", "mixed"):
        _build(building.FORMS[form](tars), tmp_path / form)
    names = ("1", "3", "gzip", "mixed")
    written = [building.shards_of(tmp_path / name / building.FINAL) for name in names]
    assert written == [written[0]] * 4
    assert list(written[0]) == [
        f"segment_anything-train.tfrecord-0000{i}-of-00003" for i in range(3)
    ]
    assert building.leftovers(tmp_path / "3") == []


@any_form
def test_the_report_says_what_was_built(tars, tmp_path):
    _build(tars, tmp_path)
    report = building.report_of(tmp_path)
    assert report["images"] == {f"sa_00000{i}.tar": 5 for i in range(3)}
    assert report["totals"]["images"] == 15
    assert report["totals"]["bytes"] == sum(
        path.stat().st_size for path in (tmp_path / building.FINAL).glob("*.tfrecord-*")
    )
    assert report["skipped"] == []
    assert report["options"]["config"] == "original"
    assert set(report["versions"]) >= {"python", "sa1b_tfds", "tensorflow-datasets", "numpy"}


@pytest.mark.parametrize(
    ("download", "shards"),
    [
        ({"num_shards": 3}, [5, 5, 5]),
        ({"num_shards": 7}, [2, 1, 2, 2, 3, 2, 3]),
        ({"max_shard_size": 8000}, None),
    ],
)
def test_shards_are_as_many_and_as_large_as_asked_for(tars, tmp_path, download, shards):
    builder = _build(tars, tmp_path, download=download)
    lengths = builder.info.splits["train"].shard_lengths
    assert sum(lengths) == 15
    if shards:
        assert lengths == shards
    else:
        assert len(lengths) > 3
        sizes = [p.stat().st_size for p in (tmp_path / building.FINAL).glob("*.tfrecord-*")]
        assert max(sizes) <= 8000
    assert sorted(_ids(builder)) == list(range(15))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"download": {"num_shards": 2}}, "num_shards=2 cannot apply to 3 tars"),
        ({"download": {"num_shards": 16}}, "divided among 3 tars, they make 15 shards"),
        (
            {"download": {"num_shards": 6, "max_examples_per_split": 7}},
            "divided among 3 tars, the first 7 images of them make 4 shards",
        ),
        ({"download": {"min_shard_size": 5}}, "min_shard_size cannot apply"),
        ({"download": {"max_examples_per_split": 0}}, "max_examples_per_split must be positive"),
        ({"download": {"max_examples_per_split": -1}}, "must be positive, got -1"),
        ({"download": {"ignore_duplicates": True}}, "ignore_duplicates cannot apply"),
        ({"file_format": "riegeli"}, "file_format 'riegeli' cannot be written here"),
        ({"num_workers": 0}, "num_workers must be positive, got 0"),
    ],
)
def test_what_cannot_apply_is_said(tars, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        _build(tars, tmp_path, **options)


def test_all_data_is_on_the_disk_before_the_staged_tars_go(tars, tmp_path, monkeypatch):
    """Each file, their folder and its folder are synced; then the staged shards are removed."""
    done = []
    sync, remove = prepared.files.sync, Staging.remove
    monkeypatch.setattr(
        prepared.files, "sync", lambda path: (done.append(pathlib.Path(path)), sync(path))
    )
    monkeypatch.setattr(Staging, "remove", lambda staging: (done.append(None), remove(staging)))
    builder = _build(tars, tmp_path)
    folder = pathlib.Path(builder.data_path)
    synced = done[: len(done) - 1 - done[::-1].index(None)]
    assert {*folder.iterdir(), folder, folder.parent} <= set(synced)
    assert not Folder(epath.Path(folder)).staging.folder.exists()


def test_what_applies_to_tars_only_or_to_so_many(tars, tmp_path):
    extracted = tmp_path / "extracted"
    extracted.mkdir()
    for name, data in building.make.files_of(1).items():
        (extracted / name).write_bytes(data)
    with pytest.raises(
        ValueError, match=r"md5 needs tars, and '\.' is a folder of extracted files"
    ):
        _conversion(extracted, tmp_path / "staged", md5=True)
    assert len(_conversion(extracted, tmp_path / "staged").archives) == 1
    assert len(_conversion(tars, tmp_path / "staged", md5=True).archives) == 3
    with pytest.raises(ValueError, match="num_shards=2 cannot apply to 3 tars"):
        _conversion(tars, tmp_path / "staged", num_shards=2)
    for number, shards in ((3, [1, 1, 1]), (5, [2, 2, 1]), (6, [2, 2, 2])):
        tasks = _conversion(tars, tmp_path / "staged", num_shards=number).tasks({})
        assert [task.num_shards for task in tasks] == shards


@any_form
@pytest.mark.parametrize("limit", [1, 4, 5, 6, 11, 15, 99])
def test_max_examples_is_exact_over_all_tars(tars, tmp_path, limit):
    finished = _conversion(tars, tmp_path, max_examples=limit).run(_in_this_process)
    assert sum(tar.images for tar in finished) == min(limit, 15)
    ids = [i for tar in finished for i in tar.image_ids.tolist()]
    everything = _conversion(tars, tmp_path / "all").run(_in_this_process)
    assert ids == [i for tar in everything for i in tar.image_ids.tolist()][:limit]


@pytest.mark.parametrize("tars", ["gzip"], indirect=True)
def test_a_limit_that_takes_all_of_a_tar_is_as_none(tars, tmp_path):
    """Of a compressed tar nobody knows before how many images it has."""
    rounds = []

    def engine(tasks):
        rounds.append([(task.archive.name, task.limit) for task in tasks])
        assert len(rounds) < 4
        return _in_this_process(tasks)

    (first,) = _conversion(tars, tmp_path, max_examples=5).run(engine)
    assert (first.pairs, first.images, first.settings["limit"]) == (5, 5, None)
    assert rounds == [[("sa_000000.tar", 5)]]
    both = _conversion(tars, tmp_path, max_examples=7).run(engine)
    assert [tar.settings["limit"] for tar in both] == [None, 2]
    assert rounds[1:] == [[("sa_000001.tar", 2)]]


@pytest.mark.parametrize(("limit", "tars_read"), [(3, 1), (5, 1), (6, 2), (10, 2)])
def test_max_examples_opens_no_tar_that_it_takes_nothing_of(tars, tmp_path, limit, tars_read):
    """A compressed one would have to be inflated; here, none that is damaged is met."""
    packed = building.packed(tars).rename(tmp_path / "tars")
    for path in sorted(packed.iterdir())[tars_read:]:
        path.write_bytes(b"\x1f\x8b this is no gzip")
    finished = _conversion(packed, tmp_path / "s", max_examples=limit).run(_in_this_process)
    assert sum(tar.images for tar in finished) == limit
    assert len(finished) == tars_read
    builder = _build(packed, tmp_path, download={"max_examples_per_split": limit})
    assert len(_ids(builder)) == limit
    assert building.report_of(tmp_path)["totals"]["tars"] == tars_read


def test_max_examples_of_a_damaged_tar_is_an_error(tars, tmp_path):
    packed = building.packed(tars).rename(tmp_path / "tars")
    (packed / "sa_000001.tar").write_bytes(b"\x1f\x8b this is no gzip")
    with pytest.raises(BadInput, match=r"sa_000001\.tar: it is damaged: there is no gzip header"):
        _conversion(packed, tmp_path / "s", max_examples=6).run(_in_this_process)


@pytest.fixture(params=building.FORMS)
def bad_tars(tmp_path, request) -> pathlib.Path:
    """Three tars: one with a broken image, one with an image of the first, one without problems."""
    folder = tmp_path / "bad"
    folder.mkdir()
    for number, ids in enumerate([range(4), range(3, 7), range(7, 10)]):
        files = {}
        for image_id in ids:
            files |= building.make.files_of(image_id)
        if number == 0:
            files["./sa_1.json"] = b"{}"
        building.make.write_tar(folder / f"sa_{number:06d}.tar", files)
    return building.FORMS[request.param](folder)


@pytest.mark.parametrize("limit", [None, 2, 3, 4, 6, 7, 9, 20])
def test_bad_images_and_images_that_come_twice_are_left_out(bad_tars, tmp_path, limit):
    conversion = _conversion(bad_tars, tmp_path / "s", on_error="skip", max_examples=limit)
    finished = conversion.run(_in_this_process)
    builder = Builder(data_dir=tmp_path, on_error="skip")
    expected = [key for key, _ in builder._generate_examples(conversion.archives)][:limit]
    assert sum(tar.images for tar in finished) == len(expected)
    problems = [str(problem) for tar in finished for problem in tar.problems]
    if limit is None:
        assert len(expected) == 9
        assert problems == [
            "sa_000000.tar: ./sa_1.json: the file lacks the field 'image'",
            "sa_000001.tar: ./sa_3.json: image id 3 was in sa_000000.tar before",
        ]
    again = conversion.run(lambda tasks: pytest.fail("there was nothing left to do"))
    assert [tar.to_json() for tar in again] == [tar.to_json() for tar in finished]


def test_an_error_names_the_image_and_keeps_the_other_tars(bad_tars, tmp_path):
    with pytest.raises(
        BadInput, match=r"sa_000000.tar: ./sa_1.json: the file lacks .*: `sa1b build --on-error"
    ):
        _build(bad_tars, tmp_path)
    staged = sorted(p.name for p in (tmp_path / building.STAGED).glob("*.json"))
    assert staged == ["tar-sa_000001.tar.json", "tar-sa_000002.tar.json"]
    _build(bad_tars, tmp_path, on_error="skip")
    report = building.report_of(tmp_path)
    assert report["images"] == {"sa_000000.tar": 3, "sa_000001.tar": 3, "sa_000002.tar": 3}
    assert [skipped["member"] for skipped in report["skipped"]] == ["./sa_1.json", "./sa_3.json"]
    assert building.leftovers(tmp_path) == []


def test_an_image_that_comes_twice_stops_the_build(bad_tars, tmp_path):
    (bad_tars / "sa_000000.tar").unlink()
    shutil.copy(bad_tars / "sa_000001.tar", bad_tars / "sa_000003.tar")
    with pytest.raises(BadInput, match=r"sa_000003.tar: .* was in sa_000001.tar before"):
        _build(bad_tars, tmp_path)


def test_repeated_ids():
    ids = {"a": [1, 2, 3], "b": [4, 2], "c": [], "d": [2, 4, 9]}
    assert repeated({name: np.array(own, np.int64) for name, own in ids.items()}) == {
        "b": ((2, "a"),),
        "d": ((2, "a"), (4, "b")),
    }


def test_a_changed_config_converts_again_and_says_so(tars, tmp_path, caplog):
    _conversion(tars, tmp_path).run(_in_this_process)
    converted = []

    def counting(tasks):
        converted.extend(task.archive.name for task in tasks)
        return _in_this_process(tasks)

    _conversion(tars, tmp_path).run(counting)
    assert converted == []
    with caplog.at_level(logging.WARNING, "absl"):
        _conversion(tars, tmp_path, settings=ShardSettings(long_side=16)).run(counting)
    assert len(converted) == 3
    assert "sa_000001.tar is converted again: its long_side was None, now it is 16." in caplog.text


@pytest.fixture(scope="module")
def calm(slow_tars, tmp_path_factory) -> tuple[dict[str, str], float]:
    """The shards of an undisturbed build, and the seconds that it takes; no other one may join."""
    folder = tmp_path_factory.mktemp("calm")
    began = time.monotonic()
    build = _start(slow_tars, folder, num_workers=2)
    _workers_at_work(build, folder)
    with pytest.raises(RuntimeError, match=r"Another process works in .*original. Wait for it"):
        _build(slow_tars, folder)
    assert build.wait() == 0, build.stderr.read()
    return building.shards_of(folder / building.FINAL), time.monotonic() - began


@pytest.mark.parametrize("slow_tars", ["plain", "gzip"], indirect=True)
def test_killed_at_random_moments_and_built_again(slow_tars, calm, tmp_path):
    """`benchmarks/crash.py` does it twenty times."""
    expected, took = calm
    staged, data = tmp_path / building.STAGED, tmp_path
    rng = random.Random(4)
    for _ in range(3):
        before = {path.name: path.stat().st_mtime_ns for path in staged.glob("*.json")}
        build = _start(slow_tars, data, num_workers=rng.randint(1, 3))
        time.sleep(rng.uniform(0.3, 0.9) * took)
        _kill_tree(build)
        if (data / building.FINAL).exists():
            break
        after = {path.name: path.stat().st_mtime_ns for path in staged.glob("*.json")}
        assert before.items() <= after.items()  # no finished tar was lost or made again
    finished = {path.name for path in staged.glob("*.json")}
    build = _start(slow_tars, data, num_workers=2)
    log = build.communicate()[1]
    assert build.returncode == 0, log
    assert building.shards_of(data / building.FINAL) == expected
    assert building.leftovers(data) == []
    if finished:
        assert log.count(": done") == 4 - len(finished)


def _start(manual_dir: pathlib.Path, data_dir: pathlib.Path, **options: int) -> building.Build:
    return building.start(manual_dir, data_dir, forked.command, **options)


def _kill_tree(build: building.Build) -> None:
    for process in _tree(build):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    build.communicate()


def _tree(build: building.Build) -> list[psutil.Process]:
    try:
        return [build.program, *build.program.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _workers_at_work(build: building.Build, data_dir: pathlib.Path) -> list[psutil.Process]:
    deadline = time.monotonic() + 60
    while not list((data_dir / building.STAGED).glob("tar-*.part")):
        assert time.monotonic() < deadline
        assert build.poll() is None, build.stderr.read()
        time.sleep(0.005)
    return _tree(build)[1:]


def test_a_worker_that_is_killed_fails_its_tar_only(slow_tars, tmp_path):
    build = _start(slow_tars, tmp_path, num_workers=2)
    _workers_at_work(build, tmp_path)[0].kill()
    log = build.communicate()[1]
    assert build.returncode == 1
    assert "was ended by SIGKILL. That is what the kernel does when memory runs out" in log
    assert len(list((tmp_path / building.STAGED).glob("*.json"))) == 3
    _build(slow_tars, tmp_path)
    assert building.report_of(tmp_path)["totals"]["images"] == 400


def test_workers_end_with_their_parent(slow_tars, tmp_path):
    build = _start(slow_tars, tmp_path, num_workers=2)
    workers = _workers_at_work(build, tmp_path)
    build.program.kill()
    build.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def test_an_interrupt_ends_the_workers_and_keeps_finished_tars(slow_tars, tmp_path):
    build = _start(slow_tars, tmp_path, num_workers=1)
    deadline = time.monotonic() + 60
    while not list((tmp_path / building.STAGED).glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    workers = _tree(build)[1:]
    build.program.send_signal(signal.SIGINT)
    log = build.communicate()[1]
    assert build.returncode != 0
    assert "KeyboardInterrupt" in log
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert list((tmp_path / building.STAGED).glob("*.json"))
    assert not (tmp_path / building.FINAL).exists()


def test_killed_between_the_last_steps(tars, tmp_path):
    """The data is there and the staged tars still are, too: the next call tidies up."""
    builder = _build(tars, tmp_path)
    builder._folder.restage(builder._folder.prepared(), available=(), damaged=())
    assert building.leftovers(tmp_path) == ["staged.2.0.0"]
    _build(tars, tmp_path)
    assert building.leftovers(tmp_path) == []


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_disk_that_becomes_full(slow_tars, small_disk, tmp_path, file_format, monkeypatch):
    tar = os.path.getsize(slow_tars / "sa_000000.tar")
    disk = small_disk(int(2.6 * tar))
    # As if another program took the room after it was counted.
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: None)
    with pytest.raises(OSError, match=r"No space left on device|the disk is full"):
        _build(slow_tars, disk, num_workers=1, file_format=file_format)
    staged = list((disk / building.STAGED).glob("*.json"))
    assert len(staged) >= 2
    assert not list((disk / building.STAGED).glob("*.part"))
    subprocess.run(["mount", "-o", f"remount,size={8 * tar}", str(disk)], check=True)
    monkeypatch.undo()
    _build(slow_tars, disk, num_workers=1, file_format=file_format)
    assert building.leftovers(disk) == []
    assert building.report_of(disk)["totals"]["images"] == 400


def test_a_disk_that_becomes_full_at_the_last_step(tars, small_disk, monkeypatch):
    disk = small_disk(2**20)
    assemble = Folder.assemble

    def assemble_on_a_full_disk(*arguments):
        with contextlib.suppress(OSError), open(disk / "other", "wb", buffering=0) as other:
            while True:
                other.write(bytes(4096))
        assemble(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "assemble", assemble_on_a_full_disk)
        with pytest.raises(OSError, match=rf"{disk}.*: make room there and build again; finished"):
            _build(tars, disk)
    (disk / "other").unlink()
    assert len(list((disk / building.STAGED).glob("*.json"))) == 3
    assert len(_ids(_build(tars, disk))) == 15


def test_a_disk_that_is_too_small_is_seen_before(slow_tars, small_disk):
    disk = small_disk(os.path.getsize(slow_tars / "sa_000000.tar"))
    with pytest.raises(OSError, match=r"What comes of 4 tars needs up to .* are free. Nothing was"):
        _build(slow_tars, disk)


@pytest.mark.parametrize("workers", [1, 3])
def test_room_for_an_unpacked_tar_a_worker_is_counted_before(tars, tmp_path, monkeypatch, workers):
    packed = building.packed(tars)
    sizes = [int(1.06 * path.stat().st_size) for path in packed.iterdir()]
    needed = sum(sizes) + sum(sorted(sizes)[-workers:])
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: needed - 1)
    with pytest.raises(OSError, match=r"What comes of 3 tars needs up to .*Nothing was written"):
        _build(packed, tmp_path, num_workers=workers)
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: needed)
    _build(packed, tmp_path, num_workers=workers)


def test_the_room_of_a_tar_that_has_ended_is_free_at_once(tars, tmp_path, monkeypatch):
    """Not only when its event was handled: the next tar may begin before."""
    packed = building.packed(tars)
    sizes = [int(1.06 * path.stat().st_size) for path in packed.iterdir()]
    needed = sum(sizes) + max(sizes)
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: needed)
    handle = TaskProgress.handle

    def handle_late(progress, event):
        time.sleep(0.2)
        handle(progress, event)

    monkeypatch.setattr(TaskProgress, "handle", handle_late)
    _build(packed, tmp_path, num_workers=1)


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("workers", [1, 4])
def test_tars_that_are_deleted_make_room_for_what_comes_of_them(
    slow_tars, small_disk, monkeypatch, workers
):
    disk = small_disk(int(6.5 * os.path.getsize(slow_tars / "sa_000000.tar")))
    shutil.copytree(slow_tars, disk / "tars")
    config = sa1b_build.BuildConfig(
        tars=disk / "tars", data_dir=disk / "data", workers=workers, delete_tars="all"
    )
    begin = pool._Space.begin

    def begin_late(space, task):  # a tar is deleted only after those before it
        if task.name == "sa_000001.tar":
            time.sleep(0.5)
        begin(space, task)

    monkeypatch.setattr(pool._Space, "begin", begin_late)
    assert sa1b_build.build(config)["totals"]["images"] == 400
    assert list((disk / "tars").iterdir()) == []


def test_a_folder_that_cannot_be_written(tars, small_disk):
    disk = small_disk(2**20)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match=f"Read-only file system: '{disk}"):
        _build(tars, disk)


def test_data_that_may_only_be_read_is_loaded_beside_what_a_build_left(tars, small_disk):
    disk = small_disk(2**20)
    _build(tars, disk)
    (disk / building.STAGED).mkdir()
    (disk / building.STAGED).with_name("incomplete.ABCDEF_2.0.0").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert len(_ids(_build(tars, disk))) == 15


def test_tasks_and_receipts_are_plain_values(tars, tmp_path):
    import pickle

    task = _conversion(tars, tmp_path).tasks({})[0]
    assert pickle.loads(pickle.dumps(task)).fingerprint() == task.fingerprint()
    assert json.dumps(task.fingerprint())
    assert dataclasses.replace(task, limit=1).fingerprint() != task.fingerprint()
