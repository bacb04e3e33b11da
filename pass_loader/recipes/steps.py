"""Further steps of a view: what runs after its fixed steps, in any order. policies.py has the published ones."""

from __future__ import annotations

import itertools
import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _C

# Numbers of csrc/recipe.h: StepOp, ValueKind.
OPS = {
    "none": 0, "autocontrast": 1, "equalize": 2, "invert": 3, "posterize": 4, "solarize": 5, "solarize_add": 6,
    "brightness": 7, "contrast": 8, "saturation": 9, "sharpness": 10, "hue": 11, "grayscale": 12, "blur": 13,
    "kernel_blur": 14, "flip": 15, "vertical_flip": 16, "quarter_turn": 17, "erase": 19, "ground": 21,
    "shear_x": 64, "shear_y": 65, "translate_x": 66, "translate_y": 67, "translate_x_share": 68,
    "translate_y_share": 69, "rotate": 70, "affine": 71, "desaturate": 72, "blur_below": 73, "perspective": 74,
}  # fmt: skip
OP_NAMES = {number: name for name, number in OPS.items()} | {18: "affine", 20: "perspective"}  # of decided steps
MOVING = {"flip", "vertical_flip", "quarter_turn", "rotate", "affine", "perspective", "erase"} | {
    f"{op}_{axis}" for op in ("shear", "translate") for axis in "xy"
} | {"translate_x_share", "translate_y_share"}  # fmt: skip
_KINDS = {"one_of": 1, "uniform": 2, "level": 3, "affine": 4, "erase": 5}
_ERASE_MODES = {"const": 0, "rand": 1, "pixel": 2}
_RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3, "random": 255}
_MOST_ROWS = 20_000
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class OneOf:
    """A value that is one of several, drawn evenly."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(float(value) for value in self.values))
        if not 1 <= len(self.values) <= _C.step_values:
            raise ValueError(f"OneOf has {len(self.values)} values, want 1 to {_C.step_values}")

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        if len(self.values) == 2 and low == -high:
            return f"+-{high:.4g}"
        if len(self.values) <= 4:
            return " or ".join(f"{value:.4g}" for value in self.values)
        return f"one of {len(self.values)} in [{low:.4g}, {high:.4g}]"


@dataclass(frozen=True)
class Level:
    """timm's magnitude and what a step makes of it: offset + scale * level / 10, kept in [low, high].

    The level is `mean` plus a normal number times `std`, kept in [0, most]; with an infinite std it is uniform in
    [0, mean).
    sign: 1, -1, or 0 for one of them, drawn evenly: of the second summand.
    whole: the second summand is cut to a whole number.
    """

    mean: float
    std: float = 0.0
    most: float = 10.0
    scale: float = 1.0
    offset: float = 0.0
    sign: int = 1
    whole: bool = False
    low: float = -math.inf
    high: float = math.inf

    def _values(self) -> list[float]:
        reach = self.most / 10.0 * self.scale
        ends = [self.offset, self.offset + reach] if self.sign > 0 else [self.offset - reach, self.offset]
        if self.sign == 0:
            ends = [self.offset - reach, self.offset + reach]
        low, high = max(min(ends), self.low), min(max(ends), self.high)
        return [self.mean, self.std, self.most, self.scale, self.offset, low, high]

    def __str__(self) -> str:
        noise = "" if not self.std else ", below it" if math.isinf(self.std) else f" with std {self.std:g}"
        sign = {1: "+", -1: "-", 0: "+-"}[self.sign]
        before = f"{self.offset:g} {sign} " if self.offset else sign.removeprefix("+") if self.sign else sign
        return f"{before}{self.scale:g} x level {self.mean:g}{noise} / 10"


@dataclass(frozen=True)
class Affine:
    """Ranges of torchvision's RandomAffine around the view's centre.

    degrees: of the angle. translate: shares of the width and height that it is moved by at most. shear: degrees along x
    and along y.
    """

    degrees: tuple[float, float]
    translate: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)
    shear: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def _values(self) -> list[float]:
        return [float(value) for value in (*self.degrees, *self.translate, *self.scale, *self.shear)]

    def __str__(self) -> str:
        parts = (f"{name} {_numbers(getattr(self, name))}" for name in ("degrees", "translate", "scale", "shear"))
        return ", ".join(parts)


@dataclass(frozen=True)
class Erase:
    """A rectangle that is erased after normalisation, and what with.

    area: range of its share of the view. aspect: range of height / width, log-uniform. Ten tries are made to find one
    that is smaller than the view along both sides.
    mode: timm's: "const" (`values`, one for each channel, of a gray view the first), "rand" (a normal number for each
    channel) or "pixel" (normal numbers).
    """

    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    mode: str = "const"
    values: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.mode not in _ERASE_MODES:
            raise ValueError(f"erase: mode is {self.mode!r}, want one of {', '.join(_ERASE_MODES)}")

    def _values(self) -> list[float]:
        return [float(one) for one in (*self.area, *self.aspect, _ERASE_MODES[self.mode], *self.values)]

    def __str__(self) -> str:
        values = f" {_numbers(self.values)}" if self.mode == "const" and any(self.values) else ""
        return f"{self.mode}{values}, area {_numbers(self.area)}, aspect {_numbers(self.aspect)}"


Value = float | tuple[float, float] | OneOf | Level | Affine | Erase | None


@dataclass(frozen=True)
class Step:
    """One step: an op, its value, and the probability with which it runs.

    op: one of OPS. Pillow's ImageOps: autocontrast, equalize, invert, posterize (bits that stay), solarize (threshold),
        solarize_add (added below 128). Its ImageEnhance: brightness, contrast, saturation, sharpness (factors).
        hue (turns), grayscale, blur (sigma), kernel_blur (sigma, of torchvision's blur with `taps`), desaturate
        (1 - the factor of saturation), blur_below (sigma is uniform in [0.1, 2 value)). What moves pixels: flip,
        vertical_flip, quarter_turn (1 to 3, counterclockwise, of a square), rotate (degrees, counterclockwise), shear_x
        and shear_y (as in Image.transform), translate_x and translate_y (pixels), translate_x_share and
        translate_y_share (of the side), affine (an Affine), perspective (the share of half a side by which a corner
        moves at most). After normalisation, so that only its like may follow: erase (an Erase). Before the crop alone:
        ground (the colour of a window's padding; Window has it).
    value: a number; a range (low, high), drawn uniformly; OneOf, Level, Affine or Erase; None for an op that has none.
    resample: "nearest", "bilinear", "bicubic", or "random" for one of the last two; of steps that move pixels to places
        between others. fill: RGB of what comes from outside; gray views take its luma.
    """

    op: str
    value: Value = None
    probability: float = 1.0
    resample: str = "nearest"
    fill: Colour = (0, 0, 0)
    taps: int = 0

    def __post_init__(self) -> None:
        if self.op not in OPS:
            raise ValueError(f"there is no step {self.op!r}; there are {', '.join(OPS)}")
        if self.resample not in _RESAMPLE:
            raise ValueError(f"{self.op}: resample is {self.resample!r}, want one of {', '.join(_RESAMPLE)}")
        object.__setattr__(self, "fill", colour_of(self.op, self.fill))
        if isinstance(self.value, Iterable):
            ends = tuple(self.value)
            if len(ends) != 2 or not all(isinstance(end, numbers.Real) for end in ends):
                raise ValueError(f"{self.op}: {self.value!r} is no range (low, high); OneOf is one of several values")
            object.__setattr__(self, "value", (float(ends[0]), float(ends[1])))

    @property
    def moves(self) -> bool:
        """Whether a mirrored view would not give the mirrored result."""
        return self.op in MOVING

    def _row(self) -> dict[str, Any]:
        """Return the fields of csrc/recipe.h that the step decides, by name."""
        kind, values = 0, list[float]()
        if isinstance(self.value, numbers.Real):
            kind, values = _KINDS["one_of"], [float(self.value)]
        elif isinstance(self.value, OneOf):
            kind, values = _KINDS["one_of"], list(self.value.values)
        elif isinstance(self.value, tuple):
            kind, values = _KINDS["uniform"], list(self.value)
        elif isinstance(self.value, (Level, Affine, Erase)):
            kind, values = _KINDS[type(self.value).__name__.lower()], self.value._values()
        elif self.value is not None:
            raise ValueError(f"{self.op}: the value {self.value!r} is no number, range, OneOf, Level, Affine or Erase")
        row = {
            "op": OPS[self.op], "probability": self.probability, "resample": _RESAMPLE[self.resample],
            "taps": self.taps, "kind": kind, "count": len(values),
            "values": values + [0.0] * (_C.step_values - len(values)),
        }  # fmt: skip
        if isinstance(self.value, Level):
            row |= {"whole": self.value.whole, "sign": self.value.sign}
        return row

    def __str__(self) -> str:
        if self.op == "none":
            return "nothing"
        value = self.value
        shown = "" if value is None else f" {_numbers(value) if isinstance(value, tuple) else value}"
        if isinstance(value, numbers.Real):
            shown = f" {value:.4g}"
        return self.op + shown + ("" if self.probability == 1 else f" p {self.probability:.4g}")


@dataclass(frozen=True)
class Choice:
    """One of several rows of steps, or nothing: decided together.

    options: each a row of steps, which run one after the other, each with its own probability. weights: how likely each
    option is beside the others; None: all the same.
    """

    options: tuple[tuple[Step, ...], ...]
    probability: float = 1.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(tuple(option) for option in self.options))
        if not self.options or not all(isinstance(step, Step) for option in self.options for step in option):
            raise ValueError("a Choice wants one option or more, each a row of Steps")
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
            if len(self.weights) != len(self.options) or min(self.weights) < 0 or not sum(self.weights) > 0:
                raise ValueError(f"weights {self.weights}: want {len(self.options)}, none below 0, not all 0")

    @property
    def moves(self) -> bool:
        return any(step.moves for option in self.options for step in option)

    def shares(self) -> list[float]:
        """Return how likely each option is where the choice runs."""
        weights = self.weights or (1.0,) * len(self.options)
        return [weight / sum(weights) for weight in weights]

    def _drawn_from(self) -> list[Step]:
        """Return the steps of which the options are all rows of so many distinct ones, in every order; else none."""
        steps, count = [*dict.fromkeys(itertools.chain(*self.options))], len(self.options[0])
        if self.weights is not None or count < 2 or len(self.options) != math.perm(len(steps), count):
            return []
        return steps if {*self.options} == {*itertools.permutations(steps, count)} else []

    def _bounds(self) -> list[float]:
        """Return the number in (0, 1] below which each option is chosen, but for those before it."""
        if self.weights is None:
            return [(place + 1) / len(self.options) for place in range(len(self.options))]
        bounds = [min(total, 1.0) for total in itertools.accumulate(self.shares())]
        last = max(place for place, weight in enumerate(self.weights) if weight > 0)
        return [*bounds[:last], *[1.0] * (len(bounds) - last)]

    def __str__(self) -> str:
        chance = "" if self.probability == 1 else f"p {self.probability:.4g}: "
        options = [" then ".join(map(str, option)) or "nothing" for option in self.options]
        if len(options) == 1:
            return chance + options[0]
        if steps := self._drawn_from():
            count = len(self.options[0])
            some = "" if count == len(steps) else f"{count} of {len(steps)}, "
            return f"{chance}{some}in any order: " + ", ".join(map(str, steps))
        if self.weights is not None:
            options = [f"{option} ({share:.3g})" for option, share in zip(options, self.shares())]
        return f"{chance}1 of {len(options)}: " + " | ".join(options)


Then = Step | Choice


def named_ops(ops: np.ndarray) -> str:
    """Return the names of decided steps, an array of their numbers, each once; 0 is none."""
    return ", ".join(dict.fromkeys(OP_NAMES[op] for op in ops.ravel().tolist() if op))


def as_choice(one: Then) -> Choice:
    return one if isinstance(one, Choice) else Choice(((one,),))


def together(parts: Iterable[Then]) -> Choice:
    """Return one choice whose options are all combinations of those of `parts`, one after the other.

    Raises ValueError for more than 5000 of them.
    """
    options: list[tuple[Step, ...]] = [()]
    shares = [1.0]
    for part in map(as_choice, parts):
        inner, chances = [*part.options], [share * part.probability for share in part.shares()]
        if part.probability < 1:
            inner, chances = [*inner, ()], [*chances, 1 - part.probability]
        if len(options) * len(inner) > 5000:
            raise ValueError("more than 5000 combinations of steps would be decided together")
        options = [one + two for one in options for two in inner]
        shares = [one * two for one in shares for two in chances]
    return Choice(tuple(options), 1.0, None if len({*shares}) == 1 else tuple(shares))


def one_of(parts: Sequence[Iterable[Then]], weights: Sequence[float] | None = None) -> Choice:
    """Return one choice of parts, each of which is a row of steps and choices."""
    choices = [together(part) for part in parts]
    weights = [1.0] * len(parts) if weights is None else [float(weight) for weight in weights]
    options = [option for choice in choices for option in choice.options]
    chances = [weight * share for choice, weight in zip(choices, weights) for share in choice.shares()]
    return Choice(tuple(options), 1.0, None if len({*chances}) == 1 else tuple(chances))


def any_order(parts: Sequence[Iterable[Then]]) -> Choice:
    """Return one choice of all orders of parts, each of which is a row of steps and choices."""
    if len(parts) > 5:
        raise ValueError(f"{len(parts)} steps have {math.factorial(len(parts))} orders; want 5 steps at most")
    return one_of([[step for part in order for step in part] for order in itertools.permutations(map(list, parts))])


def rows_of(views: Iterable[tuple[tuple[Then, ...], tuple[Then, ...]]], channels: int) -> np.ndarray | None:
    """Return the steps of each view, before its crop and after its fixed ones, as (R,) rows of _C.step_spec_dtype; None
    where no view has any."""
    found = []
    for number, rows_of_view in enumerate(views):
        groups = [(before, *one) for before, then in zip((True, False), rows_of_view)
                  for one in enumerate(map(as_choice, then))]  # fmt: skip
        for before, group, choice in groups:
            for option, (steps, below) in enumerate(zip(choice.options, choice._bounds())):
                for step in steps or (Step("none"),):
                    place = {"view": number, "group": group, "option": option, "option_below": below, "before": before}
                    fill = step.fill if channels == 3 else (_luma(step.fill),) * 3
                    found.append({**step._row(), **place, "group_probability": choice.probability, "fill": fill})
    if not found:
        return None
    if len(found) > _MOST_ROWS:
        raise ValueError(f"the further steps of all views are {len(found)} rows, more than {_MOST_ROWS}")
    rows = np.zeros(len(found), dtype=_C.step_spec_dtype)
    for index, row in enumerate(found):
        for name, value in row.items():
            rows[name][index] = value
    return rows


def describe(steps: np.ndarray) -> list[str]:
    """Return the decided steps of a view, (K,) of a plan's "steps", in words."""
    shown = []
    for step in steps[steps["op"] > 0]:
        name = OP_NAMES[int(step["op"])]
        if name == "affine":
            matrix = " ".join(f"{value:.4g}" for value in step["matrix"][:6])
            shown.append(f"affine {matrix}")
        elif name == "perspective":
            shown.append("perspective " + " ".join(f"{value:.4g}" for value in step["matrix"]))
        elif name == "erase":
            left, top, width, height = (int(value) for value in step["matrix"][:4])
            shown.append(f"erase {width}x{height} at {left}, {top}")
        elif name in ("posterize", "solarize", "solarize_add", "quarter_turn"):
            shown.append(f"{name} {step['level']}")
        elif name in ("brightness", "contrast", "saturation", "sharpness", "hue", "blur", "kernel_blur"):
            shown.append(f"{name} {step['factor']:.4g}")
        else:
            shown.append(name)
        if step["before"]:
            shown[-1] += " before the crop"
    return shown


def colour_of(op: str, fill: Any) -> Colour:
    """Return three whole numbers in [0, 255], of one or of three. op: for the message of the ValueError."""
    values = (fill,) * 3 if isinstance(fill, numbers.Real) else tuple(fill)
    try:
        red, green, blue = map(operator.index, values)
    except (TypeError, ValueError):
        raise ValueError(f"{op}: fill is {fill!r}, want three whole numbers") from None
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{op}: fill is {fill!r}, want numbers in [0, 255]")
    return red, green, blue


def _luma(colour: Colour) -> int:
    red, green, blue = colour
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # Pillow, Convert.c: L24


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
