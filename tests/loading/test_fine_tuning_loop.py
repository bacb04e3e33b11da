"""MAE's fine-tuning by a loop of the official script's behaviour, on our loader, its mix and evaluation.

facebookresearch/mae efb2a80, main_finetune.py:166-330, engine_finetune.py:25-129, util/lr_sched.py: the loop is written
anew after what it does. Of the model only what the loop asks for is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.pack import build

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree

CLASSES, SIZE, COUNT, BATCH = 3, 32, 42, 4


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures whose class is their colour, for training and for validation."""
    place = tmp_path_factory.mktemp("finetune")
    for name, count in (("train", COUNT), ("val", 13)):
        files = {}
        for number in range(count):
            pixels = noise(40, 50, number) // 3
            pixels[:, :, number % CLASSES] += 150
            files[f"c{number % CLASSES}/{name}{number}.jpg"] = jpeg(pixels)
        build([write_tree(place / f"in-{name}", files)], place / name, workers=1)
    return place / "train", place / "val"


class SoftTargets(nn.Module):
    """timm's SoftTargetCrossEntropy."""

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return -(targets * outputs.log_softmax(-1)).sum(-1).mean()


def rate_of(progress: float, epochs: int) -> float:
    """A warm-up of one epoch, then half a cosine, by fractions of epochs."""
    return 0.05 * (progress if progress < 1 else 0.5 * (1 + math.cos(math.pi * (progress - 1) / (epochs - 1))))


def train_one_epoch(
    model: nn.Module, criterion: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, epoch: int,
    epochs: int, accumulate: int = 2,
) -> list[float]:  # fmt: skip
    model.train(True)
    optimizer.zero_grad()
    losses = []
    for step, (samples, targets) in enumerate(loader):
        if step % accumulate == 0:
            for group in optimizer.param_groups:
                group["lr"] = rate_of(step / len(loader) + epoch, epochs)
        samples = samples.to("cpu", non_blocking=True)
        targets = targets.to("cpu", non_blocking=True)
        assert targets.shape == (len(samples), CLASSES) and torch.allclose(targets.sum(1), torch.ones(len(samples)))
        loss = criterion(model(samples), targets)
        assert math.isfinite(loss.item())
        (loss / accumulate).backward()
        if (step + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def evaluated(model: nn.Module, loader: Iterable, counted: set[int]) -> int:
    """Return how many are right. The official loop counts a rank's padding twice, and says so."""
    model.eval()
    correct = 0
    for batch in loader:
        images, target, info = batch[0], batch[1], batch[2]
        once = info["valid"] & ~info["padding"]
        correct += int((model(images).argmax(1) == target)[once].sum())
        records = info["records"][once].tolist()
        assert not counted & {*records}
        counted |= {*records}
    return correct


@pytest.mark.slow
def test_an_epoch_of_fine_tuning(packs: tuple[Path, Path]) -> None:
    """It learns from mixed pictures, in the middle of an epoch a state goes on with the same batches, and all ranks
    together count each validation picture once."""
    torch.manual_seed(0)
    mix = recipes.Mix(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=CLASSES)
    train = ShardDataset(packs[0], recipes.mae_finetune(size=SIZE))
    classes = train.class_to_idx

    def loader_of() -> DataLoader:
        return DataLoader(train, BATCH, shuffle=True, num_workers=2, drop_last=True, mix=mix, rank=0, world_size=1)

    loader = loader_of()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, CLASSES))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    epochs, means = 5, []
    assert len(loader) == COUNT // BATCH
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        losses = train_one_epoch(model, SoftTargets(), loader, optimizer, epoch, epochs)
        assert len(losses) == len(loader)
        means.append(sum(losses) / len(losses))
    assert means[-1] < means[0]

    running = iter(loader)
    next(running), next(running)
    resumed = loader_of()
    resumed.load_state_dict(loader.state_dict())
    for batch, again in zip(running, resumed, strict=True):
        assert all(map(torch.equal, batch, again))

    counted: set[int] = set()
    recipe = recipes.evaluate(resize=SIZE * 256 // 224, size=SIZE, interpolation="bicubic")
    val = ShardDataset(packs[1], recipe, labels=classes)
    correct = 0
    for rank in range(4):
        ranks = DataLoader(val, BATCH, shuffle=True, rank=rank, world_size=4, return_info=True)
        correct += evaluated(model, ranks, counted)
    assert counted == {*range(13)} and correct >= 12
