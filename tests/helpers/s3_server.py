"""A server that speaks enough of S3 for packs: objects in memory, conditional writes, uploads in parts; it may fail.

Google's XML protocol is the same but for its conditions, which go by generations; it is spoken too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

from .object_server import STALL_S, served

BUCKET = "bucket"
FAULTS = ("503", "500", "reset", "lost")


class S3Server(ThreadingHTTPServer):
    """Serves one bucket on loopback.

    objects: bytes by key. history: what they were after each change, from `remember` on. faults: of this share of the
    requests one of `kinds` goes wrong: refused, cut before it is looked at, or done without an answer ("lost"); also
    "cut": half of the answer is sent, or "stall": half of it, and then nothing for a while. sent: bytes in answers.
    google: a DELETE of what is not there is an error, as with Google's.
    lose: keys of which the next PUT is done without an answer. conditions: False: it writes whatever If-Match and
    If-None-Match say. before: called with (method, key) of each request that would change something.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.begun = self.sent = 0
        self.history: list[dict[str, bytes]] | None = None
        self.faults, self.kinds = 0.0, [*FAULTS]
        self.drawn = random.Random(0)
        self.faulty: dict[str, int] = {}
        self.log: list[tuple[str, str]] = []
        self.conditions = True
        self.google = False
        self.generations: dict[str, int] = {}
        self.lose: set[str] = set()
        self.before: Any = None
        self.guard = threading.RLock()

    @property
    def options(self) -> dict[str, str]:
        """obstore's configuration. A request may wait for as long as `before` takes on a loaded machine."""
        return {
            "aws_endpoint": f"http://127.0.0.1:{self.server_address[1]}", "aws_access_key_id": "id",
            "aws_secret_access_key": "secret", "aws_region": "us-east-1", "timeout": "900s",
        }  # fmt: skip

    @property
    def google_options(self) -> dict[str, Any]:
        """The same for `gs://`."""
        about = {"gcs_base_url": f"http://127.0.0.1:{self.server_address[1]}", "disable_oauth": True}
        key = json.dumps(about | dict.fromkeys(("client_email", "private_key", "private_key_id"), ""))
        return {"google_service_account_key": key, "allow_http": True, "timeout": "900s"}

    @property
    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        names = {name.upper(): value for name, value in self.options.items() if name.startswith("aws_")}
        return names | {"AWS_ENDPOINT_URL": names.pop("AWS_ENDPOINT")}

    def put_folder(self, root: Path, prefix: str) -> None:
        """Make objects of the files in a folder."""
        for path in root.iterdir():
            self.objects[prefix + path.name] = path.read_bytes()

    def below(self, prefix: str) -> dict[str, bytes]:
        """Return the objects of a pack by name."""
        return {key.removeprefix(prefix): content for key, content in self.objects.items() if key.startswith(prefix)}

    def remember(self) -> list[dict[str, bytes]]:
        self.history = []
        return self.history

    def generation_of(self, key: str) -> int:
        """Return the number of writes of an object; 0 where there is none."""
        return self.generations.get(key, 1) if key in self.objects else 0

    def change(self, key: str, content: bytes | None) -> None:
        if content is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = content
            self.generations[key] = self.generation_of(key) + 1
        if self.history is not None:
            self.history.append(dict(self.objects))

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


def etag_of(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # an answer is one packet
    disable_nagle_algorithm = True
    server: S3Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _answer(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        key = unquote(address.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        with server.guard:
            fault = server.drawn.choice(server.kinds) if server.drawn.random() < server.faults else ""
            server.log.append((self.command, key))
            if fault:
                server.faulty[fault] = server.faulty.get(fault, 0) + 1
        if self.command not in ("GET", "HEAD") and server.before is not None:
            server.before(self.command, key)
        if fault == "reset":
            self.close_connection = True
            return
        if fault in ("503", "500"):
            return self._send(int(fault), b"")
        with server.guard:
            status, content, headers = getattr(self, f"_{self.command.lower()}")(key, query, body)
        if fault == "lost" or (self.command == "PUT" and key in server.lose):
            server.lose.discard(key)
            self.close_connection = True
            return
        if fault in ("cut", "stall"):
            headers = {"Content_Length": str(len(content)), **headers}
            self._send(status, content[: len(content) // 2], **headers)
            self.wfile.flush()
            time.sleep(STALL_S if fault == "stall" else 0)
            self.close_connection = True
            return
        self._send(status, content, **headers)

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.server.sent += len(content)
        self.send_response(status)
        for name, value in ({"Content_Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _get(self, key: str, query: dict[str, str], _: bytes) -> tuple[int, bytes, dict[str, str]]:
        if "list-type" in query:
            return 200, self._listing(query.get("prefix", ""), "delimiter" in query), {}
        content = self.server.objects.get(key)
        if content is None:
            return 404, _error("NoSuchKey"), {}
        etag = etag_of(content)
        if self.headers.get("If-None-Match") == etag:
            return 304, b"", {}
        headers = {
            "ETag": etag,
            **self._generation(key),
            "Last_Modified": self.date_time_string(0),
            "Accept_Ranges": "bytes",
        }
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            begin, end = int(wanted[1]), min(len(content), int(wanted[2] or len(content)) + 1)
            if begin >= len(content):
                return 416, _error("InvalidRange"), {}
            return 206, content[begin:end], {**headers, "Content_Range": f"bytes {begin}-{end - 1}/{len(content)}"}
        return 200, content, headers

    _head = _get

    def _listing(self, prefix: str, flat: bool) -> bytes:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{escape(etag_of(content))}</ETag><Size>{len(content)}</Size></Contents>"
            for key, content in sorted(self.server.objects.items())
            if key.startswith(prefix) and not (flat and "/" in key[len(prefix) :])
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def _refused(self, key: str) -> bool:
        """Return whether a condition does not hold."""
        if not self.server.conditions:
            return False
        there = self.server.objects.get(key)
        if (generation := self.headers.get("x-goog-if-generation-match")) is not None:
            return int(generation) != self.server.generation_of(key)
        wanted = self.headers.get("If-Match")
        if self.headers.get("If-None-Match") == "*" and there is not None:
            return True
        return wanted is not None and (there is None or wanted != etag_of(there))

    def _put(self, key: str, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        source = self.headers.get("x-amz-copy-source") or self.headers.get("x-goog-copy-source")
        if source is not None:
            found = self.server.objects.get(unquote(source).lstrip("/").removeprefix(f"{BUCKET}/"))
            if found is None:
                return 404, _error("NoSuchKey"), {}
            body = found
        if "uploadId" in query:
            if query["uploadId"] not in self.server.uploads:
                return 404, _error("NoSuchUpload"), {}
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = body
        elif self._refused(key):
            return 412, _error("PreconditionFailed"), {}
        else:
            self.server.change(key, body)
        etag = etag_of(body)
        answer = b"" if source is None else f"<CopyPartResult><ETag>{escape(etag)}</ETag></CopyPartResult>".encode()
        return 200, answer, {"ETag": etag, **self._generation(key)}

    def _generation(self, key: str) -> dict[str, str]:
        return {"x_goog_generation": str(self.server.generation_of(key))}

    def _post(self, key: str, query: dict[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        uploads = self.server.uploads
        if "uploads" in query:
            self.server.begun += 1
            number = f"upload-{self.server.begun}"
            uploads[number] = {}
            return 200, f"<R><Bucket>b</Bucket><Key>k</Key><UploadId>{number}</UploadId></R>".encode(), {}
        if "delete" in query:
            names = [unescape(found) for found in re.findall("<Key>(.*?)</Key>", body.decode())]
            for name in names:
                if name in self.server.objects:
                    self.server.change(name, None)
            rows = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in names)
            return 200, f"<DeleteResult>{rows}</DeleteResult>".encode(), {}
        parts = uploads.get(query["uploadId"])
        if parts is None:
            return 404, _error("NoSuchUpload"), {}
        if self._refused(key):
            return 412, _error("PreconditionFailed"), {}
        content = b"".join(parts[number] for number in sorted(parts))
        del uploads[query["uploadId"]]
        self.server.change(key, content)
        done = f"<CompleteMultipartUploadResult><ETag>{escape(etag_of(content))}</ETag></CompleteMultipartUploadResult>"
        return 200, done.encode(), self._generation(key)

    def _delete(self, key: str, query: dict[str, str], _: bytes) -> tuple[int, bytes, dict[str, str]]:
        if "uploadId" in query:
            self.server.uploads.pop(query["uploadId"], None)
        elif key in self.server.objects:
            self.server.change(key, None)
        elif self.server.google:
            return 404, _error("NoSuchKey"), {}
        return 204, b"", {}


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


@contextlib.contextmanager
def s3_serving() -> Iterator[S3Server]:
    """Serve an empty bucket from a thread of this process."""
    with served(S3Server()) as server:
        yield server
