"""Mixup and CutMix: timm's and torchvision's own tensors for the same drawn numbers, and their distributions."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)

from torchvision.transforms import v2

from pass_loader import ConcatDataset, DataLoader, Recipe, ShardDataset, ViewSpec, recipes
from pass_loader.keys import BatchKey
from pass_loader.loading.mixing import mix_batch, mix_views, soft_labels
from pass_loader.pack import build
from pass_loader.recipes import Mix
from pass_loader.recipes.mixing import DrawnMix, _beta, _exp, _log

from ..helpers.corpus import jpeg, noise
from ..helpers.epochs import TINY
from ..helpers.trees import write_tree

RECIPE = Recipe("mixed", (ViewSpec((9, 7)),), batch="view_labels")
CLASSES = 5
COUNT = 8
MIXES = {
    "mixup": Mix(0.8, num_classes=CLASSES),
    "cutmix": Mix(0.0, 1.0, num_classes=CLASSES),
    "both": Mix(0.8, 1.0, prob=0.7, num_classes=CLASSES, label_smoothing=0.2),
    "minmax": Mix(0.0, cutmix_minmax=(0.2, 0.8), num_classes=CLASSES),
    "incorrect": Mix(0.3, 1.0, correct_lam=False, num_classes=CLASSES),
    "large": Mix(3.0, 2.0, num_classes=CLASSES),
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixing")
    write_tree(folder / "tree", {f"c{n % CLASSES}/{n}.jpg": jpeg(noise(20, 16, n)) for n in range(26)})
    build([folder / "tree"], folder / "pack")
    return folder / "pack"


def key(step: int) -> BatchKey:
    return BatchKey(3, 1, step, 2)


def batch_of(count: int = COUNT, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(count)
    views = torch.randn((count, 3, 9, 7), generator=rng).to(dtype)
    return views, torch.randint(CLASSES, (count,), generator=rng)


def timms(mix: Mix, drawn: DrawnMix, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return timm's own object, which draws these numbers."""
    module = pytest.importorskip("timm.data.mixup")
    names = ("mixup_alpha", "cutmix_alpha", "cutmix_minmax", "prob", "switch_prob", "mode", "correct_lam",
             "label_smoothing", "num_classes", "multi_label")  # fmt: skip
    theirs = module.Mixup(**{name: getattr(mix, name) for name in names})
    rows = range(1 if mix.mode == "batch" else len(drawn.lam) // (2 if mix.mode == "pair" else 1))
    boxes = iter([(drawn.boxes[row].tolist(), drawn.lam[row]) for row in rows if drawn.cut[row]])

    def box(*arguments: Any, **named: Any) -> Any:
        edges, lam = next(boxes)
        return edges, float(lam)

    monkeypatch.setattr(module, "cutmix_bbox_and_lam", box)
    theirs._params_per_batch = lambda: (float(drawn.lam[0]), bool(drawn.cut[0]))
    theirs._params_per_elem = lambda count: (drawn.lam[:count].copy(), drawn.cut[:count])
    return theirs


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_timms_tensors(name: str, mode: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a partner or a box that is another's, what is mixed twice, an unmixed middle, labels not smoothed."""
    mix = Mix(**{**vars(MIXES[name]), "mode": mode})
    for step in range(12):
        views, labels = batch_of(dtype=dtype)
        drawn = mix.draw(key(step), 0, COUNT, 9, 7)
        want = timms(mix, drawn, monkeypatch)(views.clone(), labels)
        found = mix_batch(mix, key(step), 0, views, labels, np.arange(COUNT))
        assert torch.equal(views, want[0])
        if dtype == torch.float32:  # timm rounds the shares to the views' type, for the labels too
            assert torch.equal(found.targets, want[1])


@pytest.mark.parametrize("mode", ["batch", "pair", "elem", "torchvision"])
@pytest.mark.parametrize("name", ["mixup", "both", "minmax"])
def test_plain_arithmetic(name: str, mode: str) -> None:
    """One picture after the other from a copy of all, where timm is not installed."""
    given = {**vars(MIXES[name]), "mode": mode}
    if mode == "torchvision":
        given |= {"mode": "batch", "style": mode, "cutmix_minmax": None, "label_smoothing": 0.0}
    mix = Mix(**given)
    for step in range(12):
        views, labels = batch_of()
        drawn, before, want = mix.draw(key(step), 0, COUNT, 9, 7), views.clone(), views.clone()
        own = torch.full((COUNT, CLASSES), (mix.label_smoothing or 0) / CLASSES)
        own[torch.arange(COUNT), labels] += 1 - (mix.label_smoothing or 0)
        soft = []
        for place, (lam, other, cut) in enumerate(zip(drawn.lam, drawn.partners.tolist(), drawn.cut)):
            assert other == ((place - 1) % COUNT if mode == "torchvision" else COUNT - 1 - place)
            if cut:
                top, bottom, left, right = drawn.boxes[place]
                want[place, :, top:bottom, left:right] = before[other, :, top:bottom, left:right]
            elif lam != 1:
                want[place] = before[place] * float(lam) + before[other] * float(1 - lam)
            soft.append(own[place] * float(lam) + own[other] * float(1 - lam))
        found = mix_batch(mix, key(step), 0, views, labels, np.arange(COUNT))
        assert torch.equal(views, want) and torch.allclose(found.targets, torch.stack(soft), rtol=0, atol=1e-6)
        pairs = drawn.lam.reshape(2, -1)
        assert mode != "pair" or np.array_equal(pairs[0], pairs[1][::-1])
        assert mode in ("pair", "elem") or len({*drawn.lam.tolist()}) == 1


def test_timms_labels_of_several_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = Mix(0.8, 1.0, mode="elem", num_classes=3, multi_label=True)
    views, _ = batch_of()
    labels = torch.tensor(np.random.default_rng(0).integers(0, 2, (COUNT, 3)))
    drawn = mix.draw(key(0), 0, COUNT, 9, 7)
    want = timms(mix, drawn, monkeypatch)(views.clone(), labels)
    found = mix_batch(mix, key(0), 0, views, labels, np.arange(COUNT))
    assert torch.equal(found.targets, want[1]) and torch.equal(views, want[0])


@pytest.mark.parametrize("count", [COUNT, 7, 1])
def test_torchvisions_tensors(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: the next picture in place of the one before, one that is mixed already, the last one's first."""
    mix = Mix(0.8, 1.0, style="torchvision", num_classes=CLASSES)
    cuts = 0
    for step in range(20):
        views, labels = batch_of(count)
        drawn = mix.draw(key(step), 0, count, 9, 7)
        lam, (top, bottom, left, right) = float(drawn.lam[0]), drawn.boxes[0].tolist()
        cuts += int(drawn.cut[0])
        kind = v2.CutMix if drawn.cut[0] else v2.MixUp
        own = {"box": (left, top, right, bottom), "lam_adjusted": lam} if drawn.cut[0] else {"lam": lam}
        monkeypatch.setattr(kind, "make_params", lambda self, inputs, own=own: own)
        want = kind(alpha=1.0, num_classes=CLASSES)(views.clone(), labels)
        found = mix_batch(mix, key(step), 0, views, labels, np.arange(count))
        assert torch.equal(views, want[0]) and torch.equal(found.targets, want[1])
        dense = torch.nn.functional.one_hot(labels, CLASSES)
        assert torch.equal(soft_labels(mix, drawn, dense, np.arange(count)), want[1])
    assert 0 < cuts < 20


def test_boxes_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same centre and share. Kills: sides swapped, an odd side's half, edges that are not cut off."""
    module = pytest.importorskip("timm.data.mixup")
    mix = Mix(0.0, 1.0, mode="elem", num_classes=CLASSES)
    slots = np.random.default_rng(0).random((500, 8))
    lam = slots[:, 7].astype(np.float32)
    found = mix._boxes(slots, lam, 9, 7)
    for row in range(len(slots)):
        centre = iter([int(slots[row, 2] * 9), int(slots[row, 3] * 7)])
        monkeypatch.setattr(module.np.random, "randint", lambda low, high, size=None, own=centre: next(own))
        assert found[row].tolist() == [int(edge) for edge in module.rand_bbox((3, 9, 7), lam[row])]
    mix = Mix(cutmix_minmax=(0.2, 0.8), mode="elem", num_classes=CLASSES)
    found = mix._boxes(slots, lam, 50, 40)
    for row in range(len(slots)):
        chances = iter(slots[row, [4, 5, 2, 3]])

        def between(low: int, high: int, size: Any = None, own: Any = chances) -> int:
            return low + int(next(own) * (high - low))

        monkeypatch.setattr(module.np.random, "randint", between)
        assert found[row].tolist() == list(module.rand_bbox_minmax((3, 50, 40), (0.2, 0.8)))


def test_boxes_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = Mix(0.0, 1.0, style="torchvision", num_classes=CLASSES)
    slots = np.random.default_rng(0).random((300, 8))
    found = mix._boxes(slots, slots[:, 7], 9, 7)
    theirs, picture = v2.CutMix(num_classes=CLASSES), torch.zeros(2, 3, 9, 7)
    for row in range(len(slots)):
        centre = iter([int(slots[row, 3] * 7), int(slots[row, 2] * 9)])
        monkeypatch.setattr(torch, "randint", lambda high, size, own=centre: torch.tensor([next(own)]))
        theirs._dist = type("_", (), {"sample": lambda self, size, own=slots[row, 7]: own})()
        left, top, right, bottom = theirs.make_params([picture])["box"]
        assert found[row].tolist() == [top, bottom, left, right]


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.8, 1.0, 1.5, 4.0, 30.0])
def test_shares_are_beta(alpha: float) -> None:
    """Kolmogorov and Smirnov against numpy's, at 1e-6. Kills: another alpha, shares of one side alone, a bad bound."""
    count = 20_000
    chances = np.random.default_rng(1).random((count, 64))
    found = np.sort(_beta(np.full(count, alpha), chances))
    theirs = np.sort(np.random.default_rng(2).beta(alpha, alpha, count))
    both = np.concatenate([found, theirs])
    apart = np.searchsorted(found, both, "right") - np.searchsorted(theirs, both, "right")
    assert np.abs(apart).max() / count < math.sqrt(-math.log(1e-6 / 2) / count)


def test_exp_and_log() -> None:
    x = np.concatenate([np.random.default_rng(0).random(5000), [2.0**-53, 0.5, 1.0, 1e-300, 7.5, 1e300]])
    assert np.all(np.abs(_log(x) - np.log(x)) <= 4e-16 * np.abs(np.log(x)) + 1e-17)
    x = np.linspace(-700, 700, 5001)
    assert np.all(np.abs(_exp(x) - np.exp(x)) <= 4e-16 * np.exp(x)) and _exp(np.array(-1e5)) == 0


def test_choices_are_even() -> None:
    """How often a batch is mixed, how often by CutMix; centres over the picture (chi-square at 1e-6)."""
    mix = Mix(0.8, 1.0, prob=0.75, switch_prob=0.3, mode="elem", num_classes=CLASSES)
    drawn = mix.draw(key(0), 0, 20_000, 8, 8)
    mixed = drawn.lam != 1
    assert abs(mixed.mean() - 0.75) < 0.02  # a few boxes are empty
    assert abs(drawn.cut.mean() - 0.75 * 0.3) < 0.015
    slots = np.array(key(0).uniforms(4, 20_000 * 72)).reshape(-1, 72)
    counts = np.bincount((slots[:, 2] * 8).astype(int) * 8 + (slots[:, 3] * 8).astype(int), minlength=64)
    assert ((counts - 312.5) ** 2 / 312.5).sum() < 137  # 63 degrees of freedom


def test_golden_numbers() -> None:
    """The same on every machine and in every version."""
    mix = Mix(0.8, 1.0, mode="elem")
    drawn = mix.draw(BatchKey(7, 2, 11, 1), 2, 4, 224, 224)
    assert [share.hex() for share in drawn.lam.tolist()] == [
        "0x1.8ddb6e0000000p-1", "0x1.39ad640000000p-2", "0x1.f90fac0000000p-2", "0x1.48c9240000000p-1"
    ]  # fmt: skip
    assert drawn.boxes.tolist() == [[130, 224, 78, 197], [0, 0, 0, 0], [68, 224, 0, 163], [89, 224, 0, 133]]
    drawn = Mix(3.0, 0.4, switch_prob=0.6).draw(BatchKey(7, 2, 12, 1), 2, 4, 224, 224)
    assert drawn.lam[0].hex() == "0x1.6cd6db2a5df2ap-1" and drawn.boxes[0].tolist() == [0, 0, 0, 0]


def test_changing_one_probability_moves_nothing_else() -> None:
    given = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "mode": "elem"}
    one, other = (Mix(**given, prob=prob).draw(key(4), 0, 64, 32, 32) for prob in (1.0, 0.5))  # type: ignore[arg-type]
    kept = other.lam != 1
    assert 10 < kept.sum() < 54 and np.array_equal(one.lam[kept], other.lam[kept])
    assert np.array_equal(one.boxes[kept], other.boxes[kept])


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_odd_batches(mode: str) -> None:
    mix = Mix(0.8, 1.0, mode=mode, num_classes=CLASSES)
    for step, count in itertools.product(range(6), (1, 3, 7)):
        views, labels = batch_of(count)
        middle = views[count // 2].clone()
        found = mix_batch(mix, key(step), 0, views, labels, np.arange(count))
        assert torch.equal(views[count // 2], middle)
        assert torch.allclose(found.targets.sum(1), torch.ones(count))
        assert found.targets[count // 2].argmax() == labels[count // 2]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("mode", ["batch", "elem"])
def test_loader(pack: Path, mode: str, channels_last: bool) -> None:
    """The loader's batches are those without a mix, mixed; threads change nothing; the info tells how."""
    mix = Mix(0.8, 1.0, mode=mode, num_classes=CLASSES)
    dataset = ShardDataset(pack, RECIPE, seed=9)
    arguments: dict[str, Any] = {"batch_size": 8, "shuffle": True, "return_info": True, "channels_last": channels_last}
    plain = [*DataLoader(dataset, **arguments)]
    mixed = [*DataLoader(dataset, **arguments, mix=mix, num_workers=2)]
    assert len(plain) == len(mixed) == 4
    for step, ((views, labels, info), (found, targets, told)) in enumerate(zip(plain, mixed)):
        drawn = mix.draw(BatchKey(9, 0, step, 0), 0, len(views), 9, 7)
        records = info["records"].numpy()
        assert torch.equal(targets, soft_labels(mix, drawn, labels, records))
        mix_views(views, drawn, mix.style)
        assert torch.equal(found, views) and found.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        assert torch.equal(told["records"], info["records"])
        assert torch.equal(told["mix"]["records"], info["records"].flip(0)) and "mix" not in info
        assert np.array_equal(told["mix"]["lam"].numpy(), drawn.lam.astype(np.float32))
        for cut, (left, top, width, height), edges in zip(drawn.cut, told["mix"]["boxes"].tolist(), drawn.boxes):
            assert [top, top + height, left, left + width] == edges.tolist() and (cut or not width)


def test_ranks_epochs_and_steps_differ(pack: Path) -> None:
    """Each has draws of its own, and a resumed run those of the run that goes on."""
    mix = Mix(0.8, 1.0, num_classes=CLASSES)

    def shares(loader: DataLoader) -> list[float]:
        return [float(info["mix"]["lam"][0]) for _, _, info in loader]

    def loader(rank: int = 0) -> DataLoader:
        dataset = ShardDataset(pack, RECIPE, seed=9)
        return DataLoader(dataset, 4, shuffle=True, return_info=True, mix=mix, rank=rank, world_size=2)

    first, second = loader(0), loader(1)
    epochs = [shares(first), shares(first), shares(second)]
    assert len({*itertools.chain(*epochs)}) > 8
    running = loader()
    batches = iter(running)
    next(batches)
    state = running.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    assert shares(resumed) == epochs[0][1:]
    for batch, again in zip(batches, resumed):
        assert len(batch) == len(again)


def test_states_of_another_mix_are_refused(pack: Path) -> None:
    dataset = ShardDataset(pack, RECIPE)
    with_mix, without = DataLoader(dataset, 4, mix=Mix(num_classes=CLASSES)), DataLoader(dataset, 4)
    assert "mix" not in without.state_dict()
    for loader, state in ((without, with_mix.state_dict()), (with_mix, without.state_dict())):
        with pytest.raises(ValueError, match="the mix was"):
            loader.load_state_dict(state)
    other = DataLoader(dataset, 4, mix=Mix(0.5, num_classes=CLASSES))
    with pytest.raises(ValueError, match=r"the mix was .Mix\(mixup_alpha=1.0, .* here .Mix\(mixup_alpha=0.5"):
        other.load_state_dict(with_mix.state_dict())


def test_epochs_without_a_mix(pack: Path) -> None:
    """timm's mixup_off_epoch: labels stay smooth."""
    loader = DataLoader(ShardDataset(pack, RECIPE), 26, mix=Mix(num_classes=CLASSES, off_epoch=1), return_info=True)
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        ((_, targets, info),) = loader
        assert bool((info["mix"]["lam"] == 1).all()) == (epoch >= 1)
        assert epoch == 0 or targets.unique().tolist() == pytest.approx([0.02, 0.92])


def test_skipped_and_several(pack: Path) -> None:
    """A batch with records of two packs is mixed as any other."""
    datasets = [ShardDataset(pack, RECIPE, records=[n, n + 1]) for n in (0, 8)]
    ((views, targets),) = DataLoader(ConcatDataset(datasets), 4, mix=Mix(num_classes=CLASSES))
    assert views.shape == (4, 3, 9, 7) and targets.shape == (4, CLASSES)


def test_refusals(pack: Path) -> None:
    dataset = ShardDataset(pack, RECIPE)
    mix = Mix(num_classes=CLASSES)
    for words, error, arguments in (
        ("arguments of timm's Mixup", TypeError, {"mix": 0.8}),
        ("normalised values", ValueError, {"mix": mix, "dtype": torch.uint8}),
        ("single samples", ValueError, {"mix": mix, "collate_fn": len}),
        ("one class number a record", ValueError, {"mix": Mix(multi_label=True)}),
    ):
        with pytest.raises(error, match=words):
            DataLoader(dataset, 4, **arguments)
    with pytest.raises(ValueError, match="recipe tiny has 'views_labels'"):
        DataLoader(ShardDataset(pack, TINY), 4, mix=mix)
    dense = ShardDataset(pack, RECIPE, labels=np.zeros((26, 3)))
    with pytest.raises(ValueError, match="multi_label=True, num_classes=3"):
        DataLoader(dense, 4, mix=mix)
    with pytest.raises(ValueError, match="num_classes is 5, and labels are"):
        DataLoader(dense, 4, mix=Mix(num_classes=5, multi_label=True))
    with pytest.raises(ValueError, match=r"record \d+ has the label 4, and num_classes is 4"):
        next(iter(DataLoader(dataset, 26, mix=Mix(num_classes=4))))
    for words, wrong in (
        ("mode is 'each'", {"mode": "each"}), ("style is 'tv'", {"style": "tv"}), ("prob is 2", {"prob": 2}),
        ("mixup_alpha is -1", {"mixup_alpha": -1}), ("num_classes is 0", {"num_classes": 0}),
        ("two rising", {"cutmix_minmax": (0.5, 0.2)}),
        ("nothing is mixed", {"mixup_alpha": 0}), ("style='torchvision' has", {"style": "torchvision", "mode": "pair"}),
        ("mixup_alpha is '0.8', want a", {"mixup_alpha": "0.8"}), ("cutmix_alpha is None", {"cutmix_alpha": None}),
        ("mixup_alpha is inf", {"mixup_alpha": math.inf}), ("cutmix_alpha is nan", {"cutmix_alpha": math.nan}),
        (r"prob is \(1, 2\), want a number", {"prob": (1, 2)}), ("switch_prob is None", {"switch_prob": None}),
        ("label_smoothing is 'no'", {"label_smoothing": "no"}), ("correct_lam is 1, want True", {"correct_lam": 1}),
        ("multi_label is 'yes', want True", {"multi_label": "yes"}), ("num_classes is 10.0", {"num_classes": 10.0}),
        ("num_classes is '10', want a whole", {"num_classes": "10"}), ("num_classes is True", {"num_classes": True}),
        ("off_epoch is 1.5, want the whole", {"off_epoch": 1.5}), ("off_epoch is 'ten'", {"off_epoch": "ten"}),
        ("cutmix_minmax is 0.5, want two", {"cutmix_minmax": 0.5}), ("want two rising", {"cutmix_minmax": "ab"}),
        ("want two rising", {"cutmix_minmax": (0.1,)}), ("want two rising", {"cutmix_minmax": (0.1, None)}),
        ("want two rising", {"cutmix_minmax": (math.nan, 0.5)}), (r"mode is \['batch'\]", {"mode": ["batch"]}),
        ("style is None", {"style": None}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            Mix(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leaves no side"):
        Mix(cutmix_minmax=(0.1, 0.15)).draw(key(0), 0, 4, 5, 5)


def test_presets_are_mixed(pack: Path) -> None:
    dataset = ShardDataset(pack, recipes.mae_finetune(size=32))
    ((views, targets),) = DataLoader(dataset, 26, mix=Mix(0.8, 1.0, num_classes=CLASSES))
    assert views.shape == (26, 3, 32, 32) and torch.allclose(targets.sum(1), torch.ones(26))
