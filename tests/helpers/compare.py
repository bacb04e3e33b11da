from __future__ import annotations

import numpy as np
import PIL

# Before 12.3 Pillow writes the two bytes of a 16-bit value each by itself, as CLIP8(value % 256) and CLIP8(value >> 8),
# so that 65536 + x becomes 65280 + x where a filter overshoots. Resample.c; python-pillow/Pillow#9480 clips the value.
PILLOW_WRAPS = tuple(map(int, PIL.__version__.split(".")[:2])) < (12, 3)


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
