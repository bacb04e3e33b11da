"""lightly: `python examples/with_lightly.py PACK`. SimCLR with lightly's transform, head and loss, and this loader.

lightly has modules and no trainer of its own for them: its pages train by Lightning's Trainer, as here, or by a plain
loop. The recipe is made of lightly's own transform, so that the views are its views. Batches are lightly's: views,
labels and names of files, which are the ids here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from command_line import arguments
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from torch import nn
from with_lightning import Batches, PassDataModule, pl

import pass_loader


class Named(Batches):
    """A loader in place of the one around a LightlyDataset."""

    def __iter__(self) -> Iterator[tuple[list[torch.Tensor], torch.Tensor, list[str]]]:
        for views, labels, info in self.loader:
            yield views, labels, info["ids"]


class LightlyDataModule(PassDataModule):
    """Training batches of lightly's transform. options: of pass_loader.DataLoader, batch_size among them."""

    batches = Named

    def __init__(self, pack: str, transform: Any, **options: Any):
        super().__init__(pack, pass_loader.Recipe.from_torchvision(transform), return_info=True, **options)


class SimCLR(pl.LightningModule):
    """A small network and lightly's head."""

    def __init__(self, dim: int = 64):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, dim, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = SimCLRProjectionHead(dim, dim, 32)
        self.criterion = NTXentLoss()

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(view))

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        (first, second), _, _ = batch
        return self.criterion(self(first), self(second))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.06)


def main() -> None:
    (pack,) = arguments(__doc__)
    data = LightlyDataModule(pack, SimCLRTransform(input_size=64), batch_size=4, num_workers=2)
    pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False).fit(SimCLR(), data)


if __name__ == "__main__":
    main()
