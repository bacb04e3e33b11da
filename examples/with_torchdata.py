"""torchdata: `python examples/with_torchdata.py PACK`.

The loader has StatefulDataLoader's protocol, `state_dict` and `load_state_dict`: a loop written for the one takes the
other as it is. In a graph of torchdata.nodes it is a source, whose place is part of the graph's state.
"""

from __future__ import annotations

from typing import Any

import torchdata.nodes
from command_line import arguments

import pass_loader
from pass_loader import recipes


def make(pack: str, batch_size: int = 4) -> pass_loader.DataLoader[Any]:
    """Return a loader in place of StatefulDataLoader."""
    dataset = pass_loader.ShardDataset(pack, recipes.mocov2(), seed=0)
    return pass_loader.DataLoader(dataset, batch_size, shuffle=True, num_workers=2, drop_last=True)


def graph(loader: pass_loader.DataLoader[Any]) -> torchdata.nodes.Loader[Any]:
    """Return a graph that begins with a loader. Your nodes go in between; set epochs of the loader's sampler."""
    source = torchdata.nodes.IterableWrapper(loader)
    return torchdata.nodes.Loader(torchdata.nodes.Prefetcher(source, 2))


def main() -> None:
    (pack,) = arguments(__doc__)
    loader = make(pack)
    batches = graph(loader)
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for number, (views, _) in enumerate(batches):
            print(epoch, number, [tuple(view.shape) for view in views])
    state = batches.state_dict()  # graph(make(pack)).load_state_dict(state) goes on with the next batch
    print("state", *state)


if __name__ == "__main__":
    main()
