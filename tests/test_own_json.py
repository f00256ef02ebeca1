"""Files of JSON that we read back: damage is found, and is one named error or no loss at all."""

import shutil

import numpy as np
import orjson
import pytest
import tensorflow_datasets as tfds
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from dummy_data import make
from sa1b_tfds import training_dataset
from sa1b_tfds.building.prepared import Folder
from sa1b_tfds.building.shard_files import Shard
from sa1b_tfds.building.staging import FinishedTar, Staging
from sa1b_tfds.cli.main import main
from sa1b_tfds.core import own_json
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.download.md5_table import read_md5_table
from sa1b_tfds.download.transfer.checked_files import RECORD_NAME, CheckedFiles
from sa1b_tfds.download.transfer.folder import draft_of
from sa1b_tfds.download.transfer.partial import Partial
from sa1b_tfds.examples.parts import find_parts, read_examples
from sa1b_tfds.export import SA1BTars
from sa1b_tfds.metrics.predictions import read_predictions
from sa1b_tfds.tars.archive import TarArchive
from sa1b_tfds.tars.index import index_archive
from tests import building

pytestmark = pytest.mark.usefixtures("threads")

DAMAGES = {
    "empty": b"",
    "cut off": b'{"archives": ["sa_000000.tar"',
    "list": b"[]",
    "list of numbers": b"[5, 6]",
    "number": b"5",
    "null": b"null",
    "text": b'"x"',
    "fields of another kind": b'{"job": 1, "source": [], "settings": 5, "archives": {"a": 1}}',
    "a huge number": b'{"image_ids": [%d]}' % 2**64,
    "5,000 digits": b'{"pairs": ' + b"9" * 5000 + b"}",
    "not UTF-8": b"\xff\xfe{\x00}\x00",
    "nested lists": b"[" * 1000 + b"]" * 1000,
    "nested objects": b'{"a":' * 100_000,
    "another checksum": b'{"checksum":1,"archives":[]}',
}
any_damage = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)

FINISHED = FinishedTar(
    archive="sa_000000.tar",
    settings={"file_format": "tfrecord", "limit": None},
    source={"bytes": 5, "modified": 7},
    pairs=2,
    image_ids=np.array([3, 2**62], np.int64),
    problems=[BadInput("sa_000000.tar", "x", "y")],
    shards=[Shard(examples=1, bytes=9, crc32c=2**32 - 1)],
    seconds=0.5,
)


def test_what_is_written_is_read():
    data = FINISHED.to_json()
    assert FinishedTar.from_json(data).to_json() == data
    assert orjson.loads(data)["archive"] == "sa_000000.tar"  # it is JSON for others


@given(st.integers(0, 8 * len(FINISHED.to_json()) - 1))
def test_each_flipped_bit_is_found(bit):
    data = bytearray(FINISHED.to_json())
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(own_json.DamagedJson):
        FinishedTar.from_json(bytes(data))


def test_json_of_an_earlier_version_has_no_checksum_and_is_read():
    fields = orjson.loads(FINISHED.to_json())
    del fields["checksum"], fields["shards"][0]["crc32c"]
    found = FinishedTar.from_json(orjson.dumps(fields))
    assert found.shards == [Shard(examples=1, bytes=9)]
    assert found.image_ids.tolist() == FINISHED.image_ids.tolist()


@any_damage
def test_a_damaged_file_is_one_error_that_names_it(tmp_path, damage):
    path = tmp_path / "file.json"
    path.write_bytes(damage)
    with pytest.raises(
        own_json.DamagedJson, match=r"/file\.json is damaged \(.*\): do something\.$"
    ):
        own_json.read(path, FinishedTar._of_fields, "do something")


@pytest.mark.parametrize(
    ("content", "make", "reason"),
    [
        (b"{", dict, "it is not JSON: .*"),
        (b'{"checksum":1,"a":1}', dict, "its checksum is wrong"),
        (b"{}", lambda content: content["a"], "it lacks the field 'a'"),
        (b'{"a":"x"}', lambda content: int(content["a"]), "invalid literal for int.*"),
        (b"5", dict, "it is of another form: 'int' object is not iterable"),
        (b"[]", lambda content: content[0], "it is of another form: list index out of range"),
        (b"5", lambda content: content.keys(), "it is of another form: .*"),
        (b"%d" % 2**63, lambda content: np.array(content, np.int64), "it is of another form: .*"),
    ],
)
def test_what_is_wrong_is_said_plainly(content, make, reason):
    with pytest.raises(own_json.DamagedJson, match=f"^{reason}$"):
        own_json.loads(content, make)


@any_damage
def test_a_damaged_receipt_is_no_finished_tar(tmp_path, damage):
    staging = Staging(epath.Path(tmp_path))
    for name in ("sa_000000.tar", "x" * 300):
        staging.receipt(name).write_bytes(damage)
        assert staging.finished(name) is None
    with pytest.raises(
        own_json.DamagedJson, match=r"\.json is damaged \(.*: remove it and build again"
    ):
        staging.archives()  # the name of the second one stands in it alone
    assert not Folder(epath.Path(tmp_path)).has_all_staged()


@any_damage
def test_a_damaged_list_of_wanted_tars_is_named(tmp_path, damage):
    staging = Staging(epath.Path(tmp_path))
    staging.wanted.write_bytes(damage)
    if damage == b"[]":  # as an earlier version wrote it, where nothing was wanted
        assert staging.unfinished() == []
        return
    with pytest.raises(
        own_json.DamagedJson, match=r"/wanted is damaged .*: remove it, to build without"
    ):
        staging.unfinished()
    staging.want(["sa_000000.tar"])
    assert staging.unfinished() == ["sa_000000.tar"]
    staging.wanted.write_bytes(b'["sa_000001.tar"]')
    assert staging.unfinished() == ["sa_000001.tar"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    building.write_tars(root / "tars", tars=2, images=2)
    assert main(["build", str(root / "tars"), "--data-dir", str(root / "data")]) == 0
    return root


@pytest.fixture
def build(built, tmp_path, capsys):
    """Runs `sa1b build` on a copy of the data; gives its exit code and what it said."""
    shutil.copytree(built / "data", tmp_path / "data")

    def run(*options):
        arguments = ["build", str(built / "tars"), "--data-dir", str(tmp_path / "data")]
        return main([*arguments, *options]), capsys.readouterr().err

    return run


@any_damage
def test_a_damaged_list_of_tars_is_named_and_the_data_is_read(build, tmp_path, damage):
    path = tmp_path / "data" / building.FINAL / "tars.jsonl"
    lines = path.read_bytes().splitlines()
    for content in (damage, lines[0] + b"\n" + damage):
        path.write_bytes(content)
        code, said = build("--add")
        assert code == 1
        assert f"{path} is damaged (" in said
        assert "cannot be extended" in said or "not extended" in said
    staged = path.parent.parent / "staged.2.0.0"
    staged.mkdir()
    builder = tfds.builder("segment_anything", data_dir=tmp_path / "data")
    builder.download_and_prepare()  # as tfds.load does, which leaves what it cannot understand
    assert staged.exists()
    assert len(list(read_examples(path.parent))) == 4


@any_damage
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_damaged_description_of_the_data_is_named(build, tmp_path, name, damage):
    folder = tmp_path / "data" / building.FINAL
    (folder / name).write_bytes(damage)
    for read in (find_parts, training_dataset):
        with pytest.raises(ValueError, match=r"2\.0\.0 cannot be read: its dataset_info"):
            read(folder)


def test_a_list_of_tars_that_lost_a_line_is_damaged(build, tmp_path):
    path = tmp_path / "data" / building.FINAL / "tars.jsonl"
    path.write_bytes(path.read_bytes().splitlines()[0] + b"\n")
    code, said = build("--add")
    assert code == 1
    assert "tars.jsonl is damaged (it lists 1 of 2 shards)" in said


def test_a_stray_file_beside_the_shards_changes_nothing(build, tmp_path):
    folder = tmp_path / "data" / building.FINAL
    for name in ("x-train.tfrecord-00000-of-00009", "x-train.y-a-of-b", "x-train.copy"):
        (folder / name).write_bytes(b"x")
    assert build("--add")[0] == 0


def test_data_of_an_earlier_version_is_extended(build, tmp_path):
    path = tmp_path / "data" / building.FINAL / "tars.jsonl"
    lines = []
    for line in path.read_bytes().splitlines():
        fields = orjson.loads(line)
        del fields["checksum"]
        for shard in fields["shards"]:
            del shard["crc32c"]
        lines.append(orjson.dumps(fields))
    path.write_bytes(b"\n".join(lines) + b"\n")
    more = building.write_tars(tmp_path / "more", tars=3, images=2)
    code = main(["build", str(more), "--data-dir", str(tmp_path / "data"), "--add"])
    assert code == 0
    tars = Folder(epath.Path(path.parent)).prepared().tars
    assert [tar.images for tar in tars] == [2, 2, 2]


@any_damage
def test_a_damaged_report_of_a_build_is_named(build, tmp_path, damage):
    path = tmp_path / "data" / building.FINAL / "build_report.json"
    path.write_bytes(damage)
    code, said = build()
    assert code == 1
    assert f"{path} is damaged (" in said


def _export(built, out):
    arguments = ["repack", str(built / "tars"), str(out), "--form", "sa1b", "--workers", "1"]
    return main(arguments)


@any_damage
def test_a_damaged_report_of_an_export_is_named(built, tmp_path, capsys, damage):
    assert _export(built, tmp_path / "out") == 0
    path = tmp_path / "out" / "export_report.json"
    path.write_bytes(damage)
    assert _export(built, tmp_path / "out") == 1
    assert f"{path} is damaged (" in capsys.readouterr().err


@any_damage
def test_damaged_pieces_of_an_export_are_written_again(built, tmp_path, monkeypatch, damage):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SA1BTars, "join", stop)
        assert _export(built, tmp_path / "out") == 130
    folder = tmp_path / "out.incomplete"
    (folder / "joining.json").write_bytes(damage)
    for piece in folder.glob("pieces/*/piece.json"):
        piece.write_bytes(damage)
    assert _export(built, tmp_path / "out") == 0
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2


@any_damage
def test_what_is_damaged_beside_a_download_counts_for_nothing(tmp_path, damage):
    (tmp_path / "sa_000000.tar").write_bytes(b"x")
    (tmp_path / "sa_000001.tar.part").write_bytes(b"x")
    (tmp_path / "sa_000001.tar.part.json").write_bytes(damage)
    (tmp_path / RECORD_NAME).write_bytes(damage)
    assert CheckedFiles(tmp_path).checked_by("sa_000000.tar") is None
    assert Partial(tmp_path, "sa_000001.tar").source is None


@pytest.mark.parametrize("change", [{"size": None}, {"mtime_ns": None}, {"mtime_ns": "1"}], ids=str)
def test_a_damaged_entry_of_a_download_counts_for_nothing(tmp_path, change):
    packed, plain = tmp_path / "packed.tar", tmp_path / "sa_000000.tar"
    packed.write_bytes(b"xy")
    draft_of(plain).write_bytes(b"x")
    CheckedFiles(tmp_path).put_unpacked(plain, packed, "size", None)
    assert CheckedFiles(tmp_path).unpacked_from(plain.name)["bytes"] == 2
    record = orjson.loads((tmp_path / RECORD_NAME).read_bytes())
    entry = {key: value for key, value in (record[plain.name] | change).items() if value}
    (tmp_path / RECORD_NAME).write_bytes(orjson.dumps({plain.name: entry}))
    damaged = CheckedFiles(tmp_path)
    assert damaged.unpacked_from(plain.name) is None
    assert damaged.checked_by(plain.name) is None
    damaged.remember(plain.name, "size")
    assert CheckedFiles(tmp_path).checked_by(plain.name) == "size"


@any_damage
def test_a_damaged_index_is_made_again(tmp_path, damage):
    make.write_tar(tmp_path / "sa_000000.tar", make.files_of(1))
    tar = TarArchive(tmp_path / "sa_000000.tar")
    for suffix in ("index", "seek"):
        (tmp_path / f".sa_000000.tar.{suffix}").write_bytes(damage)
    assert len(index_archive(tar)) == 1


@any_damage
def test_a_table_of_md5_that_is_none_is_named(tmp_path, damage):
    path = tmp_path / "md5.txt"
    path.write_bytes(damage)
    if not damage:
        assert read_md5_table(path) == {}
        return
    with pytest.raises(ValueError, match=r"/md5\.txt, line 1: expected an MD5"):
        read_md5_table(path)


def test_a_table_of_md5_may_have_a_name_that_is_not_utf_8(tmp_path):
    path = tmp_path / "md5.txt"
    path.write_bytes(b"%s  caf\xe9.tar\n%s  sa_000000.tar\n" % (b"0" * 32, b"1" * 32))
    assert read_md5_table(path)["sa_000000.tar"] == "1" * 32


@any_damage
def test_predictions_that_are_none_are_named(tmp_path, damage):
    path = tmp_path / "predictions.json"
    path.write_bytes(damage)
    if damage == b"[]":
        assert read_predictions(path) == {}
        return
    with pytest.raises(ValueError, match=r"/predictions\.json: ") as error:
        read_predictions(path)
    assert type(error.value) is ValueError


@pytest.mark.parametrize("score", ["1" + "0" * 400, "-1e999", "9" * 5000, "NaN"])
def test_a_score_beyond_all_floats_is_named(tmp_path, score):
    path = tmp_path / "predictions.json"
    path.write_text(f'[{{"image_id": 1, "segmentation": {{}}, "score": {score}}}]')
    with pytest.raises(ValueError, match=r"/predictions\.json: "):
        read_predictions(path)


@any_damage
def test_statistics_that_are_none_are_named(built, tmp_path, capsys, damage):
    path = tmp_path / "stats.json"
    path.write_bytes(damage)
    tar = str(built / "tars" / "sa_000000.tar")
    out = str(tmp_path / "page.html")
    assert main(["show", tar, "--out", out, "--n", "1", "--stats", str(path)]) == 1
    assert "stats.json" in capsys.readouterr().err
