"""Which wheels were run, where and on what: tests/test_wheels.py notes it, and this prints docs/install.md's table.

`python -m wheels.runs FILE WHEELS [PAGE]`: FILE has the notes, WHEELS is the folder with the wheels; the table goes
into PAGE, too. A note holds for the wheel it was made with, byte for byte: notes of several runs add up, and those of
other wheels are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path

from benchmarks.pages import write_between

from .headers import TAGS, version_of

NOTES = "PASS_LOADER_WHEELS_NOTES"  # the variable that names the file
PROCESSORS = ("x86_64", "aarch64")


def note(wheel: Path, python: str, what: str) -> None:
    """Append what was run to the file of notes, if there is one. python: which one, with its version."""
    if os.environ.get(NOTES):
        with Path(os.environ[NOTES]).open("a") as file:
            file.write(json.dumps({"wheel": digest(wheel), "python": python, "what": what}) + "\n")


def digest(wheel: Path) -> str:
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def table(notes: list[dict[str, str]], wheels: list[Path]) -> str:
    """Return a Markdown table: for each Python and processor, with which Python what was run."""
    lines = ["| Python | x86-64 | aarch64 |", "|---|---|---|"]
    for tag in TAGS:
        cells = []
        for processor in PROCESSORS:
            made = [path for path in wheels if re.search(rf"-{tag}-manylinux_\w+_{processor}\.whl$", path.name)]
            digests = [digest(path) for path in made]
            pythons: dict[str, dict[str, None]] = {}
            for one in notes:
                if one["wheel"] in digests:
                    pythons.setdefault(one["python"], {})[one["what"]] = None
            cell = "; ".join(f"{python}: {', '.join(what)}" for python, what in pythons.items())
            cells.append(cell or ("made and looked into" if made else "not made"))
        lines.append(f"| {version_of(tag)}{'t' * tag.endswith('t')} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    written = Path(sys.argv[1])
    found = [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
    made = table(found, sorted(Path(sys.argv[2]).glob("*.whl")))
    print(made)
    for page in sys.argv[3:]:
        write_between(Path(page), "wheels/runs.py", made)
