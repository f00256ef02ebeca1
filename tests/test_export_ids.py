"""Exports of some images: by a list of ids, and by a part of a hold-out."""

import json
import shutil
import tarfile

import numpy as np
import pytest

from sa1b_tfds.cli.main import main
from sa1b_tfds.examples.id_set import MissingIds
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.export import Coco, ExportConfig, SA1BTars, WebDataset, Yolo, export
from tests import building

pytestmark = pytest.mark.usefixtures("threads")

COCO = Coco(images="none")
VAL = {"holdout": 0.25, "holdout_part": "val"}
HELD_OUT = np.flatnonzero(ImageChoice(**VAL).has(np.arange(16))).tolist()


@pytest.fixture(scope="module")
def places(prepared, tmp_path_factory):
    files = tmp_path_factory.mktemp("files")
    for path in sorted((prepared / "tars").glob("*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(files, filter="data")
    return {
        "tars": {"source": prepared / "tars"},
        "compressed": {"source": building.packed(prepared / "tars")},
        "files": {"source": files},
        "prepared": {"source": prepared, "config": "original"},
    }


def run(place, output, format=COCO, **options):
    return export(ExportConfig(**place, output=output, format=format, workers=1, **options))


def ids_in_coco(output):
    return sorted(
        image["id"] for image in json.loads((output / "annotations.json").read_text())["images"]
    )


@pytest.mark.parametrize("place", ["tars", "compressed", "files", "prepared"])
def test_the_chosen_images_are_exported(places, tmp_path, place):
    done = run(places[place], tmp_path / "some", ids=[3, "sa_9.jpg", 15])
    assert done.counts["images"] == 3
    assert ids_in_coco(tmp_path / "some") == [3, 9, 15]
    run(places[place], tmp_path / "val", **VAL)
    assert ids_in_coco(tmp_path / "val") == HELD_OUT
    run(places[place], tmp_path / "both", ids=range(16), holdout=0.25)
    assert ids_in_coco(tmp_path / "both") == sorted(set(range(16)) - set(HELD_OUT))


@pytest.mark.parametrize("form", [SA1BTars(), WebDataset(shard_images=2)], ids=lambda f: f.name)
def test_a_subset_in_tars(places, tmp_path, form):
    """Without a tar for those that have none of the images."""
    run(places["tars"], tmp_path / "out", form, ids=[8, 10, 13])
    paths = sorted((tmp_path / "out").glob("*.tar"))
    names = []
    for path in paths:
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert sorted(name.removeprefix("./") for name in names) == [
        f"sa_{i}.{suffix}" for i in (10, 13, 8) for suffix in ("jpg", "json")
    ]
    assert [path.name for path in paths] == (
        ["sa_000001.tar"] if form.name == "sa1b" else ["000000.tar", "000001.tar"]
    )


def test_ids_that_are_not_there_are_an_error_unless_skipped(places, tmp_path, capsys):
    output = tmp_path / "out"
    message = r"that are not in .*tars: 2 of 3 \(16, 99\)\..*`--missing-ids skip`"
    with pytest.raises(MissingIds, match=message):
        run(places["tars"], output, ids=[16, 2, 99])
    assert not output.exists()
    pieces = list((tmp_path / "out.incomplete").glob("pieces/*/piece.json"))
    before = {path: path.stat().st_mtime_ns for path in pieces}
    assert len(before) == 2
    ids = tmp_path / "ids.txt"
    ids.write_text("16\n2\n99\n")
    command = ["export", str(places["tars"]["source"]), str(output), "--format", "coco"]
    command += ["--images", "none", "--ids", str(ids), "--workers", "1"]
    assert main(command) == 1
    assert "Image ids that are not in" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in pieces} == before
    assert main([*command, "--missing-ids", "skip"]) == 0
    assert "2 image ids not in" in capsys.readouterr().out
    assert ids_in_coco(output) == [2]
    report = json.loads((output / "export_report.json").read_text())
    assert report["missing_ids"] == [16, 99]
    assert main([*command, "--missing-ids", "skip"]) == 0
    assert "already in" in capsys.readouterr().out
    # Not missing: it is in the other part of the hold-out.
    other = min(set(range(16)) - set(HELD_OUT))
    run(places["tars"], tmp_path / "val", ids=[other, HELD_OUT[0]], **VAL)
    assert ids_in_coco(tmp_path / "val") == HELD_OUT[:1]


def test_the_same_command_with_another_choice_is_another_export(places, tmp_path):
    output = tmp_path / "out"
    run(places["tars"], output, ids=[1, 2])
    assert run(places["tars"], output, ids=["sa_2.jpg", 1]).was_there
    for options in ({}, {"ids": [1]}, {"ids": [1, 2], "holdout": 0.5}, VAL):
        with pytest.raises(FileExistsError, match="another source or with other options"):
            run(places["tars"], output, **options)


def test_none_of_the_images_is_an_error(places, tmp_path):
    for place in ("tars", "prepared"):
        with pytest.raises(ValueError, match="has none of the chosen images"):
            run(places[place], tmp_path / "out", ids=[99], missing_ids="skip")
        with pytest.raises(MissingIds, match=r"not in .*: 1 of 1 \(99\)"):
            run(places[place], tmp_path / "out", ids=[99])


def test_of_prepared_data_only_shards_with_chosen_images_are_read(prepared, tmp_path):
    data = shutil.copytree(prepared / building.FINAL, tmp_path / "data")
    [second] = data.glob("*-00001-of-*")
    second.write_bytes(b"x" * second.stat().st_size)
    run({"source": data}, tmp_path / "out", ids=[1, 7])
    assert ids_in_coco(tmp_path / "out") == [1, 7]


def test_names_without_ids_are_looked_up_in_their_json(tmp_path):
    files = {}
    for name, image_id in (("sa_photo", 40), ("sa_other", 41)):
        jpeg, content = building.make.draw(0, 24, 32, 3)
        content["image"].update(image_id=image_id, file_name=f"{name.removeprefix('sa_')}.jpg")
        files |= {f"./{name}.jpg": jpeg, f"./{name}.json": json.dumps(content).encode()}
    (tmp_path / "tars").mkdir()
    building.make.write_tar(tmp_path / "tars" / "sa_own.tar", files)
    run({"source": tmp_path / "tars"}, tmp_path / "out", SA1BTars(), ids=[41])
    [example] = read_examples(tmp_path / "out")
    assert example.image_id == 41


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": [1], "max_images": 2}, "max_images cannot apply with ids or holdout"),
        ({"holdout": 0.1, "max_images": 2}, "max_images cannot apply with ids or holdout"),
        ({"ids": ["x"]}, "'x' is not an image id"),
        ({"holdout": 2}, "holdout must be 0 to 1, got 2"),
        ({"holdout_part": "val"}, "holdout must be above 0"),
        ({"missing_ids": "drop"}, "missing_ids must be 'raise' or 'skip', got 'drop'"),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ExportConfig(source=tmp_path, output=tmp_path / "out", format=Yolo(), **options)
