"""Several Python threads on one native object. Without torch, so that a wheel runs it where a Python needs no GIL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pass_loader import Samples, _C, recipes

from ..helpers.corpus import decodable, jpeg, noise

RECIPE = recipes.byol()
Batch = tuple[_C.PendingBatch, list[np.ndarray]]  # with the memory of its views


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


class Batches:
    """An engine, and memory for each batch."""

    def __init__(self, pack: Path, threads: int) -> None:
        self.samples = Samples(pack, RECIPE)
        table = RECIPE.normalize_table()[None]
        mean, std = np.array([RECIPE.mean], np.float32), np.array([RECIPE.std], np.float32)
        half = np.zeros(table.shape, np.uint16)
        self.engine = _C.Engine(self.samples.reader, RECIPE.rows(), 0, table, half, mean, std, threads)

    def submit(self, records: list[int]) -> Batch:
        count, none = len(records), np.zeros(len(records), np.uint32)
        views = [np.empty((count, 3, view.height, view.width), np.float32) for view in RECIPE.views]
        return self.engine.submit(np.array(records), none, none, views), views


def equal(views: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    return all(np.array_equal(view, want) for view, want in zip(views, wanted))


def test_one_reader(pack: Path) -> None:
    """Threads that read and render by the same samples.

    Kills: a reader whose buffer another thread reads into.
    """
    samples = Samples(pack, RECIPE)
    want = [(samples.read(record), samples.render(record)) for record in range(6)]

    def use(number: int) -> None:
        for turn in range(20):
            record = (turn * 5 + number) % 6
            assert samples.read(record) == want[record][0]
            assert equal(samples.render(record), want[record][1])

    assert at_once(use) == []


@pytest.mark.parametrize("threads", [0, 2])
def test_one_batch(pack: Path, threads: int) -> None:
    """All who wait for a batch get the same failures, and it holds what it holds for one."""
    batches = Batches(pack, threads)
    alone, want = batches.submit([*range(16)])
    assert alone.wait() == []
    for _ in range(3):
        batch, views = batches.submit([*range(16)])
        answers: list[object] = []

        def wait(_: int, batch: _C.PendingBatch = batch, answers: list[object] = answers) -> None:
            answers.append(batch.wait())

        assert at_once(wait) == []
        assert answers == [[]] * 6
        assert equal(views, want)


@pytest.mark.parametrize("threads", [0, 2])
def test_one_engine(pack: Path, threads: int) -> None:
    """Threads that submit, wait and drop batches at the same time."""
    batches = Batches(pack, threads)
    want = [batches.submit([record]) for record in range(6)]
    assert [batch.wait() for batch, _ in want] == [[]] * 6

    def use(number: int) -> None:
        for turn in range(8):
            batch, views = batches.submit([number])
            if turn % 3:
                assert batch.wait() == []
                assert equal(views, want[number][1])

    assert at_once(use) == []
