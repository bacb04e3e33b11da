"""The official pipelines: torchvision's transforms on PIL pictures, one sample at a time, collated by torch.

Compositions follow the code cited in pass_loader/recipes.py; numbers are read from our recipes, so that both sides of a
comparison have the same ones.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps

from pass_loader.recipes import Recipe, ViewSpec

from .torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as T  # noqa: E402
from torchvision.transforms import InterpolationMode  # noqa: E402


class PilBlur:
    """A Gaussian blur by PIL with probability p, its radius uniform in a range."""

    def __init__(self, p: float, radius: tuple[float, float]):
        self.p, self.radius = p, radius

    def __call__(self, picture: Image.Image) -> Image.Image:
        if random.random() >= self.p:
            return picture
        return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.radius)))


class PilSolarize:
    def __init__(self, p: float, threshold: int):
        self.p, self.threshold = p, threshold

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.solarize(picture, self.threshold) if random.random() < self.p else picture


def transform_of(view: ViewSpec, recipe: Recipe) -> Callable[[Image.Image], torch.Tensor]:
    steps: list[Callable] = [
        T.RandomResizedCrop(
            (view.height, view.width),
            scale=view.scale,
            ratio=view.ratio,
            interpolation=InterpolationMode(view.interpolation),
        ),
        T.RandomHorizontalFlip(view.flip),
    ]
    if view.jitter:
        jitter = T.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
        steps.append(T.RandomApply([jitter], p=view.jitter))
    steps.append(T.RandomGrayscale(view.grayscale))
    if view.blur:
        steps.append(PilBlur(view.blur, view.blur_sigma))
    if view.solarize:
        steps.append(PilSolarize(view.solarize, view.solarize_threshold))
    return T.Compose(steps + [T.ToTensor(), T.Normalize(recipe.mean, recipe.std)])


class OfficialViews:
    """JPEG bytes to the list of view tensors of one sample."""

    def __init__(self, recipe: Recipe):
        self.transforms = [transform_of(view, recipe) for view in recipe.views]

    def __call__(self, data: bytes) -> list[torch.Tensor]:
        with Image.open(io.BytesIO(data)) as picture:
            rgb = picture.convert("RGB")
        return [transform(rgb) for transform in self.transforms]


def batches(data: Iterable[bytes], recipe: Recipe, batch_size: int) -> Iterable[list[torch.Tensor]]:
    """Yield what one worker of the official DataLoader does: transform each sample, collate each full batch."""
    views = OfficialViews(recipe)
    pending: list[list[torch.Tensor]] = []
    for one in data:
        pending.append(views(one))
        if len(pending) == batch_size:
            yield torch.utils.data.default_collate(pending)
            pending = []


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
