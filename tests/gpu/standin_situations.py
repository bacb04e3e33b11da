"""What test_standin_runtime.py runs in a process of its own: situations of the host code on the stand-in runtime.

    python -m tests.gpu.standin_situations FOLDER NVJPEG

FOLDER: where helpers.standin_runtime has compiled it. NVJPEG: the stand-in's library. Prints a line of JSON for each
situation: its name, and null or what went wrong. One that ends the process is the one after the last line.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pass_loader import Recipe, _C, recipes, render_plan
from pass_loader.gpu.cuda import BYTES
from pass_loader.gpu.exact import RecordDecoder
from pass_loader.gpu.nvjpeg import FileDecoder

from ..helpers.corpus import jpeg, noise
from ..helpers.standin_runtime import Opening, Runtime

ROWS_AT, POINTS_AT = 456, 488  # where a form says where its rows, or entry points, are (csrc/gpu_form.h)
RECIPE = recipes.dino(local_crops=3, global_size=64, local_size=32)


class Batch:
    """Pictures and plans on the stand-in's device, and the workspace for them."""

    def __init__(self, runtime: Runtime, seed: int, height: int = 90, count: int = 3, recipe: Recipe = RECIPE):
        self.runtime = runtime
        self.pictures = [noise(height + 7 * i, 120, 100 * seed + i) for i in range(count)]
        plans = [
            _C.plan_views(recipe.rows(), seed=seed, epoch=0, record=i, height=len(p), width=120)
            for i, p in enumerate(self.pictures)
        ]
        self.plans = np.concatenate(plans).astype(_C.view_plan_dtype)
        self.picture_of = np.repeat(np.arange(count, dtype=np.int32), len(recipe.views))
        planar = [np.ascontiguousarray(p.transpose(2, 0, 1)) for p in self.pictures]
        rows = [[runtime.upload(p), *p.shape[1:], p.shape[2], p.shape[1] * p.shape[2]] for p in planar]
        self.rows = np.array(rows, np.int64)
        sizes = 3 * self.plans["out_height"].astype(np.int64) * self.plans["out_width"]
        self.outs = np.array([runtime.allocate(int(size)) for size in sizes], np.int64)

    def pack(self, renderer: Any, begin: int = 0) -> int:
        part = slice(begin, None)
        return renderer.pack(self.rows, self.plans[part], self.picture_of[part], self.outs[part])

    def render(self, renderer: Any, workspace: tuple[int, int], stream: int) -> int:
        """Return how many parts it took."""
        begin = parts = 0
        while begin < len(self.plans):
            begin += self.pack(renderer, begin)
            renderer.launch(*workspace, stream)
            parts += 1
        return parts

    def check(self) -> None:
        for plan, number, out in zip(self.plans, self.picture_of, self.outs):
            want = render_plan(self.pictures[number], plan)[0]
            found = self.runtime.read(out, want.size).reshape(want.shape)
            assert np.array_equal(found, want), plan


def renderer(runtime: Runtime, device: int = 0, limit: int = 1 << 29) -> Any:
    return runtime._cuda.Renderer(device, 1, True, BYTES, limit)


def workspace(runtime: Runtime, bytes: int = 4 << 20) -> tuple[int, int]:
    return runtime.allocate(bytes), bytes


def fails(call: Callable[[], object], *words: str) -> None:
    try:
        call()
    except (RuntimeError, ValueError) as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"no error with {words}")


def one_stream(runtime: Runtime) -> None:
    """Many more batches than slots before anything is executed. Kills: a slot that is written before it was copied."""
    ours, room, stream = renderer(runtime), workspace(runtime), runtime.stream()
    batches = [Batch(runtime, seed) for seed in range(10)]
    slept, spun = runtime.count("slept"), runtime.count("spun")
    for batch in batches:
        batch.render(ours, room, stream)
    assert runtime.count("slept") > slept and runtime.count("spun") == spun, "the host sleeps, and spins never"
    runtime.synchronize()
    for batch in batches:
        batch.check()


def streams_in_turn(runtime: Runtime) -> None:
    """One workspace, three streams, the youngest's work first, or in drawn orders. Kills: no event between batches, one
    on a wrong stream, one that is recorded too early."""
    for seed in (None, 1, 2, 3):
        runtime.shuffle(seed)
        ours, room = renderer(runtime), workspace(runtime)
        streams = [runtime.stream() for _ in range(3)]
        batches = [Batch(runtime, 20 + i, height=60 + 20 * i) for i in range(4)]
        for i, batch in enumerate(batches):
            batch.render(ours, room, streams[i % 3])
        runtime.synchronize()
        for batch in batches:
            batch.check()
    runtime.shuffle(None)


def parts(runtime: Runtime) -> None:
    """No part needs more than the limit, but a single view may. Kills: tables that are not counted."""
    room, stream, batch = workspace(runtime), runtime.stream(), Batch(runtime, 40)
    for limit in (1, 30_000, 60_000, 90_000):
        ours, begin = renderer(runtime, limit=limit), 0
        while begin < len(batch.plans):
            taken = batch.pack(ours, begin)
            assert taken == 1 or ours.workspace_bytes <= limit
            begin += taken
        assert batch.render(ours, room, stream) == len(batch.plans) or limit > 1
        runtime.synchronize()
        batch.check()


def legacy_stream(runtime: Runtime) -> None:
    batch = Batch(runtime, 41)
    batch.render(renderer(runtime), workspace(runtime), 0)
    runtime.synchronize()
    batch.check()


def launches_that_fail(runtime: Runtime) -> None:
    """At every place in a batch: an error with words, and the next batch, on another stream, waits for what was queued.
    Kills: an event that is recorded only where all went well."""
    ours, room = renderer(runtime), workspace(runtime)
    streams = runtime.stream(), runtime.stream()
    for place in range(6):
        runtime.shuffle(place)
        bad, good = Batch(runtime, 60 + place), Batch(runtime, 70 + place)
        with runtime.failing("launch", place):
            fails(lambda bad=bad: bad.render(ours, room, streams[0]), "launching a kernel")
        good.render(ours, room, streams[1])
        runtime.synchronize()
        good.check()
        bad.render(ours, room, streams[0])
        runtime.synchronize()
        bad.check()
    runtime.shuffle(None)
    batch = Batch(runtime, 80)
    for call, words in (("copy", "copying tables"), ("record", "recording an event"), ("wait", "ordering batches")):
        with runtime.failing(call):
            fails(lambda: batch.render(ours, room, streams[0]), words)
        batch.render(ours, room, streams[1])
        runtime.synchronize()
        batch.check()


def memory(runtime: Runtime) -> None:
    """Pinned memory that runs out, a workspace that is too small, and nothing that is lost. Kills: a slot that is
    written where it could not be allocated, a renderer that is destroyed while its work is queued."""
    stream, room, batch = runtime.stream(), workspace(runtime), Batch(runtime, 50)
    ours = renderer(runtime)
    with runtime.failing("host_alloc"):
        fails(lambda: batch.render(ours, room, stream), "allocating pinned memory", "out of memory")
    batch.pack(ours)
    fails(lambda: ours.launch(room[0], ours.workspace_bytes - 1, stream), "a workspace of")
    fails(lambda: ours.launch(room[0] + 8, room[1] - 8, stream), "a workspace of")
    batch.render(ours, room, stream)
    runtime.synchronize()
    batch.check()
    del ours
    before = runtime.pieces(), runtime.used(), runtime.count("events")
    for _ in range(3):
        ours = renderer(runtime)
        batch.render(ours, room, stream)
        del ours
    assert (runtime.pieces(), runtime.used(), runtime.count("events")) == before
    with runtime.failing("malloc"):
        fails(lambda: renderer(runtime), "normalisation table", "too little free memory")
    assert (runtime.pieces(), runtime.used(), runtime.count("events")) == before
    ours = renderer(runtime)
    mallocs, allocations = runtime.count("malloc"), set()
    for _ in range(9):
        batch.render(ours, room, stream)
        allocations.add(ours.allocations)
    assert runtime.count("malloc") == mallocs and max(allocations) == 4, "pinned memory for each slot, once"


def no_other_context(runtime: Runtime) -> None:
    """A rank that uses GPU 1 alone. To be the first situation. Kills: a device that is restored where it was not
    changed, which makes a context on it."""
    runtime.native.cudaSetDevice(1)
    ours = renderer(runtime, 1)
    batch = Batch(runtime, 1)
    batch.render(ours, workspace(runtime), runtime.stream())
    runtime.synchronize()
    batch.check()
    runtime._cuda.let_others_capture()
    assert runtime.count("relaxed") == 1
    del ours
    decoder = runtime._cuda.JpegDecoder(1, NVJPEG, 1 << 20)
    decoder = runtime._cuda.ExactDecoder(1, 1 << 20)
    del decoder
    assert runtime.has_context(1) and not runtime.has_context(0)
    fails(lambda: renderer(runtime, 2), "device 2: there are 2")
    runtime.native.cudaSetDevice(0)


def nvjpeg_groups(runtime: Runtime) -> None:
    """Files decoded and rendered, many more groups than slots, each into the same memory. Kills: a slot that nvJPEG
    writes while the conversion before still reads it."""
    for seed in (None, 5):
        runtime.shuffle(seed)
        decoder = FileDecoder(Opening(runtime, runtime._cuda.JpegDecoder(0, NVJPEG, 100_000)))
        stream, rgb, ours, room = runtime.stream(), runtime.allocate(100_000), renderer(runtime), workspace(runtime)
        files = [np.frombuffer(jpeg(noise(64, 96, seed), subsampling=seed % 3), np.uint8) for seed in range(24)]
        rows = np.array([[0, 64, 96, 96, 64 * 96]] * len(files), np.int64)
        plans = [
            _C.plan_views(RECIPE.rows(), seed=7, epoch=0, record=i, height=64, width=96) for i in range(len(files))
        ]
        outs = [[runtime.allocate(3 * int(p["out_height"]) * int(p["out_width"])) for p in plan] for plan in plans]
        given = np.array([[file.ctypes.data, file.nbytes] for file in files], np.int64)
        seen = 0
        for chosen, there in decoder.decode(given, rows, rgb, stream):
            picked = np.concatenate([plans[i] for i in chosen]).astype(_C.view_plan_dtype)
            numbers = np.repeat(np.arange(len(chosen), dtype=np.int32), len(RECIPE.views))
            places = np.concatenate([outs[i] for i in chosen]).astype(np.int64)
            assert ours.pack(there, picked, numbers, places) == len(picked)
            ours.launch(*room, stream)
            seen += 1
        assert seen > 4 and decoder.stats()["decoded"] == len(files)
        runtime.synchronize()
        for i, file in enumerate(files):
            pixels = _C.decode(file.tobytes())
            for plan, out in zip(plans[i], outs[i]):
                want = render_plan(pixels, plan)[0]
                assert np.array_equal(runtime.read(out, want.size).reshape(want.shape), want), (i, plan)
    runtime.shuffle(None)


class Memory:
    """Memory on the stand-in's device, as much of a torch tensor as is needed."""

    def __init__(self, runtime: Runtime, bytes: int):
        self._place, self._bytes = runtime.allocate(bytes), bytes

    def data_ptr(self) -> int:
        return self._place

    def __len__(self) -> int:
        return self._bytes


class Records:
    """Records of the codec dct, and JPEGs, in the form for a GPU, one behind the other, and where their views go."""

    def __init__(self, runtime: Runtime, first: int):
        files = [jpeg(noise(64, 96, first + number), subsampling=number % 3) for number in range(24)]
        self.runtime, self.pixels = runtime, [_C.decode(file) for file in files]
        forms = []
        for number, file in enumerate(files):
            as_scan = number % 2 == 1
            record = file if as_scan else _C.jpeg_to_dct(file)
            assert record is not None
            form = _C.gpu_form(record, _C.prove(file)[1] if as_scan else b"")
            assert form is not None
            forms.append(bytearray(form))
            if number % 5 == 4:  # the second row of blocks, or of MCUs, seems to begin a byte, or a bit, later
                place, bytes_a_row = (POINTS_AT, 12) if as_scan else (ROWS_AT, 24)
                second = int.from_bytes(form[place : place + 4], "little") + bytes_a_row
                begin = int.from_bytes(form[second : second + 4], "little")
                forms[-1][second : second + 4] = (begin + 1).to_bytes(4, "little")
        self.begins = np.cumsum([0, *(-(-len(form) // 256) * 256 for form in forms)])
        self.host = np.zeros(self.begins[-1] + 256, np.uint8)
        self.host = self.host[-self.host.ctypes.data % 256 :]
        for begin, form in zip(self.begins, forms):
            self.host[begin : begin + len(form)] = np.frombuffer(form, np.uint8)
        self.there = runtime.upload(self.host)
        self.plans = [
            _C.plan_views(RECIPE.rows(), seed=7, epoch=0, record=i, height=64, width=96) for i in range(len(files))
        ]
        sizes = np.array([3 * plan["out_height"].astype(np.int64) * plan["out_width"] for plan in self.plans])
        self.outs = runtime.allocate(int(sizes.sum())) + (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
        self.verdicts = runtime.upload(np.zeros(len(files), np.int32))

    def queue(
        self, decoder: RecordDecoder, renderer: Any, room: tuple[int, int], stream: int, most: int | None = None
    ) -> int:
        """Return how many groups there are. most: records."""
        rows = np.array([[begin, 64, 96, 96, 64 * 96] for begin in self.begins[:-1]], np.int64)[:most]
        groups = 0
        given = self.host.ctypes.data, self.there, rows, self.verdicts, stream
        for chosen, there in decoder.decode(*given, lambda shape, dtype: Memory(self.runtime, shape[0])):
            picked = np.concatenate([self.plans[i] for i in chosen]).astype(_C.view_plan_dtype)
            numbers = np.repeat(np.arange(len(chosen), dtype=np.int32), len(RECIPE.views))
            assert renderer.pack(there, picked, numbers, self.outs[chosen].ravel()) == len(picked)
            renderer.launch(*room, stream)
            groups += 1
        return groups

    def check(self) -> None:
        """What is not sound has a verdict, and all else its views."""
        verdicts = self.runtime.read(self.verdicts, 4 * len(self.plans)).view(np.int32)
        assert np.array_equal(verdicts, np.arange(24) % 5 == 4)
        for i in np.flatnonzero(verdicts == 0):
            for plan, out in zip(self.plans[i], self.outs[i]):
                want = render_plan(self.pixels[i], plan)[0]
                assert np.array_equal(self.runtime.read(out, want.size).reshape(want.shape), want), (i, plan)


def exact_groups(runtime: Runtime) -> None:
    """Records decoded and rendered, many more groups than slots for tables, each into the same memory. Kills: a slot
    that is written before it was copied, kernels out of order, a verdict of another record."""
    for seed in (None, 5, 6):
        runtime.shuffle(seed)
        decoder = RecordDecoder(runtime._cuda.ExactDecoder(0, 90_000))
        stream, ours, room = runtime.stream(), renderer(runtime), workspace(runtime)
        records = Records(runtime, 200)
        slept, spun = runtime.count("slept"), runtime.count("spun")
        assert records.queue(decoder, ours, room, stream) > 8
        assert runtime.count("slept") > slept or seed is not None
        assert runtime.count("spun") == spun, "the host sleeps, and spins never"
        runtime.synchronize()
        records.check()
        pieces, events = runtime.pieces(), runtime.count("events")
        del decoder
        assert runtime.pieces() == pieces - 4 and runtime.count("events") == events - 4
    runtime.shuffle(None)


def exact_decoding_that_fails(runtime: Runtime) -> None:
    """An error with words, wherever it is, and the next try is whole. Kills: a slot that stays taken."""
    ours, room, stream = renderer(runtime), workspace(runtime), runtime.stream()
    decoder = RecordDecoder(runtime._cuda.ExactDecoder(0, 90_000))
    for call, words in (("host_alloc", "too little pinned memory"), ("copy", "copying tables"),
                        ("record", "recording an event"), ("launch", "launching a kernel")):  # fmt: skip
        for after in (0, 2):
            records = Records(runtime, 300)
            with runtime.failing(call, after):
                if call != "host_alloc" or after == 0:
                    fails(lambda records=records: records.queue(decoder, ours, room, stream), words)
            records.queue(decoder, ours, room, stream)
            runtime.synchronize()
            records.check()

    # One record has fewer tables than all. The slot whose growth fails has none, and the fifth group is its next.
    decoder = RecordDecoder(runtime._cuda.ExactDecoder(0, 16 << 20))
    records = Records(runtime, 300)
    for _ in range(4):
        records.queue(decoder, ours, room, stream, 1)
    with runtime.failing("host_alloc"):
        fails(lambda: records.queue(decoder, ours, room, stream), "too little pinned memory")
    for _ in range(4):
        records.queue(decoder, ours, room, stream, 1)
    assert records.queue(decoder, ours, room, stream) == 1
    runtime.synchronize()
    records.check()


def ways_out(runtime: Runtime) -> None:
    """Every cause that is known has words of its own. Kills: those of another one, a driver that is not looked at."""
    ours, room, stream, batch = renderer(runtime), workspace(runtime), runtime.stream(), Batch(runtime, 90)
    for error, words in WAYS_OUT.items():
        with runtime.failing("launch", error=error):
            fails(lambda: batch.render(ours, room, stream), "launching a kernel", "cudaErrorOfTheTest", f"): {words}")
    batch.render(ours, room, stream)
    runtime.synchronize()
    batch.check()
    for error in (35, 100):
        with runtime.failing("count", error=error):
            reason = runtime._cuda.unavailable()
        assert WAYS_OUT[error] in reason, reason
        with runtime.failing("count", error=error):
            fails(lambda: renderer(runtime), WAYS_OUT[error])
    for version, words in ((0, "no NVIDIA driver was found"), (12_040, "supports CUDA 12.4, this build needs CUDA")):
        before = runtime.native.standin_driver(version)
        fails(lambda: renderer(runtime), words)
        fails(lambda: runtime._cuda.ExactDecoder(0, 1 << 20), words)
        runtime.native.standin_driver(before)
    assert runtime._cuda.unavailable() == ""


WAYS_OUT = {  # by CUDA's number of an error
    2: "the GPU has too little free memory: a smaller batch",
    35: "the driver is older than this build's CUDA runtime: install a newer driver",
    100: "no GPU is visible: look at CUDA_VISIBLE_DEVICES",
    101: "there is no such device: count them",
    209: "this build has no code for this GPU: compute capability 8.0",
    222: "the driver is too old for this build's PTX: install a newer driver, or build for this GPU's own",
    700: "a kernel, ours or one before it, has failed; run under compute-sanitizer",
    716: "a kernel, ours or one before it, has failed",
    719: "a kernel, ours or one before it, has failed",
    701: "see the CUDA runtime's description",
}

SITUATIONS = [no_other_context, one_stream, streams_in_turn, parts, legacy_stream, launches_that_fail, memory,
              nvjpeg_groups, exact_groups, exact_decoding_that_fails, ways_out]  # fmt: skip
NVJPEG = ""


def main() -> None:
    global NVJPEG
    runtime, NVJPEG = Runtime(Path(sys.argv[1])), sys.argv[2]
    for situation in SITUATIONS:
        wrong = None
        try:
            situation(runtime)
        except Exception:
            wrong = traceback.format_exc()
        print(json.dumps([situation.__name__, wrong]), flush=True)


if __name__ == "__main__":
    main()
