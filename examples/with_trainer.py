"""Hugging Face's Trainer: `torchrun --nproc-per-node 2 examples/with_trainer.py PACK FOLDER`.

A Trainer whose batches come from our loader. The loader deals to ranks itself and keeps its own place: it is saved
with each checkpoint, and Trainer is told not to skip batches when it resumes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from command_line import arguments
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

import pass_loader
from pass_loader import recipes


class SetEpoch(TrainerCallback):
    """Tells the loader which epoch begins; a resumed loader keeps its place in its own. Trainer's own number of the
    epoch lags after it was resumed in mid-epoch."""

    def __init__(self, loader: pass_loader.DataLoader[Any]):
        self.loader = loader

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        batches = state.global_step * args.gradient_accumulation_steps
        self.loader.sampler.set_epoch(batches // len(self.loader))


class PackTrainer(Trainer):
    """Trains on (views, labels) of a loader."""

    def __init__(self, loader: pass_loader.DataLoader[Any], **arguments: Any):
        super().__init__(train_dataset=loader.dataset, **arguments)
        self.loader = loader
        self.add_callback(SetEpoch(loader))

    def get_train_dataloader(self) -> Any:
        return self.loader

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        (first, second), _ = inputs  # of MoCo's recipe
        loss = (model(first) - model(second)).pow(2).mean()
        return (loss, None) if return_outputs else loss

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        super()._save_checkpoint(*arguments, **named)
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
            (folder / "loader.json").write_text(json.dumps(self.loader.state_dict()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.loader.load_state_dict(json.loads(Path(resume_from_checkpoint, "loader.json").read_text()))


def make(pack: str, folder: str, model: nn.Module, batch_size: int = 4, **arguments: Any) -> PackTrainer:
    """Return a trainer of a model that takes pictures."""
    dataset = pass_loader.ShardDataset(pack, recipes.mocov2(), seed=0)
    loader = pass_loader.DataLoader(dataset, batch_size, shuffle=True, num_workers=2, drop_last=True)
    settings = TrainingArguments(
        folder, per_device_train_batch_size=batch_size, ignore_data_skip=True, report_to=[], **arguments
    )
    return PackTrainer(loader, model=model, args=settings)


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    model = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(), nn.LazyLinear(8))
    model(torch.zeros(1, 3, 224, 224))
    make(pack, folder, model, num_train_epochs=2, save_steps=2).train()


if __name__ == "__main__":
    main()
