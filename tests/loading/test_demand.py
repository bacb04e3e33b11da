"""What `pass-pack bench --samples-per-second` advises, from measurements that are made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pass_loader import recipes
from pass_loader.loading.bench import Measured, pieces
from pass_loader.loading.demand import Advice, Setting, Demand, Pieces
from pass_loader.loading.limits import Limits
from pass_loader.pack import Pack, build, convert

from ..helpers.corpus import jpeg, noise
from ..helpers.pngwriter import RGB, drawn, png
from ..helpers.trees import write_tree

MB = 1_000_000
PIECES = Pieces(
    settings=(
        Setting("jpeg", "float32", 800, 100_000, (MB, MB)),
        Setting("jpeg", "uint8", 900, 100_000, (MB // 4, MB // 4)),
        Setting("dct", "float32", 1200, 130_000, (MB, MB)),
        Setting("dct", "uint8", 1400, 130_000, (MB // 4, MB // 4)),
        Setting("jpeg", "bfloat16", 5000, 100_000, (MB // 2, MB // 2)),
    ),
    crowding=1.25, cores=16, storage_bytes=10_000 * MB, keeps="", process_bytes=500 * MB, thread_bytes=20 * MB,
    index_bytes=3 * MB, shard_bytes=150_000 * MB,
)  # fmt: skip


def advice(rate: float, gpus: int = 1, batch_size: int = 64, **changed: object) -> Advice:
    return Advice(dataclasses.replace(PIECES, **changed), Demand(rate, gpus, batch_size))  # type: ignore[arg-type]


def test_threads_and_cores() -> None:
    """A thread gives 800 / 1.25, a tenth of it in reserve: 576 samples/s. A core of each GPU's share is its loop's."""
    assert [row.threads for row in advice(576).rows] == [1, 1, 1, 1, 1]
    assert [row.threads for row in advice(577).rows][:3] == [2, 1, 1]
    assert advice(1000, 4).room == 3 and advice(1000, 5).room == 2 and advice(1000, 16).room == 1
    assert advice(1000, 4).rows[0].gives == pytest.approx(3 * 576)
    assert [row.enough for row in advice(3 * 576, 4).rows] == [True] * 5
    assert [row.enough for row in advice(3 * 576 + 1, 4).rows] == [False, True, True, True, True]
    assert advice(100, 32).rows[0].gives == pytest.approx(576 / 2)  # half a core for each


def test_storage_and_bus() -> None:
    first = advice(1000, 4).rows[0]
    assert (first.storage_bytes, first.gpu_bytes) == (400 * MB, 2000 * MB)
    assert advice(1000, 4, storage_bytes=400 * MB).rows[0].enough
    assert not advice(1000, 4, storage_bytes=399 * MB).rows[0].enough
    kept = advice(1000, 4, storage_bytes=100 * MB, keeps="the page cache then has the whole pack")
    assert kept.rows[0].enough
    assert ("In the first epoch storage is the limit, with 250 samples/s for each GPU; the page cache then has the "
            "whole pack.") in kept.words()  # fmt: skip
    assert "first epoch" not in advice(250, 4, storage_bytes=100 * MB, keeps="it is kept").words()


def test_words_where_it_is_no_limit() -> None:
    assert advice(1000, 4).words().startswith(
        "Loading will not be the limit: num_workers=2 in each of 4 processes, and a core more for its loop, is enough "
        "with the pack as it is and float32. Memory of a process: "
    )  # fmt: skip


@pytest.mark.parametrize("rate,set_", [
    (1900, "dtype=torch.uint8 and pass_loader.normalize on the GPU: num_workers=3 "),
    (2400, "`pass-pack convert --codec dct`: num_workers=3 "),
    (2700, "`pass-pack convert --codec dct`, dtype=torch.uint8 and pass_loader.normalize on the GPU: num_workers=3 "),
    (3100, "dtype=torch.bfloat16: num_workers=1 "),
])  # fmt: skip
def test_words_where_something_else_is_enough(rate: float, set_: str) -> None:
    """The first that is enough: what changes least, and what changes values last."""
    words = advice(rate, 4).words()
    assert words.startswith("Loading would be the limit with the pack as it is and float32: ")
    assert f"It will not be with {set_}in each of 4 processes" in words


def test_words_where_nothing_is_enough() -> None:
    words = advice(18_000, 4).words()
    assert words.startswith(
        "Loading will be the limit: a GPU takes 5 threads, and beside its loop there are cores for 3. At best, with "
        "dtype=torch.bfloat16 and num_workers=3 in each of 4 processes, a GPU gets 10,800 samples/s, 60% of what it "
        "trains on. 6 cores for each GPU would be enough, and 16 are here for all."
    )  # fmt: skip
    words = advice(1000, 4, storage_bytes=100 * MB).words()
    assert words.startswith(
        "Loading will be the limit: storage gives 100 MB/s, and 400 are needed. At best, with dtype=torch.float32 and "
        "num_workers=3 in each of 4 processes, a GPU gets 250 samples/s, 25% of what it trains on. Memory"
    )  # fmt: skip
    assert "cores for less than one" in advice(1000, 32).words()


def test_memory() -> None:
    """Batches of 64 x 2 sizes of 1 MB, each of which torch rounds up to 64 MiB; 3 threads may have 96 samples in work
    beside two batches, of the half of 3 x 64 MiB 50: none more. One is in the loop's hands."""
    found = advice(1500, 4)
    assert found.best.threads == 3 and found.batch_bytes(3) == 3 * 2 * 2**26
    assert found.words().endswith(
        "Memory of a process: 560 MB private, and at most 403 MB of batches of 64, pinned or not; shared by all "
        "processes: 3.0 MB of index, and of the 150.0 GB of shards what the page cache keeps."
    )
    assert advice(1500, 4, batch_size=16).batch_bytes(3) == 6 * 2 * 2**24


def test_table() -> None:
    lines = advice(1900, 4).table().splitlines()
    assert lines[1].split() == ["jpeg", "float32", "800", "4", "760", "3,800", "too", "slow"]
    assert lines[2].split() == ["jpeg", "uint8", "900", "3", "760", "950", "enough"]
    assert len(lines) == 6 and lines[0].startswith("codec     dtype")


ALONE = Limits(100, 300, 300, 2, "blur", "it is kept", False)
FOUND = [Measured(1, 100, {"read": 0.5, "decode": 0.2, "blur": 0.3}, 7, 8),
         Measured(2, 150, {"read": 0.1, "decode": 0.3, "blur": 0.3}, 70, 9)]  # fmt: skip


def measured(pack: Path, recipe: recipes.Recipe) -> Pieces:
    return pieces(Pack(pack), recipe, FOUND, ALONE, 0.01)


@pytest.mark.slow
def test_pieces(tmp_path: Path) -> None:
    """Every codec and dtype is measured by a sample, the pack's own first; the rest is what was measured before."""
    tree = write_tree(tmp_path / "in", {f"{number}.jpg": jpeg(noise(40, 40, number)) for number in range(4)})
    build([tree], tmp_path / "jpeg")
    found = measured(tmp_path / "jpeg", recipes.mocov2(size=16))
    assert [(one.codec, one.dtype) for one in found.settings] == [
        *((codec, dtype) for codec in ("jpeg", "dct-zstd", "dct") for dtype in ("float32", "uint8")),
        *((codec, "bfloat16") for codec in ("jpeg", "dct-zstd", "dct")),
    ]
    mean = float(Pack(tmp_path / "jpeg").column("length").mean())
    first = found.settings[0]
    assert first.record_bytes == mean and first.sample_bytes == (2 * 3 * 16 * 16 * 4,)
    assert found.settings[1].sample_bytes == (2 * 3 * 16 * 16,)
    assert all(one.samples_per_second > 0 and one.record_bytes > 0 for one in found.settings)
    assert found.crowding == pytest.approx((0.6 * 2 / 150) / (0.5 / 100))
    assert (found.storage_bytes, found.keeps) == (100 * mean, "it is kept")
    assert (found.process_bytes, found.thread_bytes) == (7, 9)
    assert found.shard_bytes == sum(path.stat().st_size for path in (tmp_path / "jpeg").glob("*.tar"))
    assert found.index_bytes == (tmp_path / "jpeg" / "index.arrow").stat().st_size
    convert(tmp_path / "jpeg", tmp_path / "dct", codec="dct")
    found = measured(tmp_path / "dct", recipes.mocov2(size=16))
    assert [one.codec for one in found.settings[::2][:3]] == ["dct", "jpeg", "dct-zstd"]
    assert found.settings[0].record_bytes == float(Pack(tmp_path / "dct").column("length").mean())


@pytest.mark.slow
def test_pieces_of_pngs_and_of_recipes_that_erase(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "in", {"a.png": png(drawn(8, RGB, 40, 40), 8, RGB)})
    build([tree], tmp_path / "pack")
    found = measured(tmp_path / "pack", recipes.timm_train(size=16))
    assert [(one.codec, one.dtype) for one in found.settings] == [("png", "float32"), ("png", "bfloat16")]
