"""Exports into stores: the files of a directory, whoever is killed, late, or writes at the same time."""

from __future__ import annotations

import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import build, export, remove
from pass_loader.pack.export import FORMATS
from pass_loader.remote.store import StoreError

from ..helpers.corpus import jpeg, noise
from ..helpers.processes import killed_in_the_middle
from ..helpers.s3_server import S3Server
from ..helpers.trees import tree, write_tree
from ..helpers.trials import trials

URL, PREFIX, BESIDE = "s3://bucket/to/new", "to/new/", "to/new.unfinished/"
NAMES = ["plain", "a b", "ü", "a?b#c", "star*", "100%", "a.b.c", "[x]", "back\\slash", "~", "a&b+c", "quo'te\""]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of several shards, with labels and names that need care in a URL; one record is removed."""
    root = tmp_path_factory.mktemp("source")
    files = {f"c{i % 2}/{name}.jpg": jpeg(noise(16, 16, i)) for i, name in enumerate(NAMES)}
    (root / "m.csv").write_text("hash,unickname\nc0/plain,creator\n")
    build([write_tree(root / "in", files)], root / "pack", metadata=root / "m.csv", shard_bytes=4100)
    remove(root / "pack", [f"c{NAMES.index('~') % 2}/~"], reason="x")
    return root / "pack"


def as_in_a_directory(source: Path, out: Path, format: str) -> dict[str, bytes]:
    export(source, out, format, shard_bytes=4000)
    return tree(out)


@pytest.mark.parametrize("format", FORMATS)
def test_as_in_a_directory(source: Path, s3: S3Server, tmp_path: Path, format: str) -> None:
    """Kills: a name that is escaped; a file that is left beside it."""
    want, seen = export(source, tmp_path / "out", format, shard_bytes=4000), []
    how = {"shard_bytes": 4000, "storage_options": s3.options, "workers": 2}
    assert export(source, URL, format, progress=seen.append, **how) == want
    assert s3.below(PREFIX) == tree(tmp_path / "out")
    assert [*s3.objects] == [key for key in s3.objects if key.startswith(PREFIX)] and not s3.uploads
    assert sum(seen) == want.bytes
    with pytest.raises(PackError, match="s3://bucket/to/new/ exists; give another --out"):
        export(source, URL, format, **how)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_shares_in_a_store_that_fails(source: Path, s3: S3Server, tmp_path: Path, format: str) -> None:
    """Some twice at a time, some not at all; requests are refused, cut, and done without an answer."""
    want = as_in_a_directory(source, tmp_path / "out", format)
    how = {"shard_bytes": 4000, "storage_options": s3.options}
    s3.faults = 0.2

    def run(index: int) -> int:
        return export(source, URL, format, share=(index, 4), workers=1, **how).records

    with ThreadPoolExecutor(4) as pool:
        assert sum([*pool.map(run, [0, 1, 1, 3])][:2])
    assert any(key.startswith(BESIDE) for key in s3.objects)
    assert export(source, URL, format, **how).records == len(NAMES) - 1
    assert s3.objects == {PREFIX + name: content for name, content in want.items()} and s3.faulty


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_killed_anywhere(source: Path, s3: S3Server, tmp_path: Path, format: str) -> None:
    """The store as it is after each change, killed there: the same command goes on, to the same files.

    Kills: notes of tasks before what they tell of; a mark that goes too early.
    """
    want = as_in_a_directory(source, tmp_path / "out", format)
    how = {"shard_bytes": 4000, "storage_options": s3.options}
    history = s3.remember()
    done = export(source, URL, format, **how)
    states, s3.history = [*history], None
    assert len(states) > 15
    for number, state in [*enumerate(states)][:-1][:: trials(3, 1)]:
        s3.objects = dict(state)
        assert {name for name in s3.below(PREFIX) if name not in want} == set()
        assert any(key.startswith(BESIDE) for key in state), "it says that it is not complete"
        assert export(source, URL, format, **how) == done
        assert s3.objects == {PREFIX + name: content for name, content in want.items()}, number


@pytest.mark.slow
def test_processes_killed_at_random(source: Path, s3: S3Server, tmp_path: Path) -> None:
    want = as_in_a_directory(source, tmp_path / "out", "folder")
    drawn, killed = random.Random(1), 0
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, **s3.environment, "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-m", "pass_loader.cli", "export", str(source), "--out", URL, "--format", "folder"]
    command += ["--shard-bytes", "4000"]
    s3.before = lambda *_: time.sleep(0.03)  # so that there is a middle
    for _ in range(trials(4, 60)):
        if killed_in_the_middle(command, environment, s3.log, drawn.uniform(0.05, 0.6)):
            killed += 1
            time.sleep(0.2)  # what was on its way arrives
        if s3.objects and not s3.below(BESIDE):
            assert s3.below(PREFIX) == want
            s3.objects.clear()
    s3.before = None
    assert killed
    export(source, URL, "folder", shard_bytes=4000, storage_options=s3.options)
    assert s3.below(PREFIX) == want and not s3.below(BESIDE)


@pytest.mark.parametrize("name", [PREFIX, f"{BESIDE}task-"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_late_task_changes_nothing(source: Path, s3: S3Server, format: str, name: str) -> None:
    """Somebody else completes the export while a task is about to write a file, or to keep what it has found.

    Kills: a file or a note that comes after all was done.
    """
    how = {"shard_bytes": 4000, "storage_options": s3.options}
    done: list[dict[str, bytes]] = []

    def before(method: str, key: str) -> None:
        if key.startswith(name) and not done:
            done.append({})
            export(source, URL, format, **how)
            done[0] = dict(s3.objects)

    s3.before = before
    with pytest.raises(PackError, match="was completed or begun anew meanwhile; nothing is changed"):
        export(source, URL, format, share=(0, 1), workers=1, **how)
    left = {key: content for key, content in s3.objects.items() if not key.startswith(BESIDE)}
    on_its_way = name != PREFIX  # the note, which is written though it was late
    assert left == done[0] and len(s3.objects) == len(left) + on_its_way


def test_what_is_refused(source: Path, s3: S3Server, tmp_path: Path) -> None:
    how = {"storage_options": s3.options}
    with pytest.raises(PackError, match="s3://bucket/ is a whole bucket: give a folder of it"):
        export(source, "s3://bucket/", "folder", **how)
    with pytest.raises(PackError, match="can only be read"):
        export(source, "https://127.0.0.1/new", "folder")
    with pytest.raises(ValueError, match="storage_options are for stores"):
        export(source, tmp_path / "new", "folder", **how)
    s3.objects[f"{BESIDE}thesis.doc"] = b""
    with pytest.raises(PackError, match="new.unfinished/ is none of ours"):
        export(source, URL, "folder", **how)
    assert [*s3.objects] == [f"{BESIDE}thesis.doc"]
    s3.objects.clear()
    export(source, URL, "folder", share=(0, 1), **how)
    with pytest.raises(PackError, match="new.unfinished/ lies what another command left"):
        export(source, URL, "webdataset", **how)
    s3.objects = {key: b"other" if "plain" in key else content for key, content in s3.objects.items()
                  if "/task-" not in key}  # fmt: skip
    with pytest.raises(PackError, match="plain.jpg is there already, with other bytes"):
        export(source, URL, "folder", **how)
    s3.objects.clear()
    s3.conditions = False
    with pytest.raises(StoreError, match="has no conditional writes"):
        export(source, URL, "folder", **how)


def test_ids_too_long_for_a_store(s3: S3Server, tmp_path: Path) -> None:
    name = "/".join(["x" * 240] * 5)
    build([write_tree(tmp_path / "in", {f"{name}.jpg": jpeg(noise(16, 16, 1))})], tmp_path / "pack")
    with pytest.raises(PackError, match="is too long for the name of a file: --format webdataset or parquet holds it"):
        export(tmp_path / "pack", URL, "folder", storage_options=s3.options)


def test_two_commands_at_a_time(source: Path, s3: S3Server) -> None:
    """Of other options, in an empty place. Kills: a mark that is written over another's."""
    begun = 0

    def before(method: str, key: str) -> None:
        nonlocal begun
        if key == f"{BESIDE}command.json" and not begun:
            begun = 1
            export(source, URL, "webdataset", share=(0, 9), storage_options=s3.options)

    s3.before = before
    with pytest.raises(PackError, match="lies what another command left"):
        export(source, URL, "folder", storage_options=s3.options)


def test_command(source: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of temporary files is empty after it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    command = ["export", str(source), "--format", "parquet", "--shard-bytes", "4000", "--out"]
    for more in (["--index", "0", "--of", "3"], []):
        assert main([*command, URL, *more]) == 0
    assert s3.below(PREFIX) == as_in_a_directory(source, tmp_path / "out", "parquet")
    assert not list((tmp_path / "tmp").iterdir())
