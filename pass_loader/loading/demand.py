"""Whether loading keeps up with training: from measured pieces to threads, cores, codec, dtype and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .depth import bounds

RESERVE = 0.1  # of the threads' time: pictures differ, and a loop shall not wait for the slowest


@dataclass(frozen=True, slots=True)
class Demand:
    """What training asks for.

    samples_per_second: that one GPU trains on where it never waits for data. batch_size: of one GPU, a process each.
    """

    samples_per_second: float
    gpus: int = 1
    batch_size: int = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """A codec and a dtype, measured: samples a second of one thread whose records are in memory, and a record's mean
    bytes. sample_bytes: of a sample in a batch, for each size that views have: a batch has one allocation for each."""

    codec: str
    dtype: str
    samples_per_second: float
    record_bytes: float
    sample_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pieces:
    """What was measured of a pack, a recipe and a machine.

    settings: the first is the pack as it is with float32; the others come in the order in which they are advised.
    crowding: how many times as long a sample takes where threads work on all cores. storage_bytes: that storage gives a
    second. keeps: why later epochs do not read from storage again; "" where they do. process_bytes, thread_bytes:
    private memory of a process, and of each of its threads, beside batches. index_bytes, shard_bytes: of the pack.
    """

    settings: tuple[Setting, ...]
    crowding: float
    cores: int
    storage_bytes: float
    keeps: str
    process_bytes: int
    thread_bytes: int
    index_bytes: int
    shard_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """What a setting takes. threads: for a GPU. storage_bytes, gpu_bytes: a second, of all GPUs together, to one.
    gives: samples a second for each GPU with the cores that there are, storage left aside. enough: it is fed."""

    setting: Setting
    threads: int
    storage_bytes: float
    gpu_bytes: float
    gives: float
    enough: bool


class Advice:
    """What the pieces mean for a demand.

    rows: of all settings. best: the first one that is enough, or the fastest. room: threads for each GPU, one core of
    its share left to the training loop.
    """

    def __init__(self, pieces: Pieces, demand: Demand):
        self.pieces, self.demand = pieces, demand
        self.room = max(pieces.cores // demand.gpus - 1, 1)
        self._share = min(1.0, pieces.cores / demand.gpus)  # of a core, where there are fewer than GPUs
        self.rows = [self._row(setting) for setting in pieces.settings]
        enough = [row for row in self.rows if row.enough]
        self.best = enough[0] if enough else max(self.rows, key=self._limit)

    def _row(self, setting: Setting) -> Row:
        rate, gpus = self.demand.samples_per_second, self.demand.gpus
        of_thread = (1 - RESERVE) * setting.samples_per_second / self.pieces.crowding
        gives = self.room * self._share * of_thread
        read = rate * gpus * setting.record_bytes
        enough = gives >= rate and (bool(self.pieces.keeps) or read <= self.pieces.storage_bytes)
        return Row(setting, math.ceil(rate / of_thread), read, rate * sum(setting.sample_bytes), gives, enough)

    def _limit(self, row: Row) -> float:
        """Return the samples a second that a setting has for each GPU."""
        return row.gives if self.pieces.keeps else min(row.gives, self._stored(row))

    def _stored(self, row: Row) -> float:
        """Return the samples a second for each GPU that storage gives."""
        return self.pieces.storage_bytes / row.setting.record_bytes / self.demand.gpus

    def table(self) -> str:
        """Return all settings, a line each."""
        head = ("codec", "dtype", "samples/s a thread", "threads a GPU", "storage MB/s", "MB/s to a GPU", "")
        lines = [head]
        for row in self.rows:
            rate, read, sent = row.setting.samples_per_second, row.storage_bytes / 1e6, row.gpu_bytes / 1e6
            lines.append((row.setting.codec, row.setting.dtype, f"{rate:,.0f}", f"{row.threads:,}", f"{read:,.0f}",
                          f"{sent:,.0f}", "enough" if row.enough else "too slow"))  # fmt: skip
        return "\n".join(f"{c[0]:10}{c[1]:10}{c[2]:>20}{c[3]:>15}{c[4]:>14}{c[5]:>15}  {c[6]}".rstrip() for c in lines)

    def words(self) -> str:
        """Return what the limit is and what to set, in sentences."""
        return " ".join([*self._verdict(), *self._first_epoch(), self._memory()])

    def _verdict(self) -> list[str]:
        best, plain = self.best, self.rows[0]
        rate, cores = self.demand.samples_per_second, self.pieces.cores
        process = "the process" if self.demand.gpus == 1 else f"each of {self.demand.gpus} processes"
        threads = f"num_workers={best.threads} in {process}, and a core more for its loop"
        if plain.enough:
            return [f"Loading will not be the limit: {threads}, is enough with the pack as it is and float32."]
        if best.enough:
            return [
                f"Loading would be the limit with the pack as it is and float32: {self._lacks(plain)}.",
                f"It will not be with {self._set(best)}: {threads}.",
            ]
        found = self._limit(best)
        said = [
            f"Loading will be the limit: {self._lacks(best)}.",
            f"At best, with {self._set(best)} and num_workers={self.room} in {process}, a GPU gets {found:,.0f} "
            f"samples/s, {found / rate:.0%} of what it trains on.",
        ]
        if best.gives < rate:
            said.append(f"{best.threads + 1:,} cores for each GPU would be enough, and {cores} are here for all.")
        return said

    def _lacks(self, row: Row) -> str:
        """Return why a setting is not enough."""
        if row.gives < self.demand.samples_per_second:
            room = str(self.room) if self._share == 1 else "less than one"
            return f"a GPU takes {_threads(row.threads)}, and beside its loop there are cores for {room}"
        given = self.pieces.storage_bytes / 1e6
        return f"storage gives {given:,.0f} MB/s, and {row.storage_bytes / 1e6:,.0f} are needed"

    def _set(self, row: Row) -> str:
        """Return what to set for a setting."""
        own, setting = self.rows[0].setting, row.setting
        said = [] if setting.codec == own.codec else [f"`pass-pack convert --codec {setting.codec}`"]
        if setting.dtype == "uint8":
            said.append("dtype=torch.uint8 and pass_loader.normalize on the GPU")
        elif setting.dtype != own.dtype or not said:
            said.append(f"dtype=torch.{setting.dtype}")
        return ", ".join(said)

    def _first_epoch(self) -> list[str]:
        if not self.pieces.keeps or self._stored(self.best) >= self.demand.samples_per_second:
            return []
        return [f"In the first epoch storage is the limit, with {self._stored(self.best):,.0f} samples/s for each GPU; "
                f"{self.pieces.keeps}."]  # fmt: skip

    def _memory(self) -> str:
        threads = min(self.best.threads, self.room)
        pieces, batch = self.pieces, self.demand.batch_size
        private = pieces.process_bytes + threads * pieces.thread_bytes
        return (
            f"Memory of a process: {_mb(private)} private, and at most {_mb(self.batch_bytes(threads))} of batches of "
            f"{batch}, pinned or not; shared by all processes: {_mb(pieces.index_bytes)} of index, and of the "
            f"{_mb(pieces.shard_bytes)} of shards what the page cache keeps."
        )

    def batch_bytes(self, threads: int) -> int:
        """Return the most bytes that batches take in pinned memory, the one in the loop's hands included."""
        setting, batch = self.best.setting, self.demand.batch_size
        most = bounds(2, threads, None, None, True, sum(setting.sample_bytes)).most(batch)
        rounded = (1 << (batch * size - 1).bit_length() for size in setting.sample_bytes)  # by torch's allocator
        return (most + 1) * sum(rounded)


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count:,} threads"


def _mb(size: float) -> str:
    if size >= 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"
