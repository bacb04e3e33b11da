"""Packs of the codec "dct": built, converted there and back, read, checked, exported, purged."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pass_loader import DataLoader, PackError, Samples, ShardDataset, _C, recipes
from pass_loader.recipes import reference
from pass_loader.pack import Pack, build, convert, export, info, purge, remove, restore, verify
from pass_loader.cli.main import main
from pass_loader.data.preview import preview
from pass_loader.pack.shards import ShardWriter

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import decodable, jpeg, noise
from ..helpers.crash import crashes
from ..helpers.dctwriter import one_row
from ..helpers.sealing import undated
from ..helpers.trees import contents, members_of, write_tree
from ..helpers.trials import trials


def stubborn() -> bytes:
    """A JPEG that stays one: a coefficient that libjpeg does not write again."""
    block = np.zeros((2, 64), np.int64)
    block[1, 9] = 1500
    return one_row(block)[1]


def mixed(root: Path) -> Path:
    return write_tree(root / "in", {f"c{i % 2}/{name}.jpg": data for i, (name, data) in enumerate(
        [*decodable().items(), ("stubborn", stubborn())])})  # fmt: skip


def same_but_for_codec(before: Pack, after: Pack) -> None:
    """Numbers, ids, labels, sizes, metadata, shards, identity."""
    assert after.pack_id == before.pack_id and after.records == before.records and after.classes == before.classes
    assert after.generation == before.generation and after.manifest["metadata"] == before.manifest["metadata"]
    assert [shard["records"] for shard in after.shards] == [shard["records"] for shard in before.shards]
    for record in range(before.records):
        if before.is_removed(np.array([record]))[0]:
            continue
        old, new = before.row(record), after.row(record)
        moved = {"offset", "length", "codec", "crc32c"}
        assert {k: v for k, v in old.items() if k not in moved} == {k: v for k, v in new.items() if k not in moved}


def test_build(tmp_path: Path) -> None:
    """What the codec cannot represent stays a JPEG in the same pack, counted; members are named by codec."""
    report = build([mixed(tmp_path)], tmp_path / "dct", codec="dct", shard_bytes=40_000, workers=2)
    build([tmp_path / "in"], tmp_path / "jpeg")
    count = len(decodable())
    assert (report.pictures, report.dct) == (count + 1, count) and not report.refused
    assert f"codec dct {count}, left as JPEG because it cannot represent them 1" in str(report)
    assert verify(tmp_path / "dct", decode=True) == [] and len(Pack(tmp_path / "dct").shards) > 2
    dct, plain = (Samples(tmp_path / name, recipes.mocov2()) for name in ("dct", "jpeg"))
    for record in range(count + 1):
        row, data = dct.pack.row(record), plain.read(record)
        assert row["id"] == plain.pack.row(record)["id"]
        assert row["codec"] == ("jpeg" if row["id"].endswith("stubborn") else "dct")
        assert dct.read(record) == (data if row["codec"] == "jpeg" else _C.jpeg_to_dct(data)), "bytes, as packed"
        assert_pixels_equal(dct.decode(record), np.asarray(reference.decode(data)), row["id"])
        assert row["label"] == plain.pack.row(record)["label"]
    names = [name for tar in sorted((tmp_path / "dct").glob("*.tar")) for name in members_of(tar)]
    assert sorted(name for name in names if not name.endswith(".dct")) == [f"c{count % 2}/stubborn.jpg"]
    assert info(tmp_path / "dct")["codecs"] == {"jpeg": 1, "dct": count, "png": 0}
    assert info(tmp_path / "dct")["codec"] == "dct"


def test_build_refuses_what_cannot_be_decoded(tmp_path: Path) -> None:
    bad = bytearray(jpeg(noise(30, 30)))
    bad[bad.index(b"\xff\xc4") + 4] = 0x55
    root = write_tree(tmp_path / "in", {"bad.jpg": bytes(bad), "good.jpg": jpeg(noise(9, 9))})
    report = build([root], tmp_path / "pack", codec="dct")
    assert report.dct == 1 and [refusal.id for refusal in report.refused] == ["bad"]
    with pytest.raises(ValueError, match="codec is 'webp'"):
        build([root], tmp_path / "x", codec="webp")


@pytest.mark.slow
def test_there_and_back(pack: Path, tmp_path: Path) -> None:
    done = convert(pack, tmp_path / "dct", "dct", workers=2)
    assert (done.dct, done.jpeg, done.erased) == (23, 0, 0)
    assert done.bytes_before == Pack(pack).column("length").sum() < done.bytes < 1.5 * done.bytes_before
    again = convert(tmp_path / "dct", tmp_path / "jpeg", "jpeg")
    assert (again.dct, again.jpeg, again.bytes_before) == (0, 23, done.bytes)
    for name in ("dct", "jpeg"):
        assert verify(tmp_path / name, decode=True) == []
        same_but_for_codec(Pack(pack), Pack(tmp_path / name))
    samples = [Samples(path, recipes.mocov2()) for path in (pack, tmp_path / "dct", tmp_path / "jpeg")]
    for record in range(23):
        wanted, dct, restored = (one.read(record) for one in samples)
        assert dct == _C.jpeg_to_dct(wanted) and restored == _C.dct_to_jpeg(dct)
        assert_pixels_equal(np.asarray(reference.decode(restored)), np.asarray(reference.decode(wanted)))
        assert samples[1].metadata(record) == samples[0].metadata(record)
    convert(tmp_path / "jpeg", tmp_path / "third", "dct")
    assert contents(tmp_path / "third") == contents(tmp_path / "dct"), "equal input gives equal bytes"


@pytest.mark.slow
def test_zstd_there_and_back(pack: Path, tmp_path: Path) -> None:
    """From either kind to the other, and to JPEG: the same records; a pack of zstd's is built as it is converted."""
    convert(pack, tmp_path / "dct", "dct")
    done = convert(pack, tmp_path / "zstd", "dct-zstd", workers=2)
    assert (done.dct, done.jpeg) == (23, 0) and "23 records of codec dct-zstd, left as JPEG" in str(done)
    assert done.bytes < Pack(tmp_path / "dct").column("length").sum()
    assert info(tmp_path / "zstd")["codec"] == "dct-zstd" and info(tmp_path / "zstd")["codecs"]["dct"] == 23
    assert verify(tmp_path / "zstd", decode=True) == []
    same_but_for_codec(Pack(pack), Pack(tmp_path / "zstd"))
    for source, codec, same in (("zstd", "dct", "dct"), ("dct", "dct-zstd", "zstd"), ("zstd", "dct-zstd", "zstd")):
        out = tmp_path / f"{codec} of {source}"
        convert(tmp_path / source, out, codec)
        assert contents(out) == contents(tmp_path / same), out
    for source in ("zstd", "dct"):
        convert(tmp_path / source, tmp_path / f"jpeg of {source}", "jpeg")
    assert contents(tmp_path / "jpeg of zstd") == contents(tmp_path / "jpeg of dct")
    samples = [Samples(path, recipes.mocov2()) for path in (pack, tmp_path / "zstd")]
    for record in range(23):
        assert_pixels_equal(samples[1].decode(record), samples[0].decode(record))
    build([mixed(tmp_path)], tmp_path / "built", codec="dct-zstd")
    build([tmp_path / "in"], tmp_path / "plain")
    convert(tmp_path / "plain", tmp_path / "converted", "dct-zstd")
    tars = [(tmp_path / name).read_bytes() for name in ("built/shard-00000-000.tar", "converted/shard-00000.tar")]
    assert tars[0] == tars[1]


def test_batches_are_equal(pack: Path, tmp_path: Path) -> None:
    """The loader gives the same floats from either pack, with any number of threads; so do plans and single samples."""
    convert(pack, tmp_path / "dct", "dct")
    datasets = [ShardDataset(path, recipes.dino(), seed=3) for path in (pack, tmp_path / "dct")]
    for threads in (0, 2):
        loaders = [DataLoader(one, batch_size=8, shuffle=True, num_workers=threads) for one in datasets]
        batches = 0
        for (views, labels), (dct_views, dct_labels) in zip(*loaders):
            assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(views, dct_views))
            assert np.array_equal(labels, dct_labels)
            batches += 1
        assert batches == 3
    assert np.array_equal(datasets[0].plan(5), datasets[1].plan(5))
    assert all(np.array_equal(a, b) for a, b in zip(datasets[0].render(5), datasets[1].render(5)))


def test_a_state_goes_on_in_the_converted_pack(pack: Path, tmp_path: Path) -> None:
    convert(pack, tmp_path / "dct", "dct")
    first, second = (
        DataLoader(ShardDataset(path, recipes.mocov2()), batch_size=4, shuffle=True)
        for path in (pack, tmp_path / "dct")
    )
    batches = iter(first)
    next(batches)
    second.load_state_dict(first.state_dict())
    for (views, _), (other, _) in zip(batches, second):
        assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(views, other))


def test_removed_records(pack: Path, tmp_path: Path) -> None:
    """Their bytes and metadata are not copied; numbers and ids stay; the log comes along."""
    source = Path(shutil.copytree(pack, tmp_path / "source"))
    ids = [Pack(source).id_of(record) for record in range(23)]
    remove(source, [ids[3], ids[9], ids[22]], reason="a mail")
    restore(source, [ids[9]], reason="the wrong one")
    new = tmp_path / "dct"
    done = convert(source, new, "dct")
    assert (done.dct, done.erased) == (21, 2) and verify(new, decode=True) == []
    opened = Pack(new)
    same_but_for_codec(Pack(source), opened)
    assert opened.removed.tolist() == [3, 22] and opened.is_purged(3) and opened.id_of(22) == ids[22]
    row = opened.row(3)
    assert row["unickname"] is None and (row["length"], row["width"], row["label"]) == (0, 0, -1)
    log = [json.loads(line) for line in (new / "removed.jsonl").read_text().splitlines()]
    assert [line["record"] for line in log if line.get("purged")] == [3, 22]
    assert log[:4] == [json.loads(line) for line in (source / "removed.jsonl").read_text().splitlines()]
    with pytest.raises(PackError, match="purged and cannot be restored"):
        restore(new, [ids[3]], reason="too late")
    remove(new, [ids[0]], reason="another mail")
    assert purge(new).records == 1 and verify(new, decode=True) == []
    assert opened.refresh() and opened.removed.tolist() == [0, 3, 22]
    assert Samples(new, recipes.mocov2()).decode(1).shape[2] == 3
    third = convert(new, tmp_path / "jpeg", "jpeg")
    assert (third.jpeg, third.erased) == (20, 3) and Pack(tmp_path / "jpeg").removed.tolist() == [0, 3, 22]
    assert verify(tmp_path / "jpeg", decode=True) == []


def test_mixed_packs_and_labels(tmp_path: Path) -> None:
    """Every picture of the corpus, a file that stays, one damaged inside, one removed, ids that need encoding."""
    root = mixed(tmp_path)
    bad = bytearray(jpeg(noise(30, 30)))
    bad[bad.index(b"\xff\xc4") + 4] = 0x55
    write_tree(root, {"c1/bad.jpg": bytes(bad), "c0/a b.c%.jpg": jpeg(noise(12, 12))})
    build([root], tmp_path / "plain", shard_bytes=40_000)
    done = convert(tmp_path / "plain", tmp_path / "dct", "dct")
    assert (done.dct, done.jpeg) == (len(decodable()) + 1, 2)
    assert f"left as JPEG because dct cannot represent them {done.jpeg}" in str(done)
    before, after = Samples(tmp_path / "plain", recipes.mocov2()), Samples(tmp_path / "dct", recipes.mocov2())
    same_but_for_codec(before.pack, after.pack)
    assert after.pack.classes == ["c0", "c1"] and verify(tmp_path / "dct") == []
    assert len(verify(tmp_path / "dct", decode=True)) == 1
    for record in range(before.pack.records):
        if before.id_of(record) != "c1/bad":
            assert_pixels_equal(after.decode(record), before.decode(record), before.id_of(record))
    preview(tmp_path / "dct", recipes.swav(), tmp_path / "sheet.png", records=[0, 5])
    assert Image.open(tmp_path / "sheet.png").size[0] > 500


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet"])
def test_export_writes_jpegs(format: str, tmp_path: Path) -> None:
    build([mixed(tmp_path)], tmp_path / "dct", codec="dct")
    dct = Samples(tmp_path / "dct", recipes.mocov2())
    export(tmp_path / "dct", tmp_path / "out", format)
    if format == "folder":
        found = {
            str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*.jpg")
        }
        assert not list((tmp_path / "out").rglob("*.dct"))
    elif format == "webdataset":
        found = {k: v for k, v in members_of(tmp_path / "out" / "00000.tar").items() if k.endswith(".jpg")}
    else:
        (file,) = (tmp_path / "out").glob("*.parquet")
        rows = pq.read_table(file).to_pylist()
        assert all(row["image"]["path"].endswith(".jpg") for row in rows)
        found = {row["id"] + ".jpg": row["image"]["bytes"] for row in rows}
    assert len(found) == dct.pack.records
    for name, data in found.items():
        record = dct.record_of(name.removesuffix(".jpg"))
        assert_pixels_equal(np.asarray(reference.decode(data)), dct.decode(record), name)
    if format != "parquet":
        build([tmp_path / "out" if format == "folder" else tmp_path / "out" / "00000.tar"], tmp_path / "back")
        assert Pack(tmp_path / "back").records == dct.pack.records


def test_in_place_packs(pass_files: tuple[Path, Path], tmp_path: Path) -> None:
    """A pack that refers to tars becomes one of its own; a tar of dct records cannot be referred to."""
    from pass_loader.pack import index

    index([pass_files[0]], tmp_path / "refers", metadata=pass_files[1])
    convert(tmp_path / "refers", tmp_path / "dct", "dct")
    same_but_for_codec(Pack(tmp_path / "refers"), Pack(tmp_path / "dct"))
    assert verify(tmp_path / "dct", decode=True) == [] and "foreign" not in Pack(tmp_path / "dct").shards[0]
    with pytest.raises(PackError, match="a record of a pack's codec dct"):
        build([tmp_path / "dct" / "shard-00000.tar"], tmp_path / "x")


def test_a_changed_record_is_an_error(pack: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(pack, tmp_path / "source"))
    opened = Pack(source)
    with open(source / opened.shard_name(4), "rb+") as tar:
        tar.seek(int(opened.column("offset")[4]) + 50)
        tar.write(b"\0\1\2\3")
    with pytest.raises(PackError, match=f"record 4, id {opened.id_of(4)}: .*CRC"):
        convert(source, tmp_path / "dct", "dct")
    assert not (tmp_path / "dct" / "pack.json").exists()


def test_destinations(pack: Path, tmp_path: Path) -> None:
    for out, message in ((pack, "lie in one another"), (pack / "new", "lie in one another")):
        with pytest.raises(PackError, match=message):
            convert(pack, out, "dct")
    write_tree(tmp_path / "full", {"thesis.doc": b"mine"})
    with pytest.raises(PackError, match="thesis.doc"):
        convert(pack, tmp_path / "full", "dct")
    assert convert(pack, tmp_path / "dct", "dct") == convert(pack, tmp_path / "dct", "dct"), "a repeated one is done"
    with pytest.raises(PackError, match="already a pack"):
        convert(pack, tmp_path / "dct", "dct-zstd")
    with pytest.raises(ValueError, match="codec is 'raw'"):
        convert(pack, tmp_path / "raw", "raw")


def convert_it(root: Path) -> None:
    convert(root / "pack", root / "new", "dct", workers=2)


@pytest.mark.slow
def test_killed_anywhere(tmp_path: Path) -> None:
    """The same call completes to the same bytes, and keeps whole shards; a removal goes into the log once."""
    start = tmp_path / "start"
    write_tree(start / "in", {f"id{i}.jpg": jpeg(noise(16, 16, i)) for i in range(4)})
    build([start / "in"], start / "pack", shard_bytes=4100)
    remove(start / "pack", ["id2"], reason="a mail")
    *left, whole = crashes("tests.pack.test_convert:convert_it", start, tmp_path / "killed", 2)
    want = undated(contents(whole / "new"))
    assert len(want["removed.jsonl"]) == 2
    assert len(left) > trials(10, 40) and len(Pack(whole / "new").shards) == 2
    assert verify(whole / "new", decode=True) == []
    kept = 0
    for root in left:
        out = root / "new"
        done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar") if path.with_suffix(".rows").exists()}
        for path in out.glob("*.tmp"):
            path.write_bytes(path.read_bytes()[:700])
        convert_it(root)
        assert undated(contents(out)) == want and verify(out) == []
        assert {name: (out / name).stat().st_mtime_ns for name in done} == done
        kept += len(done)
    assert kept > trials(7, 30)


def test_another_run_does_not_go_on(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(self: ShardWriter, name: str, *rest: object) -> object:
        if name != "shard-00000":
            raise KeyboardInterrupt
        return write(self, name, *rest)  # type: ignore[arg-type]

    write = ShardWriter.write
    monkeypatch.setattr(ShardWriter, "write", stops)
    with pytest.raises(KeyboardInterrupt):
        convert(pack, tmp_path / "new", "dct", workers=1)
    monkeypatch.undo()
    with pytest.raises(PackError, match="unfinished packing of other sources, or with other options"):
        convert(pack, tmp_path / "new", "jpeg")
    with pytest.raises(PackError, match="unfinished"):
        build([pack / "shard-00000-000.tar"], tmp_path / "new")
    convert(pack, tmp_path / "new", "dct")
    assert verify(tmp_path / "new", decode=True) == []


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, dct, back = str(mixed(tmp_path)), str(tmp_path / "dct"), str(tmp_path / "back")
    assert main(["build", root, "--out", dct, "--codec", "dct"]) == 0
    assert "left as JPEG because it cannot represent them 1" in capsys.readouterr().out
    assert main(["convert", dct, "--codec", "jpeg", "--out", back, "--workers", "2"]) == 0
    assert f"{len(decodable()) + 1} records of codec jpeg" in capsys.readouterr().out
    assert main(["info", dct]) == 0
    assert f"jpeg 1, dct {len(decodable())}" in capsys.readouterr().out
    assert main(["verify", dct, "--decode"]) == 0 and main(["verify", back, "--decode"]) == 0
    with tarfile.open(tmp_path / "back" / "shard-00000.tar") as tar:
        assert all(name.endswith(".jpg") for name in tar.getnames())
    with pytest.raises(SystemExit):
        main(["convert", dct, "--out", back])
