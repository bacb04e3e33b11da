"""Recipe.from_torchvision refuses what no recipe can do, by name and with the reason, and changes nothing."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1
from torchvision.transforms import v2

from pass_loader import Recipe

from ..helpers import official_classes as official
from ..helpers.official_classes import IMAGENET, whole


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


class Returning(official.TwoCropsTransform):
    def __call__(self, picture: Any) -> Any:
        return [self.base_transform(picture), picture]


GRAY, JITTER, SOLAR = v1.RandomGrayscale(0.2), v1.ColorJitter(0.4), v1.RandomSolarize(128)
FLIP, BLUR, TENSOR = v1.RandomHorizontalFlip(), official.GaussianBlur(), v1.ToTensor()
REFUSED: list[tuple[Any, str]] = [
    (view_of(v1.FiveCrop(8)), "view 0: FiveCrop is not a step that a recipe has; known are"),
    (view_of(v1.RandomErasing()), "Erasing stands before the conversion to float tensors"),
    (
        v1.Compose([whole(v1), TENSOR, v1.RandomErasing(), v1.Normalize(*IMAGENET)]),
        "Normalize stands after RandomErasing: a recipe erases last",
    ),
    (v1.Compose([whole(v1), TENSOR, v1.RandomErasing(), FLIP]), "RandomHorizontalFlip stands after RandomErasing"),
    (view_of(v1.RandomRotation(10, expand=True)), "RandomRotation has expand=True"),
    (view_of(v1.RandomAffine(10, center=(1, 2))), r"RandomAffine turns around \(1, 2\)"),
    (view_of(v1.RandAugment(interpolation=v1.InterpolationMode.BOX)), "RandAugment's interpolation is 'box'"),
    (view_of(v1.TrivialAugmentWide(num_magnitude_bins=40)), "OneOf has 80 values"),
    (view_of(v1.RandomOrder([SOLAR] * 6)), "6 steps have 720 orders"),
    (view_of(v1.Lambda(abs)), "Lambda is not a step"),
    (view_of(v1.RandomChoice([GRAY, whole(v1)])), "RandomResizedCrop stands inside another transform"),
    (v1.Compose([whole(v1), TENSOR, GRAY]), "RandomGrayscale stands after ToTensor: there it works on a tensor"),
    (v1.Compose([v1.RandAugment(), whole(v1), TENSOR]), "depend on the picture's size; put it after the crop"),
    (v1.Compose([v1.GaussianBlur(3), whole(v1), TENSOR]), "op 14 cannot stand there"),
    (v1.Compose([whole(v1), whole(v1), TENSOR]), "RandomResizedCrop stands after RandomResizedCrop: a recipe has that"),
    (v1.Compose([TENSOR, whole(v1)]), "RandomResizedCrop stands after ToTensor: there it works on a tensor"),
    (v2.Compose([v2.ToImage(), whole(v2)]), "RandomResizedCrop stands after ToImage: there it works on a tensor"),
    (v1.Compose([GRAY, TENSOR]), "no RandomResizedCrop"),
    (v1.Compose([whole(v1)]), "no ToTensor, nor ToImage or PILToTensor"),
    (v2.Compose([whole(v2), v2.ToDtype(torch.float32, scale=True)]), "no ToTensor, nor ToImage"),
    (v1.Compose([whole(v1), v1.PILToTensor()]), "nothing makes float32 of the bytes; add ToDtype"),
    (v2.Compose([whole(v2), v2.ToImage(), v2.ToDtype(torch.float32)]), "ToDtype has dtype torch.float32, scale=False"),
    (v2.Compose([whole(v2), v2.ToImage(), v2.ToDtype(torch.float16, scale=True)]), "ToDtype has dtype torch.float16"),
    (v1.Compose([v1.RandomApply([whole(v1)], p=0.5), TENSOR]), "around RandomResizedCrop: a recipe has that step alw"),
    (v1.Compose([whole(v1, interpolation="sinc"), TENSOR]), "interpolation is 'sinc', want one of nearest"),
    (v1.Compose([v1.RandomResizedCrop(8, antialias=False), TENSOR]), "antialias=False"),
    (view_of(v1.Grayscale(1)), "Grayscale gives 1 channel"),
    (v1.Compose([whole(v1), TENSOR, v1.Normalize([0.1, 0.2], [1, 1])]), "Normalize's mean has 2 numbers, want 3 or 1"),
    (view_of(v1.GaussianBlur((9, 7))), r"GaussianBlur\(kernel_size=\(9, 7\)\): a recipe's kernel is a square"),
    (view_of(GaussianBlur()), "GaussianBlur is not a step that a recipe has: what it makes of a picture is neither"),
    (view_of(InvertedBlur(0.5)), "InvertedBlur is not a step .*: what it makes of a picture with prob=1 is neither"),
    (view_of(CarelessBlur(0.5)), "CarelessBlur with prob=0 gives other pixels than the picture's"),
    (view_of(CvBlur()), "CvBlur is not a step that a recipe has"),
    (view_of(official.GaussianBlur(3)), "GaussianBlur fails on a PIL picture: .* must be an iterable"),
    (view_of(PosterizingSolarize()), "PosterizingSolarize is not a step .*: what it makes of a picture is neither"),
    (v1.Compose([Overriding(8), TENSOR]), "Overriding is not a step"),
    (TwiceCropped(view_of()), "it changes the picture before its Compose gets it"),
    (Returning(view_of()), "Returning is neither a step that a recipe has nor an object that returns the list"),
    ([view_of(), v1.Compose([TENSOR])], "this list: view 1: no RandomResizedCrop.* .a list is one transform a view"),
    ([], "it is empty"),
    (17, "int is no transform"),
    (lambda picture: TENSOR(picture), "function is neither"),
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


@pytest.mark.slow
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
