"""Single objects, found by their URLs and read from the beginning on, with blocks ahead of the reader on their way."""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import PackError
from .address import SCHEMES, Address, shown
from .store import CLIENT_OPTIONS, Changed, Known, Store, StoreError

BLOCK_BYTES = 8 << 20  # of a request
_AHEAD = 4  # blocks
_AT_ONCE = 32  # objects that are asked for
_OF_OBJECT_STORES = ("aws_", "azure_", "google_")
_LISTED = ("s3", "gs", "az")  # stores that tell what they hold
_WEB = ("http", "https")
_FOR_OTHERS = CLIENT_OPTIONS - {"default_headers"}
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class RemoteObject:
    """An object in a store. name: below the store's URL. known: what it is known by, and has to be while it is read."""

    url: str
    store: Store
    name: str
    known: Known

    @property
    def base_name(self) -> str:
        return name_of(self.url)

    def __str__(self) -> str:
        return shown(self.url)

    def part(self, begin: int, end: int) -> memoryview:
        """Return its bytes from `begin` to `end`. Raises PackError, also where it is another one by now."""
        try:
            return self.store.part(self.name, begin, end, self.known) if begin < end else memoryview(b"")
        except Changed:
            raise PackError(
                f"{self} is not as it was when the plan was made: plan again with the same command; tasks whose "
                "sources are the same need not run again"
            ) from None
        except FileNotFoundError:
            raise PackError(f"{self} does not exist any more") from None
        except StoreError as error:
            raise PackError(f"{error}; run the same command to go on") from None


class Stores:
    """The stores of single objects: one for each folder that holds some.

    options: obstore's configuration; web servers take those of the HTTP client alone. given_as: as of `Address`.
    """

    def __init__(self, options: Mapping[str, Any] | None = None, given_as: str = "storage_options"):
        self._options, self._given_as = dict(options or {}), given_as
        self._opened: dict[str, Store] = {}
        self._lock = threading.Lock()

    def find(self, urls: Sequence[str]) -> list[list[RemoteObject]]:
        """Return the objects of each URL: one, or where its path holds *, ? or [], as many as fit, sorted by URL.

        Each takes a request or a listing, many at a time; on the hub a listing, and a request for each file that fits.
        Raises PackError for what does not exist or cannot be asked, ValueError for options that none of the stores has.
        Those of object stores do no harm beside a web server.
        """
        names = [name for name in self._options if not name.lower().startswith(_OF_OBJECT_STORES)]
        wrong = {name for name in names if name.lower() not in CLIENT_OPTIONS}
        if wrong and not any(url.split("://")[0].lower() in _LISTED for url in urls):
            raise ValueError(f"{self._given_as} {sorted(wrong)} are not for a web server")
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pass-loader") as pool:
            named = list(pool.map(self._named, urls))
            found = iter(list(pool.map(self._find, [url for several in named for url in several])))
        return [[one for _ in several for one in next(found)] for several in named]

    def object(self, url: str, known: Known) -> RemoteObject:
        """Return an object of which all is known."""
        return RemoteObject(url, *self.place_of(url), known)

    def place_of(self, url: str) -> tuple[Store, str]:
        """Return the store that holds an object, and its name there. Raises PackError for a URL of none."""
        check_url(url)
        folder, name = _split(url)
        return self._at(folder), name

    def _named(self, url: str) -> list[str]:
        """Return the URLs of the hub's files that fit one; another URL as it is."""
        if url.split("://")[0].lower() != "hf" or not _WILD.search(url):
            return [url]
        check_url(url)
        folder, pattern = _split_pattern(url)
        store = self._at(folder)
        try:
            names = store.names(deep=len(pattern) > 1)
        except FileNotFoundError:
            raise PackError(f"{shown(folder)} does not exist") from None
        except StoreError as error:
            raise PackError(str(error)) from None
        fitting = [folder + name for name in sorted(names) if _fits(name.split("/"), pattern)]
        if not fitting:
            raise PackError(f"{shown(url)}: no object has such a name")
        return fitting

    def _find(self, url: str) -> list[RemoteObject]:
        try:
            if url.split("://")[0].lower() in _LISTED and _WILD.search(url):
                return self._fitting(url)
            store, name = self.place_of(url)
            return [RemoteObject(url, store, name, store.about(name))]
        except FileNotFoundError:
            raise PackError(f"{shown(url)} does not exist") from None
        except StoreError as error:
            raise PackError(str(error)) from None

    def _fitting(self, url: str) -> list[RemoteObject]:
        folder, pattern = _split_pattern(url)
        store = self._at(folder)
        found = [
            RemoteObject(folder + name, store, name, known)
            for name, known in sorted(store.listing(deep=len(pattern) > 1).items())
            if _fits(name.split("/"), pattern)
        ]
        if not found:
            hint = "; what follows a ? is a pattern too: URLs that are signed are not taken" if "?" in url else ""
            raise PackError(f"{shown(url)}: no object has such a name{hint}")
        return found

    def _at(self, folder: str) -> Store:
        with self._lock:
            if folder not in self._opened:
                options = self._options
                if folder.split("://")[0].lower() not in _LISTED:
                    options = {name: value for name, value in options.items() if name.lower() in CLIENT_OPTIONS}
                address = replace(Address.of(folder, options=options), given_as=self._given_as)
                self._opened[folder] = Store(address)
            return self._opened[folder]


def name_of(url: str) -> str:
    """Return the last part of a URL, as a file would be called."""
    return _split(url)[1]


def _split(url: str) -> tuple[str, str]:
    """Return the URL of an object's folder, and its name there."""
    folder, _, name = url.rpartition("/")
    return folder + "/", unquote(name) if url.split("://")[0].lower() in _WEB else name


def _split_pattern(url: str) -> tuple[str, list[str]]:
    """Return the URL of the folder that has to be listed, and the parts of the pattern below it."""
    parts = url.split("/")
    first = next(place for place, part in enumerate(parts) if _WILD.search(part))
    return "/".join(parts[:first]) + "/", parts[first:]


def check_url(url: str) -> None:
    """Raise PackError for a URL that is none of an object's."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in SCHEMES:
        raise PackError(
            f"{shown(url)}: sources are read from {', '.join(f'{name}://' for name in SCHEMES)} and from file systems, "
            f"not from {scheme}://; copy the source or mount where it lies"
        )
    if "@" in urlsplit(url).netloc:
        raise PackError(
            f"{shown(url)}: a password in a URL would be written into the plan; give credentials by the usual "
            "environment variables or source_options="
        )
    if not rest.rpartition("/")[2]:
        raise PackError(f"{shown(url)} names no file: give those in a folder by *, as s3://bucket/folder/*.tar")
    if scheme.lower() not in _LISTED and ("#" in rest or (scheme.lower() != "hf" and _WILD.search(rest))):
        raise PackError(
            f"{shown(url)}: a web server does not tell what files it has, and a URL with ? is of one that changes: "
            "give the URL of each file without *, ?, [ and # (a shell makes several of https://host/{000..999}.tar)"
        )


def _fits(parts: list[str], pattern: list[str]) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatch.fnmatchcase, parts, pattern))


class Scattered(Store):
    """The objects below one URL, and those that lie elsewhere under names of their own.

    elsewhere: URLs of these, by name. own: the address is a store's, and its options are for this one: others of its
    kind, web servers of its name alone, get them too, and the rest gets those of the HTTP client but for headers.
    """

    def __init__(self, address: Address, elsewhere: Mapping[str, str], own: bool = True):
        super().__init__(address)
        alike = Stores(address.options)
        beside = {name: value for name, value in address.options.items() if name.lower() in _FOR_OTHERS}
        others = Stores(beside)
        self._elsewhere = {
            name: (alike if not own or _is_alike(url, address.url) else others).place_of(url)
            for name, url in elsewhere.items()
        }

    @property
    def retries(self) -> int:
        return self._retries + sum(store.retries for store in {store for store, _ in self._elsewhere.values()})

    def pieces(self, name: str, begin: int, end: int, etag: str | None = None) -> list[Any]:
        if name not in self._elsewhere:
            return super().pieces(name, begin, end, etag)
        store, name = self._elsewhere[name]
        found = store.pieces(name, begin, end, etag)
        self.answered_s.append(store.answered_s[-1])
        self._note(end - begin)
        return found


def _is_alike(url: str, other: str) -> bool:
    one, two = urlsplit(url), urlsplit(other)
    return one.scheme == two.scheme and (one.scheme in _LISTED or one.netloc == two.netloc)


class Stream:
    """The bytes of an object, for one thread that goes forward.

    Blocks ahead are on their way, and those that were passed are forgotten: about 60 MB are held. Going back or far
    ahead is allowed, and costs a request. Close it in the end.
    """

    def __init__(self, of: RemoteObject):
        self.of, self.size = of, of.known.size
        self._blocks: dict[int, Future[memoryview]] = {}
        self._number, self._block = -1, memoryview(b"")  # the one that was read last
        self._pool: ThreadPoolExecutor | None = None
        self._closed = False

    def pread(self, length: int, offset: int) -> bytes:
        """Return `length` bytes at `offset`, fewer at the end of the object. Raises PackError."""
        begin, end = offset, min(offset + length, self.size)
        pieces = []
        while begin < end:
            number, place = divmod(begin, BLOCK_BYTES)
            if number != self._number:
                self._turn_to(number)
            pieces.append(self._block[place : place + end - begin])
            begin += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        self._closed = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._blocks.clear()
        self._block = memoryview(b"")

    def _turn_to(self, number: int) -> None:
        """Wait for a block, with the next ones asked for where the reader goes forward."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_AHEAD + 1, thread_name_prefix="pass-loader-stream")
        ahead = _AHEAD if number == self._number + 1 else 0
        wanted = range(number, min(number + 1 + ahead, -(-self.size // BLOCK_BYTES)))
        for other in [other for other in self._blocks if not number - 1 <= other <= number + 1 + _AHEAD]:
            self._blocks.pop(other).cancel()
        for other in wanted:
            if other not in self._blocks:
                self._blocks[other] = self._pool.submit(self._fetch, other)
        self._block = self._blocks[number].result()
        self._number = number

    def _fetch(self, number: int) -> memoryview:
        if self._closed:
            raise CancelledError
        begin = number * BLOCK_BYTES
        return self.of.part(begin, min(begin + BLOCK_BYTES, self.size))
