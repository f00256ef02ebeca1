"""Training input over replicas, machines and devices: tf.distribute, tf.data service, prefetch."""

import itertools
import json
import pathlib
import re
import socket
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf

import sa1b_tfds
from sa1b_tfds.training import pipeline
from tests import forked

ROOT = pathlib.Path(__file__).parents[1]
IMAGES = list(range(16))  # of the fixture `prepared`
SMALL = {"image_size": 32, "mask_size": 8, "masks_per_image": 2, "batch_size": 4, "shuffle": 8}


def make(prepared, service=None, input_context=None, to_device=False, **config):
    config = sa1b_tfds.TrainingConfig(**{**SMALL, **config})
    return sa1b_tfds.training_dataset(
        "segment_anything/original",
        config,
        data_dir=prepared,
        service=service,
        input_context=input_context,
        to_device=to_device,
    )


def ids_of(dataset):
    return [int(i) for batch in dataset for i in batch["image_id"]]


DISTRIBUTE = """
import json, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import sa1b_tfds
from tests.test_training_scale import make

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
dataset = strategy.distribute_datasets_from_function(
    lambda context: make(sys.argv[1], input_context=context, drop_remainder=False))
steps = [
    [[int(i) for i in ids] for ids in strategy.experimental_local_results(batch["image_id"])]
    for batch in dataset]
print(json.dumps(steps))
"""


def test_two_replicas_share_an_epoch(prepared):
    """Every image goes to one replica; batch_size is that of both together."""
    run = subprocess.run(
        forked.command("-c", DISTRIBUTE, prepared),
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    steps = json.loads(run.stdout.splitlines()[-1])
    assert [len(replicas) for replicas in steps] == [2] * len(steps)
    assert [[len(ids) for ids in replicas] for replicas in steps] == [[2, 2]] * 4
    assert sorted(np.ravel(steps)) == IMAGES


def test_input_pipelines_are_disjoint_and_complete(prepared):
    """As three machines of one strategy read."""
    pipelines = 3
    shards = [
        ids_of(
            make(
                prepared,
                drop_remainder=False,
                input_context=tf.distribute.InputContext(pipelines, number, pipelines),
                batch_size=pipelines,
            )
        )
        for number in range(pipelines)
    ]
    assert all(abs(len(shard) - 16 / pipelines) < 1 for shard in shards)
    assert sorted(itertools.chain(*shards)) == IMAGES


@pytest.fixture(scope="module")
def service():
    """A dispatcher's address, with two workers, processes that docs/scale-out.md starts."""
    dispatcher = tf.data.experimental.service.DispatchServer()
    text = (ROOT / "docs" / "scale-out.md").read_text()
    (code,) = re.findall(r'python -c "([^"]*WorkerServer.*)"', text)
    code = code.replace("HOST:5050", dispatcher.target.partition("://")[2])
    workers = []
    try:
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("localhost", 0))
                port = str(free.getsockname()[1])
            own = code.replace("THIS_HOST:5051", f"localhost:{port}").replace("5051", port)
            workers.append(subprocess.Popen(forked.command("-c", own)))
        while dispatcher._num_workers() < 2:
            assert all(worker.poll() is None for worker in workers)
            time.sleep(0.1)
        yield dispatcher.target
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def test_service_gives_every_image_once_an_epoch(prepared, service):
    dataset = make(prepared, service=service, drop_remainder=False, masks_as="runs")
    for _ in range(2):
        batches = list(dataset)
        assert sorted(int(i) for batch in batches for i in batch["image_id"]) == IMAGES
        assert [len(batch["image_id"]) for batch in batches] == [4] * 4
        assert all(batch["image"].shape == [4, 32, 32, 3] for batch in batches)
        assert all(np.isfinite(batch["image"]).all() for batch in batches)


def test_to_device_changes_nothing_without_a_gpu(prepared):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("this machine has an accelerator")
    plain, prefetched = (list(make(prepared, to_device=flag)) for flag in (False, True))
    assert len(plain) == len(prefetched) == 4
    tf.nest.map_structure(np.testing.assert_array_equal, plain, prefetched)


def test_to_device_prefetches_into_the_first_gpu(prepared, monkeypatch):
    """A stand-in for the device list: a machine with a GPU asks for that GPU's memory."""
    asked = []

    def prefetch_to_device(device, buffer_size=None):
        asked.append(device)
        return lambda dataset: dataset

    gpu = tf.config.list_logical_devices("CPU")[0]._replace(name="/device:GPU:0", device_type="GPU")
    monkeypatch.setattr(pipeline.tf.config, "list_logical_devices", lambda kind: [gpu])
    monkeypatch.setattr(tf.data.experimental, "prefetch_to_device", prefetch_to_device)
    make(prepared, to_device=True)
    assert asked == ["/device:GPU:0"]


def test_a_global_seed_of_zero_is_no_hindrance(prepared):
    """keras.utils.set_random_seed(0) sets it."""
    try:
        tf.random.set_seed(0)
        assert sorted(ids_of(make(prepared, drop_remainder=False))) == IMAGES
    finally:
        tf.random.set_seed(None)
