"""The training pipeline: prepared data or tars -> batches of images, prompts and masks."""
