"""The same examples come out of tars, extracted files and prepared shards."""

import dataclasses
import shutil
import struct
import tarfile

import numpy as np
import pytest
from etils import epath

import sa1b_tfds  # noqa: F401  registers the builder
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.examples import record_ends, record_files, records
from sa1b_tfds.examples.parts import find_parts, read_examples
from tests import building


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """By name: (source, config) of two tars in both forms, extracted and prepared."""
    root = tmp_path_factory.mktemp("examples")
    tars = building.write_tars(root / "tars")
    for path in tars.iterdir():
        with tarfile.open(path) as tar:
            tar.extractall(root / "files", filter="data")
    places = {name: (form(tars), None) for name, form in building.FORMS.items()}
    places["files"] = (root / "files", None)
    for file_format in ("tfrecord", "array_record"):
        builder = building.prepare(tars, root / file_format, file_format=file_format)
        places[file_format] = (root / file_format, "original")
        places[f"{file_format} version"] = (builder.data_path, None)
    return places


def test_all_ways_in_give_the_same_examples(places):
    first, *others = [
        {example.image_id: example for example in read_examples(*place)}
        for place in places.values()
    ]
    assert len(first) == 8
    for other in others:
        assert other.keys() == first.keys()
        for image_id, example in other.items():
            assert example.masks == first[image_id].masks
            for name in ("image", "file_name"):
                assert getattr(example, name) == getattr(first[image_id], name)
            for name, column in first[image_id].annotations.items():
                assert example.annotations[name].dtype == column.dtype
                np.testing.assert_array_equal(example.annotations[name], column)


@pytest.mark.parametrize("form", building.FORMS)
def test_examples_of_tars_come_in_one_order_whatever_their_form(places, form):
    ids = [example.image_id for example in read_examples(*places[form])]
    assert ids == [example.image_id for example in read_examples(*places["plain"])]


def test_parts_count_without_reading(places):
    for place in places.values():
        assert sum(part.count() for part in find_parts(*place)) == 8


@pytest.mark.parametrize("form", building.FORMS)
def test_a_single_tar_is_a_source(places, form):
    (part,) = find_parts(places[form][0] / "sa_000001.tar")
    assert [e.image_id // 4 for e in part.examples(Problems())] == [1] * 4


def test_the_only_config_of_a_data_dir_need_not_be_named(places, tmp_path):
    version = places["tfrecord version"][0]
    shutil.copytree(version, tmp_path / "segment_anything" / "original" / version.name)
    (tmp_path / "segment_anything" / "staged").mkdir()
    names = [part.name for part in find_parts(version)]
    assert [part.name for part in find_parts(tmp_path)] == names
    shutil.copytree(version, tmp_path / "segment_anything" / "original_1pct" / version.name)
    with pytest.raises(
        FileNotFoundError, match="several configs, name one: original, original_1pct"
    ):
        find_parts(tmp_path)
    assert [part.name for part in find_parts(tmp_path, "original_1pct")] == names
    with pytest.raises(FileNotFoundError, match=r"orignal holds .* There is: original, original_1"):
        find_parts(tmp_path, "orignal")


def test_what_holds_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither sa_"):
        find_parts(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        find_parts(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="original holds no prepared data"):
        find_parts(tmp_path, "original")


def test_a_changed_byte_of_a_shard_is_an_error(places, tmp_path):
    path = next(places["tfrecord version"][0].glob("*tfrecord*"))
    content = bytearray(path.read_bytes())
    for position, where in ((3, "header"), (40, "record"), (len(content) - 1, "record")):
        broken = content.copy()
        broken[position] ^= 1
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(ValueError, match=f"the {where} before byte .* is broken"):
            list(record_files.read(epath.Path(tmp_path / "broken"), "tfrecord"))


@pytest.mark.parametrize("length", [1, 2**40, 2**62, 2**63, 2**64 - 1])
def test_a_record_longer_than_its_shard_is_an_error(tmp_path, length):
    header = struct.pack("<Q", length)
    path = epath.Path(tmp_path / "shard")
    path.write_bytes(header + record_files._masked_crc(header) + b"x")
    for read in (
        lambda: list(record_files.read(path, "tfrecord")),
        lambda: record_files.tfrecord_ends(path),
        lambda: record_files.read_tfrecord(path, 0, 13),
        lambda: record_ends.read_record(path, range(1), 0),
    ):
        with pytest.raises(ValueError, match="shard: the record after byte 12 is cut off"):
            read()


@pytest.mark.parametrize("the_list", ["is there", "is lost", "is of other shards"])
def test_records_are_read_by_the_list_that_a_build_writes(places, tmp_path, monkeypatch, the_list):
    folder = shutil.copytree(places["tfrecord version"][0], tmp_path / "data")
    listed = np.fromfile(folder / record_ends.NAME, record_ends.DTYPE)
    parts = find_parts(folder)
    np.testing.assert_array_equal(
        listed, np.concatenate([record_files.tfrecord_ends(part.path) for part in parts])
    )
    looked = []
    found_by_headers = record_files.tfrecord_ends
    monkeypatch.setattr(
        record_files, "tfrecord_ends", lambda path: looked.append(path) or found_by_headers(path)
    )
    if the_list == "is lost":
        (folder / record_ends.NAME).unlink()
    if the_list == "is of other shards":
        (listed + 16).tofile(folder / record_ends.NAME)
    for part in parts:
        ids = [part.example(i).image_id for i in range(part.count())]
        assert ids == [example.image_id for example in part.examples(Problems())]
    assert looked == ([] if the_list == "is there" else [part.path for part in parts])


@pytest.mark.parametrize("config", ["tfrecord", "array_record"])
def test_a_shard_that_lost_whole_records_is_reported(places, config):
    (part, _) = find_parts(*places[config])
    shorter = dataclasses.replace(part, numbers=range(part.count() + 1))
    problems = Problems("skip")
    assert len(list(shorter.examples(problems))) == 4
    assert list(map(str, problems.found)) == [f"{part.name}: it has 4 of its 5 records"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"\xff", "no record of segment_anything 2"),
        (b"", r"it lacks annotations/area, .*size"),
    ],
)
def test_another_record_is_an_error(record, reason):
    with pytest.raises(ValueError, match=reason):
        records.deserialise(record)


@pytest.mark.parametrize("form", ["plain", "gzip"])
def test_what_is_no_example_is_reported(tmp_path, form):
    tars = building.write_tars(tmp_path / "tars", tars=1)
    path = tars / "sa_000000.tar"
    path.write_bytes(path.read_bytes().replace(b'"area"', b'"aera"', 1))
    tars = building.FORMS[form](tars)
    with pytest.raises(BadInput, match=r"sa_000000.tar: .*json: .*lacks the field 'area'"):
        list(read_examples(tars))
    problems = Problems("skip")
    assert len(list(read_examples(tars, problems=problems))) == 3
    assert len(problems.found) == 1
