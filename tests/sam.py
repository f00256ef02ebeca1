"""Tiny randomly initialised SAMs, and data for them."""

from __future__ import annotations

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
