"""Views that are a window of the picture in place of a random resized crop."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .steps import Colour, Step, colour_of

_PLACES = {"centre": 1, "drawn": 2}
_MODES = {"constant": 1, "edge": 2, "reflect": 3, "symmetric": 4}
Padding = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Window:
    """A window of the view's size on the whole picture, which may be resized and padded first.

    resize: what the picture is resized to, torchvision's Resize: its short side, or (height, width); None: it stays as
        it is.
    place: "centre", torchvision's CenterCrop, which pads a picture that is smaller; or "drawn", its RandomCrop.
    padding: pixels that are added to the resized picture, torchvision's Pad: one number, (left and right, top and
        bottom), or (left, top, right, bottom); kept as these four.
    padding_mode: "constant" (a colour, black), "edge", "reflect" or "symmetric", as numpy.pad names them.
    fill: RGB of what "constant" adds; gray views take its luma.
    pad_if_needed: of a drawn window: a smaller picture is padded on both sides by what it lacks. Without, it cannot be
        rendered.
    """

    resize: int | tuple[int, int] | None = None
    place: str = "centre"
    padding: int | tuple[int, int] | Padding = 0
    padding_mode: str = "constant"
    pad_if_needed: bool = False
    fill: Colour = (0, 0, 0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fill", colour_of("a Window", self.fill))
        if any(self.fill) and self.padding_mode != "constant":
            raise ValueError(
                f"a Window's fill is {self.fill}, and its padding_mode {self.padding_mode!r} adds no colour"
            )
        if self.place not in _PLACES:
            raise ValueError(f"a Window's place is {self.place!r}, want one of {', '.join(_PLACES)}")
        if self.padding_mode not in _MODES:
            raise ValueError(f"a Window's padding_mode is {self.padding_mode!r}, want one of {', '.join(_MODES)}")
        if isinstance(self.resize, Iterable):
            object.__setattr__(self, "resize", tuple(self.resize))
        if self.resize is not None and (not 1 <= len(_whole("resize", self.resize)) <= 2 or 0 in self._sides):
            raise ValueError(f"a Window's resize is {self.resize!r}, want a short side or (height, width), from 1 on")
        pads = _whole("padding", self.padding)
        if len(pads) not in (1, 2, 4):
            raise ValueError(f"a Window's padding is {self.padding!r}, want 1, 2 or 4 numbers")
        object.__setattr__(self, "padding", (pads * 4)[:4])

    @property
    def _sides(self) -> tuple[int, ...]:
        return () if self.resize is None else _whole("resize", self.resize)

    def _row(self) -> dict[str, Any]:
        """Return the fields of csrc/recipe.h that the window decides, by name."""
        sides = self._sides
        row = {
            "place": _PLACES[self.place], "padding": _MODES[self.padding_mode], "pad_if_needed": self.pad_if_needed,
            "resize_short": sides[0] if len(sides) == 1 else 0,
        }  # fmt: skip
        if len(sides) == 2:
            row |= {"resize_height": sides[0], "resize_width": sides[1]}
        pads = zip(("pad_left", "pad_top", "pad_right", "pad_bottom"), _whole("padding", self.padding))
        return {**row, **dict(pads)}

    def _before(self) -> tuple[Step, ...]:
        """Return the step before the crop by which the native side knows of the colour."""
        return (Step("ground", fill=self.fill),) if any(self.fill) else ()

    def __str__(self) -> str:
        sides = self._sides
        resized = "" if not sides else f"resize {sides[0]}, " if len(sides) == 1 else f"resize {sides[0]}x{sides[1]}, "
        pads = _whole("padding", self.padding)
        colour = f"in {' '.join(map(str, self.fill))} " if any(self.fill) else ""
        shown = "" if not any(pads) else f"pad {pads[0] if len({*pads}) == 1 else ' '.join(map(str, pads))} "
        mode = f"{self.padding_mode} {colour}".rstrip() + ", " if shown or colour else ""
        return f"{resized}{shown}{mode}{self.place}" + (" padded if needed" if self.pad_if_needed else "")


def _whole(name: str, value: Any) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    try:
        found = tuple(map(operator.index, values))
    except TypeError:
        raise ValueError(f"a Window's {name} is {value!r}, want whole pixels") from None
    if min(found, default=0) < 0 or any(isinstance(one, bool) for one in values):
        raise ValueError(f"a Window's {name} is {value!r}, want whole pixels, none below 0")
    return found
