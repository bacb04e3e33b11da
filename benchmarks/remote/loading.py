"""Loading from a web server on loopback, beside the server's own rate and beside a pack in a directory.

python -m benchmarks.remote.loading [--rounds 5] [--write]

Bars: with an empty cache 0.90 of the rate of the same pack in a directory, or of what the server can send beside it,
whichever is less; the cache never above its bound; private memory (RssAnon) above that with a directory at most what
requests hold together, HELD_UNITS; from a server that is far away, whose answers begin after FAR_S, 0.90 as well. For a
full cache there is full_cache.py. The page cache holds the pack. Runs take turns, each in a process of its own; figures
are medians, and a share is that of neighbours. Each recipe has a pack of PICTURES, whose epoch takes five seconds or
more: its start, which has columns of its own, is a small part of that. `--write` puts the tables and a sentence on what
was missed into docs/where-packs-lie.md.

Server, fetching and rendering share this machine's cores. So what the server can send beside it is measured as that:
the pack is loaded from the directory while a process of its own gets the same records from the server and writes them
to files, as curl would, and the rate is that of both together. It is less than the directory's where rendering alone
fills all cores. A server that is far away is asked over FAR_CONNECTIONS connections.

In a virtual machine whose host takes back free memory, what is written to a cache pays for getting it anew, and how
much depends on what the run before has freed. There the page cache is kept full (memory.FullPageCache).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from pass_loader.remote.cache import UNIT
from pass_loader.remote.fetcher import HELD_UNITS

from ..memory import FullPageCache, Peak, gib_written_s
from ..pages import write_between
from ..pictures import write_pack
from .server import serving

PAGE = Path(__file__).parents[2] / "docs" / "where-packs-lie.md"
BATCH = 32
CONNECTIONS = 16
PICTURES = {"dino": 4000, "evaluate": 10_000}
HEAD = (
    "| recipe, threads | directory, samples/s | beside curl's work | empty cache | kB/sample | "
    "CPU, ms/sample | first, ms | first, empty, ms | private, MB | private, empty, MB |"
)
FAR_S, FAR_RATE = (0.020, 0.050), 90e6  # of S3: seconds until an answer begins, bytes a second of a connection
FAR_CONNECTIONS = 128
FAR_HEAD = (
    "| answers begin after, ms | recipe, threads | directory, samples/s | the server, samples/s | beside curl's work | "
    "empty cache |"
)
FAR_WORDS = (
    f"From a server that is far away: on each connection it sends at most {FAR_RATE / 1e6:.0f} MB/s. Beside it what it "
    f"sends over {FAR_CONNECTIONS} connections, in samples, and the share of a directory's rate while another process "
    "gets the records so."
)
_page_cache: FullPageCache | None = None  # where free memory is dear


def of_process(place: str, recipe: str, threads: int, cache: str | None, cache_bytes: int | None, server: str | None,
               connections: int, options: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Load an epoch; with a server also get the pack's records from it. Returns rates, times and counts."""
    import torch

    from pass_loader import DataLoader, ShardDataset, recipes

    torch.set_num_threads(1)
    began = time.perf_counter()
    remote = {} if cache is None else {"cache": cache, "cache_bytes": cache_bytes or "50GB"}
    dataset = ShardDataset(place, recipes.named(recipe), **remote)
    opened = time.perf_counter()
    samples, first, most = 0, 0.0, 0
    with Peak() as private:
        receiving = 0 if server is None else receive_in_a_fork(server, records_of(Path(place)), connections)
        loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=threads, rank=0, world_size=1, **options)
        for batch in loader:
            samples += len(batch[-1])
            first = first or time.perf_counter()
            if cache and cache_bytes and not samples // BATCH % 4:
                most = max(most, disk_bytes(Path(cache)))
        if receiving and os.waitpid(receiving, 0)[1]:
            raise RuntimeError(f"{server}: the records did not come")
        ended = time.perf_counter()
    return {
        "rate": samples / (ended - opened), "first_ms": 1000 * (first - began), "most_bytes": most,
        "cpu_ms": 1000 * time.process_time() / samples, "remote": loader.stats()["remote"],
        "private_bytes": private.most,
    }  # fmt: skip


def disk_bytes(cache: Path) -> int:
    """Return what the disk gives to the shards in a cache."""
    return sum(path.stat().st_blocks * 512 for path in cache.rglob("*.tar"))


def in_a_process(place: str, recipe: str, threads: int, cache: Path | None = None, cache_bytes: int | None = None,
                 server: str | None = None, connections: int = CONNECTIONS,
                 **options: Any) -> dict[str, Any]:  # fmt: skip
    """Return what `of_process` returns, from a process of its own."""
    if _page_cache is not None:
        _page_cache.fill()
    kept = str(cache) if cache else None
    given = json.dumps([place, recipe, threads, kept, cache_bytes, server, connections, options])
    command = [sys.executable, "-m", "benchmarks.remote.loading", "--one", given]
    return json.loads(subprocess.check_output(command, text=True))


def received(url: str, ranges: list[tuple[str, int, int]], connections: int, folder: Path | None = None) -> float:
    """Return the bytes a second at which ranges of files (name, begin, end) come over so many connections.

    folder: where each connection writes what it gets to a file that is gone at the end; None: it is kept nowhere.
    """
    host, port = url.split("/")[2].split(":")
    left = iter(ranges)
    guard = threading.Lock()

    def read() -> None:
        buffer = memoryview(bytearray(1 << 20))
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            file = folder and stack.enter_context(tempfile.TemporaryFile(buffering=0, dir=folder))
            while True:
                with guard:
                    found = next(left, None)
                if found is None:
                    return
                name, begin, end = found
                connection.sendall(f"GET /{name} HTTP/1.1\r\nRange: bytes={begin}-{end - 1}\r\n\r\n".encode())
                got = connection.recv_into(buffer)
                came = buffer[bytes(buffer[:got]).index(b"\r\n\r\n") + 4 : got]
                missing = end - begin - len(came)
                while True:
                    if file:
                        file.write(came)
                    if not missing:
                        break
                    came = buffer[: connection.recv_into(buffer, min(missing, len(buffer)))]
                    missing -= len(came)

    began = time.perf_counter()
    threads = [threading.Thread(target=read) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(end - begin for _, begin, end in ranges) / (time.perf_counter() - began)


def receive_in_a_fork(server: str, ranges: list[tuple[str, int, int]], connections: int) -> int:
    """Return the number of a process that gets the ranges, writes them to files and ends."""
    child = os.fork()
    if child:
        return child
    try:
        received(server, ranges, connections, Path(tempfile.gettempdir()))
        os._exit(0)
    finally:
        os._exit(1)


def records_of(pack: Path) -> list[tuple[str, int, int]]:
    """Return where a pack's records lie on its server, in a random order."""
    from pass_loader.pack import Pack

    opened = Pack(pack)
    columns = [opened.column(name).tolist() for name in ("shard", "offset", "length")]
    names = [f"{pack.name}/{shard['tar']}" for shard in opened.shards]
    records = [(names[shard], offset, offset + length) for shard, offset, length in zip(*columns)]
    return [records[place] for place in np.random.default_rng(0).permutation(len(records))]


def size_of(pack: Path) -> tuple[int, int]:
    """Return how many records a pack has, and the bytes of its tars."""
    from pass_loader.pack import Pack

    return Pack(pack).records, sum(path.stat().st_size for path in pack.glob("*.tar"))


def server_rates(url: str, pack: Path) -> tuple[float, float]:
    """Return the bytes a second of the server: in ranges of 8 MiB in order, and in records in a random order."""
    step, large = 8 << 20, []
    for tar in sorted(pack.glob("*.tar")):
        size = tar.stat().st_size
        large += [(f"{pack.name}/{tar.name}", begin, min(size, begin + step)) for begin in range(0, size, step)]
    return received(url, large, CONNECTIONS), received(url, records_of(pack), CONNECTIONS)


def runs_of(rounds: int, pack: Path, server: str, folder: Path, recipe: str, threads: int,
            connections: int = CONNECTIONS) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """Return so many runs of a directory, that beside curl's work over so many connections, and an empty cache, in
    turns."""
    found: dict[str, list[dict[str, Any]]] = {"directory": [], "beside": [], "empty": []}
    for number in range(rounds):
        names = [*found]
        for name in names[number % 3 :] + names[: number % 3]:
            if name == "empty":
                found[name].append(in_a_process(f"{server}{pack.name}", recipe, threads, folder / "empty"))
                shutil.rmtree(folder / "empty")
            else:
                beside = server if name == "beside" else None
                run = in_a_process(str(pack), recipe, threads, server=beside, connections=connections)
                found[name].append(run)
    return found


def shares(rounds: int, pack: Path, server: str, folder: Path, recipe: str, threads: int) -> dict[str, Any]:
    """Return the medians of so many rounds of a directory, that beside curl's work, and an empty cache."""
    found = runs_of(rounds, pack, server, folder, recipe, threads)
    rates = {name: [run["rate"] for run in runs] for name, runs in found.items()}
    share = {name: statistics.median(np.divide(rates[name], rates["directory"])) for name in ("beside", "empty")}
    rate = {name: statistics.median(of_runs) for name, of_runs in rates.items()}
    first = {name: statistics.median(run["first_ms"] for run in runs) for name, runs in found.items()}
    cpu = {name: statistics.median(run["cpu_ms"] for run in runs) for name, runs in found.items()}
    private = {name: max(run["private_bytes"] for run in runs) for name, runs in found.items()}
    last = found["empty"][-1]["remote"]
    return {"rate": rate, "share": share, "first_ms": first, "cpu_ms": cpu, "private": private, "remote": last}


def far_shares(rounds: int, pack: Path, server: str, folder: Path, recipe: str, threads: int) -> dict[str, Any]:
    """Return the median rate from a directory, and the shares of it beside curl's work and of an empty cache, in turns,
    with this server."""
    runs = runs_of(rounds, pack, server, folder, recipe, threads, FAR_CONNECTIONS)
    found = {name: [run["rate"] for run in of_name] for name, of_name in runs.items()}
    share = {name: statistics.median(np.divide(found[name], found["directory"])) for name in found}
    return {"rate": statistics.median(found["directory"]), "share": share}


def parser_for(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return a parser of what the scripts of this folder that measure recipes by threads take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--recipes", nargs="+", default=[*PICTURES], choices=PICTURES)
    parser.add_argument("--folder", type=Path, help="of the cache, a local disk (default: a temporary folder)")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    parser = parser_for(__doc__, rounds=5)
    parser.add_argument("pack", type=Path, nargs="?", help="of photographs; default: generated pictures")
    parser.add_argument("--pictures", type=int, help="of each generated pack")
    given = parser.parse_args()
    if given.one:
        *others, options = json.loads(given.one)
        print(json.dumps(of_process(*others, options)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        packs = {
            recipe: given.pack.absolute() if given.pack else write_pack(folder / recipe, given.pictures or pictures)
            for recipe, pictures in PICTURES.items()
            if recipe in given.recipes
        }
        report(given, packs, folder)


def about_memory(folder: Path) -> str:
    """Keep the page cache full from now on where free memory is dear. Returns a sentence on it."""
    global _page_cache
    dear, cheap = gib_written_s(folder)
    if dear > 2 * cheap:
        _page_cache = FullPageCache(folder)
    took = f"A GiB written to a file takes {dear:.2f} s where memory was free for long, {cheap:.2f} s where it was not"
    return f"{took}{': so the page cache was kept full' if _page_cache else ''}."


def report(given: argparse.Namespace, packs: dict[str, Path], folder: Path) -> None:
    """Measure, print the tables and what came of the bars, and write them into the page if that is asked for."""
    missed: list[str] = []
    memory = about_memory(folder)
    lines = [HEAD, "| --- |" + " ---: |" * 9]
    for recipe, pack in packs.items():
        with serving(pack.parent) as server:
            large, small = server_rates(server, pack)
            print(f"the server: {large / 1e6:,.0f} MB/s in ranges of 8 MiB, {small / 1e6:,.0f} in records", flush=True)
            for threads in given.threads:
                lines.append(report_near(given.rounds, pack, server, folder, recipe, threads, small, missed))
    report_bound(folder, *next(iter(packs.items())), given.threads[-1], missed)
    far = report_far(given, packs, folder, missed)
    words = f"Bars that were missed: {'; '.join(missed)}." if missed else "All bars were met."
    words = f"Medians of {given.rounds} rounds. {words} {memory}"
    print(words)
    if given.write:
        write_between(PAGE, "remote", "\n".join([*lines, "", words, "", FAR_WORDS, "", *far]))


def report_near(rounds: int, pack: Path, server: str, folder: Path, recipe: str, threads: int, sends: float,
                missed: list[str]) -> str:  # fmt: skip
    """Measure with a server that is near and sends so many bytes a second, print and return the row; bars that are
    missed go into the list."""
    pictures, tars = size_of(pack)
    found = shares(rounds, pack, server, folder, recipe, threads)
    names = ("rate", "share", "first_ms", "cpu_ms", "private")
    rate, share, first, cpu, private = (found[name] for name in names)
    line = (
        f"| {recipe}, {threads} | {rate['directory']:,.0f} | {share['beside']:.2f} | {share['empty']:.2f} | "
        f"{found['remote']['bytes'] / pictures / 1e3:,.0f} | "
        f"{cpu['empty'] - cpu['directory']:.2f} | {first['directory']:,.0f} | "
        f"{first['empty']:,.0f} | {private['directory'] / 1e6:,.0f} | {private['empty'] / 1e6:,.0f} |"
    )
    print(line, flush=True)
    could = min(1.0, share["beside"], sends * pictures / tars / rate["directory"])
    value = share["empty"] / could
    print(f"  empty cache: {value:.3f}, bar 0.9: {'met' if value >= 0.9 else 'missed'}", flush=True)
    if value < 0.9:
        missed.append(f"{recipe}, {threads} ({value:.2f}, bar 0.9)")
    more, held = private["empty"] - private["directory"], HELD_UNITS * UNIT
    print(f"  private memory: {more:,} bytes more, bar {held:,}: {'met' if more <= held else 'missed'}")
    if more > held:
        missed.append(f"private memory of {recipe}, {threads} ({more / 1e6:,.0f} MB more, bar {held / 1e6:,.0f} MB)")
    return line


def report_bound(folder: Path, recipe: str, pack: Path, threads: int, missed: list[str]) -> None:
    """Print what a cache held that has room for a quarter of the pack; a bound that it passed goes into the list."""
    bound = size_of(pack)[1] // 4
    with serving(pack.parent) as server:
        bounded = in_a_process(f"{server}{pack.name}", recipe, threads, folder / "bound", bound, order="blocks",
                               block_bytes=8 << 20, window_bytes=bound // 2)  # fmt: skip
    held = bounded["most_bytes"]
    print(f"a cache of {bound:,} bytes held at most {held:,}: {'met' if held <= bound else 'missed'}", flush=True)
    if held > bound:
        missed.append(f"the bound of a cache ({held / 1e6:,.0f} MB, bar {bound / 1e6:,.0f} MB)")


def report_far(given: argparse.Namespace, packs: dict[str, Path], folder: Path, missed: list[str]) -> list[str]:
    """Measure with servers that are far away, print and return the table; bars that are missed go into the list."""
    lines = [FAR_HEAD, "| ---: | --- |" + " ---: |" * 4]
    for answer_s, (recipe, pack) in itertools.product(FAR_S, packs.items()):
        pictures, tars = size_of(pack)
        threads = given.threads[-1]
        with serving(pack.parent, answer_s, FAR_RATE) as server:
            could = received(server, records_of(pack), FAR_CONNECTIONS) * pictures / tars
            found = far_shares(given.rounds, pack, server, folder, recipe, threads)
        rate, share = found["rate"], found["share"]
        lines.append(
            f"| {1000 * answer_s:.0f} | {recipe}, {threads} | {rate:,.0f} | {could:,.0f} | {share['beside']:.2f} | "
            f"{share['empty']:.2f} |"
        )
        value = share["empty"] / min(1.0, share["beside"], could / rate)
        print(f"{lines[-1]}\n  {value:.3f}, bar 0.9: {'met' if value >= 0.9 else 'missed'}", flush=True)
        if value < 0.9:
            missed.append(f"{recipe}, {threads} from {1000 * answer_s:.0f} ms away ({value:.2f}, bar 0.9)")
    return lines


if __name__ == "__main__":
    main()
