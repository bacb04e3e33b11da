"""Stand-ins for the official scripts' own classes: their names, attributes and behaviour, as tests need them.

facebookresearch/dino 7c446df utils.py:36-68, main_dino.py:419-464; facebookresearch/swav 06b1b7c
src/multicropdataset.py:20-94; facebookresearch/moco 7397dfe moco/loader.py, main_moco.py:326-352;
facebookresearch/moco-v3 c349e6e moco/loader.py, main_moco.py:262-285; bytedance/ibot da316d8 main_ibot.py:574-621;
facebookresearch/mae efb2a80 main_pretrain.py:123-127, util/datasets.py:31-65; lambert-x/medical_mae 953a460
main_pretrain_multi_datasets_xray.py:169-183; facebookresearch/capi 98b4fa1 train_capi.py:216-228; vturrisi/solo-learn
9187ea3 solo/data/pretrain_dataloader.py with scripts/pretrain/imagenet/augmentations; facebookresearch/deit 7e160fe
datasets.py:78-111.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from torch.nn import Identity

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms as T
from torchvision import transforms as v1

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PILRandomGaussianBlur:
    """SwAV's; DINO's GaussianBlur differs in the stream of its gate only."""

    def __init__(self, p: float = 0.5, radius_min: float = 0.1, radius_max: float = 2.0):
        self.prob, self.radius_min, self.radius_max = p, radius_min, radius_max

    def __call__(self, picture: Image.Image) -> Image.Image:
        if np.random.rand() > self.prob:
            return picture
        return picture.filter(ImageFilter.GaussianBlur(random.uniform(self.radius_min, self.radius_max)))


class Solarization:
    """DINO's."""

    def __init__(self, p: float):
        self.p = p

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.solarize(picture) if random.random() < self.p else picture


class GaussianBlur:
    """MoCo's, SimSiam's, MoCo-v3's: always."""

    def __init__(self, sigma: Any = (0.1, 2.0)):
        self.sigma = sigma

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


class Solarize:
    """MoCo-v3's and BYOL's: always."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.solarize(picture)


class DataAugmentationDINO:
    def __init__(self, global_crops_scale: Any, local_crops_scale: Any, local_crops_number: int):
        colour = T.Compose([
            T.RandomHorizontalFlip(p=0.5),
            T.RandomApply([T.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)], p=0.8),
            T.RandomGrayscale(p=0.2),
        ])  # fmt: skip
        tensor = T.Compose([T.ToTensor(), T.Normalize(*IMAGENET)])

        def view(size: int, scale: Any, *steps: Any) -> T.Compose:
            crop = T.RandomResizedCrop(size, scale=scale, interpolation=Image.BICUBIC)  # type: ignore[attr-defined]
            return T.Compose([crop, colour, *steps, tensor])

        self.global_transfo1 = view(224, global_crops_scale, PILRandomGaussianBlur(1.0))
        self.global_transfo2 = view(224, global_crops_scale, PILRandomGaussianBlur(0.1), Solarization(0.2))
        self.local_crops_number = local_crops_number
        self.local_transfo = view(96, local_crops_scale, PILRandomGaussianBlur(p=0.5))

    def __call__(self, picture: Image.Image) -> list[Any]:
        views = [self.global_transfo1(picture), self.global_transfo2(picture)]
        return views + [self.local_transfo(picture) for _ in range(self.local_crops_number)]


class DataAugmentationiBOT(DataAugmentationDINO):
    """DINO's, but for the number of global views: all but the first are made as the second."""

    def __init__(self, global_crops_scale: Any, local_crops_scale: Any, global_crops_number: int,
                 local_crops_number: int):  # fmt: skip
        super().__init__(global_crops_scale, local_crops_scale, local_crops_number)
        self.global_crops_number = global_crops_number

    def __call__(self, picture: Image.Image) -> list[Any]:
        later = [self.global_transfo2] * (self.global_crops_number - 1) + [self.local_transfo] * self.local_crops_number
        return [transform(picture) for transform in (self.global_transfo1, *later)]


class MultiCropDataset:
    """SwAV's, without its folder of pictures."""

    def __init__(self, size_crops: list[int], nmb_crops: list[int], lows: list[float], highs: list[float]):
        distortion = T.Compose([T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8), T.RandomGrayscale(p=0.2)])
        colour = [distortion, PILRandomGaussianBlur()]
        self.trans: list[Any] = []
        for size, count, low, high in zip(size_crops, nmb_crops, lows, highs):
            crop = T.RandomResizedCrop(size, scale=(low, high))
            tensor = [T.ToTensor(), T.Normalize(mean=[0.485, 0.456, 0.406], std=[0.228, 0.224, 0.225])]
            self.trans += [T.Compose([crop, T.RandomHorizontalFlip(p=0.5), T.Compose(colour), *tensor])] * count


class TwoCropsTransform:
    """MoCo's."""

    def __init__(self, base_transform: Any):
        self.base_transform = base_transform

    def __call__(self, picture: Image.Image) -> list[Any]:
        return [self.base_transform(picture), self.base_transform(picture)]


class TwoCropsOfTwo:
    """MoCo-v3's TwoCropsTransform."""

    def __init__(self, base_transform1: Any, base_transform2: Any):
        self.base_transform1, self.base_transform2 = base_transform1, base_transform2

    def __call__(self, picture: Image.Image) -> list[Any]:
        return [self.base_transform1(picture), self.base_transform2(picture)]


def mocov2_steps() -> list[Any]:
    return [
        T.RandomResizedCrop(224, scale=(0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([GaussianBlur([0.1, 2.0])], p=0.5),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]


def mocov3_steps(blur: float, solarize: float) -> list[Any]:
    return [
        T.RandomResizedCrop(224, scale=(0.08, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
        T.RandomGrayscale(p=0.2),
        T.RandomApply([GaussianBlur([0.1, 2.0])], p=blur),
        T.RandomApply([Solarize()], p=solarize),
        T.RandomHorizontalFlip(),
        T.ToTensor(),
        T.Normalize(*IMAGENET),
    ]


def mae_pretraining() -> Any:
    crop = T.RandomResizedCrop(224, scale=(0.2, 1.0), interpolation=3)
    return T.Compose([crop, T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(*map(list, IMAGENET))])


def thorax_pretraining(resize_range: tuple[float, float] | None = None) -> Any:
    """medical_mae's for NIH's X-rays, with --random_resize_range or without."""
    first = T.Resize((224, 224))
    if resize_range is not None:
        first = T.RandomResizedCrop(224, scale=resize_range, interpolation=3)
    return T.Compose([first, T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize([0.5056] * 3, [0.252] * 3)])


def capi_pretraining(flips: bool = True) -> Any:
    """Without flips a module that does nothing takes their place."""
    crop = T.RandomResizedCrop(224, scale=[0.6, 1.0], interpolation=T.InterpolationMode.BICUBIC)
    return T.Compose([crop, T.RandomHorizontalFlip(0.5) if flips else Identity(), T.ToTensor(), T.Normalize(*IMAGENET)])


class Equalization:
    """solo-learn's: always."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        return ImageOps.equalize(picture)


class NCropAugmentation:
    """solo-learn's."""

    def __init__(self, transform: Any, num_crops: int):
        self.transform, self.num_crops = transform, num_crops

    def __call__(self, picture: Image.Image) -> list[Any]:
        return [self.transform(picture) for _ in range(self.num_crops)]


class FullTransformPipeline:
    """solo-learn's."""

    def __init__(self, transforms: list[Any]):
        self.transforms = transforms

    def __call__(self, picture: Image.Image) -> list[Any]:
        return [view for transform in self.transforms for view in transform(picture)]


def solo_learn(*views: Mapping[str, Any]) -> FullTransformPipeline:
    """Build what solo-learn builds of such views: scale, jitter, crops, and probabilities of steps by name; None for
    scale: no random crop."""

    def pipeline(view: Mapping[str, Any]) -> Any:
        cubic = T.InterpolationMode.BICUBIC
        steps: dict[str, list[Any]] = {
            "jitter": [T.ColorJitter(*view.get("jitter", ()))],
            "blur": [GaussianBlur([0.1, 2.0])],
            "solarization": [Solarize()],
            "equalization": [Equalization()],
        }
        made: list[Any] = [T.Resize(224, interpolation=cubic)]
        if view["scale"] is not None:
            made = [T.RandomResizedCrop(224, scale=view["scale"], interpolation=cubic)]
        made += [T.RandomApply(steps["jitter"], p=0.8)] if "jitter" in view else []
        made += [T.RandomGrayscale(p=view["gray"])] if "gray" in view else []
        made += [T.RandomApply(steps[name], p=view[name]) for name in [*steps][1:] if name in view]
        return T.Compose([*made, T.RandomHorizontalFlip(p=0.5), T.ToTensor(), T.Normalize(*IMAGENET)])

    return FullTransformPipeline([NCropAugmentation(pipeline(view), view.get("crops", 1)) for view in views])


_SOLO = {"scale": (0.08, 1.0), "jitter": (0.4, 0.4, 0.2, 0.1), "gray": 0.2}
SOLO_ASYMMETRIC = ({**_SOLO, "blur": 1.0}, {**_SOLO, "blur": 0.1, "solarization": 0.2})
SOLO_SYMMETRIC_WEAK = ({**_SOLO, "jitter": (0.4, 0.4, 0.4, 0.1), "blur": 0.5, "crops": 2},)
SOLO_RECONSTRUCTION = ({"scale": (0.08, 1.0)},)


def build_transform(training: bool, *, size: int = 224, aa: str = "rand-m9-mstd0.5-inc1", reprob: float = 0.25,
                    mean: Any = IMAGENET[0], std: Any = IMAGENET[1]) -> Any:  # fmt: skip
    """MAE's and medical_mae's, and DeiT's where it is asked for bicubic crops of more than 32 pixels."""
    from timm.data import create_transform

    if training:
        return create_transform(
            size, is_training=True, color_jitter=None, auto_augment=aa, interpolation="bicubic", re_prob=reprob,
            re_mode="pixel", re_count=1, mean=mean, std=std,
        )  # fmt: skip
    short = int(size / (224 / 256)) if size <= 224 else size
    crop = [T.Resize(short, interpolation=3), T.CenterCrop(size)]
    return T.Compose([*crop, T.ToTensor(), T.Normalize(mean, std)])


def deit_build_transform_of_32() -> Any:
    """DeiT's for CIFAR: a padded crop takes the place of timm's first transform."""
    transform = build_transform(True, size=32)
    transform.transforms[0] = T.RandomCrop(32, padding=4)
    return transform


def whole(T: Any, size: Any = 64, interpolation: Any = v1.InterpolationMode.BILINEAR) -> Any:
    """A crop that always takes all of a picture of 120 x 90."""
    return T.RandomResizedCrop(size, scale=(1, 1), ratio=(4 / 3, 4 / 3), interpolation=interpolation)
