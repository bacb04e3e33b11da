"""What a loader does with pin_memory=True where there is an accelerator. test_pinning.py runs this."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import pickle
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import data

from pass_loader import DataLoader, Recipe, ShardDataset, normalize, recipes
from pass_loader.loading.depth import sample_bytes
from pass_loader.loading.rendering import ELEMENTS
from pass_loader.recipes.batches import BATCHES

from ..helpers import cpu_lane
from ..helpers.accelerator import Accelerator
from ..helpers.batches import assert_batches_equal
from ..helpers.epochs import TINY
from ..helpers.recipes import WITH_HEATMAPS, small


SMALL = recipes.dino(local_crops=2, global_size=32, local_size=16)
# One of each structure: what else a recipe says is no matter of where its tensors lie.
FORMS = [*{recipe.batch: recipe for recipe in [
    *(small(preset()) for preset in recipes.PRESETS.values()),
    small(recipes.simclr(batch="pair_index")), recipes.mae(size=32, mask_ratio=0.75), WITH_HEATMAPS,
]}.values()]  # fmt: skip


def tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, dict):
        yield from tensors([*batch.values()])
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from tensors(part)


def test_the_accelerator_is_unkind(accelerator: Accelerator) -> None:
    """Else what follows would prove nothing: memory of the device that is touched kills, pinned memory that is freed is
    garbage, is kept for queued copies alone, and comes again at once."""
    there = torch.zeros(4, device=accelerator.device)
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        ctypes.memset(there.data_ptr(), 0, 1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV
    first = torch.ones(4).pin_memory()
    place, copy = first.data_ptr(), first.to(accelerator.device, non_blocking=True)
    del first
    other = torch.ones(4).pin_memory()
    assert other.data_ptr() != place and copy.tolist() == [1.0] * 4
    second = torch.ones(4).pin_memory()
    assert second.data_ptr() == place and second.is_pinned() and not second.clone().is_pinned()
    alias = torch.from_numpy(second.numpy()).to(accelerator.device, non_blocking=True)
    del second
    assert alias.tolist() != [1.0] * 4


def test_no_structure_is_left_out() -> None:
    assert {recipe.batch for recipe in FORMS} == {*BATCHES}


@pytest.mark.parametrize("recipe", FORMS, ids=lambda recipe: f"{recipe.name}-{recipe.batch}")
def test_all_tensors_are_pinned(
    recipe: Recipe, accelerator: Accelerator, pack: Path, companion_packs: Any, heatmap_packs: Any
) -> None:  # fmt: skip
    """Views, labels, masks, info; the same values as without. Kills: views alone, or all but the info."""
    given: tuple[Path, dict[str, Path]] = (pack, {})
    if recipe.batch == "views_labels_companions":
        given = companion_packs[0], {"companions": companion_packs[1]}
    elif recipe.batch == "view_heatmap_labels":
        given = heatmap_packs[0], {"heatmaps": heatmap_packs[1]}
    dataset = ShardDataset(given[0], recipe, seed=5, **given[1])
    for workers in (0, 2):
        loaders = [DataLoader(dataset, 4, shuffle=True, num_workers=workers, return_info=True, pin_memory=pin)
                   for pin in (True, False)]  # fmt: skip
        assert len(loaders[0]) > 1
        for found, want in zip(*loaders, strict=True):
            assert all(tensor.is_pinned() for tensor in tensors(found))
            assert not any(tensor.is_pinned() for tensor in tensors(want))
            for one in tensors([found, want] if recipe.companion else []):
                one.nan_to_num_(7)  # scales that nobody told
            assert_batches_equal(found, want)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_held_batch_is_never_overwritten(accelerator: Accelerator, pack: Path, workers: int) -> None:
    """One view of each third batch is held for three epochs, all else is dropped and given out anew at once. Kills:
    memory that goes back before its last tensor is gone, or while a thread writes into it."""
    loader = DataLoader(ShardDataset(pack, SMALL, seed=5), 2, shuffle=True, num_workers=workers, pin_memory=True)
    before, held, number = accelerator.counts(), [], 0
    for _ in range(3):
        for views, labels in loader:
            number += 1
            if number % 3 == 0:
                held.append((views[number % 4][1:], views[number % 4][1:].clone(), labels, labels.clone()))
    del views, labels
    after = accelerator.counts()
    assert after.given - before.given == 3 * number, "views of two sizes and labels: nothing is copied"
    assert after.reused - before.reused > number
    for view, then, labels, labels_then in held:
        assert torch.equal(view, then) and torch.equal(labels, labels_then) and view.is_pinned()


def test_what_is_left_in_the_middle(accelerator: Accelerator, pack: Path) -> None:
    """Batches in work when their iterator is dropped: nothing writes into their memory any more. Kills: memory that is
    freed while threads render into it."""
    dataset = ShardDataset(pack, recipes.dino(local_crops=2), seed=5)
    loader = DataLoader(dataset, 8, num_workers=2, pin_memory=True, prefetch_factor=2)
    for _ in range(6):
        iterator = iter(loader)
        next(iterator)
        del iterator
        gc.collect()
        assert accelerator.counts().bytes == loader.stats()["pinned_bytes"] == 0
        accelerator.look_at_the_free()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"return_info": True}, {"collate_fn": data.default_collate}], ids=str)
def test_pinned_bytes(accelerator: Accelerator, pack: Path, workers: int, options: dict[str, Any]) -> None:
    """The accelerator's own count, at each step and when all has gone."""
    assert accelerator.counts().bytes == 0
    dataset = ShardDataset(pack, small(recipes.dinov2(local_crops=2)), seed=5)
    if "collate_fn" in options:
        dataset = ShardDataset(pack, SMALL, seed=5)
    loader = DataLoader(dataset, 4, num_workers=workers, pin_memory=True, **options)
    assert loader.stats()["pinned_bytes"] == 0
    held: list[Any] = []
    seen = []
    for number, batch in enumerate(loader):
        held += [batch] if number % 2 else []
        seen.append(loader.stats()["pinned_bytes"])
        assert seen[-1] == accelerator.counts().bytes > 0
    assert seen[3] > seen[1], "what is held counts"
    del batch
    assert loader.stats()["pinned_bytes"] == accelerator.counts().bytes > 0
    woken = pickle.loads(pickle.dumps(loader))
    assert woken.stats()["pinned_bytes"] == 0 and all(t.is_pinned() for t in tensors(next(iter(woken))))
    held.clear()
    assert loader.stats()["pinned_bytes"] == accelerator.counts().bytes == 0


def test_half_of_the_bytes(accelerator: Accelerator, pack: Path) -> None:
    """Kills: a depth that does not know of pinning, or what there would be without."""
    room = 32 * sample_bytes(SMALL, 4, False)
    for pinned, most in ((True, 6), (False, 10)):
        loader = DataLoader(ShardDataset(pack, SMALL), 4, num_workers=2, pin_memory=pinned, prefetch_bytes=room,
                            read_ahead=0)  # fmt: skip
        next(iter(loader))
        depth = loader._get_depth()
        assert (loader.stats()["batches_ahead_most"], depth.most, depth.most_unpinned) == (most, most, 10)


@pytest.mark.parametrize("dtype", list(ELEMENTS), ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_queued_copies(accelerator: Accelerator, pack: Path, dtype: torch.dtype, last: bool) -> None:
    """Copies are queued and the batch is dropped at once; the device does them when the whole epoch has gone by. Kills:
    tensors that torch's allocator does not know for its own (aliases of pinned memory)."""
    arguments: dict[str, Any] = {"shuffle": True, "dtype": dtype, "channels_last": last}
    loader = DataLoader(ShardDataset(pack, SMALL, seed=5), 2, num_workers=2, pin_memory=True, **arguments)
    there = []
    for views, labels in loader:
        there.append([tensor.to(accelerator.device, non_blocking=True) for tensor in (*views, labels)])
        del views, labels
    assert accelerator.counts().under_way == sum(map(len, there)) == 12 * 5
    plain = DataLoader(ShardDataset(pack, SMALL, seed=5), 2, **arguments)
    for found, (views, labels) in zip(there, plain, strict=True):
        for tensor, want in zip(found, [*views, labels], strict=True):
            assert tensor.device == accelerator.device and torch.equal(tensor.cpu(), want)
            form = torch.channels_last if last and tensor.dim() == 4 else torch.contiguous_format
            assert tensor.is_contiguous(memory_format=form)


@pytest.mark.parametrize("last", [False, True])
def test_bytes_normalised_on_the_device(accelerator: Accelerator, pack: Path, last: bool) -> None:
    """A quarter of float32's bytes over the bus, the same values there, in the same memory format."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        loader = DataLoader(dataset, 5, num_workers=2, dtype=torch.uint8, channels_last=last, pin_memory=True)
        plain = DataLoader(dataset, 5, dtype=dtype, channels_last=last)
        for (views, _), (wanted, _) in zip(loader, plain, strict=True):
            for view, want in zip(views, wanted, strict=True):
                there = view.to(accelerator.device, non_blocking=True)
                found = normalize(there, SMALL, dtype)
                assert found.device == accelerator.device and found.dtype == dtype
                assert torch.equal(found.cpu(), want) and found.stride() == want.stride()


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_own_loader(accelerator: Accelerator, pack: Path, workers: int) -> None:
    """as_map() and the dataset itself under torch's DataLoader, which pins: the same batches as ours."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    dataset.set_epoch(0)
    for given in (dataset.as_map(), dataset):
        theirs = data.DataLoader(given, 5, num_workers=0 if given is dataset else workers, pin_memory=True)
        for found, want in zip(theirs, DataLoader(dataset, 5, pin_memory=True), strict=True):
            assert all(tensor.is_pinned() for tensor in tensors(found))
            assert_batches_equal(tuple(found), want)


def test_replaced_and_skipped(accelerator: Accelerator, broken_pack: Path) -> None:
    """A batch that has lost samples is another tensor, and pinned too."""
    for policy in ("replace", "skip"):
        loaders = [DataLoader(ShardDataset(broken_pack, TINY, seed=5), 6, num_workers=2, on_error=policy,
                              return_info=True, pin_memory=pin) for pin in (True, False)]  # fmt: skip
        for found, want in zip(*loaders, strict=True):
            assert all(tensor.is_pinned() for tensor in tensors(found))
            assert_batches_equal(found, want)
        assert loaders[0].errors
        del found
        assert loaders[0].stats()["pinned_bytes"] == accelerator.counts().bytes == 0


def test_beside_views_on_a_gpu(accelerator: Accelerator, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu_lane.use(monkeypatch)
    loader = DataLoader(ShardDataset(pack, SMALL, seed=5), 4, device="cuda", pin_memory=True, return_info=True)
    _, labels, info = next(iter(loader))
    assert labels.is_pinned() and all(tensor.is_pinned() for tensor in tensors(info))


def test_warnings(accelerator: Accelerator, tiny: Path) -> None:
    """None where all is well; one where pin_memory_device is given, as torch has it."""
    dataset = ShardDataset(tiny, TINY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader = DataLoader(dataset, 4, pin_memory=True)
        assert loader.pin_memory and next(iter(loader))[1].is_pinned()
        assert not next(iter(DataLoader(dataset, 4, pin_memory_device="cuda")))[1].is_pinned()
        loader.pin_memory = False
        assert not next(iter(loader))[1].is_pinned(), "as in torch: what stands there when an iterator is made"
    for kind in (DataLoader, data.DataLoader):
        with pytest.warns(UserWarning, match="pin_memory_device"):
            assert next(iter(kind(dataset, 4, pin_memory=True, pin_memory_device="cuda")))[1].is_pinned()
