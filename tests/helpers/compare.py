from __future__ import annotations

import numpy as np


def assert_pixels_equal(found: np.ndarray, want: np.ndarray, what: object = "") -> None:
    """Demand equal bytes; otherwise tell the worst pixel and its place."""
    assert found.shape == want.shape, f"{what}: shape {found.shape}, want {want.shape}"
    difference = np.abs(found.astype(np.int32) - want.astype(np.int32))
    if difference.any():
        worst = np.unravel_index(difference.argmax(), difference.shape)
        raise AssertionError(
            f"{what}: {np.count_nonzero(difference)} of {difference.size} values differ; "
            f"worst at {tuple(map(int, worst))}: {found[worst]}, want {want[worst]}"
        )
