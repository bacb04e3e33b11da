"""How far torchvision's GaussianBlur is from itself: python -m benchmarks.official_objects.blur_levels

The same noise and the same sigmas, on one machine, at two levels of torch's own kernels (ATEN_CPU_CAPABILITY), each in
a process of its own: v2's on tensors, and v1's on PIL pictures.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..torchvision_cpu import torchvision  # noqa: F401  (declares operators)

PICTURES, SIDE, TAPS = 200, 224, 9
LEVELS = ("default", "avx2")


def blur_all(out: Path) -> None:
    from torchvision.transforms import functional as v1
    from torchvision.transforms.v2 import functional as v2

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    sigmas = rng.uniform(0.1, 2.0, PICTURES).tolist()
    tensor, picture = torch.from_numpy(noise).permute(2, 0, 1), Image.fromarray(noise)
    made = {
        "v2 on tensors": [v2.gaussian_blur(tensor, [TAPS] * 2, [sigma] * 2).numpy() for sigma in sigmas],
        "v1 on PIL pictures": [np.asarray(v1.gaussian_blur(picture, [TAPS] * 2, [sigma] * 2)) for sigma in sigmas],
    }
    np.savez(out, **{name: np.stack(views) for name, views in made.items()})


def main() -> None:
    if len(sys.argv) == 2:
        return blur_all(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for level in LEVELS:
            path = Path(folder, f"{level}.npz")
            environment = {**os.environ, "ATEN_CPU_CAPABILITY": level}
            subprocess.run([sys.executable, "-m", __spec__.name, str(path)], env=environment, check=True)
            found.append(np.load(path))
        for name in found[0].files:
            one, other = (views[name].astype(np.int16) for views in found)
            apart = np.abs(one - other)
            print(f"{name}: {(apart > 0).sum()} of {apart.size / 1e6:.0f} million bytes differ between "
                  f"{' and '.join(LEVELS)}, by at most {apart.max()}")  # fmt: skip


if __name__ == "__main__":
    main()
