"""The same images are chosen in tf.data and in PyTorch, by ids and by a hold-out."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sa1b_tfds
from sa1b_tfds.examples import image_choice
from sa1b_tfds.examples.id_set import MissingIds, as_id_set
from sa1b_tfds.examples.image_choice import ImageChoice
from sa1b_tfds.training import chosen
from tests import building

pytestmark = pytest.mark.usefixtures("threads")

# Most of a pipeline's graph makes masks, which have no say in which images it takes.
SMALL = {"image_size": 32, "masks_per_image": 0, "batch_size": 2, "shuffle": 4}
MASKS = {"masks_per_image": 2, "mask_size": 8}
EACH = {"drop_remainder": False, "batch_size": 1}
UNDECODED = {"image": tfds.decode.SkipDecoding(), "masks": tfds.decode.SkipDecoding()}
VAL = {"holdout": 0.25, "holdout_part": "val"}

ids_of_any_size = hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, 2**63 - 1))


@given(ids_of_any_size)
def test_the_hash_of_tensorflow_is_that_of_numpy(ids):
    np.testing.assert_array_equal(chosen.hash_of(tf.constant(ids)), image_choice.hash_of(ids))


def test_the_hash_is_that_of_splitmix64():
    """The first two numbers of its reference implementation, with the seed 0."""
    ids = np.array([0, -(2**64 - image_choice.INCREMENT)], np.int64)
    assert image_choice.hash_of(ids).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@given(
    ids_of_any_size,
    st.none() | st.sets(st.integers(0, 50), min_size=1),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    st.sampled_from(["train", "val"]),
)
def test_a_choice_in_graph_ops_is_that_in_numpy(ids, some, holdout, part):
    ids = np.concatenate([ids, np.arange(20)])
    choice = ImageChoice(
        ids=some and as_id_set(some), holdout=holdout, holdout_part=part if holdout else "train"
    )
    is_chosen = tf.function(chosen.chooser(choice), autograph=False)
    expected = choice.has(ids)
    assert [bool(is_chosen(tf.constant(i))) for i in ids] == expected.tolist()
    if holdout:
        other = "val" if choice.holdout_part == "train" else "train"
        rest = ImageChoice(ids=choice.ids, holdout=holdout, holdout_part=other)
        both = ImageChoice(ids=choice.ids)
        assert not (rest.has(ids) & expected).any()
        np.testing.assert_array_equal(rest.has(ids) | expected, both.has(ids))


def test_a_larger_holdout_has_the_images_of_a_smaller_one():
    ids = np.arange(1, 200_001)
    small, large = (ImageChoice(holdout=x, holdout_part="val").has(ids) for x in (0.01, 0.05))
    assert (large | ~small).all()
    assert abs(small.mean() - 0.01) < 0.001
    assert abs(large.mean() - 0.05) < 0.002


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"holdout": -0.1}, ValueError, "holdout must be 0 to 1, got -0.1"),
        ({"holdout": True}, TypeError, "holdout must be a number, got True"),
        ({"holdout": 0.1, "holdout_part": "test"}, ValueError, "holdout_part must be one of"),
        ({"holdout_part": "val"}, ValueError, "holdout must be above 0 with holdout_part='val'"),
    ],
    ids=str,
)
def test_a_holdout_that_cannot_be_is_refused(fields, error, message):
    for make in (ImageChoice, sa1b_tfds.TrainingConfig):
        with pytest.raises(error, match=message):
            make(**fields)


@pytest.fixture
def of(prepared):
    def dataset(source="segment_anything/original", arguments=None, **fields):
        config = sa1b_tfds.TrainingConfig(**{**SMALL, **fields})
        arguments = {"data_dir": prepared, **(arguments or {})}
        return sa1b_tfds.training_dataset(source, config, **arguments)

    return dataset


def ids_in(batches):
    return [int(i) for batch in batches for i in batch["image_id"]]


def held_out(ids):
    return [int(i) for i in ids[ImageChoice(**VAL).has(ids)]]


def test_training_takes_the_chosen_images_once_an_epoch(of):
    ids = [3, "sa_9.jpg", 4, 14]
    dataset = of(arguments={"ids": ids}, **EACH, **MASKS)
    assert sorted(ids_in(dataset)) == sorted(ids_in(dataset)) == [3, 4, 9, 14]
    val = held_out(np.arange(16))
    assert 0 < len(val) < 16
    assert sorted(ids_in(of(**VAL, **EACH))) == val
    assert sorted(ids_in(of(holdout=0.25, **EACH))) == sorted(set(range(16)) - set(val))
    both = {"ids": [0, 1, *val]}
    assert sorted(ids_in(of(arguments=both, **VAL, **EACH))) == val


def test_steps_are_those_of_the_chosen_images(of):
    dataset = of(arguments={"ids": [0, 1, 2, 9, 15]}, **MASKS)
    assert dataset.cardinality() == 2
    assert len(ids_in(dataset)) == 4
    assert of(arguments={"ids": [0, 1, 2]}).cardinality() == 1
    assert of(holdout=0.25).cardinality() == (16 - len(held_out(np.arange(16)))) // 2
    with pytest.raises(ValueError, match="batch_size=2 is more than the source has, 1 image"):
        of(arguments={"ids": [3]})


def test_a_slice_of_the_split_has_its_chosen_images(of):
    ids = {"ids": [0, 1, 2, 3, 8, 9, 10, 11, 12]}
    first, second = (
        ids_in(of(arguments=ids, split=split, **EACH)) for split in ("train[:40%]", "train[40%:]")
    )
    assert not set(first) & set(second)
    assert sorted(first + second) == ids["ids"]
    with pytest.raises(ValueError, match=r"split 'train\[:1\]' of .* none of the chosen images"):
        of(arguments={"ids": [int(x) for x in second]}, split="train[:1]")


@pytest.mark.parametrize("count", [2, 3])
def test_pipelines_share_the_chosen_images(of, count):
    """All of them are in one of the two shards."""
    found = []
    for index in range(count):
        context = tf.distribute.InputContext(count, index, count)
        arguments = {"ids": range(2, 8), "input_context": context}
        dataset = of(arguments=arguments, batch_size=count, drop_remainder=False)
        own = ids_in(dataset)
        assert len(own) == 6 // count
        assert of(arguments=arguments, batch_size=count).cardinality() == 6 // count
        found += own
    assert sorted(found) == [2, 3, 4, 5, 6, 7]


def test_a_tf_data_service_gets_the_chosen_images(of):
    dispatcher = tf.data.experimental.service.DispatchServer()
    worker = tf.data.experimental.service.WorkerServer(
        tf.data.experimental.service.WorkerConfig(
            dispatcher_address=dispatcher.target.partition("://")[2]
        )
    )
    arguments = {"ids": [1, 5, 13, *range(100, 300_000)], "missing_ids": "skip"}
    dataset = of(arguments={**arguments, "service": dispatcher.target}, **EACH, **MASKS)
    assert sorted(ids_in(dataset)) == [1, 5, 13]
    assert sorted(ids_in(of(arguments={"service": dispatcher.target}, **VAL, **EACH))) == held_out(
        np.arange(16)
    )
    del worker


def test_ids_that_the_data_lacks_are_an_error_unless_skipped(of, prepared):
    message = r"not in .*original/2\.0\.0: 3 of 4 \(16, 17, 99\)\. .*missing_ids='skip'"
    with pytest.raises(MissingIds, match=message):
        of(arguments={"ids": [1, 99, 16, 17]})
    lenient = {"ids": [1, 99, 16, 17], "missing_ids": "skip"}
    assert ids_in(of(arguments=lenient, **EACH)) == [1]
    with pytest.raises(ValueError, match="missing_ids must be 'raise' or 'skip', got 'no'"):
        of(arguments={"ids": [1], "missing_ids": "no"})
    # An id in another part of the data is not missing.
    assert len(ids_in(of(arguments={"ids": range(16)}, split="train[:9]", **EACH))) == 9


def test_sources_whose_ids_are_not_known(of, prepared, tmp_path):
    """A tf.data.Dataset; and data without a list of its tars, as the official builder writes it."""
    elements = tfds.load("segment_anything", split="train", data_dir=prepared, decoders=UNDECODED)
    bare = tmp_path / "bare"
    shutil.copytree(prepared / building.FINAL, bare)
    (bare / "tars.jsonl").unlink()
    for source in (elements, bare):
        with pytest.raises(ValueError, match="missing_ids must be 'skip' for this source"):
            of(source, {"ids": [1]})
        lenient = {"ids": [1, 7, 12, 99], "missing_ids": "skip"}
        with pytest.raises(ValueError, match="repeat must be False with ids for this source"):
            of(source, lenient, repeat=True)
        dataset = of(source, lenient, **EACH, **MASKS)
        assert sorted(ids_in(dataset)) == [1, 7, 12]
        assert of(source, lenient).cardinality() == tf.data.UNKNOWN_CARDINALITY
        assert len(ids_in(of(source, lenient))) == 2
        assert sorted(ids_in(of(source, **VAL, **EACH))) == held_out(np.arange(16))
        assert len(ids_in(of(source, **VAL, repeat=True).take(8))) == 16


def test_a_lost_shard_is_named(of, prepared, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(prepared / building.FINAL, data)
    next(data.glob("*-00001-of-*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"-00001-of-00002 is not there: put it back"):
        of(data, {"ids": [1], "missing_ids": "skip"})


@pytest.fixture(scope="module")
def torch_dataset(prepared, tmp_path_factory):
    torch = pytest.importorskip("sa1b_tfds.torch", reason="needs the extra 'torch'")
    bare = tmp_path_factory.mktemp("bare") / "data"
    shutil.copytree(prepared / building.FINAL, bare)
    (bare / "tars.jsonl").unlink()
    places = {
        "tars": {"root_dir": prepared / "tars"},
        "compressed": {"root_dir": building.packed(prepared / "tars")},
        "prepared": {"root_dir": prepared, "config": "original"},
        "prepared, without a list of its tars": {"root_dir": bare},
    }
    return lambda place, **options: torch.SA1BDataset(**places[place], masks=False, **options)


@pytest.mark.parametrize(
    "place", ["tars", "compressed", "prepared", "prepared, without a list of its tars"]
)
def test_torch_has_the_chosen_images(torch_dataset, place):
    def ids(**options):
        return sorted(item[2]["image_id"] for item in torch_dataset(place, **options))

    assert ids(ids=[3, "sa_9.jpg", 4]) == [3, 4, 9]
    assert ids(**VAL) == held_out(np.arange(16))
    assert sorted(ids(holdout=0.25) + ids(**VAL)) == list(range(16))
    assert len(torch_dataset(place, ids=[3])) == 1
    with pytest.raises(MissingIds, match=r"Image ids that are not in .*: 1 of 2 \(16\)\."):
        torch_dataset(place, ids=[3, 16])
    assert ids(ids=[3, 16], missing_ids="skip") == [3]


def test_only_parts_with_chosen_images_remain(torch_dataset):
    some = torch_dataset("tars", ids=[9, 12])
    assert some.source_names == ["sa_000001.tar"]
    assert [item[2]["image_id"] for item in some.only(["sa_000001.tar"])] == sorted(
        [9, 12], key=[item[2]["image_id"] for item in torch_dataset("tars")].index
    )


def test_a_name_without_an_id_is_looked_up_in_its_json(tmp_path):
    torch = pytest.importorskip("sa1b_tfds.torch", reason="needs the extra 'torch'")

    files = {}
    for name, image_id in (("sa_photo", 40), ("sa_7", 7), ("sa_12x", 42)):
        image, content = building.make.draw(0, 24, 32, 3)
        own = name if image_id == 7 else name.removeprefix("sa_")
        content["image"].update(image_id=image_id, file_name=f"{own}.jpg")
        files |= {f"./{name}.jpg": image, f"./{name}.json": json.dumps(content).encode()}
    building.make.write_tar(tmp_path / "sa_own.tar", files)
    ids = [item[2]["image_id"] for item in torch.SA1BDataset(tmp_path, masks=False)]
    assert sorted(ids) == [7, 40, 42]
    some = torch.SA1BDataset(tmp_path, ids=[42, 7], masks=False)
    assert sorted(item[2]["image_id"] for item in some) == [7, 42]
