"""`combine`: packs that were made apart become one; nothing that was removed comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError, Samples, recipes
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, combine, convert, index, purge, remove, restore, verify
from pass_loader.pack.shards import ShardWriter

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.packs import flip_a_bit
from ..helpers.trees import contents, tar_of, write_tree
from ..helpers.trials import trials

JPEGS = [jpeg(noise(16, 16, seed)) for seed in range(16)]


def make(root: Path, files: dict[str, bytes], table: dict[str, Any] | None = None, **how: Any) -> Path:
    """Build a pack at `root` of these files. table: columns of metadata, the first of ids."""
    tree = write_tree(root.with_name(root.name + "-in"), files)
    if table is not None:
        path = root.with_name(root.name + ".metadata.parquet")
        pq.write_table(pa.table(table), path)
        how |= {"metadata": path, "key": next(iter(table))}
    build([tree], root, workers=1, **how)
    return root


def numbered(*seeds: int) -> dict[str, bytes]:
    return {f"id{seed}.jpg": JPEGS[seed] for seed in seeds}


def ids_of(path: Path) -> list[str]:
    pack = Pack(path)
    return pack.ids(np.arange(pack.records))


def bytes_of(path: Path) -> dict[str, bytes]:
    samples = Samples(path, recipes.mocov2())
    return {id: samples.read(record) for record, id in enumerate(ids_of(path))}


def refused(path: Path) -> dict[str, str]:
    lines = (path / "refused.jsonl").read_text().splitlines()
    return {json.loads(line)["id"]: json.loads(line)["reason"] for line in lines}


@pytest.mark.slow
def test_records_are_those_of_the_packs(pack: Path, tmp_path: Path) -> None:
    """In order: ids, bytes, pixels, rows; packs of one codec each, several shards; equal input gives equal bytes."""
    other = make(tmp_path / "other", numbered(*range(5)), shard_bytes=4096, codec="dct")
    done = combine([pack, other], tmp_path / "new", workers=2)
    assert (done.records, done.removed, done.same_id, done.same_bytes) == (28, 0, 0, 0)
    assert verify(tmp_path / "new", decode=True) == []
    new, parts = Samples(tmp_path / "new", recipes.mocov2()), [Samples(p, recipes.mocov2()) for p in (pack, other)]
    record = 0
    for part in parts:
        for of_part in range(part.pack.records):
            assert new.read(record) == part.read(of_part)
            assert_pixels_equal(new.decode(record), part.decode(of_part))
            old, row = part.pack.row(of_part), new.pack.row(record)
            moved = {"record", "offset"}
            assert {k: v for k, v in old.items() if k not in moved} == {k: row[k] for k in old if k not in moved}
            record += 1
    assert record == new.pack.records == 28 and new.pack.row(27)["unickname"] is None
    assert new.pack.manifest["metadata"] == parts[0].pack.manifest["metadata"]
    assert new.pack.manifest["codec"] == "mixed" and len(new.pack.shards) == sum(len(p.pack.shards) for p in parts)
    combine([Pack(pack), Pack(other)], tmp_path / "again", workers=1)
    assert contents(tmp_path / "again") == contents(tmp_path / "new")
    assert combine([other], tmp_path / "alone").records == 5
    assert Pack(tmp_path / "alone").pack_id == parts[1].pack.pack_id != new.pack.pack_id


def test_nothing_removed_comes_back(tmp_path: Path) -> None:
    """Removed and purged ones are in no file; nor is a live record of another pack with their id, with prefixes too."""
    first = make(tmp_path / "first", numbered(0, 1, 2, 3), {"key": ["id1", "id0"], "who": ["Ann", "Bob"]})
    second = make(tmp_path / "second", numbered(1, 2, 4), {"key": ["id1", "id4"], "who": ["Ann", "Cid"]})
    remove(first, ["id1"], reason="mail")
    purge(first)
    remove(first, ["id3", "id2"], reason="mail")
    restore(first, ["id2"], reason="wrong one")
    remove(second, ["id2"], reason="mail")
    done = combine([first, second], tmp_path / "new")
    assert ids_of(tmp_path / "new") == ["id0", "id4"] and (done.removed, done.removed_elsewhere) == (3, 2)
    assert refused(tmp_path / "new") == dict.fromkeys(("id1", "id2"), "its id was removed from another of the packs")
    assert "3 removed records\nleft out 2 live records with an id that was removed" in str(done)
    combine([first, second], tmp_path / "apart", prefixes=["a/", "b/"])
    assert ids_of(tmp_path / "apart") == ["a/id0", "b/id4"]
    for new in (tmp_path / "new", tmp_path / "apart"):
        assert verify(new, decode=True) == [] and len(Pack(new)) == 2
        for data in contents(new).values():
            assert JPEGS[1] not in data and JPEGS[2] not in data and JPEGS[3] not in data and b"Ann" not in data
        assert [Pack(new).row(record)["who"] for record in (0, 1)] == ["Bob", "Cid"]
        with pytest.raises(PackError, match="no record with these ids"):
            restore(new, ["id1"], reason="back")


def test_all_removed(tmp_path: Path) -> None:
    pack = make(tmp_path / "p", numbered(0))
    remove(pack, ["id0"], reason="mail")
    with pytest.raises(PackError, match="no record is left: 2 were removed, 0 have the id"):
        combine([pack, pack], tmp_path / "new")
    assert not (tmp_path / "new" / "pack.json").exists()


def test_duplicates(tmp_path: Path) -> None:
    """An id that came before is left out, whatever its bytes; equal bytes under another id by the rule."""
    first = make(tmp_path / "first", numbered(0, 1))
    second = make(tmp_path / "second", {"id1.jpg": JPEGS[5], "same.jpg": JPEGS[0], "z.jpg": JPEGS[6]})
    keep = combine([first, second], tmp_path / "keep")
    assert ids_of(tmp_path / "keep") == ["id0", "id1", "same", "z"] and (keep.same_id, keep.same_bytes) == (1, 0)
    assert bytes_of(tmp_path / "keep")["id1"] == JPEGS[1]
    assert "(--prefix keeps the packs' ids apart)" in str(keep)
    once = combine([first, second], tmp_path / "once", on_duplicate="first")
    assert ids_of(tmp_path / "once") == ["id0", "id1", "z"] and (once.same_id, once.same_bytes) == (1, 1)
    assert refused(tmp_path / "once") == {"id1": "its id was packed before", "same": "its bytes were packed before"}
    for new in ("keep", "once"):
        assert verify(tmp_path / new, decode=True) == []
    with pytest.raises(PackError, match=r"second: record 0 \(id id1\): its id was packed before"):
        combine([first, second], tmp_path / "error", on_duplicate="error")
    with pytest.raises(PackError, match=r"record 1 \(id b/same\): its bytes were packed before"):
        combine([first, second], tmp_path / "error2", on_duplicate="error", prefixes=["", "b/"])
    assert not (tmp_path / "error" / "pack.json").exists()


def test_a_pack_given_twice(tmp_path: Path) -> None:
    pack = make(tmp_path / "p", numbered(0, 1, 2))
    done = combine([pack, pack], tmp_path / "once")
    assert ids_of(tmp_path / "once") == ["id0", "id1", "id2"] and done.same_id == 3
    combine([pack, pack], tmp_path / "twice", prefixes=["", "é.b/"])
    assert bytes_of(tmp_path / "twice") == {f"{p}id{i}": JPEGS[i] for p in ("", "é.b/") for i in range(3)}
    assert verify(tmp_path / "once", decode=True) == verify(tmp_path / "twice", decode=True) == []


def test_metadata(tmp_path: Path) -> None:
    """Columns are united, in order; nulls where a pack lacks one; two types are an error before anything is copied."""
    first = make(tmp_path / "first", numbered(0), {"key": ["id0"], "who": ["Ann"], "year": [1999]})
    second = make(tmp_path / "second", numbered(1), {"key": ["id1"], "tags": [["a", "b"]], "who": ["Bob"]})
    combine([first, second], tmp_path / "new")
    new = Pack(tmp_path / "new")
    assert verify(new) == []
    known = [{name: new.row(record)[name] for name in ("who", "year", "tags")} for record in (0, 1)]
    assert known == [{"who": "Ann", "year": 1999, "tags": None}, {"who": "Bob", "year": None, "tags": ["a", "b"]}]
    third = make(tmp_path / "third", numbered(2), {"key": ["id2"], "year": ["1999"]})
    with pytest.raises(PackError, match="column year of the metadata holds int64 in .*first and string in .*third"):
        combine([first, second, third], tmp_path / "clash")
    assert not list((tmp_path / "clash").glob("*.tar"))


def test_classes(tmp_path: Path) -> None:
    """United by name, labels numbered anew; equal lists stay; names go with no labels, but not with numbers."""
    first = make(tmp_path / "first", {"dog/a.jpg": JPEGS[0], "zebra/b.jpg": JPEGS[1]})
    second = make(tmp_path / "second", {"cat/c.jpg": JPEGS[2], "dog/d.jpg": JPEGS[3]})
    plain = make(tmp_path / "plain", numbered(4))
    combine([first, second, plain], tmp_path / "new")
    new = Pack(tmp_path / "new")
    assert new.classes == ["cat", "dog", "zebra"] and verify(new) == []
    assert [new.row(record)["label"] for record in range(5)] == [1, 2, 0, 1, -1]
    assert new.labels(np.arange(5)).tolist() == [1, 2, 0, 1, -1]
    combine([first, first], tmp_path / "same", prefixes=["", "b"])
    assert Pack(tmp_path / "same").classes == ["dog", "zebra"]
    numbers = tmp_path / "numbers"
    build([tar_of(tmp_path / "n.tar", {"a.jpg": JPEGS[7], "a.cls": b"1", "b.jpg": JPEGS[8], "b.cls": b"0"})], numbers)
    assert Pack(numbers).column("label").tolist() == [1, 0] and Pack(numbers).classes == []
    combine([numbers, plain], tmp_path / "numbered")
    assert Pack(tmp_path / "numbered").column("label").tolist() == [1, 0, -1]
    with pytest.raises(PackError, match=r"labels of .*numbers are numbers, those of .*first names of classes \(dog"):
        combine([first, numbers], tmp_path / "clash")


def test_tars_in_place_are_copied(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "a.tar", numbered(0, 1))
    index([tar], tmp_path / "refers")
    second = make(tmp_path / "second", numbered(2))
    combine([tmp_path / "refers", second], tmp_path / "new")
    tar.unlink()
    assert list(bytes_of(tmp_path / "new").values()) == JPEGS[:3] and verify(tmp_path / "new") == []


def test_bad_packs_and_arguments(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first", numbered(0, 1)), make(tmp_path / "second", numbered(2))
    with pytest.raises(ValueError, match="want a sequence"):
        combine(first, tmp_path / "new")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="want a sequence"):
        combine([], tmp_path / "new")
    with pytest.raises(ValueError, match="on_duplicate is 'drop'"):
        combine([first], tmp_path / "new", on_duplicate="drop")
    for prefixes in (["a"], "ab", ["a", "\udcff"], ["a", 1]):
        with pytest.raises(ValueError, match="prefix"):
            combine([first, second], tmp_path / "new", prefixes=prefixes)  # type: ignore[arg-type]
    with pytest.raises(PackError, match="lie in one another"):
        combine([first, second], second)
    with pytest.raises(PackError, match="is not a pack"):
        combine([first, tmp_path / "first-in"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    flip_a_bit(Pack(first), 1)
    with pytest.raises(PackError, match="record 1, id id1: .*CRC"):
        combine([second, first], tmp_path / "new")
    assert not (tmp_path / "new" / "pack.json").exists()


def test_a_pack_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal ends it, and the same command goes on without the record; afterwards it is another command's pack."""
    first = make(tmp_path / "first", numbered(0, 1))
    second = make(tmp_path / "second", {**numbered(1, 2), "x.jpg": JPEGS[1]})

    def removes(self: ShardWriter, *rest: Any) -> object:
        if not Pack(first).generation:
            remove(first, ["id1"], reason="mail")
        return write(self, *rest)

    write = ShardWriter.write
    monkeypatch.setattr(ShardWriter, "write", removes)
    with pytest.raises(PackError, match="first was changed while its records were copied"):
        combine([first, second], tmp_path / "new", on_duplicate="first")
    combine([first, second], tmp_path / "new", on_duplicate="first")
    assert ids_of(tmp_path / "new") == ["id0", "id2", "x"], "x is no repeated picture any more"
    assert verify(tmp_path / "new", decode=True) == []
    assert combine([first, second], tmp_path / "new", on_duplicate="first").records == 3, "a repeated one is done"
    restore(first, ["id1"], reason="asked")
    with pytest.raises(PackError, match="already a pack"):
        combine([first, second], tmp_path / "new", on_duplicate="first")


def combine_them(root: Path) -> None:
    combine([root / "first", root / "second"], root / "new", on_duplicate="first", workers=2)


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path) -> None:
    """The same call completes to the same bytes, where a shard with repeated pictures is written again too."""
    start = tmp_path / "start"
    make(start / "first", numbered(0, 1))
    make(start / "second", {**numbered(0, 4), "x.jpg": JPEGS[0]})
    remove(start / "first", ["id1"], reason="a mail")
    *left, whole = crashes("tests.pack.test_combine:combine_them", start, tmp_path / "killed", 2)
    want = contents(whole / "new")
    assert ids_of(whole / "new") == ["id0", "id4"] and verify(whole / "new", decode=True) == []
    assert len(Pack(whole / "new").shards) == 2 and len(refused(whole / "new")) == 2
    assert len(left) > trials(10, 40)
    for root in left:
        for path in (root / "new").glob("*.tmp"):
            path.write_bytes(path.read_bytes()[:700])
        combine_them(root)
        assert contents(root / "new") == want


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make(tmp_path / "first", numbered(0, 1)), make(tmp_path / "second", numbered(1, 2))
    convert(second, tmp_path / "dct", "dct")
    new = str(tmp_path / "new")
    assert main(["combine", str(first), str(tmp_path / "dct"), "--out", new, "--workers", "2"]) == 0
    out = capsys.readouterr().out
    assert "new: 3 records, " in out and "left out 1 records with an id that was packed before" in out
    assert main(["verify", new, "--decode"]) == 0 and main(["info", new]) == 0
    assert "jpeg 2, dct 1" in capsys.readouterr().out
    apart = str(tmp_path / "apart")
    command = ["combine", str(first), str(second), "--prefix", "a-", "--prefix", "b-", "--out", apart]
    assert main(command) == 0 and ids_of(Path(apart)) == ["a-id0", "a-id1", "b-id1", "b-id2"]
    assert main(["combine", str(first), str(second), "--prefix", "a-", "--out", str(tmp_path / "x")]) != 0
    assert "want one for each of 2 packs" in capsys.readouterr().err
    shutil.rmtree(first), shutil.rmtree(second)
    assert main(["verify", apart]) == 0, "it needs none of the packs any more"
