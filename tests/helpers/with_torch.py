"""torch and what needs it, for rooms whose other tests run without: `make wheels` runs those where no torch is."""

from __future__ import annotations

from typing import Any

import pytest

try:
    import torch
    from pass_loader import DataLoader, ShardDataset
except ImportError:
    torch: Any = None  # type: ignore[no-redef]
    DataLoader = ShardDataset = object  # type: ignore[misc,assignment]

needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")

__all__ = ["DataLoader", "ShardDataset", "needs_torch", "torch"]
