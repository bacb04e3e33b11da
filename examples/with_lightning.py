"""Lightning: `python examples/with_lightning.py PACK FOLDER`.

`PassDataModule` gives a Trainer this loader, on one device or several: it deals to ranks itself, and Lightning leaves
it as it is. Its place is in every checkpoint, so that a run that was cut off goes on in mid-epoch when it starts again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from command_line import arguments
from torch import nn

import pass_loader
from pass_loader import recipes

try:
    import lightning.pytorch as pl
except ImportError:  # the same package under its older name
    import pytorch_lightning as pl  # type: ignore[no-redef]


class Batches:
    """What Lightning asks of a loader. It has no `dataset`: of an IterableDataset with a length Lightning warns, since
    worker processes might repeat its samples, and there are none here. Without `state_dict` it warns too."""

    def __init__(self, loader: pass_loader.DataLoader[Any]):
        self.loader, self.sampler = loader, loader.sampler  # Lightning calls the sampler's set_epoch

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)


class PassDataModule(pl.LightningDataModule):
    """Training batches of a pack. recipe: of the views. options: of pass_loader.DataLoader, batch_size among them.

    The loader's place is this module's state in checkpoints. As the loader's own state alone, Lightning would not bring
    it back where the model asks for `estimated_stepping_batches`, as schedules of learning rates do.
    """

    batches: type[Batches] = Batches

    def __init__(self, pack: str, recipe: pass_loader.Recipe, seed: int = 0, **options: Any):
        super().__init__()
        self.dataset = pass_loader.ShardDataset(pack, recipe, seed=seed)
        self.loader: pass_loader.DataLoader[Any] | None = None
        self.options: dict[str, Any] = {"shuffle": True, "drop_last": True, **options}
        self.place: dict[str, Any] = {}

    def train_dataloader(self) -> Batches:
        self.loader = pass_loader.DataLoader(self.dataset, **self.options)
        if self.place:
            self.loader.load_state_dict(self.place)
            self.place = {}
        return self.batches(self.loader)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict() if self.loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.place = state_dict  # Lightning does this before it asks for the loader


class Model(pl.LightningModule):
    """A stand-in for a method: two views of a picture shall give the same features."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(), nn.Linear(8 * 14 * 14, 8))

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        (first, second), _ = batch
        return (self.network(first) - self.network(second)).pow(2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters())


def fit(model: pl.LightningModule, data: PassDataModule, folder: str, every: int = 1000, **options: Any) -> None:
    """Train, with a checkpoint after every so many steps; go on at the last one where there is one. options: of a
    Trainer."""
    saved = pl.callbacks.ModelCheckpoint(folder, save_last=True, every_n_train_steps=every)
    callbacks = [saved, *options.pop("callbacks", [])]
    trainer = pl.Trainer(default_root_dir=folder, callbacks=callbacks, logger=False, **options)
    last = Path(folder, "last.ckpt")
    trainer.fit(model, data, ckpt_path=str(last) if last.exists() else None)


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    data = PassDataModule(pack, recipes.mocov2(), batch_size=4, num_workers=2)
    fit(Model(), data, folder, max_epochs=2)


if __name__ == "__main__":
    main()
