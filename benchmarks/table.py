"""Turns the benchmarks' JSON into the README's table and plot, so that number, machine and commit cannot part.

python -m benchmarks.table [--plot FILE.png] benchmarks/latest.json benchmarks/latest-simd.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RECIPES = {"dino": "DINO 2x224+8x96", "swav": "SwAV 2x224+6x96", "mocov2": "MoCo-v2 2x224"}
OFFICIAL = "official torchvision on PIL"


def read(paths: list[Path]) -> tuple[dict[str, dict[str, float]], dict[str, str], str]:
    """samples/s by row and recipe, what a row's pixels differ in, a line on the machine (from the first file)."""
    rates: dict[str, dict[str, float]] = {}
    differs: dict[str, str] = {}
    files = [json.loads(path.read_text()) for path in paths]
    for row in (row for found in files for row in found["benchmarks"]):
        extra: dict[str, Any] = row["extra_info"]
        name = f"{extra['peer']} ({extra['isa']})" if extra["isa"] else extra["peer"]
        rates.setdefault(name, {})[extra["recipe"]] = extra["samples_per_second"]
        differs[name] = extra.get("differs") or "none"
    machine = files[0]["machine_info"]["pass_loader"]
    rounds = files[0]["benchmarks"][0]["stats"]["rounds"]
    line = (
        f"{machine['cpu']}, one pinned core, commit {machine['commit']}, torch {machine['torch']}, Pillow "
        f"{machine['pillow']} (libjpeg-turbo {machine['pillow_libjpeg_turbo']}), median of {rounds} rounds."
    )
    return rates, differs, line


def table(paths: list[Path]) -> str:
    rates, differs, line = read(paths)
    official = rates[OFFICIAL]
    lines = [
        "| samples/s, one core | " + " | ".join(RECIPES.values()) + " | pixels differ |",
        "|---" * (len(RECIPES) + 2) + "|",
    ]
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]["dino"]):
        ours = "**" if name.startswith("pass-loader") else ""
        cells = [f"{ours}{rate[r]:.0f}{ours} ({rate[r] / official[r]:.1f}x)" for r in RECIPES]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {differs[name]} |")
    return "\n".join([*lines, "", line])


def plot(paths: list[Path], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates, _, line = read(paths)
    names = sorted(rates, key=lambda name: rates[name]["dino"])
    figure, axes = pyplot.subplots(1, len(RECIPES), figsize=(13, 4.2), sharey=True)
    for axis, (recipe, title) in zip(axes, RECIPES.items()):
        colours = ["#c23b22" if name.startswith("pass-loader") else "#7a869a" for name in names]
        bars = axis.barh(names, [rates[name][recipe] for name in names], color=colours)
        axis.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        axis.set_title(f"{title}\nsamples/s, one core", fontsize=10)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, 0.01, line, fontsize=7)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    print(table(options.json))
    if options.plot:
        plot(options.json, options.plot)
