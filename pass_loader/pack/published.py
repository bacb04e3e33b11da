"""The published checksums of PASS's files, to know a bad download by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import PackError

# mlcommons/croissant, datasets/1.0/pass/metadata.json, which calls them sha256 but lists MD5. It has one and the same
# sum for parts 1 and 2, so neither is known.
MD5 = {
    "pass_metadata.csv": "0b033707ea49365a5ffdd14615825511",
    "PASS.0.tar": "0be3a104d6257d83296460b419f82c71",
    "PASS.3.tar": "9b9b9e1ee65747e47ad835a4f99c8e70",
    "PASS.4.tar": "e2c85293cbe6178477eea7d277d95dd7",
    "PASS.5.tar": "a2d174f7042d98ad037cda0e3313ea00",
    "PASS.6.tar": "2be85748c184b058f8d95a886dab161b",
    "PASS.7.tar": "83e07eee33df5fcc63a4b0db4e94abb4",
    "PASS.8.tar": "3f708993aa168b57306e5de08ba71373",
    "PASS.9.tar": "f4f87af4327fd1a66dd7944b9f59cbcc",
}


def check_md5(path: str | Path) -> str:
    """Return a line about the file: its MD5 is PASS's (version 3), or there is nothing to check against.

    Raises PackError where the file has the name of one of PASS's, but not its MD5.
    """
    path = Path(path)
    want = MD5.get(path.name)
    if want is None:
        known = (
            "PASS.1.tar and PASS.2.tar have one sum between them" if path.name.startswith("PASS.") else "no such file"
        )
        return f"{path.name}: MD5 not checked, none is known for it ({known} in the list of PASS's sums)"
    with open(path, "rb") as file:
        digest = hashlib.md5()
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if found != want:
        raise PackError(
            f"{path} has the MD5 {found}, PASS's version 3 has {want} for {path.name}: download it again (curl needs "
            "-L), or, if it is of another version, pack without the check"
        )
    return f"{path.name}: MD5 as published"
