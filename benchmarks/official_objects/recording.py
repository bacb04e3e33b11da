"""What a transform object asks of Pillow and torchvision while it makes views of a picture."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import _functional_pil as on_pil
from torchvision.transforms import functional as v1
from torchvision.transforms.v2 import functional as v2
from torchvision.transforms.v2.functional._utils import _KERNEL_REGISTRY as KERNELS

Op = tuple[Any, ...]  # a name, then numbers
_TRANSPOSED = {
    0: ("flip",),
    1: ("vertical_flip",),
    2: ("quarter_turn", 1),
    3: ("quarter_turn", 2),
    4: ("quarter_turn", 3),
}


@dataclass
class View:
    """The steps from the picture to a view, and the view's pixels when it became a tensor."""

    ops: list[Op]
    pixels: np.ndarray


@dataclass
class Recorder:
    """Notes the outermost calls alone: what a call does inside is its own business."""

    views: list[View] = field(default_factory=list)
    _made: dict[int, tuple[Any, Any, Op | None]] = field(default_factory=dict)  # id: picture, what it was made of, how
    _depth: int = 0

    def noted(self, call: Callable[..., Any], op: Callable[..., Op | None]) -> Callable[..., Any]:
        """Return the call, which notes op(picture, arguments ...) of what it makes of its first argument."""

        def wrapper(picture: Any, *args: Any, **kwargs: Any) -> Any:
            with self.inside():
                found = call(picture, *args, **kwargs)
            if self._depth == 0 and isinstance(found, Image.Image) and found is not picture:
                self._made[id(found)] = (found, picture, op(picture, *args, **kwargs))
            return found

        return wrapper

    def to_tensor(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(picture: Any, *args: Any, **kwargs: Any) -> Any:
            if self._depth == 0 and isinstance(picture, Image.Image):
                self.views.append(View(self._way_to(picture), np.asarray(picture)))
            with self.inside():
                return call(picture, *args, **kwargs)

        return wrapper

    def made_by_filter(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the enhancer's method, which belongs to an object that holds the picture."""

        def wrapper(enhancer: Any, factor: float) -> Any:
            with self.inside():
                found = call(enhancer, factor)
            if self._depth == 0:
                name = {"Color": "saturation"}.get(type(enhancer).__name__, type(enhancer).__name__.lower())
                self._made[id(found)] = (found, enhancer.image, (name, float(np.float32(factor))))
            return found

        return wrapper

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _way_to(self, picture: Any) -> list[Op]:
        ops: list[Op] = []
        while id(picture) in self._made:
            _, picture, op = self._made[id(picture)]
            ops += [] if op is None else [op]
        return ops[::-1]


def _resized(_: Any, size: Any, resample: Any = 3, box: Any = None, *rest: Any, **named: Any) -> Op:
    if box is not None or any(rest) or any(value is not None for value in named.values()):
        raise ValueError("a resize with box or reducing_gap")
    return "resize", *size, 3 if resample is None else int(resample)


def _transformed(picture: Any, size: Any, method: Any, data: Any = None, resample: Any = 0, fill: Any = 1,
                 fillcolor: Any = None) -> Op:  # fmt: skip
    if tuple(size) != picture.size:
        raise ValueError("a transform that changes the size")
    colour = (0, 0, 0) if fillcolor is None else fillcolor if isinstance(fillcolor, tuple) else (fillcolor,) * 3
    name = {0: "affine", 2: "perspective"}[int(method)]
    return name, tuple(float(number) for number in data), int(resample), tuple(map(int, colour))


def _filtered(_: Any, blur: Any) -> Op:
    if not isinstance(blur, ImageFilter.GaussianBlur):
        raise ValueError(f"the filter {blur}")
    return "blur", float(np.float32(blur.radius))


def _converted(picture: Any, mode: Any = None, *rest: Any, **named: Any) -> Op | None:
    if mode != picture.mode:
        raise ValueError(f"a conversion to {mode}")
    return None


def _pointed(_: Any, table: Any, *rest: Any) -> Op:
    values = list(table)[:256]
    added = values[0]
    if values != [min(255, x + added) if x < 128 else x for x in range(256)]:
        raise ValueError("a table of its own")
    return "solarize_add", added


def _padded(_: Any, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Op:
    pads = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = pads * 4 if len(pads) == 1 else pads * 2 if len(pads) == 2 else pads
    values = fill if isinstance(fill, (tuple, list)) else (fill or 0,) * 3
    return "pad", left, top, right, bottom, padding_mode, tuple(map(int, values))


def _kernel_blurred(_: Any, kernel_size: Any, sigma: Any = None) -> Op:
    taps = kernel_size[0] if isinstance(kernel_size, (list, tuple)) else kernel_size
    return "kernel_blur", int(taps), float(np.float32(sigma[0] if isinstance(sigma, (list, tuple)) else sigma))


def _hue_shifted(_: Any, hue_factor: float) -> Op:
    return "hue", float(np.float32(hue_factor))


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """Note what is asked of Pillow and torchvision inside; pictures of mode RGB."""
    recorder, before = Recorder(), list[tuple[Any, Any, Any]]()

    def put(place: Any, name: Any, value: Any) -> None:
        if isinstance(place, dict):
            before.append((place, name, place[name]))
            place[name] = value
        else:
            before.append((place, name, getattr(place, name)))
            setattr(place, name, value)

    def note(place: Any, name: Any, op: Callable[..., Op | None]) -> None:
        put(place, name, recorder.noted(place[name] if isinstance(place, dict) else getattr(place, name), op))

    picture = Image.Image
    note(picture, "crop", lambda _, box=None: ("crop", *map(int, box)))
    note(picture, "resize", _resized)
    note(picture, "transpose", lambda _, method: _TRANSPOSED[int(method)])
    note(picture, "transform", _transformed)
    note(picture, "filter", _filtered)
    note(picture, "convert", _converted)
    note(picture, "point", _pointed)
    note(picture, "copy", lambda _: None)
    for name in ("autocontrast", "equalize", "invert"):
        note(ImageOps, name, lambda *_, name=name: (name,))
    note(ImageOps, "posterize", lambda _, bits: ("posterize", int(bits)))
    note(ImageOps, "solarize", lambda _, threshold=128: ("solarize", int(np.ceil(threshold))))
    put(ImageEnhance._Enhance, "enhance", recorder.made_by_filter(ImageEnhance._Enhance.enhance))
    for cls in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, ImageEnhance.Sharpness):
        put(cls, "__init__", _muted(recorder, cls.__init__))
    note(on_pil, "adjust_hue", _hue_shifted)
    note(on_pil, "to_grayscale", lambda _, num_output_channels=1: ("grayscale",))
    note(on_pil, "pad", _padded)
    note(v1, "gaussian_blur", _kernel_blurred)
    for functional, op in ((v2.adjust_hue, _hue_shifted), (v2.gaussian_blur, _kernel_blurred), (v2.pad, _padded),
                           (v2.rgb_to_grayscale, lambda _, num_output_channels=1: ("grayscale",))):  # fmt: skip
        note(KERNELS[functional], Image.Image, op)
    for place in (v1, v2):
        for name in ("to_tensor", "pil_to_tensor", "to_image"):
            if hasattr(place, name):
                put(place, name, recorder.to_tensor(getattr(place, name)))
    try:
        yield recorder
    finally:
        for place, name, value in reversed(before):
            if isinstance(place, dict):
                place[name] = value
            else:
                setattr(place, name, value)


def _muted(recorder: Recorder, call: Callable[..., None]) -> Callable[..., None]:
    def wrapper(*args: Any, **kwargs: Any) -> None:
        with recorder.inside():
            call(*args, **kwargs)

    return wrapper
