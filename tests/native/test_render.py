"""render_plan against Pillow executing the same plan: equal bytes at every instruction-set level (`check`)."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import _C, recipes, render_plan
from pass_loader.recipes import reference

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import every_colour, noise, position_coded
from ..helpers.levels import every_level
from ..helpers.plans import check, plan_of
from ..helpers.trials import drawn, trials
from ..helpers.with_torch import needs_torch, torch


pytestmark = pytest.mark.oracle


def marks(name: str) -> list[pytest.MarkDecorator]:
    """The oracle makes torchvision's blur with torch."""
    with_kernel = any(view.blur_kernel for view in recipes.PRESETS[name]().views)
    return [pytest.mark.slow, *([needs_torch] if with_kernel else [])]


SLOW = [pytest.param(name, marks=marks(name)) for name in sorted(recipes.PRESETS) if name != "dino"]


@pytest.mark.parametrize("name", ["dino", *SLOW])
def test_presets_on_photographs(name: str) -> None:
    for number, photograph in enumerate(photographs().values()):
        pixels = np.asarray(photograph)
        recipe = recipes.PRESETS[name]()
        for epoch in range(trials(6, 60)):
            plans = _C.plan_views(recipe.rows(), seed=number, epoch=epoch, record=7, height=427, width=640)
            check(pixels, plans)


@pytest.mark.slow
@pytest.mark.parametrize("pillow", [12, 13])
def test_each_pillows_order_of_passes(pillow: int) -> None:
    """Kills: one order for all; the reference does the other Pillow's by two resizes of one axis."""
    recipe = dataclasses.replace(recipes.dino(), pillow=pillow)
    photograph = photographs()["flower.jpg"].transpose(Image.Transpose.ROTATE_90)
    for epoch in range(12):
        plans = _C.plan_views(recipe.rows(), seed=3, epoch=epoch, record=1, height=640, width=427)
        check(np.asarray(photograph), plans)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", [2, 3])
@pytest.mark.parametrize(
    "size,out",
    [((1, 1), (5, 7)), ((3, 5), (224, 224)), ((40, 1), (9, 9)), ((1, 40), (9, 9)), ((97, 89), (96, 96)),
     ((300, 17), (33, 65)), ((17, 300), (65, 33)), ((64, 64), (1, 1)), ((501, 499), (31, 224)), ((700, 5), (2, 5)),
     ((90, 70), (64, 33))],
)  # fmt: skip
def test_resize_of_odd_sizes(size: tuple[int, int], out: tuple[int, int], interpolation: int) -> None:
    """Kills: swapped height and width, tails of rows, blocks and tiles that are not whole."""
    for pixels in (position_coded(*size), noise(*size)):
        for flip in (False, True):
            check(
                pixels,
                plan_of(*size, resize_height=out[0], resize_width=out[1], interpolation=interpolation, flip=flip),
            )


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", [2, 3])
def test_every_scale(interpolation: int) -> None:
    """Kills: a limit of taps or of bytes spanned that is off, where one kernel hands over to another."""
    for width in (*range(90, 130, 3), *range(200, 1100, 37)):
        check(noise(33, width), plan_of(33, width, resize_height=32, resize_width=96, interpolation=interpolation))


def test_large_picture() -> None:
    pixels = noise(1500, 2300)
    check(pixels, plan_of(1500, 2300, resize_height=224, resize_width=224, interpolation=3))
    check(pixels, plan_of(1500, 2300, resize_height=96, resize_width=96, interpolation=2, flip=True))


def test_window_and_via() -> None:
    """The evaluation fields: a centre window of the resized picture, and a first resize on the way."""
    pixels, tall = noise(120, 90), noise(400, 90)  # the tall one, as Pillow 13 has it, by its vertical pass first
    window = {"resize_height": 80, "resize_width": 60, "offset_y": 13, "offset_x": 7, "out_height": 41, "out_width": 37}
    for flip in (False, True):
        check(pixels, plan_of(120, 90, interpolation=3, flip=flip, **window))
        check(tall, plan_of(400, 90, interpolation=3, flip=flip, resize_order=0, **window))
        check(pixels, plan_of(120, 90, interpolation=3, flip=flip, via_height=50, via_width=130, **window))


@pytest.mark.parametrize("step,field", list(enumerate(["brightness", "contrast", "saturation"])))
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.6, 1.0, 1.0000001, 1.37, 1.8, 3.5, -0.5, 1000.0, -1000.0])
def test_blends(step: int, field: str, factor: float) -> None:
    """Kills: fused multiply-add, rounding in place of truncation, a mean in float32."""
    for pixels in (noise(50, 37), position_coded(65, 64)):
        check(pixels, plan_of(*pixels.shape[:2], jitter_order=[step, -1, -1, -1], **{field: factor}))


LONG = [pytest.param(shift, marks=pytest.mark.long) for shift in (0, 128, 211, -0.1, 0.5)]


def test_blends_that_rounding_once_would_miss() -> None:
    """Contrast of a gray ramp, with factors for which factor * pixel + offset is another byte (cpu/jitter.cpp)."""
    pixels = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (3, 1, 3))
    mean, ramp = np.float32(128), np.arange(256, dtype=np.float32)
    missed = 0
    for factor in np.random.default_rng(5).uniform(0.2, 1.8, 40_000).astype(np.float32):
        offset = np.float32(float(mean) - float(factor) * float(mean))
        once = (ramp.astype(np.float64) * factor + offset).astype(np.float32)
        differs = (np.trunc(mean + factor * (ramp - mean)) != np.trunc(once)) & (once > 0) & (once < 255)
        if differs.any():
            missed += 1
            check(pixels, plan_of(3, 256, jitter_order=[1, -1, -1, -1], contrast=factor))
    assert missed > 5


@pytest.mark.slow
@pytest.mark.parametrize("shift", [17, -3 / 255, 0.1, -0.5, *LONG])
def test_hue_on_every_colour(shift: float) -> None:
    """All 2^24 colours in one picture. Kills: a hue byte of one quotient that Pillow rounds down (hue.cpp)."""
    turns = shift / 255 if shift > 1 else shift
    turns = turns - 1 if turns > 0.5 else turns
    pixels = every_colour()
    plan = plan_of(4096, 4096, jitter_order=[3, -1, -1, -1], hue=turns)
    want = reference.render(Image.fromarray(pixels), plan[0])
    for level in every_level():
        assert np.array_equal(render_plan(pixels, plan)[0], want), level


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [{"grayscale": True}, {"jitter_order": [2, -1, -1, -1], "saturation": 1.3}],
    ids=["grayscale", "saturation"],
)
def test_luma_of_every_colour(fields: dict[str, object]) -> None:
    """Kills: a rounding constant of luma that is off by one, which 256 colours show."""
    check(every_colour(), plan_of(4096, 4096, **fields))


def test_every_order_of_steps() -> None:
    pixels = noise(31, 33)
    factors = {"brightness": 1.3, "contrast": 0.7, "saturation": 1.4, "hue": 0.07}
    for order in itertools.permutations(range(4)):
        check(pixels, plan_of(31, 33, jitter_order=list(order), grayscale=sum(order[:2]) == 3, **factors))


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.1000001, 0.5, 0.99, 1.0, 1.2247, 1.7, 2.0, 3.3, 10.0, 47.0])
def test_blur(sigma: float) -> None:
    """Kills: a radius in double, edges that are not repeated, a box that leaves a narrow picture."""
    for height, width in ((1, 1), (2, 40), (40, 2), (96, 96), (65, 33), (224, 224)):
        check(noise(height, width), plan_of(height, width, blur_sigma=sigma))


@pytest.mark.parametrize("threshold", [0, 1, 127, 128, 255, 256])
def test_solarize(threshold: int) -> None:
    check(noise(20, 77), plan_of(20, 77, solarize_threshold=threshold))


@st.composite
def plans(draw: st.DrawFn, height: int, width: int) -> np.ndarray:
    w, h = draw(st.integers(1, width)), draw(st.integers(1, height))
    unit = st.floats(0, 1, width=32)
    return plan_of(
        h, w,
        crop_x=draw(st.integers(0, width - w)), crop_y=draw(st.integers(0, height - h)),
        resize_height=draw(st.integers(1, 70)), resize_width=draw(st.integers(1, 70)),
        interpolation=draw(st.sampled_from([2, 3])), flip=draw(st.booleans()),
        resize_order=draw(st.sampled_from([0, 1])),
        jitter_order=draw(st.permutations([0, 1, 2, 3])), brightness=2 * draw(unit), contrast=2 * draw(unit),
        saturation=2 * draw(unit), hue=draw(unit) - 0.5, grayscale=draw(st.booleans()),
        blur_sigma=draw(st.sampled_from([0, 0.3, 1.1, 2.0])), solarize_threshold=draw(st.sampled_from([-1, 128])),
    )  # fmt: skip


@pytest.mark.slow
@drawn(150, 10_000)
@given(data=st.data())
def test_any_plan(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    check(noise(height, width), data.draw(plans(height, width)))


@needs_torch
def test_normalize_equals_torchvision() -> None:
    """Kills: x * (1 / 255), a multiply-add in place of minus and divide."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401

    from torchvision import transforms

    pixels = noise(16, 16)
    for preset in recipes.PRESETS.values():
        recipe = preset()
        steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(recipe.mean, recipe.std)])
        want = steps(Image.fromarray(pixels))
        table = recipe.normalize_table()
        ours = np.stack([table[c][pixels[:, :, c]] for c in range(3)])
        assert torch.equal(torch.from_numpy(ours), want)
        assert np.array_equal(reference.normalize(pixels, recipe), want.numpy())


@needs_torch
def test_steps_equal_torchvisions_functional_ops() -> None:
    """The reference itself, against the functions that the official transforms call."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401

    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    pixels = noise(120, 90)
    picture = Image.fromarray(pixels)
    factors = {"brightness": 1.3, "contrast": 0.7, "saturation": 1.4, "hue": -0.07}
    row = plan_of(100, 70, crop_x=11, crop_y=9, resize_height=64, resize_width=64, interpolation=3, flip=True,
                  jitter_order=[2, 0, 3, 1], grayscale=False, solarize_threshold=128, **factors)  # fmt: skip
    want = F.hflip(F.resized_crop(picture, 9, 11, 100, 70, [64, 64], InterpolationMode.BICUBIC))
    adjust = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    for step in (2, 0, 3, 1):
        name = ["brightness", "contrast", "saturation", "hue"][step]
        want = adjust[step](want, float(row[name][0]))
    assert_pixels_equal(render_plan(pixels, row)[0], np.asarray(F.solarize(want, 128)))
    gray = plan_of(120, 90, grayscale=True)
    assert_pixels_equal(render_plan(pixels, gray)[0], np.asarray(F.to_grayscale(picture, 3)))
