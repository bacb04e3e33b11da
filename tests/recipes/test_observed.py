"""Objects of other projects are known by what they do: neither names nor attributes are believed."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from PIL.ImageFilter import GaussianBlur as Imported

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1

from pass_loader import Recipe, ViewSpec
from pass_loader.recipes import Step

from ..helpers.official_classes import PILRandomGaussianBlur


def view_of(*steps: Any) -> ViewSpec:
    return Recipe.from_torchvision(v1.Compose([v1.RandomResizedCrop(8), *steps, v1.ToTensor()])).views[0]


class Blur(PILRandomGaussianBlur):
    """Its attributes say a probability and a range; `blurred` says what it does."""

    def __init__(self, p: float = 0.5, radius_min: float = 0.1, radius_max: float = 2.0):
        super().__init__(p, radius_min, radius_max)

    def __call__(self, picture: Image.Image) -> Image.Image:
        return self.blurred(picture) if random.random() < self.prob else picture

    def radius(self) -> float:
        return random.uniform(self.radius_min, self.radius_max)

    def blurred(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(self.radius()))


def named(**own: Any) -> Blur:
    """Return an object whose class is named GaussianBlur, with methods of its own."""
    return type("GaussianBlur", (Blur,), own)()


def log_uniform(self: Blur) -> float:
    return math.exp(random.uniform(math.log(self.radius_min), math.log(self.radius_max)))


def twice(self: Blur, picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(1)).filter(ImageFilter.GaussianBlur(1))


def now_and_then_inverted(self: Blur, picture: Image.Image) -> Image.Image:
    blurred = Blur.blurred(self, picture)
    return ImageOps.invert(blurred) if random.random() < 0.01 else blurred


def halfway(self: Blur, picture: Image.Image) -> Image.Image:
    return Image.blend(picture, Blur.blurred(self, picture), 0.5)


def squared(self: Blur, picture: Image.Image) -> Image.Image:
    return self.blurred(picture) if random.random() < self.prob**2 else picture


def one_coin(self: Blur, picture: Image.Image) -> Image.Image:
    coin = random.random()
    radius = self.radius_min + coin * (self.radius_max - self.radius_min)
    return picture.filter(ImageFilter.GaussianBlur(radius)) if coin < self.prob else picture


@pytest.mark.parametrize(
    "own,message",
    [
        (
            {"radius": log_uniform},
            r"draws radii in \[0.1, 2\], not uniformly in \[0.1, 2\] as its radius_min and radius",
        ),
        ({"radius": lambda self: random.uniform(0.1, 1.9)}, "not uniformly in"),
        ({"radius": lambda self: random.uniform(0.0, 2.0)}, "not uniformly in"),
        ({"radius": lambda self: random.randrange(1, 21) / 10}, "not uniformly in"),
        ({"radius": lambda self: random.randrange(100, 2001) / 1000}, "not uniformly in"),
        ({"radius": lambda self: random.uniform(0.115, 1.985)}, "not uniformly in"),
        ({"radius": lambda self: 1.0}, "not uniformly in"),
        ({"__call__": Blur.blurred}, "GaussianBlur with prob=0 gives other pixels than the picture's"),
        ({"__call__": squared}, r"runs on 0.2.. of the pictures, and its prob says 0.5"),
        ({"__call__": one_coin}, r"draws radii in \[0.1, 1.05\], not uniformly"),
        ({"blurred": twice}, "with prob=1 gives other pixels than Pillow's ImageFilter.GaussianBlur"),
        ({"blurred": halfway}, "with prob=1 gives other pixels than Pillow's ImageFilter.GaussianBlur"),
        ({"blurred": now_and_then_inverted}, "changes pictures by more than Pillow's GaussianBlur"),
        ({"blurred": lambda self, picture: ImageOps.posterize(picture, 4)}, "is not a step that a recipe has: what"),
        ({"blurred": lambda self, picture: picture.resize((9, 9))}, "it makes no RGB picture of the same size"),
        ({"__call__": lambda self, picture: picture}, "is not a step that a recipe has: what"),
    ],
)
def test_a_blur_that_does_not_do_what_its_attributes_say(own: dict[str, Any], message: str) -> None:
    """Kills: attributes that are believed, one run that stands for all."""
    with pytest.raises(ValueError, match=message):
        view_of(named(**own))


def test_what_does_something_else_than_its_name_says_is_what_it_does() -> None:
    """Kills: a class that is known by its name."""
    view = view_of(named(blurred=lambda self, picture: ImageOps.solarize(picture)))
    assert (view.solarize, view.solarize_threshold, view.blur) == (0.5, 128, 0.0)
    view = view_of(named(blurred=lambda self, picture: picture.convert("L").convert("RGB")))
    assert (view.grayscale, view.blur) == (0.5, 0.0)
    assert view_of(named(angle=30, blurred=lambda self, picture: picture.rotate(30))).then == (
        Step("rotate", 30.0, 0.5),
    )
    view = view_of(type("Fog", (Blur,), {})())
    assert (view.blur, view.blur_sigma) == (0.5, (0.1, 2.0))
    assert view_of(type("Posterize", (Blur,), {})(0.3, 1.0, 1.5)).blur_sigma == (1.0, 1.5)
    view = view_of(lambda picture: picture.filter(Imported(1.234)))
    assert (view.blur, view.blur_sigma) == (1.0, (1.234, 1.234))


class Coin:
    """Has no attribute that says how often it runs."""

    threshold = 128

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.solarize(picture) if random.random() < 0.995 else picture


class RarelyInverted(Coin):
    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.invert(picture) if random.random() < 0.005 else ImageOps.solarize(picture)


class MostlyBlurred:
    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(1)) if random.random() < 0.995 else picture


def test_chance_that_no_attribute_says() -> None:
    """Kills: an object without p that always runs."""
    for one, message in (
        (Coin(), r"Coin runs on 0\.99. of the pictures, and it has no p or prob that says so"),
        (RarelyInverted(), "RarelyInverted gives now and then other pixels than Pillow's solarize"),
        (MostlyBlurred(), r"MostlyBlurred called Pillow's GaussianBlur 39\d\d times in 4000 runs"),
    ):
        with pytest.raises(ValueError, match=message):
            view_of(one)


class Narrow(Blur):
    """Draws from a range that no attribute says."""

    def __init__(self, low: float, high: float):
        self.p, self.low, self.high = 0.4, low, high

    def __call__(self, picture: Image.Image) -> Image.Image:
        radius = random.uniform(self.low, self.high)
        return picture.filter(ImageFilter.GaussianBlur(radius)) if random.random() < self.p else picture


def test_a_range_that_no_attribute_says() -> None:
    """Kills: ends that are rounded away."""
    assert view_of(Narrow(0.25, 1.75)).blur_sigma == (0.25, 1.75)
    assert view_of(Narrow(0.125, 0.125)).blur_sigma == (0.125, 0.125)
    for low, high in ((0.125, 0.5), (0.5, 0.625)):
        with pytest.raises(ValueError, match="draws radii in .*, not uniformly"):
            view_of(Narrow(low, high))


class Dataset:
    """Holds transforms as SwAV's does, and is a transform itself."""

    def __init__(self, *trans: Any):
        self.trans = list(trans)

    def __call__(self, picture: Any) -> Any:
        return [self.trans[1](picture), self.trans[0](picture), self.trans[0](picture)]


def test_an_attribute_named_as_swavs() -> None:
    """Kills: transforms that are taken for views though the object does otherwise with them."""
    sizes = [v1.Compose([v1.RandomResizedCrop(size), v1.ToTensor()]) for size in (8, 16)]
    found = Recipe.from_torchvision(Dataset(*sizes))
    assert [view.size for view in found.views] == [16, 8, 8] and found.batch == "views_labels"


def test_functions_stay_as_they_are() -> None:
    """Kills: markers that are put into a function's own attributes."""

    def crop(picture: Any) -> Any:
        return v1.RandomResizedCrop(8)(picture)

    crop.__wrapped__ = wrapped = v1.ToTensor()  # type: ignore[attr-defined]
    with pytest.raises(ValueError):
        Recipe.from_torchvision(crop)
    assert crop.__wrapped__ is wrapped  # type: ignore[attr-defined]


def test_pillow_and_all_random_states_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a seed for GPUs, which nobody takes back, a filter that stays replaced."""
    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("it seeds GPUs too"))
    before = ImageFilter.GaussianBlur.filter, random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    view_of(Blur())
    with pytest.raises(ValueError):
        view_of(named(radius=log_uniform))
    after = ImageFilter.GaussianBlur.filter, random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert before == after
