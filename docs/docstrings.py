"""The docstrings of this project as reStructuredText: lines that begin with `name:` become a list of arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator

# "name:", "one, two:", "records or ids:", at the beginning of a line; "Raises ValueError: ..." is none.
ARGUMENT = re.compile(r"^([a-z_]\w*(?:(?:, | or | and )[a-z_]\w*)*): (?=\S)")
AFTER = re.compile(r"^(Raises|Returns) ")  # ends the last argument
PAGE = re.compile(r"\bdocs/([\w-]+)\.md\b")
CODE = re.compile(r"(`[^`]+`)")


def to_rst(lines: list[str]) -> list[str]:
    """Return a docstring's lines, dedented as autodoc gives them, as reStructuredText."""
    found: list[str] = []
    for paragraph in _paragraphs(lines):
        if paragraph[0].startswith(">>>"):
            found += [*paragraph, ""]
        else:
            for item in _items(paragraph):
                found += [*item, ""]
    return found


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines between blank ones."""
    run: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            run.append(line)
        elif run:
            yield run
            run = []


def _items(paragraph: list[str]) -> Iterator[list[str]]:
    """The text before the first argument, an item for each argument with what follows it, the text after them."""
    text: list[str] = []
    item = False
    for line in [*paragraph, None]:
        match = ARGUMENT.match(line) if line is not None else None
        after = item and line is not None and AFTER.match(line)
        if (line is None or match or after) and text:
            yield [f"- {text[0]}", *(f"  {more}" for more in text[1:])] if item else text
            text = []
        if line is not None:
            item = not after and (item or match is not None)
            body = _escaped(line.strip()[match.end() :] if match else line.strip())
            text.append(f"**{match[1].replace('_', chr(92) + '_')}**: {body}" if match else body)


def _escaped(line: str) -> str:
    """Keep what reStructuredText would take for mark-up, outside of code; pages become links."""
    parts = CODE.split(line)
    for place in range(0, len(parts), 2):
        plain = re.sub(r"([*|\\])", r"\\\1", parts[place])
        plain = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", plain)
        parts[place] = PAGE.sub(r":doc:`\1 </\1>`", plain)
    return "".join(parts)
