"""torch.distributed.checkpoint: `torchrun --nproc-per-node 2 examples/with_distributed_checkpoint.py PACK FOLDER`.

The loader has `state_dict` and `load_state_dict`, which is all that it asks of a part of a checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from command_line import arguments

import pass_loader
from pass_loader import recipes


def make(pack: str, batch_size: int = 4) -> pass_loader.DataLoader[Any]:
    dataset = pass_loader.ShardDataset(pack, recipes.mocov2(), seed=0)
    return pass_loader.DataLoader(dataset, batch_size, shuffle=True, num_workers=2, drop_last=True)


def save(loader: pass_loader.DataLoader[Any], folder: str, **others: Any) -> None:
    """Save the loader's place beside a model and an optimiser."""
    dcp.save({"loader": loader, **others}, checkpoint_id=folder)


def load(loader: pass_loader.DataLoader[Any], folder: str, **others: Any) -> None:
    """The next `for` goes on with the next batch, on another number of ranks too."""
    dcp.load({"loader": loader, **others}, checkpoint_id=folder)


def main() -> None:
    pack, folder = arguments(__doc__, "folder")
    dist.init_process_group("gloo")
    loader = make(pack)
    for number, _ in enumerate(loader):
        if number == 1:
            save(loader, folder)
            break
    again = make(pack)
    load(again, folder)
    print(f"rank {dist.get_rank()}: {len(list(again))} batches are left")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
