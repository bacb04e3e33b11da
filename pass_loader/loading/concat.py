"""ConcatDataset: several packs as one dataset, each with its own choice of records and labels."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.weights import Mixture
from ..recipes.recipe import Recipe
from .dataset import ShardDataset


class ConcatDataset(ShardDataset):
    """The samples of several ShardDatasets, as in torch's ConcatDataset: those of the first, then of the second.

    Takes the place of a ShardDataset everywhere: in our DataLoader, in torch's, by as_map, for single samples. A
    record's number is that in its pack plus `pack.first_record` of the pack, so that views, which depend on (seed,
    epoch, record), differ between packs. A batch may hold records of all of them. Its info says in "datasets" which one
    each record comes from, as an int64 tensor (N,).

    datasets: with equal recipes (names, mean and std apart) and seeds. Each keeps its records, ids, labels, companions,
        heatmaps, mean and std: each sample of a batch is normalised by its own pack's, the view of its companion too.
        All labels must have one shape. `recipe` is the first dataset's, `normalized_recipes()` are all.
    weights: None for every record once an epoch. Else one number a dataset: its share of an epoch's samples. Shares are
        exact, the records of a dataset come in turns, and which ones come is a pure function of (seed, epoch) (see
        data.weights.Mixture). With torch's ConcatDataset and WeightedRandomSampler shares are met on average only, and
        a record may come twice before another comes once.
    num_samples: with weights, samples an epoch; None: as many as there are live records.

    Raises ValueError where the datasets do not fit together.
    """

    def __init__(
        self,
        datasets: Sequence[ShardDataset],
        weights: Sequence[float] | None = None,
        *,
        num_samples: int | None = None,
    ):
        self.datasets = list(datasets)
        _check(self.datasets)
        if weights is None and num_samples is not None:
            raise ValueError("num_samples goes with weights: without them an epoch is every record once")
        first = self.datasets[0]
        mixture = None if weights is None else Mixture.of(weights, num_samples, first.seed, len(self.datasets))
        parts = [part for dataset in self.datasets for part in dataset.parts]
        self._set_up(parts, first.seed, is_several=True, mixture=mixture)
        self._begin()

    def __repr__(self) -> str:
        weights = "" if self.mixture is None else f", weights {self.mixture.weights}"
        packs = ", ".join(repr(part.pack) for part in self.parts)
        return f"ConcatDataset({len(self)} samples of {packs}, {self._told()}{weights})"

    @property
    def cumulative_sizes(self) -> list[int]:
        """Numbers of positions that precede the end of each dataset, as in torch."""
        return self.live.ends.tolist()  # type: ignore[attr-defined]


def _check(datasets: Sequence[ShardDataset]) -> None:
    if not datasets:
        raise ValueError("datasets is empty: want one ShardDataset or more")
    for dataset in datasets:
        if not isinstance(dataset, ShardDataset) or isinstance(dataset, ConcatDataset):
            raise TypeError(f"datasets holds a {type(dataset).__name__}, want ShardDatasets")
    first = datasets[0]
    for number, dataset in enumerate(datasets):
        if dataset.seed != first.seed:
            raise ValueError(f"dataset 0 has seed {first.seed}, dataset {number} {dataset.seed}: want one seed")
        if _views(dataset.recipe) != _views(first.recipe):
            raise ValueError(
                f"datasets 0 and {number} have other recipes: want one, which gives all samples of a batch their form; "
                "mean and std alone may differ"
            )
        if dataset.label_shape() != first.label_shape():
            raise ValueError(
                f"labels of dataset 0 have shape {first.label_shape()} a record, of dataset {number} "
                f"{dataset.label_shape()}: give labels= of one shape to all, for example "
                f"numpy.full(({dataset.pack.records}, L), -1)"
            )


def _views(recipe: Recipe) -> tuple[object, ...]:
    steps = recipe.step_rows()
    further = b"" if steps is None else steps.tobytes()
    return (
        recipe.row_bytes(),
        further,
        recipe.batch,
        recipe.masks,
        recipe.companion,
        recipe.channels,
        [(view.mean, view.std) for view in recipe.views],
    )
