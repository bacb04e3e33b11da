"""The views of a transform object, each as the transforms that its picture goes through. Used by from_torchvision.py
and torchvision_steps.py alone.

An object that is no step is run with markers in place of its transforms: they tell which of them make a view, in which
order, and what views share.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .torchvision_names import UnknownTransform, is_rand_augment, is_timms, noise, torchvision_name
from .torchvision_observed import blurs_of, gate_of, twin_of

_RUNS = 400  # of a container that might choose its views by chance
_DEPTH = 4  # of objects that hold objects that hold transforms
_CHOICES = 10_000  # runs of one that does
_SIGMAS = 4.5  # of a share: one in 100,000 is further away


@dataclass(frozen=True)
class Pipeline:
    """The transforms of one view, one after the other.

    box_of: the number of an earlier view that has the first `shared` of them too, and their random numbers.
    alternatives: what may stand in for it, with probabilities. decided_with: the number of the earlier view that
    decides.
    """

    transforms: tuple[Any, ...]
    shared: int = 0
    box_of: int | None = None
    alternatives: tuple[tuple[Pipeline, float], ...] = ()
    decided_with: int | None = None


def pipelines_of(transform: Any) -> list[Pipeline]:
    """Return one pipeline a view, in the order of the views."""
    inner = transforms_of_dataset(transform) or transform
    if isinstance(inner, (list, tuple)):
        if not inner:
            raise ValueError("it is empty; want one transform a view")
        return _numbered([pipelines_of(one) for one in inner])
    return [Pipeline((transform,))] if is_step(transform) else pipelines_within(transform)


def transforms_of_dataset(transform: Any) -> list[Any]:
    """Return the views' transforms of a dataset that keeps them as SwAV's MultiCropDataset does; none of all else."""
    kept = getattr(transform, "trans", None)
    return list(kept) if isinstance(kept, (list, tuple)) and not callable(transform) else []


def is_step(transform: Any, depth: int = 0) -> bool:
    """Tell whether an object is a step of a view, or several, and no more: one that is known, or one of another
    project that makes a picture of a picture, not by its transforms alone. depth: how deep in others it lies."""
    if torchvision_name(transform) is not None or is_rand_augment(transform) or is_timms(transform):
        return True
    if not callable(transform) or isinstance(transform, type):
        return False
    picture, gate = noise(), gate_of(transform)
    try:
        twin = twin_of(_twin(transform, picture, depth), {gate: 0.0} if gate else {})
        with blurs_of(None):
            return isinstance(twin(picture), Image.Image)
    except Exception:  # told where it is read
        return False


def pipelines_within(transform: Any) -> list[Pipeline]:
    """Return the same of an object that does no more than call transforms."""
    run = _runner(transform)
    runs = _tried(transform, run, _RUNS)
    if any(_made_of(one) != _made_of(runs[0]) for one in runs):
        return _chosen(transform, _tried(transform, run, _CHOICES))
    calls = runs[0]
    found = []
    for place, call in enumerate(calls):
        chain = call.chain()
        if len(chain) == 1:
            found.append(pipelines_of(chain[0].transform))
            continue
        others = [_common(chain, other.chain()) for other in calls[:place]]
        shared = max(others, default=0)
        parts = tuple(part for one in chain for part in _alone(one.transform))
        before = sum(len(_alone(one.transform)) for one in chain[:shared])
        found.append([Pipeline(parts, before, others.index(shared) if shared else None)])
    if any(len(views) > 1 for views in found) and any(view.shared for views in found for view in views):
        raise ValueError(f"{type(transform).__name__} shares a part of its views, and one of its transforms is several")
    shares = any(view.box_of is not None for views in found for view in views)
    return [view for views in found for view in views] if shares else _numbered(found)


def _chosen(transform: Any, runs: list[list[_Call]]) -> list[Pipeline]:
    """Return the views of a container that chooses among its transforms: what each may be, how likely, and which ones
    are decided together."""
    what = type(transform).__name__
    count = len(runs[0])
    if any(len(run) != count for run in runs) or any(call.before is not None for run in runs for call in run):
        raise ValueError(f"{what} gives now these views, now others; a recipe has the same number for every picture")
    order = {id(one): place for place, one in enumerate(_parts(transform))}
    found: list[Pipeline] = []
    taken: list[np.ndarray] = []
    for place in range(count):
        variants = {id(run[place].transform): run[place].transform for run in runs}
        ranked = sorted(variants, key=lambda one: order.get(one, len(order)))
        numbers = np.array([ranked.index(id(run[place].transform)) for run in runs])
        taken.append(numbers)
        own, *others = (_alone(variants[one]) for one in ranked)
        shares = [_likely(transform, (numbers == number + 1).mean(), len(ranked)) for number in range(len(others))]
        same = [other for other in range(place) if found[other].decided_with is None and found[other].alternatives
                and np.array_equal(taken[other], numbers)]  # fmt: skip
        pairs = tuple((Pipeline(one), share) for one, share in zip(others, shares))
        found.append(Pipeline(own, alternatives=pairs, decided_with=same[0] if same and pairs else None))
    free = [taken[place] > 0 for place, view in enumerate(found) if view.alternatives and view.decided_with is None]
    for place, one in enumerate(free):
        for other in free[:place]:
            if abs(np.corrcoef(one, other)[0, 1]) > _SIGMAS / len(runs) ** 0.5:
                raise ValueError(
                    f"{what} chooses two views neither together nor each for itself; a recipe has one of both"
                )
    return found


def _likely(transform: Any, share: float, variants: int) -> float:
    """Return the probability that a share of many runs stands for: an attribute of the object, 1 minus one, or the same
    for all."""
    numbers = [float(value) for value in vars(transform).values() if isinstance(value, float) and 0 <= value <= 1]
    near = _SIGMAS * (share * (1 - share) / _CHOICES) ** 0.5
    for known in (*numbers, *(1 - number for number in numbers), 1 / variants):
        if abs(known - share) <= near:
            return known
    raise ValueError(
        f"{type(transform).__name__} takes one of several transforms in {share:.3f} of the runs, and none of its "
        "attributes says how often"
    )


def _parts(transform: Any) -> Iterator[Any]:
    """Yield the callable attributes of an object, in their order."""
    for value in vars(transform).values() if hasattr(transform, "__dict__") else ():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if callable(one):
                yield one


def _alone(transform: Any) -> tuple[Any, ...]:
    pipelines = pipelines_of(transform)
    if len(pipelines) != 1 or pipelines[0].alternatives:
        raise ValueError(f"{type(transform).__name__} makes {len(pipelines)} views of what another transform made")
    return pipelines[0].transforms


def _numbered(parts: list[list[Pipeline]]) -> list[Pipeline]:
    """Return all pipelines of several objects; numbers of views count through them."""
    found: list[Pipeline] = []
    for views in parts:
        first = len(found)
        for view in views:
            box_of, with_ = (None if one is None else first + one for one in (view.box_of, view.decided_with))
            found.append(dataclasses.replace(view, box_of=box_of, decided_with=with_))
    return found


class _Call:
    """What a transform made of the picture, or of what another one had made."""

    def __init__(self, transform: Any, before: _Call | None):
        self.transform, self.before = transform, before

    def chain(self) -> list[_Call]:
        return [*(self.before.chain() if self.before else []), self]


def _common(one: list[_Call], other: list[_Call]) -> int:
    """Return how many calls two chains have in common."""
    return next((place for place, (a, b) in enumerate(zip(one, other)) if a is not b), min(len(one), len(other)))


class _Marker:
    """Stands for a transform while a container runs."""

    def __init__(self, transform: Any, picture: Image.Image):
        self.transform, self.picture = transform, picture

    def __call__(self, *given: Any, **named: Any) -> Any:
        if not given and not named:  # it makes something else: a mask
            return self.transform()
        picture = given[0] if len(given) == 1 and not named else None
        if isinstance(picture, _Call):
            return _Call(self.transform, picture)
        same = picture is self.picture
        if not same and (not isinstance(picture, Image.Image) or picture.tobytes() != self.picture.tobytes()):
            raise ValueError(f"it changes the picture before its {type(self.transform).__name__} gets it")
        return _Call(self.transform, None)


def _runner(transform: Any) -> Callable[[], Any]:
    """Return what runs an object of several views with markers in place of its transforms."""
    if not callable(transform):
        raise UnknownTransform(f"{type(transform).__name__} is no transform")
    picture = noise()
    twin = _twin(transform, picture)
    return lambda: twin(picture)


def _twin(transform: Any, picture: Image.Image, depth: int = 0) -> Any:
    """Return a copy of an object with markers in place of its transforms. What holds transforms is copied likewise."""

    def marked(value: Any) -> Any:
        several = isinstance(value, (list, tuple)) or torchvision_name(value) == "ModuleList"
        if several and len(value) and all(map(callable, value)):
            return [marked(one) for one in value]
        if not callable(value):
            return value
        if depth < _DEPTH and any(_parts(value)) and not isinstance(value, type) and not is_step(value, depth + 1):
            return _twin(value, picture, depth + 1)
        return _Marker(value, picture)

    twin = copy.copy(transform)
    if twin is transform:  # a function
        return twin
    for name, value in list(vars(transform).items()) if hasattr(transform, "__dict__") else []:
        modules = name == "_modules"  # where torch.nn.Module keeps its parts
        vars(twin)[name] = {key: marked(part) for key, part in value.items()} if modules else marked(value)
    return twin


def _tried(transform: Any, run: Callable[[], Any], times: int) -> list[list[_Call]]:
    """Return what an object of several views makes, each view once, in order; so many times."""
    what = type(transform).__name__
    try:
        runs = [list(_results(run())) for _ in range(times)]
    except Exception as error:
        raise UnknownTransform(f"{what} is not known, and running it says nothing of its views: {error}") from error
    if not all(made and all(isinstance(one, _Call) for one in made) for made in runs):
        raise UnknownTransform(
            f"{what} is neither a step that a recipe has nor an object that returns the list of its views"
        )
    return [[*{id(one): one for one in made}.values()] for made in runs]


def _made_of(calls: list[_Call]) -> list[tuple[list[int], list[int]]]:
    """Return of each view the transforms, and how many of them it shares with those before it."""
    chains = [call.chain() for call in calls]
    return [
        ([id(one.transform) for one in chain], [_common(chain, other) for other in chains[:place]])
        for place, chain in enumerate(chains)
    ]


def _results(value: Any) -> Iterator[Any]:
    """Yield what a container returns, but for what is no picture: masks of whole numbers, flags, texts."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _results(one)
    elif not isinstance(value, (bool, int, float, str, type(None))) and not _is_mask(value):
        yield value


def _is_mask(value: Any) -> bool:
    return str(getattr(value, "dtype", "")).removeprefix("torch.") in ("bool", "int32", "int64") and np.ndim(value) < 3
