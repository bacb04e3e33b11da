"""The same bytes on aarch64, by emulation: decode, plans, views and normalised values, against Pillow on this machine.

Needs what `make aarch64` installs, and is skipped without it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import BadPictureError, Recipe, _C, recipes
from pass_loader.recipes import reference

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import decodable, each_bit_flipped, jpeg, noise, refused, small
from ..helpers.jpegwriter import LONG, SAMPLINGS, SHORT, WIDE, beyond_16_bits, one_row, sparse
from ..helpers.plans import plan_of


ROOT = Path(__file__).parents[2]
SYSROOTS = [ROOT / "build/aarch64/sysroot", Path("/")]
KEY = np.dtype([("seed", "u8"), ("epoch", "u4"), ("record", "i8"), ("draw", "u4")], align=True)
# The flags of setup.py that decide about values.
FLAGS = ["-O3", "-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"]


# A level, and the processor that QEMU plays: the second of neon has no mixed dot products, the last one none at all.
MACHINES = [("base", "max"), ("neon", "max"), ("neon", "neoverse-n1"), ("neon", "cortex-a72")]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The emulator and tests/native/aarch64/check.cpp, compiled."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    archives = ["usr/lib/aarch64-linux-gnu/libjpeg.a", "usr/lib/aarch64-linux-gnu/libzstd.a"]
    library = next((root for root in SYSROOTS if all((root / one).exists() for one in archives)), None)
    needs = {"aarch64-linux-gnu-g++": compiler, "qemu-aarch64": emulator, "libjpeg and zstd for arm64": library}
    missing = [name for name, found in needs.items() if found is None]
    if missing or library is None:
        pytest.skip(f"not installed: {', '.join(missing)}; `make aarch64` brings it")
    program = tmp_path_factory.mktemp("aarch64") / "check"
    left_out = ("bindings", "engine", "decode", "render_batch", "pool")  # what needs Python or libpng, and threads
    sources = [path for path in sorted((ROOT / "csrc").glob("*.cpp")) if not path.stem.startswith(left_out)]
    sources += [path for room in ("cpu", "jpeg") for path in sorted((ROOT / "csrc" / room).glob("*.cpp"))]
    headers = [library / "usr/include", library / "usr/include/aarch64-linux-gnu"]
    libjpeg = [part for path in headers for part in ("-idirafter", path)]
    compile_all = [compiler, "-std=c++20", *FLAGS, "-Wall", "-Wextra", "-Werror", "-I", ROOT / "csrc", *libjpeg]
    link = ["-static", *(library / one for one in archives), "-pthread", "-o", program]
    subprocess.run([*compile_all, ROOT / "tests/native/aarch64/check.cpp", *sources, *link], check=True)
    return [str(emulator), str(program)]


@pytest.fixture(params=MACHINES, ids="-".join)
def check(program: list[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that runs check.cpp at one level on one processor."""
    level, processor = request.param
    monkeypatch.setenv("PASS_LOADER_ISA", level)
    return [program[0], "-cpu", processor, program[1]]


class Answers:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, dtype: np.dtype | type, *shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        out = np.frombuffer(self.data, dtype, count, self.at).reshape(shape)
        self.at += out.nbytes
        return out


def ask(check: list[str], cases: list[tuple[bytes, Recipe, np.ndarray]]) -> Answers:
    """cases: JPEG, recipe for plans made there, plans made here. The case's number is the plans' key."""
    out = bytearray()
    for number, (data, recipe, plans) in enumerate(cases):
        rows, plans = recipe.rows(), plans.astype(_C.view_plan_dtype)  # numpy's concatenate drops padding
        out += np.array([(number, number + 1, number % 128 * 2**33, number % 3)], KEY).tobytes()
        out += np.array([len(rows), len(plans), len(data)]).tobytes() + rows.tobytes() + plans.tobytes() + data
        out += recipe.normalize_table().tobytes() + np.array([recipe.mean, recipe.std], np.float32).tobytes()
    return Answers(subprocess.run(check, input=out, stdout=subprocess.PIPE, check=True).stdout)


def assert_equal_to_this_machine(check: list[str], cases: list[tuple[bytes, Recipe, np.ndarray]]) -> None:
    answers = ask(check, cases)
    for number, (data, recipe, plans) in enumerate(cases):
        assert answers.take(np.uint32, 1) == _C.crc32c(data)
        decoded, ours, *size = answers.take(np.int32, 4).tolist()
        try:
            picture = reference.decode(data)
        except Exception:  # Pillow refuses in many ways
            assert not decoded, number
            continue
        assert decoded and ours == _C.decodes_as_baseline(data), number
        assert_pixels_equal(answers.take(np.uint8, *size, 3), np.asarray(picture), number)
        want = _C.plan_views(recipe.rows(), seed=number, epoch=number + 1, record=number % 128 * 2**33, draw=number % 3,
                             height=size[0], width=size[1])  # fmt: skip
        assert np.array_equal(answers.take(_C.view_plan_dtype, len(want)), want), number
        for plan in (*want, *plans):
            shape = (int(plan["out_height"]), int(plan["out_width"]))
            view = reference.render(picture, plan)
            assert_pixels_equal(answers.take(np.uint8, *shape, 3), view, (number, plan))
            values = reference.normalize(view.copy(), recipe)
            assert np.array_equal(answers.take(np.float32, 3, *shape), values), (number, plan)
    assert answers.at == len(answers.data)


RECIPES = [make() for _, make in sorted(recipes.PRESETS.items())]
NO_PLANS = np.zeros(0, _C.view_plan_dtype)
SMALL = recipes.mocov2(size=16)


def test_every_kind_of_jpeg_and_every_recipe(check: list[str]) -> None:
    """Kills: a char that is signed here and not there, a fused multiply-add, another order of a struct's fields."""
    pictures = [*decodable().values(), *refused().values()]
    cases = [(data, RECIPES[number % 3], NO_PLANS) for number, data in enumerate(pictures)]
    cases += [(jpeg(photograph), recipe, NO_PLANS) for photograph in photographs().values() for recipe in RECIPES]
    assert_equal_to_this_machine(check, cases)


def test_plans_of_every_step(check: list[str]) -> None:
    window = {"resize_height": 80, "resize_width": 60, "offset_y": 13, "offset_x": 7, "out_height": 41, "out_width": 37}
    jitter = {"brightness": 1.3, "contrast": 0.7, "saturation": 1.4, "hue": -0.07}
    fields: list[dict[str, object]] = [
        {"interpolation": interpolation, "resize_height": height, "resize_width": width, "flip": flip}
        for interpolation in (2, 3) for height, width in ((1, 1), (31, 224), (224, 31), (300, 200)) for flip in (0, 1)
    ]  # fmt: skip
    fields += [{**window, "flip": True}, {**window, "via_height": 50, "via_width": 130, "interpolation": 3}]
    fields += [{"jitter_order": order, **jitter} for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, -1, -1])]
    fields += [
        {"jitter_order": [step, -1, -1, -1], name: factor}
        for step, name in enumerate(("brightness", "contrast", "saturation"))
        for factor in (0.2, 0.6, 1.0000001, 1.37, 1.8, 3.5, -3.0)
    ]
    fields += [{"blur_sigma": sigma} for sigma in (0.1, 0.35, 0.7, 1.0, 1.3, 1.93, 2.0, 40.0)]
    fields += [{"solarize_threshold": 128}, {"grayscale": True}]
    plans = np.concatenate([plan_of(120, 90, **some) for some in fields])
    data = jpeg(noise(120, 90), quality=100, subsampling=0)
    assert_equal_to_this_machine(check, [(data, SMALL, plans)])


def test_hue_and_luma_of_many_colours(check: list[str]) -> None:
    """Every 5th level of each channel."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(52, -1, 3)
    data = jpeg(Image.fromarray(colours), quality=100, keep_rgb=True)
    size = colours.shape[:2]
    hues = [plan_of(*size, jitter_order=[3, -1, -1, -1], hue=hue) for hue in (0.0, 0.1, -0.4)]
    plans = np.concatenate([*hues, plan_of(*size, grayscale=True)])
    assert_equal_to_this_machine(check, [(data, SMALL, plans)])


def test_baseline_decoder(check: list[str]) -> None:
    """The IDCT's scalar code is compiled nowhere else."""
    pictures = [sparse(37, width, sampling, 1, 0.3) for sampling in SAMPLINGS for width in (5, 17, 75)]
    rng = np.random.default_rng(0)
    pictures += [one_row(np.eye(64, dtype=np.int64) * 60, rng.integers(1, 40, 64))]
    for quantiser in (1, 255, 4099, 32767, 32768, 65535):
        for share in (0.03, 0.2, 1.0):
            blocks = rng.integers(-2047, 2048, (24, 64)) * (rng.random((24, 64)) < share) * (np.arange(64) >= 8)
            pictures += [one_row(blocks, quantiser, **WIDE), one_row(blocks, quantiser, **LONG)]
    pictures += [one_row(rng.integers(-1, 2, (200, 64)), 5, **SHORT)]
    for value in (8191, 8192, -8192, -8193):
        for place in (0, 7):
            blocks = np.zeros((3, 64), np.int64)
            blocks[1, place] = value
            pictures.append(one_row(blocks, 1, **WIDE))
    pictures += beyond_16_bits()
    assert sum(map(_C.decodes_as_baseline, pictures)) == len(pictures) - 4
    assert_equal_to_this_machine(check, [(data, SMALL, NO_PLANS) for data in pictures])


def is_ours(data: bytes) -> bool:
    try:
        return _C.decodes_as_baseline(data)
    except BadPictureError:
        return False


def test_flipped_bits(check: list[str]) -> None:
    """Some make blocks that leave 16 bits, where Pillow on aarch64 has other bytes. So has libjpeg."""
    files = filter(is_ours, each_bit_flipped(small()["baseline"]))
    assert_equal_to_this_machine(check, [(data, recipes.evaluate(size=8), NO_PLANS) for data in files])
