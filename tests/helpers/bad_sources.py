"""Damaged sources of every kind, made from whole ones by numbered dice.

python -m tests.helpers.bad_sources KIND FIRST LAST packs those numbers of a kind and names each that ends with anything
but a pack or a PackError.
"""

from __future__ import annotations

import functools
import io
import json
import os
import random
import sys
import tarfile
import traceback
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pass_loader import PackError
from pass_loader.pack import build

from . import beton_writer as ffcv
from .corpus import jpeg, noise
from .pngwriter import png
from .trees import folder_in_memory, write_tree

_WORDS = [
    b"9" * 30, b"4294967296", b"-1", b"18446744073709551615", b"9223372036854775808", b"\\ud800", b"\xed\xa0\x80",
    b"[" * 100_000, b'{"a":' * 3000, b"\0", b"\xff", b"", b"..", b"/", b"\n", b",", b'"', b"NaN", b"1e999", b"\r",
    b"PK\x01\x02", b"PK\x05\x06", b"ustar", b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.major", b"PAR1",
]  # fmt: skip
_PAX = [
    {"size": str(2**63)}, {"size": "-512"}, {"size": "x"}, {"GNU.sparse.map": "x,y"}, {"GNU.sparse.size": "9" * 30},
    {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"}, {"path": "a/../\ud800"},
    {"path": "x" * 5000}, {"hdrcharset": "BINARY"}, {"size": "100000000000"},
]  # fmt: skip
_PICTURES = [jpeg(noise(8, 9, 1)), jpeg(noise(9, 8, 2)), png(noise(4, 5, 3))]


def tars() -> list[bytes]:
    plain = {f"PASS_dataset/0/{number}.jpg": data for number, data in enumerate(_PICTURES)}
    samples = {f"{number}.{suffix}": data for number, picture in enumerate(_PICTURES)
               for suffix, data in (("jpg", picture), ("cls", b"3"), ("json", b'{"a": 1, "b": [2, "x"]}'))}  # fmt: skip
    usual = [
        _tar(plain),
        _tar(samples),
        _tar({"n" * 120 + name: data for name, data in plain.items()}, tarfile.GNU_FORMAT),
    ]
    return usual * 5 + [_tar(plain, pax=[pax, pax, {}]) for pax in _PAX]


def _tar(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT, pax: Sequence[dict[str, str]] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, errors="surrogateescape") as tar:
        for place, (name, data) in enumerate(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            values = pax[place % len(pax)] if pax else {}
            if "\ud800" in values.get("path", ""):
                values = {"path": "a/../\udcff", "hdrcharset": "BINARY"}
            member.pax_headers = values
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zips() -> list[bytes]:
    found = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as archive:
            for number, data in enumerate(_PICTURES):
                archive.writestr(f"c{number % 2}/{number}.jpg", data)
        found.append(out.getvalue())
    return found


def parquets() -> list[bytes]:
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": ["a", "b"]}}}}
    images = [{"bytes": data, "path": f"{number}.jpg"} for number, data in enumerate(_PICTURES)]
    tables = [
        pa.table({"image": images, "label": [0, 1, 1]}).replace_schema_metadata({"huggingface": json.dumps(features)}),
        pa.table({"jpg": _PICTURES, "label": pa.array([1, 2**40, 2**64 - 1], pa.uint64()), "id": ["x", "y", None],
                  "a": [[{"b": "c"}], None, []], "t": pa.array([1, 2, 2**62], pa.timestamp("us"))}),
    ]  # fmt: skip
    found = []
    for table in tables:
        for compression in ("none", "snappy"):
            out = io.BytesIO()
            pq.write_table(table, out, compression=compression)
            found.append(out.getvalue())
    return found


def lists() -> list[bytes]:
    return [
        b"c0/0.jpg\nc1/1.jpg\nc0/2.png\n",
        b"/dev/zero\nc0\n.\n..\n/\nc1/1.jpg\n",
        b"c0/0.jpg\r\n" * 4 + b"\xff\xfe\n",
    ]


def csvs() -> list[bytes]:
    rows = "".join(f"c{number % 2}/{number},J%C3%BCrgen,{number}.5,\n" for number in range(3))
    table = pa.table({"hash": ["c0/0", "c1/1", "c0/2"], "a": pa.array(["x", "y", "z"], pa.string_view()),
                      "d": pa.array(["p", "q", "p"]).dictionary_encode(), "l": [[1], [], None]})  # fmt: skip
    out = io.BytesIO()
    pq.write_table(table, out, row_group_size=2)
    return [("hash,unickname,latitude,x\n" + rows).encode(), b'hash,a\n"c0/0","b\nc"\n', out.getvalue()]


def betons() -> list[bytes]:
    usual = [(data, number) for number, data in enumerate(_PICTURES)]
    rich = [(number, {"a": [1, "x"], "id": f"{number}"}, ffcv.Raw(2, 1, b"abcdef"), 0.5) for number in range(2)]
    return [
        ffcv.beton({"image": ffcv.IMAGE, "label": ffcv.INT}, usual, page_bytes=64),
        ffcv.beton({"id": ffcv.INT, "j": ffcv.JSON, "i": ffcv.IMAGE, "f": ffcv.FLOAT}, rich, page_bytes=64),
    ]


KINDS: dict[str, tuple[Callable[[], list[bytes]], str]] = {
    "tar": (tars, "s.tar"), "zip": (zips, "s.zip"), "parquet": (parquets, "s.parquet"), "beton": (betons, "s.beton"),
    "list": (lists, "s.txt"), "folder": (lambda: _PICTURES, "folder"), "csv": (csvs, "m.csv"),
}  # fmt: skip


@functools.cache
def seeds(kind: str) -> list[bytes]:
    return KINDS[kind][0]()


def damaged(data: bytes, dice: random.Random) -> bytes:
    """Change bytes, numbers, words or whole parts of a file in one to four places."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at, end = sorted(dice.choices(range(len(out) + 1), k=2))
        end = min(end, at + dice.choice((1, 4, 40, 2000)))
        what = dice.randrange(8)
        if what == 0 and at < len(out):
            out[at] ^= 1 << dice.randrange(8)
        elif what == 1 and at < len(out):
            out[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, ord("9"), dice.randrange(256)))
        elif what == 2:
            size = dice.choice((2, 4, 8))
            number = dice.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
            out[at : at + size] = number.to_bytes(size, dice.choice(("little", "big")))
        elif what == 3:
            word = dice.choice(_WORDS)
            out[at : at + dice.choice((0, len(word)))] = word
        elif what == 4:
            del out[at : end if dice.random() < 0.9 else len(out)]
        elif what == 5:
            out[at:at] = out[at:end]
        else:  # where there are digits or letters, others
            places = [place for place in range(at, min(at + 600, len(out))) if chr(out[place]).isalnum()]
            for place in places[: dice.choice((1, 2, 8))]:
                out[place] = dice.choice(b"0123456789azAZ-.")
    return bytes(out)


def with_checksums(tar: bytes) -> bytes:
    """The tar with right checksums in all of its headers, so that readers look at what else is in them."""
    out = bytearray(tar)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def pack_number(kind: str, number: int, root: Path) -> str:
    """Make source `number` of a kind in an empty directory and pack it. Returns what became of it in a word. Raises
    what `build` raises, but no PackError."""
    dice = random.Random(f"{kind} {number}")
    tree = {f"c{place % 2}/{place}.jpg": data for place, data in enumerate(_PICTURES)}
    source, metadata = root / KINDS[kind][1], None
    if kind == "folder":
        source = _folder(source, tree, dice)
    else:
        data = damaged(dice.choice(seeds(kind)), dice)
        source.write_bytes(with_checksums(data) if kind == "tar" and dice.random() < 0.7 else data)
    if kind in ("list", "csv"):
        write_tree(root, tree)
    if kind == "csv":
        metadata = source
        source = write_tree(root / "folder", tree)
    try:
        report = build([source], root / "pack", metadata=metadata, workers=1, codec=dice.choice(("jpeg", "dct")),
                       gps=dice.random() < 0.5, shard_bytes=dice.choice((1000, 1 << 30)))  # fmt: skip
    except PackError as error:
        str(error).encode(errors="backslashreplace")
        return "error"
    return "refusals" if report.refused else "packed"


def _folder(root: Path, tree: dict[str, bytes], dice: random.Random) -> Path:
    """Damaged names and files; links, a FIFO."""
    root.mkdir()
    for name, data in tree.items():
        name = os.fsdecode(damaged(name.encode(), dice)) if dice.random() < 0.5 else name
        path = os.path.join(root, name.replace("\0", "").strip("/").replace("..", "x")[:200] or "x")
        data = damaged(data, dice) if dice.random() < 0.5 else data
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            what = dice.randrange(8)
            if what == 0:
                os.symlink(dice.choice((".", "none", "/dev/zero", path)), path)
            elif what == 1:
                os.mkfifo(path)
            elif what == 2:
                os.mkdir(path)
            else:
                with open(path, "xb") as file:  # not through a link, nor into a pipe, of that name
                    file.write(data)
        except OSError:  # a name twice, or a name that no file may have
            continue
    return root


def run(kind: str, numbers: range) -> tuple[dict[str, int], list[str]]:
    """Pack sources of a kind: how often what became of them, and each that ended with another exception."""
    counts: dict[str, int] = {}
    found = []
    fsync, os.fsync = os.fsync, lambda descriptor: None
    try:
        for number in numbers:
            with folder_in_memory() as root:
                try:
                    ended = pack_number(kind, number, root)
                except Exception as error:
                    ended = "raised"
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    found.append(f"{kind} {number}: {error!r:.300} at {where.filename}:{where.lineno}")
            counts[ended] = counts.get(ended, 0) + 1
    finally:
        os.fsync = fsync
    return counts, found


if __name__ == "__main__":
    for kind in KINDS if sys.argv[1] == "all" else [sys.argv[1]]:
        counts, found = run(kind, range(int(sys.argv[2]), int(sys.argv[3])))
        print(kind, counts, *found[:10], sep="\n", flush=True)
        if found:
            sys.exit(f"{len(found)} sources of the kind {kind} ended with neither a pack nor a PackError")
