"""A linear classifier on frozen features, as DINO trains it (Caron et al., ICCV 2021):

    python examples/linear_probe.py imagenet-train imagenet-val --backbone torchvision.models:resnet50 \\
        --weights moco.pth --epochs 100

Random crops and flips for training, the centre for validation; SGD without weight decay, a cosine schedule.
With --checkpoint it goes on after the last whole epoch when it is run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from command_line import above_zero, at_least
from features import add_arguments, backbone_of, loader_of
from torch import nn

import pass_loader
from pass_loader import recipes


def train(model: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer, loader: pass_loader.DataLoader,
          device: str) -> float:  # fmt: skip
    """Train for one epoch; return the mean loss."""
    losses = []
    for pictures, labels, _ in loader:
        with torch.no_grad():
            features = model(pictures.to(device, non_blocking=True)).flatten(1)
        loss = nn.functional.cross_entropy(head(features), labels.to(device, non_blocking=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: nn.Module, head: nn.Module, loader: pass_loader.DataLoader, device: str) -> float:
    """Return the share of pictures that are classified rightly, each counted once."""
    correct = total = 0
    for pictures, labels, info in loader:
        once = info["valid"] & ~info["padding"] & (labels >= 0)
        found = head(model(pictures.to(device, non_blocking=True)).flatten(1)).argmax(1).cpu()
        correct += int((found == labels)[once].sum())
        total += int(once.sum())
    return correct / total


def main() -> None:
    parser = argparse.ArgumentParser(description="A linear classifier on frozen features.")
    add_arguments(parser)
    parser.add_argument("--epochs", type=at_least(1), default=100, help="(%(default)s)")
    parser.add_argument("--lr", type=above_zero, default=0.001, help="at a batch of 256 (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="written after each epoch")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = backbone_of(options)
    trained = loader_of(options.train, recipes.linear_probe(size=options.size), options, shuffle=True)
    centre = recipes.evaluate(resize=options.size * 256 // 224, size=options.size, interpolation="bicubic")
    classes = trained.dataset.class_to_idx
    validated = loader_of(options.val, centre, options, classes)
    with torch.no_grad():
        width = model(torch.zeros(1, 3, options.size, options.size, device=options.device)).flatten(1).shape[1]
    head = nn.Linear(width, len(classes)).to(options.device)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    rate = options.lr * options.batch_size / 256
    optimizer = torch.optim.SGD(head.parameters(), rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    parts = {"head": head, "optimizer": optimizer, "scheduler": scheduler, "loader": trained}
    begin = 0
    if options.checkpoint is not None and options.checkpoint.exists():
        saved = torch.load(options.checkpoint, map_location=options.device, weights_only=True)
        begin = saved.pop("epochs")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
    for epoch in range(begin, options.epochs):
        trained.sampler.set_epoch(epoch)
        loss = train(model, head, optimizer, trained, options.device)
        scheduler.step()
        found = accuracy(model, head, validated, options.device)
        print(f"epoch {epoch}: loss {loss:.3f}, {found:.2%} of the validation pictures")
        if options.checkpoint is not None:
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"epochs": epoch + 1},
                       options.checkpoint)  # fmt: skip


if __name__ == "__main__":
    main()
