"""JSON from strangers: what json.loads raises besides ValueError, and what it takes that no table can hold."""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 64  # of brackets in one another


def plain_json(data: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError with words, also for brackets deeper than MAX_DEPTH and for
    strings that are not Unicode (half a surrogate pair)."""
    too_deep = f"brackets deeper than {MAX_DEPTH} in one another"
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError(too_deep) from None
    text = data if isinstance(data, str) else data.decode("latin-1")
    if text.count("[") + text.count("{") > MAX_DEPTH:
        level = [value]
        for _ in range(MAX_DEPTH):
            level = [inner for outer in level for inner in _inner(outer)]
        if any(isinstance(outer, (dict, list)) for outer in level):
            raise ValueError(too_deep)
    if isinstance(data, bytes) and text.isascii() and "\\u" not in text and "\0" not in text:
        return value  # only an escape could be half a pair (\0: in UTF-16)
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a surrogate pair: {error.object[error.start : error.end]!a}") from None
    return value


def _inner(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
