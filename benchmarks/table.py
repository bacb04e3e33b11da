"""Turns a benchmark's JSON into the README's table: python -m benchmarks.table benchmarks/latest.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path

RECIPES = {"dino": "DINO 2x224+8x96", "swav": "SwAV 2x224+6x96", "mocov2": "MoCo-v2 2x224"}


def table(path: Path) -> str:
    found = json.loads(path.read_text())
    machine = found["machine_info"]["pass_loader"]
    rates: dict[str, dict[str, float]] = {}
    for row in found["benchmarks"]:
        extra = row["extra_info"]
        name = f"{extra['peer']} ({extra['isa']})" if extra["isa"] else extra["peer"]
        rates.setdefault(name, {})[extra["recipe"]] = extra["samples_per_second"]
    official = rates.pop("official torchvision on PIL")
    lines = ["| samples/s, one core | " + " | ".join(RECIPES.values()) + " |", "|---" * (len(RECIPES) + 1) + "|"]
    lines.append("| official torchvision on PIL | " + " | ".join(f"{official[r]:.0f}" for r in RECIPES) + " |")
    for name, rate in rates.items():
        lines.append(
            f"| {name} | " + " | ".join(f"**{rate[r]:.0f}** ({rate[r] / official[r]:.1f}x)" for r in RECIPES) + " |"
        )
    rounds = found["benchmarks"][0]["stats"]["rounds"]
    lines += ["", f"{machine['cpu']}, commit {machine['commit']}, torch {machine['torch']}, Pillow {machine['pillow']} "
                  f"(libjpeg-turbo {machine['pillow_libjpeg_turbo']}), median of {rounds} rounds."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
