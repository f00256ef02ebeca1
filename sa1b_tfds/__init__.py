"""SA-1B (Segment Anything) for TensorFlow Datasets."""
