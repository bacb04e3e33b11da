"""A heatmap beside each picture: same crop box and flip, nearest pixels, as Pillow and torchvision do it."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pass_loader import ConcatDataset, DataLoader, RecordError, ShardDataset, _C, recipes
from pass_loader.recipes import reference
from pass_loader.errors import PackError
from pass_loader.pack import build, remove

from ..helpers.corpus import jpeg, noise
from ..helpers.packs import HEATMAP_SIZES, flip_a_bit, heatmaps_of
from ..helpers.pngwriter import png
from ..helpers.recipes import WITH_HEATMAPS
from ..helpers.trees import write_tree


pytestmark = pytest.mark.oracle


def wanted(dataset: ShardDataset, record: int, plan: np.void) -> np.ndarray:
    assert dataset.heatmaps is not None
    theirs = int(dataset.heatmaps.records_of(np.array([record]))[0])
    return reference.heatmap(reference.decode(dataset.heatmaps.reader.read(theirs), channels=1), plan)


@pytest.mark.parametrize("threads", [0, 2])
def test_batches(heatmap_packs: tuple[Path, Path], threads: int) -> None:
    """Kills: another box, a flip that is left out, heatmaps in the order of their own pack, another interpolation."""
    dataset = ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=heatmap_packs[1], seed=2)
    loader = DataLoader(dataset, 5, num_workers=threads, sampler=[3, 1, 4, 0, 2], return_plan=True)
    flips = set()
    for _ in range(6):
        (views, heatmaps), labels, plans = next(iter(loader))
        assert views.shape == (5, 3, 40, 40) and heatmaps.shape == (5, 1, 40, 40) and heatmaps.dtype == torch.float32
        for slot, record in enumerate((3, 1, 4, 0, 2)):
            plan = plans[slot, 0]
            flips.add(bool(plan["flip"]))
            assert np.array_equal(heatmaps[slot].numpy(), wanted(dataset, record, plan)), (record, plan)
            want = reference.normalize(reference.render(reference.decode(dataset.read(record)), plan), WITH_HEATMAPS)
            assert np.array_equal(views[slot].numpy(), want)
    assert flips == {True, False}
    assert loader.stats()["stage_seconds"]["heatmap"] > 0


def test_as_torchvision(heatmap_packs: tuple[Path, Path]) -> None:
    """The reference itself, against the functions that the official transform calls."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401

    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    dataset = ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=heatmap_packs[1])
    for record in (0, 3, 4):  # those of 8 bits, which ToTensor divides
        plan = dataset.plan(record, epoch=3)[0]
        theirs = int(dataset.heatmaps.records_of(np.array([record]))[0])  # type: ignore[union-attr]
        picture = reference.decode(dataset.heatmaps.reader.read(theirs), channels=1)  # type: ignore[union-attr]
        box = [int(plan[name]) for name in ("crop_y", "crop_x", "crop_height", "crop_width")]
        want = F.resized_crop(picture, *box, [40, 40], InterpolationMode.NEAREST)
        want = F.to_tensor(F.hflip(want) if plan["flip"] else want)
        assert torch.equal(dataset.heatmap(record, epoch=3)[0], want)


def test_sizes_windows_and_first_resizes(tmp_path: Path) -> None:
    """Kills: positions by multiplication, a window's offset, a `via` that is left out. Widths of 1 to 60."""
    rng = np.random.default_rng(1)
    sizes = [(int(rng.integers(1, 61)), width) for width in range(1, 61)]
    build([write_tree(tmp_path / "a", {f"{n:02d}.jpg": jpeg(noise(*s)) for n, s in enumerate(sizes)})], tmp_path / "p")
    maps = {f"{n:02d}.png": png(noise(*s, n)[:, :, 0]) for n, s in enumerate(sizes)}
    build([write_tree(tmp_path / "b", maps)], tmp_path / "h")
    whole = {"scale": (1.0, 1.0), "ratio": (1e-3, 1e3)}
    for size, fields in ((33, whole), ((7, 91), whole), (40, {"via": (29, 51)}), (24, {"resize_short": 31})):
        recipe = WITH_HEATMAPS.override(size=size, **fields)  # type: ignore[arg-type]
        dataset = ShardDataset(tmp_path / "p", recipe, heatmaps=tmp_path / "h")
        (_, heatmaps), _ = next(iter(DataLoader(dataset, len(sizes))))
        for record in range(len(sizes)):
            assert np.array_equal(heatmaps[record].numpy(), wanted(dataset, record, dataset.plan(record)[0])), record


def test_structures(heatmap_packs: tuple[Path, Path]) -> None:
    """A single sample, torch's loader, half types, gray views and uint8 have the same heatmaps."""
    dataset = ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=heatmap_packs[1])
    (views, heatmaps), _ = next(iter(DataLoader(dataset, 5)))
    for record in range(5):
        assert torch.equal(dataset.heatmap(record)[0], heatmaps[record])
        assert torch.equal(dataset.sample(record)[0], views[record])
    dataset.set_epoch(0)
    (theirs, maps), labels = next(iter(torch.utils.data.DataLoader(dataset.as_map(), batch_size=5)))
    assert torch.equal(theirs, views) and torch.equal(maps, heatmaps) and len(labels) == 5
    collate = torch.utils.data.default_collate
    (_, collated), _ = next(iter(DataLoader(dataset, 5, collate_fn=collate)))
    assert torch.equal(collated, heatmaps)
    for dtype in (torch.bfloat16, torch.uint8):
        assert torch.equal(next(iter(DataLoader(dataset, 5, dtype=dtype)))[0][1], heatmaps)
    gray = dataclasses.replace(WITH_HEATMAPS, channels=1, mean=0.5, std=0.25)
    views, same = next(
        iter(DataLoader(ShardDataset(heatmap_packs[0], gray, heatmaps=heatmap_packs[1]), 5, num_workers=1))
    )[0]
    assert views.shape == (5, 1, 40, 40) and torch.equal(same, heatmaps)
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again.heatmap(2)[0], heatmaps[2])
    plain = ShardDataset(heatmap_packs[0], recipes.mae_thorax(size=40))
    assert plain.heatmap(0) == []


def test_errors(heatmap_packs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="batch 'view_labels' and heatmaps .*: the batch 'view_heatmap_labels' has them"
    ):
        ShardDataset(heatmap_packs[0], recipes.mae_thorax(), heatmaps=heatmap_packs[1])
    with pytest.raises(ValueError, match="batch 'view_heatmap_labels' and heatmaps None"):
        ShardDataset(heatmap_packs[0], WITH_HEATMAPS)
    with pytest.raises(ValueError, match="leave mask_ratio out"):
        recipes.mae_thorax(heatmaps=True, mask_ratio=0.9)
    files = heatmaps_of(HEATMAP_SIZES)
    build([write_tree(tmp_path / "in", {name: files[name] for name in ("0.png", "1.png", "3.png", "4.png")})],
          tmp_path / "part")  # fmt: skip
    with pytest.raises(PackError, match="has no heatmap for 1 of 5 pictures of .*, for example id 2: give the dataset"):
        ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=tmp_path / "part")
    part = ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=tmp_path / "part", ids=["0", "4", "3"])
    assert len(next(iter(DataLoader(part, 3)))[1]) == 3
    remove(tmp_path / "part", ["4"], reason="test")
    with pytest.raises(PackError, match="has no heatmap for 1 of 3 pictures of .*, for example id 4"):
        ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=tmp_path / "part", ids=["0", "4", "3"])
    other = write_tree(tmp_path / "other", heatmaps_of([HEATMAP_SIZES[0], (32, 90), *HEATMAP_SIZES[2:]]))
    build([other], tmp_path / "sizes")
    with pytest.raises(
        PackError, match=r"heatmap of id 1 is 32 x 90 \(height x width\), the picture 31 x 90; so are 1 in"
    ):
        ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=tmp_path / "sizes")


def test_a_bad_heatmap(heatmap_packs: tuple[Path, Path], tmp_path: Path) -> None:
    """Its sample is replaced, and its slot holds the other's heatmap; skipped, it is gone. Kills: a heatmap that stays
    from the batch before, slots that are not dropped together."""
    build([write_tree(tmp_path / "in", heatmaps_of(HEATMAP_SIZES))], tmp_path / "heatmaps")
    dataset = ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=tmp_path / "heatmaps")
    flip_a_bit(dataset.heatmaps.packs[0], 2)  # type: ignore[union-attr]
    with pytest.raises(RecordError, match="record 2, id 2: .*CRC"):
        list(DataLoader(dataset, 5))
    for policy in ("replace", "skip"):
        loader = DataLoader(dataset, 5, on_error=policy, return_info=True, num_workers=2)
        (views, heatmaps), _, info = next(iter(loader))
        assert len(heatmaps) == len(views) == (5 if policy == "replace" else 4)
        for slot, record in enumerate(info["records"].tolist()):
            assert record != 2
            assert np.array_equal(heatmaps[slot].numpy(), wanted(dataset, record, info["plans"][slot, 0]))


def test_engine_refuses_other_arrays(heatmap_packs: tuple[Path, Path]) -> None:
    dataset = ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=heatmap_packs[1])
    mean_std = np.array([[WITH_HEATMAPS.mean], [WITH_HEATMAPS.std]], np.float32)
    half = np.zeros((1, 3, 256), np.uint16)
    of = (dataset.reader, WITH_HEATMAPS.rows(), 0, WITH_HEATMAPS.normalize_table()[None], half, *mean_std, 0)
    keys, views = (np.arange(2), *np.zeros((2, 2), np.uint32)), [np.zeros((2, 3, 40, 40), np.float32)]
    good = np.zeros((2, 1, 40, 40), np.float32)
    theirs = np.arange(2)
    without, with_heatmaps = _C.Engine(*of), _C.Engine(*of, heatmaps=dataset.reader)
    for engine, records, out in ((without, theirs, good), (with_heatmaps, theirs, good[:1]),
                                 (with_heatmaps, theirs[:1], good)):  # fmt: skip
        with pytest.raises(ValueError, match="want an engine with heatmaps|want a float32 array of shape"):
            engine.submit(*keys, views, heatmap_records=records, heatmaps=[out])
    with Image.new("L", (2, 2)) as picture:
        assert reference.heatmap(picture, dataset.plan(0)[0]).shape == (1, 40, 40)


def test_several_packs_as_one(heatmap_packs: tuple[Path, Path], tmp_path: Path) -> None:
    """Each picture's heatmap is of its own pack's, each sample normalised by its own pack's mean and std."""
    build(
        [write_tree(tmp_path / "a", {"4.png": png(noise(30, 31)[:, :, 0]), "x.jpg": jpeg(noise(9, 9))})], tmp_path / "p"
    )
    build([write_tree(tmp_path / "b", {"4.png": png(noise(30, 31, 5)[:, :, 1]), "y.png": png(noise(9, 9)[:, :, 0])})],
          tmp_path / "h")  # fmt: skip
    first = ShardDataset(heatmap_packs[0], WITH_HEATMAPS, heatmaps=heatmap_packs[1], seed=4)
    second = ShardDataset(
        tmp_path / "p", WITH_HEATMAPS, heatmaps=tmp_path / "h", ids=["4"], mean=0.5056, std=0.252, seed=4
    )
    both = ConcatDataset([first, second])
    (views, heatmaps), _, info = next(iter(DataLoader(both, 6, num_workers=2, return_info=True)))
    for slot, record in enumerate(info["records"].tolist()):
        own = first if record < 5 else second
        plan = info["plans"][slot, 0]
        assert np.array_equal(heatmaps[slot].numpy(), wanted(both, record, plan))
        want = reference.normalize(reference.render(reference.decode(both.read(record)), plan), own.recipe)
        assert np.array_equal(views[slot].numpy(), want)
    last = second.heatmaps.reader.read(second.heatmaps.records_of(np.array([0]))[0])  # type: ignore[union-attr]
    assert reference.decode(last, channels=1).size == (31, 30)


def test_the_page_of_gray_and_medical_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python runs."""
    import re

    import pass_loader

    monkeypatch.chdir(tmp_path)
    for name, size in (("nih", 40), ("nih-heatmaps", 40)):
        files = {f"{n}.png": png(noise(size, size, n)[:, :, 0]) for n in range(3)}
        build([write_tree(tmp_path / f"in-{name}", files)], tmp_path / name)
    page = (Path(__file__).parents[2] / "docs" / "gray-and-medical.md").read_text()
    names: dict[str, object] = {"pass_loader": pass_loader, "recipes": recipes}
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    views, heatmaps = names["views"], names["heatmaps"]
    assert tuple(views.shape) == (3, 3, 224, 224) and tuple(heatmaps.shape) == (3, 1, 224, 224)  # type: ignore[attr-defined]
