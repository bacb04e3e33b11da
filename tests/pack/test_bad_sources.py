"""A bad input is one refusal, or a PackError that says what to do; it is never another exception, and never the end."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError, Samples, recipes
from pass_loader.pack import Pack, build, convert, remove
from pass_loader.pack.build import index
from pass_loader.pack.cores import usable_cores
from pass_loader.pack.plain_json import plain_json
from pass_loader.pack.source import Entry
from pass_loader.pack.sources import FolderSource

from ..helpers import bad_sources
from ..helpers.corpus import jpeg, noise
from ..helpers.packs import sources_of
from ..helpers.trees import tar_of, write_tree
from ..helpers.trials import trials

PICTURES = [jpeg(noise(8, 9 + number, number)) for number in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", bad_sources.KINDS)
def test_damaged_in_many_ways(kind: str) -> None:
    """The first ones of each kind; `make long` goes on to 30,000."""
    counts, found = bad_sources.run(kind, range(trials(200, 30_000)))
    assert not found, "\n".join(found[:10])
    assert min(counts["error"], counts["refusals" if kind != "csv" else "packed"]) > trials(4, 10), (
        "all of it was tried"
    )


def refused(tmp_path: Path, source: Path) -> dict[str, str]:
    """Pack a source; returns the refused ids with the reasons."""
    return {refusal.id: refusal.reason for refusal in build([source], tmp_path / f"{source.name}-pack").refused}


def zip_of(pictures: list[bytes]) -> tuple[bytes, list[int]]:
    """A deflated zip, and where its members begin."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(pictures):
            archive.writestr(f"{number}.jpg", data)
        starts = [info.header_offset for info in archive.infolist()]
    return out.getvalue(), starts


@pytest.mark.slow
def test_a_damaged_member_of_a_zip(tmp_path: Path) -> None:
    """zlib.error and NotImplementedError are the member's refusal, not the zip's end."""
    whole, starts = zip_of(PICTURES)
    for at in range(starts[1] + 35, starts[2], 16):
        path = tmp_path / f"{at}.zip"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        (reason,) = refused(tmp_path, path).items()
        assert reason[0] == "1" and reason[1].startswith("the zip is damaged here"), at
    directory = whole.index(b"PK\1\2")
    newer = bytearray(whole)
    newer[directory + 6] = 99  # the version that is needed to read it
    (tmp_path / "newer.zip").write_bytes(newer)
    with pytest.raises(PackError, match="newer.zip is not a readable zip: zip file version 9.9; download it again"):
        build([tmp_path / "newer.zip"], tmp_path / "pack")


def pax_tar(path: Path, headers: dict[str, str]) -> Path:
    """A tar of three pictures; the second has these Pax headers."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, data in enumerate(PICTURES):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(data)
            member.pax_headers = headers if number == 1 else {}
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("size", [2**63, 2**64, -512, -(2**40), 10**30, 10**9])
def test_a_size_that_no_member_has(tmp_path: Path, size: int) -> None:
    path = pax_tar(tmp_path / "t.tar", {"size": str(size)})
    with pytest.raises(PackError, match=r"t.tar (is|has) .*download it again"):
        build([path], tmp_path / "pack")


def test_sparse_members(tmp_path: Path) -> None:
    """GNU.sparse headers: the member's refusal where they can be read, the tar's PackError where not."""
    for number, headers in enumerate(({"GNU.sparse.map": "0,5", "GNU.sparse.size": "5"},
                                      {"GNU.sparse.size": "5", "GNU.sparse.numblocks": "0"})):  # fmt: skip
        assert refused(tmp_path, pax_tar(tmp_path / f"{number}.tar", headers)) == {"1": "it is a sparse member"}
    for headers in ({"GNU.sparse.map": "x,y"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}):
        with pytest.raises(PackError, match="download it again"):
            build([pax_tar(tmp_path / "bad.tar", headers)], tmp_path / "pack")


def test_many_headers_for_one_member(tmp_path: Path) -> None:
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1
    block = long.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")
    whole = tar_of(tmp_path / "t.tar", {"0.jpg": PICTURES[0]}).read_bytes()
    (tmp_path / "t.tar").write_bytes(block * 5000 + whole)
    with pytest.raises(PackError, match="thousands of headers for one member"):
        build([tmp_path / "t.tar"], tmp_path / "pack")


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        ("json", b"[" * 100_000, "brackets deeper than 64"),
        ("json", b'{"a":' * 65 + b"1" + b"}" * 65, "brackets deeper than 64"),
        ("json", b'{"a": "\\ud800"}', "half a surrogate pair: '\\ud800'"),
        ("json", b'{"\\udfff": 1}', "half a surrogate pair"),
        ("json", b"\xff\xfe", "its sample's .cls or .json cannot be read"),
        ("cls", b"4294967296", "its label 4294967296 does not fit into 32 bits"),
        ("cls", b"9" * 30, "does not fit into 32 bits"),
        ("cls", b"9" * 5000, "its sample's .cls or .json cannot be read"),
        ("cls", b"-2147483649", "does not fit into 32 bits"),
    ],
)
def test_what_stands_beside_a_picture(tmp_path: Path, suffix: str, content: bytes, reason: str) -> None:
    files = {"0.jpg": PICTURES[0], "0.cls": b"1", "1.jpg": PICTURES[1], f"1.{suffix}": content, "2.jpg": PICTURES[2]}
    ((id, found),) = refused(tmp_path, tar_of(tmp_path / "w.tar", files)).items()
    assert id == "1" and reason in found


def test_json_that_a_pack_can_hold(tmp_path: Path) -> None:
    deep = b'{"a":' * 64 + b"1" + b"}" * 64
    assert plain_json(deep) == json.loads(deep)
    big = {"a": 2**62 + 1, "b": 2**80, "c": "\U0001f600"}
    files = {"0.jpg": PICTURES[0], "0.json": json.dumps(big).encode(), "1.jpg": PICTURES[1], "1.json": b'{"a": 0.5}'}
    build([tar_of(tmp_path / "w.tar", files)], tmp_path / "pack")
    assert Samples(tmp_path / "pack", recipes.mocov2()).metadata(0) == {**big, "a": float(2**62), "b": str(2**80)}


def test_labels_of_a_parquet_file(tmp_path: Path) -> None:
    for type, label in ((pa.uint64(), 2**64 - 1), (pa.int64(), 2**31)):
        path = tmp_path / f"{label}.parquet"
        labels = pa.array([1, label, 2**31 - 1], type)
        pq.write_table(pa.table({"image": PICTURES, "label": labels, "id": ["0", "1", "2"]}), path)
        assert refused(tmp_path, path) == {"1": f"its label {label} does not fit into 32 bits"}
        assert Pack(tmp_path / f"{path.name}-pack").column("label").tolist() == [1, 2**31 - 1]


def test_a_column_of_no_images(tmp_path: Path) -> None:
    for column in (["0.jpg"], [1], [{"path": "0.jpg"}]):
        pq.write_table(pa.table({"image": column}), tmp_path / "p.parquet")
        with pytest.raises(PackError, match="its column 'image' holds .*; want bytes, or a struct with `bytes`"):
            build([tmp_path / "p.parquet"], tmp_path / "pack")


def test_names_that_are_none(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"0.jpg": PICTURES[0]})
    (root / "list.txt").write_bytes(b"0.jpg\n/\n.\na\0b.jpg\n" + b"n" * 5000 + b"\n\xff.jpg\n")
    report = build([root / "list.txt"], tmp_path / "pack")
    assert (report.pictures, report.refused_count) == (1, 5)
    os.symlink("self", root / "self")
    assert build([root], tmp_path / "folder").refused_count == 2


def test_metadata_as_writers_make_it_today(tmp_path: Path) -> None:
    """Views, lists of them, and dictionaries that differ from row group to row group: polars, chunked pandas."""
    rows = [{"hash": n, "s": f"s{n}", "b": bytes([int(n), 255]), "d": f"d{n}",
             "l": [f"x{n}", None], "ld": [f"y{n}"], "f": {"g": f"z{n}"}} for n in "012"]  # fmt: skip
    dictionary = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([("hash", pa.string_view()), ("s", pa.string_view()), ("b", pa.binary_view()), ("d", dictionary),
                        ("l", pa.list_(pa.string_view())), ("ld", pa.list_(pa.string())),
                        ("f", pa.struct([("g", pa.string_view())]))])  # fmt: skip
    with pq.ParquetWriter(tmp_path / "m.parquet", schema) as writer:
        for row in rows:
            writer.write_table(pa.Table.from_pylist([row], schema))
    assert pq.ParquetFile(tmp_path / "m.parquet").num_row_groups == 3
    source = write_tree(tmp_path / "in", {f"{number}.jpg": data for number, data in enumerate(PICTURES)})
    report = build([source], tmp_path / "pack", metadata=tmp_path / "m.parquet")
    assert (report.without_metadata, report.metadata_unused) == (0, 0)
    samples = Samples(tmp_path / "pack", recipes.mocov2())
    assert [{"hash": samples.id_of(record), **samples.metadata(record)} for record in range(3)] == rows


def test_links_to_folders_around_them(tmp_path: Path) -> None:
    """They are refused, where two of them are 2**40 folders to os.walk; other links to folders are followed."""
    root = write_tree(tmp_path / "in", {"a/0.jpg": PICTURES[0], "b/1.jpg": PICTURES[1]})
    links = {"a/self": ".", "a/again": "../a", "b/up": "../..", "c": "b", "a/b": "../b", "b/a": "../a", "all": "."}
    for link, target in links.items():
        os.symlink(target, root / link)
    write_tree(tmp_path / "in", {"d/2.jpg": PICTURES[2]})
    report = build([root], tmp_path / "pack")
    found = set(Pack(tmp_path / "pack").ids(np.arange(report.pictures)))
    assert {"a/0", "b/1", "c/1", "d/2", "a/b/1", "b/a/0"} <= found
    assert {refusal.id for refusal in report.refused} >= {"a/self", "a/again", "b/up", "a/b/a", "b/a/b", "all"}
    assert {refusal.reason for refusal in report.refused} == {"it is no regular file"}
    assert report.pictures < 20 and Pack(tmp_path / "pack").classes == ["a", "b", "c", "d"]


MANY_SOURCES = """
import resource, sys
from pathlib import Path
from pass_loader.pack import build
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
root = Path(sys.argv[1])
print(build(sorted((root / "in").iterdir()), root / "pack", workers=4).pictures)
"""


@pytest.mark.slow
def test_more_sources_than_open_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(1200):
        path, data = tmp_path / "in" / str(number), PICTURES[number % 3]
        if number < 1100:
            tar_of(path, {f"t{number}.jpg": data})
        elif number % 2:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"z{number}.jpg", data)
        else:
            pq.write_table(pa.table({"image": [data], "id": [f"p{number}"]}), path)
    done = subprocess.run([sys.executable, "-c", MANY_SOURCES, tmp_path], capture_output=True, text=True)
    assert done.stdout == "1200\n", done.stderr


def test_no_more_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are not refused because the process has too many files open."""
    root = write_tree(tmp_path / "in", {"0.jpg": PICTURES[0]})

    def read(source: FolderSource, entry: Entry) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", entry.name)

    monkeypatch.setattr(FolderSource, "read", read)
    with pytest.raises(PackError, match="0.jpg cannot be read: Too many open files.*ulimit -n"):
        build([root], tmp_path / "pack")


def system(root: Path, files: dict[str, str]) -> Path:
    return write_tree(root, {name: text.encode() for name, text in files.items()})


def test_cores_that_one_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert usable_cores(tmp_path) == 16
    for number, (want, files) in enumerate(
        (
            (2, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}),
            (3, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                 "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}),
            (1, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1000 100000\n"}),
            (4, {"proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n2:memory:/y\n",
                 "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}),
            (16, {"proc/self/cgroup": "4:cpu:/x\nodd\n0::/../y\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1",
                  "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000", "sys/fs/cgroup/y/cpu.max": ""}),
            (16, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}),
        )
    ):  # fmt: skip
        assert usable_cores(system(tmp_path / str(number), files)) == want, number


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "in", {"0.jpg": PICTURES[0]})
    build([root], tmp_path / "pack")

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    for change in (lambda: build([root], tmp_path / "new"), lambda: remove(tmp_path / "pack", ["0"], reason="asked")):
        with pytest.raises(PackError, match="has no locks .*Lustre: `-o flock`"):
            change()


def test_a_repeated_command_finds_its_pack(tmp_path: Path) -> None:
    """Killed after the last step, a command knows its pack again; another one, or other sources, do not."""
    folder, tar = sources_of(tmp_path)
    first = build([folder, tar], tmp_path / "pack", metadata=tmp_path / "m.csv")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "pack").iterdir()}
    assert build([folder, tar], tmp_path / "pack", metadata=tmp_path / "m.csv", workers=1) == first
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "pack").iterdir()} == before
    convert(tmp_path / "pack", tmp_path / "dct", "dct")
    assert convert(tmp_path / "pack", tmp_path / "dct", "dct").dct > 0
    index([tar], tmp_path / "index")
    assert index([tar], tmp_path / "index").pictures == 1
    with pytest.raises(PackError, match="already a pack, of other sources or other options"):
        build([folder, tar], tmp_path / "pack", metadata=tmp_path / "m.csv", gps=False)
    write_tree(folder, {"c0/new.jpg": PICTURES[0]})
    with pytest.raises(PackError, match="already a pack"):
        build([folder, tar], tmp_path / "pack", metadata=tmp_path / "m.csv")
    (folder / "c0" / "new.jpg").unlink()
    assert build([folder, tar], tmp_path / "pack", metadata=tmp_path / "m.csv") == first
    for damage in (b"[]", b"{", b""):
        (tmp_path / "pack" / "finished").write_bytes(damage)
        with pytest.raises(PackError, match="already a pack"):
            build([folder, tar], tmp_path / "pack", metadata=tmp_path / "m.csv")


MANY_SHARDS = """
import os, resource, sys
import pass_loader
from pass_loader import ShardError, recipes
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
readers = [pass_loader.Samples(sys.argv[1], recipes.mocov2()) for _ in range(4)]
want = [readers[0].read(record) for record in range(len(readers[0]))]
for samples in readers:
    assert [samples.read(record) for record in range(len(samples))] == want
assert len(os.listdir("/proc/self/fd")) < 600, "half of what may be open, and what Python has open"
readers, extra = [pass_loader.Samples(sys.argv[1], recipes.mocov2())], []
try:
    while True:
        extra.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
try:
    readers[0].read(0)
except ShardError as error:
    print(error)
os.close(extra.pop())
os.close(extra.pop())
assert readers[0].read(0) == want[0] and readers[0].read(1) == want[1]
"""


@pytest.mark.slow
def test_more_shards_than_open_files(tmp_path: Path) -> None:
    """All readers of a process together keep half of the descriptors that it may have; their lack has words."""
    files = {f"{number:03d}.jpg": jpeg(noise(9, 9, number)) for number in range(300)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", shard_bytes=1)
    assert len(Pack(tmp_path / "pack").shards) == 300
    done = subprocess.run([sys.executable, "-c", MANY_SHARDS, tmp_path / "pack"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "shard-00000-000.tar" in done.stdout and "as many files open as it may, 1024; allow more" in done.stdout
