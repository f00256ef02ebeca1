"""Exports SA-1B to other formats: COCO, YOLO, WebDataset, or a subset in tars of its own form.

`export` does what an `ExportConfig` says, with one of the formats here.
"""

from sa1b_tfds.export.coco import Coco
from sa1b_tfds.export.run import ExportConfig, Exported, export
from sa1b_tfds.export.tars import SA1BTars, WebDataset
from sa1b_tfds.export.yolo import Yolo

__all__ = ["Coco", "ExportConfig", "Exported", "SA1BTars", "WebDataset", "Yolo", "export"]
