"""The examples of other libraries: batches and pictures are those of our loader used directly."""

from __future__ import annotations

import hashlib
import io
import os
import runpy
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pass_loader import DataLoader, Recipe, ShardDataset, recipes
from pass_loader.pack import Pack, build, remove

from ..helpers.batches import assert_batches_equal
from ..helpers.beton_writer import IMAGE, INT, beton
from ..helpers.corpus import jpeg, noise
from ..helpers.processes import free_port
from ..helpers.solo_learn import clone_and_config
from ..helpers.timm_clone import config_in, find_clone
from ..helpers.trees import write_tree

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples import the files beside them, as a script does."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.fixture(autouse=True)
def absl_has_a_stream_of_its_own() -> None:
    """absl, which Grain brings, holds pytest's file for what is printed, and closes it where Hydra sets up logging."""
    if (absl := sys.modules.get("absl.logging")) is not None:
        absl.get_absl_handler().python_handler.stream = sys.__stderr__


def direct(pack: Path) -> list[Any]:
    """Return an epoch of our loader, as the examples make it."""
    return list(DataLoader(ShardDataset(pack, recipes.mocov2(), seed=0), 4, shuffle=True, drop_last=True))


@pytest.mark.slow
def test_accelerate(pack: Path, tmp_path: Path) -> None:
    """`prepare` returns the loader as it is: its batches are on Accelerate's device, its place in the checkpoints."""
    pytest.importorskip("accelerate")
    from examples import with_accelerate

    want = direct(pack)
    accelerator, loader = with_accelerate.make(str(pack))
    assert accelerator.prepare(loader) is loader and len(loader) == len(want)
    batches = iter(loader)
    assert_batches_equal([next(batches), next(batches)], want[:2])
    accelerator.save_state(str(tmp_path / "state"))
    accelerator.state.device = torch.device("meta")  # a device that every machine has
    views, labels = next(batches)
    assert {part.device for part in (*views, labels)} == {torch.device("meta")}
    accelerator.state.device = torch.device("cpu")
    accelerator, loader = with_accelerate.make(str(pack))
    accelerator.load_state(str(tmp_path / "state"))
    assert_batches_equal(list(loader), want[2:])
    with pytest.raises(AttributeError, match="dataset"):  # else it would read the dataset from its start, in its order
        accelerator.skip_first_batches(loader, 1)


@pytest.mark.slow
def test_distributed_checkpoint(pack: Path, tmp_path: Path) -> None:
    from examples import with_distributed_checkpoint as example

    want = direct(pack)
    loader = example.make(str(pack))
    batches = iter(loader)
    assert_batches_equal([next(batches), next(batches)], want[:2])
    model = torch.nn.Linear(3, 3)
    example.save(loader, str(tmp_path / "state"), model=model)
    again, other = example.make(str(pack)), torch.nn.Linear(3, 3)
    example.load(again, str(tmp_path / "state"), model=other)
    assert_batches_equal(list(again), want[2:])
    assert torch.equal(model.weight, other.weight)


def test_webdataset(pass_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed record is left out; shards are split over nodes, by the usual splitter or another, and drawn again and
    again."""
    pytest.importorskip("webdataset")
    from examples import with_webdataset

    place = tmp_path / "pack"
    build([pass_files[0]], place, shard_bytes=1_000_000)
    opened = Pack(place)
    reader = opened.open_reader()
    remove(place, [opened.id_of(3)], reason="asked")
    want = {opened.id_of(record): reader.read(record) for record in range(opened.records) if record != 3}
    assert {sample["__key__"]: sample["jpg"] for sample in with_webdataset.samples(str(place))} == want

    def other_way_round(urls: Any) -> Any:
        return [*urls][1 - int(os.environ["RANK"]) :: 2]

    monkeypatch.setenv("WORLD_SIZE", "2")
    seen: dict[str, list[list[str]]] = {"usual": [], "own": []}
    for node in ("0", "1"):
        monkeypatch.setenv("RANK", node)
        for name, given in (("usual", {}), ("own", {"nodesplitter": other_way_round})):
            seen[name].append([sample["__key__"] for sample in with_webdataset.samples(str(place), **given)])
    assert all(seen["usual"]) and sorted(sum(seen["usual"], [])) == sorted(want)
    assert seen["own"] == seen["usual"][::-1]
    drawn = iter(with_webdataset.samples(str(place), resampled=True))
    assert all(next(drawn)["__key__"] in want for _ in range(3 * len(want)))


@pytest.mark.slow
def test_trainer(pack: Path, tmp_path: Path) -> None:
    """Resumed in mid-epoch, a run sees the batches that are left and ends with the same weights."""
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  transformers imports it
    from examples import with_trainer

    def run(folder: Path, resume: str | None = None) -> tuple[list[Any], torch.nn.Module]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 16, 16), torch.nn.Flatten(), torch.nn.Linear(392, 4))
        seen: list[Any] = []
        model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
        trainer = with_trainer.make(str(pack), str(folder), model, num_train_epochs=2, save_steps=2, use_cpu=True,
                                    disable_tqdm=True)  # fmt: skip
        trainer.train(resume_from_checkpoint=resume)
        return seen, model

    seen, model = run(tmp_path / "whole")
    want = [view for views, _ in direct(pack) for view in views]
    assert len(want) == 10 and len(seen) == 20, "two views, five steps, two epochs"
    assert_batches_equal(seen[:10], want)
    assert not any(torch.equal(one, other) for one, other in zip(seen[:10], seen[10:])), "another epoch"
    rest, resumed = run(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert_batches_equal(rest, seen[4:])
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_datasets(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    from examples import with_datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    rows, dataset = with_datasets.table(str(pack)), ShardDataset(pack, recipes.mocov2())
    assert len(rows) == len(dataset)
    for record in range(len(dataset)):
        row = rows[record]
        assert row["id"] == dataset.id_of(record)
        with Image.open(io.BytesIO(dataset.read(record))) as picture:
            same = [hashlib.sha256(one.convert("RGB").tobytes()).digest() for one in (picture, row["image"])]
        assert same[0] == same[1]
        assert row["unickname"] == dataset.metadata(record)["unickname"]


@pytest.mark.slow
def test_datasets_of_tars(pass_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways leave a removed record out."""
    datasets = pytest.importorskip("datasets")
    from examples import with_datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    place = tmp_path / "pack"
    build([pass_files[0]], place, shard_bytes=1_000_000)
    opened = Pack(place)
    reader = opened.open_reader()
    remove(place, [opened.id_of(3)], reason="asked")
    want = {opened.id_of(record): reader.read(record) for record in range(opened.records) if record != 3}
    assert len(Pack(place).tar_paths()) > 1
    assert {row["__key__"]: row["jpg"]["bytes"] for row in with_datasets.tars(str(place))} == want
    assert [row["id"] for row in with_datasets.table(str(place))] == [*want]


@pytest.mark.slow
@pytest.mark.parametrize("saved", [2, 5, 7], ids=["inside an epoch", "after an epoch", "inside the next one"])
def test_lightning(pack: Path, tmp_path: Path, saved: int) -> None:
    """A run that is cut off in the step after its last checkpoint goes on there, and ends with the same weights;
    Lightning warns of nothing."""
    if find_spec("lightning") is None and find_spec("pytorch_lightning") is None:
        pytest.skip("Lightning is not installed")
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  torchmetrics imports it
    from examples import with_lightning as example

    seen: list[Any] = []

    class Seeing(example.Model):
        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            seen.append(batch)
            return super().training_step(batch, number)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            assert self.trainer.estimated_stepping_batches == 10  # Lightning makes the loader earlier then
            return super().configure_optimizers()

    class CutOff(example.pl.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == saved + 1:
                raise InterruptedError

    def run(folder: Path, *callbacks: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        model = Seeing()
        data = example.PassDataModule(str(pack), recipes.mocov2(), batch_size=4, num_workers=2)
        example.fit(model, data, str(folder), every=1, max_epochs=2, accelerator="cpu", enable_progress_bar=False,
                    enable_model_summary=False, callbacks=[*callbacks])  # fmt: skip
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as all of Lightning's own
        warnings.filterwarnings("ignore", "Checkpoint directory")  # the cut-off run's
        warnings.filterwarnings("ignore", "register_new_resolver")  # OmegaConf's own, which Lightning imports if it can
        whole = run(tmp_path / "whole")
        want, seen = seen, []
        assert_batches_equal(want[:5], direct(pack))
        assert len(want) == 10 and not any(torch.equal(one[0][0], other[0][0]) for one, other in zip(want, want[5:]))
        with pytest.raises(InterruptedError):
            run(tmp_path / "cut", CutOff())
        resumed = run(tmp_path / "cut")
    assert_batches_equal(seen, want[: saved + 1] + want[saved:])
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_grain(pack: Path, tmp_path: Path) -> None:
    """Grain's batches, read by its threads, hold the samples of each epoch; they go on after a state."""
    grain = pytest.importorskip("grain")
    from examples import with_grain as example

    source = example.PackSource(str(pack), recipes.mocov2(), epochs=2)
    dataset = ShardDataset(pack, recipes.mocov2(), seed=0)
    assert isinstance(source, grain.sources.RandomAccessDataSource) and len(source) == 2 * len(dataset)
    order = [int(place) for place in grain.MapDataset.range(len(dataset)).seed(0).shuffle().repeat(2)]
    assert sorted(order[: len(dataset)]) == [*range(len(dataset))] and order[: len(dataset)] != order[len(dataset) :]
    parts = [order[: len(dataset)], order[len(dataset) :]]
    loaders = [DataLoader(dataset, len(dataset), sampler=Given(part, epoch)) for epoch, part in enumerate(parts)]
    (first, own), (second, _) = (next(iter(loader)) for loader in loaders)
    want = [torch.cat(views) for views in zip(first, second)]
    labels = torch.cat([own, torch.tensor([dataset.targets[place] for place in parts[1]])])
    iterator = iter(example.batches(source))
    begun = [next(iterator), next(iterator)]
    state = iterator.get_state()
    got = [*begun, *iterator]
    again = iter(example.batches(example.PackSource(str(pack), recipes.mocov2(), epochs=2)))
    again.set_state(state)
    for one, other in zip([*again], got[2:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one[0], other[0])) and np.array_equal(one[1], other[1])
    count = 4 * len(got)
    assert count == len(source) // 4 * 4
    for view in range(2):
        assert torch.equal(torch.cat([torch.from_numpy(batch[0][view]) for batch in got]), want[view][:count])
    assert torch.equal(torch.cat([torch.from_numpy(batch[1]) for batch in got]), labels[:count])


class Given(list[int]):
    """Positions as a sampler, of an epoch."""

    def __init__(self, positions: list[int], epoch: int):
        super().__init__(positions)
        self.epoch = epoch


@pytest.mark.slow
def test_dali(pass_files: tuple[Path, Path], tmp_path: Path) -> None:
    """DALI reads the bytes of the live records from the shards, and hands on batches of ours, epoch after epoch."""
    pytest.importorskip("nvidia.dali")
    from examples import with_dali as example

    place = tmp_path / "pack"
    build([pass_files[0]], place, shard_bytes=1_000_000)
    remove(place, [Pack(place).id_of(3)], reason="asked")
    dataset = ShardDataset(place, recipes.mocov2(), seed=0)
    shards = example.write_indexes(str(place), tmp_path / "indexes")
    assert len(shards["paths"]) > 1
    pipeline = example.pictures(shards, batch_size=1)
    for record in (record for record in range(len(dataset) + 1) if record != 3):
        data, decoded = (np.asarray(part.as_array()[0]) for part in pipeline.run())
        assert data.tobytes() == dataset.read(record) and decoded.shape == dataset.decode(record).shape
    loader, pipeline = example.make(str(place))
    direct = DataLoader(dataset, 4, shuffle=True, drop_last=True)
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        direct.sampler.set_epoch(epoch)
        for views, labels in direct:
            got = [torch.from_numpy(part.as_array().copy()) for part in pipeline.run()]
            assert_batches_equal([got], [[*views, labels]])
        with pytest.raises(StopIteration):
            pipeline.run()
        pipeline.reset()


@pytest.mark.slow
def test_timm(tmp_path: Path, pack: Path) -> None:
    """timm's model trains on batches of the recipe that create_transform's object is, mixed as timm mixes."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  timm imports it

    timm = pytest.importorskip("timm")
    from examples import with_timm as example

    files = {f"{name}/{number}.jpg": jpeg(noise(40, 50, number)) for name in "ab" for number in range(5)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    transform = example.create_transform(32, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25)
    dataset = ShardDataset(tmp_path / "pack", Recipe.from_timm(transform), seed=0)
    mix = recipes.Mix(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=2)
    want = [*DataLoader(dataset, 4, shuffle=True, drop_last=True, mix=mix)]
    loader = example.make(str(tmp_path / "pack"), transform, num_workers=2)
    assert_batches_equal([*loader], want)
    model = timm.create_model("resnet10t", num_classes=2)
    losses = example.train(loader, model)
    assert len(losses) == 2 and np.isfinite(losses).all()
    with pytest.raises(SystemExit, match="have no classes"):
        example.make(str(pack), transform)


@pytest.mark.slow
def test_torchdata(pack: Path) -> None:
    """The loader has the protocol of torchdata, and is a source of its graphs, whose state goes on in mid-epoch."""
    nodes = pytest.importorskip("torchdata.nodes")
    from examples import with_torchdata as example

    want = direct(pack)
    loader = example.make(str(pack))
    assert isinstance(loader, nodes.types.Stateful)
    graph = example.graph(loader)
    batches = iter(graph)
    assert_batches_equal([next(batches), next(batches)], want[:2])
    state = graph.state_dict()
    assert_batches_equal([*batches], want[2:])
    again = example.graph(example.make(str(pack)))
    again.load_state_dict(state)
    assert_batches_equal([*again], want[2:])
    other = example.make(str(pack))
    for each in (loader, other):
        each.sampler.set_epoch(1)
    assert_batches_equal([*graph], [*other])


@pytest.mark.slow
def test_torchtitan(pack: Path, tmp_path: Path) -> None:
    """A run that stops and goes on, inside an epoch and at its end, sees the batches of one that does not stop."""
    from examples import with_torchtitan as example

    def run(folder: str, *until: int) -> tuple[list[Any], dict[str, torch.Tensor]]:
        seen: list[Any] = []
        for steps in until:
            trainer = example.Trainer(str(pack), str(tmp_path / folder))
            assert isinstance(trainer.dataloader, example.Stateful)
            trainer.model.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
            trainer.train(steps, interval=steps)
            assert trainer.step == steps
        return seen, trainer.model.state_dict()

    seen, weights = run("whole", 7)
    assert_batches_equal(seen[:10], [view for views, _ in direct(pack) for view in views])
    assert not any(torch.equal(one, other) for one, other in zip(seen, seen[10:])), "another epoch"
    rest, resumed = run("parts", 2, 5, 7)
    assert_batches_equal(rest, seen)
    assert all(torch.equal(weight, resumed[name]) for name, weight in weights.items())


@pytest.mark.slow
def test_ffcv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .beton's batches are those of the same pictures packed from files."""
    from examples import with_ffcv as example

    pictures = [jpeg(noise(40, 50, number)) for number in range(9)]
    source = tmp_path / "t.beton"
    source.write_bytes(beton({"image": IMAGE, "label": INT}, [(one, number) for number, one in enumerate(pictures)]))
    got = list(example.make(source, tmp_path / "pack"))
    tree = write_tree(tmp_path / "in", {f"{number}/x.jpg": picture for number, picture in enumerate(pictures)})
    build([tree], tmp_path / "files")
    dataset = ShardDataset(tmp_path / "files", recipes.supervised(), seed=0)
    assert len(got) == 2
    assert_batches_equal(got, list(DataLoader(dataset, 4, shuffle=True, drop_last=True)))
    monkeypatch.setattr(example, "build", None)  # is not called for a pack that is there
    assert_batches_equal(list(example.make(source, tmp_path / "pack")), got)


RUNS = {
    "with_accelerate": "accelerate", "with_dali": "nvidia.dali", "with_datasets": "datasets",
    "with_distributed_checkpoint": "torch", "with_ffcv": "torch", "with_grain": "grain",
    "with_lightly": "lightly.transforms", "with_lightly_train": "lightly_train", "with_lightning": "pytorch_lightning",
    "with_solo_learn": "solo.data", "with_stable_pretraining": "stable_pretraining", "with_timm": "timm",
    "with_timm_script": "timm",
    "with_torchdata": "torchdata.nodes", "with_torchtitan": "torch", "with_trainer": "transformers",
    "with_webdataset": "webdataset",
}  # fmt: skip
WITHOUT_FOLDER = {"with_datasets", "with_grain", "with_lightly", "with_timm", "with_torchdata", "with_webdataset"}
PRINTS_NOTHING = {"with_lightly", "with_lightly_train", "with_lightning", "with_solo_learn", "with_trainer"}


def test_all_examples_are_run() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("with_*.py")} == {*RUNS}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs an example as a script, in this process."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  many libraries import it

    def run(name: str, *words: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *words])
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_scripts(
    name: str, script: Callable[..., None], pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Each runs as a script; a wrong argument is a line and exit code 2, not a traceback."""
    pytest.importorskip(RUNS[name])
    monkeypatch.chdir(tmp_path)  # Lightning's logs
    others = [str(tmp_path / "folder")] if name not in WITHOUT_FOLDER else []
    if name == "with_solo_learn":
        others = clone_and_config(tmp_path)
    if name == "with_timm_script":
        if (clone := find_clone()) is None:
            pytest.skip("no clone of timm's repository is on the path")
        monkeypatch.setattr("timm.utils.setup_default_logging", lambda: None)  # of all that runs after it
        others = [str(clone), config_in(tmp_path, epochs=1)]
    for words in ([], ["no such pack", *others], [str(pack), *others, "more"], [str(pack), *others, "--odd"]):
        with pytest.raises(SystemExit) as ended:
            script(name, *words)
        last = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2 and f"{name}.py: error: " in last
    if name in ("with_distributed_checkpoint", "with_torchtitan"):
        for key, value in dict(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port()).items():
            monkeypatch.setenv(key, value)
    place = str(pack)
    if name in ("with_timm", "with_timm_script"):
        files = {f"{folder}/{number}.jpg": jpeg(noise(40, 50, number)) for folder in "ab" for number in range(4)}
        build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
        place = str(tmp_path / "pack")
    if name == "with_ffcv":
        place = str(tmp_path / "t.beton")
        samples = [(jpeg(noise(40, 50, number)), number) for number in range(4)]
        Path(place).write_bytes(beton({"image": IMAGE, "label": INT}, samples))
    if name == "with_datasets":
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    script(name, place, *others)
    assert name in PRINTS_NOTHING or capsys.readouterr().out.strip()
