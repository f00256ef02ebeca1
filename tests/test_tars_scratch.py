"""A build unpacks a compressed tar for a while: the same shards, and nothing is left of it."""

import json
import os
import re
import subprocess
import sys
import tracemalloc

import pytest
from etils import epath

from dummy_data import make
from sa1b_tfds.building.conversion_task import ConversionTask, ShardSettings, convert
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.tars import inflate
from sa1b_tfds.tars.archive import TarArchive, find_archives
from sa1b_tfds.tars.scratch import readable_in_any_order
from tests import building

FILES = {name: data for i in range(30) for name, data in make.files_of(i, 60, 90, 5).items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "sa_000000.tar"
    make.write_tar(path, FILES)
    return path


@pytest.fixture
def tar(plain, tmp_path):
    path = tmp_path / "sa_000000.tar"
    path.write_bytes(building.pack(plain.read_bytes()))
    return path


@pytest.fixture(autouse=True)
def small_reads(monkeypatch):
    """As if the tar were much larger than what is inflated at a time."""
    monkeypatch.setattr(inflate, "_READ", 1024)


def task_of(tar, folder, **options) -> ConversionTask:
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    options = {"settings": ShardSettings(max_shard_size=60_000), **options}
    return ConversionTask(archive=TarArchive(tar), staging=Staging(folder), **options)


def shards_of(task):
    finished = convert(task)
    number = range(len(finished.shards))
    return [task.staging.shard(finished.archive, i).read_bytes() for i in number]


def nameless_files():
    """Sizes of the files that this process has open and that have no name, by inode."""
    sizes = {}
    for handle in os.listdir("/proc/self/fd"):
        try:
            stat = os.stat(f"/proc/self/fd/{handle}")
        except FileNotFoundError:
            continue
        if stat.st_nlink == 0 and os.readlink(f"/proc/self/fd/{handle}").endswith("(deleted)"):
            sizes[stat.st_ino] = stat.st_size
    return sizes


linux_only = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="there is no /proc")


def test_pairs_are_those_of_the_plain_tar_in_any_order(tar, plain, tmp_path):
    told = []
    expected = TarArchive(plain).index(Problems())
    with readable_in_any_order(TarArchive(tar), tmp_path, Problems(), told.append) as found:
        reader, entries = found
        assert reader.name == "sa_000000.tar"
        assert entries == expected
        for order in (entries, entries[::-1], entries[5:6]):
            pairs = reader.read(order, Problems())
            assert list(pairs) == list(TarArchive(plain).read(order, Problems()))
        assert os.listdir(tmp_path) == ["sa_000000.tar"]
    assert told == sorted(told)
    assert told[-1] == tar.stat().st_size
    assert len(told) > 10


def test_plain_archives_are_not_copied(plain, tmp_path):
    for name, data in make.files_of(1).items():
        (tmp_path / name).write_bytes(data)
    [folder] = find_archives(tmp_path)
    for archive in (TarArchive(plain), folder):
        with readable_in_any_order(archive, "/no/such/folder", Problems()) as (reader, entries):
            assert reader is archive
            assert entries == archive.index(Problems())


@linux_only
def test_one_unpacked_tar_and_little_memory_at_a_time(tar, plain, tmp_path):
    before = nameless_files()
    seen, calls = [], []

    def look(images, size):
        calls.append((images, size))
        seen.append([size for file, size in nameless_files().items() if file not in before])

    tracemalloc.start()
    convert(task_of(tar, tmp_path / "out"), look)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = plain.stat().st_size
    assert {len(sizes) for sizes in seen} == {1}
    assert max(sizes[0] for sizes in seen) <= size
    assert seen[-1][0] > size - 20_000
    assert nameless_files().keys() <= before.keys()
    assert peak < 4 * 2**20 + size // 2  # what inflates, and an image
    # The progress goes up to the size of the tar as it lies on the disk.
    assert calls == sorted(calls)
    assert 0.9 * tar.stat().st_size < calls[-1][1] <= tar.stat().st_size
    assert {images for images, _ in calls} == set(range(31))


_KILLED = """
import os, signal, sys
from etils import epath
from sa1b_tfds.building.conversion_task import ConversionTask, ShardSettings, convert
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.tars import inflate
from sa1b_tfds.tars.archive import TarArchive

inflate._READ = 1024
calls = []

def on_progress(images, size):
    calls.append(size)
    if len(calls) == int(sys.argv[3]):
        print(images, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

convert(ConversionTask(archive=TarArchive(sys.argv[1]), staging=Staging(epath.Path(sys.argv[2])),
    settings=ShardSettings(max_shard_size=60_000)), on_progress)
"""


@pytest.mark.parametrize(("call", "images"), [(20, 0), (100, None)])
def test_kill_9_leaves_no_scratch(tar, plain, tmp_path, call, images):
    """While it inflates, and later."""
    folder, temporary = tmp_path / "out", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, tar, folder, str(call)],
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == -9, run.stderr
    made = int(run.stdout)
    assert made == 0 if images == 0 else made > 0
    assert os.listdir(temporary) == []
    assert all(name.endswith(".part") for name in os.listdir(folder))  # shards only, or nothing
    assert bool(os.listdir(folder)) == bool(made)
    task = task_of(tar, folder)
    task.staging.remove_drafts()
    assert shards_of(task) == shards_of(task_of(plain, tmp_path / "of plain"))


def test_a_full_disk_names_the_tar_and_the_folder(tar, small_disk):
    disk = small_disk(64 * 2**10)
    task = task_of(tar, disk / "staged")
    said = rf"No space left on device in {disk}/staged, while writing sa_000000\.tar"
    with pytest.raises(OSError, match=said):
        convert(task)
    assert os.listdir(disk / "staged") == []


@linux_only
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_failure_leaves_no_open_scratch(tar, tmp_path, on_error):
    before = nameless_files()
    tar.write_bytes(tar.read_bytes()[:-9])
    task = task_of(tar, tmp_path / "out", on_error=on_error)
    if on_error == "raise":
        with pytest.raises(TornArchive, match="it is damaged: it ends at byte"):
            convert(task)
        assert os.listdir(task.staging.folder) == []
    else:
        assert convert(task).images > 20
    assert nameless_files().keys() <= before.keys()


def flipped(packed, at):
    return packed[:at] + bytes([packed[at] ^ 255]) + packed[at + 1 :]


LOST = r"sa_000000\.tar: \./sa_\d+\.(jpg|json): its \.(json|jpg) is missing"


@pytest.mark.parametrize(
    ("damage", "reason", "images"),
    [
        (lambda packed, data: packed[: len(packed) * 2 // 3], "it ends at byte", range(3, 28)),
        (lambda packed, data: packed[:-8], r"it ends at byte .* middle of the checksum", [30]),
        (lambda packed, data: flipped(packed, -8), "the checksum of what was compressed", [30]),
        (lambda packed, data: flipped(packed, -4), "the length of what was compressed", [30]),
        (lambda packed, data: packed + b"garbage", "the compressed data ends at byte", [30]),
        (lambda packed, data: packed + building.pack(b"")[:12], "it ends at byte", [30]),
        (
            lambda packed, data: building.pack(data[:90_000]) + building.pack(data[90_000:])[:-999],
            "it ends at byte",
            range(3, 31),
        ),
        (
            lambda packed, data: building.pack(data[:90_000]) + b"x" + building.pack(data[90_000:]),
            "the compressed data ends at byte",
            range(3, 28),
        ),
    ],
)
def test_of_a_damaged_tar_what_is_before_is_kept(tar, plain, tmp_path, damage, reason, images):
    """And what was lost is named: the damage, and the images of which half was there."""
    tar.write_bytes(damage(tar.read_bytes(), plain.read_bytes()))
    with pytest.raises(TornArchive, match=rf"^sa_000000\.tar: it is damaged: {reason}"):
        convert(task_of(tar, tmp_path / "out"))
    finished = convert(task_of(tar, tmp_path / "out", on_error="skip"))
    assert finished.images in images
    assert finished.images == finished.pairs == len(set(finished.image_ids.tolist()))
    first, *others = map(str, finished.problems)
    assert first.startswith("sa_000000.tar: it is damaged: ")
    assert first.endswith(". Download it again")
    for problem in others:
        assert re.fullmatch(LOST, problem)
    assert finished.images + len(others) <= 30
    whole = convert(task_of(plain, tmp_path / "plain"))
    order = [i for i in whole.image_ids.tolist() if i in finished.image_ids]
    assert finished.image_ids.tolist() == order


def test_the_report_of_a_build_names_the_damage(plain, tmp_path):
    tars = tmp_path / "tars"
    tars.mkdir()
    packed = building.pack(plain.read_bytes())
    (tars / "sa_000000.tar").write_bytes(packed[: len(packed) * 2 // 3])
    make.write_tar(tars / "sa_000001.tar", make.files_of(100) | make.files_of(101))
    make.compress(tars / "sa_000001.tar")
    (tars / "sa_000001.tar").write_bytes(flipped((tars / "sa_000001.tar").read_bytes(), -8))
    builder = building.prepare(tars, tmp_path, on_error="skip")
    report = building.report_of(tmp_path)
    assert 3 < report["images"]["sa_000000.tar"] < 28
    assert report["images"]["sa_000001.tar"] == 2
    damage = [problem for problem in report["skipped"] if not problem["member"]]
    assert [(p["archive"], p["reason"].partition(" at ")[0][:40]) for p in damage] == [
        ("sa_000000.tar", "it is damaged: it ends"),
        ("sa_000001.tar", "it is damaged: the checksum of what was "),
    ]
    assert report["totals"]["images"] == builder.info.splits["train"].num_examples


def test_another_dataset_is_one_problem_of_a_build(tar, tmp_path):
    make.write_tar(tar, {name: data for name, data in FILES.items() if name.endswith(".jpg")})
    make.compress(tar)
    said = r"^sa_000000\.tar: it holds 30 \.jpg and not one \.json, so it is not SA-1B's"
    with pytest.raises(BadInput, match=said):
        convert(task_of(tar, tmp_path / "out"))
    finished = convert(task_of(tar, tmp_path / "out", on_error="skip"))
    assert (finished.images, len(finished.problems)) == (0, 1)


def test_a_tar_that_changes_while_it_is_read_is_not_finished(tar, tmp_path):
    task = task_of(tar, tmp_path / "out")
    with pytest.raises(OSError, match=r"sa_000000\.tar changed while it was read: build again"):
        convert(task, lambda images, size: os.utime(tar, (1, 1)))
    assert os.listdir(task.staging.folder) == []


@pytest.mark.parametrize("options", [{}, {"limit": 7}, {"num_shards": 4}, {"md5": True}])
def test_shards_are_those_of_the_plain_tar(tar, plain, tmp_path, options):
    tasks = [
        task_of(path, tmp_path / name, **options)
        for name, path in (("packed", tar), ("plain", plain))
    ]
    packed, of_plain = map(shards_of, tasks)
    assert packed == of_plain
    assert len(packed) > 1 or options == {"limit": 7}
    receipts = [json.loads(t.staging.receipt("sa_000000.tar").read_bytes()) for t in tasks]
    for receipt in receipts:
        for name in ("checksum", "source", "seconds", "md5"):  # of the file, another one
            del receipt[name]
    assert receipts[0] == receipts[1]
