"""Contact sheets: of any recipe, with the masks that a loader's first batch has."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pass_loader import DataLoader, Recipe, ShardDataset, recipes
from pass_loader.cli.main import main
from pass_loader.data.preview import _colour, _with_boxes, preview

RECORDS = [2, 5, 7, 11]
RED = np.array([255, 60, 60])
MASKED = {
    "ibot": recipes.ibot(local_crops=2),
    "dinov2": recipes.dinov2(local_crops=1),
    "dinov3": recipes.dinov3(local_crops=1, gram_size=224),
    "mae": recipes.mae(mask_ratio=0.75),
    "mae_thorax": recipes.mae_thorax(mask_ratio=0.9),
    "ijepa": recipes.ijepa(),
}


def sheet_of(pack: Path, recipe: Recipe, out: Path, records: list[int] = RECORDS) -> np.ndarray:
    preview(pack, recipe, out, records=records, seed=3)
    with Image.open(out) as picture:
        return np.asarray(picture.convert("RGB"))


def kinds_of(recipe: Recipe, batch: Any, slot: int) -> dict[int, np.ndarray]:
    """What a loader's batch says of a sample, a view that has a mask: (rows, columns), 0 seen, 1 hidden, 2 a
    predictor's."""
    if recipe.batch == "views_labels_masks":
        return {view: mask[slot].numpy() for view, mask in enumerate(batch[2])}
    if recipe.batch == "dinov2":
        side = recipe.views[0].height // 16
        masks = batch["collated_masks"].reshape(2, len(RECORDS), side, side)
        return {view: masks[view, slot].numpy() for view in range(2)}
    if recipe.batch == "view_labels_masks":
        return {0: batch[2]["mask"][slot].reshape(14, 14).int().numpy()}
    _, encoders, predictors = batch
    cells = np.ones(256, int)
    cells[encoders[0][slot]] = 0
    for block in predictors:
        cells[block[slot]] = 2
    return {0: cells.reshape(16, 16)}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MASKED))
def test_masks_are_drawn_over_the_views(pack: Path, tmp_path: Path, name: str) -> None:
    """Those of the loader's first batch, at their places. Kills: rows taken for columns, another sample's mask, views
    that are shown without theirs or with one that they do not have."""
    recipe = MASKED[name]
    dataset = ShardDataset(pack, recipe, seed=3)
    batch = next(iter(DataLoader(dataset, len(RECORDS), sampler=RECORDS)))
    sheet = sheet_of(pack, recipe, tmp_path / "sheet.png")
    bare = dataclasses.replace(recipe, masks=None, batch="views")
    plain = sheet_of(pack, bare, tmp_path / "plain.png")
    assert sheet.shape == plain.shape and (sheet != plain).any()
    shown = np.zeros(sheet.shape[:2], bool)
    for slot, record in enumerate(RECORDS):
        kinds = kinds_of(recipe, batch, slot)
        for number, view in enumerate(dataset.render(record)):
            y, x = place_of(view, plain)
            found = sheet[y : y + len(view), x : x + view.shape[1]]
            shown[y : y + len(view), x : x + view.shape[1]] = True
            want = view
            if number in kinds:
                patch = -(-len(view) // len(kinds[number]))
                kind = np.kron(kinds[number], np.ones((patch, patch), int))[:, :, None]
                want = np.choose(kind, [view, view // 4, view // 2 + RED // 2]).astype(np.uint8)
            assert np.array_equal(found, want), (record, number)
    assert np.array_equal(sheet[~shown], plain[~shown])


def place_of(view: np.ndarray, sheet: np.ndarray) -> tuple[int, int]:
    """y and x of a picture in the sheet, where it stands once."""
    height, width = view.shape[:2]
    ys, xs = (sheet[: sheet.shape[0] - height + 1, : sheet.shape[1] - width + 1, 0] == view[0, 0, 0]).nonzero()
    for y, x in ((0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1), (height // 2, width // 2)):
        same = (sheet[ys + y, xs + x] == view[y, x]).all(1)
        ys, xs = ys[same], xs[same]
    found = [(y, x) for y, x in zip(ys.tolist(), xs.tolist(), strict=True)
             if np.array_equal(sheet[y : y + height, x : x + width], view)]  # fmt: skip
    assert len(found) == 1 or (found and (view == view[0, 0]).all())  # of one colour, it may come twice
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(recipes.PRESETS))
def test_every_preset(pack: Path, tmp_path: Path, name: str) -> None:
    recipe = recipes.PRESETS[name]()
    bare = dataclasses.replace(recipe, masks=None, batch="views" if recipe.masks else recipe.batch)
    few, dataset = RECORDS[:2], ShardDataset(pack, bare, seed=3)
    sheet = sheet_of(pack, bare, tmp_path / "sheet.png", few)
    if recipe.masks:
        assert sheet_of(pack, recipe, tmp_path / "masked.png", few).shape == sheet.shape
    for record in few:
        for view in dataset.render(record):
            place_of(view, sheet)


def test_heatmaps_are_not_needed(pack: Path, tmp_path: Path) -> None:
    """The same sheet as without them."""
    for name, recipe in (("a", recipes.mae_thorax(heatmaps=True)), ("b", recipes.mae_thorax())):
        preview(pack, recipe, tmp_path / f"{name}.png", count=2)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_companions(companion_packs: tuple[Path, Path], tmp_path: Path) -> None:
    """Each stands beside its original, each with the box of its own view. Kills: a box of the companion's view in the
    original, a view of the original where the companion's belongs."""
    originals, generated = companion_packs
    dataset = ShardDataset(originals, recipes.genview(size=48), companions=generated, seed=3)
    records = [record for record in range(len(dataset)) if dataset.companion(record) is not None][:3]
    assert records
    preview(originals, dataset.recipe, tmp_path / "sheet.png", records=records, seed=3, companions=generated)
    with Image.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture.convert("RGB"))
    for record in records:
        plan, companion = dataset.plan(record), dataset.companion(record)
        assert companion is not None
        shown = [(record, 1 - companion.view), (companion.record, companion.view)]
        tiles = [_with_boxes(Image.fromarray(dataset.decode(of)), [(plan[view], _colour(view, 2))], 48)
                 for of, view in shown]  # fmt: skip
        found = [place_of(part, sheet) for part in (*map(np.asarray, tiles), *dataset.render(record))]
        assert len({y for y, _ in found[2:]}) == 1 and [x for _, x in found] == sorted(x for _, x in found)


def test_recipes_by_name(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A preset, or a call of one with literals."""
    assert recipes.named("dino") == recipes.dino()
    assert recipes.named("mae(mask_ratio=0.75)") == recipes.mae(mask_ratio=0.75)
    assert recipes.named("dino(local_scale=(0.1, 0.2), local_crops=1)").views[2].scale == (0.1, 0.2)
    for text, why in {
        "nothing": "there is no preset nothing; there are dino, ",
        "dino(local_crops=os.system('x'))": "malformed node",
        "dino(3)": r"want NAME or NAME\(argument=value, ...\)",
        "recipes.dino": "want NAME",
        "dino(": "never closed",
        "dino(colour=3)": "unexpected keyword argument 'colour'",
    }.items():
        with pytest.raises(ValueError, match=why):
            recipes.named(text)
    command = ["preview", str(pack), "--out", str(tmp_path / "s.png"), "--count", "1", "--recipe"]
    assert main([*command, "dinov2(as_declared=True)"]) == 0 and (tmp_path / "s.png").exists()
    assert main([*command, "dinov9"]) == 1 and "there is no preset dinov9" in capsys.readouterr().err
