"""What a plain install does without torch: every way from numpy to Arrow and back, in one script.

`python plain_install.py FOLDER` runs it in an empty folder, with whichever pass_loader, numpy, pyarrow and Pillow are
installed. pandas is absent, and an attempt to import torch is an error. The script imports nothing of the tests, whose
libraries a plain install lacks.
"""

from __future__ import annotations

import datetime
import sys
import tarfile
from pathlib import Path

PICTURES = 12


class Guard:
    """An import hook under which pandas is absent, and an import of torch is an error that nobody takes for absence."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.split(".")[0] == "pandas":
            raise ModuleNotFoundError(f"no {name} in a plain install", name=name)
        if name.split(".")[0] == "torch":
            raise RuntimeError("an import of torch")


sys.meta_path.insert(0, Guard())  # type: ignore[arg-type]

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from PIL import Image  # noqa: E402

from pass_loader import recipes  # noqa: E402
from pass_loader.cli.main import main  # noqa: E402
from pass_loader.data.companions import Companions  # noqa: E402
from pass_loader.data.samples import Samples  # noqa: E402
from pass_loader.pack import Pack, attribution, diff, info, verify  # noqa: E402
from pass_loader.pack.several import Packs  # noqa: E402


def pass_pack(*words: object) -> None:
    """Run the command; it must exit with 0."""
    code = main([*map(str, words)])
    assert code == 0, f"pass-pack {' '.join(map(str, words))}: exit code {code}"


def write_sources(root: Path) -> None:
    """Write a folder, a tar of the same pictures under other ids, a Parquet file of more, and tables of metadata."""
    (root / "folder").mkdir()
    names = [f"id{i:02d}" for i in range(PICTURES)]
    for i, name in enumerate(names):
        noise = np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), np.uint8)
        Image.fromarray(noise).save(root / "folder" / f"{name}.jpg")
    with tarfile.open(root / "more.tar", "w") as tar:
        for name in names:
            tar.add(root / "folder" / f"{name}.jpg", f"{name}_s-2.jpg")
    rows = "".join(f"{name},creator {i},{i / 4},{i % 5},CC0\n" for i, name in enumerate(names))
    (root / "table.csv").write_text("hash,creator,score,grade,licence\n" + rows)
    day = datetime.datetime(2020, 1, 1)
    columns = {
        "hash": names,
        "real": [i / 2 for i in range(PICTURES)],
        "whole": [None, *range(1, PICTURES)],
        "day": [day] * PICTURES,
        "yes": [True, None] * (PICTURES // 2),
        "words": [["a", "b"]] * PICTURES,
    }
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), root / "table.parquet")
    pictures = [(root / "folder" / f"{name}.jpg").read_bytes() for name in names]
    of_parquet = {"image": pictures, "id": [f"p{name}" for name in names], "label": [i % 3 for i in range(PICTURES)]}
    pq.write_table(pa.table(of_parquet), root / "pictures.parquet")


def run(root: Path) -> None:
    """Pack, verify, look, load and take down, in `root`."""
    write_sources(root)
    own, tar, rows = root / "own", root / "tar", root / "rows"
    pass_pack("build", root / "folder", "--out", own, "--metadata", root / "table.csv", "--shard-bytes", 20_000)
    pass_pack("build", root / "more.tar", "--out", tar, "--codec", "dct")
    pass_pack("build", root / "pictures.parquet", "--out", rows)
    pass_pack("build", root / "folder", "--out", root / "typed", "--metadata", root / "table.parquet")
    pass_pack("index", root / "more.tar", "--out", root / "in-place")
    pass_pack("convert", own, "--out", root / "dct", "--codec", "dct")
    made = [own, tar, rows, root / "typed", root / "in-place", root / "dct"]
    for pack in made:
        assert verify(pack) == [], pack
        pass_pack("verify", pack)
        pass_pack("info", pack)
        info(Pack(pack))
    assert len(Pack(own).shards) > 1

    recipe = recipes.simclr(size=24)
    samples = Samples(own, recipe, labels=["score", "grade"])
    assert samples.labels_of(np.arange(PICTURES)).tolist() == [[i / 4, i % 5] for i in range(PICTURES)]
    assert Samples(root / "typed", recipe, labels=["whole"]).labels_of(np.arange(2)).ravel()[1] == 1
    same = [samples.render(3), Samples(root / "dct", recipe, labels=["score"]).render(3)]
    assert all(view.tobytes() == other.tobytes() for view, other in zip(*same)) and len(same[0]) == 2
    assert samples.record_of("id03") == 3 and samples.metadata(3)["creator"] == "creator 3"
    assert samples.decode(3).shape == (43, 50, 3)
    paired = Samples(own, recipes.genview(size=24), companions=Companions(tar))
    found = paired.companion(3)
    assert found is not None and found.scale == 2

    pass_pack("preview", own, "--recipe", "simclr", "--out", root / "sheet.png")
    pass_pack("attribution", own, "--creator", "creator", "--licence", "licence", "--out", root / "credits.txt")
    assert Packs([Pack(own), Pack(root / "dct")]).attribution([3, PICTURES + 3]).table.num_rows == 2
    assert attribution(own, ids=["id03"]).table.num_rows == 1
    for format in ("folder", "webdataset", "parquet"):
        pass_pack("export", own, "--out", root / f"as-{format}", "--format", format)

    pass_pack("remove", own, "id03", "id04", "--reason", "asked")
    pass_pack("restore", own, "id04", "--reason", "a mistake")
    pass_pack("purge", own)
    assert verify(own) == []
    assert diff(own, root / "table.csv").removed == 1
    assert Samples(own, recipe, labels=["score"]).labels_of(np.arange(PICTURES)).shape == (PICTURES, 1)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
