"""Objects whose views share parts, are chosen by chance, or come with other things, read by from_torchvision.

The classes are written anew after the behaviour of facebookresearch/dinov2 b8931f7 dinov2/data/augmentations.py,
facebookresearch/dinov3 6876159 dinov3/data/augmentations.py, sail-sg/mugs 10ab634 src/multicropdataset.py,
microsoft/SimMIM d3e29bc data/data_simmim.py and lightly-ai/lightly e8d317f lightly/transforms/rotation.py.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from pass_loader import Recipe, recipes
from pass_loader.recipes import Choice, Step
from pass_loader.recipes.policies import timm_step

from ..helpers.official_classes import IMAGENET, PILRandomGaussianBlur, whole
from ..helpers.recipes import tensor_steps

CUBIC = InterpolationMode.BICUBIC


class NinthBlur(v1.RandomApply):
    def __init__(self, p: float):
        super().__init__([v1.GaussianBlur(9, (0.1, 2.0))], 1 - p)


def jitter(T: Any) -> list[Any]:
    return [T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8), T.RandomGrayscale(p=0.2)]


class LikeDINOv2:
    """Its geometry and its colours are two transforms, and its views are in a dict, the global ones twice."""

    def __init__(self, sizes: tuple[int, int] = (224, 96), gram: int | None = None, T: Any = v1, flip: float = 0.5):
        def geometry(size: int, scale: tuple[float, float]) -> Any:
            return T.Compose(
                [T.RandomResizedCrop(size, scale=scale, interpolation=CUBIC), T.RandomHorizontalFlip(flip)]
            )

        self.geometry_global = geometry(max(sizes[0], gram or 0), (0.32, 1.0))
        self.geometry_local = geometry(sizes[1], (0.05, 0.32))
        self.normalize = T.Compose([*tensor_steps(T), T.Normalize(*IMAGENET)])
        self.gram_resize = None if gram is None else T.Resize(gram, CUBIC)
        again = [] if gram is None else [T.Resize(sizes[0], CUBIC)]
        self.first = T.Compose([*again, *jitter(T), NinthBlur(1.0), self.normalize])
        self.second = T.Compose([*again, *jitter(T), NinthBlur(0.1), T.RandomSolarize(128, p=0.2), self.normalize])
        self.local = T.Compose([*jitter(T), NinthBlur(0.5), self.normalize])

    def __call__(self, picture: Any) -> dict[str, Any]:
        bases = self.geometry_global(picture), self.geometry_global(picture)
        views = [self.first(bases[0]), self.second(bases[1])]
        out: dict[str, Any] = {"weak_flag": True, "global_crops": views, "global_crops_teacher": views}
        if self.gram_resize is not None:
            out["gram"] = [self.normalize(self.gram_resize(base)) for base in bases]
        return {**out, "local_crops": [self.local(self.geometry_local(picture)) for _ in range(8)], "offsets": ()}


def assert_alike(found: Recipe, want: Recipe) -> None:
    """Compare rows where a step may run; a blur of probability 0 has no kernel."""
    rows, wanted = found.rows(), want.rows()
    for name in rows.dtype.names or ():
        runs = wanted["blur_probability"] > 0 if name.startswith("blur") else np.full(len(rows), True)
        if name.startswith("solarize_threshold"):
            continue
        assert np.array_equal(rows[name][runs], wanted[name][runs]), name
    assert (found.mean, found.std) == (want.mean, want.std)


def test_dinov2_and_franca() -> None:
    assert_alike(Recipe.from_torchvision(LikeDINOv2()), recipes.dinov2())
    assert_alike(Recipe.from_torchvision(LikeDINOv2((224, 98))), recipes.franca())


def test_dinov3_with_gram_crops() -> None:
    """Kills: gram crops with a box of their own, views without the first resize, flips that differ."""
    assert_alike(Recipe.from_torchvision(LikeDINOv2((256, 112), T=v2, flip=0.0)), recipes.dinov3())
    found = Recipe.from_torchvision(LikeDINOv2((256, 112), 512, v2, flip=0.0))
    assert_alike(found, recipes.dinov3(gram_size=512))
    assert [view.box_of for view in found.views[:4]] == [None, None, 0, 1]
    with pytest.raises(ValueError, match="Resize stands after RandomHorizontalFlip|a recipe has that step once|Resize"):
        Recipe.from_torchvision(LikeDINOv2((256, 112), 512, v2))


class SharesJitter(LikeDINOv2):
    def __call__(self, picture: Any) -> Any:
        base = self.local(self.geometry_local(picture))
        return [self.normalize(base), self.first(base)]


def test_what_views_may_share() -> None:
    class Colours:
        def __init__(self) -> None:
            self.colour, self.crop = v1.ColorJitter(0.4), v1.Compose([whole(v1), *tensor_steps(v1)])

        def __call__(self, picture: Any) -> Any:
            picture = self.colour(picture)
            return [self.crop(picture), self.crop(picture)]

    with pytest.raises(ValueError, match="shares a part with view 0, and not its crop"):
        Recipe.from_torchvision(Colours())
    with pytest.raises(ValueError, match="stands after ToTensor"):
        Recipe.from_torchvision(SharesJitter())


class Op:
    """An operation as timm's AugmentOp, of one that is copied from it."""

    def __init__(self, name: str, apply: Any = None):
        self.name, self.prob, self.magnitude, self.magnitude_std = name, 0.5, 9, 0.5
        self.kwargs = {"fillcolor": (124, 116, 104), "resample": (Image.BILINEAR, Image.BICUBIC)}  # type: ignore[attr-defined]
        self.hparams: dict[str, Any] = {}
        self.apply = apply

    def __call__(self, picture: Image.Image) -> Image.Image:
        if random.random() > self.prob:
            return picture
        level = min(10.0, max(0.0, random.gauss(self.magnitude, self.magnitude_std)))
        filters = {"resample": random.choice(self.kwargs["resample"]), "fillcolor": self.kwargs["fillcolor"]}
        sign = random.choice([-1, 1])
        return {
            "Invert": lambda: ImageOps.invert(picture),
            "SolarizeIncreasing": lambda: ImageOps.solarize(picture, 256 - int(level / 10 * 256)),
            "Rotate": lambda: picture.rotate(sign * level / 10 * 30, **filters),
            "ShearX": lambda: picture.transform(picture.size, Image.Transform.AFFINE,
                                                (1, sign * level / 10 * 0.3, 0, 0, 1, 0), **filters),
        }[self.apply or self.name]()  # fmt: skip


class AlwaysOp(Op):
    """Does not look at its probability."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        self.prob = 1.0
        return super().__call__(picture)


class RandAugment:
    def __init__(self, ops: list[Any], replace: bool, layers: int = 2):
        self.ops, self.num_layers, self.choice_weights, self.replace = ops, layers, None, replace

    def __call__(self, picture: Any) -> Any:
        for number in np.random.choice(len(self.ops), self.num_layers, self.replace):
            picture = self.ops[number](picture)
        return picture


NAMES = ("Invert", "SolarizeIncreasing", "Rotate", "ShearX")


def test_a_copy_of_rand_augment() -> None:
    """Kills: an operation that is believed by its name, repetition where there is none."""
    steps = [timm_step(name, magnitude=9, mstd=0.5, fill=(124, 116, 104), translate_const=250) for name in NAMES]
    for replace in (True, False):
        transform = v1.Compose([whole(v1), RandAugment([Op(name) for name in NAMES], replace), *tensor_steps(v1)])
        then = Recipe.from_torchvision(transform).views[0].then
        if replace:
            assert then == (Choice(tuple((step,) for step in steps)),) * 2
        else:
            pairs = {(one, two) for one in steps for two in steps if one != two}
            assert len(then) == 1 and {*then[0].options} == pairs  # type: ignore[union-attr]
    wrong = RandAugment([Op("Invert"), Op("ShearX", "Rotate")], True)
    with pytest.raises(ValueError, match="RandAugment's ShearX of magnitude 9 gives other pixels than timm's"):
        Recipe.from_torchvision(v1.Compose([whole(v1), wrong, *tensor_steps(v1)]))
    always = RandAugment([Op("Invert"), AlwaysOp("ShearX")], True)
    with pytest.raises(ValueError, match=r"RandAugment's ShearX runs 400 times in 400, and its prob says 0.5"):
        Recipe.from_torchvision(v1.Compose([whole(v1), always, *tensor_steps(v1)]))
    fewer = RandAugment([Op(name) for name in NAMES], True)
    fewer.ops = fewer.ops[:1] * 3 + [Op("Invert")]
    uneven = v1.Compose([whole(v1), Uneven([Op(name) for name in NAMES], True), *tensor_steps(v1)])
    with pytest.raises(ValueError, match="some of its operations more often"):
        Recipe.from_torchvision(uneven)


class Uneven(RandAugment):
    def __call__(self, picture: Any) -> Any:
        for number in np.random.choice(len(self.ops), 2, p=[0.7, 0.1, 0.1, 0.1]):
            picture = self.ops[number](picture)
        return picture


class LikeMugs:
    def __init__(self, prob: float, locals_: int = 3):
        def weak(size: int, scale: Any, *steps: Any) -> Any:
            crop = v1.RandomResizedCrop(size, scale=scale, interpolation=CUBIC)
            return v1.Compose([crop, v1.RandomHorizontalFlip(), *jitter(v1), *steps, *self.end()])

        def strong(size: int, scale: Any) -> Any:
            crop = v1.RandomResizedCrop(size, scale=scale, interpolation=CUBIC)
            return v1.Compose([v1.RandomHorizontalFlip(), v1.RandomEqualize(0.5), crop, *self.end()])

        self.prob, self.locals = prob, locals_
        self.first = weak(224, (0.25, 1), PILRandomGaussianBlur(1.0))
        self.second = weak(224, (0.25, 1), PILRandomGaussianBlur(0.1), v1.RandomSolarize(128, p=0.2))
        self.third = strong(224, (0.25, 1))
        self.local = weak(96, (0.05, 0.25), PILRandomGaussianBlur(0.5))
        self.local_strong = strong(96, (0.05, 0.25))

    def end(self) -> list[Any]:
        return [v1.ToTensor(), v1.Normalize(*IMAGENET)]

    def __call__(self, picture: Any) -> Any:
        crops = [self.first(picture), self.second(picture)]
        weak = random.random() <= self.prob
        crops += [self.first(picture), self.second(picture)] if weak else [self.third(picture), self.third(picture)]
        for _ in range(self.locals):
            crops.append((self.local if random.random() <= self.prob else self.local_strong)(picture))
        return crops, weak


@pytest.mark.slow
@pytest.mark.parametrize("prob", [0.5, 0.3])
def test_views_that_are_chosen(prob: float) -> None:
    """Kills: the wrong of two as the view's own, 1 - p for p, views that choose together taken as free, flips of the
    view where they stand before the crop."""
    found = Recipe.from_torchvision(LikeMugs(prob)).views
    weak = recipes.mugs(local_crops=1).views
    for view, want in zip(found, (weak[0], weak[1], weak[0], weak[1], weak[4], weak[4], weak[4])):
        assert (view.size, view.scale, view.flip, view.jitter, view.blur, view.solarize) == (
            want.size, want.scale, want.flip, want.jitter, want.blur, want.solarize)  # fmt: skip
    assert [len(view.alternatives) for view in found] == [0, 0, 1, 1, 1, 1, 1]
    assert [view.decided_with for view in found] == [None, None, None, 2, None, None, None]
    for view in found[2:]:
        ((strong, share),) = view.alternatives
        assert share == 1 - prob and strong.size == view.size and strong.flip == 0
        assert strong.before == (Step("flip", probability=0.5), Step("equalize", probability=0.5))


class OneOf:
    def __init__(self, *transforms: Any):
        self.transforms = transforms

    def __call__(self, picture: Any) -> Any:
        return [random.choice(self.transforms)(picture)]


class Odd(OneOf):
    def __call__(self, picture: Any) -> Any:
        return [self.transforms[random.random() < 0.123](picture)]


class More(OneOf):
    def __call__(self, picture: Any) -> Any:
        return [one(picture) for one in self.transforms[: random.choice([1, 2])]]


class Together(OneOf):
    def __call__(self, picture: Any) -> Any:
        one = random.random() < 0.5
        other = one if random.random() < 0.5 else random.random() < 0.5
        return [self.transforms[one](picture), self.transforms[other](picture)]


def views(count: int) -> list[Any]:
    return [v1.Compose([whole(v1), v1.RandomSolarize(number, 1.0), *tensor_steps(v1)]) for number in range(count)]


@pytest.mark.slow
def test_choices() -> None:
    (view,) = Recipe.from_torchvision(OneOf(*views(3))).views
    assert [(one.solarize_threshold, share) for one, share in view.alternatives] == [(1, 1 / 3), (2, 1 / 3)]
    for cls, message in ((Odd, "none of its attributes says how often"), (More, "now these views, now others"),
                         (Together, "neither together nor each for itself")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Recipe.from_torchvision(cls(*views(2)))


class LikeSimMIM:
    def __init__(self) -> None:
        self.transform = v1.Compose([v1.RandomResizedCrop(192, scale=(0.67, 1.0)), v1.RandomHorizontalFlip(),
                                     v1.ToTensor(), v1.Normalize(*IMAGENET)])  # fmt: skip
        self.mask = lambda: np.zeros((48, 48), int)

    def __call__(self, picture: Any) -> Any:
        return self.transform(picture), self.mask()


def test_masks_are_left_out() -> None:
    assert Recipe.from_torchvision(LikeSimMIM()).views == recipes.simmim().views


def test_views_have_means_of_their_own() -> None:
    end = [v1.ToTensor(), v1.Normalize([0.5], [0.25])]
    found = Recipe.from_torchvision([*views(1), v1.Compose([whole(v1), *end])])
    assert found.mean == (0.0,) * 3 and found.norms()[1] == ((0.5,) * 3, (0.25,) * 3)
    assert found.views[0].mean is None and found.norms_differ


class Wrapping:
    def __init__(self, transform: Any):
        self.transform = transform

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.transform(*given, **named)


class RandomRotate:
    def __init__(self, prob: float, angle: float = 90):
        self.prob, self.angle = prob, angle

    def __call__(self, picture: Any) -> Any:
        return picture.rotate(self.angle) if np.random.random_sample() < self.prob else picture


def test_lightlys_wrappers_and_rotations() -> None:
    inner = v1.Compose([v1.RandomSolarize(90, 0.3)])
    steps = [whole(v1), Wrapping(inner), RandomRotate(0.0), RandomRotate(0.4, 30), Wrapping(v1.ToTensor())]
    (view,) = Recipe.from_torchvision(v1.Compose(steps)).views
    assert (view.solarize, view.solarize_threshold) == (0.3, 90) and view.then == (Step("rotate", 30.0, 0.4),)
