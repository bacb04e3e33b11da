"""Grain: `python examples/with_grain.py PACK`.

`PackSource` is a RandomAccessDataSource of a pack's samples. Grain shuffles, reads in its own threads or processes, and
resumes; a sample's views are those that this loader gives for the same record and epoch.
"""

from __future__ import annotations

from typing import Any

import grain
import numpy as np
from command_line import arguments

import pass_loader
from pass_loader import recipes
from pass_loader.pack import Pack


class PackSource:
    """Samples of a pack, one epoch behind the other: item i is live record i % records in epoch i // records.

    An item is (list of (3, height, width) float32 arrays, label).
    """

    def __init__(self, pack: str, recipe: pass_loader.Recipe, seed: int = 0, epochs: int = 1):
        opened = Pack(pack)
        self._records = np.setdiff1d(np.arange(opened.records), opened.removed)
        self._labels = opened.column("label")
        self._dataset = pass_loader.ShardDataset(pack, recipe, seed=seed)
        self.records, self.epochs = len(self._records), epochs

    def __len__(self) -> int:
        return self.records * self.epochs

    def __getitem__(self, item: Any) -> tuple[list[np.ndarray], int]:
        epoch, place = divmod(int(item), self.records)
        record = int(self._records[place])
        return [view.numpy() for view in self._dataset.sample(record, epoch)], int(self._labels[record])


def batches(source: PackSource, batch_size: int = 4) -> Any:
    """Return Grain's iterable of batches: every epoch in an order of its own."""
    order = grain.MapDataset.range(source.records).seed(0).shuffle().repeat(source.epochs)
    samples = order.map_with_index(lambda item, place: source[item // source.records * source.records + place])
    return samples.batch(batch_size, drop_remainder=True).to_iter_dataset()


def main() -> None:
    (pack,) = arguments(__doc__)
    for number, (views, labels) in enumerate(batches(PackSource(pack, recipes.mocov2(), epochs=2))):
        print(number, [view.shape for view in views], labels)


if __name__ == "__main__":
    main()
