"""Exports: the libraries that they are for read them, and whatever ends a run loses nothing."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc

import cv2
import numpy as np
import psutil
import pytest
import supervision
import webdataset
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from sa1b_tfds.cli.main import main
from sa1b_tfds.core import extras
from sa1b_tfds.core.problems import BadInput, Problems
from sa1b_tfds.examples.annotations import to_example
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.export import Coco, ExportConfig, SA1BTars, WebDataset, Yolo, export
from sa1b_tfds.export import coco as coco_module
from sa1b_tfds.export.format import Format, Item
from sa1b_tfds.export.outline import polygons_of
from sa1b_tfds.masks import rle
from sa1b_tfds.tars.archive import find_archives
from tests import building
from tests.building import make, write_large_tars, write_tars
from tests.strategies import masks as any_masks

pytestmark = pytest.mark.usefixtures("threads")


def run(source, output, format, **options):
    return export(ExportConfig(source=source, output=output, format=format, workers=1, **options))


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def tars(tmp_path_factory) -> pathlib.Path:
    return write_tars(tmp_path_factory.mktemp("tars"), height=90, width=120, shapes=7)


@pytest.fixture(scope="module")
def files(tars, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("files")
    for path in tars.iterdir():
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def pairs(files) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in files.iterdir()}


@pytest.fixture(scope="module")
def examples(tars) -> dict:
    return {example.image_id: example for example in read_examples(tars)}


@pytest.fixture(scope="module")
def coco(tars, tmp_path_factory) -> pathlib.Path:
    return run(tars, tmp_path_factory.mktemp("exports") / "coco", Coco()).output


@pytest.fixture(scope="module")
def yolo(tars, tmp_path_factory) -> pathlib.Path:
    return run(tars, tmp_path_factory.mktemp("exports") / "yolo", Yolo()).output


# WebDataset and SA-1B's own tars.


def test_webdataset_reads_every_image(tars, pairs, tmp_path):
    size = max(sum(len(pairs[f"sa_{i}.{x}"]) for x in ("jpg", "json")) for i in range(8)) + 13_000
    exported = run(tars, tmp_path / "out", WebDataset(shard_size=2 * size))
    assert exported.counts["images"] == 8
    shards = sorted(exported.output.glob("*.tar"))
    assert [path.name for path in shards] == [f"{i:06d}.tar" for i in range(len(shards))]
    assert len(shards) >= 3
    assert all(path.stat().st_size <= 2 * size for path in shards)
    urls = [str(path) for path in shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"sa_{i}" for i in range(8)]
    for sample in samples:
        for suffix in ("jpg", "json"):
            assert sample[suffix] == pairs[f"{sample['__key__']}.{suffix}"]


@pytest.mark.usefixtures("processes")
def test_shards_do_not_depend_on_workers(tars, tmp_path):
    folders = []
    for workers in (1, 3):
        config = ExportConfig(
            source=tars,
            output=tmp_path / str(workers),
            format=WebDataset(shard_images=3),
            workers=workers,
        )
        folders.append(digests(export(config).output))
    assert folders[0] == folders[1]
    assert sum(name.endswith(".tar") for name in folders[0]) == 4


@pytest.mark.parametrize("form", ["gzip", "mixed"])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        (WebDataset(shard_images=3), {}),
        (WebDataset(), {"max_images": 5}),
        (SA1BTars(), {"max_images": 5}),
        (Coco(), {}),
        (Coco(), {"max_images": 5}),
        (Yolo(), {}),
    ],
    ids=lambda value: value.name if isinstance(value, Format) else "some" if value else "all",
)
def test_tars_of_either_form_give_the_same_files(tars, tmp_path, format, options, form):
    outputs = [
        run(source, tmp_path / name, format, **options).output
        for name, source in (("plain", tars), ("packed", building.FORMS[form](tars)))
    ]
    plain, packed = map(digests, outputs)
    for digests_of in (plain, packed):
        digests_of.pop("export_report.json")  # which has the sizes of the tars
    assert packed == plain
    assert len(plain) > 1 or isinstance(format, WebDataset)


def test_a_subset_in_sa1b_tars(tars, pairs, tmp_path):
    exported = run(tars, tmp_path / "out", SA1BTars(), tars=[1], max_images=3)
    assert exported.counts["images"] == 3
    (archive,) = find_archives(exported.output)
    assert archive.name == "sa_000001.tar"
    found = list(archive.pairs(Problems()))
    assert [pair.jpeg_name for pair in found] == ["./sa_4.jpg", "./sa_5.jpg", "./sa_6.jpg"]
    assert all(pair.json == pairs[pair.json_name[2:]] for pair in found)
    assert all(pair.jpeg == pairs[pair.jpeg_name[2:]] for pair in found)


def test_tars_of_one_name_do_not_meet(tars, tmp_path):
    for number in (0, 1):
        (tmp_path / "two" / f"disk{number}").mkdir(parents=True)
        tar = tars / f"sa_00000{number}.tar"
        shutil.copy(tar, tmp_path / "two" / f"disk{number}" / "sa_000000.tar")
    exported = run(tmp_path / "two", tmp_path / "out", SA1BTars())
    assert exported.counts["images"] == 8
    assert [a.name for a in find_archives(exported.output)] == [
        "sa_disk0%2Fsa_000000.tar",
        "sa_disk1%2Fsa_000000.tar",
    ]


def test_folders_whose_names_differ_by_sa_only_do_not_meet(files, tmp_path):
    for image_id in range(3):
        folder = tmp_path / "in" / ("x", "sa_x", "x_")[image_id]
        folder.mkdir(parents=True)
        for suffix in ("jpg", "json"):
            shutil.copy(files / f"sa_{image_id}.{suffix}", folder)
    exported = run(tmp_path / "in", tmp_path / "out", SA1BTars())
    assert exported.counts["images"] == 3
    found = {a.name: len(a.index(Problems())) for a in find_archives(exported.output)}
    assert found == {"sa_x.tar": 1, "sa_x_.tar": 1, "sa_x__.tar": 1}


@pytest.mark.parametrize("name", ["sa_000000.tar.gz", "sa_000000.tgz"])
def test_a_tar_named_gz_that_is_not_compressed_loses_that_name(tars, tmp_path, name):
    (tmp_path / "in").mkdir()
    shutil.copy(tars / "sa_000000.tar", tmp_path / "in" / name)
    exported = run(tmp_path / "in", tmp_path / "out", SA1BTars())
    assert [a.name for a in find_archives(exported.output)] == ["sa_000000.tar"]


def test_loose_files_and_a_folder_of_the_same_label_do_not_meet(files, tmp_path):
    (tmp_path / "in" / "files").mkdir(parents=True)
    for image_id in range(4):
        for name in (f"sa_{image_id}.jpg", f"sa_{image_id}.json"):
            shutil.copy(files / name, tmp_path / "in" / ("files" if image_id % 2 else "."))
    exported = run(tmp_path / "in", tmp_path / "out", Coco())
    assert exported.counts["images"] == 4
    assert len(list((exported.output / "images").rglob("*.jpg"))) == 4
    assert sorted(os.listdir(exported.output / "images")) == ["files", "files_"]


@pytest.mark.parametrize("format", [WebDataset(), SA1BTars(), Coco(), Yolo()])
@pytest.mark.parametrize("max_images", [None, 4])
def test_a_file_that_is_no_tar_is_named(tars, tmp_path, format, max_images):
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "sa_000000.tar").write_text("Not found")
    shutil.copy(tars / "sa_000001.tar", tmp_path / "tars")
    source = tmp_path / "tars"
    exported = run(source, tmp_path / "out", format, on_error="skip", max_images=max_images)
    assert exported.counts["images"] == 4
    assert [problem.archive for problem in exported.skipped] == ["sa_000000.tar"]
    if isinstance(format, WebDataset):
        assert [path.name for path in exported.output.glob("*.tar")] == ["000000.tar"]


def test_max_images_goes_over_tars(tars, tmp_path):
    exported = run(tars, tmp_path / "out", SA1BTars(), max_images=5)
    assert [len(list(a.pairs(Problems()))) for a in find_archives(exported.output)] == [4, 1]


# COCO.


def test_pycocotools_reads_what_is_in_the_tars(coco, examples, pairs):
    dataset = COCO(coco / "annotations.json")
    assert dataset.cats == {1: {"id": 1, "name": "object", "supercategory": "object"}}
    assert set(dataset.imgs) == set(examples)
    assert len(dataset.anns) == sum(len(e.masks.counts) for e in examples.values())
    for image_id, image in dataset.imgs.items():
        example = examples[image_id]
        assert (image["height"], image["width"]) == example.masks.size
        assert (coco / "images" / image["file_name"]).read_bytes() == pairs[f"sa_{image_id}.jpg"]
        source = json.loads(pairs[f"sa_{image_id}.json"])["annotations"]
        annotations = dataset.imgToAnns[image_id]
        assert [a["id"] for a in annotations] == [a["id"] for a in source]
        for annotation, own in zip(annotations, source, strict=True):
            mask = rle.decode_rle(own["segmentation"])
            np.testing.assert_array_equal(dataset.annToMask(annotation), mask)
            assert annotation["area"] == own["area"] == mask.sum()
            assert annotation["bbox"] == coco_mask.toBbox(coco_mask.encode(mask)).tolist()
            x, y, w, h = own["bbox"]
            assert annotation["bbox"] == [x, y, w + 1, h + 1]
            assert (annotation["category_id"], annotation["iscrowd"]) == (1, 0)
            assert isinstance(annotation["segmentation"]["counts"], str)
            assert annotation["point_coords"] == own["point_coords"]
            assert annotation["crop_box"] == own["crop_box"]
            for name in ("predicted_iou", "stability_score"):
                assert np.float32(annotation[name]) == np.float32(own[name])


def test_supervision_reads_it(coco, examples):
    dataset = supervision.DetectionDataset.from_coco(
        str(coco / "images"), str(coco / "annotations.json")
    )
    assert len(dataset) == len(examples)
    for path, image, detections in dataset:
        example = examples[int(pathlib.Path(path).stem.removeprefix("sa_"))]
        assert image.shape[:2] == example.masks.size
        np.testing.assert_array_equal(detections.mask, rle.decode_rles(*example.masks) == 1)


def test_images_are_linked_or_left_out(files, tars, coco, tmp_path):
    linked = run(files, tmp_path / "linked", Coco(images="link"))
    images = sorted((linked.output / "images").rglob("*.jpg"))
    assert len(images) == 8
    assert all(path.samefile(files / path.name) for path in images)
    dataset = supervision.DetectionDataset.from_coco(
        str(linked.output / "images"), str(linked.output / "annotations.json")
    )
    assert len([image for _, image, _ in dataset]) == 8
    none = run(tars, tmp_path / "none", Coco(images="none"))
    assert not (none.output / "images").exists()
    assert (none.output / "annotations.json").read_bytes() == (
        coco / "annotations.json"
    ).read_bytes()
    with pytest.raises(ValueError, match="'link' needs extracted files to link to"):
        run(tars, tmp_path / "wrong", Coco(images="link"))


def items(images: int):
    """Images of 100 masks."""
    jpeg, content = make.draw(1, 40, 40, 1)
    content["annotations"] *= 100
    example = to_example(jpeg, json.dumps(content).encode())
    for image_id in range(images):
        ids = 100 * image_id + np.arange(100)
        columns = {**example.annotations, "id": ids}
        yield Item(dataclasses.replace(example, image_id=image_id, annotations=columns), None)


def test_memory_does_not_grow_with_the_annotations(tmp_path, monkeypatch):
    """25,000 annotations take no more memory than 5,000."""
    monkeypatch.setattr(coco_module._Ids, "RUN", 4096)
    peaks = []
    for images in (50, 250):
        root = tmp_path / str(images)
        piece = root / "pieces" / "all"
        piece.mkdir(parents=True)
        format = Coco(images="none")
        tracemalloc.start()
        format.write(items(images), piece, "all")
        finished = [dataclasses.replace(_FINISHED, label="all")]
        format.join(root, finished)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    with (tmp_path / "250" / "annotations.json").open() as file:
        content = json.load(file)
    assert len({a["id"] for a in content["annotations"]}) == 25_000
    assert peaks[1] < peaks[0] + 2**19
    assert peaks[1] < 2**22


_FINISHED = coco_module.Finished(label="", fingerprint={}, image_ids=[], counts={}, problems=[])


def test_an_image_without_masks_and_one_prepared_smaller(tmp_path):
    jpeg, content = make.draw(1, 40, 40, 1)
    content["annotations"] = []
    piece = tmp_path / "pieces" / "a"
    piece.mkdir(parents=True)
    item = Item(to_example(jpeg, json.dumps(content).encode()), None)
    Coco().write(iter([item]), piece, "a")
    Coco().join(tmp_path, [dataclasses.replace(_FINISHED, label="a")])
    assert COCO(tmp_path / "annotations.json").getAnnIds() == []
    image, _ = make.draw(1, 20, 20, 1)
    small = Item(dataclasses.replace(item.example, image=image), None)
    with pytest.raises(ValueError, match=r"sa_1.jpg was prepared smaller .* config 'original'"):
        Coco().write(iter([small]), piece, "a")


@pytest.mark.parametrize("run_length", [3, 65536])
def test_an_annotation_id_that_comes_twice_is_an_error(tmp_path, monkeypatch, run_length):
    monkeypatch.setattr(coco_module._Ids, "RUN", run_length)
    tars = write_tars(tmp_path / "tars", tars=1, images=3)
    path = tars / "sa_000000.tar"
    same = path.read_bytes().replace(b'"id": 333002001', b'"id": 333000000')
    path.write_bytes(same)
    piece = tmp_path / "pieces" / "a"
    piece.mkdir(parents=True)
    source = (Item(example, None) for example in read_examples(tars))
    Coco(images="none").write(source, piece, "a")
    with pytest.raises(ValueError, match=r"Annotation id 333000000 is in image [02] and in image"):
        Coco(images="none").join(tmp_path, [dataclasses.replace(_FINISHED, label="a")])


@pytest.mark.parametrize(("images", "share"), [("copy", 1.4), ("link", 0.4), ("none", 0.4)])
def test_the_json_is_counted_twice_in_what_is_to_be_written(images, share):
    assert Coco(images=images).written(1_000_000) == share * 1_000_000


def write_ids(path: pathlib.Path, by_image: list[list[int]]) -> None:
    with path.open("wb") as file:
        ids = coco_module._Ids(file)
        for image_id, some in enumerate(by_image):
            ids.add(np.array(some, np.int64), image_id)
        ids.flush()


@given(
    st.lists(st.lists(st.lists(st.integers(0, 200), max_size=7), max_size=5), max_size=3),
    st.integers(1, 9),
)
def test_an_id_that_comes_twice_is_found_wherever_the_runs_end(pieces, run_length):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(coco_module._Ids, "RUN", run_length)
        paths = [pathlib.Path(folder, str(i)) for i in range(len(pieces))]
        for path, by_image in zip(paths, pieces, strict=True):
            write_ids(path, by_image)
            rows = sum(map(len, by_image))
            written = np.fromfile(path, np.int64).reshape(-1, 2)
            assert written.shape == (rows, 2)
            for start in range(0, rows, run_length):
                run = written[start : start + run_length, 0]
                assert (np.diff(run) >= 0).all()
        every = [i for by_image in pieces for some in by_image for i in some]
        if len(set(every)) == len(every):
            coco_module._refuse_repeated(paths)
        else:
            least = min(i for i in every if every.count(i) > 1)
            with pytest.raises(ValueError, match=f"Annotation id {least} is in image"):
                coco_module._refuse_repeated(paths)


def test_of_images_with_the_same_id_the_first_two_are_named(tmp_path):
    ids = np.random.default_rng(0).integers(5, 8, (100, 3))
    write_ids(tmp_path / "ids", ids.tolist())
    first, second, *_ = np.nonzero(ids == 5)[0]
    said = f"Annotation id 5 is in image {first} and in image {second}\\."
    with pytest.raises(ValueError, match=said):
        coco_module._refuse_repeated([tmp_path / "ids"])


@pytest.mark.parametrize("parts", [[], [b""], [b",\n1"], [b"", b",\n1", b"", b",\n2,\n3"]])
def test_objects_are_joined_without_a_comma_before_the_first(tmp_path, parts):
    paths = [tmp_path / str(i) for i in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    with (tmp_path / "joined").open("wb") as file:
        file.write(b"[")
        coco_module._append_all(paths, file)
        file.write(b"]")
    whole = (tmp_path / "joined").read_bytes()
    assert json.loads(whole) == list(range(1, b"".join(parts).count(b",") + 1))
    assert len(whole) == 2 + sum(map(len, parts))


# YOLO.


def drawn(line: str, size: tuple[int, int]) -> np.ndarray:
    """A line of a label file as ultralytics draws it: float32, to pixels, filled. uint8 [H, W]"""
    height, width = size
    kind, *numbers = line.split()
    assert kind == "0"
    corners = np.array(numbers, np.float32).reshape(-1, 2)
    assert len(corners) >= 3
    assert corners.min() >= 0
    assert corners.max() <= 1
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [(corners * (width, height)).astype(np.int32)], 1)
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.logical_and(a, b).sum() / np.logical_or(a, b).sum()


def without_holes(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The mask, its holes filled, and the number of its parts."""
    outside, around = cv2.connectedComponents(np.pad(1 - mask, 1, constant_values=1), None, 4)
    parts = cv2.connectedComponents(mask, None, 8)[0] - 1
    return np.uint8(around[1:-1, 1:-1] != around[0, 0]) if outside else mask, parts


def test_yolo_labels_draw_the_masks(yolo, examples):
    data = yaml.safe_load((yolo / "data.yaml").read_text())
    assert data == {"train": "images", "val": "images", "names": {0: "object"}}
    images = sorted((yolo / data["train"]).rglob("*.jpg"))
    assert len(images) == 8
    for path in images:
        # What ultralytics does with a path to find the labels.
        label = pathlib.Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
        example = examples[int(path.stem.removeprefix("sa_"))]
        masks = rle.decode_rles(*example.masks)
        lines = label.read_text().splitlines()
        assert len(lines) == len(masks)
        for line, mask in zip(lines, masks, strict=True):
            filled, parts = without_holes(mask)
            assert iou(drawn(line, example.masks.size), filled) > (0.98 if parts == 1 else 0.8)


@given(any_masks())
def test_polygons_of_any_mask(masks):
    size = masks.shape[1:]
    counts = [rle.encode_mask(mask)["counts"] for mask in masks]
    for mask, polygon in zip(masks, polygons_of(rle.Checked(counts, size)), strict=True):
        if not mask.any():
            assert polygon is None
            continue
        x, y = (polygon - 0.5).astype(int).T
        assert mask[y, x].all()  # every corner is the middle of a pixel of the mask
        filled, parts = without_holes(mask.astype(np.uint8))
        line = "0 " + " ".join(map(str, (polygon / size[::-1]).ravel()))
        if parts == 1:
            assert iou(drawn(line, size), filled) > 0.98


def test_what_yolo_lacks_is_named(tars, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["export", str(tars), str(tmp_path / "out"), "--format", "yolo"]) == 1
    assert "pip install 'sa1b_tfds[export]'" in capsys.readouterr().err
    with pytest.raises(ImportError, match=r"This needs cv2, .*sa1b_tfds\[export\]"):
        extras.load("cv2", "export")


# What is bad, and what is refused.


@pytest.fixture
def bad_tars(tmp_path) -> pathlib.Path:
    """One image lacks a field, and one comes twice."""
    tars = write_tars(tmp_path / "bad", images=3)
    path = tars / "sa_000000.tar"
    path.write_bytes(path.read_bytes().replace(b'"stability_score"', b'"stability_scare"', 1))
    make.write_tar(tars / "sa_000002.tar", make.files_of(4) | make.files_of(6))
    return tars


@pytest.mark.parametrize("form", ["plain", "gzip"])
@pytest.mark.parametrize("command", ["repack", "export --format coco", "export --format yolo"])
def test_bad_images_are_named_and_counted(bad_tars, tmp_path, capsys, command, form):
    bad_tars = building.FORMS[form](bad_tars)
    arguments = [*command.split(), str(bad_tars), str(tmp_path / "out"), "--workers", "2"]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "lacks the field 'stability_score'" in err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--on-error", "skip"]) == 0
    captured = capsys.readouterr()
    assert "sa_000001: done" not in captured.err  # it was kept
    lines = captured.out.splitlines()
    assert lines[0].startswith("skipped sa_000000.tar: ./sa_")
    assert lines[1] == "skipped sa_000002.tar: ./sa_4.json: image id 4 was in sa_000001 before"
    assert lines[-1].startswith("6 images, ")
    assert lines[-1].endswith("out; 2 skipped")
    assert main([*arguments, "--on-error", "skip"]) == 0
    assert "are already in" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "export_report.json").read_text())
    assert len(report["skipped"]) == 2


def test_an_image_that_comes_twice_is_an_error(bad_tars, tmp_path):
    (bad_tars / "sa_000000.tar").unlink()
    with pytest.raises(BadInput, match=r"sa_000002.tar: ./sa_4.json: .* was in sa_000001 before"):
        run(bad_tars, tmp_path / "out", Coco())


def test_a_folder_that_holds_something_else_is_left_alone(tars, tmp_path, coco):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("it was a dark and stormy night")
    with pytest.raises(FileExistsError, match="mine holds something else: name a folder"):
        run(tars, tmp_path / "mine", Coco())
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]
    before = digests(coco)
    for options in ({"format": Coco(images="none")}, {"format": Coco(), "max_images": 5}):
        with pytest.raises(FileExistsError, match="an export of another source or with other"):
            run(tars, coco, **options)
    with pytest.raises(FileExistsError, match="format coco, and this command writes yolo; its exp"):
        run(tars, coco, Yolo())
    assert digests(coco) == before
    (tmp_path / "empty").mkdir()
    assert run(tars, tmp_path / "empty", Coco(images="none")).counts["images"] == 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_images": 0}, ValueError, "max_images must be positive, got 0"),
        ({"output": "/"}, ValueError, "/ is a mount point"),
        ({"output": "gs://bucket/out"}, ValueError, "output must be a local folder"),
        ({"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'skip'"),
        ({"tars": [7]}, FileNotFoundError, "holds none of the requested tars"),
        ({"source": "/nowhere"}, FileNotFoundError, "/nowhere is not there"),
    ],
)
def test_what_makes_no_sense_is_refused(tars, tmp_path, options, error, message):
    given = {"source": tars, "output": tmp_path / "out", "format": Coco(), **options}
    with pytest.raises(error, match=message):
        export(ExportConfig(**given))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_size": 0}, "shard_size must be positive"),
        ({"shard_images": 0}, "shard_images must be positive"),
    ],
)
def test_shards_of_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WebDataset(**options)


def test_options_of_the_commands(tars, tmp_path):
    arguments = ["repack", str(tars), str(tmp_path / "out")]
    assert main([*arguments, "--form", "sa1b", "--tars", "0,4:9", "--max-images", "9"]) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["export_report.json", "sa_000000.tar"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [("5:2", "5:2 holds no number"), ("0,3:3", "3:3 holds no number"), ("a", "'a' is not a list")],
)
def test_numbers_of_no_tar_are_refused(tars, tmp_path, capsys, numbers, message):
    with pytest.raises(SystemExit, match="2"):
        main(["repack", str(tars), str(tmp_path / "out"), "--tars", numbers])
    assert message in capsys.readouterr().err


# What ends a run.


@pytest.fixture(scope="module")
def slow_tars(tmp_path_factory) -> pathlib.Path:
    return write_large_tars(tmp_path_factory.mktemp("slow"), tars=3, images=60)


_COMMANDS = {
    "webdataset": ("repack", "--shard-images", "20"),
    "coco": ("export", "--format", "coco"),
}


def start(command: str, source: pathlib.Path, output: pathlib.Path) -> subprocess.Popen:
    name, *options = _COMMANDS[command]
    arguments = [name, str(source), str(output), *options, "--workers", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", "sa1b_tfds", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_killed_and_run_again(slow_tars, tmp_path, command):
    formats = {"webdataset": WebDataset(shard_images=20), "coco": Coco()}
    calm = run(slow_tars, tmp_path / "calm", formats[command]).output
    pieces = len(json.loads((calm / "export_report.json").read_text())["job"])

    killed = start(command, slow_tars, tmp_path / "out")
    staged = tmp_path / "out.incomplete" / "pieces"
    deadline = time.monotonic() + 60
    while len(finished := list(staged.glob("*[0-9]/piece.json"))) < 2:
        assert time.monotonic() < deadline
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.002)
    for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    killed.communicate()
    assert not (tmp_path / "out").exists()

    again = start(command, slow_tars, tmp_path / "out")
    log = again.communicate()[1]
    assert again.returncode == 0, log
    assert log.count(": done") <= pieces - len(finished)
    assert digests(tmp_path / "out") == digests(calm)
    assert sorted(os.listdir(tmp_path)) == ["calm", "out"]


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("format", [Coco(), WebDataset(shard_images=2)])
def test_stopped_at_every_step_of_the_end(bad_tars, tmp_path, monkeypatch, format):
    """Each rename and removal after the pieces are written fails once, then the run is repeated."""
    calm = digests(run(bad_tars, tmp_path / "calm", format, on_error="skip").output)
    pathlib_replace, rmtree = pathlib.Path.replace, shutil.rmtree

    def after(steps):
        left = [steps]

        def counted(function):
            def step(*arguments, **options):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return function(*arguments, **options)

            return step

        monkeypatch.setattr(pathlib.Path, "replace", counted(pathlib_replace))
        monkeypatch.setattr(shutil, "rmtree", counted(rmtree))

    steps = 0
    while not (tmp_path / "out").exists():
        after(steps)
        with contextlib.suppress(KeyboardInterrupt):
            run(bad_tars, tmp_path / "out", format, on_error="skip")
        steps += 1
        assert steps < 50
    assert steps > 3
    monkeypatch.undo()
    assert digests(tmp_path / "out") == calm


def test_another_job_after_pieces_were_moved(tars, tmp_path, monkeypatch, caplog):
    calm = digests(run(tars, tmp_path / "calm", SA1BTars(), max_images=2).output)
    monkeypatch.setattr(SA1BTars, "join", _join_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(tars, tmp_path / "out", SA1BTars())
    monkeypatch.undo()
    out = run(tars, tmp_path / "out", SA1BTars(), max_images=2).output
    assert "has another source or other options: starting again" in caplog.text
    assert digests(out) == calm


_join = SA1BTars.join


def _join_and_stop(*arguments):
    _join(*arguments)
    raise KeyboardInterrupt


def test_a_tar_that_changed_is_read_again(tars, tmp_path):
    own = tmp_path / "tars"
    shutil.copytree(tars, own)
    whole = (own / "sa_000001.tar").read_bytes()
    (own / "sa_000001.tar").write_bytes(whole[:-12000])
    with pytest.raises(BadInput, match=r"sa_000001.tar: .*torn"):
        run(own, tmp_path / "out", Coco())
    assert not (tmp_path / "out").exists()
    (own / "sa_000001.tar").write_bytes(whole)
    assert run(own, tmp_path / "out", Coco()).counts["images"] == 8


def test_a_disk_that_becomes_full(slow_tars, small_disk, monkeypatch):
    tar = os.path.getsize(slow_tars / "sa_000000.tar")
    disk = small_disk(int(2.5 * tar))
    with pytest.raises(OSError, match=r"What comes of 9 tars needs up to .* Nothing was written"):
        run(slow_tars, disk / "out", WebDataset(shard_images=20))
    # As if another program took the room after it was counted.
    monkeypatch.setattr("sa1b_tfds.core.files.free_bytes", lambda folder: None)
    with pytest.raises(OSError, match=r"No space left on device in .*incomplete, while writing"):
        run(slow_tars, disk / "out", WebDataset(shard_images=20))
    monkeypatch.undo()
    staged = disk / "out.incomplete" / "pieces"
    assert len(list(staged.glob("*/piece.json"))) >= 6
    assert not list(staged.glob("*.part"))
    subprocess.run(["mount", "-o", f"remount,size={8 * tar}", str(disk)], check=True)
    assert run(slow_tars, disk / "out", WebDataset(shard_images=20)).counts["images"] == 180
    assert os.listdir(disk) == ["out"]


def test_one_run_at_a_time(tars, tmp_path):
    from etils import epath

    from sa1b_tfds.core.lock import FolderInUse, lock_folder

    with (
        lock_folder(epath.Path(tmp_path / "out.incomplete")),
        pytest.raises(FolderInUse, match=r"Another process works in .*out.incomplete"),
    ):
        run(tars, tmp_path / "out", Coco())


def test_tars_are_readable_by_tarfile(tars, tmp_path):
    exported = run(tars, tmp_path / "out", WebDataset())
    with tarfile.open(exported.output / "000000.tar") as tar:
        names = tar.getnames()
        assert names == sorted(names)
        assert json.load(io.TextIOWrapper(tar.extractfile(names[1])))["image"]["image_id"] == 0
