"""A classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017): a small network learns which of two loaders has made a
view, and is asked about views of pictures that it has not seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

LEVEL = 0.99  # of the intervals
SIDE_PX = 64  # of what is looked at


class Verdict(NamedTuple):
    """right: of `asked` views, those whose loader was named. Both loaders made half of them."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        return self.right / self.asked

    def interval(self) -> tuple[float, float]:
        """Return the interval of Clopper and Pearson (1934) for the accuracy."""
        found = stats.binomtest(self.right, self.asked).proportion_ci(LEVEL, method="exact")
        return float(found.low), float(found.high)

    @property
    def told_apart(self) -> bool:
        return self.interval()[0] > 0.5


class Judge(nn.Module):
    """Views (N, 3, height, width), values from -1 to 1, to (N,) scores: above 0 for the second loader.

    It sees beside every pixel, eight times enlarged, how far that is from the mean around it: what decoding and
    resizing do differently lies there. The last layer means over a view.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        sizes = [6, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for entering, leaving in zip(sizes, sizes[1:]):
            layers += [nn.Conv2d(entering, leaving, 4, 2, 1, bias=False), nn.BatchNorm2d(leaving), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(sizes[-1], 1)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        around = F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 3, 1)
        seen = torch.cat([views, 8 * (views - around)], 1)
        return self.score(self.layers(seen).mean((2, 3)))[:, 0]


def judged(first: np.ndarray, second: np.ndarray, passes: int = 4, batch: int = 32, seed: int = 0) -> Verdict:
    """Train a judge on the first half of the pictures, and ask it about the views of the others.

    first, second: what the two loaders made of the same pictures, (pictures, views, 3, height, width) uint8, of which
    it sees the middle. A step has `batch` views of each, of the same pictures in the same order. On one machine and
    thread the verdict is the same each time.
    """
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(f"views of {first.shape} and {second.shape}, want equal shapes and 2 pictures or more")
    torch.manual_seed(seed)
    half = len(first) // 2
    judge = Judge().to(memory_format=torch.channels_last)
    _train(judge, *(_flat(views[:half]) for views in (first, second)), passes, batch)
    judge.eval()
    asked = [_flat(views[half:]) for views in (first, second)]
    right = sum(int(((_scores(judge, views) > 0) == wanted).sum()) for wanted, views in enumerate(asked))
    return Verdict(right, 2 * len(asked[0]))


def _train(judge: Judge, first: np.ndarray, second: np.ndarray, passes: int, batch: int) -> None:
    steps = passes * -(-len(first) // batch)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, total_steps=steps)
    for chosen in (part.numpy() for _ in range(passes) for part in torch.randperm(len(first)).split(batch)):
        views = torch.cat([_values(views[chosen]) for views in (first, second)])
        wanted = torch.arange(len(views)).ge(len(chosen)).float()
        loss = F.binary_cross_entropy_with_logits(judge(views), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _scores(judge: Judge, views: np.ndarray) -> torch.Tensor:
    return torch.cat([judge(_values(views[begin : begin + 256])) for begin in range(0, len(views), 256)])


def _flat(views: np.ndarray) -> np.ndarray:
    top, left = (max(side - SIDE_PX, 0) // 2 for side in views.shape[3:])
    middle = views[..., top : top + SIDE_PX, left : left + SIDE_PX]
    return np.ascontiguousarray(middle.reshape(-1, *middle.shape[2:]))


def _values(views: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(views).float() / 127.5 - 1).to(memory_format=torch.channels_last)
