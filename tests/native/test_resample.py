"""Pillow's order of the two resize passes, found by experiment, is the rule we have for the installed Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import render_plan

from ..helpers.corpus import noise
from ..helpers.plans import plan_of


pytestmark = pytest.mark.oracle


def pillows_order(pixels: np.ndarray, height: int, width: int) -> str:
    """Which of two resizes of one axis each gives what one resize of both gives; "" where both do."""
    picture = Image.fromarray(pixels)
    want = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    horizontal = picture.resize((width, picture.height), Image.Resampling.BICUBIC)
    vertical = picture.resize((picture.width, height), Image.Resampling.BICUBIC)
    first = {
        name: np.array_equal(between.resize((width, height), Image.Resampling.BICUBIC), want)
        for name, between in (("horizontal", horizontal), ("vertical", vertical))
    }
    assert any(first.values())
    return "" if all(first.values()) else next(name for name, equal in first.items() if equal)


def test_order_of_passes() -> None:
    """Sizes on both sides of the rule's edge: rows taken away against twice the columns taken away; and tall ones."""
    rng = np.random.default_rng(2)
    seen = set()
    sizes = [(int(h), int(w), 24, 31) for h, w in zip(rng.integers(1, 120, 400), rng.integers(1, 70, 400))]
    sizes += [(40 + 2 * c + d, 31 + c, 40, 31) for c in range(-8, 25) for d in (-1, 0, 1, 2)]
    sizes += [
        (h, w, 20, w + e) for w in (1, 2, 3) for h in (100 * w - 1, 100 * w, 100 * w + 1, 260 * w) for e in (0, 5)
    ]
    for height, width, to_height, to_width in sizes:
        if height < 1:
            continue
        pixels = noise(height, width)
        order = pillows_order(pixels, to_height, to_width)
        seen.add(order)
        plan = plan_of(height, width, resize_height=to_height, resize_width=to_width, interpolation=3)
        want = np.asarray(Image.fromarray(pixels).resize((to_width, to_height), Image.Resampling.BICUBIC))
        assert np.array_equal(render_plan(pixels, plan)[0], want), (height, width, to_height, to_width, order)
    assert {"horizontal", "vertical"} <= seen


def test_the_orders_differ() -> None:
    """What the recipe's `pillow` decides: about a tenth of the values of such a view, nearly all by one level."""
    photograph = photographs()["flower.jpg"].transpose(Image.Transpose.ROTATE_90)
    pixels = np.ascontiguousarray(np.asarray(photograph)[:303, :258])
    shape = {"resize_height": 224, "resize_width": 224, "interpolation": 3}
    first, second = (render_plan(pixels, plan_of(303, 258, resize_order=order, **shape))[0] for order in (0, 1))
    difference = np.abs(first.astype(int) - second)
    assert 0.03 < (difference > 0).mean() < 0.3
    assert (difference > 1).mean() < 0.001
