"""Sheets of the hardest and the easiest pairs: which ones, and their exact views."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pass_loader import PackError, Recipe, Samples, ViewSpec
from pass_loader.cli.main import main
from pass_loader.data import pairs as module
from pass_loader.data.pairs import pairs
from pass_loader.pack import remove

RECIPE = Recipe("pairs", (ViewSpec(8, (0.3, 1.0)), ViewSpec(8, (0.3, 1.0)), ViewSpec(6, (0.1, 0.3))))
NAN = float("nan")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """What sheets show: (the caption's first words, epoch, record)."""
    found: list[tuple[str, int, int]] = []
    drawn = module.row_of

    def row_of(samples: Samples, record: int, epoch: int, masks: object, caption: str, views: object) -> Image.Image:
        found.append((caption.split(",")[0], epoch, record))
        return drawn(samples, record, epoch, masks, caption, views)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "row_of", row_of)
    return found


def scores_of(rows: int = 3) -> np.ndarray:
    scores = np.random.default_rng(0).random((rows, 62), np.float32)
    scores[0, 7], scores[2, 40], scores[1, 3], scores[2, 9] = -2, -1.5, 7, 8
    scores[1, 4], scores[0, 5], scores[0, 6] = NAN, np.inf, -np.inf
    return scores


def test_which_pairs(tiny: Path, tmp_path: Path, shown: list[tuple[str, int, int]]) -> None:
    """Kills: rows and columns swapped, an epoch that is not counted from the first row's, what was not seen."""
    pairs(tiny, RECIPE, scores_of(), tmp_path / "sheet.png", count=2, epoch=10)
    assert shown == [
        ("hardest 1: score -2", 10, 7), ("hardest 2: score -1.5", 12, 40),
        ("easiest 1: score 8", 12, 9), ("easiest 2: score 7", 11, 3),
    ]  # fmt: skip
    shown.clear()
    pairs(tiny, RECIPE, scores_of(), tmp_path / "sheet.png", count=1, losses=True)
    assert shown == [("hardest 1: loss 8", 2, 9), ("easiest 1: loss -2", 0, 7)]
    shown.clear()
    pairs(tiny, RECIPE, np.arange(62), tmp_path / "sheet.png", count=1)
    assert shown == [("hardest 1: score 0", 0, 0), ("easiest 1: score 61", 0, 61)]


def test_views_are_the_runs(tiny: Path, tmp_path: Path) -> None:
    """The sheet's last pixels of a row are the views that the run had. Kills: another epoch's, another view."""
    pairs(tiny, RECIPE, scores_of(), tmp_path / "sheet.png", count=1, seed=4, epoch=3, views=(0, 2))
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    places = [[*range(6, 14)], [*range(6, 12)]]  # a margin of 6 pixels
    views = Samples(tiny, RECIPE, seed=4).render(7, 3)
    row = pixels[16 : len(pixels) // 2]
    for number, place in zip((0, 2), places):
        side = len(place)
        found = [
            left
            for left in range(row.shape[1] - side + 1)
            if np.array_equal(row[6 : 6 + side, left : left + side], views[number])
        ]
        assert len(found) == 1, number
    assert not any(np.array_equal(row[6:14, left : left + 8], views[1]) for left in range(row.shape[1] - 7))


def test_removed_pictures_are_left_out(tiny: Path, tmp_path: Path, shown: list[tuple[str, int, int]]) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    remove(copy, ["07", "09"], reason="x")
    pairs(copy, RECIPE, scores_of(), tmp_path / "sheet.png", count=1)
    assert [record for _, _, record in shown] == [40, 3]


def test_command(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "score.npy", scores_of())
    for more in ([], ["--losses", "--views", "1", "0"]):
        arguments = ["--scores", str(tmp_path / "score.npy"), "--recipe", "mocov2(size=16)", "--count", "2"]
        assert main(["pairs", str(tiny), *arguments, "--out", str(tmp_path / "a.png"), "--seed", "1", *more]) == 0
        assert capsys.readouterr().out == f"{tmp_path / 'a.png'}\n" and (tmp_path / "a.png").exists()
    np.save(tmp_path / "score.npy", scores_of()[:, 1:])
    assert main(["pairs", str(tiny), *arguments, "--out", str(tmp_path / "a.png")]) == 1
    assert "score.npy: float32 of shape (3, 61), want numbers (epochs, 62)" in capsys.readouterr().err


def test_refusals(tiny: Path, tmp_path: Path) -> None:
    for wrong in (np.zeros((1, 2, 62)), np.zeros(62, bool), np.zeros((0,))):
        with pytest.raises(ValueError, match=r"want numbers \(epochs, 62\) or \(62,\)"):
            pairs(tiny, RECIPE, wrong, tmp_path / "a.png")
    for views in ((0, 3), (0,), (-1, 0)):
        with pytest.raises(ValueError, match=r"want two in \[0, 3\)"):
            pairs(tiny, RECIPE, np.zeros(62), tmp_path / "a.png", views=views)
    for count in (0, -3):
        with pytest.raises(ValueError, match=f"count is {count}, want 1 pair"):
            pairs(tiny, RECIPE, np.zeros(62), tmp_path / "a.png", count=count)
        with pytest.raises(SystemExit):
            main(["pairs", str(tiny), "--scores", "s.npy", "--out", str(tmp_path / "a.png"), "--count", str(count)])
    with pytest.raises(PackError, match="no score is a number"):
        pairs(tiny, RECIPE, np.full(62, NAN), tmp_path / "a.png")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="Python objects"):
        pairs(tiny, RECIPE, tmp_path / "objects.npy", tmp_path / "a.png")
