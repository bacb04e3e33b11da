"""What somebody does after `pip install pass-loader`: pack, verify, preview, and look at samples as Pillow makes them.

`python wheel_scenario.py FOLDER [MODULE...]` runs it in an empty folder and prints what it used. It needs the installed
package and its dependencies alone. Each MODULE that is named must be absent. Where torch is, batches are loaded, and no
samples.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
from PIL import Image

import pass_loader
from pass_loader import Samples, _C, recipes
from pass_loader.recipes import reference

SAMPLES = 50
STORMS = 40 if os.environ.get("PASS_LOADER_LONG", "0") != "0" else 1


def write_pictures(folder: Path) -> None:
    """Write JPEGs of all samplings, gray and progressive ones among them, and PNGs."""
    folder.mkdir()
    for number in range(SAMPLES):
        rng = np.random.default_rng(number)
        height, width = (int(side) for side in rng.integers(40, 400, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8))
        picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
        if number % 10 == 9:
            picture.save(folder / f"{number:02d}.png")
            continue
        mode = picture.convert("L") if number % 10 == 4 else picture
        mode.save(folder / f"{number:02d}.jpg", quality=60 + number % 40, subsampling=number % 3,
                  progressive=number % 4 == 3)  # fmt: skip


def pass_pack(*words: object) -> None:
    """Run the command with this Python, as a process of its own."""
    subprocess.run([sys.executable, "-m", "pass_loader.cli", *map(str, words)], check=True)


def check_views(root: Path) -> None:
    """Compare views at every level, of both codecs, with those that Pillow makes of the files, from the same plans."""
    for recipe, step in ((recipes.dino(), 1), (recipes.swav(), 7), (recipes.evaluate(), 7)):
        originals, packed = Samples(root / "pack", recipe), Samples(root / "dct", recipe)
        assert len(originals) == len(packed) == SAMPLES
        for record in range(0, SAMPLES, step):
            picture, plans = reference.decode(originals.read(record)), originals.plan(record)
            want = [reference.render(picture, plan) for plan in plans]
            for level in _C.supported_isas():
                _C.set_isa(level)
                for samples in (originals, packed):
                    for plan, view, wanted in zip(plans, samples.render(record), want):
                        assert np.array_equal(view, wanted), (level, record, plan)
    _C.set_isa("best")


def check_threads(pack: Path) -> None:
    """Several Python threads use one decoder, one reader, one pool of memory and one engine at the same time."""
    recipe = recipes.byol(size=48)
    samples, decoder, memory = Samples(pack, recipe), _C.Decoder(), _C.BufferPool(2)
    table = recipe.normalize_table()
    mean, std = np.array([recipe.mean], np.float32), np.array([recipe.std], np.float32)
    half = table.astype(np.float16).view(np.uint16)[None]
    engine = _C.Engine(samples.reader, recipe.rows(), 0, table[None], half, mean, std, 2)
    none = np.zeros(4, np.uint32)
    shared: list[tuple[_C.PendingBatch, list[np.ndarray]]] = []

    def submit(first: int) -> tuple[_C.PendingBatch, list[np.ndarray]]:
        """Four samples, in memory that returns to the pool."""
        views = [memory.take(4 * 3 * 48 * 48 * 4).view(np.float32).reshape(4, 3, 48, 48) for _ in recipe.views]
        records = (np.arange(4) + first) % SAMPLES
        return engine.submit(records, none, none, views), views

    def bytes_of(views: list[np.ndarray]) -> list[bytes]:
        return [view.tobytes() for view in views]

    want = []
    for first in range(SAMPLES):
        batch, views = submit(first)
        assert batch.wait() == []
        want.append(bytes_of(views))
    pixels = [bytes_of(samples.render(record)) for record in range(SAMPLES)]
    shared.append(submit(3))
    start, failed = threading.Barrier(4), []

    def run(number: int) -> None:
        try:
            start.wait()
            assert shared[0][0].wait() == [] and bytes_of(shared[0][1]) == want[3]
            for turn in range(SAMPLES * STORMS):
                record = (turn * 7 + number) % SAMPLES
                batch, views = submit(record)
                decoder.decode(samples.read(record))
                assert bytes_of(samples.render(record)) == pixels[record]
                if turn % 3:  # else it is dropped while it is in work
                    assert batch.wait() == [] and bytes_of(views) == want[record]
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failed == []


def check_batches(pack: Path) -> None:
    """Compare a loader's batches with its dataset's samples."""
    import torch

    from pass_loader import DataLoader, ShardDataset

    dataset = ShardDataset(pack, recipes.dino())
    loader = DataLoader(dataset, batch_size=8, shuffle=True, num_workers=2, return_info=True)
    seen = 0
    for views, _, info in loader:
        for slot, record in enumerate(info["records"].tolist()):
            assert all(torch.equal(view[slot], one) for view, one in zip(views, dataset.sample(record)))
            seen += 1
    assert seen == len(dataset)


def check_all_but_batches(root: Path) -> None:
    pass_pack("convert", root / "pack", "--out", root / "dct", "--codec", "dct")
    pass_pack("verify", root / "pack", "--decode")
    pass_pack("preview", root / "pack", "--recipe", "dino", "--out", root / "sheet.png", "--count", 2)
    assert Image.open(root / "sheet.png").size > (100, 100)
    check_views(root)
    check_threads(root / "pack")


def main(root: Path, absent: list[str]) -> None:
    for name in absent:
        assert importlib.util.find_spec(name) is None, f"{name} is installed"
    for command in ("gcc", "g++", "cc", "clang", "nvcc", "pkg-config"):
        assert shutil.which(command) is None, f"{command} is on the PATH"
    if importlib.util.find_spec("pass_loader._cuda") is not None:
        from pass_loader import _cuda

        _cuda.unavailable()  # looks for a driver, and says what is missing
    write_pictures(root / "in")
    pass_pack("build", root / "in", "--out", root / "pack", "--workers", 2)
    if importlib.util.find_spec("torch") is not None:
        check_batches(root / "pack")
    else:
        check_all_but_batches(root)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if sysconfig.get_config_var("Py_GIL_DISABLED") and os.environ.get("PYTHON_GIL") != "1":
        assert not gil, "some module has switched the GIL on"
    print(pass_loader.__file__)
    print(f"Python {sys.version.split()[0]}, {os.uname().machine}, GIL {gil}, levels {' '.join(_C.supported_isas())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
