"""Builds of some images, by a list of ids: exact, resumed, and part of what the data is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

import sa1b_tfds
from sa1b_tfds.building import estimates
from sa1b_tfds.building.conversion import Conversion
from sa1b_tfds.building.conversion_task import ShardSettings, convert
from sa1b_tfds.building.prepared_ids import ids_of_shards
from sa1b_tfds.building.staging import Staging
from sa1b_tfds.cli.main import main
from sa1b_tfds.examples.id_set import as_id_set
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.segment_anything.build_config import BuildConfig
from sa1b_tfds.segment_anything.plan import plan
from sa1b_tfds.segment_anything.segment_anything_dataset_builder import Builder
from sa1b_tfds.tars import archive
from tests import building

pytestmark = pytest.mark.usefixtures("threads")

FINAL = "segment_anything/original_ids/2.0.0"
STAGED = "segment_anything/original_ids/staged.2.0.0"


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Images 0 to 11 in three tars."""
    return building.write_tars(tmp_path_factory.mktemp("ids") / "tars", tars=3)


@pytest.fixture
def ids_file(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("0\nsa_5.jpg\n./sa_000001/sa_6.json\n")
    return path


def _sa1b(*arguments) -> int:
    return main(["build", "--workers", "1", *map(str, arguments)])


def _ids(data):
    return sorted(example.image_id for example in read_examples(data))


def test_the_data_has_the_images_of_the_list(tars, ids_file, tmp_path, capsys):
    data = tmp_path / "data"
    assert _sa1b(tars, "--data-dir", data, "--ids", ids_file) == 0
    assert "3 images of 3 tars in 2 shards" in capsys.readouterr().out
    assert _ids(data / FINAL) == [0, 5, 6]
    # By its name, though the class of the builder does not list it.
    skip = tfds.decode.SkipDecoding()
    loaded = tfds.load(
        "segment_anything/original_ids",
        split="train",
        data_dir=data,
        decoders={"image": skip, "masks": skip},
    )
    assert sorted(int(example["image_id"]) for example in loaded) == [0, 5, 6]
    report = json.loads((data / FINAL / "build_report.json").read_text())
    assert report["options"]["image_ids"] == as_id_set([0, 5, 6]).fingerprint
    assert report["missing_ids"] == []
    listed = ids_of_shards(epath.Path(data / FINAL))
    assert list(listed) == [f"segment_anything-train.tfrecord-0000{i}-of-00002" for i in (0, 1)]
    read = [example.image_id for example in read_examples(data / FINAL)]
    assert np.concatenate(list(listed.values())).tolist() == read


def test_neither_form_nor_workers_nor_file_format_change_the_images(tars, ids_file, tmp_path):
    _sa1b(tars, "--data-dir", tmp_path / "a", "--ids", ids_file)
    packed = building.packed(tars)
    main(["build", str(packed), "--data-dir", str(tmp_path / "b"), "--ids", str(ids_file)])
    assert building.shards_of(tmp_path / "a" / FINAL) == building.shards_of(tmp_path / "b" / FINAL)
    _sa1b(packed, "--data-dir", tmp_path / "c", "--ids", ids_file, "--file-format=array_record")
    assert _ids(tmp_path / "c" / FINAL) == [0, 5, 6]


def test_images_that_are_not_wanted_are_not_read(own, tmp_path):
    """Not even if they are damaged."""
    files = building.make.files_of(0) | building.make.files_of(1)
    files["./sa_1.json"] = b"{"
    building.make.write_tar(own / "sa_000000.tar", files)
    _sa1b(own, "--data-dir", tmp_path / "data", "--ids", _file(tmp_path, 0))
    assert _ids(tmp_path / "data" / FINAL) == [0]


@pytest.fixture
def own(tmp_path):
    """An empty folder for tars."""
    folder = tmp_path / "tars"
    folder.mkdir()
    return folder


def _file(folder, *ids):
    path = folder / "some.json"
    path.write_text(json.dumps(ids))
    return path


def test_an_image_without_an_id_in_its_name_is_found_by_its_json(own, tmp_path):
    files = {}
    for name, image_id in (("sa_photo", 40), ("sa_other", 41), ("sa_7", 7), ("sa_8", 8)):
        jpeg, content = building.make.draw(0, 24, 32, 3)
        told = name if image_id < 10 else name.removeprefix("sa_")
        content["image"].update(image_id=image_id, file_name=f"{told}.jpg")
        files |= {f"./{name}.jpg": jpeg, f"./{name}.json": json.dumps(content).encode()}
    building.make.write_tar(own / "sa_own.tar", files)
    _sa1b(own, "--data-dir", tmp_path / "data", "--ids", _file(tmp_path, 7, 41))
    assert _ids(tmp_path / "data" / FINAL) == [7, 41]


def test_the_data_of_another_list_is_refused(tars, ids_file, tmp_path, capsys):
    data = tmp_path / "data"
    build = [tars, "--data-dir", data, "--ids"]
    assert _sa1b(*build, ids_file) == 0
    before = building.shards_of(data / FINAL)
    ids_file.write_text("6\n5\n0\n0\n")  # the same ids
    assert _sa1b(*build, ids_file) == 0
    assert _sa1b(*build, ids_file, "--add") == 0
    ids_file.write_text("0\n5\n")
    for more in ([], ["--add"]):
        assert _sa1b(*build, ids_file, *more) == 1
        said = capsys.readouterr().err
        assert "was built with other image ids than these 2: name another data_dir" in said
    config = sa1b_tfds.SegmentAnythingConfig(name="original_ids", image_ids=[0, 5])
    builder = Builder(config=config, data_dir=data)
    with pytest.raises(ValueError, match="was built with other image ids than these 2"):
        builder.download_and_prepare()
    assert building.shards_of(data / FINAL) == before
    same = sa1b_tfds.SegmentAnythingConfig(name="original_ids", image_ids=[0, 5, 6])
    Builder(config=same, data_dir=data).download_and_prepare()


def test_what_was_staged_for_another_list_is_converted_again(tars, tmp_path, caplog):
    staging = Staging(epath.Path(tmp_path / "staged"))

    def run(ids):
        conversion = Conversion(
            archives=archive.find_archives(tars),
            staging=staging,
            settings=ShardSettings(),
            image_ids=ids and as_id_set(ids),
        )
        converted = []

        def engine(tasks):
            for task in tasks:
                convert(task)
                converted.append(task.name)
            return {}

        found = conversion.run(engine)
        return sorted(i for tar in found for i in tar.image_ids.tolist()), len(converted)

    assert run([1, 2]) == ([1, 2], 3)
    assert run([2, 1]) == ([1, 2], 0)
    assert run([1, 9]) == ([1, 9], 3)
    assert "is converted again: its image_ids was" in caplog.text
    assert run(None) == (list(range(12)), 3)
    assert run([1, 9]) == ([1, 9], 3)
    # A worker takes no other list for its own, and no damaged one.
    ids = as_id_set([3])
    (staging.folder / f"image_ids.{ids.fingerprint}").write_bytes(as_id_set([4]).to_bytes())
    assert run([3]) == ([3], 3)


def test_ids_that_no_tar_has_are_an_error_and_cost_no_second_conversion(tars, tmp_path, capsys):
    data, ids = tmp_path / "data", _file(tmp_path, 0, 500, 5, 400)
    build = [tars, "--data-dir", data, "--ids", ids]
    assert _sa1b(*build) == 1
    said = capsys.readouterr().err
    assert f"that are not in the 3 tars of {data / FINAL}: 2 of 4 (400, 500)." in said
    assert "`--missing-ids skip`" in said
    assert not (data / FINAL).exists()
    staged = {path: path.stat().st_mtime_ns for path in (data / STAGED).glob("*.json")}
    assert len(staged) == 3
    assert _sa1b(*build, "--missing-ids", "skip") == 0
    printed = capsys.readouterr()
    assert "2 image ids in no tar; all of them are in build_report.json" in printed.out
    assert "done" not in printed.err
    assert _ids(data / FINAL) == [0, 5]
    report = json.loads((data / FINAL / "build_report.json").read_text())
    assert report["missing_ids"] == [400, 500]


def test_a_list_of_which_no_tar_has_an_id_makes_no_data(tars, tmp_path, capsys):
    ids = _file(tmp_path, 77)
    code = _sa1b(tars, "--data-dir", tmp_path / "data", "--ids", ids, "--missing-ids", "skip")
    assert code == 1
    assert "There is no image in sa_000000.tar" in capsys.readouterr().err
    assert not (tmp_path / "data" / FINAL).exists()


def test_a_wanted_image_that_is_damaged_is_skipped_and_not_missing(own, tmp_path, capsys):
    files = {}
    for image_id in range(3):
        files |= building.make.files_of(image_id)
    files["./sa_1.json"] = b"{"
    building.make.write_tar(own / "sa_000000.tar", files)
    build = [own, "--data-dir", tmp_path / "data", "--ids", _file(tmp_path, 0, 1)]
    assert _sa1b(*build) == 1
    assert "sa_1.json: it is not JSON" in capsys.readouterr().err
    assert _sa1b(*build, "--on-error", "skip") == 0
    report = json.loads((tmp_path / "data" / FINAL / "build_report.json").read_text())
    assert (report["missing_ids"], len(report["skipped"])) == ([], 1)


def test_new_tars_bring_the_ids_that_were_missing(tars, tmp_path):
    some, data = tmp_path / "some", tmp_path / "data"
    shutil.copytree(tars, some)
    (some / "sa_000002.tar").unlink()
    build = [some, "--data-dir", data, "--ids", _file(tmp_path, 0, 10)]
    assert _sa1b(*build, "--missing-ids", "skip") == 0
    assert _ids(data / FINAL) == [0]
    shutil.copy(tars / "sa_000002.tar", some)
    assert _sa1b(*build, "--add") == 0
    assert _ids(data / FINAL) == [0, 10]
    report = json.loads((data / FINAL / "build_report.json").read_text())
    assert report["missing_ids"] == []


def test_a_killed_build_is_resumed_to_the_same_bytes(own, tmp_path):
    tars = building.write_large_tars(own, tars=4, images=60)
    ids = _file(tmp_path, *range(0, 240, 2))
    staged = tmp_path / "data" / STAGED
    command = [sys.executable, "-m", "sa1b_tfds", "build", tars, "--workers=1", "--ids", ids]
    build = subprocess.Popen(
        [*map(str, command), "--data-dir", str(tmp_path / "data")],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not list(staged.glob("*.json")):
        assert build.poll() is None
        time.sleep(0.001)
    os.killpg(build.pid, signal.SIGKILL)
    build.wait()
    finished = {path: path.stat().st_mtime_ns for path in staged.glob("tar-*.json")}
    assert 0 < len(finished) < 4
    assert _sa1b(tars, "--data-dir", tmp_path / "data", "--ids", ids) == 0
    assert _sa1b(tars, "--data-dir", tmp_path / "other", "--ids", ids) == 0
    shards = building.shards_of(tmp_path / "data" / FINAL)
    assert shards == building.shards_of(tmp_path / "other" / FINAL)
    assert _ids(tmp_path / "data" / FINAL) == list(range(0, 240, 2))


def test_own_tars_of_which_only_some_images_are_taken_are_not_deleted(tars, tmp_path, caplog):
    own = shutil.copytree(tars, tmp_path / "own")
    ids = _file(tmp_path, 0, 4, 5, 6, 7)
    assert _sa1b(own, "--data-dir", tmp_path / "data", "--ids", ids, "--delete-tars=all") == 0
    assert sorted(path.name for path in own.glob("*.tar")) == ["sa_000000.tar", "sa_000002.tar"]
    assert "sa_000000.tar is not deleted: not all of it is in the data" in caplog.text


def test_it_is_what_tfds_makes_of_generate_examples(tars, tmp_path):
    config = sa1b_tfds.SegmentAnythingConfig(name="mine", image_ids=["sa_3.jpg", 9, 8], tars=[0, 2])
    builder = Builder(config=config, data_dir=tmp_path, num_workers=1)
    download = tfds.download.DownloadConfig(manual_dir=tars)
    builder.download_and_prepare(download_config=download)
    keys = [key for key, _ in builder._generate_examples(builder._tars.found_in(tars))]
    written = ids_of_shards(epath.Path(builder.data_path))
    assert np.concatenate(list(written.values())).tolist() == keys
    assert sorted(keys) == [3, 8, 9]


def test_beam_takes_the_same_images(tars, tmp_path):
    options = pytest.importorskip("apache_beam.options.pipeline_options").PipelineOptions(
        ["--runner=BundleBasedDirectRunner"]
    )
    for name, beam in (("beam", options), ("pool", None)):
        config = sa1b_tfds.SegmentAnythingConfig(name="mine", image_ids=[1, 9, 8, 99])
        builder = Builder(
            config=config, data_dir=tmp_path / name, num_workers=1, missing_ids="skip"
        )
        download = tfds.download.DownloadConfig(manual_dir=tars, beam_options=beam)
        builder.download_and_prepare(download_config=download)
    mine = "segment_anything/mine/2.0.0"
    shards = [building.shards_of(tmp_path / name / mine) for name in ("beam", "pool")]
    assert shards[0] == shards[1]
    assert len(shards[0]) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_ids": []}, ValueError, "holds no image id"),
        ({"image_ids": ["sa_000000.tar"]}, ValueError, "'sa_000000.tar' is not an image id"),
        ({"image_ids": "ids.txt"}, FileNotFoundError, "ids.txt is not there"),
    ],
    ids=str,
)
def test_a_list_that_cannot_be_is_refused_at_once(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)  # where no ids.txt is
    with pytest.raises(error, match=message):
        sa1b_tfds.SegmentAnythingConfig(name="mine", **options)
    with pytest.raises(ValueError, match="missing_ids must be 'raise' or 'skip', got 'drop'"):
        Builder(missing_ids="drop")


def test_the_first_images_of_a_list_are_refused(tars, tmp_path):
    config = sa1b_tfds.SegmentAnythingConfig(name="mine", image_ids=[1])
    download = tfds.download.DownloadConfig(manual_dir=tars, max_examples_per_split=1)
    with pytest.raises(ValueError, match="max_examples_per_split cannot apply with image_ids"):
        Builder(config=config, data_dir=tmp_path).download_and_prepare(download_config=download)


def test_a_plan_counts_the_room_of_the_chosen_images(tmp_path, monkeypatch):
    """All of SA-1B does not fit where a thousand of its images do."""
    tars = building.write_tars(tmp_path / "tars", tars=2)
    monkeypatch.setattr(archive, "identity_of", lambda path: {"bytes": 10**10, "modified": 0})
    all_of_it = plan(BuildConfig(tars=tars, data_dir=tmp_path)).prepared
    some = BuildConfig(tars=tars, data_dir=tmp_path, image_ids=range(1000))
    assert all_of_it == 2 * 10**10
    assert plan(some).prepared == pytest.approx(1000 * estimates._PAIR_BYTES, rel=0.01)
    assert estimates.share_of(10**6, 10**9) == 1.0
