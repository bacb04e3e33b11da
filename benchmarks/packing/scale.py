"""What a process pays at its start for a huge pack: opening it, the first batches' keys, a saved state.

python -m benchmarks.packing.scale [--records 100000000] [--folder DIR]

The pack is generated and has no tars: an index of zeros, which is a hole on disk, and a manifest of shards of 16,384
records. Each order runs in a process of its own. Private memory is what no other process shares; the index is mapped.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pass_loader.pack.layout import INDEX, INDEX_SCHEMA
from pass_loader.pack.manifest import write_manifest
from pass_loader.pack.removed_log import counted_before_all
from pass_loader.pack.task import SHARD_RECORDS

PACK_ID = "0" * 32
ORDERS = ("permute", "blocks")


class Holes:
    """A file in which long runs are holes."""

    closed = False

    def __init__(self, path: Path):
        self.file = open(path, "wb")

    def write(self, data: Any) -> int:
        size = len(data)
        if size > 1 << 20:
            self.file.seek(size - 1, 1)
            self.file.write(b"\0")
        else:
            self.file.write(data)
        return size

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def write_pack(root: Path, records: int) -> None:
    counts = [min(SHARD_RECORDS, records - first) for first in range(0, records, SHARD_RECORDS)]
    shards = [
        {
            "tar": f"shard-{n:05d}-000.tar",
            "table": f"shard-{n:05d}-000.parquet",
            "records": count,
            "bytes": count * 110_592,
        }
        for n, count in enumerate(counts)
    ]
    crcs = dict.fromkeys([INDEX, *(shard["table"] for shard in shards)], 3_000_000_000)
    manifest = {"pack_id": PACK_ID, "records": records, "shards": shards, "index": INDEX, "crc32c": crcs}
    write_manifest(root, {**manifest, "removed": counted_before_all(PACK_ID)})
    schema = INDEX_SCHEMA.with_metadata({"pack_id": PACK_ID})
    columns = [pa.array(np.zeros(records, str(field.type))) for field in schema]
    with pa.PythonFile(Holes(root / INDEX), "w") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))


def now() -> dict[str, float]:
    """Return seconds, private bytes, bytes read and open files of this process."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    private = sum(1024 * int(kb) for kb in re.findall(r"Private_(?:Clean|Dirty): +([0-9]+)", rollup))
    read = int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])
    return {
        "s": time.monotonic(), "MB private": private / 1e6, "MB read": read / 1e6,
        "open files": len(list(Path("/proc/self/fd").iterdir())),
    }  # fmt: skip


def since(before: dict[str, float]) -> str:
    return ", ".join(f"{value - before[name]:,.3g} {name}" for name, value in now().items())


def run(root: Path, order: str) -> None:
    import torch

    import pass_loader
    from pass_loader import recipes
    from pass_loader.pack import Pack

    torch.empty(8).sum()
    before = now()
    Pack(root)
    print(f"  opening the pack: {since(before)}")
    before = now()
    dataset = pass_loader.ShardDataset(root, recipes.dino())
    loader = pass_loader.DataLoader(dataset, 64, shuffle=True, order=order, rank=1, world_size=256)
    positions = next(loader.sampler.share(len(dataset)).chunks(64)).positions
    dataset.live.records_at(positions)
    print(f"  dataset, loader and the first batch's records in order={order!r}: {since(before)}")
    before = now()
    state = json.dumps(loader.state_dict())
    print(f"  state_dict: {len(state):,} bytes, {since(before)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10**8)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options.folder, options.one)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        write_pack(root, options.records)
        sizes = {path: (root / path).stat().st_size for path in (INDEX, "pack.json")}
        print(
            f"{options.records:,} records: " + ", ".join(f"{path} {size / 1e6:,.1f} MB" for path, size in sizes.items())
        )
        for order in ORDERS:
            print(order, flush=True)
            subprocess.run(
                [sys.executable, "-m", "benchmarks.packing.scale", "--one", order, "--folder", name], check=True
            )


if __name__ == "__main__":
    main()
