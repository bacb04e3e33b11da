"""Removal: not served, logged, undone; purge: gone from every file, whatever happens meanwhile."""

from __future__ import annotations

import io
import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import pass_loader
from pass_loader import PackError, RecordError, Samples, recipes
from pass_loader.pack import Pack, build, diff, info, purge, remove, restore, verify
from pass_loader.pack import reader
from pass_loader.cli.main import main
from pass_loader.pack.layout import locked
from pass_loader.pack.removal import ids_of_file

from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.forked import ready
from ..helpers.sealing import undated, write_log
from ..helpers.trees import contents, write_tree
from ..helpers.trials import trials


RECIPE = recipes.mocov2(size=16)
GONE = (0, 3, 4, 5, 8)  # of 10 records in shards of 2: a part of one, the whole of one


@pytest.fixture
def copy(pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack, tmp_path / "copy"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Ten pictures in five shards, each with a creator of its own."""
    files = {f"id{i}.jpg": jpeg(noise(16, 16, i)) for i in range(10)}
    rows = "".join(f"id{i},creator-{i},Attribution License\n" for i in range(10))
    (tmp_path / "m.csv").write_text("hash,unickname,licensename\n" + rows)
    out = tmp_path / "small" / "pack"
    build([write_tree(tmp_path / "in", files)], out, metadata=tmp_path / "m.csv", shard_bytes=4100, workers=1)
    assert len(Pack(out).shards) == 5
    return out


def test_removed_are_not_served_and_come_back(copy: Path) -> None:
    pack = Pack(copy)
    ids = pack.ids(np.arange(23))
    done = remove(copy, [ids[0], ids[7], ids[22]], reason="asked by mail")
    assert done.changed == {ids[0]: 0, ids[7]: 7, ids[22]: 22} and "removed 3 records" in str(done)
    lines = [json.loads(line) for line in (copy / "removed.jsonl").read_text().splitlines()]
    assert [(x["id"], x["record"], x["reason"]) for x in lines] == [(ids[r], r, "asked by mail") for r in (0, 7, 22)]
    assert all(line["date"].endswith("+00:00") for line in lines)
    dataset = pass_loader.ShardDataset(copy, RECIPE)
    loader = pass_loader.DataLoader(dataset, 4, return_info=True)
    served = [int(record) for _, _, info in loader for record in info["records"]]
    assert served == [r for r in range(23) if r not in (0, 7, 22)] and len(dataset) == 20
    assert dataset.id_of(8) == ids[8] and dataset.record_of(ids[7]) == 7, "numbers stay"
    for look in (dataset.read, dataset.decode, dataset.render, dataset.sample):
        with pytest.raises(RecordError, match=f"record 7, id {ids[7]}: it was removed"):
            look(7)
    assert restore(copy, [ids[7]], reason="a mistake").changed == {ids[7]: 7}
    assert len(Pack(copy)) == 21 and Samples(copy, RECIPE).read(7)
    again = remove(copy, [ids[0], ids[1]], reason="again")
    assert again.unchanged == [ids[0]] and list(again.changed) == [ids[1]]
    assert restore(copy, [ids[5]], reason="").unchanged == [ids[5]]
    assert verify(copy) == []


def test_unknown_ids_stop_everything(copy: Path) -> None:
    pack = Pack(copy)
    with pytest.raises(PackError, match="no record with these ids: nobody; nothing was removed"):
        remove(copy, [pack.id_of(3), "nobody"], reason="x")
    assert not (copy / "removed.jsonl").exists()
    done = remove(copy, [pack.id_of(3), "nobody"], reason="x", ignore_unknown=True)
    assert done.unknown == ["nobody"] and list(done.changed.values()) == [3]
    with pytest.raises(TypeError, match="one string"):
        remove(copy, "nobody", reason="x")


@pytest.mark.slow
def test_the_list_for_other_packs(small: Path, tmp_path: Path) -> None:
    """docs/takedown.md: what is removed or purged, and nothing that was restored."""
    remove(small, ["id0", "id1", "id4"], reason="x")
    purge(small)
    remove(small, ["id2", "id5"], reason="x")
    restore(small, ["id5"], reason="the wrong one")
    page = (Path(__file__).parents[2] / "docs" / "takedown.md").read_text()
    command = re.search(r"\$ python -c (.*?) > removed.txt", page, re.S)
    assert command
    code = shlex.split(command[1])[0].replace("'PACK'", repr(str(small)))
    listed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert listed.split() == ["id0", "id1", "id2", "id4"]


def test_ids_from_a_file(small: Path, tmp_path: Path) -> None:
    """As editors write them, a mark of UTF-8 in front and ends of lines of Windows."""
    file = tmp_path / "ids.txt"
    file.write_bytes(b"\xef\xbb\xbfid1\r\n\r\nid2\r\n")
    assert ids_of_file(file) == ["id1", "id2"]
    file.write_bytes(b"id1\n\xff\n")
    with pytest.raises(PackError, match="ids.txt is not UTF-8: .*save it as UTF-8"):
        ids_of_file(file)
    file.write_bytes(b"\n")
    with pytest.raises(PackError, match="holds no id"):
        ids_of_file(file)


def test_a_linked_shard_is_not_purged(small: Path, tmp_path: Path) -> None:
    """A link's deletion leaves the bytes where it points to."""
    remove(small, ["id0"], reason="x")
    away = small.parent / "away.tar"
    (small / "shard-00000-000.tar").rename(away)
    (small / "shard-00000-000.tar").symlink_to(away)
    before = contents(small)
    with pytest.raises(
        PackError, match="shard-00000-000.tar is a link to .*away.tar.*its bytes would stay there.*move it"
    ):
        purge(small)
    assert contents(small) == before
    (small / "shard-00000-000.tar").unlink()
    away.rename(small / "shard-00000-000.tar")
    assert purge(small).records == 1


def test_copies_under_other_ids_are_told(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(noise(9, 9)), "b.jpg": jpeg(noise(9, 9, 1)), "c.jpg": jpeg(noise(9, 9))}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack")
    done = remove(tmp_path / "pack", ["a"], reason="x")
    assert done.copies == ["c"] and "same bytes as a removed one: c" in str(done)


def test_running_loaders_see_it_when_they_refresh(copy: Path) -> None:
    """The live set changes by refresh alone; equal sets have equal generations."""
    pack, other = Pack(copy), Pack(copy)
    ids = pack.ids(np.arange(23))
    assert pack.generation == 0 and not pack.refresh()
    remove(copy, [ids[4]], reason="x")
    assert len(pack) == 23 and pack.generation == 0
    assert pack.refresh() and len(pack) == 22 and pack.generation != 0 and not pack.refresh()
    assert pack.is_removed(np.array([3, 4, 22])).tolist() == [False, True, False]
    first = pack.generation
    remove(copy, [ids[9]], reason="x")
    assert pack.refresh() and pack.generation != first
    restore(copy, [ids[9]], reason="x")
    assert pack.refresh() and pack.generation == first
    assert other.generation == 0 and other.refresh() and other.generation == first
    remove(copy, [ids[0]], reason="x")
    travelled = pickle.loads(pickle.dumps(pack))
    assert travelled.generation == first and len(travelled) == 22 and travelled.refresh() and len(travelled) == 21
    shutil.rmtree(copy)
    write_tree(copy.parent / "in", {"a.jpg": jpeg(noise(9, 9))})
    build([copy.parent / "in"], copy)
    with pytest.raises(PackError, match="another pack"):
        pack.refresh()


def test_purge_erases_and_keeps(small: Path) -> None:
    samples = Samples(small, RECIPE)
    before = {record: samples.read(record) for record in range(10)}
    late = Samples(small, RECIPE)
    assert late.read(9) == before[9]
    generation = samples.pack.generation
    other = contents(small)["shard-00000-003.tar"]
    remove(small, [f"id{i}" for i in GONE], reason="asked")
    assert any(before[0] in data for data in contents(small).values()), "the search finds bytes"
    assert purge(small).records == 5
    for record in GONE:
        for name, data in contents(small).items():
            assert before[record] not in data and before[record][-90:-2] not in data, name
            assert f"creator-{record}".encode() not in data, name
    for table in small.glob("*.parquet"):
        rows = {row["record"]: row for row in pq.read_table(table).to_pylist()}
        assert all(rows[r]["unickname"] == (None if r in GONE else f"creator-{r}") for r in rows)
    assert verify(small) == []
    assert contents(small)["shard-00000-003.tar"] == other, "a shard without removed records stays as it is"
    opened = Samples(small, RECIPE)
    assert opened.pack.pack_id == samples.pack.pack_id and len(opened) == 5 and opened.pack.records == 10
    assert [opened.id_of(r) for r in range(10)] == [f"id{i}" for i in range(10)]
    for record in set(range(10)) - set(GONE):
        assert opened.read(record) == before[record]
    listed = subprocess.check_output(["tar", "tf", small / "shard-00000-r1.tar"], text=True)
    assert listed.split() == ["id1.jpg"]
    with pytest.raises(PackError, match="purged and cannot be restored: id3"):
        restore(small, ["id3"], reason="x")
    assert samples.pack.refresh() and samples.pack.generation != generation
    assert late.pack.refresh() and late.read(1) == before[1], "the exchanged shard is opened anew"
    assert info(small)["purged"] == 5 and info(small)["live"] == 5
    write_log(small, [])
    assert len(Pack(small)) == 5, "a purged record is not live, whatever the log says"
    (small / "index-r1.arrow").unlink()
    assert verify(small) == []
    assert purge(small).records == 0


def test_a_reader_of_the_exchanged_files_is_told(small: Path) -> None:
    """A job that meets a shard which a purge took away; and a pack opened while files are exchanged."""
    stale, opening = Samples(small, RECIPE), Pack(small)
    remove(small, ["id0"], reason="x")
    purge(small)
    with pytest.raises(pass_loader.ShardError, match="record 1, id .*the pack was purged since it was opened"):
        stale.read(1)
    manifest = opening.manifest
    manifests = iter([manifest])
    real = reader.read_manifest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "read_manifest", lambda path: next(manifests, None) or real(path))
        assert Pack(small).revision == 1


def test_purge_twice(small: Path) -> None:
    remove(small, ["id0"], reason="x")
    purge(small)
    remove(small, ["id1", "id9"], reason="y")
    assert purge(small).shards == 2 and verify(small) == []
    assert sorted(p.name for p in small.glob("*.tar")) == [
        "shard-00000-001.tar", "shard-00000-002.tar", "shard-00000-003.tar", "shard-00000-r2.tar", "shard-00004-r2.tar",
    ]  # fmt: skip
    assert sorted(p.name for p in small.glob("index*")) == ["index-r2.arrow"]
    log = [json.loads(line) for line in (small / "removed.jsonl").read_text().splitlines()]
    assert [line["record"] for line in log if line.get("purged")] == [0, 1, 9]
    assert [Pack(small).is_purged(r) for r in (0, 1, 2)] == [True, True, False]


def remove_some(root: Path) -> None:
    remove(root, [f"id{i}" for i in GONE], reason="asked")


def purge_it(root: Path) -> None:
    purge(root)


@pytest.mark.slow
def test_remove_killed_anywhere(small: Path, tmp_path: Path) -> None:
    left = crashes("tests.pack.test_removal:remove_some", small, tmp_path / "killed")
    assert len(left) > 4
    sizes = [len(Pack(root)) for root in left]
    assert set(sizes) == {5, 10} and sizes == sorted(sizes, reverse=True), "all or none"
    for root in left:
        remove_some(root)
        assert len(Pack(root)) == 5 and verify(root) == []
        assert not list(root.glob("*.tmp"))


@pytest.mark.slow
def test_purge_killed_anywhere(small: Path, tmp_path: Path) -> None:
    """At each step the live records are whole; the next purge ends with the files of one that was not killed."""
    samples = Samples(small, RECIPE)
    before = {record: samples.read(record) for record in range(10)}
    remove_some(small)
    *left, whole = crashes("tests.pack.test_removal:purge_it", small, tmp_path / "killed", 3)
    assert len(left) > trials(5, 20)
    want = undated(contents(whole))
    revisions = []
    for root in left:
        opened = Samples(root, RECIPE)
        revisions.append(opened.pack.revision)
        assert {r: opened.read(r) for r in range(10) if r not in GONE} == {
            r: before[r] for r in range(10) if r not in GONE
        }
        assert len(opened) == 5 and opened.pack.generation == Pack(whole).generation
        assert [p for p in verify(root) if "purge was cut off" not in p] == []
        for path in root.glob("*.tar.tmp"):
            path.write_bytes(path.read_bytes()[:700])  # of what was never synced, anything may be there
        purge(root)
        assert undated(contents(root)) == want and verify(root) == []
    assert set(revisions) == {0, 1}


def test_a_damaged_shard_stops_a_purge(small: Path) -> None:
    remove(small, ["id0"], reason="x")
    tar = small / "shard-00000-000.tar"
    tar.write_bytes(tar.read_bytes()[:1500])
    before = contents(small)
    with pytest.raises(PackError, match="shard-00000-000.tar is cut off: record 1, id id1"):
        purge(small)
    assert contents(small) == before
    (small / "purging").write_text(json.dumps({"revision": 1, "old": ["../x"], "new": [], "records": []}))
    with pytest.raises(PackError, match="outside the pack"):
        purge(small)


@pytest.mark.slow
def test_one_changes_a_pack_at_a_time(small: Path) -> None:
    with locked(small):
        with pytest.raises(PackError, match="another process is changing"), locked(small, wait_s=0.01):
            pass
    context = ready()
    with context.Pool(2) as pool:
        pool.starmap(_remove_one, [(small, f"id{i}") for i in range(8)])
    assert len(Pack(small)) == 2 and len((small / "removed.jsonl").read_text().splitlines()) == 8


def _remove_one(root: Path, id: str) -> None:
    remove(root, [id], reason="x")


def test_versions(small: Path, tmp_path: Path) -> None:
    """Two versions of a table: what the newer one lacks is named, and removed."""
    newer = tmp_path / "newer.csv"
    newer.write_text("hash,unickname\n" + "".join(f"id{i},x\n" for i in range(10) if i not in (2, 6)) + "new,x\n")
    found = diff(small, newer)
    assert (found.gone, found.common, found.removed, found.added) == (["id2", "id6"], 8, 0, 1)
    remove(small, ["id7"], reason="x")
    done = remove(small, not_in=newer, reason="v3")
    assert list(done.changed) == ["id2", "id6"]
    found = diff(small, newer)
    assert (found.gone, found.common, found.removed, found.added) == ([], 7, 1, 1)
    pq.write_table(pq.read_table(small / "shard-00000-000.parquet", columns=["id"]), tmp_path / "t.parquet")
    assert len(diff(small, tmp_path / "t.parquet", key="id").gone) == 5
    with pytest.raises(PackError, match="is it the right file"):
        remove(small, not_in=tmp_path / "t.parquet", key="id", reason="x")
    with pytest.raises(PackError, match="no column 'hash'"):
        diff(small, tmp_path / "t.parquet")


def test_the_version_of_pass_is_named(
    small: Path, pack: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pass_files: tuple[Path, Path]
) -> None:
    monkeypatch.setattr("pass_loader.pack.versions.PASS_VERSIONS", {23: "v8", 22: "v9", 10: "v7"})
    assert info(pack)["pass_version"] == "v8" and info(small)["pass_version"] is None, "ids are not PASS's"
    copy = Path(shutil.copytree(pack, tmp_path / "copy"))
    remove(copy, [Pack(pack).id_of(0)], reason="x")
    assert info(copy)["pass_version"] == "packed from v8, live as many as v9"
    build([pass_files[0]], tmp_path / "other")
    assert info(tmp_path / "other")["id_digest"] == info(pack)["id_digest"] != info(copy)["id_digest"]


def test_the_version_is_proven_by_its_table(
    pack: Path, pass_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A count alone is called a count; the version's own table says equal, without some, or another set of ids."""
    monkeypatch.setattr("pass_loader.pack.versions.PASS_VERSIONS", {23: "v8", 22: "v9"})
    tar, table = pass_files

    def version(path: Path, *more: object) -> str:
        assert main(["info", str(path), *map(str, more)]) == 0
        return re.findall(r"PASS version: +(.*)", capsys.readouterr().out)[0]

    assert version(pack) == "v8 by its number of records; its ids were not compared (--metadata pass_metadata.csv does)"
    assert version(pack, "--metadata", table) == "v8: the live ids are those of pass_metadata.csv"
    compared = info(pack, table)["compared"]
    assert compared["equal"] and compared["id_digest"] == info(pack)["id_digest"] and info(pack)["compared"] is None
    lines = table.read_text().splitlines()
    (tmp_path / "newer.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert version(pack, "--metadata", tmp_path / "newer.csv") == "not v9: 1 live ids are not in newer.csv"
    with tarfile.open(tar) as whole, tarfile.open(tmp_path / "t.tar", "w") as part:
        for number, member in enumerate(file for file in whole if file.isfile()):
            data = whole.extractfile(member)
            if number < 3:
                member.size, data = 4, io.BytesIO(b"text")
            part.addfile(member, data)
    build([tmp_path / "t.tar"], tmp_path / "part")
    remove(tmp_path / "part", [Pack(tmp_path / "part").id_of(0)], reason="x")
    assert version(tmp_path / "part") == "none by its number of records"
    want = "v8 without 4 pictures (1 removed, 3 never packed): all live ids are in pass_metadata.csv"
    assert version(tmp_path / "part", "--metadata", table, "--key", "hash") == want


def test_commands(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = str(small)
    (tmp_path / "ids.txt").write_text("id1\nid2\n\n")
    assert main(["remove", pack, "id0", "--ids", str(tmp_path / "ids.txt"), "--reason", "mail of 3 May"]) == 0
    assert "removed 3 records\n  id0 (record 0)" in capsys.readouterr().out
    assert main(["remove", pack, "--reason", "x"]) == 1
    assert "nothing to remove" in capsys.readouterr().err
    assert main(["remove", pack, "nobody", "--reason", "x"]) == 1
    assert "--ignore-unknown" in capsys.readouterr().err
    assert main(["restore", pack, "id2", "--reason", "the wrong one"]) == 0
    assert main(["purge", pack]) == 0
    assert "purged 2 records" in capsys.readouterr().out
    assert main(["restore", pack, "id1", "--reason", "x"]) == 1
    (tmp_path / "new.csv").write_text("hash\n" + "".join(f"id{i}\n" for i in range(9)))
    assert main(["diff", pack, str(tmp_path / "new.csv")]) == 0
    assert capsys.readouterr().out == "id9\n"
    assert main(["remove", pack, "--not-in", str(tmp_path / "new.csv"), "--reason", "v3"]) == 0
    assert main(["info", pack]) == 0
    assert "records:          10, live 7, removed 3 (purged 2)" in capsys.readouterr().out
    assert main(["info", pack, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["live"] == 7
