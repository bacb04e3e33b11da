"""Hostile packs: opened, verified, looked at and served, or a PackError or RecordError; no other exception, no hang."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

from pass_loader import PackError, RecordError, Samples, recipes
from pass_loader.pack import Pack, build, remove, verify

from ..helpers import bad_packs
from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree
from ..helpers.trials import trials

SAVED = (
    Path(__file__).parent.parent / "loading" / "saved" / "pack"
)  # of version 0.1.0, which has no checks of its files


@pytest.mark.slow
@pytest.mark.parametrize("file", bad_packs.FILES)
def test_opening(tmp_path: Path, file: str) -> None:
    """The first ones of each file; `make fuzz` goes on. By turns with checksums that fit, as one who makes packs to do
    harm has them, and without."""
    counts, found = bad_packs.run(functools.partial(bad_packs.opened, file=file), file, range(2000), tmp_path)
    assert not found, "\n".join(found[:10])
    assert min(counts["error"], counts["opened"]) > 100, "all of it was tried"


@pytest.mark.slow
@pytest.mark.parametrize("file", [*bad_packs.FILES, bad_packs.TAR])
def test_the_whole_chain(tmp_path: Path, file: str) -> None:
    """Open, verify, info, attribution, every record: 2,000 of all files together."""
    counts, found = bad_packs.run(bad_packs.gone_through, file, range(trials(340, 20_000)), tmp_path)
    assert not found, "\n".join(found[:10])
    assert min(counts["error"], counts["served"]) > 20, "all of it was tried"


@pytest.mark.parametrize(
    "name", ["pack.json", "removed.jsonl", "index.arrow", "shard-00000.parquet", "shard-00000.tar"]
)
@pytest.mark.parametrize("what", ["fifo", "zero", "folder", "text"])
def test_files_that_are_none(tmp_path: Path, name: str, what: str) -> None:
    """Neither a hang nor memory without end."""
    root = Path(shutil.copytree(SAVED, tmp_path / "pack"))
    (root / name).unlink()
    if what == "fifo":
        os.mkfifo(root / name)
    elif what == "zero":
        (root / name).symlink_to("/dev/zero")
    elif what == "folder":
        (root / name).mkdir()
    else:
        (root / name).write_bytes(b"\xff\xfe not text")
    assert verify(root), "a problem is found"
    samples = None
    try:
        samples = Samples(root, recipes.mae(size=8))
    except PackError as error:
        assert name in str(error)
    if name == "shard-00000.tar":
        assert samples is not None
        with pytest.raises(RecordError, match="shard-00000.tar, record 0"):
            samples.render(0)
    else:
        assert samples is None


@pytest.mark.parametrize("name", ["pack.json", "removed.jsonl", "locations.json", "finished"])
def test_files_of_many_gigabytes(tmp_path: Path, name: str) -> None:
    """Kills: what is read whole without a look at its size."""
    source = write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(8, 8, 0))})
    root = tmp_path / "pack"
    build([source], root)
    if name == "locations.json":
        root = Path(shutil.copytree(SAVED, tmp_path / "pack2"))
    (root / name).touch()
    os.truncate(root / name, 10 << 30)  # a hole
    if name == "finished":  # not known again, then
        with pytest.raises(PackError, match="already a pack"):
            build([source], root)
    elif name == "locations.json":
        assert verify(root) == [], "only a pack in place looks into it"
    else:
        with pytest.raises(PackError, match=f"{name} has more than .* bytes, which no file of this name has"):
            Pack(root)
        assert verify(root)


def test_lines_without_end(tmp_path: Path) -> None:
    root = Path(shutil.copytree(SAVED, tmp_path / "pack"))
    (root / "removed.jsonl").write_bytes(b"\n" * (16 << 20))
    with pytest.raises(PackError, match="more lines than its 16,777,216 bytes can hold"):
        Pack(root)


@pytest.mark.parametrize("place", ["pack.json.tmp", "removed.jsonl.tmp"])
def test_links_in_the_way_of_temporary_files(tmp_path: Path, place: str) -> None:
    """What stands in the pack under such a name is not written through, wherever it leads."""
    build([write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(8, 8, 0)), "b.jpg": jpeg(noise(8, 8, 1))})], tmp_path / "p")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "p" / place).symlink_to(victim)
    remove(tmp_path / "p", ["a"], reason="asked")
    assert victim.read_text() == "mine" and len(Pack(tmp_path / "p")) == 1 and verify(tmp_path / "p") == []


def test_links_in_the_way_of_a_packing(tmp_path: Path) -> None:
    """A directory that claims to hold an unfinished packing, with links under all names that one writes."""
    source = write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(8, 8, 0)), "b.jpg": b"text"})
    victim, root = tmp_path / "victim", tmp_path / "pack"
    victim.write_text("mine")
    root.mkdir()
    names = ["shard-00000.tar", "shard-00000.rows", "shard-00000.parquet", "refused.jsonl", "pack.json", "finished"]
    for name in ["unfinished", "metadata.scratch", *names, *(f"{name}.tmp" for name in [*names, "unfinished"])]:
        if name not in ("pack.json", "finished"):
            (root / name).symlink_to(victim)
    (tmp_path / "m.csv").write_text("hash,x\na,1\n")
    build([source], root, metadata=tmp_path / "m.csv")
    assert victim.read_text() == "mine" and verify(root) == [] and not any(map(os.path.islink, root.iterdir()))
