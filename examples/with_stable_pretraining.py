"""stable-pretraining: `python examples/with_stable_pretraining.py PACK FOLDER`. Its Manager and SimCLR, our batches.

`Manager` takes a LightningDataModule in place of its own, so nothing is replaced. Batches are as its MultiViewTransform
makes them. Its transforms are of dicts, by torchvision's v2; a recipe takes their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import stable_pretraining as spt
from command_line import arguments
from stable_pretraining.forward import simclr
from torch import nn
from with_lightning import Batches, PassDataModule

from pass_loader import recipes


class Views(Batches):
    """A loader as Module takes it: batches are {"views": [{"image": view, "label": labels}, ...]}."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for views, labels in self.loader:
            yield {"views": [{"image": view, "label": labels} for view in views]}


class ViewsModule(PassDataModule):
    """Training batches of a pack; arguments as of PassDataModule."""

    batches = Views


def module() -> spt.Module:
    """Return SimCLR of stable-pretraining on a small network."""
    return spt.Module(
        forward=simclr,
        backbone=nn.Sequential(nn.Conv2d(3, 32, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        projector=nn.Linear(32, 16),
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
        optim={"optimizer": {"type": "AdamW", "lr": 1e-3}},
    )


def train(pack: str, folder: str, model: pl.LightningModule, resume: str | None = None, **options: Any) -> None:
    """Train by a Manager, whose checkpoints and logs go into a folder. resume: one of these checkpoints, by which
    weights, optimiser and the loader's place come back. options: of a Trainer."""
    spt.set(cache_dir=folder)
    data = ViewsModule(pack, recipes.mocov2(), batch_size=4, num_workers=2)
    trainer = pl.Trainer(default_root_dir=folder, **options)
    spt.Manager(trainer=trainer, module=model, data=data, seed=0, ckpt_path=resume, weights_only=False)()


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    train(pack, folder, module(), max_epochs=1)


if __name__ == "__main__":
    main()
