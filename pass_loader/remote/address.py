"""URLs of packs, sizes as text, and what a remote pack is opened with."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import PackError
from .hub import endpoint_of

SCHEMES = ("s3", "gs", "az", "http", "https", "hf")
_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_UNITS |= {"KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30, "TI": 1 << 40}
_DEFAULT_BYTES = 50 * 1000**3
_LEAST_BYTES = 1 << 20


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MISSPELT = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)", re.IGNORECASE)


def is_url(path: object) -> bool:
    """Return True for text of the form scheme://... Raises PackError where it has one slash and can be nothing else."""
    if isinstance(path, str) and (found := _MISSPELT.match(path)):  # what follows may hold a password
        raise PackError(f"{found[1]}:/... has one slash, and a URL has two: {found[1]}://...")
    return isinstance(path, str) and _URL.match(path) is not None


def as_path(text: str) -> str | Path:
    """Return a URL as it is, and a path of the file system as a Path: what a command line is given.

    A URL that is misspelt stays text, too, for `is_url` to complain of.
    """
    return text if _URL.match(text) or _MISSPELT.match(text) else Path(text)


def bytes_of(size: int | str) -> int:
    """Return the bytes of a size: an int, or text such as '64MB', '1GiB', '1000000'. Raises ValueError."""
    if not isinstance(size, str):
        return int(size)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?", size.strip().upper())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{size!r} is not a size; want for example 1GiB, 500MB, 1000000")
    return int(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True)
class Address:
    """Where a remote pack lies, and how it is reached and cached.

    url: as the user wrote it, with one slash at its end. cache: the folder of the cache; None: `pass-loader` in the
    user's cache directory. cache_bytes: what the folder may hold, all packs together. options: obstore's configuration
    of the store and of its HTTP client. given_as: the argument that they were given as, for messages.
    """

    url: str
    cache: Path
    cache_bytes: int
    options: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    given_as: str = field(default="storage_options", compare=False)

    @classmethod
    def of(
        cls,
        url: str,
        cache: str | Path | None = None,
        cache_bytes: int | str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Address:
        """Check what a user gave. Raises PackError for a URL of another kind, ValueError for a size."""
        scheme, rest = url.split("://", 1)
        if scheme.lower() not in SCHEMES:
            raise PackError(
                f"{url}: packs are read from {', '.join(f'{name}://' for name in SCHEMES)} and from file systems, not "
                f"from {scheme}://; copy the pack or mount where it lies"
            )
        if not rest.strip("/"):
            raise PackError(f"{url} names no bucket or server")
        if "?" in rest or "#" in rest:
            raise PackError(f"{shown(url)}: the URL of a pack is that of its folder, without ? and #")
        if scheme.lower() in ("s3", "gs", "az") and "@" in rest.split("/")[0]:
            raise PackError(
                f"{shown(url)}: a store's URL has no user and no password: give credentials by the environment, or by "
                "storage_options="
            )
        return cls._cached(f"{scheme.lower()}://{rest.rstrip('/')}/", cache, cache_bytes, options)

    @classmethod
    def of_directory(
        cls,
        root: Path,
        cache: str | Path | None = None,
        cache_bytes: int | str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Address:
        """Return the same for a pack in a directory that refers to objects in stores. Raises ValueError for a size."""
        return cls._cached(f"file://{root.resolve()}/", cache, cache_bytes, options)

    @classmethod
    def _cached(
        cls, url: str, cache: str | Path | None, cache_bytes: int | str | None, options: Mapping[str, Any] | None
    ) -> Address:
        size = _DEFAULT_BYTES if cache_bytes is None else bytes_of(cache_bytes)
        if size < _LEAST_BYTES:
            raise ValueError(f"cache_bytes is {cache_bytes!r}, want at least {_LEAST_BYTES:,} bytes")
        folder = Path(cache).expanduser() if cache is not None else _user_cache()
        return cls(url, folder.absolute(), size, dict(options or {}))

    def __str__(self) -> str:
        return shown(self.url)

    @property
    def scheme(self) -> str:
        return self.url.split("://", 1)[0]

    @property
    def folder(self) -> Path:
        """The folder of this URL in the cache: a name that people recognise, and a digest."""
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:12]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", shown(self.url).split("://", 1)[1]).strip("-.")
        return self.cache / f"{name[-60:].lstrip('-.')}-{digest}"

    def endpoint(self) -> str:
        """Return the URL that is asked: the hub's sets lie below https. Raises PackError for no data set of the hub."""
        if self.scheme != "hf":
            return self.url.rstrip("/")
        return endpoint_of(self.url)


def shown(url: str) -> str:
    """Return a URL without user name, password and query: what a message may tell."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def told(place: str | Path) -> str:
    """Return a URL as `shown` does, and a path as it is."""
    return shown(place) if isinstance(place, str) and is_url(place) else str(place)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pass-loader"
