"""One training run in a process of its own: `python -m benchmarks.proof.run --help`.

A line of JSON for each step goes to --out: the step, the loss as hexadecimal float, the SHA-256 of the batch. The last
line has the SHA-256 of all weights.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pass_loader import DataLoader, ShardDataset

from .dino import Dino
from .mae import Mae
from .method import BATCH_SIZE, Method, Schedule
from .moco import Moco
from .networks import SIZES
from .swav import Swav

METHODS: dict[str, type[Method]] = {"dino": Dino, "swav": Swav, "mocov2": Moco, "mae": Mae}
SEED = 7  # of the views


def flat(batch: Any) -> list[torch.Tensor]:
    """Return all tensors of a batch in order."""
    return [batch] if isinstance(batch, torch.Tensor) else [tensor for part in batch for tensor in flat(part)]


def digest_of(batch: Any) -> str:
    """Return the SHA-256 of a batch: types, shapes and bytes of all its tensors."""
    digest = hashlib.sha256()
    for tensor in flat(batch):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()


def spoil(batch: Any, dataset: ShardDataset) -> None:
    """Change one value of the first view by one level."""
    view = flat(batch)[0]
    levels = torch.from_numpy(dataset.recipe.normalize_table()[0])
    level = int((levels - view[0, 0, 100, 100]).abs().argmin())
    assert levels[level] == view[0, 0, 100, 100]
    view[0, 0, 100, 100] = levels[level + 1 if level < 255 else level - 1]


class Run:
    """A run over a number of steps, by one of the two loaders."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        method = METHODS[options.method]
        self.dataset = ShardDataset(options.pack, method.recipe, seed=SEED)
        self.steps_per_epoch = len(self.dataset) // options.batch_size
        if not self.steps_per_epoch:
            raise ValueError(f"{len(self.dataset)} pictures are less than a batch of {options.batch_size}")
        epochs = max(2, -(-options.steps // self.steps_per_epoch))
        torch.manual_seed(0)
        self.model = method(Schedule(options.batch_size, self.steps_per_epoch, epochs), SIZES[options.networks])
        self.begin = 0
        self.loader: Any
        if options.loader == "official":
            from .official import OfficialLoader  # torchvision

            self.loader = OfficialLoader(str(options.pictures), self.dataset, options.batch_size)
        else:
            self.loader = DataLoader(
                self.dataset, options.batch_size, shuffle=True, num_workers=options.threads, drop_last=True
            )
        if options.resume:
            saved = torch.load(options.checkpoint, weights_only=True)
            self.begin = saved["step"]
            self.model.restore(saved["training"])
            self.loader.load_state_dict(saved["loader"])

    def batches(self) -> Iterator[Any]:
        """Yield the batches from the first step that is left."""
        for epoch in itertools.count(self.begin // self.steps_per_epoch):
            set_epoch = self.loader.set_epoch if self.options.loader == "official" else self.loader.sampler.set_epoch
            set_epoch(epoch)
            yield from self.loader

    def go(self) -> None:
        options = self.options
        with open(options.out, "a") as out:
            for step, batch in zip(range(self.begin, options.steps), self.batches()):
                if step == options.spoil:
                    spoil(batch, self.dataset)
                loss = self.model.train_step(batch, step)
                line = {"step": step, "loss": float(loss).hex(), "batch": digest_of(batch)}
                if step + 1 in options.save_after:
                    self._save(step + 1)
                print(json.dumps(line), file=out, flush=True)
                if step + 1 == options.wait_after:
                    time.sleep(60)  # for the kill
            print(json.dumps({"weights": self.model.digest()}), file=out, flush=True)

    def _save(self, step: int) -> None:
        saved = {"step": step, "training": self.model.everything(), "loader": self.loader.state_dict()}
        new = Path(f"{self.options.checkpoint}.new")
        torch.save(saved, new)
        os.replace(new, self.options.checkpoint)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, required=True)
    add_core(parser)
    parser.add_argument("--loader", choices=("official", "ours"), required=True)
    parser.add_argument("--pictures", type=Path, help="the folder that the pack was made of")
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--networks", choices=SIZES, default="small")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    parser.add_argument("--threads", type=int, default=2, help="of our loader")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--save-after", type=int, nargs="*", default=[], metavar="STEPS",
                        help="how many steps are done when the run is saved")  # fmt: skip
    parser.add_argument("--wait-after", type=int, default=0, metavar="STEPS",
                        help="how many steps are done when the run waits for its kill, a minute at most")  # fmt: skip
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--spoil", type=int, default=-1, help="the step whose batch has one value changed by one level")
    return parser


def add_core(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--core", type=int, default=min(os.sched_getaffinity(0)),
                        help="where the thread that trains, or renders alone, is pinned")  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    os.sched_setaffinity(0, {options.core})  # threads that begin later stay there too
    Run(options).go()


if __name__ == "__main__":
    main()
