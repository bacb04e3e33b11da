"""A tiny configuration of solo-learn, whose clone is on the path."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

TINY = """
defaults:
  - _self_
  - override hydra/hydra_logging: disabled
  - override hydra/job_logging: disabled
hydra:
  output_subdir: null
  run: {dir: .}
name: test
method: simclr
backbone: {name: resnet18}
method_kwargs: {proj_hidden_dim: 16, proj_output_dim: 8, temperature: 0.2}
data: {dataset: imagenet100, train_path: x, val_path: null, format: dali, num_workers: 1}
optimizer: {name: sgd, batch_size: 4, lr: 0.3, classifier_lr: 0.1, weight_decay: 1e-4}
scheduler: {name: warmup_cosine}
checkpoint: {enabled: True, dir: FOLDER, frequency: 1}
auto_resume: {enabled: False}
resume_from_checkpoint: null
max_epochs: 1
devices: "1"
accelerator: cpu
strategy: auto
enable_progress_bar: False
augmentations:
  - rrc: {enabled: True, crop_min_scale: 0.2, crop_max_scale: 1.0}
    color_jitter: {prob: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1}
    grayscale: {prob: 0.2}
    gaussian_blur: {prob: 0.5}
    solarization: {prob: 0.1}
    equalization: {prob: 0.0}
    horizontal_flip: {prob: 0.5}
    crop_size: 32
    num_crops: 2
"""


def clone_and_config(folder: Path) -> list[str]:
    """Return where solo-learn's clone is, and a tiny configuration of it that writes into a folder."""
    text = TINY.replace("FOLDER", str(folder / "trained"))
    if find_spec("nvidia.dali") is None:
        text = text.replace("format: dali, ", "")
    (folder / "tiny.yaml").write_text(text)
    spec = find_spec("solo")
    assert spec is not None and spec.origin is not None
    return [str(Path(spec.origin).parents[1]), str(folder / "tiny.yaml")]
