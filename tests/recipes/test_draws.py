"""Our draws have the distributions of torchvision's own code and of the official classes, and depend on nothing else:
benchmarks/proof/draws.py, here with fewer draws."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.proof import draws, generator
from benchmarks.proof.statistics import Outcome, holm
from pass_loader import _C, recipes
from pass_loader.recipes import reference

from ..helpers.trials import trials

COUNT = trials(3_000, 1_000_000)


@pytest.mark.slow
def test_against_torchvision() -> None:
    assert holm(list(draws.against_torchvision(COUNT))) == []


@pytest.mark.slow
def test_independence() -> None:
    assert holm(list(draws.independence(COUNT))) == []


def test_bits_of_the_generator() -> None:
    """In the orders in which plans use its words; a bit that hangs is found, and a word that comes twice."""
    assert holm(list(generator.stream_tests(trials(100_000, 10_000_000)))) == []
    bits = np.unpackbits(generator.words("slots", 0, 10_000).view(np.uint8)).astype(np.int8)
    hanging = bits.reshape(-1, 32).copy()
    hanging[:, 7] |= hanging[:, 8]
    assert generator.frequency(hanging.ravel()) < 1e-6 < generator.frequency(bits)
    assert generator.blocks(np.sort(bits.reshape(-1, 4000), 1).ravel()) < 1e-6 < generator.blocks(bits)
    assert generator.runs(np.sort(bits.reshape(-1, 8), 1).ravel()) < 1e-6 < generator.runs(bits)
    assert generator.sums(np.sort(bits)) < 1e-6 < generator.sums(bits)
    assert generator.spectrum(np.tile(bits[:1000], 100)) < 1e-6 < generator.spectrum(bits)
    assert generator.serial(np.repeat(bits, 2)) < 1e-6 < generator.serial(bits)


def test_words_are_those_of_plans() -> None:
    """By the oracle's generator, and by what plans show of them: factors, and which words flip."""
    counter = [3, 5, 7, 20]
    found = generator.philox([np.array([word]) for word in counter], np.array([2**40 + 1], np.uint64))[0]
    assert found.tolist() == reference.philox(counter, 2**40 + 1)
    recipe = recipes.dino().override(jitter=1.0)
    used = generator.words("slots", 0, 22 * 10 * 3).reshape(3, 10, 22, 4)  # records, views, slots
    places = list(generator.SLOTS)
    for record in range(3):
        plans = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=record, height=375, width=500)
        for view, plan in enumerate(plans):
            unit = [int(high) / 2**32 for high in used[record, view, places.index(20), ::2]]
            assert abs(plan["brightness"] - (0.6 + 0.8 * unit[0])) < 1e-6
            assert abs(plan["contrast"] - (0.6 + 0.8 * unit[1])) < 1e-6
            assert plan["flip"] == (used[record, view, places.index(17), 0] < 2**31)


@pytest.mark.slow
def test_what_is_wrong_is_found() -> None:
    """The controls, at few draws: those that are large. The page says from which number on the others are found."""
    found = draws.found_from(trials(3_000, 1_000_000))
    assert found.keys() == draws.CONTROLS.keys()
    assert found["sigma log-uniform in [0.1, 2]"] and found["jitter in torch's order of names"]
    if COUNT == 1_000_000:
        assert None not in found.values()


def test_holms_correction() -> None:
    """Each p-value is held against the level over how many are left; one that passes ends it."""
    tests = [Outcome(str(p), p) for p in (0.5, 2e-4, 3e-4, 0.9, 0.02)]
    assert [test.p for test in holm(tests)] == [2e-4]
    assert [test.p for test in holm(tests, 2e-3)] == [2e-4, 3e-4]
    assert holm([Outcome("nothing", float("nan"))]) == []
