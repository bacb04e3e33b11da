"""Presets of supervised training, fine-tuning and probing, as official code runs them. presets.py has those of
pretraining.

Mixup and CutMix, which most of these train with, are the loader's: DataLoader(mix=Mix(...)).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .policies import random_erasing, timm_auto_augment, timm_rand_augment
from .recipe import IMAGENET_MEAN, IMAGENET_STD, Range, Recipe, ViewSpec
from .steps import Choice, Step, Then, any_order
from .window import Window

# Chest X-rays: lambert-x/medical_mae main_pretrain_multi_datasets_xray.py.
NIH_MEAN, NIH_STD = (0.5056,) * 3, (0.252,) * 3
_OF_POLICIES = ("nearest", "bilinear", "bicubic", "random")
Mean = tuple[float, ...]


def _jitter(brightness: float, contrast: float, saturation: float) -> Choice:
    """Return torchvision's ColorJitter without hue as a further step."""
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    ranges = {name: (max(0.0, 1.0 - strength), 1.0 + strength) for name, strength in strengths.items() if strength}
    return any_order([[Step(name, limits)] for name, limits in ranges.items()])


def timm_train(
    auto_augment: str | None = "rand-m9-mstd0.5-inc1",
    *,
    size: int | tuple[int, int] = 224,
    scale: Range = (0.08, 1.0),
    ratio: Range = (3 / 4, 4 / 3),
    hflip: float = 0.5,
    vflip: float = 0.0,
    color_jitter: float | None = 0.4,
    interpolation: str = "random",
    reprob: float = 0.25,
    remode: str = "pixel",
    recount: int = 1,
    mean: Mean = IMAGENET_MEAN,
    std: Mean = IMAGENET_STD,
) -> Recipe:
    """Return the recipe of timm's training (Wightman et al., 2021, arXiv 2110.00476).

    Source: huggingface/pytorch-image-models aa4b585, timm/data/transforms_factory.py:65-270, with train.py:280-328,
    whose default of interpolation is "random" and of reprob 0. color_jitter is used without auto_augment, or with 3a.
    auto_augment: "rand-..." (RandAugment), "original", "v0" and others (AutoAugment), "3a", or None.
    """
    fill = tuple(min(255, round(255 * value)) for value in mean)
    then: list[Then] = [Step("vertical_flip", probability=vflip)] if vflip else []
    if auto_augment:
        if interpolation not in _OF_POLICIES:
            raise ValueError(
                f"interpolation is {interpolation!r}; Pillow has {', '.join(_OF_POLICIES)} for auto_augment"
            )
        policy = timm_rand_augment if auto_augment.startswith("rand") else timm_auto_augment
        then += policy(auto_augment, fill=fill, resample=interpolation)  # type: ignore[arg-type]
    jitter = color_jitter if color_jitter and (not auto_augment or "3a" in auto_augment) else 0.0
    fixed: dict[str, Any] = {}
    if jitter and then:
        then.append(_jitter(jitter, jitter, jitter))
    elif jitter:
        limits = (max(0.0, 1.0 - jitter), 1.0 + jitter)
        fixed = {"jitter": 1.0, "brightness": limits, "contrast": limits, "saturation": limits}
    if reprob:
        then += random_erasing(reprob, mode=remode, count=(1, recount))
    view = ViewSpec(size, scale, ratio, interpolation, flip=hflip, then=tuple(then), **fixed)
    return Recipe(
        "timm_train", (view,), mean=mean, std=std, batch="view_labels",
        source="huggingface/pytorch-image-models timm/data/transforms_factory.py:65-270",
    )  # fmt: skip


def mae_finetune(*, auto_augment: str = "rand-m9-mstd0.5-inc1", size: int = 224, reprob: float = 0.25) -> Recipe:
    """Return the recipe of MAE's fine-tuning (He et al., CVPR 2022).

    Source: facebookresearch/mae efb2a80, util/datasets.py:31-49 with main_finetune.py:80-92. Mixup 0.8 and CutMix 1.0
    (FINETUNE.md:73) are the loader's: mix=Mix(0.8, 1.0).
    """
    recipe = timm_train(auto_augment, size=size, interpolation="bicubic", reprob=reprob)
    return replace(recipe, name="mae_finetune", source="facebookresearch/mae util/datasets.py:31-49")


def thorax_finetune(
    *, auto_augment: str = "rand-m6-mstd0.5-inc1", size: int = 224, reprob: float = 0.0, mean: Mean = NIH_MEAN,
    std: Mean = NIH_STD,
) -> Recipe:  # fmt: skip
    """Return the recipe of fine-tuning on chest X-rays (Xiao et al., WACV 2023).

    Source: lambert-x/medical_mae 953a460, util/datasets.py:110-149, FINETUNE.md:32,63. Its commands have neither
    erasing nor mixup; of the paper's settings the magnitude of RandAugment, 6, matters most.
    """
    recipe = timm_train(auto_augment, size=size, interpolation="bicubic", reprob=reprob, mean=mean, std=std)
    return replace(recipe, name="thorax_finetune", source="lambert-x/medical_mae util/datasets.py:110-149")


def deit(*, size: int = 224, reprob: float = 0.25) -> Recipe:
    """Return the recipe of DeiT (Touvron et al., ICML 2021).

    Source: facebookresearch/deit 7e160fe, datasets.py:78-97 with main.py:96-122. Repeated augmentation, Mixup 0.8 and
    CutMix 1.0 (main.py:105-138) are the loader's: repeats=3, mix=Mix(0.8, 1.0).
    """
    recipe = timm_train(size=size, interpolation="bicubic", reprob=reprob)
    return replace(recipe, name="deit", source="facebookresearch/deit datasets.py:78-97")


def deit3(*, size: int = 224, color_jitter: float = 0.3, simple_crop: bool = False) -> Recipe:
    """Return the recipe of DeiT III's 3-Augment (Touvron et al., ECCV 2022).

    Source: facebookresearch/deit 7e160fe, augment.py:90-123. One of gray, solarization and blur, then a jitter.
    simple_crop: the option --src, with which the short side is resized and padded by 4 mirrored pixels.
    """
    one = Choice(((Step("grayscale"),), (Step("solarize", 128),), (Step("blur", (0.1, 2.0)),)))
    then = (one, _jitter(color_jitter, color_jitter, color_jitter)) if color_jitter else (one,)
    window = Window(size, "drawn", 4, "reflect") if simple_crop else None
    view = ViewSpec(size, interpolation="bicubic", then=then, window=window)
    return Recipe("deit3", (view,), batch="view_labels", source="facebookresearch/deit augment.py:90-123")


def linear_probe(*, size: int = 224, interpolation: str = "bilinear") -> Recipe:
    """Return the recipe of training a linear probe, as DINO does (Caron et al., ICCV 2021).

    Source: facebookresearch/dino 7c446df, eval_linear.py:85-90. MAE's probe is interpolation="bicubic"
    (facebookresearch/mae efb2a80, main_linprobe.py:132-136, whose crop is drawn once and clamped, not tried ten times).
    Evaluate with `evaluate(interpolation="bicubic")` (eval_linear.py:65-70).
    """
    view = ViewSpec(size, interpolation=interpolation)
    return Recipe("linear_probe", (view,), batch="view_labels", source="facebookresearch/dino eval_linear.py:85-90")


def knn(*, resize: int = 256, size: int = 224) -> Recipe:
    """Return the recipe of k-NN evaluation, as DINO does (Caron et al., ICCV 2021).

    Source: facebookresearch/dino 7c446df, eval_knn.py:32-37. Bicubic, of training and test pictures alike.
    """
    view = ViewSpec(size, interpolation="bicubic", flip=0.0, resize_short=resize)
    return Recipe("knn", (view,), batch="view_labels", source="facebookresearch/dino eval_knn.py:32-37")
