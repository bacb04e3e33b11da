"""MoCo-v2's training step, after the behaviour of facebookresearch/moco 7397dfe (main_moco.py, moco/builder.py) with
--mlp --moco-t 0.2 --aug-plus --cos; written anew, no line is copied."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pass_loader import recipes

from .method import LENGTH, Method, Schedule, copied, follow
from .networks import ResNet, Sizes

_FEATURES, _QUEUE = 64, 256


class Moco(Method):
    """The encoders of queries and of keys, and the queue of keys."""

    recipe = recipes.mocov2()

    @staticmethod
    def smaller(sizes: Sizes) -> list[tuple[str, str]]:
        return [
            ("`main_moco.py --mlp --moco-t 0.2 --aug-plus --cos`: 200 epochs; batches of 256", LENGTH),
            ("ResNet-50", sizes.residual),
            ("128 features, a queue of 65,536", f"{_FEATURES:,}, {_QUEUE:,}"),
        ]

    def __init__(self, schedule: Schedule, sizes: Sizes):
        super().__init__(schedule, sizes)
        self.query, self.key = self._network(sizes), self._network(sizes)
        copied(self.query, self.key)
        self.register_buffer("queue", F.normalize(torch.randn(_FEATURES, _QUEUE), dim=0))
        self.register_buffer("place", torch.zeros(1, dtype=torch.long))
        self.schedule, self.rate = schedule, 0.03
        self.optimizer = torch.optim.SGD(self.query.parameters(), self.rate, momentum=0.9, weight_decay=1e-4)

    @staticmethod
    def _network(sizes: Sizes) -> nn.Sequential:
        backbone = ResNet(sizes)
        return nn.Sequential(backbone, nn.Linear(backbone.dim, backbone.dim), nn.ReLU(),
                             nn.Linear(backbone.dim, _FEATURES))  # fmt: skip

    def train_step(self, batch: Any, step: int) -> torch.Tensor:
        (first, second), _ = batch
        epoch = step // self.schedule.steps_per_epoch
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * epoch / self.schedule.epochs))
        queries = F.normalize(self.query(first), dim=1)
        with torch.no_grad():
            follow(self.query, self.key, 0.999)
            order = torch.randperm(len(second))  # shuffled batch normalisation, here on one device
            keys = F.normalize(self.key(second[order]), dim=1)[torch.argsort(order)]
        right = (queries * keys).sum(1, keepdim=True)
        wrong = queries @ self.queue.clone()
        logits = torch.cat([right, wrong], 1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
        self._queue_up(keys)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _queue_up(self, keys: torch.Tensor) -> None:
        size = self.queue.shape[1]
        place = int(self.place)
        if size % len(keys):
            raise ValueError(f"the queue holds {size} keys, want a multiple of the batch's {len(keys)}")
        self.queue[:, place : place + len(keys)] = keys.t()
        self.place[0] = (place + len(keys)) % size
