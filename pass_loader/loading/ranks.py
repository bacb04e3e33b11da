"""Ranks: which one this process is, and what all of them agree on."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import torch.distributed

from ..data.live import Generation
from ..pack.reader import Pack
from ..pack.several import Packs


def initialized_rank() -> tuple[int, int] | None:
    """Return (rank, world size) of torch.distributed; None where it is not initialised."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None


def agree_on_generation(pack: Pack | Packs, occasion: str) -> Generation:
    """Return the generation that the pack has on the rank that asks first.

    So a removal takes effect in the same epoch on all ranks. occasion: a name of this epoch of this loader, the same on
    all ranks. Waits for nobody.
    """
    if (initialized_rank() or (0, 1))[1] == 1:
        return pack.generation
    agreed = agree(f"{pack.pack_id}/{occasion}", pack.generation)
    return tuple(agreed) if isinstance(agreed, list) else agreed


def agree(occasion: str, value: Any) -> Any:
    """Return the value, of JSON's types, of the rank that asks first for this occasion. Waits for nobody."""
    if (initialized_rank() or (0, 1))[1] == 1:
        return value
    store = torch.distributed.distributed_c10d._get_default_store()
    told = json.dumps(value) + "\n"  # torch 2.3 waits for ever where a value has one byte
    return json.loads(store.compare_set(f"pass_loader/{occasion}", "", told))


class Occasions:
    """Names for the starts of epochs by one loader or dataset, for agree_on_generation.

    They are equal on all ranks, also where one rank has other loaders besides.
    """

    _made: Counter[str] = Counter()  # by what is equal on all ranks

    def __init__(self) -> None:
        self._number: int | None = None  # among those with the same `own`; known at the first start
        self._begun: Counter[int] = Counter()  # by epoch

    def name(self, own: str, epoch: int, again: bool = False) -> str:
        """Return the name of a start of this epoch. again: the same start is made once more."""
        if self._number is None:
            self._number = Occasions._made[own]
            Occasions._made[own] += 1
        self._begun[epoch] += not again
        return f"{own}/{self._number}/{epoch}/{self._begun[epoch]}"
