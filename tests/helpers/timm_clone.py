"""A tiny configuration of timm's train.py, whose clone is on the path."""

from __future__ import annotations

import sys
from pathlib import Path

TINY = """
model: resnet10t
num_classes: 2
input_size: [3, 32, 32]
batch_size: 4
epochs: 2
workers: 1
device: cpu
opt: sgd
lr: 0.1
warmup_epochs: 0
aa: rand-m9-mstd0.5-inc1
reprob: 0.25
val_split: ""
output: FOLDER
experiment: trained
"""


def find_clone() -> Path | None:
    """Return where timm's repository is on the path, or None."""
    return next((Path(one) for one in sys.path if Path(one, "timm").is_dir() and Path(one, "train.py").is_file()), None)


def config_in(folder: Path, **given: object) -> str:
    """Return the path of a tiny configuration that writes into a folder. given: values that replace its own."""
    lines = TINY.replace("FOLDER", str(folder)).splitlines()
    own = dict(line.split(": ", 1) for line in lines if line)
    (folder / "tiny.yaml").write_text("".join(f"{name}: {value}\n" for name, value in {**own, **given}.items()))
    return str(folder / "tiny.yaml")
