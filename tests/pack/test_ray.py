"""Packing on a Ray cluster that is started here: the bytes of `build`, whoever is killed on the way."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, convert, export, index, plan, ray_runner, remove, shard, verify
from pass_loader.pack.export import FORMATS
from pass_loader.pack.plan import Plan

from ..helpers.corpus import jpeg, noise
from ..helpers.moto_server import moto_serving, objects_below
from ..helpers.sealing import undated
from ..helpers.trees import contents, tar_of, tree
from ..helpers.trials import trials

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'pass-loader[ray]'")
pytestmark = pytest.mark.slow

OPTIONS = {"shard_bytes": 20_000, "task_bytes": 30_000, "on_duplicate": "first"}


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    """No reports, no token in the home directory; the workers import this package and these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_worker_niceness", "0")  # workers that yield to all else would take minutes to start
        tests = Path(__file__).parents[1]
        places = [str(tests.parent), str(tests / "helpers" / "dying"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(places))
        yield


@pytest.fixture(scope="module")
def nodes(environment: None) -> Iterator[Any]:
    """Two nodes of a cluster, of one CPU each; the second one may be lost."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.other = found.add_node(num_cpus=1)
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes: Any) -> Iterator[Any]:
    """The cluster, to which the tests are connected, once: in a process that connects again and again, Ray 2 has ended
    the process with "Tried to complete task that was not pending"."""
    ray.init(nodes.address, log_to_driver=False, logging_level="error")
    yield nodes
    ray.shutdown()


def sources_of(root: Path, tars: int) -> list[Path]:
    """Write small tars; bytes and ids come again between them."""
    found = []
    for number in range(tars):
        pictures = {f"{number}-{i}.jpg": jpeg(noise(64, 64, 100 * number + i)) for i in range(6)}
        again = {"same.jpg": jpeg(noise(64, 64, 100 * number + 50)), f"copy{number}.jpg": jpeg(noise(64, 64, number))}
        found.append(tar_of(root / f"{number:02d}.tar", pictures | again))
    return found


def workers() -> list[int]:
    """Return the processes below this one that run a task of ours."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text()
            names[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(path.name)] = int(status.rpartition(")")[2].split()[1])
    found = []
    for process, name in names.items():
        above: int | None = process
        while above not in (None, os.getpid()):
            above = parents.get(above)  # type: ignore[arg-type]
        if above is not None and name.startswith(b"ray::_call"):
            found.append(process)
    return found


class Killer:
    """Kills a worker of this process's cluster at random, until `count` were killed or it is left."""

    def __init__(self, count: int, seed: int):
        self.killed, self._count, self._dice = 0, count, random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while self.killed < self._count and not self._over.wait(self._dice.random() * 0.05):
            if found := workers():
                with contextlib.suppress(ProcessLookupError):  # it has come to its end
                    os.kill(self._dice.choice(found), signal.SIGKILL)
                    self.killed += 1


def test_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was planned is kept, for any runner. It comes first: "auto" finds the cluster of the others."""
    sources = sources_of(tmp_path, 1)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(PackError, match="no Ray cluster is reached at auto"):
        build(sources, tmp_path / "pack", runner="ray", ray_address="auto")
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for where in (address, f"ray://{address}"):
            with pytest.raises(
                PackError, match=f"no Ray cluster is reached at {where}: Connection refused. `ray status`"
            ):
                build(sources, tmp_path / "pack", runner="ray", ray_address=where)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(PackError, match=f"no Ray cluster is reached at {address}: Connection refused"):
            build(sources, tmp_path / "pack", runner="ray")
    with pytest.raises(PackError, match="no Ray cluster is reached at nowhere.invalid:6379: "):
        build(sources, tmp_path / "pack", runner="ray", ray_address="nowhere.invalid:6379")
    shard(tmp_path / "pack", 0)
    assert len(Plan.load(tmp_path / "pack").tasks) == plan(sources, tmp_path / "pack") == 1


def test_workers_and_nodes_are_killed(tmp_path: Path, cluster: Any) -> None:
    """At random, 20 of them in all: the same bytes, and the same report."""
    sources = sources_of(tmp_path, 12)
    (tmp_path / "m.csv").write_text("hash,n\n" + "".join(f"{n}-{i},{i}\n" for n in range(12) for i in range(5)))
    options = {**OPTIONS, "metadata": tmp_path / "m.csv"}
    report = build(sources, tmp_path / "built", **options)
    assert report.same_id and verify(tmp_path / "built") == []
    want, dice = contents(tmp_path / "built"), random.Random(0)
    killed = lost = trial = 0
    while killed + lost < trials(20, 200):
        out, seen, last = tmp_path / f"{trial}", [], dice.randrange(2, 8)
        deaths = tmp_path / f"{trial}.killed"  # tests/helpers/dying
        deaths.mkdir()

        def progress(count: int, seen: list[int] = seen, last: int = last) -> None:
            seen.append(count)
            if len(seen) == last:
                cluster.remove_node(cluster.other, allow_graceful=False)

        assert build(sources, out, runner="ray", progress=progress, **options) == report
        assert contents(out) == want
        assert sum(seen) == sum(path.stat().st_size for path in sources) and len(seen) > 8
        assert (here := len([*deaths.iterdir()])) > 1
        cluster.other = cluster.add_node(num_cpus=1)
        killed, lost, trial = killed + here, lost + 1, trial + 1
    assert build(sources, tmp_path / "0", runner="ray", **options) == report, "it is the pack of that command"
    assert re.fullmatch(r"[\d.]+:\d+", cluster.address)
    command = [sys.executable, "-m", "pass_loader.cli.main", "build", *map(str, sources), "--metadata"]
    command += [str(options["metadata"]), "--shard-bytes", "20000", "--task-bytes", "30000", "--on-duplicate", "first"]
    command += ["--out", str(tmp_path / "reached"), "--runner", "ray", "--ray-address", cluster.address]
    subprocess.run(command, check=True, capture_output=True)
    assert contents(tmp_path / "reached") == want


@pytest.mark.long
def test_another_table_under_the_same_name(tmp_path: Path, cluster: Any) -> None:
    """Kills: a worker that still has the table of the packing before, which was deleted."""
    sources = sources_of(tmp_path, 2)
    for number in range(2):
        (tmp_path / "m.csv").write_text("hash,n\n" + "".join(f"{task}-1,{number}{task}\n" for task in range(2)))
        build(sources, tmp_path / "pack", runner="ray", metadata=tmp_path / "m.csv", **OPTIONS)
        build(sources, tmp_path / f"{number}", metadata=tmp_path / "m.csv", **OPTIONS)
        assert contents(tmp_path / "pack") == contents(tmp_path / f"{number}")
        shutil.rmtree(tmp_path / "pack")


@contextlib.contextmanager
def larger(cluster: Any) -> Iterator[None]:
    """A node of two CPUs joins for a while."""
    node = cluster.add_node(num_cpus=2)
    try:
        yield
    finally:
        cluster.remove_node(node)


def test_a_task_larger_than_every_node(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits, and says so once, until a larger node joins."""
    index(sources_of(tmp_path, 1), tmp_path / "pack")
    monkeypatch.setattr(ray_runner, "_LOOKED_S", 0.1)
    with contextlib.ExitStack() as stack:
        wait, waits = ray.wait, 0

        def joins(*arguments: Any, **named: Any) -> Any:
            nonlocal waits
            waits += 1
            if waits == 3:
                stack.enter_context(larger(cluster))
            return wait(*arguments, **named)

        monkeypatch.setattr(ray, "wait", joins)
        assert main(["verify", str(tmp_path / "pack"), "--runner", "ray", "--workers", "2"]) == 0
    assert waits >= 3
    said = "pass-pack: a task asks for 2 CPUs (--workers), and the largest node of the Ray cluster has 1: "
    assert capsys.readouterr().err.count(said) == 1


@pytest.mark.long
def test_commands_that_read_a_pack(tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Workers are killed: the same bytes and words as without Ray."""
    sources = sources_of(tmp_path, 12)
    (tmp_path / "m.csv").write_text("hash,unickname,licensename\n" + "".join(f"{n}-1,a,b\n" for n in range(12)))
    build(sources, tmp_path / "pack", metadata=tmp_path / "m.csv", **OPTIONS)
    remove(tmp_path / "pack", ["3-3"], reason="x")
    pack, killed = str(tmp_path / "pack"), 0
    for number, command in enumerate([
        ["convert", pack, "--codec", "dct", "--out", "OUT"],
        *(["export", pack, "--format", format, "--shard-bytes", "20000", "--out", "OUT"] for format in FORMATS),
        ["attribution", pack, "--format", "json", "--out", "OUT"],
        ["verify", pack, "--decode"],
        ["verify", pack, "--decode", "--results", "OUT"],
    ]):  # fmt: skip
        want, out = tmp_path / f"{number}-want", tmp_path / f"{number}-out"
        code = main([str(want) if word == "OUT" else word for word in command])
        shown = capsys.readouterr()
        threads = 1 + number % 2
        node = larger(cluster) if threads == 2 else contextlib.nullcontext()
        with node, Killer(trials(1, 10), number) as killer:
            runner = ["--runner", "ray", "--workers", str(threads)]
            assert main([str(out) if word == "OUT" else word for word in command] + runner) == code
        found = capsys.readouterr()
        said, want_said = found.out.replace("-out", "-want"), shown.out  # Ray has words of its own before
        if command[0] == "verify":
            said, want_said = said.rpartition(", ")[0], want_said.rpartition(", ")[0]
            assert not out.exists()
        assert said.endswith(want_said) and found.err.endswith(shown.err)
        if command[0] != "verify":
            assert tree(out) == tree(want) and not out.with_name(f"{out.name}.unfinished").exists()
        killed += killer.killed
    assert killed


@pytest.mark.long
def test_the_command_is_killed(tmp_path: Path) -> None:
    """It starts a cluster of its own; run again, it goes on."""
    sources = sources_of(tmp_path, 8)
    index(sources, tmp_path / "built", task_bytes=30_000)
    command = [
        sys.executable, "-m", "pass_loader.cli.main", "index", *map(str, sources), "--out", str(tmp_path / "pack"),
        "--task-bytes", "30000", "--runner", "ray", "--ray-address", "local",
    ]  # fmt: skip
    with subprocess.Popen(command) as killed:
        deadline = time.monotonic() + 60
        while not [*(tmp_path / "pack").glob("task-*.json")] and killed.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        killed.kill()
    assert len([*(tmp_path / "pack").glob("task-*.json")]) < 8
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "pack") == contents(tmp_path / "built")


def test_errors_of_tasks(tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrive as they are raised; what was done is kept."""
    sources = sources_of(tmp_path, 4)
    sources[2].write_bytes(sources[2].read_bytes()[:4000])
    with pytest.raises(PackError, match="02.tar is .* cut off or damaged") as caught:
        build(sources, tmp_path / "pack", runner="ray", **OPTIONS)
    assert "Traceback" not in str(caught.value)
    with monkeypatch.context() as patch:
        patch.setattr(ray_runner, "__version__", "0.0.1")
        with pytest.raises(PackError, match="and 0.0.1 where the command runs: install the same on every node"):
            build(sources[:1], tmp_path / "other", runner="ray", **OPTIONS)
    monkeypatch.setattr(ray_runner, "_RETRIES", 1)
    with pytest.raises(PackError, match="Ray gave a task up .* begun 2 times"):
        ray_runner.run_on_ray(os._exit, [(1,)])


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[dict[str, Any], Any]]:
    """Options of moto's S3 with an empty bucket, and a client of it."""
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'pass-loader[remote]'")
    with moto_serving() as served:
        yield served


@pytest.mark.long
def test_into_a_store(tmp_path: Path, cluster: Any, s3: tuple[dict[str, Any], Any]) -> None:
    """build, convert, verify, export, out of a store and into it; workers are killed: as in directories without Ray."""
    options, client = s3
    sources = sources_of(tmp_path, 8)
    (tmp_path / "m.csv").write_text("hash,n\n" + "".join(f"{n}-{i},{i}\n" for n in range(8) for i in range(5)))
    packing = {**OPTIONS, "metadata": tmp_path / "m.csv"}
    on_ray = {"runner": "ray", "storage_options": options}
    report = build(sources, tmp_path / "pack", **packing)
    killed = 0
    for trial in range(trials(1, 10)):
        with Killer(4, trial) as killer:
            assert build(sources, f"s3://bucket/built{trial}", **packing, **on_ray) == report
        killed += killer.killed
        mine = objects_below(client, f"built{trial}/")
        assert mine.pop("finished") and mine == contents(tmp_path / "pack")
    remove(tmp_path / "pack", ["3-3", "5-1"], reason="x")
    for path in (tmp_path / "pack").iterdir():
        client.upload_file(str(path), "bucket", f"from/{path.name}")
    stored = Pack("s3://bucket/from", cache=tmp_path / "cache", storage_options=options)
    converted = convert(tmp_path / "pack", tmp_path / "dct", "dct")
    for trial in range(trials(1, 10)):
        with Killer(2, trial) as killer:
            assert convert(stored, f"s3://bucket/dct{trial}", "dct", workers=1 + trial % 2, **on_ray) == converted
        killed += killer.killed
        mine, theirs = objects_below(client, f"dct{trial}/"), contents(tmp_path / "dct")
        assert mine.pop("finished") and undated(mine) == undated(theirs)
    with Killer(2, 0) as killer:
        assert verify(stored, decode=True, runner="ray") == []
    killed += killer.killed
    for number, format in enumerate(FORMATS):
        want = export(tmp_path / "pack", tmp_path / format, format, shard_bytes=20_000)
        for trial in range(trials(1, 5)):
            with Killer(2, number) as killer:
                out = f"s3://bucket/{format}{trial}"
                assert export(stored, out, format, shard_bytes=20_000, **on_ray) == want
            killed += killer.killed
            assert objects_below(client, f"{format}{trial}/") == tree(tmp_path / format)
            assert not objects_below(client, f"{format}{trial}.unfinished/")
    assert killed
    assert convert(stored, "s3://bucket/dct0", "dct", **on_ray) == converted, "it is the pack of that command"
