"""Sources in stores: read once, as streams, and the pack is that of the same files on a disk."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pass_loader import PackError
from pass_loader.cli.main import main
from pass_loader.pack import build, merge, plan, remote_sources, shard
from pass_loader.pack.plan import Plan
from pass_loader.pack.report import Report
from pass_loader.remote import store, stream
from pass_loader.remote.store import Known
from pass_loader.remote.stream import Stores, Stream

from ..helpers.corpus import jpeg, noise
from ..helpers.object_server import ObjectServer, serving
from ..helpers.s3_server import S3Server, s3_serving
from ..helpers.trees import contents, tar_of
from ..helpers.trials import trials

Made = tuple[list[Path], dict[str, bytes], Report]
OPTIONS: dict[str, Any] = {"shard_bytes": 4100, "task_bytes": 40_000, "on_duplicate": "first", "workers": 2}
BLOCK = 3000  # in these tests
QUICK = {"timeout": "0.5s"}  # shorter than a server stalls


def pictures(number: int, count: int = 4) -> dict[str, bytes]:
    return {f"{number}/t{number}-{i}.jpg": jpeg(noise(16, 16, 10 * number + i)) for i in range(count)}


def write_tars(root: Path) -> list[Path]:
    """Write tars of every kind, with pictures that come again and files that are none."""
    root.mkdir()
    again = {"t0-1.jpg": jpeg(noise(16, 16, 90)), "copy.jpg": jpeg(noise(16, 16, 0)), "bad.jpg": b"text"}
    tars = [tar_of(root / f"{number}.tar", pictures(number) | again) for number in range(3)]
    samples: dict[str, bytes] = {}
    for i in range(6):  # the picture before, between and after what belongs to it
        sample = {"cls": b"%d" % i, "jpg": jpeg(noise(24, 16, 50 + i)), "json": json.dumps({"n": i}).encode()}
        for suffix in [*itertools.permutations(sample)][i]:
            samples[f"set/s{i}.{suffix}"] = sample[suffix]
    tars.append(tar_of(root / "3.tar", samples))
    for number, form in ((4, tarfile.GNU_FORMAT), (5, tarfile.PAX_FORMAT)):
        with tarfile.open(root / f"{number}.tar", "w", format=form) as tar:
            for name, data in pictures(number).items():
                member = tarfile.TarInfo(f"{'long' * 50}/{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
            tar.addfile(link)
    return tars + [root / "4.tar", root / "5.tar"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Tars in a folder, and files and report of the pack that is made of them there."""
    root = tmp_path_factory.mktemp("made")
    tars = write_tars(root / "tars")
    report = build(tars, root / "pack", **OPTIONS)
    assert report.refused_count > 8 and report.shards > 8
    return tars, contents(root / "pack"), report


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, of several pieces each, and short pauses."""
    monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(stream, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(store, "_PIECE_BYTES", 500)


@pytest.fixture
def web(made: Made) -> Iterator[ObjectServer]:
    """Serves the folder of the tars."""
    with serving(made[0][0].parent) as server:
        yield server


@pytest.fixture
def s3(made: Made) -> Iterator[S3Server]:
    """Has the tars in its bucket, in the folder `in`."""
    with s3_serving() as server:
        server.put_folder(made[0][0].parent, "in/")
        yield server


def urls(server: ObjectServer, tars: list[Path]) -> list[str]:
    return [server.url + tar.name for tar in tars]


def sizes(tars: list[Path]) -> int:
    return sum(tar.stat().st_size for tar in tars)


def test_a_web_server(made: Made, web: ObjectServer, tmp_path: Path) -> None:
    """Kills: a second look at a tar; bytes that were dropped before their sample was whole."""
    tars, files, report = made
    seen: list[int] = []
    local: list[int] = []
    build(tars, tmp_path / "local", progress=local.append, **OPTIONS)
    assert build(urls(web, tars), tmp_path / "pack", progress=seen.append, **OPTIONS) == report
    assert contents(tmp_path / "pack") == files
    assert web.sent <= sizes(tars) + len(tars) and sum(seen) == sum(local)
    before = web.requests
    assert build(urls(web, tars), tmp_path / "pack", **OPTIONS) == report
    assert web.requests == before + len(tars), "one request for each, by which it is known"


def test_names_in_a_bucket(made: Made, s3: S3Server, tmp_path: Path) -> None:
    """Kills: a listing that goes into folders; an order that is not that of the names."""
    tars, files, report = made
    s3.objects |= {"in/0.txt": b"", "in/deep/0.tar": b"", "other.tar": b""}
    how = {**OPTIONS, "source_options": s3.options}
    assert build(["s3://bucket/in/[0-2].tar", "s3://bucket/in/?.tar"], tmp_path / "twice", **how).same_id
    s3.log.clear()
    assert build(["s3://bucket/in/*.tar"], tmp_path / "pack", **how) == report
    assert contents(tmp_path / "pack") == files
    keys = [key for _, key in s3.log]
    assert keys[0] == "" and {*keys[1:]} == {f"in/{tar.name}" for tar in tars}, "a listing, and then the streams"
    s3.objects |= {f"parts/{n}/{n}.tar": tar.read_bytes() for n, tar in enumerate(tars)}
    build(["s3://bucket/parts/*/*.tar"], tmp_path / "deep", **how)
    assert contents(tmp_path / "deep") == files


@pytest.mark.parametrize("more", [{"codec": "dct"}, {"decode": True, "id": "path"}, {"class_folders": True}])
def test_options(made: Made, web: ObjectServer, tmp_path: Path, more: dict[str, Any]) -> None:
    tars = made[0][:3] if "class_folders" in more else made[0]
    how = {**OPTIONS, **more, "workers": 3}
    report = build(tars, tmp_path / "local", **how)
    assert build(urls(web, tars), tmp_path / "pack", **how) == report
    assert contents(tmp_path / "pack") == contents(tmp_path / "local")


def test_beside_sources_on_a_disk(made: Made, web: ObjectServer, tmp_path: Path) -> None:
    """In one task too."""
    tars, files, report = made
    mixed = [str(tar) if number % 2 else web.url + tar.name for number, tar in enumerate(tars)]
    assert build(mixed, tmp_path / "pack", **OPTIONS) == report
    assert contents(tmp_path / "pack") == files


@pytest.mark.slow
def test_a_server_that_fails(made: Made, web: ObjectServer, tmp_path: Path) -> None:
    """Faults of several kinds in each packing. Kills: an attempt that begins at the block's beginning."""
    tars, files, report = made
    web.kinds = ["cut", "short", "503", "500", "429", "reset", "stall"]
    for trial in range(trials(2, 20)):
        web.faults = 0.0
        web.log.clear()
        web.drawn.seed(trial)
        web.faults = 0.25
        out = tmp_path / f"{trial}"
        assert build(urls(web, tars), out, source_options=QUICK, **OPTIONS) == report
        assert contents(out) == files
    assert len(web.faulty) == len(web.kinds)
    begins = [int(asked[6:].split("-")[0]) for _, asked in web.log if asked]
    assert any(begin % BLOCK for begin in begins), "where the stream broke"


@pytest.mark.slow
def test_a_bucket_that_fails(made: Made, s3: S3Server, tmp_path: Path) -> None:
    """Of the sources and of the pack at once."""
    tars, files, report = made
    s3.kinds = ["cut", "503", "reset", "stall"]
    s3.faults = 0.1
    how = {**OPTIONS, "source_options": {**s3.options, **QUICK}, "storage_options": s3.options}
    assert build(["s3://bucket/in/*.tar"], "s3://bucket/out", **how) == report
    found = s3.below("out/")
    del found["finished"]
    assert found == files and len(s3.faulty) == 4


@pytest.mark.parametrize("conditions", [True, False])
def test_a_source_that_changes(made: Made, tmp_path: Path, conditions: bool) -> None:
    """In the midst of its stream, to a tar of the same size. Kills: the rest of the new one after the old one's half.

    The web server looks at If-Match, the other does not.
    """
    tars, files, _ = made
    shutil.copytree(tars[0].parent, tmp_path / "tars")
    changed = tmp_path / "tars" / "1.tar"

    def rewrite() -> bytes:
        content = bytearray(changed.read_bytes())
        content[-1] ^= 1
        return bytes(content)

    with serving(tmp_path / "tars") as web, s3_serving() as s3:
        s3.put_folder(tmp_path / "tars", "in/")
        given = urls(web, tars) if conditions else ["s3://bucket/in/*.tar"]
        how = {"source_options": s3.options, **{k: v for k, v in OPTIONS.items() if k != "workers"}}

        def change(count: int) -> None:
            nonlocal seen
            seen += count
            if seen > 2 * BLOCK and not done:
                done.append(True)
                if conditions:
                    (tmp_path / "new").write_bytes(rewrite())
                    (tmp_path / "new").rename(changed)
                else:
                    s3.objects["in/1.tar"] = rewrite()

        seen, done = 0, []
        tasks = plan(given, tmp_path / "pack", **how)
        assert tasks > 1
        for again in (False, True):
            with pytest.raises(PackError, match=r"/1\.tar is not as it was when the plan was made: plan again"):
                for number in range(tasks):
                    shard(tmp_path / "pack", number, source_options=s3.options, workers=1, progress=change)
            assert done or again


def test_planning_reads_nothing(made: Made, web: ObjectServer, s3: S3Server, tmp_path: Path) -> None:
    tars = made[0]
    s3.objects |= {f"many/{number:04d}.tar": b"no tar" for number in range(2500)}
    assert plan(["s3://bucket/many/*"], tmp_path / "many", source_options=s3.options, task_bytes=600) == 25
    assert {*s3.log} == {("GET", "")}
    plan(urls(web, tars) * 20, tmp_path / "plan", **{k: v for k, v in OPTIONS.items() if k != "workers"})
    assert web.requests == web.sent == 20 * len(tars)


def test_large_tars_stay_whole(made: Made, web: ObjectServer, tmp_path: Path) -> None:
    tars = made[0]
    assert (
        plan(urls(web, tars), tmp_path / "plan", task_bytes=10_000)
        == len(tars)
        < plan(tars, tmp_path / "p", task_bytes=10_000)
    )
    assert build(urls(web, tars), tmp_path / "pack", task_bytes=10_000).pictures == 27


def test_cut_off(made: Made, web: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At many moments; whole shards are kept. Kills: a shard that is written again."""
    tars, files, report = made
    written: dict[str, int] = {}
    write = remote_sources.RemoteTarSource._given
    for moment in itertools.count(3, 5):
        left = moment

        def entry(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise PackError("cut")
            return write(*arguments)

        monkeypatch.setattr(remote_sources.RemoteTarSource, "_given", entry)
        try:
            build(urls(web, tars), tmp_path / "pack", **{**OPTIONS, "workers": 1})
            break
        except PackError:
            there = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "pack").glob("*.tar")}
            assert written.items() <= there.items()
            written = there
    monkeypatch.setattr(remote_sources.RemoteTarSource, "_given", write)
    assert moment > 20
    assert build(urls(web, tars), tmp_path / "pack", **OPTIONS) == report
    assert contents(tmp_path / "pack") == files


@pytest.mark.slow
def test_stopped_by_an_error(web: ObjectServer, tmp_path: Path) -> None:
    """Of another task. Kills: a stream that is read to its end before the error is told."""
    tar_of(web.root / "long.tar", {f"{i}.jpg": jpeg(noise(8, 8, i)) for i in range(300)})
    (web.root / "page.tar").write_bytes(b"<html>")
    seen: list[int] = []

    def progress(count: int) -> None:
        seen.append(count)
        time.sleep(0.02)

    try:
        with pytest.raises(PackError, match="it is a web page"):
            build(
                urls(web, [Path("page.tar"), Path("long.tar")]),
                tmp_path / "p",
                task_bytes=1,
                workers=2,
                progress=progress,
            )
        assert len(seen) < 300
    finally:
        (web.root / "long.tar").unlink()
        (web.root / "page.tar").unlink()


def test_other_sources_under_the_same_names(made: Made, tmp_path: Path) -> None:
    """Kills: a shard that is kept though its source was exchanged."""
    tars = made[0]
    shutil.copytree(tars[0].parent, tmp_path / "tars")
    with serving(tmp_path / "tars") as web:
        given = [web.url + "0.tar", web.url + "1.tar"]
        for _ in range(2):
            plan(given, tmp_path / "pack", shard_bytes=4100)
            shard(tmp_path / "pack", 0)
            shutil.copy(tars[2], tmp_path / "tars" / "1.tar")
        merge(tmp_path / "pack")
    build([tmp_path / "tars" / "0.tar", tmp_path / "tars" / "1.tar"], tmp_path / "local", shard_bytes=4100)
    assert contents(tmp_path / "pack") == contents(tmp_path / "local")


def test_the_hub(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tars, files, report = made
    place = tmp_path / "served" / "datasets" / "me" / "set" / "resolve"
    place.mkdir(parents=True)
    (place / "v1").symlink_to(tars[0].parent)
    with serving(tmp_path / "served") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        given = [f"hf://datasets/me/set@v1/{tar.name}" for tar in tars]
        assert build(given, tmp_path / "pack", source_options={"aws_region": "no matter", **QUICK}, **OPTIONS) == report
    assert contents(tmp_path / "pack") == files


def test_a_folder_of_the_hub(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its listing, which comes in pages. Kills: a first page alone; files of folders below, or of other names; a
    token that another server gets."""
    tars, files, report = made
    place = tmp_path / "served" / "datasets" / "me" / "set" / "resolve" / "v1"
    place.mkdir(parents=True)
    (place / "data").symlink_to(tars[0].parent)
    entries = [{"type": "file", "path": f"data/{tar.name}"} for tar in tars]
    others = [{"type": "file", "path": "data/a.txt"}, {"type": "directory", "path": "data/old.tar"}]
    tree = "/api/datasets/me/set/tree/v1"
    with serving(tmp_path / "served") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(store, "_FIRST_PAUSE_S", 0.001)
        follow = f'<{server.url.rstrip("/")}{tree}/data?cursor=x>; rel="next"'
        server.pages = {
            f"{tree}/data": (json.dumps([*others, *reversed(entries[1:])]).encode(), follow),
            f"{tree}/data?cursor=x": (json.dumps(entries[:1]).encode(), ""),
            f"{tree}?recursive=true": (json.dumps([*entries, {"type": "file", "path": "x.tar"}]).encode(), ""),
        }
        for url in ("hf://datasets/me/set@v1/data/*.tar", "hf://datasets/me/set@v1/d*/?.tar"):
            assert build([url], tmp_path / str(len(url)), source_options=QUICK, **OPTIONS) == report
            assert contents(tmp_path / str(len(url))) == files
        with pytest.raises(PackError, match=r"\*\.zip: no object has such a name"):
            build(["hf://datasets/me/set@v1/data/*.zip"], tmp_path / "none")
        with pytest.raises(PackError, match="hf://datasets/me/set@v2/data/ does not exist"):
            build(["hf://datasets/me/set@v2/data/*"], tmp_path / "none")
        server.pages[f"{tree}/data"] = (b"[]", '<http://other/api/>; rel="next"')
        with pytest.raises(PackError, match="goes on at another server"):
            build(["hf://datasets/me/set@v1/data/*"], tmp_path / "none")


def test_commands(
    made: Made, s3: S3Server, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    given = ["s3://bucket/in/*.tar", "--shard-bytes", "4100", "--task-bytes", "40000", "--on-duplicate", "first"]
    assert main(["plan", *given, "--out", str(tmp_path / "pack")]) == 0
    for number in range(int(capsys.readouterr().out.split()[0])):
        assert main(["shard", str(tmp_path / "pack"), "--index", str(number)]) == 0
    assert main(["merge", str(tmp_path / "pack")]) == 0
    assert contents(tmp_path / "pack") == made[1]
    assert main(["build", *given, "--out", "s3://bucket/out"]) == 0
    assert {name: content for name, content in s3.below("out/").items() if name != "finished"} == made[1]


def test_what_is_refused(made: Made, web: ObjectServer, s3: S3Server, tmp_path: Path) -> None:
    out, tar = tmp_path / "pack", web.url + "0.tar"
    s3.objects["page.tar"] = b"<!doctype html>"
    s3.objects["short.tar"] = made[0][0].read_bytes()[:5000]
    s3.objects["empty.tar"] = b""

    def refused(match: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        with pytest.raises(PackError, match=match):
            call(*arguments, **options)

    refused("0.tar.* sources are read from s3://.*not from ftp://", build, ["ftp://host/0.tar"], out)
    refused("none.tar does not exist", build, [web.url + "none.tar"], out)
    refused("no object has such a name", build, ["s3://bucket/in/*.zip"], out, source_options=s3.options)
    refused("names no file: give those in a folder by", build, [web.url], out)
    refused("does not tell what files it has", build, [web.url + "*.tar"], out)
    refused("does not tell what files it has", build, ["hf://datasets/me/set/#.tar"], out)
    refused("want hf://datasets/OWNER/NAME/", build, ["hf://datasets/me/*/0.tar"], out)
    refused("a password in a URL would be written", build, [tar.replace("//", "//me:secret@")], out)
    (web.root / "a.zip").write_bytes(b"PK")
    refused("a.zip is neither a tar nor Parquet by its name", build, [web.url + "a.zip"], out)
    (web.root / "a.zip").unlink()
    refused("is remote, and read once, in its order", build, [tar], out, shuffle=1)
    refused("--md5 reads sources before", build, [tar], out, md5=True)
    refused("a table of metadata is read from a file system", build, [tar], out, metadata=web.url + "m.csv")
    assert not out.exists()
    refused("it is a web page", build, ["s3://bucket/page.tar"], tmp_path / "1", source_options=s3.options)
    refused("short.tar is cut off", build, ["s3://bucket/short.tar"], tmp_path / "2", source_options=s3.options)
    refused(
        "empty.tar is not a readable, uncompressed tar: empty file",
        build,
        ["s3://bucket/empty.tar"],
        tmp_path / "3",
        source_options=s3.options,
    )


def test_a_sample_that_is_too_large(
    made: Made, web: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: files of one sample that are held without end."""
    tar_of(web.root / "many.tar", {f"one.{i}": bytes(1000) for i in range(50)} | {"two.jpg": jpeg(noise(16, 16))})
    monkeypatch.setattr(remote_sources, "_MOST_HELD_BYTES", 20_000)
    with pytest.raises(PackError, match="the files of the sample one have more than 20,000 bytes"):
        build([web.url + "many.tar"], tmp_path / "pack")
    (web.root / "many.tar").unlink()


def test_what_is_held(web: ObjectServer) -> None:
    """Few blocks, wherever the reader turns. Kills: a stream that keeps what it has passed."""
    content = bytes(range(256)) * 400
    (web.root / "bytes").write_bytes(content)
    [[found]] = Stores().find([web.url + "bytes"])
    reader = Stream(found)
    for begin in [*range(0, len(content), 700), 5, 90_000, 60_000, *range(60_001, 80_000, 999)]:
        assert reader.pread(1500, begin) == content[begin : begin + 1500]
        assert len(reader._blocks) <= 3 + stream._AHEAD
    assert reader.pread(10, len(content)) == b""
    reader.close()
    (web.root / "bytes").unlink()


def test_what_objects_are_known_by() -> None:
    """Kills: Azure's ETags, which a listing gives without quotes; a condition that no server can meet."""
    modified = datetime(2026, 1, 1)
    metas = [{"size": 1, "e_tag": tag, "last_modified": modified} for tag in ('"a"', "a", 'W/"a"', None)]
    listed, got, weak, dated = map(Known.of, metas)
    assert listed == got and len({got, weak, dated}) == 3
    assert [known.condition for known in (got, weak, dated)] == ['"a"', None, None]


def test_a_plan_holds_no_secret(web: ObjectServer, tmp_path: Path) -> None:
    plan([web.url + "0.tar"], tmp_path / "pack", source_options={"default_headers": {"authorization": "secret"}})
    assert b"secret" not in (tmp_path / "pack" / "plan.json").read_bytes()
    assert Plan.load(tmp_path / "pack").streams(0)


def write_parquet(root: Path) -> list[Path]:
    """Write Parquet files as the hub has them: groups of rows, names of classes, metadata; a row without a picture."""
    root.mkdir()
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    found = []
    for number in range(3):
        images = [{"bytes": data, "path": name} for name, data in pictures(number, 9).items()]
        images[4] = {"bytes": None, "path": "none.jpg"}
        columns = {"image": images, "label": [i % 2 for i in range(9)], "text": [f"{number}-{i}" for i in range(9)]}
        found.append(root / f"train-{number}.parquet")
        table = pa.table(columns).replace_schema_metadata(about)
        pq.write_table(table, found[-1], row_group_size=4)
    return found


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a bucket and from the hub. Kills: a footer that is read in part, a second pass over the pictures."""
    files = write_parquet(tmp_path / "files")
    report = build(files, tmp_path / "local", shard_bytes=4100)
    assert report.pictures == 24 and report.refused_count == 3
    total = sizes(files)
    monkeypatch.setattr(remote_sources, "_FOOTER_BYTES", 100)
    with s3_serving() as s3:
        s3.put_folder(tmp_path / "files", "in/")
        how = {"shard_bytes": 4100, "source_options": s3.options}
        plan(["s3://bucket/in/*.parquet"], tmp_path / "plan", **how)
        footers = s3.sent
        assert footers < total / 2
        assert build(["s3://bucket/in/*.parquet"], tmp_path / "pack", **how) == report
        assert s3.sent - footers < total + 4 * footers
    place = tmp_path / "served" / "datasets" / "me" / "set" / "resolve"
    place.mkdir(parents=True)
    (place / "main").symlink_to(tmp_path / "files")
    with serving(tmp_path / "served") as server:
        server.faults, server.kinds = 0.2, ["cut", "503", "reset"]
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        given = [f"hf://datasets/me/set/{path.name}" for path in files]
        assert build(given, tmp_path / "hub", shard_bytes=4100) == report
    assert contents(tmp_path / "pack") == contents(tmp_path / "hub") == contents(tmp_path / "local")


def test_damaged_parquet(tmp_path: Path) -> None:
    [path, *_] = write_parquet(tmp_path / "files")
    content = path.read_bytes()
    damaged = {
        "short": content[: len(content) // 2],
        "footer": content[:-8] + b"\xff\xff\xff\x7fPAR1",
        "page": content[:200] + bytes(500) + content[700:],
        "tiny": b"PAR1",
    }
    for name, data in damaged.items():
        (path.parent / f"{name}.parquet").write_bytes(data)
    with serving(tmp_path / "files") as server:
        for name in damaged:
            with pytest.raises(PackError, match=f"{server.url}{name}.parquet is .*(not a readable|damaged)"):
                build([f"{server.url}{name}.parquet"], tmp_path / name)


@pytest.mark.long
def test_one_command_on_ray(made: Made, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From a bucket into a bucket, in the folders of which alone workers find anything."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'pass-loader[ray]'")
    packages = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": packages}
    for name, value in {**s3.environment, **ray}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    given = ["s3://bucket/in/*.tar", "--shard-bytes", "4100", "--task-bytes", "40000", "--on-duplicate", "first"]
    assert main(["build", *given, "--out", "s3://bucket/out", "--runner", "ray"]) == 0
    assert {name: content for name, content in s3.below("out/").items() if name != "finished"} == made[1]
    assert s3.log.count(("GET", "in/0.tar")) == 1
