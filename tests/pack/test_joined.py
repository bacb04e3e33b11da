"""Metadata is joined by sorting on disk: rows in any order, in bounded memory, and every row finds its picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pass_loader.pack import repeats
from pass_loader.pack.repeats import Firsts

JOIN = """
import json, sys, time
from pathlib import Path
import numpy as np
from benchmarks.packing import tasks
from pass_loader.pack import join, metadata, repeats
from pass_loader.pack.destination import Destination
from pass_loader.pack.running import Running
root, rows, bucket = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
repeats._BUCKET = bucket
if bucket < 1 << 20:
    join._ROUND_ROWS, join._WRITTEN_ROWS = 1 << 16, bucket
tasks.write_metadata(root / "m.parquet", rows)
shards = [(name, tasks.SHARD_RECORDS * place) for place, name in enumerate(tasks.write_rows(root, rows + 5))]
groups = [shards[start : start + 64] for start in range(0, len(shards), 64)]  # five pictures have no row
with tasks.Peak() as before:
    time.sleep(0.1)
with tasks.Peak() as peak:
    table = metadata.Table(root / "m.parquet", "hash")
    columns = ["unickname", "latitude", "licensename"]
    begins = [group[0][1] for group in groups]
    joining, out = join.Join.of(table, None, columns, rows + 5, begins, "", False), Destination(root)
    joining.run(out, groups, Running(1))
    joining.forget(out)
    found = join.Joined(out, joining)
    found.bring(0, rows + 5)
right, step = 0, 1 << 17
for start in range(0, rows, step):
    end = min(start + step, rows)
    want = (start + np.arange(end - start)[::-1]) / 1000  # as write_metadata has them
    right += (found.take(start, end).column("latitude").to_numpy() == want).all()
without = found.take(rows, rows + 5).column("unickname").null_count
print(json.dumps([int(right), int(without), found.rows - found.used, (peak.most - before.most) / 1e6]))
"""


def joined(root: Path, rows: int, bucket: int) -> float:
    """Join a table of so many rows with pictures of the same ids in another order; return by how many MB it grew."""
    command = [sys.executable, "-c", JOIN, str(root), str(rows), str(bucket)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    right, without, unused, peak = json.loads(done.stdout)
    assert right == -(-rows // (1 << 17)) and without == 5 and unused == 0
    return peak


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """Kills: a table, which is 180 MB, in memory beside what a row group takes."""
    assert joined(tmp_path, 1_200_000, 1 << 13) < 170


@pytest.mark.long
def test_a_table_of_many_rows(tmp_path: Path) -> None:
    """30,000,000 rows, of which the strings alone are 3 GB, in 600 MB."""
    assert joined(tmp_path, 30_000_000, 1 << 22) < 600


@pytest.mark.parametrize("bucket", [1, 8, 1 << 22])
def test_firsts(tmp_path: Path, bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of keys that differ in one half alone too; nulls are equal to nothing."""
    monkeypatch.setattr(repeats, "_BUCKET", bucket)
    dice = np.random.default_rng(0)
    for most in (2, 5, 300):
        alike = [bytes([first, *[0] * 14, last]) for first, last in dice.integers(0, 2, (250, 2)).tolist()]
        keys = [*alike, *map(bytes, dice.integers(0, min(most, 256), (250, 16)).tolist())]
        order = dice.permutation(len(keys)).tolist()
        rows = [keys[place] if dice.random() < 0.9 else None for place in order]
        firsts = Firsts(tmp_path, len(rows))
        for start in range(0, len(rows), 77):
            firsts.add(pa.chunked_array([pa.array(rows[start : start + 77], pa.binary(16))]))
        before: dict[bytes, int] = {}
        want = [0 if key is None or before.setdefault(key, row) == row else before[key] + 1
                for row, key in enumerate(rows)]  # fmt: skip
        assert firsts.sort().tolist() == want
