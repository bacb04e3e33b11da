"""Recipes: what views to make of a sample. Ranges and probabilities, no decisions.

A preset cites the paper and the file and lines of the official code that it follows. Recipes are frozen dataclasses:
print one to see its table, derive another with `override` or `dataclasses.replace`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL

from . import _C

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_INTERPOLATION = {"bilinear": 2, "bicubic": 3}  # PIL's Resampling values
_ABSENT = (1.0, 0.0)  # an empty range: the native side takes the step for absent
_RESIZE_ORDER = {13: 0, 12: 1}
Range = tuple[float, float]


def installed_pillow() -> int:
    """12 or 13: whose order of resize passes the installed Pillow (or Pillow-SIMD) has. Older ones are as 12."""
    return 13 if int(PIL.__version__.split(".")[0]) >= 13 else 12


@dataclass(frozen=True)
class ViewSpec:
    """One view of a recipe. Steps run in this order: crop, resize, flip, jitter, grayscale, blur, solarize.

    Numbers named after a step are its probability. Ranges are (low, high), drawn uniformly.
    """

    size: int | tuple[int, int]  # pixels: a side, or (height, width)
    scale: Range  # share of the picture's area, torchvision's RandomResizedCrop
    ratio: Range = (3 / 4, 4 / 3)  # width / height, log-uniform
    interpolation: str = "bilinear"  # or "bicubic"; always antialiased
    flip: float = 0.5
    jitter: float = 0.0
    brightness: Range | None = None  # factors; None: this step is absent
    contrast: Range | None = None
    saturation: Range | None = None
    hue: Range | None = None  # turns
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: Range = (0.1, 2.0)  # pixels of the view; PIL calls it radius
    solarize: float = 0.0
    solarize_threshold: int = 128

    @property
    def height(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        return self.size if isinstance(self.size, int) else self.size[1]

    def _row(self, resize_order: int) -> tuple[Any, ...]:
        if self.interpolation not in _INTERPOLATION:
            raise ValueError(f"interpolation is {self.interpolation!r}, want 'bilinear' or 'bicubic'")
        if not isinstance(self.size, int) and len(self.size) != 2:
            raise ValueError(f"size is {self.size}, want a side or (height, width)")
        jitter_ranges = [r or _ABSENT for r in (self.brightness, self.contrast, self.saturation, self.hue)]
        return (
            self.height, self.width, *self.scale, *self.ratio, self.flip, self.jitter,
            *(end for r in jitter_ranges for end in r), self.grayscale, self.blur, *self.blur_sigma,
            self.solarize, self.solarize_threshold, _INTERPOLATION[self.interpolation], 0,
            resize_order,
        )  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All views of a sample, how they are normalised and the structure of a batch.

    batch: "views" gives a bare list of tensors, "views_labels" a tuple (list of tensors, labels).
    pillow: 12 or 13. Pillow 13 runs the two passes of some resizes in the other order, which moves about a tenth of
        such a view's values, nearly all by one level. The default is what the installed Pillow does, decided when the
        recipe is made; name it where a run must be repeated on machines with another Pillow.
    """

    name: str
    views: tuple[ViewSpec, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    batch: str = "views_labels"
    source: str = ""
    pillow: int = field(default_factory=installed_pillow)

    def __post_init__(self) -> None:
        if self.batch not in ("views", "views_labels"):
            raise ValueError(f"batch is {self.batch!r}, want 'views' or 'views_labels'")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std}: want three numbers each, std above 0")
        if self.pillow not in _RESIZE_ORDER:
            raise ValueError(f"pillow is {self.pillow!r}, want 12 or 13")
        object.__setattr__(self, "views", tuple(self.views))
        _C.check_recipe(self.rows())

    @classmethod
    def from_torchvision(cls, transform: Any, *, name: str | None = None, batch: str | None = None) -> Recipe:
        """The recipe of a transform object that a script already has. torchvision is not needed.

        transform: a Compose of one view's steps (torchvision's transforms or transforms.v2, taking PIL pictures), a
            list of such, one a view, or an object of several views: DINO's DataAugmentationDINO, MoCo's
            TwoCropsTransform, SwAV's MultiCropDataset and what else returns a list of its transforms' results.
        name: the recipe's; the transform's class unless given.
        batch: as in Recipe; "views" for SwAV's dataset and "views_labels" for all others unless given.

        The views have the same distribution, and with the same numbers drawn the same bytes as the transform gives on
        PIL pictures (v2's ToDtype scales otherwise in the last bit: docs/official-scripts.md). A class that is not
        torchvision's is run on a small picture; the random states of Python, numpy and torch stay as they are.
        Raises ValueError that names the step for which no recipe does that.

        >>> Recipe.from_torchvision(DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 8))
        """
        from .torchvision_transforms import translate

        return translate(transform, name=name, batch=batch)

    def rows(self) -> np.ndarray:
        """The views as (V,) rows of _C.view_spec_dtype, the form in which a recipe crosses into C++."""
        order = _RESIZE_ORDER[self.pillow]
        return np.array([view._row(order) for view in self.views], dtype=_C.view_spec_dtype)

    def normalize_table(self) -> np.ndarray:
        """(3, 256) float32: what each byte of each channel becomes.

        torchvision's ToTensor then Normalize, in their float32 steps: x / 255, minus mean, divided by std.
        """
        scaled = np.arange(256, dtype=np.float32) / np.float32(255)
        mean = np.array(self.mean, dtype=np.float32)[:, None]
        std = np.array(self.std, dtype=np.float32)[:, None]
        return np.ascontiguousarray((scaled[None] - mean) / std)

    def override(self, views: Iterable[int] | None = None, **fields: Any) -> Recipe:
        """A recipe with some fields of its views changed, in all views or in those whose indices are given.

        >>> dino().override(views=[1], solarize=0.0)
        """
        chosen = range(len(self.views)) if views is None else list(views)
        changed = list(self.views)
        for index in chosen:
            changed[index] = dataclasses.replace(changed[index], **fields)
        return dataclasses.replace(self, views=tuple(changed))

    def __str__(self) -> str:
        columns = [f.name for f in dataclasses.fields(ViewSpec)]
        groups: list[tuple[ViewSpec, list[int]]] = []
        for index, view in enumerate(self.views):
            if groups and groups[-1][0] == view:
                groups[-1][1].append(index)
            else:
                groups.append((view, [index]))
        heads = ["view"] + [f"{g[0]}" if len(g) == 1 else f"{g[0]}-{g[-1]}" for _, g in groups]
        table = [heads] + [[name] + [_show(getattr(view, name)) for view, _ in groups] for name in columns]
        widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        lines.insert(0, f"{self.name}: {len(self.views)} views, batch {self.batch}   {self.source}")
        lines.append(f"mean {_show(self.mean)}, std {_show(self.std)}; resize as Pillow {self.pillow}")
        return "\n".join(lines)


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " ".join(_show(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _factor_range(strength: float) -> Range:
    return (max(0.0, 1.0 - strength), 1.0 + strength)  # torchvision's ColorJitter


def _jitter(brightness: float, contrast: float, saturation: float, hue: float, probability: float) -> dict[str, Any]:
    return {
        "jitter": probability,
        "brightness": _factor_range(brightness),
        "contrast": _factor_range(contrast),
        "saturation": _factor_range(saturation),
        "hue": (-hue, hue),
    }


def dino(
    *,
    local_crops: int = 8,
    global_size: int = 224,
    local_size: int = 96,
    global_scale: Range = (0.4, 1.0),
    local_scale: Range = (0.05, 0.4),
) -> Recipe:
    """DINO: Caron et al., ICCV 2021; facebookresearch/dino 7c446df, main_dino.py:419-464, utils.py:36-68.

    Two global views that differ in blur and solarization, then the local ones. Bicubic.
    """
    shared: dict[str, Any] = {"interpolation": "bicubic", "grayscale": 0.2, **_jitter(0.4, 0.4, 0.2, 0.1, 0.8)}
    first = ViewSpec(global_size, global_scale, blur=1.0, **shared)
    second = ViewSpec(global_size, global_scale, blur=0.1, solarize=0.2, **shared)
    local = ViewSpec(local_size, local_scale, blur=0.5, **shared)
    return Recipe("dino", (first, second) + (local,) * local_crops, source="facebookresearch/dino main_dino.py:419-464")


def swav(
    *,
    global_crops: int = 2,
    local_crops: int = 6,
    global_size: int = 224,
    local_size: int = 96,
    global_scale: Range = (0.14, 1.0),
    local_scale: Range = (0.05, 0.14),
) -> Recipe:
    """SwAV: Caron et al., NeurIPS 2020; facebookresearch/swav 06b1b7c, src/multicropdataset.py:37-94.

    Defaults are those of the published scripts (scripts/swav_*ep_pretrain.sh). Bilinear; std[0] is 0.228 there.
    """
    shared: dict[str, Any] = {"grayscale": 0.2, "blur": 0.5, **_jitter(0.8, 0.8, 0.8, 0.2, 0.8)}
    large = ViewSpec(global_size, global_scale, **shared)
    small = ViewSpec(local_size, local_scale, **shared)
    return Recipe(
        "swav",
        (large,) * global_crops + (small,) * local_crops,
        std=(0.228, 0.224, 0.225),
        batch="views",
        source="facebookresearch/swav src/multicropdataset.py:37-94",
    )


def mocov2(*, size: int = 224, scale: Range = (0.2, 1.0)) -> Recipe:
    """MoCo-v2: Chen et al., 2020 (arXiv 2003.04297); facebookresearch/moco 7397dfe, main_moco.py:326-338.

    Two views of one distribution. Bilinear. The flip comes last there: on these steps that changes no pixel.
    """
    view = ViewSpec(size, scale, grayscale=0.2, blur=0.5, **_jitter(0.4, 0.4, 0.4, 0.1, 0.8))
    return Recipe("mocov2", (view,) * 2, source="facebookresearch/moco main_moco.py:326-338")


PRESETS: dict[str, Callable[..., Recipe]] = {"dino": dino, "swav": swav, "mocov2": mocov2}
