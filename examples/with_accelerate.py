"""Hugging Face Accelerate: `accelerate launch examples/with_accelerate.py PACK FOLDER`.

Accelerate's `prepare` knows torch's DataLoader alone and returns any other as it is. `Prepared` does what is missing:
its batches are on the device, and its place is part of Accelerate's checkpoints. The loader deals to ranks itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device
from command_line import arguments

import pass_loader
from pass_loader import recipes


class Prepared:
    """A loader as `prepare` makes one of torch's; `prepare` returns it as it is.

    It has no `dataset`, for which `skip_first_batches` would leave the loader out: a restored place needs no skipping.
    """

    def __init__(self, accelerator: Accelerator, loader: pass_loader.DataLoader[Any]):
        self.accelerator, self.loader = accelerator, loader
        accelerator.register_for_checkpointing(self)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield send_to_device(batch, self.accelerator.device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.loader)

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)


def make(pack: str, batch_size: int = 4) -> tuple[Accelerator, Prepared]:
    """Return an Accelerator and a loader of this rank."""
    accelerator = Accelerator()
    dataset = pass_loader.ShardDataset(pack, recipes.mocov2(), seed=0)
    loader = pass_loader.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=2, drop_last=True,
        rank=accelerator.process_index, world_size=accelerator.num_processes,
    )  # fmt: skip
    return accelerator, Prepared(accelerator, loader)


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    accelerator, loader = make(pack)
    for number, (views, _) in enumerate(loader):
        accelerator.print(number, views[0].device, tuple(views[0].shape))
        if number == 1:
            accelerator.save_state(folder)  # accelerator.load_state(folder) goes on with the next batch


if __name__ == "__main__":
    main()
