"""Which wheels were run, where and on what: tests/test_wheels.py notes it, and this prints docs/install.md's table.

`python -m wheels.runs FILE WHEELS`: FILE has the notes, WHEELS is the folder with the wheels.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from .headers import TAGS, version_of

NOTES = "PASS_LOADER_WHEELS_NOTES"  # the variable that names the file
PROCESSORS = ("x86_64", "aarch64")


def note(tag: str, processor: str, python: str, what: str) -> None:
    """Append what was run to the file of notes, if there is one. python: which one, with its version."""
    if os.environ.get(NOTES):
        with Path(os.environ[NOTES]).open("a") as file:
            file.write(json.dumps({"tag": tag, "processor": processor, "python": python, "what": what}) + "\n")


def table(notes: list[dict[str, str]], wheels: list[str]) -> str:
    """Return a Markdown table: for each Python and processor, with which Python what was run."""
    lines = ["| Python | x86-64 | aarch64 |", "|---|---|---|"]
    for tag in TAGS:
        cells = []
        for processor in PROCESSORS:
            pythons: dict[str, dict[str, None]] = {}
            for one in notes:
                if (one["tag"], one["processor"]) == (tag, processor):
                    pythons.setdefault(one["python"], {})[one["what"]] = None
            cell = "; ".join(f"{python}: {', '.join(what)}" for python, what in pythons.items())
            made = any(re.search(rf"-{tag}-manylinux_\w+_{processor}\.whl$", name) for name in wheels)
            cells.append(cell or ("made and looked into" if made else "not made"))
        lines.append(f"| {version_of(tag)}{'t' * tag.endswith('t')} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    written = Path(sys.argv[1])
    found = [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
    print(table(found, [path.name for path in Path(sys.argv[2]).glob("*.whl")]))
