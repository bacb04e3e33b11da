"""Drawn pictures for contact sheets where photographs would make no sense: chest X-rays, and scenes in two versions.

Numbers alone make them, so that they belong to nobody and are the same at every call.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]


def _texture(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Return smooth noise, (height, width), about 0, with so many bumps across."""
    coarse = rng.normal(size=(cells * height // width + 2, cells + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _inside(distance: np.ndarray, softness: float) -> np.ndarray:
    """Return 1 where the distance to an edge is positive and 0 where it is negative, with a soft edge."""
    return 1 / (1 + np.exp(-np.clip(distance / softness, -40, 40)))


def _ellipse(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0,
             softness: float = 0.05) -> np.ndarray:  # fmt: skip
    u, v = x - centre[0], y - centre[1]
    u, v = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
    return _inside(1 - np.hypot(u / radii[0], v / radii[1]), softness)


def chest(seed: int, height: int = 512, width: int = 464) -> Image.Image:
    """Draw a frontal chest X-ray: mode L. The heart lies on the right side of the picture, as in every such picture."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(0, 1, height))
    x = x - rng.uniform(-0.04, 0.04) - 0.03 * rng.normal() * (y - 0.5)  # nobody stands quite straight
    side, broad = np.abs(x), rng.uniform(0.94, 1.06)
    body = _inside(broad * np.interp(y, [0, 0.04, 0.1, 0.2, 1], [0.2, 0.23, 0.62, 0.95, 0.9]) - side, 0.012)
    cage = broad * np.interp(y, [0.04, 0.15, 0.3, 0.55, 0.85], [0.28, 0.5, 0.66, 0.76, 0.8])
    dome = rng.uniform(0.83, 0.87) - 0.13 * np.exp(-(((side - 0.42) / 0.3) ** 2)) + 0.02 * _inside(x, 0.1)
    narrow = np.interp(y, [0.08, 0.3, 0.6], [0.55, 0.85, 1.05])  # at the top
    sides = ((-1, 0.36), (1, 0.34))
    lungs = sum(_ellipse((x - sign * 0.44) / narrow, y, (0, 0.5), (broad * radius, 0.41)) for sign, radius in sides)
    lungs = lungs * _inside(dome - y, 0.008)

    shade = 0.5 + 0.05 * _texture(rng, height, width, 5)
    shade += 0.2 * _inside(y - dome, 0.01) * _inside(cage - side, 0.05)  # what lies below the lungs
    vessels = np.exp(-((np.hypot((side - 0.2) / 0.25, (y - 0.48) / 0.2)) ** 2))
    air = 0.19 + 0.03 * _texture(rng, height, width, 24) + vessels * (0.1 + 0.05 * _texture(rng, height, width, 40))
    shade = shade * (1 - lungs) + air * lungs
    heart = _ellipse(x, y, (0.14, 0.68), (rng.uniform(0.3, 0.38), 0.15), 0.45, 0.06)
    middle = _inside(0.15 - side + 0.03 * np.sin(9 * y), 0.02)
    for part, bright in ((heart, 0.62), (middle, 0.6)):
        shade = np.maximum(shade, bright * part)
    shade += 0.12 * np.exp(-((x / 0.075) ** 2)) * (1 + 0.35 * np.cos(2 * np.pi * 15 * y))  # the spine

    within = _inside(cage - side, 0.015)
    first, apart = rng.uniform(0.1, 0.12), rng.uniform(0.074, 0.08)
    for number in range(10):
        behind = first + apart * number + 0.11 * (side / cage) ** 2.2 - 0.03 * np.sin(np.pi * side / cage)
        before = behind + 0.05 + 0.2 * (1 - side / cage)
        for at, bright, inner in ((behind, 0.13, 0.05), (before, 0.07, 0.35)):
            off = np.abs(y - at) / 0.017
            bone = _inside(1 - off, 0.12) * (0.6 + 0.4 * np.clip(off, 0, 1) ** 2)
            shade += bright * bone * within * _inside(side - inner, 0.02) * _inside(0.9 - y, 0.03)
    for sign in (-1, 1):  # collarbones
        along = (sign * x - 0.08) / 0.68
        off = np.abs(y - (0.165 - 0.07 * along - 0.015 * np.sin(2 * np.pi * along))) / 0.02
        shade += 0.2 * _inside(1 - off, 0.15) * _inside(along, 0.02) * _inside(1 - along, 0.03)
    shade = shade * body + 0.03 + rng.normal(0, 0.012, shade.shape)
    return Image.fromarray((np.clip(shade, 0, 1) * 255).astype(np.uint8))


@dataclass(frozen=True)
class _Light:
    above: Colour
    horizon: Colour
    sun: Colour
    far: Colour
    near: Colour
    leaves: Colour
    wall: Colour
    roof: Colour


_LIGHTS = (
    _Light((70, 130, 200), (190, 215, 235), (255, 245, 190), (95, 135, 120), (100, 150, 70), (45, 105, 50),
           (225, 205, 170), (165, 70, 50)),
    _Light((75, 55, 110), (245, 160, 95), (255, 215, 120), (85, 70, 105), (115, 95, 60), (130, 75, 35),
           (200, 150, 130), (80, 50, 60)),
    _Light((150, 170, 190), (225, 230, 235), (250, 250, 240), (190, 200, 210), (235, 240, 245), (90, 120, 110),
           (150, 80, 65), (240, 243, 248)),
)  # fmt: skip


def scene(seed: int, light: int, height: int = 375, width: int = 500) -> Image.Image:
    """Draw a house between hills and trees. seed: what stands where. light: summer, evening or winter, in which things
    have also moved a little: a generated picture keeps of its source what it shows, not how."""
    place, moved = np.random.default_rng(seed), np.random.default_rng((seed, light))
    colours, twice = _LIGHTS[light], (2 * width, 2 * height)
    rows = np.linspace(0, 1, twice[1])[:, None, None] ** 0.8
    sky = np.array(colours.above) * (1 - rows) + np.array(colours.horizon) * rows
    picture = Image.fromarray(np.broadcast_to(sky, (*twice[::-1], 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)

    def at(low: float, high: float, side: int) -> float:
        return side * (place.uniform(low, high) + moved.uniform(-0.03, 0.03))

    sun, radius = (at(0.1, 0.9, twice[0]), at(0.1, 0.3, twice[1])), 0.05 * twice[0]
    draw.ellipse((sun[0] - radius, sun[1] - radius, sun[0] + radius, sun[1] + radius), colours.sun)
    columns = np.arange(twice[0])

    def hill(top: float, high: float, colour: Colour) -> np.ndarray:
        waves = place.uniform(0.5, 1.6), place.uniform(0, 6)
        line = twice[1] * (top + high * np.sin(waves[0] * 2 * np.pi * columns / twice[0] + waves[1]))
        draw.polygon([(0, twice[1]), *zip(columns.tolist(), line.tolist()), (twice[0], twice[1])], colour)
        return line

    hill(0.52, 0.08, colours.far)
    ground = hill(0.68, 0.05, colours.near)
    size, left = 0.24 * twice[0] * (1 + moved.uniform(-0.15, 0.15)), at(0.2, 0.55, twice[0])
    foot = ground[int(left + size / 2)] + 0.1 * size
    draw.rectangle((left, foot - 0.6 * size, left + size, foot), colours.wall)
    draw.polygon([(left - 0.1 * size, foot - 0.6 * size), (left + size / 2, foot - 1.1 * size),
                  (left + 1.1 * size, foot - 0.6 * size)], colours.roof)  # fmt: skip
    draw.rectangle((left + 0.42 * size, foot - 0.36 * size, left + 0.6 * size, foot), (90, 60, 40))
    for window in (0.12, 0.72):
        box = left + window * size, foot - 0.45 * size, left + (window + 0.18) * size, foot - 0.25 * size
        draw.rectangle(box, (250, 225, 130) if light == 1 else (110, 140, 165), (60, 45, 40), 4)
    for number in range(6):
        middle, tall = at(0.02, 0.98, twice[0]), twice[1] * place.uniform(0.16, 0.26)
        middle = min(max(middle, 0), twice[0] - 1)
        if left - 0.3 * size < middle < left + 1.3 * size:
            continue
        foot = ground[int(middle)] + 0.03 * twice[1] * (number % 3)
        draw.rectangle((middle - 6, foot - 0.3 * tall, middle + 6, foot), (85, 60, 45))
        for part in range(3):
            top, half = foot - tall * (1 - 0.22 * part), tall * (0.16 + 0.07 * part)
            draw.polygon([(middle, top), (middle - half, top + 0.4 * tall), (middle + half, top + 0.4 * tall)],
                         colours.leaves)  # fmt: skip
    small = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)).astype(np.float32)
    small += (4 * _texture(moved, height, width, 60) + moved.normal(0, 4, (height, width)))[:, :, None]
    return Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))


def write_drawings(folder: Path, count: int) -> None:
    """Write folders of so many JPEGs each: chests, scenes in summer, and changed: the same scenes in another light,
    under the same names."""
    for number in range(count):
        drawn = {"chests": chest(number), "scenes": scene(number, 0), "changed": scene(number, 1 + number % 2)}
        for kind, picture in drawn.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            picture.save(folder / kind / f"{number}.jpg", quality=95)
