"""Records decoded on a GPU by csrc/cuda/exact.cpp, against the CPU's decoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pass_loader import _C
from pass_loader.gpu import cuda
from pass_loader.gpu.exact import GROUP_BYTES, RecordDecoder

ALIGN = 256
AT_ONCE = 512  # records


def letters(given: Sequence[tuple[bytes, bytes]]) -> str:
    """Return a letter for each record and its entry points (native/test_cuda_decode.py)."""
    gpu = Gpu()
    return "".join(
        letter for begin in range(0, len(given), AT_ONCE) for letter in _letters(gpu, given[begin : begin + AT_ONCE])
    )


class Gpu:
    """The current GPU, with a decoder and its workspace."""

    def __init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._decoder = RecordDecoder(cuda.exact_decoder(self.device, GROUP_BYTES))
        self._workspace = self._empty([0], torch.uint8)

    def _empty(self, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        self._workspace = torch.empty(shape, dtype=dtype, device=self.device)
        return self._workspace

    def decode(self, forms: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        """Return (height, width, 3) pixels of each form, None where it is not sound."""
        rows, end = np.zeros((len(forms), 5), np.int64), 0
        for row, form in zip(rows, forms):
            height, width = form[4:12].view(np.int32).tolist()
            stride = -(-width // 16) * 16
            row[:] = end, height, width, stride, height * stride
            end += -(-len(form) // ALIGN) * ALIGN
        host = torch.zeros(end, dtype=torch.uint8).pin_memory()
        for row, form in zip(rows, forms):
            host.numpy()[row[0] : row[0] + len(form)] = form
        there = host.to(self.device)
        verdicts = torch.zeros(len(forms), dtype=torch.int32, device=self.device)
        stream, pixels = torch.cuda.current_stream().cuda_stream, [np.empty(0)] * len(forms)
        given = host.data_ptr(), there.data_ptr(), rows, verdicts.data_ptr(), stream
        for chosen, decoded in self._decoder.decode(*given, self._empty):
            workspace = self._workspace.cpu().numpy()
            for number, (begin, height, width, stride, plane) in zip(chosen, decoded.tolist()):
                begin -= self._workspace.data_ptr()
                planes = workspace[begin : begin + 3 * plane].reshape(3, height, stride)
                pixels[number] = planes[:, :, :width].transpose(1, 2, 0)
        return [None if bad else one for bad, one in zip(verdicts.cpu().numpy(), pixels)]


def _letters(gpu: Gpu, given: Sequence[tuple[bytes, bytes]]) -> list[str]:
    found, forms = [], {}
    for number, (record, points) in enumerate(given):
        try:
            form = _C.gpu_form(record, points)
        except _C.BadPictureError:
            found.append("r")  # nothing is made of it for a GPU
            continue
        found.append("-")
        if form is not None:
            forms[number] = np.frombuffer(form, np.uint8)
    for number, pixels in zip(forms, gpu.decode([*forms.values()]) if forms else []):
        record = given[number][0]
        try:
            want = _C.decode(record)
        except _C.BadPictureError:
            assert pixels is None, f"record {number}: the CPU refuses it"
            found[number] = "r"
            continue
        assert pixels is not None or not record.startswith(b"PLDC"), f"record {number}: the CPU takes it"
        assert pixels is None or np.array_equal(pixels, want), f"record {number}: the pixels differ"
        found[number] = "c" if pixels is None else "="
    return found
