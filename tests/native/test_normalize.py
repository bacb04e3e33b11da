"""Element types and memory formats: every value is torch's cast of the float32 batch, at every level."""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pass_loader
from pass_loader import DataLoader, Recipe, ShardDataset, ViewSpec, _C
from pass_loader.loading.rendering import ELEMENTS

from ..helpers.epochs import TINY
from ..helpers.processes import native_threads
from ..helpers.recipes import hostile


# Odd sizes: one value, below and above one vector, no multiple of any, and more than one run of interleaving (1024).
SIZES = ((1, 1), (3, 5), (7, 9), (33, 31), (35, 67))
HALVES = (torch.float16, torch.bfloat16)


def recipe(mean: tuple[float, ...], std: tuple[float, ...]) -> Recipe:
    views = tuple(ViewSpec(size, (0.2, 1.0), flip=0.5) for size in SIZES)
    return Recipe("odd", views, mean=mean, std=std)  # type: ignore[arg-type]


def pixels() -> torch.Tensor:
    """(1, 3, 16, 16): every byte in every channel."""
    return torch.arange(256, dtype=torch.uint8).view(16, 16).expand(1, 3, 16, 16)


def torchs(views: torch.Tensor, of: Recipe) -> torch.Tensor:
    """torchvision's ToTensor and Normalize, written with torch's operators."""
    mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (of.mean, of.std))
    return views.to(torch.float32).div(255).sub(mean).div(std)


def equal(found: torch.Tensor, want: torch.Tensor) -> bool:
    """Every value, NaN for NaN."""
    return found.dtype == want.dtype and torch.equal(torch.nan_to_num(found, 7.0), torch.nan_to_num(want, 7.0))


@pytest.mark.slow
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", list(ELEMENTS), ids=str)
def test_every_type_is_torchs_cast(pack: Path, isa: str, dtype: torch.dtype, last: bool) -> None:
    for mean, std in hostile()[:6]:
        dataset = ShardDataset(pack, recipe(mean, std), seed=3, records=range(3))
        plain = next(iter(DataLoader(dataset, 3, dtype=torch.uint8)))[0]
        loader = DataLoader(dataset, 3, num_workers=1, dtype=dtype, channels_last=last)
        for view, bytes_ in zip(next(iter(loader))[0], plain):
            want = bytes_ if dtype == torch.uint8 else torchs(bytes_, dataset.recipe).to(dtype)
            assert equal(view, want), (mean, std, tuple(view.shape))
            assert view.shape == (3, 3, *view.shape[2:])
            form = torch.channels_last if last else torch.contiguous_format
            assert view.is_contiguous(memory_format=form)


@pytest.mark.slow
def test_tables_that_arithmetic_gets_wrong_are_looked_up(pack: Path, isa: str) -> None:
    """Every byte of every channel. Some of these tables are not computable: the search says how many."""
    for dtype in (torch.float32, *HALVES):
        for mean, std in hostile():
            of = recipe(mean, std)
            plain = next(iter(DataLoader(ShardDataset(pack, of, records=[4]), 1, dtype=torch.uint8)))[0]
            found = next(iter(DataLoader(ShardDataset(pack, of, records=[4]), 1, dtype=dtype)))[0]
            for view, bytes_ in zip(found[2:], plain[2:]):
                assert equal(view, torchs(bytes_, of).to(dtype)), (mean, std, dtype)


def by_multiply_adds(byte: int, mean: np.float32, std: np.float32) -> np.float32:
    """csrc/cpu/normalize.cpp's quotient, a fused multiply-add being one rounding of the exact value."""
    from fractions import Fraction

    def rounded(value: Fraction) -> np.float32:
        return np.float32(float(value))

    def divide(a: np.float32, b: np.float32) -> np.float32:
        reciprocal = np.float32(1) / b
        quotient = a * reciprocal
        rest = rounded(Fraction(float(a)) - Fraction(float(quotient)) * Fraction(float(b)))
        return rounded(Fraction(float(quotient)) + Fraction(float(rest)) * Fraction(float(reciprocal)))

    return divide(divide(np.float32(byte), np.float32(255)) - mean, std)


def test_the_search_finds_such_tables() -> None:
    """Else the test above would prove nothing."""
    wrong = 0
    for mean, std in hostile()[6:16]:
        table = recipe(mean, std).normalize_table()
        for channel in range(3):
            divisor, middle = np.float32(std[channel]), np.float32(mean[channel])
            values = [by_multiply_adds(byte, middle, divisor) for byte in range(256)]
            wrong += not np.array_equal(np.array(values, np.float32), table[channel])
    assert wrong >= 1


@pytest.mark.parametrize("last", [False, True])
def test_normalize_on_the_way(pack: Path, last: bool) -> None:
    """A uint8 loader and `normalize` give what the loader with the type gives, and keep the memory format."""
    of = recipe((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    dataset = ShardDataset(pack, of, records=range(3))
    plain = next(iter(DataLoader(dataset, 3, dtype=torch.uint8, channels_last=last)))[0]
    for dtype in (torch.float32, *HALVES):
        want = next(iter(DataLoader(dataset, 3, dtype=dtype)))[0]
        for view, bytes_ in zip(want, plain):
            found = pass_loader.normalize(bytes_, of, dtype)
            assert equal(found, view) and found.stride() == bytes_.stride()
    assert equal(pass_loader.normalize(pixels(), of), torchs(pixels(), of))
    assert equal(pass_loader.normalize(plain[4][0], of), torchs(plain[4][0], of)), "one picture without a batch"
    for wrong in (plain[4].float(), plain[4][:, :2], plain[4][0, 0]):
        with pytest.raises(ValueError, match=r"want a uint8 tensor \(\.\.\., 3, height, width\)"):
            pass_loader.normalize(wrong, of)


ACCELERATOR = torch.accelerator.current_accelerator(check_available=True)


@pytest.mark.skipif(ACCELERATOR is None, reason="needs an accelerator; test_pinning.py runs it on one of its own")
def test_on_an_accelerator(pack: Path) -> None:
    """normalize on the device gives the same values; all that the loader gives is pinned, as torch's is."""
    for mean, std in hostile():
        of = recipe(mean, std)
        for dtype in (torch.float32, *HALVES):
            there = pass_loader.normalize(pixels().to(ACCELERATOR), of, dtype)
            assert there.device.type == ACCELERATOR.type and equal(there.cpu(), torchs(pixels(), of).to(dtype))
    of = recipe((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for dtype in ELEMENTS:
        for arguments in ({}, {"collate_fn": torch.utils.data.default_collate}, {"return_info": True}):
            loader = DataLoader(ShardDataset(pack, of), 4, dtype=dtype, pin_memory=True, num_workers=2, **arguments)
            views, labels, *info = next(iter(loader))
            assert all(view.is_pinned() for view in views) and labels.is_pinned()
            assert not info or info[0]["records"].is_pinned() and len(info[0]["ids"]) == 4
            plain = next(iter(DataLoader(ShardDataset(pack, of), 4, dtype=dtype)))[0]
            there = [view.to(ACCELERATOR, non_blocking=True) for view in views]
            assert all(torch.equal(view.cpu(), one) for view, one in zip(there, plain))
    assert loader.stats()["pinned_bytes"] > 0


def test_other_types_are_refused(tiny: Path) -> None:
    for dtype in (torch.float64, torch.int8, "float32"):
        with pytest.raises(TypeError, match="dtype is .*, want one of torch.float32, torch.float16, torch.bfloat16"):
            DataLoader(ShardDataset(tiny, TINY), 2, dtype=dtype)  # type: ignore[arg-type]


def allowed(task: Path) -> set[int]:
    """Return the CPUs that a thread may run on."""
    text = re.search(r"Cpus_allowed_list:\s+(\S+)", (task / "status").read_text())[1]  # type: ignore[index]
    ranges = [part.split("-") for part in text.split(",")]
    return {cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)}


def test_threads_run_on_the_cpus_that_are_named(tiny: Path) -> None:
    gc.collect()  # loaders of tests before
    data: Any = ShardDataset(tiny, TINY)
    cpus = sorted(os.sched_getaffinity(0))
    mine = os.sched_getaffinity(0)
    before = native_threads()
    chosen = (cpus + cpus)[:2]
    loader = DataLoader(data, 4, num_workers=3, cpus=[*chosen])
    assert sum(len(labels) for _, labels in loader) == len(data)
    assert sorted(map(allowed, native_threads("pass-render", before)), key=min) == sorted(
        [{chosen[0]}, {chosen[1]}, {chosen[0]}], key=min
    )
    assert [allowed(task) for task in native_threads("pass-scout", before)] == [mine]
    assert os.sched_getaffinity(0) == mine, "the caller runs where it did"
    del loader
    absent = next(cpu for cpu in range(1023, 0, -1) if not os.path.exists(f"/sys/devices/system/cpu/cpu{cpu}"))
    for cpu, words in ((absent, f"cannot run a thread on CPU {absent}: Invalid"), (-1, r"CPU -1, want \[0, 1024\)"),
                       (4096, r"CPU 4096, want \[0, 1024\)")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            next(iter(DataLoader(data, 4, num_workers=2, cpus=[cpus[0], cpu])))
    assert not native_threads(but=before), "no thread is left over"


def test_levels_agree(pack: Path) -> None:
    """All levels give the same bits in half types too, and the same zeros."""
    found = {}
    for isa in _C.supported_isas():
        _C.set_isa(isa)
        for dtype in HALVES:
            batch = next(iter(DataLoader(ShardDataset(pack, TINY), 5, dtype=dtype)))[0]
            found.setdefault(dtype, []).append(batch[0].view(torch.int16))
    _C.set_isa("best")
    assert all(torch.equal(one, levels[0]) for levels in found.values() for one in levels)
