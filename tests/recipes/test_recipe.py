"""Recipes can be printed, overridden and pickled; a bad one is refused when it is made."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from pass_loader import Recipe, ViewSpec, recipes


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
        ({"interpolation": "sinc"}, "want one of nearest, lanczos, bilinear"),
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
