"""Recipe.from_torchvision: reads a transform object and writes down what gives the same views.

torchvision is never imported. An object of several views is run with markers in place of its transforms, which tells
the views and their order (`_views_of_container`); torchvision_steps.py reads the steps of one view.
"""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .policies import sides_of
from .steps import Then
from .torchvision_geometry import window
from .torchvision_steps import KNOWN, RANDOM, TransformStep, is_foreign_step, noise, steps_of, torchvision_name

_ORDER = ("crop", "to tensor", "to float", "normalize")  # between the first two, steps on pictures in any order
_FIXED = ("jitter", "grayscale", "blur", "solarize")  # a recipe's steps, in their order; a flip may stand anywhere
_ON_TENSORS = "there it works on a tensor, whose pixels are not PIL's; put it in front"
_NEEDED = {
    "crop": "no RandomResizedCrop, CenterCrop or RandomCrop, with which a recipe's view begins",
    "to tensor": "no ToTensor, nor ToImage or PILToTensor: the views would not come from PIL pictures as tensors",
    "to float": "nothing makes float32 of the bytes; add ToDtype(torch.float32, scale=True)",
}
_LIST = " (a list is one transform a view; the steps of one view stand in a Compose)"
_RUNS = 16  # of a container that might choose its views by chance


@dataclass(frozen=True)
class Translation:
    """A transform object in words of a recipe: the fields of each view's ViewSpec, and what the views share."""

    views: list[dict[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: str
    name: str  # the transform's class


def translate(transform: Any) -> Translation:
    """Read a transform object. Raises ValueError that names the step for which no recipe does that."""
    what = type(transform).__name__
    try:
        with _random_state_kept():
            views = [_view(pipeline, number) for number, pipeline in enumerate(_pipelines(transform))]
    except ValueError as error:
        hint = _LIST if isinstance(transform, (list, tuple)) else ""
        raise ValueError(f"cannot make a recipe of this {what}: {error}{hint}") from error.__cause__
    for number, (_, norm) in enumerate(views):
        if norm != views[0][1]:
            raise ValueError(
                f"cannot make a recipe of this {what}: view {number} is normalized with {_show_norm(norm)}, "
                f"view 0 with {_show_norm(views[0][1])}, and a recipe has one mean and std for all views"
            )
    mean, std = views[0][1]
    batch = "views" if hasattr(transform, "trans") else "views_labels"
    return Translation([fields for fields, _ in views], mean, std, batch, what)


def timms(transform: Any) -> Any:
    """Return what timm's create_transform made as one transform."""
    if not isinstance(transform, tuple):
        return transform
    if len(transform) != 3 or any(torchvision_name(part) != "Compose" for part in transform):
        raise ValueError("want create_transform's Compose, or its tuple of three")
    whole = copy.copy(transform[0])
    whole.transforms = [step for part in transform for step in part.transforms]
    return whole


def _show_norm(norm: tuple[Any, Any]) -> str:
    return f"mean {norm[0]} and std {norm[1]}"


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    """Restore the random states: reading a transform runs parts of it, and the script's own draws must not change."""
    torch = sys.modules.get("torch")
    python, array = random.getstate(), np.random.get_state()
    tensor = torch.get_rng_state() if torch else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        if torch:
            torch.set_rng_state(tensor)


def _pipelines(transform: Any) -> list[Any]:
    """Return one transform a view, in the order of the views."""
    inner = getattr(transform, "trans", transform)  # SwAV's MultiCropDataset keeps its views' transforms there
    if isinstance(inner, (list, tuple)):
        if not inner:
            raise ValueError("it is empty; want one transform a view")
        return [pipeline for one in inner for pipeline in _pipelines(one)]
    if torchvision_name(transform) or is_foreign_step(transform):
        return [transform]
    return [pipeline for one in _views_of_container(transform) for pipeline in _pipelines(one)]


class _Marker:
    """Stands for a transform while a container runs, and is its own result."""

    def __init__(self, transform: Any, picture: Image.Image):
        self.transform, self.picture = transform, picture

    def __call__(self, picture: Any) -> _Marker:
        if not isinstance(picture, Image.Image) or picture.tobytes() != self.picture.tobytes():
            raise ValueError(f"it changes the picture before its {type(self.transform).__name__} gets it")
        return self


def _views_of_container(transform: Any) -> list[Any]:
    """Return the transforms that an object of several views applies. It is run with markers in their place."""
    what = type(transform).__name__
    if not callable(transform):
        raise ValueError(f"{what} is no transform")
    picture = noise()

    def marked(value: Any) -> Any:
        several = isinstance(value, (list, tuple)) or torchvision_name(value) == "ModuleList"
        if several and len(value) and all(map(callable, value)):
            return [_Marker(one, picture) for one in value]
        return _Marker(value, picture) if callable(value) else value

    try:
        twin = copy.copy(transform)
        for name, value in list(vars(transform).items()):
            modules = name == "_modules"  # where torch.nn.Module keeps its parts
            vars(twin)[name] = {key: marked(part) for key, part in value.items()} if modules else marked(value)
        runs = [twin(picture) for _ in range(_RUNS)]
    except Exception as error:
        raise ValueError(f"{what} is not known, and running it says nothing of its views: {error}") from error
    found = [[run] if isinstance(run, _Marker) else run for run in runs]
    if not all(isinstance(run, (list, tuple)) and run and all(isinstance(x, _Marker) for x in run) for run in found):
        raise ValueError(
            f"{what} is neither a step that a recipe has nor an object that returns the list of its views; {KNOWN}"
        )
    views = [one.transform for one in found[0]]
    if any([one.transform for one in run] != views for run in found):
        raise ValueError(f"{what} gives now these views, now those; a recipe has the same ones for every picture")
    return views


def _view(pipeline: Any, number: int) -> tuple[dict[str, Any], tuple[Any, Any]]:
    """Return the view's fields and its (mean, std)."""
    try:
        steps = _one_crop([step for step in steps_of(pipeline) if step.probability > 0])
        _check_order(steps)
        fields = _fields(steps)
        norm = fields.pop("mean", (0.0, 0.0, 0.0)), fields.pop("std", (1.0, 1.0, 1.0))
        return {"flip": 0.0, **fields}, norm
    except ValueError as error:
        raise ValueError(f"view {number}: {error}") from error.__cause__


def _one_crop(steps: list[TransformStep]) -> list[TransformStep]:
    """Return the steps with those of one window (Resize, CenterCrop ...) as one step, where the last one stands."""
    parts = [step for step in steps if step.kind == "window"]
    if not parts:
        return steps
    fields = window([(step.shown, step.fields) for step in parts])
    joined = TransformStep("crop", " and ".join(step.shown for step in parts), fields=fields)
    return [joined if step is parts[-1] else step for step in steps if step.kind != "window" or step is parts[-1]]


def _fields(steps: list[TransformStep]) -> dict[str, Any]:
    """Return the fields of the view, and mean and std.

    Steps in a recipe's fixed order are its fixed steps. From the first that is not on, all are further steps, but for a
    flip that nothing before it tells from one after the crop.
    """
    fields: dict[str, Any] = {}
    then: list[Then] = []
    last, moved = -1, False
    size = next(sides_of(step.fields["size"]) for step in steps if step.kind == "crop")
    for step in steps:
        if step.kind == "flip" and "flip" not in fields and not moved:
            fields["flip"] = step.probability
        elif step.kind in _FIXED and not then and _FIXED.index(step.kind) > last:
            last = _FIXED.index(step.kind)
            fields |= {**step.fields, step.kind: step.probability}
        elif step.kind in (*RANDOM, "further", "erase"):
            more = step.then(size)
            moved = moved or any(one.moves for one in more)
            then += more
        else:
            fields |= step.fields
    return {**fields, "then": tuple(then)} if then else fields


def _check_order(steps: list[TransformStep]) -> None:
    """Raise where a step stands before the crop or after ToTensor, and where one that a recipe needs is missing."""
    seen: dict[str, TransformStep] = {}
    last: TransformStep | None = None  # of _ORDER
    erased: TransformStep | None = None
    if all(step.kind != "crop" for step in steps):
        raise ValueError(_NEEDED["crop"])
    for step in steps:
        if step.kind == "erase":
            if "to float" not in seen:
                raise ValueError(
                    f"{step.shown} stands before the conversion to float tensors, which it erases; put it last"
                )
            erased = step
            continue
        if erased is not None:
            raise ValueError(f"{step.shown} stands after {erased.shown}: a recipe erases last, after normalisation")
        if step.kind in seen:
            raise ValueError(f"{step.shown} stands after {seen[step.kind].shown}: a recipe has that step once")
        if step.kind not in _ORDER:
            if "crop" not in seen:
                raise ValueError(f"{step.shown} stands before the crop; put it after it, where it works on the view")
            if last is not None and last.kind != "crop" and step.kind != "flip":  # which moves pixels alone
                raise ValueError(f"{step.shown} stands after {last.shown}: {_ON_TENSORS}")
            continue
        if last and _ORDER.index(step.kind) < _ORDER.index(last.kind):
            raise ValueError(f"{step.shown} stands after {last.shown}: {_ON_TENSORS}")
        seen[step.kind] = last = step
    for kind, missing in _NEEDED.items():
        if kind not in seen:
            raise ValueError(missing)
