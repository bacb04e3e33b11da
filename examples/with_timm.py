"""timm: `python examples/with_timm.py PACK`. Its model, optimiser, transform and loss, and this loader.

The recipe is made of what `create_transform` returns, RandAugment and erasing among it. Mixup is the loader's `mix`,
with timm's arguments and arithmetic, in place of timm's own Mixup. The loop is written out; timm's train.py, which is
not in its package, is run by with_timm_script.py.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from command_line import arguments
from timm.data import create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from torch import nn

import pass_loader
from pass_loader import recipes


def make(pack: str, transform: Any, batch_size: int = 4, **options: Any) -> pass_loader.DataLoader[Any]:
    """Return a loader of (pictures, soft labels) in place of timm's create_loader with a Mixup."""
    dataset = pass_loader.ShardDataset(pack, pass_loader.Recipe.from_timm(transform), seed=0)
    if not dataset.classes:
        raise SystemExit(f"error: the pictures of {pack} have no classes: pack a folder of class folders")
    mix = recipes.Mix(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=len(dataset.classes))
    return pass_loader.DataLoader(dataset, batch_size, shuffle=True, drop_last=True, mix=mix, **options)


def train(loader: pass_loader.DataLoader[Any], model: nn.Module) -> list[float]:
    """Train for an epoch; return the losses."""
    loss_of, optimizer = SoftTargetCrossEntropy(), create_optimizer_v2(model, "adamw", lr=1e-3)
    losses = []
    for pictures, targets in loader:
        loss = loss_of(model(pictures), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main() -> None:
    (pack,) = arguments(__doc__)
    transform = create_transform(64, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25)
    loader = make(pack, transform, num_workers=2)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=len(loader.dataset.classes))
    torch.manual_seed(0)
    print("losses", *train(loader, model))


if __name__ == "__main__":
    main()
