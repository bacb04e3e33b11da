"""Makes installed packages small enough to carry: python -m benchmarks.gpu.slim FOLDER [--sm 90] [--python 312]

Deletes extension modules for other Pythons, and overwrites with zeros, which compress to nothing, the machine code for
GPUs of another compute capability: NVIDIA's libraries bring six or seven of them. The libraries work as before on a GPU
of the one that is kept, and nowhere else.

Machine code lies in fat binaries: a header of 16 bytes (magic, version 1, its size, bytes that follow), then members,
each with a header: its kind (1: PTX, 2: ELF), its own size, the payload's and, at byte 28, the compute capability.
"""

from __future__ import annotations

import argparse
import re
import struct
from collections.abc import Iterator
from pathlib import Path

MAGIC = struct.pack("<IHH", 0xBA55ED50, 1, 16)
ELF = 2
Member = tuple[int, int, int, int]  # kind, compute capability, where the payload begins, its bytes


def fat_binaries(data: bytes) -> Iterator[list[Member]]:
    at = data.find(MAGIC)
    while at >= 0:
        place = at + 16
        end = place + struct.unpack_from("<Q", data, at + 8)[0]
        members: list[Member] = []
        while place + 32 <= end <= len(data):
            kind, _, header, payload = struct.unpack_from("<HHIQ", data, place)
            members.append((kind, struct.unpack_from("<I", data, place + 28)[0], place + header, payload))
            place += header + payload
            if header < 32:
                break
        whole = place == end
        if whole:
            yield members
        at = data.find(MAGIC, end if whole else at + 1)


def keep_only(data: bytes, sm: int) -> tuple[bytes, int]:
    """The library without other GPUs' code, and how many bytes were overwritten. A fat binary without code for `sm`
    stays whole: what it has may be compiled for it."""
    thin, gone = bytearray(data), 0
    for members in fat_binaries(data):
        if any(kind == ELF and capability == sm for kind, capability, _, _ in members):
            for kind, capability, begin, size in members:
                if (kind, capability) != (ELF, sm):
                    thin[begin : begin + size] = bytes(size)
                    gone += size
    return bytes(thin), gone


def slim(folder: Path, sm: int, python: str) -> None:
    for path in sorted(folder.rglob("*.so*")):
        version = re.search(r"\.cpython-(\w+)-", path.name)
        if version is not None and version[1] != python:
            path.unlink()
        elif path.is_file() and not path.is_symlink():
            thin, gone = keep_only(path.read_bytes(), sm)
            if gone:
                path.write_bytes(thin)
                print(f"{gone / 1e6:8.1f} of {len(thin) / 1e6:8.1f} MB are zeros now: {path.relative_to(folder)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of pip install --target")
    parser.add_argument("--sm", type=int, default=90, help="compute capability that is kept, without its point")
    parser.add_argument("--python", default="312", help="the Python that is kept")
    slim(**vars(parser.parse_args()))
