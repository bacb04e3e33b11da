"""Our draws have the distributions of torchvision's own code and of the official classes, and depend on nothing else:
benchmarks/proof/draws.py, here with fewer draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.official import seed_everything
from benchmarks.proof import draws, generator, policies, slots
from benchmarks.proof.plans import our_plans
from benchmarks.proof.statistics import Outcome, has_share, holm, same_shares
from pass_loader import _C, recipes
from pass_loader.keys import BatchKey
from pass_loader.recipes import Recipe, Step, ViewSpec, reference

from torchvision.transforms import RandomResizedCrop

from ..helpers.trials import trials

COUNT = trials(3_000, 1_000_000)


@pytest.mark.slow
def test_against_torchvision() -> None:
    """Steps of policies with their values too: of shears, translations and rotations read from their matrices."""
    assert holm(draws.against_torchvision(COUNT)) == []


@pytest.mark.slow
def test_independence() -> None:
    assert holm(draws.independence(COUNT)) == []


def test_slots_are_independent() -> None:
    """All that csrc and pass_loader declare, each with each; two that follow from one another are found."""
    tests = generator.slot_tests(COUNT)
    numbers = 2 * len(slots.slots())
    assert len(tests) == numbers * (numbers - 1) // 2 and holm(tests) == []
    place = slots.slots()["crop place"]
    follows = generator.slot_tests(
        COUNT, lambda slot, count: generator.of_records(place if slot == place + 1 else slot, count)
    )
    assert {test.what for test in holm(follows)} == {
        f"crop place{one} and flip{one}" for one in ("", ", second number")
    }


def test_a_slot_that_is_new_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a view's enum and a mask's it is tested as it is; elsewhere it is an error, and so is one slot for two."""
    own = slots.declared()
    assert own["plan.cpp"]["kFlip"] == 17 and own["plan_steps.cpp"]["kFirstErase"] == 1 << 22
    assert sorted(slots.purposes().values()) == [0, 1, 2, 3, 4]

    def with_more(**more: dict[str, int]) -> dict[str, int]:
        files = {name: dict(own.get(name, {}), **more.get(name, {})) for name in {**own, **more}}
        monkeypatch.setattr(slots, "declared", lambda: files)
        return slots.slots.__wrapped__()

    assert with_more(**{"plan.cpp": {"kShadow": 29}})["shadow"] == 29
    assert with_more(**{"masks.cpp": {"kRing": 0x6000000}})["ring 2"] == 0x6000002
    with pytest.raises(ValueError, match="kSecondBefore"):
        with_more(**{"plan_steps.cpp": {"kSecondBefore": 1 << 23}})
    with pytest.raises(ValueError, match="sounds.cpp"):
        with_more(**{"sounds.cpp": {"kVolume": 1 << 23}})
    with pytest.raises(ValueError, match="one slot"):
        with_more(**{"plan.cpp": {"kShadow": 17}})


def test_bits_of_the_generator() -> None:
    """In the orders in which plans use its words; a bit that hangs is found, and a word that comes twice."""
    assert holm(generator.stream_tests(trials(100_000, 10_000_000))) == []
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
    names = list(slots.slots())
    used = generator.words("slots", 0, len(names) * 10 * 3).reshape(3, 10, len(names), 4)  # records, views, slots
    for record in range(3):
        plans = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=record, height=375, width=500)
        for view, plan in enumerate(plans):
            unit = [int(high) / 2**32 for high in used[record, view, names.index("brightness contrast"), ::2]]
            assert abs(plan["brightness"] - (0.6 + 0.8 * unit[0])) < 1e-6
            assert abs(plan["contrast"] - (0.6 + 0.8 * unit[1])) < 1e-6
            assert plan["flip"] == (used[record, view, names.index("flip"), 0] < 2**31)


def test_slots_are_those_of_decisions() -> None:
    """Of steps, before the crop too, of companions, masks and batches: what is decided follows from a slot's words."""
    count, slot = 40, slots.slots()
    records, zeros = np.arange(count), np.zeros(count, np.uint32)

    def heads(name: str) -> list[bool]:
        return (generator.of_records(slot[name], count)[:, 0] < 2**31).tolist()

    def units(name: str, number: int = 0) -> np.ndarray:
        return generator.of_records(slot[name], count)[:, 2 * number] / 2**32

    once = Step("invert", probability=0.5)
    for place, name in {"then": "group 0, step 0: runs", "before": "before the crop, group 0, step 0: runs"}.items():
        plans = our_plans(Recipe("steps", (ViewSpec(96, **{place: (once,)}),)), count, [0])
        assert (plans["steps"][:, 0, 0]["op"] > 0).tolist() == heads(name)
    views, _ = _C.draw_companions(0, records, zeros, zeros, np.full(count, 3), 2, 0.5)
    assert (views >= 0).tolist() == heads("companion")
    masks = _C.mask_uniforms(0, records, zeros, zeros, 0)
    for number in range(2):
        assert abs(masks[:, number] - units("mask uniforms 0", number)).max() < 2**-32
    for purpose, value in slots.purposes().items():
        found = np.array([BatchKey(0, 0, step, 0).uniforms(value, 3) for step in range(count)])
        for number in range(3):
            assert abs(found[:, number] - units(f"batch, {purpose} {number}")).max() < 2**-32


@pytest.mark.slow
def test_what_is_wrong_is_found() -> None:
    """The controls, at few draws: those that are large. The page says from which number on the others are found."""
    found = draws.found_from(*draws.both_numbers(draws.CONTROLLED, COUNT))
    assert found.keys() == draws.CONTROLS.keys() and draws.missed(found, COUNT) == []
    assert {name for name, size in found.items() if size} >= {
        name for name, control in draws.CONTROLS.items() if control.size <= COUNT
    }
    right: dict[str, int | None] = {name: control.size for name, control in draws.CONTROLS.items()}
    for size in (300_000, None):
        assert draws.missed({**right, "a flip of 0.49": size}, 100_000) == ["a flip of 0.49"]
    assert draws.missed({**right, "a flip of 0.49": None}, 99_999) == draws.missed(right, 100_000) == []


@pytest.mark.slow
def test_a_pixel_and_a_percent_are_found() -> None:
    """The two that need more draws, with those that the page says, of nothing else."""
    name, (recipe, view) = draws.CONTROLLED, draws.VIEWS[draws.CONTROLLED]
    spec, alone = recipe.views[view], draws.CONTROLS["a flip of 0.49"]
    flips = generator.of_records(slots.slots()["flip"], alone.size)[:, 0] < 2**31
    wrong = alone.change({"flip": flips})["flip"]
    assert has_share(name, flips, spec.flip).p > 1e-3 and has_share(name, wrong, spec.flip).p < 1e-5

    alone = draws.CONTROLS["boxes one pixel to the right"]
    picture, size = torch.empty(3, draws.HEIGHT, draws.WIDTH), alone.size
    seed_everything(0)
    boxes = [RandomResizedCrop.get_params(picture, list(spec.scale), list(spec.ratio)) for _ in range(size)]
    theirs = {"left": np.array([box[1] for box in boxes]), "width": np.array([box[3] for box in boxes])}
    plans = our_plans(Recipe("crop", (spec,)), size, [0])[:, 0]
    ours = {"left": plans["crop_x"], "width": plans["crop_width"]}

    def edges(drawn: draws.Drawn) -> np.ndarray:
        return draws._edge(drawn["left"], drawn["width"], draws.WIDTH)

    assert same_shares(name, edges(ours), edges(theirs)).p > 1e-3
    assert same_shares(name, edges(alone.change(ours)), edges(theirs)).p < 1e-5


@pytest.mark.slow
def test_what_is_wrong_with_policies_is_found() -> None:
    """One operation for another, a sign that is always the same, and another magnitude."""
    then, make = policies.POLICIES["RandAugment"]
    seed_everything(0)
    ours, theirs = policies.our_policies(then, 2000), policies.official_policies(make(), 2000)

    def p(changed: np.ndarray) -> float:
        return min(test.p for test in draws.compared_policies("", changed, theirs))

    def replaced(old: str, new: str) -> np.ndarray:
        assert any(old in word for word in ours.tolist()), old
        return np.array([word.replace(old, new) for word in ours.tolist()])

    assert p(ours) > 1e-3
    assert p(replaced("shear_y", "shear_x")) < 1e-5 and p(replaced("shear_x -", "shear_x ")) < 1e-5
    assert p(replaced("rotate 9", "rotate 8")) < 1e-5 and p(replaced("translate_y", "translate_x")) < 1e-5
    words = np.array(["shear_x -0.0900 invert rotate 351.000", "invert shear_y 0.1000", ""])
    assert policies.without_values(words).tolist() == ["shear_x invert rotate", "invert shear_y", ""]
    assert policies.first_of(words).tolist() == ["shear_x -0.0900", "invert", ""]


def test_words_of_geometry() -> None:
    """Ours from decided matrices are those of torchvision's operations of the same magnitude."""
    for op, magnitude in [("ShearX", 0.3), ("ShearY", -0.3), ("TranslateX", -150.9), ("TranslateY", 7.0),
                          ("Rotate", 30.0), ("Rotate", -13.5), ("Rotate", 90.0), ("Rotate", 180.0), ("Rotate", 0.0),
                          ("ShearX", 0.0), ("TranslateX", 0.4)]:  # fmt: skip
        name = policies._OFFICIAL[op]
        value = -int(magnitude) if op.startswith("Translate") else magnitude
        view = ViewSpec((draws.HEIGHT, draws.WIDTH), then=(Step(name, float(value)),))
        (step,) = our_plans(Recipe("one", (view,)), 1, [0])["steps"][0, 0]
        ours = policies.word_of(*(step[field].tolist() for field in ("op", "factor", "level", "matrix")))
        assert ours == policies.official_word(op, magnitude) and bool(ours) == (int(magnitude * 10) not in (0, 4))


def test_make_draws_fails_by_what_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a difference, and by a control that is not found; the page stays as it was."""
    page = tmp_path / "page.md"
    empty = "<!-- benchmarks/proof/draws.py -->\n\n<!-- /benchmarks/proof/draws.py -->\n"
    right = {name: control.size for name, control in draws.CONTROLS.items()}
    for p, found, status in ((0.5, right, 0), (1e-9, right, 1), (0.5, {**right, "hue 1 % weaker": None}, 1)):
        page.write_text(empty)
        outcome = {"one family": (1_000_000, [Outcome("a test", p)])}, found
        monkeypatch.setattr(draws, "all_tests", lambda count, processes, outcome=outcome: outcome)
        assert draws.main(["--count", "1000000", "--page", str(page)]) == status
        assert (page.read_text() == empty) == bool(status)


def test_holms_correction() -> None:
    """Each p-value is held against the level over how many are left; one that passes ends it."""
    tests = [Outcome(str(p), p) for p in (0.5, 2e-4, 3e-4, 0.9, 0.02)]
    assert [test.p for test in holm(tests)] == [2e-4]
    assert [test.p for test in holm(tests, 2e-3)] == [2e-4, 3e-4]
    assert holm([Outcome("nothing", float("nan"))]) == []
