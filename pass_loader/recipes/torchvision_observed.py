"""What a blur of another project draws, found by running it. Used by torchvision_steps.py alone."""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

_RUNS = 6000
_FAR = 1.95 / _RUNS**0.5  # Kolmogorov's distance that one in a thousand samples exceeds


@contextlib.contextmanager
def blurs_as(blur: type[ImageFilter.GaussianBlur]) -> Iterator[None]:
    """Have scripts that ask Pillow for GaussianBlur get this class."""
    original = ImageFilter.GaussianBlur
    ImageFilter.GaussianBlur = blur  # type: ignore[misc]
    try:
        yield
    finally:
        ImageFilter.GaussianBlur = original  # type: ignore[misc]


class Lenient(ImageFilter.GaussianBlur):
    """Takes a radius that is a tensor of one number, as Pillow before 10.1 does (facebookresearch/msn 4388dc1
    src/data_manager.py:247-248)."""

    def __init__(self, radius: Any = 2):
        super().__init__(float(radius))


def blur_sigmas(transform: Any, gate: str) -> tuple[float, float]:
    """Return the range from which a blur draws the radius that it hands to Pillow's GaussianBlur, to two digits.

    gate: the attribute of its probability. Raises ValueError where it does not blur exactly once at probability 1, or
    its radii are not uniform in a range.
    """
    name, twin = type(transform).__name__, copy.copy(transform)
    vars(twin)[gate] = 1.0
    found: list[float] = []

    class Recorder(ImageFilter.GaussianBlur):
        def __init__(self, radius: Any = 2):
            found.append(float(radius))
            super().__init__(0)

    random.seed(0)  # so that the answer is always the same; who calls restores the states
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    picture = Image.new("RGB", (2, 2))
    try:
        with blurs_as(Recorder):
            for _ in range(_RUNS):
                twin(picture)
    except Exception as error:
        raise ValueError(f"{name} fails on a PIL picture: {error}") from error
    if len(found) != _RUNS:
        raise ValueError(f"{name} with {gate}=1 called Pillow's GaussianBlur {len(found)} times in {_RUNS} runs")
    ordered = np.sort(found)
    low, high = (round(float(end), 2) for end in (ordered[0], ordered[-1]))
    if high - low > 0:
        shares = (ordered - low) / (high - low)
        distance = np.abs(shares - (np.arange(_RUNS) + 0.5) / _RUNS).max()
        if distance > _FAR or shares[0] > 0.01 or shares[-1] < 0.99:
            raise ValueError(f"{name} draws radii in [{low}, {high}], not uniformly: write the recipe by hand")
    return low, high
