"""DINO's training step, after the behaviour of facebookresearch/dino 7c446df (main_dino.py, vision_transformer.py,
utils.py); written anew, no line is copied."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pass_loader import recipes

from .method import LENGTH, Method, Schedule, copied, follow
from .networks import Sizes, Transformer, begin_linear, over_sizes

_HEAD = 512, 128, 1024  # numbers that leave its layers
_WARM_UP = 1  # epochs


class Head(nn.Module):
    """DINO's projection: an MLP, a unit vector, and a layer whose rows have norm 1."""

    def __init__(self, entering: int):
        super().__init__()
        hidden, bottleneck, leaving = _HEAD
        self.mlp = nn.Sequential(
            nn.Linear(entering, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        begin_linear(self.mlp)
        self.last_layer = nn.utils.parametrizations.weight_norm(nn.Linear(bottleneck, leaving, bias=False))
        norms = self.last_layer.parametrizations.weight.original0
        norms.data.fill_(1)
        norms.requires_grad = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class Dino(Method):
    """Student, teacher, and the centre of the teacher's outputs."""

    recipe = recipes.dino()

    @staticmethod
    def smaller(sizes: Sizes) -> list[tuple[str, str]]:
        hidden, bottleneck, leaving = _HEAD
        return [
            ("`main_dino.py`, its defaults: 100 epochs; batches of 64 a GPU", LENGTH),
            ("ViT-S/16: 384 wide, 6 heads, 12 blocks, patches of 16", sizes.transformer),
            ("head: 2,048, 256, 65,536 numbers", f"{hidden:,}, {bottleneck:,}, {leaving:,}"),
            ("epochs of warm-up: 10", f"{_WARM_UP}"),
        ]

    def __init__(self, schedule: Schedule, sizes: Sizes):
        super().__init__(schedule, sizes)
        self.student = self._network(Transformer(sizes, drop_path=0.1))
        self.teacher = self._network(Transformer(sizes))
        copied(self.student, self.teacher)
        self.register_buffer("centre", torch.zeros(1, _HEAD[-1]))
        self.steps_per_epoch = schedule.steps_per_epoch
        self.rates = schedule.cosine(0.0005 * schedule.batch_size / 256, 1e-6, warm_up_epochs=_WARM_UP)
        self.decays = schedule.cosine(0.04, 0.4)
        self.momenta = schedule.cosine(0.996, 1.0)
        trained = [weight for weight in self.student.parameters() if weight.requires_grad]
        groups = [[w for w in trained if w.ndim > 1], [w for w in trained if w.ndim == 1]]
        self.optimizer = torch.optim.AdamW([{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}])

    @staticmethod
    def _network(backbone: Transformer) -> nn.Sequential:
        return nn.Sequential(backbone, Head(backbone.dim))

    def train_step(self, batch: Any, step: int) -> torch.Tensor:
        views, _ = batch
        for number, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.rates[step]
            if number == 0:
                group["weight_decay"] = self.decays[step]
        with torch.no_grad():
            targets = self.teacher[1](over_sizes(self.teacher[0], views[:2]))
        outputs = self.student[1](over_sizes(self.student[0], views))
        loss = self._loss(outputs, targets, len(views))
        self.optimizer.zero_grad()
        loss.backward()
        self._limit_gradients(step // self.steps_per_epoch)
        self.optimizer.step()
        follow(self.student, self.teacher, self.momenta[step])
        return loss.detach()

    def _loss(self, outputs: torch.Tensor, targets: torch.Tensor, views: int) -> torch.Tensor:
        """Return the cross entropy between each global view of the teacher and every other view of the student."""
        students = (outputs / 0.1).log_softmax(-1).chunk(views)
        teachers = ((targets - self.centre) / 0.04).softmax(-1).chunk(2)
        terms = [-(t * s).sum(-1).mean() for i, t in enumerate(teachers) for j, s in enumerate(students) if i != j]
        with torch.no_grad():
            self.centre.mul_(0.9).add_(targets.mean(0, keepdim=True), alpha=0.1)
        return torch.stack(terms).sum() / len(terms)

    def _limit_gradients(self, epoch: int) -> None:
        """Cut each weight's gradient to norm 3; the last layer does not learn in the first epoch."""
        for name, weight in self.student.named_parameters():
            if weight.grad is None:
                continue
            scale = 3.0 / (weight.grad.norm() + 1e-6)
            if scale < 1:
                weight.grad.mul_(scale)
            if epoch < 1 and "last_layer" in name:
                weight.grad = None
