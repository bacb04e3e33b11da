"""PNG: decoded as Pillow decodes it, refused where Pillow refuses; packed as it is and read again by every command."""

from __future__ import annotations

import io
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import photographs
from pass_loader import BadPictureError, RecordError, Samples, _C, recipes
from pass_loader.recipes import reference
from pass_loader.pack import Pack, build, convert, export, info, verify
from pass_loader.data.preview import preview

from ..helpers.compare import assert_pixels_equal
from ..helpers.corpus import jpeg, noise, position_coded
from ..helpers.pngwriter import (
    GRAY,
    GRAY_ALPHA,
    KINDS,
    MAGIC,
    PALETTE,
    RGB,
    RGB_ALPHA,
    chunk,
    drawn,
    palette,
    png,
)
from ..helpers.trees import write_tree
from ..helpers.trials import trials
from ..helpers.with_torch import DataLoader, ShardDataset, needs_torch


pytestmark = [pytest.mark.oracle, pytest.mark.hostile]
KINDS += [(8, RGB), (8, GRAY_ALPHA), (8, RGB_ALPHA)]


def by_pillow(data: bytes, channels: int = 3) -> np.ndarray | None:
    """Return (height, width, channels); a gray picture of 16 bits (height, width, 1) uint16."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.mode != "I;16":
                picture = picture.convert("RGB" if channels == 3 else "L")
            return np.asarray(picture).reshape(picture.height, picture.width, -1)
    except Exception:  # Pillow refuses in many ways
        return None


def by_us(data: bytes, channels: int = 3) -> np.ndarray | None:
    try:
        return _C.decode(data, channels)
    except BadPictureError:
        return None


@pytest.mark.parametrize("bits,colour", KINDS)
@pytest.mark.parametrize("interlaced", [False, True])
def test_every_kind_as_pillow(bits: int, colour: int, interlaced: bool, isa: str) -> None:
    """Kills: samples that are not widened, alpha that stays, a pass that is left out, IDAT chunks taken for one."""
    for size in ((1, 1), (3, 7), (9, 4), (20, 33), (65, 130)):
        own = palette(bits) if colour == PALETTE else None
        data = png(drawn(bits, colour, *size), bits, colour, interlaced=interlaced, data_bytes=37, palette=own)
        for channels in (3, 1):
            want, found = by_pillow(data, channels), by_us(data, channels)
            assert found is not None and want is not None and found.dtype == want.dtype
            assert_pixels_equal(found, want, (size, channels))


@pytest.mark.slow
def test_pictures_that_pillow_writes(isa: str) -> None:
    for photograph in photographs().values():
        for mode in ("RGB", "L", "P", "1", "RGBA"):
            out = io.BytesIO()
            photograph.convert(mode).save(out, "PNG", dpi=(72, 72))
            assert_pixels_equal(_C.decode(out.getvalue()), np.asarray(reference.decode(out.getvalue())), mode)


def test_what_stands_beside_the_pixels_means_nothing() -> None:
    """Gamma, significant bits, transparency and profiles do not change Pillow's pixels. An unknown chunk too."""
    beside = chunk(b"gAMA", struct.pack(">I", 20000)) + chunk(b"sBIT", bytes([3])) + chunk(b"prVt", b"x" * 50)
    gray = png(drawn(8, GRAY, 9, 9), extra=beside + chunk(b"tRNS", bytes([0, 7])))
    colours = png(drawn(8, PALETTE, 9, 9), 8, PALETTE, palette=palette(8), extra=chunk(b"tRNS", bytes(100)))
    for data in (gray, colours):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)  # Pillow's, about palettes with transparency
            assert_pixels_equal(_C.decode(data), by_pillow(data))


def refused() -> dict[str, tuple[bytes, str]]:
    good, pixels = png(drawn(8, GRAY, 12, 10)), drawn(8, GRAY, 4, 4)

    def header(height: int, width: int, *more: int) -> bytes:
        fields = struct.pack(">II", width, height) + bytes(more or (8, 0, 0, 0, 0))
        return MAGIC + chunk(b"IHDR", fields) + good[33:]

    return {
        "16-bit colour": (png(drawn(16, RGB, 4, 4), 16, RGB), "colour of 16 bits a sample is not decoded"),
        "16-bit colour, alpha": (png(drawn(16, RGB_ALPHA, 4, 4), 16, RGB_ALPHA), "colour of 16 bits a sample"),
        "16-bit gray, alpha": (png(drawn(16, GRAY_ALPHA, 4, 4), 16, GRAY_ALPHA), "gray and alpha of 16 bits"),
        "bomb": (header(65_000, 65_000), "4225000000 pixels, more than the limit of 178956970"),
        "long": (header(2, 70_000), r"size is 2 x 70000 \(height x width\), want sides in \[1, 65535\]"),
        "empty": (header(0, 5), "size is 0 x 5"),
        "no PNG's bits": (header(12, 10, 16, 3, 0, 0, 0), "16 bits of colour type 3 are no PNG"),
        "interlace 2": (header(12, 10, 8, 0, 0, 0, 2), "interlace 2 are unknown"),
        "animated": (png(pixels, extra=chunk(b"acTL", struct.pack(">II", 1, 0))), "it is animated"),
        "no palette": (png(pixels, 8, PALETTE), "without a palette"),
        "long palette": (png(pixels, 8, PALETTE, palette=bytes(771)), "a palette of 771 bytes"),
        "no pixels": (good[:33] + chunk(b"IEND", b""), "it ends without pixels"),
        "twice": (png(pixels, extra=good[8:33]), "two IHDR chunks"),
        "begins otherwise": (MAGIC + chunk(b"gAMA", bytes(4)) + good[8:], "begins with gAMA, want IHDR"),
        "wrong CRC": (good[:29] + b"\0\0\0\0" + good[33:], "chunk IHDR at byte 8 has a wrong CRC"),
        "cut off": (good[:-40], "cut off: all bytes are read and the picture is not complete"),
        "cut off in its header": (good[:30], "cut off in its header: chunk IHDR at byte 8"),
    }


@pytest.mark.parametrize("name", refused())
def test_refusals(name: str) -> None:
    data, words = refused()[name]
    with pytest.raises(BadPictureError, match=words):
        _C.check_decodes(data)


def outcome(data: bytes) -> str:
    ours, pillows = by_us(data), by_pillow(data)
    if ours is None or pillows is None:
        return "both refuse" if ours is None and pillows is None else "one refuses"
    return "equal" if ours.shape == pillows.shape and (ours == pillows).all() else "different"


SMALL = {
    "gray": png(drawn(8, GRAY, 12, 10)),
    "chunks": png(drawn(8, RGB, 6, 5), 8, RGB, data_bytes=20),
    "interlaced": png(position_coded(10, 9), 8, RGB, interlaced=True, data_bytes=60),
    "palette": png(drawn(2, PALETTE, 9, 8), 2, PALETTE, palette=palette(2), interlaced=True),
    "deep": png(drawn(16, GRAY, 7, 6), 16),
    "more": png(drawn(8, GRAY, 5, 5), extra=chunk(b"prVt", b"abc")) + chunk(b"tEXt", b"Title\0after the end"),
}
SMALL["after"] = SMALL["gray"][:-12] + chunk(b"prVt", b"after the pixels") + SMALL["gray"][-12:]


@pytest.mark.parametrize("name", SMALL)
def test_every_truncation_as_pillow(name: str) -> None:
    """Kills: rows that are invented, an end that must be there, a chunk after the pixels that may be cut."""
    data = SMALL[name]
    outcomes = Counter(outcome(data[:length]) for length in range(len(data)))
    assert set(outcomes) == {"both refuse", "equal"} and outcomes["both refuse"] > len(data) / 2, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_flipped_bit_as_pillow(name: str) -> None:
    """Kills: CRCs that are not looked at, or those of IDAT chunks that are; a length that is believed."""
    data = SMALL[name]
    outcomes: Counter[str] = Counter()
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            outcomes[outcome(bytes(changed))] += 1
    assert set(outcomes) == {"both refuse", "equal"}, outcomes


def test_random_bytes_do_not_crash() -> None:
    rng = np.random.default_rng(5)
    for length in [*range(0, 1500, 7)] * trials(1, 100):
        by_us(MAGIC + rng.bytes(length))
        by_us(SMALL["gray"][:41] + rng.bytes(length))
        by_us(SMALL["palette"][:80] + rng.bytes(length))


def test_a_refusal_leaves_the_next_decode_alone() -> None:
    decoder = _C.Decoder()
    for data, _ in refused().values():
        with pytest.raises(BadPictureError):
            decoder.decode(data)
        decoder.decode(SMALL["interlaced"])
        decoder.decode(jpeg(noise(9, 9)))


def test_header() -> None:
    deep = _C.read_header(SMALL["deep"])
    assert (deep["height"], deep["width"], deep["components"], deep["bits"], deep["ends"]) == (7, 6, 1, 16, True)
    colour = _C.read_header(SMALL["interlaced"])
    assert (colour["components"], colour["bits"], colour["progressive"]) == (3, 8, True)
    assert not _C.read_header(SMALL["gray"][:-1])["ends"]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    photograph = photographs()["flower.jpg"].resize((120, 90))
    gray = np.asarray(photograph.convert("L"))
    return {
        "a/gray.png": png(gray),
        "a/colour.png": png(np.asarray(photograph), 8, RGB, interlaced=True),
        "b/deep.png": png(gray.astype(np.uint16) * 257 - 100, 16),
        "b/photo.jpg": jpeg(photograph),
    }


@pytest.fixture(scope="module")
def pack(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("png")
    report = build([write_tree(place / "in", files)], place / "pack", decode=True)
    assert (report.pictures, report.png, report.deep, report.gray, report.refused) == (4, 3, 1, 2, [])
    assert "PNG 3, of them gray of 16 bits 1" in str(report)
    return place / "pack"


def test_packed_as_they_are(pack: Path, files: dict[str, bytes]) -> None:
    samples = Samples(pack, recipes.mae(size=16))
    for name, data in files.items():
        record = samples.record_of(name.rpartition(".")[0])
        assert samples.read(record) == data
        assert samples.pack.row(record)["codec"] == ("jpeg" if name.endswith("jpg") else "png")
        assert_pixels_equal(samples.decode(record), by_pillow(data) if "png" in name else _C.decode(data))
    facts = info(pack)
    assert facts["codecs"] == {"jpeg": 1, "dct": 0, "png": 3} and facts["height"]["most"] == 90
    checked = verify(pack, decode=True)
    assert checked == [] and checked.decoded == 4


def test_commands(pack: Path, files: dict[str, bytes], tmp_path: Path) -> None:
    """export, build of what it wrote, convert there and back, preview."""
    for format in ("folder", "webdataset", "parquet"):
        export(pack, tmp_path / format, format)
        source = [tmp_path / format] if format == "folder" else sorted((tmp_path / format).iterdir())
        build(source, tmp_path / f"from-{format}")
        again, before = Pack(tmp_path / f"from-{format}"), Pack(pack)
        assert sorted(again.all_ids().to_pylist()) == sorted(before.all_ids().to_pylist())
        assert sorted(again.column("crc32c").tolist()) == sorted(before.column("crc32c").tolist())
    assert (tmp_path / "folder/a/gray.png").read_bytes() == files["a/gray.png"]
    done = convert(pack, tmp_path / "dct", "dct")
    assert (done.dct, done.jpeg, done.png) == (1, 0, 3) and "PNGs left as they are 3" in str(done)
    assert verify(tmp_path / "dct", decode=True) == []
    back = convert(tmp_path / "dct", tmp_path / "jpeg", "jpeg")
    assert (back.dct, back.jpeg, back.png) == (0, 1, 3)
    preview(pack, recipes.mae(size=48), tmp_path / "sheet.png")
    for codec in ("png", "webp"):
        with pytest.raises(ValueError, match="want one of"):
            convert(pack, tmp_path / "no", codec)


@needs_torch
def test_damaged_ones_are_found(files: dict[str, bytes], tmp_path: Path) -> None:
    """A cut-off file at packing, a wrong bit in the pixels by decode, both with words."""
    data = files["a/gray.png"]
    middle = bytearray(data)
    middle[len(data) // 2] ^= 255
    tree = {"cut.png": data[:-200], "broken.png": bytes(middle), "good.png": data, "gif.png": b"GIF89a"}
    report = build([write_tree(tmp_path / "in", tree)], tmp_path / "pack")
    assert {refusal.id for refusal in report.refused} == {"cut", "gif"}
    assert any(refusal.reason.startswith("PNG: cut off") for refusal in report.refused)
    assert any("neither JPEG nor PNG but GIF (--transcode converts it)" in r.reason for r in report.refused)
    assert len(problems := verify(tmp_path / "pack", decode=True)) == 1 and "id broken: PNG: " in problems[0]
    dataset = ShardDataset(tmp_path / "pack", recipes.mae(size=16))
    with pytest.raises(RecordError, match="id broken: PNG: "):
        list(DataLoader(dataset, 2, num_workers=1))


@needs_torch
def test_batches(pack: Path, isa: str) -> None:
    """Views of PNGs and JPEGs in one batch equal Pillow's."""
    dataset = ShardDataset(pack, recipes.mae_thorax(size=32), seed=3)
    views, _ = next(iter(DataLoader(dataset, 4, num_workers=2)))
    for record in range(4):
        if dataset.pack.id_of(record) == "b/deep":
            continue
        picture = reference.decode(dataset.read(record))
        want = reference.normalize(reference.render(picture, dataset.plan(record)[0]), dataset.recipe)
        assert np.array_equal(views[record].numpy(), want), record
