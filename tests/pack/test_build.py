"""Packs: what is written, that foreign tools read it, that nothing is lost silently."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pass_loader import PackError, Samples, _C, recipes
from pass_loader.pack import Pack, build, verify
from pass_loader.pack.layout import member_name

from ..helpers.corpus import decodable, jpeg, noise, position_coded, refused
from ..helpers.trees import members_of, write_tree


def test_every_picture_is_stored_untouched(pack: Path, pass_files: tuple[Path, Path]) -> None:
    sources = {Path(name).stem: data for name, data in members_of(pass_files[0]).items()}
    opened = Pack(pack)
    samples = Samples(pack, recipes.mocov2())
    assert opened.records == len(opened) == len(sources) == 23 and len(opened.shards) > 1
    assert {opened.id_of(record) for record in range(23)} == set(sources)
    for record in range(23):
        assert samples.read(record) == sources[opened.id_of(record)]
        assert opened.record_of(opened.id_of(record)) == record
    with pytest.raises(KeyError):
        opened.record_of("no such id")
    with pytest.raises(IndexError):
        opened.id_of(23)


def test_metadata(pack: Path, pass_files: tuple[Path, Path]) -> None:
    with open(pass_files[1]) as table:
        rows = {row["hash"]: row for row in csv.DictReader(table)}
    samples = Samples(pack, recipes.mocov2())
    for record in range(23):
        metadata = samples.metadata(record)
        assert list(metadata) == ["unickname", "licensename", "latitude", "longitude", "datetaken"]
        assert metadata["unickname"] == rows[samples.id_of(record)]["unickname"]
        assert metadata["licensename"] == "Attribution License"


def test_metadata_join_counts_and_keeps_text(tmp_path: Path) -> None:
    ids = [f"{i:027x}" for i in range(3)] + ["e1662344ffa8c231d198c367c692cc"]
    write_tree(tmp_path / "in", {f"{id}.jpg": jpeg(noise(20, 20, i)) for i, id in enumerate(ids)})
    (tmp_path / "m.csv").write_text(
        "hash,unickname,licensename,latitude,longitude,datetaken\n"
        f"{ids[3]},J%C3%BCrgen+K.,Attribution License,-17.45872,0.25,2011-03-05 02:19:44.0\n"
        f"{ids[1]},007,Attribution License,,,\n"
        "missing,x,Attribution License,1,2,\n"
    )
    report = build([tmp_path / "in"], tmp_path / "pack", metadata=tmp_path / "m.csv")
    assert (report.pictures, report.without_metadata, report.metadata_unused) == (4, 2, 1)
    samples = Samples(tmp_path / "pack", recipes.mocov2())
    assert samples.metadata(samples.record_of(ids[3])) == {
        "unickname": "J%C3%BCrgen+K.", "licensename": "Attribution License", "latitude": -17.45872, "longitude": 0.25,
        "datetaken": "2011-03-05 02:19:44.0",
    }  # fmt: skip
    assert samples.metadata(samples.record_of(ids[1]))["unickname"] == "007"
    assert samples.metadata(samples.record_of(ids[0]))["unickname"] is None


def test_bad_metadata(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(20, 20))})
    for text, message in (("id,x\na,1\n", "no column 'hash'"), ("hash,width\na,1\n", "names that a pack uses"),
                          ("hash,x\na,1,2\n", "m.csv")):  # fmt: skip
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(PackError, match=message):
            build([tmp_path / "in"], tmp_path / "pack", metadata=tmp_path / "m.csv")


def test_folder_classes_become_labels(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {
        "zebra/1.jpg": jpeg(noise(9, 9)), "ant/deep/er.2.JPEG": jpeg(noise(8, 9)), "ant/0.jpg": jpeg(noise(7, 9)),
        "no_class.jpg": jpeg(noise(6, 9)),
    })  # fmt: skip
    build([root], tmp_path / "pack")
    pack = Pack(tmp_path / "pack")
    assert pack.classes == ["ant", "zebra"]
    labels = {pack.id_of(r): int(pack.column("label")[r]) for r in range(4)}
    assert labels == {"no_class": -1, "ant/0": 0, "ant/deep/er.2": 0, "zebra/1": 1}
    assert "ant/deep/er%2E2.jpg" in members_of(tmp_path / "pack" / "shard-00000-000.tar")


def test_mixed_sources_and_duplicates(tmp_path: Path, pass_files: tuple[Path, Path]) -> None:
    root = write_tree(tmp_path / "in", {"ant/1.jpg": jpeg(noise(9, 9))})
    report = build([pass_files[0], root, pass_files[0]], tmp_path / "pack")
    assert report.pictures == 24
    assert len(report.refused) == 23 and all("packed before" in r.reason for r in report.refused)
    pack = Pack(tmp_path / "pack")
    assert pack.column("label").tolist() == [-1] * 23 + [0]


def test_equal_input_gives_equal_bytes(tmp_path: Path, pass_files: tuple[Path, Path]) -> None:
    """Whatever the number of workers, the clock and the destination."""
    contents = []
    for number, workers in enumerate((1, 4)):
        out = tmp_path / str(number) / "pack"
        build([pass_files[0]], out, metadata=pass_files[1], shard_bytes=500_000, workers=workers)
        contents.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert contents[0] == contents[1]
    assert {"pack.json", "index.arrow", "shard-00000-000.tar", "shard-00000-000.parquet"} <= set(contents[0])
    assert not any(name.endswith(".tmp") for name in contents[0])
    assert max(len(data) for name, data in contents[0].items() if name.endswith(".tar")) <= 500_000 + 10_240


def test_refusals_are_named_and_counted(tmp_path: Path) -> None:
    bad = refused()
    good = {f"good/{name}.jpg": data for name, data in decodable().items()}
    root = write_tree(tmp_path / "in", {f"bad/{name}.jpg": data for name, data in bad.items()} | good)
    gif = io.BytesIO()
    Image.fromarray(noise(5, 5)).save(gif, "GIF")
    write_tree(root, {"gif_named.jpg": gif.getvalue()})
    report = build([root], tmp_path / "pack")
    assert {r.id.removeprefix("bad/") for r in report.refused} == set(bad) | {"gif_named"}
    reasons = {r.id.removeprefix("bad/"): r.reason for r in report.refused}
    assert "neither JPEG nor PNG but GIF" in reasons["gif_named"] and "empty" in reasons["empty"]
    assert "178956970" in reasons["bomb"] and "cut off" in reasons["truncated_half"]
    assert report.pictures == len(good)
    assert (report.gray, report.cmyk, report.progressive, report.exif_rotated) == (2, 2, 2, 1)
    assert "refused 9" in str(report)


def test_transcode(tmp_path: Path) -> None:
    """Quality 95, 4:4:4, counted; depth is not lost silently."""
    pixels = position_coded(40, 50)
    files = {}
    for kind in ("PNG", "WEBP", "GIF"):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, kind)
        files[f"{kind}.jpg"] = out.getvalue()
    deep = io.BytesIO()
    Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600).save(deep, "PNG")
    files |= {"deep.png": deep.getvalue(), "page.jpg": b"<html></html>", "whole.jpg": jpeg(pixels)}
    root = write_tree(tmp_path / "in", files)
    report = build([root], tmp_path / "pack", transcode=True)
    assert (report.pictures, report.transcoded, len(report.refused)) == (4, 3, 2)
    assert any("lose its depth" in r.reason for r in report.refused)
    samples = Samples(tmp_path / "pack", recipes.mocov2())
    assert samples.read(samples.record_of("whole")) == files["whole.jpg"]
    stored = samples.read(samples.record_of("PNG"))
    want = io.BytesIO()
    Image.fromarray(pixels).save(want, "JPEG", quality=95, subsampling=0)
    assert stored == want.getvalue()


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "page.tar").write_bytes(b"<!DOCTYPE html><p>Redirecting" + bytes(2000))
    (tmp_path / "empty.tar").write_bytes(b"")
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    (tmp_path / "nothing").mkdir()
    for name, message in (("page.tar", "curl needs -L"), ("empty.tar", "neither a folder nor a tar"),
                          ("missing.tar", "does not exist"), ("zipped.tar", "gzip"),
                          ("nothing", "no picture could be packed")):  # fmt: skip
        with pytest.raises(PackError, match=message):
            build([tmp_path / name], tmp_path / "pack")


def test_a_damaged_tar_is_an_error(tmp_path: Path, pass_files: tuple[Path, Path]) -> None:
    """Kills: taking what is no header for the end, as tarfile does: pictures would be lost silently."""
    whole = pass_files[0].read_bytes()
    with tarfile.open(pass_files[0]) as tar:
        header = tar.getmembers()[7].offset
    flipped = bytearray(whole)
    flipped[header + 3] ^= 1
    damaged = {
        "in_data": whole[:300_000], "at_member": whole[:header], "in_header": whole[: header + 100],
        "flipped": bytes(flipped), "zeroed": whole[:header] + bytes(512) + whole[header + 512 :], "two": whole + whole,
    }  # fmt: skip
    for name, data in damaged.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
        with pytest.raises(PackError, match=f"{name}.tar"):
            build([tmp_path / f"{name}.tar"], tmp_path / name)
        assert not (tmp_path / name / "pack.json").exists()


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    """Links, pipes, files that cannot be read: one refusal each, and the rest is packed."""
    root = write_tree(tmp_path / "in", {"c/a.jpg": jpeg(noise(9, 9))})
    (root / "c" / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (root / "c" / "circle.jpg").symlink_to(root / "c" / "circle.jpg")
    os.mkfifo(root / "c" / "pipe.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(root / "c" / "a.jpg", "PASS_dataset/0/e1662344ffa8c231d198c367c692cc.jpg")
        for name, kind in (("hard.jpg", tarfile.LNKTYPE), ("soft.jpg", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "PASS_dataset/0/e1662344ffa8c231d198c367c692cc.jpg"
            tar.addfile(link)
    report = build([root, tmp_path / "s.tar"], tmp_path / "pack")
    assert report.pictures == 2
    assert {r.id.removeprefix("c/") for r in report.refused} == {"dangling", "circle", "pipe", "hard", "soft"}


def test_an_id_is_taken_by_what_is_packed_only(tmp_path: Path) -> None:
    """A refused file does not keep its id from a good one: WebDataset's .cls beside .jpg, a broken copy in another
    source. Kills: duplicates decided before anybody looked into the file."""
    with tarfile.open(tmp_path / "wds.tar", "w") as tar:
        for name, data in (("1.cls", b"7"), ("1.jpg", jpeg(noise(9, 9))), ("2.jpg", jpeg(noise(8, 9))), ("2.txt", b"x"),
                           ("2.jpg", jpeg(noise(7, 9)))):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    bad = write_tree(tmp_path / "bad", {"3.jpg": b""})
    good = write_tree(tmp_path / "good", {"3.jpg": jpeg(noise(6, 9))})
    report = build([tmp_path / "wds.tar", bad, good], tmp_path / "pack")
    pack = Pack(tmp_path / "pack")
    assert sorted((pack.id_of(r), int(pack.column("height")[r])) for r in range(3)) == [("1", 9), ("2", 8), ("3", 6)]
    assert [r.reason for r in report.refused if r.id == "2"] == ["its id was packed before"]
    assert verify(tmp_path / "pack") == []


def test_decode_proves_every_picture(tmp_path: Path) -> None:
    bad = bytearray(jpeg(noise(30, 30)))
    bad[bad.index(b"\xff\xc4") + 4] = 0x55  # a Huffman table of a class that does not exist
    root = write_tree(tmp_path / "in", {"bad.jpg": bytes(bad), "good.jpg": jpeg(noise(9, 9))})
    assert build([root], tmp_path / "headers").pictures == 2
    report = build([root], tmp_path / "decoded", decode=True)
    assert report.pictures == 1 and [r.id for r in report.refused] == ["bad"]


def test_source_and_pack_lie_apart(tmp_path: Path, pass_files: tuple[Path, Path]) -> None:
    root = write_tree(tmp_path / "in", {"c/a.jpg": jpeg(noise(9, 9))})
    for sources, out in (([root], root / "pack"), ([root], root), ([root / "c"], root)):
        with pytest.raises(PackError, match="lie in one another"):
            build(sources, out)


def test_destinations(tmp_path: Path, pass_files: tuple[Path, Path]) -> None:
    out = tmp_path / "pack"
    write_tree(out, {"thesis.doc": b"mine"})
    with pytest.raises(PackError, match="thesis.doc"):
        build([pass_files[0]], out)
    (out / "thesis.doc").rename(tmp_path / "thesis.doc")
    write_tree(out, {"shard-00000-000.tar": b"a WebDataset of somebody"})
    with pytest.raises(PackError, match="it holds shard-00000-000.tar"):
        build([pass_files[0]], out)
    assert (out / "shard-00000-000.tar").exists(), "only our own unfinished packing is deleted"
    write_tree(out, {"unfinished": b"", "shard-00000-000.tar.tmp": b"half", "shard-00099.tar": b"of a packing cut off"})
    with pytest.raises(PackError, match="not finished"):
        Pack(out)
    write_tree(out, {"shard-notes.txt": b"mine"})
    with pytest.raises(PackError, match="shard-notes.txt"):
        build([pass_files[0]], out)
    assert (out / "shard-00099.tar").exists()
    (out / "shard-notes.txt").unlink()
    build([pass_files[0]], out)
    assert verify(out) == [] and not (out / "shard-00099.tar").exists() and not (out / "unfinished").exists()
    with pytest.raises(PackError, match="already a pack"):
        build([pass_files[0]], out, decode=True)


def test_foreign_tools_read_it(pack: Path, pass_files: tuple[Path, Path]) -> None:
    """GNU tar, WebDataset, pandas, DuckDB."""
    sources = {Path(name).stem: data for name, data in members_of(pass_files[0]).items()}
    shards = sorted(pack.glob("*.tar"))
    listed = [line for shard in shards for line in subprocess.check_output(["tar", "tf", shard], text=True).split()]
    assert [Path(name).stem for name in listed] == list(sources)

    import webdataset

    seen = {s["__key__"]: s["jpg"] for s in webdataset.WebDataset([str(s) for s in shards], shardshuffle=False)}
    assert seen == sources

    import duckdb
    import pandas

    frame = pandas.concat(pandas.read_parquet(path) for path in sorted(pack.glob("*.parquet")))
    assert frame["record"].tolist() == list(range(23)) and frame["id"].tolist() == list(sources)
    query = f"select count(*), sum(length) from '{pack}/*.parquet' where licensename = 'Attribution License'"
    assert duckdb.sql(query).fetchall() == [(23, sum(map(len, sources.values())))]


@pytest.mark.parametrize(
    "id", ["a/b/c", "x.y.z", "..", "100%", "line\nbreak", "tab\t", "é漢字", "back\\slash", "sp ace", "l" * 300, "/abs"]
)
def test_member_names_are_safe(id: str, tmp_path: Path) -> None:
    """Kills: a dot that WebDataset cuts at, a way out of the directory. Long names go through pax headers."""
    name = member_name(id, "jpeg")
    assert name.count(".") == 1 and name.isprintable() and " " not in name
    assert not name.startswith("/") and ".." not in name.split("/")
    if id != "/abs":
        from urllib.parse import unquote

        assert unquote(name.removesuffix(".jpg")) == id


def test_names_that_are_hard(tmp_path: Path) -> None:
    names = ["x.y.z", "100%", "line\nbreak", "é漢字", "sp ace", "d" * 120 + "/" + "l" * 120]
    root = write_tree(tmp_path / "in", {f"c/{name}.jpg": jpeg(noise(8, 8, i)) for i, name in enumerate(names)})
    os.makedirs(os.fsencode(root) + b"/c", exist_ok=True)
    with open(os.fsencode(root) + b"/c/\xff.jpg", "wb") as file:
        file.write(jpeg(noise(8, 8)))
    report = build([root], tmp_path / "pack", shard_bytes=4000)
    assert report.pictures == len(names) and [r.reason for r in report.refused] == ["its name is not UTF-8"]
    assert verify(tmp_path / "pack") == []
    samples = Samples(tmp_path / "pack", recipes.mocov2())
    for i, name in enumerate(names):
        assert samples.read(samples.record_of(f"c/{name}")) == jpeg(noise(8, 8, i))


@pytest.mark.slow
def test_packing_needs_no_torch(pack: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pass_loader, pass_loader.cli.main as cli\n"
        f"assert cli.main(['verify', {str(pack)!r}]) == 0\n"
        f"samples = pass_loader.Samples({str(pack)!r}, pass_loader.recipes.dino())\n"
        "assert len(samples.render(3)) == 10\n"
    )
    subprocess.run([os.sys.executable, "-c", code], check=True)


def test_pack_id_is_of_the_content(tmp_path: Path, pass_files: tuple[Path, Path], pack: Path) -> None:
    build([pass_files[0]], tmp_path / "other")  # other shards, no metadata
    assert Pack(tmp_path / "other").pack_id == Pack(pack).pack_id
    write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(8, 8))})
    build([tmp_path / "in"], tmp_path / "third")
    assert Pack(tmp_path / "third").pack_id != Pack(pack).pack_id
    assert len({_C.crc32c(bytes([i])) for i in range(256)}) == 256
