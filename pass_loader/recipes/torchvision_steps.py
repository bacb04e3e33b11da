"""The steps of one torchvision transform, as fields of a ViewSpec. Used by from_torchvision.py alone.

torchvision's and timm's classes are known by module and name. Objects of other projects are known by what they do
(torchvision_observed.py), never by their names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import torchvision_geometry as geometry
from .steps import Choice, Step, Then, any_order, one_of, together
from .torchvision_further import NAMES, Further, Sides, erasing, further_of, timm_erasing, timm_further_of, timm_name
from .torchvision_names import UnknownTransform, is_rand_augment, is_timms, noise, torchvision_name
from .torchvision_observed import step_of, threshold_of
from .torchvision_policies import rand_augment_of
from .torchvision_views import is_step, pipelines_within

RANDOM = ("flip", "jitter", "grayscale", "blur", "solarize")  # steps that a recipe has with a probability


@dataclass(frozen=True)
class TransformStep:
    kind: str  # one of RANDOM, "further", "erase", "crop", "window", "to tensor", "to float", "normalize"
    shown: str  # the class's name, for messages
    probability: float = 1.0
    fields: dict[str, Any] = field(default_factory=dict)  # of the ViewSpec; mean and std of the Recipe
    further: Further | None = None  # of kinds "further" and "erase"

    def then(self, size: Sides) -> list[Then]:
        """Return it as further steps of a view of this size. Raises ValueError where it is none."""
        if self.further is not None:
            return [*self.further(size)]
        p, fields = self.probability, self.fields
        if self.kind == "jitter":
            ranges = {name: limits for name, limits in fields.items() if limits is not None}
            orders = any_order([[Step(name, limits)] for name, limits in ranges.items()])
            return [dataclasses.replace(orders, probability=p)]
        if self.kind == "blur" and fields.get("blur_kernel"):
            return [Step("kernel_blur", fields["blur_sigma"], p, taps=fields["blur_kernel"])]
        values = {
            "flip": None, "grayscale": None, "blur": fields.get("blur_sigma"),
            "solarize": fields.get("solarize_threshold"),
        }  # fmt: skip
        if self.kind not in values:
            raise ValueError(f"{self.shown} stands inside another transform: a recipe has that step once, for the view")
        return [Step(self.kind, values[self.kind], p)]


def steps_of(transform: Any) -> Iterator[TransformStep]:
    """Yield the elementary steps, in their order."""
    name = torchvision_name(transform)
    if name == "RandomApply":
        yield from _applied(transform)
    elif name == "RandomChoice":
        rows = [[*steps_of(one)] for one in transform.transforms]
        weights = transform.p
        yield TransformStep("further", name, further=lambda size: (one_of(_all_then(rows, size), weights),))
    elif name == "RandomOrder":
        rows = [[*steps_of(one)] for one in transform.transforms]
        yield TransformStep("further", name, further=lambda size: (any_order(_all_then(rows, size)),))
    elif name == "Lambda":
        _prove_nothing(transform)
    elif name in NAMES:
        yield TransformStep("further", name, further=further_of(transform, name))
    elif (timms := timm_name(transform)) is not None:
        yield TransformStep("further", f"timm's {timms}", further=timm_further_of(transform))
    elif is_timms(transform) and (read := _TIMM.get(type(transform).__name__)):
        yield from read(transform)
    elif name in ("Compose", "Sequential"):
        for inner in transform if name == "Sequential" else transform.transforms:
            yield from steps_of(inner)
    elif name in _READ:
        for step in _READ[name](transform):
            yield dataclasses.replace(step, shown=name)
    elif name is None and is_rand_augment(transform):
        shown = type(transform).__name__
        policy = rand_augment_of(transform)
        yield TransformStep("further", shown, further=lambda size: policy)
    elif name is None and (inner := _inside(transform)):
        for one in inner:
            yield from steps_of(one)
    elif name is None and callable(transform) and not is_timms(transform):
        yield from _observed(transform)
    else:
        raise ValueError(f"{name or type(transform).__name__} is not a step that a recipe has; {KNOWN}")


def _prove_nothing(transform: Any) -> None:
    """Raise where a Lambda does something to a picture of mode RGB, which is what recipes decode."""
    picture = noise()
    before = picture.tobytes()
    for _ in range(32):
        try:
            same = transform(picture) is picture and picture.tobytes() == before
        except Exception as error:
            raise ValueError(f"Lambda is not a step that a recipe has, and fails on a PIL picture: {error}") from error
        if not same:
            raise ValueError(f"Lambda is not a step that a recipe has: it changes a picture; {KNOWN}")


def _inside(transform: Any) -> tuple[Any, ...]:
    """Return the transforms that an object does no more than call; none where it does something else."""
    if is_timms(transform) or is_step(transform):
        return ()
    try:
        pipelines = pipelines_within(transform)
    except UnknownTransform:
        return ()
    if len(pipelines) != 1:
        return ()
    return pipelines[0].transforms


def _applied(transform: Any) -> list[TransformStep]:
    """Return RandomApply's steps. A single one has its own probability times p; several are decided together."""
    p = float(transform.p)
    if p <= 0:
        return []
    inner = [step for one in transform.transforms for step in steps_of(one) if step.probability > 0]
    if p >= 1 or not inner:
        return inner
    for step in inner:
        if step.kind not in (*RANDOM, "further", "erase"):
            raise ValueError(f"RandomApply(p={p}) around {step.shown}: a recipe has that step always")
    if len(inner) > 1 or inner[0].kind in ("further", "erase"):

        def decided_together(size: Sides) -> tuple[Choice]:
            return (dataclasses.replace(together(one for step in inner for one in step.then(size)), probability=p),)

        names = " and ".join(step.shown for step in inner)
        kind = "erase" if any(step.kind == "erase" for step in inner) else "further"
        return [TransformStep(kind, f"RandomApply around {names}", further=decided_together)]
    return [dataclasses.replace(inner[0], probability=inner[0].probability * p)]


def _all_then(rows: list[list[TransformStep]], size: Sides) -> list[list[Then]]:
    """Return each row as further steps of a view of this size."""
    return [[one for step in row if step.probability > 0 for one in step.then(size)] for row in rows]


def _jitter(transform: Any) -> list[TransformStep]:
    names = ("brightness", "contrast", "saturation", "hue")
    ranges = {name: None if getattr(transform, name) is None else _pair(getattr(transform, name)) for name in names}
    return [TransformStep("jitter", "", fields=ranges)] if any(ranges.values()) else []


def _grayscale(transform: Any) -> list[TransformStep]:
    channels = getattr(transform, "num_output_channels", 3)
    if channels != 3:
        raise ValueError(f"Grayscale gives {channels} channel, and views have 3: give num_output_channels=3")
    return [TransformStep("grayscale", "", float(getattr(transform, "p", 1.0)))]


def _solarize(transform: Any) -> list[TransformStep]:
    return [
        TransformStep("solarize", "", float(transform.p), {"solarize_threshold": threshold_of(transform.threshold)})
    ]


def _to_float(transform: Any) -> list[TransformStep]:
    if str(transform.dtype) != "torch.float32" or not getattr(transform, "scale", True):
        scale = f", scale={transform.scale}" if hasattr(transform, "scale") else ""
        raise ValueError(
            f"{type(transform).__name__} has dtype {transform.dtype}{scale}; views are float32 of [0, 1], normalized"
        )
    return [TransformStep("to float", "")]


def _normalize(transform: Any) -> list[TransformStep]:
    fields = {}
    for name in ("mean", "std"):
        value = getattr(transform, name)
        numbers = [_decimal(one) for one in value] if hasattr(value, "__len__") else [_decimal(value)]
        if len(numbers) not in (1, 3):
            raise ValueError(f"Normalize's {name} has {len(numbers)} numbers, want 3 or 1")
        fields[name] = tuple(numbers * 3)[:3]
    return [TransformStep("normalize", "", fields=fields)]


def _decimal(value: Any) -> float:
    """Return a number; of a float32 tensor, as timm has them, the shortest decimal that it is."""
    if str(getattr(value, "dtype", "")) == "torch.float32":
        return float(np.format_float_positional(np.float32(value.item())))
    return float(value)


def _kernel_blur(transform: Any) -> list[TransformStep]:
    taps = set(transform.kernel_size)
    if len(taps) > 1:
        raise ValueError(f"GaussianBlur(kernel_size={transform.kernel_size}): a recipe's kernel is a square")
    return [TransformStep("blur", "", fields={"blur_sigma": _pair(transform.sigma), "blur_kernel": int(taps.pop())})]


def _window(read: Callable[[Any], dict[str, Any]]) -> Callable[[Any], list[TransformStep]]:
    return lambda transform: [TransformStep("window", "", fields=read(transform))]


_READ: dict[str, Callable[[Any], list[TransformStep]]] = {
    "RandomResizedCrop": lambda transform: [TransformStep("crop", "", fields=geometry.crop(transform))],
    **{name: _window(read) for name, read in geometry.WINDOWS.items()},
    "RandomHorizontalFlip": lambda transform: [TransformStep("flip", "", float(transform.p))],
    "ColorJitter": _jitter,
    "RandomGrayscale": _grayscale,
    "Grayscale": _grayscale,
    "RandomSolarize": _solarize,
    "GaussianBlur": _kernel_blur,
    "RandomErasing": lambda transform: [TransformStep("erase", "", further=erasing(transform))],
    "ToTensor": lambda _: [TransformStep("to tensor", ""), TransformStep("to float", "")],
    "ToImage": lambda _: [TransformStep("to tensor", "")],
    "PILToTensor": lambda _: [TransformStep("to tensor", "")],
    "ToDtype": _to_float,
    "ConvertImageDtype": _to_float,
    "Normalize": _normalize,
    "Identity": lambda _: [],
    "RGB": lambda _: [],  # pictures are decoded to RGB
    "ToPureTensor": lambda _: [],
}


def _timm_bytes(transform: Any) -> list[TransformStep]:
    raise ValueError(
        f"timm's {type(transform).__name__} gives bytes, which its prefetcher normalizes and erases: call "
        "create_transform with use_prefetcher=False, normalize=True"
    )


_TIMM: dict[str, Callable[[Any], list[TransformStep]]] = {  # of timm 1.0.31, data/transforms.py, random_erasing.py
    "RandomResizedCropAndInterpolation": lambda transform: [
        TransformStep("crop", "timm's RandomResizedCropAndInterpolation", fields=geometry.timm_crop(transform))
    ],
    "MaybeToTensor": lambda _: [
        TransformStep("to tensor", "timm's MaybeToTensor"), TransformStep("to float", "timm's MaybeToTensor")
    ],
    **dict.fromkeys(("MaybePILToTensor", "ToNumpy"), _timm_bytes),
    "RandomErasing": lambda transform: [
        TransformStep("erase", "timm's RandomErasing", further=timm_erasing(transform))
    ],
}  # fmt: skip
KNOWN = (
    "known are torchvision's Compose, RandomApply, RandomChoice, RandomOrder, "
    + ", ".join((*_READ, *NAMES))
    + ", timm's RandAugment, AutoAugment, RandomErasing and RandomResizedCropAndInterpolation, and what blurs, "
    "solarizes, equalizes, grays or rotates by Pillow as the official repositories' classes do"
)


def _observed(transform: Any) -> list[TransformStep]:
    """Read an object of another project by what it does."""
    name, step = type(transform).__name__, step_of(transform)
    if step.op in ("rotate", "equalize"):
        return [TransformStep("further", name, step.probability, further=lambda size: (step,))]
    fields: dict[str, Any] = {"blur": {"blur_sigma": step.value}, "solarize": {"solarize_threshold": step.value}}
    return [TransformStep(step.op, name, step.probability, fields.get(step.op, {}))]


def _pair(values: Any) -> tuple[float, float]:
    try:
        low, high = values
        return float(low), float(high)
    except (TypeError, ValueError):
        raise ValueError(f"{values!r} is no range, want two numbers") from None
