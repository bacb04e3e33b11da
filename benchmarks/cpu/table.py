"""Turns the benchmarks' JSON into tables and a plot, so that number, machine and commit cannot part.

Prints the README's small table, the large one of docs/benchmarks.md, and those of stages, codecs, views, types, threads
and a fresh process, where the JSON has them, each bar as met or missed. --write keeps the rows of the first two in
recipes.json, and puts both tables between their markers in README.md and docs/benchmarks.md; a run on a machine without
AVX-512 is kept in avx2.json, and its tables have a section of their own in docs/benchmarks.md. Without JSON files,
recipes.json is printed.

python -m benchmarks.cpu.table [--write] [--plot FILE.png] benchmarks/latest.json benchmarks/latest-simd.json
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
KEPT = Path(__file__).with_name("recipes.json")  # what the two tables were printed from
KEPT_AVX2 = Path(__file__).with_name("avx2.json")  # and the section of machines without AVX-512
TABLES_AVX2 = ("recipes", "one view", "fine-tuning", "packing", "dtypes", "threads")  # of that section
RECIPES = {"dino": "DINO 2x224+8x96", "swav": "SwAV 2x224+6x96", "mocov2": "MoCo-v2 2x224"}
OURS, OFFICIAL = "pass-loader", "official torchvision on PIL"
JPEG = f"{OURS}, JPEG"  # what tables call ours on untouched JPEGs
ONE_VIEW_BARS = {  # times the official pipeline
    "pass-loader, proven": 4.5, "pass-loader, entry points": 5.2, "pass-loader, dct-zstd": 6.0, "pass-loader, dct": 8.5,
}  # fmt: skip
TIMM = "timm on PIL"
FINE_TUNING_BARS = {  # times timm's transform, at the best level of AVX-512 and at avx2
    "pass-loader": (4.2, 3.7), "pass-loader, entry points": (5.0, 0.0), "pass-loader, dct": (7.5, 5.5),
}  # fmt: skip
STEPS_BAR = 80.0  # us of fine-tuning's further steps, at avx2 and better
DTYPES_BAR = {"avx2": 1.0}  # bfloat16 samples/s of float32's
THREADS_BARS = {2: 1.9}  # times one thread
PACKING_BARS = {"JPEG to dct": 400}  # pictures/s
LIBJPEG_ALONE = "libjpeg-turbo decode alone"
LIBJPEG = "libjpeg-turbo (simplejpeg)"


def of_recipes(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows of the first two tables, and what they were measured on (from the first file)."""
    names = ("peer", "isa", "recipe", "samples_per_second", "differs")
    found = [{name: row.get(name, "") for name in names} for row in rows(files, "recipes")]
    return {
        "machine": files[0]["machine_info"]["pass_loader"],
        "rounds": sorted({row["stats"]["rounds"] for row in files[0]["benchmarks"] if is_of(row, "recipes")}),
        "rows": [{**row, "samples_per_second": round(row["samples_per_second"])} for row in found],
    }


def keep(found: dict[str, Any], path: Path) -> None:
    """Write them, a row a line."""
    *head, (name, listed) = found.items()
    lines = [*(f'"{key}": {json.dumps(value)}' for key, value in head), f'"{name}": [']
    path.write_text("{" + ",\n".join(lines) + "\n" + ",\n".join(json.dumps(row) for row in listed) + "\n]}\n")


def without_avx512(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a section of docs/benchmarks.md needs of such a run, in the form of pytest-benchmark's JSON."""
    found = [row for one in files for row in one["benchmarks"] if any(is_of(row, table) for table in TABLES_AVX2)]
    return {
        "machine_info": {"pass_loader": files[0]["machine_info"]["pass_loader"]},
        "benchmarks": [
            {"stats": {"rounds": row["stats"]["rounds"]}, "extra_info": _rounded(row["extra_info"])} for row in found
        ],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def read(found: dict[str, Any]) -> tuple[dict[str, dict[str, int]], dict[str, str], str]:
    """samples/s by row and recipe, what a row's pixels differ in, a line on the machine."""
    rates: dict[str, dict[str, int]] = {}
    differs: dict[str, str] = {}
    for row in found["rows"]:
        name = label(row)
        rates.setdefault(name, {})[row["recipe"]] = row["samples_per_second"]
        differs[name] = row["differs"] or "none"
    machine = found["machine"]
    rounds_in_words = " or ".join(map(str, found["rounds"]))
    line = (
        f"{machine['cpu']}, one pinned core, commit {machine['commit']}, torch {machine['torch']}, Pillow "
        f"{machine['pillow']} (libjpeg-turbo {machine['pillow_libjpeg_turbo']}), median of {rounds_in_words} rounds."
    )
    return rates, differs, line


def label(row: dict[str, Any]) -> str:
    """Return the name of a row: untouched JPEGs are named as codecs are."""
    peer = JPEG if row["peer"] == OURS else row["peer"]
    return f"{peer} ({row['isa']})" if row["isa"] else peer


def verdict(bar: float, figure: float, unit: str = "", *, most: bool = False) -> str:
    """Return a bar in words, and whether it is met. most: the figure may be at most so much."""
    met = figure <= bar if most else figure >= bar
    return f"{bar:g}{unit}: {'met' if met else 'missed'}"


def is_of(row: dict[str, Any], table: str) -> bool:
    return row["extra_info"].get("table", "recipes") == table


def rows(files: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    """Return what the benchmarks of one table noted."""
    return [row["extra_info"] for found in files for row in found["benchmarks"] if is_of(row, table)]


def markdown(lines: list[list[str]]) -> str:
    """A table; the first line is its head."""
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [lines[0], rule, *lines[1:]])


def large(found: dict[str, Any]) -> tuple[list[list[str]], str]:
    """All rows, the fastest on DINO first, under their head; and the line on the machine."""
    rates, differs, line = read(found)
    official = rates[OFFICIAL]
    lines = [["samples/s (times official)", *RECIPES.values(), "pixels differ"]]
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]["dino"]):
        emphasis = "**" if name.startswith(OURS) else ""
        cells = [f"{emphasis}{rate[r]:.0f}{emphasis} ({rate[r] / official[r]:.1f}x)" for r in RECIPES]
        lines.append([name, *cells, differs[name]])
    return lines, line


def small(lines: list[list[str]], machine: str) -> str:
    """The README's choice of the large table's rows, and how far apart they are.

    The official pipeline; the fastest other library; ours on JPEG and on the codec dct, at the level avx2, the worst
    that a machine of today has, and at the best one that was measured.
    """
    rows = {line[0]: line for line in lines[1:]}
    fastest = max((name for name in rows if not name.startswith((OURS, LIBJPEG_ALONE, "official"))),
                  key=lambda name: _rates(rows[name])[0])  # fmt: skip
    ours = []
    for packed in (JPEG, f"{OURS}, dct"):
        levels = [name for name in rows if name.startswith(f"{packed} (")]
        ours += [f"{packed} (avx2)", max(levels, key=lambda name: _rates(rows[name])[0])]
    shown = [lines[0], *(rows[name] for name in dict.fromkeys([OFFICIAL, fastest, *ours]))]
    ratios = [[mine / theirs for name in ours for mine, theirs in zip(_rates(rows[name]), _rates(rows[other]))]
              for other in (OFFICIAL, fastest)]  # fmt: skip
    cells = [[*line[:-1], "differ" if line[-1] not in ("none", lines[0][-1]) else line[-1]] for line in shown]
    apart = (
        f"At AVX2 or better that is {min(ratios[0]):.0f} to {max(ratios[0]):.0f} times the official pipeline and "
        f"{min(ratios[1]):.1f} to {max(ratios[1]):.1f} times the fastest other library. {machine}"
    )
    return f"{markdown(cells)}\n\n{textwrap.fill(apart, 120)}"


def _rates(line: list[str]) -> list[int]:
    return [int(re.sub(r" .*|\*", "", cell)) for cell in line[1:-1]]


def write_between(path: Path, which: str, text: str) -> None:
    """Put the text between the markers of this table."""
    begin, end = (f"<!-- benchmarks/cpu/table.py, {which}: {edge} -->\n" for edge in ("begin", "end"))
    page = path.read_text()
    head, rest = page.split(begin)
    path.write_text(f"{head}{begin}{text}\n{end}{rest.split(end)[1]}")


def stage_table(levels: list[dict[str, Any]]) -> str:
    """Microseconds a sample of each stage at each level of one recipe, its share; ns a pixel of output at the best."""
    best, pixels = levels[0], levels[0]["pixels_out"]
    heads = [
        f"{RECIPES[best['recipe']]}, us a sample (share)",
        *(row["isa"] for row in levels),
        "ns a pixel, the first",
    ]
    lines, totals = [heads], [sum(row["stages"].values()) for row in levels]

    def add(name: str, seconds: list[float]) -> None:
        cells = [f"{one * 1e6:.0f} ({one / total:.0%})" for one, total in zip(seconds, totals)]
        lines.append([name, *cells, f"{seconds[0] / pixels * 1e9:.2f}"])

    for stage in best["stages"]:
        add(stage, [row["stages"][stage] for row in levels])
    add("**all**", totals)
    for floor in best["floors"]:
        add(f"floor: {floor}", [row["floors"][floor] for row in levels])
    return markdown(lines)


def presets_table(found: list[dict[str, Any]]) -> str:
    """Return the table of what views cost, and how much of what DINO's cost in turn with them."""
    levels = list(dict.fromkeys(row["isa"] for row in found))
    cells: dict[str, list[str]] = {}
    for row in found:
        cost, of_dino = row["ns_per_pixel"], row["ns_per_pixel_of_dino"]
        cells.setdefault(row["recipe"], []).append(f"{cost:.2f} ({cost / of_dino:.2f})")
    lines = [["views alone, ns a pixel of output (of DINO's)", *levels]]
    return markdown(lines + [[recipe, *row] for recipe, row in cells.items()])


def one_view_table(found: list[dict[str, Any]]) -> str:
    """Return the table of recipes of one view, and which bars are met: at the best level, and 0.75 of them at avx2."""
    names = list(dict.fromkeys(row["recipe"] for row in found))
    rates: dict[tuple[str, str], dict[str, float]] = {}
    for row in found:
        rates.setdefault((row["peer"], row["isa"]), {})[row["recipe"]] = row["samples_per_second"]
    official = rates[OFFICIAL, ""]
    best = next(isa for _, isa in rates if isa)
    lines = [["samples/s, one view, one core", *names, "bar"]]
    for (peer, isa), rate in rates.items():
        ratios = [rate[name] / official[name] for name in names]
        cells = [f"{rate[name]:.0f} ({ratio:.1f}x)" for name, ratio in zip(names, ratios)]
        bar = ONE_VIEW_BARS.get(peer, 0) * {best: 1.0, "avx2": 0.75}.get(isa, 0)
        words = verdict(bar, min(ratios), "x") if bar else ""
        lines.append([label({"peer": peer, "isa": isa}), *cells, words])
    return markdown(lines)


def fine_tuning_table(found: list[dict[str, Any]]) -> str:
    """Return the table of fine-tuning, what pixels differ in, and which bars are met; without timm's row no bars."""
    (timm,) = [row["samples_per_second"] for row in found if row["peer"] == TIMM] or [0.0]
    best = next(row["isa"] for row in found if row["isa"])
    lines = [["fine-tuning, one core", "samples/s", "bar", "us of further steps", "bar", "pixels differ"]]
    for row in found:
        ratio = row["samples_per_second"] / timm if timm else 0.0
        wide, narrow = FINE_TUNING_BARS.get(row["peer"], (0.0, 0.0))
        bar = narrow if row["isa"] == "avx2" else wide if row["isa"] == best and best.startswith("avx512") else 0.0
        words = verdict(bar, ratio, "x") if bar and timm else ""
        rate = f"{row['samples_per_second']:.0f}" + (f" ({ratio:.2f}x)" if timm else "")
        further = 1e6 * row["stages"]["further"] if "stages" in row else 0.0
        steps = verdict(STEPS_BAR, further, " us", most=True) if further and row["isa"].startswith("avx") else ""
        cost = f"{further:.0f}" if further else ""
        lines.append([label(row), rate, words, cost, steps, row.get("differs") or "none"])
    return markdown(lines)


def dtypes_table(found: list[dict[str, Any]]) -> str:
    """Return the table of bfloat16 batches beside float32 ones that took turns with them."""
    lines = [["DINO, samples/s, one core", "bfloat16", "float32, in turn with it", "ratio", "bar"]]
    for row in found:
        rate, of_floats = row["samples_per_second"], row["samples_per_second_of_float32"]
        bar = DTYPES_BAR.get(row["isa"], 0.0)
        words = verdict(bar, rate / of_floats, "x") if bar else ""
        lines.append([label(row), f"{rate:.0f}", f"{of_floats:.0f}", f"{rate / of_floats:.3f}", words])
    return markdown(lines)


def threads_table(found: list[dict[str, Any]]) -> str:
    """Return the table of threads beside one, and which bars are met."""
    lines = [["threads, DINO", "samples/s", "one thread, in turn with it", "ratio", "bar"]]
    for row in found:
        rate, of_one = row["samples_per_second"], row["samples_per_second_of_one"]
        bar = THREADS_BARS.get(row["threads"])
        words = verdict(bar, rate / of_one, "x") if bar else ""
        lines.append([str(row["threads"]), f"{rate:.0f}", f"{of_one:.0f}", f"{rate / of_one:.2f}", words])
    return markdown(lines)


def views_table(found: list[dict[str, Any]]) -> str:
    rates = [row["samples_per_second"] for row in found]
    return markdown(
        [
            ["views (DINO's), one core", *(str(row["views"]) for row in found)],
            ["samples/s", *(f"{rate:.0f}" for rate in rates)],
            ["ms a sample", *(f"{1e3 / rate:.2f}" for rate in rates)],
        ]
    )


def codec_table(found: list[dict[str, Any]]) -> str:
    """Return the table of one sampling: each way from bytes to RGB, beside libjpeg-turbo's."""
    whole = next((row["seconds"] for row in found if row["way"] == LIBJPEG), found[0]["seconds"])
    lines = [
        [
            f"decode to RGB, one core, {found[0]['sampling']}",
            "ms a picture",
            "against the first",
            "bytes against the JPEGs",
        ]
    ]
    for row in sorted(found, key=lambda row: -row["seconds"]):
        name = f"{row['way']} ({row['isa']})" if row["isa"] else row["way"]
        lines.append([name, f"{1e3 * row['seconds']:.3f}", f"{whole / row['seconds']:.2f}x", f"{row['ratio']:.3f}"])
    return markdown(lines)


def packing_table(found: list[dict[str, Any]]) -> str:
    """Return the table of packing, and which bars are met."""
    lines = [["packing, one core", "pictures/s", "MB/s of JPEG", "bar"]]
    for row in found:
        rate, bar = row["samples_per_second"], PACKING_BARS.get(row["way"])
        words = verdict(bar, rate) if bar else ""
        lines.append([row["way"], f"{rate:.0f}", f"{row['megabytes_per_second']:.1f}", words])
    return markdown(lines)


def process_table(found: list[dict[str, Any]]) -> str:
    lines = [
        [
            "a fresh process, DINO, batch 64",
            "first batch after torch's import",
            "private memory beyond torch's and the live batches",
        ]
    ]
    for row in found:
        lines.append(
            [f"{row['threads']} threads", f"{row['first_batch_s']:.2f} s", f"{row['private_bytes'] / 1e6:.0f} MB"]
        )
    return markdown(lines)


def further_tables(files: list[dict[str, Any]]) -> Iterator[str]:
    """The tables of stages, codecs, views, types, threads and a fresh process that the JSON has rows for."""
    stages = rows(files, "stages")
    for recipe in dict.fromkeys(row["recipe"] for row in stages):
        yield stage_table([row for row in stages if row["recipe"] == recipe])
    codec = rows(files, "codec")
    for sampling in dict.fromkeys(row["sampling"] for row in codec):
        yield codec_table([row for row in codec if row["sampling"] == sampling])
    if found := rows(files, "packing"):
        yield packing_table(found)
    if found := rows(files, "presets"):
        yield presets_table(found)
    for name, make in (
        ("one view", one_view_table),
        ("fine-tuning", fine_tuning_table),
        ("dtypes", dtypes_table),
        ("threads", threads_table),
        ("views", views_table),
        ("process", process_table),
    ):
        if found := rows(files, name):
            yield make(found)


def two_tables(found: dict[str, Any]) -> dict[str, str]:
    """The README's table and that of docs/benchmarks.md, by the names in their markers."""
    lines, machine = large(found)
    return {"small": small(lines, machine), "large": f"{markdown(lines)}\n\n{textwrap.fill(machine, 120)}"}


def section_avx2(kept: dict[str, Any]) -> str:
    """The tables of docs/benchmarks.md of a machine without AVX-512, from what `without_avx512` returns."""
    found = of_recipes([kept])
    lines, machine = large(found)
    return "\n\n".join([markdown(lines), textwrap.fill(machine, 120), decode_bars(found), *further_tables([kept])])


def decode_bars(found: dict[str, Any]) -> str:
    """Return the table of samples from untouched JPEGs beside libjpeg-turbo's bare decode: the bar is above it."""
    rates, _, _ = read(found)
    ours = [name for name in rates if name.startswith(f"{JPEG} (")]
    best = max(ours, key=lambda name: rates[name]["dino"])
    lines = [["samples/s, one core", best, LIBJPEG_ALONE, "bar: above it"]]
    for recipe, name in RECIPES.items():
        mine, bare = rates[best][recipe], rates[LIBJPEG_ALONE][recipe]
        lines.append([name, str(mine), str(bare), f"{mine / bare:.2f}x: {'met' if mine > bare else 'missed'}"])
    return markdown(lines)


def plot(found: dict[str, Any], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates, _, line = read(found)
    names = sorted(rates, key=lambda name: rates[name]["dino"])
    figure, axes = pyplot.subplots(1, len(RECIPES), figsize=(13, 4.2), sharey=True)
    for axis, (recipe, title) in zip(axes, RECIPES.items()):
        colours = ["#c23b22" if name.startswith(OURS) else "#7a869a" for name in names]
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
    parser.add_argument("json", nargs="*", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument(
        "--write", action="store_true", help="into recipes.json or avx2.json, README.md and docs/benchmarks.md"
    )
    options = parser.parse_args()
    files = [json.loads(path.read_text()) for path in options.json]
    found = of_recipes(files) if rows(files, "recipes") else json.loads(KEPT.read_text())
    if rows(files, "recipes") or not files:
        tables = two_tables(found)
        print(*tables.values(), sep="\n\n")
        if LIBJPEG_ALONE in read(found)[0]:
            print(f"\n{decode_bars(found)}")
        if options.write and found["machine"]["isa"] == "avx2":
            kept = without_avx512(files)
            keep(kept, KEPT_AVX2)
            write_between(ROOT / "docs" / "benchmarks.md", "avx2", section_avx2(kept))
        elif options.write:
            keep(found, KEPT)
            write_between(ROOT / "README.md", "small", tables["small"])
            write_between(ROOT / "docs" / "benchmarks.md", "large", tables["large"])
    for more in further_tables(files):
        print(f"\n{more}")
    if options.plot:
        plot(found, options.plot)
