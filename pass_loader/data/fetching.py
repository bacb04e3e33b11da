"""What samples need of packs in stores, on its way into the cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import RecordError, ShardError
from ..pack.index_parts import AfterIndex
from ..pack.reader import Pack
from ..remote.fetcher import Awaited, PieceError


class Fetching:
    """Records of packs in stores that samples need: being fetched, and kept in the cache until `done`.

    parts: (pack, number of its first record among those of the samples, -1 for a pack of heatmaps; its own records).
    error: makes the error of a record of the samples, of its number, the fault and the cause.
    """

    def __init__(self, parts: Sequence[tuple[Pack, int, np.ndarray]], error: Callable[[int, str, str], RecordError]):
        self._parts, self._error_of = parts, error
        self._coming: list[tuple[Pack, int, Awaited | AfterIndex]] = []
        for pack, first, records in parts:
            coming = pack.coming(records.tolist())
            if coming is not None:
                self._coming.append((pack, first, coming))

    @property
    def ready(self) -> bool:
        """True where all of it is there, or an error waits to be raised."""
        return all(coming.ready for *_, coming in self._coming)

    def wait(self, timeout: float = math.inf) -> None:
        """Wait until all of it is there. Raises ShardError where a store fails, TimeoutError after so many seconds."""
        for pack, first, coming in self._coming:
            try:
                coming.wait(timeout)
            except PieceError as error:
                raise self._error(pack, first, error.record, str(error)) from None

    def mend(self) -> None:
        """Fetch anew what is wrong in the cache. Raises ShardError where it is in the store too."""
        for pack, first, records in self._parts:
            for record in records.tolist() if pack.remote is not None else ():
                try:
                    pack.mend(record)
                except OSError as error:
                    raise self._error(pack, first, record, str(error)) from None

    def done(self) -> None:
        """Let the cache drop it: the samples are made."""
        for *_, coming in self._coming:
            coming.done(used=True)

    def _error(self, pack: Pack, first: int, record: int, cause: str) -> RecordError:
        if first >= 0:
            return self._error_of(first + record, "io", cause)
        return ShardError(pack.shard_name(record), record, pack.id_of(record), cause)
