"""Presets have the official numbers, read off the code that recipes.py cites; recipes can be printed, overridden."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from pass_loader import Recipe, ViewSpec, recipes


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


def test_recipes_are_values() -> None:
    recipe = recipes.dino()
    assert recipe == recipes.dino() and hash(recipe) == hash(recipes.dino())
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "x"  # type: ignore[misc]
    changed = recipe.override(views=[1], solarize=0.0)
    assert changed.views[1].solarize == 0.0 and changed.views[0] == recipe.views[0]
    assert recipe.override(flip=0.0).views[5].flip == 0.0
    text = str(recipe)
    assert "2-9" in text and "main_dino.py" in text and "0.485 0.456 0.406" in text and "Pillow" in text


@pytest.mark.parametrize(
    "change,message",
    [
        ({"scale": (0.5, 0.4)}, "view 0: scale"),
        ({"scale": (-0.1, 1.0)}, "view 0: scale"),
        ({"ratio": (0.0, 1.0)}, "view 0: ratio"),
        ({"size": 0}, "view 0: size is 0 x 0"),
        ({"size": (96, 20_000)}, "view 0: size is 96 x 20000"),
        ({"flip": 1.5}, "flip probability is 1.5"),
        ({"blur": float("nan")}, "blur probability"),
        ({"hue": (-0.6, 0.1)}, "view 0: hue"),
        ({"blur_sigma": (0.1, 5000.0)}, "view 0: blur sigma"),
        ({"solarize_threshold": 300}, "threshold"),
        ({"interpolation": "nearest"}, "want 'bilinear' or 'bicubic'"),
    ],
)
def test_bad_views_are_refused_at_once(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipes.mocov2().override(**change)


def test_bad_recipes_are_refused() -> None:
    view = ViewSpec(96, (0.1, 1.0))
    for arguments, message in (
        ({"views": ()}, "0 views"),
        ({"views": (view,) * 257}, "257 views"),
        ({"views": (view,), "std": (0.1, 0.0, 0.1)}, "std"),
        ({"views": (view,), "batch": "tuple"}, "batch is 'tuple'"),
        ({"views": (view,), "pillow": 9}, "pillow is 9"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe("bad", **arguments)  # type: ignore[arg-type]


def test_normalize_table_is_torchs_arithmetic() -> None:
    for preset in recipes.PRESETS.values():
        recipe = preset()
        scaled = torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255)
        want = [(scaled.clone().sub_(torch.tensor(m)).div_(torch.tensor(s))) for m, s in zip(recipe.mean, recipe.std)]
        assert np.array_equal(recipe.normalize_table(), torch.stack(want).numpy())
