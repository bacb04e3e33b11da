"""Packs on a web server: the samples, their order and their pixels are those of the same pack in a directory."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pass_loader import ConcatDataset, DataLoader, PackError, ShardDataset, ShardError, recipes
from pass_loader.pack import Pack, build, remove
from pass_loader.remote import cache as caches
from pass_loader.remote.fetcher import Piece
from pass_loader.remote.store import StoreError

from ..helpers.corpus import jpeg, noise
from ..helpers.forked import ready
from ..helpers.object_server import FAULTS, ObjectServer, serving
from ..helpers.packs import flip_a_bit
from ..helpers.recipes import WITH_HEATMAPS
from ..helpers.remote import RECIPE, digest, digest_of
from ..helpers.trees import write_tree
from ..helpers.trials import trials

ROOT = Path(__file__).parents[2]


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, torch.Tensor):
        return torch.allclose(mine, theirs, rtol=0, atol=0, equal_nan=True)
    if isinstance(mine, dict):
        return all(_equal(mine[name], theirs[name]) for name in theirs)
    return len(mine) == len(theirs) and all(map(_equal, mine, theirs))


def used_bytes(cache: Path) -> int:
    """Return the bytes that the disk gives a cache folder, without its lock and counts, and tables of units."""
    files = (path for path in cache.glob("*/**/*") if path.is_file() and path.suffix != ".units")
    return sum(path.stat().st_blocks * 512 for path in files)


def test_a_pack_is_fetched_once(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Kills: a record read before it is there; a unit fetched twice; another order."""
    local = digest(ShardDataset(pack, RECIPE), epochs=2)
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
    assert digest(dataset, epochs=2) == local
    tars = sum(path.stat().st_size for path in pack.glob("*.tar"))
    assert server.sent < tars + sum(path.stat().st_size for path in pack.iterdir() if path.suffix != ".tar") + 10_000
    before = server.sent
    again = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
    loader = DataLoader(again, 4, shuffle=True, return_info=True, num_workers=2)
    assert digest_of(loader, 2) == local
    assert server.sent - before < 10_000  # pack.json and no picture
    counts = loader.stats()["remote"]
    assert counts["misses"] == 0 and counts["hits"] == 46 and counts["waited_s"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ["torch", "permute", "blocks"])
def test_a_cache_at_its_bound(pack: Path, server: ObjectServer, tmp_path: Path, order: str) -> None:
    """Kills: room that is counted and not given back; data that are dropped while they are needed."""
    options: dict[str, Any] = {"order": order, "num_workers": 1}
    if order == "blocks":
        options |= {"block_bytes": 200_000, "window_bytes": 500_000}
    local = digest(ShardDataset(pack, RECIPE), epochs=3, **options)
    bound = 1_500_000
    assert sum(path.stat().st_size for path in pack.glob("*.tar")) > 2 * bound / 3
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache", cache_bytes=bound)
    loader = DataLoader(dataset, 4, shuffle=True, return_info=True, **options)
    most = 0
    found = hashlib.sha256()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        for views, labels, info in loader:
            for tensor in (*views, labels, info["records"]):
                found.update(tensor.numpy().tobytes())
            with dataset.pack.remote.cache.locked():
                most = max(most, used_bytes(tmp_path / "cache"))
    assert found.hexdigest() == local
    assert 0 < most <= bound


def test_a_bound_that_is_lowered(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Also where the count of the folder is nonsense. Kills: a bound that is kept by the next fetch alone."""
    cache = tmp_path / "cache"
    digest(ShardDataset(server.url + "pack", RECIPE, cache=cache))
    assert used_bytes(cache) > 1_200_000
    (cache / "used").write_bytes((0).to_bytes(8, "little") + (10**15).to_bytes(8, "little"))
    caches.Cache._known.pop(cache)  # as another process opens it
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=cache, cache_bytes=1_100_000)
    assert 0 < used_bytes(cache) <= 1_100_000
    assert digest(dataset) == digest(ShardDataset(pack, RECIPE))


def test_a_window_beyond_half_of_the_cache(server: ObjectServer, tmp_path: Path) -> None:
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path, cache_bytes="2MB")
    with pytest.raises(ValueError, match="more than half of the cache"):
        next(iter(DataLoader(dataset, 4, shuffle=True, order="blocks", block_bytes=200_000, window_bytes=1_200_000)))


def test_single_samples(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    local, dataset = ShardDataset(pack, RECIPE), ShardDataset(server.url + "pack", RECIPE, cache=tmp_path)
    assert dataset.read(5) == local.read(5)
    assert dataset.id_of(7) == local.id_of(7) and dataset.metadata(7) == local.metadata(7)
    for mine, theirs in zip(dataset.sample(11), local.sample(11)):
        assert torch.equal(mine, theirs)
    dataset.set_epoch(2), local.set_epoch(2)
    assert torch.equal(dataset.as_map()[3][0][0], local.as_map()[3][0][0])
    assert repr(dataset.pack).startswith(f"Pack('{server.url}pack/'")


def test_several_packs(pack: Path, tiny: Path, server: ObjectServer, tmp_path: Path) -> None:
    """A pack in a directory and one on a server as one dataset."""
    small = recipes.mocov2(size=8)
    there = ShardDataset(server.url + "pack", small, cache=tmp_path)
    mixed, local = (ConcatDataset([ShardDataset(tiny, small), one]) for one in (there, ShardDataset(pack, small)))
    for mine, theirs in zip(DataLoader(mixed, 8, shuffle=True), DataLoader(local, 8, shuffle=True)):
        assert _equal(mine, theirs)


def test_companions(companion_packs: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = recipes.genview(size=16)
    originals, others = companion_packs
    with serving(originals.parent) as server:
        remote = ShardDataset(server.url + "a", recipe, companions=server.url + "b", cache=tmp_path)
        local = ShardDataset(originals, recipe, companions=others)
        for mine, theirs in zip(DataLoader(remote, 4, shuffle=True), DataLoader(local, 4, shuffle=True)):
            assert _equal(mine, theirs)


def test_heatmaps(heatmap_packs: tuple[Path, Path], tmp_path: Path) -> None:
    """Kills: a heatmap that is read before it is there."""
    recipe = WITH_HEATMAPS
    pictures, heatmaps = heatmap_packs
    local = ShardDataset(pictures, recipe, heatmaps=heatmaps)
    with serving(tmp_path / "served") as server:
        for path, name in ((pictures, "pictures"), (heatmaps, "heatmaps")):
            shutil.copytree(path, tmp_path / "served" / name)
        for there in (server.url + "pictures", pictures):  # also heatmaps alone in a store
            cache = {"cache": tmp_path / "cache"} if there is not pictures else {}
            beside = Pack(server.url + "heatmaps", cache=tmp_path / "cache")
            dataset = ShardDataset(there, recipe, heatmaps=beside, **cache)
            for mine, theirs in zip(DataLoader(dataset, 4, shuffle=True), DataLoader(local, 4, shuffle=True)):
                assert _equal(mine, theirs)


def test_removals_come_with_the_next_epoch(pack: Path, tmp_path: Path) -> None:
    shutil.copytree(pack, tmp_path / "served" / "pack")
    with serving(tmp_path / "served") as server:
        dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
        loader = DataLoader(dataset, 4, shuffle=True)
        assert len([*loader]) == 6 and len(dataset) == 23
        remove(tmp_path / "served" / "pack", [dataset.id_of(3), dataset.id_of(4), dataset.id_of(5)], reason="asked")
        assert len(dataset) == 23
        assert len([*loader]) == 5 and len(dataset) == 20


@pytest.mark.slow
def test_another_pack_under_the_same_name(pack: Path, tiny: Path, tmp_path: Path) -> None:
    """Kills: blocks of the old pack under the new one's name."""
    small = recipes.mocov2(size=8)
    place = tmp_path / "served" / "pack"
    shutil.copytree(pack, place)
    with serving(tmp_path / "served") as server:
        dataset = ShardDataset(server.url + "pack", small, cache=tmp_path / "cache")
        digest(dataset)
        shutil.rmtree(place)
        shutil.copytree(tiny, place)
        with pytest.raises(PackError, match="is another pack than the one that was opened"):
            digest(dataset)
        assert digest(ShardDataset(server.url + "pack", small, cache=tmp_path / "cache")) == digest(
            ShardDataset(tiny, small)
        )


def test_a_damaged_object_is_fetched_again_and_then_an_error(pack: Path, tmp_path: Path) -> None:
    """Kills: an error at the first wrong CRC; a bad record that `on_error` would silently replace."""
    shutil.copytree(pack, tmp_path / "served" / "pack")
    flip_a_bit(Pack(tmp_path / "served" / "pack"), 6)
    with serving(tmp_path / "served") as server:
        dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
        loader = DataLoader(dataset, 23, shuffle=True, on_error="replace")
        with pytest.raises(ShardError, match=r"record 6, .* was fetched twice, and its bytes have the CRC32C"):
            next(iter(loader))
        with pytest.raises(ShardError, match="was fetched twice"):
            dataset.read(6)
        assert dataset.read(5) == ShardDataset(pack, RECIPE).read(5)


@pytest.mark.slow
def test_what_is_damaged_in_the_cache_is_fetched_again(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Power loss: blocks that are marked as there, and empty."""
    url = server.url + "pack"
    first = ShardDataset(url, RECIPE, cache=tmp_path)
    local = digest(first)
    for path in tmp_path.rglob("*.tar"):
        size = path.stat().st_size
        os.truncate(path, 0)
        os.truncate(path, size)
    assert digest(ShardDataset(url, RECIPE, cache=tmp_path)) == local
    for path in tmp_path.rglob("*.tar"):
        size = path.stat().st_size
        os.truncate(path, size // 2)
        os.truncate(path, size)
    assert ShardDataset(url, RECIPE, cache=tmp_path).read(20) == ShardDataset(pack, RECIPE).read(20)


@pytest.mark.slow
def test_faults(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 answers that are refused, cut, short, wrong, late: the batches are those of a local pack."""
    monkeypatch.setattr("pass_loader.remote.store._FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr("pass_loader.remote.store.ATTEMPTS", 40)
    small = recipes.mocov2(size=8)
    local = digest(ShardDataset(tiny, small), epochs=2)
    faults, seed = 0, 0
    options = {"timeout": "300ms", "connect_timeout": "5s"}
    with serving(tiny.parent) as server:
        server.faults = 0.3
        while faults < trials(200, 2000):
            server.drawn.seed(seed)
            seed += 1
            kinds = [kind for kind in FAULTS if kind != "wrong"]
            server.kinds = [*4 * [kind for kind in kinds if kind != "stall"], "stall"]  # which takes time
            dataset = ShardDataset(server.url + "pack", small, cache=tmp_path / str(seed), storage_options=options)
            assert digest(dataset, epochs=2, num_workers=seed % 3) == local
            faults = sum(server.faulty.values())
    assert len(server.faulty) >= len(kinds)


def test_wrong_bodies(tiny: Path, tmp_path: Path) -> None:
    """A body with other bytes than the pack's: metadata is refused or fetched again, records are fetched again."""
    small = recipes.mocov2(size=8)
    local = digest(ShardDataset(tiny, small))
    with serving(tiny.parent) as server:
        dataset = ShardDataset(server.url + "pack", small, cache=tmp_path)
        server.kinds, server.faults = ["wrong"], 0.2
        server.drawn.seed(3)
        for _ in range(20):
            try:
                assert digest(dataset) == local
                break
            except (PackError, ShardError) as error:  # twice in a row
                assert re.search("was fetched twice|damaged|is not the file", str(error))
        else:
            raise AssertionError("never")
        assert server.faulty["wrong"]


def test_a_server_that_is_gone(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pass_loader.remote.store._FIRST_PAUSE_S", 0.001)
    with serving(pack.parent) as server:
        url = server.url
        dataset = ShardDataset(url + "pack", RECIPE, cache=tmp_path)
        with pytest.raises(PackError, match=r"is not a pack: it has no pack.json"):
            Pack(url + "none", cache=tmp_path)
        dataset.read(0)
    with pytest.raises(ShardError, match=r"record 22, id .*could not be read or written in 7 attempts, the last one"):
        dataset.read(22)
    with pytest.raises(PackError, match="could not be read"):
        Pack(url + "pack", cache=tmp_path)


def child(out: Connection, url: str, cache: Path, bound: int, epochs: int) -> None:
    dataset = ShardDataset(url, recipes.mocov2(size=8), cache=cache, cache_bytes=bound)
    out.send("opened")
    out.send(digest(dataset, epochs=epochs))


def started(*arguments: object) -> tuple[Any, Connection]:
    """Start `child` in a process; returns it and what it says."""
    context = ready()
    said, out = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(out, *arguments))
    process.start()
    out.close()
    return process, said


@pytest.mark.slow
def test_killed_loaders_leave_nothing(pack: Path, tmp_path: Path) -> None:
    """kill -9 at any time while two share the cache: who comes after finds every sample, and the bound is kept."""
    bound, cache = 1_300_000, tmp_path / "cache"
    local = digest(ShardDataset(pack, recipes.mocov2(size=8)), epochs=2)
    drawn = np.random.default_rng(0)
    with serving(pack.parent) as server:
        server.delay_s = 0.002
        for _ in range(trials(1, 100)):
            jobs = [started(server.url + "pack", cache, bound, 50) for _ in range(2)]
            for _, said in jobs:
                assert said.recv() == "opened"
            time.sleep(drawn.uniform(0.0, 0.3))
            for job, said in jobs:
                job.kill()
                job.join()
                assert job.exitcode == -signal.SIGKILL
                said.close()
        jobs = [started(server.url + "pack", cache, bound, 2) for _ in range(2)]  # two jobs on one cache
        for job, said in jobs:
            assert said.poll(100) and said.recv() == "opened" and said.poll(100) and said.recv() == local
            job.join()
            assert job.exitcode == 0
        assert 0 < used_bytes(cache) <= bound
        found = caches.Cache(cache, bound)
        with found.locked():
            assert int(found._used[1]) == found._counted()


@pytest.mark.slow
def test_a_full_disk(pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: an error where room can be made; a unit that is marked as there and was never written."""
    room = 800_000
    write = caches.Blocks.write

    def limited(blocks: caches.Blocks, first: int, pieces: Any) -> None:
        if used_bytes(tmp_path) + sum(map(len, pieces)) > room:
            raise OSError(28, "No space left on device")
        write(blocks, first, pieces)

    monkeypatch.setattr(caches.Blocks, "write", limited)
    monkeypatch.setattr("pass_loader.remote.fetcher._STUCK_S", 120.0)
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path)
    assert digest(dataset, epochs=2) == digest(ShardDataset(pack, RECIPE), epochs=2)
    assert dataset.pack.remote.cache.full > 0
    room = 0
    monkeypatch.setattr("pass_loader.remote.fetcher._STUCK_S", 0.3)
    with pytest.raises(ShardError, match="no room for the samples of one batch"):
        digest(dataset)


@pytest.mark.slow
def test_small_units_of_large_packs_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a request for each record where neighbours are needed too."""
    files = {f"{number:03d}.jpg": jpeg(noise(90, 90, number)) for number in range(400)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "served" / "pack", workers=1)
    small = recipes.mocov2(size=8)
    with serving(tmp_path / "served") as server:
        dataset = ShardDataset(server.url + "pack", small, cache=tmp_path / "cache")
        local = ShardDataset(tmp_path / "served" / "pack", small)
        assert digest(dataset) == digest(local)
        ranges = [wanted for path, wanted in server.log if path.endswith(".tar")]
        assert 3 <= len(ranges) < 300, "of 400 records"
        sizes = [int(end) - int(begin) + 1 for begin, end in (wanted[6:].split("-") for wanted in ranges)]
        assert max(sizes) >= 8 * caches.UNIT


@pytest.mark.slow
def test_a_shard_that_is_deleted_from_the_cache(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Also between two batches. Kills: an error without a way out; bytes of the file that is no more."""
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
    local = digest(ShardDataset(pack, RECIPE), epochs=2)
    loader = DataLoader(dataset, 4, shuffle=True, return_info=True, num_workers=2)
    found = hashlib.sha256()
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for views, labels, info in loader:
            for tensor in (*views, labels, info["records"]):
                found.update(tensor.numpy().tobytes())
            for path in (tmp_path / "cache").rglob("*.tar"):
                path.unlink()
    assert found.hexdigest() == local
    for path in (tmp_path / "cache").rglob("*.tar"):
        path.unlink()
    assert dataset.read(3) == ShardDataset(pack, RECIPE).read(3)
    cache = dataset.pack.remote.cache
    with cache.locked():
        assert int(cache._used[1]) == cache._counted()


@pytest.mark.slow
def test_a_long_queue(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Kills: a thread that goes round and round in the queue while another one's units are on their way, and keeps the
    lock that who lets go of samples waits for, with the cache's."""
    opened = Pack(server.url + "pack", cache=tmp_path / "cache")
    used = opened.coming([22])
    used.wait(30)
    server.delay_s = 0.2
    coming = [opened.coming([0] * 20_000), opened.coming(range(23))]
    letting_go = threading.Thread(target=used.done, args=(True,), daemon=True)
    letting_go.start()
    letting_go.join(30)
    assert not letting_go.is_alive()
    for one in coming:
        one.wait(30)
        one.done(used=True)


def test_a_cache_that_is_deleted_while_it_is_used(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Kills: a raw FileNotFoundError; a change that was cut off, and is counted anew in a folder that is gone."""
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
    dataset.read(0)
    remote = dataset.pack.remote
    assert remote is not None
    shutil.rmtree(tmp_path / "cache")
    remote.cache._used[0] = 1
    name = dataset.pack.shards[0]["tar"]
    [blocks] = (found for path, found in remote.cache.blocks.items() if path.name == name)
    with pytest.raises(StoreError, match="was deleted while it was in use: start the job again"):
        remote.fetcher.until_room(lambda: remote.fetcher.fetch_now(Piece(blocks, name, 0, 1)))
