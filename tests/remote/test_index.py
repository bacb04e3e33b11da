"""The index of a pack in a store: a large one comes in parts, and what is damaged in the cache comes anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pass_loader import DataLoader, PackError, ShardDataset
from pass_loader.pack import Pack, verify
from pass_loader.pack import remote as remotes
from pass_loader.pack.layout import INDEX, INDEX_SCHEMA
from pass_loader.pack.manifest import read_manifest, write_manifest
from pass_loader.pack.reader import write_index
from pass_loader.remote.cache import UNIT, Cache

from ..helpers.object_server import ObjectServer, serving
from ..helpers.remote import RECIPE, digest

RECORDS = 10**8


def test_a_damaged_index_is_fetched_anew(pack: Path, server: ObjectServer, tmp_path: Path) -> None:
    """Cut off, and of another pack. Kills: an error that asks for a file of the cache to be deleted."""
    url = server.url + "pack"
    opened = Pack(url, cache=tmp_path)
    for damage in (b"", (pack / INDEX).read_bytes()[:-50], (pack / INDEX).read_bytes().replace(b"pack_id", b"pack_ix")):
        (opened.path / INDEX).write_bytes(damage)
        Cache._known.clear()
        assert digest(ShardDataset(url, RECIPE, cache=tmp_path)) == digest(ShardDataset(pack, RECIPE))
        cache = Cache(tmp_path, 10**9)
        with cache.locked():
            assert int(cache._used[1]) == cache._counted()
    table = opened.path / opened.shards[0]["table"]
    assert opened.id_of(0) and table.exists()
    table.write_bytes(table.read_bytes()[:-9])
    assert Pack(url, cache=tmp_path).id_of(0) == opened.id_of(0)


def test_an_index_that_is_damaged_in_the_store(pack: Path, tmp_path: Path) -> None:
    shutil.copytree(pack, tmp_path / "served" / "pack")
    index = tmp_path / "served" / "pack" / INDEX
    index.write_bytes(index.read_bytes()[:-50])
    with serving(tmp_path / "served") as server:
        with pytest.raises(PackError, match=f"{server.url}pack/{INDEX} is not the file that pack.json tells of"):
            Pack(server.url + "pack", cache=tmp_path / "cache")


@pytest.fixture
def parted(pack: Path, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of the pack, whose index comes in parts."""
    monkeypatch.setattr(remotes, "_WHOLE_INDEX_BYTES", 100)
    yield server.url + "pack"


def test_an_index_in_parts(pack: Path, parted: str, server: ObjectServer, tmp_path: Path) -> None:
    dataset, local = ShardDataset(parted, RECIPE, cache=tmp_path), ShardDataset(pack, RECIPE)
    assert digest(dataset, epochs=2) == digest(local, epochs=2)
    for name in INDEX_SCHEMA.names:
        assert (dataset.pack.column(name) == local.pack.column(name)).all()
    assert verify(dataset.pack) == [] == verify(Pack(parted, cache=tmp_path))
    Cache._known.clear()
    before = server.sent
    assert digest(ShardDataset(parted, RECIPE, cache=tmp_path), epochs=2) == digest(local, epochs=2)
    assert server.sent - before < 10_000


def test_parts_that_were_lost(pack: Path, parted: str, tmp_path: Path) -> None:
    """Power loss, a file that was cut or deleted. Kills: zeros that are taken for an index."""
    local = digest(ShardDataset(pack, RECIPE))
    path = Pack(parted, cache=tmp_path).path / INDEX
    size = path.stat().st_size

    def emptied() -> None:
        os.truncate(path, 0)
        os.truncate(path, size)

    for damage in (emptied, lambda: os.truncate(path, size // 2), path.unlink):
        Cache._known.clear()
        assert digest(ShardDataset(parted, RECIPE, cache=tmp_path)) == local
        damage()
        Cache._known.clear()
        assert digest(ShardDataset(parted, RECIPE, cache=tmp_path)) == local


def test_units_that_are_empty(tmp_path: Path) -> None:
    """A process finds them marked as there. Kills: zeros that are taken for numbers."""
    path = tmp_path / "pack" / "edition" / INDEX
    path.parent.mkdir(parents=True)
    cache = Cache(tmp_path, 10**7)
    blocks = cache.open(path, 5 * UNIT, checked=True)
    assert cache.reserve(blocks, 0, 5)
    blocks.write(0, [bytes(range(1, 251)) * (5 * UNIT // 250), bytes(5 * UNIT % 250)])
    cache.settle(blocks, 0, 5, fetched=True)
    assert blocks.has(0, 5)
    with open(path, "rb+") as file:
        file.seek(2 * UNIT)
        file.write(bytes(UNIT))
    again = Cache(tmp_path, 10**7).open(path, 5 * UNIT)
    assert again.has(0, 2) and not again.has(0, 5) and again.has(3, 5) and not again.has(2, 3)


def test_an_index_that_is_exchanged_meanwhile(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: parts of two files in one."""
    monkeypatch.setattr(remotes, "_WHOLE_INDEX_BYTES", 100)
    shutil.copytree(pack, tmp_path / "served" / "pack")
    index = tmp_path / "served" / "pack" / INDEX
    with serving(tmp_path / "served") as server:
        opened = Pack(server.url + "pack", cache=tmp_path / "cache")
        cache = Cache.at(tmp_path / "cache", 10**9)
        blocks = cache.blocks[opened.path / INDEX]
        with cache.locked():
            blocks.drop(np.flatnonzero(blocks.units))
        os.utime(index, ns=(0, 0))
        with pytest.raises(OSError, match=f"{INDEX} was changed by somebody else meanwhile"):
            opened.column("label")


def test_a_damaged_part(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names a shard that there is not. Kills: a thread that ends with an error, and a loader that waits for it."""
    monkeypatch.setattr(remotes, "_WHOLE_INDEX_BYTES", 100)
    shutil.copytree(pack, tmp_path / "served" / "pack")
    index = Pack(tmp_path / "served" / "pack").index
    shards = pa.array(np.full(len(index), 99, np.int32))
    identity = index.schema.metadata[b"pack_id"].decode()
    write_index(tmp_path / "served" / "pack" / INDEX, index.set_column(1, index.schema.field(1), shards), identity)
    with serving(tmp_path / "served") as server:
        dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
        with pytest.raises(PackError, match="is damaged: it names shard 99, of 3"):
            next(iter(DataLoader(dataset, 4, num_workers=1)))


class _WithHoles:
    """A file to write to that leaves large buffers out: holes of zeros."""

    closed = False

    def __init__(self, path: Path):
        self._file = open(path, "wb")  # noqa: SIM115

    def write(self, content: pa.Buffer) -> int:
        size = memoryview(content).nbytes
        if size < 1 << 20:
            self._file.write(content)
        else:
            self._file.seek(size, os.SEEK_CUR)
        return size

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.truncate(self._file.tell())
        self._file.close()


def write_large(pack: Path, out: Path) -> None:
    """Write a pack of RECORDS records to `out`, sparse. The first ones are those of `pack`, and so is the last."""
    opened = Pack(pack)
    shutil.copytree(pack, out)
    (out / INDEX).unlink()
    zeros = {name: np.zeros(RECORDS, f"i{type.bit_width // 8}")
             for name, type in zip(INDEX_SCHEMA.names, INDEX_SCHEMA.types)}  # fmt: skip
    columns = [pa.Array.from_buffers(type, RECORDS, [None, pa.py_buffer(zeros[name])])
               for name, type in zip(INDEX_SCHEMA.names, INDEX_SCHEMA.types)]  # fmt: skip
    table = pa.table(columns, schema=INDEX_SCHEMA.with_metadata({"pack_id": opened.pack_id}))
    with pa.PythonFile(_WithHoles(out / INDEX), "w") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(out / INDEX)) as mapped:
        batch = pa.ipc.open_file(mapped).read_all()
        mapped.seek(0)
        first = mapped.read_buffer(1).address
        begins = {name: batch.column(name).chunk(0).buffers()[1].address - first for name in INDEX_SCHEMA.names}
    with open(out / INDEX, "rb+") as file:
        for name, begin in begins.items():
            values = opened.column(name)
            for place, part in ((0, values), (RECORDS - 1, values[-1:])):
                file.seek(begin + place * values.itemsize)
                file.write(part.tobytes())
    manifest = read_manifest(pack)
    manifest["records"] = RECORDS
    manifest["shards"][-1]["records"] += RECORDS - len(values)
    write_manifest(out, manifest)


@pytest.mark.slow
def test_opening_10_to_the_8_records_reads_megabytes(pack: Path, tmp_path: Path) -> None:
    """Kills: an index that is fetched whole; records that are asked for before their places are known."""
    write_large(pack, tmp_path / "served" / "pack")
    assert (tmp_path / "served" / "pack" / INDEX).stat().st_size > 4.4e9
    local = ShardDataset(pack, RECIPE)
    tars = sum(path.stat().st_size for path in pack.glob("*.tar"))
    with serving(tmp_path / "served") as server:
        dataset = ShardDataset(server.url + "pack", RECIPE, cache=tmp_path / "cache")
        assert server.sent < 100_000 + 4 * UNIT
        assert dataset.pack.records == RECORDS
        batches = iter(DataLoader(dataset, 4, num_workers=2))
        for mine, theirs in zip(range(5), DataLoader(local, 4, num_workers=2)):
            assert all((one == other).all() for one, other in zip(next(batches)[0], theirs[0])), mine
        assert dataset.read(RECORDS - 1) == local.read(22)
        assert server.sent < tars + 4_000_000
