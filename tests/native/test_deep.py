"""Gray of 16 bits: Pillow's own resize of mode I;16, no step that Pillow does not have for it, no loss to 8 bits."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pass_loader import RecordError, Samples, _C, recipes, render_plan
from pass_loader.recipes import reference
from pass_loader.pack import build
from pass_loader.data.preview import preview

from ..helpers.compare import PILLOW_WRAPS, assert_pixels_equal
from ..helpers.corpus import extremes, jpeg, noise
from ..helpers.levels import every_level
from ..helpers.plans import plan_of
from ..helpers.pngwriter import png
from ..helpers.recipes import hostile
from ..helpers.trees import write_tree
from ..helpers.with_torch import DataLoader, ShardDataset, needs_torch, torch


pytestmark = pytest.mark.oracle
RECIPE = recipes.mae_thorax(size=48)
CLIPS = pytest.mark.skipif(PILLOW_WRAPS, reason="Pillow before 12.3 wraps around where bicubic overshoots 16 bits")
HALVES = () if torch is None else (torch.float16, torch.bfloat16)


def check(pixels: np.ndarray, plan: np.ndarray) -> np.ndarray:
    found = render_plan(pixels[:, :, None], plan)[0]
    assert found.dtype == np.uint16
    assert_pixels_equal(found, reference.render(Image.fromarray(pixels), plan[0]), plan)
    return found


@pytest.mark.parametrize("interpolation", [2, pytest.param(3, marks=CLIPS)])
@pytest.mark.parametrize("order", [0, 1])
def test_resizes(interpolation: int, order: int, isa: str) -> None:
    """Kills: weights of 22 bits, sums in float32 or another order, values beyond white that wrap
    around, the other order of passes."""
    window = {"resize_height": 80, "resize_width": 60, "offset_y": 13, "offset_x": 7, "out_height": 41, "out_width": 37}
    for size, out in (((1, 1), (5, 7)), ((3, 5), (40, 50)), ((97, 89), (96, 96)), ((300, 17), (33, 65)),
                      ((17, 300), (65, 33)), ((64, 64), (1, 1)), ((251, 249), (31, 112))):  # fmt: skip
        for flip in (False, True):
            check(extremes(*size), plan_of(*size, resize_height=out[0], resize_width=out[1], flip=flip,
                                           interpolation=interpolation, resize_order=order))  # fmt: skip
    pixels = extremes(120, 90)
    inside = plan_of(70, 50, crop_x=11, crop_y=9, resize_height=33, resize_width=31, interpolation=interpolation)
    check(pixels, inside)
    for via in ({}, {"via_height": 50, "via_width": 130}):
        check(pixels, plan_of(120, 90, interpolation=interpolation, flip=True, **via, **window))


@CLIPS
def test_values_beyond_white(isa: str) -> None:
    """Bicubic weights go beyond both ends at an edge: clipped, as by Pillow."""
    pixels = np.zeros((8, 64), np.uint16)
    pixels[:, 32:] = 65535
    found = check(pixels, plan_of(8, 64, resize_height=8, resize_width=200, interpolation=3))
    assert found.min() == 0 and found.max() == 65535


@pytest.mark.parametrize(
    "fields",
    [{"jitter_order": [-1, 2, -1, -1]}, {"grayscale": True}, {"blur_sigma": 1.0}, {"solarize_threshold": 128}],
    ids=lambda fields: next(iter(fields)),
)
def test_steps_that_pillow_does_not_have(fields: dict[str, object]) -> None:
    pixels = extremes(9, 9)
    with pytest.raises(ValueError, match="16 bits can be cropped, resized and flipped alone"):
        render_plan(pixels[:, :, None], plan_of(9, 9, **fields))
    render_plan(pixels[:, :, None], plan_of(9, 9))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures of 16 bits, a gray one of 8 and a JPEG; tests do not write into it."""
    files = {"0.png": png(extremes(70, 60), 16), "1.png": png(extremes(50, 90, 1), 16, interlaced=True)}
    files |= {"2.png": png(noise(40, 40)[:, :, 0]), "3.jpg": jpeg(noise(40, 40))}
    place = tmp_path_factory.mktemp("deep")
    build([write_tree(place / "in", files)], place / "pack")
    return place / "pack"


@needs_torch
@pytest.mark.parametrize("channels", [1, 3])
def test_batches(pack: Path, channels: int, isa: str) -> None:
    """Values of 16 bits beside those of 8 in one batch. Kills: a division by 65536, one channel of three written."""
    recipe = RECIPE if channels == 3 else dataclasses.replace(RECIPE, channels=1, mean=0.5056, std=0.252)
    dataset = ShardDataset(pack, recipe, seed=1)
    for last in (False, True):
        views, _ = next(iter(DataLoader(dataset, 4, num_workers=2, channels_last=last)))
        for record in range(4):
            picture = reference.decode(dataset.read(record), channels)
            want = reference.normalize(reference.render(picture, dataset.plan(record)[0]), recipe)
            assert np.array_equal(views[record].numpy(), want), record
            assert np.array_equal(dataset.sample(record)[0].numpy(), want)
        halves = [next(iter(DataLoader(dataset, 4, dtype=dtype, channels_last=last)))[0] for dtype in HALVES]
        assert all(torch.equal(half, views.to(half.dtype)) for half in halves)
    assert len(np.unique(views[0].numpy())) > 1000, "more values than 8 bits have"


@needs_torch
@pytest.mark.slow
def test_every_value_in_every_type(tmp_path: Path) -> None:
    """Kills: a half type's rounding, its subnormal numbers, what is beyond its range."""
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    build([write_tree(tmp_path / "in", {"every.png": png(every, 16, filters=2)})], tmp_path / "pack")
    whole = recipes.evaluate(resize=256, size=256)
    for mean, std in [*hostile(), ((0.5, 0.5, 0.5), (3e4, 1e5, 2.0**20))]:
        recipe = dataclasses.replace(whole, mean=mean, std=std)
        with np.errstate(over="ignore"):
            scaled = every.astype(np.float32) / np.float32(65535)
            want = np.stack([(scaled - np.float32(m)) / np.float32(s) for m, s in zip(mean, std)])
        dataset = ShardDataset(tmp_path / "pack", recipe)
        for dtype in (torch.float32, *HALVES):
            bits = torch.int32 if dtype == torch.float32 else torch.int16
            wanted = torch.from_numpy(want).to(dtype).view(bits)
            for level in every_level():
                found = next(iter(DataLoader(dataset, 1, dtype=dtype)))[0][0]
                assert torch.equal(found.view(bits), wanted), (mean, std, dtype, level)


@needs_torch
def test_a_recipe_that_does_not_fit_raises_whatever_the_policy(pack: Path) -> None:
    """Kills: 16 bits cut to 8 for a step's sake, a picture that is replaced because the recipe does not fit it."""
    for recipe, words in ((recipes.mocov2(size=24), r"view 0 has jitter: give recipe.override\(jitter=0.0\)"),
                          (RECIPE.override(solarize=0.1), "view 0 has solarize"),
                          (RECIPE.override(blur=1.0), "view 0 has blur"),
                          (RECIPE.override(grayscale=0.2), "view 0 has grayscale")):  # fmt: skip
        dataset = ShardDataset(pack, recipe)
        for policy in ("raise", "replace", "skip"):
            with pytest.raises(RecordError, match=f"record 1, id 1: .* of 16 bits .*{words}"):
                list(DataLoader(dataset, 2, sampler=[2, 1], on_error=policy))
        assert len(list(DataLoader(dataset, 2, sampler=[2, 3]))) == 1, "the others can be had"
    loader = DataLoader(ShardDataset(pack, RECIPE), 2, dtype=torch.uint8, on_error="replace")
    with pytest.raises(RecordError, match="uint8 output would cut a gray picture of 16 bits to 8: ask for float32"):
        next(iter(loader))


def test_looking_at_one(pack: Path, tmp_path: Path) -> None:
    samples = Samples(pack, RECIPE)
    with Image.open(io.BytesIO(samples.read(0))) as picture:
        want = np.asarray(picture)
    pixels = samples.decode(0)
    assert pixels.dtype == np.uint16 and np.array_equal(pixels[:, :, 0], want)
    view = samples.render(0)[0]
    assert view.dtype == np.uint16 and view.shape == (48, 48, 1)
    preview(pack, RECIPE, tmp_path / "sheet.png")
    with pytest.raises(TypeError):
        _C.render_plan(pixels.astype(np.int32), samples.plan(0))
