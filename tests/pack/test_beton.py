"""FFCV's files become packs: what ffcv's own writer wrote, where it is installed, and what no writer should have."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pass_loader import PackError, Samples, recipes
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build
from pass_loader.pack.beton import BetonSource

from ..helpers import ffcv_file
from ..helpers.beton_writer import ARRAY, BYTES, FLOAT, IMAGE, INT, JSON, OWN, TENSOR, Raw, beton
from ..helpers.corpus import jpeg, noise

ROOT = Path(__file__).parents[2]
PICTURES = [jpeg(noise(8, 9 + number, number)) for number in range(4)]
USUAL = {"image": IMAGE, "label": INT}


def rows_of(root: Path) -> dict[str, tuple[bytes, int, dict[str, Any]]]:
    """id: bytes, label, metadata."""
    samples, pack = Samples(root, recipes.mocov2()), Pack(root)
    return {
        pack.id_of(record): (samples.read(record), int(pack.column("label")[record]), samples.metadata(record))
        for record in range(pack.records)
    }


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_pictures_and_labels(tmp_path: Path) -> None:
    """JPEGs come byte for byte, whatever the file is called; a label below 0 is none."""
    data = beton(USUAL, [(picture, number or -7) for number, picture in enumerate(PICTURES)])
    for name in ("train.beton", "train.ffcv"):
        report = build([write(tmp_path / name, data)], tmp_path / f"{name}-pack")
        assert (report.pictures, report.refused) == (4, [])
        want = {f"train-{number}": (picture, number or -1, {}) for number, picture in enumerate(PICTURES)}
        assert rows_of(tmp_path / f"{name}-pack") == want


def test_other_fields(tmp_path: Path) -> None:
    """Numbers and JSON are metadata; names that meet are told apart; arrays and other pictures are passed over."""
    fields = {"score": FLOAT, "image": IMAGE, "mask": IMAGE, "about": JSON, "id": INT, "vector": ARRAY, "raw": BYTES,
              "tags": JSON, "tensor": TENSOR, "labels": INT}  # fmt: skip
    samples = [
        (number / 2, picture, PICTURES[0], {"user": "ü", "score": "x", "labels": [1]}, 7 + number, b"1234", b"56",
         ["a", "b"], b"78", 2)
        for number, picture in enumerate(PICTURES)
    ]  # fmt: skip
    path = write(tmp_path / "t.beton", beton(fields, samples))
    with pytest.raises(PackError, match="several fields of pictures, image, mask: --image-key image packs that one"):
        build([path], tmp_path / "pack")
    with pytest.raises(PackError, match="no field of pictures 'about', which --image-key names; it has image, mask"):
        build([path], tmp_path / "pack", image_key="about")
    report = build([path], tmp_path / "pack", image_key="image")
    assert report.beside == {
        "picture of the field mask": 4, "array of the field vector": 4, "bytes of the field raw": 4,
        "tensor of the field tensor": 4,
    }  # fmt: skip
    assert rows_of(tmp_path / "pack") == {
        str(7 + number): (picture, 2, {"score": number / 2, "user": "ü", "about.score": "x", "about.labels": "[1]",
                                       "tags": '["a", "b"]'})
        for number, picture in enumerate(PICTURES)
    }  # fmt: skip


def test_raw_pictures_are_converted_if_asked_for(tmp_path: Path) -> None:
    pixels = noise(5, 7, 3)
    samples = [(Raw(7, 5, pixels.tobytes()), 1), (PICTURES[0], 2), (Raw(7, 6, pixels.tobytes()), 3)]
    path = write(tmp_path / "t.beton", beton(USUAL, samples))
    reasons = {refused.id: refused.reason for refused in build([path], tmp_path / "plain").refused}
    assert "neither JPEG nor PNG but PPM (--transcode converts it)" in reasons["t-0"]
    assert reasons["t-2"] == "its raw picture of 7 x 6 pixels has 105 bytes, want 126"
    report = build([path], tmp_path / "pack", transcode="png")
    rows = rows_of(tmp_path / "pack")
    assert (report.transcoded, [*rows]) == (1, ["t-0", "t-1"]) and rows["t-1"] == (PICTURES[0], 2, {})
    with Image.open(io.BytesIO(rows["t-0"][0])) as png:
        assert np.array_equal(np.asarray(png), pixels)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`pass-pack build data.beton` makes the pack that `build` makes, to the byte; what it refuses is a line."""
    fields = {"image": IMAGE, "mask": IMAGE, "label": INT}
    samples = [(picture, Raw(7, 5, noise(5, 7, 3).tobytes()), number) for number, picture in enumerate(PICTURES)]
    path = write(tmp_path / "data.beton", beton(fields, samples))
    assert main(["build", str(path), "--out", str(tmp_path / "none")]) == 1
    assert "several fields of pictures, image, mask: --image-key image packs that one" in capsys.readouterr().err
    for key, transcode in (("image", False), ("mask", "png")):
        out, direct = tmp_path / key, tmp_path / f"{key}-direct"
        words = ["--transcode", "png"] if transcode else []
        assert main(["build", str(path), "--out", str(out), "--image-key", key, "--strict", *words]) == 0
        assert f"{out}: 4 pictures" in capsys.readouterr().out
        build([path], direct, image_key=key, transcode=transcode)
        assert {file.name: file.read_bytes() for file in out.iterdir()} == {
            file.name: file.read_bytes() for file in direct.iterdir()
        }
    assert {name: row[0] for name, row in rows_of(tmp_path / "image").items()} == {
        f"data-{number}": picture for number, picture in enumerate(PICTURES)
    }
    assert main(["build", str(path), "--out", str(tmp_path / "raw"), "--image-key", "mask", "--strict"]) == 1
    path.write_bytes(WHOLE[:-1])
    assert main(["build", str(path), "--out", str(tmp_path / "cut")]) == 1
    assert "data.beton" in capsys.readouterr().err and not (tmp_path / "cut" / "pack.json").exists()


def changed(data: bytes, at: int, number: int, code: str = "<Q") -> bytes:
    new = bytearray(data)
    struct.pack_into(code, new, at, number)
    return bytes(new)


WHOLE = beton(USUAL, [(picture, 1) for picture in PICTURES])
ROWS = 24 + 2 * 1041
TABLE = struct.unpack_from("<Q", WHOLE, 16)[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WHOLE[:10], "cut off or damaged: it names 24 bytes at 0 of 10"),
        (b"<html>".ljust(99), "no .beton of FFCV: it begins with the version 26684, want 2; it is a web page"),
        (changed(WHOLE, 0, 3, "<H"), "it begins with the version 3, want 2; write it with ffcv 1.0"),
        (changed(WHOLE, 16, 0), "was never finished: FFCV's writer was stopped"),
        (changed(WHOLE, 2, 0, "<H"), "it names 0 fields"),
        (changed(WHOLE, 2, 65535, "<H"), "it names 65535 fields"),
        (changed(WHOLE, 8, 2**63), "samples, which do not fit before the table"),
        (changed(WHOLE, 16, 2**63), "a table at byte 9,223,372,036,854,775,808 of"),
        (WHOLE[:-1], "a table at byte"),
        (WHOLE + WHOLE[-24:], "a table at byte"),
        (WHOLE[:TABLE] + WHOLE[TABLE + 24 :] + WHOLE[TABLE : TABLE + 24], None),  # in any order
        (changed(WHOLE, TABLE + 16, len(PICTURES[0]) + 1), "pictures that lie over one another"),
        (changed(WHOLE, TABLE + 16, 2**64 - 1), "pictures that lie over one another, or past its end"),
        (changed(WHOLE, TABLE + 8, 2**64 - 1), "pictures that lie over one another, or past its end"),
        (changed(WHOLE, 24, 7, "<B"), "a field 'image' of type 7"),
        (changed(WHOLE, 24 + 1041 + 1, 0xFF, "<B"), "a field b'.xffabel"),
        (beton({"image": IMAGE, "own": OWN}, []), "the field 'own' is of a class of its own"),
        (beton({"label": INT}, [(1,)]), "no field of pictures; its fields are label"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, message: str | None) -> None:
    path = write(tmp_path / "t.beton", data)
    if message is None:
        assert build([path], tmp_path / "pack").pictures == 4
        return
    with pytest.raises(PackError, match=message) as raised:
        build([path], tmp_path / "pack")
    assert "t.beton" in str(raised.value)


@pytest.mark.parametrize(
    ("at", "number", "code", "reason"),
    [
        (5, 12, "<Q", "nothing of this sample at byte 12, where its picture should begin"),
        (5, struct.unpack_from("<Q", WHOLE, ROWS + 5)[0], "<Q", "nothing of this sample"),  # another's: no copies
        (0, 9, "<B", "its picture is of mode 9, want 0"),
        (16, 2**31, "<q", "its label 2147483648 does not fit into 32 bits"),
    ],
)
def test_damaged_samples(tmp_path: Path, at: int, number: int, code: str, reason: str) -> None:
    path = write(tmp_path / "t.beton", changed(WHOLE, ROWS + 24 + at, number, code))
    report = build([path], tmp_path / "pack")
    ((refused),) = report.refused
    assert (report.pictures, refused.id, refused.file) == (3, "t-1", "t.beton: sample 1") and reason in refused.reason


def test_damaged_json(tmp_path: Path) -> None:
    data = beton({"image": IMAGE, "about": JSON}, [(PICTURES[0], {"a": "b"}), (PICTURES[1], {"a": "c"})])
    for text, reason in ((b'{"a": b"}', "its about cannot be read"), (b'{"a": "b"', None)):
        new = data.replace(b'{"a": "b"}', text.ljust(10, b"\0"))
        report = build([write(tmp_path / "t.beton", new)], tmp_path / f"pack{reason}")
        assert [refused.id for refused in report.refused] == ["t-0"]


def test_a_file_that_is_cut_off_meanwhile(tmp_path: Path) -> None:
    path = write(tmp_path / "t.beton", WHOLE)
    source = BetonSource(path)
    *_, last = source.entries()
    path.write_bytes(WHOLE[: ROWS + 4 * 24])
    with pytest.raises(PackError, match="is cut off: sample 3 wants"):
        last.read()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ffcv") is None, reason="ffcv is not installed: `make company` builds it where it can")
def test_what_ffcv_wrote(tmp_path: Path) -> None:
    """Pictures and labels are those that ffcv's own reader finds, raw pixels those that were given to its writer."""
    path = tmp_path / "f.beton"
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.ffcv_file", str(path)], cwd=ROOT, timeout=300, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines()]
    report = build([path], tmp_path / "pack", transcode="png")
    assert report.refused == [] and len({mode for _, mode, _, _ in told}) == 2, "JPEGs and raw pictures"
    rows, data = rows_of(tmp_path / "pack"), path.read_bytes()
    assert len(rows) == len(told) == ffcv_file.COUNT
    for number, (label, mode, begin, size) in enumerate(told):
        pixels, own, score, about, _ = ffcv_file.sample(number)
        picture, *rest = rows[f"f-{number}"]
        assert rest == [label, {"score": score, "user": about["user"], "about.label": "x"}] and label == own
        if mode == 0:
            assert picture == data[begin : begin + size]
        else:
            with Image.open(io.BytesIO(picture)) as png:
                assert np.array_equal(np.asarray(png), pixels)
