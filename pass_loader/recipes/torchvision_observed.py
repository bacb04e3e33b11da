"""What an object of another project does to a picture, found by running it. Used by the other torchvision_*.py alone.

Its class's name says nothing here, and its attributes say only with which numbers and how often: runs are counted, and
the radii that it hands to Pillow are compared with what the attributes say.
"""

from __future__ import annotations

import contextlib
import copy
import numbers
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from .steps import Step
from .torchvision_names import noise

_RUNS = 4000  # of which radii are noted
_SEEN = 1500  # of which pixels are compared
_FEW = 32  # of which pixels are compared where there is no chance left
_FAR = 2.5  # times 1 / sqrt(runs): Kolmogorov's distance that one in 100,000 samples exceeds
_SIGMAS = 4.5  # of a share: one in 100,000 is further away
_SIGMA = 1.25  # of blurs whose bytes are compared


def gate_of(transform: Any) -> str | None:
    """Return the name of the attribute that may be an object's probability; None where it has none."""
    return next((one for one in ("prob", "p") if isinstance(getattr(transform, one, None), numbers.Real)), None)


def twin_of(transform: Any, changes: dict[str, Any]) -> Any:
    """Return a copy of an object with other attributes."""
    twin = copy.copy(transform)
    if changes and twin is transform:
        raise TypeError("it cannot be copied")
    if changes:
        vars(twin).update(changes)
    return twin


def step_of(transform: Any) -> Step:
    """Return the step that an object of another project is: a blur, solarize, equalize, grayscale or rotation by
    Pillow.

    It may have prob or p, its probability; without, it runs always. A blur may have sigma, sigmas or radius_min and
    radius_max (moco/loader.py GaussianBlur; dino utils.py:36-54 and swav src/multicropdataset.py:71-94, whose PIL
    radius is the sigma), or draw it from a range that only its runs show (vicreg augmentations.py:14-23, barlowtwins
    main.py:267-276). A solarize may have a threshold (128 is PIL's default; dino utils.py:57-68, moco-v3
    moco/loader.py). deit augment.py:58-70 has a gray one, lightly lightly/transforms/rotation.py one that rotates,
    solo-learn solo/data/pretrain_dataloader.py one that equalizes.
    Raises ValueError where it is none of them, or its runs are not as its attributes say.
    """
    observed = _Observed(transform)
    with blurs_of(None) as radii:
        made = observed.made(_FEW, 1.0)
    if radii:
        return observed.blur()
    for op, value, want in _candidates(transform):
        if made == observed.wanted(_FEW, want):
            return observed.fixed(op, value, want)
    raise ValueError(
        f"{observed.name} is not a step that a recipe has: what it makes of a picture{observed.at(1.0)} is neither "
        "Pillow's GaussianBlur of it, nor its ImageOps.equalize or convert('L'), nor its ImageOps.solarize or rotate "
        "by the object's own threshold or angle"
    )


def _candidates(transform: Any) -> Iterator[tuple[str, float | None, Callable[[Image.Image], Image.Image]]]:
    """Yield what an object without blurs may be: an op, its value, and Pillow's own."""
    yield "grayscale", None, lambda picture: picture.convert("L").convert("RGB")
    yield "equalize", None, ImageOps.equalize
    threshold, angle = getattr(transform, "threshold", 128), getattr(transform, "angle", None)
    if isinstance(threshold, (int, float)):
        whole = threshold_of(threshold)
        yield "solarize", whole, lambda picture: ImageOps.solarize(picture, whole)
    if isinstance(angle, (int, float)):
        yield "rotate", float(angle), lambda picture: picture.rotate(angle)


def threshold_of(value: float) -> int:
    """Return the whole number that means the same: PIL inverts a byte x where not x < threshold. 256: never."""
    return min(max(int(np.ceil(value)), 0), 256)


class _Observed:
    """An object that is run on two small pictures in turn, of which one has every byte."""

    def __init__(self, transform: Any):
        self.transform, self.name = transform, type(transform).__name__
        self.gate = gate_of(transform)
        self.probability = float(getattr(transform, self.gate)) if self.gate else 1.0
        every = np.arange(32 * 24 * 3, dtype=np.uint32).astype(np.uint8)
        self.pictures = noise(), Image.fromarray(every.reshape(24, 32, 3))

    def at(self, probability: float) -> str:
        return f" with {self.gate}={probability:g}" if self.gate else ""

    def runs(self, runs: int, probability: float | None = None) -> Iterator[Image.Image]:
        """Yield what it makes of the pictures, at a probability or its own."""
        if not callable(self.transform):
            raise ValueError(f"{self.name} is not a step that a recipe has: it cannot be called")
        _seed()
        twin, copies = copy.copy(self.transform), [picture.copy() for picture in self.pictures]
        for number in range(runs):
            picture = copies[number % 2]
            try:
                if number == 0 and probability is not None and self.gate:
                    twin = twin_of(self.transform, {self.gate: probability})
                made = twin(picture)
            except Exception as error:
                raise ValueError(f"{self.name} fails on a PIL picture: {error}") from error
            if not isinstance(made, Image.Image) or (made.mode, made.size) != (picture.mode, picture.size):
                raise ValueError(
                    f"{self.name} is not a step that a recipe has: it makes no RGB picture of the same size"
                )
            yield made
        if copies != [*self.pictures]:
            raise ValueError(f"{self.name} changes the picture that it is given, where a step makes another one")

    def made(self, runs: int, probability: float | None = None) -> list[bytes]:
        return [made.tobytes() for made in self.runs(runs, probability)]

    def wanted(self, runs: int, want: Callable[[Image.Image], Image.Image] = Image.Image.copy) -> list[bytes]:
        """Return what `made` would return if it did `want`, or nothing."""
        return [want(picture).tobytes() for picture in self.pictures] * (runs // 2)

    def blur(self) -> Step:
        """Return the blur that it is."""
        with blurs_of(_SIGMA):
            self._prove(lambda picture: picture.filter(ImageFilter.GaussianBlur(_SIGMA)), "ImageFilter.GaussianBlur")
        radii = self._radii(1.0)
        if len(radii) != _RUNS:
            raise ValueError(
                f"{self.name}{self.at(1.0)} called Pillow's GaussianBlur {len(radii)} times in {_RUNS} runs"
            )
        said, where = _range_of(self.transform)
        low, high = said or (min(radii), max(radii))
        if high > low and not said:
            low, high = round(low, 2), round(high, 2)
        self._check_range(radii, low, high, where)
        own = self._radii(None)
        self._check_share(len(own), _RUNS)
        if len(own) > 50:
            self._check_range(own, low, high, where)
        return Step("blur", (low, high), self.probability)

    def fixed(self, op: str, value: float | None, want: Callable[[Image.Image], Image.Image]) -> Step:
        """Return the step without chance that it is where it runs."""
        self._prove(want, op)
        triples = [*zip(self.made(_SEEN), self.wanted(_SEEN), self.wanted(_SEEN, want))]
        if any(made not in (before, after) for made, before, after in triples):
            raise ValueError(f"{self.name} gives now and then other pixels than Pillow's {op}")
        if all(before != after for _, before, after in triples[:2]):
            self._check_share(sum(made == after for made, _, after in triples), _SEEN)
        return Step(op, value, self.probability)

    def _prove(self, want: Callable[[Image.Image], Image.Image], whose: str) -> None:
        """Raise where it gives other bytes than `want` at probability 1, or than the picture at 0."""
        if self.made(_FEW, 1.0) != self.wanted(_FEW, want):
            raise ValueError(f"{self.name}{self.at(1.0)} gives other pixels than Pillow's {whose}")
        if self.gate and self.made(_FEW, 0.0) != self.wanted(_FEW):
            raise ValueError(f"{self.name}{self.at(0.0)} gives other pixels than the picture's")

    def _radii(self, probability: float | None) -> list[float]:
        """Return the radii of its blurs in _RUNS runs, and raise where it changes pictures without them."""
        with blurs_of(None):
            if self.made(_SEEN, probability) != self.wanted(_SEEN):
                raise ValueError(f"{self.name} changes pictures by more than Pillow's GaussianBlur")
        with blurs_of(None) as radii:
            for _ in self.runs(_RUNS, probability):
                pass
        return radii

    def _check_share(self, ran: int, runs: int) -> None:
        p, share = self.probability, ran / runs
        if abs(share - p) > _SIGMAS * (max(p * (1 - p), 0) / runs) ** 0.5 + (2 / runs if 0 < p < 1 else 0):
            says = f"its {self.gate} says {p:g}" if self.gate else "it has no p or prob that says so"
            raise ValueError(f"{self.name} runs on {share:.3f} of the pictures, and {says}")

    def _check_range(self, radii: list[float], low: float, high: float, where: str) -> None:
        """Raise unless radii are uniform in a range. where: the attributes that say so; "" where none do."""
        ordered, count = np.sort(radii), len(radii)
        wide = (high - low) or max(abs(low), 1.0)
        shares = (ordered - low) / wide
        bad = shares[0] < -1e-6 or shares[-1] > 1e-6 + (high > low)
        if high > low:
            bad = bad or np.abs(shares - (np.arange(count) + 0.5) / count).max() > _FAR / count**0.5
            bad = bad or max(shares[0], 1 - shares[-1]) > 20 / count or len({*radii}) < 0.9 * count
        if bad:
            found = f"[{ordered[0]:.3g}, {ordered[-1]:.3g}]"
            says = f" in [{low:g}, {high:g}] as its {where} says" if where else ""
            raise ValueError(f"{self.name} draws radii in {found}, not uniformly{says}")


def _range_of(transform: Any) -> tuple[tuple[float, float] | None, str]:
    """Return the range that an object's attributes say, and their names; None and "" where they say none."""
    if hasattr(transform, "radius_min") and hasattr(transform, "radius_max"):
        value: Any = (transform.radius_min, transform.radius_max)
        where = "radius_min and radius_max"
    else:
        where = next((one for one in ("sigma", "sigmas") if hasattr(transform, one)), "")
        if not where:
            return None, ""
        value = getattr(transform, where)
    try:
        low, high = value if hasattr(value, "__len__") else (value, value)
        return (float(low), float(high)), where
    except (TypeError, ValueError):
        raise ValueError(f"{type(transform).__name__}: {where} is {value!r}, want two numbers") from None


@contextlib.contextmanager
def blurs_of(sigma: float | None) -> Iterator[list[float]]:
    """Have this thread's GaussianBlurs of Pillow blur by sigma, not at all for None; yield the radii that they have.

    A radius may be a tensor of one number, which Pillow refuses from 10.1 on (facebookresearch/msn 4388dc1
    src/data_manager.py:247-248).
    """
    original, thread, radii = ImageFilter.GaussianBlur.filter, threading.get_ident(), list[float]()

    def filter(self: ImageFilter.GaussianBlur, image: Any) -> Any:
        if threading.get_ident() != thread:
            return original(self, image)
        radii.append(float(self.radius))  # type: ignore[arg-type]
        return image.copy() if sigma is None else original(ImageFilter.GaussianBlur(sigma), image)

    ImageFilter.GaussianBlur.filter = filter  # type: ignore[method-assign]
    try:
        yield radii
    finally:
        ImageFilter.GaussianBlur.filter = original  # type: ignore[method-assign]


def _seed() -> None:
    """Seed the random numbers, so that the answer is always the same; who calls restores their states."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too
