"""What bench_cuda found, as short tables, and the bar: each of its lines met, missed or not measured."""

from __future__ import annotations

from typing import Any

from .exact import NAMES as ALONE
from .loading import DALI, NVJPEG, OURS
from .rendering import KERNELS

Found = dict[str, Any]
NAMES = ("section", "recipe", "model", "library", "decoder", "way", "fed_by", "choice", "cores")


def line(row: Found) -> str:
    """One row as it comes, for who watches."""
    named = " ".join(str(row[key]) for key in NAMES if key in row)
    if "reason" in row:
        return f"  {named}: {row['reason']}"
    shown = ("samples_per_s", "engines", "steps_per_s", "of_synthetic")
    return f"  {named}: " + ", ".join(f"{key} {row[key]:.4g}" for key in shown if key in row)


def pick(rows: list[Found], **keys: Any) -> Found:
    """The row of these keys; one with a reason where there is none."""
    for row in rows:
        if all(row.get(key) == value for key, value in keys.items()):
            return row
    return {"reason": "not run"}


def bare_rate(rows: list[Found], cores: int) -> Found:
    """The faster libjpeg-turbo."""
    both = [pick(rows, section="decoding", decoder=name, cores=cores) for name in ("libjpeg", "simplejpeg")]
    return max(both, key=lambda row: row.get("samples_per_s", 0.0))


def _ratio(one: Found, other: Found) -> Found:
    for row in (one, other):
        if "reason" in row:
            return row
    return {"figure": one["samples_per_s"] / other["samples_per_s"]}


def _figure(row: Found, name: str) -> Found:
    return row if "reason" in row else {"figure": row[name]}


def bars(rows: list[Found], dry: bool = False) -> list[Found]:
    """The lines of the bar (one H200, 16 cores, PASS-shaped JPEGs). dry: nothing was measured."""

    def shards(way: str, cores: int) -> Found:
        return pick(rows, section="shards", recipe="dino", way=way, cores=cores)

    rendering, exact = pick(rows, section="rendering", recipe="dino", library="ours"), shards(OURS, 16)
    wanted = [
        ("rendering alone, DINO, samples/s", 1e5, _figure(rendering, "samples_per_s")),
        *(
            (f"{ALONE[codec]}, pictures/s", 4e4, _figure(pick(rows, decoder=ALONE[codec]), "samples_per_s"))
            for codec in ("dct", "points")
        ),
        ("from shards, exact, 16 cores, DINO, samples/s", 1e4, _figure(exact, "samples_per_s")),
        ("the same, of 16 cores' bare libjpeg-turbo", 0.85, _ratio(exact, bare_rate(rows, 16))),
        ("from shards, nvJPEG, 4 cores, DINO, times DALI", 2.0, _ratio(shards(NVJPEG, 4), shards(DALI, 4))),
    ]
    for model in ("DINO ViT-S/16", "SwAV ResNet-50"):
        step = pick(rows, section="training", model=model, fed_by=OURS)
        wanted.append((f"training step, {model}, of synthetic", 0.99, _figure(step, "of_synthetic")))
    made = [{"bar": name, "at_least": least, **found} for name, least, found in wanted]
    memory = {"bar": "device memory at batch 256, DINO, MB", "at_most": 1500.0, **_figure(exact, "device_mb")}
    return [{**bar, "verdict": "dry run" if dry else _verdict(bar)} for bar in (*made, memory)]


def _verdict(bar: Found) -> str:
    if "figure" not in bar:
        return "not measured"
    met = bar["figure"] >= bar["at_least"] if "at_least" in bar else bar["figure"] < bar["at_most"]
    return "met" if met else "missed"


def _cell(row: Found, name: str = "samples_per_s", form: str = "8.0f") -> str:
    return f"{'-':>8}" if "reason" in row else f"{row[name]:{form}}"


def _rendering(rows: list[Found]) -> list[str]:
    ours = [row for row in rows if row.get("library") == "ours" and "reason" not in row]
    lines = ["rendering alone          recipe    batch  samples/s   ms a batch (floor)  host ms"]
    for row in rows:
        if row["section"] == "rendering" and "reason" not in row:
            more = (
                f"{row['ms']:9.2f} ({row['floor_ms']:.2f})  {row['host_ms']:10.2f}"
                if "floor_ms" in row
                else f"{row['ms']:9.2f}"
            )
            lines.append(f"{row['library']:24} {row['recipe']:9} {row['batch']:5} {row['samples_per_s']:10.0f} {more}")
    if ours:
        lines.append("kernel, ms (floor)  " + "  ".join(f"{row['recipe']:>15}" for row in ours))
    for kernel in KERNELS if ours else []:
        cells = [f"{row['kernels'][kernel]:.3f} ({row['kernel_floors'][kernel]:.3f})" for row in ours]
        lines.append(f"{kernel:19} " + "  ".join(f"{cell:>15}" for cell in cells))
    return lines


def _by_cores(rows: list[Found], section: str, names: tuple[str, ...], title: str) -> list[str]:
    """A line a way, a column a number of cores."""
    chosen = [row for row in rows if row["section"] == section and row.get("cores")]
    cores = sorted({row["cores"] for row in chosen})
    if not chosen:
        return []
    lines = [f"{title:42}" + "".join(f"{n:6} c" for n in cores) + ("   MB on the GPU" if section == "shards" else "")]
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in chosen):
        found = [pick(chosen, cores=n, **dict(zip(names, key))) for n in cores]
        if all("reason" in row for row in found):
            continue
        memory = f"{found[-1]['device_mb']:10.0f}" if "device_mb" in found[-1] and section == "shards" else ""
        lines.append(f"{'  '.join(key):42}" + "".join(_cell(row) for row in found) + memory)
    return lines


def _training(rows: list[Found]) -> list[str]:
    chosen = [row for row in rows if row["section"] in ("training", "choices") and "reason" not in row]
    title = "training step     batch  fed by                        steps/s  synthetic  loading's share"
    lines = [title] if chosen else []
    for row in chosen:
        lines.append(
            f"{row['model']:16} {row['batch']:6}  {row.get('choice') or row['fed_by']:27} {row['steps_per_s']:9.2f} "
            f"{row['synthetic_steps_per_s']:10.2f} {row['loading_share']:15.1%}"
        )
    return lines


def _absent(rows: list[Found]) -> list[str]:
    """Each reason once, with what it hit."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if "reason" in row:
            name = next(str(row[key]) for key in ("library", "decoder", "way", "fed_by", "choice") if key in row)
            reasons.setdefault(row["reason"], []).append(f"{row['section']}/{name}")
    return (
        ["absent:", *(f"  {', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items())]
        if reasons
        else []
    )


def report(whole: Found) -> str:
    rows, about = whole["rows"], whole["machine"]
    lines = [
        f"{about['gpu']}; {about['cpu']}, {about['cores']} cores; torch {about['torch']}",
        f"commit {about['commit']}; {whole['took_s']:.0f} s, {whole['row_seconds']:.1f} s a row",
    ]
    if whole["dry"]:
        lines.append("DRY: on the CPU with tiny sizes; the figures mean nothing")
    copies = [row["copy_bytes_per_s"] for row in rows if "copy_bytes_per_s" in row]
    lines += [f"copy on the device {copies[0] / 1e9:.0f} GB/s"] if copies else []
    engines = pick(rows, section="decoding", decoder="engines")
    if "engines" in engines:
        lines.append(f"JPEG engines {engines['engines']} of {engines['cores_per_engine']} cores")
    lines += _rendering(rows)
    lines += _by_cores(rows, "decoding", ("decoder",), "decoding alone, pictures/s")
    lines += _by_cores(rows, "shards", ("recipe", "way"), "from shards, samples/s")
    lines += [*_training(rows), *_absent(rows)]
    lines.append("the bar                                              wanted     found")
    for bar in whole["bars"]:
        limit = f">= {bar['at_least']:g}" if "at_least" in bar else f"< {bar['at_most']:g}"
        found = f"{bar['figure']:9.4g}" if "figure" in bar else bar["reason"]
        lines.append(f"{bar['bar']:48} {limit:>10} {found}  {bar['verdict']}")
    return "\n".join(lines)
