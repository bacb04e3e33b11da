"""Records and shards that turn bad after packing: an error with shard, record, id and cause; never other pixels."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pass_loader import DataLoader, RecordError, ShardDataset, ShardError, _C, recipes
from pass_loader.pack import Pack, build

from ..helpers.corpus import jpeg, noise
from ..helpers.packs import flip_a_bit
from ..helpers.trees import write_tree


pytestmark = pytest.mark.hostile
HALF = np.zeros((1, 3, 256), np.uint16)  # unused for float32
RECIPE = recipes.dino(local_crops=1, global_size=32, local_size=16)
MEAN_STD = np.array([[RECIPE.mean], [RECIPE.std]], np.float32)


@pytest.fixture
def copy(pack: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pack, tmp_path / "copy"))


@pytest.mark.parametrize("threads", [0, 2])
def test_changed_bytes(copy: Path, threads: int) -> None:
    dataset = ShardDataset(copy, RECIPE)
    flip_a_bit(dataset.pack, 5)
    loader = DataLoader(dataset, 4, num_workers=threads)
    with pytest.raises(RecordError) as caught:
        list(loader)
    error = caught.value
    assert (error.shard, error.record, error.id) == (dataset.pack.shard_name(5), 5, dataset.id_of(5))
    assert "CRC32C" in error.cause
    assert str(error) == f"{error.shard}, record 5, id {error.id}: {error.cause}"
    with pytest.raises(RecordError, match=error.id):
        dataset.decode(5)
    assert len(list(DataLoader(dataset, 4, sampler=range(5)))) == 2, "the others are served"
    import pickle

    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_bytes_that_were_bad_when_packed(tmp_path: Path) -> None:
    """A picture whose header is whole, and which ends well, but is cut in the middle: packing reads no pixels."""
    whole = jpeg(noise(64, 64))
    files = {f"{i}.jpg": jpeg(noise(20, 20, i)) for i in range(3)} | {"broken.jpg": whole[:700] + whole[-2:]}
    cut_header = bytearray(whole)
    cut_header[cut_header.index(b"\xff\xc4") + 4] = 0x55  # a Huffman table of a class that does not exist
    files["table.jpg"] = bytes(cut_header)
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack")
    dataset = ShardDataset(tmp_path / "pack", RECIPE)
    record = dataset.record_of("table")
    with pytest.raises(RecordError, match=f"record {record}, id table: JPEG: "):
        list(DataLoader(dataset, 2, num_workers=1))
    good = [r for r in range(len(dataset)) if r != record]
    for views, _ in DataLoader(dataset, 1, sampler=good):
        assert torch.isfinite(views[0]).all()


def test_a_failed_slot_holds_no_pixels(copy: Path) -> None:
    """The engine's promise under the exception: zeros, and zero plans, where a sample failed."""
    dataset = ShardDataset(copy, RECIPE)
    flip_a_bit(dataset.pack, 1)
    engine = _C.Engine(dataset.reader, RECIPE.rows(), 0, RECIPE.normalize_table()[None], HALF, *MEAN_STD, 1)
    views = [np.full((3, 3, v.height, v.width), 7, np.float32) for v in RECIPE.views]
    plans = np.ones((3, 3), dtype=_C.view_plan_dtype)
    failures = engine.submit(np.arange(3), *np.zeros((2, 3), np.uint32), views, plans).wait()
    assert [(slot, fault) for slot, fault, _ in failures] == [(1, "record")]
    for view in views:
        assert not view[1].any() and view[0].any() and view[2].any()
    assert not any(plans[1].tobytes()) and plans[0]["out_height"].all()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [0, 2])
def test_a_shard_that_shrinks_or_vanishes(copy: Path, threads: int) -> None:
    """Under the loader, in mid-epoch: an error, never a SIGBUS."""
    dataset = ShardDataset(copy, RECIPE)
    last = len(dataset) - 1
    shard = copy / dataset.pack.shard_name(last)
    loader = DataLoader(dataset, 2, num_workers=threads, prefetch_factor=1)
    iterator = iter(loader)
    next(iterator)
    os.truncate(shard, 3000)
    with pytest.raises(ShardError, match=r"it was cut off or replaced") as caught:
        list(iterator)
    assert isinstance(caught.value, OSError) and caught.value.shard == shard.name
    shard.unlink()
    fresh = ShardDataset(copy, RECIPE)
    with pytest.raises(ShardError, match=f"{shard.name}, record {last}, id .*: cannot open the shard: No such file"):
        fresh.sample(last)


def test_an_index_that_lies(pack: Path) -> None:
    """Offsets and lengths are checked against the file before anything is allocated or read."""
    paths = Pack(pack).tar_paths()
    for shard, offset, length in ((0, 2**62, 10), (0, 0, 2**62), (0, 2**63 - 1, 2**31), (0, -5, 10), (0, 0, -1),
                                  (99, 0, 10), (-1, 0, 10)):  # fmt: skip
        reader = _C.ShardReader(paths, np.array([shard], np.int32), np.array([offset], np.int64),
                                np.array([length], np.int64), np.array([0], np.uint32))  # fmt: skip
        with pytest.raises((ValueError, OSError)):
            reader.read(0)
        with pytest.raises(ValueError, match="record 1 is not in"):
            reader.read(1)
    with pytest.raises(ValueError, match="columns differ in length"):
        _C.ShardReader(
            paths, np.zeros(2, np.int32), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.uint32)
        )


def test_outputs_of_the_wrong_shape_are_refused(pack: Path) -> None:
    dataset = ShardDataset(pack, RECIPE)
    engine = _C.Engine(dataset.reader, RECIPE.rows(), 0, RECIPE.normalize_table()[None], HALF, *MEAN_STD, 0)
    good = [np.zeros((2, 3, v.height, v.width), np.float32) for v in RECIPE.views]
    two, draws = np.arange(2), np.zeros(2, np.uint32)
    for views in (good[:2], [g.astype(np.float64) for g in good], [g[:1] for g in good], [g[:, :, ::-1] for g in good]):
        with pytest.raises((ValueError, TypeError)):
            engine.submit(two, draws, draws, views)
    with pytest.raises(ValueError, match="one draw and epoch a record"):
        engine.submit(two, draws[:1], draws, good)


@pytest.mark.slow
def test_more_shards_than_open_files(tmp_path: Path) -> None:
    """Descriptors are bounded: 300 shards are read with 64 + 256 open files allowed."""
    files = {f"{i:03d}.jpg": jpeg(noise(8, 8, i)) for i in range(300)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", shard_bytes=1000, workers=1)
    assert len(Pack(tmp_path / "pack").shards) == 300
    code = (
        "import resource, sys, pass_loader\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (320, 320))\n"
        "from pass_loader import recipes\n"
        "dataset = pass_loader.ShardDataset(sys.argv[1], recipes.mocov2(size=8))\n"
        "for _ in range(2):\n"
        "    assert sum(len(labels) for _, labels in pass_loader.DataLoader(dataset, 7, num_workers=2)) == 300\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "pack")], check=True)


@pytest.mark.slow
def test_ctrl_c_while_waiting(pack: Path) -> None:
    """Interrupted in mid-epoch, a loop ends with KeyboardInterrupt and the process within moments."""
    code = (
        "import os, signal, sys, threading, pass_loader\n"
        "from pass_loader import recipes\n"
        "dataset = pass_loader.ShardDataset(sys.argv[1], recipes.dino(local_crops=100))\n"
        "loader = pass_loader.DataLoader(dataset, 23, num_workers=1)\n"
        "next(iter(loader))\n"
        "assert 'pandas' not in sys.modules\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are deaf to it\n"
        "threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()\n"
        "while True:\n"
        "    for batch in loader:\n"
        "        pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(pack)], capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in done.stderr and done.returncode in (1, -signal.SIGINT)
