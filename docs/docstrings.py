"""The docstrings of this project as reStructuredText: what follows `name:` becomes the item of an argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from typing import Any

# "name:", "one, two:", "records or ids:".
ARGUMENT = re.compile(r"([a-z_]\w*(?:(?:, | or | and )[a-z_]\w*)*):(?: (?=\S)|$)")
SENTENCE = re.compile(r"(?<=[.;)]) (?=[a-zRA-Z_])")
AFTER = re.compile(r"(Raises|Returns|Return) ")  # begins a paragraph of its own after the arguments
PAGE = re.compile(r"\bdocs/([\w-]+)\.md\b")
CODE = re.compile(r"(`[^`]+`)")


def argument_names(thing: Any) -> set[str]:
    """Return the names of a function's or a class's arguments; none where there is no signature."""
    try:
        return {*inspect.signature(thing).parameters}
    except (TypeError, ValueError):
        return set()


def to_rst(lines: list[str], names: Collection[str]) -> list[str]:
    """Return a docstring as reStructuredText. lines: dedented, as autodoc gives them. names: the arguments."""
    found: list[str] = []
    for paragraph in _paragraphs(lines):
        if paragraph[0].startswith(">>>"):
            found += [*paragraph, ""]
        else:
            for item in _items(paragraph, names):
                found += [item, ""]
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


def _items(paragraph: list[str], names: Collection[str]) -> Iterator[str]:
    """The text before the first argument, an item for each argument, the text after the last one.

    An argument begins a line, or a sentence where its name is one of `names`.
    """
    text, in_item = "", False
    for line in paragraph:
        for place, sentence in enumerate(SENTENCE.split(line)):
            match = ARGUMENT.match(sentence)
            begins = match is not None and (place == 0 or {*re.findall(r"\w+", match[1])} - {"or", "and"} <= {*names})
            after = in_item and AFTER.match(sentence)
            if (begins or after) and text:
                yield text
                text = ""
            if begins and match is not None:
                name, in_item = match[1].replace("_", "\\_"), True
                text = f"- **{name}**: {_escaped(sentence[match.end() :].strip())}"
            else:
                in_item = in_item and not after
                text = f"{text} {_escaped(sentence.strip())}".lstrip()
    yield text


def _escaped(text: str) -> str:
    """Keep what reStructuredText would take for mark-up, outside of code; pages become links."""
    parts = CODE.split(text)
    for place in range(0, len(parts), 2):
        plain = re.sub(r"([*|\\])", r"\\\1", parts[place])
        plain = re.sub(r"(\w)_(?=\W|$)", r"\1\\_", plain)
        parts[place] = PAGE.sub(r":doc:`\1 </\1>`", plain)
    return "".join(parts)
