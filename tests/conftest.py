"""Settings for all tests."""

import os

import hypothesis

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
hypothesis.settings.register_profile("sa1b", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("sa1b")
