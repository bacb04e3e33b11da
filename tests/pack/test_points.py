"""points.arrow: what is proven, entry points, and loaders that decode what crops need."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pass_loader import PackError, _C, recipes
from pass_loader.cli.main import main
from pass_loader.pack import (
    Pack,
    build,
    combine,
    convert,
    export,
    fetch,
    index,
    index_points,
    purge,
    remote,
    remove,
    restore,
    verify,
)
from pass_loader.pack.points import POINTS, PointsWriter

from ..helpers.corpus import decodable, jpeg, noise, position_coded
from ..helpers.crash import crashes
from ..helpers.object_server import serving
from ..helpers.recipes import small
from ..helpers.trees import tar_of, write_tree
from ..helpers.trials import trials
from ..helpers.with_torch import ShardDataset, needs_torch

BAD = "zz_broken"  # the last, so that the numbers of the others are those of packs without it
WHOLE = (recipes.ViewSpec(48, (0.05, 0.3), before=(recipes.Step("equalize"),)),)  # which depends on every pixel
RECIPES = {name: lambda name=name: small(recipes.PRESETS[name]()) for name in ("supervised", "mae", "mocov2", "mugs")}
RECIPES |= {"evaluate": recipes.evaluate, "before": lambda: recipes.Recipe("before", WHOLE)}


def pictures() -> dict[str, bytes]:
    """Return JPEGs of all kinds, one with a warning and one that is damaged inside."""
    files = {f"{name}.jpg": data for name, data in decodable().items()}
    files |= {f"n{s}.jpg": jpeg(noise(130, 150 + s, s), subsampling=s) for s in range(3)}
    warned = jpeg(noise(40, 41))
    files["warned.jpg"] = warned[:-2] + bytes(4) + warned[-2:]
    files[f"{BAD}.jpg"] = broken()
    return files


def broken() -> bytes:
    """A JPEG whose lower half has a second frame header, which Pillow refuses."""
    file = jpeg(position_coded(160, 120), subsampling=0)
    middle = file.index(b"\xff\xda") + 14 + (len(file) - file.index(b"\xff\xda")) * 3 // 4
    return file[:middle] + b"\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00" + file[middle:]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records: as packed, with entry points from the beginning, with them later, and as dct."""
    root = tmp_path_factory.mktemp("points")
    write_tree(root / "in", pictures())
    for name, options in {
        "plain": {},
        "decode": {"decode": True},
        "points": {"entry_points": True},
        "dct": {"codec": "dct"},
        "dct-zstd": {"codec": "dct-zstd"},
    }.items():
        report = build([root / "in"], root / name, shard_bytes=60_000, workers=2, **options)  # type: ignore[arg-type]
        assert [refusal.id for refusal in report.refused] == ([] if name == "plain" else [BAD])
    shutil.copytree(root / "plain", root / "later")
    index_points(root / "later", workers=2)
    return root


def proofs(path: Path) -> dict[str, bytes | None]:
    pack = Pack(path)
    points = pack.open_points()
    assert points is not None
    return {pack.id_of(record): points.of(record) for record in range(pack.records)}


def rendered(dataset: ShardDataset, id: str, epoch: int) -> list[np.ndarray] | str:
    """Return a sample's views as a batch holds them, or the error."""
    try:
        return [view.numpy() for view in dataset.sample(dataset.record_of(id), epoch=epoch)]
    except Exception as error:
        return str(error).rsplit("JPEG: ", 1)[1]


def test_what_is_proven(packs: Path) -> None:
    """A warning or an error is no proof; entry points are those of JPEGs that we decode ourselves, where asked for."""
    assert not (packs / "plain" / POINTS).exists()
    later = proofs(packs / "later")
    assert later.pop(BAD) is None
    assert later == proofs(packs / "points")
    files = {name.removesuffix(".jpg"): data for name, data in pictures().items() if name != f"{BAD}.jpg"}
    for id, file in files.items():
        clean, points = _C.prove(file)
        assert later[id] == (points if clean else None)
        assert bool(later[id]) == (clean and _C.decodes_as_baseline(file))
    assert later["warned"] is None and later["restart"] == b"" and later["n2"]
    assert proofs(packs / "decode") == {id: None if part is None else b"" for id, part in later.items()}
    for codec in ("dct", "dct-zstd"):
        pack, found = Pack(packs / codec), proofs(packs / codec)
        codecs = {id: pack.row(pack.record_of(id))["codec"] for id in found}
        assert found == {id: b"" if codec == "dct" else None for id, codec in codecs.items()}
        assert sum(part is not None for part in found.values()) > 20
    for name in ("plain", "decode", "points", "dct", "later"):
        problems = verify(packs / name, decode=True, workers=1)
        assert [problem.split(", ")[2][:9] for problem in problems] == (
            [f"id {BAD}"[:9]] if name in ("plain", "later") else []
        )


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_same_views(packs: Path, recipe: str) -> None:
    """Every pack gives the views of the pack that is decoded whole."""
    want = ShardDataset(packs / "plain", RECIPES[recipe]())
    others = [
        ShardDataset(packs / name, RECIPES[recipe]()) for name in ("decode", "points", "later", "dct", "dct-zstd")
    ]
    for id in (name.removesuffix(".jpg") for name in pictures()):
        for epoch in range(trials(1, 100)) if id != BAD else ():
            whole = rendered(want, id, epoch)
            for other in others:
                assert want.record_of(id) == other.record_of(id)
                assert all(map(np.array_equal, rendered(other, id, epoch), whole)), (id, epoch)


@needs_torch
def test_bad_records_stay_bad(packs: Path) -> None:
    """Under every crop, with and without the file, a damaged record gives the same error."""
    errors = {rendered(ShardDataset(packs / name, recipes.supervised()), BAD, epoch)
              for name in ("plain", "later") for epoch in range(trials(25, 2000))}  # fmt: skip
    assert len(errors) == 1 and all(isinstance(error, str) for error in errors), errors


def forged(packs: Path, out: Path, of: dict[str, bytes]) -> Path:
    """Return a copy of `plain` whose file claims what nobody has proven, with checks that fit."""
    shutil.copytree(packs / "plain", out)
    pack = Pack(out)
    writer = PointsWriter(out)
    ids = [pack.id_of(record) for record in range(pack.records)]
    writer.append([of.get(id) for id in ids], pack.column("crc32c"), pack.column("length"))
    writer.publish(pack.pack_id)
    return out


@needs_torch
def test_a_proof_is_used(packs: Path, tmp_path: Path) -> None:
    """With a forged proof, crops above the damage are rendered: by this, a window is seen to be decoded alone."""
    forgery = ShardDataset(forged(packs, tmp_path / "forged", {BAD: b""}), recipes.supervised())
    # A marker inside the scan sends the record to libjpeg, so that it is refused all the same: only dct and entry
    # points pass over what is outside.
    assert all(isinstance(rendered(forgery, BAD, epoch), str) for epoch in range(20))
    scan = _C.prove(jpeg(position_coded(160, 120), subsampling=0))[1]
    forgery = ShardDataset(forged(packs, tmp_path / "points", {BAD: scan}), recipes.supervised())
    found = [rendered(forgery, BAD, epoch) for epoch in range(40)]
    assert 0 < sum(isinstance(views, str) for views in found) < 40
    problems = verify(tmp_path / "points", decode=True, workers=1)
    assert len(problems) == 1 and BAD in problems[0]


def test_wrong_points_are_found(packs: Path, tmp_path: Path) -> None:
    """`verify --decode` compares every entry point with a fresh decode."""
    right = proofs(packs / "points")["n0"]
    assert right is not None
    for place in (0, 9, 33, len(right) - 1):
        wrong = bytearray(right)
        wrong[place] ^= 1
        path = forged(packs, tmp_path / str(place), {"n0": bytes(wrong)})
        assert verify(path, workers=1) == []
        assert sum("entry points" in problem for problem in verify(path, decode=True, workers=1)) == 1
    claimed = forged(packs, tmp_path / "claimed", {"warned": b"", "n1": b""})
    assert sum("it is proven" in problem for problem in verify(claimed, decode=True, workers=1)) == 1


@needs_torch
def test_damaged_file(packs: Path, tmp_path: Path) -> None:
    """Whatever changes in the file: the right views, or none of the file is used; `verify` tells."""
    whole = (packs / "points" / POINTS).read_bytes()
    shutil.copytree(packs / "points", tmp_path / "pack")
    want = {id: rendered(ShardDataset(packs / "points", recipes.mae()), id, 1) for id in ("n0", "n2", "sub420")}
    dice, told, count = np.random.default_rng(0), 0, trials(60, 3000)
    for trial in range(count):
        content = bytearray(whole)
        if trial % 6 == 0:
            content = content[: int(dice.integers(len(content)))]
        else:
            for place in dice.integers(0, len(content), 1 + trial % 3).tolist():
                content[place] = int(dice.integers(256))
        (tmp_path / "pack" / POINTS).write_bytes(content)
        dataset = ShardDataset(tmp_path / "pack", recipes.mae())
        for id, views in want.items():
            assert all(map(np.array_equal, rendered(dataset, id, 1), views)), trial
        told += bool(verify(tmp_path / "pack", workers=1))
    assert told > count * 2 // 3, "the others changed padding, or what says nothing"


def test_another_packs_file(packs: Path, tmp_path: Path) -> None:
    shutil.copytree(packs / "points", tmp_path / "pack")
    shutil.copy(packs / "dct" / POINTS, tmp_path / "pack" / POINTS)
    with pytest.raises(PackError, match="does not fit the manifest"):
        Pack(tmp_path / "pack").open_points()
    assert any("index-points" in problem for problem in verify(tmp_path / "pack", workers=1))
    assert Pack(tmp_path / "pack").open_reader().read(0), "it opens"


def test_purge_erases(packs: Path, tmp_path: Path) -> None:
    shutil.copytree(packs / "points", tmp_path / "pack")
    before = proofs(tmp_path / "pack")
    remove(tmp_path / "pack", ["n0", "n1"], reason="a test")
    restore(tmp_path / "pack", ["n1"], reason="a test")
    assert proofs(tmp_path / "pack") == before
    purge(tmp_path / "pack")
    assert proofs(tmp_path / "pack") == before | {"n0": None}
    assert before["n0"] is not None and before["n0"][10:] not in (tmp_path / "pack" / POINTS).read_bytes()
    assert not verify(tmp_path / "pack", decode=True, workers=1)
    (tmp_path / "pack" / POINTS).write_bytes(b"damaged")
    remove(tmp_path / "pack", ["n2"], reason="a test")
    purge(tmp_path / "pack")
    assert not (tmp_path / "pack" / POINTS).exists()


def test_new_packs(packs: Path, tmp_path: Path) -> None:
    """`convert`, `combine` and `export` leave entry points out; what `convert` has decoded is proven."""
    convert(packs / "points", tmp_path / "dct", "dct", workers=1)
    convert(tmp_path / "dct", tmp_path / "zstd", "dct-zstd", workers=1)
    assert proofs(tmp_path / "dct") == proofs(packs / "dct") == proofs(tmp_path / "zstd")
    convert(tmp_path / "dct", tmp_path / "jpeg", "jpeg", workers=1)
    combine([packs / "points"], tmp_path / "one", workers=1)
    export(packs / "points", tmp_path / "out", format="webdataset", workers=1)
    for name in ("jpeg", "one", "out"):
        assert not [*(tmp_path / name).rglob(POINTS)]


def test_removed_records_are_not_decoded(packs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(packs / "plain", tmp_path / "pack")
    remove(tmp_path / "pack", ["n0"], reason="a test")
    assert main(["index-points", str(tmp_path / "pack"), "--workers", "1"]) == 0
    want = proofs(packs / "later")
    assert proofs(tmp_path / "pack") == want | {"n0": None}
    proven = sum(part is not None for part in want.values()) - 1
    assert f"{proven:,} of {len(want) - 1:,} records proven" in capsys.readouterr().out


def test_in_place(packs: Path, tmp_path: Path) -> None:
    tar = next((packs / "points").glob("shard-*.tar"))
    index([tar], tmp_path / "index", entry_points=True, workers=1)
    assert any(proofs(tmp_path / "index").values()) and not verify(tmp_path / "index", decode=True, workers=1)


def index_it(root: Path) -> None:
    index_points(root / "pack", workers=1)


@pytest.mark.slow
def test_cut_off(packs: Path, tmp_path: Path) -> None:
    """Killed at any write, `index-points` leaves no file or a whole one, and the pack as it was."""
    shutil.copytree(packs / "plain", tmp_path / "start" / "pack")
    *left, whole = crashes("tests.pack.test_points:index_it", tmp_path / "start", tmp_path / "killed")
    assert proofs(whole / "pack") == proofs(packs / "later") and len(left) >= 3
    kept = 0
    for root in left:
        found = Pack(root / "pack").open_points()
        kept += found is not None
        assert found is None or proofs(root / "pack") == proofs(packs / "later")
        assert verify(root / "pack", workers=1) == []
        index_it(root)
        assert (root / "pack" / POINTS).read_bytes() == (packs / "later" / POINTS).read_bytes()
    assert kept < len(left)


def test_rows_of_one_batch(packs: Path) -> None:
    """Docs say: one record batch, uncompressed, with these columns."""
    with pa.OSFile(str(packs / "points" / POINTS)) as file:
        table = pa.ipc.open_file(file)
        assert table.num_record_batches == 1 and table.schema.names == ["proven", "check", "points"]
    pack, points = Pack(packs / "points"), Pack(packs / "points").open_points()
    assert points is not None
    for record in range(pack.records):
        row, known = pack.row(record), points.of(record)
        own = row["crc32c"].to_bytes(4, "little") + row["length"].to_bytes(8, "little")
        assert points.check[record] == (0 if known is None else _C.crc32c(known + own))


def forge(pack: Pack) -> None:
    """Let points.arrow prove the damaged record: a loader that takes its word for it serves views beside the damage."""
    points, record = pack.open_points(), pack.record_of(BAD)
    assert points is not None
    found = [b"" if number == record else points.of(number) for number in range(pack.records)]
    found[record] = _C.prove(jpeg(position_coded(160, 120), subsampling=0))[1]
    writer = PointsWriter(pack.path)
    writer.append(found, pack.column("crc32c"), pack.column("length"))
    writer.publish(pack.pack_id)


@needs_torch
@pytest.mark.slow
def test_a_pack_in_a_store(packs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """points.arrow is fetched once with a pack and used, a large one by `fetch` alone; a damaged one is told of.

    Kills: one that is not used; one that is asked for again and again; one that stays damaged in the cache.
    """
    shutil.copytree(packs / "later", tmp_path / "pack")
    good = (tmp_path / "pack" / POINTS).read_bytes()
    forge(Pack(tmp_path / "pack"))
    whole = ShardDataset(packs / "plain", recipes.supervised())
    with serving(tmp_path) as web:

        def asked() -> int:
            return sum(path.endswith(POINTS) for path, _ in web.log)

        stored = ShardDataset(f"{web.url}pack", recipes.supervised(), cache=tmp_path / "cache")
        views = [rendered(stored, BAD, epoch) for epoch in range(40)]
        assert 0 < sum(isinstance(view, str) for view in views) < 40
        for id in {name.removesuffix(".jpg") for name in pictures()} - {BAD}:
            assert all(map(np.array_equal, rendered(stored, id, 0), rendered(whole, id, 0)))
        assert asked() == 2  # what it is known by, and its bytes
        for _ in range(2):
            assert Pack(f"{web.url}pack", cache=tmp_path / "cache").open_points() is not None
        assert asked() == 2
        monkeypatch.setattr(remote, "_POINTS_SHARE", 1e-12)
        large = Pack(f"{web.url}pack", cache=tmp_path / "large")
        assert large.open_points() is None and large.open_points() is None and asked() == 3
        fetch(large)
        assert large.open_points() is not None
        monkeypatch.undo()
        (tmp_path / "pack" / POINTS).write_bytes(good[:-100])
        damaged = Pack(f"{web.url}pack", cache=tmp_path / "damaged")
        assert f"{POINTS} is damaged" in " ".join(verify(damaged))
        damaged.open_reader()  # pictures are decoded whole
        (tmp_path / "pack" / POINTS).write_bytes(good)
        assert damaged.open_points() is not None and POINTS not in " ".join(verify(damaged))
        (tmp_path / "pack" / POINTS).unlink()
        without, before = Pack(f"{web.url}pack", cache=tmp_path / "without"), asked()
        assert without.open_points() is None and without.open_points() is None and asked() == before + 1


@needs_torch
@pytest.mark.slow
def test_tars_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """points.arrow of such a pack is that of a disk, made with it or later, and it is used. Kills: one that is not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "tars").mkdir()
    tar = tar_of(tmp_path / "tars" / "t.tar", pictures())
    index([tar], tmp_path / "local")
    index_points(tmp_path / "local")
    with serving(tar.parent) as web:
        index([f"{web.url}t.tar"], tmp_path / "pack")
        assert Pack(tmp_path / "pack").open_points() is None
        dataset = ShardDataset(tmp_path / "pack", recipes.supervised(), cache=tmp_path / "cache")
        assert index_points(dataset.pack) == index_points(tmp_path / "local")
        want = (tmp_path / "local" / POINTS).read_bytes()
        assert (tmp_path / "pack" / POINTS).read_bytes() == want and verify(dataset.pack, decode=True, workers=1) != []
        forge(Pack(tmp_path / "pack"))
        forgery = ShardDataset(tmp_path / "pack", recipes.supervised(), cache=tmp_path / "cache")
        views = [rendered(forgery, BAD, epoch) for epoch in range(40)]
        assert 0 < sum(isinstance(view, str) for view in views) < 40
        good = {name.removesuffix(".jpg") for name in pictures()} - {BAD}
        whole = ShardDataset(tmp_path / "local", recipes.supervised())
        for id in sorted(good):
            assert all(map(np.array_equal, rendered(forgery, id, 0), rendered(whole, id, 0)))
        pictures_only = {name: data for name, data in pictures().items() if BAD not in name}
        tar_of(tar, pictures_only)
        index([f"{web.url}t.tar"], tmp_path / "decoded", entry_points=True)
        index([tar], tmp_path / "there", entry_points=True)
        assert (tmp_path / "decoded" / POINTS).read_bytes() == (tmp_path / "there" / POINTS).read_bytes()


def test_a_directory_in_the_way(packs: Path, tmp_path: Path) -> None:
    """Said before anything is decoded."""
    shutil.copytree(packs / "plain", tmp_path / "pack")
    (tmp_path / "pack" / POINTS).mkdir()
    read: list[int] = []
    with pytest.raises(PackError, match=f"{POINTS} is a directory, where a file is to be written: move it away"):
        index_points(tmp_path / "pack", progress=read.append)
    assert not read
