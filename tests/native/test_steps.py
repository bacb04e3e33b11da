"""Further steps of views: render_plan against Pillow executing the same plan, at every instruction-set level."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import Samples, ViewSpec, _C, recipes, render_plan
from pass_loader.pack import build
from pass_loader.recipes import Step, reference

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import jpeg, noise, position_coded
from ..helpers.plans import check, plan_of, with_steps
from ..helpers.trees import write_tree
from ..helpers.trials import trials
from ..helpers.with_torch import DataLoader, ShardDataset, needs_torch


pytestmark = pytest.mark.oracle
SIZES = [(1, 1), (1, 9), (2, 7), (3, 3), (5, 2), (61, 37), (64, 65)]
POINTS: list[dict[str, object]] = [
    {"op": "autocontrast"}, {"op": "equalize"}, {"op": "invert"}, {"op": "posterize", "level": 3},
    {"op": "solarize", "level": 77}, {"op": "solarize_add", "level": 90}, {"op": "brightness", "factor": 0.4},
    {"op": "contrast", "factor": 1.7},
]  # fmt: skip
OTHERS: list[dict[str, object]] = [
    {"op": "saturation", "factor": 0.3}, {"op": "sharpness", "factor": 1.9}, {"op": "hue", "factor": 0.2},
    {"op": "grayscale"}, {"op": "blur", "factor": 1.3}, {"op": "flip"}, {"op": "vertical_flip"},
    {"op": "quarter_turn", "level": 2},
]  # fmt: skip


def pictures(height: int, width: int) -> list[np.ndarray]:
    """Return noise, a gradient, few values, one value, and a piece of a photograph."""
    photograph = np.asarray(next(iter(photographs().values())))[100 : 100 + height, 200 : 200 + width]
    return [
        noise(height, width), position_coded(height, width), noise(height, width, 1) % 3 * 20 + 100,
        np.full((height, width, 3), 77, np.uint8), np.ascontiguousarray(photograph),
    ]  # fmt: skip


def check_all(height: int, width: int, *steps: dict[str, object]) -> None:
    """Check steps on pictures of this size, in colour and gray."""
    for pixels in pictures(height, width):
        row = with_steps(plan_of(height, width), *steps)
        check(pixels, row)
        if all(np.ptp(step.get("fill", 0)) == 0 for step in steps):
            gray = np.ascontiguousarray(pixels[:, :, :1])
            want = reference.render(Image.fromarray(gray[:, :, 0]), row[0])
            assert_pixels_equal(render_plan(gray, row)[0], want, steps)


@pytest.mark.slow
@pytest.mark.parametrize("step", POINTS + OTHERS, ids=lambda step: step["op"])
def test_each_step(step: dict[str, object]) -> None:
    """Kills: a table in float32, (x - low) * 255 // (high - low), a histogram whose last value counts, wrapped tables,
    a smooth frame of the view, a blend that rounds."""
    for size in SIZES:
        check_all(*size, step)


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.37, 1.0, 1.0000001, 1.9, 3.5, -0.5])
def test_factors(factor: float) -> None:
    for op in ("sharpness", "brightness", "contrast", "saturation"):
        check_all(31, 33, {"op": op, "factor": factor})


def test_every_level() -> None:
    pixels = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    for op, levels in (("posterize", range(9)), ("solarize", range(0, 257, 8)), ("solarize_add", range(0, 256, 15))):
        for level in levels:
            check(pixels, with_steps(plan_of(16, 16), {"op": op, "level": level}))


@pytest.mark.slow
def test_rows_of_point_steps() -> None:
    """Kills: a histogram of the pixels in place of that of what is pending, one that outlives a change of them."""
    rng = random.Random(0)
    for _ in range(trials(40, 2000)):
        steps = [dict(rng.choice(POINTS + OTHERS)) for _ in range(rng.randrange(2, 7))]
        check(rng.choice(pictures(40, 47)), with_steps(plan_of(40, 47), *steps))


def test_quarter_turns() -> None:
    for level in (1, 2, 3):
        check_all(33, 33, {"op": "quarter_turn", "level": level})


@needs_torch
def test_kernel_blur() -> None:
    check_all(33, 40, {"op": "kernel_blur", "level": 7, "factor": 1.1}, {"op": "equalize"})


def rotation(degrees: float, height: int, width: int) -> list[float]:
    """Return the matrix of a rotation around the centre."""
    turn = np.radians(-degrees)
    cos, sin, x, y = np.cos(turn), np.sin(turn), width / 2, height / 2
    return [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]


@pytest.mark.slow
@pytest.mark.parametrize("resample", [0, 2, 3])
def test_affine(resample: int) -> None:
    """Kills: rounding in place of truncation, the test of the outside after half a pixel, fixed point for all of
    nearest, running products in place of running sums, edges that are black."""
    rng = random.Random(resample)
    for height, width in [*SIZES, (96, 64)]:
        matrices = [
            [1, 0.27, 0, 0, 1, 0], [1, 0, 0, -0.3, 1, 0], [1, 0, 5.25, 0, 1, 0], [1, 0, 0, 0, 1, -7.75],
            [1, 0, -3, 0, 1, 0], [1, 0, 0, 0, 1, 0], [0.7, 0, 1.3, 0, 1.9, -2.1], [-1, 0, width, 0, -1, height],
            [1, 0.3, -40_000, 0.1, 1, 40_000], [3000.0, 1.0, -1500.5, 0.2, 900.1, -450.5],
            [0.3, 600, -299.15002, 1e-4, 0.3, 0], [0, 0, 0.5, 0, 0, 0.5],
            rotation(45, height, width), rotation(90, height, width), rotation(rng.uniform(-180, 180), height, width),
        ]  # fmt: skip
        matrices += [[rng.uniform(-1.5, 1.5) for _ in range(6)] for _ in range(trials(2, 200))]
        for matrix in matrices:
            fill = rng.choice([(0, 0, 0), (200, 200, 200), (124, 116, 104)])
            step = {"op": "affine", "matrix": matrix, "resample": resample, "fill": fill}
            check(rng.choice(pictures(height, width)), with_steps(plan_of(height, width), step))
    step = {"op": "affine", "matrix": rotation(20, 61, 37), "resample": resample, "fill": 9}
    check_all(61, 37, step, {"op": "sharpness", "factor": 1.5}, step, {"op": "autocontrast"})


@pytest.mark.slow
@pytest.mark.parametrize("resample", [0, 2, 3])
def test_affine_on_photographs(resample: int) -> None:
    """Kills: floats without a doubt, in runs and elsewhere, a doubt that leaves out pixels beside flat ones; runs where
    roundings leave none; a line that begins where a sum of another order does; the shift of another axis."""
    rng = random.Random(resample)
    shears, moves = [0.27, -0.3, 0.1, 0.25, -1e-9], [37.27, -80.5, 7.0, -0.25, 1 - 2**-52]
    matrices = [one for s in shears for one in ([1, s, 0, 0, 1, 0], [1, 0, 0, s, 1, 0], [1, s, 3.3, 0, 1, 0])]
    matrices += [one for m in moves for one in ([1, 0, m, 0, 1, 0], [1, 0, 0, 0, 1, m], [1, 0, m, 0, 1, -m])]
    matrices += [[1, -1, -1e-17, 0, 1, 0], [1, 0, 0, -1, 1, -1e-17]]  # pixels just outside, by less than a rounding
    matrices += [[1, 0, 0, 0.1, 1, 5.5], [1, 0, 0, 0, 0.9, 4.4], [0.5, 0, 3, 0, 0.5, 3]]
    for height, width in ((141, 157), (64, 80)):
        for matrix in [*matrices, rotation(rng.uniform(-27, 27), height, width), rotation(60, height, width)]:
            step = {"op": "affine", "matrix": matrix, "resample": resample, "fill": (124, 116, 104)}
            pixels = pictures(height, width)
            half = np.where(np.arange(width)[:, None] < width // 3, 200, pixels[0]).astype(np.uint8)  # flat and noise
            for one in (half, pixels[-1]):
                check(np.ascontiguousarray(one), with_steps(plan_of(height, width), step))


@pytest.mark.slow
@pytest.mark.parametrize("resample", [0, 2, 3])
def test_perspective(resample: int) -> None:
    """Kills: factors in place of a division, a depth without its 1, nearest pixels after half of one."""
    rng = random.Random(resample)
    for height, width in [*SIZES, (96, 64)]:
        matrices = [[1, 0, 0, 0, 1, 0, 0, 0], [1.2, 0.1, -3, 0.05, 0.9, 4, 0.002, -0.003], [1, 0, 0, 0, 1, 0, -0.1, 0]]
        matrices += [[*(rng.uniform(-1.5, 1.5) for _ in range(6)), rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02)]
                     for _ in range(trials(3, 200))]  # fmt: skip
        for matrix in matrices:
            fill = rng.choice([(0, 0, 0), (200, 200, 200), (124, 116, 104)])
            step = {"op": "perspective", "matrix": matrix, "resample": resample, "fill": fill}
            check(rng.choice(pictures(height, width)), with_steps(plan_of(height, width), step))
    step = {"op": "perspective", "matrix": matrices[1], "resample": resample, "fill": 9}
    check_all(61, 37, step, {"op": "sharpness", "factor": 1.5}, step)


def test_steps_follow_the_fixed_ones() -> None:
    pixels = noise(90, 120)
    row = plan_of(60, 50, crop_x=11, crop_y=9, resize_height=64, resize_width=48, flip=True, solarize_threshold=128,
                  jitter_order=[2, 0, -1, -1], saturation=0.3, brightness=1.4, blur_sigma=1.1)  # fmt: skip
    check(pixels, with_steps(row, {"op": "equalize"}, {"op": "affine", "matrix": rotation(33, 64, 48), "resample": 3}))


POLICY = (
    *recipes.timm_rand_augment("rand-m9-mstd0.5-inc1", fill=(124, 116, 104)),
    recipes.Choice(((Step("affine", recipes.Affine((-10, 10), (0.1, 0.2), (0.8, 1.2), (-5, 5, -6, 6))),),), 0.5),
    Step("quarter_turn", recipes.OneOf((0, 1, 2, 3))),
    *recipes.timm_auto_augment("3a"),
    Step("perspective", 0.5, 0.5, "bilinear", (1, 2, 3)),
    *recipes.random_erasing(0.7, mode="pixel", count=(1, 2)),
)


@pytest.fixture(scope="module")
def mixed_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of a colour and a gray picture, twice."""
    folder = tmp_path_factory.mktemp("steps")
    files = {f"a/{n}.jpg": jpeg(noise(70, 90, n), mode="L" if n % 2 else "RGB") for n in range(4)}
    write_tree(folder / "tree", files)
    build([folder / "tree"], folder / "pack")
    return folder / "pack"


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("channels", [3, 1])
def test_batches_plans_and_replay(mixed_pack: Path, channels: int) -> None:
    """Kills: steps of another view or sample, plans without steps, a colour that fills a gray picture as gray."""
    recipe = dataclasses.replace(recipes.supervised(), views=(ViewSpec(48, then=POLICY),) * 2, batch="views_labels",
                                 channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)  # fmt: skip
    dataset = ShardDataset(mixed_pack, recipe, seed=5)
    for epoch in range(trials(3, 100)):
        loader = DataLoader(dataset, batch_size=4, num_workers=2, return_info=True)
        loader.sampler.set_epoch(epoch)
        ((views, _, info),) = loader
        assert info["plans"].dtype == recipe.plan_dtype and info["plans"]["steps"].shape == (4, 2, 8)
        for slot, record in enumerate(info["records"].tolist()):
            plan = dataset.plan(record, epoch)
            assert np.array_equal(info["plans"][slot].view(np.uint8), plan.view(np.uint8))
            picture = reference.decode(dataset.read(record), channels)
            for view, row in enumerate(plan):
                want = reference.render(picture, row)
                assert_pixels_equal(dataset.render(record, epoch)[view], want, (record, view))
                want = reference.erase(reference.normalize(want, recipe), row)
                assert np.array_equal(views[view][slot].numpy(), want)


def test_steps_move_no_decision(mixed_pack: Path) -> None:
    """The fixed steps' numbers, and those of other groups, stay where a probability or an op changes."""
    policy = POLICY[:-1]
    base = recipes.dino().override(then=(*policy, Step("sharpness", (0.1, 1.9))))
    plain = Samples(mixed_pack, recipes.dino(), seed=1)
    full = Samples(mixed_pack, base, seed=1)
    fewer = Samples(
        mixed_pack, base.override(then=(recipes.Choice(((Step("invert"),),), 0.0), *base.views[0].then[1:]))
    )
    fewer.seed = 1
    for epoch in range(20):
        one, two, three = plain.plan(0, epoch), full.plan(0, epoch), fewer.plan(0, epoch)
        for name in one.dtype.names:
            assert np.array_equal(one[name], two[name])
        for view in range(len(one)):
            own, other = (steps["steps"][view] for steps in (two, three))
            last, last_other = (steps[steps["op"] > 0][-1] for steps in (own, other))
            assert last["op"] == recipes.steps.OPS["sharpness"] and last == last_other


def test_recipes_without_steps_are_as_before() -> None:
    recipe = recipes.dino()
    assert recipe.step_rows() is None and recipe.plan_dtype == _C.view_plan_dtype
    assert _C.plan_dtype(0) is _C.view_plan_dtype or _C.plan_dtype(0) == _C.view_plan_dtype


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"op": "invert", "opcode": 22}, "has op 22"),
        ({"op": "erase", "matrix": [0, 0, 31, 5, 0, 0]}, "rectangle .* leaves the view"),
        ({"op": "erase", "matrix": [-1, 0, 3, 5, 0, 0]}, "rectangle .* leaves the view"),
        ({"op": "erase", "matrix": [0, 16, 3, 5, 0, 0]}, "rectangle .* leaves the view"),
        ({"op": "erase", "matrix": [0, 0.5, 3, 5, 0, 0]}, "rectangle .* leaves the view"),
        ({"op": "erase", "matrix": [0, 0, np.nan, 5, 0, 0]}, "rectangle .* leaves the view"),
        ({"op": "erase", "matrix": [0, 0, 3, 5, np.inf, 0]}, "values are out of range"),
        ({"op": "erase", "matrix": [0, 0, 3, 5, -1, 0], "level": 2}, "values are out of range"),
        ({"op": "erase", "level": 3}, "level of a further step"),
        ({"op": "ground"}, "ground stands after the crop"),
        ({"op": "perspective", "resample": 1}, "resample is 1"),
        ({"op": "perspective", "matrix": [np.nan] * 6}, "the matrix"),
        ({"op": "invert", "opcode": 70}, "has op 70"),
        ({"op": "posterize", "level": 9}, "level of a further step"),
        ({"op": "posterize", "level": -1}, "level of a further step"),
        ({"op": "solarize", "level": 257}, "level of a further step"),
        ({"op": "brightness", "factor": np.nan}, "factor of a further step"),
        ({"op": "hue", "factor": 0.6}, "factor of a further step"),
        ({"op": "blur", "factor": 1e5}, "factor of a further step"),
        ({"op": "kernel_blur", "level": 4, "factor": 1}, "4 taps"),
        ({"op": "kernel_blur", "level": 51, "factor": 1}, "51 taps on 20 x 30"),
        ({"op": "quarter_turn", "level": 1}, "square view"),
        ({"op": "quarter_turn", "level": 0}, "level of a further step"),
        ({"op": "affine", "matrix": [np.nan] * 6}, "the matrix"),
        ({"op": "affine", "matrix": [1, 0, np.inf, 0, 1, 0]}, "the matrix"),
        ({"op": "affine", "matrix": [2e4, 0, 0, 0, 1, 0]}, "the matrix"),
        ({"op": "affine", "resample": 1}, "resample is 1"),
    ],
)
def test_hostile_plans_are_refused(fields: dict[str, object], message: str) -> None:
    opcode = fields.pop("opcode", None)
    row = with_steps(plan_of(20, 30), fields)
    if opcode is not None:
        row["steps"]["op"] = opcode
    with pytest.raises(ValueError, match=message):
        render_plan(noise(20, 30), row)


def test_steps_after_the_end_and_coloured_gray_are_refused() -> None:
    row = with_steps(plan_of(8, 8), {"op": "none"}, {"op": "invert"})
    with pytest.raises(ValueError, match="none after 0"):
        render_plan(noise(8, 8), row)
    row = with_steps(plan_of(8, 8), {"op": "erase"}, {"op": "invert"})
    with pytest.raises(ValueError, match="op 3 after one that erases"):
        render_plan(noise(8, 8), row)
    row = with_steps(plan_of(8, 8), {"op": "affine", "fill": (1, 2, 3)})
    with pytest.raises(ValueError, match="is a colour"):
        render_plan(noise(8, 8)[:, :, :1], row)
    with pytest.raises(ValueError, match="column of plan_dtype"):
        render_plan(noise(8, 8), row.view(np.uint8))
    deep = np.zeros((8, 8, 1), np.uint16)
    with pytest.raises(ValueError, match="16 bits can be cropped"):
        render_plan(deep, with_steps(plan_of(8, 8), {"op": "invert"}))
