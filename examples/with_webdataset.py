"""WebDataset reads a pack's shards, which are plain tars: `python examples/with_webdataset.py PACK`.

Shards are split over nodes and workers, or drawn again and again. For packs of the codecs jpeg and png; records that
were removed are in the shards until `pass-pack purge`, and are left out here by their ids.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote  # dots in an id are encoded in the name of a member

import webdataset
from command_line import arguments

from pass_loader.pack import Pack


def samples(pack: str, resampled: bool = False, nodesplitter: Any = webdataset.split_by_node) -> Any:
    """Return a WebDataset of {"__key__": id, "jpg": bytes} of the live records."""
    opened = Pack(pack)
    removed = set(opened.ids(opened.removed))
    tars = opened.tar_paths()
    found = webdataset.WebDataset(tars, resampled=resampled, nodesplitter=nodesplitter, shardshuffle=False)
    return found.select(lambda sample: unquote(sample["__key__"]) not in removed)


def main() -> None:
    (pack,) = arguments(__doc__)
    for sample in samples(pack):
        print(sample["__key__"], len(sample["jpg"]))


if __name__ == "__main__":
    main()
