"""Writes the transcript of docs/packing.md from a real run: `python -m docs.make_transcript`.

The pictures are drawn, named and tabled as PASS's are. Only the time that `verify` took is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shlex
import tarfile
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

from pass_loader.cli.main import main

PAGE = Path(__file__).parent / "packing.md"
BLOCK = re.compile(r"(?<=<!-- docs/make_transcript.py -->\n```console\n).*?(?=```\n)", re.S)
COMMANDS = [
    "pass-pack build PASS.0.tar --metadata pass_metadata.csv --out pass",
    "pass-pack info pass",
    "pass-pack verify pass --decode",
    "pass-pack preview pass --recipe dino --out views.png",
    "pass-pack convert pass --codec dct-zstd --out pass-dct",
    "pass-pack attribution pass --ids ids.txt",
    'pass-pack remove pass --ids ids.txt --reason "mail of 3 May"',
    "pass-pack purge pass",
    "pass-pack export pass --format webdataset --out tars",
]


def write_sources() -> None:
    """PASS.0.tar, pass_metadata.csv and ids.txt in the current directory: 32 pictures."""
    rows = ["unickname,hash,latitude,longitude,licensename,datetaken"]
    with tarfile.open("PASS.0.tar", "w") as tar:
        for i in range(32):
            name = hashlib.md5(str(i).encode()).hexdigest()
            drawn = ImageOps.colorize(Image.effect_mandelbrot((400, 300), (-2, -1, 1, 1), 20 + i), "navy", "gold")
            drawn.save(file := io.BytesIO(), "JPEG")
            member = tarfile.TarInfo(f"{i % 4}/{name}.jpg")
            member.size = file.tell()
            file.seek(0)
            tar.addfile(member, file)
            rows.append(f"user+{i},{name},,,Attribution License,2005-06-{i % 30 + 1:02d} 12:00:00.0")
    Path("pass_metadata.csv").write_text("\n".join(rows) + "\n")
    Path("ids.txt").write_text(hashlib.md5(b"7").hexdigest() + "\n")


def printed_by(command: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        code = main(shlex.split(command)[1:])
    if code:
        raise SystemExit(f"{command}: exit code {code}")
    return printed.getvalue()


def transcript() -> str:
    """The commands with what they print, run in a new directory."""
    lines: list[str] = []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        try:
            write_sources()
            for command in COMMANDS:
                lines += [f"$ {command}", printed_by(command).rstrip(), ""]
        finally:
            os.chdir(before)
    return re.sub(r", \d+\.\d s$", "", "\n".join(lines).rstrip(), flags=re.M) + "\n"


if __name__ == "__main__":
    found = transcript()
    PAGE.write_text(BLOCK.sub(lambda _: found, PAGE.read_text()))
