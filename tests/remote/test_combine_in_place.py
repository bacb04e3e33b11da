"""Packs in stores that become one by reference: read by ranges through the cache, as their copies are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pass_loader import PackError, ShardDataset
from pass_loader.pack import Pack, build, combine, fetch, index, locate, purge, remove, verify
from pass_loader.remote import store

from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import serving
from ..helpers.remote import RECIPE, digest
from ..helpers.s3_server import S3Server, s3_serving
from ..helpers.trees import tar_of, write_tree

JPEGS = [jpeg(noise(40, 40, seed)) for seed in range(12)]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two packs; one picture of the first is in the second too, and one is removed."""
    root = tmp_path_factory.mktemp("packs")
    for name, seeds in (("a", range(6)), ("b", range(6, 12))):
        files = {f"{name}{seed}.jpg": JPEGS[seed] for seed in seeds} | ({"again.jpg": JPEGS[0]} if name == "b" else {})
        build([write_tree(root / f"{name}-in", files)], root / "packs" / name, shard_bytes=9000, workers=1)
    remove(root / "packs" / "a", ["a1"], reason="mail")
    return [root / "packs" / name for name in "ab"]


@pytest.fixture(scope="module")
def copy(packs: list[Path]) -> Path:
    combine(packs, packs[0].parent.with_name("copy"), on_duplicate="first")
    return packs[0].parent.with_name("copy")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pauses are short, and the cache is the test's."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def s3(packs: list[Path]) -> Iterator[S3Server]:
    with s3_serving() as server:
        for pack in packs:
            server.put_folder(pack, f"{pack.name}/")
        yield server


@pytest.mark.slow
def test_in_a_directory_and_in_a_store(packs: list[Path], copy: Path, s3: S3Server, tmp_path: Path) -> None:
    """Kills: a tar that is fetched whole when it is combined; tars of one name that share a place in the cache."""
    opened = [Pack(f"s3://bucket/{pack.name}", cache=tmp_path / "c", storage_options=s3.options) for pack in packs]
    combine(opened, tmp_path / "new", on_duplicate="first", in_place=True)
    combine(opened, "s3://bucket/new", on_duplicate="first", in_place=True, storage_options=s3.options)
    dataset = ShardDataset(tmp_path / "new", RECIPE, cache=tmp_path / "cache", storage_options=s3.options)
    stored = ShardDataset("s3://bucket/new", RECIPE, cache=tmp_path / "cache", storage_options=s3.options)
    for one in (dataset, stored):
        assert one.pack.pack_id == Pack(copy).pack_id and not [name for name in s3.below("new/") if ".tar" in name]
        assert digest(one, 2) == digest(ShardDataset(copy, RECIPE), 2)
        assert verify(one.pack, decode=True) == []
        with pytest.raises(PackError, match="remove and purge them in the packs that this one was combined of"):
            remove(one.pack, ["a2"], reason="mail")
            purge(one.pack)
    assert fetch(stored.pack) == sum(path.stat().st_size for pack in packs for path in pack.glob("*.tar"))
    with pytest.raises(PackError, match="refers to tars in stores, by their URLs"):
        locate(tmp_path / "new", [packs[0]])
    combine([dataset.pack], tmp_path / "chain", in_place=True)
    chain = Pack(tmp_path / "chain", cache=tmp_path / "cache", storage_options=s3.options)
    assert chain.records == 10 and verify(chain) == []


def test_on_a_web_server(packs: list[Path], copy: Path, tmp_path: Path) -> None:
    with serving(packs[0].parent) as web:
        combine([f"{web.url}{pack.name}" for pack in packs], tmp_path / "new", on_duplicate="first", in_place=True)
        dataset = ShardDataset(tmp_path / "new", RECIPE, cache=tmp_path / "cache")
        assert digest(dataset) == digest(ShardDataset(copy, RECIPE)) and verify(dataset.pack) == []


def test_what_is_refused(packs: list[Path], s3: S3Server, tmp_path: Path) -> None:
    stored = Pack("s3://bucket/a", cache=tmp_path / "c", storage_options=s3.options)
    with pytest.raises(PackError, match="some of the packs have their tars in stores.*without --in-place"):
        combine([stored, packs[1]], tmp_path / "new", in_place=True)
    index([tar_of(tmp_path / "t.tar", {"t.jpg": JPEGS[3]})], tmp_path / "t")
    with pytest.raises(PackError, match="tars of this machine where they lie is made in a directory"):
        combine([packs[0], tmp_path / "t"], "s3://bucket/new", in_place=True, storage_options=s3.options)
    del s3.objects["a/shard-00000-000.tar"]
    with pytest.raises(PackError, match="s3://bucket/a/shard-00000-000.tar does not exist; `pass-pack verify"):
        combine([stored], tmp_path / "gone", in_place=True)
