"""Tiny randomly initialised SAMs, and data for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

SIDE = 64  # of the model image: 4 x 4 patches, masks of 16 x 16


def keras_sam(seed: int = 0) -> Any:
    """A keras_hub.models.SAMImageSegmenter of 40,000 weights."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(seed)
    grid = (SIDE // 16, SIDE // 16)
    return keras_hub.models.SAMImageSegmenter(
        keras_hub.models.SAMBackbone(
            image_encoder=keras_hub.models.ViTDetBackbone(
                hidden_size=16,
                num_layers=1,
                intermediate_dim=32,
                num_heads=2,
                global_attention_layer_indices=[0],
                patch_size=16,
                num_output_channels=16,
                window_size=2,
                image_shape=(SIDE, SIDE, 3),
            ),
            prompt_encoder=keras_hub.layers.SAMPromptEncoder(
                hidden_size=16,
                image_embedding_size=grid,
                input_image_size=(SIDE, SIDE),
                mask_in_channels=4,
            ),
            mask_decoder=keras_hub.layers.SAMMaskDecoder(
                hidden_size=16,
                num_layers=1,
                intermediate_dim=32,
                num_heads=2,
                embedding_dim=16,
                num_multimask_outputs=3,
                iou_head_depth=2,
                iou_head_hidden_dim=16,
            ),
        )
    )


@contextlib.contextmanager
def eager_steps() -> Iterator[None]:
    """Keras runs its steps op by op: for one step that is a fraction of what a graph costs."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def transformers_sam() -> Any:
    """A transformers.SamModel."""
    import torch
    import transformers

    torch.manual_seed(0)
    transformer = {"hidden_size": 16, "mlp_dim": 16}
    config = transformers.SamConfig(
        vision_config={
            **transformer,
            "output_channels": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "window_size": 2,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE, "mask_input_channels": 4},
        mask_decoder_config={**transformer, "num_hidden_layers": 1, "num_attention_heads": 2},
    )
    return transformers.SamModel(config).eval()


def transformers_sam2() -> Any:
    """A transformers.Sam2Model."""
    import torch
    import transformers

    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        image_size=[SIDE, SIDE],
        hidden_size=8,
        num_attention_heads=1,
        window_positional_embedding_background_size=[2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 24, 32],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
    )
    config = transformers.Sam2Config(
        vision_config=transformers.Sam2VisionConfig(
            backbone_config=backbone,
            backbone_channel_list=[32, 24, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=16,
        ),
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
    )
    return transformers.Sam2Model(config).eval()
