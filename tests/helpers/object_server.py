"""A web server of files with ranges and ETags, that may be slow, refuse, stall, cut and lie."""

from __future__ import annotations

import contextlib
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

FAULTS = ("429", "503", "500", "cut", "short", "wrong", "stall", "reset")
Served = TypeVar("Served", bound=Any)
STALL_S = 1.0  # longer than the time-outs of the tests


class ObjectServer(ThreadingHTTPServer):
    """Serves a folder on loopback.

    delay_s: before each answer. faults: of this share of the GETs one of `kinds` goes wrong, drawn by `seed`.
    pages: what is sent for a path and its query in place of a file, and the header Link.
    refuses: whether the token of S3's temporary credentials, "" where a request has none, is refused.
    requests, sent: counts of GETs, and bytes of files in their bodies. faulty: of GETs that went wrong, by kind.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, root: Path, *, port: int = 0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.root = root
        self.delay_s = 0.0
        self.faults, self.kinds = 0.0, [*FAULTS]
        self.drawn = random.Random(0)
        self.refuses: Callable[[str], bool] = lambda token: False
        self.pages: dict[str, tuple[bytes, str]] = {}
        self.ranges = True  # False: it sends whole files alone
        self.requests = self.sent = 0
        self.faulty: dict[str, int] = {}
        self.log: list[tuple[str, str]] = []  # (path, range)
        self.guard = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjectServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        server = self.server
        with server.guard:
            server.requests += 1
            server.log.append((self.path, self.headers.get("Range", "")))
            fault = server.drawn.choice(server.kinds) if server.drawn.random() < server.faults else ""
            if fault:
                server.faulty[fault] = server.faulty.get(fault, 0) + 1
        time.sleep(server.delay_s)
        if fault == "reset":
            self.close_connection = True
            return
        if server.refuses(self.headers.get("x-amz-security-token", "")):
            return self._refuse(403)
        if fault in ("429", "503", "500"):
            return self._refuse(int(fault))
        if self.path in server.pages:
            content, link = server.pages[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Link", link)
            self.end_headers()
            self.wfile.write(content)
            return
        try:
            file = open(server.root / unquote(self.path).lstrip("/"), "rb")  # noqa: SIM115
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._refuse(404)
        with file:
            status = os.fstat(file.fileno())
            etag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}"'
            if self.headers.get("If-None-Match") == etag:
                return self._refuse(304)
            if self.headers.get("If-Match") not in (None, etag):
                return self._refuse(412)
            size, begin, end = status.st_size, 0, status.st_size
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "") if server.ranges else "")
            if wanted:
                begin, end = int(wanted[1]), min(size, int(wanted[2] or size - 1) + 1)
                if begin >= size:
                    return self._refuse(416)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(end - begin))
            self.send_header("Last-Modified", self.date_time_string(int(status.st_mtime)))
            self.send_header("ETag", etag)
            self.send_header("Accept-Ranges", "bytes")
            if wanted:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            self.end_headers()
            if body:
                self._send(file, begin, end, fault)

    def _send(self, file: object, begin: int, end: int, fault: str) -> None:
        self.wfile.flush()
        descriptor, length = file.fileno(), end - begin  # type: ignore[attr-defined]
        if fault == "wrong":  # bytes that nobody packed
            content = bytes(byte ^ 0x55 for byte in os.pread(descriptor, end - begin, begin))
            self.wfile.write(content)
            return
        middle = begin + (end - begin) // 2 if fault in ("cut", "short", "stall") else end
        if fault == "short":
            middle = end - 1
        while begin < middle:
            begin += os.sendfile(self.connection.fileno(), descriptor, begin, middle - begin)
        with self.server.guard:
            self.server.sent += length
        if fault == "stall":
            time.sleep(STALL_S)
        if fault:
            self.close_connection = True

    def _refuse(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextlib.contextmanager
def serving(root: Path) -> Iterator[ObjectServer]:
    """Serve a folder from a thread of this process."""
    with served(ObjectServer(root)) as server:
        yield server


@contextlib.contextmanager
def served(server: Served) -> Iterator[Served]:
    """Run a server whose faults have `kinds` in a thread of this process."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.kinds, server.faults = ["reset"], 1.0  # on connections that stay
        server.shutdown()
        server.server_close()


def main() -> None:
    """Serve a folder until the process is ended; prints the URL."""
    server = ObjectServer(Path(sys.argv[1]))
    server.delay_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
