"""Fine-tunes transformers' SamModel on SA-1B, read from tars: no preparation, no SamProcessor.

    python examples/finetune_hf_sam.py                                # the dummy data, a tiny model
    python examples/finetune_hf_sam.py TARS --model facebook/sam-vit-base --steps 1000

The loss is SAM's: 20 focal + dice on the masks and MSE on the predicted IoU, of the best of the
three masks that the model gives for each prompt. Only prompts encoder and mask decoder are trained
with `--model`, as most fine-tuning of SAM does; the tiny model has random weights and trains all.
"""

from __future__ import annotations

import argparse
import pathlib

import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import SamConfig, SamModel

from sa1b_tfds.torch import SA1BDataset, TransformersCollate

ROOT = pathlib.Path(__file__).parents[1]


def tiny_model() -> SamModel:
    """SAM of random weights, for images of 128 x 128 and masks of 32 x 32."""
    sizes = {"image_size": 128, "patch_size": 16}
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"output_channels": 32, "num_pos_feats": 16, "window_size": 0}
    return SamModel(
        SamConfig(
            vision_config={**vision, **sizes, "global_attn_indexes": [0, 1]},
            prompt_encoder_config={"hidden_size": 32, **sizes, "mask_input_channels": 4},
            mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2},
        )
    )


def loss_of(outputs, masks: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """SAM's loss over the masks that are no padding.

    Args:
      outputs: of SamModel: pred_masks [B, N, 3, h, w] logits, iou_scores [B, N, 3].
      masks: bool [B, N, h, w].
      valid: bool [B, N].
    """
    logits, scores = outputs.pred_masks[valid], outputs.iou_scores[valid]
    target = masks[valid][:, None].expand_as(logits).float()
    probability = logits.sigmoid()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = probability * target + (1 - probability) * (1 - target)
    weight = 0.25 * target + 0.75 * (1 - target)
    focal = (weight * (1 - right) ** 2 * cross_entropy).mean(dim=(2, 3))
    overlap = (probability * target).sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum(dim=(2, 3)) + target.sum(dim=(2, 3)) + 1)
    inside = logits > 0
    union = (inside | (target > 0)).sum(dim=(2, 3))
    iou = (inside & (target > 0)).sum(dim=(2, 3)) / union.clamp(min=1)
    best, index = (20 * focal + dice).min(dim=1)
    error = (scores - iou).square().gather(1, index[:, None])[:, 0]
    return (best + error).mean()


def train(
    model: SamModel, loader: DataLoader, steps: int, learning_rate: float, device: str
) -> list[float]:
    """The loss of each step."""
    model.to(device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, learning_rate)
    losses: list[float] = []
    while len(losses) < steps:
        for batch in loader:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            masks, valid = batch.pop("masks"), batch.pop("mask_valid")
            if not valid.any():
                continue
            loss = loss_of(model(**batch, multimask_output=True), masks, valid)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) % max(1, steps // 10) == 0:
                print(f"step {len(losses)}: loss {losses[-1]:.3f}")
            if len(losses) == steps:
                break
    return losses


def main(arguments: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root_dir", nargs="?", default=ROOT / "dummy_data")
    parser.add_argument("--model", help="a pretrained SamModel; default: a tiny random one")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--masks", type=int, default=8, help="an image (%(default)s)")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    if options.model:
        model = SamModel.from_pretrained(options.model)
        model.vision_encoder.requires_grad_(False)
    else:
        model = tiny_model()
    image_size = model.config.vision_config.image_size
    mask_size = image_size // 4
    dataset = SA1BDataset(
        options.root_dir,
        mask_size=mask_size,
        keep_aspect=True,
        max_masks=options.masks,
        mask_choice="random",
        max_area_fraction=0.9,
    )
    collate = TransformersCollate(
        masks_per_image=options.masks, image_size=image_size, mask_size=mask_size
    )
    loader = DataLoader(
        dataset,
        options.batch_size,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        collate_fn=collate,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    learning_rate = options.learning_rate or (1e-5 if options.model else 2e-3)
    losses = train(model, loader, options.steps, learning_rate, device)
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    print(f"loss: {first:.3f} at first, {last:.3f} at last")
    return losses


if __name__ == "__main__":
    main()
