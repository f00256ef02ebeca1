"""Settings for all tests."""

import contextlib
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
hypothesis.settings.register_profile("sa1b", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("sa1b")

# PyTorch for CUDA brings Triton, and loading that after TensorFlow ends the process (SIGSEGV).
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

# Where the environment forbids it, each of the processes would compile all modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A suite that a shell started in the background ignores Ctrl-C; what the tests start is not to.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Nothing here looks at what is left after a power cut, and a disk takes 7 ms for each sync. What
# runs in a process of its own syncs.
os.fsync = os.fdatasync = lambda handle: os.fstat(handle) and None

# A million objects are alive once TensorFlow is there: to look through them at each hundred graph
# nodes takes a fifth of the suite's time.
gc.set_threshold(50_000, 20, 50)


# What takes longest begins first, so that nothing long is left for one process at the end.
_SLOWEST = (
    "training_pipeline",
    "sidecar",
    "keras",
    "docs",
    "builder",
    "build",
    "export",
    "training_scale",
    "read_tars",
    "torch",
    "show",
    "layouts",
    "download",
    "all_paths",
    "stats",
    "huggingface",
    "build_command",
    "masks",
    "lightning",
    "example_scripts",
    "rasterize",
    "relevance",
    "metrics",
    "model_docs",
    "training_transforms",
    "dask",
    "beam",
    "shards",
    "training_config",
    "import",
    "features",
)


def pytest_collection_modifyitems(items):
    places = {f"test_{name}.py": place for place, name in enumerate(_SLOWEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: a sixth of the time, tests wait for a disk or a process."""
    from sa1b_tfds.core.processes import available_cores

    return available_cores() + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Without --dist a file's tests stay in one process: they share what it has built."""
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_configure(config):
    """Starts what forks programs for the tests (see `forked.py`), one for all xdist workers.

    What is left in the folder of temporary files, as a TFDS builder without data leaves a folder
    each time, is removed with it at the end. Pytest's own folders stay where they were.
    """
    if hasattr(config, "workerinput"):
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    temporary = pathlib.Path(folder.name) / "tmp"
    temporary.mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    os.environ["FORKED"] = f"{folder.name}/socket"
    # TFDS and Matplotlib read these when they are imported; PYTHONPATH is that of each program.
    environment = {**os.environ, "TFDS_DATA_DIR": "data", "MPLBACKEND": "agg"}
    environment.pop("PYTHONPATH", None)
    server = subprocess.Popen(
        [
            sys.executable,
            pathlib.Path(__file__).with_name("forked.py"),
            "serve",
            os.environ["FORKED"],
        ],
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what TensorFlow says when it is imported
    )

    def stop():
        server.stdin.close()
        server.wait()
        folder.cleanup()

    config.add_cleanup(stop)


def pytest_collection_finish(session):
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def no_seed_of_another_file():
    """TensorFlow's own seed, which keras.utils.set_random_seed sets, has a say in all batches."""
    yield
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.random.set_seed(None)


@pytest.fixture(scope="module")
def threads():
    """For a file's `pytestmark`: threads instead of worker processes; see `threads.py`."""
    from tests.threads import Thread, workers_are

    with workers_are(Thread):
        yield


@pytest.fixture
def processes():
    """For a test of such a file whose workers are to be processes."""
    from tests.threads import PROCESS, workers_are

    with workers_are(PROCESS):
        yield


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of the asked for bytes; skips where that is not permitted."""
    mounted = []

    def mount(size: int) -> pathlib.Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("there is no mount command")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """TFDS's data_dir with 'segment_anything/original': ids 0 to 15 in two tars, 60 x 90 pixels."""
    from tests import building

    folder = tmp_path_factory.mktemp("prepared")
    tars = building.write_tars(folder / "tars", tars=2, images=8, height=60, width=90, shapes=5)
    building.prepare(tars, folder)
    return folder


@pytest.fixture(scope="session")
def prepared_dummy(tmp_path_factory) -> pathlib.Path:
    """TFDS's data_dir with 'segment_anything/original' of dummy_data/. Not to be changed."""
    from tests import building

    folder = tmp_path_factory.mktemp("dummy")
    building.prepare(pathlib.Path(__file__).parents[1] / "dummy_data", folder)
    return folder
