"""Recipes: what the views of a sample are, and the presets of published methods.

`print(recipes.dino())` shows every number of a preset; docs/recipes.md shows all presets with contact sheets.
"""

from .masks import IBOTMasks, MultiBlockMasks, RandomMasks, StratifiedMasks
from .policies import (
    auto_augment,
    rand_augment,
    random_erasing,
    timm_auto_augment,
    timm_rand_augment,
    timm_step,
    trivial_augment_wide,
)
from .presets import (
    CLIP_MEAN,
    CLIP_STD,
    NIH_MEAN,
    NIH_STD,
    PRESETS,
    byol,
    dino,
    dinov2,
    dinov3,
    dinov3_high_resolution,
    evaluate,
    genview,
    ibot,
    ijepa,
    mae,
    mae_thorax,
    mocov2,
    mocov3,
    named,
    seer,
    simclr,
    supervised,
    swav,
)
from .recipe import IMAGENET_MEAN, IMAGENET_STD, Range, Recipe, ViewSpec, installed_pillow
from .steps import Affine, Choice, Erase, Level, OneOf, Step, describe
from .window import Window

__all__ = [
    "CLIP_MEAN", "CLIP_STD", "IMAGENET_MEAN", "IMAGENET_STD", "NIH_MEAN", "NIH_STD", "PRESETS", "Affine", "Choice",
    "Erase", "IBOTMasks", "Level", "MultiBlockMasks", "OneOf", "RandomMasks", "Range", "Recipe", "Step",
    "StratifiedMasks", "ViewSpec", "Window", "auto_augment", "byol", "describe", "dino", "dinov2", "dinov3",
    "dinov3_high_resolution", "evaluate", "genview", "ibot", "ijepa", "installed_pillow", "mae", "mae_thorax",
    "mocov2", "mocov3", "named", "rand_augment", "random_erasing", "seer", "simclr", "supervised", "swav",
    "timm_auto_augment", "timm_rand_augment", "timm_step", "trivial_augment_wide",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
