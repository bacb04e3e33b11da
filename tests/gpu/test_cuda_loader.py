"""DataLoader(device="cuda") on a GPU: the CPU loader's batches, streams, memory, graphs. What needs no GPU is in
test_batches.py."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pass_loader
from benchmarks.gpu import exact, loading, probe_nvjpeg
from benchmarks.gpu.loading import EXACT, coded
from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.gpu import cuda
from pass_loader.gpu import nvjpeg

from ..helpers.batches import ON_GPU, assert_batches_equal, compare, pointers
from ..helpers.epochs import TINY
from ..helpers.processes import until
from ..helpers.recipes import SMALL, small


pytestmark = pytest.mark.cuda
if not cuda.cuda_available():
    pytest.skip(f"no GPU: {cuda.cuda_reason()}", allow_module_level=True)
SECOND = 2_000_000_000  # cycles: about one second of a spinning kernel, or more


def views_of(loader: DataLoader) -> list[list[torch.Tensor]]:
    return [views for views, *_ in loader]


@pytest.mark.parametrize("name", ON_GPU)
def test_presets(name: str, pack: Path) -> None:
    """Of their own sizes, every structure: byte for byte the CPU's."""
    dataset = ShardDataset(pack, recipes.PRESETS[name](), seed=5)
    compare(lambda **device: DataLoader(dataset, 5, shuffle=True, num_workers=2, return_info=True, **device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("last", [False, True])
def test_elements(dtype: torch.dtype, last: bool, pack: Path) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5)
    compare(lambda **device: DataLoader(dataset, 4, num_workers=2, dtype=dtype, channels_last=last, **device))
    compare(lambda **device: DataLoader(dataset, 4, num_workers=0, dtype=dtype, channels_last=last, **device))


def test_parts(pack: Path) -> None:
    """A small arena, and pictures that are larger than it."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    for arena in (1000, 4_000_000):
        compare(lambda arena=arena, **d: DataLoader(
            dataset, 5, num_workers=2, return_info=True, **d, **({"arena_bytes": arena} if d else {})))  # fmt: skip


def test_where_things_lie(pack: Path) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5)
    loader = DataLoader(dataset, 4, num_workers=2, device="cuda", pin_memory=True, return_info=True)
    views, labels, info = next(iter(loader))
    here = torch.device("cuda", torch.cuda.current_device())
    assert loader.device == here and all(view.device == here for view in views)
    assert labels.is_pinned() and info["records"].is_pinned()
    found = loader.stats()
    assert loader._renderer[1]._pinned.is_pinned() and found["pinned_bytes"] > 0 and found["device_bytes"] > 0
    last = torch.cuda.device_count() - 1
    views, _ = next(iter(DataLoader(dataset, 4, device=f"cuda:{last}")))
    assert views[0].device.index == last
    assert_batches_equal([view.cpu() for view in views], next(iter(DataLoader(dataset, 4)))[0])
    with pytest.raises(ValueError, match=f"there are {last + 1} GPUs"):
        DataLoader(dataset, 4, device=f"cuda:{last + 1}")


def test_a_slow_consumer(pack: Path) -> None:
    """The consumer's work is queued after a second of spinning, and the batch is dropped at once. Kills: memory
    that is given to the next batch before the consumer's stream has come so far (no record_stream)."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    want = views_of(DataLoader(dataset, 2))
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        loader = DataLoader(dataset, 2, num_workers=2, device="cuda")
        kept = []
        with torch.cuda.stream(stream):
            for views, _ in loader:
                torch.cuda._sleep(SECOND // 10)
                kept.append([view.clone() for view in views])
                del views
        torch.cuda.synchronize()
        for found, batch in zip(kept, want, strict=True):
            assert all(torch.equal(one.cpu(), other) for one, other in zip(found, batch))


def test_a_slow_renderer(pack: Path) -> None:
    """The side stream spins; `next` comes back, and the consumer's stream waits. Kills: no wait for the event."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    want = views_of(DataLoader(dataset, 4))
    loader = DataLoader(dataset, 4, num_workers=2, device="cuda")
    iterator = iter(loader)
    kept = [[view.clone() for view in next(iterator)[0]]]
    torch.cuda.synchronize()
    while True:
        with torch.cuda.stream(loader._renderer[1].stream._stream):
            torch.cuda._sleep(SECOND // 2)
        batch = next(iterator, None)
        if batch is None:
            break
        kept.append([view.clone() for view in batch[0]])
    torch.cuda.synchronize()
    for found, views in zip(kept, want, strict=True):
        assert all(torch.equal(one.cpu(), other) for one, other in zip(found, views))


def test_next_does_not_synchronise(pack: Path) -> None:
    """torch raises at a call that waits for the device."""
    iterator = iter(DataLoader(ShardDataset(pack, SMALL), 4, num_workers=2, device="cuda"))
    next(iterator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(iterator)) == 5
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_held_batches_stay(pack: Path) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5)
    loader = DataLoader(dataset, 4, shuffle=True, num_workers=2, device="cuda")
    held = [(views[1], views[1].clone()) for _ in range(3) for views, _ in loader]
    torch.cuda.synchronize()
    assert all(torch.equal(view, then) for view, then in held)


@pytest.mark.parametrize("static", [False, True])
def test_no_leak_in_10000_batches(tiny: Path, static: bool) -> None:
    loader = DataLoader(ShardDataset(tiny, TINY, seed=5), 2, num_workers=2, device="cuda", infinite=True,
                        shuffle=True, static_buffers=static)  # fmt: skip
    seen = []
    for number, batch in enumerate(loader):
        del batch
        if number in (1000, 10_000):
            torch.cuda.synchronize()
            native = loader._renderer[1].stream._renderer
            seen.append((torch.cuda.mem_get_info()[0], torch.cuda.memory_allocated(), native.allocations))
        if number == 10_000:
            break
    assert seen[0][0] == seen[1][0] and seen[0][2] == seen[1][2] and seen[1][1] <= seen[0][1] + (1 << 20), seen


def test_loaders_give_their_memory_back(pack: Path) -> None:
    """After the last of them as much is free as ever was since the sixth. Each memory comes back a moment after its
    loader is gone."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    seen = []

    def free() -> int:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]

    for number in range(20):
        loader = DataLoader(dataset, 4, num_workers=2, device="cuda")
        iterator = iter(loader)
        next(iterator)  # dropped in the middle
        renderer = weakref.ref(loader._get_renderer())
        del iterator, loader
        until(lambda gone=renderer: gone() is None)  # its thread may be in the midst of a batch
        if number >= 5:
            seen.append(free())
    until(lambda: free() == max(seen), 10)


def test_static_buffers_under_a_graph(pack: Path) -> None:
    """A graph that was captured with the first batch reads all later ones. Kills: another address; a copy that does not
    wait for the replay before."""
    for recipe in (SMALL, small(recipes.dinov2())):
        dataset = ShardDataset(pack, recipe, seed=5)
        loader = DataLoader(dataset, 4, num_workers=2, drop_last=True, device="cuda", static_buffers=True,
                            return_info=True)  # fmt: skip
        on_cpu = DataLoader(dataset, 4, drop_last=True, return_info=True)
        graph, out, kept, places = None, None, [], set()
        for batch in loader:
            view = batch[0][0] if isinstance(batch[0], list) else batch[0]["collated_global_crops"]
            places.add(pointers(batch))
            if graph is None:
                out = torch.empty_like(view)
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    torch.mul(view, 2, out=out)
            torch.cuda._sleep(SECOND // 10)
            graph.replay()
            kept.append(out.clone())
        torch.cuda.synchronize()
        assert len(places) == 1
        for found, want in zip(kept, on_cpu, strict=True):
            view = want[0][0] if isinstance(want[0], list) else want[0]["collated_global_crops"]
            assert torch.equal(found.cpu(), 2 * view)


def test_out_of_memory(pack: Path) -> None:
    """An error from the batch's own `next`; with memory the same batch comes."""
    dataset = ShardDataset(pack, recipes.dino(), seed=5)
    want = views_of(DataLoader(dataset, 23))
    loader = DataLoader(dataset, 23, num_workers=2, device="cuda")
    iterator = iter(loader)
    with pytest.raises(RuntimeError, match="out of memory|too little free memory"):
        torch.cuda.empty_cache()
        hog: list[Any] = [torch.empty(torch.cuda.mem_get_info()[0] - (24 << 20), dtype=torch.uint8, device="cuda")]
        try:
            next(iterator)
        finally:
            hog.clear()
            torch.cuda.empty_cache()
    assert_batches_equal([view.cpu() for view in next(iterator)[0]], want[0])


def has_nvjpeg() -> bool:
    try:
        nvjpeg.check_library()
    except RuntimeError:
        return False
    return True


needs_nvjpeg = pytest.mark.skipif(not has_nvjpeg(), reason="pip install 'pass-loader[nvjpeg]'")
FAR = 6  # levels: what others allow nvJPEG with smooth upsampling (nvImageCodec's tests); here only its IDCT may differ


@needs_nvjpeg
@pytest.mark.parametrize("sampling", probe_nvjpeg.FACTORS)
def test_how_far_nvjpegs_pictures_are(sampling: str, record_property: Callable[[str, object], None]) -> None:
    """From libjpeg-turbo's: worst, mean and share are shown. Kills: another upsampling, swapped components."""
    components = probe_nvjpeg.components_error(probe_nvjpeg.Library(probe_nvjpeg.KERNELS), sampling)
    for name, found in {"components": components, "pictures": probe_nvjpeg.pictures_error(sampling)}.items():
        record_property(name, found)
        print(sampling, name, found)
        assert found["worst"] <= FAR and found["mean"] < 0.5, (name, found)


@needs_nvjpeg
def test_nvjpeg_after_a_slow_stream() -> None:
    """100 ms of spinning, then many groups, each read by a copy on that stream. Kills: a slot that the hardware writes
    before its last reader has come (it ignores the order of streams)."""
    files = probe_nvjpeg.jpegs("4:2:0", 48)
    want = probe_nvjpeg.decoded(files, probe_nvjpeg.SIZE, slot_bytes=32 << 20)
    for slot_bytes in (2 << 20, 5 << 20):  # 3 and 8 pictures a group
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(probe_nvjpeg.SPIN)
            found = probe_nvjpeg.decoded(files, probe_nvjpeg.SIZE, slot_bytes)
        torch.cuda.synchronize()
        assert all(torch.equal(one, other) for one, other in zip(found, want, strict=True))


@needs_nvjpeg
def test_nvjpegs_batches(pack: Path) -> None:
    """Order, structure, labels and info are the CPU loader's; pixels differ a little. What nvJPEG does is told."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    options: dict[str, Any] = {"shuffle": True, "num_workers": 2, "return_info": True, "dtype": torch.uint8}
    loader, on_cpu = (
        DataLoader(dataset, 5, device="cuda", decode="nvjpeg", **options),
        DataLoader(dataset, 5, **options),
    )
    for _ in range(2):
        for (views, *rest), (want, *others) in zip(loader, on_cpu, strict=True):
            assert_batches_equal(rest, others)
            for view, other in zip(views, want):
                distance = (view.cpu().int() - other.int()).abs()
                assert view.shape == other.shape and distance.float().mean() < 0.5
    found = loader.stats()["nvjpeg"]
    print(found)
    assert found["decoded"] + found["on_cpu"] == 2 * len(dataset) and found["decoded"] > 0


@needs_nvjpeg
def test_nvjpegs_memory(tiny: Path) -> None:
    """Nothing more after the first batches, and all of it back. The consumer waits for each: how much torch has out
    depends on how far the GPU has come. Kills: a batch's memory, or nvJPEG's, that is kept."""
    seen = []
    for _ in range(3):
        loader = DataLoader(ShardDataset(tiny, TINY, seed=5), 16, num_workers=2, device="cuda", decode="nvjpeg",
                            infinite=True, shuffle=True)  # fmt: skip
        for number, batch in enumerate(loader):
            del batch
            torch.cuda.synchronize()
            if number in (20, 120):
                free, whole = torch.cuda.mem_get_info()
                outside = whole - free - torch.cuda.memory_reserved()
                seen.append((outside, loader.stats()["device_bytes"], torch.cuda.memory_allocated()))
            if number == 120:
                break
        assert seen[-1][:2] == seen[-2][:2] and seen[-1][2] <= seen[-2][2] + (1 << 16), seen
        del loader
        gc.collect()
        torch.cuda.empty_cache()
    assert seen[4][:2] == seen[2][:2] and seen[4][2] <= seen[2][2] + (1 << 16), seen


@pytest.mark.parametrize("codec", ["dct", "dct-zstd", "points"])
def test_exact_decoding(codec: str, pack: Path, tmp_path: Path) -> None:
    """Records of the codec dct, and JPEGs with entry points, decoded there: byte for byte the CPU's."""
    dataset = ShardDataset(coded(shutil.copytree(pack, tmp_path / "pack"), codec), SMALL, seed=5)
    loader = DataLoader(dataset, 5, shuffle=True, num_workers=2, return_info=True, device="cuda", decode="cuda")
    on_cpu = DataLoader(dataset, 5, shuffle=True, num_workers=2, return_info=True)
    for _ in range(2):
        for found, want in zip(loader, on_cpu, strict=True):
            assert_batches_equal(found, want)
    found = loader.stats()["cuda"]
    print(found)
    assert found == {"decoded": 2 * len(dataset), "refused": 0, "damaged": 0, "on_cpu": 0}


@pytest.mark.parametrize("codec", EXACT)
def test_the_benchmark_of_exact_decoding(codec: str, pack: Path, tmp_path: Path) -> None:
    """Its rows run, alone and from shards; the first compares pictures with the CPU's."""
    packed = str(shutil.copytree(pack, tmp_path / "pack"))
    found = exact.alone(packed, codec, 8, 0.01, "cuda")
    assert found["pictures"] > 0 and found["samples_per_s"] > 0
    place = loading.Place(packed, "", SMALL, 4, 2, "cuda")
    assert loading.from_shards(EXACT[codec], place, 0.01)["samples_per_s"] > 0


def test_normalize_on_the_device(pack: Path) -> None:
    """uint8 batches and `normalize` there give what the loader with the type gives, on either device."""
    dataset = ShardDataset(pack, SMALL, seed=5)
    plain = views_of(DataLoader(dataset, 23, device="cuda", dtype=torch.uint8))[0]
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        want = views_of(DataLoader(dataset, 23, dtype=dtype))[0]
        for view, bytes_ in zip(want, plain):
            assert torch.equal(pass_loader.normalize(bytes_, SMALL, dtype).cpu(), view)
