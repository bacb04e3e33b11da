"""DataLoader(device="cuda") without a GPU: a lane that the CPU executes (helpers/cpu_lane.py), compared with the CPU
loader's batches. What only a GPU can show is in test_cuda_loader.py."""

from __future__ import annotations

import dataclasses
import gc
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pass_loader.loading.faults as faults
from pass_loader import ConcatDataset, DataLoader, Recipe, RecordError, ShardDataset, ShardError, _C, recipes
from pass_loader.gpu import batches, cuda
from pass_loader.pack import build

from ..helpers.batches import ON_GPU, assert_batches_equal, compare, both, pointers
from ..helpers.corpus import jpeg, noise
from ..helpers.cpu_lane import CpuLane
from ..helpers.epochs import TINY
from ..helpers.recipes import SMALL, small
from ..helpers.processes import until
from ..helpers.trees import write_tree


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_GPU)
def test_presets(name: str, pack: Path, lanes: list[CpuLane]) -> None:
    """Every structure, masks and info included."""
    dataset = ShardDataset(pack, small(recipes.PRESETS[name]()), seed=5, records=range(7))
    for options in ({"return_info": True}, {"return_plan": True, "num_workers": 0}):
        compare(lambda options=options, **device: DataLoader(
            dataset, 5, shuffle=True, **{"num_workers": 2, **options}, **device))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("last", [False, True])
def test_elements(dtype: torch.dtype, last: bool, pack: Path, lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(6))
    compare(lambda **device: DataLoader(dataset, 4, num_workers=2, dtype=dtype, channels_last=last, **device))


@pytest.mark.slow
def test_epochs_samplers_and_collate(pack: Path, lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    compare(lambda **d: DataLoader(dataset, 4, shuffle=True, num_workers=1, return_info=True, **d), epochs=3)
    compare(lambda **d: DataLoader(dataset, 4, sampler=[3, (3, 1), 7, 1, 3], return_info=True, **d))
    compare(lambda **d: DataLoader(dataset, batch_sampler=[[1, 2], [3], [4, 5, 6]], num_workers=2, **d))
    compare(lambda **d: DataLoader(dataset, 4, collate_fn=torch.utils.data.default_collate, **d))
    compare(lambda **d: DataLoader(dataset, 3, shuffle=True, drop_last=True, rank=1, world_size=2, prefetch_factor=5,
                                   num_workers=3, return_info=True, **d))  # fmt: skip
    twice = ConcatDataset([dataset, ShardDataset(pack, SMALL, seed=5, records=[1, 2])])
    compare(lambda **d: DataLoader(twice, 4, shuffle=True, num_workers=2, return_info=True, **d))


@pytest.mark.slow
def test_resume(pack: Path, lanes: list[CpuLane]) -> None:
    """A state of either goes on in the other."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    for first, then in (("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")):
        whole = list(DataLoader(dataset, 4, shuffle=True, return_info=True))
        begun = DataLoader(dataset, 4, shuffle=True, num_workers=2, return_info=True, device=first)
        iterator = iter(begun)
        for want in whole[:2]:
            assert_batches_equal(next(iterator), want)
        resumed = DataLoader(dataset, 4, shuffle=True, num_workers=2, return_info=True, device=then)
        resumed.load_state_dict(begun.state_dict())
        for found, want in zip([*resumed], whole[2:], strict=True):
            assert_batches_equal(found, want)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("policy", ["replace", "skip"])
@pytest.mark.parametrize("arena", [None, 4000])
def test_error_policies(
    broken_pack: Path,
    lanes: list[CpuLane],
    policy: str,
    threads: int,
    arena: int | None,
) -> None:
    """Also where a part of a batch is a few pictures. Kills: a failed slot with pixels of another, a replacement that
    is not waited for."""
    dataset = ShardDataset(broken_pack, TINY, seed=5)
    options = {"arena_bytes": arena}

    def make(**device: Any) -> DataLoader:
        return DataLoader(dataset, 7, shuffle=True, return_info=True, on_error=policy, num_workers=threads, **device,
                          **(options if device else {}))  # fmt: skip

    on_gpu, on_cpu = both(make)
    for found, want in zip(on_gpu, on_cpu, strict=True):  # at once: a rendering that nobody waits for comes later
        assert_batches_equal(found, want)
    assert [*map(str, on_gpu.errors)] == [*map(str, on_cpu.errors)]

    sampler = [1, 2, 17, 18, 3, 4, 5, 6]  # a batch of which nothing is good
    whole = both(lambda **d: DataLoader(dataset, 2, sampler=sampler, on_error=policy, return_info=True, **d))
    for found, want in zip(*whole, strict=True):
        assert_batches_equal(found, want)


def test_raise_names_the_record(broken_pack: Path, lanes: list[CpuLane]) -> None:
    loaders = both(lambda **d: DataLoader(ShardDataset(broken_pack, TINY), 4, num_workers=2, return_info=True, **d))
    seen: list[list[Any]] = [[], []]
    for loader, into in zip(loaders, seen):
        iterator = iter(loader)
        while True:
            try:
                into.append(next(iterator)[-1]["records"].tolist())
            except StopIteration:
                break
            except RecordError as error:
                into.append((str(error), loader.state_dict()["position"]))
    assert seen[0] == seen[1] and any("record 5" in str(one) for one in seen[0])


def test_storage_that_comes_back(tiny: Path, tmp_path: Path, lanes: list[CpuLane], monkeypatch: pytest.MonkeyPatch
                                 ) -> None:  # fmt: skip
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    dataset = ShardDataset(copy, TINY, seed=5)
    want = list(DataLoader(dataset, 7, return_info=True))
    shard = copy / dataset.pack.shards[1]["tar"]
    data = shard.read_bytes()
    shard.write_bytes(data[:700])
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: shard.write_bytes(data) and None)
    found = list(DataLoader(ShardDataset(copy, TINY, seed=5), 7, num_workers=2, return_info=True, device="cuda"))
    for one, other in zip(found, want, strict=True):
        assert_batches_equal(one, other)
    shard.unlink()
    monkeypatch.setattr(faults.time, "sleep", lambda seconds: None)
    with pytest.raises(ShardError, match="No such file"):
        list(DataLoader(ShardDataset(copy, TINY), 7, num_workers=2, device="cuda"))


def test_the_stream_is_used_under_the_lock(
    broken_pack: Path, lanes: list[CpuLane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing of a batch is good, and memory is first taken for the replacements. Kills: two threads that
    queue at a time."""
    used = []

    def views_of(renderer: Any, *given: Any) -> list[torch.Tensor]:
        used.append(renderer.lock._is_owned())
        return original(renderer, *given)

    original = batches.DeviceRenderer.views_of
    monkeypatch.setattr(batches.DeviceRenderer, "views_of", views_of)
    dataset = ShardDataset(broken_pack, TINY, seed=5)
    sampler = [1, 2, 17, 18, 3, 4]
    assert len(list(DataLoader(dataset, 2, sampler=sampler, on_error="replace", num_workers=2, device="cuda"))) == 3
    assert used == [True] * 3


@pytest.mark.slow
def test_the_arenas_budget(pack: Path, lanes: list[CpuLane]) -> None:
    """Parts: a batch, some pictures of it, each picture alone in memory of its own. Kills: a part rendered into slots
    of another, a chunk overwritten before it was copied."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    largest = max(3 * h * (w + 15) for h, w in map(dataset.pack.size_of, range(len(dataset))))
    for arena, threads in ((None, 2), (6 * largest, 0), (9 * largest, 3), (1000, 2), (1000, 0)):
        loader = compare(lambda arena=arena, threads=threads, **d: DataLoader(
            dataset, 5, num_workers=threads, return_info=True, **d, **({"arena_bytes": arena} if d else {})),
            epochs=2)  # fmt: skip
        lane = lanes[-1]
        assert sum(lane.renderings) == 2 * len(dataset)
        assert (max(lane.renderings) == 5) == (arena is None) and (max(lane.renderings) == 1) == (arena == 1000)
        chunks = 2 if threads == 0 else 3
        assert loader.stats()["pinned_bytes"] == (arena // chunks // 256 * 256 or 256) * chunks if arena else True


@pytest.mark.slow
def test_many_iterators_share_the_arena(pack: Path, lanes: list[CpuLane]) -> None:
    """More batches under way than there are chunks; dropped ones give theirs back. Kills: a deadlock, a lost chunk."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    for threads in (0, 2):
        loader = DataLoader(dataset, 2, num_workers=threads, return_info=True, device="cuda")
        on_cpu = DataLoader(dataset, 2, return_info=True)
        iterators = [(iter(loader), iter(on_cpu)) for _ in range(5)]  # each of an epoch of its own
        while iterators:
            for found, want in iterators:
                assert_batches_equal(next(found), next(want))
            iterators.pop()
        for _ in range(20):
            found, want = iter(loader), iter(on_cpu)
            assert_batches_equal(next(found), next(want))
        assert len(list(loader)) == len(on_cpu)
        del found
        gc.collect()
        free, chunks = loader._renderer[1]._free, 2 if threads == 0 else 3
        until(lambda free=free, chunks=chunks: len(free) == chunks)  # all came back


@pytest.mark.parametrize("threads", [0, 1])
def test_a_dropped_iterator_gives_each_chunk_back_once(threads: int, pack: Path, lanes: list[CpuLane]) -> None:
    """While batches are decoded, and the launching thread waits for them. Kills: a chunk that is free twice, whose
    pixels two batches share; one that never is; a batch that is launched while it dies."""
    dataset = ShardDataset(pack, TINY, seed=5, records=range(11))
    loader = DataLoader(dataset, 2, num_workers=threads, device="cuda", prefetch_factor=3)
    for _ in range(50):
        iterator = iter(loader)
        next(iterator)
        del iterator
        free, chunks = loader._renderer[1]._free, 2 if threads == 0 else 4
        until(lambda free=free, chunks=chunks: len(free) >= chunks)
        assert len({id(chunk) for chunk in free}) == len(free) == chunks


def test_iterators_whose_batches_hold_the_whole_arena(broken_pack: Path, lanes: list[CpuLane]) -> None:
    """After an error what is under way stays so. Kills: waiting for a chunk that nobody gives back."""
    dataset = ShardDataset(broken_pack, TINY)
    loader = DataLoader(dataset, 2, sampler=[5, 1, 2, 3, 4, 6], num_workers=2, device="cuda")
    iterators = [iter(loader) for _ in range(6)]
    for iterator in iterators:
        with pytest.raises(RecordError, match="record 5"):
            next(iterator)
    for place, records in ((0, [2, 3]), (1, [4, 6])):
        for iterator in iterators:  # none of them has handed out views of epoch 0 before the next one begins
            views, _ = next(iterator)
            for slot, record in enumerate(records):
                assert torch.equal(views[0][slot], dataset.sample(record, epoch=0)[0]), place


@pytest.mark.parametrize("arena", [None, 1000])
def test_batches_are_rendered_while_the_consumer_works(pack: Path, lanes: list[CpuLane], arena: int | None) -> None:
    """With the usual prefetch_factor: the second batch, all parts of it, is queued while nobody calls `next`; no third
    one, and the host waits for no rendering. Kills: batches that are launched in `next` alone."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    loader = DataLoader(dataset, 4, num_workers=2, device="cuda", arena_bytes=arena)
    iterator = iter(loader)
    next(iterator)
    lane, renderer = lanes[-1], loader._renderer[1]
    until(lambda: not renderer._waiting())
    assert sum(lane.renderings) == 8 and lane.entered == 1
    assert arena is not None or lane.ran < len(lane.queue), "what is queued ahead is not waited for"
    next(iterator)
    until(lambda: not renderer._waiting())
    assert sum(lane.renderings) == 11 and lane.handed_over == 2


def test_no_more_than_prefetch_factor_batches_are_ahead(pack: Path, lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    loader = DataLoader(dataset, 2, num_workers=2, device="cuda", prefetch_factor=3)
    iterator = iter(loader)
    for place in range(1, 4):
        next(iterator)
        until(lambda: not loader._renderer[1]._waiting())
        assert len(lanes[-1].renderings) == place + 2


def launchers() -> int:
    return sum(thread.name == "pass-loader-launch" for thread in threading.enumerate())


def test_the_launching_thread_ends_with_its_loader(pack: Path, lanes: list[CpuLane]) -> None:
    """Also where it waits for decoding. Without worker threads there is none."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    gc.collect()
    until(lambda: not launchers())
    loader = DataLoader(dataset, 4, num_workers=0, device="cuda")
    next(iter(loader))
    assert not launchers()
    for _ in range(3):
        loader = DataLoader(dataset, 4, num_workers=1, device="cuda")
        iterator = iter(loader)
        next(iterator)
        assert launchers() == 1
        del loader, iterator
        gc.collect()
        until(lambda: not launchers())


def test_a_thread_that_cannot_enter(pack: Path, lanes: list[CpuLane], monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are launched by `next` then."""

    def fail(self: CpuLane) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(CpuLane, "enter_thread", fail)
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(6))
    compare(lambda **d: DataLoader(dataset, 4, num_workers=2, **d))


@pytest.mark.slow
def test_the_process_ends_in_the_middle(pack: Path) -> None:
    """While batches are decoded and queued. Kills: a thread that is ended inside native code, a wait for ever."""
    code = (
        "import sys, pytest, pass_loader\n"
        "from tests.helpers import cpu_lane\n"
        "from tests.helpers.recipes import SMALL\n"
        "cpu_lane.use(pytest.MonkeyPatch())\n"
        "dataset = pass_loader.ShardDataset(sys.argv[1], SMALL)\n"
        "iterator = iter(pass_loader.DataLoader(dataset, 4, num_workers=2, device='cuda', infinite=True))\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    next(iterator)\n"
    )
    for count in ("1", "3"):
        done = subprocess.run([sys.executable, "-c", code, str(pack), count], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_cancelled_decoding(pack: Path) -> None:
    """What `cancel` returns from writes no more, and counts as done."""
    dataset = ShardDataset(pack, SMALL)
    engine = DataLoader(dataset, 4, num_workers=2)._get_renderer()._engine
    count = 10 * len(dataset)
    records, none = np.arange(count, dtype=np.int64) % len(dataset), np.zeros(count, np.uint32)
    arena, rows = np.zeros(100_000_000, np.uint8), np.zeros((count, 5), np.int64)
    plans = np.zeros((count, len(SMALL.views)), _C.view_plan_dtype)
    pending = engine.decode(records, none, none, arena, rows, plans)
    pending.cancel()
    assert pending.done and pending.wait() is not None
    seen = rows.copy()
    engine.decode(records[:2], none[:2], none[:2], arena, rows[-2:].copy(), plans[-2:].copy()).wait()
    assert np.array_equal(rows, seen) and not rows[-1].any(), "the last ones were not begun"
    pending.cancel()


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("size", [4, 11])
def test_a_renderer_that_cannot_be_made(pack: Path, lanes: list[CpuLane], threads: int, size: int,
                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """No memory at the first `next`, and once more in the middle, where the renderer is made anew as after a purge: the
    next call gives the same batch. Kills: a batch that is drawn before there is a renderer for it."""
    failures: list[Exception] = []

    class Lane(CpuLane):
        def __init__(self, *arguments: Any):
            if failures:
                raise failures.pop()
            super().__init__(*arguments)

    monkeypatch.setattr(batches, "SideStream", Lane)
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    want = list(DataLoader(dataset, size, return_info=True))
    loader = DataLoader(dataset, size, num_workers=threads, return_info=True, device="cuda")
    iterator, found = iter(loader), []
    for place in range(len(want)):
        if place < 2:
            loader._renderer = None
            failures[:] = [torch.OutOfMemoryError("too little")] * 2
            for _ in range(2):
                with pytest.raises(torch.OutOfMemoryError):
                    next(iterator)
        found.append(next(iterator))
    assert next(iterator, None) is None
    for one, other in zip(found, want, strict=True):
        assert_batches_equal(one, other)


@pytest.mark.slow
def test_static_buffers(pack: Path, lanes: list[CpuLane]) -> None:
    """The same addresses in every batch of every epoch, the CPU's bytes in the smaller last one too. Kills: a batch
    that is rendered straight into them while the consumer has them."""
    for recipe in (SMALL, small(recipes.dinov2()), small(recipes.simclr()), small(recipes.ijepa())):
        dataset = ShardDataset(pack, recipe, seed=5, records=range(6))
        loader = DataLoader(dataset, 4, num_workers=2, device="cuda", static_buffers=True, return_info=True)
        on_cpu = DataLoader(dataset, 4, return_info=True)
        seen: set[tuple[int, ...]] = set()
        for _ in range(2):
            for found, want in zip(loader, on_cpu, strict=True):
                assert_batches_equal(found, want)
                if len(want[-1]["records"]) == 4:
                    seen.add(pointers(found))
        assert len(seen) == 1 and loader.stats()["device_bytes"] > 0


@pytest.mark.slow
def test_a_rendering_that_fails_can_be_tried_again(pack: Path, lanes: list[CpuLane]) -> None:
    """Memory ran out: the error comes from the batch's own `next`, and the same batch comes then. Kills: a lost batch,
    the error of a batch that was queued ahead."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    want = list(DataLoader(dataset, 2, return_info=True))
    for place in range(3):  # the last may be launched before they can fail
        loader = DataLoader(dataset, 2, num_workers=2, return_info=True, device="cuda")
        iterator, found = iter(loader), []
        while len(found) < len(want):
            if len(found) == place:
                CpuLane.fail[:] = [torch.OutOfMemoryError("too little")] * 1000
                with pytest.raises(torch.OutOfMemoryError):
                    while True:  # those that were launched before come first
                        found.append(next(iterator))
                CpuLane.fail.clear()
            found.append(next(iterator))
        for one, other in zip(found, want, strict=True):
            assert_batches_equal(one, other)


def test_timeout(pack: Path, lanes: list[CpuLane]) -> None:
    """A part that is in time does not make the batch so; the same batch is waited for next."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    loader = DataLoader(dataset, 6, num_workers=1, device="cuda", timeout=1e-9, arena_bytes=1000, return_info=True)
    iterator, timeouts = iter(loader), 0
    while True:
        try:
            found = next(iterator)
            break
        except RuntimeError as error:
            assert "timed out after 1e-09 seconds" in str(error)
            timeouts += 1
    assert timeouts > 0
    assert_batches_equal(found, next(iter(DataLoader(dataset, 6, return_info=True))))


def test_pickles(pack: Path, lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    loader = DataLoader(dataset, 4, num_workers=1, device="cuda:0")
    want = list(loader)
    other = pickle.loads(pickle.dumps(DataLoader(dataset, 4, num_workers=1, device="cuda:0")))
    for one, two in zip(other, want, strict=True):
        assert_batches_equal(one, two)
    assert other.device == torch.device("cuda", 0)


def test_refused(pack: Path, tmp_path: Path, lanes: list[CpuLane]) -> None:
    """With words, when the loader is made."""
    dataset = ShardDataset(pack, SMALL)
    gray = Recipe("gray", (dataclasses.replace(TINY.views[0]),), mean=0.5, std=0.5, channels=1)
    files = {f"{number}.jpg": jpeg(noise(12, 16, number)) for number in range(2)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    own = tmp_path / "pack"
    genview = ShardDataset(own, recipes.genview(), companions=own)
    thorax = ShardDataset(own, dataclasses.replace(recipes.mae_thorax(), batch="view_heatmap_labels", masks=None,
                                                   channels=3, mean=0.5, std=0.5), heatmaps=own)  # fmt: skip
    mixed = ConcatDataset([ShardDataset(own, TINY), ShardDataset(own, TINY, mean=0.1)])
    for samples, words in ((ShardDataset(pack, gray), "one channel"), (genview, "companions"), (thorax, "heatmaps"),
                           (mixed, "mean and std that differ")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{words}.*device='cpu'"):
            DataLoader(samples, 2, device="cuda")
    for options, words in (({"device": "cuda", "decode": "gpu"}, "want .cpu., .cuda. or .nvjpeg."),
                           ({"device": "meta"}, "want 'cpu' or a GPU"), ({"static_buffers": True}, "go with device"),
                           ({"arena_bytes": 5}, "go with device"),
                           ({"device": "cuda", "arena_bytes": 0}, "want at least 1")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            DataLoader(dataset, 2, **options)
    with pytest.raises(ValueError, match="room for batch_size"):
        DataLoader(dataset, batch_sampler=[[1]], device="cuda", static_buffers=True)


@pytest.mark.skipif(cuda.cuda_available(), reason="a GPU is there")
def test_without_a_gpu(pack: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        DataLoader(ShardDataset(pack, SMALL), 2, device="cuda")
    assert str(caught.value) == cuda.cuda_reason()


@pytest.mark.slow
def test_users_of_the_cpu_load_nothing_more(pack: Path) -> None:
    code = (
        "import sys, pass_loader\n"
        "from pass_loader import recipes\n"
        "loader = pass_loader.DataLoader(pass_loader.ShardDataset(sys.argv[1], recipes.mocov2(size=8)), 4)\n"
        "next(iter(loader))\n"
        "loaded = {'pass_loader.gpu.batches', 'pass_loader.gpu.cuda', 'pass_loader._cuda'} & {*sys.modules}\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code, str(pack)], check=True)
