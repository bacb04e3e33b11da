"""torchvision's and timm's objects that say which part of the picture a view shows. Used by torchvision_steps.py and
from_torchvision.py alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .window import Window

_INTS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # PIL's Resampling
_MODES = {**{name: name for name in _INTS.values()}, "nearest-exact": "nearest"}  # on PIL pictures they are one
Fields = dict[str, Any]


def mode_of(value: Any) -> Any:
    """Return the name of an interpolation that torchvision takes, or the value itself where it is none."""
    value = getattr(value, "value", value)
    return _MODES.get(_INTS.get(value, value), value)


def _filter(transform: Any) -> str:
    name = type(transform).__name__
    mode = mode_of(transform.interpolation)
    if mode not in _MODES.values():
        raise ValueError(f"{name}'s interpolation is {mode!r}, want one of {', '.join(_INTS.values())}")
    if getattr(transform, "antialias", True) is False:
        raise ValueError(f"{name} has antialias=False; views are antialiased, as PIL's always are")
    return str(mode)


def _size(height: Any, width: Any) -> int | tuple[int, int]:
    return int(height) if height == width else (int(height), int(width))


def _pair(values: Any) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)


def crop(transform: Any) -> Fields:
    """Return the fields of a RandomResizedCrop."""
    return {
        "size": _size(*transform.size), "scale": _pair(transform.scale), "ratio": _pair(transform.ratio),
        "interpolation": _filter(transform),
    }  # fmt: skip


def timm_crop(transform: Any) -> Fields:
    """Return the fields of timm's RandomResizedCropAndInterpolation (timm 1.0.31, data/transforms.py), whose several
    filters are bilinear and bicubic."""
    modes = transform.interpolation
    names = [mode_of(mode) for mode in modes] if isinstance(modes, (list, tuple)) else [mode_of(modes)]
    if names != ["bilinear", "bicubic"] and not (len(names) == 1 and names[0] in _MODES.values()):
        raise ValueError(f"RandomResizedCropAndInterpolation draws from the filters {names}; a recipe from two")
    return {
        "size": _size(*transform.size), "scale": _pair(transform.scale), "ratio": _pair(transform.ratio),
        "interpolation": names[0] if len(names) == 1 else "random",
    }  # fmt: skip


def _padding(transform: Any) -> Fields:
    """Return padding and its mode, of a Pad or a RandomCrop."""
    padding, mode, fill = transform.padding, transform.padding_mode, transform.fill
    mode = getattr(mode, "value", mode)
    if mode == "constant" and isinstance(fill, dict):
        raise ValueError(f"{type(transform).__name__} has fill={fill!r}; a recipe's padding has one colour")
    colour: Any = fill if mode == "constant" and fill is not None else 0
    colour = tuple(colour) * (3 if len(colour) == 1 else 1) if hasattr(colour, "__len__") else colour
    found = Window(padding=0 if padding is None else padding, padding_mode=mode)
    filled = Window(fill=colour).fill
    colours = {"fill": filled} if any(filled) else {}
    return {"padding": found.padding, "padding_mode": mode, **colours}


def resize(transform: Any) -> Fields:
    if getattr(transform, "max_size", None) is not None:
        raise ValueError("Resize has max_size; a recipe resizes the short side, or both")
    sides = transform.size if hasattr(transform.size, "__len__") else [transform.size]
    if any(side is None for side in sides):
        raise ValueError("Resize has size=None; a recipe resizes the short side, or both")
    sides = tuple(int(side) for side in sides)
    return {"resize": sides[0] if len(sides) == 1 else sides, "interpolation": _filter(transform)}


def centre_crop(transform: Any) -> Fields:
    return {"size": _size(*transform.size), "place": "centre"}


def random_crop(transform: Any) -> Fields:
    needed = {"pad_if_needed": True} if transform.pad_if_needed else {}
    fields = {"size": _size(*transform.size), "place": "drawn", **_padding(transform), **needed}
    v2 = any(cls.__module__.startswith("torchvision.transforms.v2.") for cls in type(transform).__mro__)
    if v2 and transform.padding is not None:  # which keeps it as left, right, top, bottom
        left, right, top, bottom = fields["padding"]
        fields["padding"] = left, top, right, bottom
    return fields


def resized_again(crop: Fields, resize: Fields) -> Fields:
    """Return the fields of a RandomResizedCrop and the Resize after it."""
    if crop["interpolation"] != resize["interpolation"]:
        raise ValueError(f"Resize is {resize['interpolation']} after a crop that is {crop['interpolation']}")
    height, width = crop["size"] if isinstance(crop["size"], tuple) else (crop["size"],) * 2
    wanted = resize["resize"]
    if not isinstance(wanted, tuple):
        short = min(height, width)
        wanted = tuple(wanted if side == short else int(wanted * side / short) for side in (height, width))
    return crop if wanted == (height, width) else {**crop, "size": _size(*wanted), "via": crop["size"]}


WINDOWS: dict[str, Callable[[Any], Fields]] = {
    "Resize": resize, "Pad": _padding, "CenterCrop": centre_crop, "RandomCrop": random_crop,
}  # fmt: skip


def window(steps: list[tuple[str, Fields]]) -> Fields:
    """Return the fields of a view from the rows of WINDOWS that make it, each with its class, in their order.

    Raises ValueError where a recipe's Window has another order, or the view would have no fixed size.
    """
    names = [name for name, _ in steps]
    order = ["Resize", "Pad", "CenterCrop" if "CenterCrop" in names else "RandomCrop"]
    if names != [name for name in order if name in names]:
        raise ValueError(
            f"{', '.join(names)}: a recipe has Resize, Pad and CenterCrop or RandomCrop, each once, in this order"
        )
    fields: Fields = functools.reduce(_joined, (found for _, found in steps), {})
    size, resized, filters = fields.pop("size", None), fields.get("resize"), {}
    if "interpolation" in fields:
        filters = {"interpolation": fields.pop("interpolation")}
    if size is None:
        if not isinstance(resized, tuple):
            raise ValueError(
                f"{' and '.join(names)} alone: views would not have one shape; add CenterCrop, as recipes.evaluate() "
                "does, or give both sides to Resize"
            )
        left, top, right, bottom = fields.get("padding", (0,) * 4)
        size = _size(resized[0] + top + bottom, resized[1] + left + right)
    elif names == ["Resize", "CenterCrop"] and not isinstance(resized, tuple):
        sides = size if isinstance(size, tuple) else (size,)
        if max(sides) <= resized:  # type: ignore[operator]
            return {"size": size, "resize_short": resized, **filters}
    if (fields.get("padding_mode", "constant") != "constant" or "fill" in fields) and fields.get("place") == "centre":
        raise ValueError(
            "Pad mirrors the edge, repeats it or has a colour, and CenterCrop pads with black: a recipe has one of both"
        )
    if not any(fields.get("padding", ())) and "pad_if_needed" not in fields:
        for name in ("padding_mode", "fill"):
            fields.pop(name, None)
    return {"size": size, "window": Window(**fields), **filters}


def _joined(one: Fields, other: Fields) -> Fields:
    """Return the fields of two steps; RandomCrop's own padding must not follow a Pad's."""
    if "padding" in one and "padding" in other:
        if any(other["padding"]) or other.get("pad_if_needed"):
            raise ValueError("RandomCrop pads after Pad: give the padding to one of them")
        other = {name: value for name, value in other.items() if name not in ("padding", "padding_mode", "fill")}
    return {**one, **other}
