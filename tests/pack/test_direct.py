"""Files written past the page cache hold what was written, on file systems that take that and on others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pass_loader.pack import direct
from pass_loader.pack.direct import DirectWriter

BLOCK = 1 << 16  # a multiple of a page and of a sector


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_BLOCK_BYTES", BLOCK)


def pieces(total: int) -> list[bytes]:
    data = np.random.default_rng(total).bytes(total)
    cuts = sorted({0, total, *np.random.default_rng(1).integers(0, total + 1, 9).tolist()})
    return [data[a:b] for a, b in zip(cuts, cuts[1:])]


def written(path: Path, parts: list[bytes]) -> None:
    with DirectWriter(path) as file:
        for number, part in enumerate(parts):
            assert file.tell() == sum(map(len, parts[:number]))
            file.write(part)
    assert path.read_bytes() == b"".join(parts)


@pytest.mark.parametrize("total", [0, 1, 511, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 5 * BLOCK + 4096, 7 * BLOCK - 9])
def test_content(tmp_path: Path, total: int) -> None:
    (tmp_path / "f").write_bytes(b"what was there before" * BLOCK)
    written(tmp_path / "f", pieces(total))


def test_a_file_system_that_refuses_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    written(tmp_path / "f", pieces(3 * BLOCK + 5))


def test_a_file_system_that_refuses_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And writes that do less than they are asked for: the rest is not aligned."""
    write, calls = os.write, [0]

    def halting(descriptor: int, data: memoryview) -> int:
        calls[0] += 1
        if calls[0] == 2:
            return write(descriptor, data[: BLOCK // 2])
        if calls[0] == 3:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(descriptor, data[:1000] if calls[0] == 4 else data)

    monkeypatch.setattr(os, "write", halting)
    written(tmp_path / "f", pieces(4 * BLOCK + 5))


def test_errors_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk; a refusal that is not about O_DIRECT; a body that raises."""
    for number in (errno.ENOSPC, errno.EINVAL):

        def refuse(descriptor: int, data: memoryview, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse)
            with pytest.raises(OSError) as error, DirectWriter(tmp_path / "f") as file:
                file.write(bytes(BLOCK))
        assert error.value.errno == number
    with pytest.raises(ZeroDivisionError), DirectWriter(tmp_path / "f") as file:
        file.write(bytes(7))
        1 / 0  # noqa: B018


def test_a_link_in_the_way(tmp_path: Path) -> None:
    """It is replaced by a file, not written through."""
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "shard").symlink_to(tmp_path / "victim")
    with DirectWriter(tmp_path / "shard") as file:
        file.write(b"ours")
    assert (tmp_path / "victim").read_bytes() == b"mine" and (tmp_path / "shard").read_bytes() == b"ours"
    assert not (tmp_path / "shard").is_symlink()
