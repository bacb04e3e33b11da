"""Where a view's pixels come from, beside a random crop: evaluation, shared boxes, a resize on the way."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pass_loader import _C, Recipe, ViewSpec, recipes, render_plan

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import position_coded
from ..helpers.levels import every_level
from ..helpers.plans import draw
from ..helpers.with_torch import needs_torch


@needs_torch
@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("size", [(375, 500), (500, 375), (256, 256), (31, 33), (300, 17), (257, 999), (1000, 1)])
@pytest.mark.parametrize("short,cut", [(256, 224), (64, 33), (17, 17)])
def test_evaluation_is_resize_and_centre_crop(size: tuple[int, int], short: int, cut: int) -> None:
    """Kills: a rounded long side (torchvision truncates), halves rounded up, swapped sides."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401

    from torchvision import transforms
    from torchvision.transforms import InterpolationMode

    pixels = position_coded(*size)
    for name in ("bilinear", "bicubic"):
        recipe = Recipe("eval", (ViewSpec(cut, resize_short=short, interpolation=name, flip=0.0),))
        plan = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=0, height=size[0], width=size[1])
        steps = [transforms.Resize(short, InterpolationMode(name)), transforms.CenterCrop(cut)]
        want = np.asarray(transforms.Compose(steps)(Image.fromarray(pixels)))
        for level in every_level():
            assert_pixels_equal(render_plan(pixels, plan)[0], want, (name, level))


def test_evaluation_of_a_thin_picture() -> None:
    plan = draw(Recipe("eval", (ViewSpec(224, resize_short=256),)), 1, 65_500, 1)[0]
    assert plan["resize_height"][0] == 256 * 65_500 and plan["resize_width"][0] == 256


def test_shared_boxes() -> None:
    """Box and flip are the other view's; whatever else is drawn is the view's own."""
    first = ViewSpec(64, (0.3, 1.0), jitter=1.0, brightness=(0.5, 1.5))
    views = (first, ViewSpec(48, (0.1, 0.2), flip=0.0, jitter=1.0, brightness=(0.5, 1.5), box_of=0), first)
    plans = draw(Recipe("shared", views), 200)
    for name in ("crop_x", "crop_y", "crop_width", "crop_height", "flip"):
        assert np.array_equal(plans[:, 0][name], plans[:, 1][name]), name
    assert not np.array_equal(plans[:, 0]["brightness"], plans[:, 1]["brightness"])
    alone = draw(Recipe("alone", (first, ViewSpec(48), first)), 200)
    assert np.array_equal(plans[:, 0], alone[:, 0]) and np.array_equal(plans[:, 2], alone[:, 2])
    assert set(plans[:, 1]["resize_height"]) == {48}


def test_via_is_in_the_plan() -> None:
    plans = draw(Recipe("via", (ViewSpec(64, via=128), ViewSpec(64, via=(96, 80)), ViewSpec(64))), 3)
    assert plans["via_height"].tolist() == [[128, 96, 0]] * 3 and plans["via_width"].tolist() == [[128, 80, 0]] * 3


@pytest.mark.parametrize(
    "views,message",
    [
        ((ViewSpec(64, box_of=0),), "view 0: box_of is 0, want the number of an earlier view"),
        ((ViewSpec(64), ViewSpec(64, box_of=-2)), "view 1: box_of is -2"),
        ((ViewSpec(64, resize_short=63),), "view 0: resize_short is 63"),
        ((ViewSpec(64, resize_short=80, via=70),), "give one of them"),
        ((ViewSpec(64, resize_short=80), ViewSpec(64, box_of=0)), "there is none"),
        ((ViewSpec(64, via=20_000),), "view 0: via is 20000"),
    ],
)
def test_refused(views: tuple[ViewSpec, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe("bad", views)


def test_a_first_resize_has_two_sides() -> None:
    with pytest.raises(ValueError, match=r"via is \(1, 2, 3\), want whole pixels"):
        ViewSpec(64, via=(1, 2, 3))  # type: ignore[arg-type]


def test_unusual_fields_are_printed_where_they_are_used() -> None:
    assert "via" not in str(recipes.dino()) and "blur_kernel" not in str(recipes.dino())
    text = str(Recipe("via", (ViewSpec(64, via=128, blur_kernel=9), ViewSpec(64, box_of=0))))
    text = " ".join(text.split())
    assert "via 128 -" in text and "blur_kernel 9 0" in text and "box_of - 0" in text
