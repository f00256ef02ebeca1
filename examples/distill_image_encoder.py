"""Distils SAM's image encoder: a teacher's embeddings as a sidecar, a student trained on them.

python examples/distill_image_encoder.py                   # a tiny random teacher of keras-hub
python examples/distill_image_encoder.py --teacher transformers
python examples/distill_image_encoder.py --preset sam_base_sa1b --data-dir DATA --out teacher

The teacher runs once over the data. If it is interrupted, the same command continues.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow_datasets as tfds

import sa1b_tfds
from sa1b_tfds import sidecar

DUMMY_DATA = pathlib.Path(__file__).parents[1] / "dummy_data"
SIDE = 64


def keras_teacher(preset: str | None) -> tuple[Callable[[Any], Any], int]:
    """(batch -> embeddings [B, h, w, C], the side of its images), of keras-hub."""
    import keras_hub

    if preset:
        encoder = keras_hub.models.SAMImageSegmenter.from_preset(preset).backbone.image_encoder
    else:
        encoder = keras_hub.models.ViTDetBackbone(
            hidden_size=32,
            num_layers=1,
            intermediate_dim=64,
            num_heads=2,
            global_attention_layer_indices=[0],
            num_output_channels=16,
            image_shape=(SIDE, SIDE, 3),
        )
    return lambda batch: encoder.predict_on_batch(batch["images"]), encoder.image_shape[0]


def transformers_teacher() -> tuple[Callable[[Any], Any], int]:
    """The same of transformers."""
    import torch
    from transformers import SamVisionConfig, SamVisionModel

    torch.manual_seed(0)
    config = SamVisionConfig(
        image_size=SIDE,
        patch_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        mlp_dim=64,
        output_channels=16,
        global_attn_indexes=[0],
        window_size=2,
        initializer_range=0.02,  # the default makes all embeddings 0
    )
    model = SamVisionModel(config).eval()

    def embed(batch: Any) -> torch.Tensor:
        with torch.no_grad():
            pixels = torch.from_numpy(batch["pixel_values"].numpy())
            return model(pixels).last_hidden_state.permute(0, 2, 3, 1)

    return embed, SIDE


def student(side: int, shape: tuple[int, ...]) -> keras.Model:
    """Convolutions that halve the image until it has the size of the embeddings."""
    layers: list[Any] = [keras.Input((side, side, 3))]
    while side > shape[0]:
        layers.append(keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="gelu"))
        side //= 2
    return keras.Sequential([*layers, keras.layers.Conv2D(shape[-1], 1)])


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", choices=("keras", "transformers"), default="keras")
    parser.add_argument("--preset", help="of keras-hub, such as sam_base_sa1b")
    parser.add_argument("--source", default="segment_anything/original", help="what to train on")
    parser.add_argument("--data-dir", help="of TFDS; default: the dummy data is prepared")
    parser.add_argument("--out", help="folder of the sidecar; default: a temporary one")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=4)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> keras.callbacks.History:
    args = arguments(argv)
    keras.utils.set_random_seed(0)
    is_keras = args.teacher == "keras"
    embed, side = keras_teacher(args.preset) if is_keras else transformers_teacher()
    with tempfile.TemporaryDirectory() as scratch:
        data_dir, out = args.data_dir or scratch, args.out or f"{scratch}/teacher"
        builder = tfds.builder(args.source, data_dir=data_dir)
        if not args.data_dir:
            download = tfds.download.DownloadConfig(manual_dir=DUMMY_DATA)
            builder.download_and_prepare(download_config=download)

        # The teacher sees what the student will see: the same size, padding and normalisation.
        config = sa1b_tfds.TrainingConfig(
            image_size=side, masks_per_image=0, batch_size=args.batch_size
        )
        shape = (side // 16, side // 16, 16 if not args.preset else 256)
        sidecar.map(
            builder.data_path,
            embed,
            {"embedding": tfds.features.Tensor(shape=shape, dtype=np.float16)},
            out,
            batch_size=args.batch_size,
            prepare=sa1b_tfds.TrainingConfig(
                layout="keras_hub" if is_keras else "transformers",
                image_size=side,
                masks_per_image=0,
            ),
        )
        dataset = sa1b_tfds.training_dataset(builder, config, sidecars={"teacher": out})
        dataset = dataset.map(lambda batch: (batch["image"], batch["teacher"]))
        model = student(side, shape)
        model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss="mse")
        history = model.fit(dataset, epochs=args.epochs)
        print(f"trained on embeddings {shape} of {args.teacher}")
        return history


if __name__ == "__main__":
    main()
