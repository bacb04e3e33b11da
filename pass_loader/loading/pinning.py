"""Pinned memory: whether batches lie in it, by the rule of torch's own DataLoader, and how much of it they take."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.data._utils.pin_memory import pin_memory as torchs_pin_memory


def accelerator_type(named: str) -> str | None:
    """Return the kind of device for which memory is pinned: the current accelerator's; None without one.

    torch before 2.6 does not tell: there it is CUDA's, or the one that `named` (pin_memory_device) says.
    """
    if not hasattr(torch, "accelerator"):
        return named or ("cuda" if torch.cuda.is_available() else None)
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if found is None else found.type


class Pinning:
    """Pinned memory of one loader. It counts the bytes of its pinned tensors, those that it has handed out included, as
    long as their memory lives."""

    def __init__(self) -> None:
        self.device: str | None = None  # for which memory is pinned; None: it is not
        self._named: str | None = None  # the same, where torch must be told
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}  # bytes

    def __getstate__(self) -> dict[str, Any]:
        return {"device": None, "_named": None, "_storages": {}}  # a reference is an address

    def decide(self, wanted: bool, named: str) -> None:
        """Decide whether memory is pinned, at each start of an iteration.

        torch decides and warns there too (torch/utils/data/dataloader.py, _BaseDataLoaderIter). Warnings name the line
        that calls `iter`.
        """
        self.device = accelerator_type(named) if wanted else None
        knows_it = hasattr(torch, "accelerator")
        self._named = None if knows_it else named or None
        if wanted and named and knows_it:
            warnings.warn(f"pin_memory_device={named!r} is not looked at: the current accelerator's memory is pinned",
                          stacklevel=3)  # fmt: skip
        if wanted and self.device in (None, "mps"):
            why = "torch sees no accelerator" if self.device is None else "torch pins no memory for Apple's GPUs (MPS)"
            warnings.warn(f"pin_memory=True is without effect: {why}", stacklevel=3)
            self.device = None

    def empty(self, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
        """Return an uninitialised pinned tensor.

        torch's allocator reuses its memory when the last tensor of it is gone and the queued copies to a device are
        done. For that the tensors must be torch's own, not aliases.
        """
        tensor = torch.empty(shape, dtype=dtype, pin_memory=True)
        self._count(tensor)
        return tensor

    def pinned(self, batch: Any, pin: Callable[[Any], Any] | None = None) -> Any:
        """Return the batch with its tensors in pinned memory. pin: what pins it; None: as torch pins."""
        if self.device is None:
            return batch
        batch = torchs_pin_memory(batch, self._named) if pin is None else pin(batch)
        self._forget()
        for tensor in _tensors(batch):
            if tensor.device.type == "cpu" and tensor.layout == torch.strided:
                self._count(tensor)
        return batch

    @property
    def bytes(self) -> int:
        """Bytes of pinned memory that tensors hold, those handed out included. What torch's allocator rounds up, and
        keeps, is not counted."""
        self._forget()
        return sum(size for _, size in [*self._storages.values()])

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        self._storages[reference.cdata] = (reference, storage.nbytes())

    def _forget(self) -> None:
        for key, (reference, _) in [*self._storages.items()]:
            if reference.expired():
                self._storages.pop(key, None)


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, (Mapping, list, tuple)):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _tensors(part)
