"""Packing by tasks: in any order, on any number of machines, twice or killed, to the bytes that `build` makes."""

from __future__ import annotations

import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, index, merge, plan, shard, tables, verify
from pass_loader.pack.destination import Destination
from pass_loader.pack.plan import Plan
from pass_loader.pack.task import Task

from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.forked import ready
from ..helpers.trees import contents, tar_of, write_tree
from ..helpers.trials import trials

OPTIONS = {"shard_bytes": 4100, "task_bytes": 12_000}
LARGER = {"shard_bytes": 8000, "task_bytes": 6000}


def sources_of(root: Path) -> list[Path]:
    """Write a large tar of samples, small tars, a folder and a table; ids and bytes come again between them."""

    def picture(number: int) -> bytes:
        return jpeg(noise(16, 16, number))

    with tarfile.open(root / "large.tar", "w") as tar:
        for number in range(20):
            for suffix, data in (("jpg", picture(number)), ("json", b'{"n": %d}' % number), ("txt", b"words")):
                member = tarfile.TarInfo(f"s{number:02d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    for number in range(6):
        own = {f"t{number}-{i}.jpg": picture(100 + 10 * number + i) for i in range(3)}
        again = {f"x/s{number:02d}.jpg": picture(500 + number), f"copy{number}.jpg": picture(number)}
        tar_of(root / f"small{number}.tar", own | again | {f"bad{number}.jpg": b"text"})
    write_tree(root / "in", {"a.jpg": picture(1), "b.jpg": picture(900), "t0-0.jpg": picture(901), "none": b""})
    rows = "".join(f"s{number:02d},creator-{number}\n" for number in range(20))
    (root / "m.csv").write_text("hash,unickname\n" + rows)
    return [root / "large.tar", *(root / f"small{number}.tar" for number in range(6)), root / "in"]


@pytest.mark.slow
@pytest.mark.parametrize("on_duplicate", ["keep", "first"])
def test_tasks_in_any_order_are_a_build(tmp_path: Path, on_duplicate: str) -> None:
    """In parallel, some twice, the sources' records in the order of the sources."""
    sources, options = sources_of(tmp_path), OPTIONS | {"metadata": tmp_path / "m.csv", "on_duplicate": on_duplicate}
    report = build(sources, tmp_path / "built", workers=2, **options)
    want = contents(tmp_path / "built")
    assert verify(tmp_path / "built") == []
    pack = Pack(tmp_path / "built")
    ids = [pack.id_of(record) for record in range(len(pack))]
    copies = [f"copy{number}" for number in range(6)] if on_duplicate == "keep" else []
    assert ids[:20] == [f"s{number:02d}" for number in range(20)] and len(set(ids)) == len(ids)
    assert {*ids[20:]} == {f"t{n}-{i}" for n in range(6) for i in range(3)} | {*copies, "b"} | (
        {"a"} if copies else set()
    )
    assert report.same_id == 7 and report.refused_count == 7 + 7 + (0 if copies else 7)
    random.seed(5)
    for trial in range(trials(3, 30)):
        out = tmp_path / f"{trial}"
        count = plan(sources, out, **options)
        assert count > 6 and {path.name for path in out.iterdir()} == {"plan.json", "unfinished"}
        numbers = [*range(count), *random.sample(range(count), 3)]
        random.shuffle(numbers)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number, out=out: shard(out, number, workers=1), numbers))  # type: ignore[misc]
        assert merge(out, workers=1) == report
        assert contents(out) == want
        assert merge(out) == report and shard(out, 0) == 0
        assert build(sources, out, **options) == report, "it is the pack of that command"


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sources = [str(path) for path in sources_of(tmp_path)]
    options = ["--shard-bytes", "4100", "--task-bytes", "12000", "--metadata", str(tmp_path / "m.csv")]
    assert main(["build", *sources, "--out", str(tmp_path / "built"), *options]) == 0
    built = capsys.readouterr().out
    out = str(tmp_path / "pack")
    assert main(["plan", *sources, "--out", out, *options]) == 0
    count = int(capsys.readouterr().out.split()[0])
    assert main(["merge", out]) == 1
    assert f"{count} of the {count} tasks of {out} are not done: 0, 1," in capsys.readouterr().err
    assert main(["shard", out, "--index", str(count)]) == 1 and "the plan has" in capsys.readouterr().err
    assert main(["shard", out, "--index", "1", "--of", "2"]) == 0
    assert main(["merge", out]) == 1 and "not done: 0, 2, 4" in capsys.readouterr().err
    assert main(["shard", out, "--index", "0", "--of", "2"]) == 0
    assert main(["merge", out]) == 0
    assert capsys.readouterr().out == built.replace("built", "pack")
    assert contents(tmp_path / "pack") == contents(tmp_path / "built")


def test_in_place(tmp_path: Path) -> None:
    sources = sources_of(tmp_path)[:-1]
    for on_duplicate in ("keep", "first"):
        built, out = tmp_path / f"index-{on_duplicate}", tmp_path / f"tasks-{on_duplicate}"
        report = index(sources, built, task_bytes=12_000, on_duplicate=on_duplicate)
        count = plan(sources, out, in_place=True, task_bytes=12_000, on_duplicate=on_duplicate)
        for number in reversed(range(count)):
            shard(out, number)
        assert merge(out) == report and contents(out) == contents(built)
        assert verify(out) == [] and len(list(out.glob("*.tar"))) == 0


def test_a_large_tar_is_cut_between_samples(tmp_path: Path) -> None:
    """Records, labels and metadata are those of the tar as one task, wherever it is cut."""
    tar = sources_of(tmp_path)[0]
    build([tar], tmp_path / "whole")
    want = Pack(tmp_path / "whole")
    for task_bytes in (1, 3000, 5000, 20_000):
        out = tmp_path / f"{task_bytes}"
        assert plan([tar], out, task_bytes=task_bytes) > 1
        build([tar], out, task_bytes=task_bytes)
        assert Pack(out).pack_id == want.pack_id
        metadata = [{key: row[key] for key in ("id", "n", "txt")} for row in map(Pack(out).row, range(20))]
        assert metadata == [{"id": f"s{n:02d}", "n": n, "txt": "words"} for n in range(20)]


def test_a_tar_with_headers_for_all_that_follows_is_not_cut(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x"}) as tar:
        for number in range(9):
            member, data = tarfile.TarInfo(f"{number}.jpg"), jpeg(noise(16, 16, number))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert plan([tmp_path / "t.tar"], tmp_path / "pack", task_bytes=1) == 1


def test_a_source_that_changed_since(tmp_path: Path) -> None:
    sources = sources_of(tmp_path)
    out = tmp_path / "pack"
    count = plan(sources, out, **OPTIONS)
    tar_of(tmp_path / "small3.tar", {"new.jpg": jpeg(noise(9, 9))})
    write_tree(tmp_path / "in", {"another.jpg": jpeg(noise(9, 9, 7))})
    failed = []
    for number in range(count):
        try:
            shard(out, number)
        except PackError as error:
            failed.append(str(error))
    assert [message.split(" is not as it was when the plan was made")[0] for message in failed] == [
        str(tmp_path / name) for name in ("small3.tar", "in")
    ]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert plan(sources, out, **OPTIONS) == count
    for number in range(count):
        shard(out, number)
    merge(out)
    build(sources, tmp_path / "fresh", **OPTIONS)
    assert contents(out) == contents(tmp_path / "fresh")
    kept = [path for path, time in before.items() if path.exists() and path.stat().st_mtime_ns == time]
    assert len(kept) > 5


def test_what_is_taken_out_depends_on_all_inputs(tmp_path: Path) -> None:
    """A shard without repeats is not kept where the first of them is no longer a source's."""
    first, second = (tar_of(tmp_path / f"{n}.tar", {"a.jpg": jpeg(noise(9, 9, n)), f"{n}.jpg": jpeg(noise(8, 9, n))})
                     for n in range(2))  # fmt: skip
    (tmp_path / "m.csv").write_text("hash,x\na,1\na,2\n")
    with pytest.raises(PackError, match="more than once"):
        build([first, second], tmp_path / "pack", metadata=tmp_path / "m.csv", task_bytes=10_240)
    tar_of(first, {"0.jpg": jpeg(noise(8, 9))})
    (tmp_path / "m.csv").write_text("hash,x\na,1\n")
    report = build([first, second], tmp_path / "pack", metadata=tmp_path / "m.csv", task_bytes=10_240)
    assert report.pictures == 3 and report.same_id == 0
    assert Pack(tmp_path / "pack").record_of("a") == 1


def test_a_packing_of_an_earlier_version(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "t.tar", {"a.jpg": jpeg(noise(9, 9))})
    write_tree(tmp_path / "pack", {"unfinished": b'{"plan": "0"}', "shard-00000.tar": b"x", "shard-00000.rows": b"{}"})
    for command in (lambda: build([source], tmp_path / "pack"), lambda: shard(tmp_path / "pack", 0)):
        with pytest.raises(PackError, match="unfinished packing of another version of pass-loader: delete"):
            command()
    with pytest.raises(PackError, match="holds no plan"):
        merge(write_tree(tmp_path / "empty", {"x": b""}))


def test_what_killed_runs_leave_is_deleted_by_the_next(tmp_path: Path) -> None:
    """Of the same task, where no run of it is alive: else many kills would fill the disk."""
    sources = sources_of(tmp_path)
    out = tmp_path / "pack"
    plan(sources, out, **OPTIONS)
    left = {"shard-00001-000.tar.0123456789ab.tmp": b"x", "task-00001.json.0123456789ab.tmp": b"x"}
    other = {"shard-00002-000.rows.0123456789ab.tmp": b"x"}
    write_tree(out, left | other)
    running = Task(Destination(out), Plan.load(out), 1, lambda _: None)
    write_tree(out, left)
    shard(out, 1)
    assert {path.name for path in out.glob("*.tmp")} == {*left, *other}
    running.close()
    (out / "task-00001.json").unlink()
    shard(out, 1)
    assert {path.name for path in out.glob("*.tmp")} == {*other}


@pytest.mark.slow
def test_tables_in_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some twice at a time, some not at all; `merge` takes them as they are. Kills: a table of other sources.

    Also where the table of metadata changes after that, and the plan is made anew.
    """
    sources, out = [], tmp_path / "pack"
    for number in range(5):  # nothing repeats: then only the plan tells the two tables apart
        pictures = {f"s{number}{i}.jpg": jpeg(noise(16, 16, 10 * number + i)) for i in range(8)}
        sources.append(tar_of(tmp_path / f"{number}.tar", pictures))
    options = OPTIONS | {"metadata": tmp_path / "m.csv"}
    for trial in range(2):
        (tmp_path / "m.csv").write_text("hash,unickname\n" + "".join(f"s{n}3,by-{trial}\n" for n in range(5)))
        report = build(sources, tmp_path / f"{trial}", **options)
        count = plan(sources, out, **options)
        if trial == 0:
            with pytest.raises(PackError, match=f"{count} of the {count} tasks of .* are not done"):
                tables(out, 0, 4)
        for number in range(count):
            shard(out, number)
        before = {*out.glob("*.parquet.*")}
        with ThreadPoolExecutor(4) as pool:
            done = [*pool.map(lambda index: tables(out, index, 4, workers=1), [0, 2, 2, 3, 0])]
        written = {path.name.rpartition(".")[0]: path.stat().st_ino for path in {*out.glob("*.parquet.*")} - before}
        assert done[1] == done[2] and sum(done[index] for index in (0, 1, 3)) == len(written) > 3
        if trial == 0:
            assert main(["merge", str(out), "--index", "1", "--of", "4"]) == 0
            assert "pack (share 1 of 4): " in capsys.readouterr().out
        else:
            assert merge(out) == report and tables(out, 0, 4) == 0
            assert {name: (out / name).stat().st_ino for name in written} == written
            assert contents(out) == contents(tmp_path / f"{trial}")
    with pytest.raises(PackError, match="^s3://bucket/pack: a store has no locks, .*`--runner ray`"):
        tables("s3://bucket/pack", 0, 4)


def tasks_and_merge(root: Path) -> None:
    out = root / "pack"
    count = plan(two(root), out, on_duplicate="first", **LARGER)
    for number in range(count):
        shard(out, number, workers=1)
    if trials(0, 1):
        tables(out, 0, 2, workers=1)
    merge(out, workers=1)


def two(root: Path) -> list[Path]:
    return [root / name for name in ("small0.tar", "in")]


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path) -> None:
    """Of plan, tasks and merge; then by `build`, which goes on as well."""
    (tmp_path / "start").mkdir()
    sources_of(tmp_path / "start")
    *left, whole = crashes("tests.pack.test_tasks:tasks_and_merge", tmp_path / "start", tmp_path / "killed", 3)
    want = contents(whole / "pack")
    assert len(left) > trials(13, 40) and verify(whole / "pack") == []
    for number, root in enumerate(left):
        for path in (root / "pack").glob("*.tmp"):
            path.write_bytes(path.read_bytes()[:100])
        if number % 2:
            tasks_and_merge(root)
        else:
            build(two(root), root / "pack", on_duplicate="first", **LARGER)
        assert contents(root / "pack") == want, root


@pytest.mark.slow
def test_processes_killed_at_random(tmp_path: Path) -> None:
    """Attempts of tasks, two processes each, are killed and begun again until all are done."""
    sources = sources_of(tmp_path)
    build(sources, tmp_path / "built", **OPTIONS)
    rng = random.Random(3)
    for trial in range(trials(2, 20)):
        out = tmp_path / f"{trial}"
        count = plan(sources, out, **OPTIONS)
        waiting, running = [*range(count), *range(0, count, 3)], []
        while waiting or running:
            while waiting and len(running) < 4:
                number = waiting.pop(rng.randrange(len(waiting)))
                running.append((number, ready().Process(target=shard, args=(out, number), kwargs={"workers": 2})))
                running[-1][1].start()
            number, process = running.pop(rng.randrange(len(running)))
            if rng.random() < 0.4:
                process.join(rng.random() * 0.1)
                process.kill()
            process.join()
            if process.exitcode != 0:
                waiting.append(number)
        merge(out)
        assert contents(out) == contents(tmp_path / "built")
        shutil.rmtree(out)


@pytest.mark.parametrize(
    "edit",
    [
        lambda told: told["tasks"][0][0].update(source=10**30),
        lambda told: told["tasks"][0][0].update(source="../x"),
        lambda told: told["command"].update(metadata={}),
        lambda told: told["command"]["sources"].append(None),
        lambda told: told["tasks"].pop(),
        lambda told: told.pop("sizes"),
        lambda told: told.pop("digest"),
    ],
)
def test_a_plan_that_was_edited(tmp_path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Kills: a raw error of a wrong type; a pack of fewer tasks than were planned."""
    tree = write_tree(tmp_path / "tree", {"a/1.jpg": jpeg(noise(16, 16, 1))})
    plan([tree], tmp_path / "pack")
    told = json.loads((tmp_path / "pack" / "plan.json").read_bytes())
    edit(told)
    (tmp_path / "pack" / "plan.json").write_text(json.dumps(told))
    for run in (lambda: shard(tmp_path / "pack", 0), lambda: merge(tmp_path / "pack")):
        with pytest.raises(PackError, match="run the same `pass-pack plan` again"):
            run()
    plan([tree], tmp_path / "pack")
    shard(tmp_path / "pack", 0)
    assert merge(tmp_path / "pack").pictures == 1
