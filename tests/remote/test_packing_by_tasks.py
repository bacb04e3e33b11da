"""The tables of packs in stores, written by tasks that share nothing but the store: the bytes of a directory's.

The tasks are called here, one after another, with arguments that went through pickle, as Ray calls them elsewhere.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError
from pass_loader.pack import batches, build, finish, join, merge, metadata, plan, repeats, shard
from pass_loader.pack.report import Report
from pass_loader.remote import writing

from ..helpers.corpus import jpeg, noise
from ..helpers.s3_server import S3Server, s3_serving
from ..helpers.trees import tar_of
from ..helpers.trials import trials

URL, PREFIX = "s3://bucket/new/", "new/"
OPTIONS: dict[str, Any] = {"shard_bytes": 4100, "task_bytes": 20_000, "on_duplicate": "first"}
OF_TASKS = re.compile(r".*\.(spread|joined|table|parquet\.[0-9a-f]{12})")
PICTURES = 24


class Made(NamedTuple):
    """report, files: of the pack in a directory. begun: what a store holds when all shards are written."""

    options: dict[str, Any]
    report: Report
    files: dict[str, bytes]
    begun: dict[str, bytes]


def write_metadata(path: Path, rows: int = 90, bad: bool = False) -> Path:
    """Write small groups of rows; some pictures have no row, some rows no picture. bad: with text that is none."""
    ids = [f"p{i:03d}" for i in np.random.default_rng(0).permutation(rows).tolist() if i % 7]
    texts = [f"user {id}" * (int(id[1:]) % 4) for id in ids]
    columns = {"key": pa.array(ids), "name": pa.array(texts), "tags": pa.array([[id] * (len(id) % 3) for id in ids])}
    if bad:
        columns["raw"] = pa.array([b"\xff" if id == "p050" else b"a" for id in ids]).view(pa.string())
    if path.suffix == ".csv":
        path.write_text("key,name\n" + "".join(f"{id},{text}\n" for id, text in zip(ids, texts)))
    else:
        pq.write_table(pa.table(columns), path, row_group_size=13)
    return path


def prepared(root: Path, table: Path | None) -> Made:
    sources = []
    for tar in range(3):
        pictures = {f"p{i:03d}.jpg": jpeg(noise(16, 16, i)) for i in range(tar, PICTURES, 3)}
        sources.append(tar_of(root / f"{tar}.tar", pictures | {"p001.jpg": jpeg(noise(16, 16, 1)), "bad.jpg": b"text"}))
    options = {**OPTIONS, **({"metadata": table, "key": "key"} if table is not None else {})}
    report = build(sources, root / "pack", **options)
    files = {path.name: path.read_bytes() for path in (root / "pack").iterdir()}
    with s3_serving() as server:
        for number in range(plan(sources, URL, storage_options=server.options, **options)):
            shard(URL, number, storage_options=server.options)
        return Made({**options, "sources": sources}, report, files, dict(server.objects))


@pytest.fixture(scope="module", params=["m.parquet", "m.csv", None])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("made")
    return prepared(root, write_metadata(root / request.param) if request.param else None)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("joined")
    return prepared(root, write_metadata(root / "m.parquet"))


class Elsewhere:
    """Stands for Ray.

    calls: what was called. asked: the requests of tasks, the others being the command's own. twice: tasks are. last: so
    many groups of tables are written, then the command is cut off; -1: it is not.
    """

    def __init__(self, server: S3Server):
        self.server, self.calls = server, list[tuple[Callable[..., Any], bytes]]()
        self.asked: list[tuple[str, str]] = []
        self.twice, self.last = False, -1

    def run(
        self, function: Callable[..., Any], calls: list[tuple[Any, ...]], *, address: str | None = None, cpus: int = 1,
        done: Callable[[int], None] = lambda _: None,
    ) -> list[Any]:  # fmt: skip
        results = []
        for arguments in calls:
            if sum(one[0] is finish.write_tables for one in self.calls) == self.last:
                raise KeyboardInterrupt
            self.calls.append((function, pickle.dumps(arguments)))
            before = len(self.server.log)
            results.append(self.again(-1))
            if self.twice:
                middle = len(self.server.log)
                assert self.again(-1) == results[-1]
                assert {method for method, _ in self.server.log[middle:]} <= {"GET", "HEAD"}, "it was done"
            self.asked += self.server.log[before:]
        return results

    def again(self, place: int) -> Any:
        function, arguments = self.calls[place]
        return function(*pickle.loads(arguments))


@pytest.fixture
def elsewhere(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Small shares, pieces, groups and rounds; files whose tails come in several requests."""
    ray = Elsewhere(s3)
    for module in ("build", "finish", "join"):
        monkeypatch.setattr(sys.modules[f"pass_loader.pack.{module}"], "run_on_ray", ray.run)
    monkeypatch.setattr(sys.modules["pass_loader.pack.build"], "connected", lambda *_: contextlib.nullcontext())
    for place, name, value in ((repeats, "_BUCKET", 40), (metadata, "_PIECE_ROWS", 30), (finish, "_TABLES", 2),
                               (join, "_ROUND_ROWS", 10), (join, "_WRITTEN_ROWS", 3),
                               (batches, "_TAIL_BYTES", 16)):  # fmt: skip
        monkeypatch.setattr(place, name, value)
    return ray


def merged(s3: S3Server) -> Report:
    return merge(URL, runner="ray", storage_options=s3.options)


def test_as_in_a_directory(made: Made, s3: S3Server, elsewhere: Elsewhere) -> None:
    """Kills: a table or a part of the join that the command makes itself or fetches; a leftover; rows of others."""
    s3.objects = dict(made.begun)
    report = merged(s3)
    assert s3.below(PREFIX) == made.files and report == made.report and not s3.uploads
    kinds = {function.__name__ for function, _ in elsewhere.calls}
    assert kinds == ({"_run_there", "write_tables"} if "metadata" in made.options else {"write_tables"})
    assert len([one for one in elsewhere.calls if one[0] is finish.write_tables]) > 3
    own = [*s3.log]
    for asked in elsewhere.asked:
        own.remove(asked)
    fetched = {key.removeprefix(PREFIX) for method, key in own if method == "GET"}
    assert not [name for name in fetched if name.endswith(".spread") or ".parquet" in name]
    sent = {key for method, key in own if method == "PUT" and OF_TASKS.fullmatch(key)}
    assert not [key for key in sent if not key.endswith(".table")]


def test_the_whole_command(joined: Made, s3: S3Server, elsewhere: Elsewhere) -> None:
    """Run again too: it is the pack of that command."""
    options = {**joined.options, "runner": "ray", "storage_options": s3.options}
    for _ in range(2):
        assert build(out=URL, **options) == joined.report
        assert s3.below(PREFIX) == joined.files


def test_tasks_run_twice_and_late(joined: Made, s3: S3Server, elsewhere: Elsewhere) -> None:
    """At once: nothing is sent again. When the pack is made: what they leave is no part of it, and goes.

    Kills: a task that writes under a name of the pack.
    """
    s3.objects, elsewhere.twice = dict(joined.begun), True
    before: dict[str, bytes] = {}

    def remember(method: str, key: str) -> None:
        if key == PREFIX + "pack.json":
            before.update(s3.objects)

    s3.before = remember
    merged(s3)
    assert s3.below(PREFIX) == joined.files and len(elsewhere.calls) > 20
    inputs = {key: content for key, content in before.items() if not OF_TASKS.fullmatch(key) or key.endswith(".table")}
    s3.objects = {key: b"kept" for key in s3.objects} | {key: inputs[key] for key in inputs.keys() - s3.objects.keys()}
    for place in range(len(elsewhere.calls)):
        elsewhere.again(place)
    for name, content in joined.files.items():
        assert s3.objects[PREFIX + name] == b"kept", name
        s3.objects[PREFIX + name] = content
    assert {key for key in s3.objects if OF_TASKS.fullmatch(key)} == {key for key in before if OF_TASKS.fullmatch(key)}
    s3.before, elsewhere.twice = None, False
    del s3.objects[PREFIX + "unfinished"]
    assert merged(s3) == joined.report and s3.below(PREFIX) == joined.files


@pytest.mark.slow
def test_cut_off_anywhere(joined: Made, s3: S3Server, elsewhere: Elsewhere) -> None:
    """The store as it is after each change: the same command goes on, and no task that is done sends anything again."""
    s3.objects = dict(joined.begun)
    history = s3.remember()
    merged(s3)
    states, s3.history = [*history], None
    assert len(states) > 60
    kept = 0
    sent = next(number for number, state in enumerate(states) if any(key.endswith(".table") for key in state))
    for number in sorted({sent, *range(2, len(states), trials(19, 1))}):
        s3.objects = state = dict(states[number])
        before, done = len(s3.log), {key for key in state if OF_TASKS.fullmatch(key)}
        merged(s3)
        assert s3.below(PREFIX) == joined.files, number
        assert not done & {key for method, key in s3.log[before:] if method in ("PUT", "POST")}, number
        kept += len(done)
    assert kept > 20


def test_another_table(joined: Made, s3: S3Server, elsewhere: Elsewhere, tmp_path: Path) -> None:
    """It comes while the command is cut off: kills what tasks have made of the table before."""
    sources, table = joined.options["sources"], write_metadata(tmp_path / "m.parquet")
    options = {**OPTIONS, "metadata": table, "key": "key"}
    how = {"runner": "ray", "storage_options": s3.options}
    elsewhere.last = 2
    with pytest.raises(KeyboardInterrupt):
        build(sources, URL, **options, **how)
    assert {key.rpartition(".")[2] for key in s3.objects if OF_TASKS.fullmatch(key)} >= {"spread", "joined", "table"}
    write_metadata(table, rows=20)
    elsewhere.last = -1
    report = build(sources, URL, **options, **how)
    assert report == build(sources, tmp_path / "pack", **options)
    assert s3.below(PREFIX) == {path.name: path.read_bytes() for path in (tmp_path / "pack").iterdir()}


@pytest.mark.slow
def test_a_task_that_dies(joined: Made, s3: S3Server, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each of its requests that change something, in the middle of an upload too; it is run again, as Ray does."""
    s3.objects = dict(joined.begun)
    run, died = Elsewhere.again, 0

    class Killed(BaseException):
        pass

    def dying(self: Elsewhere, place: int) -> Any:
        nonlocal died
        send = writing.WritableStore._send

        def cut(self: Any, obstore: Any, path: Path, name: str) -> None:
            if died % 2:  # an upload in parts that nobody ends
                found = path.read_bytes()
                send(self, obstore, path, f"{name}.cut")
                self.delete(f"{name}.cut")
                assert found
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(writing.WritableStore, "_send", cut)
            with contextlib.suppress(Killed):
                run(self, place)
                return run(self, place)  # it had nothing to send
            died += 1
        return run(self, place)

    monkeypatch.setattr(Elsewhere, "again", dying)
    assert merged(s3) == joined.report and s3.below(PREFIX) == joined.files and died > 10


def test_words(joined: Made, s3: S3Server, elsewhere: Elsewhere, tmp_path: Path) -> None:
    """Of a table that changed, is damaged inside, or has a key twice: its own name, not that of a copy."""

    def change(table: Path, _: str, key: str) -> None:
        if key.endswith(".table"):
            write_metadata(table, rows=70)

    sources = joined.options["sources"][:1]
    other = "is not as it was when the plan was made: plan again"
    for bad, when, words in ((False, "before", other), (False, "while", other), (True, "", "row .*'raw'.*UTF")):
        table = write_metadata(tmp_path / "m.parquet", bad=bad)
        s3.objects.clear()
        for number in range(plan(sources, URL, metadata=table, key="key", storage_options=s3.options, **OPTIONS)):
            shard(URL, number, storage_options=s3.options)
        if when == "before":
            write_metadata(table, rows=70)
        s3.before = partial(change, table) if when == "while" else None
        with pytest.raises(PackError, match=f"^{table}.*{words}"):
            merged(s3)
