"""Policies of further steps against torchvision's and timm's own objects: their bytes and their distributions."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from pass_loader import _C, Recipe, ViewSpec, recipes
from pass_loader.recipes import Choice, Level, OneOf, Step, policies, reference
from pass_loader.recipes.steps import OPS, any_order, as_choice, one_of, together

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import noise, position_coded
from ..helpers.plans import assert_uniform, check, plan_of


pytestmark = pytest.mark.oracle
SIZE = 48


def recipe_of(*then: Any, size: int | tuple[int, int] = SIZE) -> Recipe:
    height, width = size if isinstance(size, tuple) else (size, size)
    view = ViewSpec(size, (1.0, 1.0), (width / height, width / height), flip=0.0, then=then)
    return Recipe("policy", (view,))


def drawn(recipe: Recipe, count: int, seed: int = 0) -> np.ndarray:
    """Return the decided steps of records 0, 1, ...: (count, K)."""
    rows, steps = recipe.rows(), recipe.step_rows()
    return np.stack([
        _C.plan_views(rows, seed=seed, epoch=0, record=i, height=SIZE, width=SIZE, steps=steps)["steps"][0]
        for i in range(count)
    ])  # fmt: skip


def run(step: Step, value: Any, picture: Image.Image) -> np.ndarray:
    """Return what Pillow makes of the step with this value."""
    fixed = dataclasses.replace(step, value=value, probability=1.0)
    recipe = recipe_of(fixed, size=(picture.height, picture.width))
    plan = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=0, height=picture.height, width=picture.width,
                         steps=recipe.step_rows())[0]  # fmt: skip
    assert len(plan["steps"]) == 1
    return reference.render(picture, plan)


def pictures() -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in (noise(SIZE, SIZE), position_coded(SIZE, SIZE))]


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("which", ["rand", "wide"])
def test_every_magnitude_of_torchvision(which: str, interpolation: str) -> None:
    """Kills: a magnitude whose last digit is off, tan of it, a translation that is not cut or has the other sign."""
    theirs = (v1.RandAugment()._augmentation_space(31, (SIZE, SIZE)) if which == "rand"
              else v1.TrivialAugmentWide()._augmentation_space(31))  # fmt: skip
    spaces = policies._space(31, (SIZE, SIZE)) if which == "rand" else policies._wide_space(31)
    assert list(theirs) == list(spaces)
    fill = (124, 116, 104)
    for name, (magnitudes, signed) in theirs.items():
        want = magnitudes.tolist() if magnitudes.ndim else []
        assert spaces[name] == ([float(value) for value in want], signed), name
        step = policies._torchvision_step(name, spaces[name][0], signed, interpolation, fill)
        values = step.value.values if isinstance(step.value, OneOf) else [None]
        signs = [sign * value for sign in ((1.0, -1.0) if signed else (1.0,)) for value in want] or [0.0]
        assert len(values) == len(signs)
        for value, magnitude in zip(values, signs):
            for picture in pictures():
                official = _apply_op(picture, name, magnitude, InterpolationMode(interpolation), list(fill))
                assert_pixels_equal(run(step, value, picture), np.asarray(official), (name, magnitude))


@pytest.mark.parametrize("count", [2, 5, 10, 11, 20, 31, 64])
def test_linspace_is_torchs(count: int) -> None:
    for start, end in ((0, 0.3), (0, 150 / 331 * 224), (0, 150 / 331 * 96), (0, 30), (255, 0), (0, 0.99), (0, 135)):
        assert policies.linspace(start, end, count) == torch.linspace(start, end, count).tolist()


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_auto_augment_is_torchvisions(policy: str) -> None:
    theirs = v1.AutoAugment(v1.AutoAugmentPolicy(policy))
    space = theirs._augmentation_space(10, (SIZE, 64))
    (choice,) = recipes.auto_augment((SIZE, 64), policy=policy)
    assert len(choice.options) == len(theirs.policies)
    for steps, official in zip(choice.options, theirs.policies):
        for step, (name, probability, place) in zip(steps, official, strict=True):
            magnitudes, signed = space[name]
            one = [float(magnitudes[place])] if place is not None else []
            assert step == policies._torchvision_step(name, one, signed, "nearest", (0, 0, 0), probability)


def test_rand_augment_has_theirs_options() -> None:
    for magnitude in (0, 9, 30):
        first, second = recipes.rand_augment((SIZE, 64), magnitude=magnitude)
        assert first == second and len(first.options) == 14 and first.probability == 1
        for (step,), (name, (magnitudes, signed)) in zip(
            first.options, v1.RandAugment()._augmentation_space(31, (SIZE, 64)).items(), strict=True
        ):
            one = [float(magnitudes[magnitude])] if magnitudes.ndim else []
            assert step == policies._torchvision_step(name, one, signed, "nearest", (0, 0, 0))


# timm


def timm_ops() -> Any:
    return pytest.importorskip("timm.data.auto_augment")


HPARAMS = {"translate_const": 100, "img_mean": (124, 116, 104), "interpolation": 3}


@pytest.mark.slow
def test_every_operation_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """For levels forced by a gauss that returns them. Kills: another chain of factors, a level that is not clipped."""
    timm = timm_ops()
    rng = random.Random(0)
    usual = [0.0, 0.3, 4.999, 5.0, 9.0, 10.0, 12.0, -1.0, *(rng.uniform(0, 10) for _ in range(8))]
    levels = [*((level, None) for level in usual), (13.7, 20), (20.0, 20)]
    for name in timm.NAME_TO_OP:
        for (level, mmax), coin in [(level, coin) for level in levels for coin in (0.2, 0.9)]:
            step = policies.timm_step(name, magnitude=max(level, 0.0), mmax=mmax, fill=(124, 116, 104),
                                      resample="bicubic", translate_const=100)  # fmt: skip
            op = timm.AugmentOp(name, prob=1.0, magnitude=level, hparams={**HPARAMS, "magnitude_max": mmax})
            monkeypatch.setattr(timm.random, "random", lambda coin=coin: coin)
            monkeypatch.setattr(timm.random, "uniform", lambda low, high: high)
            value = step.value
            if isinstance(value, Level) and value.sign == 0:
                value = dataclasses.replace(value, sign=-1 if coin > 0.5 else 1)
            if name == "GaussianBlurRand":
                continue  # draws within: test_blur_below
            for picture in pictures():
                try:
                    want = np.asarray(op(picture))
                except ValueError:  # Pillow 13 refuses 0 bits
                    want = np.zeros((SIZE, SIZE, 3), np.uint8)
                assert_pixels_equal(run(step, value, picture), want, (name, level, coin))


@pytest.mark.parametrize(
    "config", ["rand-m9-mstd0.5-inc1", "rand-m6-mstd0.5-inc1", "rand-n3-p0.7-mmax20", "rand-m7-mstd101", "rand-t3a"]
)
def test_strings_of_rand_augment(config: str) -> None:
    timm = timm_ops()
    theirs = timm.rand_augment_transform(config, {"img_mean": (1, 2, 3)})
    ours = recipes.timm_rand_augment(config, fill=(1, 2, 3))
    assert len(ours) == theirs.num_layers and theirs.choice_weights is None
    for (step,), op in zip(ours[0].options, theirs.ops, strict=True):
        assert step == policies.timm_step(op.name, probability=op.prob, magnitude=op.magnitude, mstd=op.magnitude_std,
                                          mmax=op.magnitude_max, fill=(1, 2, 3))  # fmt: skip


@pytest.mark.parametrize("config", ["v0", "v0r-mstd0.5", "original", "originalr", "original-mstd0.5", "3a"])
def test_strings_of_auto_augment(config: str) -> None:
    timm = timm_ops()
    theirs = timm.auto_augment_transform(config, {"img_mean": (1, 2, 3)})
    (ours,) = recipes.timm_auto_augment(config, fill=(1, 2, 3))
    for steps, ops in zip(ours.options, theirs.policy, strict=True):
        for step, op in zip(steps, ops, strict=True):
            assert step == policies.timm_step(op.name, probability=op.prob, magnitude=op.magnitude,
                                              mstd=op.magnitude_std, fill=(1, 2, 3))  # fmt: skip


def test_bad_strings_are_refused() -> None:
    for config in ("m9", "rand-m9-q3", "rand-mx", "rand-tweights"):
        with pytest.raises(ValueError, match=config):
            recipes.timm_rand_augment(config)
    for config in ("v1", "v0-m9", "v0-mstd1-mstd2"):
        with pytest.raises(ValueError, match=config):
            recipes.timm_auto_augment(config)
    with pytest.raises(ValueError, match="'Cutout'"):
        policies.timm_step("Cutout")
    with pytest.raises(ValueError, match="magnitude is 31"):
        recipes.rand_augment(224, magnitude=31)


# Distributions


def assert_shares(counts: Counter[Any], shares: dict[Any, float]) -> None:
    """Demand a chi-square below the 0.01 % point or so."""
    total = sum(counts.values())
    assert set(counts) <= set(shares)
    square = sum((counts[key] - total * share) ** 2 / (total * share) for key, share in shares.items() if share)
    free = len(shares) - 1
    assert square < free + 4 * math.sqrt(2 * free) + 12, (square, counts)


def test_options_and_signs_are_drawn_evenly() -> None:
    options = tuple((Step("posterize", value),) for value in range(8))
    found = drawn(recipe_of(Choice(options, 0.6), Choice(options)), 4000)
    counts = Counter(row[0]["level"].item() if row[1]["op"] else -1 for row in found)
    assert_shares(counts, {-1: 0.4} | {value: 0.6 / 8 for value in range(8)})
    pairs = Counter((a["level"].item(), b["level"].item()) for a, b in found if b["op"])
    assert_shares(pairs, {(a, b): 1 / 64 for a in range(8) for b in range(8)})
    signs = Counter(row[0]["matrix"][1].item() for row in drawn(recipe_of(Step("shear_x", OneOf((0.25, -0.25)))), 2000))
    assert_shares(signs, {0.25: 0.5, -0.25: 0.5})
    level = Step("shear_x", Level(5.0, scale=0.5, sign=0))
    signs = Counter(row[0]["matrix"][1].item() for row in drawn(recipe_of(level), 2000))
    assert_shares(signs, {0.25: 0.5, -0.25: 0.5})


def test_weights_and_probabilities() -> None:
    steps = (Step("invert", probability=0.3), Step("equalize", probability=0.8))
    found = drawn(recipe_of(Choice((steps, (Step("autocontrast"),), ()), 1.0, (3, 1, 0))), 4000)
    names = Counter(tuple(op for op in row["op"].tolist() if op) for row in found)
    shares = {
        (): 0.75 * 0.7 * 0.2,
        (3,): 0.75 * 0.3 * 0.2,
        (2,): 0.75 * 0.7 * 0.8,
        (3, 2): 0.75 * 0.3 * 0.8,
        (1,): 0.25,
    }
    assert_shares(names, shares)


def normal_below(x: float) -> float:
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_levels_are_timms_gauss_and_uniform() -> None:
    """Kills: a standard deviation that is a variance, a normal number off in its tails."""
    level = Level(5.0, 1.5, scale=10.0, offset=0.0)
    factors = drawn(recipe_of(Step("brightness", level)), 4000)["factor"][:, 0].astype(np.float64)
    assert_uniform(np.array([normal_below((value - 5.0) / 1.5) for value in factors]), 0, 1)
    assert factors.min() < 0.7 and factors.max() > 9.3
    clipped = drawn(recipe_of(Step("brightness", Level(9.5, 1.0, scale=10.0))), 4000)["factor"][:, 0]
    assert abs((clipped == 10.0).mean() - (1 - normal_below(0.5))) < 0.04
    even = drawn(recipe_of(Step("brightness", Level(8.0, math.inf, scale=10.0))), 2000)["factor"][:, 0]
    assert_uniform(even, 0, 8)


def test_uniform_values_and_resample() -> None:
    found = drawn(recipe_of(Step("rotate", (-30.0, 30.0), resample="random")), 3000)[:, 0]
    angles = np.degrees(np.arctan2(-found["matrix"][:, 1], found["matrix"][:, 0]))
    assert_uniform(angles, -30, 30)
    assert_shares(Counter(found["resample"].tolist()), {2: 0.5, 3: 0.5})


def test_blur_below() -> None:
    """timm: random.uniform(0.1, 2.0 * factor)."""
    found = drawn(recipe_of(policies.timm_step("GaussianBlurRand", probability=1.0, magnitude=7)), 2000)["factor"][:, 0]
    assert_uniform(found, 0.1, 1.4)


def test_random_affine_is_torchvisions() -> None:
    """The matrix is that of torchvision for the same numbers, which are found again by solving for them."""
    found = drawn(recipe_of(Step("affine", recipes.Affine((-40, 60), (0.25, 0.5), (0.8, 1.4)))), 1500)[:, 0]["matrix"]
    scale = 1 / np.hypot(found[:, 0], found[:, 1])
    angle = np.degrees(np.arctan2(found[:, 1], found[:, 0]))
    assert_uniform(scale, 0.8, 1.4)
    assert_uniform(angle, -40, 60)
    moved = Counter[int]()
    for row, a, s in zip(found, angle, scale):
        # F.affine: x_in = R^-1 (x - c - t) / s + c, so t is what is taken to the centre
        inverse = np.array([[row[0], row[1]], [row[3], row[4]]])
        shift = np.linalg.solve(inverse, np.array([row[2], row[5]]) - SIZE / 2) + SIZE / 2
        tx, ty = (-round(value) for value in shift)
        want = v1.functional._get_inverse_affine_matrix([SIZE / 2] * 2, float(a), [tx, ty], float(s), [0.0, 0.0])
        assert np.allclose(row[:6], want, rtol=0, atol=1e-11)
        assert abs(tx) <= 12 and abs(ty) <= 24
        moved[tx] += 1
    assert set(moved) == set(range(-12, 13))
    sheared = drawn(recipe_of(Step("affine", recipes.Affine((20, 20), shear=(-30, -30, 10, 10)))), 1)[0, 0]["matrix"]
    want = v1.functional._get_inverse_affine_matrix([SIZE / 2] * 2, 20.0, [0, 0], 1.0, [-30.0, 10.0])
    assert np.allclose(sheared[:6], want, rtol=0, atol=1e-13)


def test_rotations_are_pillows() -> None:
    """Kills: a cosine that is off by more than the last place, a quarter of an oblong view that is a transpose."""
    rng = random.Random(0)
    angles = [0.0, 90.0, 180.0, 270.0, -90.0, 360.0, 45.0, *(rng.uniform(-400, 400) for _ in range(200))]
    for height, width in ((20, 20), (20, 31)):
        for angle in angles:
            pixels = noise(height, width)
            want = np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BICUBIC, fillcolor=(9, 8, 7)))
            found = run(Step("rotate", 0.0, resample="bicubic", fill=(9, 8, 7)), angle, Image.fromarray(pixels))
            assert_pixels_equal(found, want, angle)


def test_gray_views_are_filled_with_the_colours_luma() -> None:
    recipe = dataclasses.replace(recipe_of(Step("rotate", 10.0, fill=(124, 116, 104))), channels=1, mean=0.5, std=0.5)
    luma = Image.new("RGB", (1, 1), (124, 116, 104)).convert("L").getpixel((0, 0))
    assert drawn(recipe, 1)[0, 0]["fill"].tolist() == [luma] * 3 and luma not in (124, 116, 104)


# Combining


def test_together_one_of_and_any_order() -> None:
    a, b = Step("invert"), Step("equalize", probability=0.5)
    choice = Choice(((a,), (b,)), 0.5)
    both = together([choice, a])
    assert both.options == ((a, a), (b, a), (a,)) and both.shares() == pytest.approx([0.25, 0.25, 0.5])
    assert together([a, b]) == Choice(((a, b),)) == as_choice(together([a, b]))
    assert one_of([[a, b], []], (1, 3)).shares() == [0.25, 0.75]
    assert any_order([[a], [b]]) == Choice(((a, b), (b, a)))
    with pytest.raises(ValueError, match="6 steps"):
        any_order([[a]] * 6)
    with pytest.raises(ValueError, match="5000 combinations"):
        together([Choice(((a,),) * 10)] * 4)


@pytest.mark.parametrize(
    "make,message",
    [
        (lambda: Step("smear"), "there is no step 'smear'"),
        (lambda: Step("rotate", 1.0, resample="lanczos"), "resample is 'lanczos'"),
        (lambda: Step("rotate", 1.0, fill=(1, 2)), "want three whole numbers"),  # type: ignore[arg-type]
        (lambda: Step("rotate", 1.0, fill=(0, 0, 256)), "want numbers in"),
        (lambda: Step("rotate", (1.0, 2.0, 3.0)), "is no range"),  # type: ignore[arg-type]
        (lambda: OneOf(()), "has 0 values"),
        (lambda: Choice(()), "one option or more"),
        (lambda: Choice(((),), weights=(0.0,)), "not all 0"),
        (lambda: recipe_of(Step("invert", 3.0)), "cannot have a value"),
        (lambda: recipe_of(Step("posterize")), "cannot have a value"),
        (lambda: recipe_of(Step("posterize", 9)), "in \\[9, 9\\]"),
        (lambda: recipe_of(Step("brightness", (2.0, 1.0))), "low <= high"),
        (lambda: recipe_of(Step("brightness", math.nan)), "value of op"),
        (lambda: recipe_of(Step("kernel_blur", 1.0, taps=4)), "4 taps"),
        (lambda: recipe_of(Step("quarter_turn", 1), size=(20, 30)), "square view"),
        (lambda: recipe_of(Step("invert", probability=1.5)), "no probability"),
        (lambda: recipe_of(Step("affine", recipes.Affine((0, 0), scale=(0.0, 1.0)))), "scale in"),
        (lambda: recipe_of(*[Choice(((Step("invert"),) * 61,))]), "more than 60 steps"),
    ],
)
def test_bad_steps_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_recipes_with_steps_are_printed() -> None:
    text = str(recipe_of(*recipes.timm_rand_augment("rand-m9-mstd0.5-inc1"), Step("vertical_flip", probability=0.5)))
    assert "view 0 then: 2 times 1 of 15: autocontrast p 0.5 | equalize p 0.5 | invert p 0.5 | rotate +-30" in text
    assert "view 0 then: vertical_flip p 0.5" in text and max(map(len, text.splitlines())) <= 120
    plans = drawn(recipe_of(Step("invert"), Step("shear_x", 0.25), Step("posterize", 3)), 1)
    assert recipes.describe(plans[0]) == ["invert", "affine 1 0.25 0 0 1 0", "posterize 3"]


def test_drawn_policies_are_rendered_exactly() -> None:
    policy = (*recipes.trivial_augment_wide(), *recipes.rand_augment(SIZE), *recipes.timm_auto_augment("v0-mstd0.5"))
    recipe, pixels = recipe_of(*policy), noise(70, 60)
    assert len(OPS) == len(set(OPS.values())) and plan_of(1, 1).dtype == _C.view_plan_dtype
    for record in range(25):
        check(pixels, _C.plan_views(recipe.rows(), seed=0, epoch=0, record=record, height=70, width=60,
                                    steps=recipe.step_rows()))  # fmt: skip
