"""BlockShuffleSampler: its order, its shares, and the state that any number of ranks resume."""

import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa1b_tfds.training.block_order import BlockOrder
from tests import building

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")

from sa1b_tfds.torch import BlockShuffleSampler, SA1BDataset, collate  # noqa: E402

ROOT = pathlib.Path(__file__).parents[1]


class Sizes:
    """What a sampler asks of a dataset."""

    def __init__(self, counts):
        self.source_counts = list(counts)
        self.source_names = [f"sa_{i:06d}.tar" for i in range(len(counts))]

    def __len__(self):
        return sum(self.source_counts)


COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 0)


def samplers(counts, world, **options):
    return [
        BlockShuffleSampler(Sizes(counts), num_replicas=world, rank=rank, **options)
        for rank in range(world)
    ]


@given(COUNTS, st.integers(1, 50), st.integers(0, 2**63 - 1), st.integers(0, 99))
def test_an_epoch_has_each_image_once_and_reads_tar_after_tar(counts, block_size, seed, epoch):
    order = BlockOrder(["t"] * len(counts), counts, block_size, seed)
    images = [order.image(epoch, place) for place in range(len(order))]
    assert sorted(images) == list(range(sum(counts)))
    # Sorted within each block, the images are those of one tar after another, in their order.
    blocks = [sorted(images[i : i + block_size]) for i in range(0, len(images), block_size)]
    tar_of = np.repeat(np.arange(len(counts)), counts)
    for block in blocks:
        for _, run in itertools.groupby(block, key=lambda image: tar_of[image]):
            run = list(run)
            assert run == list(range(run[0], run[-1] + 1))
    assert images[::-1] == [order.image(epoch, p) for p in reversed(range(len(order)))]


def test_epochs_and_seeds_have_other_orders_and_0_keeps_the_order():
    counts = [50, 50, 50]
    orders = {
        tuple(BlockOrder("abc", counts, 20, seed).image(epoch, p) for p in range(150))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4
    unshuffled = BlockOrder("abc", counts, 0, 0)
    assert [unshuffled.image(3, p) for p in range(150)] == list(range(150))


def test_the_order_of_a_seed_is_the_same_for_ever():
    order = BlockOrder("ab", [6, 4], 4, 7)
    assert [order.image(2, place) for place in range(10)] == [1, 0, 2, 3, 4, 7, 6, 5, 9, 8]


@given(COUNTS, st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.data())
def test_ranks_of_changing_number_share_an_epoch(counts, worlds, drop_last, data):
    n = sum(counts)
    seen, state = [], None
    for number, world in enumerate(worlds, 1):
        ranks = samplers(counts, world, block_size=7, drop_last=drop_last)
        if state is not None:
            for rank in ranks:
                rank.load_state_dict(json.loads(json.dumps(state)))
        steps = zip(*ranks, strict=True)  # all have the same number of them
        if number < len(worlds):
            steps = itertools.islice(steps, data.draw(st.integers(0, n)))
        seen += itertools.chain(*steps)
        states = [rank.state_dict() for rank in ranks]
        assert all(other == states[0] for other in states)
        state = states[0]
    more = len(seen) - n
    if drop_last:
        assert len(set(seen)) == len(seen)
        assert -worlds[-1] < more <= 0
    else:  # what is repeated fills the last step
        assert set(seen) == set(range(n))
        assert 0 <= more < max(worlds)


def test_iterations_go_on_to_the_next_epoch_and_set_epoch_to_any():
    (sampler,) = samplers([30], 1)
    epochs = [list(sampler) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    sampler.set_epoch(1)
    assert list(sampler) == epochs[1]
    sampler.set_epoch(1)  # once more
    assert list(sampler) == epochs[1]
    assert list(sampler) == epochs[2]
    sampler.set_epoch(0)
    next(iter(sampler))
    state = sampler.state_dict()
    assert list(sampler) == epochs[0]  # an iteration that was left begins again
    sampler.load_state_dict(state)
    sampler.set_epoch(0)  # as a loop over epochs does after a state was loaded
    assert list(sampler) == epochs[0][1:]
    sampler.load_state_dict(sampler.state_dict())
    assert list(sampler) == []  # nothing of that epoch is left
    assert list(sampler) == epochs[1]
    assert len(sampler) == 30


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ([8, 8], {"seed": 1}, "saved with seed=0, and this loader has 1: images would be lost"),
        ([8, 8], {"block_size": 5}, "saved with block_size=1024, and this loader has 5"),
        ([8, 9], {}, "saved for 16 images, and this loader has 17 images or other tars"),
        ([9, 7], {}, "has 16 images or other tars: images would be lost or come twice. Read the"),
    ],
)
def test_a_state_of_other_data_or_another_order_is_refused(counts, options, message):
    (saved,) = samplers([8, 8], 1)
    (sampler,) = samplers(counts, 1, **options)
    with pytest.raises(ValueError, match=message):
        sampler.load_state_dict(saved.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 0}, "block_size must be positive, got 0"),
        ({"num_replicas": 2, "rank": 2}, "Invalid rank 2"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BlockShuffleSampler(Sizes([4]), **options)


def test_no_state_is_refused():
    (sampler,) = samplers([4], 1)
    with pytest.raises(ValueError, match=r"no state of a loader of sa1b_tfds: \{'yielded': 3\}"):
        sampler.load_state_dict({"yielded": 3})


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampler")
    return building.write_tars(folder, tars=3, images=8, height=24, width=32, shapes=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_resumes_after_the_batch_that_was_received(tars, workers):
    loaders = pytest.importorskip("torchdata.stateful_dataloader", reason="no torchdata")
    dataset = SA1BDataset(tars, mask_size=8)

    def loader():
        sampler = BlockShuffleSampler(dataset, block_size=5)
        return loaders.StatefulDataLoader(
            dataset, batch_size=5, sampler=sampler, num_workers=workers, collate_fn=collate
        )

    def ids(batches):
        return [[m["image_id"] for m in metadata] for _, _, metadata in batches]

    whole = ids(loader())
    assert sorted(itertools.chain(*whole)) == list(range(24))
    first = loader()
    begun = ids(itertools.islice(first, 2))
    second = loader()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + ids(second) == whole
    assert ids(second) != whole  # the next epoch


@pytest.fixture(scope="module")
def killed(tars, tmp_path_factory):
    """By loader: two ranks of which one is killed in step 4, and then three ranks."""
    for module in ("torchdata", "grain"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    folder = tmp_path_factory.mktemp("killed")
    runs = [
        {"loader": loader, "folder": str(folder / f"{loader}{world}"), "world": world, **options}
        for loader in ("sampler", "grain")
        for world, options in (
            (2, {"batch": 4, "kill": [1, 4]}),
            (3, {"batch": 3, "kill": None}),
        )
    ]
    run = subprocess.run(
        [sys.executable, "-m", "tests.ranks", str(tars), json.dumps(runs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return folder, json.loads(run.stdout), run.stderr


def test_when_a_rank_is_killed_the_other_one_fails(killed):
    _, codes, errors = killed
    assert codes == [[1, -9], [0, 0, 0]] * 2
    assert errors.count("rank 0: ") == 2


@pytest.mark.parametrize("loader", ["sampler", "grain"])
def test_a_killed_rank_loses_nothing_and_repeats_nothing(killed, loader):
    folder = killed[0]
    saved = json.loads((folder / f"{loader}2" / "state").read_text())
    assert saved["step"] == 3

    def seen(world, steps):
        for log in (folder / f"{loader}{world}").glob("rank*"):
            for step, ids in map(json.loads, log.read_text().splitlines()):
                yield from ids if step <= steps else []

    before, after = list(seen(2, saved["step"])), list(seen(3, 99))
    assert len(before) == 12
    assert sorted(before + after) == list(range(24))
