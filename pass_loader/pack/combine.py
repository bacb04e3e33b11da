"""`pass-pack combine`: packs that were made apart become one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import PackError
from . import arrow
from .columns import IndexColumns
from .convert import CopyWriter, PackSource
from .cores import usable_cores
from .decision import drop_repeated
from .destination import Destination, delete_others, destination
from .finish import identity_lines
from .in_place import InPlaceWriter, TarsInPlace
from .layout import INDEX, TABLE_SCHEMA, publish, write_table
from .plan import ON_DUPLICATE
from .reader import Pack, index_rows, write_index
from .removed_log import counted_before_all
from .report import Refusal, Refusals, Report
from .running import in_order
from .shards import Options, Shard, refusal
from .source import Entry
from .workplace import complete, workplace

REMOVED_ELSEWHERE = "its id was removed from another of the packs"


@dataclass(frozen=True)
class Combined:
    """Counts of the new pack, and of the records that are not in it.

    bytes: of pictures. removed: removed records of the packs; removed_elsewhere: live ones with the id of a removed one
    of another pack. same_id, same_bytes: those whose id or bytes came before.
    """

    records: int
    bytes: int
    shards: int
    removed: int
    removed_elsewhere: int
    same_id: int
    same_bytes: int

    def __str__(self) -> str:
        lines = [f"{self.records:,} records, {self.bytes:,} bytes, {self.shards:,} shards"]
        left_out = [
            (self.removed, "removed records"),
            (self.removed_elsewhere, "live records with an id that was removed from another of the packs"),
            (self.same_id, "records with an id that was packed before (--prefix keeps the packs' ids apart)"),
            (self.same_bytes, "records with bytes that were packed before"),
        ]
        return "\n".join(lines + [f"left out {count:,} {what}" for count, what in left_out if count])


def combine(
    packs: Sequence[str | Path | Pack],
    out: str | Path,
    *,
    on_duplicate: str = "keep",
    prefixes: Sequence[str] | None = None,
    in_place: bool = False,
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Combined:
    """Write the live records of packs into the new pack `out`, in the order of the packs.

    out: a directory, or a URL, which storage_options are for, as for `build`.
    The bytes are copied as they are, so codecs may differ. Metadata has the columns of all packs, null where a pack
    lacks one; classes are united by name. The new pack_id is a digest of ids, lengths, CRCs and labels, as `build`'s.
    Removed records are left out, and so are live ones with the id of a removed one of any of the packs.
    on_duplicate: as of `build`, for records with bytes that came before under another id: "keep", "first", "error".
    Of records with one id the first is taken; "error" refuses them.
    prefixes: a text for each pack, "" for none, that is put before its ids. in_place: copy no picture, but refer to
    the packs' tars where they lie, all of them on this machine or all in stores; they must stay as they are
    (docs/packing.md). workers: threads; None: one a core. progress: called with the bytes of each record done.

    Cut off at any moment, the same call goes on after the last whole shard. The CRC of every record that is read is
    checked; in place those alone are read that may repeat another's bytes. Raises PackError for a record that is not as
    it was packed; where metadata or labels do not fit together; where a pack is changed meanwhile; where `out` is in
    use. ValueError for wrong arguments.
    """
    if on_duplicate not in ON_DUPLICATE:
        raise ValueError(f"on_duplicate is {on_duplicate!r}, want one of {ON_DUPLICATE}")
    if isinstance(packs, (str, Path, Pack)) or not packs:
        raise ValueError("packs is empty or one pack, want a sequence of them")
    opened = [pack if isinstance(pack, Pack) else Pack(pack) for pack in packs]
    given = _checked_prefixes(prefixes, len(opened))
    for pack in opened:
        pack.refresh()
    options = Options(on_duplicate=on_duplicate)
    plan = {
        "combine": [pack.known_place for pack in opened],
        "prefixes": given,
        "on_duplicate": on_duplicate,
        **({"in_place": True} if in_place else {}),
    }
    inputs = hashlib.sha256(json.dumps([[pack.manifest, pack.generation] for pack in opened]).encode()).hexdigest()
    with (
        destination(out, storage_options) as place,
        workplace(place, [pack.path for pack in opened], plan, inputs) as before,
    ):
        if before is not None:
            return Combined(**before)
        united = _United(opened)
        removed = set().union(*map(_removed_ids, opened))
        sources = [_LiveRecords(pack, prefix, removed) for pack, prefix in zip(opened, given)]
        threads, tell = workers or usable_cores(), progress or (lambda _: None)
        tars = TarsInPlace(opened, place, threads) if in_place else None
        writer: CopyWriter | InPlaceWriter
        if in_place:
            writer = InPlaceWriter(place, options, tell, inputs, opened)
        else:
            writer = CopyWriter(place, options, tell, inputs)
        names: list[str] = []
        shards = _listed(sources, names)
        in_order((partial(writer.keep_or_write, *shard) for shard in shards), threads)
        place.close()
        drop_repeated(place, options, inputs, names, threads)
        return _finish(place, sources, united, names, inputs, tars)


def _checked_prefixes(prefixes: Sequence[str] | None, count: int) -> list[str]:
    given = [""] * count if prefixes is None else list(prefixes)
    if isinstance(prefixes, str) or len(given) != count:
        raise ValueError(f"prefixes is {prefixes!r}, want one for each of {count} packs")
    for prefix in given:
        try:
            prefix.encode()
        except (AttributeError, UnicodeEncodeError):
            raise ValueError(f"the prefix {prefix!r} is no text that UTF-8 can hold") from None
    return given


def _removed_ids(pack: Pack) -> set[str]:
    pack.checked_log()  # what it names is left out for good
    found: set[str] = set()
    shards = np.searchsorted(pack.first_record, pack.removed, side="right") - 1
    for shard in np.unique(shards).tolist():
        rows = pack.removed[shards == shard] - pack.first_record[shard]
        found.update(pc.take(pack.table(shard, columns=["id"]).column("id"), arrow.numbers(rows)).to_pylist())
    return found


def _listed(sources: list[_LiveRecords], names: list[str]) -> Iterator[tuple[str, list[Entry]]]:
    """Yield (name, entries) of each shard with live records, and add the name to `names`."""
    for number, source in enumerate(sources):
        for shard, entries in enumerate(source.by_shard()):
            if entries:
                names.append(_name(number, shard))
                yield names[-1], entries


def _name(source: int, shard: int) -> str:
    return f"shard-{source:05d}-{shard:03d}"


class _LiveRecords(PackSource):
    """A pack as a source of its live records, with their new ids.

    removed: ids that were removed from any of the packs. elsewhere: what is left out for one of another pack.
    """

    def __init__(self, pack: Pack, prefix: str, removed: set[str]):
        super().__init__(pack)
        self.prefix, self.removed = prefix, removed
        self.elsewhere: list[Refusal] = []

    def by_shard(self) -> Iterator[list[Entry]]:
        for entries in super().by_shard():
            live = [entry for entry in entries if entry.length]
            self.elsewhere += [refusal(entry, REMOVED_ELSEWHERE) for entry in live if entry.id in self.removed]
            yield [
                Entry(self, entry.name, self.prefix + entry.id, None, entry.offset, entry.length)
                for entry in live
                if entry.id not in self.removed
            ]


class _United:
    """Classes and columns of metadata of packs. Raises PackError where they do not fit together."""

    def __init__(self, packs: list[Pack]):
        self.classes = self._classes(packs)
        self.types: dict[str, pa.DataType] = {}
        told_by: dict[str, Pack] = {}
        for pack in packs:
            for name, type in _metadata(pack, pack.table(0)).items():
                if self.types.setdefault(name, type) == pa.null():
                    self.types[name] = type
                if type not in (self.types[name], pa.null()):
                    raise PackError(
                        f"the column {name} of the metadata holds {self.types[name]} in {told_by[name].place} and "
                        f"{type} in {pack.place}: build one of them with a table that has the type of the other"
                    )
                if name not in told_by or type != pa.null():
                    told_by[name] = pack

    def _classes(self, packs: list[Pack]) -> list[str]:
        named = [pack for pack in packs if pack.classes]
        for pack in packs:
            numbers = np.delete(pack.column("label"), pack.removed)
            if not pack.classes and named and (numbers != -1).any():
                raise PackError(
                    f"the labels of {pack.place} are numbers, those of {named[0].place} names of classes "
                    f"({', '.join(named[0].classes[:5])}): they do not go into one pack; use ConcatDataset"
                )
        if named and all(pack.classes == named[0].classes for pack in named):
            return named[0].classes
        return sorted({name for pack in named for name in pack.classes})

    def labels(self, pack: Pack, records: np.ndarray) -> np.ndarray:
        """Return the new labels of these records of a pack: (N,) int32."""
        old = pack.labels(records)
        if not pack.classes or pack.classes == self.classes:
            return old.astype(np.int32)
        number_of = {name: number for number, name in enumerate(self.classes)}
        return np.array([*(number_of[name] for name in pack.classes), -1], np.int32)[old]  # [-1] is the last

    def table(self, shard: Shard, number: int, source: _LiveRecords, first: int) -> pa.Table:
        """Return the table of a shard, which was written of shard `number` of a pack. first: its first record."""
        old = source.pack.table(number)
        ids = arrow.strings([source.prefix + id for id in old.column("id").to_pylist()])
        rows = pc.index_in(shard.rows.column("id"), value_set=ids).combine_chunks()
        old, places = old.take(rows), arrow.to_numpy(rows).astype(np.int64)
        made = {
            "record": arrow.numbers(np.arange(first, first + len(shard), dtype=np.int64)),
            "label": arrow.numbers(self.labels(source.pack, source.pack.first_record[number] + places)),
        }
        columns = [made[name] if name in made else shard.rows.column(name) for name in TABLE_SCHEMA.names]
        table = pa.table(columns, schema=TABLE_SCHEMA)
        own = _metadata(source.pack, old)
        for name, type in self.types.items():
            if own.get(name, pa.null()) not in (type, pa.null()):
                raise PackError(
                    f"{source.pack.place}, {source.pack.shards[number]['table']}: the column {name} holds {own[name]}, "
                    f"in the pack's first shard {type}"
                )
            empty = own.get(name, pa.null()) == pa.null()
            column = pa.nulls(len(shard), type) if empty else old.column(name)
            table = table.append_column(pa.field(name, type), column)
        return table.combine_chunks()


def _metadata(pack: Pack, table: pa.Table) -> dict[str, pa.DataType]:
    """Return the types of the columns of metadata of a pack, by one of its tables."""
    names = [name for name in pack.manifest.get("metadata", []) if name not in TABLE_SCHEMA.names]
    return {name: table.schema.field(name).type for name in names}


def _finish(
    out: Destination, sources: list[_LiveRecords], united: _United, names: list[str], inputs: str,
    tars: TarsInPlace | None,
) -> Combined:  # fmt: skip
    """Write tables, index, refused.jsonl and the manifest, from the rows that the shards have left."""
    root, packs = out.folder, [source.pack for source in sources]
    _check_unchanged(packs)
    index, identity, refusals = IndexColumns(root), hashlib.sha256(), Refusals(root)
    for source in sources:
        refusals.add(source.elsewhere)
    elsewhere = sum(len(source.elsewhere) for source in sources)
    shards: list[dict[str, Any]] = []
    records = size = same_id = refused = 0
    for name in names:
        shard = Shard.load(root, name)
        refusals.add(shard.refused)
        same_id += shard.same_id
        refused += len(shard.refused)
        if not len(shard):
            continue
        of_pack, number = map(int, name.split("-")[1:])
        table = united.table(shard, number, sources[of_pack], records)
        publish((write_table(table, root / shard.table), root / shard.table))
        index.append(index_rows(table, len(shards)))
        for lines in identity_lines(table):
            identity.update(lines)
        entry = {"tar": shard.tar, "table": shard.table, "records": len(shard), "bytes": shard.tar_bytes}
        if tars is not None:
            tar = tars.of(of_pack, packs[of_pack].shards[number]["tar"])
            entry |= {"tar": tar.name, "bytes": tar.foreign["bytes"], "foreign": tar.foreign}
        shards.append(entry)
        records += len(shard)
        size += int(arrow.to_numpy(shard.rows.column("length")).sum())
    removed = sum(len(pack.removed) for pack in packs)
    if not shards:
        raise PackError(f"no record is left: {removed:,} were removed, {elsewhere:,} have the id of one that was")
    pack_id = identity.hexdigest()[:32]
    write_index(root / INDEX, index.table(), pack_id)
    refusals.save(Report())
    if tars is not None:
        tars.remember(root, {shard["tar"] for shard in shards})
    out.send(*(shard["table"] for shard in shards))
    delete_others(out, {name for shard in shards for name in (shard["tar"], shard["table"])})
    done = Combined(records, size, len(shards), removed, elsewhere, same_id, refused - same_id)
    codecs = {pack.manifest.get("codec", "") for pack in packs}
    manifest = {
        "pack_id": pack_id,
        "removed": counted_before_all(pack_id),
        "codec": codecs.pop() if len(codecs) == 1 else "mixed",
        "records": records,
        "classes": united.classes,
        "metadata": [*united.types],
        "sources": [Path(pack.place).name for pack in packs],
        "index": INDEX,
        "shards": shards,
    }
    _check_unchanged(packs)
    complete(out, asdict(done), manifest, inputs)
    return done


def _check_unchanged(packs: list[Pack]) -> None:
    """Raise PackError where records were removed, restored or purged since the packs were opened."""
    for pack in packs:
        if pack.refresh():
            raise PackError(f"{pack.place} was changed while its records were copied: run the same command again")
