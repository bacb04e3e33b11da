"""FFCV's files, usually NAME.beton: pictures that its field RGBImageField kept as JPEGs or raw, labels, other fields.

The layout is that of ffcv 1.0.2 (types.py, writer.py, fields/): a header, a descriptor for each field, a fixed-width
row for each sample, pages of data, and a table of all that was allocated in them, which alone knows how long a JPEG is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackError
from .plain_json import plain_json
from .source import PLAIN, Entry, Naming, Source, html_hint, label_problem
from .source_file import SourceFile

_VERSION = 2
_HEADER = np.dtype([("version", "<u2"), ("fields", "<u2"), ("page_bytes", "<u4"), ("samples", "<u8"), ("table", "<u8")])
_FIELD = np.dtype([("type", "u1"), ("name", "S16"), ("arguments", "V1024")])
_ALLOCATION = np.dtype([("sample", "<u8"), ("begin", "<u8"), ("size", "<u8")])
_IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("begin", "<u8")])
_BYTES = np.dtype([("begin", "<u8"), ("size", "<u8")])
_JPEG, _RAW = 0, 1  # an image's mode
_FLOAT, _INT, _PICTURE, _JSON, _OWN = 0, 1, 2, 5, 255  # a field's type
_TYPES = {
    _FLOAT: np.dtype("<f8"), _INT: np.dtype("<i8"), _PICTURE: _IMAGE, 3: _BYTES, 4: np.dtype("<u8"), _JSON: _BYTES,
    6: np.dtype("<u8"),
}  # fmt: skip
_UNREAD = {3: "bytes", 4: "array", 6: "tensor"}
_LABELS = ("label", "labels")
_MIN_PAGE_BYTES = 1 << 21  # of ffcv's writer
_MAX_FIELDS = 1000
_MAX_JSON_BYTES = 16 << 20  # a picture's metadata has less
_ROWS = 4096  # read together
_READ_BYTES = 1 << 26  # of the table, read together


@dataclass(frozen=True)
class _Allocations:
    """What was allocated in the pages, in the order of the file, without overlaps."""

    begin: np.ndarray
    size: np.ndarray
    sample: np.ndarray

    def size_of(self, begin: int, sample: int) -> int | None:
        """Return the bytes of what begins there and belongs to the sample; None where there is no such thing."""
        place = int(np.searchsorted(self.begin, begin))
        found = place < len(self.begin) and self.begin[place] == begin and self.sample[place] == sample
        return int(self.size[place]) if found else None


class BetonSource(Source):
    """A file of FFCV's.

    The id is `id`, a number or in the JSON, or file name and the sample's number. The whole number `label` or `labels`
    gives the label; other numbers and JSON are metadata: the keys of a JSON object as they are, after the field's name
    and a dot where another field has them, and any other JSON value by its field's name.
    A raw picture is given as a PPM file, which is packed where other formats are converted. naming: its image_key names
    the field of the picture where there are several.
    """

    def __init__(self, path: Path, naming: Naming = PLAIN):
        super().__init__(path, naming)
        self._file = SourceFile(path)
        self._bytes = self._file.size
        header = self._read_array(_HEADER, 0, 1)[0]
        if header["version"] != _VERSION:
            raise PackError(
                f"{path} is no .beton of FFCV: it begins with the version {header['version']}, want "
                f"{_VERSION}{html_hint(path) or '; write it with ffcv 1.0, or download it again'}"
            )
        count, self._samples, self._table = (int(header[name]) for name in ("fields", "samples", "table"))
        if self._table == 0:
            raise PackError(f"{path} was never finished: FFCV's writer was stopped. Write it again")
        if not 1 <= count <= _MAX_FIELDS:
            raise self._damaged(f"{count} fields")
        self._names, self._types = self._fields(count)
        self._row = np.dtype([(name, _TYPES[type]) for name, type in zip(self._names, self._types)], align=True)
        self._rows_begin = _HEADER.itemsize + count * _FIELD.itemsize
        if self._rows_begin + self._samples * self._row.itemsize > self._table:
            raise self._damaged(f"{self._samples:,} samples, which do not fit before the table at {self._table:,}")
        table_bytes = self._bytes - self._table
        most = self._samples * sum(type not in (_FLOAT, _INT) for type in self._types)
        if table_bytes < 0 or table_bytes % _ALLOCATION.itemsize or table_bytes // _ALLOCATION.itemsize > most:
            raise self._damaged(f"a table at byte {self._table:,} of {self._bytes:,}")
        self._image = self._image_field()
        self._label = next((name for name in _LABELS if name in self._of_type(_INT)), None)

    def _damaged(self, what: str) -> PackError:
        return PackError(f"{self.path} is cut off or damaged: it names {what}; copy or download it again")

    def _read_array(self, type: np.dtype, begin: int, count: int) -> np.ndarray:
        data = bytearray()
        while len(data) < type.itemsize * count:
            part = self._file.pread(min(_READ_BYTES, type.itemsize * count - len(data)), begin + len(data))
            if not part:
                raise self._damaged(f"{type.itemsize * count:,} bytes at {begin:,} of {self._bytes:,}")
            data += part
        return np.frombuffer(data, type, count)

    def _fields(self, count: int) -> tuple[list[str], list[int]]:
        names: list[str] = []
        types: list[int] = []
        for field in self._read_array(_FIELD, _HEADER.itemsize, count):
            type = int(field["type"])
            try:
                name = bytes(field["name"]).split(b"\0")[0].decode("ascii")
            except UnicodeDecodeError:
                raise self._damaged(f"a field {bytes(field['name'])!r}") from None
            if type == _OWN:
                raise PackError(
                    f"{self.path}: the field {name!r} is of a class of its own, and the file does not tell how long it "
                    "is: write the file again without it"
                )
            if type not in _TYPES or not name.isprintable() or not name or name in names:
                raise self._damaged(f"a field {name!r} of type {type} beside {names}")
            names.append(name)
            types.append(type)
        return names, types

    def _of_type(self, *wanted: int) -> list[str]:
        return [name for name, type in zip(self._names, self._types) if type in wanted]

    def _image_field(self) -> str:
        images = self._of_type(_PICTURE)
        if self.naming.image_key is not None:
            if self.naming.image_key not in images:
                raise PackError(
                    f"{self.path} has no field of pictures {self.naming.image_key!r}, which --image-key names; it has "
                    f"{', '.join(images) or 'none'}"
                )
            return self.naming.image_key
        if not images:
            raise PackError(f"{self.path} has no field of pictures; its fields are {', '.join(self._names)}")
        if len(images) > 1:
            raise PackError(
                f"{self.path} has several fields of pictures, {', '.join(images)}: --image-key {images[0]} packs that "
                "one"
            )
        return images[0]

    def size(self) -> int:
        return self._bytes

    def entries(self) -> Iterator[Entry]:
        self.beside.clear()
        for name, type in zip(self._names, self._types):
            if type in _UNREAD or type == _PICTURE and name != self._image:
                self.beside[f"{_UNREAD.get(type, 'picture')} of the field {name}"] += self._samples
        allocations = self._allocations()
        for first in range(0, self._samples, _ROWS):
            for row, values in enumerate(self._rows(first, min(_ROWS, self._samples - first)), first):
                yield self._entry(row, values, allocations)

    def _rows(self, first: int, count: int) -> np.ndarray:
        return self._read_array(self._row, self._rows_begin + first * self._row.itemsize, count)

    def _allocations(self) -> _Allocations:
        table = self._read_array(_ALLOCATION, self._table, (self._bytes - self._table) // _ALLOCATION.itemsize)
        table = table[table["size"] > 0]
        table = table[np.argsort(table["begin"], kind="stable")]
        begin, size = table["begin"], table["size"]
        beyond = (begin > self._table) | (size > self._table)  # so that no sum is past 64 bits
        if beyond.any() or np.any(begin + size > np.append(begin[1:], np.uint64(self._table))):
            raise self._damaged("pictures that lie over one another, or past its end")
        return _Allocations(begin.copy(), size.copy(), table["sample"].copy())

    def _entry(self, row: int, values: np.void, allocations: _Allocations) -> Entry:
        id, length, label, problem = f"{self.path.stem}-{row}", 0, None, None
        metadata: dict[str, Any] = {}
        try:
            length = self._picture_bytes(row, values[self._image], allocations)
            metadata = self._metadata(row, values, allocations)
            if self._label is not None:
                number = metadata.pop(self._label)
                if wrong := label_problem(number):
                    raise ValueError(wrong)
                label = number if number >= 0 else None
        except ValueError as error:
            problem = str(error)
        if type(metadata.get("id")) in (int, str):
            id = str(metadata.pop("id"))
        return Entry(self, f"sample {row}", id, None, row, length, problem, label, metadata)

    def _picture_bytes(self, row: int, image: np.void, allocations: _Allocations) -> int:
        mode, begin, pixels = int(image["mode"]), int(image["begin"]), 3 * int(image["width"]) * int(image["height"])
        size = allocations.size_of(begin, row)
        if size is None:
            raise ValueError(f"the file has nothing of this sample at byte {begin}, where its picture should begin")
        if mode not in (_JPEG, _RAW):
            raise ValueError(f"its picture is of mode {mode}, want 0 (a JPEG) or 1 (raw)")
        if mode == _RAW and size != pixels:
            raise ValueError(
                f"its raw picture of {image['width']} x {image['height']} pixels has {size} bytes, want {pixels}"
            )
        return size if mode == _JPEG else size + len(_ppm_header(image))

    def _metadata(self, row: int, values: np.void, allocations: _Allocations) -> dict[str, Any]:
        """Return numbers by their fields' names, and what the JSON of the sample holds."""
        found: dict[str, Any] = {name: values[name].item() for name in self._of_type(_FLOAT, _INT)}
        for name in self._of_type(_JSON):
            begin, size = int(values[name]["begin"]), int(values[name]["size"])
            if size > _MAX_JSON_BYTES or allocations.size_of(begin, row) != size:
                raise ValueError(f"the file has no {size} bytes of this sample at byte {begin}, for its {name}")
            try:
                value = plain_json(self._file.pread(size, begin).split(b"\0")[0])
            except ValueError as error:
                raise ValueError(f"its {name} cannot be read: {error}") from None
            for key, part in value.items() if isinstance(value, dict) else [(name, value)]:
                while key in found:
                    key = f"{name}.{key}"
                found[key] = part
        return found

    def read(self, entry: Entry) -> bytes:
        (image,) = self._rows(entry.offset, 1)[self._image]
        header = b"" if image["mode"] == _JPEG else _ppm_header(image)
        length = entry.length - len(header)
        data = self._file.pread(length, int(image["begin"]))
        if len(data) != length:
            raise PackError(f"{self.path} is cut off: {entry.name} wants {length} bytes at {image['begin']}")
        return header + data


def _ppm_header(image: np.void) -> bytes:
    return b"P6 %d %d 255\n" % (image["width"], image["height"])


def is_beton(path: Path) -> bool:
    """Return True where a file is named .beton, or begins as FFCV's files do, which have no name of their own in it."""
    if path.suffix == ".beton":
        return True
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEADER.itemsize)
    if len(head) < _HEADER.itemsize:
        return False
    header = np.frombuffer(head, _HEADER)[0]
    page_bytes, table = int(header["page_bytes"]), int(header["table"])
    return (
        header["version"] == _VERSION
        and 1 <= header["fields"] <= _MAX_FIELDS
        and page_bytes >= _MIN_PAGE_BYTES
        and page_bytes & (page_bytes - 1) == 0
        and page_bytes < table <= path.stat().st_size
    )
