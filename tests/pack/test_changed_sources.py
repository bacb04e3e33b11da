"""Sources that became others of the same names and lengths: a packing that goes on keeps nothing of what they were."""

from __future__ import annotations

import itertools
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError
from pass_loader.pack import Pack, build, convert, export, index, merge, plan, shard, verify

from ..helpers.beton_writer import IMAGE, beton
from ..helpers.corpus import jpeg, noise
from ..helpers.trees import contents, tar_of, write_tree

BEFORE = jpeg(noise(16, 16, 1))
AFTER = next(data for n in itertools.count(2) if len(data := jpeg(noise(16, 16, n))) == len(BEFORE) and data != BEFORE)
OTHER = jpeg(noise(16, 16, 0))


def write_list(path: Path, data: bytes) -> None:
    write_tree(path.parent, {"listed/a.jpg": data, "listed/b.jpg": OTHER})
    if not path.exists():
        path.write_text("listed/a.jpg\nlisted/b.jpg\n")


def write_zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.jpg", data)


WRITERS: dict[str, Callable[[Path, bytes], object]] = {
    "folder": lambda path, data: write_tree(path, {"a.jpg": data, "b.jpg": OTHER}),
    "list.txt": write_list,
    "one.tar": lambda path, data: tar_of(path, {"a.jpg": data}),
    "one.zip": write_zip,
    "one.parquet": lambda path, data: pq.write_table(pa.table({"id": ["a"], "image": [data]}), path),
    "one.beton": lambda path, data: path.write_bytes(beton({"image": IMAGE}, [[data]])),
}
KINDS = [*WRITERS, "in place"]
GOES_ON = "is not as it was when the plan was made: plan again with the same command"
DONE = "is already a pack, of other sources or other options"


def write(path: Path, data: bytes) -> None:
    """Write a source with this picture, in the second that the picture has."""
    WRITERS[path.name](path, data)
    for file in (path, *path.parent.rglob("a.jpg")):
        if file.is_file() and (file.name == "a.jpg" or file.suffix != ".txt"):
            os.utime(file, (0, 10**9 + (data == AFTER)))


@pytest.mark.parametrize("kind", KINDS)
def test_another_file_of_the_same_length(tmp_path: Path, kind: str) -> None:
    """A task of an older plan refuses it; `build` goes on to what it makes anew; a finished pack is another one.

    Kills: listings and shards that are known by names and lengths alone.
    """
    in_place = kind == "in place"
    source, make = tmp_path / (kind if not in_place else "one.tar"), index if in_place else build
    options: dict[str, Any] = {"in_place": True} if in_place else {}
    write(source, BEFORE)
    make([source], tmp_path / "done")
    for name in ("planned", "shards"):
        assert plan([source], tmp_path / name, **options) == 1
    shard(tmp_path / "shards", 0)
    write(source, AFTER)
    with pytest.raises(PackError, match=GOES_ON):
        shard(tmp_path / "planned", 0)
    with pytest.raises(PackError, match=DONE):
        make([source], tmp_path / "done")
    make([source], tmp_path / "shards")
    make([source], tmp_path / "fresh")
    assert contents(tmp_path / "shards") == contents(tmp_path / "fresh")
    pack = Pack(tmp_path / "shards")
    assert pack.open_reader().read(0) == AFTER


def test_another_table_of_the_same_length(tmp_path: Path) -> None:
    table, options = tmp_path / "m.csv", {"metadata": tmp_path / "m.csv", "task_bytes": 1}
    tars = [tar_of(tmp_path / f"{name}.tar", {f"{name}.jpg": BEFORE}) for name in "ab"]

    def write_table(creator: str) -> None:
        table.write_text(f"hash,unickname\na,{creator}\nb,{creator}\n")
        os.utime(table, (0, 10**9 + (creator == "second")))

    write_table("first.")
    build(tars, tmp_path / "done", **options)
    for number in range(plan(tars, tmp_path / "shards", **options)):
        shard(tmp_path / "shards", number)
    write_table("second")
    with pytest.raises(PackError, match=GOES_ON):
        merge(tmp_path / "shards")
    with pytest.raises(PackError, match=DONE):
        build(tars, tmp_path / "done", **options)
    build(tars, tmp_path / "shards", **options)
    build(tars, tmp_path / "fresh", **options)
    assert contents(tmp_path / "shards") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("command", ["convert", "export", "verify"])
def test_another_pack_of_the_same_pictures(tmp_path: Path, command: str) -> None:
    """Its pack_id is the same, and its metadata are not. Kills: commands that know packs by pack_id alone."""
    tar = tar_of(tmp_path / "a.tar", {"a.jpg": BEFORE, "b.jpg": OTHER})
    for name in ("first.", "second"):
        (tmp_path / f"{name}.csv").write_text(f"hash,unickname\na,{name}\nb,{name}\n")
        build([tar], tmp_path / name, metadata=tmp_path / f"{name}.csv")
    source = tmp_path / "pack"
    (tmp_path / "first.").rename(source)

    def run() -> object:
        if command == "convert":
            return convert(source, tmp_path / "out", "dct", share=(0, 1))
        if command == "export":
            return export(source, tmp_path / "out", "parquet", share=(0, 1))
        for problem in verify(source, results=tmp_path / "out", share=(0, 1)):
            raise PackError(problem)
        return None

    run()
    run()  # and goes on
    shutil.rmtree(source)
    (tmp_path / "second").rename(source)
    with pytest.raises(PackError, match="of another pack or with other|of other sources, or with other"):
        run()
