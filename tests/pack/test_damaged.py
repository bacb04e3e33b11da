"""Damaged JPEGs: Pillow, and every pack under every crop, refuse the same ones and see the same in the others."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

from pass_loader import Recipe, RecordError, ViewSpec, recipes, render_plan
from pass_loader.pack import Pack, build, index_points
from pass_loader.recipes import Step

from ..helpers.corpus import by_pillow, jpeg, noise, position_coded
from ..helpers.trees import write_tree
from ..helpers.trials import trials
from ..helpers.with_torch import ShardDataset, needs_torch

SCAN = b"\xff\xda"
SIDE = 24
# Small crops, which need a few rows of blocks alone, large ones, several together, and one that every pixel decides.
VIEWS: dict[str, tuple[ViewSpec, ...]] = {
    "small": (ViewSpec(SIDE, (0.01, 0.05)),),
    "large": (ViewSpec(SIDE, (0.5, 1.0)),),
    "several": (ViewSpec(SIDE, (0.3, 1.0)), ViewSpec(SIDE, (0.02, 0.1)), ViewSpec(SIDE, (0.02, 0.1))),
    "window": recipes.evaluate(resize=40, size=SIDE).views,
    "whole": (ViewSpec(SIDE, (0.01, 0.05), before=(Step("equalize"),)),),
}
RECIPES = {name: Recipe(name, views) for name, views in VIEWS.items()}
# Put into the scan, three quarters down. libjpeg refuses some of these, and goes on with a warning after others.
INTO_THE_SCAN = {
    "gray frame": b"\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00",
    "short huffman table": b"\xff\xc4\x00\x03\x00",
    "cut huffman table": b"\xff\xc4\x00\x20\x00" + bytes(range(1, 17)),
    "short quantization table": b"\xff\xdb\x00\x05\x00\x01\x01",
    "short scan header": b"\xff\xda\x00\x03\x01",
    "second start": b"\xff\xd8",
    "end": b"\xff\xd9",
    "restart": b"\xff\xd3",
    "comment": b"\xff\xfe\x00\x04ab",
    "reserved marker": b"\xff\x5a",
    "temporary marker": b"\xff\x01",
    "ones": b"\xff\x00" * 12,
    "zeros": bytes(12),
}


def damaged(file: bytes, seed: int) -> dict[str, bytes]:
    """Return the file damaged in many ways, by their names, and as it is."""
    head, frame = file.index(SCAN) + 14, file.index(b"\xff\xc0")
    header = file[frame : frame + 2 + int.from_bytes(file[frame + 2 : frame + 4], "big")]
    taller = header[:5] + (int.from_bytes(header[5:7], "big") + 8).to_bytes(2, "big") + header[7:]
    middle = head + (len(file) - head) * 3 // 4
    while file[middle - 1] == 0xFF:
        middle += 1
    put = {**INTO_THE_SCAN, "same frame": header, "taller frame": taller}
    found = {name: file[:middle] + part + file[middle:] for name, part in put.items()}
    for eighths in range(1, 8):
        cut = file[: head + (len(file) - head) * eighths // 8]
        found[f"cut after {eighths} eighths"] = cut
        found[f"lost from {eighths} eighths on"] = cut + file[-2:]
    found |= {"without its end": file[:-2], "with half its end": file[:-1]}
    found["zeros before its end"] = file[:-2] + bytes(4) + file[-2:]
    dice = np.random.default_rng(seed)
    for number in range(trials(6, 60)):
        changed = bytearray(file)
        for place in dice.integers(head, len(file) - 2, 1 + number % 4).tolist():
            if 0xFF not in changed[place - 1 : place + 1]:
                changed[place] = int(dice.integers(255))
        found[f"garbage {number}"] = bytes(changed)
    return {**found, "good": file}


def files() -> dict[str, bytes]:
    """Return (id, file) of a smooth and of a noisy picture, whole and subsampled."""
    wholes = {"smooth": jpeg(position_coded(160, 120), subsampling=0), "noisy": jpeg(noise(104, 88), subsampling=2)}
    return {f"{kind} {name}".replace(" ", "_"): data for seed, (kind, whole) in enumerate(wholes.items())
            for name, data in damaged(whole, seed).items()}  # fmt: skip


def assert_pillows(dataset: ShardDataset, id: str, epoch: int, pixels: np.ndarray) -> None:
    """Demand the views that the plan makes of Pillow's pixels."""
    record, table = dataset.record_of(id), dataset.recipe.normalize_table()
    want = render_plan(pixels, dataset.plan(record, epoch=epoch))
    for view, one in zip(dataset.sample(record, epoch=epoch), want):
        assert np.array_equal(view.numpy(), np.stack([table[c][one[:, :, c]] for c in range(3)])), (dataset, id, epoch)


@needs_torch
@pytest.mark.slow
def test_pillow_refuses_the_same_under_every_crop(tmp_path: Path) -> None:
    """Without entry points and with them. Kills: a record that is proven though it is bad, or though libjpeg warns; an
    error that depends on the crop; pixels beside a damage that Pillow sees otherwise."""
    pictures = {id: by_pillow(file) for id, file in files().items()}
    bad = {id for id, pixels in pictures.items() if pixels is None}
    assert len(pictures) > 3 * len(bad) / 2 > 36, "many of both"
    write_tree(tmp_path / "in", {f"{id}.jpg": file for id, file in files().items()})
    cut = {refusal.id for refusal in build([tmp_path / "in"], tmp_path / "plain", workers=1).refused}
    assert len(cut) == 18 and cut < bad and all("cut_after" in id or "its_end" in id for id in cut)
    bad, pictures = bad - cut, {id: pixels for id, pixels in pictures.items() if id not in cut}
    shutil.copytree(tmp_path / "plain", tmp_path / "points")
    index_points(tmp_path / "points", workers=1)
    points = Pack(tmp_path / "points").open_points()
    assert points is not None
    for seed, recipe in enumerate(RECIPES.values()):
        packs = [ShardDataset(tmp_path / name, recipe, seed=seed) for name in ("plain", "points")]
        for id, pixels in pictures.items():
            told = set()
            for dataset, epoch in itertools.product(packs, range(trials(2, 100))):
                if pixels is not None:
                    assert_pillows(dataset, id, epoch, pixels)
                    continue
                with pytest.raises(RecordError, match=" JPEG: ") as error:
                    dataset.sample(dataset.record_of(id), epoch=epoch)
                told.add(str(error.value).rsplit("JPEG: ", 1)[1])
            assert len(told) == (pixels is None), (recipe.name, id, told)
    proven = {id for id in pictures if points.of(packs[0].record_of(id)) is not None}
    assert not proven & bad and {"smooth_good", "noisy_good"} <= proven


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("how", [{"entry_points": True}, {"codec": "dct"}, {"codec": "dct-zstd"}], ids=str)
def test_packing_refuses_what_pillow_refuses(tmp_path: Path, how: dict[str, object]) -> None:
    """Where packing decodes. Small crops of what is packed are Pillow's, whatever codec it has then."""
    pictures = {id: by_pillow(file) for id, file in files().items()}
    write_tree(tmp_path / "in", {f"{id}.jpg": file for id, file in files().items()})
    report = build([tmp_path / "in"], tmp_path / "pack", workers=1, **how)  # type: ignore[arg-type]
    assert {refusal.id for refusal in report.refused} == {id for id, pixels in pictures.items() if pixels is None}
    dataset = ShardDataset(tmp_path / "pack", RECIPES["small"])
    for id, pixels in pictures.items():
        if pixels is not None:
            assert_pillows(dataset, id, 1, pixels)
