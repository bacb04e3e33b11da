"""Samples of a WebDataset tar: files in a row that share a key.

The rules are those of webdataset 1.0.2, tariterators.py: the key is the path up to the first dot of its last part, the
suffix is the rest in small letters, and files without one or the other break no sample. Hidden files and READMEs are
passed over; a file without a suffix may be a picture of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..errors import PackError
from .layout import member_name
from .plain_json import plain_json
from .source import PICTURE_SUFFIXES, Entry, label_problem

_MAX_COMPANION_BYTES = 16 << 20  # a label or a picture's metadata has less
_MAX_BETWEEN = 1000  # files
_TEXTS = ("txt", "text", "transcript", "caption")
_META = re.compile(r"__[^/]*__($|/)")


class UnclearSampleError(PackError):
    """Samples of which nobody can tell which picture is meant."""


class SampleGrouping:
    """Makes entries of the pictures of a tar's samples, with label and metadata from the files beside them.

    beside: how many files were neither a picture nor read for one, by suffix. read: gives an entry's bytes.
    """

    def __init__(self, name: str, read: Callable[[Entry], bytes], id: str, image_key: str | None):
        self._name, self._read, self._id = name, read, id
        self._image_key = image_key.lower().lstrip(".") if image_key is not None else None
        self._suffixes: set[str] = set()
        self._chosen = False
        self.beside: Counter[str] = Counter()

    def entries(self, files: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the pictures, in the order of the files.

        Raises UnclearSampleError for samples of several pictures of which none is chosen, or where the chosen one never
        comes.
        """
        key = ""
        sample: list[Entry] = []
        between: list[Entry] = []  # files without a suffix, which may be pictures, in the midst of a sample
        for file in files:
            if is_foreign(file.name):
                self.beside[_base(file.name)] += 1
                continue
            if "." not in _base(file.name) and sample and len(between) < _MAX_BETWEEN:
                between.append(file)
                continue
            found = key_of(file.name)
            if sample and found != key:
                yield from self._sample(key, sample)
                yield from self._alone(between)
                sample, between = [], []
            key = found
            sample.append(file)
        if sample:
            yield from self._sample(key, sample)
            yield from self._alone(between)
        if self._image_key is not None and not self._chosen:
            raise UnclearSampleError(
                f"{self._name} has no file with the suffix {self._image_key}, which --image-key names; it has "
                f"{', '.join(sorted(self._suffixes)[:20])}"
            )

    def _alone(self, files: list[Entry]) -> Iterator[Entry]:
        for file in files:
            yield from self._sample(file.name, [file])

    def _sample(self, key: str, sample: list[Entry]) -> Iterator[Entry]:
        suffixes = [_suffix(file.name) for file in sample]
        if len(self._suffixes) < 1000:
            self._suffixes.update(suffixes)
        if len(sample) == 1 and self._image_key is None:
            yield sample[0]
            return
        pictures = self._pictures(key, sample, suffixes)
        self._chosen |= bool(pictures)
        texts = {suffix: file for suffix, file in zip(suffixes, sample) if suffix in _TEXTS}
        companions = {end: found for end in ("cls", "json") if (found := _companion(sample, suffixes, end))}
        read = [*texts.values(), *companions.values()] if pictures else []
        unread = (suffix for suffix, file in zip(suffixes, sample) if file not in pictures and file not in read)
        self.beside.update(unread)
        if not read:
            yield from pictures
            return
        try:
            label, metadata = self._label(companions.get("cls")), self._metadata(companions.get("json"), texts)
        except ValueError as error:
            problem = f"its sample's .cls or .json cannot be read: {error}"
            yield from (replace(picture, problem=problem) for picture in pictures)
            return
        own = metadata.get("id")
        exported = isinstance(own, str) and member_name(own, "jpeg") == key + ".jpg"
        if exported:
            del metadata["id"]
        id = own if exported and isinstance(own, str) else key
        for picture in pictures:
            named = picture if self._id else replace(picture, id=id)
            yield replace(named, label=label, metadata=metadata)

    def _pictures(self, key: str, sample: list[Entry], suffixes: list[str]) -> list[Entry]:
        if self._image_key is not None:
            return [file for file, suffix in zip(sample, suffixes) if suffix == self._image_key]
        known = [(file, end) for file, end in zip(sample, suffixes) if _last(end) in PICTURE_SUFFIXES]
        if not known:  # a suffix of their own: the bytes decide
            known = [(file, end) for file, end in zip(sample, suffixes) if _last(end) not in ("cls", "json", *_TEXTS)]
        kinds = sorted({end for _, end in known})
        numbered = len(known) == len(sample) and all(re.match(r"\d", end) for end in kinds)  # img_0.0.jpg, img_0.1.jpg
        if len(kinds) > 1 and not numbered and not self._id:
            raise UnclearSampleError(
                f"{self._name}: the sample {key} has several pictures, with the suffixes {', '.join(kinds)}: "
                f"--image-key {kinds[0]} packs that one. If they are no sample but pictures of their own, "
                "--id path packs all"
            )
        if len(kinds) > 1 and self._id and len(known) < len(sample):
            raise UnclearSampleError(
                f"{self._name}: the sample {key} has several pictures, with the suffixes {', '.join(kinds)}, and files "
                f"beside them that belong to one: --image-key {kinds[0]} packs that one"
            )
        return [file for file, _ in known]

    def _label(self, file: Entry | None) -> int | None:
        if file is None:
            return None
        label = int(self._content(file))
        if problem := label_problem(label):
            raise ValueError(problem)
        return label

    def _metadata(self, file: Entry | None, texts: dict[str, Entry]) -> dict[str, Any]:
        metadata = plain_json(self._content(file)) if file is not None else {}
        if file is not None and not isinstance(metadata, dict):
            raise ValueError(f"{file.name} holds no JSON object")
        for suffix, text in texts.items():
            if suffix in metadata:
                raise ValueError(f"{text.name} and the .json both give {suffix!r}")
            try:
                metadata[suffix] = self._content(text).decode()
            except UnicodeDecodeError:
                raise ValueError(f"{text.name} is not UTF-8") from None
        return metadata

    def _content(self, file: Entry) -> bytes:
        if file.problem is not None:
            raise ValueError(f"{file.name}: {file.problem}")
        if file.length > _MAX_COMPANION_BYTES:
            raise ValueError(f"{file.name} has {file.length:,} bytes")
        return self._read(file)


def is_foreign(path: str) -> bool:
    """Return True for files that are no part of the data: hidden ones, README, and webdataset's own notes."""
    base = _base(path)
    return base.startswith(".") or base.upper().split(".")[0] == "README" or _META.match(path) is not None


def key_of(path: str) -> str:
    """Return WebDataset's key: the path up to the first dot of its last part."""
    folder, slash, base = path.rpartition("/")
    return folder + slash + base.split(".")[0]


def _companion(sample: list[Entry], suffixes: list[str], end: str) -> Entry | None:
    """Return the file with this suffix, else the only one whose suffix ends so."""
    if end in suffixes:
        return sample[suffixes.index(end)]
    ending = [file for file, suffix in zip(sample, suffixes) if _last(suffix) == end]
    return ending[0] if len(ending) == 1 else None


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _suffix(path: str) -> str:
    return _base(path).partition(".")[2].lower()


def _last(suffix: str) -> str:
    return suffix.rpartition(".")[2]
