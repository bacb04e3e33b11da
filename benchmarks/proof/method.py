"""What the four methods share: a model with its optimiser, one step of training, and all of its state."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pass_loader.recipes import Recipe

from .networks import SIZES, Sizes

BATCH_SIZE = 8
LENGTH = f"as many epochs as the steps take, at least 2; batches of {BATCH_SIZE}"  # of a run, in words


@dataclass(frozen=True)
class Schedule:
    """How long a run is."""

    batch_size: int
    steps_per_epoch: int
    epochs: int

    def cosine(self, base: float, last: float, warm_up_epochs: int = 0, first: float = 0.0) -> list[float]:
        """Return a value for each step: a linear warm-up from `first` to `base`, then half a cosine to `last`."""
        warm = warm_up_epochs * self.steps_per_epoch
        rest = self.epochs * self.steps_per_epoch - warm
        rising = [first + (base - first) * step / max(warm - 1, 1) for step in range(warm)]
        return rising + [last + 0.5 * (base - last) * (1 + math.cos(math.pi * i / rest)) for i in range(rest)]


class Method(nn.Module, ABC):
    """A method of pretraining. Everything that training changes is a parameter, a buffer, or in the optimiser."""

    recipe: Recipe
    optimizer: torch.optim.Optimizer

    @classmethod
    def weights(cls, networks: str) -> int:
        """Return how many numbers are trained in networks of a size, those of a teacher left out."""
        made = cls(Schedule(1, 2, 2), SIZES[networks])
        return sum(weight.numel() for weight in made.parameters() if weight.requires_grad)

    @staticmethod
    @abstractmethod
    def smaller(sizes: Sizes) -> list[tuple[str, str]]:
        """Return what differs from the official script, a pair of words each: what it has, and what is here. The first
        pair names the script."""

    @abstractmethod
    def __init__(self, schedule: Schedule, sizes: Sizes):
        super().__init__()

    @abstractmethod
    def train_step(self, batch: Any, step: int) -> torch.Tensor:
        """Train on the batch of a step, counted from the run's first, and return the loss."""

    def everything(self) -> dict[str, Any]:
        """Return all state of the training, as a checkpoint holds it."""
        return {
            "model": self.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from what `everything` returned."""
        self.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["random"])

    def digest(self) -> str:
        """Return the SHA-256 of all weights, buffers and the optimiser's tensors."""
        digest = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        for number, state in sorted(self.optimizer.state_dict()["state"].items()):
            for name, value in sorted(state.items()):
                if isinstance(value, torch.Tensor):
                    digest.update(f"{number} {name}".encode() + value.numpy().tobytes())
        return digest.hexdigest()


def copied(source: nn.Module, target: nn.Module) -> None:
    """Give a teacher the weights of its student, and take it out of the training."""
    target.load_state_dict(source.state_dict())
    for weight in target.parameters():
        weight.requires_grad = False


@torch.no_grad()
def follow(source: nn.Module, target: nn.Module, momentum: float) -> None:
    """Move the weights of `target` towards those of `source`."""
    for new, old in zip(source.parameters(), target.parameters()):
        old.mul_(momentum).add_(new.detach(), alpha=1 - momentum)
