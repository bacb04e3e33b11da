"""Steps before the crop, alternatives of a view, mean and std of a view: against Pillow, at every level, in batches."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pass_loader import Recipe, Samples, ViewSpec, _C, recipes, render_plan
from pass_loader.pack import build
from pass_loader.recipes import Choice, Step, reference

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import jpeg, noise, position_coded
from ..helpers.plans import check, plan_of, with_steps
from ..helpers.trees import write_tree
from ..helpers.with_torch import DataLoader, ShardDataset, needs_torch

pytestmark = pytest.mark.oracle
BEFORE: list[dict[str, object]] = [
    {"op": "brightness", "factor": 0.6}, {"op": "contrast", "factor": 1.7}, {"op": "saturation", "factor": 0.3},
    {"op": "hue", "factor": 0.2}, {"op": "grayscale"}, {"op": "blur", "factor": 1.3}, {"op": "flip"},
    {"op": "equalize"}, {"op": "sharpness", "factor": 1.9}, {"op": "solarize", "level": 77},
    {"op": "quarter_turn", "level": 2},
    {"op": "affine", "matrix": [0.9, 0.2, 3, -0.2, 0.9, 4], "resample": 3, "fill": (124, 116, 104)},
    {"op": "affine", "matrix": [1, 0.3, 0, 0, 1, 0], "resample": 2, "fill": (9, 9, 9)},
    {"op": "perspective", "matrix": [0.9, 0, 2, 0.1, 1, 0, 1e-4, 1e-4], "resample": 0},
]  # fmt: skip


def cropped(**fields: object) -> np.ndarray:
    return plan_of(61, 83, crop_x=11, crop_y=9, resize_height=40, resize_width=32, **fields)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(70, 94), (131, 95), (200, 333)])
def test_each_step(size: tuple[int, int]) -> None:
    """Kills: a step that works on the view, on the crop, or on the picture of the view before it."""
    for pixels in (noise(*size), position_coded(*size)):
        rows = [with_steps(cropped(), {**step, "before": True}) for step in BEFORE]
        check(pixels, np.concatenate(rows))
        gray = np.ascontiguousarray(pixels[:, :, :1])
        for row, step in zip(rows, BEFORE):
            if np.ptp(step.get("fill", 0)) == 0:
                want = reference.render(Image.fromarray(gray[:, :, 0]), row[0])
                assert_pixels_equal(render_plan(gray, row)[0], want, step)


def test_before_and_after() -> None:
    """Kills: all steps before the crop, all after it, another order, a picture that the next view gets changed."""
    first, second = ({**step, "before": True} for step in (BEFORE[11], BEFORE[1]))
    row = with_steps(cropped(flip=True, jitter_order=[2, 0, -1, -1], saturation=0.3, brightness=1.4), first, second,
                     BEFORE[7], BEFORE[8])  # fmt: skip
    plain = with_steps(cropped(), *[{"op": "none"}] * 4)
    check(position_coded(90, 120), np.concatenate([row, plain, row]))


@pytest.mark.parametrize(
    "steps,message",
    [
        ([{"op": "invert"}, {"op": "invert", "before": True}], "follows one that is not before it"),
        ([{"op": "erase", "before": True}], "op 19, which is of the view"),
        ([{"op": "kernel_blur", "before": True, "level": 3, "factor": 1}], "op 14, which is of the view"),
        ([{"op": "quarter_turn", "before": True, "level": 1}], "needs a square view"),
    ],
)
def test_hostile_plans_are_refused(steps: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_plan(noise(80, 100), with_steps(cropped(), *steps))


def test_refused_in_recipes() -> None:
    for step in (Step("kernel_blur", 1.0, taps=3), Step("quarter_turn", 2), recipes.random_erasing(1.0)[0]):
        with pytest.raises(ValueError, match="cannot stand there"):
            Recipe("no", (ViewSpec(32, before=(step,)),))
    for fields, message in (
        ({"alternatives": ((ViewSpec(16), 0.5),)}, "both want one size"),
        ({"alternatives": ((ViewSpec(32), 0.7), (ViewSpec(32), 0.7))}, "exceed 1"),
        ({"alternatives": ((ViewSpec(32), -0.1),)}, "want .0, 1."),
        ({"alternatives": ((ViewSpec(32, alternatives=((ViewSpec(32), 0.5),)), 0.5),)}, "these are of the view"),
        ({"alternatives": ((ViewSpec(32, mean=0.5), 0.5),)}, "these are of the view"),
        ({"decided_with": 0}, "decided_with wants an earlier view with as many alternatives"),
        ({"mean": (0.1, 0.2)}, "want as many as channels"),
        ({"std": 0.0}, "std above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Recipe("no", (ViewSpec(32), ViewSpec(32, **fields)))  # type: ignore[arg-type]
    either = ViewSpec(32, alternatives=((ViewSpec(32), 0.5),))
    with pytest.raises(ValueError, match="neither view may have alternatives"):
        Recipe("no", (either, ViewSpec(32, box_of=0)))
    with pytest.raises(ValueError, match="the same steps before the crop"):
        Recipe("no", (ViewSpec(32), ViewSpec(32, box_of=0, before=(Step("invert"),))))


WEAK = ViewSpec(32, (0.3, 0.9), flip=0.5, solarize=0.3)
FIRST = ViewSpec(
    32, (0.2, 0.5), flip=0.1, before=(Step("invert", probability=0.5),), then=(Step("rotate", (5.0, 9.0)),)
)
SECOND = dataclasses.replace(WEAK, grayscale=1.0)
EITHER = dataclasses.replace(WEAK, alternatives=((FIRST, 0.3), (SECOND, 0.2)))
RECIPE = Recipe("either", (WEAK, EITHER, dataclasses.replace(EITHER, decided_with=1), EITHER))


def plans_of(recipe: Recipe, record: int) -> np.ndarray:
    return _C.plan_views(recipe.rows(), seed=1, epoch=2, record=record, height=90, width=120, steps=recipe.step_rows())


def drawn(recipe: Recipe, count: int) -> np.ndarray:
    keys = np.arange(count), np.zeros(count, np.uint32), np.full(count, 2, np.uint32)
    return _C.drawn_alternatives(recipe.rows(), 1, *keys)


def test_alternatives_are_drawn() -> None:
    """Kills: a choice of its own where it is decided with another view, bounds that are not summed up."""
    found = drawn(RECIPE, 4000)
    assert not found[:, 0].any() and np.array_equal(found[:, 1], found[:, 2])
    for column in (found[:, 1], found[:, 3]):
        for number, share in enumerate((0.5, 0.3, 0.2)):
            assert abs((column == number).mean() - share) < 5 * math.sqrt(share * (1 - share) / 4000)
    both = ((found[:, 1] == 1) & (found[:, 3] == 1)).mean()
    assert abs(both - 0.09) < 0.025, "two views choose each for itself"


def test_a_chosen_spec_is_planned_as_if_it_were_the_views_own() -> None:
    """Kills: the alternative's steps with the view's own spec, another view's keys, steps of the wrong row."""
    alone = [dataclasses.replace(RECIPE, views=(WEAK, *[spec] * 3)) for spec in (WEAK, FIRST, SECOND)]
    chosen = drawn(RECIPE, 60)
    for record in range(60):
        found = plans_of(RECIPE, record)
        for view, number in enumerate(chosen[record]):
            want = plans_of(alone[number], record)[view]
            for name in want.dtype.names or ():
                if name != "steps":
                    assert np.array_equal(found[view][name], want[name]), (record, view, name)
            steps = want["steps"] if "steps" in (want.dtype.names or ()) else np.zeros(0, _C.step_plan_dtype)
            assert found[view]["steps"][: len(steps)].tobytes() == steps.tobytes()


def test_recipes_without_them_are_as_before() -> None:
    """The bytes of rows end with the paddings, so that saved states hold. Kills: new fields in every row's bytes."""
    assert len(recipes.dino().row_bytes()) == 10 * 184
    assert len(recipes.deit3(simple_crop=True).row_bytes()) == 208
    assert len(RECIPE.row_bytes()) == 10 * 224


def test_views_of_one_box_share_what_is_before() -> None:
    recipe = recipes.beit()
    for record in range(40):
        plans = plans_of(recipe, record)
        assert plans["steps"][0].tobytes() == plans["steps"][1].tobytes() and plans["steps"]["before"].any()
        assert plans[0]["crop_x"] == plans[1]["crop_x"]


def test_printed() -> None:
    text = str(RECIPE)
    heads = ["view", "0", "1", "1 p 0.3", "1 p 0.2", "2"]
    assert re.split("  +", text.splitlines()[1])[:6] == heads and "view 1 p 0.3 before the crop: invert p 0.5" in text
    assert "decided_with" in text and "mean" not in text.splitlines()[1]
    plan = next(
        plan for plan in map(lambda record: plans_of(RECIPE, record), range(99)) if plan["steps"]["before"].any()
    )
    shown = [word for steps in plan["steps"] for word in recipes.describe(steps)]
    assert "invert before the crop" in shown


@pytest.fixture(scope="module")
def mixed_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    files = {f"a/{n}.jpg": jpeg(noise(70, 90, n), mode="L" if n % 2 else "RGB") for n in range(4)}
    write_tree(folder / "tree", files)
    build([folder / "tree"], folder / "pack")
    return folder / "pack"


def norms(view: ViewSpec, number: int) -> ViewSpec:
    return dataclasses.replace(view, mean=0.1 * number, std=(0.5, 0.25 + number, 1.0))


@needs_torch
@pytest.mark.parametrize("which", ["mugs", "beit", "either"])
def test_batches_and_replay(mixed_pack: Path, which: str) -> None:
    """Kills: the first view's mean for all, steps on the picture that the next view gets, flags of another view."""
    recipe: Any = {
        "mugs": recipes.mugs(local_crops=2), "beit": recipes.beit(second_size=32),
        "either": dataclasses.replace(RECIPE, views=tuple(norms(view, n) for n, view in enumerate(RECIPE.views))),
    }[which]  # fmt: skip
    dataset = ShardDataset(mixed_pack, recipe, seed=5)
    for epoch in range(3):
        loader = DataLoader(dataset, batch_size=4, num_workers=2, return_info=True)
        loader.sampler.set_epoch(epoch)
        (batch,) = loader
        info, views = batch[-1], batch[0][:2] if which == "beit" else batch[0]
        choices = _C.drawn_alternatives(recipe.rows(), 5, info["records"].numpy(), np.zeros(4, np.uint32),
                                        np.full(4, epoch, np.uint32))  # fmt: skip
        if which == "mugs":
            assert batch[1].tolist() == (choices[:, 2] == 0).tolist()
        for slot, record in enumerate(info["records"].tolist()):
            plan = dataset.plan(record, epoch)
            assert np.array_equal(info["plans"][slot].view(np.uint8), plan.view(np.uint8))
            picture = reference.decode(dataset.read(record))
            for number, row in enumerate(plan):
                pixels = reference.render(picture, row)
                assert_pixels_equal(dataset.render(record, epoch)[number], pixels, (record, number))
                want = reference.erase(reference.normalize(pixels, recipe, number), row)
                assert np.array_equal(views[number][slot].numpy(), want)
                assert np.array_equal(dataset.sample(record, epoch)[number].numpy(), want)


def test_keys_of_alternatives_have_their_own_slot(mixed_pack: Path) -> None:
    """A probability changes which spec is taken, and no number of a spec."""
    other = dataclasses.replace(EITHER, alternatives=((FIRST, 1.0),))
    one, two = (Samples(mixed_pack, Recipe("r", (view,)), seed=1) for view in (FIRST, other))
    for epoch in range(20):
        assert np.array_equal(one.plan(0, epoch).view(np.uint8), two.plan(0, epoch).view(np.uint8))


def test_choices_before_the_crop() -> None:
    """Groups before the crop have keys of their own. Kills: the first group's for both."""
    same = Choice(((Step("invert"),), (Step("equalize"),)))
    recipe = Recipe("both", (ViewSpec(32, before=(same,), then=(same,)),))
    pairs = {tuple(plans_of(recipe, record)["steps"][0]["op"].tolist()) for record in range(40)}
    assert pairs == {(a, b) for a in (2, 3) for b in (2, 3)}
