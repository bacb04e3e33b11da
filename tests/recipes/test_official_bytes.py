"""Whole official objects, written anew (helpers/official_classes.py): the recipes that they become, and no byte that
differs.

The script that compares the objects of the repositories' own text (docs/official-scripts.md) compares these too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.official_objects.objects import OFFICIALS, Official
from benchmarks.official_objects.table import row_of
from pass_loader import Recipe, ViewSpec, recipes
from pass_loader.recipes import Choice, Step, Window

from ..helpers import official_classes as official

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

NIH: dict[str, Any] = {"mean": recipes.NIH_MEAN, "std": recipes.NIH_STD}
CUBIC = ViewSpec(224, (0.08, 1.0), interpolation="bicubic")
WEAK = dataclasses.replace(
    CUBIC, jitter=0.8, brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.6, 1.4), hue=(-0.1, 0.1),
    grayscale=0.2, blur=0.5, blur_sigma=(0.1, 2.0),
)  # fmt: skip
SMALL = dataclasses.replace(
    recipes.timm_train(size=32, interpolation="bicubic").views[0],
    interpolation="bilinear",  # of nothing: the picture is not resized
    window=Window(place="drawn", padding=4),
)


def own(*views: ViewSpec, **changed: Any) -> Callable[[], Recipe]:
    return lambda: Recipe("own", views, **changed)


Case = tuple[Callable[[], Any], Callable[[], Recipe]]  # an object, and what it becomes
OBJECTS: dict[str, Case] = {
    "ibot": (
        lambda: official.DataAugmentationiBOT((0.25, 1.0), (0.05, 0.25), 2, 3),
        functools.partial(recipes.ibot, local_crops=3),
    ),
    "mae": (official.mae_pretraining, recipes.mae),
    "medical_mae": (
        lambda: official.thorax_pretraining((0.5, 1.0)),
        functools.partial(recipes.mae_thorax, **NIH),
    ),
    "medical_mae without crops": (official.thorax_pretraining, own(ViewSpec(224, window=Window((224, 224))), **NIH)),
    "capi": (official.capi_pretraining, recipes.capi),
    "capi without flips": (
        lambda: official.capi_pretraining(False),
        own(dataclasses.replace(recipes.capi().views[0], flip=0.0)),
    ),
    "solo-learn, asymmetric": (lambda: official.solo_learn(*official.SOLO_ASYMMETRIC), recipes.byol),
    "solo-learn, weak": (lambda: official.solo_learn(*official.SOLO_SYMMETRIC_WEAK), own(WEAK, WEAK)),
    "solo-learn, reconstruction": (lambda: official.solo_learn(*official.SOLO_RECONSTRUCTION), own(CUBIC)),
    "solo-learn, equalized": (
        lambda: official.solo_learn({"scale": (0.08, 1.0), "equalization": 0.6}),
        own(dataclasses.replace(CUBIC, then=(Choice(((Step("equalize"),),), 0.6),))),
    ),
    "mae, evaluation": (lambda: official.build_transform(False), recipes.knn),
    "mae, evaluation at 256": (
        lambda: official.build_transform(False, size=256),
        own(ViewSpec(256, interpolation="bicubic", flip=0.0, resize_short=256)),
    ),
}
OF_TIMM: dict[str, Case] = {
    "mae and deit": (lambda: official.build_transform(True), recipes.mae_finetune),
    "medical_mae's fine-tuning": (
        lambda: official.build_transform(True, aa="rand-m6-mstd0.5-inc1", reprob=0.0, **NIH),
        recipes.thorax_finetune,
    ),
    "deit at 32": (official.deit_build_transform_of_32, own(SMALL)),
}


@pytest.mark.parametrize("name", [*OBJECTS, *OF_TIMM])
def test_no_byte_differs(tmp_path: Path, name: str) -> None:
    """What an object asks of Pillow, done by our code, gives the object's bytes and values."""
    make, becomes = {**OBJECTS, **OF_TIMM}[name]
    if name in OF_TIMM:
        pytest.importorskip("timm.data")
    asked = Official(name, "none", lambda _: make(), becomes, timm=name in OF_TIMM)
    row, counts = row_of(asked, tmp_path, runs=3)
    assert row[2].startswith(f"`{becomes().name}`"), row
    assert counts.views + counts.refused >= 3 and counts.different == counts.values == 0, counts


@pytest.mark.parametrize("name", [one.name for one in OFFICIALS if one.checkout == "lightly"])
def test_no_byte_of_lightlys_differs(tmp_path: Path, name: str) -> None:
    """Values differ in the last bit, as all that go through v2's ToDtype (docs/from-torchvision.md)."""
    transforms = pytest.importorskip("lightly.transforms")
    _, counts = row_of(Official(name, "none", lambda _: getattr(transforms, name)()), tmp_path, runs=2)
    assert counts.views >= 2 and counts.different == 0 and counts.furthest < 1e-6, counts
