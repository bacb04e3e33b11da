"""Recipe.from_torchvision makes the presets from the official objects, and gives the transform's own bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1
from torchvision.transforms import v2

from pass_loader import Recipe, recipes

from ..helpers import official_classes as official
from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import noise, position_coded
from ..helpers.official_classes import whole
from ..helpers.recipes import rendered, tensor_steps


pytestmark = pytest.mark.oracle
BOTH = pytest.mark.parametrize("T", [v1, v2], ids=["v1", "v2"])
NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check(T: Any, *steps: Any, after: tuple[Any, ...] = ()) -> Recipe:
    """Steps without chance give the same bytes as torchvision on PIL pictures; `after` stand after the conversion."""
    recipe = Recipe.from_torchvision(T.Compose([*steps, *tensor_steps(T), *after]))
    for pixels in (position_coded(90, 120), noise(90, 120)):
        picture = Image.fromarray(pixels)
        if after:
            tensor = T.Compose([*steps, T.PILToTensor(), *after])(picture)
            want = tensor.permute(1, 2, 0).numpy()
        else:
            want = np.asarray(T.Compose(list(steps))(picture))
        assert_pixels_equal(rendered(recipe, pixels), want, recipe)
    return recipe


# The official objects


def assert_same(found: Recipe, want: Recipe) -> None:
    assert found.views == want.views
    assert (found.mean, found.std, found.batch) == (want.mean, want.std, want.batch)


def test_dino() -> None:
    assert_same(Recipe.from_torchvision(official.DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 8)), recipes.dino())
    wide = official.DataAugmentationDINO([0.14, 1.0], [0.05, 0.14], 10)  # argparse's nargs gives lists
    assert_same(
        Recipe.from_torchvision(wide, name="dino"),
        recipes.dino(global_scale=(0.14, 1.0), local_scale=(0.05, 0.14), local_crops=10),
    )


def test_swav() -> None:
    found = Recipe.from_torchvision(official.MultiCropDataset([224, 96], [2, 6], [0.14, 0.05], [1, 0.14]))
    assert_same(found, recipes.swav())
    assert found.name == "MultiCropDataset" and "from_torchvision(MultiCropDataset)" in str(found)


def test_moco() -> None:
    view = v1.Compose(official.mocov2_steps())
    assert_same(Recipe.from_torchvision(official.TwoCropsTransform(view)), recipes.mocov2())
    assert_same(Recipe.from_torchvision([view, view]), recipes.mocov2())
    assert_same(Recipe.from_torchvision((view, view), batch="views_labels"), recipes.mocov2())
    assert len(Recipe.from_torchvision(view).views) == 1
    first, second = (v1.Compose(official.mocov3_steps(*p)) for p in ((1.0, 0.0), (0.1, 0.2)))
    found = Recipe.from_torchvision(official.TwoCropsOfTwo(first, second), name="mocov3", batch="views")
    assert [(v.blur, v.solarize) for v in found.views] == [(1.0, 0.0), (0.1, 0.2)]
    assert found.views[1].saturation == (0.8, 1.2) and (found.name, found.batch) == ("mocov3", "views")


class Module(torch.nn.Module):
    """A container whose transforms are modules, in an order and number of its own, with a wrapper around one."""

    def __init__(self, many: Any, last: Any):
        super().__init__()
        self.many, self.last = torch.nn.ModuleList([many]), last

    def forward(self, picture: Any) -> Any:
        return tuple([one(picture) for one in self.many for _ in range(3)] + [self.last(picture.convert("RGB"))])


class Wrapper:
    def __init__(self, transform: Any):
        self.transform = transform

    def __call__(self, picture: Any) -> Any:
        return self.transform(picture)


class Named(v2.Compose):
    def __init__(self, size: int):
        super().__init__([v2.RandomResizedCrop(size), *tensor_steps(v2)])


def test_other_containers() -> None:
    found = Recipe.from_torchvision(Module(Named(32), Wrapper(Wrapper(Named(48)))))
    assert [view.size for view in found.views] == [32, 32, 32, 48]
    assert found.views[0].flip == found.views[0].jitter == 0 and found.mean == (0.0,) * 3 and found.std == (1.0,) * 3


# Bytes, step by step


@BOTH
@pytest.mark.parametrize("size", [64, (40, 72), (33, 33)])
@pytest.mark.parametrize("mode", [2, 3, v1.InterpolationMode.BILINEAR, v1.InterpolationMode.BICUBIC])
def test_crop(T: Any, size: Any, mode: Any) -> None:
    view = check(T, whole(T, size, mode)).views[0]
    assert (view.height, view.width) == ((size, size) if isinstance(size, int) else size)
    assert isinstance(view.size, int) == (view.height == view.width)


@BOTH
def test_random_crop(T: Any) -> None:
    view = Recipe.from_torchvision(T.Compose([T.RandomResizedCrop(32, [0.3, 0.6], (0.5, 2)), *tensor_steps(T)])).views[
        0
    ]
    assert (view.scale, view.ratio, view.interpolation) == ((0.3, 0.6), (0.5, 2.0), "bilinear")
    default = Recipe.from_torchvision(T.Compose([T.RandomResizedCrop(32), *tensor_steps(T)])).views[0]
    assert (default.scale, default.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))


class DINOv2Blur(v1.RandomApply):
    """facebookresearch/dinov2 b8931f7, dinov2/data/transforms.py:12-21."""

    def __init__(self, *, p: float):
        super().__init__([v1.GaussianBlur(9, (0.1, 2.0))], 1 - p)


def test_dinov2s_blur_is_what_it_does() -> None:
    """Declared with p = 0.1, it runs with 0.9."""
    view = Recipe.from_torchvision(v1.Compose([whole(v1), DINOv2Blur(p=0.1), *tensor_steps(v1)])).views[0]
    assert (view.blur, view.blur_kernel, view.blur_sigma) == (0.9, 9, (0.1, 2.0))


STEPS: dict[str, Callable[[Any], list[Any]]] = {
    "brightness": lambda T: [T.ColorJitter(brightness=(1.3, 1.3))],
    "darkness": lambda T: [T.ColorJitter(brightness=(0.0, 0.0))],
    "contrast": lambda T: [T.RandomApply([T.ColorJitter(contrast=(0.7, 0.7))], p=1.0)],
    "saturation": lambda T: [T.ColorJitter(saturation=(1.8, 1.8))],
    "hue": lambda T: [T.ColorJitter(hue=(-0.13, -0.13))],
    "grayscale": lambda T: [T.RandomGrayscale(p=1.0)],
    "always gray": lambda T: [T.Grayscale(3)],
    "blur": lambda T: [official.GaussianBlur([1.3, 1.3])],
    "small blur": lambda T: [T.RandomApply([official.GaussianBlur([0.1, 0.1])], p=1)],
    "PIL blur": lambda T: [official.PILRandomGaussianBlur(1.0, 1.7, 1.7)],
    "torchvision's blur": lambda T: [T.GaussianBlur(9, (1.3, 1.3))],
    "its 23 taps": lambda T: [T.RandomApply([T.GaussianBlur(23, (2.0, 2.0))], p=1)],
    "solarize": lambda T: [T.RandomSolarize(128, p=1.0)],
    "DINO's solarize": lambda T: [official.Solarization(1.0)],
    "MoCo-v3's solarize": lambda T: [official.Solarize()],
    **{f"solarize {t}": lambda T, t=t: [T.RandomSolarize(t, 1.0)] for t in (0, 100, 127.5, 255.5, 256, 900, -3)},
    "all": lambda T: [
        T.ColorJitter(contrast=(1.4, 1.4)), T.RandomGrayscale(1), official.GaussianBlur((2, 2)), official.Solarize(),
    ],
    "several, always": lambda T: [T.RandomApply([T.ColorJitter(hue=(0.1, 0.1)), T.RandomGrayscale(1)], p=1)],
    "torch's containers": lambda T: [torch.nn.Sequential(T.RandomSolarize(50, p=1.0), torch.nn.Identity())],
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("name", STEPS)
def test_step(T: Any, name: str) -> None:
    """Kills: threshold off by one, a radius taken for something else, factors for ranges, a step that is dropped."""
    check(T, whole(T), *STEPS[name](T))


@BOTH
def test_absent_steps_change_nothing(T: Any) -> None:
    never = [T.RandomSolarize(128, p=0), T.RandomApply([T.ColorJitter(0.5)], p=0), T.RandomGrayscale(p=0),
             T.ColorJitter(), T.RandomHorizontalFlip(0), official.PILRandomGaussianBlur(0.0)]  # fmt: skip
    found = check(T, *never, whole(T), *never)
    assert found.views == check(T, whole(T)).views


@BOTH
@pytest.mark.parametrize("place", range(8))
def test_a_flip_may_stand_anywhere_after_the_crop(T: Any, place: int) -> None:
    """The same bytes from every place, on odd and even widths; after ToTensor and Normalize too."""
    for size, sigma in ((64, 0.1), (65, 0.7), ((31, 33), 2.0)):
        steps = [whole(T, size), T.ColorJitter(contrast=(1.4, 1.4)), T.RandomGrayscale(1.0),
                 official.GaussianBlur((sigma, sigma)), official.Solarize()]  # fmt: skip
        if place < 5:
            steps.insert(place + 1, T.RandomHorizontalFlip(1.0))
            found = check(T, *steps)
        else:
            found = check(T, *steps, after=(T.RandomHorizontalFlip(1.0),))
        assert found.views[0].flip == 1.0


@BOTH
def test_jitter_runs_its_steps_in_any_order(T: Any) -> None:
    jitter = T.ColorJitter((1.3, 1.3), (0.7, 0.7), (1.5, 1.5), (0.1, 0.1))
    pixels = noise(9, 12)
    torch.manual_seed(0)
    theirs = {np.asarray(T.Compose([whole(T, 8), jitter])(Image.fromarray(pixels))).tobytes() for _ in range(400)}
    recipe = Recipe.from_torchvision(T.Compose([whole(T, 8), jitter, *tensor_steps(T)]))
    ours = {rendered(recipe, pixels, record).tobytes() for record in range(400)}
    assert ours == theirs and len(ours) > 12


@pytest.mark.slow
@BOTH
def test_probabilities_multiply(T: Any) -> None:
    """Kills: RandomApply's p in place of the product; p as the share that is left alone."""
    pixels = noise(9, 12)
    inner = T.RandomApply([T.Compose([T.RandomGrayscale(p=0.6)])], p=0.5)
    torch.manual_seed(0)
    theirs = sum(np.ptp(np.asarray(inner(Image.fromarray(pixels))), axis=2).max() == 0 for _ in range(3000)) / 3000
    view = Recipe.from_torchvision(T.Compose([whole(T, 8), inner, *tensor_steps(T)])).views[0]
    assert view.grayscale == 0.3 and abs(theirs - view.grayscale) < 4 * (0.3 * 0.7 / 3000) ** 0.5
    assert view.jitter == view.blur == view.solarize == 0


# Tensors


@pytest.mark.parametrize(
    "steps",
    [
        [v1.ToTensor()],
        [v1.PILToTensor(), v1.ConvertImageDtype(torch.float32)],
        [v2.ToTensor()],
        [v1.ToTensor(), v1.Normalize(*NORM)],
        [v1.ToTensor(), v1.Normalize([0.5], [0.25])],
        [v1.ToTensor(), v1.Normalize(torch.tensor(NORM[0]), torch.tensor(NORM[1]), inplace=True)],
    ],
)
def test_tensors_are_equal(steps: list[Any]) -> None:
    recipe = Recipe.from_torchvision(v1.Compose([whole(v1, 16), *steps]))
    assert np.array_equal(recipe.normalize_table(), theirs_of_every_byte(v1.Compose(steps)))


def theirs_of_every_byte(steps: Any) -> np.ndarray:
    every = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    return np.asarray(steps(Image.fromarray(every)))[:, 0]


@pytest.mark.parametrize("convert", [v2.ToDtype(torch.float32, scale=True), v2.ConvertImageDtype(torch.float32)])
def test_v2_scales_by_a_product(convert: Any) -> None:
    """v2 multiplies by 1 / 255 where ToTensor divides by 255: docs/from-torchvision.md states the difference."""
    steps = [v2.ToImage(), v2.RGB(), convert, v2.ToPureTensor(), v2.Normalize(*NORM)]
    recipe = Recipe.from_torchvision(v2.Compose([whole(v2, 16), *steps]))
    assert (recipe.mean, recipe.std) == NORM
    difference = np.abs(recipe.normalize_table() - theirs_of_every_byte(v2.Compose(steps)))
    assert 0 < difference.max() < 8e-7
