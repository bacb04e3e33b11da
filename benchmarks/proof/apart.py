"""`make apart`: can a small network tell other loaders' views from those of the official pipeline?

Each loader makes views of the same pictures, drawing its own numbers, by its own means (benchmarks/peers.py). A judge
learns on half of the pictures which loader made a view, and is asked about the other half (judge.py).
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import describe
from benchmarks.official import batches, seed_everything
from benchmarks.pages import write_between
from benchmarks.peers import DIFFERS, PEERS, Epoch
from pass_loader import DataLoader, ShardDataset, recipes
from pass_loader.pack import build
from pass_loader.recipes import Recipe

from .judge import LEVEL, Verdict, judged
from .prove import pictures_of

from torchvision import transforms as T  # noqa: E402
from torchvision.transforms import functional as F  # noqa: E402

BATCH = 20
TIMEOUT_S = 1800
OFFICIAL = ("official views", "official views, 4:2:0")  # jobs that come first
AT_ONCE = 8  # views of a picture that a loader makes of one decoding
_LOCAL = recipes.dino().views[-1]
_PLAIN = dataclasses.replace(_LOCAL, jitter=0.0, grayscale=0.0, blur=0.0)
RECIPES = {
    "crop, resize, flip": Recipe("plain", (_PLAIN,) * AT_ONCE),
    "DINO's local view": Recipe("local", (_LOCAL,) * AT_ONCE),
}


class PlainCrop(T.RandomResizedCrop):
    """As torchvision's, resized without antialiasing."""

    def forward(self, picture: Image.Image) -> Image.Image:
        box = self.get_params(picture, self.scale, self.ratio)
        cut = F.pil_to_tensor(F.crop(picture, *box))
        return F.to_pil_image(F.resize(cut, self.size, self.interpolation, antialias=False))


def official(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    return lambda: iter(batches(data, recipe, batch_size))


def ours(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """From untouched JPEGs in a pack, with views of a new epoch each time."""
    folder = tempfile.TemporaryDirectory()
    pictures, pack = Path(folder.name) / "pictures", Path(folder.name) / "pack"
    _write(pictures, data)
    build([pictures], pack)
    loader = DataLoader(ShardDataset(pack, recipe), batch_size, num_workers=1, drop_last=True)

    def epoch() -> Iterator[list[torch.Tensor]]:
        assert folder  # the files live as long as this function
        for views, _ in loader:
            yield views

    return epoch


def without_antialiasing(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    def epoch() -> Iterator[list[torch.Tensor]]:
        own, T.RandomResizedCrop = T.RandomResizedCrop, PlainCrop
        try:
            yield from batches(data, recipe, batch_size)
        finally:
            T.RandomResizedCrop = own

    return epoch


def nearest_chroma(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """Decoded by libjpeg-turbo without "fancy upsampling", then as PNGs through the official pipeline."""
    import simplejpeg

    pictures = [Image.fromarray(simplejpeg.decode_jpeg(one, fastupsample=True)) for one in data]
    return official([_saved(picture, "PNG", compress_level=1) for picture in pictures], recipe, batch_size)


def encoded_anew(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    return official([_saved(_opened(one), "JPEG", quality=90) for one in data], recipe, batch_size)


def _write(folder: Path, pictures: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for number, one in enumerate(pictures):
        (folder / f"{number:05d}.jpg").write_bytes(one)


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


@dataclasses.dataclass(frozen=True)
class Row:
    """A loader that is compared with the official one.

    subsampled: the pictures are saved anew as 4:2:0 before. matched: it draws in torchvision's way, and has its draws.
    """

    make: Callable[[list[bytes], Recipe, int], Epoch]
    differs: str
    subsampled: bool = False
    matched: bool = False


ROWS = {
    "pass-loader": Row(ours, "nothing but the drawn numbers"),
    "official, without antialiasing": Row(without_antialiasing, "resize", matched=True),
    "official, nearest chroma": Row(
        nearest_chroma, "upsampling; 4:2:0 JPEGs on both sides", subsampled=True, matched=True
    ),
    "official, JPEGs encoded anew": Row(encoded_anew, "saved once more with quality 90, 4:2:0", matched=True),
    **{
        name: Row(PEERS[name], DIFFERS[name])
        for name in ("torchvision v2, uint8 tensors", "DALI CPU", "albumentations + OpenCV", "FFCV")
    },
}


def views_of(make: Callable[[list[bytes], Recipe, int], Epoch], data: list[bytes], recipe: Recipe, count: int,
             seed: int) -> np.ndarray:  # fmt: skip
    """Return views of each picture as bytes, (pictures, count, 3, height, width). count: a multiple of AT_ONCE."""
    seed_everything(seed)
    epoch = make(data, recipe, BATCH)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (recipe.mean, recipe.std))

    def bytes_of(batch: list[torch.Tensor]) -> np.ndarray:
        values = torch.stack([view.contiguous() for view in batch], 1)
        return ((values * std + mean) * 255).round_().clamp_(0, 255).byte().numpy()

    rounds = [np.concatenate(list(map(bytes_of, epoch()))) for _ in range(count // len(recipe.views))]
    views = np.concatenate(rounds, 1)
    if len(views) != len(data):
        raise RuntimeError(f"{len(data)} pictures went in, views of {len(views)} came out")
    return views


@dataclasses.dataclass(frozen=True)
class Run:
    """What is compared. place: the folder of pictures, official views and verdicts."""

    place: Path
    views: int
    passes: int

    def prepare(self, data: list[Path], count: int) -> int:
        """Write the pictures, and the same ones as 4:2:0; returns how many, a multiple of BATCH."""
        pictures = list(pictures_of(data, count))
        pictures = pictures[: len(pictures) // BATCH * BATCH]
        if not pictures:
            raise SystemExit(f"fewer than {BATCH} JPEGs in {', '.join(map(str, data))}")
        _write(self._pictures(False), pictures)
        _write(self._pictures(True), [_saved(_opened(one), "JPEG", quality=95, subsampling=2) for one in pictures])
        return len(pictures)

    def _pictures(self, subsampled: bool) -> Path:
        return self.place / ("subsampled" if subsampled else "pictures")

    def _official(self, column: str, subsampled: bool) -> Path:
        return self.place / f"official-{list(RECIPES).index(column)}-{subsampled:d}.npy"

    def _made(self, make: Callable[[list[bytes], Recipe, int], Epoch], column: str, subsampled: bool,
              seed: int) -> np.ndarray:  # fmt: skip
        data = [path.read_bytes() for path in sorted(self._pictures(subsampled).iterdir())]
        return views_of(make, data, RECIPES[column], self.views, seed)

    def make_official(self, subsampled: bool) -> None:
        for column in RECIPES:
            np.save(self._official(column, subsampled), self._made(official, column, subsampled, seed=1))

    def judge(self, name: str) -> list[Verdict]:
        """Return the verdicts on a row, one a column."""
        row, found = ROWS[name], []
        for column in RECIPES:
            theirs = self._made(row.make, column, row.subsampled, seed=1 if row.matched else 2)
            found.append(judged(np.load(self._official(column, row.subsampled), mmap_mode="r"), theirs, self.passes))
        return found

    def in_process(self, job: str) -> list[Verdict] | str:
        """Do a job in a process of its own; returns its verdicts, or words where there are none."""
        command = [sys.executable, "-m", "benchmarks.proof.apart", "--place", str(self.place), "--views",
                   str(self.views), "--passes", str(self.passes), "--job", job]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"left out: not done after {TIMEOUT_S} s"
        lines = done.stdout.splitlines() if done.returncode == 0 else []
        if lines:
            return [Verdict(*numbers) for numbers in json.loads(lines[-1])]
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return f"left out: {said[-1]}"


def job_of(run: Run, name: str) -> list[Verdict]:
    """Do a job in this process: make official views, or judge a row."""
    torch.set_num_threads(1)
    if name in OFFICIAL:
        run.make_official(subsampled=bool(OFFICIAL.index(name)))
        return []
    try:
        return run.judge(name)
    except ImportError as error:
        raise SystemExit(f"{error}: `make apart` installs what it can") from None


def table(verdicts: dict[str, list[Verdict] | str], about: str) -> str:
    lines = [f"| views of | {' | '.join(RECIPES)} | what differs |", f"|---|{'---|' * len(RECIPES)}---|"]
    for name, found in verdicts.items():
        cells = [found] + [""] * (len(RECIPES) - 1) if isinstance(found, str) else list(map(_words, found))
        lines.append(f"| {name} | {' | '.join(cells)} | {ROWS[name].differs} |")
    return "\n".join([*lines, "", about])


def _words(found: Verdict) -> str:
    low, high = found.interval()
    said = f"{found.accuracy:.1%}"
    return f"{f'**{said}**' if found.told_apart else said} ({low:.1%} to {high:.1%})"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders or tars of JPEGs")
    parser.add_argument("--count", type=int, default=160, help="pictures")
    parser.add_argument("--views", type=int, default=16, help=f"of each picture, of {AT_ONCE} a multiple")
    parser.add_argument("--passes", type=int, default=6, help="of the training")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--place", type=Path, default=Path("build/apart"), help="where pictures and views go")
    parser.add_argument("--page", type=Path, help="a page whose table is written anew")
    parser.add_argument("--job", metavar="ROW", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    run = Run(options.place, options.views, options.passes)
    if options.job:
        print(json.dumps(job_of(run, options.job)))
        return 0
    shutil.rmtree(options.place, ignore_errors=True)
    pictures = run.prepare(options.data, options.count)
    cores = len(os.sched_getaffinity(0))

    def judge(name: str) -> list[Verdict] | str:
        found = run.in_process(name)
        print(f"{name}: {found if isinstance(found, str) else '; '.join(map(_words, found))}", flush=True)
        return found

    with ThreadPoolExecutor(cores) as pool:
        for said in pool.map(run.in_process, OFFICIAL):
            if isinstance(said, str):
                raise SystemExit(f"official views: {said}")
        verdicts = dict(zip(options.rows, pool.map(judge, options.rows)))
    machine, asked = describe(), pictures - pictures // 2
    about = (
        f"A cell: {options.views * asked:,} views of each side, of {asked} pictures that the judge had not seen; it "
        f"learned from as many. Intervals of {LEVEL:.0%}; bold: above 50 %. "
        f"{sum(os.times()[:4]) / 60:.0f} minutes of CPU time, {machine['cpu']}, torch {machine['torch']}."
    )
    text = table(verdicts, about)
    print(text)
    if options.page:
        write_between(options.page, "benchmarks/proof/apart.py", text)
    ours_found = verdicts.get("pass-loader", [])
    return isinstance(ours_found, str) or any(one.told_apart for one in ours_found)


if __name__ == "__main__":
    sys.exit(main())
