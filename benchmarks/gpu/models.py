"""Training steps of DINO (ViT-S/16) and SwAV (ResNet-50) in plain torch.nn, random weights, bfloat16: what a loader
has to feed. The arithmetic of a step is the official one's; schedules, queues and distribution are left out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

Step = Callable[[list[torch.Tensor]], torch.Tensor]


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(self.norms[0](x)).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(mixed)
        return x + self.mlp(self.norms[1](x))


class ViT(nn.Module):
    """ViT-S/16; positions of 224 are interpolated for other sizes."""

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, width, 14, 14))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x)
        x = x + functional.interpolate(self.positions, x.shape[2:], mode="bicubic")
        x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        return self.norm(self.blocks(x))[:, 0]


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.steps = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(True),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        self.past: nn.Module = nn.Identity()
        if stride != 1 or inputs != 4 * width:
            self.past = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.steps(x) + self.past(x))


def resnet(depths: tuple[int, ...]) -> nn.Module:
    """depths: bottlenecks of each stage; ResNet-50: (3, 4, 6, 3)."""
    parts: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True),
                              nn.MaxPool2d(3, 2, 1)]  # fmt: skip
    inputs = 64
    for width, blocks, stride in zip((64, 128, 256, 512), depths, (1, 2, 2, 2)):
        for number in range(blocks):
            parts.append(Bottleneck(inputs, width, stride if number == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def by_size(model: nn.Module, views: list[torch.Tensor]) -> torch.Tensor:
    """All views of one size in one pass, as the official MultiCropWrapper."""
    sizes = list(dict.fromkeys(view.shape[-1] for view in views))
    return torch.cat([model(torch.cat([view for view in views if view.shape[-1] == size])) for size in sizes])


def dino(device: torch.device | str, outputs: int = 65536, depth: int = 12) -> Step:
    head = nn.Sequential(nn.Linear(384, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 256))
    student = nn.ModuleDict({"body": ViT(depth=depth), "head": head, "last": nn.Linear(256, outputs, bias=False)}).to(
        device
    )
    teacher = copy.deepcopy(student).requires_grad_(False)
    centre = torch.zeros(1, outputs, device=device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=torch.device(device).type == "cuda")

    def logits(model: nn.ModuleDict, views: list[torch.Tensor]) -> torch.Tensor:
        return model["last"](functional.normalize(model["head"](by_size(model["body"], views)), dim=-1))

    def step(views: list[torch.Tensor]) -> torch.Tensor:
        count = len(views[0])
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            with torch.no_grad():
                raw = logits(teacher, views[:2]).float()
                target = ((raw - centre) / 0.04).softmax(-1).split(count)
            found = [(part / 0.1).log_softmax(-1) for part in logits(student, views).float().split(count)]
            loss = sum(
                (-(t * s).sum(-1).mean() for i, t in enumerate(target) for j, s in enumerate(found) if i != j),
                torch.zeros((), device=device),
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimizer.step()
        with torch.no_grad():
            centre.lerp_(raw.mean(0, keepdim=True), 0.1)
            torch._foreach_lerp_([*teacher.parameters()], [*student.parameters()], 0.004)
        return loss.detach()

    return step


@torch.no_grad()
def sinkhorn(scores: torch.Tensor) -> torch.Tensor:
    q = (scores / 0.05).sub(scores.max() / 0.05).exp().t()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).t()


def swav(device: torch.device | str, prototypes: int = 3000, depths: tuple[int, ...] = (3, 4, 6, 3)) -> Step:
    head = nn.Sequential(nn.Linear(2048, 2048), nn.BatchNorm1d(2048), nn.ReLU(True), nn.Linear(2048, 128))
    model = nn.ModuleDict({"body": resnet(depths), "head": head, "last": nn.Linear(128, prototypes, bias=False)})
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-6)

    def step(views: list[torch.Tensor]) -> torch.Tensor:
        count = len(views[0])
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            embedded = functional.normalize(model["head"](by_size(model["body"], views)), dim=-1)
            scores = model["last"](embedded).float().split(count)
            found = [(part / 0.1).log_softmax(-1) for part in scores]
            loss = torch.zeros((), device=device)
            for i in range(2):
                target = sinkhorn(scores[i].detach())
                loss = loss - sum((target * s).sum(-1).mean() for j, s in enumerate(found) if j != i)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
