"""SwAV on several GPUs, with this loader: `torchrun --nproc-per-node 4 examples/train_swav.py --pack PACK --out RUN`.

The loss, the codes and the recipe are those of facebookresearch/swav (main_swav.py), without its queue and with AdamW
in place of LARC; the network is a plain residual one. Resuming, cores and storage: as in train_dino.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from training import Checkpoint, Log, arguments, make_loader, start

from pass_loader import recipes


class Block(nn.Module):
    """Two convolutions beside their input."""

    def __init__(self, dim: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(dim, dim, 3, 1, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(),
            nn.Conv2d(dim, dim, 3, 1, 1, bias=False), nn.BatchNorm2d(dim),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class Network(nn.Module):
    """A residual network, SwAV's head and prototypes: a list of views to (views x N, prototypes)."""

    def __init__(self, dim: int, depth: int, features: int = 128, prototypes: int = 3000):
        super().__init__()
        stem = [nn.Conv2d(3, dim, 7, 4, 3, bias=False), nn.BatchNorm2d(dim), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        self.body = nn.Sequential(*stem, *(Block(dim) for _ in range(depth)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(dim, 2048), nn.BatchNorm1d(2048), nn.ReLU(), nn.Linear(2048, features))
        self.prototypes = nn.Linear(features, prototypes, bias=False)

    def forward(self, views: list[torch.Tensor]) -> torch.Tensor:
        sizes = dict.fromkeys(view.shape[-1] for view in views)
        groups = [torch.cat([v for v in views if v.shape[-1] == size]) for size in sizes]
        return self.prototypes(F.normalize(self.head(torch.cat([self.body(group) for group in groups])), dim=1))


@torch.no_grad()
def codes_of(scores: torch.Tensor) -> torch.Tensor:
    """Return codes (N, prototypes) that use all prototypes alike over the samples of all ranks: Sinkhorn-Knopp."""
    codes = torch.exp(scores.float() / 0.05).t()
    samples = codes.shape[1] * dist.get_world_size()
    total = codes.sum()
    dist.all_reduce(total)
    codes /= total
    for _ in range(3):
        rows = codes.sum(1, keepdim=True)
        dist.all_reduce(rows)
        codes /= rows * len(codes)
        codes /= codes.sum(0, keepdim=True) * samples
    return (codes * samples).t()


def loss_of(output: torch.Tensor, views: int) -> torch.Tensor:
    """Return the cross entropy between the codes of each global view and the predictions of all other views."""
    predicted = (output.float() / 0.1).log_softmax(1).chunk(views)
    terms = []
    for view, scores in enumerate(output.chunk(views)[:2]):
        codes = codes_of(scores)
        terms += [-(codes * p).sum(1).mean() for other, p in enumerate(predicted) if other != view]
    return torch.stack(terms).mean()


def main() -> None:
    options = arguments(__doc__).parse_args()
    device = start()
    loader = make_loader(options, recipes.swav())
    network = Network(options.dim, options.depth).to(device)
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-6)
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer}
    checkpoint = Checkpoint(options.out, loader, **parts)
    log = Log(options.out, options.log_every)
    step = checkpoint.restore()
    parallel = DistributedDataParallel(network)
    steps, freeze = options.epochs * len(loader), min(313, len(loader))
    highest = 0.001 * options.batch_size * dist.get_world_size() / 256
    for epoch in range(step // len(loader), options.epochs):
        loader.sampler.set_epoch(epoch)
        for views in loader:
            views = [view.to(device, non_blocking=True) for view in views]
            for group in optimizer.param_groups:
                group["lr"] = highest * 0.5 * (1 + math.cos(math.pi * step / steps))
            with torch.no_grad():
                network.prototypes.weight.copy_(F.normalize(network.prototypes.weight, dim=1))
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                output = parallel(views)
            loss = loss_of(output, len(views))
            optimizer.zero_grad()
            loss.backward()
            if step < freeze:
                network.prototypes.weight.grad = None
            optimizer.step()
            step += 1
            log.step(step, loss.detach(), loader)
            if step % options.save_every == 0:
                checkpoint.save(step)
    checkpoint.save(step)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
