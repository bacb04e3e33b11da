"""Hugging Face Accelerate: `accelerate launch examples/with_accelerate.py PACK FOLDER`.

The loader deals to ranks itself, so it is not given to `prepare`. Its batches are sent to the device, and its place is
part of Accelerate's checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device
from command_line import arguments

import pass_loader
from pass_loader import recipes


def make(pack: str, batch_size: int = 4) -> tuple[Accelerator, pass_loader.DataLoader[Any]]:
    """Return an Accelerator and a loader of this rank, whose place it saves and restores."""
    accelerator = Accelerator()
    dataset = pass_loader.ShardDataset(pack, recipes.mocov2(), seed=0)
    loader = pass_loader.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=2, drop_last=True,
        rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    accelerator.register_for_checkpointing(loader)
    return accelerator, loader


def batches(accelerator: Accelerator, loader: pass_loader.DataLoader[Any]) -> Iterator[Any]:
    """Yield this rank's batches on Accelerate's device."""
    for batch in loader:
        yield send_to_device(batch, accelerator.device, non_blocking=True)


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    accelerator, loader = make(pack)
    for number, (views, _) in enumerate(batches(accelerator, loader)):
        accelerator.print(number, views[0].device, tuple(views[0].shape))
        if number == 1:
            accelerator.save_state(folder)  # accelerator.load_state(folder) goes on with the next batch


if __name__ == "__main__":
    main()
