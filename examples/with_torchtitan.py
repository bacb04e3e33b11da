"""A loop like torchtitan's: `torchrun --nproc-per-node 2 examples/with_torchtitan.py PACK FOLDER`.

torchtitan counts steps, draws from an endless iterator, and saves a dict of parts that have a state, "dataloader" and
"train_state" among them, by torch.distributed.checkpoint. The loader is such a part as it is. Its state is the same on
all ranks, so that a run goes on with another number of them, as long as the global batch stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from command_line import arguments
from torch import nn
from torch.distributed.checkpoint.stateful import Stateful
from torch.nn.parallel import DistributedDataParallel

import pass_loader
from pass_loader import recipes


class Trainer(Stateful):
    """A stand-in for a method, and its run in a folder: two views of a picture shall give the same features."""

    def __init__(self, pack: str, folder: str, batch_size: int = 4):
        torch.manual_seed(0)  # all ranks begin with the same weights
        dataset = pass_loader.ShardDataset(pack, recipes.mocov2(), seed=0)
        self.dataloader: pass_loader.DataLoader[Any] = pass_loader.DataLoader(
            dataset, batch_size, shuffle=True, num_workers=2, drop_last=True
        )
        self.model = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(), nn.Linear(8 * 14 * 14, 8))
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01)  # has no state, else it is a part too
        self.step, self.folder = 0, Path(folder)
        self.states = {"model": self.model, "dataloader": self.dataloader, "train_state": self}

    def state_dict(self) -> dict[str, Any]:
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = int(state_dict["step"])

    def batches(self) -> Iterator[Any]:
        """Yield batches of epoch behind epoch."""
        while True:
            self.dataloader.sampler.set_epoch(self.step // len(self.dataloader))  # a resumed loader keeps its place
            yield from self.dataloader

    def train(self, steps: int, interval: int = 500) -> None:
        """Train up to so many steps, from the last checkpoint on; save every `interval` steps."""
        saved = [int(place.name[5:]) for place in self.folder.glob("step-*")]
        if saved:
            dcp.load(self.states, checkpoint_id=self.folder / f"step-{max(saved)}")
        model = DistributedDataParallel(self.model) if dist.is_initialized() else self.model
        batches = self.batches()
        while self.step < steps:
            (first, second), _ = next(batches)
            loss = (model(first) - model(second)).pow(2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.step += 1
            if self.step % interval == 0:
                dcp.save(self.states, checkpoint_id=self.folder / f"step-{self.step}")


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    dist.init_process_group("gloo")
    trainer = Trainer(pack, folder)
    trainer.train(8, interval=4)
    print(f"rank {dist.get_rank()}: step {trainer.step}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
