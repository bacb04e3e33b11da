"""Mixup and CutMix: what a mix is, and how it is drawn. loading.mixing mixes batches."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

import numpy as np

from ..keys import BatchKey

_MIX = 4  # purpose of these draws, beside those of masks.py and of loading.mixed_loader; numbers are never reused
# Slots of one mix: whether, which, the box's y, x, height, width; then pairs for the attempts at a Beta number.
_WHETHER, _WHICH, _Y, _X, _HEIGHT, _WIDTH, _BETA = 0, 1, 2, 3, 4, 5, 8
_ATTEMPTS = 32
_SLOTS = _BETA + 2 * _ATTEMPTS
_MODES = ("batch", "pair", "elem")


@dataclass(frozen=True)
class Mix:
    """Mixup and CutMix over a batch, and the soft labels that go with it, for `DataLoader(mix=...)`.

    Arguments are those of timm's Mixup (timm 1.0.31, timm/data/mixup.py:97-121), for which Zhang et al., 2018 and Yun
    et al., 2019 are the papers. MAE's and DeiT's fine-tuning is `Mix(0.8, 1.0)`.

    mixup_alpha, cutmix_alpha: of the Beta distributions of the shares; 0: the one is not used. With both, `switch_prob`
        is CutMix's probability.
    cutmix_minmax: the box's height and width as shares of the picture's, drawn evenly, in place of cutmix_alpha.
    prob: of a batch, pair or picture to be mixed at all.
    mode: "batch" draws once a batch, "pair" once for both pictures of a pair, "elem" for each picture.
    correct_lam: CutMix's share is that of the box inside the picture.
    label_smoothing: of soft labels; None: 0.1, in torchvision's style 0.
    num_classes: soft labels are (N, num_classes) float32.
    multi_label: labels are (N, num_classes) already, and smoothed towards 0.5.
    style: "timm" mixes picture i with picture N - 1 - i; "torchvision" with the one before it, as MixUp and CutMix of
        torchvision.transforms.v2 do (torchvision 0.28, transforms/v2/_augment.py:200-328), with mode "batch" and
        without smoothing; labels (N, num_classes) are taken as they are.
    off_epoch: from this epoch on nothing is mixed (timm's mixup_off_epoch); labels stay soft.

    Raises ValueError for what is no number or switch where one is wanted, and for numbers that contradict each other.
    """

    mixup_alpha: float = 1.0
    cutmix_alpha: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "batch"
    correct_lam: bool = True
    label_smoothing: float | None = None
    num_classes: int = 1000
    multi_label: bool = False
    style: str = "timm"
    off_epoch: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ValueError(f"mode is {self.mode!r}, want one of {', '.join(map(repr, _MODES))}")
        if self.style not in ("timm", "torchvision"):
            raise ValueError(f"style is {self.style!r}, want 'timm' or 'torchvision'")
        if self.label_smoothing is None:
            object.__setattr__(self, "label_smoothing", 0.1 if self.style == "timm" else 0.0)
        for name in ("mixup_alpha", "cutmix_alpha"):
            if not _is_number(getattr(self, name), 0, math.nextafter(math.inf, 0)):
                raise ValueError(f"{name} is {getattr(self, name)!r}, want a number from 0 on")
        for name in ("prob", "switch_prob", "label_smoothing"):
            if not _is_number(getattr(self, name), 0, 1):
                raise ValueError(f"{name} is {getattr(self, name)!r}, want a number in [0, 1]")
        for name in ("correct_lam", "multi_label"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise ValueError(f"{name} is {getattr(self, name)!r}, want True or False")
        if not _is_whole(self.num_classes) or self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes!r}, want a whole number, at least 1")
        if self.off_epoch is not None and not _is_whole(self.off_epoch):
            raise ValueError(f"off_epoch is {self.off_epoch!r}, want the whole number of an epoch, or None")
        if self.cutmix_minmax is not None:
            ends = self.cutmix_minmax if isinstance(self.cutmix_minmax, (tuple, list, np.ndarray)) else ()
            low, high = ends if len(ends) == 2 else (1, 0)
            if not (_is_number(low, 0, 1) and _is_number(high, 0, 1) and low < high):
                raise ValueError(f"cutmix_minmax is {self.cutmix_minmax!r}, want two rising shares in [0, 1]")
            low, high = float(low), float(high)
            object.__setattr__(self, "cutmix_minmax", (low, high))
            object.__setattr__(self, "cutmix_alpha", 1.0)
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("nothing is mixed: want mixup_alpha or cutmix_alpha above 0, or cutmix_minmax")
        others = self.mode != "batch" or self.cutmix_minmax is not None or self.multi_label or not self.correct_lam
        if self.style == "torchvision" and (others or self.label_smoothing):
            raise ValueError(
                "style='torchvision' has mode='batch', correct_lam=True, label_smoothing=0, and neither cutmix_minmax "
                "nor multi_label"
            )

    def draw(self, key: BatchKey, epoch: int, count: int, height: int, width: int) -> DrawnMix:
        """Draw the mix of a batch of `count` pictures in an epoch of the views.

        In an odd batch of "pair" or "elem" the picture in the middle stays as it is (timm refuses such a batch).
        Raises ValueError where cutmix_minmax leaves no whole number of pixels for the box.
        """
        numbers = {"batch": 1, "pair": count // 2, "elem": count}[self.mode]
        slots = key.uniforms(_MIX, numbers * _SLOTS).reshape(numbers, _SLOTS)
        cut = np.full(numbers, self.cutmix_alpha > 0)
        if self.mixup_alpha and self.cutmix_alpha:
            cut = slots[:, _WHICH] < self.switch_prob
        lam = _beta(np.where(cut, self.cutmix_alpha, self.mixup_alpha), slots[:, _BETA:])
        is_mixed = slots[:, _WHETHER] < self.prob
        if self.off_epoch is not None and epoch >= self.off_epoch:
            is_mixed[:] = False
        lam = np.where(is_mixed, lam, 1.0)
        if self.mode != "batch":
            lam = lam.astype(np.float32)  # as timm's, which are float64 in the mode "batch"
        cut &= lam != 1
        boxes = np.where(cut[:, None], self._boxes(slots, lam, height, width), 0)
        if self.correct_lam or self.cutmix_minmax is not None:
            inside = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
            lam = np.where(cut, 1.0 - inside / float(height * width), lam).astype(lam.dtype)
        places = np.arange(count)
        partners = (places - 1) % max(count, 1) if self.style == "torchvision" else count - 1 - places
        own = np.zeros(count, np.int64) if self.mode == "batch" else places
        if self.mode == "pair":
            own = np.minimum(places, partners)
        if self.mode != "batch" and count % 2:
            lam, cut = np.append(lam, lam.dtype.type(1)), np.append(cut, False)
            boxes = np.append(boxes, np.zeros((1, 4), boxes.dtype), axis=0)
            own[count // 2] = len(lam) - 1
        return DrawnMix(lam[own], partners, cut[own], boxes[own])

    def _boxes(self, slots: np.ndarray, lam: np.ndarray, height: int, width: int) -> np.ndarray:
        """Return (numbers, 4) int64: top, bottom, left, right."""
        if self.cutmix_minmax is not None:
            sides = []
            for side, slot in ((height, _HEIGHT), (width, _WIDTH)):
                low, high = (int(side * share) for share in self.cutmix_minmax)
                if low >= high:
                    raise ValueError(f"cutmix_minmax={self.cutmix_minmax} leaves no side between {low} and {high} px")
                sides.append(low + _below(slots[:, slot], high - low))
            top, left = (_below(slots[:, slot], side - cut + 1)
                         for side, cut, slot in ((height, sides[0], _Y), (width, sides[1], _X)))  # fmt: skip
            return np.stack([top, top + sides[0], left, left + sides[1]], axis=1)
        y, x = _below(slots[:, _Y], height), _below(slots[:, _X], width)
        root = np.sqrt(1 - lam)
        if self.style == "torchvision":
            down, right = ((0.5 * root * side).astype(np.int64) for side in (height, width))
            up, left = down, right
        else:
            sides = [(side * root).astype(np.int64) for side in (height, width)]
            (up, left), (down, right) = ((side // 2 for side in sides), ((side + 1) // 2 for side in sides))
        edges = [np.clip(y - up, 0, height), np.clip(y + down, 0, height)]
        edges += [np.clip(x - left, 0, width), np.clip(x + right, 0, width)]
        return np.stack(edges, axis=1)


@dataclass(frozen=True)
class DrawnMix:
    """The mix of a batch of N pictures, drawn."""

    lam: np.ndarray  # (N,) each picture's own share, of its label; float64 for mode "batch", else float32
    partners: np.ndarray  # (N,) int64: the slots that it is mixed with
    cut: np.ndarray  # (N,) bool: by CutMix
    boxes: np.ndarray  # (N, 4) int64: top, bottom, left, right of what comes from the partner; 0 where nothing is cut


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, numbers.Real) and low <= float(value) <= high


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _below(chance: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Return whole numbers in [0, count), evenly, of numbers in [0, 1)."""
    return np.minimum((chance * count).astype(np.int64), np.asarray(count) - 1)


def _beta(alpha: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Return one Beta(alpha, alpha) number for each row of chances (N, 2 * attempts), uniform in [0, 1).

    By rejection: Jöhnk's method up to alpha = 1, Cheng's BB above (Devroye, Non-Uniform Random Variate Generation,
    1986, IX.3 and IX.4). An attempt succeeds in half of the cases or more; the last one is taken as it is. The same
    number on every machine: + - * / and sqrt alone, as in csrc/plan.cpp.
    """
    first, second = (np.maximum(chances[:, start::2], 2.0**-53) for start in (0, 1))
    low = np.maximum(alpha, 1e-300)[:, None]
    x, y = _log(first) / low, _log(second) / low
    fits = _exp(x) + _exp(y) <= 1
    ratio = 1 / (1 + _exp(np.clip(y - x, -700, 700)))
    high = np.maximum(alpha, 1 + 2**-10)[:, None]
    scale = np.sqrt((2 * high - 2) / (2 * high * high - 2 * high))
    v = scale * (_log(first) - _log(np.maximum(1 - first, 2.0**-53)))
    w = high * _exp(np.clip(v, -700, 700))
    bound = (high + 1 / scale) * v - 2 * _log(np.array(2.0)) + 2 * high * (_log(2 * high) - _log(high + w))
    above = (alpha > 1 + 2**-10)[:, None]
    fits = np.where(above, bound >= 2 * _log(first) + _log(second), fits)
    ratio = np.where(above, w / (high + w), ratio)
    fits[:, -1] = True
    return ratio[np.arange(len(ratio)), fits.argmax(axis=1)]


_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10


def _log(x: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of numbers above 0, to about 2e-16 of it."""
    part, exponent = np.frexp(x)
    small = part < 0.7071067811865476
    part, exponent = np.where(small, 2 * part, part), exponent - small
    f = (part - 1) / (part + 1)
    square, total = f * f, np.zeros_like(f)
    for k in range(25, 0, -2):
        total = total * square + 1 / k
    return exponent * _LN2_HIGH + (2 * f * total + exponent * _LN2_LOW)


def _exp(x: np.ndarray) -> np.ndarray:
    """Return e to the power of numbers; 0 below -745."""
    x = np.maximum(x, -800.0)
    whole = np.rint(x / 0.6931471805599453)
    rest = (x - whole * _LN2_HIGH) - whole * _LN2_LOW
    total = np.ones_like(rest)
    for k in range(18, 0, -1):
        total = 1 + total * rest / k
    return np.ldexp(total, whole.astype(np.int64))
