"""decode="cuda" without a GPU: csrc/cuda/exact.cpp and its kernels on a queue that the CPU executes as late as it may
(cpu_lane.py, cuda/host_gpu.cpp): batches are the CPU loader's to the byte. The kernels alone are in
native/test_cuda_decode.py, the host code on a stand-in runtime in test_standin_runtime.py."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import ctypes
import gc
import shutil
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import DataLoader, RecordError, ShardDataset, _C, recipes
from pass_loader.gpu import exact
from pass_loader.pack import Pack, build
from pass_loader.pack.convert import convert
from pass_loader.pack.index_points import index_points
from pass_loader.pack.points import POINTS

from ..helpers.batches import assert_batches_equal
from ..helpers.corpus import jpeg, noise
from ..helpers.cpu_lane import CpuLane, compare_epochs
from ..helpers.epochs import TINY
from ..helpers.processes import until
from ..helpers.recipes import SMALL
from ..helpers.trees import write_tree

pytestmark = pytest.mark.slow


@pytest.fixture
def host_lanes(lanes: list[CpuLane], host_gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[CpuLane]:
    monkeypatch.setattr(CpuLane, "host_gpu", host_gpu)
    return lanes


@pytest.fixture(scope="session", params=["dct", "dct-zstd", "jpeg"])
def mixed_coded(mixed: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Every kind of picture: records of the codec dct that the GPU takes and that it does not, JPEGs, PNGs; or JPEGs
    with entry points and without."""
    out = tmp_path_factory.mktemp("mixed") / "pack"
    if request.param == "jpeg":
        shutil.copytree(mixed, out)
        index_points(Pack(out))
    else:
        convert(mixed, out, request.param)
        (out / POINTS).unlink(missing_ok=True)  # left JPEGs are the CPU's
    return out


def taken(dataset: ShardDataset) -> int:
    """Return how many records the GPU takes: gray and YCbCr, none has other factors here."""
    records = [dataset.read(record) for record in range(len(dataset))]
    if (dataset.pack.path / POINTS).exists():
        return sum(_C.decodes_as_baseline(one) and _C.read_header(one)["ends"] for one in records)
    return sum(record.startswith(b"PLDC") and record[5] in (0, 1) for record in records)


compare = partial(compare_epochs, "cuda")


@pytest.mark.parametrize(("threads", "arena"), [(0, 60_000), (2, None), (2, 60_000)])
def test_every_kind(mixed_coded: Path, host_lanes: list[CpuLane], threads: int, arena: int | None) -> None:
    """Both ways of decoding in one batch, in order, three batches ahead, in parts. Kills: another upsampling, swapped
    components, gray in one plane, a form that is read from the arena after it was overwritten."""
    dataset = ShardDataset(mixed_coded, SMALL, seed=5)
    loader = compare(lambda **d: DataLoader(dataset, 7, shuffle=True, num_workers=threads, return_info=True,
                                            prefetch_factor=3 if threads else None, **d),
                     epochs=2, **({"arena_bytes": arena} if arena else {}))  # fmt: skip
    found, count = loader.stats(), taken(dataset)
    assert found["nvjpeg"] is None and found["cuda"]["damaged"] == found["cuda"]["refused"] == 0
    assert found["cuda"]["decoded"] + found["cuda"]["on_cpu"] == 2 * len(dataset)
    assert 20 < count < len(dataset)
    if arena is None:
        assert found["cuda"]["decoded"] == 2 * count
    else:  # what is larger than a part of the arena goes to the CPU
        assert found["cuda"]["decoded"] > count


def test_groups(mixed_coded: Path, host_lanes: list[CpuLane], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many more groups than slots for tables, each into the same memory; what is larger than a group goes to the CPU.
    Kills: tables that are written while they are copied, a group that is decoded over pictures not yet rendered."""
    monkeypatch.setattr(exact, "GROUP_BYTES", 80_000)
    dataset = ShardDataset(mixed_coded, SMALL, seed=5)
    loader = compare(lambda **d: DataLoader(dataset, 30, num_workers=2, return_info=True, **d), epochs=2)
    found = loader.stats()["cuda"]
    assert found["refused"] > 0 and found["decoded"] + found["refused"] == 2 * taken(dataset)
    assert found["decoded"] + found["on_cpu"] == 2 * len(dataset)
    lane = host_lanes[-1]
    assert len(lane.renderings) > 20 and lane.records is not None and lane.records.device_bytes <= 80_000
    monkeypatch.setattr(exact, "GROUP_BYTES", 1)
    found = compare(lambda **d: DataLoader(dataset, 30, num_workers=2, return_info=True, **d)).stats()["cuda"]
    assert found["decoded"] == 0 and found["refused"] == taken(dataset) and found["on_cpu"] == len(dataset)


class IdleLane:
    """A GPU for which nothing is queued."""


def test_a_groups_workspace(host_gpu: ModuleType) -> None:
    """It has room for the largest group, and no more than the limit. Kills: tables that are not counted, the room that
    the last group needs."""
    files = [jpeg(noise(*size, number)) for number, size in enumerate([(24, 24), *[(8, 8)] * 8, (16, 16), (8, 8)])]
    forms = [_C.gpu_form(file, _C.prove(file)[1]) for file in files]
    assert all(forms)
    begins = np.cumsum([0, *(-(-len(form) // 16) * 16 for form in forms)])
    host = np.zeros(begins[-1] + 16, np.uint8)
    rows = np.zeros((len(forms), 4), np.int64)
    first = host.ctypes.data + -host.ctypes.data % 16
    for row, begin, form in zip(rows, begins, forms):
        ctypes.memmove(first + int(begin), form, len(form))
        height, width = np.frombuffer(form[4:12], np.int32)
        stride = -(-int(width) // 16) * 16
        row[:] = first + begin, first + begin, stride, stride * int(height)

    lane = IdleLane()

    def sort(chosen: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
        decoder = host_gpu.ExactDecoder(lane, limit)
        return decoder.sort(rows[chosen])[:, 0], decoder.workspace_bytes

    each, everything = np.arange(len(rows)), 1 << 30
    alone = [sort(each[i : i + 1], everything)[1] for i in each]
    largest, counts = max(alone), set()
    for limit in range(largest, sum(alone) + 1, 512):
        groups, bytes = sort(each, limit)
        counts.add(int(groups.max()) + 1)
        assert groups[0] == 0 and (np.diff(groups) >= 0).all() and bytes <= limit
        assert bytes == max(sort(each[groups == group], everything)[1] for group in range(groups.max() + 1))
    assert len(counts) > 2 and min(counts) == 1
    groups, bytes = sort(each, largest - 256)
    assert groups[0] == -1 and (groups[1:] >= 0).all() and bytes < largest, "what is too large is left out"


def test_a_workspace_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: one that stays too small, one that is allocated anew for less, one beyond a group's limit."""
    monkeypatch.setattr(exact, "GROUP_BYTES", 3_000)
    native, taken = SimpleNamespace(sort=lambda rows: np.zeros((len(rows), 2), np.int64), groups=1), []
    used: list[int] = []
    native.decode = lambda group, workspace, verdicts, stream: used.append(workspace)

    def empty(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        taken.append(shape[0])
        return torch.empty(shape, dtype=dtype)

    decoder, rows = exact.RecordDecoder(native), np.array([[0, 8, 8, 16, 128]], np.int64)
    for native.workspace_bytes, wanted in ((1_000, 1_250), (10, 1_250), (1_250, 1_250), (1_300, 1_625), (2_500, 3_000)):
        ((chosen, found),) = decoder.decode(0, 0, rows, 0, 0, empty)
        assert taken[-1] == decoder.device_bytes == wanted and chosen.tolist() == [0] and found[0, 0] == used[-1]
    assert taken == [1_250, 1_625, 3_000]


DAMAGED = (3, 4, 5, 11, 17, 30)  # three of them in a run, so that a batch may have nothing else


@pytest.fixture(scope="session", params=["dct", "dct-zstd"])
def damaged_pack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Records whose bytes are those of their CRC and not sound: in places that the header or the lengths tell, that
    only counting or only the coefficients tell."""
    place = tmp_path_factory.mktemp("damaged")
    files = {f"{number:02}.jpg": jpeg(noise(24, 40, number), quality=90 + number % 3, subsampling=number % 3)
             for number in range(36)}  # fmt: skip
    number_of, to_dct = {data: int(name[:2]) for name, data in files.items()}, _C.jpeg_to_dct

    def damaged(data: bytes, zstd: bool = False, max_scans: int = 0) -> bytes | None:
        record = to_dct(data, False, max_scans)
        assert record is not None
        if (number := number_of[data]) in DAMAGED:
            record = not_sound(record, DAMAGED.index(number))
        return _C.layer_dct(record, True) if zstd else record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_C, "jpeg_to_dct", damaged)
        build([write_tree(place / "in", files)], place / "pack", workers=1, codec=request.param)
    (place / "pack" / POINTS).unlink()  # it would say that they are proven
    return place / "pack"


def not_sound(record: bytes, way: int) -> bytes:
    """Change a byte such that the record is refused."""
    rng = np.random.default_rng(way)
    while True:
        copy = bytearray(record)
        copy[int(rng.integers(len(copy) // 2, len(copy)))] ^= 1 << int(rng.integers(8))
        try:
            _C.decode(bytes(copy))
        except _C.BadPictureError:
            return bytes(copy)


@pytest.mark.parametrize("policy", ["replace", "skip"])
@pytest.mark.parametrize(("threads", "arena"), [(0, None), (2, 30_000)])
def test_error_policies(
    damaged_pack: Path, host_lanes: list[CpuLane], policy: str, threads: int, arena: int | None
) -> None:
    """The CPU's error counts. Kills: a verdict that is not heard, one of another picture, one that is looked at before
    it is there, a batch that is handed over without its replacements."""
    dataset = ShardDataset(damaged_pack, TINY, seed=5)

    def make(**device: Any) -> DataLoader:
        return DataLoader(dataset, 7, shuffle=True, return_info=True, on_error=policy, num_workers=threads,
                          **device, **({"arena_bytes": arena} if device and arena else {}))  # fmt: skip

    on_gpu, on_cpu = make(device="cuda", decode="cuda"), make()
    for _ in range(2):
        for found, want in zip(on_gpu, on_cpu, strict=True):
            assert_batches_equal(found, want)
    assert [*map(str, on_gpu.errors)] == [*map(str, on_cpu.errors)] and len(on_gpu.errors) >= 2 * len(DAMAGED)
    stats = on_gpu.stats()["cuda"]
    assert stats["damaged"] > 0 and stats["decoded"] > 0 and stats["on_cpu"] == 0

    sampler = [1, 2, *DAMAGED[:3], 6, 7, 8]
    whole = [DataLoader(dataset, 3, sampler=sampler, on_error=policy, return_info=True, **device)
             for device in ({"device": "cuda", "decode": "cuda"}, {})]  # fmt: skip
    for found, want in zip(*whole, strict=True):
        assert_batches_equal(found, want)


def test_raise_names_the_record(damaged_pack: Path, host_lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(damaged_pack, TINY, seed=5)
    seen: list[list[Any]] = [[], []]
    for device, into in zip(({"device": "cuda", "decode": "cuda"}, {}), seen):
        iterator = iter(DataLoader(dataset, 4, num_workers=2, return_info=True, **device))
        while True:
            try:
                into.append(next(iterator)[-1]["records"].tolist())
            except StopIteration:
                break
            except RecordError as error:
                into.append(str(error))
    assert seen[0] == seen[1] and sum(isinstance(one, str) and "dct:" in one for one in seen[0]) >= 4


def test_a_sound_record_that_the_gpu_refuses(
    mixed_coded: Path, host_lanes: list[CpuLane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it ever did: the CPU decodes it. Kills: a record that is given up where the verdict alone is bad."""
    judge = exact.RecordDecoder.judge

    def harsh(self: exact.RecordDecoder, verdicts: np.ndarray) -> np.ndarray:
        verdicts = verdicts.copy()
        verdicts[::3] = 1
        return judge(self, verdicts)

    monkeypatch.setattr(exact.RecordDecoder, "judge", harsh)
    dataset = ShardDataset(mixed_coded, SMALL, seed=5)
    for arena in ({}, {"arena_bytes": 60_000}):
        loader = compare(
            lambda **d: DataLoader(dataset, 7, shuffle=True, num_workers=2, return_info=True, **d), **arena
        )
        found = loader.stats()["cuda"]
        assert found["damaged"] > 5 and found["decoded"] + found["on_cpu"] == len(dataset)


def test_resume_static_buffers_and_structures(mixed_coded: Path, host_lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(mixed_coded, SMALL, seed=5, records=range(11))
    options = {"shuffle": True, "num_workers": 2, "return_info": True}
    for first, then in (("cuda", "cpu"), ("cpu", "cuda")):
        whole = list(DataLoader(dataset, 4, **options))
        begun = DataLoader(dataset, 4, device="cuda", decode=first, static_buffers=True, **options)
        iterator = iter(begun)
        assert_batches_equal(next(iterator), whole[0])
        resumed = DataLoader(dataset, 4, device="cuda", decode=then, **options)
        resumed.load_state_dict(begun.state_dict())
        for found, want in zip([*resumed], whole[1:], strict=True):
            assert_batches_equal(found, want)
    for name in ("dinov2", "ijepa", "mae"):
        preset = ShardDataset(mixed_coded, recipes.PRESETS[name](), seed=5, records=range(3))
        compare(lambda preset=preset, **d: DataLoader(preset, 2, num_workers=2, return_plan=True, **d))


def test_a_rendering_that_fails_can_be_tried_again(mixed_coded: Path, host_lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(mixed_coded, SMALL, seed=5, records=range(11))
    want = list(DataLoader(dataset, 4, return_info=True))
    loader = DataLoader(dataset, 4, num_workers=2, return_info=True, device="cuda", decode="cuda")
    iterator, found, failed = iter(loader), [], 0
    CpuLane.fail[:] = [torch.OutOfMemoryError("too little")] * 3
    while len(found) < len(want):
        try:
            found.append(next(iterator))
        except torch.OutOfMemoryError:
            failed += 1
    assert failed > 0
    for one, other in zip(found, want, strict=True):
        assert_batches_equal(one, other)


def test_memory(mixed_coded: Path, host_lanes: list[CpuLane], host_gpu: ModuleType) -> None:
    """All is counted, and given back when the loader dies."""
    gc.collect()  # what earlier tests have left
    dataset = ShardDataset(mixed_coded, SMALL, seed=5, records=range(9))
    held = host_gpu.held()
    loader = DataLoader(dataset, 3, num_workers=2, device="cuda", decode="cuda")
    list(loader)
    records = host_lanes[-1].records
    assert records is not None and host_gpu.held() > held
    stats = loader.stats()
    assert stats["device_bytes"] == host_lanes[-1].room + records.device_bytes and records.device_bytes > 0
    assert stats["pinned_bytes"] > records.pinned_bytes > 0
    del loader, records
    host_lanes.clear()
    until(lambda: gc.collect() >= 0 and host_gpu.held() == held)  # the launcher may be in the midst of a batch


def test_jpegs_without_entry_points_are_the_cpus(pack: Path, host_lanes: list[CpuLane]) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(5))
    found = compare(lambda **d: DataLoader(dataset, 3, num_workers=2, **d)).stats()["cuda"]
    assert found == {"decoded": 0, "refused": 0, "damaged": 0, "on_cpu": 5}


def test_refused(pack: Path) -> None:
    dataset = ShardDataset(pack, SMALL)
    for options, words in (({"decode": "cuda"}, "go with device='cuda'"),
                           ({"decode": "gpu", "device": "cuda"}, "want 'cpu', 'cuda' or 'nvjpeg'")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            DataLoader(dataset, 2, **options)
