"""decode="nvjpeg" without a GPU: csrc/cuda/nvjpeg.cpp on a queue that the CPU executes as late as it may (cpu_lane.py,
cuda/host_gpu.cpp), with a library in nvJPEG's place (cuda/nvjpeg_standin.cpp) whose components are libjpeg-turbo's, so
that batches are the CPU loader's to the byte. What only a GPU can show is in test_cuda_loader.py."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from importlib.util import find_spec
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import DataLoader, ShardDataset, _C, recipes
from pass_loader.gpu import cuda
from pass_loader.gpu import nvjpeg
from pass_loader.pack import build
from pass_loader.cli.main import main as pass_pack
from benchmarks.gpu import probe_nvjpeg

from ..helpers.batches import assert_batches_equal
from ..helpers.corpus import decodable, jpeg, noise
from ..helpers.cpu_lane import CpuLane, compare_epochs
from ..helpers.epochs import TINY
from ..helpers.nvjpeg_standin import ROOT, Standin, compiled
from ..helpers.processes import until
from ..helpers.recipes import SMALL
from ..helpers.trees import write_tree

pytestmark = pytest.mark.slow


LEAST = 3  # slots


OTHERS = {"cmyk", "cmyk_noise", "progressive", "progressive_gray", "keep_rgb", "garbage_after_eoi"}  # of decodable()
PLAIN = 26 + len(decodable()) - len(OTHERS)  # pictures of the pack `mixed` that nvJPEG is given


compare = partial(compare_epochs, "nvjpeg")


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("arch_mismatch", [0, 1])
def test_every_kind(mixed: Path, standin: Standin, threads: int, arch_mismatch: int) -> None:
    """Both ways, in order, three batches ahead. Kills: another upsampling, swapped components, gray in one plane."""
    standin.set(arch_mismatch=arch_mismatch)
    dataset = ShardDataset(mixed, SMALL, seed=5)
    loader = compare(lambda **d: DataLoader(dataset, 7, shuffle=True, num_workers=threads, return_info=True,
                                            prefetch_factor=3 if threads else None, **d), epochs=2)  # fmt: skip
    found = loader.stats()["nvjpeg"]
    assert found["decoded"] + found["on_cpu"] == 2 * len(dataset) and found["refused"] == found["failed"] == 0
    assert found["decoded"] == standin.count("decoded") == 2 * PLAIN
    assert found["backend"] == ("kernels" if arch_mismatch else "hardware") and found["version"] == "13.0.0"
    assert found["engines"] == (0 if arch_mismatch else 7)
    assert ('capability "video"' in found["reason"]) == bool(arch_mismatch)


def test_plain_files(standin: Standin, mixed: Path) -> None:
    """What goes to nvJPEG at all: baseline, one scan, whole, of gray or YCbCr."""
    dataset = ShardDataset(mixed, SMALL)
    engine = DataLoader(dataset, 4)._get_renderer()._engine
    count = len(dataset)
    records = np.arange(count, dtype=np.int64)
    arena, rows = np.full(40_000_000, 0xA5, np.uint8), np.zeros((count, 5), np.int64)
    plans, lengths = np.zeros((count, len(SMALL.views)), _C.view_plan_dtype), np.ones(count, np.int64)
    lengths[records % 7 == 3] = 0
    none = np.zeros(count, np.uint32)
    assert engine.decode(records, none, none, arena, rows, plans, lengths).wait() == []
    left = set()
    for record in range(count):
        begin, height, width, row, plane = rows[record]
        assert (height, width) == dataset.pack.size_of(record) and row % 16 == 0 and plane == row * height
        assert np.array_equal(plans[record], dataset.plan(record))
        if lengths[record]:
            assert arena[begin : begin + lengths[record]].tobytes() == dataset.read(record) and record % 7 != 3
        elif record % 7 != 3:
            left.add(dataset.id_of(record))
            pixels = [arena[begin + c * plane :][:plane].reshape(height, row)[:, :width] for c in range(3)]
            assert np.array_equal(np.stack(pixels, -1), dataset.decode(record))
    assert left - {"png", "gray"} == OTHERS - {dataset.id_of(record) for record in records[records % 7 == 3]}


def test_slots_are_waited_for(pack: Path, standin: Standin) -> None:
    """Groups of a few pictures, many more than slots, before anything is executed. Kills: no wait for a slot's last
    reader, tables of a slot that are written while they are copied."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(17))
    largest = max(3 * h * (w + 63) for h, w in map(dataset.pack.size_of, range(len(dataset))))
    loader = compare(lambda **d: DataLoader(dataset, 9, num_workers=2, return_info=True, **d), epochs=2,
                     arena_bytes=3 * 2 * largest)  # fmt: skip
    lane = CpuLane.made[-1]
    assert max(lane.renderings) <= 5 and len(lane.renderings) > 2 * LEAST
    assert loader.stats()["nvjpeg"]["decoded"] == 2 * len(dataset)


@pytest.mark.parametrize("threads", [0, 2])
def test_files_stay_until_they_are_read(standin: Standin, tmp_path: Path, threads: int) -> None:
    """Without hardware, files are read when the stream comes to it. Noise, whose files are as large as its pixels: a
    part of the arena is one group, and there are more parts than slots and than places in the arena. Kills: a part of
    the arena that is written again before nvJPEG has read it."""
    standin.set(arch_mismatch=1)
    files = {f"{number:02}.jpg": jpeg(noise(64, 64, number), quality=100, subsampling=0) for number in range(24)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    dataset = ShardDataset(tmp_path / "pack", SMALL, seed=5)
    compare(lambda **d: DataLoader(dataset, 24, num_workers=threads, prefetch_factor=1, return_info=True, **d),
            epochs=2, arena_bytes=2 * 60_000)  # fmt: skip
    renderings = CpuLane.made[-1].renderings
    assert len(renderings) >= 2 * 6 and max(renderings) <= 4


def test_components_that_are_larger_than_a_slot(standin: Standin, tmp_path: Path) -> None:
    """Rows of 65 samples take 128 bytes there, 80 in a picture, which has room. Kills: what is written past a slot."""
    files = {f"{number}.jpg": jpeg(noise(64, 65, number), quality=75, subsampling=0) for number in range(3)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    dataset = ShardDataset(tmp_path / "pack", SMALL, seed=5)
    for arena, decoded in ((16_384, 0), (24_576, 3)):  # bytes of a part, and of a slot
        found = compare(lambda **d: DataLoader(dataset, 3, return_info=True, **d), arena_bytes=2 * arena).stats()
        assert (found["nvjpeg"]["decoded"], found["nvjpeg"]["refused"]) == (decoded, 3 - decoded)


def test_the_budget_holds(pack: Path, standin: Standin) -> None:
    """Of slots, tables and what nvJPEG takes; beyond it, the CPU decodes."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(9))
    standin.set(hunger=1 << 20)
    loader = compare(lambda **d: DataLoader(dataset, 3, num_workers=2, return_info=True, **d))
    chunk = len(loader._renderer[1]._pinned) // 3
    slot = min(chunk, nvjpeg.SLOT_BYTES)
    held = loader.stats()["device_bytes"]
    assert held - chunk >= LEAST * (slot + (3 << 20)) and loader.stats()["nvjpeg"]["failed"] == 0
    standin.set(hunger=100 << 20)  # of a batch of three: more than eight slots, and than 256 MiB
    loader = compare(lambda **d: DataLoader(dataset, 3, num_workers=2, return_info=True, **d))
    found = loader.stats()
    assert found["nvjpeg"]["last_failure"] == "ALLOCATOR_FAILURE" and found["nvjpeg"]["failed"] == 9
    assert found["nvjpeg"]["on_cpu"] == 9 and found["device_bytes"] - chunk <= LEAST * (slot + (2 << 20)) + (256 << 20)


@pytest.mark.parametrize("arena", [None, 60_000])
@pytest.mark.parametrize("threads", [0, 2])
def test_refused_and_failed(mixed: Path, standin: Standin, threads: int, arena: int | None) -> None:
    """What nvJPEG does not take, and calls that fail in the middle, go to the CPU, counted. Kills: a picture that is
    lost, one that is rendered from what a failed call has left."""
    dataset = ShardDataset(mixed, SMALL, seed=5)
    for settings in ({"refuse_every": 3}, {"fail_every": 2}, {"fail_every": 1}, {"refuse_every": 4, "fail_every": 3}):
        standin.reset()
        standin.set(**settings)
        loader = compare(lambda **d: DataLoader(dataset, 7, shuffle=True, num_workers=threads, return_info=True, **d),
                         **({"arena_bytes": arena} if arena else {}))  # fmt: skip
        found = loader.stats()["nvjpeg"]
        assert found["decoded"] + found["on_cpu"] == len(dataset)
        assert (found["refused"] > 0) == ("refuse_every" in settings or arena is not None)
        assert (found["failed"] > 0) == ("fail_every" in settings)
        assert (found["decoded"] == 0) == (settings == {"fail_every": 1})


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("policy", ["replace", "skip"])
def test_error_policies(broken_pack: Path, standin: Standin, policy: str, threads: int) -> None:
    """Broken files, which nvJPEG fails on with all their group: the CPU's error counts."""
    dataset = ShardDataset(broken_pack, TINY, seed=5)

    def make(**device: Any) -> DataLoader:
        return DataLoader(dataset, 7, shuffle=True, return_info=True, on_error=policy, num_workers=threads, **device)

    on_gpu, on_cpu = make(device="cuda", decode="nvjpeg"), make()
    for found, want in zip(on_gpu, on_cpu, strict=True):
        assert_batches_equal(found, want)
    assert [*map(str, on_gpu.errors)] == [*map(str, on_cpu.errors)] and on_gpu.errors
    assert on_gpu.stats()["nvjpeg"]["decoded"] > 0


def test_resume_static_buffers_and_structures(pack: Path, standin: Standin) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    options = {"shuffle": True, "num_workers": 2, "return_info": True}
    for first, then in (("nvjpeg", "cpu"), ("cpu", "nvjpeg")):
        whole = list(DataLoader(dataset, 4, **options))
        begun = DataLoader(dataset, 4, device="cuda", decode=first, static_buffers=True, **options)
        iterator = iter(begun)
        assert_batches_equal(next(iterator), whole[0])
        resumed = DataLoader(dataset, 4, device="cuda", decode=then, **options)
        resumed.load_state_dict(begun.state_dict())
        for found, want in zip([*resumed], whole[1:], strict=True):
            assert_batches_equal(found, want)
    for name in ("dinov2", "ijepa", "simclr", "mae"):
        preset = ShardDataset(pack, recipes.PRESETS[name](), seed=5, records=range(3))
        compare(lambda preset=preset, **d: DataLoader(preset, 2, num_workers=2, return_plan=True, **d))


def test_a_rendering_that_fails_can_be_tried_again(pack: Path, standin: Standin) -> None:
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(11))
    want = list(DataLoader(dataset, 4, return_info=True))
    loader = DataLoader(dataset, 4, num_workers=2, return_info=True, device="cuda", decode="nvjpeg")
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


def test_the_codec_dct(pack: Path, standin: Standin, tmp_path: Path) -> None:
    """Its records are the CPU's work."""
    assert pass_pack(["convert", str(pack), "--codec", "dct", "--out", str(tmp_path / "dct")]) == 0
    dataset = ShardDataset(tmp_path / "dct", SMALL, seed=5, records=range(5))
    found = compare(lambda **d: DataLoader(dataset, 3, num_workers=2, **d)).stats()["nvjpeg"]
    assert (found["decoded"], found["on_cpu"]) == (0, 5)


def test_everything_is_given_back(pack: Path, standin: Standin, host_gpu: ModuleType) -> None:
    """When the loader dies, and when making the decoder fails half-way."""
    dataset = ShardDataset(pack, SMALL, seed=5, records=range(9))
    gc.collect()  # what earlier tests have left
    for _ in range(2):
        loader = DataLoader(dataset, 3, num_workers=2, device="cuda", decode="nvjpeg")
        batches = iter(loader)
        next(batches)
        assert standin.count("handles") == 1 and standin.count("states") == 3 and host_gpu.held() > 0
        del loader, batches
        CpuLane.made.clear()
        # The launcher may be in the midst of a batch, and hold it all once more.
        until(lambda: gc.collect() >= 0 and standin.count("handles") == 0)
        assert standin.count("states") == host_gpu.held() == 0
    failures = {"create_status": (6, "starting: EXECUTION_FAILED"),
                "fail_state": (2, "making a state: ALLOCATOR_FAILURE .*too little free memory")}  # fmt: skip
    for name, (value, words) in failures.items():
        standin.reset()
        standin.set(**{name: value})
        with pytest.raises(RuntimeError, match=f"nvJPEG, while {words}"):
            host_gpu.JpegDecoder(CpuLane, str(standin.library), 1 << 20)
        assert standin.count("handles") == standin.count("states") == host_gpu.held() == 0


def test_what_is_missing(pack: Path, standin: Standin, host_gpu: ModuleType, tmp_path: Path,
                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    with pytest.raises(RuntimeError, match="nvJPEG cannot be opened: .*nowhere.so"):
        host_gpu.JpegDecoder(CpuLane, str(tmp_path / "nowhere.so"), 1 << 20)
    old = compiled(tmp_path / "old.so", "-shared", "-xc++", "/dev/null")
    with pytest.raises(RuntimeError, match="old.so is too old: it has no nvjpeg"):
        host_gpu.JpegDecoder(CpuLane, str(old), 1 << 20)
    monkeypatch.setattr(nvjpeg, "LIBRARY", "libnvjpeg.so.0")
    with pytest.raises(RuntimeError, match=r"pip install 'pass-loader\[nvjpeg\]'"):
        nvjpeg.check_library()
    dataset = ShardDataset(pack, SMALL)
    for options, words in (({"decode": "nvjpeg"}, "go with device='cuda'"),
                           ({"decode": "gpu", "device": "cuda"}, "want 'cpu', 'cuda' or 'nvjpeg'")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            DataLoader(dataset, 2, **options)


def test_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: Path) -> None:
    """Where pip puts nvidia-nvjpeg: nvidia/cu13/lib, in a package without __init__.py."""
    folder = tmp_path / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    shutil.copy(library, folder / nvjpeg.LIBRARY)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pass_loader.gpu import nvjpeg\n"
        "print(nvjpeg.library())\n"
        "nvjpeg.check_library()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == str(folder / nvjpeg.LIBRARY)


def test_components_to_rgb(tmp_path: Path) -> None:
    """cuda/colour.cpp: upsampling and colours against the CPU's, for equal components."""
    sources = ["tests/native/cuda/colour.cpp", "csrc/jpeg/frame.cpp", "csrc/jpeg/colour.cpp", "csrc/isa.cpp"]
    sanitizers = ["-g1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    done = subprocess.run([compiled(tmp_path / "colour", *sanitizers, *sources)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_benchmarks_calls(library: Path) -> None:
    """benchmarks/gpu/probe_nvjpeg.py, as far as it needs no GPU: the stand-in's components are libjpeg-turbo's."""
    ours = probe_nvjpeg.Library(probe_nvjpeg.HARDWARE, path=str(library))
    assert ours.engines() == (7, 1)
    for sampling in probe_nvjpeg.FACTORS:
        assert probe_nvjpeg.components_error(ours, sampling, 3, "cpu") == {"worst": 0, "mean": 0, "share": 0}
    with pytest.raises(RuntimeError, match="nvjpegDecodeBatched: status 2"):
        ours.decode(np.zeros((2, 2), np.int64), [probe_nvjpeg.Output()] * 2, probe_nvjpeg.RGB, 0)


def nvidia_headers() -> list[Path]:
    """Folders of nvjpeg.h, in nvidia-nvjpeg, and of the header that it includes, in CUDA."""
    spec = find_spec("nvidia.cu13") if find_spec("nvidia") else None
    folders = [Path(folder) / "include" for folder in (spec.submodule_search_locations or [] if spec else [])]
    nvcc = shutil.which("nvcc")
    if nvcc:
        folders += [Path(nvcc).resolve().parent.parent / "include"]
        text = subprocess.run([nvcc, "--dryrun", "-c", "any.cu"], capture_output=True, text=True).stderr
        folders += [Path(part.strip('"')[2:]) for part in text.split() if part.strip('"').startswith("-I")]
    return folders


def test_declarations_are_nvidias(tmp_path: Path) -> None:
    """csrc/cuda/nvjpeg_api.h against nvjpeg.h. Kills: a number, a layout, a signature that differs."""
    folders = nvidia_headers()
    if not all(any((folder / name).exists() for folder in folders) for name in ("nvjpeg.h", "cuda_runtime_api.h")):
        pytest.skip("needs the headers of nvidia-nvjpeg and of CUDA")
    compiled(tmp_path / "api.o", "-c", *(f"-isystem{folder}" for folder in folders), "tests/native/cuda/nvjpeg_api.cpp")


@pytest.mark.skipif(cuda.cuda_available() or cuda._cuda is None, reason="a GPU is there, or no CUDA part")
def test_the_module_without_a_gpu() -> None:
    with pytest.raises(RuntimeError) as caught:
        cuda.jpeg_decoder(torch.device("cuda", 0), "libnvjpeg.so.13", 1 << 20)
    assert str(caught.value) == cuda.cuda_reason()
