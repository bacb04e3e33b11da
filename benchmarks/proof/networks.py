"""Networks of the kinds that the official scripts train: a vision transformer and a residual network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """How large the networks of a run are."""

    patch: int  # of the transformer, in pixels
    depth: int  # of the transformer, in blocks
    width: int  # of the residual network's first stage
    blocks: int  # of each stage

    @property
    def transformer(self) -> str:
        """The transformer in words."""
        return f"{WIDTH} wide, {HEADS} heads, {self.depth} blocks, patches of {self.patch}"

    @property
    def residual(self) -> str:
        """The residual network in words."""
        return f"ResNet, first stage {self.width} wide, blocks a stage: {self.blocks}"


WIDTH, HEADS = 192, 3  # of the transformer, as of ViT-Ti
SIZES = {"small": Sizes(32, 4, 16, 1), "full": Sizes(16, 12, 64, 2)}  # full: ViT-Ti/16 and ResNet-18


def truncated_normal(weight: torch.Tensor) -> None:
    nn.init.trunc_normal_(weight, std=0.02)


def begin_linear(network: nn.Module, begin: Callable[[torch.Tensor], Any] = truncated_normal) -> None:
    """Give all linear layers of a network their first weights by a function, DINO's unless told, and biases of 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            begin(layer.weight)
            nn.init.zeros_(layer.bias)


class Attention(nn.Module):
    """Self-attention over tokens: (N, T, dim) to (N, T, dim)."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(count, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)  # (N, heads, T, T)
        return self.proj((weights @ v).transpose(1, 2).reshape(count, tokens, dim))


class Block(nn.Module):
    """A transformer's block: attention and MLP, each after a normalisation and beside its input.

    drop_path: how often a sample goes past one of them in training, drawn from torch's global generator.
    """

    def __init__(self, dim: int, heads: int, drop_path: float = 0.0):
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._dropped(self.attention(self.norm1(x)))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        if not self.drop_path or not self.training:
            return x
        kept = 1 - self.drop_path
        return x / kept * (torch.rand(len(x), 1, 1) < kept)


class Transformer(nn.Module):
    """A vision transformer with a class token: (N, 3, side, side) to (N, dim).

    Position embeddings are learned for 224 pixels and resized for other sides, as DINO's. drop_path: that of the last
    block; the first has none, those between them in proportion.
    """

    def __init__(self, sizes: Sizes, drop_path: float = 0.0):
        super().__init__()
        self.dim, self.grid = WIDTH, 224 // sizes.patch
        self.patches = nn.Conv2d(3, WIDTH, sizes.patch, sizes.patch)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid**2, WIDTH))
        rates = [drop_path * number / (sizes.depth - 1) for number in range(sizes.depth)]
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, rate) for rate in rates))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        nn.init.trunc_normal_(self.token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        begin_linear(self)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        grid = self.patches(pictures)  # (N, dim, rows, columns)
        tokens = grid.flatten(2).transpose(1, 2) + self._positions_of(grid.shape[2], grid.shape[3])
        token = (self.token + self.positions[:, :1]).expand(len(tokens), -1, -1)
        return self.norm(self.blocks(torch.cat([token, tokens], 1)))[:, 0]

    def _positions_of(self, rows: int, columns: int) -> torch.Tensor:
        own = self.positions[:, 1:]
        if rows == columns == self.grid:
            return own
        own = own.transpose(1, 2).view(1, self.dim, self.grid, self.grid)
        scale = (rows + 0.1) / self.grid, (columns + 0.1) / self.grid  # as DINO's, which guards against rounding so
        resized = F.interpolate(own, scale_factor=scale, mode="bicubic", align_corners=False)
        return resized.flatten(2).transpose(1, 2)


class Residual(nn.Module):
    """A residual network's block of two convolutions."""

    def __init__(self, entering: int, leaving: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(leaving), nn.BatchNorm2d(leaving)
        self.beside: nn.Module = nn.Identity()
        if stride > 1 or entering != leaving:
            self.beside = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride, bias=False), nn.BatchNorm2d(leaving))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.beside(x))


class ResNet(nn.Module):
    """A ResNet of four stages of blocks of two convolutions: (N, 3, side, side) to (N, dim)."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        width = sizes.width
        self.dim = 8 * width
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        stages = [[Residual(a, b, 1 if a == b else 2), *(Residual(b, b, 1) for _ in range(sizes.blocks - 1))]
                  for a, b in zip(widths, widths[1:])]  # fmt: skip
        self.stages = nn.Sequential(*(block for stage in stages for block in stage))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.stages(self.stem(pictures)).mean((2, 3))


def over_sizes(network: nn.Module, views: list[torch.Tensor]) -> torch.Tensor:
    """Run a network on views of several sizes, neighbours of one size together: (all samples of all views, dim)."""
    found, begin = [], 0
    for end in range(1, len(views) + 1):
        if end == len(views) or views[end].shape[-1] != views[begin].shape[-1]:
            found.append(network(torch.cat(views[begin:end])))
            begin = end
    return torch.cat(found)
