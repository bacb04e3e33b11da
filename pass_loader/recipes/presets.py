"""Presets: the recipes of published methods, as their official code runs them.

Each cites the paper and the file and lines that it follows. Recipes are frozen dataclasses: print one to see its table,
derive another with arguments, `override` or `dataclasses.replace`. docs/recipes.md shows them all.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable
from typing import Any

from .fine_tuning import deit, deit3, knn, linear_probe, mae_finetune, thorax_finetune, timm_train
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
from .policies import random_erasing, timm_rand_augment
from .recipe import IMAGENET_MEAN, IMAGENET_STD, ChannelValues, Range, Recipe, ViewSpec
from .steps import Step, any_order

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # Radford et al., ICML 2021; openai/CLIP clip/clip.py
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def _factor_range(strength: float) -> Range:
    return (max(0.0, 1.0 - strength), 1.0 + strength)  # torchvision's ColorJitter


def _jitter(brightness: float, contrast: float, saturation: float, hue: float, probability: float) -> dict[str, Any]:
    return {
        "jitter": probability,
        "brightness": _factor_range(brightness),
        "contrast": _factor_range(contrast),
        "saturation": _factor_range(saturation),
        "hue": (-hue, hue),
    }


_DINO: dict[str, Any] = {"interpolation": "bicubic", "grayscale": 0.2, **_jitter(0.4, 0.4, 0.2, 0.1, 0.8)}
_STRONG: dict[str, Any] = {"grayscale": 0.2, **_jitter(0.8, 0.8, 0.8, 0.2, 0.8)}  # SimCLR's distortion of strength 1


def dino(
    *,
    local_crops: int = 8,
    global_size: int = 224,
    local_size: int = 96,
    global_scale: Range = (0.4, 1.0),
    local_scale: Range = (0.05, 0.4),
) -> Recipe:
    """Return the recipe of DINO (Caron et al., ICCV 2021).

    Source: facebookresearch/dino 7c446df, main_dino.py:419-464, utils.py:36-68. Two global views that differ in blur
    and solarization, then the local ones. Bicubic. ResNet-50 (README:207): global_scale=(0.14, 1.0), local_scale=(0.05,
    0.14). The released ViT-S/16 of 800 epochs (the args.txt that README:31 links): local_crops=10, global_scale=(0.25,
    1.0), local_scale=(0.05, 0.25).
    """
    first = ViewSpec(global_size, global_scale, blur=1.0, **_DINO)
    second = ViewSpec(global_size, global_scale, blur=0.1, solarize=0.2, **_DINO)
    local = ViewSpec(local_size, local_scale, blur=0.5, **_DINO)
    return Recipe("dino", (first, second) + (local,) * local_crops, source="facebookresearch/dino main_dino.py:419-464")


def swav(
    *,
    global_crops: int = 2,
    local_crops: int = 6,
    global_size: int = 224,
    local_size: int = 96,
    global_scale: Range = (0.14, 1.0),
    local_scale: Range = (0.05, 0.14),
) -> Recipe:
    """Return the recipe of SwAV (Caron et al., NeurIPS 2020).

    Source: facebookresearch/swav 06b1b7c, src/multicropdataset.py:37-94. Defaults are those of the published scripts
    (scripts/swav_*ep_pretrain.sh). Bilinear; std[0] is 0.228 there.
    The other scripts: 2x224+4x96 (swav_RN50w2_400ep_pretrain.sh) is local_crops=4; 2x160+4x96
    (deepclusterv2_400ep_pretrain.sh) is local_crops=4, global_size=160, global_scale=(0.08, 1.0); 2x224
    (swav_400ep_2x224_pretrain.sh) is local_crops=0, global_scale=(0.08, 1.0).
    """
    large = ViewSpec(global_size, global_scale, blur=0.5, **_STRONG)
    small = ViewSpec(local_size, local_scale, blur=0.5, **_STRONG)
    return Recipe(
        "swav",
        (large,) * global_crops + (small,) * local_crops,
        std=(0.228, 0.224, 0.225),
        batch="views",
        source="facebookresearch/swav src/multicropdataset.py:37-94",
    )


def mocov2(*, size: int = 224, scale: Range = (0.2, 1.0)) -> Recipe:
    """Return the recipe of MoCo-v2 (Chen et al., 2020, arXiv 2003.04297).

    Source: facebookresearch/moco 7397dfe, main_moco.py:326-338. Two views of one distribution. Bilinear. The flip comes
    last there: with these steps that changes no pixel.
    """
    view = ViewSpec(size, scale, grayscale=0.2, blur=0.5, **_jitter(0.4, 0.4, 0.4, 0.1, 0.8))
    return Recipe("mocov2", (view,) * 2, source="facebookresearch/moco main_moco.py:326-338")


def mocov1(*, size: int = 224, scale: Range = (0.2, 1.0)) -> Recipe:
    """Return the recipe of MoCo (He et al., CVPR 2020).

    Source: facebookresearch/moco 7397dfe, main_moco.py:339-348, without --aug-plus. Grayscale comes before the jitter,
    which always runs. Bilinear.
    """
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-0.4, 0.4)}
    jitter = any_order([[Step(name, limits)] for name, limits in ranges.items()])
    view = ViewSpec(size, scale, grayscale=0.2, then=(jitter,))
    return Recipe("mocov1", (view,) * 2, source="facebookresearch/moco main_moco.py:339-348")


def simsiam(*, size: int = 224, scale: Range = (0.2, 1.0)) -> Recipe:
    """Return the recipe of SimSiam (Chen and He, CVPR 2021).

    Source: facebookresearch/simsiam a7bc177, main_simsiam.py:228-243. MoCo-v2's views. Bilinear.
    """
    recipe = mocov2(size=size, scale=scale)
    return dataclasses.replace(recipe, name="simsiam", source="facebookresearch/simsiam main_simsiam.py:228-243")


def _asymmetric(size: int, scale: Range, **shared: Any) -> tuple[ViewSpec, ViewSpec]:
    """Return BYOL's two views: blur 1.0 and 0.1, solarization in the second."""
    steps = {"grayscale": 0.2, **_jitter(0.4, 0.4, 0.2, 0.1, 0.8), **shared}
    return ViewSpec(size, scale, blur=1.0, **steps), ViewSpec(size, scale, blur=0.1, solarize=0.2, **steps)


def mocov3(*, size: int = 224, scale: Range = (0.08, 1.0)) -> Recipe:
    """Return the recipe of MoCo-v3 (Chen et al., ICCV 2021).

    Source: facebookresearch/moco-v3 c349e6e, main_moco.py:262-285. Bilinear. ResNet-50 runs with scale=(0.2, 1.0)
    (CONFIG.md: --crop-min=.2).
    """
    return Recipe("mocov3", _asymmetric(size, scale), source="facebookresearch/moco-v3 main_moco.py:262-285")


def simclr(*, size: int = 224, scale: Range = (0.08, 1.0), batch: str = "pair_labels") -> Recipe:
    """Return the recipe of SimCLR (Chen et al., ICML 2020).

    Source: google-research/simclr 383d414, data_util.py:127-181, 304-325, 417-444. Values are in [0, 1]; the views of a
    sample follow one another on the channels (data.py:120-131).
    Where TensorFlow differs, the steps here are torchvision's and Pillow's: TensorFlow's resize is not antialiased, its
    jitter keeps floats between the steps, its 23-tap blur pads with zeros.
    """
    view = ViewSpec(size, scale, interpolation="bicubic", blur=0.5, blur_kernel=23, **_STRONG)
    return Recipe(
        "simclr", (view,) * 2, mean=(0.0,) * 3, std=(1.0,) * 3, batch=batch,
        source="google-research/simclr data_util.py:127-181,304-325,417-444",
    )  # fmt: skip


def byol(*, size: int = 224, scale: Range = (0.08, 1.0)) -> Recipe:
    """Return the recipe of BYOL (Grill et al., NeurIPS 2020).

    Source: vturrisi/solo-learn 9187ea3, solo/data/pretrain_dataloader.py:178-269 with
    scripts/pretrain/imagenet/augmentations/asymmetric.yaml. Bicubic.
    """
    return Recipe(
        "byol", _asymmetric(size, scale, interpolation="bicubic"), batch="index_views_labels",
        source="vturrisi/solo-learn solo/data/pretrain_dataloader.py:178-269",
    )  # fmt: skip


def vicreg(*, size: int = 224, scale: Range = (0.08, 1.0)) -> Recipe:
    """Return the recipe of VICReg (Bardes, Ponce and LeCun, ICLR 2022).

    Source: facebookresearch/vicreg 4e12602, augmentations.py:37-89. Two views as BYOL's, flipped after the crop.
    Bicubic.
    """
    views = _asymmetric(size, scale, interpolation="bicubic")
    return Recipe("vicreg", views, source="facebookresearch/vicreg augmentations.py:37-89")


def barlow_twins(*, size: int = 224, scale: Range = (0.08, 1.0)) -> Recipe:
    """Return the recipe of Barlow Twins (Zbontar et al., ICML 2021).

    Source: facebookresearch/barlowtwins 8e8d284, main.py:290-326. VICReg's views. Bicubic.
    """
    views = _asymmetric(size, scale, interpolation="bicubic")
    return Recipe("barlow_twins", views, source="facebookresearch/barlowtwins main.py:290-326")


def msn(*, focal_views: int = 10, scale: Range = (0.3, 1.0), focal_scale: Range = (0.05, 0.3)) -> Recipe:
    """Return the recipe of MSN (Assran et al., ECCV 2022).

    Source: facebookresearch/msn 4388dc1, src/data_manager.py:64-112. The official script fails on Pillow from
    10.1 on, which refuses the tensor that its blur hands over as radius. Bilinear. The model drops patches itself.
    """
    large = ViewSpec(224, scale, blur=0.5, **_STRONG)
    small = ViewSpec(96, focal_scale, blur=0.5, **_STRONG)
    source = "facebookresearch/msn src/data_manager.py:64-112"
    return Recipe("msn", (large,) * 2 + (small,) * focal_views, source=source)


def mugs(*, local_crops: int = 10, global_scale: Range = (0.25, 1.0), local_scale: Range = (0.05, 0.25),
         weak: float = 0.5) -> Recipe:  # fmt: skip
    """Return the recipe of Mugs (Zhou et al., 2022, arXiv 2203.14415).

    Source: sail-sg/mugs 10ab634, src/multicropdataset.py:62-344 with main.py:293-375. Two weak views for the teacher,
    as DINO's; two for the student, both as those with probability `weak`, else both strong; local views, each weak or
    strong by itself. A strong view takes RandAugment, of two distinct operations, before the crop, and is erased.
    The batch is [views, flags]: whether the student's views are weak, (N,) bool.
    """
    views = dino(local_crops=local_crops, global_scale=global_scale, local_scale=local_scale).views
    fill = tuple(min(255, round(255 * value)) for value in IMAGENET_MEAN)
    policy = timm_rand_augment("rand-m9-mstd0.5-inc1", fill=fill, distinct=True)  # type: ignore[arg-type]

    def either(view: ViewSpec, decided_with: int | None = None) -> ViewSpec:
        strong = ViewSpec(
            view.size, view.scale, interpolation="bicubic", flip=0.0, before=(Step("flip", probability=0.5), *policy),
            then=random_erasing(0.25, mode="pixel"),
        )  # fmt: skip
        return dataclasses.replace(view, alternatives=((strong, 1 - weak),), decided_with=decided_with)

    return Recipe(
        "mugs", (*views[:2], either(views[0]), either(views[1], 2), *(either(view) for view in views[2:])),
        batch="views_flags", source="sail-sg/mugs src/multicropdataset.py:62-344",
    )  # fmt: skip


def lejepa(*, local_crops: int = 6, minimal: int | None = None) -> Recipe:
    """Return the recipe of LeJEPA (Balestriero and LeCun, 2025, arXiv 2511.08544).

    Source: rbalestr-lab/lejepa eddffdd, README.md:51-67. Its text does not say which filter and blur it has; here
    DINO's: bicubic, PIL's blur. minimal: so many views of 128 as in MINIMAL.md:100-111, with torchvision's blur of 7
    taps, bilinear; its RandomSolarize keeps its own p=0.5 inside a RandomApply of 0.2.
    """
    if minimal is not None:
        small = ViewSpec(128, grayscale=0.2, blur=0.5, blur_kernel=7, solarize=0.1, **_jitter(0.8, 0.8, 0.8, 0.2, 0.8))
        return Recipe("lejepa-minimal", (small,) * minimal, source="rbalestr-lab/lejepa MINIMAL.md:100-111")
    large = ViewSpec(224, (0.3, 1.0), blur=0.5, solarize=0.2, **_DINO)
    local = ViewSpec(98, (0.05, 0.3), blur=0.5, solarize=0.2, **_DINO)
    return Recipe("lejepa", (large,) * 2 + (local,) * local_crops, source="rbalestr-lab/lejepa README.md:51-67")


def _dinov2_views(sizes: tuple[int, int], scales: tuple[Range, Range], local_crops: int, flip: float,
                  as_declared: bool) -> tuple[ViewSpec, ...]:  # fmt: skip
    blurs = (1.0, 0.1, 0.5) if as_declared else (0.0, 0.9, 0.5)
    shared = {**_DINO, "blur_kernel": 9, "flip": flip}
    first = ViewSpec(sizes[0], scales[0], blur=blurs[0], **shared)
    second = ViewSpec(sizes[0], scales[0], blur=blurs[1], solarize=0.2, **shared)
    local = ViewSpec(sizes[1], scales[1], blur=blurs[2], **shared)
    return (first, second) + (local,) * local_crops


def dinov2(
    *,
    as_declared: bool = False,
    local_crops: int = 8,
    global_size: int = 224,
    local_size: int = 96,
    global_scale: Range = (0.32, 1.0),
    local_scale: Range = (0.05, 0.32),
    patch: int = 16,
) -> Recipe:
    """Return the recipe of DINOv2 (Oquab et al., TMLR 2024).

    Source: facebookresearch/dinov2 b8931f7, dinov2/data/augmentations.py:19-118 with
    configs/ssl_default_config.yaml:107-116. Bicubic, torchvision's blur of 9 taps.
    The released code passes 1 - p where RandomApply takes p (dinov2/data/transforms.py:12-21): it blurs with
    probabilities 0.0, 0.9, 0.5 where 1.0, 0.1, 0.5 are declared, and the released weights come from that. The default
    is what the code does; as_declared=True is what it declares. ViT-L/14 and g/14: local_size=98, patch=14. Give the
    loader dtype=torch.float16: the official collate casts to half.
    """
    views = _dinov2_views((global_size, local_size), (global_scale, local_scale), local_crops, 0.5, as_declared)
    return Recipe(
        "dinov2-as-declared" if as_declared else "dinov2", views, batch="dinov2", masks=StratifiedMasks(patch=patch),
        source="facebookresearch/dinov2 dinov2/data/augmentations.py:19-118",
    )  # fmt: skip


def dinov3(
    *,
    as_declared: bool = False,
    local_crops: int = 8,
    global_size: int = 256,
    local_size: int = 112,
    gram_size: int | None = None,
    global_scale: Range = (0.32, 1.0),
    local_scale: Range = (0.05, 0.32),
    flip: float = 0.0,
    patch: int = 16,
) -> Recipe:
    """Return the recipe of DINOv3 (Siméoni et al., 2025, arXiv 2508.10104).

    Source: facebookresearch/dinov3 6876159, dinov3/data/augmentations.py:18-227 with
    dinov3/configs/train/dinov3_vit7b16_pretrain.yaml:126-146. No flips. Blur probabilities as in `dinov2`, inverted
    here too (dinov3/data/transforms.py:19-28).
    gram_size: crops for the gram teacher, without distortions, of the global views' boxes (512 in
    config gram_anchor); the global views are then resized to the larger of both sizes first.
    ssl_default_config.yaml: global_size=224, local_size=96, flip=0.5. Give the loader dtype=torch.bfloat16.
    """
    views = _dinov2_views((global_size, local_size), (global_scale, local_scale), local_crops, flip, as_declared)
    if gram_size is not None:
        largest = max(gram_size, global_size)
        via = {size: None if size == largest else largest for size in (global_size, gram_size)}
        grams = tuple(
            ViewSpec(gram_size, global_scale, interpolation="bicubic", flip=flip, via=via[gram_size],
                     box_of=number) for number in range(2)
        )  # fmt: skip
        globals_ = tuple(dataclasses.replace(view, via=via[global_size]) for view in views[:2])
        views = globals_ + grams + views[2:]
    return Recipe(
        "dinov3-as-declared" if as_declared else "dinov3", views, batch="dinov2",
        masks=StratifiedMasks(patch=patch, exact=True),
        source="facebookresearch/dinov3 dinov3/data/augmentations.py:18-227",
    )  # fmt: skip


def dinov3_high_resolution() -> tuple[tuple[Recipe, ...], tuple[float, ...]]:
    """Return DINOv3's recipes for high resolution, and how often each is drawn, for pass_loader.MixedLoader.

    Five pairs of sizes with gram crops. Source: facebookresearch/dinov3 6876159, config high_res_adapt,
    dinov3/train/train.py:334-379.
    """
    pairs = ((512, 112, 768), (768, 112, 1152), (768, 168, 1152), (768, 224, 1152), (768, 336, 1152))
    found = tuple(dinov3(global_size=size, local_size=local, gram_size=gram) for size, local, gram in pairs)
    return found, (0.3, 0.3, 0.3, 0.05, 0.05)


def ibot(
    *,
    local_crops: int = 10,
    global_scale: Range = (0.25, 1.0),
    local_scale: Range = (0.05, 0.25),
    patch: int = 16,
) -> Recipe:
    """Return the recipe of iBOT (Zhou et al., ICLR 2022).

    Source: bytedance/ibot da316d8, main_ibot.py:574-621, loader.py:54-116. DINO's views with masks for all of them.
    Numbers are those of README's ViT-S/16 of 800 epochs; the script's own
    defaults are local_crops=0, global_scale=(0.14, 1.0).
    """
    views = dino(local_crops=local_crops, global_scale=global_scale, local_scale=local_scale).views
    return Recipe(
        "ibot", views, batch="views_labels_masks", masks=IBOTMasks(patch=patch),
        source="bytedance/ibot main_ibot.py:574-621",
    )  # fmt: skip


def franca(*, as_declared: bool = False, local_crops: int = 8, patch: int = 14) -> Recipe:
    """Return the recipe of Franca (Venkataramanan et al., 2025, arXiv 2507.14137).

    Source: valeoai/Franca 24f8c60, franca/data/augmentations.py:19-126, franca/data/collate.py:11-77, with
    franca/configs/train/IN21K/vitl14.yaml. DINOv2's views at 224 and 98, its blur probabilities inverted here too
    (franca/data/transforms.py:13-23), and masks that leave a block visible. Give the loader dtype=torch.float16.
    """
    views = _dinov2_views((224, 98), ((0.32, 1.0), (0.05, 0.32)), local_crops, 0.5, as_declared)
    return Recipe(
        "franca-as-declared" if as_declared else "franca", views, batch="dinov2",
        masks=StratifiedInverseBlocks(patch=patch), source="valeoai/Franca franca/data/augmentations.py:19-126",
    )  # fmt: skip


def beit(*, size: int = 224, second_size: int = 112, mean: ChannelValues = IMAGENET_MEAN,
         std: ChannelValues = IMAGENET_STD, tokenizer: str = "dall-e") -> Recipe:  # fmt: skip
    """Return the recipe of BEiT (Bao et al., ICLR 2022).

    Source: microsoft/unilm 768a3c8, beit/datasets.py:30-88, beit/masking_generator.py with
    beit/run_beit_pretraining.py:39-97. The picture is jittered and flipped, then one crop of it is resized twice: to
    the model's view by bicubic, to the tokenizer's by lanczos. ImageNet-22k there has mean and std 0.5. tokenizer:
    "dall-e" maps values to [0.1, 0.9] (here in the last bit otherwise), "customized" has mean and std 0.5.
    """
    values: dict[str, dict[str, Any]] = {
        "dall-e": {"mean": -0.125, "std": 1.25},
        "customized": {"mean": 0.5, "std": 0.5},
    }
    if tokenizer not in values:
        raise ValueError(f"tokenizer is {tokenizer!r}, want one of {', '.join(values)}")
    jitter = any_order([[Step(name, (0.6, 1.4))] for name in ("brightness", "contrast", "saturation")])
    shared: dict[str, Any] = {"flip": 0.0, "before": (jitter, Step("flip", probability=0.5))}
    view = ViewSpec(size, interpolation="bicubic", **shared)
    tokens = ViewSpec(second_size, interpolation="lanczos", box_of=0, **shared, **values[tokenizer])
    return Recipe(
        "beit", (view, tokens), mean=mean, std=std, batch="views_mask_labels", masks=BlockMasks(),
        source="microsoft/unilm beit/datasets.py:30-88",
    )  # fmt: skip


def simmim(*, size: int = 192, scale: Range = (0.67, 1.0), patch: int = 4, mask_ratio: float = 0.6) -> Recipe:
    """Return the recipe of SimMIM (Xie et al., CVPR 2022).

    Source: microsoft/SimMIM d3e29bc, data/data_simmim.py:22-104 with
    configs/swin_base__800ep/simmim_pretrain__swin_base__img192_window6__800ep.yaml. Bilinear. The mask, (N, rows,
    columns) int64 over the model's patches, comes between the view and the labels. ViT-B: size=224, patch=16.
    """
    return Recipe(
        "simmim", (ViewSpec(size, scale),), batch="view_mask_labels", masks=CoarseMasks(patch=patch, ratio=mask_ratio),
        source="microsoft/SimMIM data/data_simmim.py:22-104",
    )  # fmt: skip


def capi(*, size: int = 224, scale: Range = (0.6, 1.0), patch: int = 14, mask_ratio: float = 0.65,
         predicted: float = 0.05) -> Recipe:  # fmt: skip
    """Return the recipe of CAPI (Darcet et al., TMLR 2025, arXiv 2502.08769).

    Source: facebookresearch/capi 98b4fa1, train_capi.py:216-240, data.py:394-472 with default_pretrain_config.yaml.
    One bicubic crop, flipped. A block of the patches stays visible, and of the others 5 % are predicted. Give the
    loader dtype=torch.bfloat16: the official collate casts to it.
    """
    return Recipe(
        "capi", (ViewSpec(size, scale, interpolation="bicubic"),), batch="capi",
        masks=InverseBlockMasks(patch=patch, ratio=mask_ratio, predicted=predicted),
        source="facebookresearch/capi train_capi.py:216-240,data.py:394-472",
    )  # fmt: skip


def mae(*, size: int = 224, scale: Range = (0.2, 1.0), mask_ratio: float | None = None) -> Recipe:
    """Return the recipe of MAE (He et al., CVPR 2022).

    Source: facebookresearch/mae efb2a80, main_pretrain.py:123-127. One view, bicubic, flipped. The official model draws
    its masks itself; with mask_ratio (0.75 there) the loader does, and gives them as a third part of the batch
    (models_mae.py:123-148).
    """
    view = ViewSpec(size, scale, interpolation="bicubic")
    masks = None if mask_ratio is None else RandomMasks(ratio=mask_ratio)
    batch = "view_labels" if masks is None else "view_labels_masks"
    return Recipe("mae", (view,), batch=batch, masks=masks, source="facebookresearch/mae main_pretrain.py:123-127")


def mae_thorax(
    *, size: int = 224, scale: Range = (0.5, 1.0), mask_ratio: float | None = None,
    mean: ChannelValues = IMAGENET_MEAN, std: ChannelValues = IMAGENET_STD, channels: int = 3,
    heatmaps: bool = False,
) -> Recipe:  # fmt: skip
    """Return the recipe of MAE for thorax disease (Xiao et al., WACV 2023).

    Source: lambert-x/medical_mae 953a460, main_pretrain_multi_datasets_xray.py:169-174, PRETRAIN.md. mask_ratio there
    is 0.90. CheXpert and MIMIC have ImageNet's mean and std there, NIH has NIH_MEAN and NIH_STD (:147-155). channels=1
    gives gray views, (N, 1, size, size), with mean and std of one number each. heatmaps: ([view, heatmap], labels), of
    a dataset with heatmaps (custom_transforms.py:65-78). docs/gray-and-medical.md.
    """
    recipe = mae(size=size, scale=scale, mask_ratio=mask_ratio)
    if heatmaps:
        if mask_ratio is not None:
            raise ValueError("heatmaps come without masks: the method's model draws its own, leave mask_ratio out")
        recipe = dataclasses.replace(recipe, batch="view_heatmap_labels")
    source = "lambert-x/medical_mae main_pretrain_multi_datasets_xray.py:169-174"
    return dataclasses.replace(recipe, name="mae_thorax", mean=mean, std=std, channels=channels, source=source)


def seer() -> Recipe:
    """Return the recipe of SEER (Goyal et al., 2021, arXiv 2103.01988, and 2022).

    Source: facebookresearch/vissl 09270ed, configs/config/pretrain/seer/models/regnet10B.yaml:8-25 over
    pretrain/swav/swav_8node_resnet.yaml. SwAV's views at 2x160 + 4x96, std[0] 0.229. MODEL_DOCUMENTATION.md says
    otherwise; this is what the code runs.
    """
    views = swav(global_size=160, local_crops=4).views
    return Recipe("seer", views, batch="vissl", source="facebookresearch/vissl seer/models/regnet10B.yaml:8-25")


def ijepa(*, size: int = 224, scale: Range = (0.3, 1.0), patch: int = 14) -> Recipe:
    """Return the recipe of I-JEPA (Assran et al., CVPR 2023).

    Source: facebookresearch/ijepa 52c1ae9, src/transforms.py:19-53, src/masks/multiblock.py:55-170 with
    configs/in1k_vith14_ep300.yaml:1-32. One bilinear crop without flip or colour; the masks are the method.
    """
    masks = MultiBlockMasks(patch=patch)
    source = "facebookresearch/ijepa src/transforms.py:19-53,src/masks/multiblock.py:55-170"
    return Recipe("ijepa", (ViewSpec(size, scale, flip=0.0),), batch="ijepa", masks=masks, source=source)


def genview(*, as_declared: bool = False, size: int = 224, scale: Range = (0.2, 1.0), companion: float = 1.0) -> Recipe:
    """Return the recipe of GenView (Li et al., ECCV 2024).

    Source: xiaojieli0903/genview 38a6a78, on mmpretrain,
    configs_genview/simsiam/simsiam_resnet50_8xb32-coslr-200e_in1k_singleview_clipmask.py:59-93. CLIP's mean and std
    (:116-120). Gray is Pillow's here; mmcv rounds other weights.

    Where a sample has a generated picture (ShardDataset's `companions`), one of the two views, drawn evenly, shows that
    picture with probability `companion`: prob_gen_img, 1.0 in all configs (mmpretrain/datasets/transforms/
    wrappers.py:81-103). The third part of the batch tells which view, and its scale.

    The released code never blurs: mmpretrain's GaussianBlur drops its result (open-mmlab/mmpretrain
    mmpretrain/datasets/transforms/auto_augment.py:1171-1173, issue 1711). The default is what it does; as_declared=True
    blurs with probability 0.5.
    """
    shared = {"grayscale": 0.2, **_jitter(0.4, 0.4, 0.4, 0.1, 0.8)}
    view = ViewSpec(size, scale, blur=0.5 if as_declared else 0.0, **shared)
    return Recipe(
        "genview-as-declared" if as_declared else "genview", (view,) * 2, mean=CLIP_MEAN, std=CLIP_STD,
        batch="views_labels_companions", companion=companion,
        source="xiaojieli0903/genview simsiam_resnet50_8xb32-coslr-200e_in1k_singleview_clipmask.py:59-93",
    )  # fmt: skip


def supervised(*, size: int = 224, scale: Range = (0.08, 1.0)) -> Recipe:
    """Return the recipe of supervised training, with the crops of Szegedy et al. (CVPR 2015).

    Source: pytorch/examples 493da93, imagenet/main.py:239-246. One bilinear crop, flipped.
    """
    return Recipe(
        "supervised", (ViewSpec(size, scale),), batch="view_labels", source="pytorch/examples imagenet/main.py:239-246"
    )


def evaluate(*, resize: int = 256, size: int = 224, interpolation: str = "bilinear") -> Recipe:
    """Return the recipe of evaluation: the short side is resized, the centre cut out (Krizhevsky et al., NeurIPS 2012).

    Source: pytorch/examples 493da93, imagenet/main.py:248-255. For linear probes and k-NN. DINO's and DINOv2's
    evaluations are interpolation="bicubic".
    """
    view = ViewSpec(size, interpolation=interpolation, flip=0.0, resize_short=resize)
    return Recipe("evaluate", (view,), batch="view_labels", source="pytorch/examples imagenet/main.py:248-255")


PRESETS: dict[str, Callable[..., Recipe]] = {
    preset.__name__: preset
    for preset in (dino, swav, mocov2, mocov3, simclr, byol, dinov2, dinov3, ibot, mae, mae_thorax, seer, ijepa,
                   genview, supervised, evaluate, mocov1, simsiam, vicreg, barlow_twins, msn, lejepa, timm_train,
                   mae_finetune, thorax_finetune, deit, deit3, linear_probe, knn, franca, simmim, capi, beit, mugs)
}  # fmt: skip


def named(text: str) -> Recipe:
    """Return the recipe of a preset's name, or of a call with literals: "dinov2(as_declared=True)", for command lines.

    Raises ValueError for anything else.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        if not isinstance(call.func, ast.Name) or call.args or any(word.arg is None for word in call.keywords):
            raise ValueError("want NAME or NAME(argument=value, ...)")
        arguments = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"recipe {text!r}: {error}") from None
    if call.func.id not in PRESETS:
        raise ValueError(f"recipe {text!r}: there is no preset {call.func.id}; there are {', '.join(PRESETS)}")
    try:
        return PRESETS[call.func.id](**arguments)
    except TypeError as error:
        raise ValueError(f"recipe {text!r}: {error}") from None
