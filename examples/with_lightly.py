"""lightly: `python examples/with_lightly.py PACK`. SimCLR with lightly's transform, head and loss, and this loader.

The recipe is made of lightly's own transform, so that the views are its views. Batches are lightly's: views, labels and
names of files, which are the ids here.
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

import pass_loader


class Batches:
    """A loader in place of the one around a LightlyDataset."""

    def __init__(self, pack: str, transform: Any, batch_size: int = 4, **options: Any):
        dataset = pass_loader.ShardDataset(pack, pass_loader.Recipe.from_torchvision(transform), seed=0)
        self.loader: pass_loader.DataLoader[Any] = pass_loader.DataLoader(
            dataset, batch_size, shuffle=True, drop_last=True, return_info=True, **options
        )

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[list[torch.Tensor], torch.Tensor, list[str]]]:
        for views, labels, info in self.loader:
            yield views, labels, info["ids"]


class SimCLR(nn.Module):
    """A small network and lightly's head."""

    def __init__(self, dim: int = 64):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, dim, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = SimCLRProjectionHead(dim, dim, 32)

    def forward(self, view: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(view))


def train(batches: Batches, model: nn.Module) -> list[float]:
    """Train for an epoch; return the losses."""
    loss_of, optimizer = NTXentLoss(), torch.optim.SGD(model.parameters(), 0.06)
    losses = []
    for (first, second), _, _ in batches:
        loss = loss_of(model(first), model(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    (pack,) = arguments(__doc__)
    batches = Batches(pack, SimCLRTransform(input_size=64), num_workers=2)
    print("losses", *train(batches, SimCLR()))


if __name__ == "__main__":
    main()
