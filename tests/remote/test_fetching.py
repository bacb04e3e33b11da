"""What is asked of a store, when and how much at a time, and what the loader tells of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pass_loader import DataLoader, ShardDataset, ShardError
from pass_loader.data.fetching import Fetching
from pass_loader.loading import statistics
from pass_loader.loading.iteration import Meter
from pass_loader.pack import Pack, build
from pass_loader.remote import fetcher
from pass_loader.remote.cache import ABSENT, KEPT, UNIT, USED, Blocks
from pass_loader.remote.fetcher import Awaited
from pass_loader.remote.owners import are_reserved
from pass_loader.remote.store import Changed, StoreError

from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import ObjectServer, serving
from ..helpers.remote import RECIPE
from ..helpers.trees import write_tree


def ranges_of(server: ObjectServer) -> list[tuple[int, int]]:
    """Return the ranges of shards that were asked for since the last call, in turn."""
    found = [wanted[6:].split("-") for path, wanted in server.log if path.endswith(".tar")]
    server.log.clear()
    return [(int(begin), int(end) + 1) for begin, end in found]


def test_the_first_batches_come_record_by_record(tmp_path: Path) -> None:
    """And later ones with their neighbours. Kills: a first batch that waits for a window."""
    files = {f"{number:03d}.jpg": jpeg(noise(90, 90, number)) for number in range(48)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "served" / "pack", workers=1)
    with serving(tmp_path / "served") as server:
        pack = Pack(server.url + "pack", cache=tmp_path / "cache")
        largest = []
        for first in range(0, 48, 8):
            coming = pack.coming(range(first, first + 8))
            assert coming is not None
            coming.wait(30)
            largest.append(max(end - begin for begin, end in ranges_of(server)))
            coming.done(used=True)
    length = max(map(len, files.values()))
    assert length < UNIT and max(largest[:4]) <= 2 * UNIT, "a record lies in two units at the most"
    assert min(largest[4:]) >= 4 * length


def test_a_slow_store_is_told(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: counts that stay 0; an advice that blames rendering."""
    monkeypatch.setattr(statistics, "FETCHING", 0.01)  # on a machine where all else may take long
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
    server.delay_s = 0.2
    server.sent = 0
    loader = DataLoader(dataset, 4, shuffle=True, num_workers=2)
    assert len([*loader]) == 6
    found = loader.stats()
    assert found["advice"].startswith("storage-bound: ") and "for the store, which sent" in found["advice"], found
    remote = found["remote"]
    assert remote["waited_s"] >= 0.15 and remote["misses"] == 23 and remote["hits"] == 0
    assert remote["bytes"] >= server.sent >= sum(path.stat().st_size for path in pack.glob("*.tar")) * 0.9
    assert f"{remote['bytes']:,} bytes" in found["advice"]


@pytest.mark.parametrize(("waited_s", "advice"), [(0.6, "storage-bound: "), (0.4, "loader-bound: ")])
def test_the_share_of_the_store(waited_s: float, advice: str) -> None:
    """Kills: a store that is blamed for what threads take."""
    meter = Meter(batches=9, waited_s=1.0)
    assert statistics._advice(meter, 1.0, {}, 0, None, {"waited_s": waited_s, "bytes": 7}).startswith(advice)


def test_requests_under_way_are_bounded(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In number and in bytes, as each holds its answer in memory. Kills: one for each record; a whole shard in one;
    bytes of answers that came and count as under way for ever."""
    opened = Pack(server.url + "pack", cache=tmp_path / "cache")
    remote = opened.remote
    assert remote is not None
    monkeypatch.setattr(fetcher, "MOST_THREADS", 3)
    monkeypatch.setattr(fetcher, "BLOCK_UNITS", 8)
    monkeypatch.setattr(fetcher, "HELD_UNITS", 12)
    monkeypatch.setattr(fetcher, "_RECORD_BY_RECORD", 0)
    flying, held, sizes, guard = [0, 0], [0, 0], [0], threading.Lock()
    ask = remote.store.pieces

    def watched(name: str, begin: int, end: int, etag: str | None = None) -> Any:
        with guard:
            sizes.append(end - begin)
            flying[:] = flying[0] + 1, max(flying[1], flying[0] + 1)
            held[:] = held[0] + end - begin, max(held[1], held[0] + end - begin)
        content = ask(name, begin, end, etag)
        with guard:
            flying[0] -= 1
            held[0] -= end - begin
        return content

    monkeypatch.setattr(remote.store, "pieces", watched)
    server.delay_s = 0.03
    coming = [opened.coming([record]) for record in range(23)]
    for one in coming:
        assert one is not None
        one.wait(60)
        one.done(used=True)
    largest = int(opened.column("length").max())
    assert flying[0] == 0 and 2 <= flying[1] <= 3 and max(sizes) <= 8 * UNIT + largest + UNIT
    assert max(sizes) < held[1] < 12 * UNIT + max(sizes)


def test_what_was_put_off_comes_back_to_its_place(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread fetches its first unit. Kills: a batch that waits until all later ones are fetched."""
    opened = Pack(server.url + "pack", cache=tmp_path / "cache")
    remote = opened.remote
    assert remote is not None
    pieces = [remote._piece(place) for place in opened._places_of(np.arange(23))]
    first, behind = next(
        (number, number + 1)
        for number, (one, other) in enumerate(zip(pieces, pieces[1:]))
        if one.name == other.name and one.first < one.end - 1 == other.first < other.end - 1
    )
    ask, begun, put_off = remote.store.pieces, [], threading.Event()

    def slow(name: str, begin: int, end: int, etag: str | None = None) -> Any:
        begun.append((name, begin // UNIT))
        if len(begun) == 2:
            put_off.set()
        assert put_off.wait(30)
        time.sleep(0.02)  # twice as long as it is put off for
        return ask(name, begin, end, etag)

    monkeypatch.setattr(fetcher, "MOST_THREADS", 2)
    monkeypatch.setattr(remote.store, "pieces", slow)
    coming = [opened.coming([first]), opened.coming([behind, *range(first), *range(behind + 1, 23)])]
    for one in coming:
        assert one is not None
        one.wait(30)
        one.done(used=True)
    place = begun.index((pieces[behind].name, pieces[behind].first + 1))
    assert 2 <= place < len(begun) // 2


def test_what_is_late_is_not_written(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process took this one for dead, and its room. Kills: bytes that are written where they do not count."""
    opened = Pack(server.url + "pack", cache=tmp_path / "cache")
    remote = opened.remote
    assert remote is not None
    blocks = remote._blocks(opened.shards[0]["tar"])
    ask, write, seen = remote.store.pieces, Blocks.write, []

    def late(name: str, begin: int, end: int, etag: str | None = None) -> Any:
        content = ask(name, begin, end, etag)
        if not seen:
            with remote.cache.locked():
                blocks.drop(np.flatnonzero(are_reserved(blocks.units))[:1])  # the others are not written either
        seen.append("fetched")
        return content

    def noted(blocks: Blocks, first: int, content: Any) -> None:
        seen.append("written")
        write(blocks, first, content)

    monkeypatch.setattr(remote.store, "pieces", late)
    monkeypatch.setattr(Blocks, "write", noted)
    coming = opened.coming([0])
    assert coming is not None
    coming.wait(30)
    coming.done(used=True)
    assert seen == ["fetched", "fetched", "written"]
    assert opened.open_reader().read(0) == Pack(pack).open_reader().read(0)
    with remote.cache.locked():
        assert int(remote.cache._used[1]) == remote.cache._counted()


def test_what_was_dropped_is_not_there(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Kills: samples that count as there since they were once."""
    opened = Pack(server.url + "pack", cache=tmp_path / "cache")
    assert opened.remote is not None
    coming = opened.coming(range(5))
    assert coming is not None
    coming.wait(30)
    assert coming.ready
    blocks = opened.remote._blocks(opened.shards[0]["tar"])
    with opened.remote.cache.locked():
        blocks.drop(np.flatnonzero(blocks.units)[:1])
    assert not coming.ready
    coming.wait(30)
    assert coming.ready
    coming.done(used=True)


def test_large_answers_do_not_tell_how_far_a_store_is(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: threads as for a store that is far away, since a near one sends megabytes."""
    opened = Pack(server.url + "pack", cache=tmp_path / "cache")
    assert opened.remote is not None
    monkeypatch.setattr("pass_loader.remote.store._SMALL_BYTES", 5000)
    told = opened.remote.store.answered_s
    told.clear()
    for size, answers in ((5001, 0), (5000, 1), (9000, 1)):
        opened.remote.store.range(opened.shards[0]["tar"], 0, size)
        assert len(told) == answers


@pytest.mark.parametrize("known", [False, True])
def test_large_answers_come_in_pieces(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Kills: pieces that are left out, a condition that is not asked for, an answer that is short."""
    opened = Pack(server.url + "pack", cache=tmp_path / "cache")
    assert opened.remote is not None
    store, name = opened.remote.store, opened.shards[0]["tar"]
    whole, etag = (pack / name).read_bytes(), store.about(name).condition if known else None
    for small in (5000, 1 << 20):
        monkeypatch.setattr("pass_loader.remote.store._SMALL_BYTES", small)
        for size in (1, 5000, 5001, len(whole) - 3):
            pieces = store.pieces(name, 3, 3 + size, etag)
            assert b"".join(pieces) == store.range(name, 3, 3 + size, etag) == whole[3 : 3 + size]
            assert (len(pieces) > 1) is (size == len(whole) - 3 > 20 * small)
        with pytest.raises(Changed, match="is shorter than it was"):
            store.pieces(name, 3, len(whole) + 1, etag)
    monkeypatch.setattr("pass_loader.remote.store._SMALL_BYTES", 5000)
    with pytest.raises(Changed, match="was changed by somebody else"):
        store.pieces(name, 0, 9000, '"another"')


def _ready_with_an_error(fetching: Fetching) -> bool:
    until = time.monotonic() + 30
    while not any(coming.errors for *_, coming in fetching._coming if isinstance(coming, Awaited)):
        assert time.monotonic() < until
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("fails", [False, True])
def test_later_batches_are_asked_for_while_the_first_is_waited_for(
    pack: Path, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Kills: a first answer's time in which nothing else is asked for; a batch that is made of what never came."""
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
    remote = dataset.pack.remote
    assert remote is not None
    ask, begun, all_asked = remote.store.pieces, [], threading.Event()
    if fails:
        all_asked.set()

    def held(name: str, begin: int, end: int, etag: str | None = None) -> Any:
        begun.append(begin)
        if len(begun) == 4:  # threads of a store that is near
            all_asked.set()
        assert all_asked.wait(30), "nobody asks for the second batch"
        if fails:
            raise StoreError("away")
        return ask(name, begin, end, etag)

    monkeypatch.setattr(remote.store, "pieces", held)
    loader = DataLoader(dataset, 2, shuffle=True, num_workers=1)
    if fails:
        monkeypatch.setattr(Pack, "mend", lambda *_: pytest.fail("it was rendered"))
        monkeypatch.setattr(Fetching, "ready", property(_ready_with_an_error))
        with pytest.raises(ShardError, match="away"):
            next(iter(loader))
    else:
        assert len([*loader]) == 12


def test_an_epoch_needs_its_own_records_again(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """What was used and is not needed is dropped first; ranks that share the cache add theirs. Kills: all that was used
    in place of it; a unit at a record's end."""
    found = Pack(server.url + "pack", cache=tmp_path / "cache")
    coming = found.coming(range(found.records))
    assert coming is not None
    coming.wait(30)
    coming.done(used=True)
    tables = {number: found.remote._blocks(found._tars[number]) for number in range(len(found.shards))}
    assert all(set(blocks.units.tolist()) <= {ABSENT, USED} for blocks in tables.values())

    def needed(records: list[int]) -> dict[int, set[int]]:
        units: dict[int, set[int]] = {number: set() for number in tables}
        for record in records:
            shard, offset, length = (int(found.column(name)[record]) for name in ("shard", "offset", "length"))
            units[shard] |= {unit for unit in range(99) if offset < (unit + 1) * UNIT and unit * UNIT < offset + length}
        return units

    def kept() -> dict[int, set[int]]:
        return {number: {*np.flatnonzero(blocks.units == KEPT).tolist()} for number, blocks in tables.items()}

    found.begin_epoch(np.array([3, 17]))
    assert kept() == needed([3, 17])
    found.begin_epoch(np.array([4]))
    assert kept() == needed([3, 4, 17])
    found.begin_epoch()
    assert kept() == needed([*range(found.records)])


@pytest.mark.parametrize("how", [{"shuffle": True}, {"shuffle": True, "order": "permute"}, {"shuffle": False}], ids=str)
def test_what_an_epoch_needs_is_what_it_gives(
    pack: Path, server: ObjectServer, tmp_path: Path, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one rank of two, from a place in mid-epoch too, of packs in directories never. Kills: another rank's records;
    those of the epoch before."""
    told: list[np.ndarray | None] = []
    monkeypatch.setattr(Pack, "begin_epoch", lambda _, records=None: told.append(records))
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
    loader = DataLoader(dataset, 4, num_workers=1, rank=1, world_size=2, return_info=True, **how)
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        given = [info["records"].tolist() for *_, info in loader]
        assert sorted(told.pop()) == sorted(record for batch in given for record in batch) and not told
    loader.sampler.set_epoch(2)
    next(iter(loader))
    state = loader.state_dict()
    loader.load_state_dict(state)
    told.clear()
    given = [info["records"].tolist() for *_, info in loader]
    assert sorted(told.pop()) == sorted(record for batch in given for record in batch) and not told
    local = DataLoader(ShardDataset(pack, RECIPE), 4, num_workers=1, **how)
    next(iter(local))
    assert not told
