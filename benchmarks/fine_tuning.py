"""Fine-tuning at 224 with RandAugment and erasing: timm's own transform, and other libraries' as close as they come.

The recipe is recipes.mae_finetune(), which timm's create_transform makes with MAE's options. Other libraries draw two
operations, each with probability 0.5, of their own at nine tenths of their range, and erase with probability 0.25;
DIFFERS says what else is theirs. As in peers.py, which says how each library is set, each function returns what runs
one epoch.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image

from pass_loader.recipes import Recipe

from .peers import Epoch, chunks, collated, dali_decoded_crop, decode_jpeg, spdl_decoder, v2_crop
from .torchvision_cpu import torchvision  # noqa: F401  (declares operators)

STRING = "rand-m9-mstd0.5-inc1"
CHANCE, ERASED = 0.5, 0.25  # of each of two operations; of a rectangle
TENTHS = 9
BINS = 31  # of torchvision's and DALI's magnitudes
AREA, ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)

DIFFERS = {
    "torchvision v2, uint8 tensors": "14 operations of its own, bilinear; resize rounds otherwise",
    "SPDL, torchvision v2": "FFmpeg's decoder; 14 operations of its own, bilinear; resize rounds otherwise",
    "DALI CPU": "14 operations of its own, bilinear; a rectangle of one colour; own decoder",
    "albumentations + OpenCV": "resize without antialiasing, OpenCV's operations, no solarize-add; noise of bytes",
}


def timm_transform(recipe: Recipe) -> Callable[[Image.Image], torch.Tensor]:
    """Return the transform that MAE's util/datasets.py:33-44 and DeiT's datasets.py:80-90 ask timm for."""
    from timm.data import create_transform

    (view,) = recipe.views
    return create_transform(
        view.height, is_training=True, color_jitter=None, auto_augment=STRING, interpolation="bicubic",
        re_prob=ERASED, re_mode="pixel", re_count=1, mean=recipe.mean, std=recipe.std,
    )  # fmt: skip


def timm(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """timm's transform on PIL pictures, which timm's own datasets give to it."""
    transform = timm_transform(recipe)

    def sample(one: bytes) -> torch.Tensor:
        with Image.open(io.BytesIO(one)) as picture:
            return transform(picture.convert("RGB"))

    return lambda: collated(lambda one: [sample(one)], data, batch_size)


def _v2_steps(recipe: Recipe) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return torchvision v2's transforms, from a uint8 tensor (3, height, width)."""
    from torchvision.transforms import InterpolationMode, v2

    (view,) = recipe.views
    fill = [round(255 * value) for value in recipe.mean]
    one = v2.RandAugment(1, BINS * TENTHS // 10, BINS, InterpolationMode.BILINEAR, fill)
    return v2.Compose([
        *v2_crop(view), *[v2.RandomApply([one], CHANCE)] * 2, v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(recipe.mean, recipe.std), v2.RandomErasing(ERASED, AREA, ASPECT, "random"),
    ])  # fmt: skip


def torchvision_v2(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    transform = _v2_steps(recipe)
    return lambda: collated(lambda one: [transform(decode_jpeg(one))], data, batch_size)


def spdl(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """SPDL decodes; torchvision makes the view."""
    decode, transform = spdl_decoder(data[0]), _v2_steps(recipe)
    return lambda: collated(lambda one: [transform(decode(one))], data, batch_size)


def albumentations(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    (view,) = recipe.views
    fill = tuple(round(255 * value) for value in recipe.mean)
    share, off = TENTHS / 10, (1 - 0.9 * TENTHS / 10, 1 + 0.9 * TENTHS / 10)

    def moved(**by: Any) -> A.Affine:
        return A.Affine(interpolation=cv2.INTER_CUBIC, fill=fill, p=1.0, **by)

    def jitter(**by: Any) -> A.ColorJitter:
        same = {"brightness_range": (1, 1), "contrast_range": (1, 1), "saturation_range": (1, 1), "hue_range": (0, 0)}
        return A.ColorJitter(**{**same, **by}, p=1.0)

    most = 0.45 * share
    operations = [
        A.AutoContrast(p=1.0), A.Equalize(mode="pil", p=1.0), A.InvertImg(p=1.0),
        moved(rotate=(-30 * share, 30 * share)), A.Posterize((1, 1), p=1.0),
        A.Solarize((1 - share, 1 - share), p=1.0), jitter(saturation_range=off),
        jitter(contrast_range=off), jitter(brightness_range=off),
        A.Sharpen(p=1.0), moved(shear={"x": (-17 * share, 17 * share), "y": (0, 0)}),
        moved(shear={"x": (0, 0), "y": (-17 * share, 17 * share)}),
        moved(translate_percent={"x": (-most, most), "y": (0, 0)}),
        moved(translate_percent={"x": (0, 0), "y": (-most, most)}),
    ]  # fmt: skip
    crop = A.RandomResizedCrop(
        (view.height, view.width), scale=view.scale, ratio=view.ratio, interpolation=cv2.INTER_CUBIC
    )
    transform = A.Compose([
        crop, A.HorizontalFlip(p=view.flip), A.OneOf(operations, p=CHANCE), A.OneOf(operations, p=CHANCE),
        A.Erasing(AREA, ASPECT, "random", p=ERASED), A.Normalize(recipe.mean, recipe.std),
    ])  # fmt: skip

    def sample(one: bytes) -> list[torch.Tensor]:
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return [torch.from_numpy(transform(image=picture)["image"].transpose(2, 0, 1).copy())]

    return lambda: collated(sample, data, batch_size)


def dali(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.auto_aug.rand_augment import rand_augment

    (view,) = recipe.views
    mean, std = ([255 * number for number in numbers] for numbers in (recipe.mean, recipe.std))

    @pipeline_def(batch_size=batch_size, num_threads=1, device_id=None, enable_conditionals=True, exec_dynamic=True)
    def pipeline():  # noqa: ANN202
        parts = [[np.frombuffer(one, np.uint8) for one in part] for part in chunks(data, batch_size)]
        jpegs = fn.external_source(source=parts, cycle=True, dtype=types.UINT8, ndim=1)
        x = dali_decoded_crop(jpegs, view)
        for _ in range(2):
            if fn.random.coin_flip(probability=CHANCE, dtype=types.BOOL):
                x = rand_augment(x, 1, BINS * TENTHS // 10, BINS, (view.height, view.width))
        if fn.random.coin_flip(probability=ERASED, dtype=types.BOOL):
            area = fn.random.uniform(range=AREA)
            aspect = fn.random.uniform(range=ASPECT)
            tall, wide = fn.stack(area * aspect), fn.stack(area / aspect)
            shape = fn.cat(tall, wide) ** 0.5
            anchor = fn.random.uniform(range=(0.0, 1.0), shape=2) * (1.0 - shape)
            x = fn.erase(x, anchor=anchor, shape=shape, axis_names="HW", normalized=True, fill_value=[0.0, 0.0, 0.0])
        mirror = fn.random.coin_flip(probability=view.flip)
        return fn.crop_mirror_normalize(x, mean=mean, std=std, mirror=mirror, output_layout="CHW")

    pipe = pipeline()
    pipe.build()

    def epoch() -> Iterator[list[torch.Tensor]]:
        for _ in range(len(data) // batch_size):
            yield [torch.from_numpy(out.as_array().copy()) for out in pipe.run()]

    return epoch


# TurboLoader, which peers.py has for one view without colour steps, is none here. Its RandAugment (2.39.0) takes a
# number of operations and one magnitude: no spread (mstd), no rising severities (inc), no chance of each operation. Its
# RandomErasing fills with one number. And its loader takes either only without the fused crop and flip that make it
# fast: then it runs transforms picture by picture in Python.
PEERS = {
    "torchvision v2, uint8 tensors": torchvision_v2,
    "SPDL, torchvision v2": spdl,
    "DALI CPU": dali,
    "albumentations + OpenCV": albumentations,
}
