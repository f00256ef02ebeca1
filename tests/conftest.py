"""Settings for all tests."""

import os

import hypothesis
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
hypothesis.settings.register_profile("sa1b", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("sa1b")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """TFDS's data_dir with 'segment_anything/original': ids 0 to 15 in two tars, 60 x 90 pixels."""
    import tensorflow_datasets as tfds

    import sa1b_tfds  # noqa: F401
    from tests import building

    folder = tmp_path_factory.mktemp("prepared")
    tars = building.write_tars(folder / "tars", tars=2, images=8, height=60, width=90, shapes=5)
    config = tfds.download.DownloadConfig(manual_dir=tars)
    tfds.builder("segment_anything", data_dir=folder).download_and_prepare(download_config=config)
    return folder
