"""Damaged and hostile packs, made from whole ones by numbered dice.

python -m tests.helpers.bad_packs open FILE FIRST LAST opens those numbers of a file's kind (or of `all`); `whole` in
place of `open` goes through everything that reads a pack. Each that ends with anything but what `Pack` and `Samples`
promise is named.
"""

from __future__ import annotations

import copy
import functools
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pass_loader import PackError, RecordError, Samples, _C, recipes
from pass_loader.pack import Pack, attribution, build, convert, export, info, remove, restore, verify
from pass_loader.pack.build import index
from pass_loader.pack.export import FORMATS as EXPORTS
from pass_loader.pack.layout import INDEX, MANIFEST, REMOVED
from pass_loader.pack.removed_log import Log, counted_before_all

from .bad_sources import damaged
from .corpus import jpeg, noise
from .pngwriter import png
from .sealing import make_old
from .trees import folder_in_memory, tar_of, write_tree

TABLE, TAR, LOCATIONS = "shard-00000-000.parquet", "shard-00000-000.tar", "locations.json"
FILES = (MANIFEST, REMOVED, INDEX, TABLE, LOCATIONS)
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    10**40, 0.5, float("nan"), float("inf"), -float("inf"), "", "0", "x", "..", ".", "/", "a/b", "\0", "a\0b", "\ud800",
    "\udfff\ud800", "é", "%", "\n", "x" * 5000, [], {}, [[]], [1], ["\ud800"], {"a": 1}, "jpeg", "dct",
    "shard-00000-000.tar", "pack.json", "index.arrow", "shard-00000-000.parquet",
]  # fmt: skip
_NUMBERS = [0, 1, -1, 2, 3, 7, 100, 255, 2**15, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**40, 2**63 - 1, -(2**63)]


@functools.cache
def seeds() -> list[dict[str, bytes]]:
    """Return the files of whole packs: one of its own tars, one in place, one of format version 1."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        pictures = {"a/0.jpg": jpeg(noise(9, 8, 0)), "b/1.jpg": jpeg(noise(8, 9, 1)), "b/2.png": png(noise(5, 4, 2))}
        (root / "m.csv").write_text("hash,unickname,licensename\na/0,J%C3%BCrgen,CC\nb/1,x,y\n")
        source = write_tree(root / "in", pictures | {"b/bad.jpg": b"text"})
        build([source], root / "own", metadata=root / "m.csv", shard_bytes=2000, workers=1)
        index([tar_of(root / TAR, pictures)], root / "place", metadata=root / "m.csv")
        for pack, ids in ((root / "own", ["b/2", "a/0"]), (root / "place", ["2", "0"])):
            remove(pack, ids, reason="asked")
            restore(pack, ids[:1], reason="asked")
        (root / "place" / TAR).write_bytes((root / TAR).read_bytes())  # found beside the manifest, in any folder
        (root / "place" / LOCATIONS).write_text(json.dumps({TAR: TAR}))
        shutil.copytree(root / "own", root / "old")
        make_old(root / "old")
        return [
            {path.name: path.read_bytes() for path in sorted((root / pack).iterdir())}
            for pack in ("own", "place", "old")
        ]


def damaged_pack(file: str, number: int) -> tuple[dict[str, bytes], str]:
    """Return the files of hostile pack `number` of a kind, of which `file` was changed, and that one's bytes.

    By turns with checksums that fit and without, at bytes and at what the bytes mean.
    """
    dice = random.Random(f"{file} {number}")
    place = 1 if file == LOCATIONS else dice.choices((0, 1, 2), (6, 3, 1))[0]
    files = dict(seeds()[place])
    whole = files[file]
    if file in (MANIFEST, LOCATIONS) and dice.random() < 0.6:
        files[file] = _encoded(_other_values(json.loads(whole), dice))
    elif file == REMOVED and dice.random() < 0.6:
        files[file] = b"".join(_encoded(_other_values(json.loads(line), dice), None) for line in whole.splitlines())
    elif file == INDEX and dice.random() < 0.4:
        files[file] = _other_index(whole, dice)
    elif file == TABLE and dice.random() < 0.4:
        files[file] = _other_table(whole, dice)
    else:
        files[file] = damaged(whole, dice)
    if dice.random() < 0.8:
        _seal(files, file)
    return files, file


def _encoded(value: Any, indent: int | None = 1) -> bytes:
    return (json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=True) + "\n").encode()


def _other_values(value: Any, dice: random.Random) -> Any:
    """Change one to three values of a JSON value: exchange, rename, delete or repeat them."""
    for _ in range(dice.choice((1, 1, 2, 3))):
        holder, key = _some_place(value, dice)
        what = dice.randrange(6)
        if holder is None or what == 5 and dice.random() < 0.1:
            return copy.deepcopy(dice.choice(_VALUES))
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[str(dice.choice(_VALUES))] = holder.pop(key)
        elif what == 2 and isinstance(holder, list):
            holder.insert(dice.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif what == 3 and isinstance(holder[key], int):
            holder[key] += dice.choice((-1, 1, 2**32, -(2**31)))
        else:
            holder[key] = copy.deepcopy(dice.choice(_VALUES))
    return value


def _some_place(value: Any, dice: random.Random) -> tuple[Any, Any]:
    places = []
    left = [value]
    while left:
        holder = left.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        places += [(holder, key) for key in keys]
        left += [holder[key] for key in keys if isinstance(holder[key], (dict, list))]
    return dice.choice(places) if places else (None, None)


def _other_index(whole: bytes, dice: random.Random) -> bytes:
    """Exchange numbers, types, columns, batches or compression of an index."""
    table = _changed_table(pa.ipc.open_file(io.BytesIO(whole)).read_all(), dice)
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=dice.choice((None, None, None, "lz4", "zstd")))
    with pa.ipc.new_file(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=dice.choice((None, None, None, 1)))
    return out.getvalue()


def _other_table(whole: bytes, dice: random.Random) -> bytes:
    table = _changed_table(pq.ParquetFile(io.BytesIO(whole)).read(), dice)
    out = io.BytesIO()
    pq.write_table(table, out, compression=dice.choice(("none", "zstd")))
    return out.getvalue()


def _changed_table(table: pa.Table, dice: random.Random) -> pa.Table:
    for _ in range(dice.choice((1, 1, 2))):
        place = dice.randrange(table.num_columns)
        name, column = table.schema.names[place], table.column(place)
        values = column.to_pylist()
        row, what = dice.randrange(max(1, len(values))), dice.randrange(10)
        if what == 0:
            table = table.remove_column(place) if table.num_columns > 1 else table
        elif what == 1:
            table = table.append_column(name, column)
        elif what == 2:
            table = pa.concat_tables([table, table.slice(0, 1)])
        elif what == 3:
            table = table.rename_columns([*table.schema.names[:place], "x", *table.schema.names[place + 1 :]])
        elif what == 4:
            to = dice.choice(
                (pa.int64(), pa.string(), pa.float64(), pa.large_string(), pa.int8(), pa.binary(), pa.null())
            )
            try:
                table = table.set_column(place, name, column.cast(to))
            except (pa.ArrowException, ValueError):
                table = table.set_column(place, name, pa.nulls(len(column), to))
        elif what == 5 and values:
            values[row] = None
            table = table.set_column(place, name, pa.array(values, column.type))
        elif what == 6 and dice.random() < 0.3:
            table = table.replace_schema_metadata({"pack_id": str(dice.choice(_VALUES[:30]))})
        elif values:
            new = (
                dice.choice(("", "\0", "dct", "x" * 5000, ".."))
                if column.type == pa.string()
                else dice.choice(_NUMBERS)
            )
            try:
                table = table.set_column(place, name, pa.array([*values[:row], new, *values[row + 1 :]], column.type))
            except (pa.ArrowException, OverflowError, TypeError):
                continue
    return table


def _seal(files: dict[str, bytes], changed: str) -> None:
    """Give a pack's files the checksums that fit, as one who makes packs to do harm would, as far as that goes."""
    try:
        manifest = json.loads(files[MANIFEST])
        if changed == REMOVED and manifest["format_version"] == 2:
            content, counted = _log(files, manifest)
            files[REMOVED], manifest["removed"] = content, counted
        crcs = manifest["crc32c"]
        crcs |= {name: _C.crc32c(files[name]) for name in crcs if name in files and name != MANIFEST}
        crcs[MANIFEST] = 0
        zeroed = _encoded(manifest)
        if changed == MANIFEST and zeroed.count(b'"pack.json": 0') != 1:
            return
        files[MANIFEST] = zeroed.replace(b'"pack.json": 0', b'"pack.json": %d' % _C.crc32c(zeroed))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass


def _log(files: dict[str, bytes], manifest: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    entries = []
    for line in files[REMOVED].splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append({key: value for key, value in entry.items() if key not in ("check", "date")})
    empty = Log(Path(), manifest["records"], [], counted_before_all(manifest["pack_id"])["check"], 0, 0)
    return empty.extended(entries)


def opened(root: Path, file: str) -> str:
    """Open a pack, or the part of it that reads a file. Returns what became of it in a word. Raises what that raises,
    but no PackError."""
    try:
        if file == TABLE:
            Pack(root).table(0)
        else:
            pack = Pack(root)
            pack.tar_paths()
            pack.open_reader()
    except PackError as error:
        str(error).encode(errors="backslashreplace")
        return "error"
    return "opened"


def gone_through(root: Path) -> str:
    """Do everything that reads a pack. Returns and raises as `opened`."""
    verify(root, workers=1, decode=True).summary()
    dice = random.Random(len((root / MANIFEST).read_bytes()))
    try:
        pack = Pack(root)
        info(root)
        attribution(pack)
        samples = Samples(pack, recipes.mae(size=8))
        for record in range(pack.records):
            pack.row(record)
            samples.metadata(record)
            samples.labels_of(np.array([record]))
            try:
                samples.render(record)
            except RecordError as error:
                assert str(record) in str(error), error
        with folder_in_memory() as out:
            export(pack, os.path.join(out, "out"), dice.choice(EXPORTS))
            convert(pack, os.path.join(out, "dct"), "dct", workers=1)
            assert {*os.listdir(out)} <= {"out", "dct"}, "nothing leaves its folder"
    except PackError as error:
        str(error).encode(errors="backslashreplace")
        return "error"
    return "served"


def run(act: Callable[[Path], str], file: str, numbers: range) -> tuple[dict[str, int], list[str]]:
    """Act on packs of a kind: how often what became of them, and each that ended otherwise."""
    with folder_in_memory() as room:
        return _run(act, file, numbers, room)


def _run(act: Callable[[Path], str], file: str, numbers: range, room: Path) -> tuple[dict[str, int], list[str]]:
    counts: dict[str, int] = {}
    found = []
    there: dict[str, bytes] = {}
    for number in numbers:
        files, _ = damaged_pack(file, number)
        for name in os.listdir(room):
            if there.get(name) is None or there[name] is not files.get(name):
                os.unlink(room / name)  # ext4 makes a file durable that is cut to nothing and written anew
                there.pop(name, None)
        for name, content in files.items():
            if there.get(name) is not content:
                (room / name).write_bytes(content)
        there = files
        try:
            signal.alarm(60)
            ended = act(room)
        except Exception as error:
            ended = "raised"
            where = traceback.extract_tb(error.__traceback__)[-1]
            found.append(f"{file} {number}: {error!r:.300} at {where.filename}:{where.lineno}")
        finally:
            signal.alarm(0)
        counts[ended] = counts.get(ended, 0) + 1
    return counts, found


if __name__ == "__main__":
    what, chosen, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    failed = 0
    for file in (FILES if what == "open" else (*FILES, TAR)) if chosen == "all" else [chosen]:
        act = gone_through if what == "whole" else functools.partial(opened, file=file)
        step = 10_000 if what == "open" else 1000
        for begin in range(first, last, step):
            counts, found = run(act, file, range(begin, min(begin + step, last)))
            print(what, file, begin, counts, *found[:10], sep="\n" if found else " ", flush=True)
            failed += len(found)
    if failed:
        sys.exit(f"{failed} packs ended with an exception that nobody promised")
