"""Reads objects through obstore, with retries, time-outs and errors in words; `writing` writes them."""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from .address import Address
from .hub import names_below

ATTEMPTS = 7  # of a request, the first one included
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 8.0  # doubled after each attempt; a random part of it is waited
_TIMEOUTS = {"timeout": "60s", "connect_timeout": "10s"}  # of a request and of its connection
CLIENT_OPTIONS = {
    "allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type", "default_headers",
    "http1_only", "http2_keep_alive_interval", "http2_keep_alive_timeout", "http2_keep_alive_while_idle",
    "http2_max_frame_size", "http2_only", "pool_idle_timeout", "pool_max_idle_per_host", "proxy_url", "timeout",
    "user_agent",
}  # fmt: skip
_COPY = "copy_if_not_exists"
_MODIFIED = "modified "
_STATUS = re.compile(r"non-2xx status code: (\d{3})")  # obstore's words
_NO_CREDENTIALS = ("latest/api/token", "latest/meta-data/iam", "computeMetadata/v1", "metadata/identity/oauth2")
_MISSING = "Object at location"  # what a write of parts may find missing that somebody else has finished
_WRONG_REGION = "incorrectly configured region"
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_SMALL_BYTES = 256 << 10  # of an answer that takes little longer than the first byte of it
_PIECE_BYTES = 64 << 10  # less than that is lost of an answer that breaks off

_used_by: int | None = None  # the process whose threads serve obstore
Answer = TypeVar("Answer")


class StoreError(OSError):
    """A store failed, after all attempts. The message names the object and the cause."""


class Changed(StoreError):
    """An object is not the one that a write was meant to replace."""


class Unchanged(Exception):
    """An object has the ETag that the caller knows."""


class Known(NamedTuple):
    """What an object is known by: its size in bytes, and its ETag, or without one, when it was changed last."""

    size: int
    tag: str

    @classmethod
    def of(cls, meta: Any) -> Known:
        """Return what obstore's description of an object says. A listing may give an ETag without its quotes."""
        tag = meta.get("e_tag")
        return cls(meta["size"], f"{_MODIFIED}{meta['last_modified'].isoformat()}" if tag is None else tag.strip('"'))

    @property
    def condition(self) -> str | None:
        """What a request sends as If-Match; None where that would never match: without an ETag, or with a weak one."""
        return None if self.tag.startswith((_MODIFIED, "W/")) else f'"{self.tag}"'


class Store:
    """The objects below one URL. May be called by any number of threads.

    requests, bytes: of objects and ranges that were read, since the start. answered_s: how long the last small answers
    took; a large one tells how fast the store sends, not how far away it is.
    """

    def __init__(self, address: Address):
        self.address = address
        self.requests = self.bytes = self._retries = 0
        self.answered_s: deque[float] = deque([math.inf], maxlen=32)
        self._count = threading.Lock()
        self._opened: Any = None
        self._obstore()

    @property
    def retries(self) -> int:
        """Attempts that failed, since the start."""
        return self._retries

    def whole(self, name: str, known: str | None = None) -> tuple[bytes, str | None]:
        """Return an object's bytes and its ETag.

        Raises FileNotFoundError, StoreError, and Unchanged where its ETag is `known`.
        """

        def read(obstore: Any, store: Any) -> tuple[bytes, str | None]:
            found = obstore.get(store, name, options={"if_none_match": known} if known else {})
            content = bytes(found.bytes())
            _check_length(len(content), found.meta["size"])
            return content, found.meta.get("e_tag")

        content, etag = self._tried(name, read)
        self._note(len(content))
        return content, etag

    def about(self, name: str) -> Known:
        """Return what an object is known by. Raises FileNotFoundError, StoreError.

        One byte is asked for: servers that send on to signed URLs sign them for GET alone.
        """

        return Known.of(self._tried(name, lambda obstore, store: _meta_of(obstore, store, name)))

    def listing(self, deep: bool) -> dict[str, Known]:
        """Return what objects are known by, by their names; those in folders below too where `deep`."""

        def ask(obstore: Any, store: Any) -> dict[str, Known]:
            if deep:
                metas = [meta for page in obstore.list(store) for meta in page]
            else:
                metas = obstore.list_with_delimiter(store)["objects"]
            return {meta["path"]: Known.of(meta) for meta in metas}

        return self._tried("", ask)

    def names(self, deep: bool) -> list[str]:
        """Return the names of a folder of the hub, as `names_below` does. Raises FileNotFoundError, StoreError."""
        return self._tried("", lambda *_: names_below(self.address.url, deep))

    def range(self, name: str, begin: int, end: int, etag: str | None = None) -> Any:
        """Return the bytes from `begin` to `end` of an object, as a buffer; of many bytes `pieces` takes less time.

        etag: that the object must have. Raises FileNotFoundError, StoreError; Changed where it has another one, or ends
        before.
        """
        pieces = self.pieces(name, begin, end, etag)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pieces(self, name: str, begin: int, end: int, etag: str | None = None) -> list[Any]:
        """Return what `range` does as buffers, one after another, which nobody has copied together. Raises as it
        does."""

        def read(obstore: Any, store: Any) -> list[Any]:
            is_small = end - begin <= _SMALL_BYTES
            if etag is None and is_small:
                found = [obstore.get_range(store, name, start=begin, end=end)]
            else:
                condition = {} if etag is None else {"if_match": etag}
                answer = obstore.get(store, name, options={"range": (begin, end), **condition})
                found = [answer.bytes()] if is_small else [*answer.stream(min_chunk_size=_SMALL_BYTES)]
            came = sum(map(len, found))
            if came < end - begin and _meta_of(obstore, store, name)["size"] < end:
                self._raise_shorter(name)
            _check_length(came, end - begin)
            return found

        found = self._tried(name, read, end - begin)
        self._note(end - begin)
        return found

    def part(self, name: str, begin: int, end: int, known: Known) -> memoryview:
        """Return the bytes from `begin` to `end` of an object; an attempt goes on where the one before broke off.

        known: what it has to be known by, in every answer. Raises FileNotFoundError, StoreError; Changed where it is
        another one.
        """
        content = memoryview(bytearray(end - begin))
        came = 0

        def read(obstore: Any, store: Any) -> memoryview:
            nonlocal came
            options: dict[str, Any] = {"range": (begin + came, end)}
            if known.condition is not None:
                options["if_match"] = known.condition
            found = obstore.get(store, name, options=options)
            if Known.of(found.meta) != known:
                raise Changed(f"{self.address}{name} was changed by somebody else meanwhile")
            for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                content[came : came + len(piece)] = piece  # ValueError where more comes than was asked for
                came += len(piece)
            _check_length(came, end - begin)
            return content

        self._tried(name, read, end - begin)
        self._note(end - begin)
        return content

    def _note(self, size: int) -> None:
        with self._count:
            self.requests += 1
            self.bytes += size

    def _tried(self, name: str, ask: Callable[[Any, Any], Answer], size: int = 0) -> Answer:
        """Ask until there is an answer of so many bytes, ATTEMPTS times at most."""
        obstore = self._obstore()
        errors = obstore.exceptions
        pause, renewed = _FIRST_PAUSE_S, False
        for attempt in range(1, ATTEMPTS + 1):
            store = self._store(obstore)
            began = time.monotonic()
            try:
                answer = ask(obstore, store)
                if size <= _SMALL_BYTES:
                    self.answered_s.append(time.monotonic() - began)
                return answer
            except errors.NotModifiedError:
                raise Unchanged from None
            except Changed:
                raise
            except (errors.PreconditionError, errors.AlreadyExistsError):
                raise Changed(f"{self.address}{name} was changed by somebody else meanwhile") from None
            except (errors.NotFoundError, FileNotFoundError):
                raise FileNotFoundError(f"{self.address}{name} does not exist") from None
            except errors.NotSupportedError as error:
                raise StoreError(
                    f"{self.address}{name}: the server sends no ranges of files, or has no conditional writes: "
                    f"{_words(error)}. Take a server that has them (nginx, Apache, an object store; not Python's "
                    "http.server), or copy the pack to a disk"
                ) from None
            except (errors.BaseError, OSError, ValueError, RuntimeError) as error:
                if _is_denied(errors, error):
                    if renewed:  # credentials that had expired were read anew, and are refused too
                        raise StoreError(
                            f"{self.address}{name}: access was denied: {_words(error)}; give credentials by the usual "
                            f"environment variables or {self.address.given_as}="
                        ) from None
                    renewed, self._opened = True, None
                    continue
                self._raise_at_once(name, error)
                with self._count:
                    self._retries += 1
                if attempt == ATTEMPTS:
                    raise StoreError(
                        f"{self.address}{name} could not be read or written in {ATTEMPTS} attempts, the last one: "
                        f"{_words(error)}"
                    ) from None
                time.sleep(random.uniform(pause / 2, pause))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        raise AssertionError

    def _raise_shorter(self, name: str) -> None:
        raise Changed(f"{self.address}{name} is shorter than it was: somebody else has changed it meanwhile") from None

    def _raise_at_once(self, name: str, error: BaseException) -> None:
        """Raise StoreError for what no second attempt would change, as far as obstore's words tell it."""
        text = str(error)
        if _status_of(text) == 416:
            self._raise_shorter(name)
        if any(words in text for words in _NO_CREDENTIALS):
            raise StoreError(
                f"{self.address}: no credentials were given, and the machine has none of its own: give them by the "
                f"usual environment variables or {self.address.given_as}="
            ) from None
        if _status_of(text) == 404 and ("NoSuchBucket" in text or _MISSING not in text):
            raise StoreError(f"{self.address}: there is no such bucket: {_words(error)}") from None
        if _WRONG_REGION in text:
            raise StoreError(
                f"{self.address}: the bucket is in another region: set AWS_REGION, or aws_region in "
                f"{self.address.given_as}="
            ) from None

    def _obstore(self) -> Any:
        """Return the library. Raises ImportError where it is missing, RuntimeError in a forked process."""
        global _used_by
        try:
            import obstore
            import obstore.store
        except ImportError:
            raise ImportError(
                f"{self.address}: reading from stores needs obstore: pip install 'pass-loader[remote]'"
            ) from None
        if _used_by is None:
            _used_by = os.getpid()
        elif _used_by != os.getpid():
            raise RuntimeError(
                f"{self.address}: this process was forked after its parent had read from a store, whose threads it "
                'does not have. Give torch\'s DataLoader multiprocessing_context="forkserver" (or "spawn"); '
                "pass_loader.DataLoader needs no worker processes"
            )
        return obstore

    def _store(self, obstore: Any) -> Any:
        if self._opened is None:
            self._opened = opened(obstore, self.address)
        return self._opened


def opened(obstore: Any, address: Address, retries: int = 0, timeout_s: int | None = None) -> Any:
    """Return obstore's object for the objects below a URL.

    retries: of the library, of one request. timeout_s: of a request, where none was given; None: the usual one.
    """
    url, given = address.endpoint(), dict(address.options)
    provider = given.pop("credential_provider", None)
    retrying = {"max_retries": retries}
    usual = _TIMEOUTS if timeout_s is None else _TIMEOUTS | {"timeout": f"{timeout_s}s"}
    client = {**usual, **{name: given.pop(name) for name in list(given) if name.lower() in CLIENT_OPTIONS}}
    if url.startswith("http://") or any(str(value).startswith("http://") for value in given.values()):
        client.setdefault("allow_http", True)
    if any(value.startswith("http://") for name, value in os.environ.items() if name.upper().endswith("_ENDPOINT_URL")):
        client.setdefault("allow_http", True)
    if url.startswith(("http://", "https://")):
        if given:
            raise ValueError(f"{address}: {address.given_as} {sorted(given)} are not for a web server")
        if address.scheme == "hf" and (token := os.environ.get("HF_TOKEN")):
            client.setdefault("default_headers", {"authorization": f"Bearer {token}"})
        with _options_in_words(obstore, address):
            return obstore.store.HTTPStore.from_url(url, client_options=client, retry_config=retrying)
    if address.scheme == "s3" and not {name.lower().removeprefix("aws_") for name in [*given, *os.environ]} & {_COPY}:
        given[_COPY] = "multipart"  # S3's own way, of several
    more = {} if provider is None else {"credential_provider": provider}
    with contextlib.suppress(AttributeError), _options_in_words(obstore, address):
        return obstore.store.from_url(url, config=given, client_options=client, retry_config=retrying, **more)
    raise ValueError(f"{address}: this obstore has no such store")


@contextlib.contextmanager
def _options_in_words(obstore: Any, address: Address) -> Iterator[None]:
    """Raise ValueError, by the name of our argument, for options that obstore does not take."""
    try:
        yield
    except (obstore.exceptions.BaseError, TypeError, ValueError) as error:
        raise ValueError(
            f"{address}: {address.given_as}= or the environment has what obstore does not take: {_words(error)}"
        ) from None


def _meta_of(obstore: Any, store: Any, name: str) -> Any:
    """Return what obstore says of an object. One byte is asked for, as `Store.about` explains."""
    try:
        return obstore.get(store, name, options={"range": (0, 1)}).meta
    except obstore.exceptions.GenericError as error:
        if _status_of(str(error)) != 416:
            raise
        return obstore.head(store, name)  # an empty object has no first byte


def _check_length(came: int, want: int) -> None:
    if came != want:
        raise ConnectionError(f"{came:,} bytes came, {want:,} were asked for")


def _is_denied(errors: Any, error: BaseException) -> bool:
    """Return whether access was denied; a listing tells it by the status of the answer alone."""
    known = (errors.UnauthenticatedError, errors.PermissionDeniedError, PermissionError)
    return isinstance(error, known) or _status_of(str(error)) in (401, 403)


def _status_of(text: str) -> int:
    """Return the status of the answer that obstore's words tell of; 0 where they tell of none."""
    found = _STATUS.search(text)
    return int(found[1]) if found else 0


def _words(error: BaseException) -> str:
    """Return what an error says, in one line that is not endless and tells no password of a URL."""
    text = re.sub(r"(?<=://)[^\s/]*@", "", " ".join(str(error).split("Debug source")[0].split()))
    if (begin := text.find("<Error>")) >= 0:  # the server's words, in XML
        told = [found[1] for name in ("Code", "Message") if (found := re.search(f"<{name}>(.*?)</{name}>", text))]
        text = f"{text[:begin].strip().removesuffix(_XML).strip()} {', '.join(told)}"
    return text if len(text) <= 300 else f"{text[:300]} ..."
