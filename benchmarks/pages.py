"""Tables that benchmarks print, put into the pages of the documentation."""

from __future__ import annotations

import re
from pathlib import Path


def place_of(page: Path, mark: str) -> re.Match[str]:
    """Find the place of a table in a page; fails where there is none."""
    found = re.search(rf"(<!-- {mark} -->\n).*?(\n<!-- /{mark} -->)", page.read_text(), re.S)
    assert found, f"{page} has no place for the table: <!-- {mark} -->"
    return found


def write_between(page: Path, mark: str, text: str) -> None:
    """Put the text between the markers `<!-- MARK -->` and `<!-- /MARK -->`, each on a line of its own."""
    found = place_of(page, mark)
    page.write_text(found.string[: found.end(1)] + text + found.string[found.start(2) :])
