"""The examples of other libraries on two ranks: each gets its share of our loader used directly, and no more."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pass_loader import DataLoader, ShardDataset, recipes

from ..helpers.processes import on_ranks

ROOT = Path(__file__).parents[2]
WORLD = 2
pytestmark = pytest.mark.long  # `make company` runs them


def digests(views: list[torch.Tensor]) -> list[str]:
    return [hashlib.sha256(view.contiguous().numpy()).hexdigest() for view in views]


def checkpoint(pack: str, folder: Path) -> list[list[str]]:
    """An epoch, and a checkpoint after the first step."""
    from examples import with_distributed_checkpoint as example

    loader, seen = example.make(pack), []
    for views, _ in loader:
        seen.append(digests(views))
        if len(seen) == 1:
            example.save(loader, str(folder / "dcp"))
    return seen


def torchtitan(pack: str, folder: Path) -> list[list[str]]:
    """An epoch, and a checkpoint after the first and the third step."""
    from examples import with_torchtitan as example

    trainer, seen = example.Trainer(pack, str(folder / "titan")), []
    trainer.model.register_forward_pre_hook(lambda _, given: seen.append(digests([given[0]])[0]))
    trainer.train(1, interval=1)
    trainer.train(3, interval=3)
    return [[*pair] for pair in zip(seen[::2], seen[1::2])]


def lightning(pack: str, folder: Path) -> list[list[str]]:
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  torchmetrics imports it
    from examples import with_lightning as example

    seen = []

    class Seeing(example.Model):
        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            seen.append(digests(batch[0]))
            return super().training_step(batch, number)

    data = example.PassDataModule(pack, recipes.mocov2(), batch_size=4, num_workers=1)
    example.fit(Seeing(), data, str(folder / "lightning"), max_epochs=1, accelerator="cpu", devices=WORLD,
                strategy="ddp", enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    return seen


def accelerate(pack: str, folder: Path) -> list[list[str]]:
    from examples import with_accelerate as example

    accelerator, loader = example.make(pack)
    assert (accelerator.num_processes, accelerator.process_index) == (WORLD, dist.get_rank())
    return [digests(views) for views, _ in accelerator.prepare(loader)]


def transformers(pack: str, folder: Path) -> list[list[str]]:
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  transformers imports it
    from examples import with_trainer as example

    model, seen = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 16, 16), torch.nn.Flatten()), []
    model.register_forward_pre_hook(lambda _, given: seen.append(digests([given[0]])[0]))
    trainer = example.make(pack, str(folder / "trainer"), model, num_train_epochs=1, use_cpu=True, save_strategy="no",
                           disable_tqdm=True)  # fmt: skip
    assert trainer.args.world_size == WORLD
    trainer.train()
    return [[*pair] for pair in zip(seen[::2], seen[1::2])]


CASES = {checkpoint: "torch", torchtitan: "torch", lightning: "pytorch_lightning", accelerate: "accelerate",
         transformers: "transformers"}  # fmt: skip


def installed(case: Any) -> bool:
    return find_spec(CASES[case]) is not None and (case is not transformers or find_spec("accelerate") is not None)


def run_all(rank: int, world: int, pack: str, folder: Path) -> dict[str, list[list[str]]]:
    """Returns the views that a rank gets in an epoch, by the name of the case."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world),
                      TORCHELASTIC_RUN_ID="test", ACCELERATE_USE_CPU="true")  # fmt: skip
    sys.path.insert(0, str(ROOT / "examples"))
    dist.init_process_group("gloo")
    return {case.__name__: case(pack, folder) for case in CASES if installed(case)}


@pytest.fixture(scope="module")
def runs(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, list[list[str]]]]]:
    folder = tmp_path_factory.mktemp("ranks")
    return folder, on_ranks(run_all, str(pack), folder, world=WORLD)


def share(pack: Path, rank: int) -> list[list[str]]:
    """Return the views that our loader gives a rank in an epoch."""
    loader = DataLoader(
        ShardDataset(pack, recipes.mocov2(), seed=0), 4, shuffle=True, drop_last=True, rank=rank, world_size=WORLD
    )
    return [digests(views) for views, _ in loader]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_shares(case: Any, runs: tuple[Path, Any], pack: Path) -> None:
    if not installed(case):
        pytest.skip(f"{CASES[case]} is not installed")
    for rank, found in enumerate(runs[1]):
        want = share(pack, rank)
        assert len(want) == 3 and found[case.__name__] == want


def test_a_checkpoint_on_another_number_of_ranks(
    runs: tuple[Path, Any], pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two ranks saved goes on with one, which gets the batches of both: to the end of their epoch."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from examples import with_distributed_checkpoint, with_torchtitan

    def parts(batches: list[list[torch.Tensor]]) -> list[list[list[str]]]:
        """Return, of each rank, what would be its batches."""
        return [[digests([view[rank::WORLD] for view in views]) for views in batches] for rank in range(WORLD)]

    loader = with_distributed_checkpoint.make(str(pack), 8)
    with_distributed_checkpoint.load(loader, str(runs[0] / "dcp"))
    assert parts([views for views, _ in loader]) == [found["checkpoint"][1:] for found in runs[1]]
    (runs[0] / "titan" / "step-3").rename(runs[0] / "after")
    trainer, seen = with_torchtitan.Trainer(str(pack), str(runs[0] / "titan"), 8), []
    trainer.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    trainer.train(3)
    assert trainer.step == 3
    assert parts([seen[:2], seen[2:]]) == [found["torchtitan"][1:] for found in runs[1]]
