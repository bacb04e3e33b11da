"""Recipe.from_torchvision: the presets out of the official objects, the transform's own bytes, and every refusal."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1
from torchvision.transforms import v2

from pass_loader import _C, Recipe, recipes, render_plan

from . import official_classes as official
from .compare import assert_pixels_equal
from .corpus import noise, position_coded

pytestmark = pytest.mark.oracle
BOTH = pytest.mark.parametrize("T", [v1, v2], ids=["v1", "v2"])
NORM = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def tensor_steps(T: Any) -> list[Any]:
    return [T.ToTensor()] if T is v1 else [T.ToImage(), T.ToDtype(torch.float32, scale=True)]


def whole(T: Any, size: Any = 64, interpolation: Any = v1.InterpolationMode.BILINEAR) -> Any:
    """A crop that always takes all of a picture of 120 x 90."""
    return T.RandomResizedCrop(size, scale=(1, 1), ratio=(4 / 3, 4 / 3), interpolation=interpolation)


def rendered(recipe: Recipe, pixels: np.ndarray, record: int = 0) -> np.ndarray:
    height, width = pixels.shape[:2]
    plan = _C.plan_views(recipe.rows(), seed=0, epoch=0, record=record, height=height, width=width)
    return render_plan(pixels, plan)[0]


def check(T: Any, *steps: Any, behind: tuple[Any, ...] = ()) -> Recipe:
    """Steps without chance give the same bytes as torchvision on PIL pictures; `behind` stand after the conversion."""
    recipe = Recipe.from_torchvision(T.Compose([*steps, *tensor_steps(T), *behind]))
    for pixels in (position_coded(90, 120), noise(90, 120)):
        picture = Image.fromarray(pixels)
        if behind:
            tensor = T.Compose([*steps, T.PILToTensor(), *behind])(picture)
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
def test_a_flip_may_stand_anywhere_behind_the_crop(T: Any, place: int) -> None:
    """The same bytes from every place, on odd and even widths; behind ToTensor and Normalize too."""
    for size, sigma in ((64, 0.1), (65, 0.7), ((31, 33), 2.0)):
        steps = [whole(T, size), T.ColorJitter(contrast=(1.4, 1.4)), T.RandomGrayscale(1.0),
                 official.GaussianBlur((sigma, sigma)), official.Solarize()]  # fmt: skip
        if place < 5:
            steps.insert(place + 1, T.RandomHorizontalFlip(1.0))
            found = check(T, *steps)
        else:
            found = check(T, *steps, behind=(T.RandomHorizontalFlip(1.0),))
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
    """v2 multiplies by 1 / 255 where ToTensor divides by 255: docs/official-scripts.md states the difference."""
    steps = [v2.ToImage(), v2.RGB(), convert, v2.ToPureTensor(), v2.Normalize(*NORM)]
    recipe = Recipe.from_torchvision(v2.Compose([whole(v2, 16), *steps]))
    assert (recipe.mean, recipe.std) == NORM
    difference = np.abs(recipe.normalize_table() - theirs_of_every_byte(v2.Compose(steps)))
    assert 0 < difference.max() < 8e-7


# Refusals


def view_of(*steps: Any) -> Any:
    return v1.Compose([whole(v1), *steps, v1.ToTensor()])


class Overriding(v1.RandomResizedCrop):
    @staticmethod
    def get_params(*_: Any) -> Any:
        return 0, 0, 5, 5


class GaussianBlur(official.GaussianBlur):
    """Named and built as MoCo's, but with other pixels."""

    def __call__(self, picture: Any) -> Any:
        return v1.GaussianBlur(9, self.sigma)(picture)


class DINOv2Blur(v1.RandomApply):
    def __init__(self, p: float):
        super().__init__([v1.GaussianBlur(9, (0.1, 2.0))], 1 - p)


class InvertedBlur(official.PILRandomGaussianBlur):
    def __call__(self, picture: Any) -> Any:
        blur = official.PILRandomGaussianBlur(1 - self.prob, self.radius_min, self.radius_max)
        return blur(picture)


class CarelessBlur(official.PILRandomGaussianBlur):
    """Blurs whatever its probability."""

    def __call__(self, picture: Any) -> Any:
        return official.PILRandomGaussianBlur(1.0, self.radius_min, self.radius_max)(picture)


class CvBlur:
    pass


class PosterizingSolarize:
    threshold = 128

    def __call__(self, picture: Any) -> Any:
        return picture.point(lambda x: x & 0xF0)


class TwiceCropped(official.TwoCropsTransform):
    def __call__(self, picture: Any) -> Any:
        return [self.base_transform(picture.resize((9, 9)))]


class Choosing(official.TwoCropsOfTwo):
    def __call__(self, picture: Any) -> Any:
        return [random.choice([self.base_transform1, self.base_transform2])(picture)]


class Dictionary(official.TwoCropsTransform):
    def __call__(self, picture: Any) -> Any:
        return {"view": self.base_transform(picture)}


GRAY, JITTER, SOLAR = v1.RandomGrayscale(0.2), v1.ColorJitter(0.4), v1.RandomSolarize(128)
FLIP, BLUR, TENSOR = v1.RandomHorizontalFlip(), official.GaussianBlur(), v1.ToTensor()
REFUSED: list[tuple[Any, str]] = [
    (view_of(v1.RandomRotation(10)), "view 0: RandomRotation is not a step that a recipe has; known are"),
    (view_of(v1.Lambda(abs)), "Lambda is not a step"),
    (view_of(v1.RandomChoice([GRAY, JITTER])), "RandomChoice is not a step"),
    (v2.Compose([v2.Resize(9), v2.CenterCrop(8), TENSOR]), "Resize is not a step"),
    (view_of(GRAY, JITTER), "ColorJitter stands after RandomGrayscale: that gives other pixels than a recipe's order"),
    (view_of(BLUR, GRAY), "RandomGrayscale stands after GaussianBlur"),
    (view_of(SOLAR, BLUR), "GaussianBlur stands after RandomSolarize"),
    (v1.Compose([GRAY, whole(v1), TENSOR]), "RandomResizedCrop stands after RandomGrayscale"),
    (v1.Compose([FLIP, whole(v1), TENSOR]), "RandomHorizontalFlip stands before the crop; put it behind"),
    (view_of(FLIP, FLIP), "RandomHorizontalFlip stands after RandomHorizontalFlip: a recipe has each step once"),
    (v1.Compose([TENSOR, whole(v1)]), "RandomResizedCrop stands after ToTensor: there it works on a tensor"),
    (v2.Compose([v2.ToImage(), whole(v2)]), "RandomResizedCrop stands after ToImage: there it works on a tensor"),
    (v1.Compose([GRAY, TENSOR]), "no RandomResizedCrop"),
    (v1.Compose([whole(v1)]), "no ToTensor, nor ToImage or PILToTensor"),
    (v2.Compose([whole(v2), v2.ToDtype(torch.float32, scale=True)]), "no ToTensor, nor ToImage"),
    (v1.Compose([whole(v1), v1.PILToTensor()]), "nothing makes float32 of the bytes; add ToDtype"),
    (v2.Compose([whole(v2), v2.ToImage(), v2.ToDtype(torch.float32)]), "ToDtype has dtype torch.float32, scale=False"),
    (v2.Compose([whole(v2), v2.ToImage(), v2.ToDtype(torch.float16, scale=True)]), "ToDtype has dtype torch.float16"),
    (view_of(v1.RandomApply([JITTER, GRAY], p=0.8)), r"RandomApply\(p=0.8\) around ColorJitter and RandomGrayscale"),
    (v1.Compose([v1.RandomApply([whole(v1)], p=0.5), TENSOR]), "around RandomResizedCrop: a recipe has that step alw"),
    (v1.Compose([whole(v1, interpolation=v1.InterpolationMode.NEAREST), TENSOR]), "interpolation is 'nearest', want"),
    (v1.Compose([v1.RandomResizedCrop(8, antialias=False), TENSOR]), "antialias=False"),
    (view_of(v1.Grayscale(1)), "Grayscale gives 1 channel"),
    (v1.Compose([whole(v1), TENSOR, v1.Normalize([0.1, 0.2], [1, 1])]), "Normalize's mean has 2 numbers, want 3 or 1"),
    (view_of(v1.GaussianBlur(9)), r"torchvision's GaussianBlur\(kernel_size=\(9, 9\)\) cuts the Gaussian off"),
    (view_of(DINOv2Blur(0.1)), "torchvision's GaussianBlur"),
    (view_of(GaussianBlur()), r"GaussianBlur with {'sigma': \[1.25, 1.25\]} gives other pixels than PIL's"),
    (view_of(InvertedBlur(0.5)), "InvertedBlur with .* gives other pixels than PIL's ImageFilter.GaussianBlur"),
    (view_of(CarelessBlur(0.5)), "CarelessBlur with {'prob': 0.0, .* gives other pixels than the picture's"),
    (view_of(CvBlur()), "CvBlur has neither sigma nor radius_min and radius_max"),
    (view_of(official.GaussianBlur(3)), "3 is no range, want two numbers"),
    (view_of(PosterizingSolarize()), "PosterizingSolarize with {} gives other pixels than PIL's ImageOps.solarize"),
    (v1.Compose([Overriding(8), TENSOR]), "Overriding is not a step"),
    (TwiceCropped(view_of()), "it changes the picture before its Compose gets it"),
    (Choosing(view_of(), view_of()), "Choosing gives now these views, now those"),
    (Dictionary(view_of()), "Dictionary is neither a step that a recipe has nor an object that returns the list"),
    ([view_of(), v1.Compose([TENSOR])], "this list: view 1: no RandomResizedCrop .a list is one transform a view"),
    ([], "it is empty"),
    (17, "int is no transform"),
    (lambda picture: TENSOR(picture), "function is neither"),
    ([view_of(), v1.Compose([whole(v1), TENSOR, v1.Normalize(*NORM)])], r"view 1 is normalized with mean \(0.485.*one"),
    (v1.Compose([v1.RandomResizedCrop(8, (0.0, 2.0)), TENSOR]), "view 0: scale is"),
]


@pytest.mark.parametrize("transform,message", REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_refusals_name_what_and_why(transform: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.from_torchvision(transform)


def test_random_states_stay() -> None:
    def states() -> tuple[object, ...]:
        return random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    Recipe.from_torchvision(official.DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 2))
    with pytest.raises(ValueError):
        Recipe.from_torchvision(view_of(GaussianBlur()))
    assert states() == before


def test_neither_torchvision_nor_torch_is_imported() -> None:
    code = """
        import sys
        from pass_loader import Recipe
        def fake(name, **fields):
            return type(name, (), {"__module__": "torchvision.transforms.transforms", **fields})()
        crop = fake("RandomResizedCrop", size=(8, 8), scale=(0.2, 1), ratio=(1, 1), interpolation=3)
        transform = fake("Compose", transforms=[crop, fake("ToTensor")])
        print(Recipe.from_torchvision(transform).views[0].interpolation)
        assert not {"torch", "torchvision"} & set(sys.modules)
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert found.stdout == "bicubic\n", found.stderr
