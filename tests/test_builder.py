"""The builder as users meet it: tfds.load, tfds build, good and bad input."""

import json
import pathlib
import pickle
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from pycocotools import mask as coco_mask

import sa1b_tfds
from dummy_data import make
from sa1b_tfds.core.problems import Problems
from sa1b_tfds.examples import jpeg
from sa1b_tfds.segment_anything import segment_anything_dataset_builder
from sa1b_tfds.segment_anything.ensure import MissingTarsError
from sa1b_tfds.tars import archive
from tests import building, forked
from tests.fault_server import FaultServer

pytestmark = pytest.mark.usefixtures("threads")

DUMMY_DATA = pathlib.Path(make.__file__).parent


class SegmentAnythingTest(tfds.testing.DatasetBuilderTestCase):
    """TFDS's own checks: features, config, tags, citation, split, registration of the download."""

    DATASET_CLASS = segment_anything_dataset_builder.Builder
    EXAMPLE_DIR = DUMMY_DATA
    BUILDER_CONFIG_NAMES_TO_TEST = ("original", "resized_1024_1pct")
    SPLITS = {"train": 8}  # noqa: RUF012
    SKIP_TF1_GRAPH_MODE = True


def source(folder=DUMMY_DATA):
    """{image id: (jpeg bytes, content of the JSON)} of the tars in a folder."""
    images = {}
    for found in archive.find_archives(folder):
        for pair in found.pairs(Problems()):
            content = json.loads(pair.json)
            images[content["image"]["image_id"]] = (pair.jpeg, content)
    return images


def load(data_dir, manual_dir=DUMMY_DATA, name="segment_anything", **kwargs):
    """tfds.load of the split train, building it from manual_dir first."""
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    return tfds.load(
        name,
        split="train",
        data_dir=data_dir,
        download_and_prepare_kwargs={"download_config": config},
        **kwargs,
    )


@pytest.fixture
def data_dir(prepared_dummy):
    return prepared_dummy


def test_nothing_is_lost_between_tar_and_tfds_load(data_dir):
    images = source()
    raw = load(data_dir, decoders={"image": tfds.decode.SkipDecoding()})
    for example in raw.as_numpy_iterator():
        image, content = images.pop(example["image_id"])
        assert example["image"] == image
        assert example["file_name"].decode() == content["image"]["file_name"]
        assert example["masks"].dtype == np.uint8
        size = (content["image"]["height"], content["image"]["width"])
        assert example["masks"].shape == (len(content["annotations"]), *size)
        columns = example["annotations"]
        for i, annotation in enumerate(content["annotations"]):
            mask = coco_mask.decode(annotation["segmentation"])
            np.testing.assert_array_equal(example["masks"][i], mask)
            assert columns["id"][i] == annotation["id"]
            assert columns["area"][i] == annotation["area"]
            assert columns["predicted_iou"][i] == np.float32(annotation["predicted_iou"])
            assert columns["stability_score"][i] == np.float32(annotation["stability_score"])
            np.testing.assert_array_equal(columns["point_coords"][i], annotation["point_coords"][0])
            for name in ("bbox", "crop_box"):
                y0, x0, y1, x1 = columns[name][i] * np.array([*size, *size])
                restored = np.array([x0, y0, x1 - x0, y1 - y0])
                np.testing.assert_allclose(restored, annotation[name], atol=1e-4)
    assert not images


def test_element_spec(data_dir):
    def spec(dtype, *shape):
        return tf.TensorSpec(shape, dtype)

    assert load(data_dir).element_spec == {
        "image": spec(tf.uint8, None, None, 3),
        "masks": spec(tf.uint8, None, None, None),
        "image_id": spec(tf.int64),
        "file_name": spec(tf.string),
        "annotations": {
            "id": spec(tf.int64, None),
            "area": spec(tf.int64, None),
            "bbox": spec(tf.float32, None, 4),
            "crop_box": spec(tf.float32, None, 4),
            "predicted_iou": spec(tf.float32, None),
            "stability_score": spec(tf.float32, None),
            "point_coords": spec(tf.float32, None, 2),
        },
    }


def test_as_supervised(data_dir):
    for image, masks in load(data_dir, as_supervised=True):
        assert masks.shape[1:] == image.shape[:2]


def test_decoders(data_dir):
    full = {e["image_id"]: e["masks"] for e in load(data_dir).as_numpy_iterator()}
    small = load(data_dir, decoders={"masks": sa1b_tfds.decode_masks_to((16, 20), 3)})
    assert small.element_spec["masks"] == tf.TensorSpec([None, 16, 20], tf.uint8)
    stored = load(data_dir, decoders={"masks": tfds.decode.SkipDecoding()})
    partial = load(
        data_dir, decoders=tfds.decode.PartialDecoding({"masks": True, "image_id": True})
    )
    for example in partial.as_numpy_iterator():
        assert example.keys() == {"masks", "image_id"}
        np.testing.assert_array_equal(example["masks"], full[example["image_id"]])
    for a, b in zip(small.as_numpy_iterator(), stored.as_numpy_iterator(), strict=True):
        masks = full[b["image_id"]]
        assert len(a["masks"]) == min(3, len(masks))
        assert b["masks"]["size"].tolist() == list(masks.shape[1:])
        decoded = sa1b_tfds.decode_masks(b["masks"]["counts"], b["masks"]["size"])
        np.testing.assert_array_equal(decoded, masks)


def test_padded_batch(data_dir):
    decoders = {"masks": sa1b_tfds.decode_masks_to((16, 16))}
    (batch,) = load(data_dir, decoders=decoders).padded_batch(8)
    most = max(len(content["annotations"]) for _, content in source().values())
    assert batch["masks"].shape == (8, most, 16, 16)
    assert batch["annotations"]["bbox"].shape == (8, most, 4)


def test_as_dataframe_shows_the_masks(data_dir):
    dataset, info = load(data_dir, with_info=True)
    html = tfds.as_dataframe(dataset.take(2), info)._repr_html_()
    assert html.count("data:image/png;base64") == 4  # an image and its masks, twice
    undecoded = load(data_dir, decoders={"masks": tfds.decode.SkipDecoding()})
    assert "counts" in tfds.as_dataframe(undecoded.take(2), info)._repr_html_()


def test_slices_of_prepared_data_of_an_explicit_version(data_dir):
    """With a version TFDS reads the folder by itself, without our builder."""
    ids = []
    for split in ("train[:75%]", "train[75%:]"):
        part = tfds.load("segment_anything/original:2.0.0", split=split, data_dir=data_dir)
        ids.append({e["image_id"] for e in part.as_numpy_iterator()})
    assert [len(part) for part in ids] == [6, 2]
    assert ids[0] | ids[1] == source().keys()


def test_data_source_needs_no_tensorflow(tmp_path):
    """array_record files through tfds.data_source, in a process that never loads TensorFlow."""
    builder = tfds.builder("segment_anything", data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=DUMMY_DATA)
    )
    code = f"""
        import sys
        import tensorflow_datasets as tfds
        import sa1b_tfds
        read = lambda **kw: tfds.data_source(
            "segment_anything", split="train", data_dir={str(tmp_path)!r}, **kw)
        shapes = {{e["image_id"]: e["masks"].shape for e in read()}}
        small = read(decoders={{"masks": sa1b_tfds.decode_masks_to((8, 9), max_masks=2)}})
        assert "tensorflow" not in sys.modules
        print([[int(i), s, small[k]["masks"].shape] for k, (i, s) in enumerate(shapes.items())])
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True
    )
    rows = json.loads(run.stdout.replace("(", "[").replace(")", "]"))
    assert len(rows) == 8
    for image_id, shape, small in rows:
        content = source()[image_id][1]
        n = len(content["annotations"])
        assert shape == [n, content["image"]["height"], content["image"]["width"]]
        assert small == [min(n, 2), 8, 9]


@pytest.mark.parametrize("decoders", [None, {"masks": sa1b_tfds.decode_masks_to(size=(8, 9))}])
def test_mock_data_draws_examples_and_writes_nothing(tmp_path, monkeypatch, decoders):
    made = []
    monkeypatch.setattr(type(epath.Path("x")), "mkdir", lambda path, **_: made.append(path))
    with tfds.testing.mock_data(num_examples=2):
        dataset = tfds.load("segment_anything", split="train", data_dir=tmp_path, decoders=decoders)
        source = tfds.data_source("segment_anything", split="train", data_dir=tmp_path)
        masks = [example["masks"] for example in tfds.as_numpy(dataset)]
        assert (len(masks), len(source)) == (2, 2)
        assert source[1]["masks"].ndim == masks[0].ndim == 3
        assert decoders is None or masks[0].shape[1:] == (8, 9)
    assert not made


def test_resized_images_keep_their_masks(tmp_path):
    config = sa1b_tfds.SegmentAnythingConfig(name="small", tars=range(1), long_side=100)
    dataset = load(
        tmp_path, builder_kwargs={"config": config}, decoders={"image": tfds.decode.SkipDecoding()}
    )
    images = source()
    examples = list(dataset.as_numpy_iterator())
    assert len(examples) == 4  # of the first tar
    for example in examples:
        image, content = images[example["image_id"]]
        assert example["image"] == jpeg.shrink(image, 100)
        assert max(jpeg.image_size(example["image"])) == 100
        assert example["masks"].shape[1:] == jpeg.image_size(image)
        points = [a["point_coords"][0] for a in content["annotations"]]
        np.testing.assert_array_equal(example["annotations"]["point_coords"], points)


@pytest.mark.parametrize(
    "fields",
    [
        {"tars": []},
        {"tars": [-1]},
        {"tars": ["sa_000001.tar"]},
        {"long_side": 0},
        {"long_side": 10.5},
        {"long_side": "1024"},
    ],
)
def test_configs_are_checked(fields):
    with pytest.raises(ValueError, match=rf"{next(iter(fields))} must"):
        sa1b_tfds.SegmentAnythingConfig(name="mine", **fields)


def test_an_unknown_config_is_answered_with_those_that_exist():
    with pytest.raises(ValueError, match="no config 'nope': choose one of original, orig"):
        segment_anything_dataset_builder.Builder(config="nope")


def test_configs():
    configs = segment_anything_dataset_builder.Builder.builder_configs
    assert {name: (c.tars, c.long_side) for name, c in configs.items() if ":" not in name} == {
        "original": (None, None),
        "original_1pct": (range(10), None),
        "original_10pct": (range(100), None),
        "resized_1024": (None, 1024),
        "resized_1024_1pct": (range(10), 1024),
        "resized_1024_10pct": (range(100), 1024),
    }
    assert tfds.builder("segment_anything").builder_config.name == "original"


def write(path, files, form="plain"):
    make.write_tar(path, files)
    if form == "gzip":
        make.compress(path)


def build(tmp_path, tars, on_error="raise", form="plain"):
    """Builds tars of these files."""
    for name, content in tars.items():
        write(tmp_path / name, content, form)
    return building.prepare(tmp_path, tmp_path / "data", on_error=on_error)


GOOD = make.files_of(1)
BAD_JPEG = make.files_of(2) | {"./sa_2.jpg": b"\xff\xd8 broken"}
TABLES = make.files_of(2)["./sa_2.jpg"].index(b"\xff\xc4")
BAD_TABLES = make.files_of(2)
BAD_TABLES["./sa_2.jpg"] = (
    BAD_TABLES["./sa_2.jpg"][: TABLES + 5] + b"\xff" * 9 + BAD_TABLES["./sa_2.jpg"][TABLES + 14 :]
)
BAD_JSON = make.files_of(2) | {"./sa_2.json": b'{"image": {'}
NO_FIELD = make.files_of(2) | {"./sa_2.json": b'{"image": {}, "annotations": []}'}
BAD_RLE = make.files_of(2)
BAD_RLE["./sa_2.json"] = BAD_RLE["./sa_2.json"].replace(b'"counts": "', b'"counts": "/')
OTHER_SIZE = make.files_of(2) | {"./sa_2.jpg": make.files_of(3, width=40)["./sa_3.jpg"]}
NO_JSON = {name: data for name, data in make.files_of(2).items() if name.endswith("jpg")}
NO_JPEG = {name: data for name, data in make.files_of(2).items() if name.endswith("json")}
OTHER_IMAGE = {name.replace("sa_1", "sa_2"): data for name, data in GOOD.items()}


BAD = [
    (BAD_JPEG, "./sa_2.jpg", "the JPEG is cut off or broken"),
    (BAD_TABLES, "./sa_2.jpg", "the JPEG does not decode"),
    (BAD_JSON, "./sa_2.json", "it is not JSON"),
    (NO_FIELD, "./sa_2.json", "image lacks the field 'height'"),
    (BAD_RLE, "./sa_2.json", "annotation 0: the RLE is malformed: it holds a character"),
    (OTHER_SIZE, "./sa_2.json", "its size 24x32 .* disagrees with the image's 24x40"),
    (NO_JSON, "./sa_2.jpg", r"its \.json is missing"),
    (NO_JPEG, "./sa_2.json", r"its \.jpg is missing"),
    (OTHER_IMAGE, "./sa_2.json", r"it says image_id 1, file_name sa_1\.jpg"),
    (GOOD, "./sa_1.json", r"image id 1 was in sa_000000\.tar before"),
]


either_form = pytest.mark.parametrize("form", ["plain", "gzip"])


@either_form
@pytest.mark.parametrize(("files", "member", "reason"), BAD)
def test_a_bad_image_stops_the_build(tmp_path, files, member, reason, form):
    """One bad image beside a good one; the tar, the member and the reason are named."""
    with pytest.raises(sa1b_tfds.BadInput, match=reason) as error:
        build(tmp_path, {"sa_000000.tar": GOOD, "sa_000001.tar": files}, form=form)
    assert (error.value.archive, error.value.member) == ("sa_000001.tar", member)
    assert "on_error" in str(error.value)
    assert not list((tmp_path / "data").rglob("*tfrecord*"))


@either_form
def test_bad_images_are_skipped_and_listed(tmp_path, caplog, form):
    tars = {f"sa_{i:06d}.tar": files for i, (files, _, _) in enumerate(BAD, start=1)}
    builder = build(tmp_path, {"sa_000000.tar": GOOD, **tars}, on_error="skip", form=form)
    assert [e["image_id"] for e in builder.as_dataset("train").as_numpy_iterator()] == [1]
    report = json.loads((builder.data_path / "build_report.json").read_text())
    for skipped, name, (_, member, reason) in zip(report["skipped"], tars, BAD, strict=True):
        assert (skipped["archive"], skipped["member"]) == (name, member)
        assert re.match(reason, skipped["reason"])
    assert sum(report["images"].values()) == 1
    last = caplog.records[-1].getMessage()
    assert last == f"1 image of 11 tars; 10 skipped, see {builder.data_path}/build_report.json"


def test_nothing_left_names_what_was_skipped(tmp_path):
    with pytest.raises(sa1b_tfds.BadInput, match=r"sa_0\.tar: \./sa_2\.json: .*no image is left"):
        build(tmp_path, {"sa_0.tar": BAD_JSON}, on_error="skip")


@pytest.mark.parametrize(
    ("form", "said"),
    [("plain", "torn here"), ("gzip", "damaged: it ends at byte .*, before its compressed data")],
)
def test_a_torn_tar_stops_or_gives_what_is_whole(tmp_path, form, said):
    write(tmp_path / "whole.tar", make.files_of(1) | make.files_of(2), form)
    whole = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "sa_000000.tar").write_bytes(whole[: len(whole) // 2])
    make.write_tar(tmp_path / "sa_000001.tar", make.files_of(3))
    error = rf"(?i)sa_000000\.tar: .*{said}.*download it again"
    with pytest.raises(sa1b_tfds.BadInput, match=error):
        build(tmp_path, {})
    builder = build(tmp_path, {}, on_error="skip")
    ids = {e["image_id"] for e in builder.as_dataset("train").as_numpy_iterator()}
    assert 3 in ids
    report = json.loads((builder.data_path / "build_report.json").read_text())
    assert re.search(said, report["skipped"][0]["reason"])


@pytest.mark.parametrize(
    ("config", "tars", "missing"),
    [
        ("original", {}, "all tars: not in .*, and no links file there"),
        ("original_1pct", {"sa_000020.tar": GOOD}, r"10 tars .*sa_000000\.tar: not in "),
    ],
)
def test_nothing_to_build(tmp_path, config, tars, missing):
    for name, content in tars.items():
        make.write_tar(tmp_path / name, content)
    with pytest.raises(
        MissingTarsError, match=f"(?s){missing}.*Save the links file.*sa1b download"
    ):
        load(tmp_path / "data", tmp_path, f"segment_anything/{config}")


def test_a_links_file_in_manual_dir_brings_what_lacks(tmp_path):
    """Beyond the numbers of the MD5 table, as these tars are synthetic."""
    make.write_tar(tmp_path / "tar", GOOD)
    make.write_tar(tmp_path / "sa_001001.tar", make.files_of(2))
    served = {"sa_001000.tar": (tmp_path / "tar").read_bytes(), "sa_co_gold.tar": b"not SA-1B"}
    with FaultServer(served) as server:
        (tmp_path / "segment_anything_links.txt").write_text(server.links_text())
        with pytest.raises(AssertionError, match="could not find data"):
            load(tmp_path / "data", tmp_path, download=False)
        assert server.requests == []
        ids = {e["image_id"] for e in load(tmp_path / "data", tmp_path).as_numpy_iterator()}
        assert ids == {1, 2}
        config = sa1b_tfds.SegmentAnythingConfig(name="three", tars=range(1000, 1003))
        with pytest.raises(MissingTarsError, match=r"sa_001002\.tar: not in the links file"):
            load(tmp_path / "data", tmp_path, builder_kwargs={"config": config})
        assert {request.name for request in server.requests} == {"sa_001000.tar"}


def test_a_config_of_more_tars_than_there_are_says_which_are_missing(tmp_path, caplog):
    make.write_tar(tmp_path / "sa_000003.tar", GOOD)
    make.write_tar(tmp_path / "sa_000020.tar", make.files_of(2))
    dataset = load(tmp_path / "data", tmp_path, "segment_anything/original_1pct")
    assert [e["image_id"] for e in dataset.as_numpy_iterator()] == [1]
    assert "Built without 9 of the 10 tars of 'original_1pct', missing in" in caplog.text
    assert "sa_000000.tar, sa_000001.tar, sa_000002.tar and 6 more" in caplog.text


def test_the_builder_pickles(tmp_path):
    options = {"on_error": "skip", "num_workers": 3, "md5": True}
    builder = tfds.builder("segment_anything/original_1pct", data_dir=tmp_path, **options)
    copy = pickle.loads(pickle.dumps(builder))
    assert copy.data_path == builder.data_path
    assert (copy._on_error, copy._num_workers, copy._md5) == ("skip", 3, True)


@pytest.mark.parametrize("first", ["ours", "official"])
def test_the_name_is_ours_whichever_was_imported_first(first):
    imports = [
        "import sa1b_tfds",
        "import tensorflow_datasets.datasets.segment_anything.segment_anything_dataset_builder",
    ]
    code = [*(imports if first == "ours" else imports[::-1]), "import tensorflow_datasets as tfds"]
    code.append("print(tfds.builder_cls('segment_anything').__module__)")
    run = subprocess.run(
        [sys.executable, "-c", "; ".join(code)], check=True, capture_output=True, text=True
    )
    assert run.stdout.strip().startswith("sa1b_tfds.segment_anything")


def tfds_build(*arguments):
    """Runs the `tfds build` command of this environment."""
    tfds_command = pathlib.Path(sys.executable).parent / "tfds"
    command = forked.command(tfds_command, "build", *arguments, "--imports", "sa1b_tfds")
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tfds_build(tmp_path):
    """With an option of the builder in the dataset's name, and a compressed tar."""
    files = GOOD | make.files_of(3) | make.files_of(4) | BAD_JSON
    write(tmp_path / "sa_000000.tar", files, "gzip")
    run = tfds_build(
        "segment_anything/resized_1024_1pct/on_error=skip",
        "--manual_dir", tmp_path, "--data_dir", tmp_path / "data",
        "--max_examples_per_split", 3, "--file_format", "array_record",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "data" / "segment_anything" / "resized_1024_1pct" / "2.0.0"
    assert list(folder.glob("*.array_record*"))
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["3"]
    assert "3 images of 1 tar; " in run.stdout


def test_tfds_build_fails_on_bad_input(tmp_path):
    make.write_tar(tmp_path / "sa_000000.tar", GOOD | BAD_JSON)
    folders = ("--manual_dir", tmp_path, "--data_dir", tmp_path / "data")
    run = tfds_build("segment_anything/original", *folders)
    assert run.returncode != 0
    assert "sa_000000.tar: ./sa_2.json: it is not JSON" in run.stderr
