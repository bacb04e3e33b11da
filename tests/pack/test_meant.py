"""What is packed is what was meant: samples of WebDataset, ids, class folders, other formats, keys of metadata."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pass_loader import PackError, Samples, recipes
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build
from pass_loader.pack.metadata import plain_key
from pass_loader.pack.sources import open_sources

from ..helpers.corpus import jpeg, noise
from ..helpers.pngwriter import png
from ..helpers.trees import tar_of, write_tree

PICTURE = [jpeg(noise(8, 8, seed)) for seed in range(6)]
FOREIGN = ["._000.jpg", ".DS_Store", "README", "LICENSE", "__MACOSX__/x.jpg"]


def rows_of(root: Path) -> dict[str, tuple[int, dict[str, object]]]:
    """Return label and metadata by id."""
    pack, samples = Pack(root), Samples(root, recipes.mocov2())
    return {pack.id_of(r): (int(pack.column("label")[r]), samples.metadata(r)) for r in range(len(pack))}


def test_foreign_files_break_no_sample(tmp_path: Path) -> None:
    files = {
        "._000.cls": b"x",
        "000.cls": b"3",
        "._000.jpg": b"x",
        "README": b"x",
        "000.JPG": PICTURE[0],
        ".DS_Store": b"",
    }
    report = build([tar_of(tmp_path / "t.tar", files)], tmp_path / "pack")
    assert rows_of(tmp_path / "pack") == {"000": (3, {})} and report.refused == []
    assert report.beside == {"._000.cls": 1, "._000.jpg": 1, "README": 1, ".DS_Store": 1}
    assert "passed over: 1 .DS_Store, 1 ._000.cls" in str(report)


def test_captions_and_other_files_of_a_sample(tmp_path: Path) -> None:
    files = {"a/0.jpg": PICTURE[0], "a/0.TXT": "ein Bär".encode(), "a/0.json": b'{"n": 4}', "a/0.npy": b"\x93NUMPY"}
    report = build([tar_of(tmp_path / "t.tar", files)], tmp_path / "pack")
    assert rows_of(tmp_path / "pack") == {"a/0": (-1, {"n": 4, "txt": "ein Bär"})}
    assert report.beside == {"npy": 1} and report.refused == []
    for name, data in (("0.txt", b"\xff"), ("0.txt", b"x"), ("0.cls", b"x")):
        tar = tar_of(
            tmp_path / "u.tar", {"0.jpg": PICTURE[0], "0.json": b'{"txt": 1}', name: data, "1.jpg": PICTURE[1]}
        )
        report = build([tar], tmp_path / f"pack{name}{data!r}")
        assert [r.id for r in report.refused] == ["0"] and "cannot be read" in report.refused[0].reason


NAMES = ["0.jpg", "0.CLS", "1.cls", "1.jpg", "1.txt", "v.1/2.JPG", "v.1/2.cls", "3.jpg", *FOREIGN]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(NAMES), unique=True))
def test_samples_are_webdatasets(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Any order of files: pictures, labels and captions are those that webdataset gives."""
    import webdataset

    path = tmp_path_factory.mktemp("wds") / "t.tar"
    tar_of(path, {name: b"7" if name.lower().endswith("cls") else name.encode() for name in names})
    want = [
        (sample["jpg"], sample.get("cls"), sample.get("txt"))
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
        if "jpg" in sample
    ]
    found = []
    for entry in open_sources([path])[0].entries():
        if entry.name.lower().endswith("jpg"):
            label = b"7" if entry.label == 7 else None
            text = (entry.metadata or {}).get("txt")
            found.append((entry.read(), label, text.encode() if text else None))
    assert found == want


def several(path: Path) -> Path:
    files: dict[str, bytes] = {}
    for n in range(3):
        files |= {f"{n}.cls": b"%d" % n, f"{n}.depth.png": b"no picture", f"{n}.image.jpg": PICTURE[n]}
    return tar_of(path, files)


def test_several_pictures_in_a_sample(tmp_path: Path) -> None:
    tar = several(tmp_path / "t.tar")
    plain = tar_of(tmp_path / "a.tar", {"x.jpg": PICTURE[5]})
    with pytest.raises(PackError, match="depth.png, image.jpg: --image-key"):
        build([plain, tar], tmp_path / "pack")
    assert not list((tmp_path / "pack").glob("*.tar*")), "before anything is packed"
    for key in ("image.jpg", ".Image.JPG"):
        report = build([tar], tmp_path / key, image_key=key)
        assert rows_of(tmp_path / key) == {str(n): (n, {}) for n in range(3)}
        assert Samples(tmp_path / key, recipes.mocov2()).read(1) == PICTURE[1] and report.beside == {"depth.png": 3}
    with pytest.raises(PackError, match="no file with the suffix mask.png.*it has cls, depth.png, image.jpg"):
        build([tar], tmp_path / "none", image_key="mask.png")
    with pytest.raises(PackError, match="for tars"):
        build([write_tree(tmp_path / "in", {"a.jpg": PICTURE[0]})], tmp_path / "none2", image_key="jpg")
    with pytest.raises(PackError, match="b.jpg, front.jpg"):
        build([tar_of(tmp_path / "b.tar", {"1.front.jpg": PICTURE[0], "1.b.jpg": PICTURE[1]})], tmp_path / "none3")
    with pytest.raises(PackError, match="files beside them"):
        build([tar], tmp_path / "none4", id="path")


@pytest.mark.parametrize("shard_bytes", [1, 1 << 30])
def test_several_pictures_late_in_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int) -> None:
    """After the entries that are looked at first, too: an error that names the option, no pack, no wrong label."""
    monkeypatch.setattr("pass_loader.pack.archives._CHECKED", 2)
    files = {f"a{n}.{end}": PICTURE[n] if end == "jpg" else b"1" for n in range(4) for end in ("jpg", "cls")}
    files |= {"z.cls": b"3", "z.depth.png": b"no picture", "z.image.jpg": PICTURE[4]}
    tar = tar_of(tmp_path / "t.tar", files)
    for _ in range(2):  # the same command again, after the cut
        with pytest.raises(PackError, match="the sample z has several pictures.*depth.png, image.jpg: --image-key"):
            build([tar], tmp_path / "pack", shard_bytes=shard_bytes)
        with pytest.raises(PackError, match="not a pack"):
            Pack(tmp_path / "pack")


CUT = {"dots": ["img_0.0.jpg", "img_0.1.jpg", "img_0.2.jpg"], "folders": ["cat/1.jpg", "dog/1.jpg", "elk/1.jpg"]}


@pytest.mark.parametrize("kind", CUT)
def test_ids_that_are_cut(tmp_path: Path, kind: str) -> None:
    tar = tar_of(tmp_path / "t.tar", {name: PICTURE[n] for n, name in enumerate(CUT[kind])})
    report = build([tar], tmp_path / "pack")
    assert report.pictures == 1 and report.ids_apart == ({"path": 2, "stem": 2} if kind == "dots" else {"path": 2})
    assert "2 of the repeated ids are cut at a dot or a folder: --id path keeps them apart" in str(report)
    assert build([tar], tmp_path / "path", id="path").refused == [] and set(rows_of(tmp_path / "path")) == {*CUT[kind]}
    if kind == "dots":
        assert build([tar], tmp_path / "stem", id="stem").refused == []
        assert set(rows_of(tmp_path / "stem")) == {"img_0.0", "img_0.1", "img_0.2"}
    again = build([tmp_path / "t.tar", tmp_path / "t.tar"], tmp_path / "again", id="path")
    assert again.same_id == 3 and again.ids_apart == {} and "--id" not in str(again), "the same file twice"


def test_suffixes_that_ids_lack(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "in", {f"a/1.{end}": PICTURE[n] for n, end in enumerate(("jpg", "jpeg", "png"))})
    report = build([folder], tmp_path / "pack")
    assert report.pictures == 1 and report.ids_apart == {"path": 2}
    assert set(rows_of(tmp_path / "pack")) == {"a/1"}
    build([folder], tmp_path / "path", id="path")
    assert set(rows_of(tmp_path / "path")) == {"a/1.jpg", "a/1.jpeg", "a/1.png"}


def test_a_tar_of_class_folders(tmp_path: Path) -> None:
    files = {f"./{c}/{n}.jpg": PICTURE[2 * i + n] for i, c in enumerate(("cat", "dog")) for n in range(2)}
    tar = tar_of(tmp_path / "t.tar", files | {"./cat/._0.jpg": b"x"})
    report = build([tar], tmp_path / "tar", class_folders=True)
    build([write_tree(tmp_path / "in", files)], tmp_path / "folder")
    assert rows_of(tmp_path / "tar") == rows_of(tmp_path / "folder") and Pack(tmp_path / "tar").classes == [
        "cat",
        "dog",
    ]
    assert report.refused == [] and report.beside == {"._0.jpg": 1}


@pytest.mark.parametrize("files", [{}, {"x.ipynb": b"{}"}, {".hidden": b""}])
def test_class_folders_without_pictures(tmp_path: Path, files: dict[str, bytes]) -> None:
    root = write_tree(tmp_path / "in", {"cat/1.jpg": PICTURE[0], "dog/deep/hash": PICTURE[1]})
    (root / ".ipynb_checkpoints").mkdir()
    write_tree(root / ".ipynb_checkpoints", files)
    with pytest.raises(PackError, match="class folders .ipynb_checkpoints hold no picture.*--allow-empty"):
        build([root], tmp_path / "pack")
    build([root], tmp_path / "pack2", allow_empty=True)
    assert {id: label for id, (label, _) in rows_of(tmp_path / "pack2").items()} == {"cat/1": 1, "dog/deep/hash": 2}


def test_other_formats_without_loss(tmp_path: Path) -> None:
    pixels, deep = noise(9, 7), np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000
    pictures = {
        "a.webp": (Image.fromarray(pixels), {"lossless": True}), "b.tif": (Image.fromarray(pixels), {}),
        "c.bmp": (Image.fromarray(pixels), {}), "d.gif": (Image.fromarray(pixels[:, :, 0]), {}),
        "e.tif": (Image.fromarray(deep), {}),
        "f.webp": (Image.fromarray(np.dstack([pixels, pixels[:, :, :1]])), {"lossless": True, "exact": True}),
    }  # fmt: skip
    files = {"j.jpg": PICTURE[0]}
    for name, (picture, options) in pictures.items():
        out = io.BytesIO()
        picture.save(out, {"tif": "TIFF", "webp": "WEBP"}.get(name[2:], name[2:].upper()), **options)
        files[name] = out.getvalue()
    for mode, name in (("CMYK", "y.tif"), ("F", "z.tif")):
        out = io.BytesIO()
        Image.new(mode, (3, 3)).save(out, "TIFF")
        files[name] = out.getvalue()
    files["p.png"] = png(noise(5, 6))
    report = build([write_tree(tmp_path / "in", files)], tmp_path / "pack", transcode="png")
    assert (report.pictures, report.transcoded, sorted(r.id for r in report.refused)) == (8, 6, ["y", "z"])
    samples = Samples(tmp_path / "pack", recipes.mocov2())
    for name, (picture, _) in pictures.items():
        stored = Image.open(io.BytesIO(samples.read(samples.record_of(name[0]))))
        want = picture.convert("RGB") if name == "d.gif" else picture
        assert np.array_equal(np.asarray(stored), np.asarray(want)) and stored.format == "PNG", name
        if name != "e.tif":
            decoded = samples.decode(samples.record_of(name[0]))
            assert np.array_equal(decoded, np.asarray(picture.convert("RGB"))), name
    assert samples.read(samples.record_of("j")) == PICTURE[0]
    assert samples.read(samples.record_of("p")) == files["p.png"], "a PNG stays as it is"
    with pytest.raises(ValueError, match="transcode is 'gif'"):
        build([tmp_path / "in"], tmp_path / "no", transcode="gif")


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--transcode` takes a word or none, also before a source."""
    out = io.BytesIO()
    Image.fromarray(noise(5, 5)).save(out, "BMP")
    root = str(write_tree(tmp_path / "in", {"a.bmp": out.getvalue()}))
    for number, (arguments, codec) in enumerate((
        ([root, "--transcode"], "jpeg"), (["--transcode", root], "jpeg"), ([root, "--transcode", "png"], "png"),
        (["--transcode=jpeg", root], "jpeg"),
    )):  # fmt: skip
        assert main(["build", *arguments, "--out", str(tmp_path / str(number))]) == 0
        data = Samples(tmp_path / str(number), recipes.mocov2()).read(0)
        assert data.startswith(b"\x89PNG" if codec == "png" else b"\xff\xd8"), arguments
    tar = str(several(tmp_path / "t.tar"))
    assert main(["build", tar, "--out", str(tmp_path / "key")]) == 1 and "--image-key" in capsys.readouterr().err
    assert main(["build", tar, "--out", str(tmp_path / "key2"), "--image-key", "image.jpg", "--id", "stem"]) == 0
    assert main(["index", tar, "--out", str(tmp_path / "key3"), "--image-key", "image.jpg"]) == 0
    assert set(rows_of(tmp_path / "key2")) == {f"{n}.image" for n in range(3)}


NEAR = [("a1.jpg", "a1", "suffix"), (" a1", "a1", "blanks"), ("7", "007", "zeros"), ("007", "7", "zeros"),
        ("A1", "a1", "capitals"), ("x/a1.PNG", "a1", "folder and in the suffix")]  # fmt: skip


@pytest.mark.parametrize("key, id, why", NEAR)
def test_keys_that_nearly_fit(tmp_path: Path, key: str, id: str, why: str) -> None:
    root = write_tree(tmp_path / "in", {f"{id}.jpg": PICTURE[0], "other.jpg": PICTURE[1]})
    (tmp_path / "m.csv").write_text(f"hash,x\n{key},1\nother,2\n")
    report = build([root], tmp_path / "pack", metadata=tmp_path / "m.csv")
    assert report.without_metadata == 1 and len(report.hints) == 1 and report.hints[0] in str(report)
    assert f"has {key!r} for the id {id!r}" in report.hints[0] and why in report.hints[0]
    assert plain_key(key) == plain_key(id)


def test_keys_that_do_not_fit(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"a.jpg": PICTURE[0]})
    for text, hints in (("b,1", 1), ("a,1", 0), ("a,1\nb,2", 0)):
        (tmp_path / "m.csv").write_text(f"hash,x\n{text}\n")
        report = build([root], tmp_path / f"pack{len(text)}{text[0]}", metadata=tmp_path / "m.csv")
        assert len(report.hints) == hints
        assert not hints or "values such as 'b', ids are such as 'a'" in report.hints[0]


def test_tables_in_words(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"a.jpg": PICTURE[0]})
    huge = 'hash,x\na,"' + "x\n" * (5 << 20)
    for content, words in (
        (b"hash,latitude\na,1\nb,north\n", "line 3, column 'latitude': 'north' is no number"),
        ("hash,x\na,1\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (huge.encode(), "a row of more than 4,194,304 bytes: often a quote that is never closed"),
    ):
        (tmp_path / "m.csv").write_bytes(content)
        with pytest.raises(PackError, match=words):
            build([root], tmp_path / "pack", metadata=tmp_path / "m.csv")


JPEGS = [jpeg(noise(8, 8, 10)), jpeg(noise(8, 8, 11))]
BROKEN = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"x\xff")]
)
LATE = pa.array([0, 2**62], pa.timestamp("us"))  # no date that Python has


@pytest.mark.parametrize(
    "content, words",
    [
        ("hash,x,y\na,1,2\nb,3,Jürgen\n".encode("latin1"), "line 3, column 'y': b'J.xfcrgen' is not UTF-8"),
        (b"hash,x\na,1\nb,1,2\n", "line 3 has 3 columns, the first line 2"),
        (b'{"hash": "a"}\n', "it is JSON: .*read_json"),
        (b"PK\3\4....", "a spreadsheet: save its table as CSV"),
        (b"hash\tx\na\t1\n", "parted by tabs"),
        (pa.table({"hash": ["a", "b"], "x": BROKEN}), "row 1, column 'x': Invalid UTF8"),
        (pa.table({"hash": BROKEN, "x": [1, 2]}), "row 1, column 'hash': Invalid UTF8"),
        (pa.table({"hash": ["a", "b"], "x": LATE}), "row 1, column 'x': date value out of range"),
        (pa.table({"hash": [["a"], ["b"]]}), "column 'hash' holds list.*; ids are text or whole numbers"),
    ],
)
def test_wrong_values_of_tables(tmp_path: Path, content: bytes | pa.Table, words: str) -> None:
    """Of CSV and Parquet files: row or line, and column."""
    root = write_tree(tmp_path / "in", {"a.jpg": PICTURE[0]})
    if isinstance(content, bytes):
        (tmp_path / "m").write_bytes(content)
    else:
        pq.write_table(content, tmp_path / "m")
    with pytest.raises(PackError, match=words):
        build([root], tmp_path / "pack", metadata=tmp_path / "m")


@pytest.mark.parametrize("column, words", [(BROKEN, "row 1, column 'x': .*utf-8"), (LATE, "row 1, column 'x': date")])
def test_wrong_values_of_parquet_sources(tmp_path: Path, column: pa.Array, words: str) -> None:
    pq.write_table(pa.table({"image": JPEGS, "id": ["a", "b"], "x": column}), tmp_path / "p.parquet")
    with pytest.raises(PackError, match=words):
        build([tmp_path / "p.parquet"], tmp_path / "pack")


def test_rows_without_a_key(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"a.jpg": PICTURE[0], "b.jpg": PICTURE[1]})
    pq.write_table(pa.table({"hash": ["a", None, None], "x": [1, 2, 3]}), tmp_path / "m.parquet")
    report = build([root], tmp_path / "pack", metadata=tmp_path / "m.parquet")
    assert (report.without_metadata, report.metadata_unused, report.hints) == (1, 2, [])


def test_what_does_not_go_together_ends_early(tmp_path: Path) -> None:
    """Labels by name and by number, columns of sources and of the table: not after all that is packed before."""
    names = write_tree(tmp_path / "in", {"cat/2.jpg": PICTURE[0]})
    numbers = tar_of(tmp_path / "n.tar", {"1.cls": b"4", "1.jpg": PICTURE[1]})
    columns = tar_of(tmp_path / "c.tar", {"1.json": b'{"x": 4}', "1.jpg": PICTURE[1]})
    (tmp_path / "m.csv").write_text("hash,x\na,1\n")
    for number, (second, table, words) in enumerate((
        (numbers, None, "numbers as labels, others names .cat.: pack them apart"),
        (columns, tmp_path / "m.csv", "c.tar and .*m.csv both have the columns"),
    )):  # fmt: skip
        with pytest.raises(PackError, match=words):
            build([names, second], tmp_path / str(number), metadata=table, shard_bytes=1)
        assert not (tmp_path / str(number) / "shard-00000-001.tar").exists()


def test_what_was_said_is_kept(tmp_path: Path) -> None:
    """A report goes through JSON and stays the same: it is kept for a build that is cut off after its last step."""
    report = build([several(tmp_path / "t.tar")], tmp_path / "pack", image_key="image.jpg")
    assert type(report).of_dict(json.loads(json.dumps(asdict(report)))) == report
