"""Packs in Azure's store, by Azurite, and in Google's, by a stand-in of ours: made, changed, read as in a directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pass_loader import PackError, ShardDataset
from pass_loader.pack import Pack, build, combine, convert, export, merge, plan, purge, remove, restore, shard, verify
from pass_loader.pack.export import FORMATS
from pass_loader.remote import writing
from pass_loader.remote.address import Address
from pass_loader.remote.store import Changed
from pass_loader.remote.writing import WritableStore

from ..helpers.azurite import CONTAINER, PROGRAM, azurite_serving
from ..helpers.packs import sources_of
from ..helpers.remote import RECIPE, digest, written_once
from ..helpers.s3_server import BUCKET, s3_serving
from ..helpers.sealing import undated
from ..helpers.trees import contents, tree

pytestmark = pytest.mark.slow
PACKING: dict[str, Any] = {"shard_bytes": 4100, "task_bytes": 9000, "on_duplicate": "first"}
needs_azurite = pytest.mark.skipif(PROGRAM is None, reason="azurite-blob is not installed: `make azure` brings it")


class Place(NamedTuple):
    """A store: the URL of an empty bucket or container, and obstore's options."""

    url: str
    options: dict[str, Any]


@pytest.fixture(scope="module", params=[pytest.param("az", marks=needs_azurite), "gs"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "az":
        with azurite_serving() as options:
            yield Place(f"az://{CONTAINER}", options)
    else:
        with s3_serving() as server:
            server.google = True
            yield Place(f"gs://{BUCKET}", server.google_options)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of more than 3,000 bytes are sent in parts."""
    monkeypatch.setattr(writing, "PART_BYTES", 3000)


def files_in(place: Place, prefix: str, cache: Path) -> dict[str, bytes]:
    """Return the objects below a prefix."""
    store = WritableStore(Address.of(f"{place.url}/{prefix}", cache, None, place.options))
    return {name: store.read(name)[0] for name in store.sizes()}


def test_a_pack(place: Place, tmp_path: Path) -> None:
    """Built, changed, purged and read: the files of a directory."""
    sources, out = sources_of(tmp_path), f"{place.url}/packs/p"
    how = {**PACKING, "metadata": tmp_path / "m.csv"}
    report = build(sources, tmp_path / "pack", **how)
    assert build(sources, out, storage_options=place.options, **how) == report
    assert build(sources, out, storage_options=place.options, **how) == report, "it is finished"
    assert files_in(place, "packs/p", tmp_path) == tree(tmp_path / "pack") | {
        "finished": (tmp_path / "pack" / "finished").read_bytes()
    }
    pack = Pack(out, cache=tmp_path / "cache", storage_options=place.options)
    dataset = ShardDataset(pack, RECIPE)
    assert digest(dataset) == digest(ShardDataset(tmp_path / "pack", RECIPE))
    ids = pack.all_ids().to_pylist()
    for changed in (tmp_path / "pack", pack):
        remove(changed, ids[1:6], reason="asked")
        restore(changed, ids[2:3], reason="the wrong one")
        purge(changed)
        remove(changed, ids[8:9], reason="asked")
        with pytest.raises(PackError, match="were purged and cannot be restored"):
            restore(changed, ids[1:2], reason="x")
    found, want = files_in(place, "packs/p", tmp_path), contents(tmp_path / "pack")
    assert found.pop("finished") and undated(found) == undated(want)
    assert verify(Pack(out, cache=tmp_path / "other", storage_options=place.options)) == []


def test_tasks_and_other_commands(place: Place, tmp_path: Path) -> None:
    """Tasks twice at a time; convert, combine and export into the store and out of it."""
    sources, out = sources_of(tmp_path), f"{place.url}/packs/t"
    build(sources, tmp_path / "pack", **PACKING)
    count = plan(sources, out, storage_options=place.options, **PACKING)
    threads = [threading.Thread(target=shard, args=(out, number % count), kwargs={"storage_options": place.options})
               for number in range(2 * count)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    merge(out, storage_options=place.options)
    assert files_in(place, "packs/t", tmp_path) == {
        path.name: path.read_bytes() for path in (tmp_path / "pack").iterdir()
    }
    pack = Pack(out, cache=tmp_path / "cache", storage_options=place.options)
    assert convert(pack, f"{place.url}/dct", "dct", storage_options=place.options) == convert(
        tmp_path / "pack", tmp_path / "dct", "dct"
    )
    combine([pack, pack], f"{place.url}/all", prefixes=["a", "b"], storage_options=place.options)
    combine([tmp_path / "pack"] * 2, tmp_path / "all", prefixes=["a", "b"])
    for name in ("dct", "all"):
        found, want = files_in(place, name, tmp_path), contents(tmp_path / name)
        del found["finished"], found["pack.json"], want["pack.json"]  # it names the packs
        assert found == want
    for format in FORMATS:
        want = export(tmp_path / "pack", tmp_path / format, format, shard_bytes=4000)
        assert (
            export(pack, f"{place.url}/out/{format}", format, shard_bytes=4000, storage_options=place.options) == want
        )
        assert files_in(place, f"out/{format}", tmp_path) == tree(tmp_path / format)
    assert sorted(files_in(place, "out", tmp_path)) == sorted(
        f"{format}/{name}" for format in FORMATS for name in tree(tmp_path / format)
    )


def test_conditional_writes(place: Place, tmp_path: Path) -> None:
    """Kills: a write over what somebody else has written."""
    store = WritableStore(Address.of(f"{place.url}/w", tmp_path, None, place.options))
    first = written_once(store)
    large = tmp_path / "large"
    large.write_bytes(bytes(10_000))
    store.upload(large, "large", "large.tmp")
    store.upload(large, "large", "large.tmp")
    with pytest.raises(Changed):
        store.upload(large, "a", "a.tmp")
    assert store.sizes() == {"a": 1, "large": 10_000} and store.read("a")[0] == b"2"
    store.delete("a", "large", "none")
    with pytest.raises(Changed):
        store.write("a", b"3", first)
    assert store.sizes() == {}
