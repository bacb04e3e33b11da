"""What a packing keeps in memory does not grow with what it refuses: all refusals stand in a file of the pack."""

from __future__ import annotations

import gc
import json
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, arrow, build, repeats, report, task
from pass_loader.pack.columns import IndexColumns
from pass_loader.pack.destination import Destination
from pass_loader.pack.finish import Finish
from pass_loader.pack.layout import INDEX_SCHEMA
from pass_loader.pack.own_columns import OwnColumns
from pass_loader.pack.plan import Plan
from pass_loader.pack.report import Refusal
from pass_loader.pack.shards import Options
from pass_loader.pack.sources import Entry

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import contents, tar_of, write_tree


COUNT = 200


def sources_of(root: Path) -> list[Path]:
    """Write sources of COUNT files each: no pictures; ids that came before (refused or packed); links to nothing."""
    tree = write_tree(root / "in", {f"text{i}.jpg": b"text" for i in range(COUNT)} | {"a.jpg": jpeg(noise(9, 9))})
    for i in range(COUNT):
        (tree / f"link{i}").symlink_to("nowhere")
    again = {f"{i}/a.jpg": jpeg(noise(9, 9, i)) for i in range(COUNT)}
    first_refused = {f"x/text{i}.jpg": b"text again" for i in range(COUNT)}
    return [tree, tar_of(root / "again.tar", again | first_refused)]


def refused_by(pack: Path) -> list[Refusal]:
    return [Refusal(**json.loads(line)) for line in (pack / "refused.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_memory_does_not_grow_with_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "SHARD_RECORDS", 10)
    monkeypatch.setattr(report, "KEPT", 7)
    alive = 0

    def count(_: int) -> None:
        nonlocal alive
        calls[0] += 1
        if calls[0] % 37 == 0:
            alive = max(alive, sum(isinstance(thing, (Entry, Refusal)) for thing in gc.get_objects()))

    calls = [0]
    done = build(sources_of(tmp_path), tmp_path / "pack", workers=1, progress=count)
    assert calls[0] > 2 * COUNT and 0 < alive < 100, alive
    assert (done.pictures, done.refused_count, done.same_id) == (1, 4 * COUNT, COUNT)
    assert done.refused == refused_by(tmp_path / "pack")[:7]
    assert f"refused {4 * COUNT:,} (refused.jsonl lists them)" in str(done) and "and 793 more" in str(done)


def test_memory_does_not_grow_with_pictures_of_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted among those of equal length and CRC, two contents of each, by several threads.

    Kills: lists of all that are alike; a digest of each content in memory; one thread.
    """
    monkeypatch.setattr(repeats, "_CHUNK", 500)
    monkeypatch.setattr(repeats, "_BUCKET", 4000)
    shards, each, contents_, length = 40, 500, 4000, 32
    (tmp_path / "bytes").write_bytes(np.random.default_rng(0).bytes(contents_ + length))
    index = IndexColumns(tmp_path)
    for shard in range(shards):
        records = np.arange(shard * each, (shard + 1) * each)
        crc = records % (contents_ // 2) * 2_147_483  # spread over 32 bits
        made = {"offset": records % contents_, "length": records * 0 + length, "crc32c": crc}
        columns = [made.get(field.name, records * 0).astype(arrow.dtype_of(field.type)) for field in INDEX_SCHEMA]
        index.append(pa.table([arrow.numbers(column) for column in columns], schema=INDEX_SCHEMA))
    plan = Plan({"options": Options().as_plan()}, [], [], [], [], None, [], [])
    finish = Finish(Destination(tmp_path), plan, [], OwnColumns(), {}, None)
    threads: set[int] = set()
    read = Destination.read

    def noted(self: Destination, *place: Any) -> bytes:
        threads.add(threading.get_ident())
        return read(self, *place)

    monkeypatch.setattr(Destination, "read", noted)
    tracemalloc.start()
    try:
        found = finish.count_same_bytes(index, [{"tar": "bytes", "records": each}] * shards, 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == shards * each - contents_ and len(threads) == 2
    assert peak < 700_000, peak


def test_every_refusal_stays_findable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same order and to the same byte on any number of workers; no file where nothing was refused."""
    sources = sources_of(tmp_path)
    monkeypatch.setattr(task, "SHARD_RECORDS", 50)
    for workers in (1, 4):
        build(sources, tmp_path / f"{workers}", workers=workers)
    found = refused_by(tmp_path / "1")
    assert contents(tmp_path / "1") == contents(tmp_path / "4")
    reasons = [refusal.reason.split(" (")[0] for refusal in found]
    assert {reason: reasons.count(reason) for reason in reasons} == {
        "No such file or directory": COUNT,
        "neither JPEG nor PNG but something that begins with 74 65 78 74": 2 * COUNT,
        "its id was packed before": COUNT,
    }
    want = {f"{kind}{i}" for kind in ("text", "link") for i in range(COUNT)}
    assert {refusal.id for refusal in found} == want | {"a"}
    assert Pack(tmp_path / "1").records == 1
    build([write_tree(tmp_path / "good", {"a.jpg": jpeg(noise(9, 9))})], tmp_path / "whole")
    assert not (tmp_path / "whole" / "refused.jsonl").exists()


def test_a_pack_of_nothing_lists_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the corrected source is packed into the same place."""
    tree = write_tree(tmp_path / "in", {"a.jpg": b"text"})
    out = tmp_path / "pack"
    with pytest.raises(PackError, match="no picture could be packed"):
        build([tree], out)
    assert [refusal.id for refusal in refused_by(out)] == ["a"]
    write_tree(tree, {"a.jpg": jpeg(noise(9, 9))})
    assert main(["build", str(tree), "--out", str(out), "--strict"]) == 0
    assert not (out / "refused.jsonl").exists() and "refused 0\n" in capsys.readouterr().out
