"""torchvision's and timm's objects that become further steps of a view. Used by torchvision_steps.py alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import policies
from .policies import Policy
from .steps import Affine, Choice, Colour, Step

Sides = tuple[int, int]
Further = Callable[[Sides], Policy]  # of a view's height and width
_PILLOWS = {0: "nearest", 2: "bilinear", 3: "bicubic"}


def further_of(transform: Any, name: str) -> Further:
    """Return the further steps of a torchvision object whose class is one of NAMES."""
    return _READ[name](transform)


def timm_further_of(transform: Any) -> Further:
    """Return the further steps of an object for which timm_name gives a name."""
    return _fixed(*_TIMM[type(transform).__name__](transform))


def timm_name(transform: Any) -> str | None:
    """Return the class of timm's that this object has; None where it has another."""
    cls = type(transform)
    return cls.__name__ if cls.__module__ == "timm.data.auto_augment" and cls.__name__ in _TIMM else None


def _fixed(*steps: Step | Choice) -> Further:
    return lambda _: steps


def _with_p(op: str, value: Callable[[Any], float] | None = None) -> Callable[[Any], Further]:
    def read(transform: Any) -> Further:
        return _fixed(Step(op, None if value is None else float(value(transform)), float(transform.p)))

    return read


def _look(transform: Any) -> tuple[str, Colour]:
    """Return interpolation and fill of an object that moves pixels."""
    name = type(transform).__name__
    mode = getattr(transform.interpolation, "value", transform.interpolation)
    mode = _PILLOWS.get(mode, mode)
    if mode not in _PILLOWS.values():
        raise ValueError(f"{name}'s interpolation is {mode!r}, want one of {', '.join(_PILLOWS.values())}")
    fill = transform.fill
    if isinstance(fill, dict):
        raise ValueError(f"{name}'s fill is a dict of types; a recipe has one colour")
    numbers = [0] if fill is None else [fill] if not hasattr(fill, "__len__") else [*fill]
    if len(numbers) not in (1, 3):
        raise ValueError(f"{name}'s fill has {len(numbers)} numbers, want 3 or 1")
    red, green, blue = (int(number) for number in (numbers * 3)[:3])
    return mode, (red, green, blue)


def _centred(transform: Any) -> None:
    name = type(transform).__name__
    if transform.center is not None:
        raise ValueError(f"{name} turns around {transform.center}; a recipe's view turns around its centre")
    if getattr(transform, "expand", False):
        raise ValueError(f"{name} has expand=True; a recipe's view keeps its size")


def _pair(values: Any) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def _is_v2(transform: Any) -> bool:
    return any(cls.__module__.startswith("torchvision.transforms.v2.") for cls in type(transform).__mro__)


def _rotation(transform: Any) -> Further:
    _centred(transform)
    mode, fill = _look(transform)
    return _fixed(Step("rotate", _pair(transform.degrees), 1.0, mode, fill))


def _affine(transform: Any) -> Further:
    _centred(transform)
    mode, fill = _look(transform)
    shear = [*(transform.shear or ())] + [0.0] * 4
    values = Affine(
        _pair(transform.degrees), _pair(transform.translate or (0.0, 0.0)), _pair(transform.scale or (1.0, 1.0)),
        (float(shear[0]), float(shear[1]), float(shear[2]), float(shear[3])),
    )  # fmt: skip
    return _fixed(Step("affine", values, 1.0, mode, fill))


def _perspective(transform: Any) -> Further:
    mode, fill = _look(transform)
    return _fixed(Step("perspective", float(transform.distortion_scale), float(transform.p), mode, fill))


def erasing(transform: Any) -> Further:
    """Return torchvision's RandomErasing."""
    value = transform.value
    random = value is None or value == "random"
    values = [0.0] if random else [float(one) for one in (value if hasattr(value, "__len__") else [value])]
    if len(values) not in (1, 3):
        raise ValueError(f"RandomErasing's value has {len(values)} numbers, want 3 or 1")
    red, green, blue = (values * 3)[:3]
    return _fixed(*policies.random_erasing(
        float(transform.p), mode="pixel" if random else "const", area=_pair(transform.scale),
        aspect=_pair(transform.ratio), values=(red, green, blue),
    ))  # fmt: skip


def timm_erasing(transform: Any) -> Further:
    """Return timm's RandomErasing."""
    if transform.num_splits > 1:
        raise ValueError("timm's RandomErasing has num_splits, which leave a part of a batch as it is; no recipe does")
    low, high = (math.exp(end) for end in transform.log_aspect_ratio)
    mode = "pixel" if transform.per_pixel else "rand" if transform.rand_color else "const"
    return _fixed(*policies.random_erasing(
        float(transform.probability), mode=mode, count=(transform.min_count, transform.max_count),
        area=(float(transform.min_area), float(transform.max_area)), aspect=(low, high),
    ))  # fmt: skip


def _rand_augment(transform: Any) -> Further:
    mode, fill = _look(transform)
    return lambda size: policies.rand_augment(
        size, num_ops=int(transform.num_ops), magnitude=int(transform.magnitude),
        num_magnitude_bins=int(transform.num_magnitude_bins), interpolation=mode, fill=fill, v2=_is_v2(transform),
    )  # fmt: skip


def _trivial_augment_wide(transform: Any) -> Further:
    mode, fill = _look(transform)
    return lambda _: policies.trivial_augment_wide(
        num_magnitude_bins=int(transform.num_magnitude_bins), interpolation=mode, fill=fill, v2=_is_v2(transform)
    )


def _auto_augment(transform: Any) -> Further:
    mode, fill = _look(transform)
    policy = getattr(transform.policy, "value", transform.policy)
    return lambda size: policies.auto_augment(size, policy=policy, interpolation=mode, fill=fill, v2=_is_v2(transform))


_READ: dict[str, Callable[[Any], Further]] = {
    "RandomVerticalFlip": _with_p("vertical_flip"),
    "RandomInvert": _with_p("invert"),
    "RandomAutocontrast": _with_p("autocontrast"),
    "RandomEqualize": _with_p("equalize"),
    "RandomPosterize": _with_p("posterize", lambda transform: transform.bits),
    "RandomAdjustSharpness": _with_p("sharpness", lambda transform: transform.sharpness_factor),
    "RandomRotation": _rotation,
    "RandomAffine": _affine,
    "RandomPerspective": _perspective,
    "RandAugment": _rand_augment,
    "TrivialAugmentWide": _trivial_augment_wide,
    "AutoAugment": _auto_augment,
}
NAMES = tuple(_READ)


# timm 1.0.31, data/auto_augment.py: AugmentOp (358-410), AutoAugment (566-581), RandAugment (739-764)


def timm_op(op: Any) -> Step:
    resample, hparams = op.kwargs["resample"], op.hparams
    if isinstance(resample, (list, tuple)):
        if {int(one) for one in resample} != {2, 3} or len(resample) != 2:
            raise ValueError(f"{op.name} draws from the filters {resample}; a recipe from bilinear and bicubic")
        mode = "random"
    elif int(resample) in _PILLOWS:
        mode = _PILLOWS[int(resample)]
    else:
        raise ValueError(f"{op.name} moves pixels by filter {int(resample)}, which Pillow refuses; want 0, 2 or 3")
    return policies.timm_step(
        op.name, probability=float(op.prob), magnitude=op.magnitude, mstd=float(op.magnitude_std),
        mmax=getattr(op, "magnitude_max", None), fill=op.kwargs["fillcolor"], resample=mode,
        translate_const=hparams.get("translate_const", 250), translate_pct=hparams.get("translate_pct", 0.45),
    )  # fmt: skip


def _timm_rand_augment(transform: Any) -> Policy:
    if transform.choice_weights is not None:
        raise ValueError("timm's RandAugment with weights draws without repetition, which no recipe does")
    return (Choice(tuple((timm_op(op),) for op in transform.ops)),) * int(transform.num_layers)


_TIMM: dict[str, Callable[[Any], Policy]] = {
    "AugmentOp": lambda op: (timm_op(op),),
    "RandAugment": _timm_rand_augment,
    "AutoAugment": lambda transform: (Choice(tuple(tuple(map(timm_op, ops)) for ops in transform.policy)),),
}
