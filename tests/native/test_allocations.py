"""Calls of malloc, operator new and their kin in the steady state, counted in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cpu.busy_threads import compile_shim
from pass_loader.pack import convert

from ..helpers.forked import Template

pytestmark = pytest.mark.slow

# Whose calls may grow with the number of samples. libjpeg makes its pools anew for each picture.
MAY_ALLOCATE_PER_SAMPLE = ("libjpeg.so",)
BATCHES = 32  # the engine's queue, a std::deque, takes a new block every 32 batches
RECORDS = 2

IMPORTS = """
import ctypes, json, os, sys, time
import numpy as np
from pass_loader import _C, ShardDataset, recipes
from pass_loader.loading.rendering import Renderer
from pass_loader.keys import Keys

"""
CODE = """
pack, how, threads, batches, records = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
counter = ctypes.CDLL(os.environ["LD_PRELOAD"].split(":")[0])
counter.object_name.restype, counter.object_calls.restype = ctypes.c_char_p, ctypes.c_long
recipe = recipes.dino().override(grayscale=0.5, blur=0.5, solarize=0.5)
ahead = {"read_ahead": 64, "read_ahead_bytes": 1 << 22} if how == "read-ahead" else {}
renderer = Renderer(ShardDataset(pack, recipe), threads, batch_size=2 * records, **ahead)

arena = np.empty(8_000_000, np.uint8)

def render(size):
    batch = 3 + np.arange(size, dtype=np.int64) % records  # one of full colour, one subsampled
    if how == "decode":  # for a GPU
        pictures, plans = np.zeros((size, 5), np.int64), np.zeros((size, len(recipe.views)), _C.view_plan_dtype)
        failures = renderer._engine.decode(batch, *np.zeros((2, size), np.uint32), arena, pictures, plans).wait()
        assert (pictures[:, 0] >= 0).all()
        return failures
    keys = Keys(batch, *np.zeros((2, size), np.uint32))
    announced = renderer.announce(keys)
    if announced is not None:
        time.sleep(0.02)  # so that they are read ahead
    return renderer.submit(keys, announced=announced).wait()

def count(size):
    render(size)  # buffers grow to what these very samples need
    counter.start_counting()
    for _ in range(batches):
        render(size)
    counter.stop_counting()
    calls = {counter.object_name(i).decode(): counter.object_calls(i) for i in range(counter.objects_known())}
    return {name: number for name, number in calls.items() if number}

found = {}
for isa in _C.supported_isas() if how in ("render", "dct-zstd") else ["best"]:  # the others run the same kernels
    _C.set_isa(isa)
    found[isa] = [count(records), count(2 * records)]
assert how != "read-ahead" or renderer.read_ahead_counts()["from_ring"] > batches
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """Processes whose calls are counted; SLOW_READS makes their reads of shards slow."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile tests/native/count_allocations.cpp")
    folder = tmp_path_factory.mktemp("counter")
    out, source = folder / "libcount_allocations.so", Path(__file__).with_name("count_allocations.cpp")
    subprocess.run([compiler, "-std=c++20", "-O1", "-shared", "-fPIC", str(source), "-o", str(out)], check=True)
    with Template(IMPORTS, {"LD_PRELOAD": f"{out}:{compile_shim(folder)}"}) as made:
        yield made


@pytest.mark.parametrize("how", ["render", "decode", "dct-zstd", "read-ahead"])
@pytest.mark.parametrize("threads", [0, 1])
def test_no_allocation_a_sample(pack: Path, counted: Template, threads: int, how: str, tmp_path: Path) -> None:
    """The same batches with twice the samples make no more calls; those of a batch are printed (pytest -rP)."""
    if how == "dct-zstd":
        convert(pack, tmp_path / how, how)
        pack = tmp_path / how
    # To read ahead: the page cache has nothing, so that the ring is used.
    environment = {"SLOW_READS": "3"} if how == "read-ahead" else {}
    done = counted.run(CODE, [pack, how, threads, BATCHES, RECORDS], environment)
    assert done.returncode == 0, done.stderr
    for isa, (small, large) in json.loads(done.stdout).items():
        per_sample = {name: (large[name] - small.get(name, 0)) / (BATCHES * RECORDS) for name in large}
        for name, calls in small.items():
            each = per_sample.get(name, 0)
            print(
                f"{isa}, {Path(name).name}: {calls / BATCHES - RECORDS * each:.1f} calls a batch, {each:.2f} a sample"
            )
        ours = next(name for name in small if Path(name).name.startswith("_C."))
        assert small[ours] >= BATCHES, "a batch is known to allocate: the count does not work"
        assert per_sample[ours] <= 0, (isa, small[ours], large[ours])  # fewer: readers that started late
        others = {name for name, calls in per_sample.items() if calls > 0.1}  # Python's arenas come when they come
        assert not {name for name in others if not Path(name).name.startswith(MAY_ALLOCATE_PER_SAMPLE)}, per_sample
