"""A small stand-in for PASS: cuts of scikit-learn's two CC BY 2.0 photographs, as a tar and a metadata CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

# scikit-learn, sklearn/datasets/images/README.txt: file -> Flickr name of the photographer.
CREATORS = {"china.jpg": "danielbuechele", "flower.jpg": "vultilion"}
LICENCE = "Attribution License"  # Flickr's name of CC BY 2.0, as in PASS's metadata


def photographs() -> dict[str, Image.Image]:
    from sklearn.datasets import load_sample_image

    return {name: Image.fromarray(load_sample_image(name)) for name in CREATORS}


def cuts(count: int, seed: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """(id, creator, JPEG) of `count` pictures: long side 500 as in PASS, quality 95 or 96, every fifth one 4:2:0.

    The mean is about 100 kB. Ids are MD5 digests whose bytes are printed without padding, 27 to 32 characters, as
    PASS's seem to be.
    """
    rng = np.random.default_rng(seed)
    sources = photographs()
    for number in range(count):
        name = list(sources)[number % len(sources)]
        photograph = sources[name]
        width = int(rng.integers(360, photograph.width + 1))
        height = min(int(width * rng.uniform(0.66, 0.8)), photograph.height)
        if rng.random() < 0.25:  # upright
            height = int(rng.integers(360, photograph.height + 1))
            width = int(height * rng.uniform(0.66, 0.8))
        left = int(rng.integers(0, photograph.width - width + 1))
        top = int(rng.integers(0, photograph.height - height + 1))
        cut = photograph.crop((left, top, left + width, top + height))
        scale = 500 / max(width, height)
        cut = cut.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
        jpeg = io.BytesIO()
        quality = 96 if name == "flower.jpg" else 95
        cut.save(jpeg, "JPEG", quality=quality, subsampling=2 if number % 5 == 4 else 0)
        digest = hashlib.md5(f"{name} {number} {seed}".encode()).digest()
        yield "".join(f"{byte:x}" for byte in digest), CREATORS[name], jpeg.getvalue()


def write_pass(folder: Path, count: int, seed: int = 0) -> tuple[Path, Path]:
    """PASS.0.tar (PASS_dataset/<n>/<hash>.jpg) and pass_metadata.csv in `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    tar_path, csv_path = folder / "PASS.0.tar", folder / "pass_metadata.csv"
    with tarfile.open(tar_path, "w") as tar, open(csv_path, "w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["hash", "unickname", "licensename", "latitude", "longitude", "datetaken"])
        for number, (id, creator, jpeg) in enumerate(cuts(count, seed)):
            member = tarfile.TarInfo(f"PASS_dataset/{number % 10}/{id}.jpg")
            member.size = len(jpeg)
            tar.addfile(member, io.BytesIO(jpeg))
            rows.writerow([id, creator, LICENCE, "", "", ""])
    return tar_path, csv_path


def write_pack(folder: Path, count: int, different: int = 192) -> Path:
    """Pack `count` pictures in `folder`, so many different ones again and again; returns the pack's path."""
    from pass_loader.pack import build

    folder.mkdir(parents=True, exist_ok=True)
    pictures = [jpeg for *_, jpeg in cuts(different)]
    with tarfile.open(folder / "pictures.tar", "w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(pictures[number % different])
            tar.addfile(member, io.BytesIO(pictures[number % different]))
    build([folder / "pictures.tar"], folder / "pack")
    (folder / "pictures.tar").unlink()
    return folder / "pack"
