"""`make proof`: training through this loader is training through torchvision and PIL; what is not is found."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.proof import batches, prove
from benchmarks.proof.dino import Dino
from benchmarks.proof.mae import Mae
from benchmarks.proof.method import Schedule
from benchmarks.proof.networks import SIZES, ResNet, Transformer
from benchmarks.proof.run import METHODS, Run, parser

MARK = "benchmarks/proof/prove.py"


def empty_page(folder: Path) -> Path:
    page = folder / "page.md"
    page.write_text("".join(f"<!-- {mark} -->\n\n<!-- /{mark} -->\n" for mark in (MARK, f"{MARK} sizes")))
    return page


def between(page: Path, mark: str) -> str:
    """Return what a page has between a table's markers."""
    return page.read_text().split(f"<!-- {mark} -->\n")[1].split(f"\n<!-- /{mark} -->")[0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("proof")
    prove.prepare([], place, 9)
    return place


@pytest.fixture
def one_thread() -> Iterator[None]:
    """What a run sets in its process is put back."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)
    torch.use_deterministic_algorithms(False)


def train(place: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run in this process, and return what the run wrote."""
    out = place / "out.jsonl"
    out.unlink(missing_ok=True)
    common = ["--steps", "3", "--batch-size", "4", "--pack", str(place / "jpeg"), "--pictures", str(place / "pictures")]
    Run(parser().parse_args([*common, "--out", str(out), *arguments])).go()
    return list(map(json.loads, out.read_text().splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_both_loaders_train_alike(prepared: Path, one_thread: None, method: str) -> None:
    """Over the end of an epoch; a value that is changed by one level is found."""
    official = train(prepared, "--method", method, "--loader", "official")
    assert train(prepared, "--method", method, "--loader", "ours", "--threads", "1") == official
    spoiled = train(prepared, "--method", method, "--loader", "ours", "--threads", "0", "--spoil", "1")
    assert spoiled[0] == official[0] and len(official) == len(spoiled) == 4
    assert spoiled[1]["batch"] != official[1]["batch"]
    # MAE's loss, of few pixels in float32, may round to the same on one processor and not on another; weights do not.
    assert method == "mae" or spoiled[1]["loss"] != official[1]["loss"]
    assert spoiled[3]["weights"] != official[3]["weights"]


@pytest.mark.slow
def test_all_rows_of_a_method(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed and resumed, codecs, threads, levels and ranks; the page gets its table."""
    page = empty_page(tmp_path)
    small = ["--methods", "mae", "--steps", "8", "--count", "8", "--batch-size", "2"]
    assert prove.main([*small, "--place", str(tmp_path / "runs"), "--page", str(page)]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if " mae: " in line]
    assert [row.split()[0] for row in rows].count("differ") == 1 and "negative control" in rows[2]
    assert "killed" in rows[1] and "2 ranks" in rows[-1] and len(rows) >= 7
    assert between(page, MARK).count("| mae |") == len(rows)
    assert between(page, f"{MARK} sizes") == prove.sizes_table()


def test_the_page_tells_the_sizes() -> None:
    """docs/proof.md: what is smaller here than in the official scripts is what the code has."""
    page = Path(__file__).parents[2] / "docs" / "proof.md"
    assert between(page, f"{MARK} sizes") == prove.sizes_table()


def test_networks_are_those_of_their_names() -> None:
    """ViT-Ti/16 has 5,524,416 weights without its classifier (timm's vit_tiny_patch16_224), ResNet-18 11,176,512
    (torchvision's resnet18). A drop path is of training, and of nothing else."""
    full = SIZES["full"]
    assert sum(weight.numel() for weight in Transformer(full).parameters()) == 5_524_416
    assert sum(weight.numel() for weight in ResNet(full).parameters()) == 11_176_512
    assert Dino.weights("full") > 5_524_416 > Mae.weights("small") > Dino.weights("small")
    picture = torch.rand(4, 3, 224, 224)
    dropping, whole = Transformer(SIZES["small"], drop_path=0.9), Transformer(SIZES["small"])
    whole.load_state_dict(dropping.state_dict())
    assert torch.equal(whole(picture), whole(picture)) and not torch.equal(dropping(picture), dropping(picture))
    assert torch.equal(dropping.eval()(picture), whole(picture))
    dino = Dino(Schedule(8, 25, 2), SIZES["small"])
    rates = [[block.drop_path for block in network[0].blocks][::3] for network in (dino.student, dino.teacher)]
    assert rates == [[0.0, pytest.approx(0.1)], [0.0, 0.0]]


def test_a_killed_run_goes_on_within_an_epoch() -> None:
    """However many steps: none of its checkpoints is an epoch's end, and there are steps left to kill it in."""
    for steps, steps_per_epoch in itertools.product(range(3, 600), range(2, 51)):
        saved = prove.saved_after(steps, steps_per_epoch)
        assert all(step % steps_per_epoch for step in saved), (steps, steps_per_epoch)
        assert 1 <= saved[0] and saved[-1] + max(steps // 16, 1) < steps
    assert prove.saved_after(400, 25) == [49, 99, 149, 199, 249] and prove.saved_after(50, 25) == [6, 12, 18, 24, 31]
    with pytest.raises(ValueError, match="no middle"):
        prove.saved_after(50, 1)
    with pytest.raises(ValueError, match="too few"):
        prove.saved_after(2, 25)


class Ended:
    """A process that has ended, or waits for its kill."""

    def __init__(self, status: int):
        self.status = status

    def poll(self) -> int | None:
        return None if self.status == -9 else self.status

    def wait(self) -> int:
        return self.status

    def kill(self) -> None:
        pass


class Told(prove.Proof):
    """A proof whose processes only write what is told. changes: of a file's lines, by its name; statuses: likewise."""

    changes: dict[str, Callable[[list[dict[str, Any]]], Any]] = {}
    statuses: dict[str, int] = {}

    def _start(self, module: str, *arguments: str, tree: Path | None = None) -> Any:
        out = Path(arguments[arguments.index("--out") + 1])
        name = out.stem.partition("-")[2]
        assert tree == (Path("a tree") if name == "emulated" else None)
        if name in ("batches", "emulated"):
            emulated = arguments[arguments.index("--emulated") + 1 :]
            lines = [{"what": what, "equal": True} for what in batches.names(self.packs, emulated)]
        else:
            lines = [{"step": step, "loss": f"{step}", "batch": f"{step}"} for step in range(self.steps)]
            lines.append({"weights": "equal"})
        if name == "spoiled":
            lines[self.steps // 2]["batch"] = lines[-1]["weights"] = "spoiled"
        if name == "resumed":
            del lines[: self.saved_after[-1]]
        self.changes.get(name, lambda lines: None)(lines)
        out.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return Ended(self.statuses.get(name, -9 if name == "killed" else 0))


FAULTS: dict[str, tuple[str, Any, int | None, dict[str, str]]] = {
    # the file, what is changed in it, the exit status, and the words of the rows that are then wrong
    "official crashed": ("official", None, 1, {"untouched": "not run", "killed": "not run", "negative": "not run"}),
    "ours crashed": ("ours", None, -11, {"untouched": "not run"}),
    "ours stopped early": ("ours", lambda lines: lines.pop(), None, {"untouched": "not run"}),
    "a step is missing": ("ours", lambda lines: lines.pop(3), None, {"untouched": "not run"}),
    "a loss": ("ours", lambda lines: lines[3].update(loss="x"), None, {"untouched": "differ"}),
    "the weights": ("ours", lambda lines: lines[-1].update(weights="x"), None, {"untouched": "differ"}),
    "over before the kill": ("killed", None, 0, {"killed": "not run"}),
    "resumed elsewhere": ("resumed", lambda lines: lines.pop(0), None, {"killed": "not run"}),
    "resumed otherwise": ("resumed", lambda lines: lines[0].update(loss="x"), None, {"killed": "differ"}),
    "a step that ran twice": ("killed", lambda lines: lines[10].update(loss="x"), None, {"killed": "differ"}),
    "the control crashed": ("spoiled", None, 1, {"negative": "not run"}),
    "the control's batch alone": ("spoiled", lambda lines: lines[-1].update(weights="equal"), None,
                                  {"negative": "equal"}),
    "the control changed another batch": ("spoiled", lambda lines: lines[2].update(batch="x"), None,
                                          {"negative": "not run"}),
    "the control changed no batch": ("spoiled", lambda lines: lines[8].update(batch="8"), None,
                                     {"negative": "not run"}),
    "no row of batches": ("batches", lambda lines: lines.clear(), 0,
                          {"1 and 2 threads": "not run", "2 ranks": "not run"}),
    "batches crashed at the end": ("batches", lambda lines: lines.pop(), 1, {"2 ranks": "not run", "exit": "not run"}),
    "batches crashed after the end": ("batches", None, -6, {"exit status -6": "not run"}),
    "a batch": ("batches", lambda lines: lines[-1].update(equal=False), None, {"2 ranks": "differ"}),
    "no row of an emulated level": ("emulated", lambda lines: lines.clear(), 0, {"emulated": "not run"}),
    "a batch of an emulated level": ("emulated", lambda lines: lines[2].update(equal=False), None,
                                     {"dct, avx512 (": "differ"}),
}  # fmt: skip


@pytest.mark.parametrize("fault", ["none", *FAULTS])
def test_what_is_missing_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    """A crash, a missing step or row: that row says so, the exit status is 1, and the page stays as it was."""
    name, change, status, wrong = FAULTS.get(fault, ("", None, None, {}))
    monkeypatch.setattr(Told, "changes", {name: change} if change else {})
    monkeypatch.setattr(Told, "statuses", {} if status is None else {name: status})
    monkeypatch.setattr(prove, "Proof", Told)

    def prepare(data: list[Path], place: Path, count: int) -> list[Path]:
        (place / "pictures").mkdir(parents=True)
        for number in range(count):
            (place / "pictures" / f"{number}.jpg").touch()
        return [place / codec for codec in ("jpeg", "dct", "dct-zstd")]

    monkeypatch.setattr(prove, "prepare", prepare)
    monkeypatch.setattr(batches, "lacking", lambda: ["avx512", "avx512vbmi"])
    page = empty_page(tmp_path)
    arguments = ["--methods", "mae", "--steps", "16", "--count", "12", "--batch-size", "4", "--place",
                 str(tmp_path / "runs"), "--page", str(page), "--emulated", "a tree"]  # fmt: skip
    assert prove.main(arguments) == bool(wrong)
    rows = [line for line in capsys.readouterr().out.splitlines() if " mae: " in line]
    packs = [Path("jpeg"), Path("dct"), Path("dct-zstd")]
    assert len(rows) == 3 + len(batches.names(packs)) + 2 * len(packs) + ("exit" in str(wrong))
    expected = ["differ" if "negative control" in row else "equal" for row in rows]
    for number, row in enumerate(rows):
        expected[number] = next((word for part, word in wrong.items() if part in row), expected[number])
    assert [row[:7].strip() for row in rows] == expected
    assert ("| mae |" in between(page, MARK)) == (not wrong)
