"""Large packs and long runs: memory that does not grow with the pack or with the epochs. Bytes, not time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.packing.scale import write_pack
from pass_loader.pack import Pack, purge, remove

from ..helpers.epochs import COUNT
from ..helpers.sealing import write_log

pytestmark = pytest.mark.slow


RECORDS = 10**8
BEGIN = "import json, re, sys, torch, torch.distributed, pyarrow.parquet\nsys.argv.pop(0)\n"
MEASURE = """
def private():
    rollup = open("/proc/self/smaps_rollup").read()
    return sum(1024 * int(kb) for kb in re.findall(r"Private_(?:Clean|Dirty): +([0-9]+)", rollup))
"""


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of 10^8 records without its shards: enough to open it and to draw keys."""
    root = tmp_path_factory.mktemp("huge")
    write_pack(root, RECORDS)
    return root


def child(code: str, *arguments: object) -> Any:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", BEGIN + MEASURE + code, "-", *map(str, arguments)]
    return json.loads(subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout)


def test_opening_a_hundred_million_records(huge: Path) -> None:
    """Opening, the first keys of a permuted epoch, of a resumed and of an endless one: below 30 MB."""
    assert (huge / "index.arrow").stat().st_size > 45 * RECORDS > 100 * 512 * (huge / "index.arrow").stat().st_blocks
    found = child(
        """
import pass_loader
from pass_loader import recipes
torch.empty(8).sum()
before = private()
dataset = pass_loader.ShardDataset(sys.argv[1], recipes.dino())
loader = pass_loader.DataLoader(dataset, 64, shuffle=True, order="permute", rank=1, world_size=2)
out = {"length": len(loader), "records": []}
import numpy as np
from pass_loader.loading.drawing import NONE_GONE, EndlessDrawing
from pass_loader.loading.resume import Progress
live, start = dataset.live, 10**7 * 128
positions = next(loader.sampler.share(len(live)).chunks(64)).positions
out["records"] += live.records_at(positions).tolist()
number = start // len(live)
progress = Progress(0, 0, 0, len(live), 2, start, passed=number, pass_start=number * len(live))
far = next(EndlessDrawing(loader.sampler, 64, False).draw(progress, live, NONE_GONE, None))
out["records"] += far.keys.records.tolist()
dataset.reader, loader.state_dict()
out["private"] = private() - before
print(json.dumps(out))
""",
        huge,
    )
    assert found["length"] == -(-RECORDS // 2 // 64) and len(set(found["records"])) == 128
    assert max(found["records"]) > 9 * 10**7 and found["private"] < 30e6, found["private"]


def test_a_purged_pack_costs_what_the_purge_touched(tiny: Path, tmp_path: Path) -> None:
    """Opening looks for purged records in the shards that a purge has written, and nowhere else."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    remove(copy, ["03"], reason="x")
    purge(copy)
    looked: list[tuple[int, int]] = []

    class Watched(Pack):
        def values(self, name: str, records: np.ndarray) -> np.ndarray:
            if name == "length":
                looked.append((int(records[0]), int(records[-1]) + 1))
            return super().values(name, records)

    pack = Watched(copy)
    assert pack.removed.tolist() == [3] and looked == [(0, int(pack.first_record[1]))]
    write_log(copy, [])
    assert Pack(copy).removed.tolist() == [3], "whatever the log says"


def test_a_missing_index_is_rebuilt_with_a_bar(tiny: Path, tmp_path: Path) -> None:
    """The same bytes as before; a bar on stderr where it takes longer than a second."""
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    before = (copy / "index.arrow").read_bytes()
    (copy / "index.arrow").unlink()
    code = (
        "import sys, time\n"
        "import pass_loader.pack.reader as reader\n"
        "read = reader.read_table\n"
        "reader.read_table = lambda *arguments: (time.sleep(0.6), read(*arguments))[1]\n"
        "print(len(reader.Pack(sys.argv[1])))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(copy)], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == f"{COUNT}\n" and f"{copy}: rebuilding index.arrow" in done.stderr and "/5" in done.stderr
    assert (copy / "index.arrow").read_bytes() == before


@pytest.mark.parametrize("arguments", ["num_workers=0", "num_workers=2, prefetch_bytes=0, on_error='replace'"])
def test_memory_of_a_hundred_epochs(tiny: Path, arguments: str) -> None:
    """Flat from the fifth epoch on, iterators left off included: less than one batch more."""
    found = child(
        f"""
import pass_loader
from pass_loader import Recipe, ViewSpec
dataset = pass_loader.ShardDataset(sys.argv[1], Recipe("one", (ViewSpec(96, (0.3, 1.0)), ViewSpec(32, (0.3, 1.0)))))
loader = pass_loader.DataLoader(dataset, 16, shuffle=True, return_info=True, {arguments})
private_bytes = []
for epoch in range(100):
    loader.sampler.set_epoch(epoch)
    for batch in loader:
        pass
    next(iter(loader))
    private_bytes.append(private())
print(json.dumps(private_bytes))
""",
        tiny,
    )
    assert len(found) == 100 and found[-1] - found[4] < 2e6, (found[4], found[-1])


def test_processes_share_the_index(huge: Path) -> None:
    """Touching a column of 10^8 records dirties no memory: its pages are the page cache's, one for all processes."""
    found = child(
        """
import pass_loader.pack
pack = pass_loader.pack.Pack(sys.argv[1])
def dirty():
    rollup = open("/proc/self/smaps_rollup").read()
    return 1024 * int(re.search("Private_Dirty: +([0-9]+)", rollup)[1])
before = dirty()
total = int(pack.column("crc32c")[:20_000_000].max())
print(json.dumps([total, dirty() - before]))
""",
        huge,
    )
    assert found[0] == 0 and found[1] < 5e6
