"""The examples of libraries of pretraining methods: what their training entry points train on is what our loader gives
when it is used directly."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from pass_loader import DataLoader, Recipe, ShardDataset, recipes
from pass_loader.pack import build

from ..helpers.batches import assert_batches_equal
from ..helpers.corpus import jpeg, noise
from ..helpers.solo_learn import clone_and_config
from ..helpers.timm_clone import config_in, find_clone
from ..helpers.trees import write_tree

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples import the files beside them, as a script does."""
    from benchmarks.torchvision_cpu import torchvision  # noqa: F401  all of these libraries import it

    monkeypatch.syspath_prepend(str(ROOT / "examples"))


def direct(pack: Path, recipe: Recipe, epochs: int = 1) -> list[Any]:
    """Return (views, labels, info) of epochs of our loader, as the examples make it."""
    loader = DataLoader(ShardDataset(pack, recipe, seed=0), 4, shuffle=True, drop_last=True, return_info=True)
    batches = []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        batches += loader
    return batches


def test_lightly(pack: Path, tmp_path: Path) -> None:
    """Lightning's Trainer gets batches of the recipe that lightly's own transform is."""
    transforms = pytest.importorskip("lightly.transforms")
    from examples import with_lightly as example

    transform = transforms.SimCLRTransform(input_size=32)
    want = direct(pack, Recipe.from_torchvision(transform), epochs=2)
    seen: list[Any] = []
    losses: list[torch.Tensor] = []

    class Seeing(example.SimCLR):
        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            seen.append(batch)
            losses.append(super().training_step(batch, number))
            return losses[-1]

    data = example.LightlyDataModule(str(pack), transform, batch_size=4, num_workers=2)
    trainer = example.pl.Trainer(default_root_dir=tmp_path, max_epochs=2, accelerator="cpu", logger=False,
                                 enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip
    trainer.fit(Seeing(), data)
    assert_batches_equal(
        [tuple(batch) for batch in seen], [(views, labels, info["ids"]) for views, labels, info in want]
    )
    assert torch.stack(losses).isfinite().all()


def test_lightly_train(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of `pretrain` that is cut off goes on at its last checkpoint, in mid-epoch."""
    pytest.importorskip("lightly_train")
    from lightly_train._methods.simclr.simclr import SimCLR
    from examples import with_lightly_train as example

    seen: list[Any] = []
    own, cut_off = SimCLR.training_step_impl, True

    def training_step_impl(self: Any, batch: Any, number: int) -> Any:
        seen.append(batch)
        if cut_off and len(seen) == 8:
            raise InterruptedError
        return own(self, batch, number)

    monkeypatch.setattr(SimCLR, "training_step_impl", training_step_impl)

    def pretrain(**options: Any) -> None:
        example.pretrain(
            str(pack), recipes.mocov2(size=64), out=tmp_path / "out", model=example.MODEL, method="simclr", epochs=2,
            batch_size=4, num_workers=1, accelerator="cpu", callbacks={"model_checkpoint": {"every_n_train_steps": 1}},
            **options,
        )  # fmt: skip

    want = [{"filename": info["ids"], "views": views} for views, _, info in direct(pack, recipes.mocov2(size=64), 2)]
    with pytest.raises(InterruptedError):
        pretrain()
    assert_batches_equal(seen, want[:8])
    cut_off, seen = False, []
    pretrain(resume_interrupted=True)
    assert_batches_equal(seen, want[7:])
    assert (tmp_path / "out" / "exported_models" / "exported_last.pt").exists()


def test_stable_pretraining(pack: Path, tmp_path: Path) -> None:
    """A run that is cut off goes on at its checkpoint, with the next epoch, and ends with the same weights."""
    pytest.importorskip("stable_pretraining")
    from examples import with_stable_pretraining as example

    def run(folder: str, cut_off: int = 0, **options: Any) -> tuple[list[Any], torch.nn.Module]:
        torch.manual_seed(0)
        model, seen = example.module(), []

        def see(_: Any, given: Any) -> None:
            seen.append(given[0]["views"])
            if len(seen) == cut_off:
                raise InterruptedError

        model.register_forward_pre_hook(see)
        example.train(str(pack), str(tmp_path / folder), model, accelerator="cpu", enable_progress_bar=False,
                      enable_model_summary=False, **options)  # fmt: skip
        return seen, model

    seen, whole = run("whole", max_epochs=2)
    want = direct(pack, recipes.mocov2(), epochs=2)
    assert_batches_equal(seen, [[{"image": view, "label": labels} for view in views] for views, labels, _ in want])
    with pytest.raises(InterruptedError):
        run("cut", 6, max_epochs=2)
    (last,) = (tmp_path / "cut").glob("runs/**/last.ckpt")
    rest, resumed = run("resumed", max_epochs=2, resume=str(last))
    assert_batches_equal(rest, seen[5:])
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_solo_learn(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """main_pretrain.py trains on batches of its YAML file's transform, and goes on at its checkpoint."""
    if find_spec("solo") is None:
        pytest.skip("no clone of solo-learn is on the path")
    from omegaconf import OmegaConf
    from solo.data.pretrain_dataloader import FullTransformPipeline, NCropAugmentation, build_transform_pipeline
    from solo.methods import SimCLR

    from examples import with_solo_learn as example

    seen: list[Any] = []
    own = SimCLR.training_step

    def training_step(self: Any, batch: Any, number: int) -> torch.Tensor:
        seen.append(batch)
        return own(self, batch, number)

    monkeypatch.setattr(SimCLR, "training_step", training_step)
    monkeypatch.chdir(tmp_path)  # Lightning's logs
    clone, config = clone_and_config(tmp_path)
    (views,) = OmegaConf.load(config).augmentations
    transform = FullTransformPipeline([NCropAugmentation(build_transform_pipeline("imagenet100", views), 2)])
    want = [
        [info["records"], views, labels]
        for views, labels, info in direct(pack, Recipe.from_torchvision(transform), epochs=2)
    ]

    def run() -> None:
        monkeypatch.setattr(sys, "argv", ["with_solo_learn.py", str(pack), clone, config])
        example.main()

    run()
    assert_batches_equal(seen, want[:5])
    (last,) = (tmp_path / "trained").glob("**/*.ckpt")
    text = (
        Path(config).read_text().replace("checkpoint: null", f"checkpoint: '{last}'").replace("epochs: 1", "epochs: 2")
    )
    Path(config).write_text(text)
    seen = []
    run()
    assert_batches_equal(seen, want[5:])


def test_timm_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """train.py trains on batches of the transform that timm makes of its options, evaluates on another pack, and goes
    on after an epoch at its checkpoint."""
    clone = find_clone()
    if clone is None:
        pytest.skip("no clone of timm's repository is on the path")
    timm = pytest.importorskip("timm")
    from timm.data import create_transform
    from examples import with_timm_script as example

    seen: list[tuple[bool, torch.Tensor]] = []
    own = timm.create_model

    def create_model(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = own(*arguments, **options)
        model.register_forward_pre_hook(lambda module, given: seen.append((module.training, given[0].clone())))
        return model

    monkeypatch.setattr("timm.models.create_model", create_model)
    monkeypatch.setattr("timm.utils.setup_default_logging", lambda: None)  # of all that runs after it
    place, other = (tmp_path / name for name in ("train", "evaluate"))
    for folder, count in ((place, 5), (other, 3)):
        files = {f"{label}/{number}.jpg": jpeg(noise(40, 50, number)) for label in "ab" for number in range(count)}
        build([write_tree(tmp_path / f"{folder.name}-in", files)], folder, workers=1)
    names = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel"}
    transform = create_transform(32, is_training=True, interpolation="random", **names)
    want = [views for views, _, _ in direct(place, Recipe.from_timm(transform), epochs=2)]
    own_evaluation = create_transform(32, crop_pct=0.875, interpolation="bicubic")
    evaluated = [views for views, _ in DataLoader(ShardDataset(other, Recipe.from_timm(own_evaluation), seed=0), 4)]

    def run(**given: object) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        seen.clear()
        config = config_in(tmp_path, val_split=other, **given)
        monkeypatch.setattr(sys, "argv", ["with_timm_script.py", str(place), str(clone), config])
        example.main()
        return [views for training, views in seen if training], [views for training, views in seen if not training]

    trained, tested = run()
    assert_batches_equal(trained, want)
    assert_batches_equal(tested, 2 * evaluated)
    rest, _ = run(resume=tmp_path / "trained" / "checkpoint-0.pth.tar", experiment="resumed")
    assert_batches_equal(rest, want[2:])


def test_labels_for_solo_learn(tmp_path: Path) -> None:
    """Where solo-learn counts no classes, it gets no labels."""
    pytest.importorskip("pytorch_lightning")
    from torchvision import transforms
    from examples import with_solo_learn as example

    files = {f"{name}/{number}.jpg": jpeg(noise(40, 50, number)) for name in "ab" for number in range(4)}
    build([write_tree(tmp_path / "in", files)], tmp_path / "pack", workers=1)
    transform = transforms.Compose([transforms.RandomResizedCrop(32), transforms.ToTensor()])
    loader = DataLoader(
        ShardDataset(tmp_path / "pack", Recipe.from_torchvision(transform), seed=0), 4, shuffle=True, return_info=True
    )
    want = [[info["records"], views, labels] for views, labels, info in loader]
    assert {*torch.cat([labels for _, _, labels in want]).tolist()} == {0, 1}
    for dataset in ("imagenet", "custom"):
        opened = example.prepare_datasets(dataset, transform, str(tmp_path / "pack"), no_labels=False)
        got = [*example.prepare_dataloader(opened, 4, 1)]
        if dataset == "custom":
            want = [[records, views, torch.full_like(labels, -1)] for records, views, labels in want]
        assert_batches_equal(got, want)
