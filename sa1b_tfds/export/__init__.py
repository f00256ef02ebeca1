"""SA-1B in other tools' formats: WebDataset, COCO, YOLO, or a subset in its own tars.

`export` writes what an `ExportConfig` says, in one of the formats here.
"""

from sa1b_tfds.export.coco import Coco
from sa1b_tfds.export.run import ExportConfig, Exported, export
from sa1b_tfds.export.tars import SA1BTars, WebDataset
from sa1b_tfds.export.yolo import Yolo

__all__ = ["Coco", "ExportConfig", "Exported", "SA1BTars", "WebDataset", "Yolo", "export"]
