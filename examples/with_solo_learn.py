"""solo-learn: `python examples/with_solo_learn.py PACK SOLO_LEARN CONFIG`. Its main_pretrain.py, and this loader.

SOLO_LEARN is a clone of its repository, CONFIG one of the YAML files of scripts/pretrain there. Two functions of
solo-learn, which main_pretrain.py imports, are replaced: the one that opens its dataset by one that opens the pack, and
the one that makes its DataLoader. The recipe is made of the transform that solo-learn makes of CONFIG.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from command_line import arguments
from with_lightning import Batches

import pass_loader


class Indexed(Batches):
    """A loader as solo-learn's methods take it: batches are indices of pictures, here records, then views, then labels.

    With `data.dataset: custom`, solo-learn counts the folders at the path as classes, of which a pack has none; then
    the labels are -1, which it leaves out.
    """

    def __init__(self, loader: pass_loader.DataLoader[Any], labelled: bool):
        super().__init__(loader)
        self.labelled = labelled

    def __iter__(self) -> Iterator[Any]:
        for views, labels, info in self.loader:
            yield [info["records"], views, labels if self.labelled else torch.full_like(labels, -1)]


class Pack(pass_loader.ShardDataset):
    """A pack in place of solo-learn's dataset. It remembers whether its labels are asked for."""

    labelled = True


def prepare_datasets(dataset: str, transform: Any, train_data_path: str, **_: Any) -> Pack:
    """Return a pack with solo-learn's transform, in place of a dataset of folders."""
    pack = Pack(train_data_path, pass_loader.Recipe.from_torchvision(transform), seed=0)
    pack.labelled = dataset != "custom"
    return pack


def prepare_dataloader(train_dataset: Pack, batch_size: int = 64, num_workers: int = 4) -> Indexed:
    """Return a loader of batches as solo-learn has them, in place of torch's. num_workers: threads."""
    loader = pass_loader.DataLoader(
        train_dataset, batch_size, shuffle=True, num_workers=num_workers, drop_last=True, return_info=True,
        pin_memory=torch.cuda.is_available(),
    )  # fmt: skip
    return Indexed(loader, train_dataset.labelled)


def main() -> None:
    pack, solo_learn, config = arguments(__doc__, "solo_learn", "config")
    sys.path.insert(0, solo_learn)
    from solo.data import pretrain_dataloader as theirs

    theirs.prepare_datasets, theirs.prepare_dataloader = prepare_datasets, prepare_dataloader
    file, place = Path(config).resolve(), pack if "://" in pack else Path(pack).resolve()
    sys.argv = ["main_pretrain.py", "--config-path", str(file.parent), "--config-name", file.name]
    sys.argv += [f"data.train_path='{place}'", "data.format=image_folder"]
    runpy.run_path(str(Path(solo_learn, "main_pretrain.py")), run_name="__main__")


if __name__ == "__main__":
    main()
