"""Recipe.from_torchvision: reads a transform object and writes down what gives the same views.

torchvision is never imported. torchvision_views.py finds the views, torchvision_steps.py reads the steps of one.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .policies import sides_of
from .steps import Then
from .torchvision_geometry import resized_again, window
from .torchvision_names import UnknownTransform, torchvision_name
from .torchvision_steps import KNOWN, RANDOM, TransformStep, steps_of
from .torchvision_views import Pipeline, pipelines_of, transforms_of_dataset

_ORDER = ("crop", "to tensor", "to float", "normalize")  # between the first two, steps on pictures in any order
_FIXED = ("jitter", "grayscale", "blur", "solarize")  # a recipe's steps, in their order; a flip may stand anywhere
_ON_TENSORS = "there it works on a tensor, whose pixels are not PIL's; put it in front"
_NEEDED = {
    "crop": "no RandomResizedCrop, CenterCrop or RandomCrop, with which a recipe's view begins",
    "to tensor": "no ToTensor, nor ToImage or PILToTensor: the views would not come from PIL pictures as tensors",
    "to float": "nothing makes float32 of the bytes; add ToDtype(torch.float32, scale=True)",
}
WAY_OUT = (
    "To write the views by hand: Recipe(name, (ViewSpec(size, scale, then=(Step(...), ...)), ...)), "
    "docs/recipes.md#further-steps"
)
_LIST = " (a list is one transform a view; the steps of one view stand in a Compose)"


@dataclass(frozen=True)
class Translation:
    """A transform object in words of a recipe: the fields of each view's ViewSpec, and what the views share.

    Alternatives are such fields too.
    """

    views: list[dict[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: str
    name: str  # the transform's class


def translate(transform: Any) -> Translation:
    """Read a transform object. Raises ValueError that names the step for which no recipe does that."""
    what = type(transform).__name__
    try:
        read = _Reader()
        with _random_state_kept():
            views = [_view(pipeline, number, read) for number, pipeline in enumerate(pipelines_of(transform))]
    except ValueError as error:
        hint = f"; {KNOWN}" if isinstance(error, UnknownTransform) else ""
        hint += _LIST if isinstance(transform, (list, tuple)) else ""
        raise ValueError(f"cannot make a recipe of this {what}: {error}{hint}") from error.__cause__
    mean, std = views[0][1]
    for fields, norm in views:
        for name, own, shared in zip(("mean", "std"), norm, (mean, std)):
            if own != shared:
                fields[name] = own
    batch = "views" if transforms_of_dataset(transform) else "views_labels"
    return Translation([fields for fields, _ in views], mean, std, batch, what)


@contextlib.contextmanager
def with_way_out() -> Iterator[None]:
    """Have refusals end with the way to write a recipe."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}. {WAY_OUT}") from error.__cause__


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


class _Reader:
    """Reads the steps of transforms, once where one makes several views: some are run for it."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Any, list[TransformStep]]] = {}  # by id, with the transform, so that it lives

    def steps(self, transform: Any) -> list[TransformStep]:
        if id(transform) not in self._read:
            self._read[id(transform)] = transform, [step for step in steps_of(transform) if step.probability > 0]
        return self._read[id(transform)][1]


def _view(pipeline: Pipeline, number: int, read: _Reader) -> tuple[dict[str, Any], tuple[Any, Any]]:
    """Return the view's fields and its (mean, std)."""
    try:
        rows = [read.steps(one) for one in pipeline.transforms]
        steps = _one_crop([step for row in rows for step in row])
        _check_order(steps)
        fields = _fields(steps)
        if pipeline.box_of is not None:
            _check_shared([step for row in rows[: pipeline.shared] for step in row], steps, pipeline.box_of)
            fields["box_of"] = pipeline.box_of
        norm = fields.pop("mean", (0.0, 0.0, 0.0)), fields.pop("std", (1.0, 1.0, 1.0))
        fields = {"flip": 0.0, **fields}
        others = [(_view(other, number, read), share) for other, share in pipeline.alternatives]
        for (_, theirs), _ in others:
            if theirs != norm:
                raise ValueError(
                    f"one of its choices is normalized with {_show_norm(theirs)}, one with {_show_norm(norm)}"
                )
        if others:
            fields["alternatives"] = tuple((one, share) for (one, _), share in others)
        if pipeline.decided_with is not None:
            fields["decided_with"] = pipeline.decided_with
        return fields, norm
    except ValueError as error:
        raise ValueError(f"view {number}: {error}") from error.__cause__


def _one_crop(steps: list[TransformStep]) -> list[TransformStep]:
    """Return the steps with those of one window (Resize, CenterCrop ...) as one step, where the last one stands."""
    parts = [step for step in steps if step.kind == "window"]
    if not parts:
        return steps
    before = steps[steps.index(parts[0]) - 1] if steps[0] is not parts[0] else None
    if before is not None and before.kind == "crop" and len(parts) == 1 and parts[0].shown == "Resize":
        joined = dataclasses.replace(before, fields=resized_again(before.fields, parts[0].fields))
        return [joined if step is before else step for step in steps if step is not parts[0]]
    fields = window([(step.shown, step.fields) for step in parts])
    joined = TransformStep("crop", " and ".join(step.shown for step in parts), fields=fields)
    return [joined if step is parts[-1] else step for step in steps if step.kind != "window" or step is parts[-1]]


def _check_shared(shared: list[TransformStep], steps: list[TransformStep], other: int) -> None:
    """Raise unless what a view has in common with another one is its crop box and flip."""
    flips = sum(step.kind == "flip" for step in steps)
    if all(step.kind != "crop" for step in shared) or flips != sum(step.kind == "flip" for step in shared):
        raise ValueError(f"it shares a part with view {other}, and not its crop and flip: a recipe shares both")
    for step in shared:
        if step.kind not in ("crop", "flip", "window"):
            raise ValueError(f"it shares {step.shown} with view {other}; a recipe shares crop box and flip alone")


def _fields(steps: list[TransformStep]) -> dict[str, Any]:
    """Return the fields of the view, and mean and std.

    Steps in a recipe's fixed order are its fixed steps. From the first that is not on, all are further steps, but for a
    flip that nothing before it tells from one after the crop.
    """
    fields: dict[str, Any] = {}
    then: list[Then] = []
    last, moved = -1, False
    crop = next(place for place, step in enumerate(steps) if step.kind == "crop")
    size = sides_of(steps[crop].fields["size"])
    if before := [one for step in steps[:crop] for one in step.then(_WholePicture())]:
        fields["before"] = tuple(before)
    for step in steps[crop:]:
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


class _WholePicture(tuple[int, int]):
    """The sides of a picture, which no recipe knows."""

    def __iter__(self) -> Iterator[int]:
        raise ValueError("a step before the crop has numbers that depend on the picture's size; put it after the crop")

    def __getitem__(self, place: Any) -> Any:
        return next(iter(self))


def _check_order(steps: list[TransformStep]) -> None:
    """Raise where a step stands after ToTensor, and where one that a recipe needs is missing."""
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
            if last is not None and last.kind != "crop" and step.kind != "flip":  # which moves pixels alone
                raise ValueError(f"{step.shown} stands after {last.shown}: {_ON_TENSORS}")
            continue
        if last and _ORDER.index(step.kind) < _ORDER.index(last.kind):
            raise ValueError(f"{step.shown} stands after {last.shown}: {_ON_TENSORS}")
        seen[step.kind] = last = step
    for kind, missing in _NEEDED.items():
        if kind not in seen:
            raise ValueError(missing)
