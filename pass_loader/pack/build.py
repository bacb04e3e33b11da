"""`pass-pack build` and `index`: sources to a pack. Pictures are stored untouched, or stay where they are; equal input
gives equal bytes, whatever the number of workers and however often it was cut off: which entries share a shard depends
on the list of entries only."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

import numpy as np

from ..errors import PackError
from ..keys import check_seed
from ..permutation import permute
from .archives import TarSource
from .cores import usable_cores
from .finish import Finish, own_name
from .inspect import Picture
from .layout import JPEG_CODECS
from .limits import limits
from .metadata import Metadata, Seen
from .published import check_md5
from .report import Refusals, Report
from .shards import Options, Shard, ShardWriter, digest_of, entry_bytes, fingerprint, refusal, stamp_bytes
from .source import IDS, Entry, EntryFile, Naming, Source
from .sources import open_sources
from .workplace import complete, workplace

ON_DUPLICATE = ("keep", "first", "error")
TRANSCODE = (False, "jpeg", "png")
_SAME_ID, _SAME_BYTES = "its id was packed before", "its bytes were packed before"
_TAR_BLOCK = 512
_SHARD_RECORDS = 1 << 14  # at the most: what is known of a shard's pictures lies in memory


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
    on_duplicate: str = "keep",
    md5: bool = False,
    max_pixels: int | None = None,
    max_scans: int | None = None,
    shuffle: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Pack pictures from tars, folders, zips, Parquet files and lists of paths into the directory `out`.

    metadata: a CSV or Parquet file joined by its column `key` to the ids. gps: False leaves columns of coordinates out,
    the table's and the sources' own (metadata.GPS_NAMES); what stands inside the JPEG files stays there.
    shard_bytes: a shard's size, at the most but for one larger picture; of the files, before any codec. workers:
    threads, a shard each; None: one a core. codec: "jpeg" keeps files untouched; "dct" stores their coefficients
    without Huffman codes, for faster decoding (docs/dct-codec.md), "dct-zstd" does so in fewer bytes; files that they
    cannot represent stay as they are, and those that cannot be decoded are refused. PNGs stay as they are.
    transcode: "jpeg" (or True) turns other formats, and PNGs, into JPEGs; "png" turns other formats into PNGs, without
    loss. id: "path" takes a file's whole path for its id, "stem" its last part without suffix; "" what the kind of
    source has. image_key: the suffix of the picture in WebDataset samples that hold several, such as "image.jpg".
    class_folders: read tars as folders are read: the first folder is the class. allow_empty: class folders without
    pictures are classes too, not an error.
    decode: prove every picture by decoding it; without, headers are read, and files that do not end as JPEGs end are
    decoded. on_duplicate: what becomes of a picture whose bytes were packed before under another id: "keep" packs it,
    "first" refuses it, "error" stops; one whose id was packed before is refused, or stops too. md5: check PASS's files
    against the published sums first. max_pixels, max_scans: a picture of more pixels, or a JPEG with more scans, is
    refused; None for the defaults (docs/packing.md). shuffle: a seed from 0 on: pack in an order that it decides, a
    keyed permutation of the list of entries, for order="blocks"; each picture is still read once, but from all over the
    sources, which Parquet files do not allow. progress: called with the bytes of each entry done.

    Cut off at any moment, the same call goes on after the last whole shard, to the same bytes in the end; when it is
    done, the same call of the same sources returns the same report. Pictures that cannot be packed are refused and
    reported, not raised. Raises PackError for unusable sources, metadata or destination, with the remedy.
    """
    transcode = "jpeg" if transcode is True else transcode
    if transcode not in TRANSCODE:
        raise ValueError(f"transcode is {transcode!r}, want one of {TRANSCODE}")
    options = Options(transcode, decode, on_duplicate, codec, max_pixels=max_pixels, max_scans=max_scans)
    naming = Naming(id, image_key, class_folders, allow_empty)
    return _pack(sources, out, metadata, key, gps, shard_bytes, workers, options, naming, md5, progress, shuffle)


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
    on_duplicate: str = "keep",
    md5: bool = False,
    max_pixels: int | None = None,
    max_scans: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Make a pack that refers to tars where they lie: nothing is copied, records are read out of them.

    Arguments and errors are those of `build`. The tars must stay as they are; moved ones are found again by `Pack`.
    """
    for path in sources:
        if not isinstance(open_sources([path])[0], TarSource):
            raise PackError(
                f"{path} is no tar: only tars can be read in place; `pass-pack build` copies it into a pack"
            )
    names = [Path(path).name for path in sources]
    if len(set(names)) < len(names):
        raise PackError(f"two tars have the same name, by which they would be found again: {sorted(names)}; rename one")
    options = Options(
        decode=decode, on_duplicate=on_duplicate, in_place=True, max_pixels=max_pixels, max_scans=max_scans
    )
    naming = Naming(id, image_key, class_folders)
    return _pack(sources, out, metadata, key, gps, 1 << 30, workers, options, naming, md5, progress)


def _pack(
    paths: Sequence[str | Path],
    out: str | Path,
    metadata: str | Path | None,
    key: str,
    gps: bool,
    shard_bytes: int,
    workers: int | None,
    options: Options,
    naming: Naming,
    md5: bool,
    progress: Callable[[int], None] | None,
    shuffle: int | None = None,
) -> Report:
    root = Path(out)
    if shard_bytes < 1 or (workers is not None and workers < 1):
        raise ValueError(f"shard_bytes is {shard_bytes}, workers {workers}: want at least 1")
    if shuffle is not None:
        check_seed(shuffle)
    limits(options.max_pixels, options.max_scans)
    if options.codec not in JPEG_CODECS:
        raise ValueError(f"codec is {options.codec!r}, want one of {JPEG_CODECS}")
    if options.on_duplicate not in ON_DUPLICATE:
        raise ValueError(f"on_duplicate is {options.on_duplicate!r}, want one of {ON_DUPLICATE}")
    if naming.id not in ("", *IDS):
        raise ValueError(f"id is {naming.id!r}, want one of {IDS}")
    sources = open_sources(paths, naming)
    tars = [source for source in sources if isinstance(source, TarSource)]
    if not tars and (naming.image_key is not None or naming.class_folders):
        raise PackError("--image-key and --class-folders are for tars, and no source is one")
    if naming.image_key is not None and naming.class_folders:
        raise PackError("--image-key is for samples, --class-folders for tars that have none: give one of them")
    for source in sources if shuffle is not None else []:
        if not source.at_random:
            raise PackError(
                f"{source.path} is a Parquet file, whose rows can be read in their order alone: to pack them shuffled, "
                "build a pack without --shuffle, `pass-pack export` it as WebDataset tars, and build from those"
            )
    files = [*paths, metadata] if metadata is not None else list(paths)
    checked = [check_md5(path) for path in files] if md5 else []
    plan = {
        "sources": [str(source.path.resolve()) for source in sources],  # what they hold is known shard by shard
        "metadata": [_stamp(Path(metadata)), key] if metadata is not None else None,
        "gps": gps,
        "shard_bytes": shard_bytes,
        **options.as_plan(),
        **({} if shuffle is None else {"shuffle": shuffle}),
        **{name: value for name, value in asdict(naming).items() if value},  # what is asked for alone
    }
    with workplace(root, [source.path for source in sources], plan, lambda: _inputs(sources)) as before:
        if before is not None:
            return Report.of_dict(before)
        for source in sources:
            source.check()
        table = Metadata(metadata, key, root, gps) if metadata is not None else None
        build = _Build(root, sources, table, gps, options, progress or (lambda _: None), shuffle)
        return build.run(shard_bytes, workers or usable_cores(), plan, checked)


def _stamp(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}") from None
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


class _Build:
    def __init__(
        self, root: Path, sources: list[Source], metadata: Metadata | None, gps: bool, options: Options,
        progress: Callable[[int], None], shuffle: int | None,
    ):  # fmt: skip
        self.shuffle = shuffle
        self.root, self.sources, self.metadata, self.gps, self.options = root, sources, metadata, gps, options
        self.progress = progress
        self.writer = ShardWriter(root, options, progress)
        self.report = Report(without_metadata=None if metadata is None else 0)
        self.refusals = Refusals(root)
        self.later = EntryFile(root, sources)
        self.apart: Counter[str] = Counter()
        self.digests = Seen()
        self.listing = hashlib.sha256()

    def run(self, shard_bytes: int, workers: int, plan: dict[str, Any], checked_md5: list[str]) -> Report:
        numbers = []
        for shard in self._written_shards(shard_bytes, workers):
            self.report.add(shard.report)
            self.refusals.add(shard.report.refused)
            if len(shard):
                numbers.append(shard.number)
        self.refusals.save(self.report)
        if not numbers:
            raise PackError(f"no picture could be packed:\n{self.report}")
        self.report.checked_md5 = checked_md5
        finish = Finish(self.root, self.sources, numbers, self.metadata, self.gps)
        shards, pack_id = finish.tables(self.report)
        self.report.beside = dict(sum((source.beside for source in self.sources), Counter()))
        self.report.ids_apart = dict(self.apart)
        if self.metadata is not None:
            self.report.hints += self.metadata.hints()
        manifest = finish.manifest(shards, pack_id, self.report, self.options.codec)
        complete(self.root, plan, asdict(self.report), manifest, self.listing.hexdigest())
        return self.report

    def _written_shards(self, shard_bytes: int, workers: int) -> Iterator[Shard]:
        """Yield the shards in order; up to `workers` are written at a time.

        Entries whose id came before are packed last, one after the other: whether they are duplicates depends on what
        became of the first.
        """
        following = 0
        free = Seen()  # ids whose first entry was refused
        for shard in self._first_shards(shard_bytes, workers):
            for refused in shard.report.refused:
                free.is_new(refused.id)
            following = shard.number + 1
            yield shard

        def reject(entry: Entry, picture: Picture | None) -> str | None:
            if entry.id not in free:
                return self._duplicate(f"{entry.source.name}: {entry.name} (id {entry.id}): {_SAME_ID}")
            reason = self._reject_copy(entry, picture)
            if picture is not None and reason is None:
                free.discard(entry.id)
            return reason

        for number, entries in enumerate(self._groups(iter(self.later), shard_bytes), following):
            shard = self.writer.write(number, entries, fingerprint(entries), reject, self._place(entries))
            shard.report.same_id = sum(refused.reason == _SAME_ID for refused in shard.report.refused)
            yield shard

    def _first_shards(self, shard_bytes: int, workers: int) -> Iterator[Shard]:
        serial = self.options.on_duplicate != "keep"  # which of two copies comes first must not depend on threads
        pending: deque[Future[Shard]] = deque()
        pool = ThreadPoolExecutor(1 if serial else workers, thread_name_prefix="pass-pack")
        try:
            entries = self._first_entries() if self.shuffle is None else self._shuffled(self.shuffle)
            for number, group in enumerate(self._groups(entries, shard_bytes)):
                pending.append(pool.submit(self._shard, number, group))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except PackError:
            pending.clear()  # those that were begun are finished, and kept for the next run
            raise
        finally:
            for future in pending:
                future.cancel()
            pool.shutdown()

    def _shard(self, number: int, entries: list[Entry]) -> Shard:
        """Return the shard that a packing that was cut off has written, else write it."""
        listed = fingerprint(entries)
        shard = Shard.find(self.root, number, listed)
        if shard is None:
            return self.writer.write(number, entries, listed, self._reject_copy, self._place(entries))
        for digest in filter(None, shard.columns["digest"]):
            self.digests.is_new(bytes.fromhex(digest))
        self.progress(sum(entry.length for entry in entries))
        return shard

    def _place(self, entries: list[Entry]) -> int | None:
        return self.sources.index(entries[0].source) if self.options.in_place else None

    def _reject_copy(self, entry: Entry, picture: Picture | None) -> str | None:
        if picture is None or self.options.on_duplicate == "keep" or self.digests.is_new(digest_of(picture.data)):
            return None
        self._duplicate(f"{entry.source.name}: {entry.name} (id {entry.id}): {_SAME_BYTES}")
        return _SAME_BYTES

    def _duplicate(self, message: str) -> str:
        if self.options.on_duplicate == "error":
            raise PackError(f"{message} (--on-duplicate first leaves it out)")
        return _SAME_ID

    def _first_entries(self) -> Iterator[Entry]:
        """Yield the entries that may be packed; the others are refused, or set aside in self.later."""
        seen, kinds = Seen(), _Kinds(self.metadata)
        for source in self.sources:
            for entry in _listed(source, self.listing):
                reason = entry.problem or _bad_id(entry.id)
                if reason is not None:
                    self.refusals.add_listed(refusal(entry, reason))
                    continue
                kinds.add(entry)
                names = _names(entry.name)
                first = seen.first(entry.id, *names.values())
                if first is None:
                    yield entry
                else:
                    self.later.append(entry)
                    self.apart.update(way for (way, name), other in zip(names.items(), first) if name != other)

    def _shuffled(self, seed: int) -> Iterator[Entry]:
        """Yield the same entries in a keyed order, when all of them are listed."""
        listed = EntryFile(self.root, self.sources)
        for entry in self._first_entries():
            listed.append(entry)
        for begin in range(0, len(listed), _SHARD_RECORDS):
            places = np.arange(begin, min(begin + _SHARD_RECORDS, len(listed)))
            yield from listed.at(permute(places, len(listed), seed).tolist())

    def _groups(self, entries: Iterator[Entry], shard_bytes: int) -> Iterator[list[Entry]]:
        """Yield the entries of each shard, by the listed sizes alone: neither refusals nor workers change them."""
        group: list[Entry] = []
        size = 0
        for entry in entries:
            padded = _TAR_BLOCK + -(-entry.length // _TAR_BLOCK) * _TAR_BLOCK
            apart = self.options.in_place and group and group[0].source is not entry.source
            if group and (size + padded > shard_bytes or apart or len(group) == _SHARD_RECORDS):
                yield group
                group, size = [], 0
            group.append(entry)
            size += padded
        if group:
            yield group


class _Kinds:
    """What the sources say of their pictures must go together: checked when they are listed, not at the end."""

    def __init__(self, metadata: Metadata | None):
        self._metadata = metadata
        self._columns = {*metadata.columns} if metadata is not None else set()
        self._class_name: str | None = None
        self._numbered = False

    def add(self, entry: Entry) -> None:
        """Raise PackError where labels are names and numbers, or a source's own column is the table's too."""
        self._class_name = self._class_name or entry.class_name
        self._numbered |= entry.label is not None
        if self._numbered and self._class_name:
            raise PackError(
                f"some sources have numbers as labels, others names ({self._class_name}): pack them apart "
                f"({entry.source.name}: {entry.name})"
            )
        if self._columns and entry.metadata and (clash := self._columns & {*map(own_name, entry.metadata)}):
            raise PackError(
                f"{entry.source.name} and {self._metadata and self._metadata.path} both have the columns "
                f"{sorted(clash)}; rename them"
            )


def _inputs(sources: list[Source]) -> str:
    """Return a digest of the sources as they are listed now."""
    listing = hashlib.sha256()
    for source in sources:
        for _ in _listed(source, listing):
            pass
    return listing.hexdigest()


def _listed(source: Source, listing: hashlib._Hash) -> Iterator[Entry]:
    """Yield the source's entries; they go into the digest `listing` too."""
    try:
        listing.update(stamp_bytes(source))
        for entry in source.entries():
            listing.update(entry_bytes(entry))
            yield entry
    except OSError as error:
        raise PackError(
            f"{error.filename or source.path} cannot be read: {error.strerror or error}. Where the storage is failing, "
            "copy or download the source again; then run the same command to go on"
        ) from None


def _names(name: str) -> dict[str, int]:
    """Return short digests of the ids that IDS would give."""
    path = PurePosixPath(name)
    return {way: crc32(Naming(way).id_of(path).encode("utf-8", "surrogateescape")) for way in IDS}


def _bad_id(id: str) -> str | None:
    if not id or id in (".", ".."):
        return "its name gives no id"
    try:
        id.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None
