"""Masks as COCO RLE: NumPy in the plain modules, TensorFlow graph ops in those named `tf_*`.

`runs` reads and checks an RLE string; all others start from what it returns. Importing a plain
module loads no TensorFlow.
"""
