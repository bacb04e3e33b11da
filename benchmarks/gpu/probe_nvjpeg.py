"""What nvJPEG does on this GPU, to be asked first of all on a new one:

    python -m benchmarks.gpu.probe_nvjpeg [--seconds 2] [--json FILE] [--dry]

How many engines there are; how far its components, and our pictures from them, are from libjpeg-turbo's; whether its
outputs keep the order of the stream; pictures a second at 500 x 375. About two minutes, one with --seconds 0.5; needs
nvidia-nvjpeg and a GPU; has not yet run on one. What fails says why in its row, and the rest goes on. nvJPEG is called
by ctypes here, beside csrc/cuda/nvjpeg.cpp, to try what that does not do. --dry needs no GPU: it looks for the calls in
the library, and makes pictures and tables.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pass_loader import _C
from pass_loader.gpu import cuda, nvjpeg

from ..pictures import photographs

KERNELS, HARDWARE = 2, 3  # nvjpegBackend_t
UNCHANGED, RGB = 0, 3  # nvjpegOutputFormat_t
INTERPOLATION = 1 << 5  # NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION
FACTORS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2)}  # pixels a sample of colour, across and down
SIZE = (375, 500)  # height, width
SPIN = 200_000_000  # cycles: about 100 ms of a kernel that does nothing, or more
ALIGN = 256


class Output(ctypes.Structure):
    """nvjpegImage_t."""

    _fields_ = [("channel", ctypes.c_void_p * 4), ("pitch", ctypes.c_size_t * 4)]


class Library:
    """One handle and one state of nvJPEG. Raises RuntimeError that names the call and the status."""

    def __init__(self, backend: int, flags: int = 0, path: str | None = None):
        self._native = ctypes.CDLL(path or nvjpeg.library())
        self.handle, self.state = ctypes.c_void_p(), ctypes.c_void_p()
        self("nvjpegCreateEx", backend, None, None, flags, ctypes.byref(self.handle))
        self("nvjpegJpegStateCreate", self.handle, ctypes.byref(self.state))

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self._native, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name}: status {status}")

    def engines(self) -> tuple[int, int]:
        """(engines, cores of each)."""
        found = ctypes.c_uint(), ctypes.c_uint()
        self("nvjpegGetHardwareDecoderInfo", self.handle, *map(ctypes.byref, found))
        return found[0].value, found[1].value

    def decode(self, files: np.ndarray, outputs: Sequence[Output], form: int, stream: int) -> None:
        """files: (N, 2) addresses in pinned memory and bytes."""
        count = len(files)
        self("nvjpegDecodeBatchedInitialize", self.handle, self.state, count, 1, form)
        data, lengths = (
            (ctypes.c_void_p * count)(*files[:, 0].tolist()),
            (ctypes.c_size_t * count)(*files[:, 1].tolist()),
        )
        self(
            "nvjpegDecodeBatched",
            self.handle,
            self.state,
            data,
            lengths,
            (Output * count)(*outputs),
            ctypes.c_void_p(stream),
        )


@functools.cache
def jpegs(sampling: str, count: int, size: tuple[int, int] = SIZE) -> list[bytes]:
    """Cuts of photographs, quality 95."""
    random, sources, found = np.random.default_rng(0), [*photographs().values()], []
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = int(random.integers(source.width - size[1] + 1)), int(random.integers(source.height - size[0] + 1))
        out = io.BytesIO()
        cut = source.crop((left, top, left + size[1], top + size[0]))
        cut.save(out, "JPEG", quality=95, subsampling=[*FACTORS].index(sampling))
        found.append(out.getvalue())
    return found


def in_one(files: Sequence[bytes], *, pin: bool = True) -> tuple[torch.Tensor, np.ndarray]:
    """Pinned memory with all of them, and (N, 2) addresses and bytes."""
    lengths = np.array([len(file) for file in files])
    begins = np.cumsum(-(-lengths // ALIGN) * ALIGN) - -(-lengths // ALIGN) * ALIGN
    memory = torch.zeros(int(begins[-1] + lengths[-1] + ALIGN), dtype=torch.uint8, pin_memory=pin)
    for begin, file in zip(begins, files):
        memory[begin : begin + len(file)] = torch.frombuffer(bytearray(file), dtype=torch.uint8)
    return memory, np.column_stack([memory.data_ptr() + begins, lengths]).astype(np.int64)


def planes_of(form: int, sampling: str, size: tuple[int, int] = SIZE) -> list[tuple[int, int, int, int]]:
    """(offset, height, width, pitch) of each plane in a picture's memory; the offset after the last one last."""
    (height, width), (across, down), at, planes = size, FACTORS[sampling], 0, []
    for c in range(3):
        whole = c == 0 or form == RGB
        rows, columns = (height, width) if whole else (-(-height // down), -(-width // across))
        pitch = -(-columns // 64) * 64
        planes.append((at, rows, columns, pitch))
        at += -(-rows // 16) * 16 * pitch
    return [*planes, (at, 0, 0, 0)]


def outputs_at(address: int, count: int, form: int, sampling: str, size: tuple[int, int] = SIZE) -> list[Output]:
    planes = planes_of(form, sampling, size)
    found = []
    for number in range(count):
        begin = address + number * planes[-1][0]
        channels = [int(begin + at) for at, *_ in planes[:3]]
        found.append(Output((ctypes.c_void_p * 4)(*channels), (ctypes.c_size_t * 4)(*(p[3] for p in planes[:3]))))
    return found


def difference(found: np.ndarray, want: np.ndarray) -> dict[str, float]:
    """Return the worst and the mean difference, in levels, and the share of values that differ."""
    distance = np.abs(found.astype(np.int16) - want)
    return {"worst": int(distance.max()), "mean": float(distance.mean()), "share": float((distance > 0).mean())}


def components_error(library: Library, sampling: str, count: int = 64, device: str = "cuda") -> dict[str, float]:
    """Return the difference of nvJPEG's components from those of libjpeg-turbo's accurate integer IDCT, which Pillow
    hands out: all three of 4:4:4, luma of others."""
    files = jpegs(sampling, count)
    kept, places = in_one(files, pin=device == "cuda")
    planes = planes_of(UNCHANGED, sampling)
    memory = torch.zeros(count * planes[-1][0], dtype=torch.uint8, device=device)
    library.decode(places, outputs_at(memory.data_ptr(), count, UNCHANGED, sampling), UNCHANGED, 0)
    if device == "cuda":
        torch.cuda.synchronize()
    del kept
    there, found, want = memory.cpu().numpy().reshape(count, -1), [], []
    for number, file in enumerate(files):
        picture = Image.open(io.BytesIO(file))
        picture.draft("YCbCr", picture.size)
        values = np.asarray(picture)
        for c, (at, height, width, pitch) in enumerate(planes[: 3 if sampling == "4:4:4" else 1]):
            found.append(there[number, at:][: height * pitch].reshape(height, pitch)[:, :width].ravel())
            want.append(values[..., c].ravel())
    return difference(np.concatenate(found), np.concatenate(want))


def pictures_error(sampling: str, count: int = 64) -> dict[str, float]:
    """Return the difference of what a loader renders from between decode="nvjpeg" and decode="cpu"."""
    files = jpegs(sampling, count)
    found = [pixels.cpu().numpy().ravel() for pixels in decoded(files, SIZE)]
    want = [_C.decode(file).transpose(2, 0, 1).ravel() for file in files]
    return difference(np.concatenate(found), np.concatenate(want))


def decoded(files: Sequence[bytes], size: tuple[int, int], slot_bytes: int = 8 << 20) -> list[torch.Tensor]:
    """(3, height, width) uint8 on the GPU, by our decoder; files of one size, all of which nvJPEG takes."""
    decoder = nvjpeg.FileDecoder(cuda.jpeg_decoder(torch.device("cuda", 0), nvjpeg.library(), slot_bytes))
    kept, places = in_one(files)
    row = -(-size[1] // 16) * 16
    rows = np.tile(np.array([0, *size, row, row * size[0]], np.int64), (len(files), 1))
    rgb = torch.empty(slot_bytes, dtype=torch.uint8, device="cuda")
    pictures: dict[int, torch.Tensor] = {}
    for chosen, there in decoder.decode(places, rows, rgb.data_ptr(), torch.cuda.current_stream().cuda_stream):
        for number, begin in zip(chosen, there[:, 0] - rgb.data_ptr()):
            planes = rgb[begin : begin + 3 * row * size[0]].view(3, size[0], row)
            pictures[number] = planes[..., : size[1]].clone()
    torch.cuda.synchronize()
    del kept
    return [pictures[number] for number in range(len(files))]


def out_of_order(library: Library, form: int, sampling: str, *, wait: bool, rounds: int = 20) -> int:
    """Return how often a copy of the output, queued after 100 ms of spinning, holds what the next call decodes, which
    is queued after the copy. wait: the host waits for the copy before that call."""
    count = 8
    kept, places = in_one(jpegs(sampling, 2 * count))
    bytes = count * planes_of(form, sampling)[-1][0]
    memory = torch.zeros(bytes, dtype=torch.uint8, device="cuda")
    outputs = outputs_at(memory.data_ptr(), count, form, sampling)
    stream = torch.cuda.Stream()
    wrong = 0
    with torch.cuda.stream(stream):
        for _ in range(rounds):
            library.decode(places[:count], outputs, form, stream.cuda_stream)
            torch.cuda.synchronize()
            before = memory.clone()
            torch.cuda._sleep(SPIN)
            copy = memory.clone()
            if wait:
                stream.synchronize()
            library.decode(places[count:], outputs, form, stream.cuda_stream)
            torch.cuda.synchronize()
            wrong += not torch.equal(copy, before)
    del kept
    return wrong


def rate(call: Callable[[], object], pictures: int, seconds: float) -> float:
    """Pictures a second."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        call()
        calls += 1
    torch.cuda.synchronize()
    return calls * pictures / (time.perf_counter() - begin)


def bare_rate(library: Library, form: int, sampling: str, count: int, seconds: float) -> float:
    """Return the rate of calls that follow one another, into the same place."""
    kept, places = in_one(jpegs(sampling, count))
    memory = torch.zeros(count * planes_of(form, sampling)[-1][0], dtype=torch.uint8, device="cuda")
    outputs = outputs_at(memory.data_ptr(), count, form, sampling)
    found = rate(lambda: library.decode(places, outputs, form, 0), count, seconds)
    del kept
    return found


def our_rate(sampling: str, count: int, seconds: float) -> float:
    """Return the rate of our decoder, to RGB in device memory."""
    decoder = nvjpeg.FileDecoder(cuda.jpeg_decoder(torch.device("cuda", 0), nvjpeg.library(), nvjpeg.SLOT_BYTES))
    kept, places = in_one(jpegs(sampling, count))
    row = -(-SIZE[1] // 16) * 16
    rows = np.tile(np.array([0, *SIZE, row, row * SIZE[0]], np.int64), (count, 1))
    rgb = torch.empty(nvjpeg.SLOT_BYTES, dtype=torch.uint8, device="cuda")
    found = rate(lambda: [*decoder.decode(places, rows, rgb.data_ptr(), 0)], count, seconds)
    del kept
    return found


def told(what: str, kind: str, call: Callable[[], Any]) -> dict[str, Any]:
    """Return a row: what was measured, of which kind, and the figure or why there is none."""
    try:
        return {"what": what, "kind": kind, "figure": call()}
    except RuntimeError as error:
        return {"what": what, "kind": kind, "figure": f"none: {error}"}


def measure(seconds: float) -> Iterator[dict[str, Any]]:
    """Yield rows. seconds: of each rate."""
    for backend, number in (("hardware", HARDWARE), ("kernels", KERNELS)):
        plain, smooth = (functools.partial(library_of, number, flags) for flags in (0, INTERPOLATION))
        yield told("engines, cores of each", backend, lambda plain=plain: plain().engines())
        for sampling in FACTORS:
            yield told(
                "components from islow", f"{backend} {sampling}",
                lambda plain=plain, sampling=sampling: components_error(plain(), sampling),
            )  # fmt: skip
        for output, made, form in (("components", plain, UNCHANGED), ("RGB", plain, RGB),
                                   ("RGB, interpolation", smooth, RGB)):  # fmt: skip
            for wait in (False, True):
                yield told(
                    "out of order, of 20",
                    f"{backend}, {output}, the host {'waits' if wait else 'does not wait'}",
                    lambda made=made, form=form, wait=wait: out_of_order(made(), form, "4:2:0", wait=wait),
                )
            for count in (64, 256):
                yield told(
                    "pictures/s, nvJPEG", f"{backend}, {output}, batch {count}",
                    lambda made=made, form=form, count=count: bare_rate(made(), form, "4:2:0", count, seconds),
                )  # fmt: skip
    for sampling in FACTORS:
        yield told("our pictures from the CPU's", sampling, lambda sampling=sampling: pictures_error(sampling))
        yield told(
            "pictures/s, ours to RGB", f"{sampling}, batch 256",
            lambda sampling=sampling: our_rate(sampling, 256, seconds),
        )  # fmt: skip


library_of = functools.cache(Library)  # one that cannot be made is tried again, and fails again


def dry(library: str) -> Iterator[dict[str, Any]]:
    """Yield rows of what needs no GPU: the calls that are used here, pictures, and the tables that describe them."""
    native = ctypes.CDLL(library)
    missing = [name for name in CALLS if not hasattr(native, name)]
    yield {"what": "calls that the library lacks", "kind": library, "figure": missing}
    for sampling in FACTORS:
        files = jpegs(sampling, 2)
        kept, places = in_one(files, pin=False)
        outputs = outputs_at(kept.data_ptr(), len(files), UNCHANGED, sampling)
        there = all(kept[place - kept.data_ptr()] == 0xFF for place in places[:, 0].tolist())
        figure = there and len(outputs) == len(files)
        yield {"what": "pictures and tables are made", "kind": sampling, "figure": figure}


CALLS = ["nvjpegCreateEx", "nvjpegJpegStateCreate", "nvjpegGetHardwareDecoderInfo", "nvjpegDecodeBatchedInitialize",
         "nvjpegDecodeBatched"]  # fmt: skip


def line(row: dict[str, Any]) -> str:
    figure = row["figure"]
    if isinstance(figure, dict):
        figure = f"worst {figure['worst']}, mean {figure['mean']:.4f}, {figure['share']:.2%} of values"
    return f"{row['what']:28} {row['kind']:46} {figure if not isinstance(figure, float) else f'{figure:.0f}'}"


def main(given: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each rate")
    parser.add_argument("--json", help="where the figures go too, after each row")
    parser.add_argument("--dry", action="store_true", help="without a GPU: finds mistakes, measures nothing")
    arguments = parser.parse_args(given)
    if not arguments.dry and not cuda.cuda_available():
        raise SystemExit(f"no GPU: {cuda.cuda_reason()}")
    nvjpeg.check_library()
    if not arguments.dry:
        print(f"{torch.cuda.get_device_name()}, pictures of {SIZE[0]} x {SIZE[1]}")
    rows = []
    for row in dry(nvjpeg.library()) if arguments.dry else measure(arguments.seconds):
        rows.append(row)
        print(line(row), flush=True)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")
    if not all(row["figure"] in (True, []) for row in rows if arguments.dry):
        raise SystemExit("not all of it is as it must be")
    return rows


if __name__ == "__main__":
    main()
