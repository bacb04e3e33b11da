"""Several Python threads on one native object."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pass_loader
from pass_loader import _C, recipes
from pass_loader.keys import Keys
from pass_loader.loading.rendering import Renderer, Submitted

from ..helpers.corpus import decodable, jpeg, noise


def at_once(call: Callable[[int], None], threads: int = 6) -> list[BaseException]:
    """Call call(number) in so many threads; returns what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(threads)

    def run(number: int) -> None:
        start.wait()
        try:
            call(number)
        except BaseException as error:
            raised.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return raised


def test_one_decoder() -> None:
    """Kills: a decoder whose memory another thread decodes from: broken pictures, or a crash."""
    decoder, good, large = _C.Decoder(), [*decodable().values()], jpeg(noise(300, 400))

    def decode(number: int) -> None:
        for turn in range(60):
            decoder.decode(large if (turn + number) % 2 else good[(turn * 7 + number) % len(good)])

    assert at_once(decode) == []


@pytest.mark.parametrize("threads", [0, 2])
def test_one_batch(pack: Path, threads: int) -> None:
    """All who wait for a batch get the same failures, and it holds what it holds for one."""
    dataset = pass_loader.ShardDataset(pack, recipes.byol())
    renderer = Renderer(dataset, threads)
    records = np.arange(16)
    keys = Keys(records, np.zeros(16, np.uint32), np.zeros(16, np.uint32))
    alone = renderer.submit(keys)
    assert alone.wait() == []
    for _ in range(3):
        batch = renderer.submit(keys)
        answers: list[object] = []

        def wait(_: int, batch: Submitted = batch, answers: list[object] = answers) -> None:
            answers.append(batch.wait())

        assert at_once(wait) == []
        assert answers == [[]] * 6
        assert all(np.array_equal(a, b) for a, b in zip(batch.views, alone.views))


@pytest.mark.parametrize("threads", [0, 2])
def test_one_engine(pack: Path, threads: int) -> None:
    """Threads that submit, wait and drop batches at the same time."""
    dataset = pass_loader.ShardDataset(pack, recipes.byol())
    renderer = Renderer(dataset, threads)
    want = [renderer.submit(Keys.of(record, 0, 0)) for record in range(6)]
    assert [batch.wait() for batch in want] == [[]] * 6

    def use(number: int) -> None:
        for turn in range(8):
            batch = renderer.submit(Keys.of(number, 0, 0))
            if turn % 3:
                assert batch.wait() == []
                assert all(np.array_equal(a, b) for a, b in zip(batch.views, want[number].views))

    assert at_once(use) == []
