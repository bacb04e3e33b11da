"""Recipe.from_torchvision on Resize, Pad, CenterCrop, RandomCrop, and on timm's random resized crop."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from pass_loader import Recipe, ViewSpec, recipes
from pass_loader.recipes import Window

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import noise, position_coded
from ..helpers.recipes import rendered, tensor_steps

pytestmark = pytest.mark.oracle
BOTH = pytest.mark.parametrize("T", [v1, v2], ids=["v1", "v2"])
SIZES = [(90, 120), (120, 90), (64, 64), (31, 33), (7, 200), (1, 1)]


def recipe_of(T: Any, *steps: Any) -> Recipe:
    return Recipe.from_torchvision(T.Compose([*steps, *tensor_steps(T)]))


def still(T: Any) -> dict[str, list[Any]]:
    """Rows of steps without chance."""
    resizes = {
        f"{mode.value} {size}": [T.Resize(size, mode), T.CenterCrop(24)]
        for mode in (InterpolationMode.BICUBIC, InterpolationMode.LANCZOS, InterpolationMode.NEAREST,
                     InterpolationMode.BOX, InterpolationMode.HAMMING, InterpolationMode.NEAREST_EXACT)
        for size in (32, 20, (40, 26))
    }  # fmt: skip
    return {
        **resizes,
        "both sides": [T.Resize((48, 33))],
        "a list of one side": [T.Resize([32]), T.CenterCrop([30, 31])],
        "a centre that is larger": [T.CenterCrop((80, 71))],
        "pad and centre": [T.Resize(32), T.Pad((3, 5, 9, 1)), T.CenterCrop(45)],
        "pad both sides": [T.Resize((21, 20)), T.Pad((2, 7), padding_mode="symmetric")],
        "a resize that is padded": [T.Resize((21, 20)), T.Pad(30, padding_mode="reflect")],
        "a colour": [T.Resize((21, 20)), T.Pad((6, 1, 2, 3), fill=(9, 200, 30))],
        "a gray": [T.Resize((21, 20)), T.Pad(3, fill=77)],
        "edges": [T.Resize((21, 20)), T.Pad(6, padding_mode="edge")],
    }


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("name", still(v1))
def test_bytes(T: Any, name: str) -> None:
    """Kills: halves rounded up, a centre of the padded picture, sides that are swapped."""
    steps = still(T)[name]
    recipe = recipe_of(T, *steps)
    for height, width in SIZES:
        for pixels in (position_coded(height, width), noise(height, width)):
            want = np.asarray(T.Compose(steps)(Image.fromarray(pixels)))
            assert_pixels_equal(rendered(recipe, pixels), want, (recipe, height, width))


def drawn(T: Any) -> dict[str, tuple[list[Any], tuple[int, int]]]:
    return {
        "as it is": ([T.RandomCrop(9)], (11, 10)),
        "padded": ([T.RandomCrop(8, padding=1)], (8, 9)),
        "in a colour": ([T.RandomCrop(8, padding=1, fill=(9, 200, 30))], (8, 9)),
        "reflected": ([T.Resize(8), T.RandomCrop(8, padding=(1, 2), padding_mode="reflect")], (20, 20)),
        "where it is needed": ([T.RandomCrop((9, 8), pad_if_needed=True)], (7, 9)),
        "Pad before": ([T.Pad(1, padding_mode="edge"), T.RandomCrop(9)], (8, 9)),
    }


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("name", drawn(v1))
def test_drawn_windows_are_theirs_and_as_often(T: Any, name: str) -> None:
    """Of one picture they give the same set of views, equally often."""
    steps, size = drawn(T)[name]
    recipe, pixels = recipe_of(T, *steps), position_coded(*size)
    transform, picture = T.Compose(steps), Image.fromarray(pixels)
    torch.manual_seed(0)
    theirs = Counter(np.asarray(transform(picture)).tobytes() for _ in range(3000))
    ours = Counter(rendered(recipe, pixels, record).tobytes() for record in range(3000))
    assert set(theirs) == set(ours) and len(ours) > 3
    square = sum((ours[key] - theirs[key]) ** 2 / (ours[key] + theirs[key]) for key in ours)
    assert square < len(ours) + 5 * (2 * len(ours)) ** 0.5


def test_evaluation_is_the_preset() -> None:
    norm = v1.Normalize(recipes.IMAGENET_MEAN, recipes.IMAGENET_STD)
    found = Recipe.from_torchvision(v1.Compose([v1.Resize(256), v1.CenterCrop(224), v1.ToTensor(), norm]))
    want = recipes.evaluate()
    assert found.views == want.views and (found.mean, found.std) == (want.mean, want.std)
    bicubic = v2.Resize(248, InterpolationMode.BICUBIC)
    found = recipe_of(v2, bicubic, v2.CenterCrop(224))
    assert found.views == recipes.evaluate(resize=248, interpolation="bicubic").views


def test_deits_simple_crop() -> None:
    """facebookresearch/deit 7e160fe augment.py:84-88."""
    steps = [v1.Resize(192, interpolation=3), v1.RandomCrop(192, padding=4, padding_mode="reflect"),
             v1.RandomHorizontalFlip()]  # fmt: skip
    window = Window(192, "drawn", 4, "reflect")
    assert recipe_of(v1, *steps).views == (ViewSpec(192, interpolation="bicubic", window=window),)


def test_filters_of_the_random_crop() -> None:
    for mode, name in ((InterpolationMode.LANCZOS, "lanczos"), (InterpolationMode.NEAREST, "nearest")):
        assert recipe_of(v1, v1.RandomResizedCrop(8, interpolation=mode)).views[0].interpolation == name


def test_timms_random_crop() -> None:
    timm = pytest.importorskip("timm.data.transforms")
    for name in ("random", "bicubic", "lanczos"):
        crop = timm.RandomResizedCropAndInterpolation((20, 30), (0.3, 0.9), (0.5, 2.0), name)
        found = Recipe.from_torchvision(v1.Compose([crop, timm.MaybeToTensor()]))
        want = ViewSpec((20, 30), (0.3, 0.9), (0.5, 2.0), name, flip=0.0)
        assert found.views == (want,)


REFUSED: list[tuple[list[Any], str]] = [
    ([v1.Resize(9)], r"Resize alone: views would not have one shape; add CenterCrop, as recipes.evaluate\(\)"),
    ([v1.Pad(9)], "Pad alone: views would not have one shape"),
    ([v1.Resize(9, max_size=10), v1.CenterCrop(8)], "Resize has max_size"),
    ([v2.Resize(None, max_size=10), v2.CenterCrop(8)], "Resize has"),
    ([v1.CenterCrop(8), v1.Resize(9)], "CenterCrop, Resize: a recipe has Resize, Pad and CenterCrop or RandomCrop"),
    ([v1.RandomCrop(8), v1.CenterCrop(4)], "each once, in this order"),
    ([v1.Pad(2, fill=9), v1.CenterCrop(8)], "CenterCrop pads with black"),
    ([v1.Pad(2, padding_mode="edge"), v1.CenterCrop(8)], "CenterCrop pads with black"),
    ([v1.Pad(2), v1.RandomCrop(8, padding=1)], "RandomCrop pads after Pad"),
    ([v1.RandomResizedCrop(8), v1.CenterCrop(8)], "CenterCrop stands after RandomResizedCrop"),
    ([v1.Resize(8), v1.RandomResizedCrop(8)], "views would not have one shape"),
    ([v1.RandomApply([v1.CenterCrop(8)])], "around CenterCrop: a recipe has that step always"),
]


@pytest.mark.parametrize("steps,message", REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_refusals_name_what_and_why(steps: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of(v1, *steps)
