"""`pass-pack build --shuffle`: the same pictures in an order that the seed decides."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, verify
from pass_loader.pack.shards import ShardWriter

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree

COUNT = 40


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four classes, and a table of metadata beside it."""
    place = tmp_path_factory.mktemp("classes")
    files = {f"{'abcd'[number // 10]}/{number:02d}.jpg": jpeg(noise(9, 9, number)) for number in range(COUNT)}
    write_tree(place / "in", files)
    rows = "".join(f"{name[:-4]},{number}\n" for number, name in enumerate(files))
    (place / "m.csv").write_text("hash,number\n" + rows)
    return place


def packed(classes: Path, out: Path, **given: object) -> Pack:
    build([classes / "in"], out, metadata=classes / "m.csv", shard_bytes=12_000, **given)  # type: ignore[arg-type]
    assert not verify(out, decode=True)
    return Pack(out)


def rows_of(pack: Pack) -> list[tuple[str, int, str, int]]:
    rows = [pack.row(record) for record in range(pack.records)]
    return [(row["id"], row["label"], row["number"], row["crc32c"]) for row in rows]


def bytes_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "finished"}


def test_the_same_pictures_in_another_order(classes: Path, tmp_path: Path) -> None:
    """With their labels and metadata, classes mixed; another seed gives another order, other workers the same bytes."""
    plain = packed(classes, tmp_path / "plain")
    shuffled = packed(classes, tmp_path / "shuffled", shuffle=0, workers=1)
    assert len(shuffled.shards) > 2 and plain.classes == shuffled.classes
    assert sorted(rows_of(plain)) == sorted(rows_of(shuffled)) and rows_of(plain) != rows_of(shuffled)
    labels = shuffled.column("label")
    assert all(len(set(labels[begin : begin + 10].tolist())) > 2 for begin in range(0, COUNT, 10))
    assert [id for id, *_ in rows_of(shuffled)][:4] == FIRST, "an unfinished packing goes on with the next version"
    packed(classes, tmp_path / "threads", shuffle=0, workers=3)
    assert bytes_of(tmp_path / "threads") == bytes_of(tmp_path / "shuffled")
    assert rows_of(packed(classes, tmp_path / "other", shuffle=1)) != rows_of(shuffled)


FIRST = ["b/15", "a/08", "b/12", "d/31"]


def test_a_packing_that_was_cut_off(classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goes on to the same bytes; with another seed, or without one, it does not go on."""
    packed(classes, tmp_path / "whole", shuffle=7)
    write = ShardWriter.write

    def failing(self: ShardWriter, name: str, *given: object, **named: object) -> object:
        if name == "shard-00000-003":
            raise PackError("cut off")
        return write(self, name, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ShardWriter, "write", failing)
    with pytest.raises(PackError, match="cut off"):
        packed(classes, tmp_path / "pack", shuffle=7, workers=1)
    monkeypatch.undo()
    for other in ({"shuffle": 8}, {}):
        with pytest.raises(PackError, match="an unfinished packing of other sources, or with other options"):
            packed(classes, tmp_path / "pack", **other)
    begun = {file.name: file.stat().st_ino for file in (tmp_path / "pack").glob("*.tar")}
    packed(classes, tmp_path / "pack", shuffle=7)
    assert len(begun) >= 3 and all((tmp_path / "pack" / name).stat().st_ino == node for name, node in begun.items())
    assert bytes_of(tmp_path / "pack") == bytes_of(tmp_path / "whole")


def test_sources_of_all_kinds_together(tmp_path: Path) -> None:
    """Tars, zips, lists and folders; of two pictures with one id the first in the list is packed, the other refused."""
    data = [jpeg(noise(9, 9, number)) for number in range(30)]
    write_tree(tmp_path / "folder", {f"f{number}.jpg": data[number] for number in range(8)})
    (tmp_path / "folder" / "text.jpg").write_bytes(b"no picture")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for number in range(8, 16):
            path = tmp_path / f"t{number}.jpg"
            path.write_bytes(data[number])
            tar.add(path, path.name)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for number in range(16, 24):
            archive.writestr(f"z{number}.jpg", data[number])
        archive.writestr("f3.jpg", data[29])
    write_tree(tmp_path / "listed", {f"l{number}.jpg": data[number] for number in range(24, 29)})
    (tmp_path / "listed" / "list.txt").write_text("".join(f"l{number}.jpg\n" for number in range(24, 29)))
    sources = [tmp_path / "folder", tmp_path / "t.tar", tmp_path / "z.zip", tmp_path / "listed" / "list.txt"]
    report = build(sources, tmp_path / "pack", shuffle=3)
    pack = Pack(tmp_path / "pack")
    assert report.pictures == 29 and report.same_id == 1 and len(report.refused) == 2
    ids = pack.all_ids().to_pylist()
    kinds = "".join(id[0] for id in ids)
    assert sorted(ids) == sorted(f"{'ftzl'[number // 8]}{number}" for number in range(29))
    assert len(kinds.replace("ff", "f").replace("tt", "t").replace("zz", "z").replace("ll", "l")) > 12, kinds
    reader = pack.open_reader()
    assert all(reader.read(record) == data[int(id[1:])] for record, id in enumerate(ids))


def test_refusals(classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pass_loader.pack import export

    packed(classes, tmp_path / "pack")
    export(tmp_path / "pack", tmp_path / "parquet", format="parquet")
    (table,) = (tmp_path / "parquet").glob("*.parquet")
    with pytest.raises(PackError, match="is a Parquet file, whose rows can be read in their order alone: .*export"):
        build([classes / "in", table], tmp_path / "other", shuffle=0)
    with pytest.raises(ValueError, match="seed is -1"):
        build([classes / "in"], tmp_path / "other", shuffle=-1)
    assert not (tmp_path / "other").exists()
    assert main(["build", str(classes / "in"), "--out", str(tmp_path / "command"), "--shuffle", "0"]) == 0
    ids = Pack(tmp_path / "command").all_ids().to_pylist()
    assert ids[:4] == FIRST
    capsys.readouterr()
