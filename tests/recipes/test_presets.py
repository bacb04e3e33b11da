"""Presets have the official numbers, read off the code that presets.py cites."""

from __future__ import annotations

import pytest

from pass_loader import ViewSpec, recipes


def numbers(view: ViewSpec) -> tuple[object, ...]:
    return (view.size, view.scale, view.interpolation, view.flip, view.jitter, view.grayscale, view.blur, view.solarize)


def test_dino() -> None:
    recipe = recipes.dino()
    assert [numbers(v) for v in recipe.views] == [
        (224, (0.4, 1.0), "bicubic", 0.5, 0.8, 0.2, 1.0, 0.0),
        (224, (0.4, 1.0), "bicubic", 0.5, 0.8, 0.2, 0.1, 0.2),
    ] + [(96, (0.05, 0.4), "bicubic", 0.5, 0.8, 0.2, 0.5, 0.0)] * 8
    for view in recipe.views:
        assert view.brightness == view.contrast == (0.6, 1.4)
        assert view.saturation == (0.8, 1.2) and view.hue == (-0.1, 0.1)
        assert view.blur_sigma == (0.1, 2.0) and view.solarize_threshold == 128
    assert (recipe.mean, recipe.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert recipe.batch == "views_labels"
    assert len(recipes.dino(local_crops=10, global_scale=(0.25, 1), local_scale=(0.05, 0.25)).views) == 12


def test_swav() -> None:
    recipe = recipes.swav()
    assert [numbers(v) for v in recipe.views] == [(224, (0.14, 1.0), "bilinear", 0.5, 0.8, 0.2, 0.5, 0.0)] * 2 + [
        (96, (0.05, 0.14), "bilinear", 0.5, 0.8, 0.2, 0.5, 0.0)
    ] * 6
    for view in recipe.views:
        assert view.brightness == view.contrast == view.saturation == pytest.approx((0.2, 1.8))
        assert view.hue == (-0.2, 0.2)
    assert recipe.std == (0.228, 0.224, 0.225)
    assert recipe.batch == "views"


def test_mocov2() -> None:
    recipe = recipes.mocov2()
    assert [numbers(v) for v in recipe.views] == [(224, (0.2, 1.0), "bilinear", 0.5, 0.8, 0.2, 0.5, 0.0)] * 2
    assert recipe.views[0].saturation == (0.6, 1.4) and recipe.views[0].hue == (-0.1, 0.1)
    assert recipe.batch == "views_labels"
