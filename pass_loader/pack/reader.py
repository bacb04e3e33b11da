"""Opens packs: the index by a memory map, ids and metadata from the Parquet files when they are asked for."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from .. import _C
from ..errors import BadPictureError, PackError
from ..remote.address import Address, is_url
from ..remote.fetcher import Awaited
from . import arrow
from .foreign import find
from .index_parts import AfterIndex
from .layout import (
    CODECS,
    INDEX,
    INDEX_SCHEMA,
    MANIFEST,
    REMOVED,
    TABLE_SCHEMA,
    check_regular,
    deleted_on_error,
    publish,
    read_table,
    stamp_of,
    written_by_purge,
)
from .manifest import read_manifest
from .points import Points, open_points
from .referring import referring
from .remote import Place, RemotePack
from .removed_log import Log, generation_of, read_log

_BESIDE_COLUMNS_BYTES = 8 << 10  # of the index: its schema, twice, and padding; about 2 KB


class Pack:
    """A pack, read-only. Records are numbered over all shards, positions over the live (not removed) records.

    What is live is read at opening and by `refresh`, at no other time: a loader refreshes between epochs.
    pack_id: the same for the life of a pack. revision: how often it was purged; index and paths belong to one revision.
    generation: an integer that is equal for equal sets of removed records, 0 where none is removed.
    path: its directory, or a URL (s3://, gs://, az://, http://, https://, hf://datasets/...). A pack in a store is read
        through a cache, and the attribute `path` is its folder there (docs/where-packs-lie.md).
    cache, cache_bytes, storage_options: of a pack in a store, or in a directory that refers to tars in stores: the
        folder of the cache, by default in the user's cache directory; what it may hold, an int or text such as "200GB",
        by default 50 GB; configuration of obstore.
    remote: what reads from stores; None for a pack in a directory that refers to nothing there.

    Raises PackError where the directory is no pack or contradicts itself, ShardError where a store fails.
    """

    _index: pa.Table
    _begins: dict[str, int]  # where each column begins in the file of the index

    def __init__(
        self,
        path: str | Path,
        *,
        cache: str | Path | None = None,
        cache_bytes: int | str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ):
        self.remote: RemotePack | None = None
        if isinstance(path, str) and is_url(path):
            self.remote = RemotePack(Address.of(path, cache, cache_bytes, storage_options))
            self.path = self.remote.folder
        else:
            self.path = _checked_path(path)
        self.revision = -1  # nothing is loaded yet
        self._sync()
        stamps = self._stamps_now()
        manifest = read_manifest(self.path)
        if self.remote is None:
            self.remote = referring(self.path, manifest, cache, cache_bytes, storage_options)
        self._load(manifest, stamps)

    def _sync(self) -> None:
        if self.remote is not None:
            self.path = self.remote.sync()

    def _load(self, manifest: dict[str, Any], stamps: list[Any]) -> None:
        """Read the log, and the index where the revision is another one than before. All or nothing.

        stamps, manifest: taken and read before, in this order. The log then holds all lines that the manifest counts,
        whoever adds lines meanwhile, and a change that comes in between is seen by the next `refresh`.
        """
        while True:
            revision = manifest.get("revision", 0)
            try:
                if self.remote is not None:
                    self.remote.tables_of_log()
                if revision != self.revision:
                    index, begins = self._open_index(manifest)
                else:
                    index, begins = self._index, self._begins
                removed = read_log(self.path, manifest).removed()
                break
            except (PackError, FileNotFoundError):
                self._sync()
                manifest = read_manifest(self.path)
                if manifest.get("revision", 0) == revision:
                    raise
                # A purge exchanged the files between two lines of ours.
        if revision != self.revision:
            counts = [shard["records"] for shard in manifest["shards"]]
            self.pack_id: str = manifest["pack_id"]
            self.classes: list[str] = manifest.get("classes", [])
            self.shards: list[dict[str, Any]] = manifest["shards"]
            self._tars = {number: shard["tar"] for number, shard in enumerate(self.shards)}
            self.first_record = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)  # of each shard, and the end
            self._index, self._begins = index, begins
            self._columns: dict[str, np.ndarray] = {}  # of the index, which were asked for
            self.revision = revision
            self._parts = None if self.remote is None else self.remote.index_parts()
            if self._parts is not None:
                self._parts.columns = {
                    name: (begin, _width(INDEX_SCHEMA.field(name).type)) for name, begin in begins.items()
                }
            self._table = lru_cache(maxsize=4)(self._read_table)
            self._ids: pa.LargeStringArray | None = None
        self.manifest, self._stamps = manifest, stamps
        self._set_removed(removed)

    def _open_index(self, manifest: dict[str, Any]) -> tuple[pa.Table, dict[str, int]]:
        """Open the index. One in a cache that is damaged is fetched anew, once."""
        if self.remote is None or not self.remote.stored:
            return _open_index(self.path, manifest)
        self.remote.index()
        try:
            return _open_index(self.path, manifest)
        except PackError:
            self.remote.forget(manifest.get("index", INDEX))
        self.remote.index()
        try:
            return _open_index(self.path, manifest)
        except PackError as error:
            raise PackError(f"{self.place}: the index was fetched anew, and still: {error}") from None

    def _stamps_now(self) -> list[Any]:
        """Return what changes whenever pack.json or the log does: both are exchanged whole."""
        return [stamp_of(self.path / name) for name in (MANIFEST, REMOVED)]

    def _set_removed(self, removed: np.ndarray) -> None:
        for shard, (first, end) in enumerate(zip(self.first_record, self.first_record[1:])):
            if written_by_purge(self.shards[shard]["table"]):
                # A purged record has no bytes any more, whatever the log says.
                purged = first + np.flatnonzero(self.values("length", np.arange(first, end)) == 0)
                removed = np.union1d(removed, purged)
        self.removed = removed.astype(np.int64)
        self.generation = generation_of(self.removed)

    def refresh(self) -> bool:
        """Read what was removed, restored or purged since; return whether the live records or the revision changed.

        Where nothing happened it looks at two files' times and sizes. After a change of revision, readers made from the
        old paths and columns must be made anew. Raises PackError where another pack lies at the path by now, or the log
        is damaged; the pack then stays as it was.
        """
        before = self.generation, self.revision
        self._sync()
        stamps = self._stamps_now()
        if stamps == self._stamps:
            return False
        manifest = read_manifest(self.path)
        if manifest["pack_id"] != self.pack_id or manifest["records"] != self.records:
            raise PackError(f"{self.path} is another pack than the one that was opened")
        self._load(manifest, stamps)
        return before != (self.generation, self.revision)

    def checked_log(self) -> Log:
        """Read the log anew, and hold all ids in it against the tables. Raises PackError where they do not fit."""
        if self.remote is not None:
            self.remote.files()
        return read_log(self.path, read_manifest(self.path), all_ids=True)

    def take(self, log: Log) -> None:
        """Take what is removed from a log that was read since, of the same revision."""
        self._set_removed(log.removed())

    def removed_at(self, generation: int) -> np.ndarray:
        """Return the records that were removed when the pack had this generation, sorted int64.

        Raises PackError where it never had it.
        """
        if generation == self.generation:
            return self.removed
        return read_log(self.path, read_manifest(self.path)).removed_at(generation)

    def was_purged(self) -> bool:
        """Return True where the pack was purged since it was opened or refreshed: its paths and columns are out of
        date."""
        try:
            self._sync()
            return read_manifest(self.path).get("revision", 0) != self.revision
        except (PackError, OSError):  # the caller has an error of its own to raise
            return False

    def __repr__(self) -> str:
        return f"Pack({self.place!r}: {len(self)} live of {self.records} records, {len(self.shards)} shards)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (*self._opened_with(), self.removed, self.generation)

    def _opened_with(self) -> tuple[str | Path, dict[str, Any]]:
        if self.remote is None:
            return self.path, {}
        address = self.remote.address
        given = {"cache": address.cache, "cache_bytes": address.cache_bytes, "storage_options": dict(address.options)}
        return address.url if self.stored else self.path, given

    def reopened(self) -> Pack:
        """Return the pack as it is now, opened anew."""
        place, given = self._opened_with()
        return Pack(place, **given)

    @property
    def stored(self) -> bool:
        """True where the pack's own files lie in a store."""
        return self.remote is not None and self.remote.stored

    @property
    def place(self) -> str:
        """Where the pack lies: its directory or URL."""
        return str(self.remote.address) if self.remote is not None and self.remote.stored else str(self.path)

    @property
    def known_place(self) -> str:
        """The same, from wherever it is asked for."""
        return self.place if self.stored else str(self.path.resolve())

    def coming(self, records: Iterable[int]) -> Awaited | AfterIndex | None:
        """Begin to fetch records that will be read; None where the pack lies in a directory."""
        if self.remote is None:
            return None
        remote, numbers = self.remote, np.fromiter(records, np.int64)
        if self._parts is None:
            return remote.coming(self._places_of(numbers))
        return self._parts.coming(numbers, lambda: remote.coming(self._places_of(numbers)))

    def begin_epoch(self, records: np.ndarray | None = None) -> None:
        """Tell a pack in a store that an epoch begins, which needs these records, (N,) int64; None: any."""
        if self.remote is None:
            return
        if records is None or self._parts is not None:
            return self.remote.need_again()
        shards, offsets, lengths = (self.values(name, records) for name in ("shard", "offset", "length"))
        chosen = (
            (self._tars[number], shards == number) for number in np.unique(shards).tolist() if number in self._tars
        )
        self.remote.need_again({name: (offsets[its], lengths[its]) for name, its in chosen})

    def mend(self, record: int) -> None:
        """Fetch a record of a pack in a store anew, where its bytes in the cache are not those that were packed.

        Raises OSError where those in the store are not either, or it fails.
        """
        assert self.remote is not None
        numbers = np.array([record])
        [place] = self._places_of(numbers)
        self.remote.mend(place, int(self.values("crc32c", numbers)[0]))

    def read(self, record: int, read: Callable[[], bytes]) -> bytes:
        """Return what `read` returns, the bytes of this record. They are fetched before where the pack lies in a store.

        Raises BadPictureError for bytes that were changed, OSError.
        """
        coming = self.coming([record])
        if coming is None:
            return read()
        try:
            coming.wait()
            try:
                return read()
            except (BadPictureError, OSError):  # somebody may have deleted the shard from the cache
                self.mend(record)
                return read()
        finally:
            coming.done(used=True)

    def read_from_store(self, record: int) -> bytes:
        """Return the bytes of a record of a pack in a store, past its cache and unchecked. Raises OSError."""
        assert self.remote is not None
        [place] = self._places_of(np.array([record]))
        return bytes(self.remote.store.range(place.shard, place.offset, place.offset + place.length))

    def _places_of(self, records: np.ndarray) -> list[Place]:
        """Return where records lie. Raises PackError where the index names a shard that the pack does not have."""
        shards, offsets, lengths = (self.values(name, records).tolist() for name in ("shard", "offset", "length"))
        try:
            return list(map(Place, records.tolist(), map(self._tars.__getitem__, shards), offsets, lengths))
        except KeyError as error:
            index = self.path / self.manifest.get("index", INDEX)
            raise PackError(f"{index} is damaged: it names shard {error}, of {len(self.shards)}") from None

    @property
    def records(self) -> int:
        """The number of records, removed ones included."""
        return int(self.first_record[-1])

    def __len__(self) -> int:
        """Return the number of live records."""
        return self.records - len(self.removed)

    def is_removed(self, records: np.ndarray) -> np.ndarray:
        """Return which of these records were removed: bool, of their shape."""
        if len(self.removed) == 0:
            return np.zeros(np.shape(records), dtype=bool)
        place = np.minimum(np.searchsorted(self.removed, records), len(self.removed) - 1)
        return self.removed[place] == records

    def is_purged(self, record: int) -> bool:
        """Return True where the record's bytes are gone for good."""
        return int(self.values("length", np.array([record]))[0]) == 0

    @property
    def index(self) -> pa.Table:
        """The index: a row of INDEX_SCHEMA a record, memory-mapped. Of a large pack in a store it is fetched whole."""
        for name in INDEX_SCHEMA.names if self._parts is not None else ():
            self.column(name)
        return self._index

    def column(self, name: str) -> np.ndarray:
        """Return a column of the index, (records,): a read-only view of the memory map.

        Of a large pack in a store the whole column is fetched: take `values` for a part of it.
        """
        if name not in INDEX_SCHEMA.names:
            raise KeyError(
                f"the index has no column {name!r}, it has {INDEX_SCHEMA.names}; ids and metadata stand in the tables: "
                "pack.table(shard), pack.row(record)"
            )
        if self._parts is not None:
            self._parts.need_column(name)
        return self._mapped(name)

    def values(self, name: str, records: np.ndarray) -> np.ndarray:
        """Return the values of records, (N,) integers, in a column of the index."""
        if self._parts is not None:
            self._parts.need([name], records)
        return self._mapped(name)[records]

    def _mapped(self, name: str) -> np.ndarray:
        """Return a column as it lies in the file; of one that comes in parts, with zeros where it was not fetched."""
        known = self._columns  # before the index: another thread may open a later revision
        if name not in known:
            known[name] = arrow.to_numpy(self._index.column(name).chunk(0))
        return known[name]

    def labels(self, records: np.ndarray) -> np.ndarray:
        """Return the labels of these records: int64, of their shape; -1 where there is none.

        Raises PackError for a label that none of the classes has.
        """
        found = self.values("label", np.asarray(records)).astype(np.int64)
        if self.classes and (wrong := (found < -1) | (found >= len(self.classes))).any():
            raise PackError(
                f"{self.path / self.manifest.get('index', INDEX)}: record {np.asarray(records)[wrong].flat[0]} has the "
                f"label {found[wrong].flat[0]}, and the pack has {len(self.classes)} classes; `pass-pack verify` says "
                "which file was changed"
            )
        return found

    def size_of(self, record: int) -> tuple[int, int]:
        """Return (height, width) of a record in pixels."""
        self._check(record)
        height, width = (int(self.values(name, np.array([record]))[0]) for name in ("height", "width"))
        return height, width

    def open_reader(self) -> _C.ShardReader:
        """Return a reader of the records' bytes, of this revision. Of a pack in a store it reads what was fetched.

        Raises PackError where tars of an index are not found.
        """
        columns = [self._mapped(name) for name in ("shard", "offset", "length", "crc32c")]
        with contextlib.suppress(PackError):  # pictures are then decoded whole
            if (known := self.open_points()) is not None:
                columns += [known.proven, known.check, known.ends, known.points]
        return _C.ShardReader(self.tar_paths(), *columns)

    def open_points(self) -> Points | None:
        """Return what is known of the records, which are proven and where decoding can begin inside JPEGs.

        None where the pack has no points.arrow, or one in a store that is too large to be fetched now. Raises PackError
        where it is damaged.
        """
        if self.remote is None or not self.stored:
            return open_points(self.path, self.pack_id, self.records)
        self.remote.points()
        try:
            return open_points(self.path, self.pack_id, self.records)
        except PackError:
            self.remote.forget_points()
            raise

    def shard_of(self, record: int) -> int:
        """Return the number of the shard that holds a record."""
        self._check(record)
        return int(np.searchsorted(self.first_record, record, side="right")) - 1

    def shard_name(self, record: int) -> str:
        """Return the name of the tar that holds a record."""
        return self.shards[self.shard_of(record)]["tar"]

    def tar_paths(self) -> list[str]:
        """Return the path of each shard's tar. Raises PackError where tars that the pack refers to are not found."""
        foreign = find(self.path, self.shards) if any("foreign" in shard for shard in self.shards) else {}
        if self.remote is not None:
            return [str(self.remote.shard(shard["tar"])) for shard in self.shards]
        return [str(foreign.get(shard["tar"], self.path / shard["tar"])) for shard in self.shards]

    def row(self, record: int) -> dict[str, Any]:
        """Return the record's row of its shard's Parquet file."""
        shard = self.shard_of(record)
        row = self._table(shard).slice(record - int(self.first_record[shard]), 1)
        try:
            return row.to_pylist()[0]
        except (ValueError, OverflowError) as error:  # a date beyond 9999
            name = self.shards[shard]["table"]
            raise PackError(f"{self.path / name}: the row of record {record} cannot be read: {error}") from None

    def id_of(self, record: int) -> str:
        """Return the id of a record, also of a removed one."""
        return self.row(record)["id"]

    def ids(self, records: np.ndarray) -> list[str]:
        """Return the ids of these records. The first call reads all ids into memory, about 40 bytes a record."""
        return self.all_ids().take(arrow.numbers(records)).to_pylist()

    def all_ids(self) -> pa.LargeStringArray:
        """Return the ids of all records, (records,), the removed ones' too. Kept in memory from the first call on."""
        if self._ids is None:
            tables = [self.table(shard, columns=["id"]) for shard in range(len(self.shards))]
            self._ids = pa.concat_tables(tables).column("id").cast(pa.large_string()).combine_chunks()
        return self._ids

    def record_of(self, id: str) -> int:
        """Return the record of an id, also of a removed one. Raises KeyError for an id that the pack does not have."""
        record = int(self.records_of([id])[0])
        if record < 0:
            raise KeyError(id)
        return record

    def records_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return (len(ids),) int64: the record of each id, also of removed ones; -1 where the pack has no such id."""
        wanted = arrow.strings(list(dict.fromkeys(ids)))
        found = np.full(len(wanted), -1, dtype=np.int64)

        def look(shard: int) -> None:
            column = self.table(shard, columns=["id"]).column("id").combine_chunks()
            rows = pc.indices_nonzero(pc.is_in(column, value_set=wanted))
            places = pc.index_in(column.take(rows), value_set=wanted)
            found[arrow.to_numpy(places)] = arrow.to_numpy(rows).astype(np.int64) + self.first_record[shard]

        with ThreadPoolExecutor(min(8, len(self.shards))) as pool:
            list(pool.map(look, range(len(self.shards))))
        place_of = {id: place for place, id in enumerate(wanted.to_pylist())}
        return found[[place_of[id] for id in ids]] if len(ids) else found

    def table(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Return a shard's Parquet file.

        columns: None for all. Raises PackError where it has another number of rows than the manifest says, or lacks
        columns.
        """
        name = self.shards[shard]["table"]
        path = self.path / name if self.remote is None else self.remote.file(name)
        try:
            table = read_table(path, self.shards[shard]["records"], columns)
        except PackError:
            if self.remote is None or not self.remote.stored:
                raise
            self.remote.forget(name)  # damaged in the cache
            table = read_table(self.remote.file(name), self.shards[shard]["records"], columns)
        wanted = [*TABLE_SCHEMA.names, *self.manifest.get("metadata", [])] if columns is None else []
        if lacking := {*wanted} - {*table.schema.names}:
            raise PackError(f"{path} has no column {', '.join(sorted(lacking))}")
        return table

    def _read_table(self, shard: int) -> pa.Table:
        return self.table(shard)

    def _check(self, record: int) -> None:
        if not 0 <= record < self.records:
            raise IndexError(f"record {record} is not in [0, {self.records})")


def _checked_path(path: str | Path) -> Path:
    """Return the path of a pack's directory. Raises PackError or TypeError, with the way out, for what is none."""
    if isinstance(path, (list, tuple)):
        raise TypeError(
            "a pack is one directory: for several give pass_loader.ConcatDataset a ShardDataset for each of them"
        )
    place = Path(path)
    if place.is_file():
        raise PackError(
            f"{place} is a file, and a pack is a directory: `pass-pack build {place} --out PACK` makes one, "
            "`pass-pack index` one that reads a tar where it lies"
        )
    return place


def _reopened(path: str | Path, given: dict[str, Any], removed: np.ndarray, generation: int) -> Pack:
    """Open a pack in another process, with the live records of the first: they change between epochs only."""
    pack = Pack(path, **given)
    pack.removed, pack.generation, pack._stamps = removed, generation, []
    return pack


def _open_index(root: Path, manifest: dict[str, Any]) -> tuple[pa.Table, dict[str, int]]:
    """Open the index in O(1) time and private memory: the columns stay on disk until they are touched.

    Returns it, and where in the file each column begins.
    """
    shards, pack_id = manifest["shards"], manifest["pack_id"]
    path = root / manifest.get("index", INDEX)
    if not path.exists():
        index = index_from_tables(root, shards)
        try:
            write_index(path, index, pack_id)
        except OSError:  # a pack that may only be read
            return index.combine_chunks(), {}
    check_regular(path)
    records = sum(shard["records"] for shard in shards)
    row_bytes = sum(map(_width, INDEX_SCHEMA.types))
    beside = path.stat().st_size - records * row_bytes
    if not 0 < beside < _BESIDE_COLUMNS_BYTES:  # compressed columns could become any size
        raise PackError(f"{path} has not the size of {records:,} records; delete it to have it rebuilt")
    try:
        mapped = pa.memory_map(str(path))
        index = pa.ipc.open_file(mapped).read_all()
        mapped.seek(0)
        first = mapped.read_buffer(1).address
    except Exception as error:  # Arrow raises what it likes where its buffers are damaged
        raise PackError(f"{path} is damaged ({error}); delete it to have it rebuilt") from None
    identity = (index.schema.metadata or {}).get(b"pack_id")
    if index.schema != INDEX_SCHEMA or index.num_rows != records or identity != pack_id.encode():
        raise PackError(f"{path} does not fit the manifest; delete it to have it rebuilt")
    if index.column(0).num_chunks != 1:
        raise PackError(f"{path} is not one record batch; delete it to have it rebuilt")
    begins = {}
    for name, column in zip(INDEX_SCHEMA.names, index.columns):
        valid, values = column.chunk(0).buffers()
        if valid is not None or values is None or values.size < records * _width(column.type):
            raise PackError(f"{path} has a column of other than {records:,} numbers; delete it to have it rebuilt")
        if not 0 <= values.address - first < beside + records * row_bytes:
            raise PackError(f"{path} is compressed, and cannot be mapped; delete it to have it rebuilt")
        begins[name] = values.address - first
    return index, begins


def _width(type: pa.DataType) -> int:
    return type.bit_width // 8


def index_from_tables(root: Path, shards: list[dict[str, Any]]) -> pa.Table:
    """Make the index's columns from the shards' Parquet files, with a bar on stderr where that takes time."""
    names = [name for name in INDEX_SCHEMA.names if name != "shard"]
    bar = tqdm(shards, desc=f"{root}: rebuilding {INDEX}", unit="shard", delay=1)
    tables = (read_table(root / shard["table"], shard["records"], names) for shard in bar)
    return pa.concat_tables([index_rows(table, number) for number, table in enumerate(tables)])


def index_rows(table: pa.Table, shard: int) -> pa.Table:
    """Return a shard's rows of the index. Raises PackError for a codec that is not known."""
    codec = pc.index_in(table.column("codec"), arrow.strings(CODECS))
    if codec.null_count:
        raise PackError(f"shard {shard} holds a codec that this pass-loader does not know; it knows {list(CODECS)}")
    columns = {name: table.column(name) for name in INDEX_SCHEMA.names if name not in ("shard", "codec")}
    columns["shard"] = pa.chunked_array([arrow.numbers(np.full(table.num_rows, shard, np.int32))])
    columns["codec"] = codec
    return pa.table([columns[name].cast(type) for name, type in zip(INDEX_SCHEMA.names, INDEX_SCHEMA.types)],
                    schema=INDEX_SCHEMA)  # fmt: skip


def write_index(path: Path, index: pa.Table, pack_id: str) -> None:
    """Write the index: one record batch, so that a column is one array; the pack's id in the schema's metadata."""
    table = index.combine_chunks().replace_schema_metadata({"pack_id": pack_id})
    # Several openers may rebuild at a time.
    descriptor, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    with deleted_on_error(Path(temporary)):
        os.chmod(temporary, 0o644)
        with pa.OSFile(temporary, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        publish((Path(temporary), path))
