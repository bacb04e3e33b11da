"""The instruction-set levels of this machine."""

from __future__ import annotations

from collections.abc import Iterator

from pass_loader import _C


def every_level() -> Iterator[str]:
    """Set one level after another, and the best one at the end: what costs much and is equal for all is done once."""
    try:
        for level in _C.supported_isas():
            _C.set_isa(level)
            yield level
    finally:
        _C.set_isa("best")
