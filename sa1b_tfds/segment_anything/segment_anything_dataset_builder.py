"""The `segment_anything` dataset builder: SA-1B's tars -> prepared TFDS records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets.public_api as tfds
from absl import logging
from etils import epath

from sa1b_tfds import archive, features
from sa1b_tfds.annotations import Example, to_example
from sa1b_tfds.ensure import ensure_tars, find_links_file
from sa1b_tfds.image_ids import ImageIds
from sa1b_tfds.links import LINKS_PAGE, read_links, tar_name, tar_number
from sa1b_tfds.problems import BadInput, OnError, Problems

HOMEPAGE = "https://ai.meta.com/datasets/segment-anything/"
REPORT = "build_report.json"
_BOX = "(ymin, xmin, ymax, xmax) as fractions of the image's height and width."
_HOW_TO_SKIP = (
    "To leave out what cannot be read, counted and listed, pass builder_kwargs={'on_error': 'skip'}"
    " or build 'segment_anything/<config>/on_error=skip'"
)


@dataclasses.dataclass(eq=False, kw_only=True)
class SegmentAnythingConfig(tfds.core.BuilderConfig):
    """Which tars, and what becomes of their images.

    name: also the name of the folder that the prepared data goes to.
    tars: the numbers of the tars, as in sa_000020.tar; None for all that are there.
    long_side: shrink images to this many pixels on their longer side (masks and points keep the
      original size); None keeps the JPEG bytes as they are.
    """

    name: str
    tars: Sequence[int] | None = None
    long_side: int | None = None

    def __post_init__(self) -> None:
        tars, side = self.tars, self.long_side
        if tars is not None and not (tars and all(isinstance(n, int) and n >= 0 for n in tars)):
            raise ValueError(f"tars must hold numbers from 0 on, or be None, got {tars!r}.")
        if side is not None and not (isinstance(side, int) and side > 0):
            raise ValueError(f"long_side must be a positive integer or None, got {side!r}.")


def _config(name: str, tars: range | None, long_side: int | None) -> SegmentAnythingConfig:
    which = "All tars" if tars is None else f"The first {len(tars)} tars by name"
    image = "JPEG bytes as they are" if long_side is None else f"images of {long_side} pixels"
    return SegmentAnythingConfig(
        name=name, tars=tars, long_side=long_side, description=f"{which}, {image}."
    )


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """DatasetBuilder for SA-1B; `sa1b_tfds` registers it under the official name."""

    name = "segment_anything"
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar = {
        "2.0.0": "Read from tars without extraction; masks as RLE that decode when read; columns.",
    }
    BUILDER_CONFIGS: ClassVar = [
        _config("original", None, None),
        _config("original_1pct", range(10), None),
        _config("original_10pct", range(100), None),
        _config("resized_1024", None, 1024),
        _config("resized_1024_1pct", range(10), 1024),
        _config("resized_1024_10pct", range(100), 1024),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"""
    SA-1B is for those who accepted its license:
    1. Open {LINKS_PAGE}, accept the license,
       and save the list of links that you get.
    2. Download some or all of its tars (sa_000000.tar to sa_000999.tar, about 10.5 GB each):
         sa1b download --links-file segment_anything_links.txt --output-dir DIR --start 0 --end 1
    3. Pass the folder as manual_dir:
         tfds build segment_anything/original --imports sa1b_tfds --manual_dir DIR
       If it holds the links file as well, named segment_anything_links.txt, this downloads what
       the config lacks.
       One tar is enough to begin with. Folders of extracted files do as well.
    """

    def __init__(self, *, on_error: OnError = "raise", **kwargs: Any):
        """Constructs the builder.

        Args:
          on_error: 'raise' stops at the first image that cannot become an example, with an error
            that names its tar, member and reason; 'skip' leaves such images out, counts them, and
            lists each in build_report.json beside the data.
          **kwargs: data_dir, config, version and file_format, as in TFDS.
        """
        super().__init__(**kwargs)
        self._original_state["on_error"] = on_error  # survives pickling
        self._problems = Problems(on_error)
        self._images_read: dict[str, int] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        """Returns the dataset's features and metadata."""
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        encoding_format="jpeg", doc="The photograph, RGB, 0 to 255."
                    ),
                    "masks": features.RleMasks(doc="Which pixels belong to mask i: 0 or 1."),
                    "image_id": tfds.features.Scalar(np.int64, doc="Unique in the dataset."),
                    "file_name": tfds.features.Text(doc="The image's name, as its JSON has it."),
                    "annotations": tfds.features.FeaturesDict(
                        {
                            "id": _column(np.int64, "Unique in the dataset."),
                            "area": _column(np.int64, "Pixels in the mask."),
                            "bbox": _column(np.float32, "The mask's box. " + _BOX, 4),
                            "crop_box": _column(
                                np.float32,
                                "The crop of the image in which the mask was found. " + _BOX,
                                4,
                            ),
                            "predicted_iou": _column(
                                np.float32, "The model's own estimate of the mask's quality."
                            ),
                            "stability_score": _column(
                                np.float32, "IoU of the mask at a stricter and a laxer threshold."
                            ),
                            "point_coords": _column(
                                np.float32,
                                "The point that prompted the mask: (x, y) in pixels of the mask.",
                                2,
                            ),
                        }
                    ),
                }
            ),
            supervised_keys=("image", "masks"),
            homepage=HOMEPAGE,
            license=f"SA-1B Dataset Research License, see {HOMEPAGE}",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, Example]]]:
        """Finds the config's tars in manual_dir; everything is in the split train."""
        archives = self._archives(dl_manager.manual_dir)
        return {"train": self._generate_examples(archives)}

    def _generate_examples(
        self, archives: Sequence[archive.Archive]
    ) -> Iterator[tuple[int, Example]]:
        """Yields (image id, example) of every image; the problems go where on_error says."""
        ids = ImageIds()
        for source in archives:
            self._images_read[source.name] = 0
            for pair in source.pairs(self._problems):
                try:
                    example = to_example(pair.jpeg, pair.json, self.builder_config.long_side)
                except ValueError as e:
                    self._problems.report(source.name, pair.json_name, str(e))
                    continue
                if earlier := ids.add(example["image_id"], source.name):
                    reason = f"image id {example['image_id']} was in {earlier} before"
                    self._problems.report(source.name, pair.json_name, reason)
                    continue
                self._images_read[source.name] += 1
                yield example["image_id"], example
        if self._problems.found and not any(self._images_read.values()):
            first, n = self._problems.found[0], len(self._problems.found)
            reason = f"{first.reason}. With this, {n} problem(s) in all, no image is left"
            raise BadInput(first.archive, first.member, reason)

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As in TFDS; and says in the end how many images were read and what was left out."""
        self._problems = Problems(self._problems.on_error)
        self._images_read = {}
        try:
            super().download_and_prepare(**kwargs)
        except BadInput as e:
            raise BadInput(e.archive, e.member, f"{e.reason}. {_HOW_TO_SKIP}") from e
        if self._images_read:
            skipped = len(self._problems.found)
            logging.log(
                logging.WARNING if skipped else logging.INFO,
                "Images: %d, archives: %d, skipped: %d; see %s",
                sum(self._images_read.values()),
                len(self._images_read),
                skipped,
                self.data_path / REPORT,
            )

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        report = {
            "config": self.builder_config.name,
            "version": str(self.version),
            "on_error": self._problems.on_error,
            "images": self._images_read,
            "skipped": [
                {"archive": p.archive, "member": p.member, "reason": p.reason}
                for p in self._problems.found
            ],
        }
        (self.data_path / REPORT).write_text(json.dumps(report, indent=2) + "\n")

    def _archives(self, folder: epath.Path) -> list[archive.Archive]:
        """The config's tars: those that are there, and with a links file also those that lack."""
        found = archive.find_archives(folder)
        lacking = self._lacking(folder, {archive.number_of(a) for a in found})
        if lacking and (find_links_file(folder) or not self._chosen(found)):
            ensure_tars(None, folder, lacking)
            found = archive.find_archives(folder)
        elif lacking:
            logging.warning(
                "%d of the %d tars of %r are not in %s and left out: %s",
                len(lacking),
                len(self.builder_config.tars),
                self.builder_config.name,
                folder,
                ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else ""),
            )
        elif not found:
            ensure_tars(None, folder, None)  # says what to put where
        return self._chosen(found)

    def _lacking(self, folder: epath.Path, there: set[int | None]) -> list[str]:
        """Names of the config's tars that are not there; of all listed if it asks for all."""
        tars = self.builder_config.tars
        if tars is None:
            links = find_links_file(folder)
            names = list(read_links(links).tars) if links else []
        else:
            names = [tar_name(number) for number in tars]
        return sorted(name for name in names if tar_number(name) not in there)

    def _chosen(self, found: list[archive.Archive]) -> list[archive.Archive]:
        tars = self.builder_config.tars
        return [a for a in found if tars is None or archive.number_of(a) in tars]


def _column(dtype: type, doc: str, *shape: int) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=(None, *shape), dtype=dtype, doc=doc)
