"""Sources and destinations: there and back through the real libraries `webdataset` and `datasets`."""

from __future__ import annotations

import builtins
import gzip
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError, Samples, recipes
from pass_loader.pack import Pack, build, export, plan, remove, shard, verify
from pass_loader.cli.main import main
from pass_loader.pack.sources import open_sources

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import tar_of, write_tree


PICTURES = {f"{i}": jpeg(noise(16, 12 + i, i)) for i in range(6)}


def rows_of(root: Path) -> dict[str, tuple[bytes, int, dict[str, object]]]:
    """id: bytes, label, metadata."""
    samples = Samples(root, recipes.mocov2())
    labels = samples.pack.column("label")
    live = samples.live.records_at(np.arange(len(samples)))
    return {
        samples.id_of(record): (samples.read(record), int(labels[record]), samples.metadata(record))
        for record in live.tolist()
    }


def test_webdataset_tars(tmp_path: Path) -> None:
    """Labels and metadata stand beside the picture, before it or after; written by the library itself."""
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for name, data in PICTURES.items():
            about = {"caption": f"ü {name}", "score": int(name) / 2, "width": 7, "tags": [name], "big": int(name)}
            writer.write({"__key__": f"deep/{name}", "jpg": data, "cls": int(name) + 3, "json": about})
    report = build([tmp_path / "w.tar"], tmp_path / "pack")
    assert (report.pictures, report.refused) == (6, [])
    rows = rows_of(tmp_path / "pack")
    assert rows["deep/5"] == (
        PICTURES["5"], 8, {"caption": "ü 5", "score": 2.5, "source_width": 7, "tags": '["5"]', "big": 5},
    )  # fmt: skip
    assert Pack(tmp_path / "pack").classes == [] and verify(tmp_path / "pack") == []
    broken = tar_of(tmp_path / "b.tar", {"1.cls": b"cat", "1.jpg": PICTURES["1"], "2.jpg": PICTURES["2"],
                                         "3.json": b"[1]", "3.jpg": PICTURES["3"]})  # fmt: skip
    report = build([broken], tmp_path / "broken")
    assert [r.id for r in report.refused] == ["1", "3"] and all(".cls or .json" in r.reason for r in report.refused)
    assert list(rows_of(tmp_path / "broken")) == ["2"]


def test_coordinates_of_the_sources_are_left_out(tmp_path: Path) -> None:
    """Hugging Face's PASS has them as columns, WebDataset's tars in their .json: no table of metadata brings them."""
    place = {"gps_latitude": [1.5], "GPS_longitude": [2.5], "creator_username": ["x"]}
    pq.write_table(pa.table({"image": [PICTURES["1"]], "id": ["1"], **place}), tmp_path / "p.parquet")
    about = json.dumps({"Latitude": 3.5, "longitude": 4, "creator_username": "y"}).encode()
    sources = [tmp_path / "p.parquet", tar_of(tmp_path / "w.tar", {"2.jpg": PICTURES["2"], "2.json": about})]
    build(sources, tmp_path / "all")
    assert rows_of(tmp_path / "all")["1"][2]["gps_latitude"] == 1.5
    build(sources, tmp_path / "pack", gps=False)
    assert {id: row[2] for id, row in rows_of(tmp_path / "pack").items()} == {
        "1": {"creator_username": "x"}, "2": {"creator_username": "y"}
    }  # fmt: skip
    for path in (tmp_path / "pack").iterdir():
        assert b"itude" not in path.read_bytes(), path.name


def test_lists_and_zips(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {f"c{int(i) % 2}/{i}.jpg": data for i, data in PICTURES.items()})
    away = write_tree(tmp_path / "away", {"x.y.jpg": PICTURES["0"]})
    names = [f"c1/{i}.jpg" for i in (1, 3, 5)] + [str(away / "x.y.jpg"), "c1/none.jpg"]
    (root / "list.txt").write_text("\n".join(names) + "\n")
    report = build([root / "list.txt"], tmp_path / "listed")
    rows = rows_of(tmp_path / "listed")
    assert set(rows) == {"c1/1", "c1/3", "c1/5", str(away / "x.y").lstrip("/")}
    assert rows["c1/3"][:2] == (PICTURES["3"], -1)
    assert [r.reason for r in report.refused] == ["No such file or directory"]
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / f"{kind}.zip", "w", kind) as archive:
            for i, data in PICTURES.items():
                archive.writestr(f"c{int(i) % 2}/{i}.jpg", data)
            archive.writestr("c0/", b"")
        build([tmp_path / f"{kind}.zip"], tmp_path / f"pack{kind}", workers=4, shard_bytes=3000)
        rows = rows_of(tmp_path / f"pack{kind}")
        assert rows["c1/5"][:2] == (PICTURES["5"], 1) and len(rows) == 6
        assert Pack(tmp_path / f"pack{kind}").classes == ["c0", "c1"]
    whole = (tmp_path / "8.zip").read_bytes()
    damaged = bytearray(whole)
    damaged[whole.index(b"c0/0.jpg") + 60] ^= 255
    (tmp_path / "d.zip").write_bytes(damaged)
    report = build([tmp_path / "d.zip"], tmp_path / "damaged")
    assert [r.id for r in report.refused] == ["c0/0"] and "the zip is damaged here" in report.refused[0].reason
    (tmp_path / "cut.zip").write_bytes(whole[:-40])
    with pytest.raises(PackError, match="neither a folder nor a tar, zip"):
        build([tmp_path / "cut.zip"], tmp_path / "x")


def test_what_is_wrong_with_a_source_is_said(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"<!DOCTYPE html><p>moved")
    (tmp_path / "t.tar").write_bytes(b"<html>" + bytes(600))
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "gzip.tar").write_bytes(gzip.compress(b"x"))
    with zipfile.ZipFile(tmp_path / "zip.tar", "w") as file:
        file.writestr("a.jpg", PICTURES["1"])
    (tmp_path / "p.parquet").write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "none.parquet")
    for name, message in (
        ("list.txt", "curl needs -L"),
        ("t.tar", "curl needs -L"),
        ("empty.tar", "download it again"),
        ("gzip.tar", "gzip-compressed: decompress it first"),
        ("zip.tar", "it is a zip: give it a name that ends in .zip"),
        ("p.parquet", "not a readable Parquet file"),
        ("none.parquet", "no column of images"),
    ):
        with pytest.raises(PackError, match=message):
            build([tmp_path / name], tmp_path / "pack")


def test_planning_opens_no_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is called one and is below --task-bytes; its task tells what is wrong with it. Kills: a look at its head."""
    good = tar_of(tmp_path / "good.tar", {"1.jpg": PICTURES["1"]})
    (tmp_path / "bad.TAR").write_bytes(b"no tar" * 1000)
    opened: list[str] = []

    def noting(true: Any) -> Any:
        def noted(path: Any, *rest: Any, **more: Any) -> Any:
            opened.append(str(path).lower())
            return true(path, *rest, **more)

        return noted

    for place, name in ((builtins, "open"), (os, "open"), (tarfile, "bltn_open")):
        monkeypatch.setattr(place, name, noting(getattr(place, name)))
    assert plan([good, tmp_path / "bad.TAR"], tmp_path / "pack") == 1
    assert any("/pack/" in path for path in opened)
    assert not [path for path in opened if path.endswith(".tar")]
    plan([good], tmp_path / "cut", task_bytes=1)
    assert [path for path in opened if path.endswith(".tar")], "one that is larger is walked"
    with pytest.raises(PackError, match=r"bad.TAR is not a readable, uncompressed tar: .*cut off or damaged"):
        shard(tmp_path / "pack", 0)


def test_labels_are_numbers_or_names(tmp_path: Path) -> None:
    numbers = tar_of(tmp_path / "n.tar", {"1.cls": b"4", "1.jpg": PICTURES["1"]})
    names = write_tree(tmp_path / "in", {"cat/2.jpg": PICTURES["2"]})
    with pytest.raises(PackError, match="numbers as labels, others names .cat.: pack them apart"):
        build([numbers, names], tmp_path / "pack")


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Classes, metadata, hard names; one removed record."""
    names = ["zebra/1", "ant/deep/x.y", "ant/é 漢", "ant/100%", "zebra/" + "l" * 200, "ant/2", "zebra/gone"]
    root = write_tree(tmp_path / "in", {f"{name}.jpg": jpeg(noise(16, 16, i)) for i, name in enumerate(names)})
    rows = "".join(f'"{name}",J%C3%BCrgen+{i},"a, ""b""",{i}.5,\n' for i, name in enumerate(names[:-1]))
    (tmp_path / "m.csv").write_text("hash,unickname,licensename,latitude,datetaken\n" + rows)
    build([root], tmp_path / "full", metadata=tmp_path / "m.csv", shard_bytes=6000)
    remove(tmp_path / "full", ["zebra/gone"], reason="asked")
    yield tmp_path / "full"


@pytest.mark.slow
def test_folder_and_back(full: Path, tmp_path: Path) -> None:
    import datasets

    done = export(full, tmp_path / "out", "folder")
    assert (done.records, done.files) == (6, 7)
    assert not any("gone" in path.name for path in (tmp_path / "out").rglob("*"))
    report = build([tmp_path / "out"], tmp_path / "back", metadata=tmp_path / "out" / "metadata.csv", key="id")
    assert (report.refused, report.without_metadata, report.metadata_unused) == ([], 0, 0)
    back, want = rows_of(tmp_path / "back"), rows_of(full)
    assert {id: row[:2] for id, row in back.items()} == {id: row[:2] for id, row in want.items()}
    for id, (_, label, metadata) in back.items():
        assert metadata.pop("class") == ["ant", "zebra"][label] and metadata.pop("file_name") == f"{id}.jpg"
        assert {k: v or None for k, v in metadata.items()} == {k: v or None for k, v in want[id][2].items()}
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert {row["id"]: row["image"].size for row in loaded} == {id: (16, 16) for id in want}
    assert set(loaded["licensename"]) == {'a, "b"'}


def test_webdataset_and_back(full: Path, tmp_path: Path) -> None:
    import webdataset

    export(full, tmp_path / "out", "webdataset", shard_bytes=3000)
    tars = sorted((tmp_path / "out").iterdir())
    assert len(tars) > 1
    want = rows_of(full)
    samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False))
    assert {json.loads(s["json"])["id"]: (s["jpg"], int(s["cls"])) for s in samples} == {
        id: row[:2] for id, row in want.items()
    }
    build(tars, tmp_path / "back")
    back = rows_of(tmp_path / "back")
    assert list(back) == list(want), "ids as they were, in order"
    assert {id: row[:2] for id, row in back.items()} == {id: row[:2] for id, row in want.items()}
    for id, row in want.items():
        assert {k: v for k, v in row[2].items() if v is not None} == {
            k: v for k, v in back[id][2].items() if v is not None
        }


def test_parquet_and_back(full: Path, tmp_path: Path) -> None:
    import datasets

    export(full, tmp_path / "out", "parquet", shard_bytes=3000)
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) > 1 and files[0].name == f"train-00000-of-{len(files):05d}.parquet"
    want = rows_of(full)
    loaded = datasets.load_dataset(
        "parquet", data_files=[str(file) for file in files], split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.features["label"].names == ["ant", "zebra"] and type(loaded.features["image"]).__name__ == "Image"
    raw = loaded.cast_column("image", datasets.Image(decode=False))
    assert {row["id"]: (row["image"]["bytes"], row["label"]) for row in raw} == {
        id: row[:2] for id, row in want.items()
    }
    pixels = np.asarray(loaded[0]["image"])
    samples = Samples(full, recipes.mocov2())
    assert np.array_equal(pixels, samples.decode(samples.record_of(loaded[0]["id"])))
    build(files, tmp_path / "back")
    assert rows_of(tmp_path / "back") == want
    assert Pack(tmp_path / "back").classes == ["ant", "zebra"]


def test_parquet_written_by_the_library(tmp_path: Path) -> None:
    """Names of classes keep their order, their labels their numbers; images without bytes are refused."""
    import datasets

    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["z", "a"]), "n": datasets.Value("int32")}
    )
    (tmp_path / "away.jpg").write_bytes(PICTURES["3"])
    away = {"bytes": None, "path": str(tmp_path / "away.jpg")}
    pictures = [{"bytes": PICTURES[i], "path": f"{i}.jpg"} for i in "012"] + [away]
    data = {"picture": pictures, "label": [1, 0, 0, 1], "n": [5, 6, 7, 8]}
    datasets.Dataset.from_dict(data, features=features).to_parquet(str(tmp_path / "d.parquet"))
    table = pq.read_table(tmp_path / "d.parquet")
    pq.write_table(table.set_column(0, table.schema.field(0), [without_last(table.column(0))]), tmp_path / "d.parquet")
    report = build([tmp_path / "d.parquet"], tmp_path / "pack", workers=3, shard_bytes=2000)
    assert [r.reason for r in report.refused] == ["the row holds no bytes"]
    assert rows_of(tmp_path / "pack") == {i: (PICTURES[i], label, {"n": n}) for i, label, n in
                                          (("0", 1, 5), ("1", 0, 6), ("2", 0, 7))}  # fmt: skip
    assert Pack(tmp_path / "pack").classes == ["z", "a"]


def test_parquet_rows_in_any_order_from_any_thread(tmp_path: Path) -> None:
    pictures = [jpeg(noise(8, 8, i)) for i in range(300)]
    pq.write_table(pa.table({"image": pictures, "id": [f"{i:03d}" for i in range(300)]}), tmp_path / "t.parquet")
    entries = list(open_sources([tmp_path / "t.parquet"])[0].entries())
    assert [entry.read() for entry in reversed(entries)] == pictures[::-1]
    build([tmp_path / "t.parquet"], tmp_path / "pack", workers=4, shard_bytes=20_000)
    assert [data for data, *_ in rows_of(tmp_path / "pack").values()] == pictures


def without_last(images: pa.ChunkedArray) -> pa.Array:
    rows = images.to_pylist()
    return pa.array([*rows[:-1], rows[-1] | {"bytes": None}], images.type)


def test_export_is_whole_or_absent(full: Path, tmp_path: Path) -> None:
    os.makedirs(tmp_path / "there")
    with pytest.raises(PackError, match="there exists"):
        export(full, tmp_path / "there", "folder")
    tar = full / "shard-00000-000.tar"
    data = bytearray(tar.read_bytes())
    data[Pack(full).row(0)["offset"] + 40] ^= 1
    tar.write_bytes(data)
    with pytest.raises(PackError, match="shard-00000-000.tar, record 0, id ant/100%: CRC32C"):
        export(full, tmp_path / "out", "webdataset")
    assert not (tmp_path / "out").exists()
    with pytest.raises(PackError, match="out.unfinished lies what another command left"):
        export(full, tmp_path / "out", "parquet")
    with pytest.raises(ValueError, match="format is 'lmdb'"):
        export(full, tmp_path / "x", "lmdb")


def test_export_command(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(pack), "--format", "parquet", "--out", str(tmp_path / "p")]) == 0
    assert "23 live records" in capsys.readouterr().out
    assert main(["build", *map(str, (tmp_path / "p").iterdir()), "--out", str(tmp_path / "back")]) == 0
    assert Pack(tmp_path / "back").pack_id == Pack(pack).pack_id, "equal ids, bytes and labels"


def test_folder_and_back_and_out_again(full: Path, tmp_path: Path) -> None:
    """What an export's own table brought into the pack goes out once; another column of such a name is kept apart."""
    export(full, tmp_path / "out1", "folder")
    build([tmp_path / "out1"], tmp_path / "pack1", metadata=tmp_path / "out1" / "metadata.csv", key="id")
    export(tmp_path / "pack1", tmp_path / "out2", "folder")
    assert (tmp_path / "out2" / "metadata.csv").read_bytes() == (tmp_path / "out1" / "metadata.csv").read_bytes()
    table = (tmp_path / "out1" / "metadata.csv").read_text().replace(",zebra,", ",horse,")
    (tmp_path / "other.csv").write_text(table)
    build([tmp_path / "out1"], tmp_path / "pack2", metadata=tmp_path / "other.csv", key="id")
    export(tmp_path / "pack2", tmp_path / "out3", "folder")
    build([tmp_path / "out3"], tmp_path / "pack3", metadata=tmp_path / "out3" / "metadata.csv", key="id")
    found = rows_of(tmp_path / "pack3")["zebra/1"][2]
    assert (found["class"], found["source_class"], found["unickname"]) == ("zebra", "horse", "J%C3%BCrgen+0")
    assert "source_file_name" not in found


def test_coordinates_inside_json_are_left_out(tmp_path: Path) -> None:
    about = {"place": {"Latitude": 1.5, "at": [{"longitude": 2.5, "town": "Graz"}]}, "gps_latitude": 1.5, "n": 1}
    tar = tar_of(tmp_path / "t.tar", {"1.json": json.dumps(about).encode(), "1.jpg": PICTURES["1"]})
    build([tar], tmp_path / "pack", gps=False)
    assert rows_of(tmp_path / "pack")["1"][2] == {"place": '{"at": [{"town": "Graz"}]}', "n": 1}
    build([tar], tmp_path / "all")
    assert json.loads(str(rows_of(tmp_path / "all")["1"][2]["place"])) == about["place"]
