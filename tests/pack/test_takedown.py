"""Takedowns that cannot be lost: whatever happens to a file of a pack, no removal is forgotten or moved in silence."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pass_loader import _C, PackError, ShardDataset, recipes
from pass_loader.cli.main import main
from pass_loader.pack import Pack, build, convert, purge, remove, restore, verify
from pass_loader.pack import reader, removed_log
from pass_loader.pack.manifest import read_manifest, write_manifest
from pass_loader.pack.removed_log import read_log

from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.forked import ready
from ..helpers.sealing import make_old, reseal, undated, write_log
from ..helpers.trees import contents, write_tree
from ..helpers.trials import trials

SAVED = Path(__file__).parent.parent / "loading" / "saved"  # packs of format version 1
COUNT = 14  # records of its "pack", two of which are removed


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of two classes in three shards, a refused file, a log of three lines: b/1 is removed, a/2 was."""
    root = tmp_path_factory.mktemp("sealed")
    files = {f"{'ab'[i % 2]}/{i}.jpg": jpeg(noise(16, 16, i)) for i in range(6)}
    build([write_tree(root / "in", files | {"a/no.jpg": b"no picture"})], root / "pack", shard_bytes=4100, workers=1)
    remove(root / "pack", ["b/1", "a/2"], reason="asked")
    restore(root / "pack", ["a/2"], reason="the wrong one")
    assert len(Pack(root / "pack").shards) == 3 and verify(root / "pack") == []
    return root / "pack"


@pytest.fixture
def pack(sealed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sealed, tmp_path / "pack"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture, one refused file, one line in the log: few bits."""
    root = tmp_path_factory.mktemp("tiny")
    sources = [write_tree(root / "in", {"a/1.jpg": jpeg(noise(8, 8)), "a/2.jpg": b""})]
    build(sources, root / "pack", workers=1)
    remove(root / "pack", ["a/1"], reason="x")
    return root / "pack"


def test_the_checks_as_the_page_of_the_format_says(pack: Path) -> None:
    """docs/format.md, computed without the package."""
    text = (pack / "pack.json").read_text()
    manifest = json.loads(text)
    check = hashlib.sha256(manifest["pack_id"].encode()).hexdigest()[:16]
    lines = (pack / "removed.jsonl").read_text().splitlines()
    for line in lines:
        begin, end = line.split(', "check": ')
        check = hashlib.sha256((check + begin + "}").encode()).hexdigest()[:16]
        assert end == f'"{check}"}}'
    assert manifest["removed"] == {"lines": len(lines), "check": check}
    own = manifest["crc32c"].pop("pack.json")
    assert own == _C.crc32c(text.replace(f'"pack.json": {own}', '"pack.json": 0').encode())
    covered = {"index.arrow", "refused.jsonl", *(path.name for path in pack.glob("*.parquet"))}
    assert manifest["crc32c"] == {name: _C.crc32c((pack / name).read_bytes()) for name in covered}


def flipped(path: Path, bits: Iterable[int]) -> Iterator[int]:
    """Yield each of the bits while it is flipped in the file. In place: a file cut short may be synced."""
    whole = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for bit in bits:
            os.pwrite(file.fileno(), bytes([whole[bit // 8] ^ 1 << bit % 8]), bit // 8)
            yield bit
            os.pwrite(file.fileno(), whole[bit // 8 : bit // 8 + 1], bit // 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["removed.jsonl", "pack.json", "refused.jsonl", "index.arrow", "shard-00000-000.parquet"]
)
def test_every_flipped_bit_is_found(tiny: Path, name: str) -> None:
    """Of the two large files one bit of each ninth byte, of the others each third bit (`make long`: one of each byte,
    and each); the CRC that finds one finds its neighbours."""
    whole = (tiny / name).read_bytes()
    large = name in ("index.arrow", "shard-00000-000.parquet")
    bits: Iterable[int] = range(0, 8 * len(whole), trials(3, 1))
    if large:
        bits = [8 * byte + (byte % 8) for byte in range(0, len(whole), trials(9, 1))]
    assert verify(tiny, workers=1) == []
    missed = [bit for bit in flipped(tiny / name, bits) if not verify(tiny, workers=1)]
    assert missed == [] and verify(tiny, workers=1) == []


@pytest.mark.slow
def test_flipped_bits_of_a_tar(tiny: Path) -> None:
    """A bit of a member's header, or one after the picture, is found where it changes what is read."""
    shard = tiny / "shard-00000-000.tar"

    def read() -> list[object]:
        with tarfile.open(shard) as tar:
            return [(member.get_info(), tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]

    whole, end = read(), len(shard.read_bytes())
    for bit in flipped(shard, [8 * byte + byte % 8 for byte in [*range(512), *range(end - 512, end)]]):
        if not verify(tiny, workers=1):
            assert read() == whole, bit


@pytest.mark.slow
def test_a_field_of_the_index_that_nobody_reads(tiny: Path) -> None:
    """Arrow hands a column's number of nulls on from file to file: it must not prove itself."""
    for bit in flipped(tiny / "index.arrow", range(8 * 700, 8 * 1100, trials(7, 1))):
        with contextlib.suppress(PackError):
            Pack(tiny)
            assert verify(tiny, workers=1), bit


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["removed.jsonl", "pack.json", "refused.jsonl", "index.arrow", "shard-00000-000.parquet"]
)
def test_every_truncation_is_found(tiny: Path, name: str) -> None:
    whole = (tiny / name).read_bytes()
    for length in range(0, len(whole), 1 if name in ("removed.jsonl", "pack.json", "refused.jsonl") else 13):
        (tiny / name).write_bytes(whole[:length])
        assert verify(tiny, workers=1), length
    (tiny / name).unlink()
    assert bool(verify(tiny, workers=1)) == (name != "index.arrow"), "the index is made again"
    (tiny / name).write_bytes(whole)
    assert verify(tiny, workers=1) == []


def other_pack(root: Path) -> list[bytes]:
    """The log of another pack with the same ids, records and reasons."""
    files = {f"{'ab'[i % 2]}/{i}.jpg": jpeg(noise(16, 16, 50 + i)) for i in range(6)}
    build([write_tree(root / "other-in", files)], root / "other", shard_bytes=4100, workers=1)
    remove(root / "other", ["b/1", "a/2"], reason="asked")
    return (root / "other" / "removed.jsonl").read_bytes().splitlines(keepends=True)


LOST = "lines were lost"
CHANGED = "does not fit its check"
UNCHECKED = "has no check"
CASES: dict[str, tuple[Callable[[list[bytes], Path], list[bytes]], str]] = {
    "emptied": (lambda lines, root: [], LOST),
    "last line lost": (lambda lines, root: lines[:-1], LOST),
    "first line lost": (lambda lines, root: lines[1:], LOST),
    "two lines swapped": (lambda lines, root: [lines[1], lines[0], *lines[2:]], CHANGED),
    "a line twice": (lambda lines, root: [lines[0], *lines], CHANGED),
    "the last line twice": (lambda lines, root: [*lines, lines[-1]], CHANGED),
    "a line of another pack": (lambda lines, root: [other_pack(root)[0], *lines[1:]], CHANGED),
    "a line of another pack added": (lambda lines, root: [*lines, other_pack(root)[1]], CHANGED),
    "another record": (lambda lines, root: [lines[0].replace(b'"record": 3', b'"record": 2'), *lines[1:]], CHANGED),
    "a line without a check added": (
        lambda lines, root: [*lines, b'{"id": "a/4", "record": 2, "date": "", "reason": ""}\n'], UNCHECKED,
    ),
    "all checks cut out": (
        lambda lines, root: [line[: line.index(b', "check"')] + b"}\n" for line in lines], "not those that pack.json",
    ),
    "the end of the last line": (lambda lines, root: [*lines[:-1], lines[-1][:-1]], "cut off"),
    "half of the last line": (lambda lines, root: [*lines[:-1], lines[-1][:40]], "cut off"),
    "an empty line": (lambda lines, root: [*lines, b"\n"], "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_log_that_is_not_the_one_that_was_written(pack: Path, tmp_path: Path, name: str) -> None:
    """An error for whoever opens the pack, and for a loader that runs, which goes on with what it knew before."""
    change, message = CASES[name]
    running = Pack(pack)
    log = pack / "removed.jsonl"
    log.write_bytes(b"".join(change(log.read_bytes().splitlines(keepends=True), tmp_path)))
    before = contents(pack)
    for action in (Pack, purge, lambda path: remove(path, ["a/0"], reason="x"), lambda path: running.refresh()):
        with pytest.raises(PackError, match=message):
            action(pack)
    assert running.removed.tolist() == [3] and "".join(verify(pack)) and contents(pack) == before
    with pytest.raises(PackError, match=message):
        running.refresh()  # again, not once


def test_a_deleted_log(pack: Path) -> None:
    (pack / "removed.jsonl").unlink()
    with pytest.raises(PackError, match="removed.jsonl has 0 lines, pack.json counts 3: lines were lost; take"):
        Pack(pack)
    assert verify(pack)


def test_lines_after_those_that_are_counted_hold(pack: Path) -> None:
    """Cut off between the log and pack.json: the removal is in force, and the next change counts it."""
    manifest = (pack / "pack.json").read_bytes()
    remove(pack, ["a/4"], reason="x")
    (pack / "pack.json").write_bytes(manifest)
    found = verify(pack)
    assert found == [] and "1 lines that pack.json does not count" in "".join(found.notes)
    assert Pack(pack).ids(Pack(pack).removed) == ["a/4", "b/1"]
    assert remove(pack, ["a/4"], reason="x").unchanged == ["a/4"]
    assert read_manifest(pack)["removed"]["lines"] == 4 and verify(pack).notes == []
    (pack / "pack.json").write_bytes(manifest)
    assert purge(pack).records == 2 and verify(pack) == [] and read_manifest(pack)["removed"]["lines"] == 6


@pytest.mark.parametrize("name", ["shard-00000-001.parquet", "index.arrow", "refused.jsonl"])
def test_a_change_does_not_hide_damage(pack: Path, name: str) -> None:
    """CRCs are computed of files that were written, and taken over of all others."""
    whole = (pack / name).read_bytes()
    (pack / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    want = list(verify(pack))
    assert any(name in problem for problem in want)
    with contextlib.suppress(PackError):  # a table that cannot be read
        remove(pack, ["a/0"], reason="x")
        restore(pack, ["b/1"], reason="x")
        purge(pack)
    assert any(name in problem for problem in verify(pack)) or name == "index.arrow", "a purge writes the index anew"
    if name == "refused.jsonl":
        (pack / name).unlink()
        remove(pack, ["a/4"], reason="x")
        assert "refused.jsonl is missing" in verify(pack)


def test_id_and_record_agree(pack: Path) -> None:
    """A line that somebody made up, checks and all: nothing is erased."""
    entries = [{"id": "b/1", "record": 3, "reason": "x"}, {"id": "a/0", "record": 4, "reason": "x"}]
    assert Pack(pack).records_of(["b/1", "a/0", "b/3"]).tolist() == [3, 0, 4]
    write_log(pack, entries)
    message = "removed.jsonl, line 2: record 4 has the id 'b/3', not 'a/0'"
    assert any(message in problem for problem in verify(pack))
    before = contents(pack)
    for action in (purge, lambda path: convert(path, path.parent / "out", "dct")):
        with pytest.raises(PackError, match=message):
            action(pack)
    assert contents(pack) == before
    reseal(pack, removed=removed_log.counted_before_all(Pack(pack).pack_id))
    with pytest.raises(PackError, match=message):
        Pack(pack)  # lines that nobody has counted are compared at once
    make_old(pack)
    for action in (Pack, purge, lambda path: remove(path, ["a/0"], reason="x")):
        with pytest.raises(PackError, match=message):
            action(pack)
    assert message in "".join(verify(pack)) and read_manifest(pack)["format_version"] == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"record": Infinity, "id": "a/0"}', b'{"record": 0.0, "id": "a/0"}', b'{"record": true, "id": "a/0"}',
        b'{"record": "0", "id": "a/0"}', b'{"record": 6, "id": "a/0"}', b'{"record": -1, "id": "a/0"}',
        b'{"record": 0}', b'{"id": "a/0"}', b"[]", b"7", b"", b"\xff\xfe", b"[" * 100_000, b'{"record": 0, "id": 5}',
        b'{"record": 99999999999999999999999999, "id": "a/0"}',
    ],
)  # fmt: skip
def test_lines_that_are_no_removals(pack: Path, line: bytes) -> None:
    make_old(pack)
    (pack / "removed.jsonl").write_bytes(line + b"\n")
    with pytest.raises(PackError, match="removed.jsonl, line 1"):
        Pack(pack)
    assert verify(pack)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pack", "dct", "second", "companions", "companions-by-column"])
def test_packs_of_0_1_0_are_sealed_by_the_next_change(tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(SAVED / name, tmp_path / name))
    before = contents(root)
    old = Pack(root)
    found = verify(root)
    assert found == [] and "of format version 1, without checksums" in found.notes[0] and "note: " in str(found)
    live = np.setdiff1d(np.arange(old.records), old.removed)
    done = remove(root, [old.id_of(int(live[0]))], reason="asked")
    assert len(done.changed) == 1 and old.refresh() and len(old) == len(live) - 1
    assert verify(root) == [] and read_manifest(root)["format_version"] == 2
    log = contents(root)["removed.jsonl"]
    assert log.startswith(before.get("removed.jsonl", b"")), "lines stay as they are"
    lines = before.get("removed.jsonl", b"").count(b"\n")
    assert read_log(root, read_manifest(root)).unchecked == lines
    notes = [f"{lines} lines of removed.jsonl have no check of their own"]
    assert [note.split(";")[0] for note in verify(root).notes] == notes[: lines > 0]
    for _ in flipped(root / "removed.jsonl", range(0, 8 * len(log) if name == "pack" else 0, trials(3, 1))):
        with pytest.raises(PackError):
            Pack(root)


def test_sealing_without_a_change(tmp_path: Path) -> None:
    root = Path(shutil.copytree(SAVED / "pack", tmp_path / "pack"))
    log = (root / "removed.jsonl").read_bytes()
    assert remove(root, ["a/01"], reason="again").unchanged == ["a/01"]
    assert (root / "removed.jsonl").read_bytes() == log and read_manifest(root)["removed"]["lines"] == 4
    assert len(Pack(root)) == COUNT - 2 and verify(root) == []
    purge(root)
    assert verify(root) == [] and len(Pack(root)) == COUNT - 2


def test_an_old_manifest_does_not_hide_checks(pack: Path) -> None:
    """What says that it is of version 1 and has checks is neither."""
    text = (pack / "pack.json").read_text()
    (pack / "pack.json").write_text(text.replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(PackError, match="damaged: its bytes do not have the CRC32C"):
        Pack(pack)


def test_an_index_that_was_made_again(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another version of Arrow it may have other bytes: not a fault, unless its values are others."""
    crcs = read_manifest(pack)["crc32c"]
    reseal(pack)
    assert read_manifest(pack)["crc32c"] == crcs, "the same values give the same bytes here"
    index = (pack / "index.arrow").read_bytes()
    (pack / "index.arrow").unlink()
    assert verify(pack) == [] and (pack / "index.arrow").read_bytes() == index
    manifest = json.loads((pack / "pack.json").read_text())
    manifest["crc32c"]["index.arrow"] ^= 1  # as another version would have written it
    write_manifest(pack, manifest)
    assert verify(pack) == []
    (pack / "index.arrow").write_bytes(index[:-1] + b"\0")
    assert "delete it to have it rebuilt" in "".join(verify(pack))


def seal_old(root: Path) -> None:
    remove(root, ["a/03", "a/05"], reason="asked")


def restore_it(root: Path) -> None:
    restore(root, ["b/1"], reason="a mistake")


def removed_ids(root: Path) -> list[str]:
    pack = Pack(root)
    return sorted(pack.ids(pack.removed))


@pytest.mark.slow
@pytest.mark.parametrize("action", [seal_old, restore_it])
def test_killed_anywhere(pack: Path, tmp_path: Path, action: Callable[[Path], None]) -> None:
    """Before or after, never another set, never an error; the same call then makes the files of the one that lived."""
    old = action is seal_old
    start = SAVED / "pack" if old else pack
    before = removed_ids(start)
    *left, whole = crashes(f"tests.pack.test_takedown:{action.__name__}", start, tmp_path / "killed")
    after = removed_ids(whole)
    assert len(left) > trials(4, 8) and before != after
    found = [removed_ids(root) for root in left]
    assert found == sorted(found, key=lambda ids: ids == after) and all(ids in (before, after) for ids in found)
    assert after in found, "killed between the log and pack.json too"
    for root in left:
        assert verify(root) == []
        action(root)
        assert undated(contents(root)) == undated(contents(whole)) and verify(root) == []


@pytest.mark.slow
def test_loaders_that_refresh_while_others_remove(tmp_path: Path) -> None:
    """Never an error, never a set that there was not: each remove takes the next id, in order."""
    files = {f"{i:02d}.jpg": jpeg(noise(8, 8, i)) for i in range(16)}
    root = tmp_path / "pack"
    build([write_tree(tmp_path / "in", files)], root, shard_bytes=20_000, workers=1)
    dataset = ShardDataset(root, recipes.mocov2(size=8))
    sets: set[tuple[int, ...]] = set()
    changes = ready().Process(target=_remove_in_order, args=(root,))
    changes.start()
    while changes.is_alive():
        dataset.pack.refresh()
        sets.add(tuple(dataset.pack.removed.tolist()))
        sets.add(tuple(Pack(root).removed.tolist()))
    changes.join()
    assert changes.exitcode == 0 and dataset.pack.refresh() in (True, False)
    assert dataset.pack.removed.tolist() == list(range(12)) and verify(root) == []
    assert all(removed == tuple(range(len(removed))) for removed in sets) and len(sets) > 3


def _remove_in_order(root: Path) -> None:
    for number in range(12):
        remove(root, [f"{number:02d}"], reason="x")
        if number % 5 == 4:
            purge(root)


def test_between_the_reading_of_pack_json_and_of_the_log(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that comes in between is seen whole."""
    content = removed_log._content
    calls = threading.Semaphore(1)

    def late(path: Path) -> object:
        if calls.acquire(blocking=False):
            remove(pack, ["a/4"], reason="x")
            purge(pack)
        return content(path)

    opened = Pack(pack)
    monkeypatch.setattr(removed_log, "_content", late)
    assert sorted(Pack(pack).removed.tolist()) == [2, 3]
    assert opened.refresh() and opened.removed.tolist() == [2, 3] and opened.revision == 1


def test_a_purge_between_two_looks_at_the_index(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a file that a purge has deleted meanwhile taken for one that is missing."""
    check = reader.check_regular
    calls = threading.Semaphore(1)

    def late(path: Path) -> None:
        check(path)
        if calls.acquire(blocking=False):
            remove(pack, ["a/4"], reason="x")
            purge(pack)

    monkeypatch.setattr(reader, "check_regular", late)
    opened = Pack(pack)
    assert opened.revision == 1 and not calls.acquire(blocking=False)


def test_what_was_removed_at_another_time(pack: Path) -> None:
    opened = Pack(pack)
    before = opened.generation
    remove(pack, ["a/4"], reason="x")
    opened.refresh()
    assert opened.removed_at(before).tolist() == [3] and opened.removed_at(0).tolist() == []
    assert opened.removed_at(opened.generation).tolist() == [2, 3]
    with pytest.raises(PackError, match="no time at which it had generation"):
        opened.removed_at(before + 1)


def test_nothing_of_a_read_only_pack_is_written(pack: Path) -> None:
    (pack / "index.arrow").unlink()
    before = contents(pack)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pass_loader.pack.reader.write_index", _refuse)
        assert verify(pack) == [] and Pack(pack).removed.tolist() == [3]
    assert contents(pack) == before


def _refuse(*arguments: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_verify_raises_nothing(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, *arguments: object):
            raise RuntimeError("a library's own")

    for name in ("read_manifest", "wrong_ids", "index_rows", "members", "Pack"):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["pass_loader.pack.verify"], name, Broken)
            assert "a library's own" in "".join(verify(pack)), name
    assert verify(pack / "nowhere") and verify(pack / "pack.json") and verify("\0")


def test_the_command_says_what_is_worth_knowing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(shutil.copytree(SAVED / "second", tmp_path / "second"))
    assert main(["verify", str(root)]) == 0
    assert "note: the pack is of format version 1" in capsys.readouterr().out
    assert main(["verify", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"]
