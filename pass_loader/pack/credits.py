"""`pass-pack attribution --out`: the credits of a whole pack, which need not fit into memory, into a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from .attribution import CHANGES, FORMATS, CreditText, attribution, credit_columns
from .layout import changing, publish, sync_directory, temporary_of
from .reader import Pack
from .removal import SHOWN
from .running import Running, known_as, run, shard_bytes, spans
from .task_folder import delete_folder, keep, kept, task_folder


@dataclass(frozen=True)
class Credited:
    """Counts of pictures, and of those without creator or licence. first_without: the ids of some of these."""

    pictures: int
    without: int
    first_without: tuple[str, ...]


def write_attribution(
    pack: str | Path | Pack,
    out: str | Path,
    format: str = "txt",
    *,
    changes: str = CHANGES,
    creator: str | None = None,
    licence: str | None = None,
    workers: int | None = None,
    runner: str = "local",
    ray_address: str | None = None,
    share: tuple[int, int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Credited:
    """Write the credits of all live records into the file `out`, which appears when it is complete.

    The bytes are those of `attribution(pack).write`, in bounded memory. changes, creator, licence: as there. workers:
    threads, a shard each; None: one a core. runner, ray_address: as of `build`; a task is a shard. share: (index, of):
    go through every of-th shard from index on, and count these alone; any number of machines may do so at a time, and
    the same call without a share then does what is left and writes the file. progress: called with the bytes of the
    pictures of each shard done.

    Cut off at any moment, the same call goes on, from the folder `out`.unfinished. Raises PackError as `attribution`.
    """
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, want one of {FORMATS}")
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    how = Running(workers, runner, ray_address, share)
    text = CreditText(format, changes)
    out = Path(out)
    folder = out.with_name(f"{out.name}.unfinished")
    job = _Crediting(os.path.abspath(folder), text, *credit_columns(pack, creator, licence))
    pictures = without = 0
    first: list[str] = []

    def add(found: tuple[int, list[str]]) -> None:
        nonlocal pictures, without
        pictures, without = pictures + found[0], without + len(found[1])
        first.extend(found[1][: SHOWN - len(first)])

    command = {"attribution": known_as(pack), **asdict(text), "columns": [job.creator, job.licence]}
    shards = range(len(pack.shards))
    with changing(out), task_folder(folder, command, shared=share is not None):
        run(job, pack, shards, how, add, shard_bytes(pack), progress or (lambda _: None))
        if share is None:
            with open(folder / "whole", "w", encoding="utf-8", newline="") as file:
                job.join(file, pictures, shards)
            publish((folder / "whole", out))
            sync_directory(out.parent)
            delete_folder(folder)
    return Credited(pictures, without, tuple(first))


@dataclass(frozen=True)
class _Crediting:
    """The tasks of `write_attribution`, a shard each: how many pictures, and the ids of those without credits.

    folder: where the credits of each shard are kept.
    """

    folder: str
    text: CreditText
    creator: str
    licence: str

    def path(self, shard: int) -> Path:
        return Path(self.folder) / f"credits-{shard:05d}"

    def held(self) -> AbstractContextManager[_Crediting]:
        return nullcontext(self)

    def on(self, pack: Pack, progress: Callable[[int], None]) -> Callable[[int], tuple[int, list[str]]]:
        bytes_of = shard_bytes(pack)

        def credit(shard: int) -> tuple[int, list[str]]:
            found = kept(Path(self.folder), shard)
            if found is None:
                ((first, end),) = spans(pack, [shard])
                records = np.arange(first, end)
                credits = attribution(
                    pack, records[~pack.is_removed(records)], creator=self.creator, licence=self.licence
                )
                temporary = temporary_of(self.path(shard))
                with open(temporary, "w", encoding="utf-8", newline="") as file:
                    file.writelines(self.text.credits(credits.rows()))
                publish((temporary, self.path(shard)))
                found = keep(Path(self.folder), shard, None, [len(credits), credits.without])
            progress(bytes_of(shard))
            return found[0], found[1]

        return credit

    def join(self, file: TextIO, pictures: int, shards: Sequence[int]) -> None:
        """Write the credits of all shards."""
        file.write(self.text.begin(pictures))
        without = (id for shard in shards for id in (kept(Path(self.folder), shard) or [0, []])[1])
        file.writelines(self.text.listed(without))
        skipped = len(self.text.separator)
        for shard in shards:
            with open(self.path(shard), encoding="utf-8", newline="") as part:
                if part.read(skipped):
                    skipped = 0
                shutil.copyfileobj(part, file, 1 << 20)
        file.write(self.text.end())
