"""torchvision's GaussianBlur: equal bytes to the oracle at every level, and to torchvision itself but for MKL's exp."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import _C, Recipe, ViewSpec, render_plan

from ..helpers.corpus import noise, position_coded
from ..helpers.levels import every_level
from ..helpers.plans import check, plan_of
from ..helpers.with_torch import needs_torch


pytestmark = pytest.mark.oracle


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("taps", [3, 5, 7, 9, 23])
@pytest.mark.parametrize("size", [(12, 12), (15, 40), (16, 40), (40, 13), (65, 33), (96, 96)])
def test_equal_bytes(taps: int, size: tuple[int, int]) -> None:
    """Kills: edges repeated, a separable sum alone (of noise some sums are near to a half), another order of sums;
    bytes written beyond a row, which are the next plane's where a plane is whole tiles (16 x 40)."""
    for sigma in (0.1, 0.37, 1.0, 1.7, 2.0, 30.0):
        for pixels in (noise(*size), position_coded(*size)):
            check(pixels, plan_of(*size, blur_sigma=sigma, blur_kernel=taps))


@needs_torch
def test_flat_and_extreme_areas() -> None:
    """Kills: a sum of weights above 1 that leaves the byte."""
    steps = (np.random.default_rng(1).integers(0, 2, (40, 40, 3)) * 255).astype(np.uint8)
    for pixels in (steps, np.full((40, 40, 3), 255, np.uint8), np.zeros((40, 40, 3), np.uint8)):
        for sigma in (0.2, 2.0, 1000.0):
            check(pixels, plan_of(40, 40, blur_sigma=sigma, blur_kernel=9))


@needs_torch
@pytest.mark.slow
def test_against_torchvision() -> None:
    """transforms and transforms.v2 on PIL pictures. MKL's float exp is off by one in the last place of every hundredth
    weight, which moves a value in a million by one level."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401

    from torchvision.transforms import functional, v2

    photograph = np.asarray(photographs()["flower.jpg"])
    rng = np.random.default_rng(0)
    differing, values = dict.fromkeys(_C.supported_isas(), 0), 0
    for number in range(60):
        sigma, taps, side = float(np.float32(rng.uniform(0.1, 2))), (9, 23)[number % 2], (96, 112)[number % 3 == 0]
        top, left = rng.integers(0, 200, 2)
        cut = noise(side, side, number) if number % 4 == 0 else photograph[top : top + side, left : left + side]
        pixels = np.ascontiguousarray(cut)
        plan = plan_of(side, side, blur_sigma=sigma, blur_kernel=taps)
        theirs = [np.asarray(module.gaussian_blur(Image.fromarray(pixels), [taps, taps], [sigma, sigma]))
                  for module in (functional, v2.functional)]  # fmt: skip
        for level in every_level():
            ours = render_plan(pixels, plan)[0].astype(int)
            for their in theirs:
                assert np.abs(ours - their).max() <= 1, level
                differing[level] += int((ours != their).sum())
        values += 2 * pixels.size
    assert max(differing.values()) <= values // 100_000


def test_refused() -> None:
    for taps, message in ((8, "odd number"), (1, "odd number"), (23, "too small")):
        with pytest.raises(ValueError, match=message):
            render_plan(noise(11, 11), plan_of(11, 11, blur_sigma=1.0, blur_kernel=taps))
        with pytest.raises(ValueError, match=message):
            Recipe("bad", (ViewSpec(11, blur=0.5, blur_kernel=taps),))
    Recipe("no blur", (ViewSpec(11, blur_kernel=23),))
