"""The plots of a report, by matplotlib: PNG for other uses, SVG for the page, which follows its colours."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .coastline import coastlines

# name: (light, dark). matplotlib draws with the light ones; the SVG's style sheet has both.
PALETTE = {
    "ink": ("#1f2a33", "#e3e8ec"),
    "muted": ("#5d6b77", "#98a5b0"),
    "line": ("#dde3e8", "#33404a"),
    "accent": ("#2b7a9e", "#63b3d4"),
}
INK, MUTED, LINE, ACCENT = (light for light, _ in PALETTE.values())
FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', sans-serif"
_WIDTH, _HEIGHT = 4.6, 2.9  # inches
_DPI = 160  # of the PNG
_MOST_DOTS = 1500  # cells of a map that are drawn one by one
_RATIOS = {"1:2": 1 / 2, "2:3": 2 / 3, "3:4": 3 / 4, "1:1": 1, "4:3": 4 / 3, "3:2": 3 / 2, "2:1": 2}
_FAR_RATIOS = {"1:8": 1 / 8, "1:4": 1 / 4, "1:2": 1 / 2, "1:1": 1, "2:1": 2, "4:1": 4, "8:1": 8}


@dataclass(frozen=True)
class Plot:
    """A plot. alt: what it shows, in words. svg: bytes of an SVG without script or link; png: the same, light."""

    title: str
    alt: str
    svg: bytes
    png: bytes


def check_matplotlib() -> None:
    """Raise ImportError with the way out where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("a report needs matplotlib: pip install 'pass-loader[report]'") from None


def plots_of(numbers: dict[str, Any]) -> dict[str, Plot]:
    """Return the plots that these numbers (stats.py) allow, by name."""
    sizes, bytes_, sample = numbers["sizes"], numbers["bytes"], numbers["sample"]
    of_sample = f"{sample['measured']:,} sampled pictures"
    found = {
        "sizes": _drawn("Width and height", _sizes_alt(sizes), lambda axes: _sizes(axes, sizes["plane"])),
        "aspect-ratios": _drawn(
            "Aspect ratio",
            f"Histogram of width : height: {sizes['landscape']:,} landscape, {sizes['portrait']:,} portrait, "
            f"{sizes['square']:,} square.",
            lambda axes: _aspect(axes, sizes["aspect"]),
        ),
        "bytes": _drawn(
            "Bytes of a record", _spread_alt("record sizes", bytes_["record_bytes"], "bytes"),
            lambda axes: _log_bars(axes, bytes_["histogram"], _bytes_text, "bytes of a record"),
        ),
        "density": _drawn(
            "Compression",
            f"Histogram of bits a pixel; {bytes_['bits_per_pixel']:.2f} over all pictures.",
            lambda axes: _log_bars(axes, bytes_["density"], lambda value: f"{value:g}", "bits a pixel, as stored"),
        ),
    }  # fmt: skip
    if (quality := numbers["qualities"]) and quality["jpegs"]:
        alt = f"Histogram of the JPEG quality of {of_sample}; median {quality['median']}."
        found["qualities"] = _drawn("JPEG quality", alt, lambda axes: _quality(axes, quality["pictures"]))
    if sample["measured"]:
        for name, title, words in (
            ("brightness", "Brightness", "mean brightness of a picture, % of white"),
            ("contrast", "Contrast", "standard deviation of its brightness, %"),
        ):
            values = numbers[name]
            alt = f"Histogram of the {name} of {of_sample}; median {values['median']:.0%}."
            found[name] = _drawn(title, alt, partial(_percent, values=values, label=words))
    if (dates := numbers["dates"]) and dates["months"]:
        alt = f"Pictures by date, from {dates['months'][0]['month']} to {dates['months'][-1]['month']}."
        found["dates"] = _drawn("Dates", alt, lambda axes: _dates(axes, dates["months"]), wide=True)
    if (places := numbers["places"]) and places["known"]:
        alt = f"World map: {places['known']:,} pictures in {len(places['cells']):,} cells of one degree."
        found["places"] = _drawn("Places", alt, lambda axes: _map(axes, places["cells"]), wide=True)
    return found


def _drawn(title: str, alt: str, draw: Callable[[Any], None], wide: bool = False) -> Plot:
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "text.color": INK,
        "axes.edgecolor": LINE, "axes.labelcolor": MUTED, "axes.spines.top": False, "axes.spines.right": False,
        "axes.spines.left": False, "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y",
        "grid.color": LINE, "grid.linewidth": 0.8, "xtick.color": LINE, "ytick.color": LINE,
        "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "ytick.left": False, "svg.fonttype": "none",
        "svg.hashsalt": title, "image.composite_image": False,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's matplotlibrc says
        matplotlib.rcParams.update(style)
        size = (2 * _WIDTH, 1.35 * _HEIGHT) if wide else (_WIDTH, _HEIGHT)
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(png := io.BytesIO(), format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
        figure.savefig(svg := io.BytesIO(), format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # fmt: skip
    return Plot(title, alt, _themed(svg.getvalue().decode()).encode(), png.getvalue())


def _themed(svg: str) -> str:
    """Return an SVG whose colours follow the reader's scheme, and whose font is the page's."""
    for name, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{name})")
    svg = svg.replace("'DejaVu Sans'", FONTS.replace('"', "'"))
    schemes = ["".join(f"--{name}:{pair[scheme]};" for name, pair in PALETTE.items()) for scheme in (0, 1)]
    sheet = f"<style>svg{{{schemes[0]}}}@media(prefers-color-scheme:dark){{svg{{{schemes[1]}}}}}</style>"
    start = svg.index("<svg")
    end = svg.index(">", start) + 1
    return svg[start:end] + sheet + svg[end:]  # without the DOCTYPE, which names an address


def _counts_axis(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_ylabel("pictures")


def _bars(axes: Any, edges: np.ndarray, counts: Any) -> None:
    axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color=ACCENT, linewidth=0)
    _counts_axis(axes)


def _log_bars(axes: Any, histogram: dict[str, Any], text: Callable[[float], str], label: str) -> None:
    """A histogram over log2 of a value; its ticks are round values: 1, 2 and 5 times powers of ten."""
    edges, counts = np.array(histogram["edges_log2"]), np.array(histogram["pictures"])
    used = np.flatnonzero(counts)
    first, end = max(0, used[0] - 1), min(len(counts), used[-1] + 2)
    _bars(axes, edges[first : end + 1], counts[first:end])
    low, high = edges[first], edges[end]
    inside = _round_values(2**low, 2**high, 8)
    axes.set_xticks(np.log2(inside), [text(tick) for tick in inside])
    axes.set_xlim(low, high)
    axes.set_xlabel(label)


def _round_values(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2 and 5 times powers of ten in [low, high], or powers alone where there would be more than `most`."""
    values = [base * 10.0**power for power in range(-3, 11) for base in (1, 2, 5)]
    inside = [value for value in values if low <= value <= high]
    return inside if len(inside) <= most else [value for value in inside if f"{value:e}"[0] == "1"]


def _sizes(axes: Any, plane: dict[str, Any]) -> None:
    edges, counts = np.array(plane["edges_px"]), np.array(plane["rows_of_heights"], float)
    is_log = edges[0] > 0
    places = np.log2(edges) if is_log else edges
    extent = (places[0], places[-1], places[0], places[-1])
    axes.imshow(_shades(counts), origin="lower", extent=extent, interpolation="nearest", aspect="equal", zorder=2)
    axes.plot(extent[:2], extent[2:], color=MUTED, linewidth=0.7, linestyle=(0, (2, 3)), zorder=1)
    if is_log:
        inside = _round_values(edges[0], edges[-1], 6)
        for set_ticks in (axes.set_xticks, axes.set_yticks):
            set_ticks(np.log2(inside), [short(tick) for tick in inside])
    axes.grid(True, axis="both")
    axes.set_xlabel("width, pixels")
    axes.set_ylabel("height, pixels")


def _shades(counts: np.ndarray) -> np.ndarray:
    """Return counts as colours, (..., 4) float: the accent, opaque where most pictures are, clear where none is. In
    between by the logarithm."""
    strength = np.where(counts > 0, 0.3 + 0.7 * np.log1p(counts) / np.log1p(max(1.0, counts.max())), 0)
    colour = [int(ACCENT[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return np.stack([*(np.full(counts.shape, one) for one in colour), strength], -1)


def _aspect(axes: Any, histogram: dict[str, Any]) -> None:
    edges, counts = np.array(histogram["edges_log2"]), histogram["pictures"]
    _bars(axes, edges, counts)
    used = np.flatnonzero(counts)
    is_far = edges[used[0]] < -1.25 or edges[used[-1] + 1] > 1.25
    ratios = _FAR_RATIOS if is_far else _RATIOS
    axes.set_xticks(np.log2([*ratios.values()]), [*ratios])
    axes.set_xlim(*((edges[0], edges[-1]) if is_far else (-1.25, 1.25)))
    axes.set_xlabel("width : height" + (", beyond 8 : 1 in the outer bars" if is_far else ""))


def _quality(axes: Any, counts: list[int]) -> None:
    """counts: of qualities 1 to 100."""
    lowest = int(np.flatnonzero(counts)[0]) + 1
    first = min(lowest // 10 * 10, 70)
    axes.bar(np.arange(1, 101), counts, 0.9, color=ACCENT, linewidth=0)
    _counts_axis(axes)
    axes.set_xlim(first - 0.5, 100.5)
    axes.set_xlabel("quality of libjpeg with the nearest luminance table")


def _percent(axes: Any, *, values: dict[str, Any], label: str) -> None:
    counts = np.array(values["pictures"])
    edges = np.linspace(0, 100 * values["up_to"], len(counts) + 1)
    _bars(axes, edges, counts)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(label)


def _dates(axes: Any, months: list[dict[str, Any]]) -> None:
    """Months where they span at most six years, else years, decades or centuries; without the first and last 0.1 %."""
    counts = np.array([month["pictures"] for month in months])
    numbers = np.array([int(month["month"][:4]) * 12 + int(month["month"][5:]) - 1 for month in months])
    below = np.cumsum(counts) / counts.sum()
    low, high = numbers[np.searchsorted(below, 0.001)], numbers[np.searchsorted(below, 0.999)]
    inside = (low <= numbers) & (numbers <= high)
    kinds = {1: "month", 12: "year", 120: "decade", 1200: "century"}
    unit = next(unit for unit in kinds if high // unit - low // unit < 72 or unit == 1200)
    places = numbers[inside] // unit
    first = int(places[0])
    bars = np.bincount(places - first, counts[inside])
    axes.bar(first + np.arange(len(bars)), bars, 0.86, color=ACCENT, linewidth=0)
    _counts_axis(axes)
    step = next(step for step in (1, 2, 3, 6, 12) if 12 * step >= len(bars) or step == 12)
    ticks = range(-(-first // step) * step, first + len(bars), step)
    years = [tick * unit // 12 for tick in ticks]
    axes.set_xticks([*ticks], [f"{year}-{tick % 12 + 1:02d}" if unit == 1 else f"{year}" + "s" * (unit > 12)
                               for year, tick in zip(years, ticks)])  # fmt: skip
    axes.set_xlabel(f"{kinds[unit]} taken")
    if left := int(counts[~inside].sum()):
        text = f"{left:,} with earlier or later dates not drawn"
        axes.set_title(text, fontsize=8, color=MUTED, loc="right")


def _map(axes: Any, cells: list[list[int]]) -> None:
    """Equirectangular: a degree is as long either way."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    counts = np.zeros((180, 360))
    rows = np.array(cells)
    counts[rows[:, 0] + 90, rows[:, 1] + 180] = rows[:, 2]
    land = Path.make_compound_path(*(Path(np.vstack([line, line[:1]]), closed=True) for line in coastlines()))
    axes.add_patch(PathPatch(land, facecolor=LINE, linewidth=0, zorder=1))
    if len(cells) <= _MOST_DOTS:  # cells of a degree are hard to see where they are few
        axes.scatter(rows[:, 1] + 0.5, rows[:, 0] + 0.5, 9, color=_shades(rows[:, 2]), linewidths=0, zorder=2)
    else:
        shades = _shades(counts)
        axes.imshow(shades, origin="lower", extent=(-180, 180, -90, 90), interpolation="nearest", zorder=2)
    axes.set_aspect("equal")
    axes.set_xticks(range(-180, 181, 60), ["180°", "120° W", "60° W", "0°", "60° E", "120° E", "180°"])
    axes.set_yticks(range(-60, 61, 30), ["60° S", "30° S", "0°", "30° N", "60° N"])
    axes.set_xlim(-180, 180)
    axes.set_ylim(-90 if rows[:, 0].min() < -58 else -58, 90 if rows[:, 0].max() >= 84 else 84)
    axes.grid(True, axis="both", linewidth=0.5)


def short(value: float) -> str:
    """Return a number in at most four signs or so: 950, 12k, 3.5M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def _bytes_text(value: float) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (1000, "kB")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g} B"


def _sizes_alt(sizes: dict[str, Any]) -> str:
    width, height = sizes["width_px"], sizes["height_px"]
    return (
        f"Where the pictures lie by width and height: widths from {width['least']:,} to {width['most']:,} pixels, "
        f"median {width['median']:,}; heights from {height['least']:,} to {height['most']:,}, median "
        f"{height['median']:,}. The line marks squares."
    )


def _spread_alt(what: str, spread: dict[str, Any], unit: str) -> str:
    return (
        f"Histogram of {what}: from {spread['least']:,} to {spread['most']:,} {unit}, median {spread['median']:,}, "
        f"mean {spread['mean']:,.0f}."
    )
