"""Commands on a pack that lies on a web server, and `pass-pack fetch`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pass_loader.cli.main import main
from pass_loader.pack import Pack, index, remove, verify
from pass_loader.remote.cache import Cache

from ..helpers.object_server import ObjectServer, serving
from ..helpers.packs import flip_a_bit
from ..helpers.remote import RECIPE, digest


def test_verify_a_pack_without_live_records(pack: Path, tmp_path: Path) -> None:
    """Kills: an opened pack that counts as none because its length is 0."""
    shutil.copytree(pack, tmp_path / "served" / "pack")
    served = Pack(tmp_path / "served" / "pack")
    remove(served.path, served.all_ids().to_pylist(), reason="test")
    with serving(tmp_path / "served") as server:
        opened = Pack(server.url + "pack", cache=tmp_path / "cache")
        assert len(opened) == 0 and verify(opened) == []


def output_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_commands_say_the_same(
    pack: Path, server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, cache = server.url + "pack", ["--cache", str(tmp_path / "cache")]
    np.save(tmp_path / "scores.npy", np.arange(23))
    for command in ("info", "attribution"):
        assert output_of(capsys, command, url, *cache) == output_of(capsys, command, pack)
    assert "everything is as it was packed: 23 records" in output_of(capsys, "verify", url, "--decode", *cache)
    pairs = ["pairs", "--scores", str(tmp_path / "scores.npy"), "--count", "2"]
    for command in (["export", "--format", "folder"], ["convert", "--codec", "dct"], ["preview"], pairs):
        for number, where in enumerate(([url, *cache], [str(pack)])):
            output_of(capsys, command[0], *where, *command[1:], "--out", tmp_path / f"{command[0]}-{number}")
        mine, theirs = (tmp_path / f"{command[0]}-{number}" for number in (0, 1))
        for path in theirs.rglob("*") if theirs.is_dir() else [theirs]:
            if path.is_file() and path.name != "finished":
                assert (mine / path.relative_to(theirs)).read_bytes() == path.read_bytes(), path


@pytest.mark.slow
def test_bench(
    server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a pack of which not a record comes; another cache than the one given; words on a disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    command = ["bench", server.url + "pack", "--recipe", "mocov2", "--threads", "1", "--seconds", "1"]
    head, *lines = output_of(capsys, *command, "--cache", tmp_path / "cache", "--cache-bytes", "10MB").splitlines()
    assert head.startswith(f"{server.url}pack: 23 live records")
    rates = {line[:20].strip(): float(line[20:].replace(",", "")) for line in lines if line.startswith("storage")}
    assert rates["storage"] > 0 and "disk" not in lines[-1]
    assert Cache._known[tmp_path / "cache"].limit == 10_000_000 and not (tmp_path / "home").exists()


@pytest.mark.slow
def test_combine_and_its_cache(
    pack: Path, server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Kills: the user's own cache in place of the one given; a directory among URLs that is refused a cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache, url = ["--cache", tmp_path / "cache", "--cache-bytes", "10MB"], server.url + "pack"
    prefixes = ["--prefix", "a/", "--prefix", "b/"]
    index([server.url + "pack/" + shard["tar"] for shard in Pack(pack).shards], tmp_path / "indexed")
    for number, other in enumerate((pack, tmp_path / "indexed")):
        out = tmp_path / f"{number}"
        said = output_of(capsys, "combine", other, url, "--out", out, *prefixes, *cache)
        assert "46 records" in said and verify(out, decode=True) == []
    assert Cache._known[tmp_path / "cache"].limit == 10_000_000 and not (tmp_path / "home").exists()
    assert main(["combine", str(pack), str(pack), "--out", str(tmp_path / "2"), *map(str, cache)]) == 1
    assert "is a directory: cache, cache_bytes and storage_options are for packs in stores" in capsys.readouterr().err
    assert main(["combine", url, "--out", str(tmp_path / "3"), "--cache-bytes", "1"]) == 1
    assert "want at least" in capsys.readouterr().err


def test_index_points_and_its_cache(
    pack: Path, server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a pack in a directory that refers to tars in a store. Kills: the user's own cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = ["--cache", str(tmp_path / "cache"), "--cache-bytes", "10MB"]
    index([server.url + "pack/" + shard["tar"] for shard in Pack(pack).shards], tmp_path / "indexed")
    assert "of 23 records proven" in output_of(capsys, "index-points", tmp_path / "indexed", *cache)
    assert Cache._known[tmp_path / "cache"].limit == 10_000_000 and not (tmp_path / "home").exists()
    assert main(["index-points", str(pack), *cache]) == 1
    assert "are for packs in stores" in capsys.readouterr().err
    assert main(["index-points", server.url + "pack", *cache]) == 1
    assert "make it of a copy there" in capsys.readouterr().err


def test_verify_finds_what_is_wrong_in_the_store(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pack, tmp_path / "served" / "pack")
    flip_a_bit(Pack(tmp_path / "served" / "pack"), 6)
    with serving(tmp_path / "served") as server:
        assert main(["verify", server.url + "pack", "--cache", str(tmp_path / "cache")]) == 1
    assert "record 6, " in (found := capsys.readouterr().out) and "1 problems" in found


def test_fetch_serves_without_a_network(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: a shard of which a part is missing; an opening that needs the store."""
    from pass_loader import ShardDataset

    monkeypatch.setattr("pass_loader.remote.store._FIRST_PAUSE_S", 0.001)
    cache = tmp_path / "cache"
    with serving(pack.parent) as server:
        url = server.url + "pack"
        assert main(["fetch", url, "--cache", str(cache), "--cache-bytes", "1.05MB"]) == 1
        assert "raise cache_bytes (--cache-bytes)" in capsys.readouterr().err
        output_of(capsys, "fetch", url, "--cache", cache)
    monkeypatch.setattr(Cache, "_known", {})
    assert digest(ShardDataset(url, RECIPE, cache=cache)) == digest(ShardDataset(pack, RECIPE))


def test_verify_a_server_without_ranges(
    pack: Path, server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: the same line for every shard."""
    server.ranges = False
    assert len(Pack(pack).shards) > 1
    assert main(["verify", server.url + "pack", "--cache", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert said.count("the server sends no ranges of files") == 1 and "1 problems" in said


def test_diff_and_locate(pack: Path, server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = Pack(pack).all_ids().to_pylist()
    (tmp_path / "new.csv").write_text("hash\n" + "\n".join(ids[5:]) + "\n")
    url = server.url + "pack"
    assert main(["diff", url, str(tmp_path / "new.csv"), "--cache", str(tmp_path / "cache")]) == 0
    assert capsys.readouterr().out.split() == ids[:5]
    assert main(["locate", url, str(tmp_path)]) == 1
    assert "a pack in a store refers to no tars of this machine" in capsys.readouterr().err


def test_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["info", "ftp://server/pack"], "packs are read from s3://"),
        (["info", str(tmp_path), "--cache", "x"], "is not a pack"),
        (["info", "http://"], "names no bucket or server"),
        (["info", "hf://spaces/a/b"], "want hf://datasets/OWNER/NAME"),
        (["fetch", str(tmp_path)], "is not a pack"),
        (["build", str(tmp_path), "--out", "https://server/new"], "can only be read"),
        (["index", str(tmp_path), "--out", "s3://bucket/new"], "is made in a directory"),
    ):
        assert main(arguments) == 1
        assert words in capsys.readouterr().err
    assert not Path("s3:").exists()


def test_credits_are_written_to_no_store(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a folder named `s3:` in the current directory."""
    monkeypatch.chdir(tmp_path)
    assert main(["attribution", str(pack), "--format", "csv", "--out", "s3://bucket/new"]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_obstore() -> None:
    code = "import sys; sys.modules['obstore'] = None; from pass_loader.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "info", "s3://bucket/pack"], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'pass-loader[remote]'" in done.stderr


@pytest.mark.parametrize("command", [
    ["build", "s3://bucket/a.tar", "--out", "s3://me:secret@bucket/pack"],
    ["verify", "s3://me:secret@bucket/pack"],
    ["verify", "s3://bucket/pack?X-Amz-Signature=secret"],
    ["verify", "http://me:secret@127.0.0.1:9/pack"],
    ["build", "a.tar", "--out", "pack", "--metadata", "s3://bucket/m.csv?X-Amz-Signature=secret"],
])  # fmt: skip
def test_no_secret_is_told(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """In names of packs, sources and tables."""
    monkeypatch.setattr("pass_loader.remote.store._FIRST_PAUSE_S", 0.001)
    monkeypatch.chdir(tmp_path)
    assert main(command) != 0
    told = capsys.readouterr()
    assert "secret" not in told.out + told.err and told.out + told.err
