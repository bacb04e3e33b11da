"""Published policies of further steps: RandAugment, TrivialAugmentWide, AutoAugment, 3-Augment, as torchvision and timm
run them on PIL pictures. Each function returns what ViewSpec.then takes.

Magnitudes are theirs to the last digit. A shear by torchvision goes through atan, degrees and tan, which may move a
factor's last digit; no byte of a picture follows from that (tests/recipes/test_policies.py).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from .steps import Choice, Colour, Erase, Level, OneOf, Step, Then

Policy = tuple[Then, ...]


# torchvision 0.28, transforms/autoaugment.py: _apply_op (15-85), AutoAugment._get_policies (133-232),
# _augmentation_space of AutoAugment (234-251), RandAugment (321-338) and TrivialAugmentWide (406-423).


def sides_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a view whose size is given as ViewSpec takes it."""
    return size if isinstance(size, tuple) else (size, size)


def linspace(start: float, end: float, count: int) -> list[float]:
    """Return torch.linspace's float32 numbers: step by step from both ends, each with one rounding."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64(np.float32((last - first) / np.float32(max(count - 1, 1))))
    place = np.arange(count)
    numbers = np.where(place < count // 2, first + step * place, last - step * (count - 1 - place))
    return [float(number) for number in numbers.astype(np.float32)]


def _posterize_bins(count: int, steps: int) -> list[float]:
    """Return 8 - (arange(count) / ((count - 1) / steps)).round(), in float32."""
    places = np.arange(count, dtype=np.float32) / np.float32((count - 1) / steps)
    return [float(8 - number) for number in np.round(places)]


_Space = dict[str, tuple[list[float], bool]]  # magnitudes, and whether they are signed


def _thresholds(bins: int, v2: bool) -> list[float]:
    """Return solarize's thresholds. v2 multiplies linspace(1, 0) by 255, which lifts some in the last place."""
    return [255.0 * share for share in linspace(1.0, 0.0, bins)] if v2 else linspace(255.0, 0.0, bins)


def _space(bins: int, size: tuple[int, int], v2: bool = False) -> _Space:
    height, width = size
    return {
        "Identity": ([], False),
        "ShearX": (linspace(0.0, 0.3, bins), True),
        "ShearY": (linspace(0.0, 0.3, bins), True),
        "TranslateX": (linspace(0.0, 150.0 / 331.0 * width, bins), True),
        "TranslateY": (linspace(0.0, 150.0 / 331.0 * height, bins), True),
        "Rotate": (linspace(0.0, 30.0, bins), True),
        "Brightness": (linspace(0.0, 0.9, bins), True),
        "Color": (linspace(0.0, 0.9, bins), True),
        "Contrast": (linspace(0.0, 0.9, bins), True),
        "Sharpness": (linspace(0.0, 0.9, bins), True),
        "Posterize": (_posterize_bins(bins, 4), False),
        "Solarize": (_thresholds(bins, v2), False),
        "AutoContrast": ([], False),
        "Equalize": ([], False),
    }


def _wide_space(bins: int, v2: bool = False) -> _Space:
    return {
        **_space(bins, (0, 0), v2),
        "ShearX": (linspace(0.0, 0.99, bins), True),
        "ShearY": (linspace(0.0, 0.99, bins), True),
        "TranslateX": (linspace(0.0, 32.0, bins), True),
        "TranslateY": (linspace(0.0, 32.0, bins), True),
        "Rotate": (linspace(0.0, 135.0, bins), True),
        **{name: (linspace(0.0, 0.99, bins), True) for name in ("Brightness", "Color", "Contrast", "Sharpness")},
        "Posterize": (_posterize_bins(bins, 6), False),
    }


_TORCHVISION: dict[str, tuple[str, Callable[[float], float]]] = {  # the step, and its value from a magnitude
    "ShearX": ("shear_x", float), "ShearY": ("shear_y", float),
    "TranslateX": ("translate_x", lambda m: -float(int(m))), "TranslateY": ("translate_y", lambda m: -float(int(m))),
    "Rotate": ("rotate", float), "Brightness": ("brightness", lambda m: 1.0 + m),
    "Color": ("saturation", lambda m: 1.0 + m), "Contrast": ("contrast", lambda m: 1.0 + m),
    "Sharpness": ("sharpness", lambda m: 1.0 + m), "Posterize": ("posterize", lambda m: float(int(m))),
    "Solarize": ("solarize", float),
}  # fmt: skip
_PLAIN = {"Identity": "none", "AutoContrast": "autocontrast", "Equalize": "equalize", "Invert": "invert"}


def _torchvision_step(
    name: str, magnitudes: Sequence[float], signed: bool, interpolation: str, fill: Colour, probability: float = 1.0
) -> Step:
    """Return torchvision's operation with evenly one of the magnitudes, and either sign where it has one."""
    if name in _PLAIN:
        return Step(_PLAIN[name], probability=probability)
    op, value = _TORCHVISION[name]
    values = [value(sign * magnitude) for sign in ((1, -1) if signed else (1,)) for magnitude in magnitudes]
    return Step(op, OneOf(tuple(values)), probability, interpolation, fill)


def rand_augment(
    size: int | tuple[int, int],
    *,
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
    interpolation: str = "nearest",
    fill: Colour = (0, 0, 0),
    v2: bool = False,
) -> Policy:
    """Return torchvision's RandAugment. size: of the view, which scales translations. v2: that of transforms.v2,
    some of whose thresholds of solarize are one higher.

    Source: torchvision 0.28, transforms/autoaugment.py:321-338, 15-85.
    """
    if not 0 <= magnitude < num_magnitude_bins:
        raise ValueError(f"magnitude is {magnitude}, want [0, {num_magnitude_bins})")
    options = [
        (_torchvision_step(name, values[magnitude : magnitude + 1], signed, interpolation, fill),)
        for name, (values, signed) in _space(num_magnitude_bins, sides_of(size), v2).items()
    ]
    return (Choice(tuple(options)),) * num_ops


def trivial_augment_wide(
    *, num_magnitude_bins: int = 31, interpolation: str = "nearest", fill: Colour = (0, 0, 0), v2: bool = False
) -> Policy:
    """Return torchvision's TrivialAugmentWide. v2: as in rand_augment.

    Source: torchvision 0.28, transforms/autoaugment.py:406-423, 15-85.
    """
    options = [
        (_torchvision_step(name, values, signed, interpolation, fill),)
        for name, (values, signed) in _wide_space(num_magnitude_bins, v2).items()
    ]
    return (Choice(tuple(options)),)


# A policy's lines: a step, its probability in tenths and its bin, twice.
_AUTO_AUGMENT = {
    "imagenet": """
        Posterize 4 8, Rotate 6 9; Solarize 6 5, AutoContrast 6; Equalize 8, Equalize 6; Posterize 6 7, Posterize 6 6;
        Equalize 4, Solarize 2 4; Equalize 4, Rotate 8 8; Solarize 6 3, Equalize 6; Posterize 8 5, Equalize 10;
        Rotate 2 3, Solarize 6 8; Equalize 6, Posterize 4 6; Rotate 8 8, Color 4 0; Rotate 4 9, Equalize 6;
        Equalize 0, Equalize 8; Invert 6, Equalize 10; Color 6 4, Contrast 10 8; Rotate 8 8, Color 10 2;
        Color 8 8, Solarize 8 7; Sharpness 4 7, Invert 6; ShearX 6 5, Equalize 10; Color 4 0, Equalize 6;
        Equalize 4, Solarize 2 4; Solarize 6 5, AutoContrast 6; Invert 6, Equalize 10; Color 6 4, Contrast 10 8;
        Equalize 8, Equalize 6""",
    "cifar10": """
        Invert 1, Contrast 2 6; Rotate 7 2, TranslateX 3 9; Sharpness 8 1, Sharpness 9 3; ShearY 5 8, TranslateY 7 9;
        AutoContrast 5, Equalize 9; ShearY 2 7, Posterize 3 7; Color 4 3, Brightness 6 7; Sharpness 3 9, Brightness 7 9;
        Equalize 6, Equalize 5; Contrast 6 7, Sharpness 6 5; Color 7 7, TranslateX 5 8; Equalize 3, AutoContrast 4;
        TranslateY 4 3, Sharpness 2 6; Brightness 9 6, Color 2 8; Solarize 5 2, Invert 0; Equalize 2, AutoContrast 6;
        Equalize 2, Equalize 6; Color 9 9, Equalize 6; AutoContrast 8, Solarize 2 8; Brightness 1 3, Color 7 0;
        Solarize 4 5, AutoContrast 9; TranslateY 9 9, TranslateY 7 9; AutoContrast 9, Solarize 8 3;
        Equalize 8, Invert 1; TranslateY 7 9, AutoContrast 9""",
    "svhn": """
        ShearX 9 4, Invert 2; ShearY 9 8, Invert 7; Equalize 6, Solarize 6 6; Invert 9, Equalize 6;
        Equalize 6, Rotate 9 3; ShearX 9 4, AutoContrast 8; ShearY 9 8, Invert 4; ShearY 9 5, Solarize 2 6;
        Invert 9, AutoContrast 8; Equalize 6, Rotate 9 3; ShearX 9 4, Solarize 3 3; ShearY 8 8, Invert 7;
        Equalize 9, TranslateY 6 6; Invert 9, Equalize 6; Contrast 3 3, Rotate 8 4; Invert 8, TranslateY 0 2;
        ShearY 7 6, Solarize 4 8; Invert 6, Rotate 8 4; ShearY 3 7, TranslateX 9 3; ShearX 1 6, Invert 6;
        Solarize 7 2, TranslateY 6 7; ShearY 8 4, Invert 8; ShearX 7 9, TranslateY 8 3; ShearY 8 5, AutoContrast 7;
        ShearX 7 2, Invert 1""",
}


def _lines(text: str) -> list[list[tuple[str, float, int]]]:
    """Return a policy's options: names, probabilities and magnitudes (-1: none)."""
    options = [[part.split() for part in line.split(",")] for line in text.split(";")]
    return [
        [(name, int(tenths) / 10, int(rest[0]) if rest else -1) for name, tenths, *rest in parts] for parts in options
    ]


def auto_augment(
    size: int | tuple[int, int],
    *,
    policy: str = "imagenet",
    interpolation: str = "nearest",
    fill: Colour = (0, 0, 0),
    v2: bool = False,
) -> Policy:
    """Return torchvision's AutoAugment. policy: "imagenet", "cifar10" or "svhn". size: of the view. v2: as in
    rand_augment.

    Source: torchvision 0.28, transforms/autoaugment.py:133-251, 15-85.
    """
    if policy not in _AUTO_AUGMENT:
        raise ValueError(f"policy is {policy!r}, want one of {', '.join(_AUTO_AUGMENT)}")
    space = _space(10, sides_of(size), v2)
    options = []
    for parts in _lines(_AUTO_AUGMENT[policy]):
        steps = []
        for name, probability, place in parts:
            values, signed = space.get(name, ([], False))
            steps.append(_torchvision_step(name, values[place : place + 1], signed, interpolation, fill, probability))
        options.append(tuple(steps))
    return (Choice(tuple(options)),)


# timm 1.0.31, data/auto_augment.py: the operations and LEVEL_TO_ARG (70-355), AugmentOp (358-410), policies (413-560),
# AutoAugment (566-620), RandAugment (622-850).

_SIGNED = {"Rotate": ("rotate", 30.0), "ShearX": ("shear_x", 0.3), "ShearY": ("shear_y", 0.3)}
_ENHANCE = {"Color": "saturation", "Contrast": "contrast", "Brightness": "brightness", "Sharpness": "sharpness"}
_TIMM_PLAIN = {"AutoContrast": "autocontrast", "Equalize": "equalize", "Invert": "invert"}


def timm_step(
    name: str,
    *,
    probability: float = 0.5,
    magnitude: float = 10,
    mstd: float = 0.0,
    mmax: float | None = None,
    fill: Colour = (128, 128, 128),
    resample: str = "random",
    translate_const: float = 250,
    translate_pct: float = 0.45,
) -> Step:
    """Return timm's AugmentOp of this name. mstd: infinite for a level that is uniform in [0, magnitude).

    Where timm hands posterize 0 bits, Pillow 13 raises; the step gives Pillow 12's black.
    Source: timm 1.0.31, data/auto_augment.py:70-410.
    """
    most = float(mmax or 10.0)

    def level(scale: float, offset: float = 0.0, sign: int = 1, **rest: float | bool) -> Level:
        return Level(float(magnitude), mstd, most, scale, offset, sign, **rest)  # type: ignore[arg-type]

    if name in _TIMM_PLAIN:
        return Step(_TIMM_PLAIN[name], probability=probability)
    if name in _SIGNED:
        op, scale = _SIGNED[name]
        return Step(op, level(scale, sign=0), probability, resample, fill)
    if name in ("TranslateX", "TranslateY"):
        return Step(f"translate_{name[-1].lower()}", level(float(translate_const), sign=0), probability, resample, fill)
    if name in ("TranslateXRel", "TranslateYRel"):
        op = f"translate_{name[9].lower()}_share"
        return Step(op, level(translate_pct, sign=0), probability, resample, fill)
    if name in _ENHANCE:
        return Step(_ENHANCE[name], level(1.8, 0.1), probability)
    if (base := name.removesuffix("Increasing")) in _ENHANCE:
        return Step(_ENHANCE[base], level(0.9, 1.0, 0, low=0.1), probability)
    values = {
        "Posterize": ("posterize", level(4.0, whole=True, high=8.0)),
        "PosterizeIncreasing": ("posterize", level(4.0, 4.0, -1, whole=True, low=0.0)),
        "PosterizeOriginal": ("posterize", level(4.0, 4.0, whole=True, high=8.0)),
        "Solarize": ("solarize", level(256.0, whole=True, high=256.0)),
        "SolarizeIncreasing": ("solarize", level(256.0, 256.0, -1, whole=True, low=0.0)),
        "SolarizeAdd": ("solarize_add", level(110.0, whole=True, high=128.0)),
        "Desaturate": ("desaturate", level(1.0 - 0.5, 0.5, low=0.5, high=1.0)),
        "GaussianBlur": ("blur", level(2.0 - 0.1, 0.1, low=0.1, high=2.0)),
        "GaussianBlurRand": ("blur_below", level(1.0, low=0.0, high=1.0)),
    }
    if name not in values:
        raise ValueError(f"{name!r} is none of timm's operations")
    op, value = values[name]
    return Step(op, value, probability)


_INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
_RAND = ("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast",
         "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")  # fmt: skip
_RAND_SETS = {"3a": ("SolarizeIncreasing", "Desaturate", "GaussianBlur")}


def timm_rand_augment(
    config: str,
    *,
    fill: Colour = (128, 128, 128),
    resample: str = "random",
    translate_pct: float = 0.45,
    distinct: bool = False,
) -> Policy:
    """Return timm's RandAugment of a string like "rand-m9-mstd0.5-inc1".

    The string's parts: m (magnitude, 10), n (number of operations, 2), p (probability of each, 0.5), mstd (0; above
    100: uniform), mmax (10), inc (0 or 1), t3a (the set of 3-Augment). create_transform gives fill: the mean's bytes,
    and resample: its interpolation. distinct: no operation twice, as before timm 0.4 and in copies of it.
    Source: timm 1.0.31, data/auto_augment.py:622-850.
    Raises ValueError for weighted sets, which are drawn without repetition.
    """
    head, *parts = config.split("-")
    if head != "rand":
        raise ValueError(f"{config!r} does not begin with 'rand-'")
    found: dict[str, float] = {}
    names: Sequence[str] | None = None
    for part in parts:
        if part.startswith("t"):
            if part[1:] in ("weights", "3aw"):
                raise ValueError(f"{config!r}: weighted operations are drawn without repetition, which no recipe does")
            names = _RAND_SETS.get(part[1:])
            continue
        match = re.fullmatch(r"(mstd|mmax|inc|m|n|p)(\d.*)", part)
        if match is None:
            raise ValueError(f"{config!r}: {part!r} is no part of timm's strings")
        if match[1] not in found or match[1] not in ("mstd", "mmax"):  # of these timm takes the first, else the last
            found[match[1]] = float(match[2])
    if names is None:
        names = [name + "Increasing" if found.get("inc") and name in _INCREASING else name for name in _RAND]
    mstd = found.get("mstd", 0.0)
    options = [
        (timm_step(
            name, probability=found.get("p", 0.5), magnitude=found.get("m", 10.0),
            mstd=math.inf if mstd > 100 else mstd, mmax=found.get("mmax"), fill=fill, resample=resample,
            translate_pct=translate_pct,
        ),) for name in names
    ]  # fmt: skip
    count = int(found.get("n", 2))
    if distinct:
        return (Choice(tuple(tuple(step for (step,) in row) for row in itertools.permutations(options, count))),)
    return (Choice(tuple(options)),) * count


_V0 = """
    Equalize 8 1, ShearY 8 4; Color 4 9, Equalize 6 3; Color 4 1, Rotate 6 8; Solarize 8 3, Equalize 4 7;
    Solarize 4 2, Solarize 6 2; Color 2 0, Equalize 8 8; Equalize 4 8, SolarizeAdd 8 3; ShearX 2 9, Rotate 6 8;
    Color 6 1, Equalize 10 2; Invert 4 9, Rotate 6 0; Equalize 10 9, ShearY 6 3; Color 4 7, Equalize 6 0;
    Posterize 4 6, AutoContrast 4 7; Solarize 6 8, Color 6 9; Solarize 2 4, Rotate 8 9; Rotate 10 7, TranslateYRel 8 9;
    ShearX 0 0, Solarize 8 4; ShearY 8 0, Color 6 4; Color 10 0, Rotate 6 2; Equalize 8 4, Equalize 0 8;
    Equalize 10 4, AutoContrast 6 2; ShearY 4 7, SolarizeAdd 6 7; Posterize 8 2, Solarize 6 10;
    Solarize 6 8, Equalize 6 1; Color 8 6, Rotate 4 5"""
_ORIGINAL = """
    Posterize 4 8, Rotate 6 9; Solarize 6 5, AutoContrast 6 5; Equalize 8 8, Equalize 6 3; Posterize 6 7, Posterize 6 6;
    Equalize 4 7, Solarize 2 4; Equalize 4 4, Rotate 8 8; Solarize 6 3, Equalize 6 7; Posterize 8 5, Equalize 10 2;
    Rotate 2 3, Solarize 6 8; Equalize 6 8, Posterize 4 6; Rotate 8 8, Color 4 0; Rotate 4 9, Equalize 6 2;
    Equalize 0 7, Equalize 8 8; Invert 6 4, Equalize 10 8; Color 6 4, Contrast 10 8; Rotate 8 8, Color 10 2;
    Color 8 8, Solarize 8 7; Sharpness 4 7, Invert 6 8; ShearX 6 5, Equalize 10 9; Color 4 0, Equalize 6 3;
    Equalize 4 7, Solarize 2 4; Solarize 6 5, AutoContrast 6 5; Invert 6 4, Equalize 10 8; Color 6 4, Contrast 10 8;
    Equalize 8 8, Equalize 6 3"""
_TIMM_AUTO = {  # lines, and which posterize
    "v0": (_V0, "Posterize"),
    "v0r": (_V0, "PosterizeIncreasing"),
    "original": (_ORIGINAL, "PosterizeOriginal"),
    "originalr": (_ORIGINAL, "PosterizeIncreasing"),
    "3a": ("Solarize 10 5; Desaturate 10 10; GaussianBlurRand 10 10", ""),
}


def timm_auto_augment(
    config: str,
    *,
    fill: Colour = (128, 128, 128),
    resample: str = "random",
    translate_pct: float = 0.45,
) -> Policy:
    """Return timm's AutoAugment of a string like "original-mstd0.5": v0, v0r, original, originalr or 3a, and mstd.

    create_transform gives fill: the mean's bytes, and resample: its interpolation.
    Source: timm 1.0.31, data/auto_augment.py:413-620.
    """
    name, *parts = config.split("-")
    match = re.fullmatch(r"mstd(\d.*)", parts[0]) if len(parts) == 1 else None
    if name not in _TIMM_AUTO or len(parts) > 1 or (parts and match is None):
        raise ValueError(f"{config!r}: want one of {', '.join(_TIMM_AUTO)}, and after it -mstd and a number or nothing")
    text, posterize = _TIMM_AUTO[name]
    options = [
        tuple(
            timm_step(
                posterize if op == "Posterize" else op, probability=probability, magnitude=magnitude,
                mstd=float(match[1]) if match else 0.0, fill=fill, resample=resample, translate_pct=translate_pct,
            )
            for op, probability, magnitude in parts
        )
        for parts in _lines(text)
    ]  # fmt: skip
    return (Choice(tuple(options)),)


# timm 1.0.31, data/random_erasing.py: RandomErasing; torchvision 0.28, transforms/transforms.py: RandomErasing.


def random_erasing(
    probability: float = 0.25,
    *,
    mode: str = "const",
    count: int | tuple[int, int] = 1,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    values: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Policy:
    """Return RandomErasing, which comes last. mode, area, aspect and values: as in Erase.

    count: timm's number of rectangles, which share the area, or (least, most), drawn evenly. torchvision's value=0 is
    mode "const", and "random" is "pixel"; its default aspect is (0.3, 3.3).
    Source: timm 1.0.31, data/random_erasing.py:25-130; torchvision 0.28, transforms/transforms.py:1625-1758.
    """
    least, most = (count, count) if isinstance(count, int) else count
    if not 1 <= least <= most <= 16:
        raise ValueError(f"count is {count!r}, want 1 to 16, or (least, most) of such")
    options = [
        (Step("erase", Erase((area[0] / number, area[1] / number), aspect, mode, values)),) * number
        for number in range(least, most + 1)
    ]
    if len(options) == 1 and most == 1:
        return (Step("erase", options[0][0].value, probability),)
    return (Choice(tuple(options), probability),)
