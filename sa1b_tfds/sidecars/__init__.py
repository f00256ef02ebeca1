"""Sidecars: more columns for the same images, made later, beside the data and not in it.

columns.py    what a sidecar's columns may be, and a row of them as a record
source.py     what a sidecar is made of: tars, or prepared data, tar by tar
writing.py    the rows of one tar -> its shards, all of them or none; and which tars are left
batches.py    a user's function over batches of images -> rows
joining.py    the staged tars -> a TFDS dataset
row_index.py  where the row of each image is
reading.py    a sidecar as readers are given it: its columns, and the values of any image
alignment.py  which rows belong to which shard of the data, in its order
tf_rows.py    the same as tf.data streams, and a row as tensors
loading.py    prepared data and sidecars as elements of `tfds.load`
data_source.py  the same as a data source, without TensorFlow
importing.py  rows from files: CSV, JSON lines, Parquet, or a folder of arrays
sorting.py    keys and values in order, on the disk, in bounded memory

A sidecar is a folder as TFDS has it, `NAME/1.0.0/`. A record has `image_id`, `mask_count` and the
user's columns. Each tar of the data has shards of its own, with its images in the order in which
`building/shard_order.py` puts them, so that a sidecar is read in step with the data.
"""
