"""Limits of what one picture may be: pixels and scans, for build and loader."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import pass_loader
from pass_loader import BadPictureError, PackError, RecordError, _C, recipes
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, convert, verify
from pass_loader.pack.inspect import inspect

from ..helpers.corpus import jpeg, many_scans, noise
from ..helpers.pngwriter import RGB, png
from ..helpers.trees import write_tree

PROGRESSIVE = 10  # scans of a progressive file of libjpeg's


def of_size(data: bytes, height: int, width: int) -> bytes:
    """Return a progressive file whose header claims this size."""
    frame = data.index(b"\xff\xc2")
    sides = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return data[: frame + 5] + sides + data[frame + 9 :]


@pytest.mark.parametrize(("side", "most"), [(10_000, 40), (13_377, 22), (2_000, 500)])
def test_pixels_times_scans_have_a_limit(side: int, most: int) -> None:
    """4,000,000,000 of them: a progressive file of 639 kB with 490 scans of 10,000 x 10,000 took 16 s."""
    _C.check_scans(of_size(many_scans(most - PROGRESSIVE), side, side))
    too_many = of_size(many_scans(most - PROGRESSIVE + 1), side, side)
    with pytest.raises(BadPictureError, match=rf"more than {most} scans, .* unless max_scans \(--max-scans\) is given"):
        _C.check_scans(too_many)
    _C.check_scans(too_many, max_scans=most + 1)


def test_a_given_limit_counts_alone() -> None:
    """The decoder and the count, which decodes nothing, agree."""
    data = many_scans(600)
    for accepts in (_C.check_scans, _C.check_decodes):
        accepts(data, max_scans=600 + PROGRESSIVE)
        with pytest.raises(BadPictureError, match="more than 609 scans, which is max_scans"):
            accepts(data, max_scans=609)
        with pytest.raises(BadPictureError, match="more than 500 scans"):
            accepts(data)
    _C.jpeg_to_dct(data, max_scans=610)  # which stays as it is
    with pytest.raises(BadPictureError, match="more than 609 scans"):
        _C.jpeg_to_dct(data, max_scans=609)


def test_what_looks_like_a_scan_is_not_counted() -> None:
    data = jpeg(noise(64, 64), exif=b"Exif\0\0" + b"\xff\xda\0\2" * 50, restart_marker_blocks=1)
    assert data.count(b"\xff\xda") >= 51 and b"\xff\xd0" in data
    _C.check_scans(data, max_scans=1)
    _C.check_scans(data[:-2] + b"\xff\xd9" + b"\xff\xda\0\2" * 9, max_scans=1)  # after its end


def test_counting_ends_on_anything() -> None:
    data = many_scans(20)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        changed = bytearray(data[: rng.integers(1, len(data))])
        changed[rng.integers(len(changed))] = rng.integers(256)
        try:
            _C.check_scans(bytes(changed), max_scans=5)
        except BadPictureError:
            continue


@pytest.mark.parametrize("kind", ["jpeg", "png", "dct"])
def test_pixels(kind: str) -> None:
    data = png(noise(30, 40), 8, RGB) if kind == "png" else jpeg(noise(30, 40))
    data = _C.jpeg_to_dct(data) if kind == "dct" else data
    assert data is not None
    for call in (_C.read_header, _C.check_decodes):
        call(data, max_pixels=1200)
        with pytest.raises(BadPictureError, match=r"30 x 40 .* is 1200 pixels, more than max_pixels .* is 1199"):
            call(data, max_pixels=1199)


def files() -> dict[str, bytes]:
    return {"a.jpg": jpeg(noise(30, 40)), "large.jpg": jpeg(noise(60, 40)), "scans.jpg": many_scans(20)}


def test_build_refuses_and_says_why(tmp_path: Path) -> None:
    source = write_tree(tmp_path / "in", files())
    report = build([source], tmp_path / "pack", max_pixels=1200, workers=1)
    assert report.pictures == 1 and all("max_pixels" in refused.reason for refused in report.refused)
    report = build([source], tmp_path / "scans", max_scans=29, workers=1)
    assert report.pictures == 2 and [refused.reason for refused in report.refused] == [
        "JPEG: more than 29 scans, which is max_scans"
    ]
    command = ["build", str(source), "--out", str(tmp_path / "cli"), "--max-pixels", "3000", "--max-scans", "30"]
    assert main([*command, "--workers", "1"]) == 0
    assert Pack(tmp_path / "cli").manifest["records"] == 2  # 64 x 64 is more
    for wrong in ({"max_pixels": 0}, {"max_pixels": 178_956_971}, {"max_scans": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            build([source], tmp_path / "wrong", **wrong)  # type: ignore[arg-type]


def test_the_loader_takes_it_for_a_bad_record(tmp_path: Path) -> None:
    build([write_tree(tmp_path / "in", files())], tmp_path / "pack", workers=1)
    dataset = pass_loader.ShardDataset(tmp_path / "pack", recipes.byol())
    assert len(next(iter(pass_loader.DataLoader(dataset, 3)))) == 3
    for limit in ({"max_pixels": 2400}, {"max_scans": 29}):
        loader = pass_loader.DataLoader(dataset, 3, **limit)  # type: ignore[arg-type]
        with pytest.raises(RecordError, match=next(iter(limit))):
            next(iter(loader))
        replaced = pass_loader.DataLoader(dataset, 3, on_error="replace", num_workers=1, **limit)  # type: ignore[arg-type]
        next(iter(replaced))
        assert {error.record for error in replaced.errors} <= {1, 2} and replaced.errors
    for wrong in ({"max_pixels": 0}, {"max_pixels": 178_956_971}, {"max_scans": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            pass_loader.DataLoader(dataset, **wrong)  # type: ignore[arg-type]


def test_verify_and_convert_take_them(tmp_path: Path) -> None:
    """A pack that `build` made with other limits than the defaults can be proven, and converted, with the same ones."""
    source = write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(30, 40)), "scans.jpg": many_scans(600)})
    build([source], tmp_path / "pack", max_scans=700, workers=1)
    (problem,) = verify(tmp_path / "pack", decode=True)
    assert "id scans" in problem and "more than 500 scans" in problem
    assert verify(tmp_path / "pack") == [] and verify(tmp_path / "pack", decode=True, max_scans=700) == []
    (problem,) = verify(tmp_path / "pack", decode=True, max_scans=700, max_pixels=1300)
    assert "id scans" in problem and "max_pixels" in problem, "64 x 64"
    assert main(["verify", str(tmp_path / "pack"), "--decode", "--max-scans", "700", "--max-pixels", "5000"]) == 0
    assert main(["verify", str(tmp_path / "pack"), "--decode"]) == 1
    with pytest.raises(ValueError, match="max_scans"):
        verify(tmp_path / "pack", max_scans=0)
    for name, limits, dct in (("default", {}, 1), ("pixels", {"max_pixels": 1199, "max_scans": 700}, 0)):
        done = convert(tmp_path / "pack", tmp_path / name, "dct", **limits)  # type: ignore[arg-type]
        assert (done.dct, done.jpeg) == (dct, 2 - dct), name
    with pytest.raises(PackError, match="other options"):
        convert(tmp_path / "pack", tmp_path / "pixels", "dct", max_pixels=1200)
    convert(tmp_path / "pack", tmp_path / "dct", "dct")
    with pytest.raises(PackError, match="id a: .*more than max_pixels"):
        convert(tmp_path / "dct", tmp_path / "back", "jpeg", max_pixels=1199)


def webp(kind: str, height: int, width: int) -> bytes:
    """Return a WebP that claims a size, and has no pixels."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = {
        "VP8X": bytes(4) + sides,
        "VP8L": b"\x2f" + ((height - 1) << 14 | (width - 1)).to_bytes(4, "little"),
        "VP8 ": b"\x10\2\0\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little"),
    }[kind].ljust(20, b"\0")
    chunk = kind.encode() + len(body).to_bytes(4, "little") + body
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk


@pytest.mark.parametrize("kind", ["VP8X", "VP8L", "VP8 "])
@pytest.mark.parametrize("to", ["jpeg", "png"])
def test_a_webp_is_measured_before_pillow_takes_memory(monkeypatch: pytest.MonkeyPatch, kind: str, to: str) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("Pillow opens it")

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", opened)
        with pytest.raises(BadPictureError, match="16000 x 12000 .* is 192000000 pixels, more than max_pixels"):
            inspect(webp(kind, 16000, 12000), to)
        with pytest.raises(BadPictureError, match="300 x 200 .* is 60000 pixels, more than max_pixels .* is 59999"):
            inspect(webp(kind, 300, 200), to, max_pixels=59_999)
    with pytest.raises(BadPictureError, match="Pillow cannot read it"):
        inspect(webp(kind, 300, 200), to, max_pixels=60_000)


@pytest.mark.parametrize("format", ["WEBP", "TIFF", "BMP", "GIF", "PNG"])
def test_pillow_does_not_load_what_is_too_large(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    out = io.BytesIO()
    Image.fromarray(noise(30, 40)).save(out, format)
    assert inspect(out.getvalue(), "jpeg", max_pixels=1200).height == 30

    def loaded(*_: object) -> None:
        raise AssertionError("Pillow decodes it")

    monkeypatch.setattr(Image.Image, "convert", loaded)
    with pytest.raises(BadPictureError, match="30 x 40 .* is 1200 pixels, more than max_pixels .* is 1199"):
        inspect(out.getvalue(), "jpeg", max_pixels=1199)


def test_no_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for an EPS."""
    started: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **_: started.append(arguments))
    with pytest.raises(BadPictureError, match="Pillow cannot read it"):
        inspect(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n", "png")
    assert not started
