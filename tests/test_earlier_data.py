"""Data that the code at b35920a prepared or had begun to, before modules moved, is today's data.

tests/data/prepared_before_the_move has two tars as Meta serves them, what that code prepared of
them, and what it had staged when the second one was torn.
"""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds.cli.main import main
from sa1b_tfds.examples import record_ends, record_files
from sa1b_tfds.examples.parts import find_parts
from tests import building

EARLIER = pathlib.Path(__file__).parent / "data" / "prepared_before_the_move"
AREAS = {1: [74, 8, 17], 2: [8, 30, 51]}  # of the masks, by image id


@pytest.fixture
def earlier(tmp_path):
    """A copy of all, to build over; Git keeps no times, by which a tar is known."""
    folder = shutil.copytree(EARLIER, tmp_path / "earlier")
    for number in (0, 1):
        os.utime(folder / "tars" / f"sa_{number:06d}.tar", (1_700_000_000 + number,) * 2)
    return folder


def load(data_dir):
    return tfds.load("segment_anything", data_dir=data_dir, split="train")


def load_by_directory(data_dir):
    return tfds.builder_from_directory(data_dir / building.FINAL).as_dataset(split="train")


@pytest.mark.parametrize("read", [load, load_by_directory])
def test_tfds_loads_it(read):
    found = {
        int(e["image_id"]): [e["masks"].sum((1, 2)).tolist(), e["annotations"]["area"].tolist()]
        for e in tfds.as_numpy(read(EARLIER / "prepared"))
    }
    assert found == {image_id: [areas, areas] for image_id, areas in AREAS.items()}


def test_training_dataset_reads_it():
    config = sa1b_tfds.TrainingConfig(
        image_size=32, mask_size=32, masks_per_image=3, batch_size=2, shuffle=0, min_area=1
    )
    (batch,) = sa1b_tfds.training_dataset(EARLIER / "prepared" / building.FINAL, config)
    assert sorted(batch["image_id"].numpy()) == [1, 2]
    assert batch["mask_valid"].numpy().all()


def test_the_torch_dataset_reads_it():
    pytest.importorskip("torch")
    dataset = sa1b_tfds.torch.SA1BDataset(EARLIER / "prepared", config="original")
    for image, masks, metadata in dataset:
        assert image.shape == (3, 30, 40)
        assert masks.sum((1, 2)).tolist() == AREAS[metadata["image_id"]]
        np.testing.assert_array_equal(metadata["area"], AREAS[metadata["image_id"]])


def test_build_over_it_converts_nothing(earlier, capsys):
    shards = sorted((earlier / "prepared" / building.FINAL).glob("*.tfrecord*"))
    before = [shard.stat() for shard in shards]
    assert main(["build", str(earlier / "tars"), "--data-dir", str(earlier / "prepared")]) == 0
    said = capsys.readouterr()
    assert "2 images of 2 tars in 2 shards" in said.out
    assert "done" not in said.err
    assert [shard.stat() for shard in shards] == before
    assert len(shards) == 2


def test_build_takes_up_what_was_staged(earlier, capsys):
    assert main(["build", str(earlier / "tars"), "--data-dir", str(earlier / "staged")]) == 0
    assert re.findall(r"(\S+): done", capsys.readouterr().err) == ["sa_000001.tar"]
    final, prepared = (earlier / name / building.FINAL for name in ("staged", "prepared"))
    assert building.shards_of(final) == building.shards_of(prepared)


def test_records_that_are_added_are_listed_and_all_are_read_by_number(earlier, tmp_path):
    tars = building.write_tars(tmp_path / "more", tars=3)
    shutil.copy(tars / "sa_000002.tar", earlier / "tars")
    data = earlier / "prepared"
    assert main(["build", str(earlier / "tars"), "--data-dir", str(data), "--add"]) == 0
    listed = np.fromfile(data / building.FINAL / record_ends.NAME, record_ends.DTYPE)
    parts = find_parts(data)
    assert [part.count() for part in parts] == [1, 1, 4]
    assert listed[:2].tolist() == [0, 0]  # no earlier receipt says it
    np.testing.assert_array_equal(listed[2:], record_files.tfrecord_ends(parts[2].path))
    ids = [part.example(i).image_id for part in parts for i in range(part.count())]
    assert sorted(ids) == [1, 2, 8, 9, 10, 11]


def test_build_of_its_tars_gives_the_same_bytes(earlier, tmp_path):
    assert main(["build", str(earlier / "tars"), "--data-dir", str(tmp_path / "data")]) == 0
    prepared, built = (
        folder / building.FINAL for folder in (earlier / "prepared", tmp_path / "data")
    )
    assert building.shards_of(built) == building.shards_of(prepared)
    assert len(building.shards_of(built)) == 2
    features = [folder / "features.json" for folder in (built, prepared)]
    assert features[0].read_bytes() == features[1].read_bytes()
