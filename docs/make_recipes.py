"""Writes docs/recipes.md and its contact sheets from the presets themselves: `python -m docs.make_recipes`.

The photographs are scikit-learn's two, CC BY 2.0 (benchmarks/pictures.py). X-rays, and GenView's scenes and their
companions, are drawn (docs/drawings.py). The quick start's sheet shows its own drawings.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from benchmarks.pictures import CREATORS, write_pass
from docs.drawings import write_drawings
from pass_loader import Recipe, recipes
from pass_loader.data.preview import preview
from pass_loader.pack import build

HERE = Path(__file__).parent
VARIANTS: dict[str, list[str]] = {
    "dino": ["dino(global_scale=(0.14, 1.0), local_scale=(0.05, 0.14))",
             "dino(local_crops=10, global_scale=(0.25, 1.0), local_scale=(0.05, 0.25))"],
    "swav": ["swav(local_crops=4)", "swav(local_crops=4, global_size=160, global_scale=(0.08, 1.0))",
             "swav(local_crops=0, global_scale=(0.08, 1.0))"],
    "dinov2": ["dinov2(as_declared=True)"],
    "dinov3": ["dinov3(gram_size=512)", "dinov3(global_size=224, local_size=96, flip=0.5)"],
    "mae": ["mae(mask_ratio=0.75)"],
    "genview": ["genview(as_declared=True)"],
    "lejepa": ["lejepa(minimal=4)"],
    "timm_train": ["timm_train('rand-m7-mstd0.5-inc1', interpolation='bicubic', reprob=0.0)"],
    "franca": ["franca(as_declared=True)"],
    "simmim": ["simmim(size=224, patch=16)"],
    "deit3": ["deit3(simple_crop=True)"],
}  # fmt: skip
INTRO = """# Recipes

A recipe says what the views of a sample are: ranges and probabilities, mean and std, masks, and the structure of a
batch. The presets are those of published methods, as their official code runs them.

| preset | views | batch | masks | follows |
|---|---|---|---|---|
{rows}

## Changing one

`print(recipe)` shows all numbers. Presets take arguments, all by keyword: `recipes.dino(local_crops=10)`.
`recipe.override(views=[1], solarize=0.0)` changes some views, `dataclasses.replace` anything else. A recipe of your
own is `Recipe(name, views=(ViewSpec(...), ...))`, and [one from your torchvision transform](from-torchvision.md)
takes one line.

## Windows and filters

With `window` a view is a window of the whole picture in place of a random resized crop. `recipes.evaluate()` is the
usual one: the short side resized, the centre cut out.

```python
from pass_loader import ViewSpec
from pass_loader.recipes import Window

ViewSpec(224, window=Window(256), interpolation="bicubic")  # Resize(256), CenterCrop(224)
ViewSpec(224, window=Window((224, 224)))  # both sides, whatever the picture's ratio
ViewSpec(224, window=Window(224, "drawn", padding=4, padding_mode="reflect"))  # DeiT's Resize and RandomCrop
ViewSpec(32, window=Window(place="drawn", padding=4))  # the picture as it is, with a black frame
```

`resize` is a short side or (height, width), `place` "centre" or "drawn", `padding_mode` "constant" (black, or the
colour `fill`), "edge", "reflect" or "symmetric". A picture that is smaller than its window is padded in that mode
around a centre, and around a drawn window with `pad_if_needed=True`; without, it is a bad picture.

`interpolation` is "nearest", "lanczos", "bilinear", "bicubic", "box", "hamming", or "random": bilinear or bicubic,
drawn for each view. On a GPU windows are refused, and so are filters other than bilinear and bicubic.

## Further steps

`ViewSpec.then` is a row of steps that run after the view's fixed ones, in any order. A `Step` has an op, a value (a
number, a range, `OneOf` several values) and a probability; a `Choice` takes one of several rows of steps, decided
together.

```python
from pass_loader import ViewSpec, recipes
from pass_loader.recipes import Choice, Step

ViewSpec(224, (0.08, 1.0), then=recipes.rand_augment(224))
ViewSpec(224, then=(Step("vertical_flip", probability=0.5), Step("rotate", (-30, 30), resample="bilinear")))
ViewSpec(224, then=(Choice(((Step("invert"),), (Step("equalize"), Step("sharpness", (0.1, 1.9))), ()), 0.8),))
```

| op | value | as |
|---|---|---|
| `autocontrast`, `equalize`, `invert` | - | Pillow's `ImageOps` |
| `posterize` | bits that stay, 0 to 8 | `ImageOps.posterize`; 0 bits are black, where Pillow 13 raises |
| `solarize` | threshold, 0 to 256 | `ImageOps.solarize` |
| `solarize_add` | what is added to values below 128 | timm |
| `brightness`, `contrast`, `saturation`, `sharpness` | factor | `ImageEnhance` |
| `desaturate` | 1 - the factor of saturation | timm |
| `hue` | turns | torchvision |
| `grayscale` | - | `convert("L")` |
| `blur`, `blur_below` | sigma; half the end of its range from 0.1 | `ImageFilter.GaussianBlur` |
| `kernel_blur` | sigma, with `taps=` | torchvision's `GaussianBlur` |
| `flip`, `vertical_flip` | - | `ImageOps.mirror`, `flip` |
| `quarter_turn` | 1, 2 or 3, counterclockwise, of a square view | `Image.transpose` |
| `rotate` | degrees, counterclockwise | `Image.rotate` |
| `shear_x`, `shear_y` | factor | `Image.transform` with `(1, value, 0, 0, 1, 0)` or `(1, 0, 0, value, 1, 0)` |
| `translate_x`, `translate_y` | pixels | the same with `(1, 0, value, 0, 1, 0)` |
| `translate_x_share`, `translate_y_share` | a share of the side | the same |
| `affine` | `Affine`: ranges of degrees, translate, scale and shear | torchvision's `RandomAffine` |
| `perspective` | the share of half a side by which a corner moves at most | torchvision's `RandomPerspective` |
| `erase` | `Erase`: ranges of area and aspect, and what with | timm's and torchvision's `RandomErasing` |

Steps that move pixels take `resample="nearest"`, `"bilinear"`, `"bicubic"` or `"random"` (one of the last two, drawn)
and `fill=`, a colour, of which gray views take the luma. A view keeps its size.

`erase` runs after normalisation, so that nothing else follows it and `dtype=torch.uint8` refuses it. Its noise follows
from the plan: a sample that is replayed has the same. `dataset.render` gives views before it, `dataset.sample` after
it.

`ViewSpec.before` is a row of the same steps that work on the whole picture before the crop, so that they cost as many
pixels as it has; those that need to know its size (`kernel_blur`, `quarter_turn`) and `erase` cannot stand there.

```python
jitter = Choice(((Step("brightness", (0.6, 1.4)), Step("contrast", (0.6, 1.4))),))
ViewSpec(224, flip=0.0, before=(jitter, Step("flip", probability=0.5)))
```

| function | policy |
|---|---|
| `rand_augment(size)`, `trivial_augment_wide()`, `auto_augment(size, policy=)` | torchvision's, with its magnitudes |
| `timm_rand_augment("rand-m9-mstd0.5-inc1")` | timm's, with its strings |
| `timm_auto_augment("original-mstd0.5")` | timm's v0, v0r, original, originalr, and 3a of 3-Augment |
| `timm_step(name)` | one of timm's operations |
| `random_erasing(0.25, mode="pixel")` | timm's RandomErasing with its modes, and torchvision's |

`dataset.plan(record)["steps"]` holds the decided steps of each view, `recipes.describe(steps)` says them in
words. timm's `create_transform` fills with the mean's bytes: `fill=(124, 116, 104)`. On a GPU a recipe with further
steps is refused, and so are heatmaps and pictures of 16 bits with one.

## A choice between whole specs

`ViewSpec.alternatives` are specs of the same size that may stand in for a view, each with its probability. With
`decided_with` a later view takes the choice of an earlier one.

```python
import dataclasses

strong = ViewSpec(224, then=recipes.rand_augment(224))
first = ViewSpec(224, (0.25, 1.0), alternatives=((strong, 0.5),))
second = dataclasses.replace(first, decided_with=0)
```

A view may have a `mean` and `std` of its own in place of the recipe's. On a GPU both are refused.

## Batches

A batch has the structure of the method's script, which `Recipe.batch` names. `views` is the list of views, each a
tensor `(N, channels, height, width)`; `labels` is `(N,)` or `(N, L)`.

| `Recipe.batch` | what a loader gives |
|---|---|
| `views` | `views` alone |
| `views_labels` | `(views, labels)` |
| `index_views_labels` | `[records, views, labels]`, as solo-learn |
| `views_labels_masks` | `(views, labels, masks)`: bool masks `(N, rows, columns)`, one for each view, as iBOT |
| `view_labels` | `(view, labels)`: the recipe's only view |
| `view_labels_masks` | the same, and a dict of MAE's masks |
| `view_heatmap_labels` | `([view, heatmap], labels)`, the [heatmap](gray-and-medical.md#heatmaps) in one channel |
| `pair_labels` | `(pair, labels)`: both views one after the other on the channels, `(N, 6, height, width)`, as SimCLR |
| `pair_index` | `(pair, records)` |
| `dinov2` | the dict of DINOv2's and DINOv3's collate: views stacked crop by crop, and masks |
| `view_mask_labels` | `[view, mask, labels]`: an int64 mask `(N, rows, columns)` over the patches, as SimMIM |
| `views_mask_labels` | `([*views, mask], labels)`: an int64 mask `(N, rows, columns)`, as BEiT |
| `views_flags` | `[views, flags]`: bool `(N,)`, whether the first view with alternatives shows its own spec, as Mugs |
| `capi` | CAPI's dict of `images`, `predict_indices` and `visible_indices` |
| `ijepa` | `([views, labels], encoder masks, predictor masks)` |
| `vissl` | VISSL's dict of lists, with `data_valid` and `data_idx` |
| `views_labels_companions` | `(views, labels, dict)`: which view shows a [companion](several-packs.md#companions) |

No structure copies pixels. The loader draws the masks: those of a sample keyed by (seed, epoch, record), those of a
whole batch by (seed, epoch, step, rank).

`recipes.dinov3_high_resolution()` has DINOv3's pairs of sizes, for `pass_loader.MixedLoader`.

## About the sections below

Each shows a preset as `print(recipes.NAME())` does, and a contact sheet: the picture with its crop boxes, then the
views. Patches that a mask hides are dark; I-JEPA's predictor blocks are red, and so are the
patches that CAPI predicts. This page is written by
`python -m docs.make_recipes`. The photographs are by {creators}, CC BY 2.0, shipped with scikit-learn; the
X-rays, and GenView's scenes with their companions, are drawn by `docs/drawings.py`.
"""


def table(recipe: Recipe) -> str:
    """The recipe's own table, the same on every machine."""
    return str(dataclasses.replace(recipe, pillow=13))


def made(call: str) -> Recipe:
    return eval(f"recipes.{call}", {"recipes": recipes})


def shape(recipe: Recipe) -> str:
    sizes = [view.height for view in recipe.views]
    return " + ".join(f"{sizes.count(size)}x{size}" for size in dict.fromkeys(sizes))


def described(preset: Callable[..., Recipe]) -> str:
    """The docstring of a preset, from the method's name on."""
    text = (inspect.getdoc(preset) or "").removeprefix("Return the recipe of ")
    return text if text[1].isupper() else text[0].upper() + text[1:]  # iBOT stays


def page() -> str:
    rows, sections = [], []
    for name, preset in recipes.PRESETS.items():
        recipe = preset()
        masks = type(recipe.masks).__name__ if recipe.masks else "-"
        rows.append(f"| [`{name}`](#{name}) | {shape(recipe)} | `{recipe.batch}` | {masks} | {recipe.source} |")
        sections.append(f"## {name}\n\n{described(preset)}\n\n![{name}](recipes/{name}.jpg)\n")
        for call in [f"{name}()", *VARIANTS.get(name, [])]:
            sections.append(f"`recipes.{call}`\n\n```text\n{table(made(call))}\n```\n")
    creators = " and ".join(CREATORS.values())
    return INTRO.format(creators=creators, rows="\n".join(rows)) + "\n" + "\n".join(sections)


def quick_start(out: Path) -> None:
    """The sheet of docs/quick-start.md, from its own code."""
    code = "".join(re.findall(r"```python\n(.*?)```", (HERE / "quick-start.md").read_text(), re.S)[:3])
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            exec(code, {})
            shrunk(Path("views.png"), out, rows=3 / 4)
        finally:
            os.chdir(before)


def shrunk(sheet: Path, out: Path, rows: float = 1.0) -> None:
    """Save this part of a sheet's rows, at two thirds of its size."""
    with Image.open(sheet) as picture:
        part = picture.crop((0, 0, picture.width, int(picture.height * rows)))
        part.resize((part.width * 2 // 3, part.height * 2 // 3), Image.Resampling.LANCZOS).save(out, quality=80)


def sheets(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        tar, metadata = write_pass(place, 8)
        build([tar], place / "photographs", metadata=metadata)
        write_drawings(place / "drawn", 2)
        for kind in ("chests", "scenes", "changed"):
            build([place / "drawn" / kind], place / kind)
        packs = {"mae_thorax": "chests", "thorax_finetune": "chests", "genview": "scenes"}
        for name, preset in recipes.PRESETS.items():
            recipe = preset(mask_ratio=0.75) if name in ("mae", "mae_thorax") else preset()
            preview(
                place / packs.get(name, "photographs"), dataclasses.replace(recipe, pillow=13), place / "sheet.png",
                records=[0, 1], companions=place / "changed" if name == "genview" else None,
            )  # fmt: skip
            shrunk(place / "sheet.png", folder / f"{name}.jpg")


if __name__ == "__main__":
    (HERE / "recipes.md").write_text(page())
    if "--tables" not in sys.argv[1:]:
        sheets(HERE / "recipes")
        quick_start(HERE / "recipes" / "quick-start.jpg")
