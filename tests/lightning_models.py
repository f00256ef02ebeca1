"""Models for Lightning that note what they see, and its trainer."""

import lightning
import torch


class Tiny(lightning.LightningModule):
    """Predicts masks from pixels by two convolutions."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1)
        )
        self.seen = {"train": [], "val": []}
        self.losses = []

    def loss(self, batch, stage):
        self.seen[stage] += [tuple(masks.sum(dim=(1, 2)).tolist()) for masks in batch["masks"]]
        logits = self.layers(batch["pixel_values"])
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["masks"].float())

    def training_step(self, batch, _):
        loss = self.loss(batch, "train")
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, _):
        self.log("val_loss", self.loss(batch, "val"))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.03)


class Seen(lightning.LightningModule):
    """Notes the images of each step and validation, and trains nothing."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.automatic_optimization = False
        self.seen, self.validated, self.stop_after = [], 0, stop_after

    def training_step(self, batch, _):
        self.seen.append([m["image_id"] for m in batch[2]])

    def on_train_batch_end(self, *_):
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/saved.ckpt")
            raise KeyError("as if it were killed")

    def validation_step(self, batch, _):
        self.validated += 1

    def configure_optimizers(self):
        return None


def trainer_of(folder, **options):
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )
