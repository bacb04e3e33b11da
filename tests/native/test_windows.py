"""Windows of a picture, padding and filters: plans as torchvision draws them, pixels as Pillow makes them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import BadPictureError, Recipe, ViewSpec, recipes, render_plan
from pass_loader.recipes import Step, Window, reference

from ..helpers.compare import PILLOW_WRAPS, assert_pixels_equal
from ..helpers.corpus import noise, position_coded
from ..helpers.plans import check, draw, plan_of, with_steps

pytestmark = pytest.mark.oracle
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def check_all(pixels: np.ndarray, row: np.ndarray) -> None:
    """Compare with Pillow in colour, gray and 16 bits."""
    check(pixels, row)
    gray = np.ascontiguousarray(pixels[:, :, :1])
    assert_pixels_equal(render_plan(gray, row)[0], reference.render(Image.fromarray(gray[:, :, 0]), row[0]), row)
    if PILLOW_WRAPS and row["interpolation"][0] in (1, 3):
        return
    deep = gray.astype(np.uint16) * 257
    assert_pixels_equal(render_plan(deep, row)[0], reference.render(Image.fromarray(deep[:, :, 0]), row[0]), row)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILTERS)
def test_filters(name: str) -> None:
    """Kills: a filter's reach, its ends, sine and cosine in float, nearest pixels by division."""
    photograph = np.asarray(next(iter(photographs().values())))[60:300, 100:401]
    for pixels in (noise(61, 97), position_coded(224, 160), np.ascontiguousarray(photograph), noise(1, 5), noise(3, 1)):
        height, width = pixels.shape[:2]
        for to in ((33, 49), (height, width), (224, 224), (1, 1), (height, 17), (300, 7)):
            row = plan_of(height, width, resize_height=to[0], resize_width=to[1], interpolation=FILTERS[name])
            check_all(pixels, row)
            row["flip"] = True
            check_all(pixels, row)
    row = plan_of(61, 97, crop_x=7, crop_y=5, crop_height=50, crop_width=83, resize_height=40, resize_width=60,
                  offset_x=11, offset_y=3, out_height=30, out_width=44, via_height=45, via_width=70,
                  interpolation=FILTERS[name], flip=True)  # fmt: skip
    check_all(noise(61, 97), row)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", [2, 3, 0, 1])
@pytest.mark.parametrize("padding", [1, 2, 3, 4])
def test_padding(padding: int, interpolation: int) -> None:
    """Kills: a mirror that repeats the edge or does not, one that ends after the first turn, a flip that is lost."""
    windows = ((-4, 3, 20, 20), (-30, -50, 64, 90), (5, -1, 9, 33), (100, 70, 8, 8), (-90, 2, 7, 5))
    for height, width in ((40, 30), (5, 9), (1, 1), (2, 31)):
        for x, y, tall, wide in windows:
            for flip in (False, True):
                row = plan_of(60, 50, resize_height=height, resize_width=width, offset_x=x, offset_y=y, padding=padding,
                              out_height=tall, out_width=wide, interpolation=interpolation, flip=flip)  # fmt: skip
                check_all(noise(60, 50), row)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", [2, 0])
def test_padding_in_a_colour(interpolation: int) -> None:
    """Kills: black, a plane with another plane's value, a ground that later views have too, steps before the crop that
    are lost beside it."""
    invert = {"op": "invert", "before": True}
    for fill, channels in (((124, 116, 104), 3), ((9, 9, 9), 3), ((9, 9, 9), 1)):
        ground = {"op": "ground", "fill": fill, "before": True}
        for x, y, tall, wide in ((-4, 3, 20, 20), (-30, -50, 64, 90), (100, 70, 8, 8), (2, 2, 8, 8)):
            window = {"offset_x": x, "offset_y": y, "out_height": tall, "out_width": wide, "padding": int(x != 2)}
            row = plan_of(60, 50, resize_height=40, resize_width=30, flip=True, interpolation=interpolation, **window)
            rows = np.concatenate([with_steps(row, *steps) for steps in
                                   ((ground, invert), ({"op": "none"},) * 2, (invert, ground))])  # fmt: skip
            pixels = noise(60, 50)[:, :, :channels]
            pixels = np.ascontiguousarray(pixels)
            picture = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
            for found, plan in zip(render_plan(pixels, rows), rows):
                assert_pixels_equal(found, reference.render(picture, plan), plan)
            if channels == 3:
                check(pixels, rows)


def test_colours_of_windows() -> None:
    window = Window(padding=4, fill=(1, 2, 3))
    assert str(window) == "pad 4 constant in 1 2 3, centre" and Window(fill=7).fill == (7, 7, 7)
    gray = Recipe("gray", (ViewSpec(8, window=window),), channels=1, mean=0.5, std=0.5)
    rows = gray.step_rows()
    assert rows is not None and rows["fill"].tolist() == [[2, 2, 2]] and rows["before"].all()
    for fields, message in (({"fill": (1, 2)}, "want three whole numbers"), ({"fill": 256}, r"want numbers in .0, 255"),
                            ({"fill": 1, "padding_mode": "edge"}, "adds no colour")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Window(**fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ground is of the picture before the crop"):
        Recipe("no", (ViewSpec(8, then=(Step("ground"),)),))


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"offset_x": -1}, "leaves the resized picture"),
        ({"padding": 5}, "padding is 5"),
        ({"padding": 1, "offset_y": -(2**31)}, "further than"),
        ({"padding": 2, "offset_x": 2**31 - 1}, "further than"),
        ({"interpolation": 6}, "interpolation is 6"),
        ({"interpolation": 255}, "interpolation is 255"),
    ],
)
def test_hostile_plans_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_plan(noise(20, 30), plan_of(20, 30, **fields))


def test_far_windows() -> None:
    for offset in (-(2**30), 2**30):
        for padding in (1, 2, 3, 4):
            view = render_plan(noise(20, 30), plan_of(20, 30, padding=padding, offset_x=offset, out_width=7))[0]
            assert view.shape == (20, 7, 3)


def planned(view: ViewSpec, count: int, height: int, width: int) -> np.ndarray:
    return draw(Recipe("window", (view,)), count, height, width)[:, 0]


def test_drawn_windows_are_everywhere_equally_often() -> None:
    plans = planned(ViewSpec(8, window=Window(place="drawn")), 4000, 11, 9)
    counts = Counter(zip(plans["offset_y"].tolist(), plans["offset_x"].tolist()))
    assert set(counts) == {(y, x) for y in range(4) for x in range(2)}
    assert all(400 < count < 600 for count in counts.values())
    assert set(plans["padding"]) == {0}
    plans = planned(ViewSpec(8, window=Window(place="drawn", padding=2, padding_mode="reflect")), 2000, 8, 8)
    assert set(plans["offset_y"]) == set(plans["offset_x"]) == {-2, -1, 0, 1, 2}
    assert np.array_equal(plans["padding"] == 3, (plans["offset_x"] != 0) | (plans["offset_y"] != 0))


def test_drawn_filters() -> None:
    plans = planned(ViewSpec(8, interpolation="random"), 2000, 30, 30)
    counts = Counter(plans["interpolation"].tolist())
    assert set(counts) == {2, 3} and all(900 < count < 1100 for count in counts.values())
    other = planned(ViewSpec(8), 2000, 30, 30)
    for name in ("crop_x", "flip", "crop_width"):
        assert np.array_equal(plans[name], other[name])


def test_a_picture_that_is_too_small(tmp_path: Path) -> None:
    view = ViewSpec(8, window=Window(place="drawn"))
    with pytest.raises(BadPictureError, match="window of 8 x 8 .*, and the picture is 8 x 7 before its padding"):
        planned(view, 1, 8, 7)
    padded = dataclasses.replace(view, window=Window(place="drawn", pad_if_needed=True))
    plans = planned(padded, 500, 8, 5)
    assert set(plans["offset_x"]) == {-3, -2, -1, 0} and set(plans["offset_y"]) == {0}


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"resize": 0}, "from 1 on"),
        ({"resize": (1, 2, 3)}, "from 1 on"),
        ({"resize": 2.5}, "want whole pixels"),
        ({"padding": (1, 2, 3)}, "want 1, 2 or 4 numbers"),
        ({"padding": -1}, "none below 0"),
        ({"place": "left"}, "place is 'left'"),
        ({"padding_mode": "wrap"}, "padding_mode is 'wrap'"),
    ],
)
def test_windows_that_cannot_be(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Window(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "views,message",
    [
        ((ViewSpec(8, window=Window(), via=9),), "leave via and box_of out"),
        ((ViewSpec(8), ViewSpec(8, window=Window(), box_of=0)), "leave via and box_of out"),
        ((ViewSpec(8, window=Window()), ViewSpec(8, box_of=0)), "there is none"),
        ((ViewSpec(8, window=Window(), resize_short=9),), r"give Window\(resize=...\) alone"),
        ((ViewSpec(8, window=Window(20_000)),), "resize is 20000"),
        ((ViewSpec(8, window=Window(pad_if_needed=True)),), "pad_if_needed is of a drawn window"),
        ((ViewSpec(8, window=Window(place="drawn", pad_if_needed=True, padding=1, padding_mode="reflect")),), "once"),
        ((ViewSpec(8, interpolation="sinc"),), "interpolation is 'sinc', want one of nearest"),
    ],
)
def test_recipes_that_cannot_be(views: tuple[ViewSpec, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe("bad", views)


def test_it_is_printed() -> None:
    window = Window(64, "drawn", 4, "reflect")
    text = " ".join(str(Recipe("w", (ViewSpec(64, window=window), ViewSpec(64)))).split())
    assert "window resize 64, pad 4 reflect, drawn -" in text
    assert str(Window((3, 4))) == "resize 3x4, centre" and "window" not in str(recipes.dino())
    window = Window(padding=(1, 2), place="drawn", pad_if_needed=True)
    assert str(window) == "pad 1 2 1 2 constant, drawn padded if needed"


def test_bytes_of_recipes_without_windows_are_as_before() -> None:
    """States hold a digest of them: what was added to the rows is left out where it is not used."""
    recipe = recipes.dino()
    rows = recipe.rows()
    assert len(recipe.row_bytes()) == 184 * len(rows)
    assert recipe.row_bytes()[:184] == rows[:1].tobytes()[:184]
    window = recipe.override(views=[0], window=Window(99, padding=1))
    assert len(window.row_bytes()) == 208 * len(rows)
    assert recipe.override(interpolation="lanczos").row_bytes() != recipe.row_bytes()
