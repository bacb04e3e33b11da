"""Opening and verifying packs: what is wrong is found and named."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError
from pass_loader.data.live import Live
from pass_loader.pack import Pack, verify

from ..helpers.sealing import make_old, reseal


@pytest.fixture
def copy(pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack, tmp_path / "copy"))


def rewrite(path: Path, **columns: object) -> None:
    table = pq.read_table(path)
    for name, change in columns.items():
        values = table.column(name).to_pylist()
        values[1] = change(values[1]) if callable(change) else change
        table = table.set_column(table.column_names.index(name), name, pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path)


def test_verify_finds_what_is_wrong(copy: Path) -> None:
    assert verify(copy) == []
    pack = Pack(copy)
    shard, table = copy / "shard-00000-000.tar", copy / "shard-00000-000.parquet"
    row = pack.row(1)
    whole = shard.read_bytes(), table.read_bytes()

    def problems() -> str:
        reseal(copy)  # or the checksums alone would tell
        text = "\n".join(verify(copy))
        shard.write_bytes(whole[0])
        table.write_bytes(whole[1])
        reseal(copy)
        assert verify(copy) == []
        return text

    changed = bytearray(whole[0])
    changed[row["offset"] + row["length"] // 2] ^= 1
    shard.write_bytes(changed)
    assert f"shard-00000-000.tar, record 1, id {row['id']}: CRC32C" in problems()
    shard.write_bytes(whole[0][: row["offset"] + 100])
    assert "shard-00000-000.tar" in problems()
    shard.unlink()
    assert "No such file" in problems()
    for column, change in (("offset", lambda v: v + 512), ("length", lambda v: v - 1), ("id", "other")):
        rewrite(table, **{column: change})
        assert "the tar has no member" in problems()
    rewrite(table, height=lambda v: v + 1)
    text = problems()
    assert "its row says" in text and "column height differs from index.arrow" in text
    rewrite(table, crc32c=lambda v: v ^ 1)
    assert "CRC32C" in problems()
    rewrite(table, record=77)
    assert "its records are not 0 to" in problems()
    pq.write_table(pq.read_table(table).slice(0, 3), table)
    assert "the manifest says" in problems()
    with tarfile.open(shard, "a") as tar:
        tar.addfile(tarfile.TarInfo("stowaway.jpg"))
    assert "member stowaway.jpg is in no row" in problems()


def test_index_is_rebuilt_when_missing(copy: Path) -> None:
    index = (copy / "index.arrow").read_bytes()
    (copy / "index.arrow").unlink()
    assert Pack(copy).records == 23
    assert (copy / "index.arrow").read_bytes() == index
    foreign = index.replace(Pack(copy).pack_id.encode(), b"0" * 32)
    for damaged in (index[:500], b"", b"ARROW1" * 9, foreign):
        (copy / "index.arrow").write_bytes(damaged)
        with pytest.raises(PackError, match="delete it to have it rebuilt"):
            Pack(copy)
    (copy / "index.arrow").unlink()
    (copy / "shard-00000-000.parquet").write_bytes(b"junk")
    assert "shard-00000-000.parquet" in "".join(verify(copy))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"format": "other"}, "not a manifest"),
        ({"format_version": 99}, "format version 99"),
        ({"records": 5}, "the pack 5"),
        ({"shards": None}, "damaged"),
        ({"shards": [1]}, "damaged"),
        ({"pack_id": None}, "damaged"),
        ({"shards": []}, "the shards have 0 records"),
        ({"shards": [{"tar": "../../etc/passwd", "table": "x", "records": 23}]}, "file name '../../etc/passwd'"),
        ({"shards": [{"tar": "x", "table": "x", "records": -1}]}, "-1 records"),
    ],
)
def test_bad_manifests_are_refused(copy: Path, change: dict[str, object], message: str) -> None:
    make_old(copy)
    manifest = json.loads((copy / "pack.json").read_text()) | change
    (copy / "pack.json").write_text(json.dumps(manifest))
    with pytest.raises(PackError, match=message):
        Pack(copy)
    (copy / "pack.json").write_text("{")
    with pytest.raises(PackError, match="damaged"):
        Pack(copy)


def test_removed_records_are_not_live(copy: Path) -> None:
    make_old(copy)
    ids = Pack(copy).ids(np.arange(23))
    lines = [{"id": ids[r], "record": r, "date": "2026-01-01", "reason": "asked"} for r in (0, 5, 6, 22, 9)]
    lines.append({"id": ids[9], "record": 9, "date": "2026-01-02", "restored": True, "reason": "mistake"})
    (copy / "removed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pack = Pack(copy)
    assert len(pack) == 19 and pack.records == 23
    live = [r for r in range(23) if r not in (0, 5, 6, 22)]
    assert Live.of(pack, None).records_at(np.arange(19)).tolist() == live
    (copy / "removed.jsonl").write_text('{"record": 99, "id": "x"}\n')
    with pytest.raises(PackError, match="record 99"):
        Pack(copy)
