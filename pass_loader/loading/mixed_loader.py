"""Several loaders as one: each step takes a batch of one of them, drawn, the same one on all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..keys import BatchKey
from .loader import DataLoader

_WHICH = 3  # purpose of these draws, beside those of masks.py


class MixedLoader:
    """Batches of `loaders`, each step from one drawn with its probability: DINOv3's pairs of resolutions
    (facebookresearch/dinov3 6876159, dinov3/train/train.py:334-379, dinov3/data/meta_loaders.py), or corpora in turns.

    probabilities: one a loader, their sum 1. seed: of the draws, which depend on (seed, step) alone and are therefore
    equal on all ranks. The stream ends where a loader that is drawn has no batch left: give the loaders infinite=True
    for an endless one. `state_dict` and `load_state_dict` resume exactly, loaders included.
    """

    def __init__(self, loaders: Sequence[DataLoader], probabilities: Sequence[float], *, seed: int = 0):
        if not loaders or len(loaders) != len(probabilities):
            raise ValueError(f"{len(loaders)} loaders and {len(probabilities)} probabilities: want one a loader")
        if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1.0, abs_tol=1e-9):
            raise ValueError(f"probabilities {tuple(probabilities)}: want numbers from 0 on whose sum is 1")
        self.loaders, self.probabilities, self.seed = list(loaders), tuple(probabilities), seed
        self._step = 0
        self._resumed = False

    def which(self, step: int) -> int:
        """The number of the loader that a step takes."""
        chance = float(BatchKey(self.seed, 0, step, 0).uniforms(_WHICH, 1)[0])
        for number, probability in enumerate(self.probabilities):
            chance -= probability
            if chance < 0:
                return number
        return max(number for number, probability in enumerate(self.probabilities) if probability > 0)

    def __iter__(self) -> Iterator[Any]:
        if not self._resumed:
            self._step = 0
        self._resumed = False
        running: dict[int, Iterator[Any]] = {}
        while True:
            number = self.which(self._step)
            if number not in running:
                running[number] = iter(self.loaders[number])
            batch = next(running[number], None)
            if batch is None:
                return
            self._step += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "loaders": [loader.state_dict() for loader in self.loaders]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for a state of other loaders."""
        if len(state["loaders"]) != len(self.loaders):
            raise ValueError(f"the state is of {len(state['loaders'])} loaders, here are {len(self.loaders)}")
        for loader, part in zip(self.loaders, state["loaders"]):
            loader.load_state_dict(part)
        self._step, self._resumed = state["step"], True
