"""Metadata joined by tasks: the tables that one task makes, however the table is cut and whoever does what."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError
from pass_loader.pack import Pack, arrow, build, finish, join, merge, metadata, plan, repeats, shard, tables, verify
from pass_loader.pack.destination import Destination
from pass_loader.pack.join import Join
from pass_loader.pack.repeats import digest_of
from pass_loader.pack.running import Running
from pass_loader.pack.shards import ROWS_SCHEMA

from ..helpers.corpus import jpeg, noise
from ..helpers.forked import ready
from ..helpers.trees import contents, tar_of
from ..helpers.trials import trials

OPTIONS: dict[str, Any] = {"shard_bytes": 4100, "task_bytes": 30_000}
PICTURES = 40


def sources_of(root: Path) -> list[Path]:
    return [
        tar_of(root / f"{tar}.tar", {f"p{i:03d}.jpg": jpeg(noise(16, 16, i)) for i in range(tar, PICTURES, 3)})
        for tar in range(3)
    ]


def table_of(root: Path, rows: int = 300, twice: list[str] | None = None) -> Path:
    """Write a table of many types in small groups of rows; some pictures have no row, some rows no picture or no id."""
    dice = np.random.default_rng(0)
    ids = [f"p{i:03d}" for i in range(rows) if i % 7] + ["P007", "P035"] + (twice or [])
    ids = [ids[place] for place in dice.permutation(len(ids))]
    numbers = [int(id[1:]) for id in ids]
    columns = {
        "name": pa.array([None if n % 5 == 0 else f"user {n}" * (n % 4) for n in numbers]),
        "key": pa.array([None if n > rows - 5 else id for n, id in zip(numbers, ids)]),
        "digest": pa.array(numbers, pa.int32()),  # columns of ours in the files of a join
        "row": pa.array([n / 7 for n in numbers]).dictionary_encode(),
        "tags": pa.array([[str(n)] * (n % 3) for n in numbers]),
        "nested": pa.array([{"a": n, "b": None} for n in numbers], pa.struct([("a", pa.int16()), ("b", pa.string())])),
    }
    pq.write_table(pa.table(columns), root / "m.parquet", row_group_size=37)
    return root / "m.parquet"


@pytest.mark.parametrize(
    ("bucket", "piece", "rounds", "groups", "written"),
    [(1 << 22, 1, 1 << 18, 64, 1 << 17), (60, 74, 10, 2, 3), (20, 1, 50, 1, 1), (1, 300, 1, 5, 7)],
)
def test_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int, piece: int, rounds: int, groups: int, written: int
) -> None:
    """Kills: rows that go to the wrong picture, or get lost between pieces, rounds, shares and batches."""
    sources, options = sources_of(tmp_path), OPTIONS | {"metadata": table_of(tmp_path), "key": "key"}
    report = build(sources, tmp_path / "whole", **options)
    for place, name, value in ((repeats, "_BUCKET", bucket), (metadata, "_PIECE_ROWS", piece),
                               (join, "_ROUND_ROWS", rounds), (finish, "_TABLES", groups),
                               (join, "_WRITTEN_ROWS", written)):  # fmt: skip
        monkeypatch.setattr(place, name, value)
    assert build(sources, tmp_path / "cut", workers=2, **options) == report
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    rows = {row.pop("key"): row for row in pq.read_table(tmp_path / "m.parquet").to_pylist()}
    pack = Pack(tmp_path / "cut")
    for record in range(pack.records):
        row = pack.row(record)
        want = rows.get(row["id"]) or dict.fromkeys(("name", "digest", "row", "tags", "nested"))
        assert {name: row[name] for name in want} == want
    assert report.without_metadata == sum(f"p{i:03d}" not in rows for i in range(PICTURES)) == 6
    assert "2 of the first 6 pictures without a row nearly have one" in report.hints[0]
    assert report.metadata_unused == pq.read_metadata(tmp_path / "m.parquet").num_rows - (PICTURES - 6)
    assert verify(tmp_path / "cut") == []


@pytest.mark.parametrize("bucket", [20, 1 << 22])
def test_a_key_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    """The first in the table that comes again is named, whichever task finds it; each share says so."""
    table = table_of(tmp_path, twice=[f"p{number:03d}" for number in (1, 2, 3, 4, 5, 8, 9, 10, 298)])
    ids = pq.read_table(table, columns=["key"]).column(0).to_pylist()
    again = next(id for place, id in enumerate(ids) if id is not None and id in ids[:place])
    monkeypatch.setattr(repeats, "_BUCKET", bucket)
    sources, words = sources_of(tmp_path), f"the column 'key' has '{again}' more than once"
    with pytest.raises(PackError, match=words):
        build(sources, tmp_path / "built", metadata=table, key="key", **OPTIONS)
    for number in range(plan(sources, tmp_path / "pack", metadata=table, key="key", **OPTIONS)):
        shard(tmp_path / "pack", number)
    for index in (1, 0):
        with pytest.raises(PackError, match=words):
            tables(tmp_path / "pack", index, 2)
    with pytest.raises(PackError, match=words):
        merge(tmp_path / "pack")


@pytest.mark.parametrize("content", ["hash,x\n", "hash\n"])
def test_a_table_without_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    pq.write_table(pa.table({"hash": pa.array([], pa.string())}), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(PackError, match=f"{name} has no row"):
            build(sources_of(tmp_path)[:1], tmp_path / f"{name}-pack", metadata=tmp_path / name)


def test_a_table_of_ids_alone(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("hash\np000\np999\n")
    report = build(sources_of(tmp_path)[:1], tmp_path / "pack", metadata=tmp_path / "m.csv")
    assert (report.without_metadata, report.metadata_unused) == (13, 1) and verify(tmp_path / "pack") == []


def test_a_key_twice_far_behind(tmp_path: Path) -> None:
    """Kills: rows that are numbered anew in each batch that is read."""
    ids = [f"k{number}" for number in range(140_000)]
    pq.write_table(pa.table({"key": [*ids, "k5"]}), tmp_path / "m.parquet", row_group_size=70_000)
    with pytest.raises(PackError, match="the column 'key' has 'k5' more than once"):
        build(sources_of(tmp_path)[:1], tmp_path / "pack", metadata=tmp_path / "m.parquet", key="key")


def test_a_table_that_changed(tmp_path: Path) -> None:
    """After the plan: neither a share nor `merge` takes rows of another table. Planned again, the tasks stay done."""
    sources, options = sources_of(tmp_path), OPTIONS | {"metadata": table_of(tmp_path), "key": "key"}
    count = plan(sources, tmp_path / "pack", **options)
    for number in range(count):
        shard(tmp_path / "pack", number)
    table_of(tmp_path, rows=200)
    for run in (lambda: tables(tmp_path / "pack", 0, 2), lambda: merge(tmp_path / "pack")):
        with pytest.raises(PackError, match="m.parquet is not as it was when the plan was made: plan again"):
            run()
    assert plan(sources, tmp_path / "pack", **options) == count
    merge(tmp_path / "pack")
    build(sources, tmp_path / "built", **options)
    assert contents(tmp_path / "pack") == contents(tmp_path / "built")


def test_who_writes_tables_reads_no_more(tmp_path: Path) -> None:
    """Of the joined rows, each part for one group of tables. Kills: batches that several groups of tables read."""
    names = [f"s{number}" for number in range(6)]
    for name in names:
        columns = [arrow.column([digest_of(f"{name}-{i}".encode()) for i in range(5)], pa.binary(16))]
        schema = pa.schema([ROWS_SCHEMA.field("key")]).with_metadata(
            {"shard": '{"made_of": "", "refused": [], "own": {}}'}
        )
        with pa.ipc.new_file(str(tmp_path / f"{name}.rows"), schema) as file:
            file.write_table(pa.table(columns, schema=schema))
    pq.write_table(pa.table({"key": [f"{name}-{i}" for name in names for i in range(4)]}), tmp_path / "m.parquet")
    tasks = [(name, 5 * number) for number, name in enumerate(names)]
    groups = [tasks[start : start + 2] for start in (0, 2, 4)]
    read: list[int] = []

    class Counted(Destination):
        def bring_parts(self, name: str, size: int, parts: Iterable[tuple[int, int]]) -> Path:
            read.append(sum(end - begin for begin, end in parts))
            return super().bring_parts(name, size, [])

    out = Counted(tmp_path)
    joining = Join.of(metadata.Table(tmp_path / "m.parquet", "key"), None, [], 30, (0, 10, 20), "", True)
    joining.run(out, groups, Running(1))
    read.clear()
    for begin in (0, 10, 20):
        join.Joined(out, joining).bring(begin, begin + 10)
    assert read[0] == read[1] == read[2] > 0
    one, whole = read[0], join.Joined(out, joining)
    whole.bring(0, 30)
    assert read[3] == 3 * one and (whole.rows, whole.used, whole.missed) == (24, 24, [4, 9, 14, 19, 24, 29])


@pytest.fixture
def cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name, value in ((repeats, "_BUCKET", 40), (metadata, "_PIECE_ROWS", 50), (finish, "_TABLES", 2)):
        monkeypatch.setattr(place, name, value)


@pytest.mark.slow
def test_shares(tmp_path: Path, cut_small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a time, one after another, some never: no task of the join is run twice, none waits for who never comes."""
    sources, options = sources_of(tmp_path), OPTIONS | {"metadata": table_of(tmp_path), "key": "key"}
    report = build(sources, tmp_path / "built", **options)
    done: list[tuple[str, int]] = []
    run = Join.run_one

    def counted(self: Join, out: Destination, task: join.JoinTask) -> None:
        done.append((task.kind, task.number))
        time.sleep(0.05)  # so that others have to wait for it
        run(self, out, task)

    monkeypatch.setattr(Join, "run_one", counted)
    for trial, indices in enumerate(([2], [0, 1, 2], [1, 1, 0], [])):
        out = tmp_path / f"{trial}"
        for number in range(plan(sources, out, **options)):
            shard(out, number)
        done.clear()
        with ThreadPoolExecutor(3 if trial != 2 else 1) as pool:
            counts = [*pool.map(lambda index, out=out: tables(out, index, 3, workers=2), indices)]  # type: ignore[misc]
        assert counts == [len(range(index, 14, 3)) for index in indices] or len(counts) == len(indices)
        before = len(done)
        assert merge(out) == report and contents(out) == contents(tmp_path / "built")
        assert len(done) == len({*done}) > 5 and (not indices or len(done) == before)


def _share(out: Path, index: int) -> None:
    repeats._BUCKET, metadata._PIECE_ROWS, finish._TABLES = 40, 50, 2
    tables(out, index, 3, workers=1)


@pytest.mark.slow
def test_shares_killed_at_random(tmp_path: Path) -> None:
    """Processes that share the tasks are killed and begun again: who comes next takes over what they were about."""
    sources, options = sources_of(tmp_path), OPTIONS | {"metadata": table_of(tmp_path), "key": "key"}
    build(sources, tmp_path / "built", **options)
    dice = random.Random(0)
    for trial in range(trials(2, 30)):
        out = tmp_path / f"{trial}"
        for number in range(plan(sources, out, **options)):
            shard(out, number)
        left = [0, 1, 2, 0, 1, 2]
        while left:
            running = [(index, ready().Process(target=_share, args=(out, index))) for index in left[:3]]
            del left[:3]
            for _, process in running:
                process.start()
            for index, process in running:
                if len(left) < 6 and dice.random() < 0.5:
                    process.join(dice.random() * 0.1)
                    process.kill()
                process.join()
                if process.exitcode != 0:
                    left.append(index)
        merge(out)
        assert contents(out) == contents(tmp_path / "built")
