"""Packs that refer to tars in stores: read by ranges through the cache, as packs of the same tars on a disk."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pass_loader import PackError, ShardDataset, ShardError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, combine, convert, export, fetch, index, locate, purge, remove, restore, verify
from pass_loader.remote import store

from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import ObjectServer, serving
from ..helpers.remote import RECIPE, digest
from ..helpers.s3_server import S3Server, s3_serving
from ..helpers.trees import tar_of, tree

OPTIONS: dict[str, Any] = {"task_bytes": 40_000, "on_duplicate": "keep", "workers": 2}


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three tars; some pictures of the second are in the first too."""
    root = tmp_path_factory.mktemp("tars")
    found = []
    for number in range(3):
        pictures = {f"{number}-{i}.jpg": jpeg(noise(40, 40, 10 * number + i)) for i in range(8)}
        copies = {f"copy-{number}-{i}.jpg": jpeg(noise(40, 40, i)) for i in range(2)}
        found.append(tar_of(root / f"{number}.tar", pictures | copies))
    return found


@pytest.fixture(scope="module")
def local(tars: list[Path]) -> Path:
    """The pack of the tars in their folder."""
    out = tars[0].parent.with_name("local")
    assert index(tars, out, **OPTIONS).same_bytes == 6
    return out


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pauses are short, and the cache is the test's."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def web(tars: list[Path]) -> Iterator[ObjectServer]:
    with serving(tars[0].parent) as server:
        yield server


@pytest.fixture
def s3(tars: list[Path]) -> Iterator[S3Server]:
    """Has the tars in its bucket, in the folder `in`."""
    with s3_serving() as server:
        server.put_folder(tars[0].parent, "in/")
        yield server


def urls(server: ObjectServer, tars: list[Path]) -> list[str]:
    return [server.url + tar.name for tar in tars]


def same_but_for_urls(pack: dict[str, bytes], local: Path) -> bool:
    """Compare files with those of the local pack: the manifest has a URL for each tar, and so its own CRC too."""
    theirs, mine = tree(local), dict(pack)
    del theirs["locations.json"]
    mine.pop("finished", None)
    manifests = [json.loads(files.pop("pack.json")) for files in (mine, theirs)]
    for manifest in manifests:
        del manifest["crc32c"]["pack.json"]
    assert {shard["foreign"].pop("url").rpartition("/")[2] for shard in manifests[0]["shards"]} == {
        shard["tar"] for shard in manifests[1]["shards"]
    }
    return mine == theirs and manifests[0] == manifests[1]


def test_in_a_directory(tars: list[Path], local: Path, web: ObjectServer, tmp_path: Path) -> None:
    """Kills: a tar that is fetched whole for some records; another order; a stamp of other bytes."""
    report = index(urls(web, tars), tmp_path / "pack", **OPTIONS)
    assert report.same_bytes == 6 and report.pictures == 30
    assert same_but_for_urls(tree(tmp_path / "pack"), local)
    before = web.sent
    dataset = ShardDataset(tmp_path / "pack", RECIPE, cache=tmp_path / "cache", cache_bytes="10MB")
    assert dataset.read(3) == ShardDataset(local, RECIPE).read(3)
    assert web.sent - before <= 2 * 16384, "a unit or two of the cache"
    assert digest(dataset, 2) == digest(ShardDataset(local, RECIPE), 2)
    assert web.sent - before < 2 * sum(tar.stat().st_size for tar in tars)
    assert verify(dataset.pack) == [] and verify(tmp_path / "pack", decode=True) == []
    again = pickle.loads(pickle.dumps(dataset.pack))
    assert again.place == str(tmp_path / "pack") == dataset.pack.place and again.ids(np.arange(30)) == Pack(local).ids(
        np.arange(30)
    )


def test_in_a_store(tars: list[Path], local: Path, s3: S3Server, tmp_path: Path) -> None:
    how = {**OPTIONS, "source_options": s3.options, "storage_options": s3.options}
    index(["s3://bucket/in/*.tar"], "s3://bucket/pack", **how)
    assert same_but_for_urls(s3.below("pack/"), local)
    dataset = ShardDataset("s3://bucket/pack", RECIPE, cache=tmp_path / "cache", storage_options=s3.options)
    assert digest(dataset) == digest(ShardDataset(local, RECIPE))
    assert verify(dataset.pack, decode=True) == []
    assert fetch(dataset.pack) == sum(tar.stat().st_size for tar in tars)
    s3.objects.clear()
    with pytest.raises(PackError, match="not a pack"):
        dataset.pack.reopened()


def test_a_server_that_fails(tars: list[Path], local: Path, web: ObjectServer, tmp_path: Path) -> None:
    index(urls(web, tars), tmp_path / "pack", **OPTIONS)
    web.kinds, web.faults = ["cut", "short", "wrong", "503", "reset"], 0.3
    dataset = ShardDataset(tmp_path / "pack", RECIPE, cache=tmp_path / "cache")
    assert digest(dataset) == digest(ShardDataset(local, RECIPE))
    assert web.faulty and dataset.pack.remote is not None and dataset.pack.remote.counts()["retries"] > 0


def test_a_tar_that_changed(tars: list[Path], tmp_path: Path) -> None:
    """Kills: other bytes under a record's name; an error that does not tell where."""
    shutil.copytree(tars[0].parent, tmp_path / "tars")
    with serving(tmp_path / "tars") as web:
        index(urls(web, tars), tmp_path / "pack", **OPTIONS)
        shutil.copy(tars[1], tmp_path / "tars" / "0.tar")
        dataset = ShardDataset(tmp_path / "pack", RECIPE, cache=tmp_path / "cache")
        with pytest.raises(ShardError, match=rf"{web.url}0\.tar was fetched twice.*was changed or damaged"):
            dataset.read(0)
        assert dataset.read(29)
        found = verify(tmp_path / "pack")
        assert found and all("0.tar" in problem for problem in found)


@pytest.mark.slow
def test_commands(tars: list[Path], local: Path, web: ObjectServer, tmp_path: Path) -> None:
    """As on the pack of a disk: what reads records, and what changes the log."""
    assert main(["index", *urls(web, tars), "--out", str(tmp_path / "pack"), "--task-bytes", "40000"]) == 0
    shutil.copytree(local, tmp_path / "local")
    for root in (tmp_path / "pack", tmp_path / "local"):
        remove(root, ["0-1", "1-1"], reason="x")
        restore(Pack(root), ["1-1"], reason="y")
        convert(root, root.with_name(f"{root.name}-dct"), "dct")
        export(root, root.with_name(f"{root.name}-tars"), "webdataset")
        combine([root, root], root.with_name(f"{root.name}-both"), prefixes=["a/", "b/"])
        with pytest.raises(PackError, match="refers to tars that are not its own"):
            purge(root)
    for made in ("dct", "tars", "both"):
        mine, theirs = (tree(tmp_path / f"{name}-{made}") for name in ("pack", "local"))
        for files in (mine, theirs):
            files.pop("removed.jsonl", None)
            if "pack.json" in files:
                manifest: Any = files.pop("pack.json")
                manifest = json.loads(manifest) if isinstance(manifest, bytes) else manifest  # undated
                files["manifest"] = json.dumps([manifest["pack_id"], manifest["shards"]]).encode()
        assert mine == theirs
    assert main(["info", str(tmp_path / "pack"), "--cache", str(tmp_path / "cache")]) == 0
    assert main(["verify", str(tmp_path / "pack"), "--cache", str(tmp_path / "cache")]) == 0


def test_what_is_refused(tars: list[Path], web: ObjectServer, s3: S3Server, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    with pytest.raises(PackError, match="not to both: index them apart"):
        index([web.url + "0.tar", tars[1]], out)
    with pytest.raises(PackError, match="tars of this machine where they lie is made in a directory"):
        index(tars, "s3://bucket/pack", storage_options=s3.options)
    with pytest.raises(PackError, match="two tars have the same name"):
        index([web.url + "0.tar", "s3://bucket/in/0.tar"], out, source_options=s3.options)
    index(urls(web, tars), out)
    with pytest.raises(PackError, match="refers to tars in stores, by their URLs"):
        locate(out, [tars[0].parent])
    build(tars, tmp_path / "own")
    with pytest.raises(ValueError, match="cache, cache_bytes and storage_options are for packs in stores"):
        Pack(tmp_path / "own", cache=tmp_path / "cache")


@pytest.mark.parametrize("url", ["ftp://host/0.tar", "s3://", "nothing", 7])
def test_a_manifest_with_a_strange_url(tars: list[Path], web: ObjectServer, tmp_path: Path, url: object) -> None:
    from pass_loader.pack.manifest import read_manifest, write_manifest

    index([web.url + "0.tar"], tmp_path / "pack")
    manifest = read_manifest(tmp_path / "pack")
    manifest["shards"][0]["foreign"]["url"] = url
    write_manifest(tmp_path / "pack", manifest)
    with pytest.raises(PackError):
        Pack(tmp_path / "pack")


def test_headers_are_for_the_pack_alone(tars: list[Path], web: ObjectServer, tmp_path: Path) -> None:
    """Kills: a token that a pack sends to whatever server it names."""
    index([web.url + "0.tar"], tmp_path / "packs" / "pack")
    with serving(tmp_path / "packs") as other:
        options = {"default_headers": {"x-amz-security-token": "secret"}, "timeout": "30s"}
        tokens: dict[str, set[str]] = {"own": set(), "others": set()}
        other.refuses = lambda token: bool(tokens["own"].add(token))
        web.refuses = lambda token: bool(tokens["others"].add(token))
        pack = Pack(other.url + "pack", cache=tmp_path / "cache", storage_options=options)
        assert len(pack.read_from_store(0)) > 100
        assert tokens == {"own": {"secret"}, "others": {""}}
