"""The loaders that `alternatives.py` compares: what each makes of the tars, and its batches.

A batch of each has 4 images letterboxed to 1024 and normalised, and for each image 32 random masks
of 256 x 256, with a point and a box a mask. Each is written as its documentation says, with two
workers. Those in Python share `example`: Pillow's scaled decoding, and pycocotools for the masks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import pathlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

SIDE, MASK_SIDE, MASKS, BATCH, WORKERS = 1024, 256, 32, 4, 2
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_ENDLESS = 10**7


class Loader(NamedTuple):
    """One way to read SA-1B.

    what: for the table. ours: whether it is of this package. needs: modules that must be installed.
    prepare: (tars, folder) -> what is read, made in the empty folder; or the tars themselves.
    batches: that -> endless batches.
    """

    what: str
    ours: bool
    needs: Sequence[str]
    prepare: Callable[[pathlib.Path, pathlib.Path], pathlib.Path]
    batches: Callable[[pathlib.Path], Iterator[Any]]

    def missing(self) -> list[str]:
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def example(jpeg: bytes, annotations: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What a training needs of one image, by Pillow, NumPy and pycocotools."""
    from pycocotools import mask as coco_mask

    picture = Image.open(io.BytesIO(jpeg))
    size, small = _fit(picture.size, SIDE), _fit(picture.size, MASK_SIDE)
    scale = SIDE / max(picture.size)
    picture.draft("RGB", size)  # decodes at half the size where that is enough
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    image[: size[1], : size[0]] = (pixels - _MEAN) / _STD
    chosen = np.random.choice(len(annotations), MASKS, replace=False)
    some = [annotations[i] for i in chosen]
    full = coco_mask.decode([a["segmentation"] for a in some])
    rows = (np.arange(small[1]) * 2 + 1) * full.shape[0] // (2 * small[1])
    columns = (np.arange(small[0]) * 2 + 1) * full.shape[1] // (2 * small[0])
    masks = np.zeros((MASKS, MASK_SIDE, MASK_SIDE), np.uint8)
    masks[:, : small[1], : small[0]] = full[rows[:, None], columns].transpose(2, 0, 1)
    x, y, width, height = np.array([a["bbox"] for a in some], np.float32).T * scale
    points = np.array([a["point_coords"] for a in some], np.float32) * scale
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    return {"image": image, "masks": masks, "points": points, "boxes": boxes}


def _fit(size: tuple[int, int], side: int) -> tuple[int, int]:
    return tuple(int(n * side / max(size) + 0.5) for n in size)  # type: ignore[return-value]


def _of_json(jpeg: bytes, content: bytes) -> dict[str, np.ndarray]:
    return example(jpeg, json.loads(content)["annotations"])


def _pairs(tars: pathlib.Path) -> Iterator[tuple[bytes, bytes]]:
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    found = [member, tar.getmember(member.name[:-3] + "json")]
                    jpeg, content = (tar.extractfile(m).read() for m in found)  # type: ignore[union-attr]
                    yield jpeg, content


def _torch_loader(dataset: Any, **options: Any) -> Iterator[Any]:
    import torch

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, num_workers=WORKERS, persistent_workers=True, **options
    )
    while True:
        yield from loader


def _at_random(dataset: Any) -> Any:
    import torch

    return torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=_ENDLESS)


# What people use.


def _extracted(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
    return folder


def _torch_dataset(folder: pathlib.Path) -> Iterator[Any]:
    class Images:
        def __init__(self) -> None:
            self.paths = sorted(folder.glob("*.jpg"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, i: int) -> Any:
            path = self.paths[i]
            return _of_json(path.read_bytes(), path.with_suffix(".json").read_bytes())

    images = Images()
    return _torch_loader(images, sampler=_at_random(images))


def _full_size(folder: pathlib.Path) -> Iterator[Any]:
    """As erow's loader: JSON parsed at the start, every mask decoded to its full size."""
    import torch
    from pycocotools import mask as coco_mask

    class Images:
        def __init__(self) -> None:
            self.paths = sorted(folder.glob("*.jpg"))
            self.of = [json.loads(p.with_suffix(".json").read_text()) for p in self.paths]

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, i: int) -> Any:
            annotations = self.of[i]["annotations"]
            image = np.array(Image.open(self.paths[i]).convert("RGB"))
            full = np.stack([coco_mask.decode(a["segmentation"]) for a in annotations])
            scale, size = SIDE / max(image.shape), _fit(image.shape[:2], SIDE)
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
            mean, std = (torch.from_numpy(x)[:, None, None] for x in (_MEAN, _STD))
            padding = (0, SIDE - size[1], 0, SIDE - size[0])
            chosen = np.random.choice(len(annotations), MASKS, replace=False)
            masks = torch.from_numpy(full[chosen])[None]
            small = _fit(image.shape[:2], MASK_SIDE)
            masks = torch.nn.functional.interpolate(masks, small, mode="nearest-exact")[0]
            return {
                "image": torch.nn.functional.pad((pixels[0] - mean) / std, padding),
                "masks": torch.nn.functional.pad(
                    masks, (0, MASK_SIDE - small[1], 0, MASK_SIDE - small[0])
                ),
                "points": np.array([annotations[j]["point_coords"] for j in chosen]) * scale,
                "boxes": np.array([annotations[j]["bbox"] for j in chosen]) * scale,
            }

    images = Images()
    return _torch_loader(images, sampler=_at_random(images))


def _repacked(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Two tars, one a worker, in which the files of an image lie side by side."""
    from sa1b_tfds.export import ExportConfig, WebDataset, export

    for number, tar in enumerate(sorted(tars.glob("*.tar"))):
        export(ExportConfig(source=tar, output=folder / str(number), format=WebDataset()))
    return folder


def _webdataset(folder: pathlib.Path) -> Iterator[Any]:
    import webdataset

    urls = sorted(map(str, folder.glob("**/*.tar")))
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
        .repeat()
        .shuffle(16)
        .to_tuple("jpg", "json")
        .map(lambda pair: _of_json(*pair))
    )
    return _torch_loader(dataset)


def _hugging_face(folder: pathlib.Path) -> Iterator[Any]:
    import datasets

    datasets.disable_progress_bars()
    files = sorted(map(str, folder.glob("**/*.tar")))
    dataset = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    dataset = dataset.cast_column("jpg", datasets.Image(decode=False)).repeat(_ENDLESS)
    dataset = dataset.map(
        lambda row: example(row["jpg"]["bytes"], row["json"]["annotations"]),
        remove_columns=dataset.column_names,
    )
    return _torch_loader(dataset.with_format("numpy"))


def _optimized(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    import litdata

    # Four times the same, so that an epoch is not over at once; the figures are for an image.
    inputs = [pair for _ in range(4) for pair in _pairs(tars)]
    with contextlib.redirect_stdout(io.StringIO()):
        litdata.optimize(_stored, inputs, str(folder), num_workers=1, chunk_bytes="64MB")
    return folder


def _stored(pair: tuple[bytes, bytes]) -> dict[str, bytes]:
    return {"jpg": pair[0], "json": pair[1]}


def _litdata(folder: pathlib.Path) -> Iterator[Any]:
    import litdata
    import torch

    torch.set_num_threads(1)

    class Images(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            stored = super().__getitem__(index)
            return _of_json(stored["jpg"], stored["json"])

    loader = litdata.StreamingDataLoader(
        Images(str(folder), shuffle=True), batch_size=BATCH, num_workers=WORKERS
    )
    while True:
        yield from loader


def _written_as_mds(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"jpg": "bytes", "json": "bytes"}) as writer:
        for pair in _pairs(tars):
            writer.write(_stored(pair))
    return folder


def _mosaic(folder: pathlib.Path) -> Iterator[Any]:
    from streaming import StreamingDataset

    class Images(StreamingDataset):
        def __getitem__(self, index: int) -> Any:
            stored = super().__getitem__(index)
            return _of_json(stored["jpg"], stored["json"])

    return _torch_loader(Images(local=str(folder), shuffle=True, batch_size=BATCH))


def _array_record(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(folder / "images.array_record"), "group_size:1")
    for jpeg, content in _pairs(tars):
        writer.write(len(jpeg).to_bytes(8, "big") + jpeg + content)
    writer.close()
    return folder


def _of_record(record: bytes) -> dict[str, np.ndarray]:
    end = 8 + int.from_bytes(record[:8], "big")
    return _of_json(record[8:end], record[end:])


def _grain(folder: pathlib.Path) -> Iterator[Any]:
    import grain

    source = grain.sources.ArrayRecordDataSource([str(folder / "images.array_record")])
    return _grain_loader(grain.MapDataset.source(source), _of_record)


def _grain_loader(dataset: Any, parse: Callable[[Any], Any]) -> Iterator[Any]:
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS([""])
    dataset = dataset.shuffle(seed=0).repeat().map(parse).batch(BATCH)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
    workers = grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=2)
    return iter(dataset.mp_prefetch(workers))


def _official(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Data in the official builder's layout; its own build is measured in build.py."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(folder / "segment_anything-train.tfrecord-0")) as writer:
        for jpeg, content in _pairs(tars):
            parsed = json.loads(content)
            rles = [a["segmentation"] for a in parsed["annotations"]]
            columns = {
                "image/content": [jpeg],
                "annotations/segmentation/counts": [rle["counts"].encode() for rle in rles],
            }
            numbers = {
                "annotations/bbox": np.ravel([a["bbox"] for a in parsed["annotations"]]),
                "annotations/point_coords": np.ravel(
                    [a["point_coords"] for a in parsed["annotations"]]
                ),
            }
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
                for name, values in columns.items()
            }
            for name, values in numbers.items():
                floats = tf.train.FloatList(value=values)
                feature[name] = tf.train.Feature(float_list=floats)
            features = tf.train.Features(feature=feature)
            writer.write(tf.train.Example(features=features).SerializeToString())
    return folder


def _numpy_function(folder: pathlib.Path) -> Iterator[Any]:
    import tensorflow as tf
    from pycocotools import mask as coco_mask

    of_masks = {
        "annotations/segmentation/counts": ([], tf.string),
        "annotations/bbox": ([4], tf.float32),
        "annotations/point_coords": ([2], tf.float32),
    }
    features = {
        name: tf.io.FixedLenSequenceFeature(shape, dtype, allow_missing=True)
        for name, (shape, dtype) in of_masks.items()
    }
    features["image/content"] = tf.io.FixedLenFeature([], tf.string)

    def masks_of(counts: np.ndarray, size: np.ndarray) -> np.ndarray:
        full = coco_mask.decode([{"size": size.tolist(), "counts": c} for c in counts])
        small = _fit(full.shape[:2], MASK_SIDE)
        rows, columns = (
            (np.arange(n) * 2 + 1) * of // (2 * n)
            for n, of in zip(small, full.shape[:2], strict=True)
        )
        masks = np.zeros((MASKS, MASK_SIDE, MASK_SIDE), np.uint8)
        masks[:, : small[0], : small[1]] = full[rows[:, None], columns].transpose(2, 0, 1)
        return masks

    def parse(record: Any) -> dict[str, Any]:
        values = tf.io.parse_single_example(record, features)
        pixels = tf.io.decode_jpeg(values["image/content"], 3)
        size = tf.shape(pixels)[:2]
        scale = tf.cast(SIDE / tf.reduce_max(size), tf.float32)
        resized = tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32)
        image = (tf.image.resize(pixels, resized) - _MEAN) / _STD
        image = tf.image.pad_to_bounding_box(image, 0, 0, SIDE, SIDE)
        counts = values["annotations/segmentation/counts"]
        chosen = tf.random.shuffle(tf.range(tf.size(counts)))[:MASKS]
        masks = tf.numpy_function(masks_of, [tf.gather(counts, chosen), size], tf.uint8)
        points, boxes = (
            tf.gather(values[f"annotations/{name}"], chosen) * scale
            for name in ("point_coords", "bbox")
        )
        return {"image": image, "masks": masks, "points": points, "boxes": boxes}

    records = tf.data.TFRecordDataset(sorted(map(str, folder.glob("*.tfrecord*")))).repeat()
    dataset = records.shuffle(16).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(dataset.batch(BATCH).prefetch(tf.data.AUTOTUNE))


# Ours.


def _as_they_are(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    del folder
    return tars


def _compressed(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """What Meta serves: nothing has to be prepared, so packing is not counted."""
    del folder
    return tars.with_name("packed")


def _built(config: str, file_format: str = "tfrecord") -> Callable[..., pathlib.Path]:
    def build(tars: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
        from sa1b_tfds.cli.main import main as sa1b

        command = ["build", str(tars), "--data-dir", str(folder), "--config", config]
        with contextlib.redirect_stdout(io.StringIO()):
            sa1b([*command, "--file-format", file_format])
        return folder

    return build


def _config() -> Any:
    import sa1b_tfds

    return sa1b_tfds.TrainingConfig(
        batch_size=BATCH,
        image_size=SIDE,
        mask_size=MASK_SIDE,
        masks_per_image=MASKS,
        shuffle=16,
        repeat=True,
    )


def _training_dataset(config: str) -> Callable[[pathlib.Path], Iterator[Any]]:
    def batches(folder: pathlib.Path) -> Iterator[Any]:
        import sa1b_tfds

        name = f"segment_anything/{config}"
        return iter(sa1b_tfds.training_dataset(name, _config(), data_dir=folder))

    return batches


def _read_tars(tars: pathlib.Path) -> Iterator[Any]:
    import tensorflow_datasets as tfds

    import sa1b_tfds

    skip = tfds.decode.SkipDecoding()
    source = sa1b_tfds.read_tars(tars, decoders={"image": skip, "masks": skip})
    return iter(sa1b_tfds.training_dataset(source, _config()))


def _sa1b_dataset(tars: pathlib.Path) -> Iterator[Any]:
    import torch

    from sa1b_tfds.torch import SA1BDataset, TransformersCollate

    torch.set_num_threads(1)
    options = {"max_masks": MASKS, "mask_choice": "random", "keep_aspect": True}
    dataset = SA1BDataset(tars, mask_size=MASK_SIDE, **options)  # type: ignore[arg-type]
    collate = TransformersCollate(masks_per_image=MASKS, image_size=SIDE, mask_size=MASK_SIDE)
    return _torch_loader(dataset, sampler=_at_random(dataset), collate_fn=collate)


def _data_source(folder: pathlib.Path) -> Iterator[Any]:
    """Grain over prepared array_record, as TFDS's own data source gives it."""
    import grain
    import tensorflow_datasets as tfds

    import sa1b_tfds

    to_size = sa1b_tfds.decode_masks_to(size=(MASK_SIDE, MASK_SIDE), max_masks=MASKS)
    decoders = {"masks": to_size, "image": tfds.decode.SkipDecoding()}
    source = tfds.data_source(
        "segment_anything/original", split="train", data_dir=folder, decoders=decoders
    )
    return _grain_loader(grain.MapDataset.source(source), _of_element)


def _of_element(element: dict[str, Any]) -> dict[str, np.ndarray]:
    picture = Image.open(io.BytesIO(element["image"]))
    size = _fit(picture.size, SIDE)
    picture.draft("RGB", size)
    image = np.zeros((SIDE, SIDE, 3), np.float32)
    pixels = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    image[: size[1], : size[0]] = (pixels - _MEAN) / _STD
    columns = {name: element["annotations"][name][:MASKS] for name in ("bbox", "point_coords")}
    return {
        "image": image,
        "masks": element["masks"],
        "points": columns["point_coords"],
        "boxes": columns["bbox"],
    }


LOADERS = {
    "torch": Loader("torch Dataset, extracted files", False, ["torch"], _extracted, _torch_dataset),
    "full": Loader("the same as erow's, full size", False, ["torch"], _extracted, _full_size),
    "webdataset": Loader(
        "webdataset, repacked tars", False, ["torch", "webdataset"], _repacked, _webdataset
    ),
    "huggingface": Loader(
        "datasets, streaming", False, ["torch", "datasets"], _repacked, _hugging_face
    ),
    "litdata": Loader("LitData", False, ["litdata"], _optimized, _litdata),
    "mosaic": Loader("MosaicML Streaming", False, ["streaming"], _written_as_mds, _mosaic),
    "grain": Loader("Grain, array_record", False, ["grain"], _array_record, _grain),
    "official": Loader(
        "official TFDS data, numpy_function", False, ["tensorflow"], _official, _numpy_function
    ),
    "original": Loader(
        "training_dataset, original", True, [], _built("original"), _training_dataset("original")
    ),
    "resized": Loader(
        "training_dataset, resized_1024",
        True,
        [],
        _built("resized_1024"),
        _training_dataset("resized_1024"),
    ),
    "tars": Loader("read_tars, plain tars", True, [], _as_they_are, _read_tars),
    "gzip": Loader("read_tars, gzip tars", True, [], _compressed, _read_tars),
    "source": Loader(
        "Grain, tfds.data_source",
        True,
        ["grain"],
        _built("original", "array_record"),
        _data_source,
    ),
    "sa1b": Loader("SA1BDataset, plain tars", True, ["torch"], _as_they_are, _sa1b_dataset),
}
