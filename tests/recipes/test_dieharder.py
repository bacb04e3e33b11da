"""What dieharder says of the generator's words is read whole: benchmarks/proof/dieharder.py, with a stand-in for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.proof import dieharder, generator


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of what the stand-in says; it keeps the first bytes that it reads."""
    tool = tmp_path / "bin" / "dieharder"
    tool.parent.mkdir()
    tool.write_text(
        f"#!/bin/sh\nhead -c 4096 > {tmp_path}/read.$4\ncat {tmp_path}/says\nexit $(cat {tmp_path}/status)\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    (tmp_path / "status").write_text("0")
    return tmp_path / "says"


def test_what_it_says_is_in_the_table(says: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too near 1 is as bad as too near 0; the page stays as it was then. The words are those of plans."""
    page = tmp_path / "page.md"
    page.write_text("<!-- benchmarks/proof/dieharder.py -->\n\n<!-- /benchmarks/proof/dieharder.py -->\n")
    run = ["--orders", "records", "views", "--tests", "100", "--page", str(page)]
    for p, status in (("0.99999999", 1), ("0.00000001", 1), ("0.3", 0)):
        says.write_text(
            f"# a line of another kind\n     sts_serial,   1,     100,0.5\n     sts_serial,   2,     100,{p}\n"
        )
        assert dieharder.main(run) == status
        assert ("| records | 2 |" in page.read_text()) == (not status)
        assert ("rejected: sts_serial 2, records fastest" in capsys.readouterr().out) == bool(status)
    wanted = generator.words("views", 100 << 32, 256).tobytes()
    assert (tmp_path / "read.100").read_bytes() in (wanted, generator.words("records", 100 << 32, 256).tobytes())


def test_a_tool_that_fails_is_an_error(says: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says.write_text("")
    with pytest.raises(RuntimeError, match="test 0 of seeds: exit status 0"):
        dieharder.assessed("seeds", 0)
    says.write_text("a_test, 1, 100, 0.5\n")
    (tmp_path / "status").write_text("3")
    with pytest.raises(RuntimeError, match="exit status 3"):
        dieharder.assessed("seeds", 0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="not installed"):
        dieharder.main([])
