"""What packing by tasks costs beside the pictures: planning, deciding, joining metadata, writing tables, each task.

python -m benchmarks.packing.tasks [--rows 10000000] [--sources 5000] [--tasks 400] [--folder DIR] [NAME...]

Bars are printed as met or missed; the exit status is 1 where one is missed.

    plan      the plan of 5,000 tars of 4 GiB, which are holes: seconds, and bytes read of them
    walk      the plan of one tar that is cut: us a member, of 200,000 small ones
    decision  what repeats an id, over generated rows of as many pictures, 5 % of them repeated: rows a second
    decision-first   the same with on_duplicate="first", which decides about bytes too
    tables    index, pack_id and Parquet files of the same rows; and us for each picture that is read again because
              another one has its length and CRC, one in ten
    joined    the tables with a table of metadata of as many rows in another order; nothing is read again
    shares    the same tables, joined and written by two processes that share the tasks, as machines do
    ray       ms a task that does nothing, on a cluster of two CPUs on this machine; left out where Ray is not installed
    overhead  ms a task: tars of one picture, a task each, beside all of them in one task; us a picture of a larger tar

Each runs in a process of its own. Its peak is of memory that the kernel cannot take back (RssAnon). Rows are those
that tasks leave; their tars are holes. A row has about 200 bytes on disk.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pass_loader.pack import arrow
from pass_loader.pack.build import build, plan
from pass_loader.pack.columns import IndexColumns
from pass_loader.pack.decision import decide
from pass_loader.pack.destination import Destination
from pass_loader.pack.finish import Finish, Tables
from pass_loader.pack.metadata import Metadata
from pass_loader.pack.own_columns import OwnColumns
from pass_loader.pack.plan import Chosen, Plan
from pass_loader.pack.ray_runner import run_on_ray
from pass_loader.pack.repeats import digest_of
from pass_loader.pack.report import Report
from pass_loader.pack.running import Running
from pass_loader.pack.shards import ROWS_SCHEMA, Options, Shard
from pass_loader.pack.source import Naming
from pass_loader.pack.task import SHARD_RECORDS

from ..memory import Peak
from ..pictures import LICENCE, cuts

NAMES = ("plan", "walk", "decision", "decision-first", "tables", "joined", "shares", "ray", "overhead")
OF_ROWS = ("decision", "decision-first", "tables", "joined", "shares")
# (figure, least, most) of each.
BARS = {
    "plan": [("seconds", 0.0, 10.0)],
    "decision": [("rows_s", 1e6, np.inf), ("peak_mb", 0.0, 2000.0)],
    "decision-first": [("rows_s", 1e6, np.inf), ("peak_mb", 0.0, 2000.0)],
    "tables": [("peak_mb", 0.0, 2000.0)],
    "joined": [("rows_s", 2e5, np.inf), ("peak_mb", 0.0, 2000.0)],
    "shares": [("rows_s", 2e5, np.inf), ("peak_mb", 0.0, 2000.0)],
}


def ids_of(first: int, count: int) -> list[str]:
    return [f"{number:030x}" for number in range(first, first + count)]


def write_rows(root: Path, rows: int) -> list[str]:
    """Write the rows of shards, as tasks leave them, and tars of holes; one picture in 20 has the bytes of another."""
    names = []
    for number, first in enumerate(range(0, rows, SHARD_RECORDS)):
        count = min(SHARD_RECORDS, rows - first)
        ids = ids_of(first, count)
        numbers = np.arange(first, first + count)
        keys = b"".join(digest_of(id.encode()) for id in ids)
        alike = np.where(numbers % 20 == 19, numbers - 10, numbers).astype("<u8")
        digests = np.stack([alike * np.uint64(0x9E3779B97F4A7C15), alike], axis=1).astype("<u8").tobytes()
        made: dict[str, Any] = {
            "id": arrow.strings(ids),
            "codec": arrow.strings(["jpeg"] * count),
            "file": arrow.strings([f"{number}.tar: {id}.jpg" for id in ids]),
            "key": pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(keys)]),
            "digest": pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(digests)]),
            "offset": arrow.numbers(np.arange(count) * 110_592 + 512),
            "length": arrow.numbers(100_000 + (alike % 9999).astype(np.int64)),
            "crc32c": arrow.numbers((alike * np.uint64(2654435761)).astype(np.uint32)),
        }
        for field in ROWS_SCHEMA:
            if field.name in ("label", "class_name", "metadata", "points"):
                made[field.name] = pa.nulls(count, field.type)
            elif field.name not in made:
                made[field.name] = arrow.numbers(np.full(count, 7, arrow.dtype_of(field.type)))
        table = pa.table([made[name] for name in ROWS_SCHEMA.names], schema=ROWS_SCHEMA)
        shard = Shard(f"shard-{number:05d}-000", table, "")
        temporary, path = shard.save(root)
        temporary.rename(path)
        with open(root / shard.tar, "wb") as file:
            file.truncate(count * 110_592 + 512)
        names.append(shard.name)
    return names


def write_metadata(path: Path, rows: int) -> None:
    """Write PASS's columns for these ids, in another order."""
    types = dict.fromkeys(("hash", "unickname", "licensename", "latitude", "longitude", "datetaken"), pa.string())
    schema = pa.schema({**types, "latitude": pa.float64(), "longitude": pa.float64()})
    step = 1 << 17
    starts = np.random.default_rng(0).permutation(np.arange(0, rows, step))
    with pq.ParquetWriter(path, schema) as writer:
        for start in starts.tolist():
            ids = ids_of(start, min(step, rows - start))[::-1]
            users = [f"user+{number % 30_000}" for number in range(len(ids))]
            places = (start + np.arange(len(ids))) / 1000
            dates = ["2011-03-05 02:19:44.0"] * len(ids)
            columns = [ids, users, [LICENCE] * len(ids), places, places, dates]
            writer.write_table(pa.table(columns, schema=schema))


def run_plan(folder: Path, count: int) -> dict[str, float]:
    sources = []
    for number in range(count):
        path = folder / f"{number:05d}.tar"
        with open(path, "wb") as file:
            file.truncate(4 << 30)
        sources.append(path)

    def read() -> int:
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

    before, began = read(), time.monotonic()
    tasks = plan(sources, folder / "pack")
    return {"seconds": time.monotonic() - began, "tasks": tasks, "read": read() - before}


def run_walk(folder: Path, members: int) -> dict[str, float]:
    large = folder / "large.tar"
    with open(large, "wb") as file:
        for number in range(members):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = tarfile.BLOCKSIZE
            file.write(member.tobuf(tarfile.USTAR_FORMAT) + bytes(tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    began = time.monotonic()
    tasks = plan([large], folder / "pack", task_bytes=large.stat().st_size // 10)
    return {"us_a_member": 1e6 * (time.monotonic() - began) / members, "tasks": tasks}


def run_rows(name: str, folder: Path, rows: int) -> dict[str, float]:
    root = folder / "pack"
    names = sorted(path.stem for path in root.glob("*.rows"))
    if name.startswith("decision"):
        counts = [SHARD_RECORDS] * (len(names) - 1) + [rows - SHARD_RECORDS * (len(names) - 1)]
        with Peak() as peak:
            began = time.monotonic()
            reasons, _, _ = decide(root, "first" if name == "decision-first" else "keep", names, counts)
            gone = int(np.count_nonzero(reasons))
            seconds = time.monotonic() - began
        assert gone == (rows // 20 if name == "decision-first" else 0)
        return {"seconds": seconds, "rows_s": rows / seconds, "peak_mb": peak.most / 1e6}
    with Peak() as peak:
        began = time.monotonic()
        report = Report(without_metadata=None if name == "tables" else 0)
        finish = finish_of(folder, names, name != "tables")
        if name == "shares":
            how = Running(1, share=(0, 2))
            finish.planned(how).save(root)
            command = [sys.executable, "-m", "benchmarks.packing.tasks", "--folder", str(folder)]
            shares = [
                subprocess.Popen([*command, "--one", f"share{index}"], stdout=subprocess.PIPE, text=True)
                for index in range(2)
            ]
            most = max(json.loads(share.communicate()[0])["peak_mb"] for share in shares)
        else:
            finish.tables(report, Running())
        seconds = time.monotonic() - began
    if name == "shares":
        return {"seconds": seconds, "rows_s": rows / seconds, "peak_mb": most}
    assert report.pictures == rows and not report.without_metadata and not report.metadata_unused
    seconds -= finish.counted_s
    found = {"seconds": seconds, "rows_s": rows / seconds, "peak_mb": peak.most / 1e6}
    return found | ({"us_a_reread": 1e6 * finish.counted_s / (2 * (rows // 20))} if name == "tables" else {})


class TimedFinish(Finish):
    """Tells how long pictures that are alike took, seconds; with metadata they are not looked at."""

    counted_s = 0.0

    def count_same_bytes(self, index: IndexColumns, shards: list[dict[str, Any]], threads: int) -> int:
        if self.metadata is not None:
            return 0
        began = time.monotonic()
        found = super().count_same_bytes(index, shards, threads)
        self.counted_s = time.monotonic() - began
        return found


def plan_of_rows() -> Plan:
    chosen = Chosen(Options(), Naming())
    command = {"options": chosen.options.as_plan(), "naming": {}, "sources": [], "metadata": None}
    return Plan(command, [], [], [], [], None, [], [])


def finish_of(folder: Path, names: list[str], with_metadata: bool) -> TimedFinish:
    metadata = Metadata(folder / "metadata.parquet", "hash") if with_metadata else None
    return TimedFinish(Destination(folder / "pack"), plan_of_rows(), names, OwnColumns(), {}, metadata)


def run_share(folder: Path, index: int) -> dict[str, float]:
    tables = Tables.load(folder / "pack", plan_of_rows())
    assert tables is not None
    with Peak() as peak:
        tables.write_share(Destination(folder / "pack"), Running(1, share=(index, 2)))
    return {"peak_mb": peak.most / 1e6}


def run_overhead(folder: Path, tasks: int) -> dict[str, float]:
    pictures = [data for _, _, data in cuts(32)]

    def write(path: Path, first: int, count: int) -> Path:
        with tarfile.open(path, "w") as tar:
            for place in range(first, first + count):
                data = pictures[place % len(pictures)]
                member = tarfile.TarInfo(f"{place:06d}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        return path

    small = [write(folder / f"{number:05d}.tar", number, 1) for number in range(tasks)]
    large = write(folder / "large.tar", 0, 50 * tasks)
    seconds = {}
    for name, sources, task_bytes in (("apart", small, 1), ("together", small, 1 << 40), ("large", [large], 1 << 40)):
        times, began = os.times(), time.monotonic()
        build(sources, folder / name, task_bytes=task_bytes, workers=1)
        seconds[name] = time.monotonic() - began
        seconds[f"cpu_{name}"] = sum(os.times()[:2]) - sum(times[:2])
    each = (tasks - 1) / 1e3
    return {
        "ms_a_task": (seconds["apart"] - seconds["together"]) / each,
        "cpu_ms_a_task": (seconds["cpu_apart"] - seconds["cpu_together"]) / each,
        "us_a_picture": 1e6 * (seconds["large"] - seconds["together"]) / (49 * tasks),
        "cpu_us_a_picture": 1e6 * (seconds["cpu_large"] - seconds["cpu_together"]) / (49 * tasks),
    }


def run_ray(tasks: int) -> dict[str, float]:
    try:
        import ray
    except ImportError:
        return {}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    run_on_ray(int, [(0,)] * 20)  # starts workers
    began = time.monotonic()
    run_on_ray(int, [(0,)] * 10 * tasks)
    seconds = time.monotonic() - began
    ray.shutdown()
    return {"ms_a_task": 1e3 * seconds / (10 * tasks)}


def child(name: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.packing.tasks", "--one", name, "--folder", str(folder)]
    numbers = [f"--{name}={getattr(options, name)}" for name in ("rows", "sources", "tasks")]
    return json.loads(subprocess.check_output([*command, *numbers], text=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--rows", type=int, default=10**7)
    parser.add_argument("--sources", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.one == "rows":
            write_rows(options.folder / "pack", options.rows)
            write_metadata(options.folder / "metadata.parquet", options.rows)
            print("{}")
        elif options.one == "plan":
            print(json.dumps(run_plan(options.folder, options.sources)))
        elif options.one == "walk":
            print(json.dumps(run_walk(options.folder, 40 * options.sources)))
        elif options.one == "ray":
            print(json.dumps(run_ray(options.tasks)))
        elif options.one.startswith("share") and options.one != "shares":
            print(json.dumps(run_share(options.folder, int(options.one[5:]))))
        elif options.one == "overhead":
            print(json.dumps(run_overhead(options.folder, options.tasks)))
        else:
            print(json.dumps(run_rows(options.one, options.folder, options.rows)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        wanted = options.names or NAMES
        missed = 0
        (folder / "pack").mkdir()
        if {*OF_ROWS} & {*wanted}:
            child("rows", folder, options)
        for one in wanted:
            place = folder if one in OF_ROWS else folder / one
            place.mkdir(exist_ok=True)
            found = child(one, place, options)
            told = ", ".join(
                f"{name} {value:,.4g}" if value < 1e4 else f"{name} {value:,.0f}" for name, value in found.items()
            )
            bars = [in_words(found, *bar) for bar in BARS.get(one, []) if found]
            missed += sum(bar.endswith("missed") for bar in bars)
            print(f"{one:14} {told or 'left out'}" + (f"  ({'; '.join(bars)})" if bars else ""), flush=True)
    sys.exit(missed > 0)


def in_words(found: dict[str, float], name: str, least: float, most: float) -> str:
    """Return a bar, and whether it is met."""
    bar = f"at least {least:,.0f}" if most == np.inf else f"below {most:,.0f}"
    return f"bar: {name} {bar}: {'met' if least <= found[name] < most else 'missed'}"


if __name__ == "__main__":
    main()
