"""`pass-pack fetch`: a whole pack from a store into the cache."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import PackError
from .reader import Pack

_PART_BYTES = 64 << 20  # that is waited for together


def fetch(pack: str | Pack, *, progress: Callable[[int], None] | None = None) -> int:
    """Bring every file of a pack into its cache, so that it can be read there without a network. Returns its bytes.

    progress: called with the bytes of each part that has come.
    Raises PackError where it does not fit into cache_bytes, or is in a directory; OSError where the store fails.
    """
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    if pack.remote is None:
        raise PackError(f"{pack.place} is in a directory: there is nothing to fetch")
    tars = list(dict.fromkeys(shard["tar"] for shard in pack.shards))
    pack.remote.files()
    pack.remote.points(whole=True)
    pack.remote.check_fits(tars)
    done = 0
    for tar in tars:
        size = pack.remote.size_of(tar)
        for begin in range(0, size, _PART_BYTES):
            length = min(_PART_BYTES, size - begin)
            pack.remote.bring(tar, begin, length)
            done += length
            if progress is not None:
                progress(length)
    pack.remote.mark_whole()
    return done
