"""Commands that read a pack by tasks: in shares, in any order, twice or killed, to the bytes and words of one run."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, attribution, build, convert, export, index, purge, remove, verify, write_attribution
from pass_loader.pack.attribution import FORMATS as CREDITS
from pass_loader.pack.export import FORMATS, _firsts

from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.packs import flip_a_bit
from ..helpers.trees import tar_of, tree, write_tree
from ..helpers.trials import trials

COUNT = 20


def make_pack(root: Path) -> Path:
    """Write a pack of many shards: some pictures without credits, one removed, one purged."""
    files = {f"c{i % 3}/{i:02d}.jpg": jpeg(noise(16, 16, i)) for i in range(COUNT)}
    with open(root / "m.csv", "w", newline="") as file:
        rows = [(f"c{i % 3}/{i:02d}", f"user+{i}", "Attribution License", i) for i in range(COUNT) if i not in (3, 14)]
        csv.writer(file).writerows([("hash", "unickname", "licensename", "class"), *rows])
    build([write_tree(root / "in", files)], root / "pack", metadata=root / "m.csv", shard_bytes=4100, workers=1)
    remove(root / "pack", ["c1/04"], reason="asked")
    purge(root / "pack")
    remove(root / "pack", ["c2/05", "c0/00"], reason="asked")
    return root / "pack"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pack = make_pack(tmp_path_factory.mktemp("source"))
    assert len(Pack(pack).shards) > 6
    return pack


COMMANDS: dict[str, Callable[..., Any]] = {
    "convert": lambda pack, out, **how: convert(pack, out, "dct", **how),
    **{f"export {format}": lambda pack, out, format=format, **how: export(pack, out, format, shard_bytes=4000, **how)
       for format in FORMATS},
    **{f"credits {format}": lambda pack, out, format=format, **how: write_attribution(pack, out, format, **how)
       for format in CREDITS},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_shares_in_any_order_are_one_run(source: Path, tmp_path: Path, command: str) -> None:
    """In parallel, some twice, some not at all: then the same call does the rest. Kills: a task that is left out."""
    run = COMMANDS[command]
    want = run(source, tmp_path / "want", workers=2)
    assert want == run(source, tmp_path / "one", workers=1)
    for trial, of in enumerate(trials(2, 20) * [1, 3, 4, 50]):
        dice, out = random.Random(trial), tmp_path / f"{trial}"
        chosen = [*dice.sample(range(of), dice.randint(1, min(of, 5))), 0, 0]
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda index, out=out, of=of: run(source, out, workers=1, share=(index, of)), chosen))
        assert not (out / "pack.json").exists() and out.exists() == (command == "convert")
        assert run(source, out) == want
        assert tree(out) == tree(tmp_path / "want") == tree(tmp_path / "one")
        assert not (tmp_path / f"{trial}.unfinished").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_shares_count_what_is_theirs(source: Path, tmp_path: Path, command: str) -> None:
    """Together they are the whole; what is kept is not done again, and counts for the bar."""
    run, done, seen = COMMANDS[command], [], []
    for number in range(3):
        done.append(run(source, tmp_path / "out", share=(number, 3)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".tar", ".parquet")}
    whole = run(source, tmp_path / "out", progress=seen.append)
    after = {path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")} if command != "convert" else set()
    assert command == "convert" or {*before.values()} <= after
    for name, value in vars(whole).items():
        if isinstance(value, int):
            table = command == "export folder" and name == "files"
            assert sum(getattr(one, name) for one in done) + table == value, name
    pack = Pack(source)
    assert sum(seen) in (int(pack.column("length").sum()), int(np.delete(pack.column("length"), pack.removed).sum()))


def problems_of(text: str) -> str:
    """Return what verify says but for the time."""
    return text.rpartition(", ")[0] if "everything" in text else text


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_verify(source: Path, tmp_path: Path, broken: bool, in_place: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The same words from shares, some twice. What was found is kept until all is told; a file that changed is not."""
    pack = Path(shutil.copytree(source, tmp_path / "copy"))
    if in_place:
        tars = [
            tar_of(tmp_path / f"{n}.tar", {f"{n}-{i}.jpg": jpeg(noise(16, 16, i)) for i in range(2)}) for n in range(4)
        ]
        shutil.rmtree(pack)
        index(tars, pack)
        if broken:
            tars[2].write_bytes(tars[2].read_bytes()[:2000])
    elif broken:
        for record in (2, 11, 12):
            flip_a_bit(Pack(pack), record)
        path = pack / Pack(pack).manifest["index"]
        path.write_bytes(path.read_bytes() + b"x")
    code = main(["verify", str(pack), "--decode"])
    want = capsys.readouterr().out
    assert code == broken and ("everything is as it was packed" in want) != broken
    command = ["verify", str(pack), "--decode", "--results", str(tmp_path / "results")]
    found = [main([*command, "--index", str(number), "--of", "4"]) for number in (3, 1, 1, 0)]
    shown = capsys.readouterr().out
    assert set(found) <= {0, broken} and "copy (share 3 of 4): " in shown
    assert main(command) == code
    assert problems_of(capsys.readouterr().out) == problems_of(want) and not (tmp_path / "results").exists()
    if not broken and not in_place:
        verify(pack, results=tmp_path / "results", share=(0, 1), decode=True)
        flip_a_bit(Pack(pack), 2)
        (tar,) = {pack / Pack(pack).shard_name(2)}
        os.utime(tar)
        assert ["record 2, " in problem for problem in verify(pack, results=tmp_path / "results", decode=True)] == [
            True
        ]


def test_words(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="share is 3 of 3"):
        convert(source, tmp_path / "x", "dct", share=(3, 3))
    with pytest.raises(ValueError, match="needs a folder for its results"):
        verify(source, share=(0, 3))
    with pytest.raises(ValueError, match="a share of the tasks is run here, without a runner"):
        export(source, tmp_path / "x", "folder", share=(0, 3), runner="ray")
    with pytest.raises(ValueError, match="runner is 'slurm'"):
        verify(source, runner="slurm")
    assert main(["convert", str(source), "--out", str(tmp_path / "x"), "--codec", "dct", "--index", "1"]) == 1
    assert "--index and --of go together" in capsys.readouterr().err
    for command in (["attribution", str(source)], ["attribution", str(source), "--ids", str(tmp_path / "m")]):
        (tmp_path / "m").write_text("c0/03\n")
        assert main([*command, "--index", "0", "--of", "2"]) == 1
        assert "tasks are for the credits of a whole pack, into a file" in capsys.readouterr().err
    command = ["convert", str(source), "--out", str(tmp_path / "x"), "--codec", "dct"]
    assert main([*command, "--index", "1", "--of", "2"]) == 0
    assert "x (share 1 of 2): " in capsys.readouterr().out
    with pytest.raises(PackError, match="of other sources, or with other options"):
        convert(source, tmp_path / "x", "dct-zstd", share=(0, 2))
    export(source, tmp_path / "y", "folder", share=(0, 2))
    with pytest.raises(PackError, match="y.unfinished lies what another command left"):
        export(source, tmp_path / "y", "webdataset")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.doc").touch()
    assert verify(source, results=tmp_path / "results") == [
        f"{tmp_path / 'results'} is not empty and none of ours: it holds thesis.doc"
    ]


def test_credits_are_those_of_attribution(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By `write`, by the command with and without --out; a file that was there is exchanged."""
    for format in CREDITS:
        assert main(["attribution", str(source), "--format", format]) == 1
        shown = capsys.readouterr()
        out = tmp_path / format
        out.write_text("old")
        assert main(["attribution", str(source), "--format", format, "--out", str(out)]) == 1
        assert out.read_text() == shown.out and capsys.readouterr().err == shown.err
    assert json.loads((tmp_path / "json").read_text())["without"] == ["c0/03", "c2/14"]
    assert len(attribution(source)) == COUNT - 3


@pytest.mark.parametrize("file_bytes", [1, 700, 1500, 4000, 1 << 30])
def test_files_of_an_export(source: Path, file_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is as full as it can be, whatever the chunks. Kills: an empty file, a file that begins in the next chunk."""
    pack, want, size = Pack(source), [], file_bytes
    for record in np.setdiff1d(np.arange(COUNT), pack.removed).tolist():
        length = int(pack.column("length")[record])
        if size + length > file_bytes or not want:
            want.append(record)
            size = 0
        size += length
    for chunk in (1, 2, 3, 7, 1 << 20):
        monkeypatch.setitem(_firsts.__globals__, "_CHUNK", chunk)
        assert _firsts(pack, file_bytes) == want, chunk


def do_all(root: Path) -> None:
    """Export, credit and verify, a share and then all."""
    pack = root / "pack"
    if (root / "out").exists():
        with pytest.raises(PackError, match="out exists"):
            export(pack, root / "out", "folder")
    else:
        export(pack, root / "out", "folder", share=(1, 2), workers=1)
        export(pack, root / "out", "folder", workers=1)
    write_attribution(pack, root / "credits", "json", workers=1)
    assert verify(pack, results=root / "results", workers=1) == []


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path) -> None:
    """The same calls complete to the same bytes."""
    start = tmp_path / "start"
    write_tree(start / "in", {f"id{i}.jpg": jpeg(noise(16, 16, i)) for i in range(2)})
    (start / "m.csv").write_text("hash,unickname,licensename\nid1,a,b\n")
    build([start / "in"], start / "pack", shard_bytes=1500, metadata=start / "m.csv")
    *left, whole = crashes("tests.pack.test_shares:do_all", start, tmp_path / "killed", 4)
    want = tree(whole)
    assert len(left) > trials(10, 40) and len(Pack(whole / "pack").shards) == 2
    assert {path.name for path in whole.iterdir()} == {"in", "m.csv", "pack", "out", "credits"}
    for root in left:
        for path in root.rglob("*.tmp"):
            path.write_bytes(path.read_bytes()[:100])
        do_all(root)
        assert tree(root) == want and {*root.iterdir()} == {root / path.name for path in whole.iterdir()}, root
