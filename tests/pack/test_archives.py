"""Our own tar headers are tarfile's, written and read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pass_loader.pack.archives import members
from pass_loader.pack.layout import _member_header

NAMES = [
    "a.jpg", "PASS_dataset/7/e1662344ffa8c231d198c367c692cc.jpg", "n" * 99, "n" * 100, "n" * 101, "é",
    "dir" * 40 + "/f", "xyz/" * 65 + "end.jpg", " ", "a b",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 511, 8**11 - 1, 8**11])
def test_usual_headers_written(name: str, size: int) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    assert _member_header(name, size) == header.tobuf(tarfile.PAX_FORMAT, "utf-8")


@pytest.mark.slow
@given(st.text(max_size=130).filter(lambda name: "\0" not in name), st.integers(0, 8**12))
def test_headers_written(name: str, size: int) -> None:
    try:
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o644
        want = header.tobuf(tarfile.PAX_FORMAT, "utf-8")
    except UnicodeEncodeError:
        return
    assert _member_header(name, size) == want


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("headers", [None, {"comment": "global"}, {"path": "elsewhere"}])
def test_headers_read(format: int, headers: dict[str, str] | None, tmp_path: Path) -> None:
    """Every kind of member in every format, as tarfile lists them."""
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=format, pax_headers=headers) as tar:
        for number, name in enumerate(NAMES):
            for type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CONTTYPE):
                member = tarfile.TarInfo(f"{number}{type.decode(errors='replace')}{name}".replace("\0", "A"))
                member.type, member.size, member.linkname = type, 100 * number if type in b"0\0" else 0, "target"
                member.mtime = 0.5 if number % 3 == 0 else 1  # a fraction needs a Pax header
                try:
                    tar.addfile(member, io.BytesIO(bytes(range(256)) * 8))
                except ValueError:
                    assert format == tarfile.USTAR_FORMAT, "too long for it"
    with tarfile.open(path) as tar:
        want = [(m.name, m.offset_data, m.size, m.isfile()) for m in tar if not m.isdir()]
    found = [(m.name, m.offset, m.length, m.problem is None) for m in members(path)]
    assert found == want and len(found) > 20


@pytest.mark.slow
def test_a_damaged_header_is_no_member(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("a", "b"):
            tar.addfile(tarfile.TarInfo(name))
    whole = (tmp_path / "t.tar").read_bytes()
    for place in range(512, 1024):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (tmp_path / "t.tar").write_bytes(damaged)
        try:
            names = [member.name for member in members(tmp_path / "t.tar")]
        except ValueError as error:
            assert "cut off or damaged" in str(error)
        else:
            assert 148 <= place - 512 < 156 and names == ["a", "b"], "blanks around a checksum may differ"
