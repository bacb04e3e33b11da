"""Reading ahead: the same batches and errors, on storage that is slow, cached, failing, removed or exchanged."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cpu.busy_threads import compile_shim
from pass_loader import ConcatDataset, DataLoader, RecordError, ShardDataset, recipes
from pass_loader.pack import remove
from pass_loader.pack.reader import Pack

from ..helpers.forked import Template
from ..helpers.object_server import serving
from ..helpers.packs import flip_a_bit
from ..helpers.processes import native_threads

TINY = recipes.mocov2(size=8)

IMPORTS = """
import gc, hashlib, json, os, sys, time
import numpy as np
import pass_loader
from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.pack import purge, remove
from tests.helpers.processes import native_threads
from tests.helpers.recipes import WITH_HEATMAPS
"""

# Prints a digest of all batches, the error that ended them, and what became of the records.
CODE = """
def tensors(batch):
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, (list, tuple)) else ()
    return [batch] if hasattr(batch, "numpy") else [tensor for part in parts for tensor in tensors(part)]

how, path, others, cache, *numbers, options = sys.argv[1:]
read_ahead, threads, cut_at, purge_at, fork_at = map(int, numbers)
recipe = {"plain": recipes.dino(local_crops=2, global_size=32, local_size=16), "heatmaps": WITH_HEATMAPS,
          "companions": recipes.genview(size=16)}[how]
given = {} if how == "plain" else {how: others}
dataset = ShardDataset(path, recipe, seed=3, cache=cache or None, **given)
order = np.random.default_rng(0).permutation(np.arange(120) % len(dataset)).tolist()
loader = DataLoader(dataset, 4, sampler=order, num_workers=threads, read_ahead=read_ahead, **json.loads(options))
digest, batches, said = hashlib.sha256(), iter(loader), ""
for number in range(30):
    if number == cut_at:
        os.truncate(dataset.pack.tar_paths()[0], 5000)
    if number == purge_at:  # the epoch ends here, with records of it in the ring
        gone = sorted(set(order[4 * number : 4 * number + 8]))
        remove(path, dataset.pack.ids(np.array(gone)), reason="test")
        purge(path)
        order[:] = [position % (len(dataset) - len(gone)) for position in order]
        batches = iter(loader)
    if number == fork_at and os.fork() == 0:
        del batches, loader
        gc.collect()
        os._exit(0)
    try:
        batch = next(batches)
    except (pass_loader.RecordError, pass_loader.ShardError) as error:
        said = str(error)
        break
    for tensor in tensors(batch):
        digest.update(tensor.numpy().tobytes())
counts = loader.stats()["read_ahead"]
if fork_at >= 0:
    assert os.wait()[1] == 0, "the child ends as it should"
print(json.dumps([digest.hexdigest(), said, counts]))
"""

# Prints how many threads of readers there were at the most, and what the loader counts at the end.
COUNTED = """
path, samples, pause_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
dataset = ShardDataset(path, recipes.mocov2(size=8))
order = (np.arange(samples) % len(dataset)).tolist()
loader = DataLoader(dataset, 32, sampler=order, num_workers=2, read_ahead=2048, prefetch_bytes=1 << 28)
threads = 0
for _ in loader:
    threads = max(threads, len(native_threads("pass-reader")))
    time.sleep(pause_s)
print(json.dumps([threads, loader.stats()["read_ahead"]]))
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """Processes in which reads of shards are slow."""
    shim = compile_shim(tmp_path_factory.mktemp("shim"))
    with Template(IMPORTS, {"LD_PRELOAD": str(shim)}) as made:
        yield made


def loaded(slow: Template, pack: Path | str, read_ahead: int, *, ms: str = "3", threads: int = 2, cut_at: int = -1,
           purge_at: int = -1, fork_at: int = -1, how: str = "plain", others: Path | str = "", cache: Path | str = "",
           **options: Any) -> tuple[str, str, dict[str, Any]]:  # fmt: skip
    """Run CODE. Returns the digest of its batches, the error that ended them, and what became of the records."""
    numbers = (read_ahead, threads, cut_at, purge_at, fork_at)
    done = slow.run(CODE, [how, pack, others, cache, *numbers, json.dumps(options)], {"SLOW_READS": ms})
    assert done.returncode == 0, done.stderr[-3000:]
    digest, said, counts = json.loads(done.stdout)
    return digest, said, counts


@pytest.mark.slow
@pytest.mark.parametrize("threads", [0, 2])
def test_batches_are_the_same(slow: Template, pack: Path, threads: int) -> None:
    """Kills: a ticket of another sample; bytes that are given back before they are decoded."""
    alone, _, none = loaded(slow, pack, 0, threads=threads)
    ahead, said, counts = loaded(slow, pack, 64, threads=threads)
    assert alone == ahead and said == ""
    assert none["from_ring"] == none["readers"] == 0
    assert counts["from_ring"] > 50 and counts["readers"] > 1 and counts["latency_s"] > 0.002


@pytest.mark.slow
@pytest.mark.parametrize("how", ["heatmaps", "companions"])
def test_second_records_are_read_ahead_too(
    slow: Template, heatmap_packs: tuple[Path, Path], companion_packs: tuple[Path, Path], how: str
) -> None:
    """Kills: a heatmap's ticket for the picture; companions that are not announced."""
    pictures, others = heatmap_packs if how == "heatmaps" else companion_packs
    alone, *_ = loaded(slow, pictures, 0, how=how, others=others)
    ahead, said, counts = loaded(slow, pictures, 64, how=how, others=others)
    assert alone == ahead and said == ""
    read = counts["from_ring"] + counts["left"] + counts["cached"]
    assert read == 240 if how == "heatmaps" else 120 < read <= 240
    assert counts["from_ring"] > 120 if how == "heatmaps" else counts["from_ring"] > 60


@pytest.mark.slow
@pytest.mark.parametrize("ms", ["0", "3"])
def test_a_bad_record_is_told_in_the_same_words(slow: Template, pack: Path, tmp_path: Path, ms: str) -> None:
    damaged = shutil.copytree(pack, tmp_path / "pack")
    flip_a_bit(Pack(damaged), 5)
    alone, words, _ = loaded(slow, damaged, 0, ms=ms)
    ahead, same, _ = loaded(slow, damaged, 64, ms=ms)
    assert words == same and "the bytes were changed" in words and alone == ahead


@pytest.mark.slow
def test_failing_storage_is_told_in_the_same_words(slow: Template, pack: Path, tmp_path: Path) -> None:
    """A shard that is cut off in mid-epoch. Kills: a reader that reports an error, or swallows one."""
    said = []
    for read_ahead in (0, 64):
        copy = shutil.copytree(pack, tmp_path / f"{read_ahead}" / "pack")
        *_, words, _ = loaded(slow, copy, read_ahead, cut_at=4)
        said.append(words)
    assert all("it was cut off or replaced" in words for words in said)


@pytest.mark.slow
def test_after_a_purge(slow: Template, pack: Path, tmp_path: Path) -> None:
    """In mid-epoch: what was announced is dropped, and the shards are other files. Kills: tickets of the last epoch."""
    found = []
    for read_ahead in (0, 64):
        copy = shutil.copytree(pack, tmp_path / f"{read_ahead}" / "pack")
        found.append(loaded(slow, copy, read_ahead, purge_at=10))
    assert found[0][:2] == found[1][:2] and found[0][1] == ""
    assert found[1][2]["from_ring"] > 50


@pytest.mark.slow
def test_a_child_of_a_process_that_reads_ahead(slow: Template, pack: Path) -> None:
    """Kills: a child that waits for threads that it does not have."""
    alone, *_ = loaded(slow, pack, 0)
    ahead, said, counts = loaded(slow, pack, 64, fork_at=10)
    assert alone == ahead and said == "" and counts["from_ring"] > 50


@pytest.mark.slow
@pytest.mark.parametrize("prefetch_bytes", [1, 40_000, 400_000])
def test_a_ring_that_is_small(slow: Template, pack: Path, prefetch_bytes: int) -> None:
    """Down to one without room for any record. Kills: bytes of a record over those of another; a wait without end."""
    alone, *_ = loaded(slow, pack, 0)
    ahead, said, counts = loaded(slow, pack, 64, prefetch_bytes=prefetch_bytes)
    assert alone == ahead and said == ""
    assert counts["left"] > 0 if prefetch_bytes > 1 else counts["from_ring"] == 0


@pytest.mark.slow
def test_what_a_store_sent_before_is_read_ahead(slow: Template, pack: Path, tmp_path: Path) -> None:
    """From the folder of a cache, which may be as slow as any. Kills: holes that are read ahead as records."""
    alone, *_ = loaded(slow, pack, 0)
    with serving(pack.parent) as server:
        found = [loaded(slow, f"{server.url}pack", 64, cache=tmp_path / "cache") for _ in range(2)]
    assert [digest for digest, *_ in found] == [alone, alone] and not any(said for _, said, _ in found)
    assert found[1][2]["from_ring"] > 50 and found[1][2]["readers"] > 1


def test_local_packs_beside_one_in_a_store(tiny: Path, tmp_path: Path) -> None:
    """Records of both are read ahead."""
    with serving(tiny.parent) as server:
        parts = [ShardDataset(tiny, TINY), ShardDataset(f"{server.url}{tiny.name}", TINY, cache=tmp_path / "cache")]
        loader = DataLoader(ConcatDataset(parts), 4, shuffle=True, num_workers=1)
        samples = sum(len(batch[1]) for batch in loader)
    counts = loader.stats()["read_ahead"]
    assert samples == 2 * len(parts[0]) == counts["from_ring"] + counts["cached"] + counts["left"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("ms", "samples", "pause_s", "least", "most"), [(500, 8000, 0, 512, 512), (50, 2000, 0.2, 2, 255)]
)
def test_how_many_readers_there_are(
    slow: Template, tiny: Path, ms: int, samples: int, pause_s: float, least: int, most: int
) -> None:
    """A loop that takes all it gets, of a latency that asks for more readers than there may be; and one that takes 160
    samples a second, for which a dozen are enough: the start, when the loader works ahead, has some more.
    Kills: a thread for each record that is announced."""
    done = slow.run(COUNTED, [tiny, samples, pause_s], {"SLOW_READS": str(ms)})
    assert done.returncode == 0, done.stderr[-3000:]
    threads, counts = json.loads(done.stdout)
    assert least <= threads <= most and least <= counts["readers"] <= most
    assert counts["from_ring"] > 0.9 * samples


def test_a_warm_cache_is_left_to_the_threads(tiny: Path) -> None:
    loader = DataLoader(ShardDataset(tiny, TINY), 4, num_workers=2)
    for _ in range(3):
        for _ in loader:
            pass
    counts = loader.stats()["read_ahead"]
    assert counts["from_ring"] <= 16 and counts["cached"] + counts["left"] + counts["from_ring"] == 3 * len(
        loader.dataset
    )


@pytest.mark.slow
def test_threads_and_announcements_end_with_the_loader(tiny: Path) -> None:
    gc.collect()  # loaders of tests before
    before = native_threads()
    for _ in range(5):
        loader = DataLoader(ShardDataset(tiny, TINY), 4, num_workers=2)
        batches = iter(loader)
        next(batches)
        assert [len(native_threads(name, before)) for name in ("pass-render", "pass-scout")] == [2, 1]
        del batches
        assert len([*loader]) == len(loader)
        del loader
    assert not native_threads(but=before)


def test_it_can_be_switched_off(tiny: Path) -> None:
    for how in ({"read_ahead": 0}, {"prefetch_bytes": 0}, {"num_workers": 0}):
        loader = DataLoader(ShardDataset(tiny, TINY), 4, **{"num_workers": 1, **how})
        for _ in loader:
            pass
        assert not any(loader.stats()["read_ahead"].values())
    with pytest.raises(ValueError, match="read_ahead is -1"):
        DataLoader(ShardDataset(tiny, TINY), 4, read_ahead=-1)


def test_a_removed_record_is_not_read(tiny: Path, tmp_path: Path) -> None:
    """It is announced as none, and stays a bad record in its epoch."""
    copy = shutil.copytree(tiny, tmp_path / "pack")
    how: dict[str, Any] = {"shuffle": True, "num_workers": 1, "return_info": True}
    loader = DataLoader(ShardDataset(copy, TINY), 4, **how)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    *_, info = next(batches)
    remove(copy, [info["ids"][0]], reason="test")
    resumed = DataLoader(ShardDataset(copy, TINY), 4, **how)
    resumed.load_state_dict(state)
    batches = iter(resumed)
    with pytest.raises(RecordError, match="it was removed from the pack"):
        next(batches)
    assert sum(1 for _ in batches) == len(loader) - 2
