"""The training input path: prepared data or tars -> batches of images, prompts and masks."""
