"""The CUDA kernels against the CPU's bytes: run by the CPU, phase by phase, thread by thread; and on a GPU, if any.

tests/native/cuda/emulate.cpp is built with the sanitizers: a kernel that leaves a picture, an output or a piece of its
workspace ends it. Each case runs with blocks and threads forwards and backwards: they differ where a barrier lacks.
"""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.pictures import photographs
from pass_loader import Recipe, ViewSpec, _C, recipes, render_plan
from pass_loader.gpu import cuda

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import every_colour, noise, position_coded
from ..helpers.plans import plan_of

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[2]
SOURCES = ["tests/native/cuda/emulate.cpp", "csrc/cuda/descriptors.cpp",
           *(f"csrc/{name}.cpp" for name in ("plan", "plan_checks", "blur_weights", "weights", "isa"))]  # fmt: skip
INCLUDE = ["-Icsrc", "-Ibenchmarks/gpu"]
NO_LIMIT = 1 << 40
BYTES = cuda.BYTES
DEVICES = [pytest.param("device", marks=pytest.mark.cuda)] if cuda.cuda_available() else []
Render = Callable[..., list[np.ndarray]]


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("cuda") / "emulate"
    flags = ["-std=c++20", "-O1", "-g1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", *INCLUDE]
    flags += ["-mfma"] if "avx2" in _C.supported_isas() else []  # for speed: fmaf is one instruction, not a call
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["g++", *flags, *sanitizers, *SOURCES, "-o", program], cwd=ROOT, check=True)
    return program


def run_on_host(emulator: Path, pictures: Sequence[np.ndarray], plans: np.ndarray, numbers: np.ndarray, *,
                table: np.ndarray, element: type, channels_last: bool, budget: int, parts: int,
                ways: bool = False) -> bytes:  # fmt: skip
    """Render by the CPU; returns the views' elements one after another."""
    body = np.ascontiguousarray(table, np.uint32).tobytes()
    body += b"".join(np.array(p.shape[:2], np.int64).tobytes() + p.tobytes() for p in pictures)
    body += plans.tobytes() + numbers.tobytes()
    head = [len(pictures), len(plans), np.dtype(element).itemsize, int(channels_last), budget]
    cases = b"".join(np.array([*head, backwards, ways], np.int64).tobytes() + body for backwards in (0, 1))
    done = subprocess.run([emulator], input=cases, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    half = len(done.stdout) // 2
    assert done.stdout[:half] == done.stdout[half:], "another result with threads and blocks backwards"
    assert int(np.frombuffer(done.stdout[half - 8 : half], np.int64)[0]) == parts
    return done.stdout[: half - 8]


def run_on_device(pictures: Sequence[np.ndarray], plans: np.ndarray, numbers: np.ndarray, *,
                  table: np.ndarray, element: type, channels_last: bool, budget: int, parts: int) -> bytes:  # fmt: skip
    """Render by a GPU, into memory whose every byte is 0xA5 before."""
    planar = [torch.from_numpy(p).cuda().permute(2, 0, 1).contiguous() for p in pictures]
    dtype = {4: torch.float32, 2: torch.float16, 1: torch.uint8}[np.dtype(element).itemsize]
    sizes = 3 * plans["out_height"].astype(np.int64) * plans["out_width"] * dtype.itemsize
    room = (sizes + 15) // 16 * 16
    memory = torch.full((int(room.sum()),), 0xA5, dtype=torch.uint8, device="cuda")
    begins = np.cumsum(room) - room
    renderer = cuda.PlanRenderer(table, dtype, channels_last=channels_last, workspace_limit=budget)
    renderer.render(cuda.picture_rows(planar), plans, numbers, memory.data_ptr() + begins)
    found = memory.cpu().numpy()
    return b"".join(found[begin : begin + size].tobytes() for begin, size in zip(begins, sizes))


@pytest.fixture(params=["host", *DEVICES])
def render(request: pytest.FixtureRequest) -> Render:
    """Renders plans of some pictures by the CUDA kernels: a list of arrays of the elements' bits."""

    def run(
        pictures: Sequence[np.ndarray],
        plans: np.ndarray,
        picture_of: Sequence[int] | None = None,
        *,
        table: np.ndarray = BYTES,
        element: type = np.uint8,
        channels_last: bool = True,
        budget: int = NO_LIMIT,
        parts: int = 1,
    ) -> list[np.ndarray]:
        numbers = np.array([0] * len(plans) if picture_of is None else picture_of, np.int32)
        plans = plans.astype(_C.view_plan_dtype)
        how = {"table": table, "element": element, "channels_last": channels_last, "budget": budget, "parts": parts}
        if request.param == "device":
            data = run_on_device(pictures, plans, numbers, **how)
        else:
            data = run_on_host(request.getfixturevalue("emulator"), pictures, plans, numbers, **how)
        views, at = [], 0
        for plan in plans:
            height, width = int(plan["out_height"]), int(plan["out_width"])
            shape = (height, width, 3) if channels_last else (3, height, width)
            views.append(np.frombuffer(data, element, height * width * 3, at).reshape(shape))
            at += views[-1].nbytes
        assert at == len(data)
        return views

    return run


def check(render: Render, pictures: Sequence[np.ndarray], plans: Sequence[np.ndarray]) -> None:
    """Compare all plans with the CPU's engine, in one batch. plans: some for each picture."""
    together = np.concatenate(plans).astype(_C.view_plan_dtype)
    numbers = [number for number, rows in enumerate(plans) for _ in rows]
    found = iter(render(pictures, together, numbers))
    for number, (pixels, rows) in enumerate(zip(pictures, plans)):
        for plan, want in zip(rows, render_plan(pixels, rows)):
            assert_pixels_equal(next(found), want, (number, plan))


def planned(recipe: Recipe, pixels: np.ndarray, record: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    return _C.plan_views(recipe.rows(), seed=1, epoch=0, record=record, height=height, width=width)


FILTERS = {"bilinear", "bicubic", "random"}  # others are rendered on the CPU alone
ON_GPU = [name for name, made in sorted(recipes.PRESETS.items()) if {v.interpolation for v in made().views} <= FILTERS]


@pytest.mark.parametrize("name", ON_GPU)
def test_presets(name: str, render: Render) -> None:
    """A batch of photographs and of sizes that are difficult, every picture of another."""
    pictures = [np.asarray(p)[::3, ::3].copy() for p in photographs().values()]
    pictures += [noise(*size) for size in ((1, 1), (1, 300), (300, 1), (31, 223), (97, 96), (450, 33))]
    recipe = recipes.PRESETS[name]()
    views = [dataclasses.replace(view, size=40) if view.blur_kernel else view for view in recipe.views]
    for pillow in (12, 13):  # half of the pictures each; a kernel blur takes long here
        half = pictures[pillow % 2 :: 2]
        chosen = dataclasses.replace(recipe, pillow=pillow, views=tuple(views))
        check(render, half, [planned(chosen, pixels, record) for record, pixels in enumerate(half)])


SIZES = [((1, 1), (5, 7)), ((3, 5), (224, 224)), ((40, 1), (9, 9)), ((1, 40), (9, 9)), ((97, 89), (96, 96)),
         ((300, 17), (33, 65)), ((17, 300), (65, 33)), ((64, 64), (1, 1)), ((501, 499), (31, 224)), ((700, 5), (2, 5)),
         ((4096, 9), (24, 24)), ((9, 4096), (24, 24)), ((5, 3), (3, 1100))]  # fmt: skip


@pytest.mark.parametrize("interpolation", [2, 3])
def test_odd_sizes(interpolation: int, render: Render) -> None:
    """Kills: swapped sides, tails of groups, lines and tiles, either order of the passes, upsampling."""
    pictures, plans = [], []
    for (size, out), flip, order in itertools.product(SIZES, (False, True), (0, 1)):
        pictures.append(noise(*size) if order else position_coded(*size))
        resize = {"resize_height": out[0], "resize_width": out[1]}
        plans.append(plan_of(*size, interpolation=interpolation, flip=flip, resize_order=order, **resize))
    check(render, pictures, plans)


def test_ways_of_the_first_pass(emulator: Path) -> None:
    """All that benchmarks/gpu/first_pass.py compares make one another's bytes, and the CPU's. Kills: a row that belongs
    to two warps or to none, a byte past the taps, a word outside the picture."""
    pictures, plans = [], []
    sizes = [((97, 89), (96, 96)), ((300, 17), (33, 65)), ((17, 300), (65, 33)), ((1, 1), (5, 7)),
             ((90, 401), (29, 40))]  # fmt: skip
    for (size, out), order, interpolation in itertools.product(sizes, (0, 1), (2, 3)):
        pictures.append(noise(*size, len(pictures)))
        resize = {"resize_height": out[0], "resize_width": out[1], "interpolation": interpolation}
        via = {"via_height": 31, "via_width": 45} if order and interpolation == 2 else {}
        crop = {"crop_x": min(1, size[1] - 1), "crop_y": min(2, size[0] - 1)}
        plans.append(plan_of(*(n - at for n, at in zip(size, (crop["crop_y"], crop["crop_x"]))), **crop,
                             resize_order=order, flip=order == 0, **resize, **via))  # fmt: skip
    together = np.concatenate(plans).astype(_C.view_plan_dtype)
    numbers = np.arange(len(plans), dtype=np.int32)
    data = run_on_host(emulator, pictures, together, numbers, table=BYTES, element=np.uint8, channels_last=True,
                       budget=NO_LIMIT, parts=1, ways=True)  # fmt: skip
    want = b"".join(view.tobytes() for p, plan in zip(pictures, together) for view in render_plan(p, plan))
    assert data == want


def test_large_picture(render: Render) -> None:
    pixels = noise(1100, 4096)
    plans = [
        plan_of(1100, 4096, resize_height=96, resize_width=96, interpolation=3, flip=True),
        plan_of(1, 4096, crop_y=1099, resize_height=7, resize_width=224, interpolation=3),
        plan_of(1100, 1, crop_x=4095, resize_height=224, resize_width=9, interpolation=2),
        plan_of(1, 1, crop_x=4095, crop_y=1099, resize_height=3, resize_width=3),
    ]
    check(render, [pixels], [np.concatenate(plans)])


def test_window_and_via(render: Render) -> None:
    window = {"resize_height": 80, "resize_width": 60, "offset_y": 13, "offset_x": 7, "out_height": 41, "out_width": 37}
    plans = []
    for flip, order, via in itertools.product((False, True), (0, 1), ({}, {"via_height": 50, "via_width": 130})):
        row = plan_of(400, 90, interpolation=3, flip=flip, resize_order=order, **window, **via)
        row["jitter_order"][0, :2] = 1, 2
        row["contrast"] = 0.4
        plans.append(row)
    huge = {"resize_height": 1 << 30, "resize_width": 1 << 30, "offset_y": 1 << 29}
    plans.append(plan_of(5, 70, out_height=9, out_width=9, **huge))
    check(render, [noise(400, 90)], [np.concatenate(plans)])


@pytest.mark.parametrize("size", [(33, 37), (64, 96), (1, 1), (5, 400)])
def test_every_order_of_steps(size: tuple[int, int], render: Render) -> None:
    """With and without each later step. Kills: a mean of other pixels, or of pixels past the edge."""
    factors = {"brightness": 1.3, "contrast": 0.7, "saturation": 1.4, "hue": 0.07}
    orders = itertools.permutations([-1, 0, 1, 2, 3], 4)
    rows = [plan_of(*size, jitter_order=list(order), **factors) for order in orders]
    plans = np.concatenate(rows).astype(_C.view_plan_dtype)
    plans["grayscale"] = np.arange(len(plans)) % 3 == 0
    plans["solarize_threshold"] = np.where(np.arange(len(plans)) % 5 == 0, 128, -1)
    plans["blur_sigma"] = np.where(np.arange(len(plans)) % 7 == 0, 1.3, 0)
    check(render, [noise(*size)], [plans])


def test_factors(render: Render) -> None:
    """Kills: fused multiply-add, rounding in place of truncation, a hue shift without the modulo."""
    rows = []
    for factor in (0.0, 0.2, 0.6, 1.0, 1.0000001, 1.37, 1.8, 3.5, -0.5, 1000.0, -1e6):
        for step, field in enumerate(("brightness", "contrast", "saturation")):
            rows.append(plan_of(50, 37, jitter_order=[step, -1, -1, -1], **{field: factor}))
    for turns in (0.5, -0.5, 0.1, -0.1, -0.003, 0.0):
        rows.append(plan_of(50, 37, jitter_order=[3, -1, -1, -1], hue=turns))
    for threshold in (0, 1, 127, 128, 255, 256):
        rows.append(plan_of(50, 37, solarize_threshold=threshold))
    check(render, [noise(50, 37)], [np.concatenate(rows)])


def test_hue_and_luma_of_many_colours(render: Render) -> None:
    """Every 13th of all 2^24 colours; one row each of the circle's sixths is among them."""
    colours = every_colour().reshape(-1, 3)[::13]
    pixels = np.ascontiguousarray(colours[: len(colours) // 1024 * 1024].reshape(-1, 1024, 3))
    size = pixels.shape[:2]
    rows = [plan_of(*size, jitter_order=[3, -1, -1, -1], hue=0.07), plan_of(*size, grayscale=True)]
    check(render, [pixels], [np.concatenate(rows)])


@pytest.mark.parametrize("sigma", [0.01, 0.1000001, 0.99, 1.2247, 1.7, 2.0, 10.0, 47.0, 1000.0])
def test_blur(sigma: float, render: Render) -> None:
    """Kills: edges that are not repeated at each pass, columns of one strip alone, several strips and tiles."""
    sizes = ((1, 1), (2, 40), (40, 2), (96, 96), (65, 33), (224, 129), (600, 4), (3, 900))
    check(render, [noise(*s) for s in sizes], [plan_of(*s, blur_sigma=sigma, solarize_threshold=200) for s in sizes])


def test_blur_of_the_longest_sides(render: Render) -> None:
    """Kills: a block's memory exceeded by one line or column of 16384 pixels."""
    sizes = ((16384, 2), (2, 16384), (5461, 3))
    check(render, [noise(*s) for s in sizes], [plan_of(*s, blur_sigma=1.1) for s in sizes])


@pytest.mark.parametrize("taps", [3, 5, 9, 23, 63])
def test_kernel_blur(taps: int, render: Render) -> None:
    """Kills: edges repeated, reflected about another place; a group that reaches past the view."""
    least = taps // 2 + 1
    sizes = [(least, least), (least, least + 5), (least + 9, least + 2)] + ([(65, 33), (40, 96)] if taps < 63 else [])
    sigmas = (0.1, 0.37, 2.0, 30.0)
    rows = [np.concatenate([plan_of(*s, blur_sigma=g, blur_kernel=taps) for g in sigmas]) for s in sizes]
    check(render, [noise(*s) for s in sizes], rows)


def test_kernel_blur_of_many_values(render: Render) -> None:
    """Kills: a multiply and an add in place of a fused one, which moves a value in a hundred thousand."""
    rows = [plan_of(700, 700, blur_sigma=sigma, blur_kernel=3) for sigma in (0.6, 2.0)]
    check(render, [noise(700, 700)], [np.concatenate(rows)])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("width", [96, 95, 6])
def test_elements(width: int, channels_last: bool, render: Render) -> None:
    """Tables of other values for each channel and byte. Kills: swapped channels, stores past the edge, a wrong size."""
    pixels = noise(40, width)
    plans = np.concatenate([plan_of(40, width, blur_sigma=s, blur_kernel=k) for s, k in ((0, 0), (1.1, 0), (0.8, 5))])
    want = np.stack(render_plan(pixels, plans))
    for element, bits in ((np.uint32, 32), (np.uint16, 16), (np.uint8, 8)):
        table = np.random.default_rng(bits).integers(0, 1 << bits, (3, 256), dtype=np.uint32)
        values = np.stack([table[c][want[..., c]] for c in range(3)], axis=-1 if channels_last else 1).astype(element)
        found = render([pixels], plans, table=table, element=element, channels_last=channels_last)
        assert np.array_equal(np.stack(found), values)


def test_a_batch_in_parts(render: Render) -> None:
    """Kills: views that are lost or mixed up where a budget cuts the batch; a part beyond the budget (emulate.cpp)."""
    view = ViewSpec(64, jitter=0.8, brightness=(0.6, 1.4), contrast=(0.6, 1.4), blur=0.5, via=(40, 40))
    recipe = Recipe("small", (view, dataclasses.replace(view, via=None)))
    pictures = [noise(90 + 7 * i, 80, i) for i in range(6)]
    plans = np.concatenate([planned(recipe, pixels, i) for i, pixels in enumerate(pictures)]).astype(_C.view_plan_dtype)
    numbers = [i for i in range(6) for _ in range(2)]
    whole = render(pictures, plans, numbers)
    for budget, parts in ((1, 12), (200_000, 2)):
        again = render(pictures, plans, numbers, budget=budget, parts=parts)
        assert all(np.array_equal(a, b) for a, b in zip(whole, again))


@pytest.mark.parametrize(
    "fields,picture,message",
    [({"crop_x": 1}, 0, "crop box"), ({}, 1, "there are 1 pictures"), ({}, -1, "there are 1 pictures")],
)
def test_refused(fields: dict[str, int], picture: int, message: str, emulator: Path) -> None:
    plans = plan_of(8, 8)
    for name, value in fields.items():
        plans[name] = value
    case = np.array([1, 1, 1, 0, 0, 0, 0], np.int64).tobytes() + BYTES.tobytes() + np.array([8, 8], np.int64).tobytes()
    case += noise(8, 8).tobytes() + plans.tobytes() + np.array([picture], np.int32).tobytes()
    done = subprocess.run([emulator], input=case, capture_output=True)
    assert done.returncode == 1 and message in done.stderr.decode()
