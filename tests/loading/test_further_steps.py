"""Further steps in the loader: saved states know of them, replay brings them back, and who cannot have them says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pass_loader import ConcatDataset, DataLoader, Recipe, ShardDataset, ViewSpec, recipes
from pass_loader.gpu.batches import check_samples
from pass_loader.recipes import Step


RECIPE = Recipe("further", (ViewSpec(32, then=recipes.timm_rand_augment("rand-m9-mstd0.5-inc1")),) * 2)


def loader_of(pack: Path, recipe: Recipe = RECIPE) -> DataLoader:
    return DataLoader(ShardDataset(pack, recipe, seed=3), batch_size=4, shuffle=True, num_workers=2, return_plan=True)


def test_states_bring_the_steps_back(pack: Path) -> None:
    """Kills: a state that does not know of further steps."""
    loader = loader_of(pack)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    views, _, plans = next(batches)
    again = loader_of(pack)
    again.load_state_dict(state)
    found, _, theirs = next(iter(again))
    assert all(np.array_equal(one, two) for one, two in zip(views, found)) and (plans["steps"]["op"] > 0).any()
    assert np.array_equal(plans.view(np.uint8), theirs.view(np.uint8))
    for other in (RECIPE.override(then=()), RECIPE.override(then=(Step("invert"),))):
        with pytest.raises(ValueError, match="recipe"):
            loader_of(pack, other).load_state_dict(state)


def test_datasets_of_other_steps_do_not_go_together(pack: Path) -> None:
    first, second = (ShardDataset(pack, recipe) for recipe in (RECIPE, RECIPE.override(views=[1], then=())))
    with pytest.raises(ValueError, match="other recipes"):
        ConcatDataset([first, second])


def test_a_gpu_refuses_alternatives_and_means_of_views(pack: Path) -> None:
    either = ViewSpec(32, alternatives=((ViewSpec(32), 0.5),))
    for view, message in ((either, "views with alternatives"), (ViewSpec(32, mean=0.5), "differ between views")):
        with pytest.raises(ValueError, match=message):
            check_samples(ShardDataset(pack, Recipe("one", (view,))))


def test_states_know_of_alternatives_and_means(pack: Path) -> None:
    """Kills: a state that another alternative, its probability or a view's mean may go on from."""
    either = Recipe("either", (ViewSpec(32, alternatives=((ViewSpec(32, flip=0.0), 0.5),)),) * 2)
    state = loader_of(pack, either).state_dict()
    loader_of(pack, either).load_state_dict(state)
    for fields in ({"alternatives": ((ViewSpec(32, flip=0.1), 0.5),)}, {"mean": 0.5}, {"before": (Step("invert"),)},
                   {"alternatives": ((ViewSpec(32, flip=0.0), 0.6),)}):  # fmt: skip
        with pytest.raises(ValueError, match="recipe"):
            loader_of(pack, either.override(**fields)).load_state_dict(state)
    other = ShardDataset(pack, either.override(mean=0.5))
    with pytest.raises(ValueError, match="other recipes"):
        ConcatDataset([ShardDataset(pack, either), other])


def test_a_gpu_and_heatmaps_refuse_them(pack: Path) -> None:
    with pytest.raises(
        ValueError, match=r"steps \(autocontrast, equalize, .*\): rendered on the CPU alone; take device='cpu'"
    ):
        check_samples(ShardDataset(pack, RECIPE))
    with pytest.raises(ValueError, match="then: a heatmap goes with a view"):
        Recipe("maps", (ViewSpec(32, then=(Step("invert"),)),), batch="view_heatmap_labels")
