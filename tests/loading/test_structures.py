"""A batch in each method's structure: what the official script unpacks, without a copy of the pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from pass_loader import DataLoader, Recipe, ShardDataset, recipes
from pass_loader.loading.rendering import Renderer
from pass_loader.loading.structures import stack

from ..helpers.recipes import small


N = 5


def batch_of(pack: Path, recipe: Recipe, **options: Any) -> tuple[Any, dict[str, Any], ShardDataset]:
    """A batch with its info, and the dataset."""
    dataset = ShardDataset(pack, recipe, seed=5)
    loader = DataLoader(dataset, N, shuffle=True, num_workers=2, return_info=True, **options)
    *parts, info = next(iter(loader))
    return parts, info, dataset


def assert_views(views: Any, info: dict[str, Any], dataset: ShardDataset) -> None:
    for slot, record in enumerate(info["records"].tolist()):
        for view, want in zip(views, dataset.sample(record, epoch=0)):
            assert torch.equal(view[slot], want)


def test_index_list_labels(pack: Path) -> None:
    """solo-learn: [index, list, labels], a list."""
    dataset = ShardDataset(pack, small(recipes.byol()))
    batch = next(iter(DataLoader(dataset, N)))
    assert type(batch) is list and len(batch) == 3
    index, views, labels = batch
    assert index.tolist() == [0, 1, 2, 3, 4] and labels.shape == (N,) and type(views) is list and len(views) == 2


def test_list_labels_masks(pack: Path) -> None:
    """iBOT: a bool mask for every view, locals included."""
    (views, labels, masks), info, dataset = batch_of(pack, recipes.ibot(local_crops=2))
    assert [tuple(mask.shape) for mask in masks] == [(N, 14, 14)] * 2 + [(N, 6, 6)] * 2
    assert all(mask.dtype == torch.bool for mask in masks) and labels.shape == (N,)
    assert_views(views, info, dataset)


def test_tensor_label(pack: Path) -> None:
    for recipe in (recipes.mae(size=32), recipes.supervised(size=32), recipes.evaluate(resize=40, size=32)):
        (view, labels), info, dataset = batch_of(pack, recipe)
        assert tuple(view.shape) == (N, 3, 32, 32) and labels.dtype == torch.int64
        assert_views([view], info, dataset)


def test_tensor_label_masks(pack: Path) -> None:
    """MAE's mask on request, as models_mae.py:123-148 has it."""
    (view, _, masks), _, _ = batch_of(pack, recipes.mae(size=64, mask_ratio=0.75))
    assert masks["ids_keep"].shape == (N, 4) and masks["mask"].sum(1).tolist() == [12.0] * N
    again = torch.arange(16).repeat(N, 1).gather(1, masks["ids_restore"].argsort(1))[:, :4]
    assert torch.equal(masks["ids_keep"], again)
    assert not masks["mask"].gather(1, masks["ids_keep"]).any()


@pytest.fixture
def no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Structures copy in one way only."""

    def copied(*_: Any, **__: Any) -> None:
        raise AssertionError("pixels are copied")

    monkeypatch.setattr("pass_loader.loading.structures._copied", copied)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_pair_on_channels(pack: Path, dtype: torch.dtype, no_copy: None) -> None:
    """Both views one after the other on the channels, contiguous, of the loader's own memory."""
    recipe = small(recipes.simclr())
    (pair, labels), info, dataset = batch_of(pack, recipe, dtype=dtype)
    assert tuple(pair.shape) == (N, 6, 32, 32) and pair.is_contiguous() and labels.shape == (N,)
    plain, _, _ = batch_of(pack, Recipe("plain", recipe.views, recipe.mean, recipe.std), dtype=dtype)
    assert torch.equal(torch.cat(plain[0], dim=1), pair)
    assert pair.untyped_storage().nbytes() == pair.nbytes, "the views' own memory, no copy and nothing beside"
    (pair, index), info, _ = batch_of(pack, small(recipes.simclr(batch="pair_index")))
    assert torch.equal(index, info["records"])
    with pytest.raises(ValueError, match="channels_last is not possible"):
        batch_of(pack, recipe, channels_last=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dinov2_dict(pack: Path, dtype: torch.dtype, no_copy: None) -> None:
    """Keys, shapes, types and invariants of dinov2/data/collate.py; crop-major stacks in the loader's own memory."""
    recipe = recipes.dinov2(local_crops=3, global_size=64, local_size=32, patch=8)
    (batch,), info, dataset = batch_of(pack, recipe, dtype=dtype)
    assert list(batch) == ["collated_global_crops", "collated_local_crops", "collated_masks", "mask_indices_list",
                           "masks_weight", "upperbound", "n_masked_patches"]  # fmt: skip
    crops = batch["collated_global_crops"], batch["collated_local_crops"]
    assert [tuple(crop.shape) for crop in crops] == [(2 * N, 3, 64, 64), (3 * N, 3, 32, 32)]
    for crop in crops:
        assert crop.dtype == dtype and crop.is_contiguous() and crop.untyped_storage().nbytes() == crop.nbytes
    assert_views([crops[0][:N].float(), crops[0][N:].float()], info, Half(dataset, dtype))
    masks = batch["collated_masks"]
    assert masks.dtype == torch.bool and masks.shape == (2 * N, 64)
    assert batch["mask_indices_list"].dtype == torch.int64
    assert torch.equal(batch["mask_indices_list"], masks.flatten().nonzero().flatten())
    weights = (1 / masks.sum(-1).clamp(min=1.0)).unsqueeze(-1).expand_as(masks)[masks]
    assert torch.equal(batch["masks_weight"], weights) and batch["masks_weight"].dtype == torch.float32
    assert int((masks.sum(-1) > 0).sum()) == N and isinstance(batch["upperbound"], int)
    assert batch["n_masked_patches"].tolist() == [int(masks.sum())] and int(masks.sum()) <= batch["upperbound"]


class Half:
    """A dataset whose samples are rounded to a half type."""

    def __init__(self, dataset: ShardDataset, dtype: torch.dtype):
        self.dataset, self.dtype = dataset, dtype

    def sample(self, record: int, epoch: int) -> list[torch.Tensor]:
        return [view.to(self.dtype).float() for view in self.dataset.sample(record, epoch)]


def test_dinov3_dict_with_gram_crops(pack: Path, no_copy: None) -> None:
    """The gram crops are a stack of their own, also where they have the global views' size."""
    for gram_size in (64, 48):
        recipe = recipes.dinov3(local_crops=1, global_size=48, local_size=32, gram_size=gram_size, patch=8)
        (batch,), info, dataset = batch_of(pack, recipe)
        assert batch["collated_gram_teacher_crops"].shape == (2 * N, 3, gram_size, gram_size)
        crops = [batch[f"collated_{name}_crops"] for name in ("global", "gram_teacher", "local")]
        assert_views([part for crop in crops for part in crop.split(N)], info, dataset)


def test_masks_resume_and_know_their_rank(pack: Path) -> None:
    """Draws of a batch are keyed by its place in the epoch: a resumed run goes on with them, ranks have their own."""
    dataset = ShardDataset(pack, recipes.dinov2(local_crops=1, global_size=32, local_size=16, patch=4))

    def masks(loader: DataLoader) -> list[list[list[bool]]]:
        return [batch["collated_masks"].tolist() for batch in loader]

    def masked(batches: list[list[list[bool]]]) -> list[tuple[bool, ...]]:
        return [tuple(any(mask) for mask in batch) for batch in batches]

    want = masks(DataLoader(dataset, 4, shuffle=True))
    assert len(want) == 6 and len(set(masked(want))) > 4, "every batch draws anew which of its views have masks"
    loader, resumed = DataLoader(dataset, 4, shuffle=True, num_workers=1), DataLoader(dataset, 4, shuffle=True)
    first = iter(loader)
    next(first), next(first)
    resumed.load_state_dict(loader.state_dict())
    assert masks(resumed) == want[2:]
    one, two = (masked(masks(DataLoader(dataset, 4, rank=rank, world_size=2))) for rank in range(2))
    assert one != two, "which views have masks is drawn for each rank"


def test_ijepa_triple(pack: Path) -> None:
    """([images, labels], encoder masks, predictor masks): src/train.py:278-286."""
    dataset = ShardDataset(pack, recipes.ijepa(size=112, patch=8))
    udata, encoders, predictors = next(iter(DataLoader(dataset, N)))
    assert type(udata) is list and udata[0].shape == (N, 3, 112, 112) and udata[1].shape == (N,)
    assert len(encoders) == 1 and len(predictors) == 4
    assert all(mask.dtype == torch.int64 and mask.shape[0] == N for mask in encoders + predictors)
    assert len({mask.shape for mask in predictors}) == 1


def test_simmim_list(pack: Path) -> None:
    """[images, masks, labels]: data/data_simmim.py:83-93."""
    dataset = ShardDataset(pack, recipes.simmim(size=64))
    batch = next(iter(DataLoader(dataset, N)))
    assert type(batch) is list and [part.shape for part in batch] == [(N, 3, 64, 64), (N, 16, 16), (N,)]
    assert batch[1].dtype == torch.int64 and batch[1].sum((1, 2)).tolist() == [3 * 64] * N


def test_beit_and_mugs(pack: Path) -> None:
    """([patches, tokens, mask], labels): beit/engine_for_pretraining.py:38-46; [crops, weak flags]: mugs' main.py."""
    (patches, tokens, mask), labels = next(iter(DataLoader(ShardDataset(pack, recipes.beit()), N)))
    assert patches.shape == (N, 3, 224, 224) and tokens.shape == (N, 3, 112, 112) and labels.shape == (N,)
    assert mask.shape == (N, 14, 14) and mask.dtype == torch.int64
    batch = next(iter(DataLoader(ShardDataset(pack, recipes.mugs(local_crops=1)), N)))
    assert type(batch) is list and len(batch[0]) == 5 and batch[1].dtype == torch.bool and batch[1].shape == (N,)


def test_dall_es_values() -> None:
    """beit/dall_e/utils.py: map_pixels."""
    x = torch.arange(256) / 255
    ours = torch.from_numpy(recipes.beit().normalize_table(1)[0])
    assert (ours - ((1 - 2 * 0.1) * x + 0.1)).abs().max() < 1.3e-7


def test_capi_dict(pack: Path) -> None:
    """data.py:449-472: places in the whole batch; what is predicted is not visible. Kills: places in the picture."""
    (batch,), info, dataset = batch_of(pack, recipes.capi(size=56))
    assert list(batch) == ["images", "predict_indices", "visible_indices"]
    assert_views([batch["images"]], info, dataset)
    visible, predicted = batch["visible_indices"], batch["predict_indices"]
    assert visible.dtype == predicted.dtype == torch.int64 and visible.shape == (N * 6,) and predicted.shape == (0,)
    assert (visible // 16).tolist() == sorted([*range(N)] * 6) and (visible.diff() > 0).all()
    (batch,), *_ = batch_of(pack, recipes.capi(size=112, predicted=0.2))
    visible, predicted = {*batch["visible_indices"].tolist()}, batch["predict_indices"].tolist()
    assert len({*predicted}) == len(predicted) == N * 8 and not visible & {*predicted}
    assert [place // 64 for place in predicted] == sorted([*range(N)] * 8)


def test_vissl_dict(pack: Path) -> None:
    """multicrop_collator.py: an entry a view and sample, view-major; data_valid as the info's."""
    dataset = ShardDataset(pack, small(recipes.seer()))
    batch = next(iter(DataLoader(dataset, N)))
    assert set(batch) == {"data", "label", "data_valid", "data_idx"} and all(len(part) == 1 for part in batch.values())
    assert [tuple(view.shape) for view in batch["data"][0]] == [(N, 3, 32, 32)] * 2 + [(N, 3, 16, 16)] * 4
    assert batch["data_idx"][0].tolist() == [0, 1, 2, 3, 4] * 6 and batch["data_valid"][0].tolist() == [True] * 6 * N
    assert batch["label"][0].shape == (6 * N,)


def test_a_structure_can_be_chosen(pack: Path) -> None:
    recipe = dataclasses.replace(small(recipes.dino(local_crops=1)), batch="vissl")
    assert "data_idx" in next(iter(DataLoader(ShardDataset(pack, recipe), 2)))
    for change, message in (
        ({"batch": "tuple"}, "batch is 'tuple', want one of views"),
        ({"batch": "view_labels"}, "is of 1 views, the recipe has 3"),
        ({"batch": "dinov2"}, "wants StratifiedMasks, the recipe has masks None"),
        ({"masks": recipes.RandomMasks()}, "wants no masks"),
        ({"batch": "pair_labels", "views": recipe.views[1:]}, "both views must have one size"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(recipe, **change)


def pixels_of(part: Any) -> list[torch.Tensor]:
    """The tensors of views in a batch."""
    if isinstance(part, torch.Tensor):
        return [part] if part.dim() == 4 else []
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else []
    return [one for each in inner for one in pixels_of(each)]


@pytest.mark.parametrize("name", [*sorted(recipes.PRESETS), "pair_index", "gram"])
def test_no_structure_copies(pack: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a batch gives is the memory that the threads wrote to."""
    given = {"pair_index": lambda: recipes.simclr(batch="pair_index"), "gram": lambda: recipes.dinov3(gram_size=256)}
    written: set[int] = set()
    allocate = Renderer._allocate

    def noted(*arguments: Any) -> tuple[torch.Tensor, np.ndarray]:
        tensor, array = allocate(*arguments)
        written.add(tensor.untyped_storage().data_ptr())
        return tensor, array

    monkeypatch.setattr(Renderer, "_allocate", noted)
    batch = next(iter(DataLoader(ShardDataset(pack, (given | recipes.PRESETS)[name]()), 2)))
    found = pixels_of(batch)
    assert found and {view.untyped_storage().data_ptr() for view in found} == written


def test_stack_without_neighbours_copies() -> None:
    """What "skip" has cut smaller is copied already; a stack of such views copies once more, and is right."""
    views = [torch.full((2, 1, 2, 2), float(number)) for number in range(3)]
    assert stack(views).flatten(1).mean(1).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["byol", "simclr", "mae", "evaluate", "swav", "ijepa"])
def test_samples_of_torchs_own_loader(pack: Path, name: str) -> None:
    """Default collation of a map dataset's samples gives the structure, but for masks and dicts."""
    recipe = recipes.evaluate(resize=40, size=32) if name == "evaluate" else small(recipes.PRESETS[name]())
    dataset = ShardDataset(pack, recipe)
    dataset.set_epoch(0)
    theirs = default_collate([dataset.as_map()[position] for position in range(3)])
    ours = next(iter(DataLoader(dataset, 3)))
    if name == "ijepa":
        theirs, ours = [theirs[0][0], theirs[1]], ours[0]

    def flat(part: Any) -> list[torch.Tensor]:
        return [part] if isinstance(part, torch.Tensor) else [one for inner in part for one in flat(inner)]

    assert len(flat(ours)) == len(flat(theirs))
    for mine, other in zip(flat(ours), flat(theirs)):
        assert np.array_equal(mine.numpy(), other.numpy())
