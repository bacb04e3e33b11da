"""Packing on a full disk: the cause, the remedy, and the same command goes on."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pass_loader import PackError
from pass_loader.pack import metadata, task, verify
from pass_loader.cli.main import main
from pass_loader.pack.columns import IndexColumns
from pass_loader.pack.join import Join
from pass_loader.pack.layout import INDEX_SCHEMA
from pass_loader.pack.repeats import FileArray, alike

from ..helpers.corpus import jpeg, noise
from ..helpers.packs import pack_sources, sources_of
from ..helpers.small_disk import fill, on_a_small_disk
from ..helpers.trees import write_tree


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The cause, the remedy, and the same command goes on."""
    folder, _ = sources_of(tmp_path)
    fsync, room = os.fsync, [9]

    def full(descriptor: int) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    arguments = ["build", str(folder), "--out", str(tmp_path / "pack"), "--shard-bytes", "4100", "--workers", "1"]
    assert main(arguments) == 1
    assert "no space is left for" in (text := capsys.readouterr().err) and "make room there" in text
    monkeypatch.undo()
    assert list((tmp_path / "pack").glob("*.rows"))
    assert main(arguments) == 0 and verify(tmp_path / "pack") == []


def test_no_room_beside_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For joining the metadata, and for the table of ids: neither the metadata nor our code is to blame."""
    sources_of(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Join, "_write_round", full)
        with pytest.raises(PackError, match="no space is left for .*/pack .*make room there"):
            pack_sources(tmp_path)

    class Small(metadata.Seen):
        def __init__(self) -> None:
            super().__init__()
            self._database.execute("pragma max_page_count=2")

        def is_new(self, key: str | bytes) -> bool:
            return [super(Small, self).is_new(f"{key!r}{i}") for i in range(1000)][0]

    shuffled = ["build", str(tmp_path / "in"), "--out", str(tmp_path / "shuffled"), "--shuffle", "1"]
    monkeypatch.setattr(task, "Seen", Small)
    assert main(shuffled) == 1
    assert re.search("temporary tables of ids .*database or disk is full.*SQLITE_TMPDIR", capsys.readouterr().err)
    monkeypatch.undo()
    assert main(shuffled) == 0
    pack_sources(tmp_path)
    assert verify(tmp_path / "pack") == []


IN_A_SMALL_DISK = """
mount -t tmpfs -o size=300k none "$1" || exit 77
shift
"$@"; first=$?
mount -o remount,size=16m "$OUT" && "$@" && "$PYTHON" -m pass_loader.cli.main verify "$OUT/pack" && exit $first
exit 78
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 300 kB, for pictures of a megabyte; then it grows, and the same command goes on."""
    folder = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(noise(256, 256, i)) for i in range(12)})
    out = tmp_path / "out"
    out.mkdir()
    build_it = [sys.executable, "-m", "pass_loader.cli.main", "build", str(folder), "--out", str(out / "pack")]
    shell = ["unshare", "--mount", "--map-root-user", "sh", "-c", IN_A_SMALL_DISK, "sh", str(out)]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not here: no file system of its own can be mounted")
    environment = os.environ | {"OUT": str(out), "PYTHON": sys.executable}
    done = subprocess.run(
        [*shell, *build_it, "--shard-bytes", "120KiB"], capture_output=True, text=True, env=environment
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    assert "no space is left for" in done.stderr and "make room there" in done.stderr, done.stderr
    assert done.returncode == 1, done


ARRAYS = """
import sys
from pathlib import Path
from tests.pack.test_full_disk import arrays_on_a_full_disk
arrays_on_a_full_disk(Path(sys.argv[1]))
"""


def test_arrays_on_a_full_disk(tmp_path: Path) -> None:
    """Kills: arrays in files with holes, whose first write ends the process with a bus error."""
    on_a_small_disk("1000k", tmp_path / "disk", ARRAYS)


def arrays_on_a_full_disk(disk: Path) -> None:
    """What the process on the small disk does."""
    with pytest.raises(OSError, match="No space left on device"):
        FileArray(disk, np.dtype(np.int64), 10**6).array[:] = 1
    columns, numbers = IndexColumns(disk), np.arange(2000)
    columns.append(
        pa.table([pa.array(numbers).cast(type, safe=False) for type in INDEX_SCHEMA.types], schema=INDEX_SCHEMA)
    )
    of_bytes = columns.column("length"), columns.column("crc32c")
    assert not alike(disk, *of_bytes).any()
    fill(disk)
    with pytest.raises(OSError, match="No space left on device"):
        alike(disk, *of_bytes)
