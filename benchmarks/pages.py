"""Tables that benchmarks print, put into the pages of the documentation."""

from __future__ import annotations

import re
from pathlib import Path


def write_between(page: Path, mark: str, text: str) -> None:
    """Put the text between the markers `<!-- MARK -->` and `<!-- /MARK -->`, each on a line of its own."""
    before = page.read_text()
    found = re.search(rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)", before, re.S)
    assert found, f"{page} has no place for the table: <!-- {mark} -->"
    page.write_text(before[: found.end(1)] + text + before[found.start(2) :])
