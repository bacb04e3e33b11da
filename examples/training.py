"""What the training examples share: ranks, checkpoints, a log."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from command_line import at_least, multiple_of, pack

import pass_loader


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=pack, required=True, help="a directory or a URL")
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoint and log; a run that was cut off goes on there"
    )
    parser.add_argument("--epochs", type=at_least(1), default=100)
    parser.add_argument("--batch-size", type=at_least(1), default=64, help="of each GPU")
    parser.add_argument(
        "--workers", type=at_least(0), default=7, help="threads of each GPU; a core is left for the loop"
    )
    parser.add_argument("--order", choices=("torch", "permute", "blocks"), default="torch", help="blocks: for storage "
                        "that reads in large blocks, as mounted object stores do")  # fmt: skip
    parser.add_argument("--dim", type=multiple_of(32), default=384, help="width of the network, a multiple of 32")
    parser.add_argument("--depth", type=at_least(1), default=12, help="blocks of the network")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--save-every", type=at_least(1), default=1000, help="steps")
    parser.add_argument("--log-every", type=at_least(1), default=50, help="steps")
    return parser


def start() -> torch.device:
    """Join the ranks that torchrun started, and return this rank's device."""
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    torch.manual_seed(0)  # all ranks begin with the same weights
    if not on_gpu:
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda")


def make_loader(options: argparse.Namespace, recipe: pass_loader.Recipe) -> pass_loader.DataLoader[Any]:
    return pass_loader.DataLoader(
        pass_loader.ShardDataset(options.pack, recipe, seed=0), options.batch_size, shuffle=True, order=options.order,
        num_workers=options.workers, drop_last=True, pin_memory=torch.cuda.is_available(),
    )  # fmt: skip


class Checkpoint:
    """The state of a run in one file, written by rank 0 and read by all."""

    def __init__(self, folder: Path, loader: pass_loader.DataLoader[Any], **parts: Any):
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.loader, self.parts = folder / "checkpoint.pt", loader, parts

    def save(self, step: int) -> None:
        """Save what comes after `step` steps. The loader's state is the same on all ranks."""
        if dist.get_rank() == 0:
            states = {name: part.state_dict() for name, part in self.parts.items()}
            torch.save({"step": step, "loader": self.loader.state_dict(), **states}, f"{self.path}.new")
            os.replace(f"{self.path}.new", self.path)  # whoever is killed meanwhile leaves the one before

    def restore(self) -> int:
        """Bring everything back, and return how many steps were done; 0 where there is no checkpoint."""
        if not self.path.exists():
            return 0
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.loader.load_state_dict(saved["loader"])
        return saved["step"]


class Log:
    """A line of JSON every so many steps, by rank 0: the loss, and what the loader says of itself."""

    def __init__(self, folder: Path, every: int):
        self.path, self.every = folder / "log.jsonl", every

    def step(self, step: int, loss: torch.Tensor, loader: pass_loader.DataLoader[Any]) -> None:
        if dist.get_rank() or step % self.every:
            return
        stats = loader.stats()
        shown = {name: stats[name] for name in ("samples_per_second", "data_wait", "busy", "errors", "advice")}
        with open(self.path, "a") as file:
            print(json.dumps({"step": step, "loss": loss.item(), **shown}), file=file)
