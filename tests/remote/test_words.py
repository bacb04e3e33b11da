"""What stores refuse for good is said at once, in words, with the way out; and what was mistyped."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pass_loader import PackError, ShardDataset, ShardError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, index, plan, shard, verify
from pass_loader.remote import store

from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import served, serving
from ..helpers.remote import RECIPE
from ..helpers.trees import tar_of

KEYS = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "aws_region": "us-east-1"}


class RefusingServer(ThreadingHTTPServer):
    """Answers everything with a status and what S3 says then. asked: how often it was."""

    daemon_threads = True

    def __init__(self, status: int, code: str, message: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.kinds, self.faults = status, [""], 0.0
        text = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>4442</RequestId></Error>"
        self.content = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RefusingServer

    def log_message(self, *_: object) -> None:
        pass

    def _refuse(self) -> None:
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    do_GET = do_PUT = do_POST = _refuse


@contextlib.contextmanager
def refusing(status: int, code: str = "AccessDenied", message: str = "Access Denied") -> Iterator[RefusingServer]:
    with served(RefusingServer(status, code, message)) as server:
        yield server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", r"access was denied: .*403 Forbidden: AccessDenied, So\.; give credentials .*OPTIONS="),
        (403, "SignatureDoesNotMatch", r"access was denied: .*DoesNotMatch, So\.; give credentials .*OPTIONS="),
        (401, "Unauthorized", r"access was denied: .*401 Unauthorized.*; give credentials .*OPTIONS="),
        (404, "NoSuchBucket", r"there is no such bucket: .*NoSuchBucket, So\."),
        (301, "PermanentRedirect", r"the bucket is in another region: set AWS_REGION, or aws_region in OPTIONS="),
    ],
)
def test_listings(tmp_path: Path, status: int, code: str, words: str) -> None:
    """Of sources, and of the place of a pack: asked twice at the most, and no XML."""
    with refusing(status, code, "So.") as server:
        options = {**KEYS, "aws_endpoint": server.url}
        for what, name in (("sources", "source_options"), ("out", "storage_options")):
            before = server.asked
            with pytest.raises((PackError, OSError), match=words.replace("OPTIONS", name)) as caught:
                if what == "sources":
                    build(["s3://some/in/*.tar"], tmp_path / "pack", source_options=options)
                else:
                    build([tar_of(tmp_path / "t.tar", {"a.jpg": jpeg(noise(9, 9))})], "s3://some/pack",
                          storage_options=options)  # fmt: skip
            assert server.asked - before <= 2 and "s3://some/" in str(caught.value)
            assert "<" not in str(caught.value) and "4442" not in str(caught.value)


def test_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: minutes of asking a machine that is none of Amazon's for its role."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    with refusing(404) as server, pytest.raises(PackError, match="no credentials were given, .*source_options="):
        options = {"aws_metadata_endpoint": server.url, "aws_region": "us-east-1", "allow_http": True}
        build(["s3://some/in/*.tar"], tmp_path / "pack", source_options=options)


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("s3://b/*.tar", {"bogus": "1"}, r"s3://b/: OPTIONS= or the environment has what .* not take: .*'bogus'"),
        ("gs://b/a.tar", {"bogus": "1"}, r"gs://b/: OPTIONS= or .*'bogus'"),
        ("s3://b/a.tar", {"aws_region": 1}, r"s3://b/: OPTIONS= or .*'int' object"),
        ("s3://b/a.tar", {"timeout": "soon"}, r"s3://b/: OPTIONS= or .*\"soon\" as Duration"),
        ("http://127.0.0.1:1/a.tar", {"bogus": "1"}, r"OPTIONS \['bogus'\] are not for a web server"),
        ("http://127.0.0.1:1/a.tar", {"timeout": "soon"}, r"OPTIONS= or .*\"soon\" as Duration"),
    ],
)
def test_options_that_nobody_knows(tmp_path: Path, url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("OPTIONS", "source_options")) as caught:
        build([url], tmp_path / "pack", source_options=options)
    words = words.replace("OPTIONS", "storage_options").replace("b/:", "b/pack/:")
    with pytest.raises(ValueError, match=words) as other:
        Pack(url.rpartition("/")[0] + "/pack", cache=tmp_path / "cache", storage_options=options)
    assert "\n" not in f"{caught.value}{other.value}"


@pytest.mark.parametrize("scheme", ["https", "s3", "HF"])
def test_one_slash(tmp_path: Path, scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A URL that is mistyped is no path, and what follows is not told."""
    url, other = f"{scheme}:/user:secret@host/pack", str(tmp_path / "t.tar")
    tar_of(tmp_path / "t.tar", {"a.jpg": jpeg(noise(9, 9))})
    build([other], tmp_path / "pack")
    words = f"{scheme}:/... has one slash, and a URL has two: {scheme}://..."
    commands = [
        ["build", url, "--out", str(tmp_path / "new")], ["build", other, "--out", url], ["plan", other, "--out", url],
        ["index", url, "--out", str(tmp_path / "new")], ["info", url], ["verify", url], ["stats", url, "--out", "x"],
        ["export", url, "--format", "folder", "--out", str(tmp_path / "new")], ["remove", url, "a", "--reason", "x"],
        ["export", str(tmp_path / "pack"), "--format", "folder", "--out", url], ["purge", url], ["fetch", url],
        ["convert", str(tmp_path / "pack"), "--codec", "dct", "--out", url], ["index-points", url], ["merge", url],
        ["combine", str(tmp_path / "pack"), url, "--out", str(tmp_path / "new")], ["shard", url, "--index", "0"],
        ["build", other, "--metadata", url, "--out", str(tmp_path / "new")], ["locate", url, str(tmp_path)],
        ["merge", url, "--index", "0", "--of", "2"],
    ]  # fmt: skip
    for command in commands:
        assert main(command) == 1, command
        said = capsys.readouterr()
        assert words in said.err + said.out and "secret" not in said.err + said.out, command
    for call in (lambda: Pack(url), lambda: ShardDataset(url, RECIPE), lambda: plan([url], tmp_path / "new"),
                 lambda: shard(url, 0), lambda: verify_or_raise(url)):  # fmt: skip
        with pytest.raises(PackError, match="has one slash"):
            call()
    assert not (tmp_path / "new" / "pack.json").exists() and not Path(f"{scheme}:").exists()


def verify_or_raise(path: str) -> None:
    if found := verify(path):
        raise PackError(found[0])


@pytest.mark.parametrize("left", [0, 10_240, 30_000])
def test_a_tar_that_became_shorter(tmp_path: Path, left: int) -> None:
    """Of a pack in place: said at once. Kills: 7 attempts at what is not there."""
    pictures = {f"{i}.jpg": jpeg(noise(40, 40, i)) for i in range(12)}
    (tmp_path / "tars").mkdir()
    tar_of(tmp_path / "tars" / "t.tar", pictures)
    with serving(tmp_path / "tars") as web:
        index([f"{web.url}t.tar"], tmp_path / "pack")
        whole = (tmp_path / "tars" / "t.tar").read_bytes()
        assert len(whole) > 40_000
        (tmp_path / "tars" / "t.tar").write_bytes(whole[:left])
        dataset = ShardDataset(tmp_path / "pack", RECIPE, cache=tmp_path / "cache")
        before = web.requests
        with pytest.raises(ShardError, match=r"t\.tar is shorter than it was: somebody else has changed it meanwhile"):
            dataset.read(11)
        assert web.requests - before <= 6
        assert any("is shorter than it was" in problem for problem in verify(dataset.pack))
        shutil.rmtree(tmp_path / "cache")


def test_the_servers_words_are_short() -> None:
    text = "Error performing GET http://user:secret@host/x - status code: 403 Forbidden: "
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>A</Code><Message>{"b " * 999}</Message></Error>'
    words = store._words(OSError(text + xml))
    assert words.startswith("Error performing GET http://host/x - status code: 403 Forbidden: A, b b")
    assert len(words) < 310
    assert json.dumps(words).isascii() and "Error>" not in words
