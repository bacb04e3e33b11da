"""Exceptions: what can go wrong with data, each naming the place. All of them are PassLoaderErrors."""

from __future__ import annotations

from ._C import BadPictureError, PassLoaderError

__all__ = ["BadPictureError", "PackError", "PassLoaderError", "RecordError", "ShardError"]


class PackError(PassLoaderError, ValueError):
    """A pack, a source or a metadata file is not what it should be; the message says what and where."""


class RecordError(PassLoaderError, RuntimeError):
    """One record cannot become a sample. Names it: shard, record, id, cause."""

    def __init__(self, shard: str, record: int, id: str, cause: str):
        super().__init__(shard, record, id, cause)
        self.shard, self.record, self.id, self.cause = shard, record, id, cause

    def __str__(self) -> str:
        return f"{self.shard}, record {self.record}, id {self.id}: {self.cause}"


class ShardError(RecordError, OSError):
    """The storage failed while a record was read: missing, cut off or unreadable shard."""

    __str__ = RecordError.__str__
