"""What policies of augmentation draw, as words: ours, and torchvision's own code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pass_loader import recipes
from pass_loader.recipes import Recipe, ViewSpec
from pass_loader.recipes.steps import OP_NAMES

from .plans import HEIGHT, WIDTH, our_plans

from torchvision import transforms as T  # noqa: E402
from torchvision.transforms import autoaugment  # noqa: E402

POLICIES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "RandAugment": (recipes.rand_augment((HEIGHT, WIDTH)), T.RandAugment),
    "TrivialAugmentWide": (recipes.trivial_augment_wide(), T.TrivialAugmentWide),
    "AutoAugment": (recipes.auto_augment((HEIGHT, WIDTH)), T.AutoAugment),
}


def our_policies(then: Any, count: int) -> np.ndarray:
    """Return the steps that were chosen, (count,) words: operations and their values. What changes nothing is left
    out."""
    recipe = Recipe("policy", (ViewSpec((HEIGHT, WIDTH), then=then),))
    steps = our_plans(recipe, count, [0])["steps"][:, 0]
    words: list[str] = []
    for begin in range(0, count, 10_000):  # at a time: Python's numbers take memory
        part = steps[begin : begin + 10_000]
        rows = zip(*(part[name].tolist() for name in ("op", "factor", "level", "matrix")))
        words += [" ".join(filter(None, map(word_of, *row))) for row in rows]
    return np.array(words)


def word_of(op: int, factor: float, level: int, matrix: Sequence[float]) -> str:
    """Return the word of a decided step. matrix: as Pillow takes it, from the view's points to the picture's."""
    name = OP_NAMES[op] if op else ""
    if name == "affine":
        return _with_value(*_moved(matrix))
    if name == "quarter_turn":
        return _with_value("rotate", 90 * level)
    return _with_value(name, level if name in ("posterize", "solarize") else factor)


def _moved(matrix: Sequence[float]) -> tuple[str, float]:
    """Return which operation a matrix is and its value: a shear, pixels of a translation, or degrees."""
    a, b, c, d, e, f = matrix[:6]
    moved = {name: value for name, value in
             {"shear_x": b, "translate_x": c, "shear_y": d, "translate_y": f}.items() if value}  # fmt: skip
    if a == e == 1 and len(moved) <= 1:
        return next(iter(moved.items()), ("translate_x", 0.0))
    return "rotate", math.degrees(math.atan2(-b, a))


def _with_value(name: str, value: float) -> str:
    if name in ("brightness", "saturation", "contrast", "sharpness"):
        return f"{name} {np.float32(value):.4f}" if value != 1 else ""
    if name in ("posterize", "solarize"):
        return f"{name} {int(value)}" if (name, value) not in (("posterize", 8), ("solarize", 256)) else ""
    if name.startswith(("shear", "translate")):
        return f"{name} {value:.4f}" if value else ""
    if name == "rotate":
        return f"{name} {round(value, 3) % 360:.3f}" if value % 360 else ""
    return name


_OFFICIAL = {
    "Brightness": "brightness", "Color": "saturation", "Contrast": "contrast", "Sharpness": "sharpness",
    "Posterize": "posterize", "Solarize": "solarize", "AutoContrast": "autocontrast", "Equalize": "equalize",
    "Invert": "invert", "Identity": "", "ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x",
    "TranslateY": "translate_y", "Rotate": "rotate",
}  # fmt: skip


def official_word(op: str, magnitude: float) -> str:
    """Return the word of what torchvision's `_apply_op` would do."""
    name = _OFFICIAL[op]
    if name.startswith("translate"):
        return _with_value(name, -int(magnitude))  # Pillow's matrix leads back
    if name in ("rotate", "shear_x", "shear_y"):
        return _with_value(name, magnitude)
    value = {"posterize": int(magnitude), "solarize": math.ceil(magnitude)}.get(name, 1.0 + magnitude)
    return _with_value(name, value)


def official_policies(transform: Any, count: int) -> np.ndarray:
    """Return the same of torchvision's transform, whose operations are only noted."""
    noted: list[str] = []

    def note(picture: Any, op: str, magnitude: float, **_: Any) -> Any:
        noted.append(official_word(op, magnitude))
        return picture

    own, autoaugment._apply_op = autoaugment._apply_op, note
    try:
        picture, words = Image.new("RGB", (WIDTH, HEIGHT)), []
        for _ in range(count):
            transform(picture)
            words.append(" ".join(filter(None, noted)))
            noted.clear()
    finally:
        autoaugment._apply_op = own
    return np.array(words)


def without_values(words: np.ndarray) -> np.ndarray:
    """Return the operations alone."""
    return np.array([re.sub(r" -?\d+(\.\d+)?", "", word) for word in words.tolist()])


def first_of(words: np.ndarray) -> np.ndarray:
    """Return the first operation with its value."""
    return np.array([re.sub(r"(?<=.) [a-z].*", "", word) for word in words.tolist()])
