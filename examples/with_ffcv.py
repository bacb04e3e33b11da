"""FFCV: `python examples/with_ffcv.py BETON PACK`. A .beton becomes a pack, and this loader takes the place of FFCV's.

FFCV need not be installed. JPEGs are copied byte for byte, and the fields of numbers become labels and metadata; where
FFCV's writer stored raw pixels, `build` wants transcode="png".
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from command_line import existing

import pass_loader
from pass_loader import recipes
from pass_loader.pack import build


def make(beton: Path, place: Path, batch_size: int = 4) -> pass_loader.DataLoader[Any]:
    """Return a loader of (pictures, labels) in place of FFCV's Loader, whose file is packed where it is not yet.

    The recipe stands for RandomResizedCropRGBImageDecoder, RandomHorizontalFlip, ToTorchImage and NormalizeImage,
    shuffle=True for OrderOption.RANDOM.
    """
    if not (place / "pack.json").exists():
        build([beton], place)
    dataset = pass_loader.ShardDataset(place, recipes.supervised(), seed=0)
    return pass_loader.DataLoader(dataset, batch_size, shuffle=True, num_workers=2, drop_last=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("beton", type=existing, metavar="BETON", help="a file of FFCV's DatasetWriter")
    parser.add_argument("pack", type=Path, metavar="PACK", help="where the pack is, or goes")
    options = parser.parse_args()
    for number, (pictures, labels) in enumerate(make(options.beton, options.pack)):
        print(number, tuple(pictures.shape), labels.tolist())


if __name__ == "__main__":
    main()
