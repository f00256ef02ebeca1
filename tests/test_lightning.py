"""SA1BDataModule: the split by tar, the loaders, and a Lightning trainer that fits."""

import importlib.util

import pytest

from tests.building import write_tars

torch = pytest.importorskip("torch", reason="the extra [torch] is not installed")
if importlib.util.find_spec("lightning") is None:
    pytest.skip("the extra [torch] is not installed", allow_module_level=True)

from sa1b_tfds import torch as loaders  # noqa: E402

COLLATE = loaders.TransformersCollate(masks_per_image=2, image_size=32, mask_size=8)


@pytest.fixture(scope="module", autouse=True)
def imported():
    """When these tests run: each process collects them, and to import it takes seconds."""
    global lightning, lightning_models
    import lightning

    from tests import lightning_models


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    return write_tars(tmp_path_factory.mktemp("lightning"), tars=3, shapes=4)


def test_a_trainer_fits(tars, tmp_path):
    lightning.seed_everything(0)
    module = lightning_models.Tiny()
    data = loaders.SA1BDataModule(
        tars, batch_size=4, num_workers=0, collate_fn=COLLATE, mask_size=8, keep_aspect=True
    )
    trainer = lightning_models.trainer_of(tmp_path, max_epochs=12, log_every_n_steps=1)
    trainer.fit(module, data)
    assert len(module.losses) == 12 * 2  # two tars of four images in batches of four
    assert module.losses[-1] < 0.7 * module.losses[0]
    assert len(module.seen["val"]) == 12 * 4
    assert "val_loss" in trainer.callback_metrics
    assert set(data.train_dataset.source_names).isdisjoint(data.val_dataset.source_names)


def fit(folder, tars, batch_size, stop_after=None, **options):
    """-> (what the model saw, the trainer)."""
    model = lightning_models.Seen(stop_after)
    data = loaders.SA1BDataModule(
        tars,
        batch_size,
        val_fraction=0.25,
        mask_size=8,
        block_size=5,
        **{"num_workers": 0, **options},
    )
    trainer = lightning_models.trainer_of(folder, max_epochs=3)
    saved = folder / "saved.ckpt"
    if stop_after:
        with pytest.raises(KeyError, match="as if it were killed"):
            trainer.fit(model, data)
    else:
        trainer.fit(model, data, ckpt_path=saved if saved.exists() else None)
    return model, trainer


@pytest.fixture(scope="module")
def four_tars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resumed")
    return write_tars(folder, tars=4, images=8, height=24, width=32, shapes=2)


@pytest.mark.parametrize(
    ("batch_size", "stop_after", "then"),
    [(4, 8, 4), (4, 8, 2), (4, 8, 8), (2, 17, 3), (3, 8, 4), (4, 6, 2)],
    # batches of the same size, of others, and a checkpoint at the end of an epoch
)
def test_a_trainer_resumes_in_mid_epoch(four_tars, tmp_path, batch_size, stop_after, then):
    begun, _ = fit(tmp_path, four_tars, batch_size, stop_after)
    rest, trainer = fit(tmp_path, four_tars, then)
    images = [i for step in begun.seen + rest.seen for i in step]
    assert len(images) == 3 * 24
    epochs = [images[i : i + 24] for i in range(0, 72, 24)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    whole, _ = fit(tmp_path / "none", four_tars, 24)
    assert sorted(map(sorted, whole.seen)) == [sorted(epochs[0])] * 3
    assert [i for step in whole.seen for i in step] == images
    # Lightning does not validate after an epoch whose last batch the checkpoint has.
    ended = stop_after * batch_size // 24
    assert rest.validated == (3 - ended) * -(-8 // then)
    assert trainer.current_epoch == 3


def test_overfit_batches_takes_the_same_images_in_each_epoch(four_tars, tmp_path):
    model = lightning_models.Seen()
    data = loaders.SA1BDataModule(four_tars, 4, num_workers=0, mask_size=8)
    lightning_models.trainer_of(tmp_path, max_epochs=3, overfit_batches=2).fit(model, data)
    assert model.seen[:2] == model.seen[2:4] == model.seen[4:]
    assert len(model.seen) == 6


def test_validating_a_checkpoint_does_not_move_a_later_training(four_tars, tmp_path):
    fit(tmp_path, four_tars, 4, stop_after=2)
    data = loaders.SA1BDataModule(
        four_tars, 4, num_workers=0, val_fraction=0.25, mask_size=8, block_size=5
    )
    lightning_models.trainer_of(tmp_path).validate(
        lightning_models.Seen(), data, ckpt_path=tmp_path / "saved.ckpt", verbose=False
    )
    model = lightning_models.Seen()
    lightning_models.trainer_of(tmp_path, max_epochs=1).fit(model, data)
    assert len(model.seen) == 6


def test_loaders(tars):
    data = loaders.SA1BDataModule(tars, batch_size=3, num_workers=1, val_fraction=0.3, mask_size=8)
    with pytest.raises(RuntimeError, match=r"Call setup\(\) first"):
        data.train_dataloader()
    data.setup("fit")
    train, val = data.train_dataloader(), data.val_dataloader()
    for loader in (train, val):
        assert loader.persistent_workers
        assert loader.batch_size == 3
        assert loader.pin_memory == torch.accelerator.is_available()
    assert (len(train.dataset), len(val.dataset)) == (8, 4)
    epochs = [[m["image_id"] for _, _, metadata in train for m in metadata] for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]  # shuffled
    ids = [metadata["image_id"] for _, _, metadata in data.val_dataset]
    assert sorted(epochs[0] + ids) == list(range(12))
    assert data.val_dataset[0][1].shape[1:] == (8, 8)


def test_without_validation(tars):
    data = loaders.SA1BDataModule(tars / "sa_000000.tar", num_workers=0, val_fraction=0)
    data.setup()
    assert len(data.train_dataset) == 4
    assert data.val_dataloader() == []


def test_the_split_is_by_name_and_mostly_stays():
    from sa1b_tfds.torch.datamodule import split

    names = [f"sa_{i:06d}.tar" for i in range(100)]
    train, val = split(names, 0.1)
    assert (len(train), len(val)) == (90, 10)
    assert sorted(train + val) == names
    assert split(names[::-1], 0.1)[1] == val[::-1]
    _, more = split([*names, "sa_000100.tar"], 0.1)
    assert len(set(val) & set(more)) >= 9
    assert [len(part) for part in split(names[:2], 0.9)] == [1, 1]


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("sa_000000.tar", {}, r"One tar \(sa_000000.tar\) cannot be split by tar: add another"),
        (".", {"val_fraction": 1.0}, "val_fraction must be at least 0 and below 1"),
        (".", {"mask_size": 0}, "mask_size must be two positive integers"),
    ],
)
def test_refused(tars, path, options, message):
    with pytest.raises(ValueError, match=message):
        loaders.SA1BDataModule(tars / path, **options).setup()


def test_only_refuses_a_name_that_is_not_there(tars):
    data = loaders.SA1BDataModule(tars, num_workers=0)
    data.setup()
    with pytest.raises(ValueError, match=r"No such tar, folder or shard: sa_9\.tar"):
        data.train_dataset.only(["sa_9.tar"])


@pytest.mark.parametrize(
    ("options", "workers", "batches"),
    [
        ({}, 1, 1),
        ({"max_masks": 50}, 1, 1),
        ({"mask_size": 256}, 6, 2),
        ({"mask_size": (1024, 1024), "max_masks": 32}, 6, 2),
        ({"transform": print}, 6, 2),
        ({"collate_fn": COLLATE}, 6, 2),
        ({"num_workers": 3}, 3, 1),
        ({"num_workers": 3, "prefetch_factor": 4}, 3, 4),
        ({"num_workers": 0}, 0, None),
    ],
)
def test_full_size_masks_are_loaded_few_at_a_time(tars, monkeypatch, options, workers, batches):
    monkeypatch.setattr("sa1b_tfds.torch.datamodule.available_cores", lambda: 6)
    module = loaders.SA1BDataModule(tars, val_fraction=0, **options)
    module.setup()
    loader = module.train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor) == (workers, batches)
