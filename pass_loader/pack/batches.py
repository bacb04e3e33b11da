"""Files of record batches of which each can be read alone, from a store by ranges: what the tasks of a join leave.

The batches' messages of Arrow IPC; the schema's; then int64: where each message begins, where the schema's ends, and
how many batches there are. An Arrow file's footer tells the same, but pyarrow does not say what it read there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from ..errors import PackError
from .destination import Destination
from .layout import NO_SPACE

_TAIL_BYTES = 64 << 10  # that are read first: as a rule they hold the schema and all places


@contextlib.contextmanager
def writing_batches(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Give what appends a batch of this schema to a new file."""
    places = [0]
    with pa.OSFile(str(path), "wb") as file:

        def write(batch: pa.RecordBatch) -> None:
            if len(batch):
                file.write(batch.serialize())
            places.append(file.tell())

        yield write
        file.write(schema.serialize())
        file.write(np.array([*places, file.tell(), len(places) - 1], np.int64))


class BatchFile:
    """The batches of a file, which are numbered. Those that were brought may be read by several threads.

    schema: of all, with what was told of them in its metadata. count: of the batches. Raises PackError where the file
    is missing or damaged.
    """

    def __init__(self, out: Destination, name: str):
        self._out, self._name = out, name
        with self._words():
            size = out.size_of(name)
            if size is None:
                raise FileNotFoundError("there is no such file")
            tail = out.read(name, max(0, size - _TAIL_BYTES), min(size, _TAIL_BYTES))
            self.count = int(np.frombuffer(tail[-8:], np.int64)[0])
            behind = 8 * (self.count + 3)
            if not 24 <= behind <= size:
                raise ValueError(f"it says that it has {self.count} batches")
            if behind > len(tail):
                tail = out.read(name, size - behind, behind)
            self._places = np.frombuffer(tail[-behind:-8], np.int64).tolist()
            begin, end = self._places[-2:]
            if not 0 <= begin < end == size - behind:
                raise ValueError("its places do not fit its size")
            first = size - len(tail)
            schema = tail[begin - first : end - first] if begin >= first else out.read(name, begin, end - begin)
            self.schema = pa.ipc.read_schema(pa.py_buffer(schema))
            self._size, self._mapped = size, pa.py_buffer(b"")

    def bring(self, numbers: Iterable[int]) -> None:
        """Make batches readable. A mapping of the file stays as long as the batches do."""
        with self._words():
            parts = [(self._places[number], self._places[number + 1]) for number in numbers]
            path = self._out.bring_parts(self._name, self._size, parts)
            with pa.memory_map(str(path)) as file:
                self._mapped = file.read_buffer()

    def batch(self, number: int) -> pa.RecordBatch | None:
        """Return a batch that was brought; None where it has no rows."""
        begin, end = self._places[number : number + 2]
        if begin == end:
            return None
        with self._words():
            return pa.ipc.read_record_batch(self._mapped.slice(begin, end - begin), self.schema)

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, IndexError) as error:
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise
            place = f"{self._out.place.rstrip('/')}/{self._name}"
            raise PackError(f"{place} cannot be read ({error}): run the same command again") from None
