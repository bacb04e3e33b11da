"""The objects that further official scripts build become the presets that cite them.

The classes are written anew after the behaviour of facebookresearch/vicreg 4e12602 augmentations.py,
facebookresearch/barlowtwins 8e8d284 main.py, facebookresearch/msn 4388dc1 src/data_manager.py and facebookresearch/deit
7e160fe augment.py.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from pass_loader import Recipe, recipes

from ..helpers.official_classes import IMAGENET, GaussianBlur, PILRandomGaussianBlur, TwoCropsTransform


class NumpyBlur:
    """VICReg's."""

    def __init__(self, p: float):
        self.p = p

    def __call__(self, picture: Image.Image) -> Image.Image:
        if np.random.rand() >= self.p:
            return picture
        return picture.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * np.random.rand()))


class PythonBlur(NumpyBlur):
    """Barlow Twins'."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        if random.random() >= self.p:
            return picture
        return picture.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * random.random()))


class Solarization(NumpyBlur):
    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.solarize(picture) if np.random.rand() < self.p else picture


class TensorBlur(PILRandomGaussianBlur):
    """MSN's: Pillow 13 refuses its radius."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        if not torch.bernoulli(torch.tensor(self.prob)):
            return picture
        radius = self.radius_min + (self.radius_max - self.radius_min) * torch.rand(1)
        return picture.filter(ImageFilter.GaussianBlur(radius=radius))  # type: ignore[arg-type]


class gray_scale:  # noqa: N801 (DeiT's name)
    def __init__(self, p: float = 0.2):
        self.p, self.transf = p, v1.Grayscale(3)

    def __call__(self, picture: Image.Image) -> Image.Image:
        return self.transf(picture) if random.random() < self.p else picture


class TwoTransforms:
    def __init__(self, blur: type[NumpyBlur]):
        first, second = (
            [
                v1.RandomResizedCrop(224, interpolation=InterpolationMode.BICUBIC),
                v1.RandomHorizontalFlip(), v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                v1.RandomGrayscale(0.2), blur(blurred), Solarization(solarized), v1.ToTensor(), v1.Normalize(*IMAGENET),
            ]
            for blurred, solarized in ((1.0, 0.0), (0.1, 0.2))
        )  # fmt: skip
        self.transform, self.transform_prime = v1.Compose(first), v1.Compose(second)

    def __call__(self, picture: Image.Image) -> tuple[Any, Any]:
        return self.transform(picture), self.transform_prime(picture)


class MultiView:
    def __init__(self, large: Any, small: Any, views: int):
        self.rand_views, self.focal_views, self.rand_transform, self.focal_transform = 2, views, large, small

    def __call__(self, picture: Image.Image) -> list[Any]:
        large = [self.rand_transform(picture) for _ in range(self.rand_views)]
        return large + [self.focal_transform(picture) for _ in range(self.focal_views)]


def end() -> list[Any]:
    return [v1.ToTensor(), v1.Normalize(mean=torch.tensor(IMAGENET[0]), std=torch.tensor(IMAGENET[1]))]


def assert_same(found: Recipe, want: Recipe) -> None:
    assert found.views == want.views
    assert (found.mean, found.std, found.batch) == (want.mean, want.std, want.batch)


def test_vicreg_and_barlow_twins() -> None:
    """Kills: a range that is guessed, a probability that is not the attribute's."""
    assert_same(Recipe.from_torchvision(TwoTransforms(NumpyBlur)), recipes.vicreg())
    assert_same(Recipe.from_torchvision(TwoTransforms(PythonBlur)), recipes.barlow_twins())


def test_msn() -> None:
    def view(size: int, scale: tuple[float, float]) -> Any:
        colour = v1.Compose([v1.RandomApply([v1.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8), v1.RandomGrayscale(0.2)])
        crop = v1.RandomResizedCrop(size, scale=scale)
        return v1.Compose([crop, v1.RandomHorizontalFlip(), colour, TensorBlur(0.5), *end()])

    assert_same(Recipe.from_torchvision(MultiView(view(224, (0.3, 1.0)), view(96, (0.05, 0.3)), 10)), recipes.msn())


def test_mocov1_and_simsiam() -> None:
    crop, flip = v1.RandomResizedCrop(224, scale=(0.2, 1.0)), v1.RandomHorizontalFlip()
    old = [crop, v1.RandomGrayscale(0.2), v1.ColorJitter(0.4, 0.4, 0.4, 0.4), flip, *end()]
    assert_same(Recipe.from_torchvision(TwoCropsTransform(v1.Compose(old))), recipes.mocov1())
    new = [crop, v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), v1.RandomGrayscale(0.2),
           v1.RandomApply([GaussianBlur([0.1, 2.0])], p=0.5), flip, *end()]  # fmt: skip
    assert_same(Recipe.from_torchvision(TwoCropsTransform(v1.Compose(new))), recipes.simsiam())


@pytest.mark.parametrize("simple", [False, True])
def test_deit3(simple: bool) -> None:
    crop = [v1.RandomResizedCrop(224, interpolation=InterpolationMode.BICUBIC)]
    if simple:
        crop = [v1.Resize(224, interpolation=3), v1.RandomCrop(224, padding=4, padding_mode="reflect")]
    one = v1.RandomChoice([gray_scale(1.0), Solarization(1.0), PILRandomGaussianBlur(1.0, 0.1, 2.0)])
    steps = [*crop, v1.RandomHorizontalFlip(), one, v1.ColorJitter(0.3, 0.3, 0.3), *end()]
    assert_same(Recipe.from_torchvision(v1.Compose(steps), batch="view_labels"), recipes.deit3(simple_crop=simple))


def test_lejepa() -> None:
    view = v2.Compose([
        v2.RandomResizedCrop(128, scale=(0.08, 1.0)), v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        v2.RandomGrayscale(p=0.2), v2.RandomApply([v2.GaussianBlur(kernel_size=7, sigma=(0.1, 2.0))]),
        v2.RandomApply([v2.RandomSolarize(threshold=128)], p=0.2), v2.RandomHorizontalFlip(), v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET),
    ])  # fmt: skip
    assert_same(Recipe.from_torchvision([view] * 4), recipes.lejepa(minimal=4))
    views = recipes.lejepa().views
    assert [view.size for view in views] == [224] * 2 + [98] * 6 and {view.solarize for view in views} == {0.2}


def test_evaluations() -> None:
    steps = [v1.Resize(256, interpolation=3), v1.CenterCrop(224), *end()]
    assert_same(Recipe.from_torchvision(v1.Compose(steps), batch="view_labels"), recipes.knn())
    steps = [v1.RandomResizedCrop(224), v1.RandomHorizontalFlip(), *end()]
    assert_same(Recipe.from_torchvision(v1.Compose(steps), batch="view_labels"), recipes.linear_probe())


# timm


def assert_timms(found: Recipe, want: Recipe) -> None:
    """Demand the same views; timm keeps a logarithm of the aspect, whose exponent may differ in the last digit."""
    (one,), (other,) = found.views, want.views
    exact = -1 if "erase" in str(other) else len(other.then)
    assert dataclasses.replace(one, then=one.then[:exact]) == dataclasses.replace(other, then=other.then[:exact])
    assert [str(step) for step in one.then[exact:]] == [str(step) for step in other.then[exact:]]
    assert (found.mean, found.std, found.batch) == (want.mean, want.std, want.batch)


@pytest.mark.parametrize(
    "official,preset",
    [
        ({"auto_augment": "rand-m9-mstd0.5-inc1", "interpolation": "random", "re_prob": 0.25, "re_mode": "pixel"}, {}),
        ({"auto_augment": None, "interpolation": "bicubic", "color_jitter": 0.4},
         {"auto_augment": None, "interpolation": "bicubic", "reprob": 0}),
        ({"auto_augment": "3a", "interpolation": "bilinear", "color_jitter": 0.3, "vflip": 0.5, "hflip": 0.0,
          "re_prob": 0.5, "re_mode": "const", "re_count": 3},
         {"auto_augment": "3a", "interpolation": "bilinear", "color_jitter": 0.3, "vflip": 0.5, "hflip": 0.0,
          "reprob": 0.5, "remode": "const", "recount": 3}),
        ({"auto_augment": "original-mstd0.5", "interpolation": "bicubic", "scale": (0.5, 1), "ratio": (0.9, 1.1)},
         {"auto_augment": "original-mstd0.5", "interpolation": "bicubic", "scale": (0.5, 1), "ratio": (0.9, 1.1),
          "reprob": 0}),
    ],
)  # fmt: skip
def test_timms_training(official: dict[str, Any], preset: dict[str, Any]) -> None:
    create_transform = pytest.importorskip("timm.data").create_transform
    for separate in (False, True):
        found = Recipe.from_timm(create_transform(224, is_training=True, separate=separate, **official))
        assert_timms(found, recipes.timm_train(**preset))


def test_what_is_not_timms() -> None:
    """tests/recipes/conftest.py looks for the way out."""
    with pytest.raises(ValueError, match="want create_transform's Compose, or its tuple of three"):
        Recipe.from_timm((v1.Compose([]), 17))


def test_a_filter_that_no_policy_has() -> None:
    with pytest.raises(ValueError, match="interpolation is 'lanczos'; Pillow has nearest"):
        recipes.timm_train(interpolation="lanczos")
    assert recipes.timm_train(None, interpolation="lanczos").views[0].interpolation == "lanczos"


def test_timms_evaluation() -> None:
    create_transform = pytest.importorskip("timm.data").create_transform
    found = Recipe.from_timm(create_transform(224, interpolation="bicubic"))
    assert_same(found, recipes.evaluate(interpolation="bicubic"))
    squash = Recipe.from_timm(create_transform((160, 192), crop_mode="squash", crop_pct=0.8)).views[0]
    assert squash.window == recipes.Window((200, 240)) and squash.size == (160, 192)
    assert Recipe.from_timm(create_transform(64, is_training=True, no_aug=True)).views[0].resize_short == 64
    for options, message in (
        ({"use_prefetcher": True}, "MaybePILToTensor gives bytes"),
        ({"crop_mode": "border"}, "ResizeKeepRatio is"),
        ({"is_training": True, "auto_augment": "augmix-m3"}, "AugMixAugment is"),
        ({"is_training": True, "auto_augment": "rand-m9", "interpolation": "lanczos"}, "by filter 1, which Pillow"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe.from_timm(create_transform(224, **options))
