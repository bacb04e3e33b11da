"""SwAV's training step, after the behaviour of facebookresearch/swav 06b1b7c (main_swav.py, src/resnet50.py) with the
numbers of its scripts/swav_200ep_bs256_pretrain.sh, and of apex's LARC; written anew, no line is copied."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pass_loader import recipes

from .method import LENGTH, Method, Schedule
from .networks import ResNet, Sizes, over_sizes

_HEAD = 256, 64  # numbers that leave its layers
_PROTOTYPES, _QUEUE = 96, 64
_QUEUED_FROM = _LEARNT_FROM = 1  # the epoch, from 0


class Swav(Method):
    """Network, prototypes, and the queue of features that codes are computed with, not from the first epoch on."""

    recipe = recipes.swav()

    @staticmethod
    def smaller(sizes: Sizes) -> list[tuple[str, str]]:
        hidden, features = _HEAD
        return [
            ("`scripts/swav_200ep_bs256_pretrain.sh`: 200 epochs; batches of 256", LENGTH),
            ("ResNet-50", sizes.residual),
            ("head: 2,048, 128 numbers; 3,000 prototypes", f"{hidden:,}, {features:,}; {_PROTOTYPES:,}"),
            ("a queue of 3,840, from epoch 15 on, counted from 0", f"{_QUEUE:,}, from epoch {_QUEUED_FROM} on"),
            (
                "prototypes learn from step 5,005 on; an epoch of ImageNet has 5,004",
                f"from epoch {_LEARNT_FROM} on",
            ),
        ]

    def __init__(self, schedule: Schedule, sizes: Sizes):
        super().__init__(schedule, sizes)
        backbone = ResNet(sizes)
        hidden, features = _HEAD
        head = [nn.Linear(backbone.dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, features)]
        self.network = nn.Sequential(backbone, nn.Sequential(*head))
        self.prototypes = nn.Linear(features, _PROTOTYPES, bias=False)
        self.register_buffer("queue", torch.zeros(2, _QUEUE, features))
        self.steps_per_epoch = schedule.steps_per_epoch
        self.rates = schedule.cosine(0.6, 0.0006)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=0.6, momentum=0.9)
        self.decay = 1e-6

    def train_step(self, batch: Any, step: int) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[step]
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        embedding = F.normalize(self.network[1](over_sizes(self.network[0], batch)), dim=1)
        output = self.prototypes(embedding)
        loss = self._loss(embedding.detach(), output, len(batch[0]), step >= _QUEUED_FROM * self.steps_per_epoch)
        self.optimizer.zero_grad()
        loss.backward()
        if step < _LEARNT_FROM * self.steps_per_epoch:
            self.prototypes.weight.grad = None
        self._scale_gradients()
        self.optimizer.step()
        return loss.detach()

    def _loss(self, embedding: torch.Tensor, output: torch.Tensor, count: int, queued: bool) -> torch.Tensor:
        """Return the mean cross entropy between each global view's codes and the predictions of all other views."""
        predictions = (output / 0.1).log_softmax(1).split(count)
        total = torch.zeros(())
        for view in range(2):
            with torch.no_grad():
                scores = output[view * count : (view + 1) * count].detach()
                if queued:
                    if self.queue[view, -1].any():
                        scores = torch.cat([self.queue[view] @ self.prototypes.weight.t(), scores])
                    self.queue[view, count:] = self.queue[view, :-count].clone()
                    self.queue[view, :count] = embedding[view * count : (view + 1) * count]
                codes = _sinkhorn(scores)[-count:]
            terms = [(codes * p).sum(1).mean() for other, p in enumerate(predictions) if other != view]
            total = total - torch.stack(terms).sum() / len(terms)
        return total / 2

    @torch.no_grad()
    def _scale_gradients(self) -> None:
        """LARC: each weight's step is in proportion to its norm; weight decay is a part of the gradient."""
        for weight in self.parameters():
            if weight.grad is None:
                continue
            norm, slope = weight.norm(), weight.grad.norm()
            if norm > 0 and slope > 0:
                rate = 0.001 * norm / (slope + norm * self.decay + 1e-8)
                weight.grad.add_(weight, alpha=self.decay).mul_(rate)


def _sinkhorn(scores: torch.Tensor) -> torch.Tensor:
    """Return codes (N, prototypes), rows of sum 1, that use all prototypes alike: three rounds of Sinkhorn-Knopp."""
    codes = torch.exp(scores / 0.05).t()
    codes /= codes.sum()
    prototypes, samples = codes.shape
    for _ in range(3):
        codes /= codes.sum(1, keepdim=True) * prototypes
        codes /= codes.sum(0, keepdim=True) * samples
    return (codes * samples).t()
