"""MAE's training step, after the behaviour of facebookresearch/mae efb2a80 (models_mae.py, engine_pretrain.py,
main_pretrain.py) with the options of its PRETRAIN.md; written anew, no line is copied."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from pass_loader import recipes

from .method import LENGTH, Method, Schedule
from .networks import HEADS, WIDTH, Block, Sizes, begin_linear

_DECODER = 2, 128, 4  # blocks, width, heads
_WARM_UP = 1  # epochs


class Mae(Method):
    """Encoder of the visible patches, decoder of all; masks are drawn from torch's global generator."""

    recipe = recipes.mae()

    @staticmethod
    def smaller(sizes: Sizes) -> list[tuple[str, str]]:
        depth, dim, heads = _DECODER
        return [
            ("`PRETRAIN.md`'s command: 800 epochs; batches of 4,096", LENGTH),
            ("ViT-L/16: 1,024 wide, 16 heads, 24 blocks, patches of 16", sizes.transformer),
            ("decoder: 512 wide, 16 heads, 8 blocks", f"{dim:,} wide, {heads} heads, {depth} blocks"),
            ("epochs of warm-up: 40", f"{_WARM_UP}"),
        ]

    def __init__(self, schedule: Schedule, sizes: Sizes):
        super().__init__(schedule, sizes)
        decoder_depth, decoder_dim, decoder_heads = _DECODER
        self.schedule, self.patch = schedule, sizes.patch
        self.patches = nn.Conv2d(3, WIDTH, self.patch, self.patch)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        encoder = (Block(WIDTH, HEADS) for _ in range(sizes.depth))
        self.encoder = nn.Sequential(*encoder, nn.LayerNorm(WIDTH, eps=1e-6))
        self.embed = nn.Linear(WIDTH, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        decoder = (Block(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.decoder = nn.Sequential(*decoder, nn.LayerNorm(decoder_dim, eps=1e-6))
        self.predict = nn.Linear(decoder_dim, 3 * self.patch**2)
        self.register_buffer("positions", _sines(WIDTH, 224 // self.patch))
        self.register_buffer("decoder_positions", _sines(decoder_dim, 224 // self.patch))
        for token in (self.token, self.mask_token):
            nn.init.normal_(token, std=0.02)
        begin_linear(self, nn.init.xavier_uniform_)
        nn.init.xavier_uniform_(self.patches.weight.data.flatten(1))
        self.rate = 1.5e-4 * schedule.batch_size / 256
        groups = [[w for w in self.parameters() if w.ndim > 1], [w for w in self.parameters() if w.ndim == 1]]
        self.optimizer = torch.optim.AdamW(
            [{"params": groups[0], "weight_decay": 0.05}, {"params": groups[1], "weight_decay": 0.0}],
            lr=self.rate, betas=(0.9, 0.95),
        )  # fmt: skip

    def train_step(self, batch: Any, step: int) -> torch.Tensor:
        pictures, _ = batch
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate_at(step / self.schedule.steps_per_epoch)
        loss = self._loss(pictures)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _rate_at(self, epoch: float) -> float:
        """Return the rate at a fraction of an epoch: linear, then half a cosine to 0."""
        if epoch < _WARM_UP:
            return self.rate * epoch / _WARM_UP
        return self.rate * 0.5 * (1 + math.cos(math.pi * (epoch - _WARM_UP) / (self.schedule.epochs - _WARM_UP)))

    def _loss(self, pictures: torch.Tensor, ratio: float = 0.75) -> torch.Tensor:
        tokens = self.patches(pictures).flatten(2).transpose(1, 2) + self.positions[:, 1:]  # (N, cells, dim)
        count, cells, dim = tokens.shape
        order = torch.rand(count, cells).argsort(1)
        back = order.argsort(1)
        kept = order[:, : int(cells * (1 - ratio))]
        visible = tokens.gather(1, kept[:, :, None].expand(-1, -1, dim))
        token = (self.token + self.positions[:, :1]).expand(count, -1, -1)
        encoded = self.embed(self.encoder(torch.cat([token, visible], 1)))
        hidden = self.mask_token.expand(count, cells - kept.shape[1], -1)
        shown = torch.cat([encoded[:, 1:], hidden], 1).gather(1, back[:, :, None].expand(-1, -1, encoded.shape[2]))
        decoded = self.decoder(torch.cat([encoded[:, :1], shown], 1) + self.decoder_positions)
        found = self.predict(decoded[:, 1:])
        mask = (back >= kept.shape[1]).float()  # 1: the patch was hidden
        return (((found - _targets(pictures, self.patch)) ** 2).mean(-1) * mask).sum() / mask.sum()


def _targets(pictures: torch.Tensor, patch: int) -> torch.Tensor:
    """Return the patches (N, cells, values), each with mean 0 and variance 1."""
    side = pictures.shape[-1] // patch
    cells = pictures.view(-1, 3, side, patch, side, patch).permute(0, 2, 4, 3, 5, 1)
    values = cells.reshape(len(pictures), side**2, -1)
    return (values - values.mean(-1, keepdim=True)) / (values.var(-1, keepdim=True) + 1e-6) ** 0.5


def _sines(dim: int, side: int) -> torch.Tensor:
    """Return fixed embeddings (1, 1 + cells, dim) of a cell's column and row; zeros for the class token."""
    rates = 1 / 10000 ** (torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.flatten()[:, None].double() * rates for place in (columns, rows)]
    parts = [function(angle) for angle in angles for function in (torch.sin, torch.cos)]
    return torch.cat([torch.zeros(1, dim), torch.cat(parts, 1).float()])[None]
