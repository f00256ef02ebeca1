"""The loaders that alternatives.py compares, and how the data of each is prepared.

A module is a library. Its `prepare` makes data from the tars as Meta serves them, in an empty
folder; `builds` has what this package prepares. Its `batches` reads such a folder without end, 4
images a batch. A batch is a dict:
  image: float32 [4, 1024, 1024, 3] or [4, 3, 1024, 1024], letterboxed and normalised.
  masks: uint8 or bool [4, 32, 256, 256], random masks of the image, letterboxed.
  points: float [4, 32, 1, 2], a pixel of each mask, (x, y) in pixels of the image.
  boxes: float [4, 32, 4], (x0, y0, x1, y1) in pixels of the image.
"""

from __future__ import annotations

from typing import NamedTuple

IMAGE, MASK, MASKS, BATCH, WORKERS = 1024, 256, 32, 4, 2
SHUFFLE = 16  # images in the buffer of what shuffles a stream


class Loader(NamedTuple):
    """A contestant.

    what: its name in the table.
    batches: 'module.function' of this folder, which reads its data.
    data: what it reads: a key of PREPARATIONS, or 'tars' for the tars as Meta serves them.
    package: the package whose version the table states.
    venv: a virtual environment inside the one that runs, if it cannot be installed beside ours.
    slow: whether it takes seconds per image, so that one turn of few images must do.
    """

    what: str
    batches: str
    data: str
    package: str
    ours: bool = False
    venv: str = ""
    slow: bool = False


# Of each kind of data, the 'module.function' of this folder that makes it.
PREPARATIONS = {
    "original": "builds.original",
    "resized_1024": "builds.resized",
    "plain": "builds.plain",
    "array_record": "builds.array_record",
    "files": "files.prepare",
    "webdataset": "builds.webdataset",
    "parquet": "huggingface.prepare",
    "litdata": "litdata.prepare",
    "mosaicml": "mosaicml.prepare",
    "grain": "grain.prepare",
    "official": "official.prepare",
}

_DATASET = "`training_dataset`"
LOADERS = {
    "original": Loader(
        f"**{_DATASET} of `original`**", "ours.original", "original", "sa1b_tfds", ours=True
    ),
    "resized_1024": Loader(
        f"{_DATASET} of `resized_1024`", "ours.resized", "resized_1024", "sa1b_tfds", ours=True
    ),
    "plain": Loader(
        f"{_DATASET} of `read_tars`, plain tars", "ours.tars", "plain", "sa1b_tfds", ours=True
    ),
    "gzip": Loader(
        f"{_DATASET} of `read_tars`, gzip tars", "ours.tars", "tars", "sa1b_tfds", ours=True
    ),
    "SA1BDataset": Loader(
        "`SA1BDataset`, plain tars", "ours.sa1b_dataset", "plain", "sa1b_tfds", ours=True
    ),
    "sa1b_grain": Loader(
        "`sa1b_tfds.grain` of array_record", "ours.grain", "array_record", "grain", ours=True
    ),
    "torch": Loader("torch `Dataset` of files", "files.batches", "files", "torch"),
    "webdataset": Loader("webdataset", "webdataset.batches", "webdataset", "webdataset"),
    "huggingface": Loader(
        "Hugging Face datasets, streamed parquet", "huggingface.batches", "parquet", "datasets"
    ),
    "litdata": Loader("LitData", "litdata.batches", "litdata", "litdata", venv="apart"),
    "mosaicml": Loader(
        "MosaicML Streaming", "mosaicml.batches", "mosaicml", "mosaicml-streaming", venv="apart"
    ),
    "grain": Loader("Grain of array_record", "grain.batches", "grain", "grain"),
    "tfds": Loader(
        "TFDS's own data, `numpy_function`", "official.batches", "official", "tensorflow-datasets"
    ),
    "erow": Loader("erow's form, all full-size masks", "files.erow", "files", "torch", slow=True),
}
