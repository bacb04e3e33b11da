"""Contact sheets: a row for each sample with its picture, the crop boxes drawn on it, and all its views."""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import PackError
from ..keys import BatchKey, SampleKeys
from ..pack.reader import Pack
from ..recipes.masks import (
    BlockMasks,
    CoarseMasks,
    IBOTMasks,
    InverseBlockMasks,
    MultiBlockMasks,
    RandomMasks,
    StratifiedMasks,
)
from ..recipes.recipe import Recipe
from .companions import Companions
from .samples import Samples

_MARGIN = 6
_PAPER = (255, 255, 255)


def preview(
    pack: str | Path | Pack,
    recipe: Recipe,
    out: str | Path,
    *,
    records: Sequence[int] | None = None,
    count: int = 4,
    seed: int = 0,
    epoch: int = 0,
    companions: str | Path | Pack | Companions | None = None,
) -> None:
    """Write a contact sheet of `records`, or of `count` live records spread over the pack, as PNG.

    companions: as of a dataset; a companion stands beside its original, with the crop box of the view that shows it.
    What a mask hides is dark; for I-JEPA, which hides from the encoder, what the predictors fill in is red,
    and so is what CAPI predicts.
    """
    if recipe.structure.heatmaps:
        recipe = dataclasses.replace(recipe, batch="view_labels")  # the pictures' views: the pack has no heatmaps
    samples = Samples(pack, recipe, seed=seed, companions=companions)
    if records is None:
        spread = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(np.int64)
        none = np.zeros(len(spread), np.uint32)
        records = samples.live.at(spread, none, none)[0].tolist()
    if not len(records):
        raise PackError(f"{samples.pack.path} has no live record to show")
    masks = _masks(samples, np.array(records, np.int64), epoch)
    rows = [row_of(samples, record, epoch, shown) for record, shown in zip(records, masks)]
    write_rows(rows, out)


def write_rows(rows: list[Image.Image], out: str | Path) -> None:
    """Write rows below each other, as PNG."""
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(out, "PNG")


def _masks(samples: Samples, records: np.ndarray, epoch: int) -> list[dict[int, np.ndarray]]:
    """Return each sample's masks by view: (rows, columns) uint8, 0 seen, 1 hidden, 2 a predictor's.

    They are drawn as if the samples were the first batch of the epoch.
    """
    masks, views = samples.recipe.masks, samples.recipe.views
    keys = SampleKeys(samples.seed, records, np.zeros(len(records), np.uint32), np.full(len(records), epoch, np.uint32))
    batch = BatchKey(samples.seed, epoch, 0, 0)
    side = (views[0].height, views[0].width)
    found: dict[int, np.ndarray] = {}  # a view: (N, rows, columns)
    if isinstance(masks, IBOTMasks):
        found = {number: masks.draw(keys, number, view.height, view.width) for number, view in enumerate(views)}
    elif isinstance(masks, StratifiedMasks):
        numbers = [number for number, role in enumerate(samples.recipe.roles()) if role == "global"]
        drawn, _ = masks.draw(keys, batch, numbers, *side)
        found = dict(zip(numbers, np.split(drawn, len(numbers))))
    elif isinstance(masks, RandomMasks):
        drawn = masks.draw(keys, 0, *side)["mask"]
        found[0] = drawn.reshape(len(records), side[0] // masks.patch, -1)
    elif isinstance(masks, (CoarseMasks, BlockMasks)):
        found[0] = masks.draw(keys, 0, *side)
    elif isinstance(masks, InverseBlockMasks):
        found[0], predicted = masks.draw(keys, 0, *side)
        found[0] = found[0].astype(np.uint8)
        np.put_along_axis(found[0].reshape(len(records), -1), predicted, 2, axis=1)
    elif isinstance(masks, MultiBlockMasks):
        encoders, predictors = masks.draw(keys, batch, *side)
        cells = np.ones((len(records), side[0] // masks.patch * (side[1] // masks.patch)))
        for kind, blocks in ((0, encoders), (2, predictors)):
            for block in blocks:
                np.put_along_axis(cells, block, kind, axis=1)
        found[0] = cells.reshape(len(records), side[0] // masks.patch, -1)
    return [{view: drawn[row].astype(np.uint8) for view, drawn in found.items()} for row in range(len(records))]


def _hidden(view: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Darken what the mask hides to a quarter, and show a predictor's cells in red: (height, width, 3) uint8."""
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(view.shape, mask.shape))
    kind = mask[rows[:, None], columns[None]][:, :, None]
    red = np.array([255, 60, 60])
    return np.where(kind == 0, view, np.where(kind == 1, view // 4, (view // 2 + red // 2))).astype(np.uint8)


def _shown(pixels: np.ndarray) -> np.ndarray:
    """Return pixels of one channel or three as (height, width, 3) uint8; of 16 bits the upper 8."""
    pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def row_of(
    samples: Samples, record: int, epoch: int, masks: dict[int, np.ndarray], caption: str | None = None,
    chosen: Sequence[int] | None = None,
) -> Image.Image:  # fmt: skip
    """Draw a sample: its picture with the crop boxes, its companion with its own, and its views. masks: by view.
    chosen: these views alone."""
    shown = range(len(samples.recipe.views)) if chosen is None else chosen
    plan, companion = samples.plan(record, epoch), samples.companion(record, epoch)
    rendered = samples.render(record, epoch)
    views = [
        Image.fromarray(_hidden(view, masks[number]) if number in masks else view)
        for number, view in ((number, _shown(rendered[number])) for number in shown)
    ]
    tallest = max(view.height for view in views)
    colours = {number: _colour(i, len(views)) for i, number in enumerate(shown)}

    def picture(of: int, numbers: list[int]) -> Image.Image:
        boxes = [(plan[number], colours[number]) for number in numbers]
        return _with_boxes(Image.fromarray(_shown(samples.decode(of))), boxes, tallest)

    apart = [] if companion is None else [number for number in shown if number == companion.view]
    tiles = [picture(record, [number for number in shown if number not in apart])]
    tiles += [picture(companion.record, apart)] if companion is not None and apart else []
    tiles += [_framed(view, colours[number]) for number, view in zip(shown, views)]
    columns = _stack(tiles, max(tile.height for tile in tiles))
    told = caption or f"record {record}  id {samples.id_of(record)}  {samples.recipe.name}, {len(views)} views"
    row = Image.new("RGB", (sum(c.width for c in columns), columns[0].height + 16), _PAPER)
    ImageDraw.Draw(row).text((_MARGIN, 2), told.encode("ascii", "replace").decode(), fill=(0, 0, 0))
    left = 0
    for column in columns:
        row.paste(column, (left, 16))
        left += column.width
    return row


def _stack(tiles: list[Image.Image], height: int) -> list[Image.Image]:
    """Arrange tiles in order in columns of at most `height`, so that small views share a column."""
    columns: list[list[Image.Image]] = []
    for tile in tiles:
        if (
            columns
            and columns[-1][0].width == tile.width
            and sum(t.height for t in columns[-1]) + tile.height <= height
        ):
            columns[-1].append(tile)
        else:
            columns.append([tile])
    images = []
    for column in columns:
        image = Image.new("RGB", (column[0].width, height), _PAPER)
        for place, tile in enumerate(column):
            image.paste(tile, (0, sum(t.height for t in column[:place])))
        images.append(image)
    return images


def _with_boxes(
    picture: Image.Image, boxes: Sequence[tuple[np.void, tuple[int, int, int]]], height: int
) -> Image.Image:
    """Return the picture at this height with the crop boxes of rows of plans, each in its colour."""
    scale = height / picture.height
    small = picture.resize((max(1, round(picture.width * scale)), height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(small)
    for view, colour in boxes:
        x, y, w, h = (float(view[name]) * scale for name in ("crop_x", "crop_y", "crop_width", "crop_height"))
        draw.rectangle((x, y, max(x, x + w - 1), max(y, y + h - 1)), outline=colour, width=2)
    return _framed(small, _PAPER)


def _framed(picture: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    frame = Image.new("RGB", (picture.width + 2 * _MARGIN, picture.height + 2 * _MARGIN), _PAPER)
    ImageDraw.Draw(frame).rectangle(
        (_MARGIN - 3, _MARGIN - 3, frame.width - _MARGIN + 2, frame.height - _MARGIN + 2), fill=colour
    )
    frame.paste(picture, (_MARGIN, _MARGIN))
    return frame


def _colour(index: int, count: int) -> tuple[int, int, int]:
    r, g, b = colorsys.hsv_to_rgb(index / max(count, 1), 0.9, 0.9)
    return int(r * 255), int(g * 255), int(b * 255)
