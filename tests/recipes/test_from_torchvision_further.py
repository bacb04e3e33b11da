"""Recipe.from_torchvision on transforms that become further steps: the transform's own bytes and distribution."""

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

from pass_loader import _C, Recipe, recipes, render_plan
from pass_loader.recipes import Choice, Step

from ..helpers import official_classes as official
from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import noise, position_coded
from ..helpers.official_classes import whole
from ..helpers.recipes import rendered, tensor_steps


pytestmark = pytest.mark.oracle
BOTH = pytest.mark.parametrize("T", [v1, v2], ids=["v1", "v2"])
SIZE = (64, 64)


def recipe_of(T: Any, *steps: Any) -> Recipe:
    return Recipe.from_torchvision(T.Compose([whole(T), *steps, *tensor_steps(T)]))


def always(T: Any) -> dict[str, list[Any]]:
    """Rows of steps without chance."""
    jitter = T.ColorJitter(brightness=(0.7, 0.7))
    blur, solar, gray = T.GaussianBlur(9, (1.2, 1.2)), T.RandomSolarize(100.5, p=1.0), T.RandomGrayscale(1.0)
    flip, turn = T.RandomHorizontalFlip(1.0), T.RandomRotation((33.5, 33.5), InterpolationMode.BILINEAR, fill=(9, 8, 7))
    affine = T.RandomAffine((20, 20), None, (1.5, 1.5), (10, 10, -5, -5), InterpolationMode.BICUBIC, 77)
    return {
        "vertical flip": [T.RandomVerticalFlip(1.0)],
        "invert": [T.RandomInvert(1.0)],
        "autocontrast": [T.RandomAutocontrast(1.0)],
        "equalize": [T.RandomEqualize(1.0)],
        "posterize": [T.RandomPosterize(3, 1.0)],
        "sharpness": [T.RandomAdjustSharpness(1.7, 1.0)],
        "rotation": [turn],
        "nearest rotation": [T.RandomRotation((-70, -70))],
        "affine": [affine],
        "gray before jitter": [gray, jitter],
        "blur before gray": [blur, gray],
        "solarize before blur": [solar, blur],
        "two flips": [flip, flip],
        "a flip after a turn": [turn, flip],
        "a flip before a turn": [flip, turn],
        "a turn, and fixed steps": [turn, jitter, gray, solar],
        "fixed steps, a turn, the same ones": [jitter, solar, turn, jitter, solar],
        "PIL's blur after equalize": [T.RandomEqualize(1.0), official.PILRandomGaussianBlur(1.0, 1.3, 1.3)],
        "several in RandomApply": [T.RandomApply([jitter, solar, flip], p=1.0), blur],
        "RandomApply in RandomChoice": [T.RandomChoice([T.RandomApply([jitter, solar], p=1.0)])],
        "RandomOrder of one": [T.RandomOrder([T.RandomInvert(1.0)])],
    }


@BOTH
@pytest.mark.parametrize("name", always(v1))
def test_bytes(T: Any, name: str) -> None:
    """Kills: a step that stands before what it follows, a flip that a turn does not know of."""
    steps = always(T)[name]
    recipe = recipe_of(T, *steps)
    for pixels in (position_coded(90, 120), noise(90, 120)):
        want = np.asarray(T.Compose([whole(T), *steps])(Image.fromarray(pixels)))
        assert_pixels_equal(rendered(recipe, pixels), want, recipe)


@BOTH
def test_steps_before_the_crop(T: Any) -> None:
    """Kills: a step that works on the crop, a flip that is taken for the view's, steps in another order."""
    before = [T.ColorJitter(contrast=(1.4, 1.4)), T.RandomHorizontalFlip(1.0), T.RandomSolarize(90, 1.0),
              T.RandomRotation((33.5, 33.5), InterpolationMode.BILINEAR, fill=(9, 8, 7))]  # fmt: skip
    after = [T.RandomEqualize(1.0), T.RandomHorizontalFlip(1.0)]
    crop = T.RandomResizedCrop(SIZE, scale=(1, 1), ratio=(4 / 3, 4 / 3))
    for steps in ([*before, crop, *after], [before[1], crop], [*before[::-1], crop, *after[::-1]]):
        recipe = Recipe.from_torchvision(T.Compose([*steps, *tensor_steps(T)]))
        assert len(recipe.views[0].before) == steps.index(crop)
        for pixels in (position_coded(90, 120), noise(90, 120)):
            want = np.asarray(T.Compose(steps)(Image.fromarray(pixels)))
            assert_pixels_equal(rendered(recipe, pixels), want, recipe)


def fixed_and_then(recipe: Recipe) -> tuple[dict[str, float], int]:
    view = recipe.views[0]
    names = ("flip", "jitter", "grayscale", "blur", "solarize")
    return {name: getattr(view, name) for name in names if getattr(view, name)}, len(view.then)


def test_fixed_steps_stay_fixed() -> None:
    """Kills: all steps as further ones, which costs speed and moves no byte."""
    jitter, gray, turn, flip = (
        v1.ColorJitter(0.4),
        v1.RandomGrayscale(0.2),
        v1.RandomRotation(9),
        v1.RandomHorizontalFlip(0.3),
    )
    assert fixed_and_then(recipe_of(v1, jitter, gray, flip)) == ({"flip": 0.3, "jitter": 1.0, "grayscale": 0.2}, 0)
    assert fixed_and_then(recipe_of(v1, jitter, turn, gray)) == ({"jitter": 1.0}, 2)
    assert fixed_and_then(recipe_of(v1, gray, jitter, flip)) == ({"flip": 0.3, "grayscale": 0.2}, 1)
    assert fixed_and_then(recipe_of(v1, v1.RandomInvert(), flip)) == ({"flip": 0.3}, 1)
    assert fixed_and_then(recipe_of(v1, turn, flip)) == ({}, 2)


@BOTH
def test_policies(T: Any) -> None:
    fill = (124, 116, 104)
    options = {"interpolation": InterpolationMode.BILINEAR, "fill": list(fill)}
    v = {"v2": T is v2}
    want = {"interpolation": "bilinear", "fill": fill, **v}
    for transform, policy in (
        (T.RandAugment(3, 7, 21, **options),
         recipes.rand_augment(SIZE, num_ops=3, magnitude=7, num_magnitude_bins=21, **want)),
        (T.RandAugment(), recipes.rand_augment(SIZE, **v)),
        (T.TrivialAugmentWide(**options), recipes.trivial_augment_wide(**want)),
        *((T.AutoAugment(T.AutoAugmentPolicy(name), **options), recipes.auto_augment(SIZE, policy=name, **want))
          for name in ("imagenet", "cifar10", "svhn")),
    ):  # fmt: skip
        assert recipe_of(T, transform).views[0].then == policy


def test_v2s_thresholds_of_solarize() -> None:
    """Kills: those of v1, which differ by one in 12 of 31 bins."""
    for bins in (10, 16, 31):
        official = [
            255.0 * float(value) for value in v2.TrivialAugmentWide._AUGMENTATION_SPACE["Solarize"][0](bins, 9, 9)
        ]
        (choice,) = recipes.trivial_augment_wide(num_magnitude_bins=bins, v2=True)
        (value,) = (step.value for (step,) in choice.options if step.op == "solarize")
        assert list(value.values) == official
        for threshold in official:
            solarize = v2.RandomSolarize(threshold, 1.0)
            recipe, pixels = recipe_of(v2, solarize), noise(90, 120)
            want = np.asarray(v2.Compose([whole(v2), solarize])(Image.fromarray(pixels)))
            assert_pixels_equal(rendered(recipe, pixels), want, threshold)


@pytest.mark.slow
@BOTH
def test_every_view_of_rand_augment_is_one_of_theirs(T: Any) -> None:
    """Of one picture, RandAugment of one operation gives the same set of pictures, equally often as theirs."""
    transform, pixels = T.RandAugment(num_ops=1), position_coded(90, 120)
    recipe = recipe_of(T, transform)
    torch.manual_seed(0)
    crop = whole(T)(Image.fromarray(pixels))
    theirs = Counter(np.asarray(transform(crop)).tobytes() for _ in range(1500))
    ours = Counter(rendered(recipe, pixels, record).tobytes() for record in range(1500))
    assert set(theirs) == set(ours) and len(ours) > 15
    square = sum((ours[key] - theirs[key]) ** 2 / (ours[key] + theirs[key]) for key in ours)
    assert square < len(ours) + 5 * (2 * len(ours)) ** 0.5


def test_structures() -> None:
    invert, equal, solar = v1.RandomInvert(0.3), v1.RandomEqualize(0.4), v1.RandomSolarize(99, 0.5)
    one, two, three = Step("invert", None, 0.3), Step("equalize", None, 0.4), Step("solarize", 99, 0.5)
    found = recipe_of(v1, v1.RandomApply([invert, solar], 0.7)).views[0].then
    assert found == (Choice(((one, three),), 0.7),)
    (choice,) = recipe_of(v1, v1.RandomChoice([invert, equal, v1.Compose([])], (1, 2, 1))).views[0].then
    assert choice.options == ((one,), (two,), ()) and choice.shares() == [0.25, 0.5, 0.25]
    assert recipe_of(v1, v1.RandomOrder([invert, solar])).views[0].then == (Choice(((one, three), (three, one))),)
    (choice,) = recipe_of(v2, v2.RandomChoice([v2.RandomInvert(0.3), v2.RandAugment(2)])).views[0].then
    assert choice.shares()[0] == pytest.approx(0.5) and len(choice.options) == 1 + 14 * 14
    (jitter,) = (
        recipe_of(v1, v1.RandomApply([v1.RandomEqualize(), v1.ColorJitter(0.4, 0.3, 0.2, 0.1)], 0.8)).views[0].then
    )
    assert jitter.probability == 0.8 and len(jitter.options) == 24 and len(jitter.options[0]) == 5


def test_ranges_of_random_affine() -> None:
    transform = v1.RandomAffine((1, 2), (0.1, 0.2), (0.9, 1.1), (3, 4, 5, 6), InterpolationMode.BILINEAR, (7, 8, 9))
    affine = recipes.Affine((1, 2), (0.1, 0.2), (0.9, 1.1), (3, 4, 5, 6))
    assert recipe_of(v1, transform).views[0].then == (Step("affine", affine, 1.0, "bilinear", (7, 8, 9)),)
    (step,) = recipe_of(v2, v2.RandomAffine(30, shear=10)).views[0].then
    assert step == Step("affine", recipes.Affine((-30, 30), shear=(-10, 10, 0, 0)))


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_perspectives_are_theirs(T: Any, mode: str) -> None:
    """The corners that torchvision would draw, and its coefficients, to the last byte of the picture."""
    pixels = position_coded(90, 120)
    picture = whole(T)(Image.fromarray(pixels))
    recipe = recipe_of(T, T.RandomPerspective(0.6, 1.0, InterpolationMode(mode), fill=(9, 8, 7)))
    for record in range(20):
        plan = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=record, height=90, width=120,
                             steps=recipe.step_rows())  # fmt: skip
        matrix = plan["steps"][0, 0]["matrix"]
        back = np.linalg.inv(np.append(matrix, 1.0).reshape(3, 3))
        ends = [back @ (x, y, 1.0) for x, y in ((0, 0), (63, 0), (63, 63), (0, 63))]
        ends = [[round(end[0] / end[2]), round(end[1] / end[2])] for end in ends]
        assert all(min(x, 63 - x) <= int(0.6 * 32) and min(y, 63 - y) <= int(0.6 * 32) for x, y in ends)
        want = T.functional.perspective(
            picture, [[0, 0], [63, 0], [63, 63], [0, 63]], ends, InterpolationMode(mode), fill=[9, 8, 7]
        )
        assert_pixels_equal(render_plan(pixels, plan)[0], np.asarray(want), ends)


def test_erasing() -> None:
    pairs = [
        (v1.RandomErasing(0.3), recipes.random_erasing(0.3, aspect=(0.3, 3.3), area=(0.02, 0.33))),
        (v1.RandomErasing(0.3, (0.1, 0.2), (0.5, 2), (1, 2, 3)),
         recipes.random_erasing(0.3, aspect=(0.5, 2), area=(0.1, 0.2), values=(1, 2, 3))),
        (v2.RandomErasing(0.3, value="random"),
         recipes.random_erasing(0.3, aspect=(0.3, 3.3), area=(0.02, 0.33), mode="pixel")),
        (v1.RandomApply([v1.RandomErasing(1.0, value=7)], 0.4),
         (Choice((recipes.random_erasing(1.0, aspect=(0.3, 3.3), area=(0.02, 0.33), values=(7, 7, 7)),), 0.4),)),
    ]  # fmt: skip
    for transform, want in pairs:
        for norm in ([], [v1.Normalize(0.5, 0.5)]):
            found = Recipe.from_torchvision(v1.Compose([whole(v1), v1.ToTensor(), *norm, transform]))
            assert found.views[0].then == want


def test_timms_erasing() -> None:
    timm = pytest.importorskip("timm.data.random_erasing")
    for mode in ("const", "rand", "pixel"):
        transform = timm.RandomErasing(0.25, mode=mode, max_count=3, device="cpu")
        found = Recipe.from_torchvision(v1.Compose([whole(v1), v1.ToTensor(), v1.Normalize(0.5, 0.5), transform]))
        (choice,), (want,) = found.views[0].then, recipes.random_erasing(0.25, mode=mode, count=(1, 3))
        assert choice.probability == want.probability and len(choice.options) == 3
        for one, other in zip(choice.options, want.options):
            assert [step.value.mode for step in one] == [step.value.mode for step in other]
            assert one[0].value.area == other[0].value.area and len(one) == len(other)
            assert one[0].value.aspect == pytest.approx(other[0].value.aspect, rel=1e-15)
    with pytest.raises(ValueError, match="num_splits"):
        Recipe.from_torchvision(v1.Compose([whole(v1), v1.ToTensor(), timm.RandomErasing(0.25, num_splits=2)]))


def test_timms_objects() -> None:
    timm = pytest.importorskip("timm.data.auto_augment")
    hparams = {"img_mean": (124, 116, 104), "interpolation": 3}
    found = recipe_of(v1, timm.rand_augment_transform("rand-m9-mstd0.5-inc1", dict(hparams))).views[0].then
    assert found == recipes.timm_rand_augment("rand-m9-mstd0.5-inc1", fill=(124, 116, 104), resample="bicubic")
    found = recipe_of(v1, timm.auto_augment_transform("original", {"img_mean": (1, 2, 3)})).views[0].then
    assert found == recipes.timm_auto_augment("original", fill=(1, 2, 3))
    with pytest.raises(ValueError, match="draws without repetition"):
        recipe_of(v1, timm.rand_augment_transform("rand-tweights"))
