"""Hostile packs: opened, verified, looked at and served, or a PackError or RecordError; no other exception, no hang."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError, RecordError, Samples, recipes
from pass_loader.pack import Pack, build, layout, remove, verify
from pass_loader.pack.reader import write_index

from ..helpers import bad_packs
from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree
from ..helpers.trials import trials

SAVED = (
    Path(__file__).parent.parent / "loading" / "saved" / "pack"
)  # of version 0.1.0, which has no checks of its files


@pytest.mark.slow
@pytest.mark.parametrize("file", bad_packs.FILES)
def test_opening(file: str) -> None:
    """The first ones of each file; `make fuzz` goes on. By turns with checksums that fit, as one who makes packs to do
    harm has them, and without."""
    counts, found = bad_packs.run(functools.partial(bad_packs.opened, file=file), file, range(trials(600, 2000)))
    assert not found, "\n".join(found[:10])
    assert min(counts["error"], counts["opened"]) > trials(30, 100), "all of it was tried"


@pytest.mark.slow
@pytest.mark.parametrize("file", [*bad_packs.FILES, bad_packs.TAR])
def test_the_whole_chain(file: str) -> None:
    """Open, verify, info, attribution, every record: 360 of all files together."""
    counts, found = bad_packs.run(bad_packs.gone_through, file, range(trials(60, 20_000)))
    assert not found, "\n".join(found[:10])
    assert min(counts["error"], counts["served"]) > trials(5, 10), "all of it was tried"


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("has 3000 rows, the manifest says 3", lambda table: pa.concat_tables([table] * 1000)),
        (r"unpacks to 3,.* bytes, which no", lambda table: table.append_column("x", pa.array(["\0" * 1_000_000] * 3))),
    ],
)
def test_tables_that_unpack_to_gigabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, more: Callable[[pa.Table], pa.Table]
) -> None:
    """Kills: a table that is read before its footer is looked at."""
    root = Path(shutil.copytree(SAVED, tmp_path / "pack"))
    path = root / "shard-00000.parquet"
    pq.write_table(more(pq.read_table(path).slice(0, 3)), path, compression="zstd", use_dictionary=False)
    monkeypatch.setattr(layout, "_MOST_UNPACKED", 1 << 20)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *arguments: pytest.fail("it is read"))
    with pytest.raises(PackError, match=f"shard-00000.parquet: it {words}"):
        layout.read_table(path, 3)


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
    names = [f"shard-00000-000.{suffix}" for suffix in ("tar", "rows", "parquet")]
    names += ["refused.jsonl", "pack.json", "finished"]
    names += ["metadata-00000.unfinished.spread"]
    for name in ["unfinished", *names, *(f"{name}.tmp" for name in [*names, "unfinished"])]:
        if name not in ("pack.json", "finished"):
            (root / name).symlink_to(victim if name != "unfinished" else tmp_path / "new")
    (tmp_path / "m.csv").write_text("hash,x\na,1\n")
    build([source], root, metadata=tmp_path / "m.csv")
    assert not (tmp_path / "new").exists(), "nothing is made at the other end of a link"
    assert victim.read_text() == "mine" and verify(root) == [] and not any(map(os.path.islink, root.iterdir()))


def test_labels_beyond_the_classes(tmp_path: Path) -> None:
    """A label that no class has ends where it is asked for: after it, training would end on the GPU, without words."""
    source = write_tree(tmp_path / "in", {"cat/a.jpg": jpeg(noise(8, 8, 0)), "dog/b.jpg": jpeg(noise(8, 8, 1))})
    build([source], tmp_path / "pack")
    index = pa.ipc.open_file(tmp_path / "pack" / "index.arrow").read_all()
    for label in (2, -2, 2**31 - 1):
        changed = index.set_column(8, index.schema.field(8), pa.chunked_array([pa.array([0, label], pa.int32())]))
        write_index(tmp_path / "pack" / "index.arrow", changed, Pack(tmp_path / "pack").pack_id)
        samples = Samples(tmp_path / "pack", recipes.mae(size=8))
        with pytest.raises(PackError, match=f"record 1 has the label {label}, and the pack has 2 classes"):
            samples.labels_of(np.arange(2))
        assert any("column label differs" in problem for problem in verify(tmp_path / "pack"))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_compressed_index(tmp_path: Path, compression: str) -> None:
    root = Path(shutil.copytree(SAVED, tmp_path / "pack"))
    index = pa.ipc.open_file(root / "index.arrow").read_all()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(root / "index.arrow", index.schema, options=options) as writer:
        writer.write_table(index)
    with pytest.raises(PackError, match="index.arrow (is compressed|has not the size).*delete it to have it rebuilt"):
        Pack(root)
    (root / "index.arrow").unlink()
    assert verify(root) == []


def test_values_of_tables_that_nobody_can_read(tmp_path: Path) -> None:
    root = Path(shutil.copytree(SAVED, tmp_path / "pack"))
    table = pq.read_table(root / "shard-00000.parquet")
    for name, values in (("id", ["a", None]), ("codec", ["jpeg", "raw"]), ("when", [0, 2**62])):
        rows = len(table)
        type = pa.timestamp("us") if name == "when" else pa.string()
        column = pa.array([values[0]] * (rows - 1) + [values[1]], type)
        place = table.schema.get_field_index(name)
        changed = table.append_column(name, column) if place < 0 else table.set_column(place, name, column)
        pq.write_table(changed, root / "shard-00000.parquet")
        with pytest.raises(PackError, match="shard-00000.parquet"):
            Pack(root).row(rows - 1)
