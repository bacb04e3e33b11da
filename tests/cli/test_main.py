"""The command pass-pack, as a person meets it."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import pass_loader
from pass_loader import _C
from pass_loader.cli import progress
from pass_loader.cli.main import main
from pass_loader.cli.packs import size_in_bytes
from pass_loader.cli.progress import ProgressBar
from pass_loader.pack.reader import Pack

from ..helpers.sealing import write_log
from ..helpers.corpus import jpeg, noise
from ..helpers.packs import flip_a_bit
from ..helpers.trees import tar_of, write_tree


@pytest.mark.slow
def test_build_info_verify_preview(
    tmp_path: Path, pass_files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tar, table = map(str, pass_files)
    out = str(tmp_path / "pack")
    assert main(["build", tar, "--out", out, "--metadata", table, "--shard-bytes", "1MB", "--workers", "2"]) == 0
    text = capsys.readouterr().out
    assert "23 pictures" in text and "metadata rows without a picture 0" in text and "refused 0" in text
    assert main(["info", out]) == 0
    text = capsys.readouterr().out
    assert "records:          23, live 23" in text and "unickname" in text and "PASS.0.tar" in text
    assert main(["verify", out]) == 0
    assert "everything is as it was packed" in capsys.readouterr().out
    for recipe in ("dino", "swav", "mocov2"):
        sheet = tmp_path / f"{recipe}.png"
        assert main(["preview", out, "--recipe", recipe, "--out", str(sheet), "--count", "2"]) == 0
        with Image.open(sheet) as picture:
            assert picture.format == "PNG" and picture.width > 600 and picture.height > 400
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 1000


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"pass-pack {pass_loader.__version__}\n"


@pytest.mark.slow
def test_bench(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table adds up: stages and waiting make the whole, samples and views belong together. With what training asks
    for, a table of codecs and dtypes and advice follow."""
    command = ["bench", str(pack), "--recipe", "mocov2", "--threads", "2", "--seconds", "1"]
    assert main([*command, "--samples-per-second", "0.5", "--gpus", "3", "--batch-size", "2"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith(f"{pack}: 23 live records") and "mocov2: 2 views" in head and f"level {_C.isa()}" in head
    alone = lines.index("each by itself, samples/s:")
    rates = [float(line[20:].replace(",", "")) for line in lines[alone + 1 : alone + 4]]
    assert min(rates) > 0 and lines[alone + 4].startswith("The limit is ")
    assert lines[alone + 5] == "for 0.5 samples/s on each of 3 GPUs, by a sample of the pack:"
    rows = [line.split() for line in lines[alone + 7 : -1]]
    assert len(rows) == 9 and all(row[3] == "1" and row[-1] == "enough" for row in rows)
    advice = "Loading will not be the limit: num_workers=1 in each of 3 processes"
    assert lines[-1].startswith(advice) and "batches of 2," in lines[-1]
    table = {line[:20].strip(): line[20:].split() for line in lines[:alone]}
    assert table["threads"] == ["1", "2"] and table["times one thread"][0] == "1.00"
    stages = list(table)[list(table).index("read") :]
    assert {"read", "decode", "plan", "resize", "hue", "blur", "normalize", "waiting"} <= set(stages)
    for column in range(2):
        samples, views = (float(table[name][column].replace(",", "")) for name in ("samples/s", "views/s"))
        assert samples > 0 and abs(views - 2 * samples) <= 1.5
        shares = [float(table[stage][column].rstrip("%")) for stage in stages]
        assert all(share >= 0 for share in shares) and abs(sum(shares) - 100) < 1
        assert shares[stages.index("decode")] > 0 and shares[stages.index("solarize")] == 0  # MoCo-v2 has none


def test_what_bench_refuses(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(pack), "--gpus", "2"]) == 1
    assert "--gpus and --batch-size go with --samples-per-second" in capsys.readouterr().err
    for rate in ("0", "-1", "inf", "nan", "many"):
        with pytest.raises(SystemExit):
            main(["bench", str(pack), "--samples-per-second", rate])
        assert "--samples-per-second" in capsys.readouterr().err


@pytest.mark.slow
def test_bench_says_what_it_lacks(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tmp_path)]) == 1
    assert "is not a pack" in capsys.readouterr().err
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pass_loader.cli.main import main\n"
        "sys.exit(main(['bench', sys.argv[1]]))"
    )
    failed = subprocess.run([sys.executable, "-c", code, str(pack)], capture_output=True, text=True)
    assert failed.returncode == 1 and "pip install torch" in failed.stderr and "Traceback" not in failed.stderr
    removed = shutil.copytree(pack, tmp_path / "removed")
    lines = [json.dumps({"id": "", "record": record, "date": "", "reason": ""}) for record in range(23)]
    write_log(removed, [json.loads(line) for line in lines])
    assert main(["bench", str(removed)]) == 1
    assert "has no live records" in capsys.readouterr().err
    damaged = shutil.copytree(pack, tmp_path / "pack")
    for record in range(23):
        flip_a_bit(Pack(damaged), record)
    assert main(["bench", str(damaged), "--seconds", "1"]) == 1
    assert "CRC32C" in capsys.readouterr().err


def test_strict_and_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(9, 9)), "b.jpg": b"text"}))
    assert main(["build", root, "--out", str(tmp_path / "1")]) == 0
    assert (
        "in: b.jpg (id b): neither JPEG nor PNG but something that begins with 74 65 78 74" in capsys.readouterr().out
    )
    assert main(["build", root, "--out", str(tmp_path / "2"), "--strict"]) == 1
    assert main(["build", root, "--out", str(tmp_path / "2")]) == 0, "it is done already"
    assert main(["build", root, "--out", str(tmp_path / "2"), "--decode"]) == 1
    assert "already a pack" in capsys.readouterr().err
    assert main(["info", str(tmp_path)]) == 1
    assert "is not a pack" in capsys.readouterr().err
    (tmp_path / "1" / "shard-00000-000.tar").unlink()
    assert main(["verify", str(tmp_path / "1")]) == 1
    assert "1 problems" in capsys.readouterr().out
    assert main(["preview", str(tmp_path / "1"), "--out", str(tmp_path / "x.png")]) == 1
    assert "shard-00000-000.tar, record 0, id a: cannot open the shard" in capsys.readouterr().err


@pytest.mark.parametrize("text,want", [("1GiB", 1 << 30), ("500MB", 500_000_000), ("1.5k", 1500), ("77", 77)])
def test_sizes(text: str, want: int) -> None:
    assert size_in_bytes(text) == want


@pytest.mark.parametrize("text", ["", "many", "-1", "0", "1TB!"])
def test_bad_sizes(text: str) -> None:
    import argparse

    with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
        size_in_bytes(text)


@pytest.mark.slow
def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("pass-pack")
    shown = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("build", "info", "verify", "preview", "bench"):
        assert name in shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar on a terminal; a line every ten seconds in a log."""
    clock = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    with ProgressBar(8_000_000_000, "packed") as told:
        for _ in range(4):
            clock[0] += 5
            told(1_000_000_000)
    assert capsys.readouterr().err.splitlines() == [
        "packed 2.00 of 8.00 GB, 200 MB/s, 0 min 30 s left", "packed 4.00 of 8.00 GB, 200 MB/s, 0 min 20 s left",
    ]  # fmt: skip
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with ProgressBar(8_000, "packed") as told:
        time.sleep(0.2)
        told(2_000)
    bar = screen.getvalue().rsplit("\r", 1)[-1]
    assert re.search(r"packed: +25%.* 2.00k/8.00k \[\d+:\d+<\d+:\d+, .*B/s\]", bar), bar


def test_a_pack_is_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`build` of a pack points to what makes another pack of it; `info` names the codec that was asked for."""
    source = write_tree(tmp_path / "in", {"a.jpg": jpeg(noise(16, 16))})
    tar = tar_of(tmp_path / "t.tar", {"a.jpg": jpeg(noise(16, 16))})
    for command, codec in (
        (["build", source, "--codec", "dct-zstd"], "dct-zstd 1"),
        (["build", source, "--codec", "dct"], "dct 1"),
        (["index", tar], "jpeg 1"),
    ):
        out = tmp_path / codec
        assert main([*map(str, command), "--out", str(out)]) == 0
        assert main(["info", str(out)]) == 0
        assert f"codec:            {codec}\n" in capsys.readouterr().out
        assert main(["build", str(out), "--out", str(tmp_path / "new")]) == 1
        assert "is a pack already: `pass-pack convert" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
