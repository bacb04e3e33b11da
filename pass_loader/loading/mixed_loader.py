"""Several loaders as one: each step takes a batch of one of them, drawn, the same one on all ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Generic

from ..keys import BatchKey
from .iteration import Batch
from .loader import DataLoader

_WHICH = 3  # purpose of these draws, beside those of masks.py


class MixedLoader(Generic[Batch]):
    """Batches of several loaders, each step from one that is drawn with its probability.

    For DINOv3's pairs of resolutions (facebookresearch/dinov3 6876159, dinov3/train/train.py:334-379,
    dinov3/data/meta_loaders.py), or for corpora in turns.

    probabilities: one a loader, their sum 1. seed: of the draws, which depend on (seed, step) alone and are therefore
    equal on all ranks. The stream ends where a loader that is drawn has no batch left: give the loaders infinite=True
    for an endless one. `state_dict` and `load_state_dict` resume exactly, loaders included.
    """

    def __init__(self, loaders: Sequence[DataLoader[Batch]], probabilities: Sequence[float], *, seed: int = 0):
        if not loaders or len(loaders) != len(probabilities):
            raise ValueError(f"{len(loaders)} loaders and {len(probabilities)} probabilities: want one a loader")
        if min(probabilities) < 0 or not math.isclose(sum(probabilities), 1.0, abs_tol=1e-9):
            raise ValueError(f"probabilities {tuple(probabilities)}: want numbers from 0 on whose sum is 1")
        self.loaders, self.probabilities, self.seed = list(loaders), tuple(probabilities), seed
        self._step = 0
        self._resumed = False

    def __repr__(self) -> str:
        return f"MixedLoader({self.loaders!r}, probabilities {self.probabilities}, seed {self.seed}, step {self._step})"

    def which(self, step: int) -> int:
        """Return the number of the loader that a step takes."""
        chance = float(BatchKey(self.seed, 0, step, 0).uniforms(_WHICH, 1)[0])
        for number, probability in enumerate(self.probabilities):
            chance -= probability
            if chance < 0:
                return number
        return max(number for number, probability in enumerate(self.probabilities) if probability > 0)

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed:
            self._step = 0
        self._resumed = False
        running: dict[int, Iterator[Batch]] = {}
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
        """Return where the stream stands, as JSON-serialisable values."""
        return {"step": self._step, "loaders": [loader.state_dict() for loader in self.loaders]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the next iteration where the state was taken. Raises ValueError for a state of other loaders."""
        if len(state["loaders"]) != len(self.loaders):
            raise ValueError(f"the state is of {len(state['loaders'])} loaders, here are {len(self.loaders)}")
        for loader, part in zip(self.loaders, state["loaders"]):
            loader.load_state_dict(part)
        self._step, self._resumed = state["step"], True
