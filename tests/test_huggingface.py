"""The stream for `datasets`, and batches for `transformers.SamModel`."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from dummy_data import make
from sa1b_tfds.core.problems import BadInput
from sa1b_tfds.examples.parts import read_examples
from sa1b_tfds.masks import rle
from tests import building, sam, strategies

pytestmark = pytest.mark.usefixtures("threads")

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")
if not all(map(importlib.util.find_spec, ("datasets", "transformers"))):
    pytest.skip("the extra [huggingface] is not installed", allow_module_level=True)

from torch.utils.data import DataLoader  # noqa: E402

from sa1b_tfds.torch import SA1BDataset, TransformersCollate  # noqa: E402

SIZE = {"height": 60, "width": 90}


@pytest.fixture(scope="module", autouse=True)
def imported():
    """When these tests run: each process collects them, and to import it takes seconds."""
    global datasets, huggingface, pil_sam, transformers
    import datasets
    import datasets.distributed
    import transformers
    from transformers.models.sam import image_processing_pil_sam as pil_sam

    from sa1b_tfds import huggingface


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    return building.write_tars(tmp_path_factory.mktemp("huggingface"), tars=3, shapes=9, **SIZE)


@pytest.mark.parametrize("form", ["gzip", "mixed"])
def test_compressed_tars_give_the_rows_of_plain_ones(tars, form):
    def undecoded(folder):
        stream = huggingface.streaming(folder)
        return list(stream.cast_column("image", datasets.Image(decode=False)))

    assert undecoded(building.FORMS[form](tars)) == undecoded(tars)


def test_rows_are_what_the_files_say(tars):
    truth = list(read_examples(tars))
    rows = list(huggingface.streaming(tars))
    assert len(rows) == len(truth) == 12
    for row, example in zip(rows, truth, strict=True):
        assert row["image"].size == (90, 60)
        for name in ("image_id", "file_name"):
            assert row[name] == getattr(example, name)
        assert (row["height"], row["width"]) == (60, 90)
        decoded = rle.decode_rles(row["masks"]["counts"], row["masks"]["size"])
        expected = [rle.decode_rle({"size": (60, 90), "counts": c}) for c in example.masks.counts]
        np.testing.assert_array_equal(decoded, expected)
        _, content = make.draw(row["image_id"], shapes=9, **SIZE)
        assert row["annotations"].keys() == content["annotations"][0].keys() - {"segmentation"}
        for i, annotation in enumerate(content["annotations"]):
            for name in ("id", "area", "bbox", "crop_box"):
                assert row["annotations"][name][i] == annotation[name]
            for name in ("predicted_iou", "stability_score"):
                assert row["annotations"][name][i] == np.float32(annotation[name])
            assert [row["annotations"]["point_coords"][i]] == annotation["point_coords"]
    raw = huggingface.streaming(tars).cast_column("image", datasets.Image(decode=False))
    assert next(iter(raw))["image"]["bytes"] == truth[0].image


def ids(stream):
    return [row["image_id"] for row in stream]


def test_habits_of_streaming(tars):
    stream = huggingface.streaming([tars / "sa_000000.tar", str(tars / "sa_000002.tar")])
    assert stream.num_shards == 2
    every = [0, 1, 2, 3, 8, 9, 10, 11]
    assert sorted(ids(stream)) == every
    assert ids(stream.take(3)) == ids(stream)[:3]
    assert ids(stream.skip(6)) == ids(stream)[6:]
    shuffled = stream.shuffle(seed=1, buffer_size=4)
    assert ids(shuffled) == ids(shuffled) != ids(stream)
    assert sorted(ids(shuffled)) == every
    counted = stream.map(lambda row: {"n": len(row["masks"]["counts"])})
    assert [row["n"] for row in counted] == [len(row["annotations"]["id"]) for row in stream]
    assert ids(stream.filter(lambda row: row["image_id"] % 2)) == [i for i in ids(stream) if i % 2]


def test_prepared_data_gives_the_rows_of_its_tars(prepared):
    def by_id(stream):
        undecoded = stream.cast_column("image", datasets.Image(decode=False))
        return {row["image_id"]: row for row in undecoded}

    of_tars = by_id(huggingface.streaming(prepared / "tars"))
    assert len(of_tars) == 16
    assert by_id(huggingface.streaming(prepared, config="original")) == of_tars


@pytest.mark.parametrize("form", building.FORMS)
def test_it_goes_on_from_a_state(tars, form):
    tars = building.FORMS[form](tars)
    stream, resumed = huggingface.streaming(tars), huggingface.streaming(tars)
    rows = iter(stream)
    first = [next(rows)["image_id"] for _ in range(6)]
    resumed.load_state_dict(stream.state_dict())
    assert first + ids(resumed) == ids(huggingface.streaming(tars))


@pytest.mark.parametrize("form", ["plain", "gzip"])
def test_nodes_and_workers_share_the_tars(tars, form):
    stream = huggingface.streaming(building.FORMS[form](tars)).select_columns(["image_id"])
    nodes = [ids(datasets.distributed.split_dataset_by_node(stream, rank, 3)) for rank in range(3)]
    assert [len(node) for node in nodes] == [4, 4, 4]
    assert sorted(i for node in nodes for i in node) == list(range(12))
    loader = DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(int(i) for i in ids(loader)) == list(range(12))


def test_what_is_no_example(tmp_path, caplog):
    files = make.files_of(1) | make.files_of(2)
    files["./sa_1.json"] = files["./sa_1.json"].replace(b'"area"', b'"aera"')
    make.write_tar(tmp_path / "sa_000000.tar", files)
    with pytest.raises(BadInput, match=r"sa_1.json: .*lacks the field 'area'"):
        list(huggingface.streaming(tmp_path))
    assert ids(huggingface.streaming(tmp_path, on_error="skip")) == [2]
    assert "Skipped: sa_000000.tar: ./sa_1.json: annotation 0 lacks" in caplog.text
    with pytest.raises(ValueError, match="on_error must be"):
        huggingface.streaming(tmp_path, on_error="ignore")
    with pytest.raises(FileNotFoundError, match="is not there"):
        huggingface.streaming(tmp_path / "absent")


def test_no_tensorflow(tars):
    code = (
        "import sys, sa1b_tfds\n"
        "assert len(list(sa1b_tfds.huggingface.streaming(sys.argv[1]))) == 12\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tars], check=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Larger, smaller and upright images."""
    folder = tmp_path_factory.mktemp("photos")
    files = {}
    for i, (height, width) in enumerate([(700, 1041), (1030, 640), (201, 307)]):
        files |= make.files_of(i, height, width, shapes=5)
    make.write_tar(folder / "sa_000000.tar", files)
    return SA1BDataset(folder, mask_size=256, keep_aspect=True)


def test_batches_equal_those_of_sam_processor(photos):
    items = [photos[i] for i in range(len(photos))]
    ours = TransformersCollate(masks_per_image=4)(items)
    processor = transformers.SamProcessor(pil_sam.SamImageProcessorPil())
    full = SA1BDataset(photos._images.parts[0].archive.archive.path)
    for i, (image, _, metadata) in enumerate(items):
        boxes = metadata["bbox"][:4].clone()
        boxes[:, 2:] += boxes[:, :2]
        maps = [mask.numpy().astype(np.uint8) for mask in full[i][1][:4]]
        scale = ours["reshaped_input_sizes"][i] / ours["original_sizes"][i]
        points = ours["input_points"][i] / scale.flip(0)  # what SamProcessor would be given
        theirs = processor(
            image.permute(1, 2, 0).numpy(),
            input_points=[points.tolist()],
            input_labels=[[[1]] * 4],
            input_boxes=[boxes.tolist()],
            return_tensors="pt",
        )
        for name in ("original_sizes", "reshaped_input_sizes"):
            assert theirs[name].tolist() == [ours[name][i].tolist()]
        for name, tolerance in (("pixel_values", 1e-5), ("input_boxes", 1e-3)):
            torch.testing.assert_close(
                theirs[name][0].float(), ours[name][i], atol=tolerance, rtol=0
            )
        torch.testing.assert_close(theirs["input_points"][0].float(), ours["input_points"][i])
        assert torch.equal(theirs["input_labels"][0], ours["input_labels"][i])
        for k, map_ in enumerate(maps):
            labels = processor.image_processor(
                image.permute(1, 2, 0).numpy(), segmentation_maps=map_, return_tensors="pt"
            )["labels"][0]
            assert torch.equal(labels.bool(), ours["masks"][i, k])


def test_masks_are_the_full_ones_sampled(photos):
    """At any mask_size of the dataset: the full size and the one decoded straight agree."""
    path = photos._images.parts[0].archive.archive.path
    full, small = SA1BDataset(path), TransformersCollate(image_size=64)
    for i in range(len(full)):
        from_full, straight = (small([d[i]])["masks"] for d in (full, photos))
        assert torch.equal(from_full, straight)
        height, width = full[i][0].shape[1:]
        scale = 256 / max(height, width)
        size = int(height * scale + 0.5), int(width * scale + 0.5)
        expected = strategies.sample(full[i][1].numpy(), size)
        n = min(8, len(expected))
        np.testing.assert_array_equal(from_full[0, :n, : size[0], : size[1]], expected[:n])


@pytest.fixture(scope="module")
def model():
    return sam.transformers_sam()


@pytest.mark.parametrize(
    ("points", "boxes"), [(2, True), (1, False), (0, True)], ids=["both", "points", "boxes"]
)
def test_sam_model_takes_a_batch(tars, model, points, boxes):
    collate = TransformersCollate(
        masks_per_image=5, points_per_mask=points, boxes=boxes, image_size=sam.SIDE, mask_size=16
    )
    loader = DataLoader(SA1BDataset(tars, mask_size=16, keep_aspect=True), 2, collate_fn=collate)
    batch = next(iter(loader))
    masks, valid = batch.pop("masks"), batch.pop("mask_valid")
    with torch.no_grad():
        outputs = model(**batch, multimask_output=True)
    assert outputs.pred_masks.shape == (2, 5, 3, 16, 16)
    assert outputs.pred_masks.isfinite().all()
    assert outputs.iou_scores.shape == (2, 5, 3)
    assert masks.shape == (2, 5, 16, 16)
    assert valid.shape == (2, 5)


def test_fine_tuning_lowers_the_loss(tars, monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "examples"))
    import finetune_hf_sam

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        losses = finetune_hf_sam.main(["--steps", "40"])
    finally:
        torch.set_num_threads(threads)
    assert len(losses) == 40
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
