"""DINO on several GPUs, with this loader: `torchrun --nproc-per-node 4 examples/train_dino.py --pack PACK --out RUN`.

The loss, the schedules and the recipe are those of facebookresearch/dino (main_dino.py); the network is a plain vision
transformer. A run that was killed goes on at its last checkpoint when the same command runs again, in the middle of an
epoch, on another number of GPUs too as long as GPUs times --batch-size stays the same.
On 4 GPUs with 8 cores each: --workers 7, from a local disk as from NFS, whose records are read ahead; `--order blocks`
where the pack lies in a mounted object store (docs/where-packs-lie.md).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from training import Checkpoint, Log, arguments, make_loader, start

from pass_loader import recipes


class Student(nn.Module):
    """A vision transformer and DINO's head: a list of views, equal sizes together, to (views x N, prototypes)."""

    def __init__(self, dim: int, depth: int, patch: int = 16, prototypes: int = 4096):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, dim, 224 // patch, 224 // patch) * 0.02)
        block = nn.TransformerEncoderLayer(dim, dim // 32, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Linear(dim, 2048), nn.GELU(), nn.Linear(2048, 256))
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(256, prototypes, bias=False))

    def forward(self, views: list[torch.Tensor]) -> torch.Tensor:
        sizes = [view.shape[-1] for view in views]
        groups = [torch.cat([v for v in views if v.shape[-1] == size]) for size in dict.fromkeys(sizes)]
        return self.last(F.normalize(self.head(torch.cat([self.features(group) for group in groups])), dim=-1))

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        grid = self.patches(pictures)
        places = F.interpolate(self.positions, grid.shape[-2:], mode="bicubic")
        tokens = (grid + places).flatten(2).transpose(1, 2)  # (N, cells, dim)
        return self.blocks(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1))[:, 0]


class Loss(nn.Module):
    """Cross entropy of the teacher's and the student's outputs over different views, the teacher's centred."""

    def __init__(self, prototypes: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(1, prototypes))

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, views: int, temperature: float) -> torch.Tensor:
        predicted = (student.float() / 0.1).log_softmax(-1).chunk(views)
        targets = ((teacher.float() - self.centre) / temperature).softmax(-1).chunk(2)
        terms = [-(t * p).sum(-1).mean() for i, t in enumerate(targets) for j, p in enumerate(predicted) if i != j]
        mean = teacher.float().mean(0, keepdim=True)
        dist.all_reduce(mean)
        self.centre.mul_(0.9).add_(mean / dist.get_world_size(), alpha=0.1)
        return torch.stack(terms).mean()


def cosine(first: float, last: float, share: float) -> float:
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * share))


def main() -> None:
    options = arguments(__doc__).parse_args()
    device = start()
    loader = make_loader(options, recipes.dino())
    student = Student(options.dim, options.depth).to(device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    loss_of = Loss(student.last.out_features).to(device)
    optimizer = torch.optim.AdamW(student.parameters())
    parts: dict[str, Any] = {"student": student, "teacher": teacher, "loss": loss_of, "optimizer": optimizer}
    checkpoint = Checkpoint(options.out, loader, **parts)
    log = Log(options.out, options.log_every)
    step = checkpoint.restore()
    parallel = DistributedDataParallel(student)
    steps, warm_up = options.epochs * len(loader), 10 * len(loader)
    highest = 0.0005 * options.batch_size * dist.get_world_size() / 256
    for epoch in range(step // len(loader), options.epochs):
        loader.sampler.set_epoch(epoch)  # a resumed loader keeps its place in its own epoch
        for views, _ in loader:
            views = [view.to(device, non_blocking=True) for view in views]
            share = step / steps
            rate = cosine(highest, 1e-6, share) * min((step + 1) / warm_up, 1)
            for group in optimizer.param_groups:
                group.update(lr=rate, weight_decay=cosine(0.04, 0.4, share))
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                with torch.no_grad():
                    targets = teacher(views[:2])
                outputs = parallel(views)
            loss = loss_of(outputs, targets, len(views), temperature=0.04)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 3.0)
            if epoch == 0:
                for weight in student.last.parameters():
                    weight.grad = None
            optimizer.step()
            with torch.no_grad():
                momentum = cosine(0.996, 1.0, share)
                for old, new in zip(teacher.parameters(), student.parameters()):
                    old.lerp_(new, 1 - momentum)
            step += 1
            log.step(step, loss.detach(), loader)
            if step % options.save_every == 0:
                checkpoint.save(step)
    checkpoint.save(step)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
