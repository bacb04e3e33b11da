"""Several loaders as one: each step takes a batch of one of them, drawn, the same one on all ranks."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Generic

from ..keys import BatchKey, check_seed
from .iteration import Batch, BatchIterator
from .loader import DataLoader

MAX_STEPS = 2**48  # csrc/draws.h
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
        for loader in loaders:
            if not isinstance(loader, DataLoader):
                raise TypeError(f"loaders holds a {type(loader).__name__}, want pass_loader.DataLoaders")
        if len({id(loader) for loader in loaders}) != len(loaders):
            raise ValueError("loaders holds one loader twice: each has one place in its own epoch, make another one")
        given = tuple(float(probability) for probability in probabilities)
        if not all(probability >= 0 for probability in given) or not math.isclose(sum(given), 1.0, abs_tol=1e-9):
            raise ValueError(f"probabilities {given}: want numbers from 0 on whose sum is 1")
        check_seed(seed)
        self.loaders, self.probabilities, self.seed = list(loaders), given, seed
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

    def __iter__(self) -> MixedIterator[Batch]:
        if not self._resumed:
            self._step = 0
        self._resumed = False
        return MixedIterator(self)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as JSON-serialisable values."""
        return {
            "step": self._step,
            "seed": self.seed,
            "probabilities": list(self.probabilities),
            "loaders": [loader.state_dict() for loader in self.loaders],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the next iteration where the state was taken.

        Raises ValueError for a state of other loaders, probabilities or another seed, and for one that is damaged;
        nothing has changed then.
        """
        step = self._check(state)
        places = [loader._place_of(part) for loader, part in zip(self.loaders, state["loaders"])]
        for loader, place in zip(self.loaders, places):
            loader._continue_at(place)
        self._step, self._resumed = step, True

    def _check(self, state: dict[str, Any]) -> int:
        if not isinstance(state, dict):
            raise TypeError(f"a state is a dict, got {type(state).__name__}")
        if not {"step", "loaders"} <= {*state}:
            raise ValueError("this is no state of a pass_loader.MixedLoader: it lacks step or loaders")
        if not isinstance(state["loaders"], list) or len(state["loaders"]) != len(self.loaders):
            count = len(state["loaders"]) if isinstance(state["loaders"], list) else "no"
            raise ValueError(f"the state is of {count} loaders, here are {len(self.loaders)}")
        # Version 0.1.0 wrote neither seed nor probabilities.
        for name, own in (("seed", self.seed), ("probabilities", list(self.probabilities))):
            if name in state and state[name] != own:
                raise ValueError(f"the state does not fit: {name} was {state[name]!r}, here {own!r}")
        step = state["step"]
        if type(step) is not int or not 0 <= step < MAX_STEPS:
            raise ValueError(f"the state is damaged: step is {step!r}")
        return step


class MixedIterator(Generic[Batch]):
    """The stream of a MixedLoader. After an error the next call takes the next step, as a DataLoader's iterator goes on
    with the batch after the failed one. Any number of Python threads may call it; each batch is given once."""

    def __init__(self, mixed: MixedLoader[Batch]):
        self._mixed = mixed
        self._running: dict[int, BatchIterator[Batch]] = {}
        self._ended = False
        self._lock = threading.RLock()

    def __iter__(self) -> MixedIterator[Batch]:
        return self

    def __next__(self) -> Batch:
        with self._lock:
            mixed = self._mixed
            number = mixed.which(mixed._step)
            if number in self._running and self._running[number].skip_failed():
                mixed._step += 1
                number = mixed.which(mixed._step)
            if self._ended:
                raise StopIteration
            if number not in self._running:
                self._running[number] = iter(mixed.loaders[number])
            try:
                batch = next(self._running[number])
            except StopIteration:
                self._ended = True
                raise
            mixed._step += 1
            return batch
