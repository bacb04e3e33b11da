"""The licences of what the extensions contain, put into wheels.

`python -m wheels.licences FOLDER LICENCES` adds them to the wheels in a folder that another tool has built; LICENCES is
the folder that wheels/third_party.py makes.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pybind11
from wheel.wheelfile import WheelFile


def licences_of(folder: Path) -> dict[str, bytes]:
    """Return {path in a wheel's folder of licences: text}."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = {f"third_party/{path.relative_to(folder)}": path.read_bytes() for path in files}
    (own,) = Path(pybind11.__file__).parents[1].glob("pybind11-*.dist-info/licenses/LICENSE")
    found[f"third_party/pybind11-{pybind11.__version__}/LICENSE"] = own.read_bytes()
    found["third_party/NOTICE"] = (Path(__file__).parent / "NOTICE").read_bytes()
    return found


def with_licences(files: dict[str, bytes], licences: dict[str, bytes]) -> dict[str, bytes]:
    """Return a wheel's files, {path: text}, with these licences beside its own."""
    (info,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
    head, line, rest = files[f"{info}/METADATA"].partition(b"License-File: LICENSE\n")
    assert line, "setuptools names our licence in another way"
    named = b"".join(f"License-File: {name}\n".encode() for name in sorted(licences))
    added = {f"{info}/licenses/{name}": text for name, text in licences.items()}
    return files | added | {f"{info}/METADATA": head + line + named + rest}


def write_wheel(path: Path, files: dict[str, bytes]) -> None:
    """Write a wheel and its RECORD: equal bytes for equal files."""
    path.unlink(missing_ok=True)
    with WheelFile(str(path), "w") as archive:
        for name in sorted(files, key=lambda name: (".dist-info/" in name, name)):
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, files[name])


if __name__ == "__main__":
    for wheel in Path(sys.argv[1]).glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            inside = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}
        write_wheel(wheel, with_licences(inside, licences_of(Path(sys.argv[2]))))
