"""Exact decoding alone on a GPU: records in the form for a GPU lie in pinned memory, and are copied and decoded to RGB
there; nothing is read or rendered. Pictures are compared with the CPU's before timing."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch

from pass_loader import ShardDataset, recipes
from pass_loader.gpu import cuda
from pass_loader.gpu.batches import RECORDS, gpu_of
from pass_loader.gpu.exact import GROUP_BYTES, RecordDecoder

from .decode_costs import decode
from .loading import coded
from .on_device import milliseconds

NAMES = {"dct": "kernels, dct", "dct-zstd": "kernels, dct-zstd", "points": "kernels, JPEG with entry points"}
ROUNDS = 5, 200  # at least, at most


class Records:
    """Records of a pack that a GPU takes, in pinned memory, and a decoder for them."""

    def __init__(self, pack: str, codec: str, samples: int, device: str):
        gpu = gpu_of(torch.device(device))
        place = coded(pack, codec)
        _, arena, rows, lengths = decode(place, RECORDS, samples, rounds=1)
        self.numbers = np.flatnonzero(lengths > 0)
        self.rows, self.device = rows[self.numbers], device
        self._dataset = ShardDataset(place, recipes.dino())
        self.bytes = int((self.rows[:, 0] + lengths[self.numbers]).max())
        self._decoder = RecordDecoder(cuda.exact_decoder(gpu, GROUP_BYTES))
        self.host = torch.empty(self.bytes, dtype=torch.uint8, pin_memory=True)
        self.host.numpy()[:] = arena[: self.bytes]
        self.there = torch.empty(self.bytes, dtype=torch.uint8, device=device)
        self.verdicts = torch.zeros(len(self.rows), dtype=torch.int32, device=device)
        self._workspace = self.there

    def _empty(self, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        self._workspace = torch.empty(shape, dtype=dtype, device=self.device)
        return self._workspace

    def copy(self, _: int = 0) -> None:
        self.there.copy_(self.host, non_blocking=True)

    def decode(self, _: int = 0, checked: bool = False) -> None:
        """Queue the decoding. checked: compare the first pictures of each group with the CPU's."""
        stream = torch.cuda.current_stream(self.device).cuda_stream
        given = self.host.data_ptr(), self.there.data_ptr(), self.rows, self.verdicts.data_ptr(), stream
        for chosen, decoded in self._decoder.decode(*given, self._empty):
            for number, row in zip(chosen[:8], decoded) if checked else ():
                self._check(int(self.numbers[number]), row)

    def _check(self, record: int, row: np.ndarray) -> None:
        begin, height, width, stride, plane = row.tolist()
        begin -= self._workspace.data_ptr()
        planes = self._workspace[begin : begin + 3 * plane].cpu().numpy().reshape(3, plane)
        found = planes[:, : height * stride].reshape(3, height, stride)[..., :width].transpose(1, 2, 0)
        assert np.array_equal(found, self._dataset.decode(record)), f"record {record} has other pixels"


def alone(pack: str, codec: str, samples: int, seconds: float, device: str) -> dict[str, Any]:
    """Pictures/s, copied and decoded; and the milliseconds of either for all of them."""
    records = Records(pack, codec, samples, device)
    records.copy()
    records.decode(checked=True)
    assert not records.verdicts.cpu().any(), "a sound record is refused"

    def both(number: int) -> None:
        records.copy(number)
        records.decode(number)

    first = milliseconds(both, ROUNDS[0], device)
    rounds = int(np.clip(seconds * 1e3 / 3 / statistics.median(first), *ROUNDS))
    ms = {name: statistics.median(milliseconds(call, rounds, device))
          for name, call in {"ms": both, "copy_ms": records.copy, "kernels_ms": records.decode}.items()}  # fmt: skip
    return {
        "pictures": len(records.rows),
        "mb": records.bytes / 1e6,
        "samples_per_s": 1e3 * len(records.rows) / ms["ms"],
        **ms,
    }
