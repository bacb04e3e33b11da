"""Writes the picture of docs/stats.md, parts of a report in Chromium: `python -m docs.make_stats`.

The photographs are scikit-learn's two, CC BY 2.0 (benchmarks/pictures.py). Dates and places are made up.
"""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pictures import write_pass
from pass_loader.pack import build, stats
from tests.helpers.browser import Browser

PICTURE = Path(__file__).parent / "static" / "stats.png"
PARTS = ("header", "#sizes", "#places")
COUNT = 400
# latitude, longitude, share
CITIES = [(51, 0, 5), (48, 2, 4), (41, -74, 6), (34, -118, 4), (37, -122, 4), (35, 139, 3), (-34, 151, 2), (52, 13, 3),
          (41, 12, 2), (19, -99, 1), (-23, -46, 1), (28, 77, 1), (1, 103, 1), (64, -21, 1), (47, -122, 2)]  # fmt: skip


def write_sources(folder: Path) -> tuple[Path, Path]:
    """PASS.0.tar and pass_metadata.csv, with dates, and for two of three pictures places."""
    tar, table = write_pass(folder, COUNT)
    rng = np.random.default_rng(0)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    shares = np.array([share for *_, share in CITIES], float)
    for row in rows:
        year, month = int(2014 - rng.gamma(2.0, 2.2)), int(rng.integers(1, 13))
        row["datetaken"] = f"{max(year, 2000)}-{month:02d}-01 12:00:00.0"
        if rng.random() < 2 / 3:
            city = CITIES[int(rng.choice(len(CITIES), p=shares / shares.sum()))]
            row["latitude"], row["longitude"] = (f"{value + rng.normal(0, 4):.5f}" for value in city[:2])
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return tar, table


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        tar, table = write_sources(Path(place))
        build([tar], Path(place) / "my-pack", metadata=table)
        stats(Path(place) / "my-pack", Path(place) / "report", sample=COUNT)
        with Browser(Path(place) / "profile") as browser:
            browser.resize(1000, 900)
            browser.open((Path(place) / "report" / "index.html").as_uri())
            parts = [Image.open(io.BytesIO(browser.picture(part))).convert("RGB") for part in PARTS]
    whole = Image.new("RGB", (parts[0].width + 80, sum(part.height + 40 for part in parts) + 40), "white")
    top = 40
    for part in parts:
        whole.paste(part, (40, top))
        top += part.height + 40
    whole.quantize(96).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
