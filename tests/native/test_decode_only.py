"""The engine's other mode: pictures decoded and planned into an arena, for a GPU to render. The tests need no GPU."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from pass_loader import ShardDataset, _C, recipes
from pass_loader.pack import build
from pass_loader.loading.rendering import Renderer

from ..helpers.corpus import decodable, jpeg, noise
from ..helpers.packs import flip_a_bit
from ..helpers.pngwriter import RGB, png
from ..helpers.trees import write_tree
from ..helpers.trials import trials


RECIPE = recipes.dino(local_crops=2)
GUARD = 4096


class Arena:
    """An arena whose every byte, also past its end, is 0xA5 before."""

    def __init__(self, bytes: int):
        self.whole = np.full(bytes + GUARD, 0xA5, np.uint8)
        self.memory = self.whole[:bytes]

    def decode(self, renderer: Renderer, records: list[int]) -> tuple[np.ndarray, np.ndarray, list]:
        """Return (pictures, plans, failures)."""
        count = len(records)
        self.pictures = np.full((count, 5), 77, np.int64)
        self.plans = np.zeros((count, len(RECIPE.views)), _C.view_plan_dtype)
        self.plans["crop_x"] = 77
        zeros = np.zeros((2, count), np.uint32)
        pending = renderer._engine.decode(
            np.array(records, np.int64), zeros[0], zeros[1], self.memory, self.pictures, self.plans
        )
        failures = pending.wait()
        assert pending.done and (self.whole[len(self.memory) :] == 0xA5).all(), "written past the arena"
        return self.pictures, self.plans, failures

    def pixels(self, slot: int) -> np.ndarray:
        begin, height, width, row, plane = self.pictures[slot]
        planes = [self.memory[begin + c * plane :][: height * row].reshape(height, row) for c in range(3)]
        return np.stack(planes, axis=-1)[:, :width]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("decode")
    files = {f"{name}.jpg": data for name, data in decodable().items()}
    files |= {"png.png": png(noise(21, 34), colour=RGB), "gray.png": png(noise(21, 34)[..., :1])}
    build([write_tree(place / "in", files)], place / "pack", workers=1)
    return place / "pack"


@pytest.mark.parametrize("threads", [0, 3])
def test_the_decoders_bytes(corpus: Path, threads: int) -> None:
    """Every kind of picture, several at a time. Kills: a wrong plane or stride, places that overlap, gray in one plane,
    another's plan."""
    dataset = ShardDataset(corpus, RECIPE, seed=3)
    renderer, arena = Renderer(dataset, threads), Arena(3_000_000)
    records = [*range(len(dataset))] * 3
    for _ in range(3):
        pictures, plans, failures = arena.decode(renderer, records)
        assert failures == [] and (pictures[:, 0] >= 0).all() and (pictures[:, 0] % 256 == 0).all()
        for slot, record in enumerate(records):
            assert np.array_equal(arena.pixels(slot), dataset.decode(record)), dataset.id_of(record)
            assert np.array_equal(plans[slot], dataset.plan(record))
        ends = pictures[:, 0] + 3 * pictures[:, 4]
        order = np.argsort(pictures[:, 0])
        assert (ends[order][:-1] <= pictures[order, 0][1:]).all()
    assert renderer.stage_times()["decode"] > 0 and renderer.stage_times()["resize"] == 0


@pytest.mark.parametrize("threads", [0, 2])
def test_no_more_than_the_arena_holds(corpus: Path, threads: int) -> None:
    """A picture without room is told with its size and not decoded; a smaller one after it may still find room."""
    dataset = ShardDataset(corpus, RECIPE, seed=3)
    sizes = [dataset.decode(record).shape[:2] for record in range(len(dataset))]
    renderer = Renderer(dataset, threads)
    for bytes in (1, 255, 256, 30_000, 60_000):
        arena = Arena(bytes)
        pictures, plans, failures = arena.decode(renderer, [*range(len(dataset))])
        assert failures == []
        late = pictures[:, 0] < 0
        assert late.any() and (bytes < 256) == late.all()
        for slot, (height, width) in enumerate(sizes):
            row = -(-width // 16) * 16
            assert pictures[slot, 1:].tolist() == [height, width, row, row * height]
            if late[slot]:
                assert (plans[slot]["crop_x"] == 77).all(), "planned, but not decoded"
            else:
                assert np.array_equal(arena.pixels(slot), dataset.decode(slot))
        if threads == 0 and bytes == 60_000:
            first = int(np.flatnonzero(late)[0])
            assert (~late[first:]).any(), "the first that finds no room does not close the arena"


def test_failures(tmp_path: Path) -> None:
    """By slot and cause; no picture, no plan. Kills: the place of the one before."""
    files = {f"{number}.jpg": jpeg(noise(12, 16, number)) for number in range(6)}
    table = bytearray(files["4.jpg"])
    table[table.index(b"\xff\xc4") + 4] = 0x55
    build([write_tree(tmp_path / "in", files | {"4.jpg": bytes(table)})], tmp_path / "pack", workers=1)
    dataset = ShardDataset(tmp_path / "pack", RECIPE)
    flip_a_bit(dataset.pack, 1)
    arena = Arena(1_000_000)
    pictures, plans, failures = arena.decode(Renderer(dataset, 2), [0, 1, 2, -1, 4, 5])
    assert [(slot, fault) for slot, fault, _ in failures] == [(1, "record"), (3, "argument"), (4, "record")]
    assert "CRC32C is" in failures[0][2] and failures[2][2].startswith("JPEG: ")
    for slot in (1, 3, 4):
        assert not pictures[slot].any() and not plans[slot].view(np.uint8).any()
    for slot in (0, 2, 5):
        assert np.array_equal(arena.pixels(slot), dataset.decode(slot))


def test_16_bits_are_refused(tmp_path: Path) -> None:
    deep = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16, 1) * 300
    build([write_tree(tmp_path / "in", {"a.png": png(deep, bits=16)})], tmp_path / "pack", workers=1)
    _, _, failures = Arena(100_000).decode(Renderer(ShardDataset(tmp_path / "pack", RECIPE), 0), [0])
    ((slot, fault, message),) = failures
    assert (slot, fault) == (0, "argument") and 'device="cpu"' in message


def test_a_dropped_batch_is_written_no_more(pack: Path) -> None:
    renderer, early = Renderer(ShardDataset(pack, RECIPE), 2), 0
    for _ in range(trials(20, 1000)):
        arena = np.zeros(60_000_000, np.uint8)
        records = np.arange(23, dtype=np.int64)
        keys = records, *np.zeros((2, 23), np.uint32)
        pictures, plans = np.zeros((23, 5), np.int64), np.zeros((23, len(RECIPE.views)), _C.view_plan_dtype)
        pending = renderer._engine.decode(*keys, arena, pictures, plans)
        del pending
        seen = arena[::4096].copy(), pictures.copy()
        time.sleep(0.002)
        assert np.array_equal(arena[::4096], seen[0]) and np.array_equal(pictures, seen[1])
        early += np.count_nonzero(pictures[:, 1]) < 23
    assert early, "each was done before it was dropped"


def test_wrong_arguments(pack: Path) -> None:
    dataset = ShardDataset(pack, RECIPE)
    engine = Renderer(dataset, 0)._engine
    one = np.zeros(1, np.int64), np.zeros(1, np.uint32), np.zeros(1, np.uint32)
    arena, pictures = np.zeros(9, np.uint8), np.zeros((1, 5), np.int64)
    plans = np.zeros((1, len(RECIPE.views)), _C.view_plan_dtype)
    for wrong in ((arena, pictures[:, :4].copy(), plans), (arena, pictures, plans[:, 1:].copy()),
                  (arena.reshape(3, 3), pictures, plans), (arena, np.zeros((2, 5), np.int64), plans)):  # fmt: skip
        with pytest.raises(ValueError, match="want an arena"):
            engine.decode(*one, *wrong)
    with pytest.raises(TypeError):
        engine.decode(*one, arena.astype(np.int8), pictures, plans)
    frozen = arena.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        engine.decode(*one, frozen, pictures, plans)
