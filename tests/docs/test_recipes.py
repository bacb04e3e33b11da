"""docs/recipes.md shows the presets as they are, and the presets draw what the official declarations say."""

from __future__ import annotations

import re

import numpy as np
import pytest

from docs.make_recipes import HERE, VARIANTS, made, page, table
from pass_loader import Recipe, recipes
from pass_loader.recipes.batches import BATCHES

from ..helpers.plans import assert_uniform, draw


PAGE = (HERE / "recipes.md").read_text()
CALLS = [call for name in recipes.PRESETS for call in [f"{name}()", *VARIANTS.get(name, [])]]

# (views, size, scale, interpolation, flip, jitter factors, gray, blur, solarize), as the official code declares them
# or, for DINOv2, DINOv3 and GenView, runs them. Jitter: brightness, contrast, saturation and hue strengths; p = 0.8.
DINO, STRONG, MOCO = (0.4, 0.4, 0.2, 0.1), (0.8, 0.8, 0.8, 0.2), (0.4, 0.4, 0.4, 0.1)
CUBIC, LINEAR = "bicubic", "bilinear"
OFFICIAL: dict[str, list[tuple[object, ...]]] = {
    "dino": [(1, 224, (0.4, 1), CUBIC, 0.5, DINO, 0.2, 1.0, 0), (1, 224, (0.4, 1), CUBIC, 0.5, DINO, 0.2, 0.1, 0.2),
             (8, 96, (0.05, 0.4), CUBIC, 0.5, DINO, 0.2, 0.5, 0)],
    "swav": [(2, 224, (0.14, 1), LINEAR, 0.5, STRONG, 0.2, 0.5, 0),
             (6, 96, (0.05, 0.14), LINEAR, 0.5, STRONG, 0.2, 0.5, 0)],
    "mocov2": [(2, 224, (0.2, 1), LINEAR, 0.5, MOCO, 0.2, 0.5, 0)],
    "mocov3": [(1, 224, (0.08, 1), LINEAR, 0.5, DINO, 0.2, 1.0, 0),
               (1, 224, (0.08, 1), LINEAR, 0.5, DINO, 0.2, 0.1, 0.2)],
    "simclr": [(2, 224, (0.08, 1), CUBIC, 0.5, STRONG, 0.2, 0.5, 0)],
    "byol": [(1, 224, (0.08, 1), CUBIC, 0.5, DINO, 0.2, 1.0, 0), (1, 224, (0.08, 1), CUBIC, 0.5, DINO, 0.2, 0.1, 0.2)],
    "dinov2": [(1, 224, (0.32, 1), CUBIC, 0.5, DINO, 0.2, 0.0, 0), (1, 224, (0.32, 1), CUBIC, 0.5, DINO, 0.2, 0.9, 0.2),
               (8, 96, (0.05, 0.32), CUBIC, 0.5, DINO, 0.2, 0.5, 0)],
    "dinov3": [(1, 256, (0.32, 1), CUBIC, 0, DINO, 0.2, 0.0, 0), (1, 256, (0.32, 1), CUBIC, 0, DINO, 0.2, 0.9, 0.2),
               (8, 112, (0.05, 0.32), CUBIC, 0, DINO, 0.2, 0.5, 0)],
    "ibot": [(1, 224, (0.25, 1), CUBIC, 0.5, DINO, 0.2, 1.0, 0), (1, 224, (0.25, 1), CUBIC, 0.5, DINO, 0.2, 0.1, 0.2),
             (10, 96, (0.05, 0.25), CUBIC, 0.5, DINO, 0.2, 0.5, 0)],
    "mae": [(1, 224, (0.2, 1), CUBIC, 0.5, None, 0, 0, 0)],
    "mae_thorax": [(1, 224, (0.5, 1), CUBIC, 0.5, None, 0, 0, 0)],
    "seer": [(2, 160, (0.14, 1), LINEAR, 0.5, STRONG, 0.2, 0.5, 0),
             (4, 96, (0.05, 0.14), LINEAR, 0.5, STRONG, 0.2, 0.5, 0)],
    "ijepa": [(1, 224, (0.3, 1), LINEAR, 0, None, 0, 0, 0)],
    "genview": [(2, 224, (0.2, 1), LINEAR, 0.5, MOCO, 0.2, 0, 0)],
    "supervised": [(1, 224, (0.08, 1), LINEAR, 0.5, None, 0, 0, 0)],
    "simsiam": [(2, 224, (0.2, 1), LINEAR, 0.5, MOCO, 0.2, 0.5, 0)],
    "vicreg": [(1, 224, (0.08, 1), CUBIC, 0.5, DINO, 0.2, 1.0, 0),
               (1, 224, (0.08, 1), CUBIC, 0.5, DINO, 0.2, 0.1, 0.2)],
    "msn": [(2, 224, (0.3, 1), LINEAR, 0.5, STRONG, 0.2, 0.5, 0),
            (10, 96, (0.05, 0.3), LINEAR, 0.5, STRONG, 0.2, 0.5, 0)],
    "lejepa": [(2, 224, (0.3, 1), CUBIC, 0.5, DINO, 0.2, 0.5, 0.2),
               (6, 98, (0.05, 0.3), CUBIC, 0.5, DINO, 0.2, 0.5, 0.2)],
    "franca": [(1, 224, (0.32, 1), CUBIC, 0.5, DINO, 0.2, 0.0, 0), (1, 224, (0.32, 1), CUBIC, 0.5, DINO, 0.2, 0.9, 0.2),
               (8, 98, (0.05, 0.32), CUBIC, 0.5, DINO, 0.2, 0.5, 0)],
    "simmim": [(1, 192, (0.67, 1), LINEAR, 0.5, None, 0, 0, 0)],
    "capi": [(1, 224, (0.6, 1), CUBIC, 0.5, None, 0, 0, 0)],
}  # fmt: skip
STD = {"swav": (0.228, 0.224, 0.225), "seer": (0.229, 0.224, 0.225), "simclr": (1.0,) * 3, "genview": recipes.CLIP_STD,
       "thorax_finetune": recipes.NIH_STD}  # fmt: skip
BATCH = {"swav": "views", "simclr": "pair_labels", "byol": "index_views_labels", "dinov2": "dinov2", "dinov3": "dinov2",
         "ibot": "views_labels_masks", "mae": "view_labels", "mae_thorax": "view_labels", "seer": "vissl",
         "ijepa": "ijepa", "supervised": "view_labels", "evaluate": "view_labels",
         "genview": "views_labels_companions", "franca": "dinov2", "simmim": "view_mask_labels", "capi": "capi",
         "beit": "views_mask_labels", "mugs": "views_flags",
         **dict.fromkeys(("timm_train", "mae_finetune", "thorax_finetune", "deit", "deit3", "linear_probe", "knn"),
                         "view_labels")}  # fmt: skip


def test_page_is_written_by_its_script() -> None:
    assert page() == PAGE, "run python -m docs.make_recipes"
    for name in recipes.PRESETS:
        assert (HERE / "recipes" / f"{name}.jpg").stat().st_size > 1000


def test_every_structure_of_a_batch_has_a_row() -> None:
    section = PAGE.split("\n## Batches\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == [*BATCHES]


@pytest.mark.parametrize("call", CALLS)
def test_printed_table_stands_in_the_page(call: str) -> None:
    shown = re.search(re.escape(f"`recipes.{call}`\n\n```text\n") + r"(.*?)\n```", PAGE, re.S)
    assert shown and shown[1] == table(made(call))


@pytest.mark.parametrize("name", sorted(recipes.PRESETS))
def test_preset_cites_paper_and_source(name: str) -> None:
    text, recipe = recipes.PRESETS[name].__doc__ or "", recipes.PRESETS[name]()
    assert re.fullmatch(r"\S+/\S+ \S+:\d+(-\d+)?(,\S*\d)?", recipe.source), "repository, file and lines"
    repository, *_ = recipe.source.split()
    assert re.search(rf"(?:et al\.| and ).*20\d\d.*{repository}\s+[0-9a-f]{{7}},", text, re.S), (
        "paper, year, repository, commit"
    )
    assert recipe.batch == BATCH.get(name, "views_labels")
    assert recipe.std == STD.get(name, (0.229, 0.224, 0.225))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_presets_draw_the_official_distributions(name: str) -> None:
    """8,000 samples a preset: 4 sigma of a rate is at most 0.0224. The second view of a kind stands for all of it."""
    recipe, number = recipes.PRESETS[name](), 0
    plans = draw(recipe, 8_000)
    for count, size, scale, interpolation, *rest in OFFICIAL[name]:
        for view in recipe.views[number : number + count]:  # type: ignore[operator]
            assert (view.size, view.scale, view.interpolation, view.ratio) == (
                size,
                scale,
                interpolation,
                (3 / 4, 4 / 3),
            )
            assert view == recipe.views[number]
        check_gates(plans[:, number + count - 1], *rest)  # type: ignore[operator, arg-type]
        area = plans[:, number]["crop_width"] * plans[:, number]["crop_height"] / (375 * 500)
        assert area.min() > scale[0] - 0.02 and area.max() < scale[1] + 0.02  # type: ignore[index]
        number += count  # type: ignore[operator]
    assert number == len(recipe.views)


def check_gates(column: np.ndarray, flip: float, jitter: tuple[float, ...] | None, gray: float, blur: float,
                solarize: float) -> None:  # fmt: skip
    jittered = column["jitter_order"][:, 0] >= 0
    for applied, want in ((column["flip"], flip), (jittered, 0.8 if jitter else 0), (column["grayscale"], gray),
                          (column["blur_sigma"] > 0, blur),
                          (column["solarize_threshold"] == 128, solarize)):  # fmt: skip
        assert abs(np.mean(applied) - want) < 0.0224 and (want not in (0, 1) or np.mean(applied) == want)
    if jitter:
        for field, strength in zip(("brightness", "contrast", "saturation"), jitter):
            assert_uniform(column[field][jittered], 1 - strength, 1 + strength)
        assert_uniform(column["hue"][jittered], -jitter[3], jitter[3])
    if blur:
        assert_uniform(column["blur_sigma"][column["blur_sigma"] > 0], 0.1, 2.0)


def test_declared_and_effective_blur() -> None:
    def blurs(recipe: Recipe) -> list[float]:
        return [view.blur for view in recipe.views[:3]]

    assert blurs(recipes.dinov2()) == blurs(recipes.dinov3()) == [0.0, 0.9, 0.5]
    assert blurs(recipes.dinov2(as_declared=True)) == blurs(recipes.dinov3(as_declared=True)) == [1.0, 0.1, 0.5]
    assert {view.blur_kernel for view in recipes.dinov2().views + recipes.dinov3().views} == {9}
    assert recipes.genview(as_declared=True).views[0].blur == 0.5


def test_gram_teacher_crops() -> None:
    """DINOv3 with gram crops of 512: the box of the global view, no distortion, the global view by way of 512."""
    recipe = recipes.dinov3(gram_size=512)
    assert recipe.roles() == ["global"] * 2 + ["gram"] * 2 + ["local"] * 8
    plans = draw(recipe, 300)
    for of, gram in ((0, 2), (1, 3)):
        for field in ("crop_x", "crop_y", "crop_width", "crop_height"):
            assert np.array_equal(plans[:, of][field], plans[:, gram][field])
        assert set(plans[:, of]["via_height"]) == {512} and set(plans[:, of]["out_height"]) == {256}
        assert set(plans[:, gram]["via_height"]) == {0} and set(plans[:, gram]["out_height"]) == {512}
        bare = plans[:, gram]
        assert (bare["jitter_order"] == -1).all() and not bare["grayscale"].any() and not bare["blur_sigma"].any()
    small = recipes.dinov3(global_size=256, gram_size=128)
    assert small.views[2].via == 256 and small.views[0].via is None


def test_evaluate() -> None:
    plan = draw(recipes.evaluate(), 1)[0]
    assert [int(plan[name][0]) for name in ("resize_height", "resize_width", "offset_y", "offset_x", "out_height")] == [
        256, 341, 16, 58, 224,
    ]  # fmt: skip
