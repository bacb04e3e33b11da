"""lightly-train: `python examples/with_lightly_train.py PACK FOLDER`. Its `pretrain`, its SimCLR, and this loader.

`pretrain` takes folders of pictures and makes its DataLoader itself; its transforms are albumentations'. So two of its
functions are replaced while it runs, the one that opens the folders and the one that makes the DataLoader, and a recipe
takes the place of the transform. Written for lightly-train 0.18.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lightly_train
import torch
from command_line import arguments
from with_lightning import Batches

import pass_loader
from pass_loader import recipes

MODEL = "timm/test_resnet"  # a small one; lightly-train lists more


class Named(Batches):
    """A loader as lightly-train's methods take it: batches are {"filename": ids, "views": views}."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for views, _, info in self.loader:
            yield {"filename": info["ids"], "views": views}


def pretrain(pack: str, recipe: pass_loader.Recipe, **options: Any) -> None:
    """Call lightly_train.pretrain with batches of a pack. recipe: with the batch structure views_labels and the
    views that the method wants, two for simclr.
    options: of lightly_train.pretrain, but `data`; num_workers are threads."""

    def get_dataset(**_: Any) -> pass_loader.ShardDataset:
        return pass_loader.ShardDataset(pack, recipe, seed=0)

    def get_dataloader(dataset: pass_loader.ShardDataset, batch_size: int, num_workers: int, **_: Any) -> Named:
        loader = pass_loader.DataLoader(
            dataset, batch_size, shuffle=True, num_workers=num_workers, drop_last=True, return_info=True,
            pin_memory=torch.cuda.is_available(),
        )  # fmt: skip
        if options.get("resume_interrupted"):  # Lightning does not, as the learning rate asks for the length before
            saved = torch.load(Path(options["out"], "checkpoints", "last.ckpt"), "cpu", weights_only=False)
            loader.load_state_dict(saved["loops"]["fit_loop"]["state_dict"]["combined_loader"][0])
        return Named(loader)

    commands = "lightly_train._commands."
    with (
        mock.patch(commands + "common_helpers.get_dataset", get_dataset),
        mock.patch(commands + "train_helpers.get_dataloader", get_dataloader),
    ):
        lightly_train.pretrain(data=pack, **options)


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    pretrain(pack, recipes.mocov2(), out=folder, model=MODEL, method="simclr", epochs=1, batch_size=4, num_workers=2)


if __name__ == "__main__":
    main()
