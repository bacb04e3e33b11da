"""Credits: every picture, the creator readable, no licence guessed."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pass_loader import ConcatDataset, PackError, Samples, ShardDataset, recipes
from pass_loader.pack import attribution, build, purge, remove
from pass_loader.cli.main import main

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import write_tree


BY = "https://creativecommons.org/licenses/by/2.0/"
ROWS = [
    ("a", "J%C3%BCrgen+K.", "Attribution License"),
    ("b", "50%25+off+%3Cb%3E", "Attribution-ShareAlike License"),
    ("c", "bad%FFbytes", "https://example.org/licence"),
    ("d", "", "Attribution License"),
    ("e", "plain,name", ""),
    ("f", "007", "attribution license"),
]


@pytest.fixture
def credited(tmp_path: Path) -> Path:
    """g has no row."""
    files = {f"{name}.jpg": jpeg(noise(9, 9, i)) for i, name in enumerate("abcdefg")}
    with open(tmp_path / "m.csv", "w", newline="") as file:
        csv.writer(file).writerows([("hash", "unickname", "licensename"), *ROWS])
    root = write_tree(tmp_path / "in", files)
    build([root], tmp_path / "pack", metadata=tmp_path / "m.csv", shard_bytes=2500, workers=1)
    return tmp_path / "pack"


def test_creators_and_licences(credited: Path) -> None:
    rows = {row["id"]: row for row in attribution(credited).rows()}
    assert [rows[id]["creator"] for id in "abcdefg"] == [
        "Jürgen K.", "50% off <b>", "bad%FFbytes", None, "plain,name", "007", None,
    ]  # fmt: skip
    assert rows["a"]["creator_as_given"] == "J%C3%BCrgen+K."
    assert (rows["a"]["licence"], rows["a"]["licence_url"]) == ("CC BY 2.0", BY)
    assert rows["a"]["licence_as_given"] == "Attribution License"
    assert (rows["b"]["licence"], rows["b"]["licence_url"]) == ("Attribution-ShareAlike License", None)
    assert rows["c"]["licence_url"] == "https://example.org/licence"
    assert (rows["f"]["licence"], rows["f"]["licence_url"]) == ("attribution license", None), "nothing is guessed"
    assert attribution(credited).without == ["d", "e", "g"]


def test_which_records(credited: Path) -> None:
    """All live ones; exactly those asked for, once, removed ones until they are purged."""
    dataset = Samples(credited, recipes.mocov2())
    assert attribution(credited, [3, 0, 3]).table.column("id").to_pylist() == ["a", "d"]
    assert dataset.attribution(np.array([5])).table.column("creator").to_pylist() == ["007"]
    assert attribution(credited, [], ids=["f", "b"]).table.column("record").to_pylist() == [1, 5]
    assert len(attribution(credited, [])) == 0
    remove(credited, ["a"], reason="x")
    assert "a" not in attribution(credited).table.column("id").to_pylist() and len(attribution(credited)) == 6
    assert attribution(credited, [0]).without == []
    purge(credited)
    assert attribution(credited, [0]).without == ["a"]
    with pytest.raises(IndexError, match="records go from 0 to 7"):
        attribution(credited, [0, 7])
    with pytest.raises(PackError, match="no record with these ids: nobody"):
        attribution(credited, ids=["a", "nobody"])


def test_formats(credited: Path) -> None:
    def text(format: str) -> str:
        out = io.StringIO()
        attribution(credited, changes="cut & coloured").write(out, format)
        return out.getvalue()

    assert f"a: Jürgen K., CC BY 2.0, {BY}\n" in text("txt") and "Changes: cut & coloured" in text("txt")
    assert "d: creator not known, CC BY 2.0" in text("txt") and "e: plain,name, licence not known\n" in text("txt")
    rows = list(csv.DictReader(io.StringIO(text("csv"))))
    assert [row["id"] for row in rows] == list("abcdefg") and rows[4]["creator"] == "plain,name"
    assert rows[0]["licence_url"] == BY and all(row["changes"] == "cut & coloured" for row in rows)
    parsed = json.loads(text("json"))
    assert len(parsed["credits"]) == 7 and parsed["without"] == ["d", "e", "g"]
    assert parsed["credits"][0]["creator"] == "Jürgen K." and parsed["changes"] == "cut & coloured"
    page = text("html")
    assert f'<td>Jürgen K.</td><td><a href="{BY}">CC BY 2.0</a></td>' in page and "cut &amp; coloured" in page
    assert "50% off &lt;b&gt;" in page and len(re.findall("<tr><td>", page)) == 7
    with pytest.raises(ValueError, match="format is 'pdf'"):
        text("pdf")


def test_other_columns(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(9, 9))})
    build([root], tmp_path / "bare")
    with pytest.raises(PackError, match="no column of creators: its metadata has no columns"):
        attribution(tmp_path / "bare")
    (tmp_path / "m.csv").write_text("key,who,terms\na,C%2B%2B,CC0\n")
    build([root], tmp_path / "pack", metadata=tmp_path / "m.csv", key="key")
    with pytest.raises(PackError, match="no column of creators"):
        attribution(tmp_path / "pack")
    with pytest.raises(PackError, match="'name' is none of them"):
        attribution(tmp_path / "pack", creator="name")
    row = next(attribution(tmp_path / "pack", creator="who", licence="terms").rows())
    assert (row["creator"], row["licence"], row["licence_url"]) == ("C%2B%2B", "CC0", None), "only PASS's is encoded"


@pytest.mark.slow
def test_command(credited: Path, pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attribution", str(pack), "--format", "html", "--out", str(tmp_path / "credits.html")]) == 0
    assert "23 of 23 pictures have creator and licence" in capsys.readouterr().err
    assert (tmp_path / "credits.html").read_text().count("CC BY 2.0") == 23
    assert main(["attribution", str(credited)]) == 1
    shown = capsys.readouterr()
    assert "4 of 7 pictures" in shown.err and "without: d, e, g" in shown.err and "Jürgen K." in shown.out
    (tmp_path / "ids.txt").write_text("a\nf\n")
    assert main(["attribution", str(credited), "--ids", str(tmp_path / "ids.txt"), "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 3


def test_credits_of_a_part(credited: Path) -> None:
    """Of the records that the dataset serves, alone or beside another pack's."""
    part = ShardDataset(credited, recipes.mocov2(), ids=["e", "b", "a"])
    remove(credited, ["b"], reason="x")
    part.pack.refresh()
    assert part.attribution().table.column("id").to_pylist() == ["a", "e"]
    both = ConcatDataset([part, ShardDataset(credited, recipes.mocov2())])
    assert both.attribution().table.column("id").to_pylist() == [*"ae", *"acdefg"]
    assert len(part.attribution([1])) == 1
