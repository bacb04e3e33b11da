"""A process that ends while a daemon thread is inside a native call: exit code 0, as with torch's workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.corpus import jpeg, noise
from ..helpers.forked import usual
from ..helpers.trials import trials

pytestmark = pytest.mark.slow  # each starts processes

ROOT = Path(__file__).parents[2]
REPETITIONS = trials(5, 20)

# A process of its own runs this REPETITIONS times, each time in a fork: importing is the slow part. What is forked has
# one thread, and ends as any script ends.
RUN = """
import os, sys, threading, time
import numpy as np
from pass_loader import _C
{prepare}
def call():
    {call}
def forever():
    while True:
        call()
call()
codes = []
for _ in range({repetitions}):
    child = os.fork()
    if child == 0:
        for _ in range(3):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.03)
        break  # to the end of the script
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    print(codes)
"""

PICTURE = "picture = open(sys.argv[1], 'rb').read(); record = _C.jpeg_to_dct(picture)"
RECIPE = f"""
{PICTURE}
from pass_loader.recipes import dino
keys = np.arange(64), np.zeros(64, np.uint32), np.zeros(64, np.uint32)
plans = _C.plan_views(dino().rows(), seed=0, epoch=0, record=0, height=96, width=128)
pixels = _C.decode(picture)
decoder = _C.Decoder()
def reader():
    place = (np.zeros(64, np.int32), np.zeros(64, np.int64), np.full(64, len(picture)))
    return _C.ShardReader([sys.argv[1]], *place, np.full(64, _C.crc32c(picture), np.uint32))
def engine(threads):
    table, one = np.zeros((1, 3, 256), np.float32), np.ones((1, 3), np.float32)
    return _C.Engine(reader(), dino().rows(), 0, table, table.astype(np.uint16), one, one, threads)
def render(made):
    views = [np.empty((64, 3, int(row['out_height']), int(row['out_width'])), np.float32) for row in dino().rows()]
    return made.submit(*keys, views)
def decode(made):
    return made.decode(*keys, np.empty(1 << 22, np.uint8), np.zeros((64, 5), np.int64),
                       np.zeros((64, len(dino().rows())), _C.view_plan_dtype))
"""

CALLS = {
    "crc32c": "_C.crc32c(picture)",
    "decode": "_C.decode(picture)",
    "Decoder.decode": "decoder.decode(picture)",
    "check_decodes": "_C.check_decodes(picture)",
    "check_scans": "_C.check_scans(picture)",
    "jpeg_to_dct": "_C.jpeg_to_dct(picture)",
    "dct_to_jpeg": "_C.dct_to_jpeg(record)",
    "layer_dct": "_C.layer_dct(record, True)",
    "render_plan": "_C.render_plan(pixels, plans)",
    "block_masks": "_C.block_masks(0, *keys, 0, (14, 14), np.full(64, 90.0), 4.0, 90.0, 0.3, False)",
    "orders": "_C.orders(0, *keys, 0, 196)",
    "multi_block": "_C.multi_block(0, *keys, (14, 14), (5, 5), (12, 12), 4, 1, 10)",
    "ShardReader.read": "reader().read(0)",
    "Engine": "engine(2)",
    "wait, no threads": "render(engine(0)).wait()",
    "wait": "render(engine(2)).wait()",
    "wait, short": "render(engine(2)).wait(0.001)",
    "wait, dropped": "render(engine(2))",
    "decode's wait": "decode(engine(2)).wait()",
    "wait, in a section": "with _C.Section(): render(engine(2)).wait()",
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exit") / "a.jpg"
    path.write_bytes(jpeg(noise(96, 128, 0)))
    return path


def exit_codes(picture: Path, prepare: str, call: str) -> list[int]:
    script = RUN.format(prepare=prepare, call=call, repetitions=REPETITIONS)
    done = subprocess.run([sys.executable, "-c", script, str(picture)], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


@pytest.mark.parametrize("name", CALLS)
def test_a_thread_in_a_native_call_at_exit(picture: Path, name: str) -> None:
    assert exit_codes(picture, RECIPE, CALLS[name]) == [0] * REPETITIONS


def test_a_thread_in_torch_at_exit() -> None:
    """The exit waits for the end of a section, however long torch takes. Kills: a wait of 100 ms, as for threads of
    which nothing is known: torch ends the process then."""
    script = """
import threading, torch
from pass_loader import _C
torch.set_num_threads(1)
begun = threading.Event()
def work():
    with _C.Section():
        begun.set()
        torch.randn(1 << 25)
    print("not to be seen")
threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    done = usual().run(script)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_thread_ahead_of_a_loader_at_exit(pack: Path) -> None:
    """The usual prefetcher: a daemon thread fills a queue from a DataLoader, and the consumer leaves after 3."""
    script = """
import queue, sys, threading
import pass_loader
from pass_loader import recipes
loader = pass_loader.DataLoader(pass_loader.ShardDataset(sys.argv[1], recipes.dino()), 2, num_workers=int(sys.argv[2]))
ahead = queue.Queue(2)
def fill():
    while True:
        for batch in loader:
            ahead.put(batch)
threading.Thread(target=fill, daemon=True).start()
for _ in range(3):
    ahead.get()
"""
    for threads in ("0", "2") * trials(2, 20):
        assert usual().run(script, [pack, threads]).returncode == 0


def test_a_child_of_a_fork_closes_its_own_gate(picture: Path) -> None:
    """Kills: a child that waits at its exit for threads which only its parent has."""
    prepare = f"""
{RECIPE}
for _ in range(3):
    threading.Thread(target=lambda: [_C.crc32c(picture) for _ in iter(int, 1)], daemon=True).start()
"""
    assert exit_codes(picture, prepare, "_C.decode(picture)") == [0] * REPETITIONS
