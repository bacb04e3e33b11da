"""One channel: gray pictures in one plane, views of one channel or of three equal ones; mean and std a source."""

from __future__ import annotations

import dataclasses
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import Recipe, Samples, ViewSpec, _C, recipes, render_plan
from pass_loader.recipes import reference
from pass_loader.pack import build

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import decodable, jpeg, noise, position_coded
from ..helpers.plans import plan_of
from ..helpers.trees import write_tree
from ..helpers.with_torch import DataLoader, ShardDataset, needs_torch, torch


pytestmark = pytest.mark.oracle
DISTORTED = recipes.dino(local_crops=1, global_size=64, local_size=32)
GRAY = dataclasses.replace(DISTORTED, channels=1, mean=0.5056, std=0.252)


def check_gray(pixels: np.ndarray, plan: np.ndarray) -> None:
    """Compare (height, width) uint8 as one channel, as Pillow's mode L, and as three equal ones, as mode RGB."""
    one = render_plan(pixels[:, :, None], plan)[0]
    assert_pixels_equal(one, reference.render(Image.fromarray(pixels), plan[0]), plan)
    three = render_plan(np.repeat(pixels[:, :, None], 3, axis=2), plan)[0]
    assert_pixels_equal(np.repeat(one, 3, axis=2), three, plan)


@pytest.mark.slow
@pytest.mark.parametrize("name", decodable())
def test_decode(name: str, isa: str) -> None:
    """Kills: the luma of a JPEG in place of convert("L"), CMYK that becomes gray another way, planes not written."""
    data = decodable()[name]
    want = np.asarray(reference.decode(data, channels=1))
    assert_pixels_equal(_C.decode(data, 1), want[:, :, None], name)
    record = _C.jpeg_to_dct(data)
    if record is not None:
        assert_pixels_equal(_C.decode(record, 1), want[:, :, None], name)
    assert_pixels_equal(_C.decode(data, 3), np.asarray(reference.decode(data)), name)


def test_sampling_factors_of_one_component(isa: str) -> None:
    """They mean nothing (T.81 A.2.2), but decide where a record of the codec dct is decoded to."""
    for factors in (0x11, 0x22, 0x14, 0x41, 0x44):
        data = bytearray(jpeg(noise(41, 70), mode="L"))
        data[data.index(b"\xff\xc0") + 11] = factors
        want = np.asarray(reference.decode(bytes(data), channels=1))[:, :, None]
        assert_pixels_equal(_C.decode(bytes(data), 1), want, factors)
        record = _C.jpeg_to_dct(bytes(data))
        assert record is not None
        assert_pixels_equal(_C.decode(record, 1), want, factors)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="channels is 2, want 1 or 3"):
        _C.decode(jpeg(noise(4, 4)), 2)
    with pytest.raises(ValueError, match=r"want pixels of shape \(height, width, 3\), or \(height, width, 1\)"):
        render_plan(noise(4, 4)[:, :, :2], plan_of(4, 4))


def test_every_step(isa: str) -> None:
    """Kills: contrast around another mean, a step that looks for three planes."""
    pixels = noise(61, 83)[:, :, 0]
    for order in itertools.permutations(range(4)):
        check_gray(pixels, plan_of(61, 83, jitter_order=list(order), brightness=1.3, contrast=0.7, saturation=1.4,
                                   hue=0.07, grayscale=order[0] == 1, solarize_threshold=128 - order[1]))  # fmt: skip
    for size in ((1, 1), (1, 2), (3, 1), (2, 3)):  # where every pixel counts for the mean
        check_gray(noise(*size, 7)[:, :, 0], plan_of(*size, jitter_order=[1, -1, -1, -1], contrast=0.3))
    for factor in (0.0, 0.2, 1.0000001, 1.8, -3.0, 1000.0):
        for step, name in enumerate(("brightness", "contrast", "saturation")):
            check_gray(pixels, plan_of(61, 83, jitter_order=[step, -1, -1, -1], **{name: factor}))
    for sigma in (0.1, 0.7, 1.93, 40.0):
        check_gray(pixels, plan_of(61, 83, blur_sigma=sigma))


@needs_torch
def test_torchvisions_blur(isa: str) -> None:
    for taps in (9, 23):
        check_gray(noise(61, 83)[:, :, 0], plan_of(61, 83, blur_sigma=1.4, blur_kernel=taps))


@pytest.mark.parametrize("interpolation", [2, 3])
def test_resizes(interpolation: int, isa: str) -> None:
    """Kills: a loop over three planes in one of the kernels, memory for fewer planes than are written."""
    window = {"resize_height": 80, "resize_width": 60, "offset_y": 13, "offset_x": 7, "out_height": 41, "out_width": 37}
    for size, out in (((1, 1), (5, 7)), ((97, 89), (96, 96)), ((300, 17), (33, 65)), ((501, 499), (31, 224))):
        pixels = position_coded(*size)[:, :, 2]
        for flip, order in itertools.product((False, True), (0, 1)):
            check_gray(pixels, plan_of(*size, resize_height=out[0], resize_width=out[1], interpolation=interpolation,
                                       flip=flip, resize_order=order))  # fmt: skip
    for via in ({}, {"via_height": 50, "via_width": 130}):
        check_gray(noise(400, 90)[:, :, 1], plan_of(400, 90, interpolation=interpolation, **via, **window))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of a gray, a colour, a CMYK and a progressive gray JPEG; tests do not write into it."""
    photograph = photographs()["china.jpg"].resize((220, 160))
    files = {
        "gray.jpg": jpeg(photograph, mode="L"),
        "colour.jpg": jpeg(photograph),
        "cmyk.jpg": jpeg(photograph, mode="CMYK"),
        "progressive.jpg": jpeg(photograph, mode="L", progressive=True),
    }
    place = tmp_path_factory.mktemp("gray")
    report = build([write_tree(place / "in", files)], place / "pack")
    assert report.gray == 2
    return place / "pack"


def by_pillow(samples: Samples, record: int, epoch: int = 0) -> list[np.ndarray]:
    """A record's views, (channels, height, width) float32, of its own bytes."""
    picture = reference.decode(samples.read(record), samples.recipe.channels)
    plans = samples.plan(record, epoch)
    return [reference.normalize(reference.render(picture, plan), samples.recipe) for plan in plans]


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("recipe", [GRAY, DISTORTED], ids=["one channel", "three"])
@pytest.mark.parametrize("last", [False, True])
def test_batches(mixed: Path, recipe: Recipe, last: bool, isa: str) -> None:
    """Kills: a colour picture's first plane taken for its gray, a batch of three channels where one was asked for."""
    dataset = ShardDataset(mixed, recipe, seed=5)
    for threads in (0, 2):
        loader = DataLoader(dataset, 4, num_workers=threads, channels_last=last)
        for epoch in range(3):
            loader.sampler.set_epoch(epoch)
            views, _ = next(iter(loader))
            for record in range(4):
                for view, want in zip(views, by_pillow(dataset, record, epoch)):
                    assert view.shape[1:] == want.shape and np.array_equal(view[record].numpy(), want)


@needs_torch
def test_types_and_samples(mixed: Path) -> None:
    """Every element type, the single sample and its uint8 views, the pair on the channels."""
    dataset = ShardDataset(mixed, GRAY)
    plain = next(iter(DataLoader(dataset, 4)))[0]
    for dtype in (torch.float16, torch.bfloat16):
        assert all(
            torch.equal(a, b.to(dtype)) for a, b in zip(next(iter(DataLoader(dataset, 4, dtype=dtype)))[0], plain)
        )
    from pass_loader import normalize

    for view, bytes_ in zip(plain, next(iter(DataLoader(dataset, 4, dtype=torch.uint8)))[0]):
        assert torch.equal(normalize(bytes_, GRAY), view)
    for record in range(4):
        assert all(torch.equal(one, view[record]) for one, view in zip(dataset.sample(record), plain))
        for pixels, view in zip(dataset.render(record), plain):
            assert pixels.shape[2] == 1 and np.array_equal(reference.normalize(pixels, GRAY), view[record].numpy())
    pair = dataclasses.replace(recipes.simclr(size=24), channels=1, mean=0.5, std=0.25)
    views, _ = next(iter(DataLoader(ShardDataset(mixed, pair), 4)))
    singles = [torch.cat(ShardDataset(mixed, pair).sample(record)) for record in range(4)]
    assert views.shape == (4, 2, 24, 24) and torch.equal(views, torch.stack(singles))


class TwoSources(ShardDataset):
    """Even records are of one source, odd ones of another."""

    def normalized_recipes(self) -> list[Recipe]:
        return [self.recipe, dataclasses.replace(self.recipe, mean=recipes.NIH_MEAN, std=recipes.NIH_STD)]

    def sources_of(self, records: np.ndarray) -> np.ndarray:
        return (records % 2).astype(np.uint16)


@needs_torch
def test_mean_and_std_a_source(mixed: Path, isa: str) -> None:
    """Kills: the first source's numbers for all samples of a batch, those of a slot in place of a record's."""
    dataset = TwoSources(mixed, DISTORTED)
    for dtype in (torch.float32, torch.bfloat16):
        views, _ = next(iter(DataLoader(dataset, 4, sampler=[3, 0, 2, 1], dtype=dtype, num_workers=2)))
        for slot, record in enumerate((3, 0, 2, 1)):
            own = dataset.normalized_recipes()[record % 2]
            for view, want in zip(views, by_pillow(Samples(mixed, own), record)):
                assert torch.equal(view[slot], torch.from_numpy(want).to(dtype))
            assert all(torch.equal(one.to(dtype), view[slot]) for one, view in zip(dataset.sample(record), views))


@needs_torch
def test_a_packs_own_mean_and_std(mixed: Path) -> None:
    recipe = recipes.mae_thorax(size=32)
    own = ShardDataset(mixed, recipe, mean=0.5056, std=(0.252, 0.25, 0.3))
    assert own.recipe.mean == recipes.NIH_MEAN and own.recipe.std == (0.252, 0.25, 0.3)
    assert ShardDataset(mixed, recipe, std=0.5).recipe.mean == recipes.IMAGENET_MEAN
    for record in range(4):
        assert np.array_equal(own.sample(record)[0].numpy(), by_pillow(own, record)[0])
        same = ShardDataset(mixed, recipes.mae_thorax(size=32, mean=0.5056, std=(0.252, 0.25, 0.3)))
        assert torch.equal(own.sample(record)[0], same.sample(record)[0])


def test_recipes_of_one_channel() -> None:
    recipe = recipes.mae_thorax(mean=0.5056, std=0.252, channels=1)
    assert recipe.mean == (0.5056,) and recipe.std == (0.252,) and recipe.normalize_table().shape == (1, 256)
    assert "one channel, mean 0.5056, std 0.252" in str(recipe) and "channel" not in str(recipes.mae_thorax())
    for fields, words in (({"channels": 1}, "want one number each, as channels is 1"),
                          ({"channels": 2}, "channels is 2, want 3, or 1 for gray"),
                          ({"mean": (0.5, 0.5)}, "want three numbers each")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            Recipe("wrong", (ViewSpec(8),), **fields)  # type: ignore[arg-type]


@needs_torch
def test_engine_refuses_sources_that_it_does_not_have(mixed: Path) -> None:
    class Wrong(TwoSources):
        def normalized_recipes(self) -> list[Recipe]:
            return [self.recipe]

    with pytest.raises(ValueError, match="source 1: there are 1"):
        next(iter(DataLoader(Wrong(mixed, DISTORTED), 2)))


def test_preview(mixed: Path, tmp_path: Path) -> None:
    from pass_loader.data.preview import preview

    preview(mixed, GRAY, tmp_path / "sheet.png", count=2)
    with Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())) as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels[pixels.min(1) == pixels.max(1)])) > 100, "the views are there, in gray"
