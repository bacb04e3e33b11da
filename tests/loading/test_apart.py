"""`make apart`: the judge finds what differs and nothing else; every row of the table that can be made is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from benchmarks.pictures import cuts
from benchmarks.proof import apart
from benchmarks.proof.judge import Verdict, judged
from pass_loader import _C
from pass_loader.recipes import reference


PASSES = 24  # of few pictures


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def textures(seed: int, grain: float, pictures: int = 24, views: int = 16) -> np.ndarray:
    """Views of random brightness with grain of so many levels."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform(60, 190, (pictures, views, 3, 1, 1))
    return np.rint(ground + rng.normal(0, grain, (pictures, views, 3, 24, 24))).clip(0, 255).astype(np.uint8)


def test_intervals() -> None:
    """Clopper and Pearson's, by their definition: the tails beyond them have half a percent each."""
    from scipy.stats import binom

    low, high = Verdict(60, 100).interval()
    assert binom.sf(59, 100, low) == pytest.approx(0.005) and binom.cdf(60, 100, high) == pytest.approx(0.005)
    assert Verdict(0, 10).interval()[0] == 0 and Verdict(10, 10).interval()[1] == 1
    assert Verdict(65, 100).told_apart and not Verdict(60, 100).told_apart and not Verdict(30, 100).told_apart


@pytest.mark.slow
def test_equal_distributions_are_not_told_apart() -> None:
    """Two samples of one law; and views that are equal bytes, of which exactly half is named right."""
    first = textures(0, 8.0)
    verdict = judged(first, textures(1, 8.0), PASSES)
    low, high = verdict.interval()
    assert verdict.asked == 2 * 12 * 16 and low < 0.5 < high
    equal = judged(first, first, 2)
    assert equal.right == equal.asked / 2


@pytest.mark.slow
def test_a_planted_difference_is_found() -> None:
    """Grain half as strong again, of pictures that the judge has not seen; the same verdict each time."""
    first, second = textures(0, 8.0), textures(1, 12.0)
    verdict = judged(first, second, PASSES)
    assert verdict.told_apart and verdict.accuracy > 0.75
    assert judged(first, second, PASSES) == verdict
    assert judged(second, first, PASSES).told_apart


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="want equal shapes"):
        judged(textures(0, 8.0), textures(0, 8.0, views=8))
    with pytest.raises(ValueError, match="2 pictures or more"):
        judged(textures(0, 8.0, 1), textures(0, 8.0, 1))


@pytest.mark.slow
def test_views_are_those_of_the_official_pipeline() -> None:
    """By plans: ours are what Pillow makes of ours; without antialiasing the views are others, of the same boxes."""
    data = [jpeg for *_, jpeg in cuts(apart.BATCH)]
    recipe = apart.RECIPES["crop, resize, flip"]
    made = {name: apart.views_of(row.make, data, recipe, 16, seed=3) for name, row in apart.ROWS.items()
            if name in ("pass-loader", "official, without antialiasing", "official, JPEGs encoded anew")}  # fmt: skip
    official = apart.views_of(apart.official, data, recipe, 16, seed=3)
    for views in (*made.values(), official):
        assert views.shape == (apart.BATCH, 16, 3, 96, 96) and views.dtype == np.uint8
        assert len({view.tobytes() for view in views[0]}) == 16, "each is drawn anew"
    differ = np.abs(official.astype(int) - made["official, without antialiasing"])
    assert 0.5 < differ.mean() < 10, "the same boxes, other pixels"
    assert 0.1 < np.abs(official.astype(int) - made["official, JPEGs encoded anew"]).mean() < 10
    picture = reference.decode(data[7])
    plans = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=7, height=picture.height, width=picture.width)
    assert np.array_equal(made["pass-loader"][7, 2], reference.render(picture, plans[2]).transpose(2, 0, 1))
