"""Packs that are made in stores: the bytes of a directory's, whoever is killed, late, or writes at the same time."""

from __future__ import annotations

import fcntl
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, combine, convert, destination, index, merge, plan, remove, shard, verify
from pass_loader.remote import store, writing
from pass_loader.remote.store import StoreError
from pass_loader.remote.writing import WritableStore

from ..helpers.corpus import jpeg, noise
from ..helpers.processes import killed_in_the_middle
from ..helpers.s3_server import S3Server, s3_serving
from ..helpers.trees import tar_of, write_tree
from ..helpers.trials import trials

URL, PREFIX = "s3://bucket/new/", "new/"
OPTIONS: dict[str, Any] = {
    "shard_bytes": 4100, "task_bytes": 25_000, "on_duplicate": "first", "entry_points": True, "workers": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, bytes]]:
    """Sources with pictures that come again and some that are none; and the files of the pack that a directory has."""
    root = tmp_path_factory.mktemp("made")
    tars = []
    for number in range(3):
        own = {f"t{number}-{i}.jpg": jpeg(noise(16, 16, 10 * number + i)) for i in range(4)}
        again = {"t0-1.jpg": jpeg(noise(16, 16, 90 + number)), f"copy{number}.jpg": jpeg(noise(16, 16, number))}
        tars.append(tar_of(root / f"{number}.tar", own | again | {f"bad{number}.jpg": b"text"}))
    folder = write_tree(root / "in", {"a.jpg": jpeg(noise(16, 16, 70)), "b.jpg": jpeg(noise(16, 16, 1))})
    (root / "m.csv").write_text("hash,unickname\n" + "".join(f"t{n}-1,creator-{n}\n" for n in range(3)))
    sources = [*tars, folder]
    OPTIONS["metadata"] = root / "m.csv"
    build(sources, root / "pack", **OPTIONS)
    assert len({shard["tar"][:11] for shard in Pack(root / "pack").shards}) > 1
    return sources, files_of(root / "pack")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """An empty store. Pauses are short, objects of more than 3,000 bytes are sent in parts."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(writing, "PART_BYTES", 3000)
    with s3_serving() as server:
        yield server


def files_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_as_in_a_directory(made: tuple[list[Path], dict[str, bytes]], s3: S3Server, tmp_path: Path) -> None:
    """Kills: a file that is not sent, or left over; a report that is another one."""
    sources, files = made
    how = {**OPTIONS, "storage_options": s3.options}
    report = build(sources, URL, **how)
    assert s3.below(PREFIX) == files and "points.arrow" in files and report.refused_count == 8
    before = len(s3.log)
    assert build(sources, URL, **how) == report and merge(URL, storage_options=s3.options) == report
    assert not [asked for asked in s3.log[before:] if asked[0] not in ("GET", "HEAD")]
    assert not s3.uploads
    pack = Pack(URL, cache=tmp_path / "cache", storage_options=s3.options)
    assert verify(pack) == [] and pack.row(1)["unickname"] == "creator-0"


@pytest.mark.slow
def test_convert_and_combine(made: tuple[list[Path], dict[str, bytes]], s3: S3Server, tmp_path: Path) -> None:
    """Out of a store too, and in shares, some of them twice."""
    build(made[0], tmp_path / "pack", **OPTIONS)
    remove(tmp_path / "pack", ["t0-1"], reason="x")
    s3.put_folder(tmp_path / "pack", "from/")
    pack = Pack("s3://bucket/from", cache=tmp_path / "cache", storage_options=s3.options)
    for number in (2, 0, 2):
        convert(pack, URL, "dct", share=(number, 3), storage_options=s3.options)
    assert {f"shard-{number:05d}.{kind}" for number in (0, 2) for kind in ("tar", "parquet")} < {*s3.below(PREFIX)}
    before = len(s3.log)
    convert(pack, URL, "dct", share=(0, 3), storage_options=s3.options)
    assert not [asked for asked in s3.log[before:] if asked[0] not in ("GET", "HEAD")], "it was done"
    assert convert(pack, URL, "dct", storage_options=s3.options) == convert(tmp_path / "pack", tmp_path / "dct", "dct")
    mine, theirs = s3.below(PREFIX), files_of(tmp_path / "dct")
    for of in (mine, theirs):  # what hangs on the date of the log, and on where the pack lies
        del of["removed.jsonl"], of["pack.json"], of["finished"]
    assert mine == theirs
    both = [tmp_path / "pack", tmp_path / "dct"]
    combine(both, "s3://bucket/all", prefixes=["a/", ""], storage_options=s3.options)
    combine(both, tmp_path / "all", prefixes=["a/", ""])
    assert s3.below("all/") == files_of(tmp_path / "all")


@pytest.mark.slow
def test_tasks_at_the_same_time_in_a_store_that_fails(made: tuple[list[Path], dict[str, bytes]], s3: S3Server) -> None:
    """Each task twice at a time; requests are refused, cut, and done without an answer."""
    sources, files = made
    count = plan(sources, URL, storage_options=s3.options, **{k: v for k, v in OPTIONS.items() if k != "workers"})
    assert count > 1
    s3.faults = 0.1
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            shard(URL, number % count, storage_options=s3.options, workers=1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2 * count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    merge(URL, storage_options=s3.options)
    assert s3.below(PREFIX) == files and s3.faulty["lost"] > 3


@pytest.mark.slow
def test_killed_anywhere(made: tuple[list[Path], dict[str, bytes]], s3: S3Server, tmp_path: Path) -> None:
    """The store as it is after each change, killed there: no pack, or the whole one; the same command goes on.

    Kills: pack.json before what it names; a mark that goes too early; a leftover.
    """
    sources, files = made
    how = {**OPTIONS, "storage_options": s3.options}
    history = s3.remember()
    build(sources, URL, **how)
    states, s3.history = [*history], None
    assert len(states) > 60
    begun = 0
    for number, state in [*enumerate(states)][3 :: trials(9, 1)]:
        s3.objects = dict(state)
        if PREFIX + "pack.json" in state:
            assert verify(Pack(URL, cache=tmp_path / str(number), storage_options=s3.options)) == []
        else:
            begun += 1
            with pytest.raises(PackError, match="is not a pack"):
                Pack(URL, cache=tmp_path / str(number), storage_options=s3.options)
        build(sources, URL, **how)
        assert s3.below(PREFIX) == files, number
    assert begun > 3


@pytest.mark.slow
def test_processes_killed_at_random(made: tuple[list[Path], dict[str, bytes]], s3: S3Server, tmp_path: Path) -> None:
    sources, files = made
    drawn = random.Random(3)
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, **s3.environment, "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-m", "pass_loader.cli", "build", *map(str, sources), "--out", URL]
    command += ["--metadata", str(OPTIONS["metadata"]), "--shard-bytes", "4100", "--task-bytes", "25000"]
    command += ["--on-duplicate", "first", "--entry-points", "--workers", "2"]
    killed = 0
    s3.before = lambda *_: time.sleep(0.03)  # so that there is a middle
    for _ in range(trials(6, 100)):
        if killed_in_the_middle(command, environment, s3.log, drawn.uniform(0.1, 3.0)):
            killed += 1
        else:
            assert s3.below(PREFIX) == files
            s3.objects.clear()
    s3.before = None
    assert killed
    build(sources, URL, storage_options=s3.options, **OPTIONS)
    assert s3.below(PREFIX) == files


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "of_another_plan"),
    [("shard-00002-003.tar", False), ("shard-00002-003.tar", True), ("shard-00000-001.rows", False),
     ("task-00000.json", False)],
)  # fmt: skip
def test_a_late_task_changes_nothing(
    made: tuple[list[Path], dict[str, bytes]], s3: S3Server, name: str, of_another_plan: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Somebody else finishes the pack, and takes repeated pictures out, while a task is about to write.

    of_another_plan: what another plan has left lies there, and the task has seen that it may be exchanged.
    Kills: a tar with a picture that was taken out, written over the one without it; a look at whose the packing is, and
    then a write without a condition.
    """
    sources, files = made
    how = {**OPTIONS, "storage_options": s3.options}
    count = plan(sources, URL, storage_options=s3.options, **{k: v for k, v in OPTIONS.items() if k != "workers"})
    others = 0

    def somebody_else() -> None:
        nonlocal others
        if not others:
            others = 1
            build(sources, URL, **how)

    def before(method: str, key: str) -> None:
        if key.startswith(PREFIX + name):
            somebody_else()

    def about_to(true: Any) -> Any:
        def write(self: WritableStore, *given: Any) -> Any:
            if name in given and any(isinstance(what, Path) for what in given):
                somebody_else()
            return true(self, *given)

        return write

    if of_another_plan:
        s3.objects[PREFIX + name] = b"another"
        for method in ("write", "overwrite"):
            monkeypatch.setattr(WritableStore, method, about_to(getattr(WritableStore, method)))
    else:
        s3.before = before
    try:
        for number in range(count):
            shard(URL, number, storage_options=s3.options, workers=1)
        assert name.startswith("task"), "the last file of a task, which nobody reads any more"
    except PackError as error:
        assert "was put together or begun anew meanwhile" in str(error)
    assert others
    s3.before = None
    assert {name: content for name, content in s3.below(PREFIX).items() if name in files} == files
    build(sources, URL, **how)  # deletes what came late
    assert s3.below(PREFIX) == files


def test_a_source_that_changed(made: tuple[list[Path], dict[str, bytes]], s3: S3Server, tmp_path: Path) -> None:
    """Kills: a shard of the source as it was before."""
    source = tmp_path / "s.tar"
    for number in (1, 2):
        pictures = {f"{i}.jpg": jpeg(noise(16, 16, 10 * number + i)) for i in range(4 * number)}
        tar_of(source, pictures)
        plan([source], URL, shard_bytes=4100, storage_options=s3.options)
        shard(URL, 0, storage_options=s3.options)
    merge(URL, storage_options=s3.options)
    build([source], tmp_path / "pack", shard_bytes=4100)
    assert s3.below(PREFIX) == files_of(tmp_path / "pack")


def test_what_is_refused(made: tuple[list[Path], dict[str, bytes]], s3: S3Server, tmp_path: Path) -> None:
    sources = made[0]
    how = {"storage_options": s3.options}
    with pytest.raises(PackError, match="holds no plan: `pass-pack plan"):
        merge(URL, **how)
    s3.objects[PREFIX + "sub/other.txt"] = b""
    with pytest.raises(PackError, match="new/ is not empty: it holds sub/other.txt"):
        build(sources, URL, **how)
    assert [*s3.objects] == [PREFIX + "sub/other.txt"]
    s3.objects.clear()
    plan(sources, URL, **how)
    shard(URL, 0, **how)
    with pytest.raises(PackError, match="in s3://bucket/new/ lies an unfinished packing of other sources"):
        build(sources[:2], URL, **how)
    build(sources, URL, **how)
    with pytest.raises(PackError, match="is already a pack, of other sources"):
        build(sources[:2], URL, **how)
    with pytest.raises(PackError, match="refers to tars of this machine where they lie is made in a directory"):
        index(sources[:2], URL)
    with pytest.raises(PackError, match="can only be read"):
        build(sources, "https://127.0.0.1/new")
    with pytest.raises(ValueError, match="storage_options are for stores"):
        build(sources, tmp_path / "new", **how)
    s3.conditions = False
    with pytest.raises(StoreError, match="has no conditional writes"):
        build(sources, "s3://bucket/other", **how)


def test_two_commands_at_a_time(made: tuple[list[Path], dict[str, bytes]], s3: S3Server) -> None:
    """Of other sources, in an empty place. Kills: a mark that is written over another's."""
    sources = made[0]
    begun = 0

    def before(method: str, key: str) -> None:
        nonlocal begun
        if key == PREFIX + "unfinished" and not begun:
            begun = 1
            plan(sources[:2], URL, storage_options=s3.options)

    s3.before = before
    with pytest.raises(PackError, match="another command began or goes on with a packing there"):
        build(sources, URL, storage_options=s3.options)


def test_commands(
    made: tuple[list[Path], dict[str, bytes]],
    s3: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder of temporary files is empty after them."""
    sources, files = made
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    given = [*map(str, sources), "--out", URL, "--metadata", str(OPTIONS["metadata"]), "--shard-bytes", "4100"]
    given += ["--task-bytes", "25000", "--on-duplicate", "first", "--entry-points"]
    assert main(["plan", *given]) == 0
    tasks = int(capsys.readouterr().out.split()[0])
    assert main(["merge", URL]) == 1
    assert f"`pass-pack shard {URL} --index 0`" in capsys.readouterr().err
    for number in reversed(range(tasks)):
        assert main(["shard", URL, "--index", str(number)]) == 0
    assert main(["merge", URL]) == 0
    assert s3.below(PREFIX) == files
    assert main(["build", *given]) == 0
    assert not list((tmp_path / "tmp").iterdir())


def test_working_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What killed processes left is deleted; what is in use, or was just made, is not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("left", "used", "young"):
        write_tree(tmp_path / f"pass-pack-{name}", {"pack/shard.tar": b"x"})
        if name != "young":
            os.utime(tmp_path / f"pass-pack-{name}", (1, 1))
    lock = os.open(tmp_path / "pass-pack-used", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with destination.working_folder() as folder:
        assert {path.name for path in tmp_path.iterdir()} == {"pass-pack-used", "pass-pack-young", folder.name}
    os.close(lock)
    assert not folder.exists()
