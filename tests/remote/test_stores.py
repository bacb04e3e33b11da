"""S3 by moto, the hub's URLs, forked processes, credentials: what stands between a URL and bytes."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchLoader

from pass_loader import DataLoader, PackError, ShardDataset, ShardError
from pass_loader.pack import Pack, build, index, purge, remove, verify
from pass_loader.pack.manifest import read_manifest, write_manifest
from pass_loader.remote.address import Address, bytes_of, shown
from pass_loader.remote.store import Changed
from pass_loader.remote.writing import PART_BYTES, WritableStore

from ..helpers.moto_server import moto_serving
from ..helpers.object_server import ObjectServer, serving
from ..helpers.packs import sources_of
from ..helpers.corpus import jpeg, noise
from ..helpers.remote import RECIPE, digest, written_once
from ..helpers.trees import contents, tar_of


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    """Options of a server that speaks S3, with an empty bucket, `bucket`; and a client of it."""
    with moto_serving() as (options, client):
        yield {**options, "client": client}


@pytest.mark.slow
def test_a_pack_in_s3(pack: Path, s3: dict[str, Any], tmp_path: Path) -> None:
    options = dict(s3)
    client = options.pop("client")
    for path in pack.iterdir():
        client.upload_file(str(path), "bucket", f"packs/p/{path.name}")
    dataset = ShardDataset("s3://bucket/packs/p", RECIPE, cache=tmp_path, storage_options=options)
    assert digest(dataset) == digest(ShardDataset(pack, RECIPE))
    with pytest.raises(PackError, match="s3://bucket/packs/none/ is not a pack"):
        Pack("s3://bucket/packs/none", cache=tmp_path, storage_options=options)


@pytest.mark.slow
def test_sources_in_s3(s3: dict[str, Any], tmp_path: Path) -> None:
    """Found by a listing, copied and referred to."""
    options = {name: value for name, value in s3.items() if name != "client"}
    tars = [
        tar_of(tmp_path / f"{n}.tar", {f"{n}-{i}.jpg": jpeg(noise(16, 16, i + n)) for i in range(5)}) for n in range(3)
    ]
    for tar in tars:
        s3["client"].upload_file(str(tar), "bucket", f"tars/{tar.name}")
        s3["client"].upload_file(str(tar), "bucket", f"tars/deep/{tar.name}")
    build(tars, tmp_path / "pack", shard_bytes=4100)
    build(["s3://bucket/tars/?.tar"], tmp_path / "copied", shard_bytes=4100, source_options=options)
    assert contents(tmp_path / "copied") == contents(tmp_path / "pack")
    index(["s3://bucket/tars/deep/*"], "s3://bucket/index", storage_options=options, source_options=options)
    pack = Pack("s3://bucket/index", cache=tmp_path / "cache", storage_options=options)
    assert verify(pack, decode=True) == [] and pack.pack_id == Pack(tmp_path / "pack").pack_id


@pytest.mark.slow
def test_a_pack_made_in_s3(s3: dict[str, Any], tmp_path: Path) -> None:
    """Written, changed and read again."""
    options = {name: value for name, value in s3.items() if name != "client"}
    sources = sources_of(tmp_path)
    for out, given in ((tmp_path / "pack", None), ("s3://bucket/made", options)):
        build(sources, out, metadata=tmp_path / "m.csv", shard_bytes=4100, storage_options=given)
    pack = Pack("s3://bucket/made", cache=tmp_path / "cache", storage_options=options)
    for name in (path.name for path in (tmp_path / "pack").iterdir()):
        made = s3["client"].get_object(Bucket="bucket", Key=f"made/{name}")["Body"].read()
        assert made == (tmp_path / "pack" / name).read_bytes()
    remove(pack, pack.ids(np.array([3, 4])), reason="x")
    assert purge(pack).records == 2
    listed = s3["client"].list_objects_v2(Bucket="bucket", Prefix="made/")["Contents"]
    pack.refresh()
    assert {found["Key"].removeprefix("made/") for found in listed} == {
        "pack.json", "removed.jsonl", "refused.jsonl", "finished", pack.manifest["index"],
        *(shard[kind] for shard in pack.shards for kind in ("tar", "table")),
    }  # fmt: skip
    assert verify(pack) == []


@pytest.mark.slow
def test_conditional_writes(s3: dict[str, Any], tmp_path: Path) -> None:
    """Kills: a write over what somebody else has written."""
    options = {name: value for name, value in s3.items() if name != "client"}
    store = WritableStore(Address.of("s3://bucket/w", tmp_path, None, options))
    first = written_once(store)
    assert store.read("a")[0] == b"2"
    store.delete("a")
    with pytest.raises(Changed):
        store.write("a", b"3", first)
    assert store.size_of("a") is None


@pytest.mark.slow
def test_large_objects(s3: dict[str, Any], tmp_path: Path) -> None:
    """In parts, under a name of their own first, which a copy exchanges for theirs where there is none."""
    options = {name: value for name, value in s3.items() if name != "client"}
    store = WritableStore(Address.of("s3://bucket/l", tmp_path, None, options))
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (PART_BYTES // 256) + b"end")
    for _ in range(2):  # the second time there is the same already
        store.upload(path, "large", "large.tmp")
    store.download("large", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes() and store.size_of("large.tmp") is None
    path.write_bytes(bytes(PART_BYTES + 3))
    with pytest.raises(Changed):
        store.upload(path, "large", "large.tmp")


def test_web_servers_are_not_written_to(server: ObjectServer, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="can only be read"):
        WritableStore(Address.of(server.url + "pack", tmp_path))


def test_the_hub(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "served" / "datasets" / "me" / "set" / "resolve"
    place.mkdir(parents=True)
    (place / "v1").symlink_to(pack.parent)
    (place / "main").symlink_to(pack.parent)
    with serving(tmp_path / "served") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        for url in ("hf://datasets/me/set/pack", "hf://datasets/me/set@v1/pack/"):
            assert Pack(url, cache=tmp_path / "cache").records == 23
        with pytest.raises(PackError, match="is not a pack"):
            Pack("hf://datasets/me/set@v2/pack/", cache=tmp_path / "cache")


@pytest.mark.parametrize("scheme", ["gs", "az", "s3"])
def test_stand_ins(pack: Path, tmp_path: Path, scheme: str) -> None:
    """Google's, Azure's and Amazon's requests, to a server that looks at their paths and ranges alone."""
    (tmp_path / "account").mkdir()
    (tmp_path / "account" / "box").symlink_to(pack.parent)
    (tmp_path / "box").symlink_to(pack.parent)
    with serving(tmp_path) as server:
        place = server.url.rstrip("/")
        options: dict[str, Any] = {
            "gs": {"base_url": place, "skip_signature": True},
            "az": {"endpoint": f"{place}/account", "account_name": "account", "account_key": "c2VjcmV0"},
            "s3": {"endpoint": place, "access_key_id": "id", "secret_access_key": "secret", "region": "here"},
        }[scheme]
        url = f"{scheme}://box/pack"
        dataset = ShardDataset(url, RECIPE, cache=tmp_path / "cache", storage_options=options)
        assert digest(dataset) == digest(ShardDataset(pack, RECIPE))
        assert any(ranges for _, ranges in server.log) and "/box/pack" in server.log[0][0]
        with pytest.raises(PackError, match=f"{scheme}://box/none/ is not a pack"):
            Pack(f"{scheme}://box/none", cache=tmp_path / "cache", storage_options=options)


def test_credentials_that_expire(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """In the midst of an epoch. Kills: an error where new credentials are at hand; a wait for such as are refused."""
    given: list[str] = []

    def provider() -> dict[str, Any]:
        given.append(f"token-{len(given)}")
        return {"access_key_id": "id", "secret_access_key": "secret", "token": given[-1], "expires_at": None}

    options = {"endpoint": server.url.rstrip("/"), "region": "here", "credential_provider": provider}
    server.refuses = lambda token: not token
    dataset = ShardDataset("s3://pack", RECIPE, cache=tmp_path, storage_options=options)
    server.root = pack.parent
    batches = iter(DataLoader(dataset, 4, shuffle=True, num_workers=1))
    next(batches)
    dataset.read(0)
    expired = {*given}
    server.refuses = lambda token: token in expired
    remote = dataset.pack.remote
    assert remote is not None
    with remote.cache.locked():
        for blocks in remote.cache.blocks.values():
            blocks.drop(np.flatnonzero(blocks.units))
    local = ShardDataset(pack, RECIPE)
    assert [dataset.read(record) for record in range(23)] == [local.read(record) for record in range(23)]
    assert len(given) > len(expired)
    server.refuses = lambda token: True
    with remote.cache.locked():
        for blocks in remote.cache.blocks.values():
            blocks.drop(np.flatnonzero(blocks.units))
    with pytest.raises(ShardError, match="access was denied.*give credentials by the usual environment variables"):
        dataset.read(0)


def test_a_server_without_ranges(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Kills: the first bytes of a shard taken for those of a record."""
    server.ranges = False
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path)
    with pytest.raises(ShardError, match="the server sends no ranges of files.*copy the pack to a disk"):
        dataset.read(3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_worker_processes(pack: Path, server: ObjectServer, tmp_path: Path, method: str) -> None:
    """obstore does not survive a fork: words in place of a process that hangs."""
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path)
    dataset.set_epoch(1)
    loader = TorchLoader(dataset, None, num_workers=2, multiprocessing_context=method)
    if method == "fork":
        with pytest.raises(RuntimeError, match='multiprocessing_context="forkserver"'):
            list(loader)
        return
    local = ShardDataset(pack, RECIPE)
    local.set_epoch(1)
    for mine, theirs in zip(loader, TorchLoader(local, None, num_workers=2)):
        assert all(map(torch.equal, mine[0], theirs[0]))


def test_a_fork_that_reads_nothing(server: ObjectServer, tmp_path: Path) -> None:
    """A forked process may end, and drop what it has copied."""
    dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path)
    dataset.read(0)
    child = multiprocessing.get_context("fork").Process(target=len, args=(dataset,))
    child.start()
    child.join(20)
    assert child.exitcode == 0


def test_addresses(tmp_path: Path) -> None:
    assert [bytes_of(size) for size in (7, "7", "64MB", "1GiB", "1.5 kb")] == [7, 7, 64_000_000, 1 << 30, 1500]
    one, other = (Address.of(url, tmp_path) for url in ("https://user:word@host/a/b", "https://user:word@host/a/b/"))
    assert one == other and one.folder == other.folder
    assert str(one) == shown(one.url) == "https://host/a/b/" and "word" not in str(one.folder)
    assert Address.of("s3://a/b-c", tmp_path).folder != Address.of("s3://a-b/c", tmp_path).folder
    with pytest.raises(ValueError, match="is not a size"):
        Address.of("s3://a/b", tmp_path, "many")


def test_passwords_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pass_loader.remote.store._FIRST_PAUSE_S", 0.001)
    with pytest.raises(PackError, match="could not be read") as found:
        Pack("http://user:secret@127.0.0.1:1/pack", cache=tmp_path)
    assert "secret" not in str(found.value) and "user" not in str(found.value)


@pytest.mark.parametrize("size", [1 << 62, 10**40])
def test_a_manifest_that_tells_a_wrong_size(pack: Path, tmp_path: Path, size: int) -> None:
    shutil.copytree(pack, tmp_path / "pack")
    manifest = read_manifest(pack)
    manifest["shards"][0]["bytes"] = size
    write_manifest(tmp_path / "pack", manifest)
    with serving(tmp_path) as server, pytest.raises(PackError, match="tells a wrong size"):
        ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache").read(0)
