"""`combine --in-place`: packs made apart become one that refers to their tars, and copies no picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pass_loader import PackError, ShardDataset, _C, recipes
from pass_loader.cli.main import main
from pass_loader.pack import (
    Pack, build, combine, convert, export, index, info, locate, purge, remove, restore, verify,
)  # fmt: skip
from pass_loader.pack.convert import PackSource
from pass_loader.pack.manifest import read_manifest, write_manifest

from ..helpers.corpus import jpeg, noise
from ..helpers.crash import crashes
from ..helpers.packs import flip_a_bit
from ..helpers.remote import RECIPE, digest
from ..helpers.trees import contents, tar_of, tree, write_tree

JPEGS = [jpeg(noise(16, 16, seed)) for seed in range(20)]


def make(root: Path, files: dict[str, bytes], **how: Any) -> Path:
    """Build a pack of a few shards at `root` of these files."""
    build([write_tree(root.with_name(f"{root.name}-in"), files)], root, workers=1, shard_bytes=4100, **how)
    return root


def numbered(*seeds: int) -> dict[str, bytes]:
    return {f"id{seed}.jpg": JPEGS[seed] for seed in seeds}


def refused(path: Path) -> dict[str, str]:
    lines = (path / "refused.jsonl").read_text().splitlines()
    return {json.loads(line)["id"]: json.loads(line)["reason"] for line in lines}


def same_records(one: Path, other: Path) -> bool:
    """Compare ids, bytes, labels and metadata, and what the manifests tell of them."""
    here, there = Pack(one), Pack(other)
    assert here.pack_id == there.pack_id and here.records == there.records
    samples = [ShardDataset(path, recipes.mocov2()) for path in (one, other)]
    for record in range(here.records):
        rows = [{name: value for name, value in pack.row(record).items() if name != "offset"} for pack in (here, there)]
        assert rows[0] == rows[1] and samples[0].read(record) == samples[1].read(record)
    names = ("classes", "codec", "metadata", "records", "sources")
    return all(here.manifest[name] == there.manifest[name] for name in names)


@pytest.mark.slow
def test_the_records_of_a_copy(pack: Path, tmp_path: Path) -> None:
    """Of packs of other codecs, columns and classes; in any number of threads; no picture is copied or changed."""
    other = make(tmp_path / "other", {f"dog/{i}.jpg": JPEGS[i] for i in range(6)}, codec="dct")
    before = tree(pack), tree(other)
    done = combine([pack, other], tmp_path / "copy")
    assert combine([pack, other], tmp_path / "new", in_place=True, workers=3) == done
    assert same_records(tmp_path / "new", tmp_path / "copy") and done.records == 29
    assert verify(tmp_path / "new", decode=True) == [] and not [*(tmp_path / "new").glob("*.tar")]
    assert digest(ShardDataset(tmp_path / "new", RECIPE), 2) == digest(ShardDataset(tmp_path / "copy", RECIPE), 2)
    combine([Pack(pack), Pack(other)], tmp_path / "again", in_place=True, workers=1)
    assert contents(tmp_path / "again") == contents(tmp_path / "new")
    assert str(tmp_path) not in (tmp_path / "new" / "pack.json").read_text(), "no paths of the machine"
    assert (tree(pack), tree(other)) == before
    tars = [*pack.glob("*.tar"), *other.glob("*.tar")]
    assert info(tmp_path / "new")["tar_bytes"] == sum(tar.stat().st_size for tar in tars)
    assert combine([pack, other], tmp_path / "new", in_place=True) == done, "it is the pack of that command"
    with pytest.raises(PackError, match="is already a pack, of other sources or other options"):
        combine([pack, other], tmp_path / "new")


@pytest.mark.parametrize("on_duplicate", ["keep", "first"])
def test_what_is_left_out(tmp_path: Path, on_duplicate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a copy: removed and purged ones, their ids elsewhere, ids and bytes that came before. Few are read."""
    first = make(tmp_path / "first", numbered(0, 1, 2, 3, 4))
    second = make(tmp_path / "second", {**numbered(1, 3, 5), "same.jpg": JPEGS[0], "x.jpg": JPEGS[6]})
    third = make(tmp_path / "third", {"y.jpg": JPEGS[6], "z.jpg": JPEGS[7]})
    remove(first, ["id1"], reason="mail")
    purge(first)
    remove(first, ["id2", "id3"], reason="mail")
    packs = [first, second, third]
    want = combine(packs, tmp_path / "copy", on_duplicate=on_duplicate)
    read: list[str] = []
    bytes_of = PackSource.read
    monkeypatch.setattr(PackSource, "read", lambda self, entry: (read.append(entry.id), bytes_of(self, entry))[1])
    assert combine(packs, tmp_path / "new", on_duplicate=on_duplicate, in_place=True) == want
    assert sorted(read) == ([] if on_duplicate == "keep" else ["id0", "same", "x", "y"])
    assert same_records(tmp_path / "new", tmp_path / "copy") and verify(tmp_path / "new", decode=True) == []
    assert refused(tmp_path / "new") == refused(tmp_path / "copy")
    assert want.removed == 3 and want.removed_elsewhere == 2 and want.same_bytes == (0 if on_duplicate == "keep" else 2)


def with_comment(text: bytes) -> bytes:
    return JPEGS[0][:2] + b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text + JPEGS[0][2:]


def same_crc(want: int, text: bytes) -> bytes:
    """Return a picture with a comment that begins with `text`, and this CRC32C: it is linear in the comment's end."""

    def crc(end: int) -> int:
        return _C.crc32c(with_comment(text + end.to_bytes(4, "big")))

    basis: dict[int, tuple[int, int]] = {}  # by its highest bit: a change of the CRC, and what makes it
    for bit in range(32):
        change, end = crc(1 << bit) ^ crc(0), 1 << bit
        while change and change.bit_length() in basis:
            other, of_other = basis[change.bit_length()]
            change, end = change ^ other, end ^ of_other
        basis[change.bit_length()] = change, end
    left, found = want ^ crc(0), 0
    while left:
        change, end = basis[left.bit_length()]
        left, found = left ^ change, found ^ end
    return with_comment(text + found.to_bytes(4, "big"))


def test_pictures_that_share_length_and_crc_alone(tmp_path: Path) -> None:
    """Kills: pictures that are taken for equal by length and CRC."""
    one = with_comment(b"one.\0\0\0\0")
    two = same_crc(_C.crc32c(one), b"two.")
    assert len(one) == len(two) and _C.crc32c(one) == _C.crc32c(two) and one != two
    first = make(tmp_path / "first", {"a.jpg": one, "b.jpg": JPEGS[1]})
    second = make(tmp_path / "second", {"c.jpg": two, "d.jpg": one, "e.jpg": JPEGS[2]})
    done = combine([first, second], tmp_path / "new", on_duplicate="first", in_place=True)
    assert (done.records, done.same_bytes) == (4, 1)
    assert refused(tmp_path / "new") == {"d": "its bytes were packed before"}


def test_errors_of_repeated_ones(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first", numbered(0, 1)), make(tmp_path / "second", {"b.jpg": JPEGS[1]})
    with pytest.raises(PackError, match=r"second: record 0 \(id b\): its bytes were packed before"):
        combine([first, second], tmp_path / "new", on_duplicate="error", in_place=True)
    with pytest.raises(PackError, match=r"first: record 0 \(id id0\): its id was packed before"):
        combine([first, first], tmp_path / "twice", on_duplicate="error", in_place=True)
    combine([first, first], tmp_path / "apart", prefixes=["a/", "b/"], in_place=True)
    combine([first, first], tmp_path / "copy", prefixes=["a/", "b/"])
    assert same_records(tmp_path / "apart", tmp_path / "copy") and verify(tmp_path / "apart") == []


def test_removals_afterwards(tmp_path: Path) -> None:
    """The new pack has a log of its own. It purges nothing of other packs, and says what to do."""
    first, second = make(tmp_path / "first", numbered(*range(6))), make(tmp_path / "second", numbered(7, 8))
    combine([first, second], tmp_path / "new", in_place=True)
    remove(tmp_path / "new", ["id1", "id7"], reason="mail")
    restore(tmp_path / "new", ["id7"], reason="no")
    assert len(Pack(tmp_path / "new")) == 7 and len(Pack(first)) == 6 and verify(tmp_path / "new") == []
    with pytest.raises(PackError, match="not its own.*purge them in the packs that this one was combined of"):
        purge(tmp_path / "new")
    remove(first, ["id1"], reason="mail")
    assert len(Pack(tmp_path / "new")) == 7
    purge(first)
    with pytest.raises(PackError, match=r"not where they were: .*first/shard-00000-000.tar .*combine its packs anew"):
        Pack(tmp_path / "new").open_reader()
    assert "combine its packs anew" in verify(tmp_path / "new")[0]
    combine([first, second], tmp_path / "anew", in_place=True)
    assert verify(tmp_path / "anew", decode=True) == [] and len(Pack(tmp_path / "anew")) == 7
    assert Pack(tmp_path / "anew").records_of(["id1"]) == [-1]


def test_packs_that_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their tars have the same names; they are told apart by what they hold. Kills: a tar found by its name alone."""
    for name, seeds in (("first", (0, 1)), ("second", (2, 3))):
        make(tmp_path / "data" / name, numbered(*seeds))
    combine([tmp_path / "data" / "first", tmp_path / "data" / "second"], tmp_path / "new", in_place=True)
    (tmp_path / "data").rename(tmp_path / "away")
    with pytest.raises(PackError, match=r"not where they were: .*/data/first/shard-00000-000.tar, .*pass-pack locate"):
        verify_or_raise(tmp_path / "new")
    assert Pack(tmp_path / "new").ids(np.arange(4)) == [f"id{i}" for i in range(4)], "what needs no bytes works"
    folders = [tmp_path / "away" / name for name in ("second", "first")]
    monkeypatch.setenv("PASS_LOADER_SOURCE_DIR", ":".join(map(str, folders)))
    assert verify(tmp_path / "new", decode=True) == []
    monkeypatch.delenv("PASS_LOADER_SOURCE_DIR")
    assert main(["locate", str(tmp_path / "new"), *map(str, folders)]) == 0
    assert verify(tmp_path / "new", decode=True) == []
    places = json.loads((tmp_path / "new" / "locations.json").read_text())
    assert {name[:5]: Path(path).parent.name for name, path in places.items()} == {"00000": "first", "00001": "second"}
    with pytest.raises(PackError, match="not where they were"):
        shutil.rmtree(tmp_path / "away" / "first")
        locate(tmp_path / "new", folders)


def verify_or_raise(path: Path) -> None:
    if found := verify(path):
        raise PackError(found[0])


def test_bytes_that_changed(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first", numbered(0, 1)), make(tmp_path / "second", numbered(2))
    combine([first, second], tmp_path / "new", in_place=True)
    flip_a_bit(Pack(first), 1)
    found = verify(tmp_path / "new")
    assert found and "not where they were" in found[0], "the ends by which the tar is known"
    with pytest.raises(PackError, match="record 1, id id1: .*CRC"):
        twin = make(tmp_path / "twin", {"b.jpg": JPEGS[1]})
        combine([first, twin], tmp_path / "next", on_duplicate="first", in_place=True)


def test_packs_that_refer_themselves(tmp_path: Path) -> None:
    """Packs that `index` made of a tar of several shards, packs that were combined in place; export and convert."""
    tar = tar_of(tmp_path / "a.tar", numbered(0, 1, 2))
    index([tar], tmp_path / "indexed", task_bytes=1)
    assert len(Pack(tmp_path / "indexed").shards) == 3
    own = make(tmp_path / "own", numbered(3, 4))
    combine([tmp_path / "indexed", own], tmp_path / "one", in_place=True)
    combine([tmp_path / "one", make(tmp_path / "last", numbered(5))], tmp_path / "two", in_place=True)
    pack = Pack(tmp_path / "two")
    assert {shard["foreign"]["file"] for shard in pack.shards} == {"a.tar", "shard-00000-000.tar"}
    assert len({shard["tar"] for shard in pack.shards}) == 3
    shutil.rmtree(tmp_path / "one")
    assert verify(tmp_path / "two", decode=True) == [] and pack.records == 6
    samples = ShardDataset(tmp_path / "two", recipes.mocov2())
    assert [samples.read(record) for record in range(6)] == JPEGS[:6]
    convert(tmp_path / "two", tmp_path / "dct", "dct")
    export(tmp_path / "two", tmp_path / "tars", "webdataset")
    tar.unlink()
    shutil.rmtree(own)
    assert verify(tmp_path / "dct") == [] and "foreign" not in Pack(tmp_path / "dct").shards[0]


def test_what_is_refused(tmp_path: Path) -> None:
    first = make(tmp_path / "first", numbered(0))
    with pytest.raises(PackError, match="lie in one another"):
        combine([first], first / "new", in_place=True)
    (first / "shard-00000-000.tar").rename(tmp_path / "gone")
    with pytest.raises(PackError, match="shard-00000-000.tar cannot be read: No such file.*pass-pack verify"):
        combine([first], tmp_path / "new", in_place=True)
    (tmp_path / "gone").rename(first / "shard-00000-000.tar")
    combine([first], tmp_path / "new", in_place=True)
    for file in ("../x", "", 7):
        manifest = read_manifest(tmp_path / "new")
        manifest["shards"][0]["foreign"]["file"] = file
        write_manifest(tmp_path / "new", manifest)
        with pytest.raises(PackError, match="pack.json is damaged: .*file is"):
            Pack(tmp_path / "new")
        manifest["shards"][0]["foreign"]["file"] = "shard-00000-000.tar"
        shutil.rmtree(tmp_path / "new")
        combine([first], tmp_path / "new", in_place=True)


def combine_them(root: Path) -> None:
    combine([root / "first", root / "second"], root / "new", on_duplicate="first", workers=2, in_place=True)


@pytest.mark.long
def test_killed_anywhere(tmp_path: Path) -> None:
    """The same call completes to the same bytes, but for where the packs lie."""
    start = tmp_path / "start"
    make(start / "first", numbered(0, 1))
    make(start / "second", {**numbered(0, 4), "x.jpg": JPEGS[0]})
    remove(start / "first", ["id1"], reason="a mail")
    *left, whole = crashes("tests.pack.test_combine_in_place:combine_them", start, tmp_path / "killed")
    want = contents(whole / "new")
    assert "locations.json" in want and want.pop("locations.json")
    assert verify(whole / "new", decode=True) == [] and Pack(whole / "new").records == 2
    assert len(left) > 15
    for root in left:
        for path in (root / "new").glob("*.tmp"):
            path.write_bytes(path.read_bytes()[:700])
        combine_them(root)
        found = contents(root / "new")
        del found["locations.json"]
        assert found == want


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make(tmp_path / "first", numbered(0, 1)), make(tmp_path / "second", numbered(1, 2))
    new = str(tmp_path / "new")
    assert main(["combine", str(first), str(second), "--in-place", "--out", new]) == 0
    assert "new: 3 records, " in capsys.readouterr().out
    assert main(["verify", new, "--decode"]) == 0 and main(["info", new]) == 0
    assert not [*Path(new).glob("*.tar")]
