"""Packs of tars where they lie: nothing copied, moved tars found again, nothing foreign touched; verify's numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import pass_loader
from pass_loader import PackError, Samples, recipes
from pass_loader.pack import Pack, attribution, build, export, index, info, locate, purge, remove, verify
from pass_loader.cli.main import main

from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.trees import write_tree


@pytest.fixture
def tars(pass_files: tuple[Path, Path], tmp_path: Path) -> list[Path]:
    """Two tars, the second with other pictures."""
    folder = tmp_path / "data"
    folder.mkdir()
    first = Path(shutil.copy(pass_files[0], folder / "PASS.0.tar"))
    build([write_tree(tmp_path / "more", {f"m{i}.jpg": jpeg(noise(9, 9, i)) for i in range(3)})], tmp_path / "p")
    return [first, Path(shutil.copy(tmp_path / "p" / "shard-00000-000.tar", folder / "PASS.1.tar"))]


def test_reads_out_of_the_tars(tars: list[Path], tmp_path: Path, pass_files: tuple[Path, Path]) -> None:
    before = [tar.read_bytes() for tar in tars]
    report = index(tars, tmp_path / "in_place", metadata=pass_files[1])
    build(tars, tmp_path / "copied", metadata=pass_files[1])
    assert report.pictures == 26
    assert sum(path.stat().st_size for path in (tmp_path / "in_place").iterdir()) < 100_000
    here, there = (Samples(tmp_path / name, recipes.mocov2(size=16)) for name in ("in_place", "copied"))
    assert here.pack.pack_id == there.pack.pack_id
    for record in range(26):
        assert here.read(record) == there.read(record) and here.id_of(record) == there.id_of(record)
        assert here.metadata(record) == there.metadata(record)
    dataset = pass_loader.ShardDataset(tmp_path / "in_place", recipes.mocov2(size=16))
    assert sum(len(labels) for _, labels in pass_loader.DataLoader(dataset, 5, num_workers=2)) == 26
    assert verify(tmp_path / "in_place") == [] and info(tmp_path / "in_place")["tar_bytes"] == sum(map(len, before))
    assert [tar.read_bytes() for tar in tars] == before


def test_in_place_is_the_same_on_any_number_of_workers(tars: list[Path], tmp_path: Path) -> None:
    for workers in (1, 4):
        index(tars, tmp_path / str(workers), workers=workers)
    for name in ("pack.json", "index.arrow", "shard-00000-001.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "4" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "1" / "pack.json").read_text(), "no paths of the machine"


def locate_them(root: Path) -> None:
    locate(root / "pack", [root / "new"])


def test_locate_killed_anywhere(tars: list[Path], tmp_path: Path) -> None:
    """Found or not found, never damaged; the same call then finds them."""
    start = tmp_path / "start"
    index(tars, start / "pack")
    (tmp_path / "data").rename(start / "new")
    *left, whole = crashes("tests.pack.test_in_place:locate_them", start, tmp_path / "killed")
    assert len(left) > 2 and verify(whole / "pack") == []
    for root in left:
        found = verify(root / "pack")
        assert found == [] or "not where they were" in found[0]
        locate_them(root)
        assert verify(root / "pack") == [] and not list((root / "pack").glob("*.tmp"))


def test_moved_tars_are_found(tars: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "packs" / "pack"
    index(tars, out)
    first = Samples(out, recipes.mocov2()).read(0)
    away = tmp_path / "disk two"
    (tmp_path / "data").rename(away)
    with pytest.raises(PackError, match=r"not where they were: PASS.0.tar, PASS.1.tar .*pass-pack locate"):
        Samples(out, recipes.mocov2()).read(0)
    assert "not where they were" in verify(out)[0]
    assert len(Pack(out)) == 26 and Pack(out).id_of(3), "what needs no bytes works"
    monkeypatch.setenv("PASS_LOADER_SOURCE_DIR", f"/nowhere:{away}")
    assert Samples(out, recipes.mocov2()).read(0) == first
    monkeypatch.delenv("PASS_LOADER_SOURCE_DIR")
    impostor = bytearray((away / "PASS.0.tar").read_bytes())
    impostor[200] ^= 1
    write_tree(tmp_path / "fake", {"PASS.0.tar": bytes(impostor), "PASS.1.tar": b"short"})
    with pytest.raises(PackError, match="not where they were: PASS.0.tar, PASS.1.tar"):
        locate(out, [tmp_path / "fake"])
    assert main(["locate", str(out), str(tmp_path / "fake"), str(away)]) == 0
    assert Samples(out, recipes.mocov2()).read(0) == first and verify(out) == []
    shutil.move(away / "PASS.0.tar", out.parent)
    shutil.move(away / "PASS.1.tar", out)
    assert verify(out) == [], "beside the pack and in it they are found without being told"


def test_purge_leaves_foreign_tars_alone(tars: list[Path], tmp_path: Path, pass_files: tuple[Path, Path]) -> None:
    out = tmp_path / "pack"
    index(tars, out, metadata=pass_files[1])
    before = [tar.read_bytes() for tar in tars]
    id = Pack(out).id_of(4)
    remove(out, [id], reason="asked")
    with pytest.raises(PackError, match="tars that are not its own.*PASS.0.tar.*export"):
        purge(out)
    assert [tar.read_bytes() for tar in tars] == before and not (out / "purging").exists()
    assert len(attribution(out)) == 25
    export(out, tmp_path / "clean", "webdataset")
    build(sorted((tmp_path / "clean").iterdir()), tmp_path / "own")
    picture = Samples(tmp_path / "p", recipes.mocov2()).read(0)
    gone = tars[0].read_bytes()[(row := Pack(out).row(4))["offset"] :][: row["length"]]
    for path in (tmp_path / "own").iterdir():
        assert gone not in path.read_bytes()
    assert picture in (tmp_path / "own" / "shard-00000-000.tar").read_bytes(), "the search finds what is there"


def test_what_cannot_be_read_in_place(tars: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PackError, match="is no tar: only tars"):
        index([tmp_path / "more"], tmp_path / "pack")
    twin = write_tree(tmp_path / "twin", {"PASS.0.tar": tars[1].read_bytes()})
    with pytest.raises(PackError, match="two tars have the same name"):
        index([tars[0], twin / "PASS.0.tar"], tmp_path / "pack")
    index(tars, tmp_path / "pack")
    data = bytearray(tars[0].read_bytes())
    row = Pack(tmp_path / "pack").row(5)  # after the 64 KiB by which the tar is known
    data[row["offset"] + 1000] ^= 1
    tars[0].write_bytes(data)
    found = verify(tmp_path / "pack")
    assert len(found) == 1 and found[0].startswith(f"PASS.0.tar, record 5, id {row['id']}: CRC32C is")


def test_verify_decodes_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = bytearray(jpeg(noise(30, 30)))
    bad[bad.index(b"\xff\xc4") + 4] = 0x55  # a Huffman table of a class that does not exist
    files = {"bad.jpg": bytes(bad), "good.jpg": jpeg(noise(9, 9)), "gone.jpg": jpeg(noise(9, 8))}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack")
    found = verify(tmp_path / "pack")
    assert found == [] and (found.records, found.decoded, found.bytes) == (3, 0, sum(map(len, files.values())))
    found = verify(tmp_path / "pack", decode=True)
    assert len(found) == 1 and "record 0, id bad" in found[0] and found.decoded == 3
    remove(tmp_path / "pack", ["bad", "gone"], reason="x")
    found = verify(tmp_path / "pack", decode=True)
    assert found == [] and (found.live, found.removed, found.purged, found.decoded) == (1, 2, 0, 1)
    assert "everything is as it was packed: 3 records (1 live, 2 removed, of which 0 purged)" in str(found)
    purge(tmp_path / "pack")
    assert verify(tmp_path / "pack").purged == 2
    assert main(["verify", str(tmp_path / "pack"), "--json", "--decode", "--workers", "1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] and shown["live"] == 1 and shown["problems"] == []
    (tmp_path / "pack" / "shard-00000-r1.tar").unlink()
    assert main(["verify", str(tmp_path / "pack"), "--json"]) == 1
    assert "No such file" in json.loads(capsys.readouterr().out)["problems"][0]
    assert np.all(Pack(tmp_path / "pack").removed == [0, 1])
