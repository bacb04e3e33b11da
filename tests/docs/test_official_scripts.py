"""docs/official-scripts.md: each diff is small, whole, runs, and gives the batches that the script's loop expects.

And docs/from-torchvision.md: every step stands in its table.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DistributedSampler

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision import transforms

from pass_loader import ShardDataset, drop_in, recipes
from pass_loader.loading import loader
from pass_loader.recipes import torchvision_further, torchvision_steps

from ..helpers import official_classes as official
from ..helpers.object_server import serving

DOCS = Path(__file__).parents[2] / "docs"
DOC = (DOCS / "official-scripts.md").read_text()
TRANSFORMS = (DOCS / "from-torchvision.md").read_text()
DIFFS = {re.search(r"\+\+\+ b/(\S+)", diff)[1]: diff for diff in re.findall(r"```diff\n(.*?)```", DOC, re.S)}  # type: ignore[index]
SCRIPTS = ("main_dino.py", "main_swav.py", "main_moco.py")

# What the scripts have between the lines that their diffs show.
TAIL = "sampler={0}, batch_size=args.{1}, num_workers=args.{2}, pin_memory=True, drop_last=True)"
BETWEEN = {
    "main_dino.py": ["", TAIL.format("sampler", "batch_size_per_gpu", "num_workers")],
    "main_swav.py": [
        "",
        "args.size_crops, args.nmb_crops, args.min_scale_crops, args.max_scale_crops)",
        TAIL.format("sampler", "batch_size", "workers"),
    ],
    "main_moco.py": [
        "",
        ")\nif args.distributed:\n    train_sampler = torch.utils.data.distributed.DistributedSampler(train_dataset)\n"
        "else:\n    train_sampler = None",
        "shuffle=(train_sampler is None), " + TAIL.format("train_sampler", "batch_size", "workers"),
    ],
}


def hunks(script: str) -> list[tuple[tuple[int, ...], list[str]]]:
    """(old start, old count, new start, new count) and the lines of each hunk."""
    pieces = re.split(r"^@@ -(\d+),(\d+) \+(\d+),(\d+) @@.*\n", DIFFS[script], flags=re.M)[1:]
    return [(tuple(map(int, pieces[i : i + 4])), pieces[i + 4].splitlines()) for i in range(0, len(pieces), 5)]


def test_there_is_a_diff_for_each_script() -> None:
    assert sorted(DIFFS) == sorted(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_diffs_are_small_and_whole(script: str) -> None:
    """At most three lines are added; the hunks count their lines, in the form that patch and git apply read."""
    assert DIFFS[script].startswith(f"--- a/{script}\n+++ b/{script}\n@@ ")
    moved = added = 0
    for (old_start, old_count, new_start, new_count), lines in hunks(script):
        kinds = [line[:1] or " " for line in lines]
        assert set(kinds) <= set(" +-") and kinds[0] == kinds[-1] == " "
        assert (kinds.count("+") + kinds.count(" "), kinds.count("-") + kinds.count(" ")) == (new_count, old_count)
        assert new_start == old_start + moved
        moved += new_count - old_count
        added += kinds.count("+")
    assert 1 <= added <= 3


def patched(script: str) -> str:
    """The script's data section after the diff, with what stands between its hunks."""
    parts = [textwrap.dedent("\n".join(x[1:] for x in lines if x[:1] != "-")) for _, lines in hunks(script)]
    whole = BETWEEN[script][0]
    for part, after in zip(parts, BETWEEN[script][1:], strict=True):
        whole += f"\n{part}\n{after}"
    return whole


@pytest.fixture
def one_rank() -> Iterator[None]:
    """torch.distributed as the scripts have it when they reach their data section."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def run(script: str, pack: Path, **more: Any) -> dict[str, Any]:
    """The names that the script has after its data section."""
    args = SimpleNamespace(
        data_path=str(pack), batch_size=5, batch_size_per_gpu=5, workers=2, num_workers=2, seed=3, distributed=True,
        size_crops=[64, 32], nmb_crops=[2, 3], min_scale_crops=[0.14, 0.05], max_scale_crops=[1.0, 0.14],
    )  # fmt: skip
    names: dict[str, Any] = {"torch": torch, "os": os, "args": args, "transforms": transforms, **more}
    text = patched(script)
    if script == "main_dino.py":
        # the hunk's first line ends the construction that precedes it
        names["DataAugmentationDINO"] = official.DataAugmentationDINO
        text = "transform = DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 3\n" + text.lstrip()
    if script == "main_moco.py":
        names |= {"traindir": str(pack), "augmentation": official.mocov2_steps()}
        names["moco"] = SimpleNamespace(loader=SimpleNamespace(TwoCropsTransform=official.TwoCropsTransform))
    exec(text, names)
    return names


def assert_views(views: Any, sizes: list[int], samples: int) -> None:
    assert type(views) is list and [tuple(v.shape) for v in views] == [(samples, 3, s, s) for s in sizes]
    for before, after in zip(views, views[1:]):
        assert before.dtype == torch.float32 and before.is_contiguous() and torch.isfinite(before).all()
        if before.shape == after.shape:
            assert after.data_ptr() == before.data_ptr() + before.numel() * before.element_size()


@pytest.mark.slow
def test_dino(pack: Path, one_rank: None) -> None:
    """main_dino.py: len for the schedules, set_epoch through the loader, (images, _), images moved into a new list."""
    names = run("main_dino.py", pack)
    dataset, data_loader = names["dataset"], names["data_loader"]
    assert len(dataset) == 23 and len(data_loader) == 4 and dataset.recipe.name == "DataAugmentationDINO"
    assert dataset.recipe.views == recipes.dino(local_crops=3).views and dataset.seed == 3
    first = []
    for epoch in range(2):
        data_loader.sampler.set_epoch(epoch)
        steps = 0
        for it, (images, _) in enumerate(data_loader):
            assert_views(images, [224, 224, 96, 96, 96], 5)
            assert _.dtype == torch.int64 and _.shape == (5,)
            images = [im.to("cpu", non_blocking=True) for im in images]
            assert torch.cat(images[:2]).shape == (10, 3, 224, 224)
            if it == 0:
                first.append(images[0].clone())
            steps += 1
        assert steps == len(data_loader)
    order = DistributedSampler(range(23), num_replicas=1, rank=0, shuffle=True)  # type: ignore[arg-type]
    for epoch, images in enumerate(first):
        order.set_epoch(epoch)
        want = [dataset.sample(index, epoch)[0] for index in list(order)[:5]]
        assert torch.equal(images, torch.stack(want))


@pytest.mark.slow
def test_swav(pack: Path, one_rank: None) -> None:
    """main_swav.py: len, set_epoch, a bare list of views, inputs[0].size(0); groups of one size are adjacent."""
    names = run("main_swav.py", pack)
    train_loader = names["train_loader"]
    assert len(names["train_dataset"]) == 23 and len(train_loader) == 4
    assert names["train_dataset"].recipe.views[0].scale == (0.14, 1.0)
    for epoch in range(2):
        train_loader.sampler.set_epoch(epoch)
        batches = list(train_loader)
        assert len(batches) == len(train_loader)
        for inputs in batches:
            assert_views(inputs, [64, 64, 32, 32, 32], 5)
            assert inputs[0].size(0) == 5
            # src/resnet50.py:308-323 groups neighbours of one size and concatenates them
            assert torch.unique_consecutive(torch.tensor([x.shape[-1] for x in inputs])).tolist() == [64, 32]


def test_moco(pack: Path, one_rank: None) -> None:
    """main_moco.py: set_epoch on the script's own sampler, (images, _), both images assigned in place into the list."""
    names = run("main_moco.py", pack)
    train_loader, train_sampler = names["train_loader"], names["train_sampler"]
    assert len(train_loader) == 4 and names["train_dataset"].recipe.views == recipes.mocov2().views
    train_sampler.set_epoch(0)
    for images, _ in train_loader:
        assert_views(images, [224, 224], 5)
        for view in range(2):
            images[view] = images[view].to(torch.float64)
        assert images[0].dtype == torch.float64 and images[0].size(0) == 5
        assert _.dtype == torch.int64


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks(pack: Path, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank gets the pictures that the script's DistributedSampler deals to it, in its order."""
    for name, value in (("is_initialized", True), ("get_rank", rank), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda *_, value=value: value)
    monkeypatch.setattr(loader, "agree_on_generation", lambda pack, occasion: pack.generation)  # no store to agree in
    names = run("main_swav.py", pack)
    train_loader, dataset = names["train_loader"], names["train_dataset"]
    train_loader.sampler.set_epoch(1)
    order = DistributedSampler(range(23), num_replicas=2, rank=rank)  # type: ignore[arg-type]
    order.set_epoch(1)
    assert len(train_loader) == 2
    found = torch.cat([inputs[2] for inputs in train_loader])
    assert torch.equal(found, torch.stack([dataset.sample(index, 1)[2] for index in list(order)[:10]]))


def test_moco_v1(pack: Path) -> None:
    """The script's branch without --aug-plus grays before it jitters."""
    steps = official.mocov2_steps()
    v1 = [steps[0], steps[2], transforms.ColorJitter(0.4, 0.4, 0.4, 0.4), *steps[4:]]
    dataset = drop_in.image_folder(pack, official.TwoCropsTransform(transforms.Compose(v1)))
    for view in dataset.recipe.views:
        assert view.grayscale == 0.2 and view.jitter == 0 and view.flip == 0.5
        assert [{step.op for option in choice.options for step in option} for choice in view.then] == [
            {"brightness", "contrast", "saturation", "hue"}
        ]


def test_every_step_is_in_the_table() -> None:
    """What is translated is no longer listed as refused."""
    table, refused = TRANSFORMS.split("## What is refused")
    silent = {"Identity", "RGB", "ToPureTensor"}
    for name in (
        *torchvision_steps._READ,
        *torchvision_further.NAMES,
        "Compose",
        "RandomApply",
        "RandomChoice",
        "RandomOrder",
    ):
        assert name in silent or f"`{name}" in table, name
    assert not re.search(r"`GaussianBlur\(", refused)


def test_multi_crop_dataset(pack: Path) -> None:
    found = drop_in.multi_crop_dataset(pack, [224, 96], [2, 6], [0.14, 0.05], [1.0, 0.14], seed=7)
    assert isinstance(found, ShardDataset) and found.recipe == recipes.swav() and found.seed == 7
    with pytest.raises(ValueError, match="size_crops has 2, nmb_crops has 1, .*want one entry a size"):
        drop_in.multi_crop_dataset(pack, [224, 96], [2], [0.14, 0.05], [1.0, 0.14])


def test_a_pack_in_a_store(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: the user's own cache in place of the one given; options that are dropped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    transform = transforms.Compose(official.mocov2_steps())
    crops = {"size_crops": [32], "nmb_crops": [2], "min_scale_crops": [0.14], "max_scale_crops": [1.0]}
    with serving(pack.parent) as server:
        for made in (partial(drop_in.image_folder, transform=transform), partial(drop_in.multi_crop_dataset, **crops)):
            options = {"timeout": "30s"}
            there = made(server.url + "pack", cache=tmp_path / "cache", cache_bytes="10MB", storage_options=options)
            assert all(torch.equal(*views) for views in zip(there.sample(7), made(pack).sample(7), strict=True))
            assert there.pack.remote is not None
            address = there.pack.remote.address
            assert (address.cache, address.cache_bytes) == (tmp_path / "cache", 10_000_000)
            assert address.options == options
    assert not (tmp_path / "home").exists()


def test_what_the_docs_state_of_to_dtype() -> None:
    from torchvision.transforms import v2

    every = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    theirs = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(recipes.IMAGENET_MEAN, recipes.IMAGENET_STD)]
    )
    difference = (theirs(every)[:, 0] - torch.from_numpy(recipes.dino().normalize_table())).abs()
    stated = re.search(r"std (\d+) of the 768 values .* at most ([\d.e-]+);", TRANSFORMS)
    assert stated
    count, worst = stated.groups()
    assert int(count) == torch.count_nonzero(difference)
    assert float(worst) - 1e-8 < difference.max().item() <= float(worst)
