"""`make proof`: training through this loader is training through torchvision and PIL; what is not is found."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.proof import batches, prove, run
from benchmarks.proof.dino import Dino
from benchmarks.proof.mae import Mae
from benchmarks.proof.method import Schedule
from benchmarks.proof.networks import SIZES, ResNet, Transformer
from benchmarks.proof.run import METHODS, Run, parser
from benchmarks.proof.swav import Swav

MARK = "benchmarks/proof/prove.py"
MARKS = [MARK, *(f"{MARK} {kind}" for kind in ("--data", "--networks", "--emulated", "sizes"))]
PACKS = [Path("jpeg"), Path("dct"), Path("dct-zstd")]


def empty_page(folder: Path) -> Path:
    page = folder / "page.md"
    page.write_text("".join(f"<!-- {mark} -->\n\n<!-- /{mark} -->\n" for mark in MARKS))
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
    # A loss in float32 may round to the same on one processor and not on another; weights do not.
    assert method in ("swav", "mae") or spoiled[1]["loss"] != official[1]["loss"]
    assert spoiled[3]["weights"] != official[3]["weights"]


@pytest.mark.slow
def test_all_rows_of_a_method(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed and resumed, codecs, threads, levels and ranks; the page gets its table."""
    page = empty_page(tmp_path)
    small = ["--methods", "mae", "--steps", "8", "--count", "8", "--batch-size", "2"]
    assert prove.main([*small, "--place", str(tmp_path / "runs"), "--page", str(page)]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if " mae: " in line]
    assert [row.split()[0] for row in rows].count("differ") == 1 and "negative control" in rows[2]
    ranks = [row.split(": ")[-1] for row in rows if "2 ranks" in row]
    assert "killed" in rows[1] and ranks == [f"{pack}; 2 ranks (gloo)" for pack in PACKS] and len(rows) >= 9
    assert between(page, MARK).count("| mae |") == len(rows)
    assert between(page, f"{MARK} sizes") == prove.sizes_table()


def test_the_page_tells_the_sizes() -> None:
    """docs/proof.md: what differs here from the official scripts is what the code has. Each table has a place."""
    page = Path(__file__).parents[2] / "docs" / "proof.md"
    assert between(page, f"{MARK} sizes") == prove.sizes_table()
    assert all(page.read_text().count(f"<!-- {mark} -->") == 1 for mark in MARKS)


def test_schedules_are_the_scripts() -> None:
    """Over 4 epochs of 25 steps of 8: main_dino.py's defaults, swav_200ep_bs256_pretrain.sh, and the command in MAE's
    PRETRAIN.md."""
    schedule = Schedule(8, 25, 4)
    dino, swav = Dino(schedule, SIZES["small"]), Swav(schedule, SIZES["small"])
    assert dino.rates[0] == 0 and max(dino.rates) == dino.rates[24] == 0.0005 * 8 / 256
    ends = [dino.rates, dino.decays, dino.momenta]
    assert [len(values) for values in ends] == [100] * 3
    assert [values[-1] for values in ends] == [pytest.approx(end, rel=0.01) for end in (1e-6, 0.4, 1)]
    assert [dino.decays[0], dino.momenta[0]] == pytest.approx([0.04, 0.996])
    outputs, targets = torch.randn(10, 1024), torch.randn(2, 1024)
    assert dino._loss(outputs, targets, 10) == pytest.approx(
        sum(-(targets[i] / 0.04).softmax(0) @ (outputs[j] / 0.1).log_softmax(0)
            for i in range(2) for j in range(10) if i != j).item() / 18, rel=1e-4)  # fmt: skip
    assert swav.rates[0] == 0.6 and swav.rates[-1] == pytest.approx(0.0006, abs=0.0002) and len(swav.rates) == 100
    mae = Mae(schedule, SIZES["small"])
    assert [mae._rate_at(epoch) for epoch in (0, 1, 4)] == [0, 1.5e-4 * 8 / 256, 0]


def test_first_weights_are_the_scripts() -> None:
    """Normal with deviation 0.02 for DINO, Xavier's for MAE, and Kaiming's by what leaves a layer for a ResNet."""
    dino, mae, resnet = Transformer(SIZES["small"]), Mae(Schedule(8, 25, 2), SIZES["small"]), ResNet(SIZES["small"])
    linear, xavier = dino.blocks[0].mlp[0], mae.encoder[0].mlp[0]
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not linear.bias.any() and not xavier.bias.any()
    assert xavier.weight.abs().max().item() == pytest.approx((6 / (192 + 768)) ** 0.5, rel=0.01)
    assert mae.patches.weight.abs().max().item() == pytest.approx((6 / (192 + 3 * 32**2)) ** 0.5, rel=0.01)
    assert resnet.stages[-1].conv1.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)


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


def test_training_is_pinned_to_a_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before a run is made, and where the proof says; two methods at once have cores of their own."""
    calls: list[Any] = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: calls.append((process, cores)))
    monkeypatch.setattr(run, "Run", lambda options: SimpleNamespace(go=lambda: calls.append(options.core)))
    needed = ["--method", "mae", "--steps", "1", "--loader", "ours", "--pack", "x", "--out", "x"]
    run.main([*needed, "--core", "6"])
    run.main(needed)
    first = min(os.sched_getaffinity(0))
    assert calls == [(0, {6}), 6, (0, {first}), first]

    commands: list[list[str]] = []
    monkeypatch.setattr(prove, "subprocess", SimpleNamespace(Popen=lambda command, cwd: commands.append(command)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4, 6})
    monkeypatch.setattr(prove, "prepare", lambda data, place, count: make_pictures(place, count))
    at_once = threading.Barrier(2, timeout=60)

    def rows(proof: prove.Proof) -> Iterator[prove.Row]:
        at_once.wait()
        proof._start("module")
        at_once.wait()
        yield prove.Row(proof.method, "", True)

    monkeypatch.setattr(prove.Proof, "run", rows)
    assert prove.main(["--place", str(tmp_path), "--count", "16"]) == 0
    cores = {command[command.index("--method") + 1]: command[command.index("--core") + 1] for command in commands}
    assert cores.keys() == METHODS.keys() and sorted(cores.values()) == ["4", "4", "6", "6"]


@pytest.mark.parametrize("emulated", [[], ["avx512", "avx512vbmi"]])
def test_batches_of_all_threads_levels_and_codecs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, emulated: list[str]
) -> None:
    """Pinned without threads, not with them; two ranks for each codec. What differs is told, and of which row."""
    done: list[Any] = []
    wrong: Any = None

    def digests(pack: Path, method: str, batch_size: int, steps: int, threads: int) -> list[str]:
        done.append((pack.name, threads))
        return ["other"] if (pack.name, threads) == wrong else ["same"]

    def on_two_ranks(pack: Path, method: str, batch_size: int, steps: int) -> list[str]:
        done.append((pack.name, "ranks"))
        return ["other"] if (pack.name, "ranks") == wrong else ["same"]

    monkeypatch.setattr(batches, "digests", digests)
    monkeypatch.setattr(batches, "on_two_ranks", on_two_ranks)
    monkeypatch.setattr(batches, "_C", SimpleNamespace(set_isa=done.append, supported_isas=lambda: ["avx2", "base"]))
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: done.append(cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {4, 6})
    (tmp_path / "want").write_text('{"step": 0, "batch": "same"}\n')
    command = ["--method", "mae", "--steps", "1", "--core", "6", "--packs", *map(str, PACKS), "--want",
               str(tmp_path / "want"), "--out", str(tmp_path / "out"), "--emulated", *emulated]  # fmt: skip

    def told() -> dict[str, bool]:
        batches.main(command)
        return {row["what"]: row["equal"] for row in map(json.loads, (tmp_path / "out").read_text().splitlines())}

    expected: list[Any] = []
    for pack, level in itertools.product(map(str, PACKS), emulated or ["avx2"]):
        expected += [level, {6}, (pack, 0), {4, 6}, (pack, 1), (pack, 2)]
    rows = told()
    assert list(rows) == batches.names(PACKS, emulated) and all(rows.values())
    assert done == expected + ([] if emulated else [(str(pack), "ranks") for pack in PACKS])
    for wrong in [("dct", 0), ("dct", 1), ("dct", 2), *([] if emulated else [("dct", "ranks")])]:
        part = "dct; " if wrong[1] == "ranks" else "dct, "
        assert {row for row, equal in told().items() if not equal} == {row for row in rows if row.startswith(part)}


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
                          {"emulated": "equal", "1 and 2 threads": "not run", "2 ranks": "not run"}),
    "batches crashed at the end": ("batches", lambda lines: lines.pop(), 1,
                                   {"dct-zstd; 2 ranks": "not run", "exit": "not run"}),
    "batches crashed after the end": ("batches", None, -6, {"exit status -6": "not run"}),
    "a batch": ("batches", lambda lines: lines[-1].update(equal=False), None, {"dct-zstd; 2 ranks": "differ"}),
    "no row of an emulated level": ("emulated", lambda lines: lines.clear(), 0, {"emulated": "not run"}),
    "a batch of an emulated level": ("emulated", lambda lines: lines[2].update(equal=False), None,
                                     {"dct, avx512 (": "differ"}),
}  # fmt: skip


def make_pictures(place: Path, count: int) -> list[Path]:
    """What prepare leaves, as far as a proof that only writes what is told needs it."""
    (place / "pictures").mkdir(parents=True)
    for number in range(count):
        (place / "pictures" / f"{number}.jpg").touch()
    return [place / pack for pack in PACKS]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The script, whose processes only write what is told, on a machine without AVX-512; it takes more arguments."""
    monkeypatch.setattr(prove, "Proof", Told)
    monkeypatch.setattr(prove, "prepare", lambda data, place, count: make_pictures(place, count))
    monkeypatch.setattr(batches, "lacking", lambda: ["avx512", "avx512vbmi"])
    small = ["--methods", "mae", "--steps", "16", "--count", "12", "--batch-size", "4"]
    return lambda *more: prove.main([*small, "--place", str(tmp_path / "runs"), *more])


@pytest.mark.parametrize("fault", ["none", *FAULTS])
def test_what_is_missing_is_not_passed_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told: Callable[..., int],
    fault: str,
) -> None:
    """A crash, a missing step or row: that row says so, the exit status is 1, and the page stays as it was."""
    name, change, status, wrong = FAULTS.get(fault, ("", None, None, {}))
    monkeypatch.setattr(Told, "changes", {name: change} if change else {})
    monkeypatch.setattr(Told, "statuses", {} if status is None else {name: status})
    page = empty_page(tmp_path)
    empty = page.read_text()
    assert told("--page", str(page), "--emulated", "a tree") == bool(wrong)
    rows = [line for line in capsys.readouterr().out.splitlines() if " mae: " in line]
    assert len(rows) == 3 + len(batches.names(PACKS)) + 2 * len(PACKS) + ("exit" in str(wrong))
    expected = ["differ" if "negative control" in row else "equal" for row in rows]
    for number, row in enumerate(rows):
        expected[number] = next((word for part, word in wrong.items() if part in row), expected[number])
    assert [row[:7].strip() for row in rows] == expected
    assert (page.read_text() == empty) == bool(wrong)


@pytest.mark.parametrize("kind", ["", "--data x", "--networks full", "--emulated x"])
def test_each_kind_of_run_has_a_table_of_its_own(tmp_path: Path, told: Callable[..., int], kind: str) -> None:
    """One run writes no other's table; that of emulated levels has a row of each level, and no other rows."""
    page = empty_page(tmp_path)
    assert told("--page", str(page), *kind.replace("x", "a tree").split(maxsplit=1)) == 0
    mark = f"{MARK} {kind.split()[0]}" if kind else MARK
    assert [mark for mark in MARKS if between(page, mark)] == [mark, f"{MARK} sizes"]
    rows = [line for line in between(page, mark).splitlines() if line.startswith("| mae |")]
    if kind.startswith("--emulated"):
        assert rows == ["| mae | avx512 | 3 of 3 |", "| mae | avx512vbmi | 3 of 3 |"]
    else:
        count = 3 + len(batches.names(PACKS))
        assert len(rows) == 1 and f" {count} of {count} " in rows[0] if kind else len(rows) == count


def test_a_machine_with_all_levels_emulates_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[..., int]
) -> None:
    """Then the run is the plain one; what a page has no place for is told before it begins."""
    monkeypatch.setattr(batches, "lacking", lambda: [])
    page = empty_page(tmp_path)
    assert told("--page", str(page), "--emulated", "a tree") == 0
    assert [mark for mark in MARKS if between(page, mark)] == [MARK, f"{MARK} sizes"]
    monkeypatch.setattr(prove, "prepare", lambda *arguments: pytest.fail("the run began"))
    with pytest.raises(AssertionError, match="no place for the table: <!-- .* --data --networks -->"):
        told("--page", str(page), "--data", "x", "--networks", "full")
