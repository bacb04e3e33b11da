"""Packing that survives: kill -9, full disks, failing storage, duplicates; memory and order do not depend on luck."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from pass_loader import PackError, Samples, recipes
from pass_loader.pack import Pack, build, creator_name, date_taken, index, verify
from pass_loader.pack.shards import ShardWriter

from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.packs import pack_sources, sources_of
from ..helpers.trees import contents, tar_of, write_tree
from ..helpers.trials import trials


def index_it(root: Path) -> None:
    index([root / "more.tar"], root / "pack")


@pytest.mark.slow
def test_build_killed_anywhere(tmp_path: Path) -> None:
    """No half shard is taken for a whole one; the same call completes to the same bytes, and keeps whole shards."""
    (tmp_path / "start").mkdir()
    sources_of(tmp_path / "start", count=5)
    *left, whole = crashes("tests.helpers.packs:pack_sources", tmp_path / "start", tmp_path / "killed", 3)
    want = contents(whole / "pack")
    assert len(left) > trials(12, 40) and verify(whole / "pack") == []
    assert sorted(want) == sorted(
        [f"shard-00000-{i:03d}.{suffix}" for i in range(3) for suffix in ("tar", "parquet")]
        + ["pack.json", "index.arrow", "refused.jsonl"]
    )
    kept = 0
    for root in left:
        out = root / "pack"
        if not (out / "pack.json").exists() and out.exists():
            with pytest.raises(PackError, match="is not a pack"):
                Pack(out)
        done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar") if path.with_suffix(".rows").exists()}
        for path in out.glob("*.tmp"):
            path.write_bytes(path.read_bytes()[:700])  # of what was never synced, anything may be there
        pack_sources(root)
        assert contents(out) == want
        assert {name: (out / name).stat().st_mtime_ns for name in done} == done, "whole shards are kept"
        kept += len(done)
    assert kept > trials(12, 40)


@pytest.mark.slow
def test_index_killed_anywhere(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    sources_of(tmp_path / "start", count=5)
    *left, whole = crashes("tests.pack.test_packing:index_it", tmp_path / "start", tmp_path / "killed", 3)
    want = contents(whole / "pack")
    want.pop("locations.json")
    for root in left:
        index_it(root)
        found = contents(root / "pack")
        assert Path(json.loads(found.pop("locations.json"))["more.tar"]) == (root / "more.tar").resolve()
        assert found == want


def test_a_shard_of_other_entries_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed in the source since is packed as it is now; a shard that somebody cut off is made anew."""
    folder, tar = sources_of(tmp_path)
    kill_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        pack_sources(tmp_path)
    monkeypatch.undo()
    for name in ("shard-00000-000.tar", "shard-00000-001.tar"):
        assert (tmp_path / "pack" / name).with_suffix(".rows").exists()
    cut = tmp_path / "pack" / "shard-00000-001.tar"
    cut.write_bytes(cut.read_bytes()[:-5120])
    (tmp_path / "pack" / "shard-00000-000.tar").unlink()
    pack_sources(tmp_path)
    assert verify(tmp_path / "pack") == []
    shutil.rmtree(tmp_path / "pack")
    kill_after(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        pack_sources(tmp_path)
    monkeypatch.undo()
    write_tree(folder, {"c0/id00.jpg": jpeg(noise(20, 20, 99))})
    pack_sources(tmp_path)
    samples = Samples(tmp_path / "pack", recipes.mocov2())
    assert samples.read(samples.record_of("c0/id00")) == jpeg(noise(20, 20, 99))
    shutil.rmtree(tmp_path / "pack")
    finished = tmp_path / "fresh"
    build([folder, tar], finished, metadata=tmp_path / "m.csv", shard_bytes=4100)
    pack_sources(tmp_path)
    assert contents(finished) == contents(tmp_path / "pack")


def kill_after(monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    write = ShardWriter.write

    def limited(self: ShardWriter, name: str, *rest: object) -> object:
        if int(name[-3:]) >= shards:
            raise KeyboardInterrupt
        return write(self, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardWriter, "write", limited)


def test_a_source_that_was_downloaded_again(tmp_path: Path) -> None:
    """After "is cut off; download it again" the same command goes on: what other sources gave is kept."""
    tars = [tmp_path / f"PASS.{number}.tar" for number in range(2)]
    for number, path in enumerate(tars):
        tar_of(path, {f"{number}-{i}.jpg": jpeg(noise(16, 16, 10 * number + i)) for i in range(4)})
    build(tars, tmp_path / "fresh", shard_bytes=4100, workers=1)
    whole = tars[1].read_bytes()
    tars[1].write_bytes(whole[:4500])
    with pytest.raises(PackError, match="PASS.1.tar is .* cut off or damaged.*download it again"):
        build(tars, tmp_path / "pack", shard_bytes=4100, workers=1)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "pack").glob("shard-00000-00[01].tar")}
    tars[1].unlink()
    tars[1].write_bytes(whole)
    build(tars, tmp_path / "pack", shard_bytes=4100, workers=1)
    assert len(kept) == 2 and {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(tmp_path / "pack") == contents(tmp_path / "fresh")


def test_another_command_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = sources_of(tmp_path)
    kill_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        pack_sources(tmp_path)
    monkeypatch.undo()
    before = contents(tmp_path / "pack")
    with pytest.raises(PackError, match="unfinished packing of other sources, or with other options"):
        build([folder], tmp_path / "pack", shard_bytes=4100)
    assert contents(tmp_path / "pack") == before


def test_failing_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pass_files: tuple[Path, Path]) -> None:
    """An unreadable sector is no refused picture: the source must be read again."""

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("pass_loader.pack.archives.TarSource.read", broken)
    with pytest.raises(PackError, match="PASS.0.tar: .* cannot be read: .*The storage is failing"):
        build([pass_files[0]], tmp_path / "pack")


def test_duplicates(tmp_path: Path) -> None:
    same = jpeg(noise(16, 16))
    files = {"a.jpg": same, "b.jpg": jpeg(noise(16, 16, 1)), "c.jpg": same, "d.jpg": same, "e.jpg": jpeg(noise(9, 9))}
    root = write_tree(tmp_path / "in", files)
    report = build([root], tmp_path / "keep", shard_bytes=4100, workers=2)
    assert (report.pictures, report.same_bytes, report.same_id) == (5, 2, 0)
    assert "their bytes were packed before under another id 2" in str(report)
    for workers in (1, 4):
        out = tmp_path / f"first{workers}"
        report = build([root], out, shard_bytes=4100, workers=workers, on_duplicate="first")
        assert [Pack(out).id_of(r) for r in range(3)] == ["a", "b", "e"] and report.same_bytes == 0
        assert [(r.id, r.reason) for r in report.refused] == [("c", DUPLICATE), ("d", DUPLICATE)]
    with pytest.raises(PackError, match=r"in: c.jpg \(id c\): its bytes were packed before \(--on-duplicate first"):
        build([root], tmp_path / "error", on_duplicate="error")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(root / "a.jpg", "1/x.jpg")
        tar.add(root / "b.jpg", "2/x.jpg")
    report = build([tmp_path / "t.tar"], tmp_path / "ids")
    assert (report.pictures, report.same_id, len(report.refused)) == (1, 1, 1)
    with pytest.raises(PackError, match="its id was packed before"):
        build([tmp_path / "t.tar"], tmp_path / "ids_error", on_duplicate="error")
    with pytest.raises(ValueError, match="on_duplicate is 'last'"):
        build([root], tmp_path / "x", on_duplicate="last")


def test_which_of_two_is_first_does_not_depend_on_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = ShardWriter.write

    def slow_start(self: ShardWriter, name: str, *rest: object) -> object:
        time.sleep(0.2 if name.endswith("000") else 0)
        return write(self, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardWriter, "write", slow_start)
    root = write_tree(tmp_path / "in", {name: jpeg(noise(16, 16)) for name in ("a.jpg", "b.jpg", "c.jpg")})
    build([root], tmp_path / "pack", shard_bytes=1, workers=3, on_duplicate="first")
    assert [Pack(tmp_path / "pack").id_of(0), Pack(tmp_path / "pack").records] == ["a", 1]


DUPLICATE = "its bytes were packed before"


def first_it(root: Path) -> None:
    build([root / "in", root / "more.tar"], root / "pack", shard_bytes=4100, on_duplicate="first")


def test_first_of_a_kind_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of what stands in a shard that was kept is still a copy."""
    sources_of(tmp_path)
    first_it(tmp_path)
    want = contents(tmp_path / "pack")
    shutil.rmtree(tmp_path / "pack")
    kill_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        first_it(tmp_path)
    monkeypatch.undo()
    first_it(tmp_path)
    assert contents(tmp_path / "pack") == want and Pack(tmp_path / "pack").records == 12


def test_published_sums(tmp_path: Path, pass_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    tar = Path(shutil.copy(pass_files[0], tmp_path / "PASS.0.tar"))
    with pytest.raises(
        PackError, match="PASS.0.tar has the MD5 .*, PASS's version 3 has 0be3a104d6257d83296460b419f82c71"
    ):
        build([tar], tmp_path / "pack", md5=True)
    monkeypatch.setitem(
        __import__("pass_loader.pack.published", fromlist=["MD5"]).MD5,
        "PASS.0.tar", hashlib.md5(tar.read_bytes()).hexdigest(),
    )  # fmt: skip
    tar2 = Path(shutil.copy(pass_files[0], tmp_path / "PASS.2.tar"))
    report = build([tar, tar2], tmp_path / "pack", md5=True)
    assert report.checked_md5[0] == "PASS.0.tar: MD5 as published"
    assert "PASS.2.tar: MD5 not checked" in report.checked_md5[1] and "one sum between them" in str(report)


def test_metadata_from_parquet_and_without_gps(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(noise(9, 9, i)) for i in range(3)})
    dates = ["2011-03-05 02:19:44.0", "2010-04-12 19:17:40", ""]
    table = pa.table({
        "key": ["2", "0", "1"], "taken": dates, "latitude": [1.5, None, 2.5], "GPS_Longitude": [1.0, 2.0, 3.0],
        "views": pa.array([7, None, 9], pa.int16()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "m.parquet")
    report = build([root], tmp_path / "pack", metadata=tmp_path / "m.parquet", key="key")
    assert (report.without_metadata, report.metadata_unused) == (0, 0)
    samples = Samples(tmp_path / "pack", recipes.mocov2())
    assert samples.metadata(2) == {"taken": dates[0], "latitude": 1.5, "GPS_Longitude": 1.0, "views": 7}
    assert [samples.metadata(r)["taken"] for r in range(3)] == [dates[1], dates[2], dates[0]]
    build([root], tmp_path / "bare", metadata=tmp_path / "m.parquet", key="key", gps=False)
    assert Pack(tmp_path / "bare").manifest["metadata"] == ["taken", "views"]
    assert b"atitude" not in b"".join(contents(tmp_path / "bare").values())
    (tmp_path / "twice.csv").write_text("hash,x\n0,a\n1,b\n0,c\n")
    with pytest.raises(PackError, match="column 'hash' has '0' more than once"):
        build([root], tmp_path / "other", metadata=tmp_path / "twice.csv")


def test_dates_and_names_for_display() -> None:
    assert date_taken("2011-03-05 02:19:44.5") == datetime(2011, 3, 5, 2, 19, 44, 500_000)
    assert date_taken("2010-04-12 19:17:40") == datetime(2010, 4, 12, 19, 17, 40)
    assert date_taken("") is None and date_taken(None) is None
    with pytest.raises(ValueError):
        date_taken("May 2011")
    assert creator_name("J%C3%BCrgen+K.") == "Jürgen K." and creator_name("bad%FF") == "bad%FF"


def test_a_web_page_for_metadata(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(9, 9))})
    (tmp_path / "m.csv").write_text("<!DOCTYPE html>\n<p>moved\n")
    with pytest.raises(PackError, match="no column 'hash'.*curl needs -L"):
        build([root], tmp_path / "pack", metadata=tmp_path / "m.csv")


def test_beyond_4_gib(tmp_path: Path) -> None:
    """A sparse tar: a member of 5 GiB, which is no picture, then pictures under long (pax) names."""
    tar = tmp_path / "PASS.0.tar"
    pictures = {f"PASS_dataset/0/{'long' * 60}{i}.jpg": jpeg(noise(16, 16, i)) for i in range(3)}
    with open(tar, "wb") as file:
        huge = tarfile.TarInfo("huge.bin")
        huge.size = 5 << 30
        file.write(huge.tobuf())
        file.seek(huge.size, os.SEEK_CUR)
        for name, data in pictures.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.write(member.tobuf(tarfile.PAX_FORMAT) + data + bytes(-len(data) % 512))
        file.write(bytes(1024))
    for make, out in ((build, tmp_path / "copied"), (index, tmp_path / "in_place")):
        report = make([tar], out)
        assert report.pictures == 3 and [r.reason for r in report.refused] == [
            "its 5,368,709,120 bytes are more than a picture has (268,435,456)"
        ]
        samples = Samples(out, recipes.mocov2())
        for name, data in pictures.items():
            assert samples.read(samples.record_of(Path(name).stem)) == data
        assert verify(out) == []
    assert Pack(tmp_path / "in_place").column("offset").min() > 5 << 30
    offsets = Pack(tmp_path / "copied").column("offset")
    assert np.all(np.diff(offsets) > 0) and offsets.max() < 1 << 20


@pytest.mark.slow
def test_pandas_is_left_alone(tmp_path: Path) -> None:
    """pyarrow imports it in many of its conversions: 0.2 s of a short command, and a Ctrl-C that is swallowed."""
    sources_of(tmp_path)
    program = (
        "import sys; from pathlib import Path; from pass_loader.pack import remove; from tests.helpers import packs\n"
        "root = Path(sys.argv[1])\n"
        "packs.pack_sources(root)\n"
        "remove(root / 'pack', ['c0/id00'], reason='asked')\n"
        "assert 'pandas' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
