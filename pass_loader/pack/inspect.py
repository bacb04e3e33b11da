"""Looks at one picture's bytes and decides whether they are packed as they are, transcoded, or refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .. import _C
from ..errors import BadPictureError
from .limits import limits

_PNG = b"\x89PNG\r\n\x1a\n"
_KNOWN = (  # what else a file may be, for the message
    (_PNG, "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"P6 ", "PPM"),
    (b"<!doctype", "HTML"),
    (b"<html", "HTML"),
    (b"PLDC", "a record of a pack's codec dct (`pass-pack export` and `convert` make JPEGs of them)"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """Bytes that will be packed and what their header says. Sizes in pixels, before any Exif rotation.

    points: the entry points of bytes that were decoded whole without error or warning, b"" where they have none; None:
    they were not, or there was a warning.
    """

    data: bytes
    height: int
    width: int
    components: int
    progressive: bool
    exif_rotated: bool
    transcoded: bool = False
    codec: str = "jpeg"
    bits: int = 8  # a component
    points: bytes | None = None


def encoded(picture: Picture, codec: str, max_scans: int | None = None) -> Picture:
    """Return the picture as one of JPEG_CODECS; as it is where "dct" cannot represent it, and a PNG in any case.

    Raises BadPictureError where it has to be decoded and cannot be.
    """
    if picture.codec == "png" or picture.codec == codec == "jpeg":
        return picture
    if codec == "jpeg":
        return replace(picture, data=_C.dct_to_jpeg(picture.data), codec=codec, points=None)
    zstd = codec == "dct-zstd"
    if picture.codec == "jpeg":
        data = _C.jpeg_to_dct(picture.data, zstd, max_scans or 0)
    else:
        data = _C.layer_dct(picture.data, zstd)
    if data is None:
        return picture
    points = b"" if picture.codec == "jpeg" else proof_of(data)  # jpeg_to_dct has decoded the record whole
    return replace(picture, data=data, codec="dct", points=points)


def proof_of(data: bytes) -> bytes | None:
    """Return the entry points of a record, b"" where it has none; None where it decodes with an error or a warning."""
    try:
        return _proven(data, {})
    except BadPictureError:
        return None


def _proven(data: bytes, most: dict[str, int]) -> bytes | None:
    """Decode a record whole; return what Picture.points is. Raises BadPictureError."""
    clean, points = _C.prove(data, **most)
    return points if clean else None


def inspect(
    data: bytes, transcode: bool | str = False, decode: bool = False, max_pixels: int | None = None,
    max_scans: int | None = None,
) -> Picture:  # fmt: skip
    """Return the picture that is to be packed. Raises BadPictureError with the reason for a refusal.

    transcode: "jpeg" turns other formats and PNGs into JPEG, "png" other formats into PNG; True is "jpeg".

    The header is read always. The pixels are decoded, and so proven, with `decode`, and where the bytes do not end with
    an end-of-image marker or IEND chunk: a cut-off file shows itself that way, and whole files cost no decode.
    max_pixels, max_scans: see limits.limits.
    """
    most = limits(max_pixels, max_scans)
    if data.startswith(_PNG) and transcode in (False, "png"):
        return _picture(data, decode, False, most)
    if not data.startswith(b"\xff\xd8\xff"):
        kind = _kind(data)
        if not transcode or kind in ("empty", "HTML"):
            raise BadPictureError(
                f"neither JPEG nor PNG but {kind}" + (" (--transcode converts it)" if kind in _CONVERTED else "")
            )
        data = _to_png(data, most) if transcode == "png" else _to_jpeg(data, most)
        return _picture(data, decode, True, most)
    return _picture(data, decode, False, most)


_CONVERTED = ("GIF", "BMP", "TIFF", "PPM", "WebP")


def _picture(data: bytes, decode: bool, transcoded: bool, most: dict[str, int]) -> Picture:
    header = _C.read_header(data, most["max_pixels"])
    _C.check_scans(data, most["max_scans"])
    points = None
    if decode:
        points = _proven(data, most)
    elif not header["ends"]:
        _C.check_decodes(data, **most)
    return Picture(
        data, header["height"], header["width"], header["components"], header["progressive"],
        header["exif_orientation"] != 1, transcoded, codec_of(data), header["bits"], points,
    )  # fmt: skip


def codec_of(data: bytes) -> str:
    """Return the codec of bytes that read_header takes."""
    return "png" if data.startswith(_PNG) else "dct" if data.startswith(b"PLDC") else "jpeg"


def _kind(data: bytes) -> str:
    if not data:
        return "empty"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    head = data[:64].lstrip().lower()
    for magic, kind in _KNOWN:
        if data.startswith(magic) or head.startswith(magic):
            return kind
    return f"something that begins with {data[:4].hex(' ')}"


def _to_jpeg(data: bytes, most: dict[str, int]) -> bytes:
    """Return a JPEG of quality 95, 4:4:4, by Pillow, of its convert("RGB"). More than 8 bits a sample are refused."""

    def write(picture: Any, out: io.BytesIO) -> None:
        # Pillow opens a PNG of 16-bit colours as 8-bit RGB; byte 24 is the bit depth of IHDR.
        if picture.mode.startswith(("I", "F")) or (picture.format == "PNG" and data[24] == 16):
            raise BadPictureError(f"{picture.format} of more than 8 bits: JPEG would lose its depth")
        picture.convert("RGB").save(out, "JPEG", quality=95, subsampling=0)

    return _rewritten(data, write, most["max_pixels"])


_PNG_MODES = {"1": "L", "L": "L", "I;16": "I;16", "RGB": "RGB", "RGBA": "RGBA"}  # of Pillow; others: convert("RGB")


def _to_png(data: bytes, most: dict[str, int]) -> bytes:
    """Return a PNG of the pixels that Pillow reads; alpha and gray of 16 bits stay. What PNG cannot hold is refused."""

    def write(picture: Any, out: io.BytesIO) -> None:
        if picture.mode not in _PNG_MODES and picture.mode.startswith(("I", "F")):
            raise BadPictureError(f"{picture.format} with samples of mode {picture.mode}: PNG would lose their depth")
        if picture.mode == "CMYK":
            raise BadPictureError(
                f"{picture.format} of CMYK: PNG has no such colours (--transcode jpeg makes RGB of it)"
            )
        mode = _PNG_MODES.get(picture.mode, "RGBA" if picture.has_transparency_data else "RGB")
        picture.convert(mode).save(out, "PNG")

    return _rewritten(data, write, most["max_pixels"])


def _rewritten(data: bytes, write: Callable[[Any, io.BytesIO], None], max_pixels: int) -> bytes:
    from PIL import Image

    _check_size(*_webp_size(data), max_pixels)  # Pillow takes memory for all of a WebP when it opens it
    Image.init()
    formats = [name for name in Image.ID if name not in _BY_PROGRAMS]
    out = io.BytesIO()
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            _check_size(picture.height, picture.width, max_pixels)
            write(picture, out)
    except BadPictureError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise BadPictureError(f"Pillow cannot read it: {error}") from None
    return out.getvalue()


_BY_PROGRAMS = ("EPS", "WMF")  # Pillow starts Ghostscript, or what Windows has


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise BadPictureError(
            f"{height} x {width} (height x width) is {height * width} pixels, more than max_pixels (--max-pixels), "
            f"which is {max_pixels}"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) that a WebP claims; (0, 0) for other files (RFC 9649, sections 2.5 to 2.7, 3.4)."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
