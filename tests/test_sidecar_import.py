"""Sidecars of files, and what `sa1b sidecar` prints; labels of masks as categories of COCO."""

import csv
import json
import os
import random
import shutil

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow_datasets as tfds

from sa1b_tfds import sidecar
from sa1b_tfds.cli.main import main
from sa1b_tfds.examples import read_examples
from sa1b_tfds.export import Coco, ExportConfig, export
from sa1b_tfds.sidecars.reading import OpenSidecar
from sa1b_tfds.torch import SA1BDataset


@pytest.fixture(scope="module")
def tars(prepared):
    return prepared / "tars"


@pytest.fixture(scope="module")
def data(prepared):
    return prepared / "segment_anything" / "original" / "2.0.0"


def caption(image_id):
    return f'Bild {image_id}, "so",\nzwei Zeilen' if image_id % 3 else ""


ROWS = [{"image_id": i, "caption": caption(i), "score": i / 4} for i in range(16)]


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))


def write_parquet(path, rows):
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


def shuffled(rows):
    return random.Random(0).sample(rows, len(rows))


def found_in(out, source):
    """The values of every image, as SA1BDataset gives them."""
    dataset = SA1BDataset(source, sidecars={"t": out})
    return {dataset[i][2]["image_id"]: dataset[i][2] for i in range(len(dataset))}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("form", ["tars", "data"])
def test_rows_of_a_file_in_any_order(tars, data, tmp_path, kind, form):
    WRITERS[kind](tmp_path / f"rows.{kind}", shuffled(ROWS))
    source = {"tars": tars, "data": data}[form]
    features = {"caption": tfds.features.Text(), "score": np.float32}
    imported = sidecar.import_file(
        tmp_path / f"rows.{kind}", source, tmp_path / "captions", features=features
    )
    assert imported == (16, [], (0, []), (0, []))
    for image_id, metadata in found_in(tmp_path / "captions", tars).items():
        assert metadata["t/caption"] == caption(image_id)
        assert metadata["t/score"] == image_id / 4
    assert os.listdir(tmp_path / "captions") == ["1.0.0"]


@pytest.mark.parametrize("kind", WRITERS)
def test_columns_are_those_of_the_first_row(tars, tmp_path, kind):
    rows = [{**row, "vector": [1.0, 2.0]} for row in ROWS]
    if kind == "csv":
        rows = ROWS
    WRITERS[kind](tmp_path / f"rows.{kind}", rows)
    sidecar.import_file(tmp_path / f"rows.{kind}", tars, tmp_path / "t")
    described = OpenSidecar("t", tmp_path / "t").columns.described()
    typed = {"caption": "text []", "score": "float32 []", "vector": "float32 [2]"}
    assert described == ({"caption": "text []", "score": "text []"} if kind == "csv" else typed)


@pytest.mark.parametrize(
    ("kind", "name_of"),
    [
        ("image_id", "sa_{}.npy"),
        ("image_id", "{}.npy"),
        ("file_name", "sa_{}.npy"),
        ("file_name", "deep/er/sa_{}.npy"),
    ],
)
def test_a_folder_of_arrays(tars, tmp_path, kind, name_of):
    for i in range(16):
        path = tmp_path / "arrays" / name_of.format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((2, 3), i, np.float16))
    sidecar.import_file(tmp_path / "arrays", tars, tmp_path / "t", key=kind)
    for image_id, metadata in found_in(tmp_path / "t", tars).items():
        np.testing.assert_array_equal(metadata["t"], np.full((2, 3), image_id, np.float16))


def test_rows_of_masks_by_their_ids(tars, tmp_path):
    ids = [i for e in read_examples(tars) for i in e.annotations["id"].tolist()]
    rows = [{"mask_id": i, "clip": [i % 1000, -1], "noun": f"n{i}"} for i in shuffled(ids)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    features = {
        "clip": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        "noun": tfds.features.Text(),
    }
    file, out = tmp_path / "rows.jsonl", tmp_path / "t"
    sidecar.import_file(file, tars, out, key="mask_id", features=features)
    for metadata in found_in(out, tars).values():
        own = metadata["id"].numpy()
        np.testing.assert_array_equal(
            metadata["t/clip"], np.stack([own % 1000, own * 0 - 1], axis=1)
        )
        assert metadata["t/noun"] == [f"n{i}" for i in own]


def test_masks_without_a_row_can_be_filled(tars, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"mask_id": 0, "clip": [1.0, 2.0], "noun": "cat"}])
    options = {"key": "mask_id", "on_error": "skip"}
    with pytest.raises(ValueError, match="No image has a row"):
        sidecar.import_file(tmp_path / "rows.jsonl", tars, tmp_path / "t", **options)
    shutil.rmtree(tmp_path / "t")
    sidecar.import_file(tmp_path / "rows.jsonl", tars, tmp_path / "t", fill=True, **options)
    for metadata in found_in(tmp_path / "t", tars).values():
        is_first = (metadata["id"] == 0).tolist()
        assert metadata["t/noun"] == ["cat" if first else "" for first in is_first]
        assert metadata["t/clip"].tolist() == [
            [1.0, 2.0] if first else [0, 0] for first in is_first
        ]


def test_what_the_command_prints(tars, tmp_path, capsys):
    """Images without a row, and keys that are unknown or repeated, are counted and named."""
    rows = [ROWS[5], {**ROWS[5], "caption": "again"}, *ROWS[:5], *ROWS[6:15]]
    rows += [{"image_id": 100 + i, "caption": "x", "score": 0.0} for i in range(7)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    arguments = ["sidecar", "import", tmp_path / "rows.jsonl", tars, "--out", tmp_path / "captions"]
    arguments += ["--columns", "caption", "score:float32"]
    assert main([*map(str, arguments)]) == 1
    assert "1 key repeated, such as 5: take them out, or skip" in capsys.readouterr().err
    assert main([*map(str, arguments), "--on-error", "skip"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "sa_000001.tar: image 15: it has no row",
        "1 key comes more than once: 5",
        "7 keys belong to nothing here: 100, 101, 102, 103, 104",
        f"15 images in {tmp_path}/captions; 1 skipped",
    ]
    assert main(["sidecar", "join", str(tars), "--out", str(tmp_path / "captions")]) == 0
    assert capsys.readouterr().out == f"15 images in {tmp_path}/captions\n"
    with pytest.raises(SystemExit, match="2"):
        main([*map(str, arguments), "--columns", "caption:float17"])
    assert "'float17' is no type of NumPy" in capsys.readouterr().err


def test_a_mended_file_is_read_again(tars, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [*ROWS, ROWS[3]])
    with pytest.raises(ValueError, match="1 key repeated, such as 3"):
        sidecar.import_file(tmp_path / "rows.jsonl", tars, tmp_path / "t")
    write_jsonl(tmp_path / "rows.jsonl", [*ROWS, {**ROWS[3], "image_id": 77}])
    for _ in range(2):  # the second has nothing to write, and says the same
        imported = sidecar.import_file(tmp_path / "rows.jsonl", tars, tmp_path / "t")
        assert imported == (16, [], (0, []), (1, [77]))


def test_keys_that_an_earlier_import_met_are_not_unknown(tars, tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{"file_name": f"sa_{i}.jpg", "x": i} for i in range(17)])
    options = {"key": "file_name"}
    first = sidecar.import_file(tmp_path / "rows.jsonl", tars, tmp_path / "t", **options)
    assert first.unknown == (1, ["sa_16"])
    again = sidecar.import_file(tmp_path / "rows.jsonl", tars, tmp_path / "t", **options)
    assert again.unknown is None


@pytest.mark.parametrize(
    ("name", "content", "options", "text"),
    [
        ("a.csv", "image_id,x\n1,2,3\n", {}, "line 2: it has another number of fields"),
        ("a.csv", "id,x\n1,2\n", {}, r"has no column 'image_id'; it has \['id', 'x'\]"),
        ("a.csv", "image_id,x\nsa_b,2\n", {}, "row 1: 'sa_b' is no image_id"),
        (
            "a.csv",
            "image_id,x\n1,b\n",
            {"features": {"x": np.int64}, "fill": True},
            "a.csv, key 1: column 'x': 'b' is no number",
        ),
        ("a.jsonl", "", {}, "has no row"),
        ("a.jsonl", '{"image_id": 1, "x": null}', {}, "column 'x' has None at first"),
        ("a.jsonl", '{"image_id": 1, "x": 2}\n{', {}, "line 2: it is not JSON"),
        ("a.jsonl", '{"image_id": 1, "x": 2}\n[]', {}, "line 2: it is not a JSON object"),
        ("a.jsonl", '{"image_id": 1, "x": 2}\n{"image_id": 2}', {}, "row 2: it has no 'x'"),
        ("a.txt", "1 2", {}, "is none of the files that can be read: .csv, .jsonl"),
        ("a.csv", "image_id,x\n1,2\n", {"key": "name"}, "key must be one of"),
    ],
)
def test_a_damaged_file_is_named(data, tmp_path, name, content, options, text):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=text):
        sidecar.import_file(tmp_path / name, data, tmp_path / "t", **options)


def test_labels_of_masks_are_categories_of_coco(tars, tmp_path):
    def label(batch):
        return [np.arange(len(each["masks"].counts)) % 3 - 1 for each in batch]

    feature = tfds.features.Sequence(tfds.features.ClassLabel(names=["cat", "dog"]))
    sidecar.map(tars, label, {"label": feature}, tmp_path / "labels")
    arguments = [tars, tmp_path / "coco", "--format", "coco", "--images", "none"]
    arguments += ["--labels", tmp_path / "labels", "--workers", "1"]
    assert main(["export", *map(str, arguments)]) == 0
    content = json.loads((tmp_path / "coco" / "annotations.json").read_bytes())
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert names == {1: "cat", 2: "dog", 3: "object"}
    found = {}
    for annotation in content["annotations"]:
        found.setdefault(annotation["image_id"], []).append(names[annotation["category_id"]])
    for example in read_examples(tars):
        number = len(example.masks.counts)
        want = [["object", "cat", "dog"][i % 3] for i in range(number)]
        assert found.get(example.image_id, []) == want


def test_an_export_refuses_a_sidecar_without_labels(tars, tmp_path, capsys):
    sidecar.map(tars, lambda batch: [0] * len(batch), {"x": np.int64}, tmp_path / "t")
    with pytest.raises(ValueError, match=r"must have one column with a ClassLabel for each mask"):
        export(ExportConfig(source=tars, output=tmp_path / "c", format=Coco(labels=tmp_path / "t")))
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(tars), str(tmp_path / "y"), "--format", "yolo", "--labels", "t"])
    assert "--labels is for --format coco" in capsys.readouterr().err
