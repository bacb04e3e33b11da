"""Mixes batches as a recipes.Mix says: views in place, and the soft labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.samples import Samples
from ..keys import BatchKey
from ..recipes.mixing import DrawnMix, Mix


@dataclass(frozen=True)
class Mixed:
    """What a batch was mixed from."""

    drawn: DrawnMix
    targets: torch.Tensor  # (N, classes) float32

    def info(self, records: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what `return_info` tells: each picture's own share, the record it is mixed with, and CutMix's box."""
        top, bottom, left, right = self.drawn.boxes.T
        boxes = np.stack([left, top, right - left, bottom - top], axis=1).astype(np.int32)
        return {
            "lam": torch.from_numpy(self.drawn.lam.astype(np.float32)),
            "records": torch.from_numpy(records[self.drawn.partners]),
            "boxes": torch.from_numpy(boxes),
        }


def check_mix(mix: Mix | None, samples: Samples, dtype: torch.dtype, collate_fn: Any) -> None:
    """Raise TypeError or ValueError for a mix that batches of these samples cannot have."""
    if mix is None:
        return
    if not isinstance(mix, Mix):
        raise TypeError(
            f"mix is a {type(mix).__name__}, want a pass_loader.recipes.Mix, which has the arguments of timm's Mixup"
        )
    recipe, shape = samples.recipe, samples.label_shape()
    if recipe.batch != "view_labels":
        raise ValueError(f"mix goes with the batch 'view_labels', and the recipe {recipe.name} has {recipe.batch!r}")
    if dtype == torch.uint8:
        raise ValueError("mix works on normalised values: ask for float32, float16 or bfloat16")
    if collate_fn is not None:
        raise ValueError("mix makes a batch's soft labels, and collate_fn is given single samples: give one of both")
    dense = len(shape) == 1
    if dense and mix.style == "timm" and not mix.multi_label:
        raise ValueError(f"labels are ({shape[0]},) a record: give multi_label=True, num_classes={shape[0]}")
    if not dense and mix.multi_label:
        raise ValueError("multi_label=True wants labels (N, num_classes), and there is one class number a record")
    if dense and shape[0] != mix.num_classes:
        raise ValueError(f"num_classes is {mix.num_classes}, and labels are ({shape[0]},) a record")


def mix_batch(
    mix: Mix, key: BatchKey, epoch: int, views: torch.Tensor, labels: torch.Tensor, records: np.ndarray
) -> Mixed:
    """Mix views (N, channels, height, width) in place, and return the soft labels. epoch: of the views.

    Raises ValueError for a label that is no class.
    """
    drawn = mix.draw(key, epoch, *(views.shape[side] for side in (0, 2, 3)))
    targets = soft_labels(mix, drawn, labels, records)
    mix_views(views, drawn, mix.style)
    return Mixed(drawn, targets)


def soft_labels(mix: Mix, drawn: DrawnMix, labels: torch.Tensor, records: np.ndarray) -> torch.Tensor:
    """Return (N, classes) float32: labels, smoothed and mixed (timm/data/mixup.py, mixup_target)."""
    smoothing = mix.label_smoothing or 0.0
    if labels.dim() == 2:
        own = labels.float()
        if smoothing:
            own = own * (1.0 - smoothing) + 0.5 * smoothing
    else:
        wrong = np.flatnonzero((labels.numpy() < 0) | (labels.numpy() >= mix.num_classes))
        if len(wrong):
            raise ValueError(
                f"record {records[wrong[0]]} has the label {labels[wrong[0]].item()}, and num_classes is "
                f"{mix.num_classes}: give Mix(num_classes=...), labels=, or records= of those that have a class"
            )
        off = smoothing / mix.num_classes
        own = torch.full((len(labels), mix.num_classes), off)
        own.scatter_(1, labels.long().view(-1, 1), 1.0 - smoothing + off)
    if len(drawn.lam) == 0:
        return own
    lam: Any = torch.from_numpy(drawn.lam)[:, None] if drawn.lam.dtype == np.float32 else float(drawn.lam[0])
    return own * lam + own[torch.from_numpy(drawn.partners)] * (1.0 - lam)


def mix_views(views: torch.Tensor, drawn: DrawnMix, style: str) -> None:
    """Mix views in place, with timm's and torchvision's own arithmetic."""
    shares = list(zip(drawn.lam.tolist(), (1 - drawn.lam).tolist()))
    boxes = [_Box(*box) if cut else None for cut, box in zip(drawn.cut.tolist(), drawn.boxes.tolist())]
    count = len(views)
    if style == "torchvision":
        if not count or (boxes[0] is None and shares[0][0] == 1):
            return
        last = views[-1].clone()
        for place in range(count - 1, 0, -1):
            _put(views[place], *_part(views[place - 1], *shares[place], boxes[place]))
        _put(views[0], *_part(last, *shares[0], boxes[0]))
        return
    for place in range(count // 2):
        other = count - 1 - place
        theirs = _part(views[other], *shares[place], boxes[place])
        ours = _part(views[place], *shares[other], boxes[other])
        _put(views[place], *theirs)
        _put(views[other], *ours)


@dataclass(frozen=True)
class _Box:
    top: int
    bottom: int
    left: int
    right: int

    def of(self, view: torch.Tensor) -> torch.Tensor:
        return view[:, self.top : self.bottom, self.left : self.right]


_Part = tuple[torch.Tensor | None, float, _Box | None]


def _part(view: torch.Tensor, own: float, rest: float, box: _Box | None) -> _Part:
    """Return what a picture's partner takes from it, a copy; None: nothing."""
    if box is not None:
        return box.of(view).clone(), own, box
    return (None if own == 1 else view * rest), own, None


def _put(view: torch.Tensor, part: torch.Tensor | None, own: float, box: _Box | None) -> None:
    if part is None:
        return
    if box is not None:
        box.of(view).copy_(part)
    else:
        view.mul_(own).add_(part)
