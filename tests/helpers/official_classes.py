"""Stand-ins for the official scripts' own classes: their names, attributes and behaviour, as tests need them.

facebookresearch/dino 7c446df utils.py:36-68, main_dino.py:419-464; facebookresearch/swav 06b1b7c
src/multicropdataset.py:20-94; facebookresearch/moco 7397dfe moco/loader.py, main_moco.py:326-352;
facebookresearch/moco-v3 c349e6e moco/loader.py, main_moco.py:262-285.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as T
from torchvision import transforms as v1

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PILRandomGaussianBlur:
    """SwAV's; DINO's GaussianBlur differs in the stream of its gate only."""

    def __init__(self, p: float = 0.5, radius_min: float = 0.1, radius_max: float = 2.0):
        self.prob, self.radius_min, self.radius_max = p, radius_min, radius_max

    def __call__(self, picture: Image.Image) -> Image.Image:
        if np.random.rand() > self.prob:
            return picture
        return picture.filter(ImageFilter.GaussianBlur(random.uniform(self.radius_min, self.radius_max)))


class Solarization:
    """DINO's."""

    def __init__(self, p: float):
        self.p = p

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.solarize(picture) if random.random() < self.p else picture


class GaussianBlur:
    """MoCo's, SimSiam's, MoCo-v3's: always."""

    def __init__(self, sigma: Any = (0.1, 2.0)):
        self.sigma = sigma

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


class Solarize:
    """MoCo-v3's and BYOL's: always."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.solarize(picture)


class DataAugmentationDINO:
    def __init__(self, global_crops_scale: Any, local_crops_scale: Any, local_crops_number: int):
        colour = T.Compose([
            T.RandomHorizontalFlip(p=0.5),
            T.RandomApply([T.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
        ])  # fmt: skip
        tensor = T.Compose([T.ToTensor(), T.Normalize(*IMAGENET)])

        def view(size: int, scale: Any, *steps: Any) -> T.Compose:
            crop = T.RandomResizedCrop(size, scale=scale, interpolation=Image.BICUBIC)  # type: ignore[attr-defined]
            return T.Compose([crop, colour, *steps, tensor])

        self.global_transfo1 = view(224, global_crops_scale, PILRandomGaussianBlur(1.0))
        self.global_transfo2 = view(224, global_crops_scale, PILRandomGaussianBlur(0.1), Solarization(0.2))
        self.local_crops_number = local_crops_number
        self.local_transfo = view(96, local_crops_scale, PILRandomGaussianBlur(p=0.5))

    def __call__(self, picture: Image.Image) -> list[Any]:
        views = [self.global_transfo1(picture), self.global_transfo2(picture)]
        return views + [self.local_transfo(picture) for _ in range(self.local_crops_number)]


class MultiCropDataset:
    """SwAV's, without its folder of pictures."""

    def __init__(self, size_crops: list[int], nmb_crops: list[int], lows: list[float], highs: list[float]):
        distortion = T.Compose([T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8), T.RandomGrayscale(p=0.2)])
        colour = [distortion, PILRandomGaussianBlur()]
        self.trans: list[Any] = []
        for size, count, low, high in zip(size_crops, nmb_crops, lows, highs):
            crop = T.RandomResizedCrop(size, scale=(low, high))
            tensor = [T.ToTensor(), T.Normalize(mean=[0.485, 0.456, 0.406], std=[0.228, 0.224, 0.225])]
            self.trans += [T.Compose([crop, T.RandomHorizontalFlip(p=0.5), T.Compose(colour), *tensor])] * count


class TwoCropsTransform:
    """MoCo's."""

    def __init__(self, base_transform: Any):
        self.base_transform = base_transform

    def __call__(self, picture: Image.Image) -> list[Any]:
        return [self.base_transform(picture), self.base_transform(picture)]


class TwoCropsOfTwo:
    """MoCo-v3's TwoCropsTransform."""

    def __init__(self, base_transform1: Any, base_transform2: Any):
        self.base_transform1, self.base_transform2 = base_transform1, base_transform2

    def __call__(self, picture: Image.Image) -> list[Any]:
        return [self.base_transform1(picture), self.base_transform2(picture)]


def mocov2_steps() -> list[Any]:
    return [
        T.RandomResizedCrop(224, scale=(0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([GaussianBlur([0.1, 2.0])], p=0.5),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]


def mocov3_steps(blur: float, solarize: float) -> list[Any]:
    return [
        T.RandomResizedCrop(224, scale=(0.08, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([GaussianBlur([0.1, 2.0])], p=blur),
        T.RandomApply([Solarize()], p=solarize),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(*IMAGENET),
    ]


def whole(T: Any, size: Any = 64, interpolation: Any = v1.InterpolationMode.BILINEAR) -> Any:
    """A crop that always takes all of a picture of 120 x 90."""
    return T.RandomResizedCrop(size, scale=(1, 1), ratio=(4 / 3, 4 / 3), interpolation=interpolation)
