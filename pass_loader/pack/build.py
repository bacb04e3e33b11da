"""`pass-pack build` and `index`, and `plan`, `shard` and `merge`, the parts that they consist of: sources to a pack.

Pictures are stored untouched, or stay where they are; equal input gives equal bytes, whatever the number of workers and
machines, and however often it was cut off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import PackError
from ..remote.address import is_url, told
from .destination import Destination, destination
from .finish import Tables
from .layout import LockedError
from .merge import decide, merge_tasks
from .plan import TASK_BYTES, Chosen, Plan, make_plan
from .ray_runner import connected, run_on_ray
from .report import Report
from .running import Running
from .shards import Options
from .source import Naming
from .task import Note, done, half_done, run_tasks, task_name
from .workplace import begun, workplace


def build(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    metadata: str | Path | None = None,
    key: str = "hash",
    gps: bool = True,
    shard_bytes: int = 1 << 30,
    workers: int | None = None,
    transcode: bool | str = False,
    codec: str = "jpeg",
    id: str = "",
    image_key: str | None = None,
    class_folders: bool = False,
    allow_empty: bool = False,
    decode: bool = False,
    entry_points: bool = False,
    on_duplicate: str = "keep",
    md5: bool = False,
    max_pixels: int | None = None,
    max_scans: int | None = None,
    shuffle: int | None = None,
    task_bytes: int = TASK_BYTES,
    runner: str = "local",
    ray_address: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Pack pictures from tars, folders, zips, Parquet files, FFCV's files and lists of paths into `out`.

    sources: paths; or URLs of tars (s3://, gs://, az://, https://, hf://datasets/...; docs/clusters.md), which are read
    once, as streams. In the first three *, ? and [] stand for as many objects as fit, sorted by name. source_options:
    obstore's configuration of their stores, beside the usual environment variables.
    out: a directory, or a URL (s3://, gs://, az://; docs/clusters.md), which storage_options are for, of the same kind.
    metadata: a CSV or Parquet file joined by its column `key` to the ids. gps: False leaves columns of coordinates out,
    the table's and the sources' own (metadata.GPS_NAMES); what stands inside the JPEG files stays there.
    shard_bytes: a shard's size, at the most but for one larger picture; of the files, before any codec. workers:
    threads, a shard each; None: one a core. codec: "jpeg" keeps files untouched; "dct" stores their coefficients
    without Huffman codes, for faster decoding (docs/dct-codec.md), "dct-zstd" does so in fewer bytes; files that they
    cannot represent stay as they are, and those that cannot be decoded are refused. PNGs stay as they are.
    transcode: "jpeg" (or True) turns other formats, and PNGs, into JPEGs; "png" turns other formats into PNGs, without
    loss. id: "path" takes a file's whole path for its id, "stem" its last part without suffix; "" what the kind of
    source has. image_key: the suffix of the picture in WebDataset samples that hold several, such as "image.jpg", or
    FFCV's field of it.
    class_folders: read tars as folders are read: the first folder is the class. allow_empty: class folders without
    pictures are classes too, not an error.
    decode: prove every picture by decoding it; without, headers are read, and files that do not end as JPEGs end are
    decoded. Of proven pictures, loaders decode what crops need alone. entry_points: do so too, and keep where decoding
    can begin inside a JPEG (docs/format.md, `points.arrow`). on_duplicate: what becomes of a picture whose bytes were
    packed before under another id: "keep" packs it, "first" refuses it, "error" stops; one whose id was packed before
    is refused, or stops too. md5: check PASS's files against the published sums first. max_pixels, max_scans: a picture
    of more pixels, or a JPEG with more scans, is refused; None for the defaults (docs/packing.md). shuffle: a seed from
    0 on: pack in an order that it decides, a keyed permutation of the list of entries, for order="blocks"; each picture
    is still read once, but from all over the sources, which Parquet files do not allow. task_bytes: how many bytes of
    sources make a task (docs/clusters.md). runner: "local" runs them here, "ray" on a Ray cluster that sees the same
    files, at `ray_address` (ray_runner.run_on_ray); `workers` are then the threads of a task, and the CPUs that it asks
    for; None: one. progress: called with the bytes of each entry done; on Ray, of each task.

    It is the same as `plan`, `shard` of every task, and `merge`, to the byte. Cut off at any moment, the same call goes
    on after the last whole shard, to the same bytes in the end; when it is done, the same call of the same sources
    returns the same report. Pictures that cannot be packed are refused and reported, not raised. Raises PackError for
    unusable sources, metadata or destination, with the remedy.
    """
    chosen = _chosen(
        metadata=metadata, key=key, gps=gps, shard_bytes=shard_bytes, transcode=transcode, codec=codec, id=id,
        image_key=image_key, class_folders=class_folders, allow_empty=allow_empty, decode=decode,
        entry_points=entry_points, on_duplicate=on_duplicate, md5=md5, max_pixels=max_pixels, max_scans=max_scans,
        shuffle=shuffle, task_bytes=task_bytes,
    )  # fmt: skip
    how = Running(workers, runner, ray_address)
    return _pack(sources, out, chosen, how, storage_options, source_options, progress or (lambda _: None))


def index(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    metadata: str | Path | None = None,
    key: str = "hash",
    gps: bool = True,
    workers: int | None = None,
    id: str = "",
    image_key: str | None = None,
    class_folders: bool = False,
    decode: bool = False,
    entry_points: bool = False,
    on_duplicate: str = "keep",
    md5: bool = False,
    max_pixels: int | None = None,
    max_scans: int | None = None,
    task_bytes: int = TASK_BYTES,
    runner: str = "local",
    ray_address: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Make a pack that refers to tars where they lie: nothing is copied, records are read out of them.

    Arguments and errors are those of `build`. The tars must stay as they are; moved ones are found again by `Pack`.
    Tars in stores are referred to by their URLs; a pack of such may lie in a store too.
    """
    chosen = _chosen(
        metadata=metadata, key=key, gps=gps, id=id, image_key=image_key, class_folders=class_folders, decode=decode,
        entry_points=entry_points, on_duplicate=on_duplicate, md5=md5, max_pixels=max_pixels, max_scans=max_scans,
        task_bytes=task_bytes, in_place=True,
    )  # fmt: skip
    how = Running(workers, runner, ray_address)
    return _pack(sources, out, chosen, how, storage_options, source_options, progress or (lambda _: None))


def plan(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> int:
    """Begin a pack in `out`: write down what its tasks are. Returns their number.

    sources, out, storage_options, source_options: as of `build`.
    options: those of `build` that say what is packed and how, and in_place=True for what `index` makes. A plan follows
    from the sources' names, sizes and times, and is the same on every machine. Run again, it takes in what changed in
    the sources; tasks that are done, and whose sources did not change, stay done. Raises PackError as `build` does.
    """
    chosen = _chosen(**options)
    _check_place(sources, out, chosen)
    made = make_plan(sources, chosen, source_options)
    with (
        destination(out, storage_options) as place,
        workplace(place, made.paths, made.command, made.inputs, last=False) as before,
    ):
        if before is None:
            made.save(place)
    return len(made.tasks)


def shard(
    pack: str | Path,
    index: int,
    of: int | None = None,
    *,
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Run tasks of the plan in `pack`: the one with the number `index`, or every `of`-th from it on.

    pack, storage_options: as `out` of `build`. source_options: as of `build`; a plan does not hold them.
    Any number of processes may do so at a time, with the same task too; a task that is done is not run again. Returns
    how many tasks were to be run. workers: threads, a shard each; None: one a core. progress: called with the bytes of
    each entry done. Raises ValueError where there is no such task, and PackError for a source that changed since.
    """
    threads = Running(workers).threads
    with destination(pack, storage_options) as place, begun(place, shared=True) as before:
        if before is not None:
            return 0
        made = Plan.load(place.folder, source_options)
        numbers = made.numbers(index, of)
        _run(place, made, numbers, threads, progress)
        return len(numbers)


def planned_bytes(pack: str | Path, index: int, of: int | None = None) -> int:
    """Return about how many bytes of sources `shard` will read; 0 where the pack is finished."""
    with destination(pack) as place, begun(place, shared=True) as before:
        if before is not None:
            return 0
        made = Plan.load(place.folder)
        return sum(map(made.bytes_of, made.numbers(index, of)))


def merge(
    pack: str | Path,
    *,
    workers: int | None = None,
    runner: str = "local",
    ray_address: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
) -> Report:
    """Make a pack of what the tasks of the plan in `pack` have left, when all of them are done.

    pack, storage_options: as `out` of `build`. source_options: as of `build`.
    Returns the report, as `build` does; of a finished pack too. workers: threads; None: one a core. runner,
    ray_address: where metadata is joined and the tables are written, as of `build`. Raises PackError where tasks are
    not done, and as `build` does.
    """
    how = Running(workers, runner, ray_address)
    with connected(runner, ray_address), destination(pack, storage_options) as place, begun(place) as before:
        if before is not None:
            if not before:
                raise PackError(f"{place.place} is a pack already")
            return Report.of_dict(before)
        place.bring_all(name for name in place.names() if name.endswith((".json", ".rows", ".refused")))
        made = Plan.load(place.folder, source_options)
        return merge_tasks(place, made, _notes(place, made, how), how)


def tables(
    pack: str | Path,
    index: int,
    of: int,
    *,
    workers: int | None = None,
    source_options: Mapping[str, Any] | None = None,
) -> int:
    """Write a share of the tables of the pack that `merge` will make: every `of`-th from the `index`-th on.

    pack: a directory with a plan whose tasks are all done. Any number of processes may do so at a time, with the same
    share too. The first one decides what takes all tasks, and the others wait for it; `merge` then decides the same,
    takes the tables, and writes those that are left. Returns how many tables the share has; 0 where the pack is
    finished. workers: threads; None: one a core. source_options: as of `build`. Raises PackError as `merge` does, and
    for a URL.
    """
    how = Running(workers, share=(index, of))
    if is_url(pack):
        raise PackError(
            f"{told(pack)}: a store has no locks, by which one share decides and the others wait: `pass-pack merge` "
            "writes the tables of a pack there, on one machine or with `--runner ray` on many"
        )
    place = Destination(Path(pack))
    while True:
        with contextlib.suppress(LockedError):  # somebody else decides
            with begun(place, shared=True) as before:
                if before is not None:
                    return 0
                found = Tables.load(place.folder, Plan.load(place.folder, source_options))
                if found is not None:
                    return found.write_share(place, how)
            with begun(place) as before:
                if before is None:
                    made = Plan.load(place.folder, source_options)
                    if Tables.load(place.folder, made) is None:
                        decide(place, made, _notes(place, made, how), how)[0].planned(how).save(place.folder)


def _notes(place: Destination, made: Plan, how: Running) -> list[Note]:
    """Return the notes of all tasks. Raises PackError where some are not done."""
    _run(place, made, half_done(place, made), how.threads, None)
    notes = {number: done(place, made, number) for number in range(len(made.tasks))}
    missing = [str(number) for number, note in notes.items() if note is None]
    if missing:
        shown = ", ".join(missing[:20]) + (" ..." if len(missing) > 20 else "")
        raise PackError(
            f"{len(missing):,} of the {len(made.tasks):,} tasks of {place.place} are not done: {shown}; `pass-pack "
            f"shard {place.place} --index {missing[0]}` runs the first of them"
        )
    return [note for note in notes.values() if note is not None]


def _chosen(
    *,
    metadata: str | Path | None = None,
    key: str = "hash",
    gps: bool = True,
    shard_bytes: int = 1 << 30,
    transcode: bool | str = False,
    codec: str = "jpeg",
    id: str = "",
    image_key: str | None = None,
    class_folders: bool = False,
    allow_empty: bool = False,
    decode: bool = False,
    entry_points: bool = False,
    on_duplicate: str = "keep",
    md5: bool = False,
    max_pixels: int | None = None,
    max_scans: int | None = None,
    shuffle: int | None = None,
    task_bytes: int = TASK_BYTES,
    in_place: bool = False,
) -> Chosen:
    transcode = "jpeg" if transcode is True else transcode
    limits = (max_pixels, max_scans)
    options = Options(transcode, decode, on_duplicate, codec, in_place, *limits, gps, entry_points or None)
    naming = Naming(id, image_key, class_folders, allow_empty)
    if metadata is not None and is_url(metadata):
        raise PackError(
            f"{told(metadata)}: a table of metadata is read from a file system: download it, and give its path"
        )
    table = (Path(metadata), key) if metadata is not None else None
    return Chosen(options, naming, table, shard_bytes, task_bytes, md5, shuffle)


def _pack(
    paths: Sequence[str | Path],
    out: str | Path,
    chosen: Chosen,
    how: Running,
    storage_options: Mapping[str, Any] | None,
    source_options: Mapping[str, Any] | None,
    progress: Callable[[int], None],
) -> Report:
    _check_place(paths, out, chosen)
    made = make_plan(paths, chosen, source_options)
    with (
        destination(out, storage_options) as place,
        workplace(place, made.paths, made.command, made.inputs, last=how.runner == "local") as before,
    ):
        if before is not None:
            return Report.of_dict(before)
        made.save(place)
        left = _not_done(place, made, range(len(made.tasks)), progress)
        if how.runner == "local":
            run_tasks(place, made, left, how.threads, progress)
            notes = [note for number in range(len(made.tasks)) if (note := Note.load(place, made, number)) is not None]
            return merge_tasks(place, made, notes, how)
    place_there = str(out) if is_url(out) else os.path.abspath(out)
    with connected(how.runner, how.ray_address):
        run_on_ray(
            _shard, [(place_there, number, how.threads, storage_options, source_options) for number in left],
            address=how.ray_address, cpus=how.threads, done=lambda place: progress(made.bytes_of(left[place])),
        )  # fmt: skip
        return merge(
            out, runner="ray", ray_address=how.ray_address, storage_options=storage_options,
            source_options=source_options,
        )  # fmt: skip


def _shard(
    place: str,
    number: int,
    workers: int,
    storage_options: Mapping[str, Any] | None,
    source_options: Mapping[str, Any] | None,
) -> None:
    shard(place, number, workers=workers, storage_options=storage_options, source_options=source_options)


def _run(
    place: Destination, made: Plan, numbers: Iterable[int], threads: int, progress: Callable[[int], None] | None
) -> None:
    """Run those tasks that are not done."""
    tell = progress or (lambda _: None)
    run_tasks(place, made, _not_done(place, made, numbers, tell), threads, tell)


def _not_done(place: Destination, made: Plan, numbers: Iterable[int], progress: Callable[[int], None]) -> list[int]:
    numbers, left = list(numbers), []
    place.bring_all(f"{task_name(number)}.json" for number in numbers)
    notes = (Note.load(place, made, number) for number in numbers)
    place.bring_all(f"{name}.rows" for note in notes if note is not None for name in note.shards)
    for number in numbers:
        if done(place, made, number) is None:
            left.append(number)
        else:
            progress(made.bytes_of(number))
    return left


def _check_place(sources: Sequence[str | Path], out: str | Path, chosen: Chosen) -> None:
    if is_url(out) and chosen.options.in_place and not all(map(is_url, sources)):
        raise PackError(f"{out}: a pack that refers to tars of this machine where they lie is made in a directory")
