"""Trains keras-hub's SAM by `model.fit` on the training pipeline.

python examples/finetune_keras_sam.py                      # a tiny random SAM on the dummy data
python examples/finetune_keras_sam.py --preset sam_base_sa1b --data-dir DATA --steps 1000
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import keras_hub
import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds.keras import SAMTrainer

DUMMY_DATA = pathlib.Path(__file__).parents[1] / "dummy_data"


def tiny_sam(side: int = 128) -> keras_hub.models.SAMImageSegmenter:
    """SAM with 70,000 random weights for images of `side` pixels."""
    grid, width = side // 16, 32
    return keras_hub.models.SAMImageSegmenter(
        keras_hub.models.SAMBackbone(
            image_encoder=keras_hub.models.ViTDetBackbone(
                hidden_size=width,
                num_layers=1,
                intermediate_dim=2 * width,
                num_heads=2,
                global_attention_layer_indices=[0],
                num_output_channels=width,
                image_shape=(side, side, 3),
            ),
            prompt_encoder=keras_hub.layers.SAMPromptEncoder(
                hidden_size=width,
                image_embedding_size=(grid, grid),
                input_image_size=(side, side),
                mask_in_channels=4,
            ),
            mask_decoder=keras_hub.layers.SAMMaskDecoder(
                hidden_size=width,
                num_layers=1,
                intermediate_dim=2 * width,
                num_heads=2,
                embedding_dim=width,
                iou_head_depth=2,
                iou_head_hidden_dim=width,
            ),
        )
    )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", help="of keras-hub, such as sam_base_sa1b, or a folder of one")
    parser.add_argument("--source", default="segment_anything/original", help="what to train on")
    parser.add_argument("--data-dir", help="of TFDS; default: the dummy data is prepared")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--steps-per-execution", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--masks-per-image", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, help="default: 1e-5, without preset 5e-3")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> keras.callbacks.History:
    args = arguments(argv)
    keras.utils.set_random_seed(0)
    preset = args.preset
    sam = keras_hub.models.SAMImageSegmenter.from_preset(preset) if preset else tiny_sam()
    side = sam.backbone.image_encoder.image_shape[0]
    config = sa1b_tfds.TrainingConfig(
        layout="keras_hub",
        image_size=side,
        mask_size=side // 4,
        batch_size=args.batch_size,
        masks_per_image=args.masks_per_image,
        repeat=True,
        mask_choice="random" if args.data_dir else "largest",
    )
    with tempfile.TemporaryDirectory() as scratch:
        if not args.data_dir:
            download = tfds.download.DownloadConfig(manual_dir=DUMMY_DATA)
            builder = tfds.builder(args.source, data_dir=scratch, num_workers=1)
            builder.download_and_prepare(download_config=download)
        data_dir = args.data_dir or scratch
        dataset = sa1b_tfds.training_dataset(args.source, config, data_dir=data_dir)

        model = SAMTrainer(sam)
        rate = args.learning_rate or (1e-5 if preset else 5e-3)
        model.compile(
            optimizer=keras.optimizers.AdamW(rate, weight_decay=0.1 * rate, clipnorm=1.0),
            steps_per_execution=args.steps_per_execution,
        )
        # An epoch of SA-1B takes days: what is reported is every tenth of the steps.
        steps = max(1, args.steps // 10)
        return model.fit(dataset, epochs=args.steps // steps, steps_per_epoch=steps)


if __name__ == "__main__":
    main()
