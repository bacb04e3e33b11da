"""RandomErasing: the rectangles that timm draws, in every type and form of a batch."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from pass_loader import Recipe, Samples, ViewSpec, recipes
from pass_loader.pack import build
from pass_loader.recipes import Choice, Erase, Step, reference
from pass_loader.recipes.steps import OPS

from ..helpers.corpus import jpeg, noise
from ..helpers.levels import every_level
from ..helpers.plans import assert_uniform
from ..helpers.trees import write_tree
from ..helpers.with_torch import DataLoader, ShardDataset

SIZE = (48, 40)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erasing")
    write_tree(folder / "tree", {f"a/{n}.jpg": jpeg(noise(70, 90, n), mode="L" if n % 2 else "RGB") for n in range(4)})
    build([folder / "tree"], folder / "pack")
    return folder / "pack"


def recipe_of(**options: object) -> Recipe:
    view = ViewSpec(SIZE, then=recipes.random_erasing(**options))  # type: ignore[arg-type]
    return Recipe("erasing", (view,), batch="view_labels")


def drawn(pack: Path, recipe: Recipe, count: int) -> np.ndarray:
    """Return (count, K) steps of plans."""
    samples = Samples(pack, recipe, seed=1)
    return np.stack([samples.plan(0, epoch)["steps"][0] for epoch in range(count)])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_batches(pack: Path, mode: str, dtype: torch.dtype, channels: int) -> None:
    """Kills: sides or channels that are swapped, halves that are cut, noise of the rectangle before."""
    recipe = dataclasses.replace(recipe_of(probability=0.8, mode=mode, count=(1, 3), values=(0.5, -1.3, 2.0)),
                                 channels=channels, mean=(0.4,) * channels, std=(0.3,) * channels)  # fmt: skip
    dataset, last = ShardDataset(pack, recipe, seed=3), []
    for channels_last in (False, True):
        loader = DataLoader(dataset, batch_size=4, dtype=dtype, channels_last=channels_last, return_info=True)
        ((views, _, info),) = loader
        last.append(views)
        for slot, record in enumerate(info["records"].tolist()):
            plan = info["plans"][slot][0]
            want = reference.render(reference.decode(dataset.read(record), channels), plan)
            want = reference.erase(reference.normalize(want, recipe), plan)
            assert torch.equal(views[slot], torch.from_numpy(want).to(dtype))
            assert np.array_equal(dataset.sample(record, 0)[0].numpy(), want)
    assert torch.equal(*last)


def test_noise_at_every_level(pack: Path) -> None:
    """Kills: a place of a run of numbers that is left out or comes twice, tails of the other side, a word swapped."""
    view = ViewSpec(96, then=recipes.random_erasing(probability=1.0, mode="pixel", area=(0.2, 0.9)))
    dataset = ShardDataset(pack, Recipe("noise", (view,), batch="view_labels"), seed=9)
    for record in range(4):
        (plan,) = dataset.plan(record, 0)
        shown = reference.render(reference.decode(dataset.read(record)), plan)
        want = reference.erase(reference.normalize(shown, dataset.recipe), plan)
        for level in every_level():
            assert np.array_equal(dataset.sample(record, 0)[0].numpy(), want), level


def test_rectangles_are_distributed_as_timms(pack: Path) -> None:
    """Kills: a uniform aspect, swapped sides, places that leave out the last row."""
    count = 6000
    steps = drawn(pack, recipe_of(probability=1.0), count)[:, 0]
    rng, theirs = random.Random(0), []
    for _ in range(count):  # timm 1.0.31, data/random_erasing.py:70-86, in words of ours
        for _ in range(10):
            target = rng.uniform(0.02, 1 / 3) * SIZE[0] * SIZE[1]
            aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
            height, width = round(np.sqrt(target * aspect)), round(np.sqrt(target / aspect))
            if width < SIZE[1] and height < SIZE[0]:
                theirs.append((rng.randint(0, SIZE[1] - width), rng.randint(0, SIZE[0] - height), width, height))
                break
    ours, other = steps["matrix"][:, :4], np.array(theirs)
    assert len(other) == count and (steps["op"] == OPS["erase"]).all()
    for column in range(4):
        grid = np.arange(-1, 49)
        one, two = (np.searchsorted(np.sort(values[:, column]), grid, "right") / count for values in (ours, other))
        assert np.abs(one - two).max() < 0.036  # Kolmogorov and Smirnov, two samples, at 0.1 %
    assert (ours[:, 0] + ours[:, 2] <= SIZE[1]).all() and (ours[:, 0] + ours[:, 2] == SIZE[1]).any()


def test_how_often_and_how_many(pack: Path) -> None:
    steps = drawn(pack, recipe_of(probability=0.25, count=(1, 3)), 4000)
    counts = np.bincount((steps["op"] > 0).sum(1), minlength=4) / 4000
    assert np.abs(counts - (0.75, 0.25 / 3, 0.25 / 3, 0.25 / 3)).max() < 0.03
    three = steps[(steps["op"] > 0).sum(1) == 3]
    shares = three["matrix"][..., 2].mean() * three["matrix"][..., 3].mean() / (SIZE[0] * SIZE[1])
    assert 0.02 / 3 < shares < 1 / 9
    assert not (three["matrix"][:, 0] == three["matrix"][:, 1]).all(1).any()


def test_noise_is_normal_and_its_own(pack: Path) -> None:
    """Kills: noise that the views of a sample, the channels or two epochs share."""
    recipe = recipe_of(probability=1.0, mode="pixel", area=(0.5, 0.6))
    dataset = ShardDataset(pack, dataclasses.replace(recipe, views=recipe.views * 2, batch="views_labels"), seed=3)
    found = []
    for epoch in range(30):
        plans = dataset.plan(0, epoch)
        for view, tensor in zip(plans, dataset.sample(0, epoch)):
            left, top, width, height = (int(one) for one in view["steps"][0]["matrix"][:4])
            found.append(tensor[:, top : top + height, left : left + width].numpy().reshape(3, -1)[:, :500])
    noise_of = np.stack(found)
    from statistics import NormalDist

    assert_uniform(np.array([NormalDist().cdf(x) for x in noise_of[:, :, :40].ravel().tolist()]), 0.0, 1.0)
    flat = noise_of.reshape(-1, 500)
    assert np.abs(np.corrcoef(flat) - np.eye(len(flat))).max() < 0.3
    colours = drawn(pack, recipe_of(probability=1.0, mode="rand"), 1500)["matrix"][:, 0, 4:7]
    assert_uniform(np.array([NormalDist().cdf(x) for x in colours.ravel().tolist()]), 0.0, 1.0)


def test_it_moves_no_other_decision(pack: Path) -> None:
    plain = Samples(pack, Recipe("plain", (ViewSpec(SIZE),)), seed=1).plan(0, 5)
    erased = Samples(pack, recipe_of(probability=1.0), seed=1).plan(0, 5)
    assert all(np.array_equal(plain[name], erased[name]) for name in plain.dtype.names)


def test_bytes_are_not_erased(pack: Path) -> None:
    dataset = ShardDataset(pack, recipe_of(probability=0.5))
    with pytest.raises(ValueError, match="and uint8 output is not normalised: ask for float"):
        DataLoader(dataset, batch_size=2, dtype=torch.uint8)
    plan = dataset.plan(0)
    plain = plan.copy()
    plain["steps"] = 0
    assert np.array_equal(dataset.render(0)[0], reference.render(reference.decode(dataset.read(0)), plain[0]))


@pytest.mark.parametrize(
    "then,message",
    [
        ((Step("erase", Erase()), Step("invert")), "erase runs after normalisation, and group 1"),
        ((Choice(((Step("erase", Erase()), Step("invert")),)),), "erase runs after normalisation, and group 0"),
        ((Choice(((Step("erase", Erase()),), (Step("invert"),))),), "erase runs after normalisation"),
        ((Step("erase", Erase(area=(0.5, 0.2))),), "area in"),
        ((Step("erase", Erase(aspect=(0, 1))),), "aspect in"),
        ((Step("erase", 3),), "op 19 cannot have a value"),
        ((Step("invert", Erase()),), "op 3 cannot have a value"),
    ],
)
def test_refused(then: tuple[Step | Choice, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe("bad", (ViewSpec(8, then=then),))


def test_words() -> None:
    with pytest.raises(ValueError, match="mode is 'noise', want one of const, rand, pixel"):
        Erase(mode="noise")
    with pytest.raises(ValueError, match=r"count is \(2, 1\)"):
        recipes.random_erasing(count=(2, 1))
    text = str(recipe_of(probability=0.25, mode="pixel"))
    assert "view 0 then: erase pixel, area 0.02 0.3333, aspect 0.3 3.333 p 0.25" in text


def test_described(pack: Path) -> None:
    steps = drawn(pack, recipe_of(probability=1.0), 1)[0]
    left, top, width, height = (int(one) for one in steps[0]["matrix"][:4])
    assert recipes.describe(steps) == [f"erase {width}x{height} at {left}, {top}"]
