"""The task of a build: order, cuts, bytes, and what is kept of what fails."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from sa1b_tfds.building.conversion_task import ConversionTask, ShardSettings, convert
from sa1b_tfds.building.shard_order import cut, shuffled
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.core.problems import BadInput, Problems, TornArchive
from sa1b_tfds.download.transfer.checked_files import CheckedFiles
from sa1b_tfds.examples import record_files, records
from sa1b_tfds.examples.annotations import to_example
from sa1b_tfds.tars import archive
from sa1b_tfds.tars.archive import Entry, TarArchive
from sa1b_tfds.tars.members import Member
from tests import building

pytestmark = pytest.mark.usefixtures("threads")


def _task(tar, folder, **options) -> ConversionTask:
    settings = {k: options.pop(k) for k in ("file_format", "max_shard_size") if k in options}
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return ConversionTask(
        archive=TarArchive(tar),
        staging=Staging(folder),
        settings=ShardSettings(**settings),
        **options,
    )


def _bytes_of(task: ConversionTask) -> list[bytes]:
    finished = convert(task)
    number = range(len(finished.shards))
    return [task.staging.shard(finished.archive, i).read_bytes() for i in number]


@pytest.fixture(params=["plain", "gzip"])
def tar(tmp_path, request):
    plain = building.write_tars(tmp_path / "tars", tars=1, images=12)
    return building.FORMS[request.param](plain) / "sa_000000.tar"


def _is_packed(tar):
    return TarArchive(tar).is_packed()


@pytest.mark.parametrize("shapes", [0, 1, 5, 40])
def test_records_are_what_tfds_stores(shapes):
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder

    features = Builder(data_dir="/nowhere").info.features
    example = to_example(*building.make.files_of(7, shapes=shapes).values())
    encoded = features.encode_example(example.as_dict())
    expected = ExampleSerializer(features.get_serialized_info()).get_tf_example(encoded)
    record = records.serialise(example)
    assert type(expected).FromString(record) == expected
    assert len(record) == len(expected.SerializeToString())


def test_tensorflow_reads_the_framing(tmp_path):
    import tensorflow as tf

    path = epath.Path(tmp_path / "records")
    written = [b"", b"a", bytes(100_000)]
    writer = record_files.open_writer(path, "tfrecord")
    for record in written:
        writer.write(record)
    writer.close()
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == written


@pytest.mark.parametrize("file_format", sorted(record_files.FORMATS))
def test_the_same_images_give_the_same_bytes_however_they_lie_in_the_tar(tmp_path, file_format):
    files = {}
    for image_id in range(12):
        files |= building.make.files_of(image_id)
    written = set()
    (tmp_path / "tars").mkdir()
    for seed in range(3):
        building.make.write_tar(tmp_path / "tars" / f"sa_{seed}.tar", files, seed=seed)
        for of_form in (building.FORMS["plain"], building.packed):
            tar = of_form(tmp_path / "tars") / f"sa_{seed}.tar"
            task = _task(tar, tmp_path / "out", file_format=file_format)
            written.add(tuple(_bytes_of(task)))
            assert _is_packed(tar) == (of_form is building.packed)
    assert len(written) == 1


def test_the_order_is_a_fair_sample_and_fixed_for_ever():
    entries = [Entry(Member(f"./sa_{i}.jpg", 1), Member(f"./sa_{i}.json", 1)) for i in range(1000)]
    order = [int(entry.jpeg.name[5:-4]) for entry in shuffled(entries)]
    assert order[:8] == [495, 154, 173, 941, 988, 243, 973, 646]
    assert sorted(order) == list(range(1000))
    assert 450 < np.mean(order[:200]) < 550
    moved = [Entry(Member(f"a/sa_{i}.jpg", 1), Member("", 1)) for i in range(1000)]
    assert [int(entry.jpeg.name[5:-4]) for entry in shuffled(moved)] == order


@pytest.mark.parametrize(
    ("sizes", "options", "expected"),
    [
        ([], {}, []),
        ([100], {"max_shard_size": 1}, [1]),
        ([100] * 10, {}, [10]),
        ([100] * 10, {"max_shard_size": 11 * 2048}, [10]),
        ([100] * 10, {"max_shard_size": 8 * 2048}, [5, 5]),
        ([100] * 10, {"max_shard_size": 3 * 2048}, [2, 2, 2, 2, 2]),
        ([100] * 10, {"max_shard_size": 1}, [1] * 10),
        ([100] * 10, {"num_shards": 3}, [3, 4, 3]),
        ([100] * 3, {"num_shards": 5}, [1, 1, 1]),
        ([100] * 10, {"limit": 4}, [10]),
        ([100] * 10, {"limit": 4, "num_shards": 2}, [2, 8]),
    ],
)
def test_cut(sizes, options, expected):
    entries = [Entry(Member("a.jpg", size), Member("a.json", size)) for size in sizes]
    parts = cut(entries, **options)
    assert [len(part) for part in parts] == expected
    assert [entry for part in parts for entry in part] == entries


@pytest.mark.parametrize("kilobytes", [4, 8, 9, 13, 20, 64])
def test_no_shard_is_larger_than_allowed(tar, tmp_path, kilobytes):
    task = _task(tar, tmp_path / "out", max_shard_size=kilobytes * 1024)
    sizes = [len(shard) for shard in _bytes_of(task)]
    assert max(sizes) <= kilobytes * 1024
    assert sum(shard.examples for shard in task.staging.finished("sa_000000.tar").shards) == 12


@pytest.mark.parametrize("limit", [1, 5, 12, 20])
def test_a_limit_takes_the_first_examples(tar, tmp_path, limit):
    everything = _bytes_of(_task(tar, tmp_path / "all"))[0]
    limited = _bytes_of(_task(tar, tmp_path / "some", limit=limit))[0]
    assert everything.startswith(limited)
    assert convert(_task(tar, tmp_path / "some", limit=limit)).images == min(limit, 12)


def test_a_task_loads_no_tensorflow(tar, tmp_path):
    code = (
        "import sys; from etils import epath; from sa1b_tfds.tars import archive\n"
        "from sa1b_tfds.building import conversion_task as task, staging\n"
        "staged = staging.Staging(epath.Path(sys.argv[2])); staged.folder.mkdir()\n"
        "for form in ('tfrecord', 'array_record'):\n"
        "    task.convert(task.ConversionTask(\n"
        "        archive=archive.TarArchive(sys.argv[1]), staging=staged,\n"
        "        settings=task.ShardSettings(file_format=form, long_side=16)))\n"
        "assert 'tensorflow' not in sys.modules and 'apache_beam' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tar), str(tmp_path / "out")], check=True)


def test_a_failure_leaves_nothing_behind(tar, tmp_path):
    data = tar.read_bytes()
    tar.write_bytes(data[: 3 * len(data) // 4])
    task = _task(tar, tmp_path / "out", max_shard_size=8192)
    reason = "it is damaged: it ends at byte" if _is_packed(tar) else ".*the tar is torn here"
    with pytest.raises(BadInput, match=f"sa_000000.tar: {reason}"):
        convert(task)
    assert list(task.staging.folder.iterdir()) == []
    skipping = dataclasses.replace(task, on_error="skip")
    finished = convert(skipping)
    assert 0 < finished.images < 12
    assert any(isinstance(problem, TornArchive) for problem in finished.problems)
    assert task.reason_to_redo(finished).startswith(
        "it was built with on_error='skip': sa_000000.tar: "
    )
    assert skipping.reason_to_redo(finished) is None


def test_a_receipt_without_its_shards_is_no_finished_tar(tar, tmp_path):
    task = _task(tar, tmp_path / "out", max_shard_size=8192)
    finished = convert(task)
    assert len(finished.shards) > 1
    read = task.staging.finished("sa_000000.tar")
    assert task.reason_to_redo(read) is None
    assert read.to_json() == finished.to_json()
    last = task.staging.shard("sa_000000.tar", len(finished.shards) - 1)
    last.write_bytes(last.read_bytes()[:-1])
    assert task.staging.finished("sa_000000.tar") is None
    last.unlink()
    assert task.staging.finished("sa_000000.tar") is None
    task.staging.receipt("sa_000000.tar").write_text("{")
    assert task.staging.finished("sa_000000.tar") is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": ShardSettings(long_side=16)}, "its long_side was None, now it is 16"),
        (
            {"settings": ShardSettings(max_shard_size=9999)},
            "its max_shard_size was 1073741824, now it is 9999",
        ),
        (
            {"settings": ShardSettings(file_format="array_record")},
            "its file_format was tfrecord, now it is array_record",
        ),
        ({"num_shards": 2}, "its num_shards was None, now it is 2"),
        ({"limit": 2}, "its limit was None, now it is 2"),
        ({"excluded": ((1, "sa_0.tar"),)}, "its excluded was None, now it is "),
    ],
)
def test_what_no_longer_fits_is_told(tar, tmp_path, change, reason):
    task = _task(tar, tmp_path / "out")
    finished = convert(task)
    assert dataclasses.replace(task, **change).reason_to_redo(finished).startswith(reason)


def test_the_md5_of_a_tar_is_taken_and_compared(tar, tmp_path):
    plain = _task(tar, tmp_path / "out")
    without = convert(plain)
    assert without.md5 is None
    task = dataclasses.replace(plain, md5=True)
    assert task.reason_to_redo(without) == "its MD5 was not taken"
    md5 = hashlib.md5(tar.read_bytes()).hexdigest()
    for expected in (None, md5):
        convert(dataclasses.replace(task, expected_md5=expected))
        finished = task.staging.finished("sa_000000.tar")
        assert finished.md5 == md5
        assert task.reason_to_redo(finished) is None
        assert plain.reason_to_redo(finished) is None
    other = dataclasses.replace(task, expected_md5="0" * 32)
    if not _is_packed(tar):  # what is known is of the tar as it was served
        assert convert(other).md5 == md5
        return
    with pytest.raises(BadInput, match=f"sa_000000.tar: the MD5 is {md5}, the table says 0000"):
        convert(other)
    skipped = convert(dataclasses.replace(other, on_error="skip"))
    assert [problem.reason[:10] for problem in skipped.problems] == ["the MD5 is"]
    assert skipped.images == 12


def test_the_md5_that_a_download_recorded_is_told_while_the_tar_is_the_same(tar, tmp_path):
    CheckedFiles(tar.parent).remember(tar.name, "md5", "1" * 32)
    assert convert(_task(tar, tmp_path / "out")).md5 == "1" * 32
    os.utime(tar, (1, 1))
    assert convert(_task(tar, tmp_path / "out")).md5 is None


def test_another_tar_of_the_same_name_is_told(tar, tmp_path):
    task = _task(tar, tmp_path / "out")
    finished = convert(task)
    building.write_tars(tar.parent, tars=1, images=3)
    source = r"[\d,]+ bytes of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(f"the tar was {source}, now it is {source}", task.reason_to_redo(finished))
    tar.unlink()  # after it was converted it is not needed any more
    assert task.reason_to_redo(finished) is None


def test_settings_refuse_nonsense():
    with pytest.raises(ValueError, match="file_format 'riegeli' cannot be written here"):
        ShardSettings(file_format="riegeli")
    with pytest.raises(ValueError, match="max_shard_size must be positive, got 0"):
        ShardSettings(max_shard_size=0)


def test_an_extracted_folder_is_a_task_as_well(tmp_path):
    files = {}
    for image_id in range(4):
        files |= building.make.files_of(image_id)
    building.make.write_tar(tmp_path / "sa_000000.tar", files)
    (tmp_path / "sa_000000").mkdir()
    for name, data in files.items():
        (tmp_path / "sa_000000" / name).write_bytes(data)
    [folder] = archive.find_archives(tmp_path / "sa_000000")
    from_tar = _task(tmp_path / "sa_000000.tar", tmp_path / "a")
    assert _bytes_of(dataclasses.replace(from_tar, archive=folder)) == _bytes_of(from_tar)
    assert len(folder.index(Problems())) == 4
    assert json.loads(from_tar.staging.receipt(".").read_bytes())["pairs"] == 4
