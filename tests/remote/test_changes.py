"""remove, restore and purge of packs in stores: what a directory would have, whoever changes them at the same time."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pass_loader import DataLoader, PackError, ShardDataset
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, changes, purge, remove, restore, verify
from pass_loader.pack.layout import PURGING
from pass_loader.remote import store, writing
from pass_loader.remote.cache import Cache
from pass_loader.remote.store import StoreError

from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import ObjectServer
from ..helpers.remote import RECIPE
from ..helpers.s3_server import S3Server, s3_serving
from ..helpers.sealing import make_old, undated
from ..helpers.trees import contents, write_tree
from ..helpers.trials import trials

PREFIX = "packs/p/"
URL = f"s3://bucket/{PREFIX}"
GONE = [f"id{i}" for i in (0, 3, 4, 5, 8)]  # of 10 records in shards of 2: a part of one, the whole of one


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures in five shards, each with a creator of its own. Tests do not change it."""
    root = tmp_path_factory.mktemp("small")
    files = {f"id{i}.jpg": jpeg(noise(16, 16, i)) for i in range(10)}
    (root / "m.csv").write_text("hash,unickname\n" + "".join(f"id{i},creator-{i}\n" for i in range(10)))
    options = {"metadata": root / "m.csv", "shard_bytes": 4100, "entry_points": True}
    build([write_tree(root / "in", files)], root / "pack", workers=1, **options)
    assert len(Pack(root / "pack").shards) == 5
    return root / "pack"


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "copy"))


@pytest.fixture
def s3(small: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A store that holds the pack. Pauses are short."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(changes, "_PAUSE_S", 0.005)
    with s3_serving() as server:
        server.put_folder(small, PREFIX)
        yield server


def opened(server: S3Server, cache: Path) -> Pack:
    return Pack(URL, cache=cache, storage_options=server.options)


def files_in(server: S3Server) -> dict[str, bytes]:
    return {name: content for name, content in server.below(PREFIX).items() if name != "finished"}


def live(pack: Pack) -> list[str]:
    return pack.ids(np.setdiff1d(np.arange(pack.records), pack.removed))


def test_as_in_a_directory(s3: S3Server, copy: Path, tmp_path: Path) -> None:
    """Kills: an order of lines, a count, a check or a name that differs."""
    pack = opened(s3, tmp_path / "cache")
    for place in (copy, pack):
        done = remove(place, GONE, reason="asked")
        assert [*done.changed] == GONE
        assert restore(place, ["id5"], reason="the wrong one").changed == {"id5": 5}
        again = remove(place, ["id0", "id1", "nobody"], reason="again", ignore_unknown=True)
        assert (again.unchanged, [*again.changed], again.unknown) == (["id0"], ["id1"], ["nobody"])
    assert undated(files_in(s3)) == undated(contents(copy))
    assert len(pack) == 10, "what is open changes at `refresh`"
    assert pack.refresh() and len(pack) == 5
    told: list[int] = []
    assert str(purge(pack, progress=told.append)) == str(purge(copy)) and sum(told)
    assert undated(files_in(s3)) == undated(contents(copy))
    assert str(purge(pack)) == str(purge(copy))
    assert undated(files_in(s3)) == undated(contents(copy))
    with pytest.raises(PackError, match="were purged and cannot be restored: id0"):
        restore(pack, ["id0"], reason="x")
    assert verify(opened(s3, tmp_path / "other")) == []


def test_a_pack_without_checks_is_sealed(s3: S3Server, copy: Path, tmp_path: Path) -> None:
    make_old(copy)
    s3.objects.clear()
    s3.put_folder(copy, PREFIX)
    pack = opened(s3, tmp_path / "cache")
    for place in (copy, pack):
        remove(place, GONE, reason="asked")
    assert undated(files_in(s3)) == undated(contents(copy))


def test_errors_change_nothing(s3: S3Server, tmp_path: Path) -> None:
    before, pack = dict(s3.objects), opened(s3, tmp_path / "cache")
    with pytest.raises(PackError, match="no record with these ids: nobody; nothing was removed"):
        remove(pack, ["id3", "nobody"], reason="x")
    assert s3.objects == before


def test_stores_that_cannot(s3: S3Server, server: ObjectServer, tmp_path: Path) -> None:
    """Kills: a store that ignores conditions, taken for one that has them."""
    for change in (lambda pack: remove(pack, ["id3"], reason="x"), purge):
        with pytest.raises(PackError, match="can only be read: change the pack where it was made"):
            change(Pack(server.url + "pack", cache=tmp_path / "cache"))
        before = dict(s3.objects)
        s3.conditions = False
        with pytest.raises(StoreError, match="has no conditional writes.*publish it anew"):
            change(opened(s3, tmp_path / "cache"))
        s3.conditions = True
        assert s3.objects == before


@pytest.mark.parametrize("name", ["removed.jsonl", "pack.json"])
def test_a_lost_race(s3: S3Server, tmp_path: Path, name: str) -> None:
    """Somebody else removes just before our write. Kills: a line that is lost, or counted and not there."""
    pack, seen = opened(s3, tmp_path / "cache"), 0

    def before(method: str, key: str) -> None:
        nonlocal seen
        if key != PREFIX + name or method != "PUT":
            return
        seen += 1
        if seen == (1 if name == "removed.jsonl" else 2):  # the first write of pack.json proves conditions
            remove(opened(s3, tmp_path / "other"), ["id3", "id7"], reason="theirs")

    s3.before = before
    done = remove(pack, ["id3", "id4"], reason="ours")
    assert [*done.changed] == (["id4"] if name == "removed.jsonl" else ["id3", "id4"])
    after = opened(s3, tmp_path / "cache")
    assert sorted({f"id{i}" for i in range(10)} - {*live(after)}) == ["id3", "id4", "id7"]
    assert after.manifest["removed"]["lines"] == files_in(s3)["removed.jsonl"].count(b"\n")


@pytest.mark.parametrize("name", ["removed.jsonl", "pack.json"])
def test_a_lost_answer(s3: S3Server, tmp_path: Path, name: str) -> None:
    """The write was done. Kills: it is taken for somebody else's, and nothing said to be removed."""
    s3.lose = {PREFIX + name}
    assert remove(opened(s3, tmp_path / "cache"), ["id3"], reason="x").changed == {"id3": 3}
    assert not s3.lose and files_in(s3)["removed.jsonl"].count(b"\n") == 1


@pytest.mark.slow
def test_many_at_a_time(s3: S3Server, tmp_path: Path) -> None:
    """Requests fail, and answers are lost. Kills: a write that was done, done again; one that was undone by another."""
    s3.faults = 0.15
    packs = [opened(s3, tmp_path / "cache") for _ in range(5)]
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for record in (number, number + 5):
                remove(packs[number], [f"id{record}"], reason="x")
            restore(packs[number], [f"id{number}"], reason="y")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and s3.faulty["lost"] > 3
    s3.faults = 0
    after = opened(s3, tmp_path / "other")
    assert live(after) == [f"id{i}" for i in range(5)]
    lines = [json.loads(line) for line in files_in(s3)["removed.jsonl"].splitlines()]
    assert sorted((line["id"], "restored" in line) for line in lines) == sorted(
        [(f"id{i}", False) for i in range(10)] + [(f"id{i}", True) for i in range(5)]
    )
    assert after.manifest["removed"]["lines"] == 15 and verify(after) == []


def test_loaders_and_caches(s3: S3Server, small: Path, tmp_path: Path) -> None:
    """The next epoch has no removed record; after a purge its start drops what the cache has of the old shards."""
    cache = tmp_path / "cache"
    dataset = ShardDataset(URL, RECIPE, cache=cache, storage_options=s3.options)
    loader = DataLoader(dataset, 2, return_info=True, num_workers=1)

    def served() -> list[int]:
        return [int(record) for *_, info in loader for record in info["records"]]

    assert served() == [*range(10)]
    secret = Pack(small).reopened().open_reader().read(3)
    other = tmp_path / "other"
    remove(opened(s3, other), GONE, reason="x")
    held = [path for path in cache.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert len(held) == 1
    assert served() == [1, 2, 6, 7, 9]
    purge(opened(s3, other))
    assert served() == [1, 2, 6, 7, 9]
    for content in [path.read_bytes() for path in cache.rglob("*") if path.is_file()] + [*s3.objects.values()]:
        assert secret not in content
    assert dataset.metadata(6)["unickname"] == "creator-6"
    assert not [path for path in cache.rglob("*.parquet") if "creator-3" in str(pq.read_table(path))]


def sees_a_good_pack(server: S3Server, cache: Path) -> None:
    """What a reader finds now is whole, and serves what it should."""
    found = opened(server, cache)
    assert live(found) == [f"id{i}" for i in (1, 2, 6, 7, 9)]
    assert [str(problem) for problem in verify(found)] == []


@pytest.mark.slow
@pytest.mark.parametrize("parts", [False, True], ids=["whole", "in-parts"])
def test_purge_killed_anywhere(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool) -> None:
    """The store as it is after each change of a purge, killed there: a good pack, which the next purge finishes.

    Kills: old shards deleted before pack.json is exchanged; pack.json before the new ones are there; a leftover.
    """
    if parts:
        monkeypatch.setattr(writing, "PART_BYTES", 1500)
    remove(opened(s3, tmp_path / "c"), GONE, reason="x")
    history = s3.remember()
    purge(opened(s3, tmp_path / "c"))
    states, done = [*history], undated(files_in(s3))
    s3.history = None
    assert PURGING not in done and len(states) > (20 if parts else 15)
    for number, state in [*enumerate(states)][:: trials(5 if parts else 3, 1)]:
        s3.objects = dict(state)
        Cache._known.clear()
        cache = tmp_path / str(number)
        sees_a_good_pack(s3, cache)
        purge(opened(s3, cache))
        assert PURGING not in files_in(s3)
        manifest = json.loads(files_in(s3)["pack.json"])
        named = {shard[kind] for shard in manifest["shards"] for kind in ("tar", "table")} | {manifest["index"]}
        assert files_in(s3).keys() == named | {"pack.json", "removed.jsonl", "points.arrow"}, number
        assert files_in(s3)["points.arrow"] == done["points.arrow"]
        sees_a_good_pack(s3, cache)
        lines = [json.loads(line) for line in files_in(s3)["removed.jsonl"].splitlines()]
        assert sorted(line["id"] for line in lines if line.get("purged")) == sorted(GONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [PURGING, "shard-00001-r1.tar", "index-r1.arrow", "pack.json"])
def test_two_purges_at_a_time(s3: S3Server, tmp_path: Path, name: str) -> None:
    """One begins and ends while the other is at some step. Kills: objects of one deleted by the other."""
    remove(opened(s3, tmp_path / "c"), GONE, reason="x")
    begun = False

    def before(method: str, key: str) -> None:
        nonlocal begun
        if key == PREFIX + name and not begun and (name != "pack.json" or PREFIX + "index-r1.arrow" in s3.objects):
            begun = True
            purge(opened(s3, tmp_path / "other"))

    s3.before = before
    try:
        purge(opened(s3, tmp_path / "c"))
    except PackError as error:
        assert "another purge has begun since" in str(error)
    s3.before = None
    assert begun
    sees_a_good_pack(s3, tmp_path / "c")
    purge(opened(s3, tmp_path / "c"))
    manifest = json.loads(files_in(s3)["pack.json"])
    named = {shard[kind] for shard in manifest["shards"] for kind in ("tar", "table")} | {manifest["index"]}
    assert files_in(s3).keys() == named | {"pack.json", "removed.jsonl", "points.arrow"}


def test_removed_and_restored_while_a_purge_runs(s3: S3Server, tmp_path: Path) -> None:
    """Kills: a restored record that is purged; a removal that the new pack.json does not count."""
    remove(opened(s3, tmp_path / "c"), GONE, reason="x")
    todo: list[Any] = [
        lambda pack: remove(pack, ["id9"], reason="meanwhile"),
        lambda pack: restore(pack, ["id4"], reason="meanwhile"),
    ]

    def before(method: str, key: str) -> None:
        if key == PREFIX + "pack.json" and PREFIX + PURGING in s3.objects and todo:
            todo.pop(0)(opened(s3, tmp_path / "other"))

    s3.before = before
    assert purge(opened(s3, tmp_path / "c")).records == 5  # with id9, without id4
    assert not todo
    after = opened(s3, tmp_path / "c")
    assert live(after) == [f"id{i}" for i in (1, 2, 4, 6, 7)] and not after.is_purged(4) and after.is_purged(9)
    assert verify(after) == [] and PURGING not in files_in(s3)


@pytest.mark.slow
def test_purges_of_a_store_that_fails(s3: S3Server, copy: Path, tmp_path: Path) -> None:
    """Refusals, cut connections and lost answers: in the end what a directory would have."""
    remove(copy, GONE, reason="x")
    purge(copy)
    start = dict(s3.objects)
    for seed in range(trials(4, 60)):
        s3.objects, s3.faults = dict(start), 0.2
        s3.drawn.seed(seed)
        Cache._known.clear()
        pack = opened(s3, tmp_path / str(seed))
        remove(pack, GONE, reason="x")
        purge(pack)
        s3.faults = 0
        assert undated(files_in(s3)) == undated(contents(copy)), seed
    assert s3.faulty["lost"] > 4


def test_commands(
    s3: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    cache = ["--cache", str(tmp_path / "cache")]
    assert main(["remove", URL, "id0", "id3", "--reason", "x", *cache]) == 0
    assert f"{URL}: removed 2 records" in capsys.readouterr().out
    assert main(["restore", URL, "id3", "--reason", "y", *cache]) == 0
    assert main(["purge", URL, *cache]) == 0
    assert f"{URL}: purged 1 records" in capsys.readouterr().out
    table = tmp_path / "t.csv"
    table.write_text("hash\n" + "".join(f"id{i}\n" for i in range(1, 9)))
    assert main(["diff", URL, str(table), *cache]) == 0
    assert capsys.readouterr().out == "id9\n"
    assert len(opened(s3, tmp_path / "other")) == 9
