"""What goes together: packs with means and stds of their own, heatmaps, companions, one channel, gray of 16 bits."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import data

from pass_loader import ConcatDataset, DataLoader, Recipe, RecordError, ShardDataset, ViewSpec, recipes
from pass_loader.recipes import reference
from pass_loader.pack import Pack, build, remove
from pass_loader.loading.resume import identity

from ..helpers.corpus import extremes, jpeg, noise
from ..helpers.packs import flip_a_bit
from ..helpers.pngwriter import RGB, png
from ..helpers.trees import write_tree


pytestmark = pytest.mark.oracle
NUMBERS = ((0.5056, 0.252), (0.31, 0.125))  # mean and std of the first pack, and of the second
COUNT = 4  # records of each
TWO = Recipe("two", (ViewSpec(24), ViewSpec(16, interpolation="bicubic")))
MAPS = recipes.mae_thorax(size=24, heatmaps=True)


def sizes_of(number: int) -> list[tuple[int, int]]:
    return [(30 + number + i, 50 - 3 * i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a0, a1: pictures of 8 and 16 bits, gray and of colours. b0, b1: companions for most of them, one of 16 bits for
    one of 8 and the other way about. h0, h1: heatmaps. Tests do not write into them."""
    place = tmp_path_factory.mktemp("combined")

    def pack(name: str, kinds: dict[str, str], sizes: list[tuple[int, int]]) -> None:
        files = {}
        for id, kind in kinds.items():
            size, seed = sizes[int(id)], len(files) + sum(name.encode())
            pixels = noise(*size, seed)
            deep = png(extremes(*size, seed), 16)
            suffix, written = {"deep": (".png", deep), "gray": (".png", png(pixels[:, :, 0])),
                               "rgb": (".png", png(pixels, 8, RGB)), "jpeg": (".jpg", jpeg(pixels))}[kind]  # fmt: skip
            files[id + suffix] = written
        source = write_tree(place / f"in-{name}", files)
        (source / "in_order.txt").write_text("\n".join(files))
        build([source / "in_order.txt"], place / name, workers=1)

    pack("a0", {"0": "deep", "1": "gray", "2": "jpeg", "3": "jpeg"}, sizes_of(0))
    pack("a1", {"0": "jpeg", "1": "rgb", "2": "deep", "3": "gray"}, sizes_of(1))
    pack("b0", {"0": "jpeg", "1": "deep", "2": "gray"}, [(27, 33)] * COUNT)
    pack("b1", {"3": "deep", "2": "rgb", "1": "jpeg"}, [(41, 19)] * COUNT)
    pack("h0", {"0": "deep", "1": "gray", "2": "gray", "3": "jpeg"}, sizes_of(0))
    pack("h1", {"3": "gray", "0": "deep", "2": "gray", "1": "jpeg"}, sizes_of(1))
    return place


def of_channels(recipe: Recipe, channels: int) -> Recipe:
    return dataclasses.replace(recipe, channels=channels, mean=0.5, std=0.5)


def parts_of(place: Path, recipe: Recipe, numbers: Any = NUMBERS, beside: str = "") -> list[ShardDataset]:
    """beside: "companions" or "heatmaps"."""
    return [ShardDataset(place / f"a{number}", recipe, seed=3, mean=mean, std=std,
                         **({beside: place / f"{beside[0].replace('c', 'b')}{number}"} if beside else {}))
            for number, (mean, std) in enumerate(numbers)]  # fmt: skip


def by_pillow(dataset: ConcatDataset, record: int, epoch: int) -> list[np.ndarray]:
    """A sample's views, (channels, height, width) float32: normalised as the dataset is whose record it is."""
    part, own = dataset.datasets[int(record >= COUNT)], record % COUNT
    channels = dataset.recipe.channels
    companion = dataset.companion(record, epoch)
    other = None if companion is None else reference.decode(dataset.read(companion.record), channels)
    views = reference.render_sample(reference.decode(part.read(own), channels), dataset.plan(record, epoch), other,
                                    -1 if companion is None else companion.view)  # fmt: skip
    return [reference.normalize(view, part.recipe) for view in views]


def check(dataset: ConcatDataset, views: list[torch.Tensor], info: dict[str, Any], epoch: int = 0) -> None:
    for slot, record in enumerate(info["records"].tolist()):
        for view, want in zip(views, by_pillow(dataset, record, epoch), strict=True):
            expected = torch.from_numpy(want).to(view.dtype)
            assert torch.equal(view[slot], expected), (record, slot)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_pack_keeps_its_mean_and_std(packs: Path, channels: int, dtype: torch.dtype) -> None:
    """Kills: the first pack's numbers for all, those of a slot or of a batch in place of a record's."""
    recipe = of_channels(TWO, channels)
    dataset = ConcatDataset(parts_of(packs, recipe))
    alone = [ConcatDataset(parts_of(packs, recipe, [own, own])) for own in NUMBERS]
    for threads in (0, 2):
        loaders = [DataLoader(one, 8, shuffle=True, num_workers=threads, dtype=dtype, return_info=True)
                   for one in (dataset, *alone)]  # fmt: skip
        (views, _, info), *others = (next(iter(loader)) for loader in loaders)
        assert sorted(info["records"].tolist()) == list(range(2 * COUNT))
        check(dataset, views, info)
        for slot, number in enumerate(info["datasets"].tolist()):
            for view, same, other in zip(views, others[number][0], others[1 - number][0]):
                assert torch.equal(view[slot], same[slot]) and not torch.equal(view[slot], other[slot])
    first = next(iter(DataLoader(dataset.datasets[0], COUNT, dtype=dtype)))[0]
    both = next(iter(DataLoader(dataset, COUNT, dtype=dtype)))[0]
    assert all(torch.equal(view, same) for view, same in zip(both, first)), "as without the other pack"


def test_single_samples_and_torchs_loader(packs: Path) -> None:
    dataset = ConcatDataset(parts_of(packs, TWO))
    assert [(one.mean[0], one.std[0]) for one in dataset.normalized_recipes()] == list(NUMBERS)
    mapped = pickle.loads(pickle.dumps(dataset.as_map()))
    mapped.set_epoch(0)
    theirs = list(data.DataLoader(mapped, 1, num_workers=1))
    for record in range(2 * COUNT):
        for number, want in enumerate(by_pillow(dataset, record, 0)):
            assert np.array_equal(dataset.sample(record)[number].numpy(), want)
            assert np.array_equal(mapped[record][0][number].numpy(), want)
            assert np.array_equal(theirs[record][0][number][0].numpy(), want)
    plain = ConcatDataset(parts_of(packs, TWO, [NUMBERS[1], NUMBERS[1]]))
    assert torch.equal(plain.sample(5)[0], dataset.sample(5)[0])
    assert not torch.equal(plain.sample(2)[0], dataset.sample(2)[0])


def test_a_state_knows_all_means_and_stds(packs: Path) -> None:
    """Kills: a digest of the first one's alone. Where all are equal it is that of one pack, as before."""

    def loader(numbers: Any) -> DataLoader:
        return DataLoader(ConcatDataset(parts_of(packs, TWO, numbers)), 4, shuffle=True)

    state = json.loads(json.dumps(loader(NUMBERS).state_dict()))
    loader(NUMBERS).load_state_dict(state)
    for other in (NUMBERS[::-1], [NUMBERS[0]] * 2, [NUMBERS[0], (0.31, 0.126)], [NUMBERS[0], (0.3, 0.125)]):
        with pytest.raises(ValueError, match="does not fit.*the recipe: "):
            loader(other).load_state_dict(state)
    same = parts_of(packs, TWO, [NUMBERS[0]] * 2)
    assert identity(ConcatDataset(same))["recipe"] == identity(same[0])["recipe"]


@pytest.mark.parametrize("beside", ["", "heatmaps", "companions"])
def test_a_resumed_epoch_without_what_was_removed(packs: Path, tmp_path: Path, beside: str) -> None:
    """The removed record is replaced, maybe by one of the other pack. Kills: a place of its own for no record."""
    for folder in packs.iterdir():
        if (folder / "pack.json").exists():
            shutil.copytree(folder, tmp_path / folder.name)
    recipe = MAPS if beside == "heatmaps" else dataclasses.replace(TWO, companion=float(beside == "companions"))

    def loader() -> DataLoader:
        dataset = ConcatDataset(parts_of(tmp_path, recipe, beside=beside))
        return DataLoader(dataset, 4, shuffle=True, on_error="replace", num_workers=1, return_info=True)

    first = loader()
    state, ids = None, []
    for batch in first:
        state = state or first.state_dict()
        ids.append(batch[-1]["records"].tolist())
    gone = ids[1][2]
    remove(tmp_path / f"a{gone // COUNT}", [str(gone % COUNT)], reason="test")
    second = loader()
    second.load_state_dict(state)
    ((views, *_, info),) = second
    records = info["records"].tolist()
    assert gone not in records and [a == b for a, b in zip(records, ids[1])] == [True, True, False, True]
    assert isinstance(second.dataset, ConcatDataset)
    check(second.dataset, views[:1] if beside == "heatmaps" else views, info)


def test_a_replacement_is_normalised_as_its_own_pack(packs: Path, tmp_path: Path) -> None:
    """Kills: the source of the record that was asked for; slots that are dropped while sources stay."""
    for name in ("a0", "a1"):
        shutil.copytree(packs / name, tmp_path / name)
    flip_a_bit(Pack(tmp_path / "a0"), 1)
    dataset = ConcatDataset(parts_of(tmp_path, TWO))
    served = set()
    for policy in ("replace", "skip"):
        loader = DataLoader(dataset, 4, sampler=[1, 6, 3, 5], on_error=policy, num_workers=1, return_info=True)
        for epoch in range(8):
            (views, _, info), *_ = loader
            assert len(info["records"]) == (4 if policy == "replace" else 3) and 1 not in info["records"]
            if policy == "replace":
                served.add(int(info["datasets"][0]))
            check(dataset, views, info, epoch)
    assert served == {0, 1}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("views", [1, 2])
def test_companions(packs: Path, channels: int, views: int) -> None:
    """Of one channel, of 16 bits beside 8, of packs with means and stds of their own: a companion's view is normalised
    as the original. Kills: the companion's colours where gray was asked for, its 16 bits taken for those of the
    original, the mean and std of another pack."""
    recipe = dataclasses.replace(of_channels(TWO, channels), views=TWO.views[:views], companion=0.8)
    dataset = ConcatDataset(parts_of(packs, recipe, beside="companions"))
    seen = set()
    for epoch in range(6):
        loader = DataLoader(dataset, 8, shuffle=True, num_workers=2, return_info=True)
        loader.sampler.set_epoch(epoch)
        batch, _, info = next(iter(loader))
        check(dataset, batch, info, epoch)
        told = info["companions"]
        for record, used, view, other in zip(info["records"].tolist(), told["used"], told["view"], told["record"]):
            for number, pixels in enumerate(dataset.render(record, epoch)):
                of = int(other) if used and number == view else record
                deep = dataset.decode(of).dtype == np.uint16
                assert (pixels.dtype == np.uint16) == deep and pixels.shape[2] == (1 if deep else channels)
                if of != record:
                    seen.add((record, deep))
            for one, view_of_batch in zip(dataset.sample(record, epoch), batch):
                assert torch.equal(one, view_of_batch[info["records"].tolist().index(record)])
    assert seen == {(0, False), (1, True), (2, False), (5, False), (6, False), (7, True)}
    for record, number in ((8, 0), (11, 1)):  # a companion looked at by itself
        picture = reference.decode(dataset.read(record), channels)
        own = dataset.datasets[number].recipe
        want = reference.normalize(reference.render(picture, dataset.plan(record)[0]), own)
        assert np.array_equal(dataset.sample(record)[0].numpy(), want)


def test_a_companion_of_16_bits_that_the_recipe_does_not_fit(packs: Path) -> None:
    """Refused with words, whatever the policy, as an original is."""
    jittered = dataclasses.replace(recipes.genview(size=16), companion=1.0)
    dataset = ShardDataset(packs / "a0", jittered, companions=packs / "b0", ids=["1"])
    loader = DataLoader(dataset, 1, on_error="replace")
    with pytest.raises(RecordError, match=r"record 1, id 1: its companion, record 5: .*16 bits .*view 0 has jitter"):
        next(iter(loader))
    plain = dataclasses.replace(TWO, companion=1.0)
    loader = DataLoader(ShardDataset(packs / "a0", plain, companions=packs / "b0", ids=["1"]), 1, dtype=torch.uint8)
    with pytest.raises(RecordError, match="its companion, record 5: uint8 output would cut"):
        next(iter(loader))


@pytest.mark.parametrize("weights", [None, [3, 1]])
def test_heatmaps_of_several_packs(packs: Path, weights: list[float] | None) -> None:
    """Kills: heatmaps of the first pack for the second's records, in the order of their own packs."""
    recipe = of_channels(MAPS, 1)
    parts = parts_of(packs, recipe, beside="heatmaps")
    dataset = ConcatDataset(parts, weights)
    again = pickle.loads(pickle.dumps(dataset))
    served = set()
    for threads in (0, 2):
        loader = DataLoader(dataset, 8, shuffle=True, num_workers=threads, return_info=True)
        (views, heatmaps), _, info = next(iter(loader))
        for slot, record in enumerate(info["records"].tolist()):
            served.add(record)
            plan = info["plans"][slot]
            theirs = parts[record // COUNT].heatmaps
            assert theirs is not None
            picture = reference.decode(theirs.reader.read(theirs.packs[0].record_of(str(record % COUNT))), channels=1)
            assert np.array_equal(heatmaps[slot].numpy(), reference.heatmap(picture, plan[0]))
            own = reference.render(reference.decode(parts[record // COUNT].read(record % COUNT), 1), plan[0])
            assert np.array_equal(views[slot].numpy(), reference.normalize(own, parts[record // COUNT].recipe))
            if weights is None:
                assert torch.equal(dataset.heatmap(record)[0], heatmaps[slot])
                assert torch.equal(again.heatmap(record)[0], heatmaps[slot])
    assert weights or served == set(range(2 * COUNT))


def test_what_does_not_go_together(packs: Path) -> None:
    with pytest.raises(ValueError, match="companion: a heatmap goes with the original's picture, and a companion has"):
        dataclasses.replace(MAPS, companion=0.5)
    with pytest.raises(ValueError, match="datasets 0 and 1 have other recipes"):
        ConcatDataset([parts_of(packs, of_channels(TWO, channels))[0] for channels in (1, 3)])
    with pytest.raises(ValueError, match="datasets 0 and 1 have other recipes"):
        ConcatDataset([parts_of(packs, MAPS, beside="heatmaps")[0], parts_of(packs, recipes.mae_thorax(size=24))[1]])
    dataset = parts_of(packs, MAPS, beside="heatmaps")[0]
    from pass_loader.loading.rendering import Renderer
    from pass_loader.keys import Keys

    renderer = Renderer(dataset, threads=0)
    submitted = renderer.submit(Keys.of(0, 0, 0))
    with pytest.raises(ValueError, match="a companion has no heatmap"):
        renderer._engine.submit(
            *(np.zeros(1, kind) for kind in (np.int64, np.uint32, np.uint32)), submitted.arrays,
            companions=np.zeros(1, np.int64), companion_views=np.zeros(1, np.int32),
            heatmap_records=np.zeros(1, np.int64), heatmaps=submitted.heatmap_arrays,
        )  # fmt: skip
