"""Parts of a pack that have no picture in common, such as training and validation. Works without torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import PackError
from ..keys import check_seed
from ..pack.reader import Pack
from .live import Live
from .samples import Samples


def split(
    dataset: Samples | Pack | str | Path, fractions: Sequence[float], seed: int = 0, *, by: str | None = None
) -> list[np.ndarray]:
    """Return the records of each part, int64 in the order of serving: what ShardDataset takes as `records=`.

    A picture's part follows from its id and the seed alone. So the parts are disjoint, a removal or a restore moves no
    other picture, and other packs of the same pictures (another codec, another order, more pictures) have the same
    parts. A part of fraction f of n pictures has f * n of them up to about sqrt(n * f * (1 - f)).

    dataset: a ShardDataset or Samples of one pack, whose chosen records are split; or a Pack or its path.
    fractions: one a part, above 0, with a sum of at most 1; pictures beyond the sum are in no part.
    by: a column of the metadata, such as a patient's number: all pictures that have one value of it are in one part. A
        picture without a value stands for itself.

    Raises ValueError for fractions or a seed out of range, PackError for a column that the pack does not have,
    TypeError for a dataset of several packs.
    """
    shares = [float(fraction) for fraction in fractions]
    if not shares or not all(share > 0 for share in shares) or math.fsum(shares) > 1 + 1e-9:
        raise ValueError(f"fractions are {tuple(fractions)}, want numbers above 0 whose sum is at most 1")
    check_seed(seed)
    if isinstance(dataset, Samples):
        if len(dataset.parts) != 1:
            raise TypeError("the dataset has several packs: split each of its datasets by itself")
        pack, live = dataset.parts[0].pack, dataset.parts[0].live()
    else:
        pack = dataset if isinstance(dataset, Pack) else Pack(dataset)
        live = Live.of(pack, None)
    records = live.records_at(np.arange(len(live)))
    names = pack.all_ids() if by is None else _values(pack, by)
    places = _places(names.take(pa.array(records)).to_pylist(), seed)
    ends = np.cumsum(shares)
    if math.isclose(ends[-1], 1, abs_tol=1e-9):
        ends[-1] = 1
    part = np.searchsorted(ends, places, side="right")
    return [records[part == number] for number in range(len(shares))]


def _places(names: list[str], seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each name, float64: the same for the same name and seed."""
    salt = seed.to_bytes(8, "little")
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8, key=salt).digest() for name in names)
    return (np.frombuffer(digests, "<u8") >> np.uint64(11)) * 2.0**-53


def _values(pack: Pack, column: str) -> pa.LargeStringArray:
    """Return a column of the metadata as text, (records,); the id where there is none."""
    known = pack.manifest.get("metadata", [])
    if column not in known:
        raise PackError(f"by: {pack.path} has no column {column!r}; its metadata has {known}")
    tables = [pack.table(shard, columns=[column]) for shard in range(len(pack.shards))]
    values = pc.utf8_trim_whitespace(pa.concat_tables(tables).column(column).cast(pa.large_string()))
    found = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.large_string()), values)
    return pc.coalesce(found.combine_chunks(), pack.all_ids())
