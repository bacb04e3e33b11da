"""Plans executed on any picture. Works without torch and pyarrow."""

from __future__ import annotations

import numpy as np

from .. import _C


def render_plan(pixels: np.ndarray, plan: np.ndarray) -> list[np.ndarray]:
    """Execute plan rows on a picture.

    pixels: (height, width, 3) uint8 RGB, or gray of (height, width, 1), uint8 or uint16. plan: rows of
    pass_loader.plan_dtype or a recipe's plan_dtype, one or more. Returns a list of (out_height, out_width, 3 or 1) of
    the same type. Raises ValueError where a plan cannot be executed.
    """
    rows = np.atleast_1d(plan)
    steps = rows.dtype["steps"].shape[0] if "steps" in (rows.dtype.names or ()) else 0
    wanted = _C.plan_dtype(steps)
    if rows.dtype.names == wanted.names:  # np.concatenate gives a type without the padding
        rows = rows.astype(wanted, copy=False)
    elif set(wanted.names or ()) - set(rows.dtype.names or ()) == {"padding"}:  # saved before windows had any
        before, rows = rows, np.zeros(rows.shape, wanted)
        for name in before.dtype.names or ():
            rows[name] = before[name]
    return _C.render_plan(np.ascontiguousarray(pixels), np.ascontiguousarray(rows))
