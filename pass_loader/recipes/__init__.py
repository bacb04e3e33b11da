"""Recipes: what the views of a sample are, and the presets of published methods.

`print(recipes.dino())` shows every number of a preset; docs/recipes.md shows all presets with contact sheets.
"""

from .fine_tuning import (
    NIH_MEAN,
    NIH_STD,
    deit,
    deit3,
    knn,
    linear_probe,
    mae_finetune,
    thorax_finetune,
    timm_train,
)
from .masks import (
    BlockMasks,
    CoarseMasks,
    IBOTMasks,
    InverseBlockMasks,
    MultiBlockMasks,
    RandomMasks,
    StratifiedInverseBlocks,
    StratifiedMasks,
)
from .mixing import Mix
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
    PRESETS,
    barlow_twins,
    beit,
    byol,
    capi,
    dino,
    dinov2,
    dinov3,
    dinov3_high_resolution,
    evaluate,
    franca,
    genview,
    ibot,
    ijepa,
    lejepa,
    mae,
    mae_thorax,
    mocov1,
    mocov2,
    mocov3,
    msn,
    mugs,
    named,
    seer,
    simclr,
    simmim,
    simsiam,
    supervised,
    swav,
    vicreg,
)
from .recipe import IMAGENET_MEAN, IMAGENET_STD, Range, Recipe, ViewSpec, installed_pillow
from .steps import Affine, Choice, Erase, Level, OneOf, Step, describe
from .window import Window

__all__ = [
    "CLIP_MEAN", "CLIP_STD", "IMAGENET_MEAN", "IMAGENET_STD", "NIH_MEAN", "NIH_STD", "PRESETS", "Affine", "BlockMasks",
    "Choice", "CoarseMasks", "Erase", "IBOTMasks", "InverseBlockMasks", "Level", "Mix", "MultiBlockMasks", "OneOf",
    "RandomMasks", "Range", "Recipe", "Step", "StratifiedInverseBlocks", "StratifiedMasks", "ViewSpec", "Window",
    "auto_augment", "barlow_twins", "beit", "byol", "capi", "deit", "deit3", "describe", "dino", "dinov2", "dinov3",
    "dinov3_high_resolution", "evaluate", "franca", "genview", "ibot", "ijepa", "installed_pillow", "knn", "lejepa",
    "linear_probe", "mae", "mae_finetune", "mae_thorax", "mocov1", "mocov2", "mocov3", "msn", "mugs", "named",
    "rand_augment", "random_erasing", "seer", "simclr", "simmim", "simsiam", "supervised", "swav", "thorax_finetune",
    "timm_auto_augment", "timm_rand_augment", "timm_step", "timm_train", "trivial_augment_wide", "vicreg",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
