"""A fast web server of a folder: python -m benchmarks.remote.server FOLDER [ANSWER_S BYTES_A_SECOND]

It sends files and ranges of them by sendfile, on connections that stay open, each with a thread; a path may begin with
the name of a bucket as in S3, whose signatures it does not look at. It prints its URL. GET /counts gives as JSON the
requests so far and the bytes of bodies.

ANSWER_S: seconds until an answer begins, as of a store that is far away. BYTES_A_SECOND: of each connection, at the
most.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

_HEADERS = 64 << 10  # bytes, the most of a request
_AT_A_TIME = 256 << 10  # bytes that are sent where a connection has a rate
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)


class Server:
    """Serves a folder. port: that it has taken, on loopback. answer_s: before each answer. rate: bytes a second of a
    connection, 0 for as many as come."""

    def __init__(self, root: Path, answer_s: float = 0.0, rate: float = 0.0):
        self._root, self._answer_s, self._rate = root, answer_s, rate
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listening.getsockname()[1]
        self._files: dict[str, tuple[int, int, str]] = {}  # descriptor, size, headers
        self._counts: dict[int, list[int]] = {}  # by thread: requests, bytes

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            connection, _ = self._listening.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        counts = self._counts.setdefault(threading.get_ident(), [0, 0])
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            try:
                while (request := self._request(connection)) is not None:
                    self._answer(connection, request, counts)
            except OSError:  # a client that went away
                return

    @staticmethod
    def _request(connection: socket.socket) -> bytes | None:
        request = connection.recv(_HEADERS)
        while request and not request.endswith(b"\r\n\r\n"):
            more = connection.recv(_HEADERS)
            if not more:
                return None
            request += more
        return request or None

    def _answer(self, connection: socket.socket, request: bytes, counts: list[int]) -> None:
        method, target, _ = request.split(b" ", 2)
        name = unquote(target.split(b"?")[0].decode())
        counts[0] += 1
        if name == "/counts":
            content = json.dumps([sum(some) for some in zip(*self._counts.values())]).encode()
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
            return
        if self._answer_s:
            time.sleep(self._answer_s)
        file = self._file(name)
        if file is None:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        descriptor, size, headers = file
        begin, end, status = 0, size, "200 OK"
        if (found := _RANGE.search(request)) is not None:
            begin, end = int(found[1]), min(size, int(found[2] or size - 1) + 1)
            status = f"206 Partial Content\r\nContent-Range: bytes {begin}-{end - 1}/{size}"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {end - begin}\r\n{headers}\r\n\r\n".encode()
        connection.sendall(head, 0 if method == b"HEAD" else socket.MSG_MORE)
        if method == b"HEAD":
            return
        counts[1] += end - begin
        began, first = time.monotonic(), begin
        while begin < end:
            most = min(end - begin, _AT_A_TIME) if self._rate else end - begin
            begin += os.sendfile(connection.fileno(), descriptor, begin, most)
            if self._rate and (ahead := (begin - first) / self._rate - (time.monotonic() - began)) > 0:
                time.sleep(ahead)

    def _file(self, name: str) -> tuple[int, int, str] | None:
        if name not in self._files:
            path = self._root / name.lstrip("/")
            if ".." in path.parts or not path.is_file():
                return None
            status = path.stat()
            when = formatdate(status.st_mtime, usegmt=True)
            told = f'ETag: "{status.st_ino:x}-{status.st_mtime_ns:x}"\r\nLast-Modified: {when}\r\nAccept-Ranges: bytes'
            self._files[name] = os.open(path, os.O_RDONLY), status.st_size, told
        return self._files[name]


@contextmanager
def serving(root: Path, answer_s: float = 0.0, rate: float = 0.0) -> Iterator[str]:
    """Serve a folder from a process of its own, as `Server` does; yields the URL."""
    command = [sys.executable, "-m", "benchmarks.remote.server", str(root), str(answer_s), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def counts(url: str) -> tuple[int, int]:
    """Return how many requests a server has had, and the bytes of bodies that it has sent."""
    with urllib.request.urlopen(f"{url}counts") as answer:
        requests, sent = json.load(answer)
    return requests, sent


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), *map(float, sys.argv[2:]))
    print(f"http://127.0.0.1:{server.port}/", flush=True)
    server.run()
